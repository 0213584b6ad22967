//! `posthouse dns`: the records that a domain needs, and whether they are published.

use crate::cli::Dns;
use crate::connect::{Place, Suite};
use crate::failure::Failure;
use crate::{output, time};
use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::{RData, RecordType};
use ipc::api::certd::{CertificateStatus, PersistentRecord};
use ipc::api::keyd::{DkimKeys, ListCertificates};
use runtime::Document;
use serde_json::{Value, json};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use types::ReportAddresses;
use types::Role::{Certd, Keyd};
use zone::{
    CertificateKey, Data, DkimText, Finding, Kind, Persistent, Published, Record, Service, Site,
};

/// How long a name server has for an answer; each question is asked twice.
const ANSWER: Duration = Duration::from_secs(4);
/// Questions that are asked together.
const AT_ONCE: usize = 32;

pub(crate) async fn run(suite: &Suite, place: &Place, command: Dns) -> Result<(), Failure> {
    match command {
        Dns::Show { domain } => {
            let known = Known::gather(suite, &place.document()?, &domain).await?;
            let records = zone::needed(&known.site());
            if suite.json {
                let rows = records.iter().map(|record| row(record, &known.domain));
                output::print(&Value::Array(rows.collect()));
            } else {
                output::say(zone::zone_file(&known.domain, &records).trim_end());
            }
            Ok(())
        }
        Dns::Check { domain, resolver } => {
            let known = Known::gather(suite, &place.document()?, &domain).await?;
            let resolver = resolver_at(resolver.as_deref())?;
            report(&known.judge(&resolver).await, suite.json, &known.domain)
        }
        Dns::Publish {
            domain,
            resolver,
            yes,
        } => super::dns_publish::publish(suite, place, &domain, resolver.as_deref(), yes).await,
        Dns::Unpublish { domain, yes } => super::dns_publish::unpublish(suite, &domain, yes).await,
    }
}

/// What is known of a domain without DNS.
pub(crate) struct Known {
    domain: String,
    host: String,
    config: zone::Config,
    services: Vec<Service>,
    dkim: Vec<DkimText>,
    certificates: Vec<CertificateKey>,
    persistent: Vec<Persistent>,
}

impl Known {
    /// Asks the configuration and keyd.
    pub(crate) async fn gather(
        suite: &Suite,
        document: &Document,
        domain: &str,
    ) -> Result<Self, Failure> {
        let domain = types::Address::domain_of(domain)
            .map_err(|error| Failure::new(format!("{domain}: {error}")))?;
        let told = |error: runtime::Failure| Failure::new(error.to_string());
        let config: zone::Config = document.section("dns").map_err(told)?;
        config.validate().map_err(Failure::new)?;
        let reports: ReportAddresses = document.section("reportd").map_err(told)?;
        let reports = reports.patterns().map_err(Failure::new)?;
        let taken = |address: &str| {
            let address = address.parse::<types::Address>();
            address.is_ok_and(|address| reports.iter().any(|one| one.matches(&address)))
        };
        let request = DkimKeys {
            domain: domain.clone(),
        };
        let keys = suite.call(Keyd, &request).await?;
        let certificates = suite.call(Keyd, &ListCertificates).await?;
        // certd knows them, and does not run where it has nothing to do. The other records do not depend on it.
        let persistent = match suite.daemons.contains(&Certd) {
            true => match suite.call(Certd, &CertificateStatus).await {
                Ok(status) => status.persistent,
                Err(failure) => {
                    eprintln!(
                        "posthouse: without the records of DNS-PERSIST-01, if there are any: {failure}"
                    );
                    Vec::new()
                }
            },
            false => Vec::new(),
        };
        Ok(Self {
            host: suite.hostname.to_ascii_lowercase(),
            config: config.of(&domain).with_reports(&domain, taken),
            services: httpd::services(document).map_err(told)?,
            dkim: keys
                .into_iter()
                .map(|key| DkimText {
                    selector: key.selector,
                    record: key.record,
                })
                .collect(),
            certificates: certificates
                .into_iter()
                .filter_map(|certificate| {
                    Some(CertificateKey {
                        digest: zone::key_digest(&certificate.chain.first()?.0)?,
                        names: certificate.names,
                    })
                })
                .collect(),
            persistent: persistent.into_iter().map(needed).collect(),
            domain,
        })
    }

