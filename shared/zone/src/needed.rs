//! Which records a domain needs.

use crate::config::{Config, MtaStsMode};
use crate::mta_sts;
use crate::persist::Persistent;
use crate::policy;
use crate::record::{Data, Record, caa_value, is_in};
use std::net::IpAddr;

/// A protocol that mail programs find by SRV.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// Submission with STARTTLS (RFC 6186 3.1).
    Submission,
    /// Submission under TLS (RFC 8314 5.1).
    Submissions,
    /// RFC 6186 3.2.
    Imap,
    /// RFC 6186 3.2.
    Imaps,
    /// RFC 6186 3.3.
    Pop3,
    /// RFC 6186 3.3.
    Pop3s,
    /// ManageSieve (RFC 5804 1.8).
    Sieve,
    /// RFC 8620 2.2.
    Jmap,
    /// RFC 6764 3.
    Caldavs,
    /// RFC 6764 3.
    Carddavs,
}

impl Protocol {
    const ALL: [Self; 10] = [
        Self::Submissions,
        Self::Submission,
        Self::Imaps,
        Self::Imap,
        Self::Pop3s,
        Self::Pop3,
        Self::Sieve,
        Self::Jmap,
        Self::Caldavs,
        Self::Carddavs,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::Submission => "_submission",
            Self::Submissions => "_submissions",
            Self::Imap => "_imap",
            Self::Imaps => "_imaps",
            Self::Pop3 => "_pop3",
            Self::Pop3s => "_pop3s",
            Self::Sieve => "_sieve",
            Self::Jmap => "_jmap",
            Self::Caldavs => "_caldavs",
            Self::Carddavs => "_carddavs",
        }
    }

    /// Its usual port.
    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Self::Submission => 587,
            Self::Submissions => 465,
            Self::Imap => 143,
            Self::Imaps => 993,
            Self::Pop3 => 110,
            Self::Pop3s => 995,
            Self::Sieve => 4190,
            Self::Jmap | Self::Caldavs | Self::Carddavs => 443,
        }
    }

    /// Whether `0 0 0 .` is the way to say that there is none (RFC 6186 3.4).
    fn is_denied(self) -> bool {
        !matches!(
            self,
            Self::Sieve | Self::Jmap | Self::Caldavs | Self::Carddavs
        )
    }

    /// Secure ones are preferred (RFC 8314 5.1, RFC 6186 3.4).
    fn priority(self) -> u16 {
        match self {
            Self::Submission | Self::Imap => 10,
            Self::Pop3s => 20,
            Self::Pop3 => 30,
            _ => 0,
        }
    }
}

/// A service that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// Which.
    pub protocol: Protocol,
    /// Where.
    pub port: u16,
}

/// A DKIM key as it is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DkimText {
    /// `s=`.
    pub selector: String,
    /// The record's text.
    pub record: String,
}

/// A key of a TLS certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateKey {
    /// Host names, lower case, `*.` for wildcards.
    pub names: Vec<String>,
    /// The SHA-256 of the public key: [`crate::key_digest`].
    pub digest: [u8; 32],
}

/// All that is known of a domain.
#[derive(Clone, Debug)]
pub struct Site<'a> {
    /// The domain: A-label, lower case.
    pub domain: &'a str,
    /// `suite.hostname`, lower case.
    pub host: &'a str,
    /// What holds for the domain: [`Config::of`].
    pub config: &'a Config,
    /// The services that run at `host`.
    pub services: &'a [Service],
    /// The domain's DKIM keys.
    pub dkim: &'a [DkimText],
    /// The certificates that are served, the default first.
    pub certificates: &'a [CertificateKey],
    /// The records by which an authority sees that names are ours, of this domain and of others.
    pub persistent: &'a [Persistent],
    /// Seconds since 1970.
    pub now: u64,
}

/// What a record is for that allows reports to go to another domain.
pub(crate) const REPORTS_ELSEWHERE: &str = "DMARC reports elsewhere";

/// What a record is for by which an authority sees that a name is ours.
pub(crate) const PERSISTENT: &str = "DNS-PERSIST-01";

