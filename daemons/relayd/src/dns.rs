//! Which hosts take a domain's mail (RFC 5321 5.1, RFC 7505), and their addresses.

use crate::config::{AddressOrder, Config};
use crate::verdict::status;
use ::dns::fqdn;
use hickory_resolver::TokioResolver;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::{RData, RecordType};
use rand::seq::SliceRandom as _;
use std::net::IpAddr;
use std::time::Duration;
use types::{Enhanced, Outcome};

/// A host that mail may be handed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// Its name, without the final dot; an address in text form for literals.
    pub(crate) name: String,
    pub(crate) addresses: Vec<IpAddr>,
}

/// The resolver and its settings.
pub(crate) struct Dns {
    resolver: TokioResolver,
    order: AddressOrder,
    max_hosts: usize,
}

/// Why there are no hosts, and whether the destination as a whole is to be left alone for a while.
#[derive(Debug)]
pub(crate) struct NoHosts {
    pub(crate) outcome: Outcome,
    pub(crate) down: bool,
}

impl NoHosts {
    fn temporary(enhanced: Enhanced, text: String) -> Self {
        Self {
            outcome: Outcome::Temporary(status(451, enhanced, text)),
            down: true,
        }
    }

    fn permanent(code: u16, enhanced: Enhanced, text: String) -> Self {
        Self {
            outcome: Outcome::Permanent(status(code, enhanced, text)),
            down: false,
        }
    }
}

impl Dns {
    /// # Errors
    /// If the resolver cannot be made of its settings.
    pub(crate) fn new(config: &Config) -> Result<Self, NetError> {
        Ok(Self {
            resolver: ::dns::resolver(
                &config.nameservers,
                Duration::from_secs(config.dns_timeout),
            )?,
            order: config.addresses,
            max_hosts: config.max_hosts.max(1),
        })
    }

    /// The hosts of a domain in the order in which they are to be tried. `own` is our name: ourselves and what is less
    /// preferred than us is left out (RFC 5321 5.1).
    pub(crate) async fn exchangers(&self, domain: &str, own: &str) -> Result<Vec<Host>, NoHosts> {
        if let Some(address) = literal(domain)? {
            return Ok(vec![Host {
                name: address.to_string(),
                addresses: vec![address],
            }]);
        }
        let mut names = match self.resolver.lookup(fqdn(domain), RecordType::MX).await {
            Ok(answer) => answer
                .answers()
                .iter()
                .filter_map(|record| match &record.data {
                    RData::MX(mx) => Some((mx.preference, mx.exchange.to_ascii())),
                    _ => None,
                })
                .map(|(preference, name)| {
                    (preference, name.trim_end_matches('.').to_ascii_lowercase())
                })
                .collect(),
            Err(error) if error.is_nx_domain() => {
                let text = format!("the domain {domain} does not exist");
                return Err(NoHosts::permanent(550, Enhanced(5, 1, 2), text));
            }
            Err(error) if error.is_no_records_found() => Vec::new(),
            Err(error) => {
                let text =
                    format!("no answer from DNS for the mail exchangers of {domain}: {error}");
                return Err(NoHosts::temporary(Enhanced(4, 4, 3), text));
            }
        };
        // RFC 7505 3
        if matches!(names.as_slice(), [(_, name)] if name.is_empty()) {
            let text = format!("the domain {domain} says that it takes no mail");
            return Err(NoHosts::permanent(556, Enhanced(5, 1, 10), text));
        }
        names.retain(|(_, name)| !name.is_empty());
        if names.is_empty() {
            // RFC 5321 5.1: the implicit MX
            names.push((0, domain.to_owned()));
        }
        let names = order(names, own, domain)?;
        self.with_addresses(domain, names).await
    }

    /// A host by its name or address, without MX.
    pub(crate) async fn host(&self, name: &str) -> Result<Vec<Host>, NoHosts> {
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse() {
            return Ok(vec![Host {
                name: bare.to_owned(),
                addresses: vec![address],
            }]);
        }
        self.with_addresses(name, vec![name.to_ascii_lowercase()])
            .await
    }

    async fn with_addresses(&self, domain: &str, names: Vec<String>) -> Result<Vec<Host>, NoHosts> {
        let mut hosts = Vec::new();
        let mut unanswered = None;
        for name in names {
            if hosts.len() >= self.max_hosts {
                break;
            }
            match self.addresses(&name).await {
                Ok(addresses) if addresses.is_empty() => {}
                Ok(addresses) => hosts.push(Host { name, addresses }),
                Err(error) => {
                    unanswered = Some(format!(
                        "no answer from DNS for the address of {name}: {error}"
                    ))
                }
            }
        }
        if !hosts.is_empty() {
            return Ok(hosts);
        }
        Err(match unanswered {
            Some(text) => NoHosts::temporary(Enhanced(4, 4, 3), text),
            None => {
                let text = format!("the mail exchangers of {domain} have no address");
                NoHosts::permanent(550, Enhanced(5, 4, 4), text)
            }
        })
    }

    /// All addresses in order; none if there are none for sure.
    async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, NetError> {
        let kinds: &[RecordType] = match self.order {
            AddressOrder::Ipv6First => &[RecordType::AAAA, RecordType::A],
            AddressOrder::Ipv4First => &[RecordType::A, RecordType::AAAA],
            AddressOrder::Ipv6Only => &[RecordType::AAAA],
            AddressOrder::Ipv4Only => &[RecordType::A],
        };
        let mut found = Vec::new();
        let mut failed = None;
        for kind in kinds {
            match self.resolver.lookup(fqdn(name), *kind).await {
                Ok(answer) => {
                    let mut addresses: Vec<IpAddr> = answer
                        .answers()
                        .iter()
                        .filter_map(|record| match &record.data {
                            RData::A(a) => Some(IpAddr::V4(a.0)),
                            RData::AAAA(a) => Some(IpAddr::V6(a.0)),
                            _ => None,
                        })
                        .collect();
                    addresses.shuffle(&mut rand::rng());
                    found.extend(addresses);
                }
                Err(error) if error.is_no_records_found() => {}
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            Some(error) if found.is_empty() => Err(error),
            _ => Ok(found),
        }
    }
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