    /// A-label, lower case.
    pub(crate) fn domain(&self) -> &str {
        &self.domain
    }

    /// What it needs.
    pub(crate) fn records(&self) -> Vec<Record> {
        zone::needed(&self.site())
    }

    fn site(&self) -> Site<'_> {
        Site {
            domain: &self.domain,
            host: &self.host,
            config: &self.config,
            services: &self.services,
            dkim: &self.dkim,
            certificates: &self.certificates,
            persistent: &self.persistent,
            now: time::now(),
        }
    }

    /// Compares with what is published.
    pub(crate) async fn judge(&self, resolver: &TokioResolver) -> Vec<Finding> {
        let site = self.site();
        let records = zone::needed(&site);
        let questions: Vec<(String, Kind)> = zone::questions(&records).into_iter().collect();
        let mut published = Published::new();
        for some in questions.chunks(AT_ONCE) {
            let asked = some.iter().map(|(name, kind)| ask(resolver, name, *kind));
            let answers = futures_util::future::join_all(asked).await;
            published.extend(some.iter().cloned().zip(answers));
        }
        zone::compare(&site, &records, &published)
    }
}

fn needed(record: PersistentRecord) -> Persistent {
    Persistent {
        domain: record.domain,
        issuers: record.issuers,
        accounts: record.accounts,
        wildcard: record.wildcard,
        until: record.until,
    }
}

/// The system's resolver, or another one: `192.0.2.1`, `192.0.2.1:5353`, `[2001:db8::1]:53`.
pub(crate) fn resolver_at(server: Option<&str>) -> Result<TokioResolver, Failure> {
    let told = |error: &dyn std::fmt::Display| Failure::new(format!("no resolver: {error}"));
    let servers = match server {
        None => Vec::new(),
        Some(text) => {
            let server = text
                .parse::<SocketAddr>()
                .or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)))
                .map_err(|_| {
                    Failure::new(format!(
                        "{text:?} is no address of a name server, as 192.0.2.1:53"
                    ))
                })?;
            vec![server]
        }
    };
    let mut builder = ::dns::builder(&servers);
    let options = builder.options_mut();
    options.timeout = ANSWER;
    options.attempts = 1;
    // What was published a moment ago is to be seen.
    options.cache_size = 0;
    builder.build().map_err(|error| told(&error))
}

pub(crate) async fn ask(
    resolver: &TokioResolver,
    name: &str,
    kind: Kind,
) -> Result<Vec<Data>, String> {
    let asked = match kind {
        Kind::A => RecordType::A,
        Kind::Aaaa => RecordType::AAAA,
        Kind::Cname => RecordType::CNAME,
        Kind::Mx => RecordType::MX,
        Kind::Txt => RecordType::TXT,
        Kind::Srv => RecordType::SRV,
        Kind::Tlsa => RecordType::TLSA,
        Kind::Caa => RecordType::CAA,
    };
    match resolver.lookup(format!("{name}."), asked).await {
        Ok(answer) => Ok(answer
            .answers()
            .iter()
            .filter_map(|record| data(&record.data))
            .filter(|data| data.kind() == kind)
            .collect()),
        Err(error) if error.is_nx_domain() || error.is_no_records_found() => Ok(Vec::new()),
        Err(error) => Err(error.to_string()),
    }
}