/// The records that a domain needs, grouped by what they are for.
#[must_use]
pub fn needed(site: &Site<'_>) -> Vec<Record> {
    let mut list = List {
        ttl: site.config.ttl,
        records: Vec::new(),
    };
    let (domain, config) = (site.domain, site.config);
    let exchangers = config.exchangers(site.host);
    for (preference, host) in &exchangers {
        list.add(
            domain,
            Data::Mx(*preference, host.clone()),
            "mail exchangers",
        );
    }
    for address in &config.addresses {
        let data = match address {
            IpAddr::V4(address) => Data::A(*address),
            IpAddr::V6(address) => Data::Aaaa(*address),
        };
        list.add(site.host, data, "addresses of the host");
    }
    list.text(domain, site.fill(&config.spf), "SPF");
    // One name, one policy (RFC 7208 3.2).
    if site.host != domain {
        list.text(site.host, site.fill(&config.host_spf), "SPF of the host");
    }
    for key in site.dkim {
        let name = format!("{}._domainkey.{domain}", key.selector);
        list.text(&name, key.record.clone(), "DKIM");
    }
    list.text(
        &format!("_dmarc.{domain}"),
        site.fill(&config.dmarc),
        "DMARC",
    );
    elsewhere(site, &mut list);
    list.text(
        &format!("_smtp._tls.{domain}"),
        site.fill(&config.tls_rpt),
        "TLS reports",
    );
    if config.mta_sts != MtaStsMode::Off {
        let id = mta_sts::policy_id(&mta_sts::policy(config, site.host));
        let text = format!("v=STSv1; id={id}");
        list.text(&format!("_mta-sts.{domain}"), text, "MTA-STS");
        let host = match config.mta_sts_host.as_str() {
            "" => site.host,
            other => other,
        };
        list.alias(&format!("mta-sts.{domain}"), host, "MTA-STS");
    }
    if config.tlsa {
        for (_, host) in &exchangers {
            for digest in site.digests(host) {
                // RFC 7672 3.1.1
                let data = Data::Tlsa {
                    usage: 3,
                    selector: 1,
                    matching: 1,
                    digest: digest.to_vec(),
                };
                list.add(
                    &format!("_25._tcp.{host}"),
                    data,
                    "TLSA of the mail exchangers",
                );
            }
        }
    }
    if config.srv {
        services(site, &mut list);
    }
    if !config.autoconfig.is_empty() {
        let host = config.autoconfig.trim_end_matches('.').to_ascii_lowercase();
        list.alias(&format!("autoconfig.{domain}"), &host, "autoconfig");
        let data = Data::Srv {
            priority: 0,
            weight: 0,
            port: 443,
            target: host,
        };
        list.add(&format!("_autodiscover._tcp.{domain}"), data, "autoconfig");
    }
    for issuer in &config.caa {
        let data = Data::Caa {
            flags: 0,
            tag: "issue".to_owned(),
            value: caa_value("issue", issuer),
        };
        list.add(domain, data, "certificate authorities");
    }
    for persistent in site.persistent {
        if is_in(&persistent.domain, domain) || persistent.domain == site.host {
            list.text(&persistent.name(), persistent.text(), PERSISTENT);
        }
    }
    list.records
}

/// Who takes DMARC reports of a domain that is not its own says so (RFC 7489 7.1).
fn elsewhere(site: &Site<'_>, list: &mut List) {
    let domain = site.domain;
    let tags = policy::tags(&site.fill(&site.config.dmarc));
    let addresses = ["rua", "ruf"].into_iter().filter_map(|tag| tags.get(tag));
    for uri in addresses.flat_map(|list| list.split(',')) {
        let Some(address) = uri.trim().strip_prefix("mailto:") else {
            continue;
        };
        // A size limit may stand behind it.
        let address = address.split('!').next().unwrap_or_default();
        let Some((_, other)) = address.rsplit_once('@') else {
            continue;
        };
        let other = other.to_ascii_lowercase();
        if !is_in(&other, domain) && !is_in(domain, &other) {
            let name = format!("{domain}._report._dmarc.{other}");
            list.text(&name, "v=DMARC1".to_owned(), REPORTS_ELSEWHERE);
        }
    }
}

fn services(site: &Site<'_>, list: &mut List) {
    for protocol in Protocol::ALL {
        let running = site.services.iter().find(|one| one.protocol == protocol);
        let data = match running {
            Some(service) => Data::Srv {
                priority: protocol.priority(),
                weight: 1,
                port: service.port,
                target: site.host.to_owned(),
            },
            None if protocol.is_denied() => Data::Srv {
                priority: 0,
                weight: 0,
                port: 0,
                target: String::new(),
            },
            None => continue,
        };
        let name = format!("{}._tcp.{}", protocol.label(), site.domain);
        list.add(&name, data, "services");
    }
}

impl Site<'_> {
    fn fill(&self, text: &str) -> String {
        text.trim()
            .replace("{domain}", self.domain)
            .replace("{host}", self.host)
    }

    /// The keys that a mail exchanger shows: of the certificates for its name, or of the default one if it is this host.
    fn digests(&self, exchanger: &str) -> Vec<[u8; 32]> {
        let parent = exchanger
            .split_once('.')
            .map(|(_, parent)| format!("*.{parent}"));
        let covers = |name: &String| *name == exchanger || Some(name) == parent.as_ref();
        let mut digests: Vec<[u8; 32]> = self
            .certificates
            .iter()
            .filter(|certificate| certificate.names.iter().any(covers))
            .map(|certificate| certificate.digest)
            .collect();
        if digests.is_empty() && exchanger == self.host {
            digests.extend(self.certificates.first().map(|first| first.digest));
        }
        digests.sort_unstable();
        digests.dedup();
        digests
    }
}

struct List {
    ttl: u32,
    records: Vec<Record>,
}

impl List {
    fn add(&mut self, name: &str, data: Data, purpose: &'static str) {
        let record = Record {
            name: name.to_owned(),
            ttl: self.ttl,
            data,
            purpose,
        };
        if !self.records.contains(&record) {
            self.records.push(record);
        }
    }

    fn text(&mut self, name: &str, text: String, purpose: &'static str) {
        if !text.is_empty() {
            self.add(name, Data::Txt(text), purpose);
        }
    }

    fn alias(&mut self, name: &str, host: &str, purpose: &'static str) {
        if name != host {
            self.add(name, Data::Cname(host.to_owned()), purpose);
        }
    }
}

#[cfg(test)]
#[path = "needed_tests.rs"]
mod tests;
