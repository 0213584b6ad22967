//! check_host() (RFC 7208 4).

use super::macros::{MacroString, Values};
use super::record::{Mechanism, Qualifier, Record, is_spf};
use crate::report::Word;
use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::{Name, RData};
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

/// Mechanisms and modifiers that ask DNS, in all records together (RFC 7208 4.6.4).
const LOOKUPS_MAX: u32 = 10;
/// Lookups that find nothing (RFC 7208 4.6.4).
const VOID_MAX: u32 = 2;
/// Exchanges of one `mx`, and names of the client that are looked at (RFC 7208 4.6.4).
const NAMES_MAX: usize = 10;

/// Who is checked.
#[derive(Clone, Copy)]
pub(super) struct Identity<'a> {
    pub(super) local: &'a str,
    pub(super) domain: &'a str,
}

/// One check, with what it has cost so far.
pub(super) struct Evaluation<'a> {
    resolver: &'a TokioResolver,
    client: IpAddr,
    helo: &'a str,
    host: &'a str,
    identity: Identity<'a>,
    lookups: AtomicU32,
    void: AtomicU32,
}

/// What ends an evaluation before its end: temperror or permerror.
type Ends<T> = Result<T, Word>;

type Boxed<'f, T> = Pin<Box<dyn Future<Output = T> + Send + 'f>>;

/// The names that macros stand for, at one place of the evaluation.
struct Here<'e, 'a> {
    evaluation: &'e Evaluation<'a>,
    domain: &'e str,
    name: &'e str,
}

impl Values for Here<'_, '_> {
    fn value(&self, letter: char) -> String {
        let of = self.evaluation;
        let identity = of.identity;
        match letter {
            's' => format!("{}@{}", identity.local, identity.domain),
            'l' => identity.local.to_owned(),
            'o' => identity.domain.to_owned(),
            'd' => self.domain.to_owned(),
            'i' => dotted(of.client),
            'p' => self.name.to_owned(),
            'v' if of.client.is_ipv4() => "in-addr".to_owned(),
            'v' => "ip6".to_owned(),
            'h' => of.helo.to_owned(),
            'c' => of.client.to_string(),
            'r' => of.host.to_owned(),
            't' => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |elapsed| elapsed.as_secs())
                .to_string(),
            _ => String::new(),
        }
    }
}

/// RFC 7208 7.3: an IPv6 address by its nibbles.
fn dotted(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => {
            let digits = format!("{:032X}", v6.to_bits());
            let nibbles: Vec<String> = digits.chars().map(String::from).collect();
            nibbles.join(".")
        }
    }
}

/// A domain as a name for DNS, whatever octets it has; `None` if there can be no such name.
fn name_of(domain: &str) -> Option<Name> {
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    let fine = |label: &str| !label.is_empty() && label.len() <= 63;
    if domain.len() > 253 || !domain.split('.').all(fine) {
        return None;
    }
    let mut name = Name::from_labels(domain.split('.').map(str::as_bytes)).ok()?;
    name.set_fqdn(true);
    Some(name)
}

fn within(client: IpAddr, address: IpAddr, (v4, v6): (u32, u32)) -> bool {
    let same = |a: u128, b: u128, width: u32, length: u32| {
        length == 0 || (a ^ b) >> (width - length.min(width)) == 0
    };
    match (client, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32, v4),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128, v6),
        _ => false,
    }
}

impl<'a> Evaluation<'a> {
    pub(super) fn new(
        resolver: &'a TokioResolver,
        client: IpAddr,
        helo: &'a str,
        host: &'a str,
        identity: Identity<'a>,
    ) -> Self {
        Self {
            resolver,
            client,
            helo,
            host,
            identity,
            lookups: AtomicU32::new(0),
            void: AtomicU32::new(0),
        }
    }

