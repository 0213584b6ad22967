//! Lookups are counted where the library asks for what it may have cached; nothing is cached here, as the resolver does that.

use mail_auth::dmarc::Dmarc;
use mail_auth::{DnsError, Error, MX, RecordSet, ResolverCache, Txt};
use std::borrow::Borrow;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// The lookups of all checks of a message, SPF apart, which has limits of its own.
#[derive(Debug)]
pub(crate) struct Ledger {
    left: AtomicU32,
    exceeded: AtomicBool,
    /// The DMARC records that were found, by the names that were asked for.
    records: Mutex<Vec<(Box<str>, Arc<Dmarc>)>>,
}

/// DMARC records that are remembered; a walk up the tree asks for eight at most.
const RECORDS_MAX: usize = 64;

impl Ledger {
    pub(crate) fn new(most: u32) -> Self {
        Self {
            left: AtomicU32::new(most),
            exceeded: AtomicBool::new(false),
            records: Mutex::default(),
        }
    }

    /// The domain at which a record stands that was found.
    pub(crate) fn place_of(&self, record: &Arc<Dmarc>) -> Option<String> {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let (name, _) = records
            .iter()
            .rev()
            .find(|(_, own)| Arc::ptr_eq(own, record))?;
        let domain = name.strip_prefix("_dmarc.")?;
        Some(domain.trim_end_matches('.').to_ascii_lowercase())
    }

    fn note(&self, name: Box<str>, value: Txt) {
        if let Txt::Dmarc(record) = value {
            let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
            if records.len() < RECORDS_MAX {
                records.push((name, record));
            }
        }
    }

    fn forget<K, V>(&self, _: K, _: V) {}

    /// Whether a lookup was not made.
    pub(crate) fn exceeded(&self) -> bool {
        self.exceeded.load(Relaxed)
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

    /// What a lookup of addresses or names gets that must not be made: nothing, and the result is replaced by an error later.
    fn nothing<T>(&self) -> Option<RecordSet<T>> {
        self.take().then(|| RecordSet {
            rrset: Arc::from(Vec::new()),
            dnssec_status: Default::default(),
        })
    }

    fn text(&self) -> Option<Txt> {
        let refused = || {
            Txt::Error(Error::Dns(DnsError::Resolver(
                "too many lookups".to_owned(),
            )))
        };
        self.take().then(refused)
    }
}

/// The answers are not kept, their number is, and which DMARC records there were.
macro_rules! counted {
    ($key:ty => $value:ty, $get:ident, $insert:ident) => {
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

            fn insert(&self, key: $key, value: $value, _: Instant) {
                self.$insert(key, value);
            }
        }
    };
}

counted!(Box<str> => Txt, text, note);
counted!(Box<str> => RecordSet<MX>, nothing, forget);
counted!(Box<str> => RecordSet<Ipv4Addr>, nothing, forget);
counted!(Box<str> => RecordSet<Ipv6Addr>, nothing, forget);
counted!(IpAddr => RecordSet<Box<str>>, nothing, forget);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookups_run_out() {
        let ledger = Ledger::new(2);
        let text = || ResolverCache::<Box<str>, Txt>::get(&ledger, "x");
        assert!(text().is_none() && text().is_none() && !ledger.exceeded());
        assert!(matches!(text(), Some(Txt::Error(_))) && ledger.exceeded());
    }
}
