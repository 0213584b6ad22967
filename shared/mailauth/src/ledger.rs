//! Lookups are counted where the library asks for what it may have cached; nothing is cached here, as the resolver does that.

use mail_auth::{DnsError, Error, MX, RecordSet, ResolverCache, Txt};
use std::borrow::Borrow;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering::Relaxed};
use std::time::Instant;

/// Lookups that find nothing, of one SPF check, at most (RFC 7208 4.6.4).
const VOID_MAX: i64 = 2;

/// The lookups of one check, or of several that share a bound.
#[derive(Debug)]
pub(crate) struct Ledger {
    left: AtomicU32,
    exceeded: AtomicBool,
    /// Lookups of addresses and MX records so far that found nothing, the one under way included.
    void: AtomicI64,
    v4: bool,
    /// The next question for an IPv6 address is the second half of `exists`.
    exists: AtomicBool,
}

impl Ledger {
    pub(crate) fn new(most: u32, client: IpAddr) -> Self {
        Self {
            left: AtomicU32::new(most),
            exceeded: AtomicBool::new(false),
            void: AtomicI64::new(0),
            v4: client.to_canonical().is_ipv4(),
            exists: AtomicBool::new(false),
        }
    }

    /// Whether a lookup was not made.
    pub(crate) fn exceeded(&self) -> bool {
        self.exceeded.load(Relaxed)
    }

    /// Whether more lookups found nothing than SPF allows.
    pub(crate) fn too_many_void(&self) -> bool {
        self.void.load(Relaxed) > VOID_MAX
    }

    /// Counts a lookup; `true` if it must not be made.
    fn take(&self) -> bool {
        let taken = self
            .left
            .fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1))
            .is_ok();
        if !taken {
            self.exceeded.store(true, Relaxed);
        }
        !taken
    }

    /// What a lookup of addresses gets that must not be made: nothing, and the result is replaced by an error later.
    fn nothing<T>(&self) -> Option<RecordSet<T>> {
        self.take().then(|| RecordSet {
            rrset: Arc::from(Vec::new()),
            dnssec_status: Default::default(),
        })
    }
}

/// The answers are not kept, their number is.
macro_rules! counted {
    ($key:ty => $value:ty, $get:ident, $found:expr) => {
        impl ResolverCache<$key, $value> for Ledger {
            fn get<Q>(&self, _: &Q) -> Option<$value>
            where
                $key: Borrow<Q>,
                Q: Hash + Eq + ?Sized,
            {
                self.$get()
            }

            fn remove<Q>(&self, _: &Q) -> Option<$value>
            where
                $key: Borrow<Q>,
                Q: Hash + Eq + ?Sized,
            {
                None
            }

            fn insert(&self, _: $key, _: $value, _: Instant) {
                self.void.fetch_sub($found, Relaxed);
            }
        }
    };
}

counted!(Box<str> => Txt, text, 0);
counted!(Box<str> => RecordSet<MX>, exchange, 1);
counted!(Box<str> => RecordSet<Ipv4Addr>, v4, 1);
counted!(Box<str> => RecordSet<Ipv6Addr>, v6, 1);
counted!(IpAddr => RecordSet<Box<str>>, nothing, 0);

impl Ledger {
    fn text(&self) -> Option<Txt> {
        let refused = || Txt::Error(Error::Dns(DnsError::Resolver("too many lookups".to_owned())));
        self.take().then(refused)
    }

    fn exchange(&self) -> Option<RecordSet<MX>> {
        self.void.fetch_add(1, Relaxed);
        self.nothing()
    }

    /// A client is looked for by its own kind of address; `exists` asks for both kinds, one after the other, and does not tell
    /// what it found.
    fn v4(&self) -> Option<RecordSet<Ipv4Addr>> {
        if self.v4 {
            self.void.fetch_add(1, Relaxed);
        } else {
            self.exists.store(true, Relaxed);
        }
        self.nothing()
    }

    fn v6(&self) -> Option<RecordSet<Ipv6Addr>> {
        if self.v4 {
            self.void.fetch_sub(1, Relaxed);
            return None;
        }
        if !self.exists.swap(false, Relaxed) {
            self.void.fetch_add(1, Relaxed);
        }
        self.nothing()
    }
}