    /// The result, and what the domain says of a fail.
    pub(super) async fn check(&self) -> (Word, Option<String>) {
        let domain = self.identity.domain;
        // RFC 7208 4.3
        let whole = domain.strip_suffix('.').unwrap_or(domain);
        if !whole.contains('.') || whole.starts_with('[') || name_of(domain).is_none() {
            return (Word::None, None);
        }
        self.check_host(whole.to_owned(), true)
            .await
            .unwrap_or_else(|ends| (ends, None))
    }

    /// `explains`: a fail is to be explained, for it is no `include`.
    fn check_host(
        &self,
        domain: String,
        explains: bool,
    ) -> Boxed<'_, Ends<(Word, Option<String>)>> {
        Box::pin(async move {
            let Some(record) = self.record(&domain).await? else {
                return Ok((Word::None, None));
            };
            for (qualifier, mechanism) in &record.directives {
                if !self.matches(mechanism, &domain).await? {
                    continue;
                }
                return Ok(match qualifier {
                    Qualifier::Pass => (Word::Pass, None),
                    Qualifier::SoftFail => (Word::SoftFail, None),
                    Qualifier::Neutral => (Word::Neutral, None),
                    Qualifier::Fail => {
                        let explanation = match &record.exp {
                            Some(exp) if explains => self.explain(exp, &domain).await,
                            _ => None,
                        };
                        (Word::Fail, explanation)
                    }
                });
            }
            let Some(redirect) = &record.redirect else {
                return Ok((Word::Neutral, None));
            };
            self.count()?;
            let target = self.domain(Some(redirect), &domain).await;
            // RFC 7208 6.1
            if name_of(&target).is_none() {
                return Err(Word::PermError);
            }
            match self.check_host(target, explains).await? {
                (Word::None, _) => Err(Word::PermError),
                other => Ok(other),
            }
        })
    }

    /// RFC 7208 4.4, 4.5
    async fn record(&self, domain: &str) -> Ends<Option<Record>> {
        let Some(name) = name_of(domain) else {
            return Ok(None);
        };
        let mut found: Vec<Vec<u8>> = self.texts(name).await?;
        found.retain(|octets| is_spf(octets));
        match found.as_slice() {
            [] => Ok(None),
            [one] => Record::parse(one).map(Some).ok_or(Word::PermError),
            _ => Err(Word::PermError),
        }
    }

    async fn matches(&self, mechanism: &Mechanism, domain: &str) -> Ends<bool> {
        match mechanism {
            Mechanism::All => Ok(true),
            Mechanism::Ip4(address, length) => {
                Ok(within(self.client, (*address).into(), (*length, 0)))
            }
            Mechanism::Ip6(address, length) => {
                Ok(within(self.client, (*address).into(), (0, *length)))
            }
            Mechanism::Include(spec) => self.includes(spec, domain).await,
            Mechanism::A(spec, cidr) => {
                self.count()?;
                let target = self.domain(spec.as_ref(), domain).await;
                self.has_client(&target, *cidr).await
            }
            Mechanism::Mx(spec, cidr) => {
                self.count()?;
                let target = self.domain(spec.as_ref(), domain).await;
                self.exchanges_have_client(&target, *cidr).await
            }
            Mechanism::Ptr(spec) => {
                self.count()?;
                let target = self.domain(spec.as_ref(), domain).await;
                let target = target.trim_end_matches('.').to_ascii_lowercase();
                let names = self.validated().await;
                Ok(names.iter().any(|name| is_below(name, &target)))
            }
            Mechanism::Exists(spec) => {
                self.count()?;
                let target = self.domain(Some(spec), domain).await;
                let Some(name) = name_of(&target) else {
                    return Ok(false);
                };
                // RFC 7208 5.7: by IPv4, whatever the client has.
                let found = self.resolver.ipv4_lookup(name).await;
                let found =
                    self.answers(found, |data| matches!(data, RData::A(_)).then_some(()))?;
                Ok(!found.is_empty())
            }
        }
    }

    /// RFC 7208 5.2
    async fn includes(&self, spec: &MacroString, domain: &str) -> Ends<bool> {
        self.count()?;
        let target = self.domain(Some(spec), domain).await;
        if name_of(&target).is_none() {
            return Err(Word::PermError);
        }
        match self.check_host(target, false).await?.0 {
            Word::Pass => Ok(true),
            Word::None => Err(Word::PermError),
            _ => Ok(false),
        }
    }

    async fn exchanges_have_client(&self, target: &str, cidr: (u32, u32)) -> Ends<bool> {
        let Some(name) = name_of(target) else {
            return Ok(false);
        };
        let found = self.resolver.mx_lookup(name).await;
        let exchanges = self.answers(found, |data| match data {
            RData::MX(mx) => Some(mx.exchange.clone()),
            _ => None,
        })?;
        if exchanges.len() > NAMES_MAX {
            return Err(Word::PermError);
        }
        for exchange in exchanges {
            if self.address_matches(exchange, cidr).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn has_client(&self, target: &str, cidr: (u32, u32)) -> Ends<bool> {
        match name_of(target) {
            Some(name) => self.address_matches(name, cidr).await,
            None => Ok(false),
        }
    }

    async fn address_matches(&self, name: Name, cidr: (u32, u32)) -> Ends<bool> {
        let addresses = self.addresses(name).await?;
        Ok(addresses
            .into_iter()
            .any(|address| within(self.client, address, cidr)))
    }

    /// Those of the client's kind.
    async fn addresses(&self, name: Name) -> Ends<Vec<IpAddr>> {
        let found = match self.client {
            IpAddr::V4(_) => self.resolver.ipv4_lookup(name).await,
            IpAddr::V6(_) => self.resolver.ipv6_lookup(name).await,
        };
        self.answers(found, |data| match data {
            RData::A(address) => Some(address.0.into()),
            RData::AAAA(address) => Some(address.0.into()),
            _ => None,
        })
    }

    async fn texts(&self, name: Name) -> Ends<Vec<Vec<u8>>> {
        match self.resolver.txt_lookup(name).await {
            Ok(lookup) => Ok(lookup
                .answers()
                .iter()
                .filter_map(|record| match &record.data {
                    RData::TXT(text) => Some(text.txt_data.concat()),
                    _ => None,
                })
                .collect()),
            Err(error) if error.is_no_records_found() => Ok(Vec::new()),
            Err(_) => Err(Word::TempError),
        }
    }

    /// The data wanted; what finds nothing is counted.
    fn answers<T>(
        &self,
        found: Result<hickory_resolver::lookup::Lookup, hickory_resolver::net::NetError>,
        wanted: impl Fn(&RData) -> Option<T>,
    ) -> Ends<Vec<T>> {
        let data: Vec<T> = match found {
            Ok(lookup) => lookup
                .answers()
                .iter()
                .filter_map(|record| wanted(&record.data))
                .collect(),
            Err(error) if error.is_no_records_found() => Vec::new(),
            Err(_) => return Err(Word::TempError),
        };
        if data.is_empty() && self.void.fetch_add(1, Relaxed) >= VOID_MAX {
            return Err(Word::PermError);
        }
        Ok(data)
    }

    /// RFC 7208 4.6.4
    fn count(&self) -> Ends<()> {
        if self.lookups.fetch_add(1, Relaxed) >= LOOKUPS_MAX {
            return Err(Word::PermError);
        }
        Ok(())
    }

    /// The target of a mechanism: what it names, or the domain itself.
    async fn domain(&self, spec: Option<&MacroString>, domain: &str) -> String {
        let Some(spec) = spec else {
            return domain.to_owned();
        };
        let name = self.name_for(spec, domain).await;
        spec.domain(&Here {
            evaluation: self,
            domain,
            name: &name,
        })
    }

    /// The validated name of the client, where a macro wants it (RFC 7208 7.3): best the domain itself, else one below it, else any.
    async fn name_for(&self, spec: &MacroString, domain: &str) -> String {
        if !spec.wants_name() {
            return String::new();
        }
        let names = self.validated().await;
        let domain = domain.to_ascii_lowercase();
        let same = names.iter().find(|name| **name == domain);
        let below = || names.iter().find(|name| is_below(name, &domain));
        let best = same.or_else(below).or_else(|| names.first());
        best.cloned().unwrap_or_else(|| "unknown".to_owned())
    }

    /// The client's names that lead back to its address (RFC 7208 5.5). Errors are no names.
    async fn validated(&self) -> Vec<String> {
        let Ok(found) = self.resolver.reverse_lookup(self.client).await else {
            return Vec::new();
        };
        let mut names = Vec::new();
        let pointers = found
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::PTR(pointer) => Some(pointer.0.clone()),
                _ => None,
            });
        for pointer in pointers.take(NAMES_MAX) {
            let found = match self.client {
                IpAddr::V4(_) => self.resolver.ipv4_lookup(pointer.clone()).await,
                IpAddr::V6(_) => self.resolver.ipv6_lookup(pointer.clone()).await,
            };
            let Ok(found) = found else { continue };
            let leads_back = found.answers().iter().any(|record| match &record.data {
                RData::A(address) => IpAddr::from(address.0) == self.client,
                RData::AAAA(address) => IpAddr::from(address.0) == self.client,
                _ => false,
            });
            if leads_back {
                let text = pointer.to_lowercase().to_utf8();
                names.push(text.trim_end_matches('.').to_owned());
            }
        }
        names
    }

    /// RFC 7208 6.2: whatever is wrong with an explanation, the fail stays one.
    async fn explain(&self, exp: &MacroString, domain: &str) -> Option<String> {
        let target = self.domain(Some(exp), domain).await;
        let texts = self.texts(name_of(&target)?).await.ok()?;
        let [text] = texts.as_slice() else {
            return None;
        };
        let text = std::str::from_utf8(text).ok()?;
        let parsed = MacroString::parse(text, true)?;
        let name = self.name_for(&parsed, domain).await;
        let here = Here {
            evaluation: self,
            domain,
            name: &name,
        };
        Some(parsed.expand(&here))
    }
}

