//! Which hosts take a domain's mail (RFC 5321 5.1, RFC 7505), and their addresses.

use crate::config::{AddressOrder, Config};
use crate::sts::{self, Announced};
use crate::tlsa::Tlsa;
use crate::transport::Dnssec;
use crate::verdict::status;
use ::dns::{Found, Proven, Unknown, Validating, fqdn};
use hickory_resolver::TokioResolver;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::{RData, RecordType};
use rand::seq::SliceRandom as _;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use types::{Enhanced, Outcome};

/// Seconds after which name servers without signatures are tried again.
const TRY_AGAIN: Duration = Duration::from_secs(300);
/// And those that did not answer.
const TRY_SOON: Duration = Duration::from_secs(5);

/// A host that mail may be handed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// Its name, without the final dot; an address in text form for literals.
    pub(crate) name: String,
    pub(crate) addresses: Vec<IpAddr>,
    /// Names that TLSA records may stand at, in the order in which they are tried (RFC 7672 2.2.2); none if its addresses are
    /// not signed (2.1.3).
    pub(crate) bases: Vec<String>,
}

/// The hosts of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exchangers {
    pub(crate) hosts: Vec<Host>,
    /// What the signatures say of the MX records; `None` if there are none, and the name of the host is not from DNS.
    pub(crate) mx: Option<Proven>,
    /// Hosts that cannot be used: no addresses that one could trust.
    pub(crate) unusable: Vec<(String, Unknown)>,
}

/// The resolvers and their settings.
pub(crate) struct Dns {
    resolver: TokioResolver,
    validating: Option<Validating>,
    dnssec: Dnssec,
    /// Signatures have been seen to come.
    signed: AtomicBool,
    probe: Mutex<Probe>,
    order: AddressOrder,
    max_hosts: usize,
}

/// What is known of the name servers as long as no signature has come.
enum Probe {
    Due,
    /// They leave signatures out.
    Unsigned(Instant),
    /// They do not answer.
    Silent(Instant),
}

/// Why there are no hosts, and whether the destination as a whole is to be left alone for a while.
#[derive(Debug)]
pub(crate) struct NoHosts {
    pub(crate) outcome: Outcome,
    pub(crate) down: bool,
    /// It should have been signed.
    pub(crate) bogus: bool,
}

impl NoHosts {
    fn temporary(enhanced: Enhanced, text: String) -> Self {
        Self {
            outcome: Outcome::Temporary(status(451, enhanced, text)),
            down: true,
            bogus: false,
        }
    }

    fn permanent(code: u16, enhanced: Enhanced, text: String) -> Self {
        Self {
            outcome: Outcome::Permanent(status(code, enhanced, text)),
            down: false,
            bogus: false,
        }
    }

    fn unknown(what: &str, error: &Unknown) -> Self {
        let text = format!("no answer from DNS for {what}: {error}");
        Self {
            bogus: matches!(error, Unknown::Bogus(_)),
            ..Self::temporary(Enhanced(4, 4, 3), text)
        }
    }
}

impl Dns {
    /// # Errors
    /// If the resolver cannot be made of its settings.
    pub(crate) fn new(config: &Config) -> Result<Self, String> {
        let timeout = Duration::from_secs(config.dns_timeout);
        let dnssec = config.tls.dnssec;
        let validating = match dnssec {
            Dnssec::Off => None,
            Dnssec::Auto | Dnssec::Require => Some(Validating::new(
                &config.nameservers,
                timeout,
                config.tls.trust_anchors.as_deref(),
            )?),
        };
        Ok(Self {
            resolver: ::dns::resolver(&config.nameservers, timeout)
                .map_err(|error| error.to_string())?,
            validating,
            dnssec,
            signed: AtomicBool::new(false),
            probe: Mutex::new(Probe::Due),
            order: config.addresses,
            max_hosts: config.max_hosts.max(1),
        })
    }

    /// For what needs no proof.
    pub(crate) fn plain(&self) -> &TokioResolver {
        &self.resolver
    }