fn data(found: &RData) -> Option<Data> {
    let plain = |name: String| name.trim_end_matches('.').to_ascii_lowercase();
    Some(match found {
        RData::A(address) => Data::A(address.0),
        RData::AAAA(address) => Data::Aaaa(address.0),
        RData::CNAME(name) => Data::Cname(plain(name.0.to_ascii())),
        RData::MX(mx) => Data::Mx(mx.preference, plain(mx.exchange.to_ascii())),
        RData::TXT(text) => {
            let octets: Vec<u8> = text
                .txt_data
                .iter()
                .flat_map(|part| part.iter().copied())
                .collect();
            Data::Txt(String::from_utf8_lossy(&octets).into_owned())
        }
        RData::SRV(srv) => Data::Srv {
            priority: srv.priority,
            weight: srv.weight,
            port: srv.port,
            target: plain(srv.target.to_ascii()),
        },
        RData::TLSA(tlsa) => Data::Tlsa {
            usage: tlsa.cert_usage.into(),
            selector: tlsa.selector.into(),
            matching: tlsa.matching.into(),
            digest: tlsa.cert_data.clone(),
        },
        RData::CAA(caa) => Data::Caa {
            flags: caa.flags(),
            tag: caa.tag.clone(),
            value: zone::caa_value(&caa.tag, &String::from_utf8_lossy(&caa.value)),
        },
        _ => return None,
    })
}

fn row(record: &Record, domain: &str) -> Value {
    json!({
        "name": record.name,
        "ttl": record.ttl,
        "type": record.data.kind().to_string(),
        "data": record.data.to_string(),
        "purpose": record.purpose,
        "in_zone": record.is_in(domain),
    })
}

fn report(findings: &[Finding], json: bool, domain: &str) -> Result<(), Failure> {
    let rows: Vec<Value> = findings
        .iter()
        .map(|finding| {
            json!({
                "verdict": finding.verdict.word(),
                "name": finding.name,
                "type": finding.kind.to_string(),
                "purpose": finding.purpose,
                "needed": finding.needed,
                "published": finding.published,
                "text": finding.text,
            })
        })
        .collect();
    if json {
        output::print(&Value::Array(rows));
    } else {
        let columns = [
            ("verdict", "VERDICT"),
            ("name", "NAME"),
            ("type", "TYPE"),
            ("purpose", "FOR"),
            ("text", "WHY"),
        ];
        output::list(false, &columns, &rows);
        for finding in findings
            .iter()
            .filter(|one| one.verdict != zone::Verdict::Present)
        {
            output::say("");
            output::say(&format!(
                "{}: {} {}",
                finding.verdict.word(),
                finding.name,
                finding.kind
            ));
            if let Some(needed) = &finding.needed {
                output::say(&format!("  needed     {needed}"));
            }
            for one in &finding.published {
                // Control characters are numbers in it: it is written as in a zone file.
                output::say(&format!("  published  {one}"));
            }
        }
    }
    match findings.iter().filter(|one| one.verdict.is_fault()).count() {
        0 => Ok(()),
        count => Err(Failure::check(format!(
            "{count} records of {domain} are not as they should be; `posthouse dns show {domain}` prints them"
        ))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// httpd and SRV records tell of what runs where nothing is configured.
    #[test]
    fn the_default_listeners_are_those_of_the_daemons() {
        let folder = tempfile::tempdir().unwrap();
        let read = |text: String| {
            let file = folder.path().join("posthouse.toml");
            std::fs::write(&file, text).unwrap();
            httpd::services(&Document::load(&file).unwrap()).unwrap()
        };
        let mut table = toml::Table::new();
        macro_rules! add {
            ($($daemon:ident)*) => {$(
                let section = toml::Table::try_from($daemon::Config::default()).unwrap();
                table.insert(stringify!($daemon).to_owned(), toml::Value::Table(section));
            )*};
        }
        add!(smtpd imapd pop3d sieved);
        let written = read(table.to_string());
        assert_eq!(read(String::new()), written);
        assert_eq!(written.len(), 7);
    }
}
