//! TLSA records that are there before the key is used that they name (RFC 7671 8.1): otherwise mail from those who check them waits while
//! caches still hold the old ones.
//!
//! Only where records of ours are there already (`posthouse dns publish`): the digest of the next key is published beside the one in use;
//! when all name servers show it and `certd.dns.tlsa_settle` has passed, the certificate is ordered; when it is in use, the old one goes.

use crate::config::Target;
use crate::dns::Watcher;
use crate::now;
use crate::publish::{FILE, Ledger, record};
use crate::state::Progress;
use crate::trouble::Trouble;
use crate::worker::Worker;
use ipc::api::certd::{DnsData, DnsEntry};
use ipc::api::keyd::{CertificateRequest, IssuedCertificate};
use types::{Octets, TraceId};

/// Whether a record at this name is about a key of the certificate: `_25._tcp.` and one of its names.
fn concerns(entry: &DnsEntry, target: &Target) -> bool {
    let DnsData::Tlsa { .. } = entry.data else {
        return false;
    };
    let Some((_, host)) = entry.name.split_once("._tcp.") else {
        return false;
    };
    let parent = host
        .split_once('.')
        .map(|(_, parent)| format!("*.{parent}"));
    target
        .names
        .iter()
        .any(|name| name == host || Some(name) == parent.as_ref())
}

fn digest_of(entry: &DnsEntry) -> Option<&Octets> {
    match &entry.data {
        DnsData::Tlsa { digest, .. } => Some(digest),
        _ => None,
    }
}

impl Worker {
    /// Has the next key announced. When to go on with the order, if not now.
    pub(crate) async fn announce(
        &self,
        target: &Target,
        progress: &mut Progress,
    ) -> Result<Option<u64>, Trouble> {
        let mut ledger: Ledger = self.state.read(FILE);
        let ours = ledger.entries.iter();
        let mut wanted: Vec<DnsEntry> = ours.filter(|one| concerns(one, target)).cloned().collect();
        wanted.sort_by(|one, other| one.name.cmp(&other.name));
        wanted.dedup_by(|one, other| one.name == other.name);
        if wanted.is_empty() || self.config.dns.provider.is_empty() {
            return Ok(None);
        }
        let request = CertificateRequest {
            id: target.id.clone(),
            names: target.names.clone(),
            algorithm: self.config.key,
        };
        let next = self.keyd.call(TraceId(0), &request).await?.key_digest;
        let text: String = next.iter().map(|octet| format!("{octet:02x}")).collect();
        for entry in &mut wanted {
            if let DnsData::Tlsa { digest, .. } = &mut entry.data {
                *digest = next.clone();
            }
        }
        if progress.announced != text {
            let publisher = self.publisher().await?;
            for entry in &wanted {
                // Written down first: what a kill leaves is known.
                if !ledger.has(entry) {
                    ledger.entries.push(entry.clone());
                    self.state.write(FILE, &ledger)?;
                }
                let (kind, record) = record(&entry.data).map_err(Trouble::Setting)?;
                publisher.add(&entry.name, kind, entry.ttl, record).await?;
            }
            progress.announced = text;
            progress.announced_seen = 0;
            self.state.keep(&target.id, progress)?;
            tracing::info!(
                id = target.id,
                "the key of the next certificate is announced (TLSA)"
            );
        }
        if progress.announced_seen == 0 {
            let watcher = Watcher::new(&self.config.dns, &self.config.nameservers);
            for entry in &wanted {
                if !watcher.shows_tlsa(&entry.name, &next).await? {
                    let pause = self.config.dns.propagation_pause_ms.div_ceil(1000);
                    return Ok(Some(now() + pause.max(1)));
                }
            }
            progress.announced_seen = now();
            self.state.keep(&target.id, progress)?;
        }
        let from = progress
            .announced_seen
            .saturating_add(self.config.dns.tlsa_settle);
        Ok((from > now()).then_some(from))
    }

    /// Removes the records of keys that are used no more. What cannot be removed now is, after the next certificate.
    pub(crate) async fn withdraw(&self, target: &Target, current: &IssuedCertificate) {
        let Some(used) = zone::key_digest(&current.leaf) else {
            return;
        };
        let mut ledger: Ledger = self.state.read(FILE);
        let old: Vec<DnsEntry> = ledger
            .entries
            .iter()
            .filter(|one| concerns(one, target))
            .filter(|one| digest_of(one).is_some_and(|digest| digest.as_slice() != used))
            .cloned()
            .collect();
        if old.is_empty() {
            return;
        }
        let result = async {
            let publisher = self.publisher().await?;
            for entry in &old {
                let (kind, record) = record(&entry.data).map_err(Trouble::Setting)?;
                publisher.remove(&entry.name, kind, record).await?;
                ledger.forget(entry);
                self.state.write(FILE, &ledger)?;
            }
            Ok::<(), Trouble>(())
        };
        if let Err(trouble) = result.await {
            tracing::warn!(id = target.id, %trouble, "TLSA records of an old key stay published");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ChallengeKind;

    #[test]
    fn records_of_other_names_are_not_concerned() {
        let target = Target {
            id: "mx.d.example".to_owned(),
            names: vec!["mx.d.example".to_owned(), "*.e.example".to_owned()],
            challenge: ChallengeKind::Http01,
        };
        let tlsa = |name: &str| DnsEntry {
            name: name.to_owned(),
            ttl: 60,
            data: DnsData::Tlsa {
                usage: 3,
                selector: 1,
                matching: 1,
                digest: vec![1].into(),
            },
        };
        assert!(concerns(&tlsa("_25._tcp.mx.d.example"), &target));
        assert!(concerns(&tlsa("_25._tcp.any.e.example"), &target));
        for name in [
            "_25._tcp.other.d.example",
            "mx.d.example",
            "_25._tcp.a.b.e.example",
        ] {
            assert!(!concerns(&tlsa(name), &target), "{name}");
        }
        let text = DnsEntry {
            data: DnsData::Txt("x".to_owned()),
            ..tlsa("_25._tcp.mx.d.example")
        };
        assert!(!concerns(&text, &target));
    }
}
