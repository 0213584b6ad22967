//! The Sender Rewriting Scheme: a message that is forwarded leaves under an address of ours, so that the next host's SPF check
//! finds us; what comes back to that address goes on to the sender.
//!
//! The form is the published one (M. Weng, S. Liu, "The Sender Rewriting Scheme"): `SRS0=hash=day=host=user`, and
//! `SRS1=hash=host==rest` for what another host has rewritten already. The hash is keyd's, and no letter's case counts in it.

use crate::config::Srs as Config;
use crate::grant::Seal;
use crate::resolve::Resolver;
use ipc::Fault;
use ipc::api::authd::{Resolution, Target};
use std::sync::Arc;
use types::{Address, Enhanced, Status, TraceId};

/// What keyd's seals for these addresses are for.
pub(crate) const PURPOSE: &str = "posthouse srs 1";

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
/// Characters of a hash: 40 bits.
const HASH: usize = 8;
/// Days until the two characters of a day begin again.
const DAYS: u64 = 1024;
const DAY: u64 = 86_400;

/// An address of the scheme, taken apart. The texts are as they came.
#[derive(Debug, PartialEq, Eq)]
enum Form<'a> {
    /// Rewritten here in the first place.
    Zero {
        hash: &'a str,
        day: &'a str,
        host: &'a str,
        user: &'a str,
    },
    /// Rewritten by `host` before; `rest` is what stood behind its `SRS0`.
    One {
        hash: &'a str,
        host: &'a str,
        rest: &'a str,
    },
}

/// What the local part is behind `SRS0` or `SRS1`, with the separator.
fn tagged<'a>(local: &'a str, tag: &str) -> Option<&'a str> {
    let (head, rest) = local.split_at_checked(4)?;
    let separated = rest.starts_with(['=', '+', '-']);
    (head.eq_ignore_ascii_case(tag) && separated).then_some(rest)
}

/// `None` if it is an ordinary address.
fn parse(local: &str) -> Option<Form<'_>> {
    if let Some(rest) = tagged(local, "SRS0") {
        let mut parts = rest.get(1..)?.splitn(4, '=');
        let (hash, day) = (parts.next()?, parts.next()?);
        let (host, user) = (parts.next()?, parts.next()?);
        return Some(Form::Zero {
            hash,
            day,
            host,
            user,
        });
    }
    let rest = tagged(local, "SRS1")?;
    let mut parts = rest.get(1..)?.splitn(3, '=');
    Some(Form::One {
        hash: parts.next()?,
        host: parts.next()?,
        rest: parts.next()?,
    })
}

fn letter(five_bits: u64) -> char {
    let index = usize::try_from(five_bits & 31).unwrap_or(0);
    BASE32.get(index).copied().map_or('A', char::from)
}

/// The day as two characters.
fn stamp(now: u64) -> String {
    let day = now / DAY % DAYS;
    [letter(day >> 5), letter(day)].iter().collect()
}

/// How many days ago a stamp was made; `None` if it is none.
fn age(stamp: &str, now: u64) -> Option<u64> {
    let value = |octet: u8| {
        BASE32
            .iter()
            .position(|one| *one == octet.to_ascii_uppercase())
            .and_then(|at| u64::try_from(at).ok())
    };
    let [high, low] = stamp.as_bytes() else {
        return None;
    };
    let day = value(*high)? * 32 + value(*low)?;
    Some((now / DAY % DAYS + DAYS - day) % DAYS)
}

fn text_of(mac: &[u8]) -> String {
    let mut text = String::with_capacity(HASH);
    for five in mac.chunks(5) {
        let bits = five
            .iter()
            .fold(0_u64, |bits, octet| bits << 8 | u64::from(*octet));
        for at in (0..8).rev() {
            text.push(letter(bits >> (at * 5)));
        }
        if text.len() >= HASH {
            break;
        }
    }
    text.truncate(HASH);
    text
}

/// Rewrites and finds back.
pub(crate) struct Srs {
    seal: Seal,
    config: Config,
    resolver: Arc<Resolver>,
}

impl Srs {
    pub(crate) fn new(seal: Seal, config: Config, resolver: Arc<Resolver>) -> Self {
        Self {
            seal,
            config,
            resolver,
        }
    }

    async fn hash(&self, trace: TraceId, parts: &[&str]) -> Result<String, Fault> {
        let data = parts.join("\0").to_lowercase().into_bytes();
        let mac = (self.seal)(trace, data).await?;
        Ok(text_of(&mac.0))
    }