    /// The one to ask where proof counts; `None` if there is none to be had from these name servers.
    pub(crate) async fn validating(&self) -> Option<&Validating> {
        let validating = self.validating.as_ref()?;
        if self.dnssec == Dnssec::Require || self.signed.load(Relaxed) {
            return Some(validating);
        }
        let mut probe = self.probe.lock().await;
        match *probe {
            _ if self.signed.load(Relaxed) => return Some(validating),
            Probe::Unsigned(until) if Instant::now() < until => return None,
            Probe::Silent(until) if Instant::now() < until => return Some(validating),
            _ => {}
        }
        match validating.works().await {
            Ok(()) => {
                tracing::info!(
                    "the name servers give signatures: DNSSEC is checked, and DANE used"
                );
                self.signed.store(true, Relaxed);
                Some(validating)
            }
            Err(Unknown::Bogus(reason) | Unknown::Refused(reason)) => {
                tracing::warn!(
                    reason,
                    "the name servers give no signatures (DNSSEC): there is no DANE; a validating name server on this host would do"
                );
                *probe = Probe::Unsigned(Instant::now() + TRY_AGAIN);
                None
            }
            // Not known to be without: what is not proved is not believed until they answer.
            Err(Unknown::NoAnswer(_)) => {
                *probe = Probe::Silent(Instant::now() + TRY_SOON);
                Some(validating)
            }
        }
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Result<Found, Unknown> {
        if let Some(validating) = self.validating().await {
            return validating.lookup(name, kind).await;
        }
        let found = |data, exists| Found {
            data,
            exists,
            proven: Proven::Insecure,
            denial_proven: true,
            name: name.trim_end_matches('.').to_ascii_lowercase(),
            first: Proven::Insecure,
        };
        match self.resolver.lookup(fqdn(name), kind).await {
            Ok(answer) => {
                let records = answer.answers().iter();
                let data = records
                    .filter(|record| record.record_type() == kind)
                    .map(|record| record.data.clone());
                Ok(found(data.collect(), true))
            }
            Err(error) if error.is_nx_domain() => Ok(found(Vec::new(), false)),
            Err(error) if error.is_no_records_found() => Ok(found(Vec::new(), true)),
            Err(error) => Err(Unknown::NoAnswer(error.to_string())),
        }
    }

    /// The hosts of a domain in the order in which they are to be tried. `own` is our name: ourselves and what is less
    /// preferred than us is left out (RFC 5321 5.1).
    pub(crate) async fn exchangers(&self, domain: &str, own: &str) -> Result<Exchangers, NoHosts> {
        if let Some(address) = literal(domain)? {
            return Ok(Exchangers {
                hosts: vec![Host {
                    name: address.to_string(),
                    addresses: vec![address],
                    bases: Vec::new(),
                }],
                mx: None,
                unusable: Vec::new(),
            });
        }
        let answer = self.ask(domain, RecordType::MX).await.map_err(|error| {
            NoHosts::unknown(&format!("the mail exchangers of {domain}"), &error)
        })?;
        let unproven = answer.data.is_empty() && !answer.denial_proven;
        if !answer.exists {
            if unproven {
                let error = Unknown::Bogus(format!("nothing proves that {domain} does not exist"));
                return Err(NoHosts::unknown(domain, &error));
            }
            let text = format!("the domain {domain} does not exist");
            return Err(NoHosts::permanent(550, Enhanced(5, 1, 2), text));
        }
        let mut names: Vec<(u16, String)> = answer
            .data
            .iter()
            .filter_map(|data| match data {
                RData::MX(mx) => Some((mx.preference, mx.exchange.to_ascii())),
                _ => None,
            })
            .map(|(preference, name)| (preference, name.trim_end_matches('.').to_ascii_lowercase()))
            .collect();
        // RFC 7505 3
        if matches!(names.as_slice(), [(_, name)] if name.is_empty()) {
            let text = format!("the domain {domain} says that it takes no mail");
            return Err(NoHosts::permanent(556, Enhanced(5, 1, 10), text));
        }
        names.retain(|(_, name)| !name.is_empty());
        let mut mx = Some(answer.proven);
        if names.is_empty() {
            // RFC 5321 5.1: the implicit MX
            names.push((0, domain.to_owned()));
            mx = None;
        }
        let names = order(names, own, domain)?;
        let found = self.with_addresses(domain, names).await?;
        if unproven && found.hosts.iter().any(|host| !host.bases.is_empty()) {
            // The zone is signed, so that it has no MX would be too.
            let error = Unknown::Bogus(format!("nothing proves that {domain} has no MX"));
            return Err(NoHosts::unknown(domain, &error));
        }
        Ok(Exchangers { mx, ..found })
    }

    /// A host by its name or address, without MX.
    pub(crate) async fn host(&self, name: &str) -> Result<Exchangers, NoHosts> {
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse() {
            return Ok(Exchangers {
                hosts: vec![Host {
                    name: bare.to_owned(),
                    addresses: vec![address],
                    bases: Vec::new(),
                }],
                mx: None,
                unusable: Vec::new(),
            });
        }
        self.with_addresses(name, vec![name.to_ascii_lowercase()])
            .await
    }

    async fn with_addresses(
        &self,
        domain: &str,
        names: Vec<String>,
    ) -> Result<Exchangers, NoHosts> {
        let mut hosts = Vec::new();
        let mut unusable = Vec::new();
        for name in names {
            if hosts.len() >= self.max_hosts {
                break;
            }
            match self.addresses(&name).await {
                Ok((addresses, _)) if addresses.is_empty() => {}
                Ok((addresses, bases)) => hosts.push(Host {
                    name,
                    addresses,
                    bases,
                }),
                Err(error) => unusable.push((name, error)),
            }
        }
        if !hosts.is_empty() {
            return Ok(Exchangers {
                hosts,
                mx: None,
                unusable,
            });
        }
        Err(match unusable.last() {
            Some((name, error)) => NoHosts::unknown(&format!("the address of {name}"), error),
            None => {
                let text = format!("the mail exchangers of {domain} have no address");
                NoHosts::permanent(550, Enhanced(5, 4, 4), text)
            }
        })
    }

    /// All addresses in order, none if there are none for sure; and the names for TLSA records.
    async fn addresses(&self, name: &str) -> Result<(Vec<IpAddr>, Vec<String>), Unknown> {
        let kinds: &[RecordType] = match self.order {
            AddressOrder::Ipv6First => &[RecordType::AAAA, RecordType::A],
            AddressOrder::Ipv4First => &[RecordType::A, RecordType::AAAA],
            AddressOrder::Ipv6Only => &[RecordType::AAAA],
            AddressOrder::Ipv4Only => &[RecordType::A],
        };
        let mut all = Vec::new();
        let mut bases = Vec::new();
        let mut failed = None;
        for kind in kinds {
            match self.ask(name, *kind).await {
                Ok(found) => {
                    let mut addresses: Vec<IpAddr> = found
                        .data
                        .iter()
                        .filter_map(|data| match data {
                            RData::A(a) => Some(IpAddr::V4(a.0)),
                            RData::AAAA(a) => Some(IpAddr::V6(a.0)),
                            _ => None,
                        })
                        .collect();
                    if !addresses.is_empty() && bases.is_empty() {
                        bases = tlsa_bases(name, &found);
                    }
                    addresses.shuffle(&mut rand::rng());
                    all.extend(addresses);
                }
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if all.is_empty() => Err(error),
            _ => Ok((all, bases)),
        }
    }

    /// The TLSA records of a port of a host; none if there are none, or if they are not signed.
    ///
    /// # Errors
    /// RFC 7672 2.1.1: then the host is not to be used now.
    pub(crate) async fn tlsa(&self, port: u16, base: &str) -> Result<Vec<Tlsa>, Unknown> {
        let name = format!("_{port}._tcp.{base}");
        let found = self.ask(&name, RecordType::TLSA).await?;
        if found.data.is_empty() && !found.denial_proven {
            return Err(Unknown::Bogus(format!(
                "nothing proves that there is no {name}"
            )));
        }
        if found.proven == Proven::Insecure {
            return Ok(Vec::new());
        }
        let records = found.data.iter().filter_map(|data| match data {
            RData::TLSA(record) => Some(Tlsa::from(record)),
            _ => None,
        });
        Ok(records.collect())
    }

    /// The TXT records of a name.
    pub(crate) async fn texts(&self, name: &str) -> Result<Vec<Vec<u8>>, NetError> {
        let answer = self.resolver.lookup(fqdn(name), RecordType::TXT).await?;
        let texts = answer
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::TXT(text) => Some(text.txt_data.concat()),
                _ => None,
            });
        Ok(texts.collect())
    }