/// Expands all that a record names, for fuzzers.
pub(super) fn expand_all(record: &Record) {
    struct Fixed;
    impl Values for Fixed {
        fn value(&self, letter: char) -> String {
            format!("{letter}.a-b+c.{}.example.org", "x".repeat(63))
        }
    }
    let specs = record
        .directives
        .iter()
        .filter_map(|(_, mechanism)| match mechanism {
            Mechanism::Include(spec) | Mechanism::Exists(spec) => Some(spec),
            Mechanism::A(spec, _) | Mechanism::Mx(spec, _) | Mechanism::Ptr(spec) => spec.as_ref(),
            Mechanism::All | Mechanism::Ip4(..) | Mechanism::Ip6(..) => None,
        });
    for spec in specs.chain(&record.redirect).chain(&record.exp) {
        let name = name_of(&spec.domain(&Fixed));
        assert!(name.is_none_or(|name| name.to_ascii().len() < 2048));
    }
}

fn is_below(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain)
        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn prefixes() {
        let within = |client: &str, address: &str, cidr| {
            super::within(client.parse().unwrap(), address.parse().unwrap(), cidr)
        };
        assert!(within("192.0.2.129", "192.0.2.1", (24, 0)));
        assert!(!within("192.0.2.129", "192.0.2.1", (25, 0)));
        assert!(within("192.0.2.1", "10.0.0.1", (0, 128)));
        assert!(within("2001:db8::1", "2001:db8::2", (32, 126)));
        assert!(!within("2001:db8::1", "2001:db8::2", (32, 127)));
        assert!(!within("2001:db8::1", "192.0.2.1", (0, 0)));
    }

    #[test]
    fn names_are_of_any_octets_and_bounded() {
        assert!(name_of("%{x}.\"a b\".example.com.").is_some());
        assert!(name_of("a..example").is_none() && name_of("").is_none());
        assert!(name_of(&format!("{}.example", "a".repeat(64))).is_none());
        assert_eq!(dotted("2001:db8::1".parse().unwrap()).len(), 63);
        assert!(is_below("mx.a.example", "a.example") && !is_below("xa.example", "a.example"));
    }
}