    /// The address under which a message goes on, from `owner` (whose domain is ours) to `to`; `None`: under its own.
    ///
    /// # Errors
    /// keyd or the directory is away.
    pub(crate) async fn forward(
        &self,
        trace: TraceId,
        sender: &Address,
        owner: &Address,
        to: &[Address],
        now: u64,
    ) -> Result<Option<Address>, Fault> {
        if !self.config.enabled || sender.domain().starts_with('[') {
            return Ok(None);
        }
        // Our own hosts may send for our own domains.
        if self.resolver.serves(sender.domain()).await? {
            return Ok(None);
        }
        let mut leaves = false;
        for address in to {
            leaves |= !self.resolver.serves(address.domain()).await?;
        }
        if !leaves {
            return Ok(None);
        }
        let domain = match self.config.domain.as_str() {
            "" => owner.domain(),
            domain => domain,
        };
        let local = match parse(sender.local()) {
            None => {
                let (day, host, user) = (stamp(now), sender.domain(), sender.local());
                let hash = self.hash(trace, &["0", &day, host, user]).await?;
                format!("SRS0={hash}={day}={host}={user}")
            }
            Some(Form::Zero { .. }) => {
                let rest = tagged(sender.local(), "SRS0").unwrap_or_default();
                let hash = self.hash(trace, &["1", sender.domain(), rest]).await?;
                format!("SRS1={hash}={}={rest}", sender.domain())
            }
            // The one who rewrote it second is left out: what comes back goes to the first.
            Some(Form::One { host, rest, .. }) => {
                let hash = self.hash(trace, &["1", host, rest]).await?;
                format!("SRS1={hash}={host}={rest}")
            }
        };
        match Address::new(&local, domain) {
            Ok(address) => Ok(Some(address)),
            Err(error) => {
                // RFC 5321 4.5.3.1.1: 64 octets are little room.
                tracing::warn!(%trace, %sender, %error, "forwarded under the sender's own address");
                Ok(None)
            }
        }
    }

    /// Where mail for an address of the scheme goes; `None` if it is an ordinary one, or of a domain that is not ours.
    ///
    /// # Errors
    /// keyd or the directory is away.
    pub(crate) async fn back(
        &self,
        trace: TraceId,
        address: &Address,
        now: u64,
    ) -> Result<Option<Resolution>, Fault> {
        let Some(form) = parse(address.local()) else {
            return Ok(None);
        };
        if !self.resolver.serves(address.domain()).await? {
            return Ok(None);
        }
        let (hash, parts, local, host) = match &form {
            Form::Zero {
                hash,
                day,
                host,
                user,
            } => (
                *hash,
                vec!["0", *day, *host, *user],
                (*user).to_owned(),
                *host,
            ),
            Form::One { hash, host, rest } => {
                (*hash, vec!["1", *host, *rest], format!("SRS0{rest}"), *host)
            }
        };
        let refused = |text: &str| {
            Ok(Some(Resolution::Refused(Status {
                code: 550,
                enhanced: Enhanced(5, 7, 1),
                text: format!("{address}: {text}"),
                host: None,
            })))
        };
        if !same(&self.hash(trace, &parts).await?, hash) {
            return refused("this forwarding address was not made here (SRS)");
        }
        if let Form::Zero { day, .. } = form {
            match age(day, now) {
                Some(days) if days <= u64::from(self.config.days) => {}
                _ => return refused("this forwarding address has expired (SRS)"),
            }
        }
        let Ok(original) = Address::new(&local, host) else {
            return refused("this forwarding address is damaged (SRS)");
        };
        if self.resolver.serves(original.domain()).await? {
            return Ok(Some(self.resolver.resolve(&original).await?));
        }
        Ok(Some(Resolution::Local(vec![Target::Forward(original)])))
    }
}

/// In a time that does not tell how much of it is right.
fn same(wanted: &str, given: &str) -> bool {
    let pairs = wanted.bytes().zip(given.bytes());
    let different = pairs.fold(0, |sum, (a, b)| {
        sum | (a.to_ascii_uppercase() ^ b.to_ascii_uppercase())
    });
    wanted.len() == given.len() && different == 0
}

/// Local parts, one a line, as anybody may write them to RCPT: what is taken apart can be put together again.
pub fn fuzz(octets: &[u8]) {
    for local in String::from_utf8_lossy(octets).lines() {
        let whole = match parse(local) {
            None => continue,
            Some(Form::Zero {
                hash,
                day,
                host,
                user,
            }) => {
                assert!(age(day, 0).is_none_or(|days| days < DAYS));
                format!("{hash}={day}={host}={user}")
            }
            Some(Form::One { hash, host, rest }) => format!("{hash}={host}={rest}"),
        };
        assert_eq!(local.get(5..), Some(whole.as_str()));
    }
}

#[cfg(test)]
#[path = "srs_tests.rs"]
mod tests;