    /// What the domain's TXT record says of a policy (RFC 8461 3.1). It needs no proof: the policy itself has one.
    pub(crate) async fn sts(&self, domain: &str) -> Announced {
        let Ok(records) = self.texts(&format!("_mta-sts.{domain}")).await else {
            return Announced::Nothing;
        };
        match sts::id(records.iter().map(Vec::as_slice)) {
            Some(id) => Announced::Id(id),
            None => Announced::Nothing,
        }
    }
}

/// RFC 7672 2.2.2: the name at the end of the aliases first, if all of them are signed; then the one that we began with, if at
/// least the first step is.
fn tlsa_bases(name: &str, found: &Found) -> Vec<String> {
    let own = name.trim_end_matches('.').to_ascii_lowercase();
    let mut bases = Vec::new();
    if found.proven == Proven::Secure {
        bases.push(found.name.clone());
    }
    if found.first == Proven::Secure && found.name != own {
        bases.push(own);
    }
    bases
}

/// By preference, at random among equals; without ourselves and what is behind us.
fn order(mut names: Vec<(u16, String)>, own: &str, domain: &str) -> Result<Vec<String>, NoHosts> {
    names.shuffle(&mut rand::rng());
    names.sort_by_key(|(preference, _)| *preference);
    let ourselves = names
        .iter()
        .find(|(_, name)| name.eq_ignore_ascii_case(own))
        .map(|(preference, _)| *preference);
    if let Some(limit) = ourselves {
        names.retain(|(preference, _)| *preference < limit);
        if names.is_empty() {
            let text = format!(
                "mail for {domain} loops back to this host, which is its mail exchanger but not its home"
            );
            return Err(NoHosts::permanent(554, Enhanced(5, 4, 6), text));
        }
    }
    let mut names: Vec<String> = names.into_iter().map(|(_, name)| name).collect();
    names.dedup();
    Ok(names)
}

