//! Records that the operator has us publish (`posthouse dns publish`). What we published is written down, and nothing else is removed.

use crate::dns::DnsError;
use crate::trouble::Trouble;
use crate::worker::Worker;
use dns_update::{
    CAARecord, DnsRecord, DnsRecordType, KeyValue, MXRecord, SRVRecord, TLSARecord, TlsaCertUsage,
    TlsaMatching, TlsaSelector,
};
use ipc::api::certd::{DnsChange, DnsData, DnsEntry, DnsPublishedReply};
use ipc::{Fault, FaultKind};
use serde::{Deserialize, Serialize};

/// Records in one change; a domain needs some thirty.
const CHANGES_MAX: usize = 500;
/// Where what we published is kept.
pub(crate) const FILE: &str = "published.json";

/// What we published for the operator, and did not remove.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Ledger {
    pub(crate) entries: Vec<DnsEntry>,
}

impl Ledger {
    pub(crate) fn has(&self, entry: &DnsEntry) -> bool {
        self.entries
            .iter()
            .any(|own| own.name == entry.name && own.data == entry.data)
    }

    pub(crate) fn forget(&mut self, entry: &DnsEntry) {
        self.entries
            .retain(|own| own.name != entry.name || own.data != entry.data);
    }
}

impl Worker {
    /// What we published, and where we may.
    pub(crate) fn published(&self) -> DnsPublishedReply {
        let ledger: Ledger = self.state.read(FILE);
        DnsPublishedReply {
            zones: match self.config.dns.provider.as_str() {
                "" => Vec::new(),
                _ => self.config.dns.zones.clone(),
            },
            entries: ledger.entries,
        }
    }

    /// Removes, then publishes. All is looked at before anything is changed; what was changed when one fails is written down.
    pub(crate) async fn change(&self, change: DnsChange) -> Result<(), Fault> {
        if self.config.dns.provider.is_empty() {
            let text = "certd.dns.provider is not set: records are published by hand";
            return Err(Fault::new(FaultKind::Invalid, text));
        }
        if change.publish.len() + change.remove.len() > CHANGES_MAX {
            let text = format!("more than {CHANGES_MAX} records in one change");
            return Err(Fault::new(FaultKind::Invalid, text));
        }
        let mut ledger: Ledger = self.state.read(FILE);
        let mut removals = Vec::new();
        for entry in &change.remove {
            if !ledger.has(entry) {
                let text = format!("{} was not published by certd: it stays", entry.name);
                return Err(Fault::new(FaultKind::Denied, text));
            }
            removals.push((entry, self.checked(entry)?));
        }
        let mut additions = Vec::new();
        for entry in &change.publish {
            additions.push((entry, self.checked(entry)?));
        }
        let told = |trouble: Trouble| Fault::new(FaultKind::Temporary, trouble.to_string());
        let keep = |ledger: &Ledger| {
            let kept = self.state.write(FILE, ledger);
            kept.map_err(|error| told(error.into()))
        };
        let publisher = self.publisher().await.map_err(told)?;
        for (entry, (kind, record)) in removals {
            let removed = publisher.remove(&entry.name, kind, record).await;
            removed.map_err(|error| told(error.into()))?;
            ledger.forget(entry);
            keep(&ledger)?;
        }
        for (entry, (kind, record)) in additions {
            // Written down first: what a kill leaves is known.
            if !ledger.has(entry) {
                ledger.entries.push(entry.clone());
                keep(&ledger)?;
            }
            let added = publisher.add(&entry.name, kind, entry.ttl, record).await;
            added.map_err(|error| told(error.into()))?;
        }
        Ok(())
    }

    fn checked(&self, entry: &DnsEntry) -> Result<(DnsRecordType, DnsRecord), Fault> {
        let told = |error: DnsError| Fault::new(FaultKind::Denied, error.to_string());
        self.config.dns.zone_of(&entry.name).map_err(told)?;
        record(&entry.data).map_err(|error| Fault::new(FaultKind::Invalid, error))
    }
}

/// The root is a dot.
fn host(name: &str) -> String {
    if name.is_empty() {
        ".".to_owned()
    } else {
        name.to_owned()
    }
}

/// As the library has it.
pub(crate) fn record(data: &DnsData) -> Result<(DnsRecordType, DnsRecord), String> {
    Ok(match data {
        DnsData::A(address) => (DnsRecordType::A, DnsRecord::A(*address)),
        DnsData::Aaaa(address) => (DnsRecordType::AAAA, DnsRecord::AAAA(*address)),
        DnsData::Cname(name) => (DnsRecordType::CNAME, DnsRecord::CNAME(host(name))),
        DnsData::Mx(priority, exchange) => (
            DnsRecordType::MX,
            DnsRecord::MX(MXRecord {
                exchange: host(exchange),
                priority: *priority,
            }),
        ),
        DnsData::Txt(text) => (DnsRecordType::TXT, DnsRecord::TXT(text.clone())),
        DnsData::Srv {
            priority,
            weight,
            port,
            target,
        } => (
            DnsRecordType::SRV,
            DnsRecord::SRV(SRVRecord {
                target: host(target),
                priority: *priority,
                weight: *weight,
                port: *port,
            }),
        ),
        DnsData::Tlsa {
            usage,
            selector,
            matching,
            digest,
        } => {
            // RFC 6698 2.1: what `posthouse dns` prints is 3 1 1.
            if (*usage, *selector, *matching) != (3, 1, 1) {
                return Err(format!(
                    "a TLSA record {usage} {selector} {matching}: only 3 1 1 is published"
                ));
            }
            let record = TLSARecord {
                cert_usage: TlsaCertUsage::DaneEe,
                selector: TlsaSelector::Spki,
                matching: TlsaMatching::Sha256,
                cert_data: digest.0.clone(),
            };
            (DnsRecordType::TLSA, DnsRecord::TLSA(record))
        }
        DnsData::Caa { flags, tag, value } => {
            (DnsRecordType::CAA, DnsRecord::CAA(caa(*flags, tag, value)?))
        }
    })
}

/// RFC 8659 4.2
fn caa(flags: u8, tag: &str, value: &str) -> Result<CAARecord, String> {
    let issuer_critical = flags & 128 != 0;
    let mut parts = value.split(';').map(str::trim);
    let name = parts
        .next()
        .filter(|name| !name.is_empty())
        .map(str::to_owned);
    let options = parts
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            KeyValue {
                key: key.trim().to_owned(),
                value: value.trim().to_owned(),
            }
        })
        .collect();
    match tag {
        "issue" => Ok(CAARecord::Issue {
            issuer_critical,
            name,
            options,
        }),
        "issuewild" => Ok(CAARecord::IssueWild {
            issuer_critical,
            name,
            options,
        }),
        "iodef" => Ok(CAARecord::Iodef {
            issuer_critical,
            url: value.to_owned(),
        }),
        other => Err(format!("a CAA record {other} cannot be published")),
    }
}