/// `[192.0.2.1]`, `[IPv6:2001:db8::1]` (RFC 5321 4.1.3).
fn literal(domain: &str) -> Result<Option<IpAddr>, NoHosts> {
    let Some(inner) = domain
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    else {
        return Ok(None);
    };
    let bare = match inner.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("ipv6:") => inner.get(5..).unwrap_or_default(),
        _ => inner,
    };
    bare.parse().map(Some).map_err(|_| {
        NoHosts::permanent(
            550,
            Enhanced(5, 1, 2),
            format!("{domain} is no address of a host"),
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn exchangers_are_ordered_and_loops_seen() {
        let names = |list: &[(u16, &str)]| {
            list.iter()
                .map(|(p, n)| (*p, (*n).to_owned()))
                .collect::<Vec<_>>()
        };
        let list = names(&[(20, "c"), (10, "a"), (10, "b"), (30, "own"), (40, "d")]);
        let mut firsts = std::collections::HashSet::new();
        for _ in 0..100 {
            let ordered = order(list.clone(), "OWN", "x").unwrap();
            assert_eq!(ordered.len(), 3);
            assert_eq!(ordered[2], "c");
            firsts.insert(ordered[0].clone());
        }
        assert_eq!(firsts.len(), 2, "equals are tried in any order");
        let looped = order(names(&[(10, "own"), (10, "a"), (20, "b")]), "own", "x").unwrap_err();
        assert!(matches!(looped.outcome, Outcome::Permanent(s) if s.enhanced == Enhanced(5, 4, 6)));
    }

    #[test]
    fn literals() {
        assert_eq!(
            literal("[127.0.0.1]").unwrap().unwrap().to_string(),
            "127.0.0.1"
        );
        assert_eq!(literal("[IPv6:::1]").unwrap().unwrap().to_string(), "::1");
        assert_eq!(literal("[ipv6:::1]").unwrap().unwrap().to_string(), "::1");
        assert!(literal("example.org").unwrap().is_none());
        assert!(literal("[example.org]").is_err());
    }
}
