//! DNS-PERSIST-01 (draft-ietf-acme-dns-persist-01): one record for good, which names the authority and our account there.
//!
//! What is to stand in it is in the challenge; it is remembered, so that later the record is looked for before the authority hears of us:
//! while it is missing nothing is ordered and nothing is answered. It is published by hand, or by us where we may write the zone, and stays.

use crate::config::{ChallengeKind, Target};
use crate::dns::Watcher;
use crate::now;
use crate::publish::{FILE, Ledger, record};
use crate::trouble::Trouble;
use crate::worker::Worker;
use ipc::api::certd::{DnsData, DnsEntry, PersistentRecord};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use zone::{Data, Persistent, Record};

/// Where it is remembered what the authority looks for.
const REMEMBERED: &str = "persist.json";
/// 3.1: with more of them a challenge is malformed.
const ISSUERS_MAX: usize = 10;
/// Octets of an account's URI.
const URI_MAX: usize = 1024;

/// What a challenge says of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    issuers: Vec<String>,
    /// Drafts before 01 do not have it.
    account: Option<String>,
}

/// What is in a body that came from the authority, by the challenges' addresses. The library leaves these members out.
pub(crate) fn offers(body: &[u8]) -> Vec<(String, Result<Offer, String>)> {
    #[derive(Deserialize)]
    struct Authorization {
        challenges: Vec<Value>,
    }
    let Ok(authorization) = serde_json::from_slice::<Authorization>(body) else {
        return Vec::new();
    };
    let challenges = authorization.challenges.iter();
    challenges
        .filter(|one| one.get("type").and_then(Value::as_str) == Some("dns-persist-01"))
        .filter_map(|one| Some((one.get("url")?.as_str()?.to_owned(), Offer::of(one))))
        .collect()
}

impl Offer {
    fn of(challenge: &Value) -> Result<Self, String> {
        let names = challenge.get("issuer-domain-names");
        let names = names.and_then(Value::as_array).ok_or(
            "its dns-persist-01 has no issuer-domain-names: it may follow another draft than 00 or 01",
        )?;
        if names.is_empty() || names.len() > ISSUERS_MAX {
            return Err(format!(
                "its dns-persist-01 has {} issuer-domain-names, not 1 to {ISSUERS_MAX}",
                names.len()
            ));
        }
        let issuer = |name: &Value| {
            // Normalized: A-labels, lower case, no final dot, 253 octets.
            let text = name.as_str().filter(|text| text.len() <= 253)?;
            let checked = types::Address::domain_of(text).ok()?;
            (checked == text && !text.starts_with('[')).then_some(checked)
        };
        let issuers: Option<Vec<String>> = names.iter().map(issuer).collect();
        let issuers = issuers.ok_or("its dns-persist-01 has issuer-domain-names that are none")?;
        let account = match challenge.get("accounturi") {
            None | Some(Value::Null) => None,
            Some(uri) => {
                // It must fit into an issue-value (RFC 8659 4.2).
                let fits = |text: &&str| {
                    (1..=URI_MAX).contains(&text.len())
                        && text.bytes().all(|b| b.is_ascii_graphic() && b != b';')
                };
                let uri = uri.as_str().filter(fits);
                Some(uri.ok_or("the accounturi of its dns-persist-01 is no URI")?)
            }
        };
        Ok(Self {
            issuers,
            account: account.map(str::to_owned),
        })
    }
}

/// What the authority looks for, as its challenges said last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Remembered {
    /// The authority's directory.
    directory: String,
    /// Our account's address there.
    account: String,
    issuers: Vec<String>,
    /// By domain, where the authority calls our account otherwise.
    uris: BTreeMap<String, String>,
}

impl Worker {
    /// What is remembered, if it is of the authority and the account that count now.
    fn remembered(&self) -> Remembered {
        let account = self.state.account();
        let directory = &self.config.directory;
        let kept: Remembered = self.state.read(REMEMBERED);
        let mut remembered = if kept.directory == *directory && kept.account == account.url {
            kept
        } else {
            Remembered {
                directory: directory.clone(),
                ..Remembered::default()
            }
        };
        if account.directory == *directory {
            remembered.account = account.url;
        }
        remembered
    }

    /// Remembers what a challenge for this domain says; whether it says anything new.
    pub(crate) fn remember(&self, domain: &str, offer: Offer) -> Result<bool, Trouble> {
        let issuer = &self.config.persist_issuer;
        if !issuer.is_empty() && !offer.issuers.contains(issuer) {
            return Err(Trouble::Refused(format!(
                "the authority's issuer domain names are {}: certd.persist_issuer {issuer} is none of them",
                offer.issuers.join(", ")
            )));
        }
        let before = self.remembered();
        let uri = offer.account.unwrap_or_else(|| before.account.clone());
        // One authority must not have us vouch for somebody's account at another, to which a record would lead that it makes up.
        if issuer.is_empty() && host(&uri) != host(&self.config.directory) {
            return Err(Trouble::Refused(format!(
                "the authority calls our account {uri}, which is at another host than its directory: if that is right, set certd.persist_issuer to one of {}",
                offer.issuers.join(", ")
            )));
        }
        let mut after = before.clone();
        after.issuers = offer.issuers;
        if uri == after.account {
            after.uris.remove(domain);
        } else {
            after.uris.insert(domain.to_owned(), uri);
        }
        let new = after != before;
        if new {
            self.state.write(REMEMBERED, &after)?;
        }
        Ok(new)
    }

    /// The records for these certificates, one a domain; none while it is not known what they say.
    fn persistent(&self, targets: &[Target]) -> Vec<Persistent> {
        let remembered = self.remembered();
        let mut issuers = remembered.issuers;
        let chosen = &self.config.persist_issuer;
        if !chosen.is_empty() {
            issuers.retain(|issuer| issuer != chosen);
            issuers.insert(0, chosen.clone());
        }
        if issuers.is_empty() || remembered.account.is_empty() {
            return Vec::new();
        }
        let mut all: BTreeMap<&str, bool> = BTreeMap::new();
        let ours = |target: &&Target| target.challenge == ChallengeKind::DnsPersist01;
        for name in targets.iter().filter(ours).flat_map(|one| &one.names) {
            let domain = name.strip_prefix("*.").unwrap_or(name);
            *all.entry(domain).or_default() |= domain.len() < name.len();
        }
        let below = |domain: &str| above(domain).any(|above| all.get(above) == Some(&true));
        all.iter()
            .filter(|(domain, _)| !(self.config.persist_subdomains && below(domain)))
            .map(|(domain, wildcard)| {
                // 4.1.3: the account's address is always taken.
                let own = std::iter::once(remembered.account.clone());
                let other = remembered.uris.get(*domain).cloned();
                Persistent {
                    domain: (*domain).to_owned(),
                    issuers: issuers.clone(),
                    accounts: other.into_iter().chain(own).collect(),
                    wildcard: *wildcard,
                    until: self.config.persist_until,
                }
            })
            .collect()
    }

    /// For the operator.
    pub(crate) fn persistent_records(&self) -> Vec<PersistentRecord> {
        let all = self.persistent(&self.targets).into_iter();
        all.map(|one| PersistentRecord {
            domain: one.domain,
            issuers: one.issuers,
            accounts: one.accounts,
            wildcard: one.wildcard,
            until: one.until,
        })
        .collect()
    }

    /// Has all name servers show what the authority will look for, as far as that is known: looks, and publishes where we may.
    pub(crate) async fn stand(&self, target: &Target) -> Result<(), Trouble> {
        let until = self.config.persist_until;
        if until > 0 && until < now() {
            return Err(Trouble::Setting(format!(
                "certd.persist_until {until} is over: set a later time, or 0"
            )));
        }
        let watcher = Watcher::new(&self.config.dns, &self.config.nameservers);
        let all = self.persistent(&self.targets);
        let mut missing = Vec::new();
        for own in self.persistent(std::slice::from_ref(target)) {
            let written = all.iter().find(|one| one.domain == own.domain);
            let written = written.unwrap_or(&own);
            let seen = self.look(&watcher, &own).await;
            if self.may_write(&own.name()) {
                if seen.is_err() || !self.replaced(written).is_empty() {
                    self.publish_persistent(&watcher, written).await?;
                }
            } else if let Err(why) = seen {
                missing.push(format!("{} ({why})", line(written, self.ttl())));
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        Err(Trouble::Unpublished(missing.join("; ")))
    }

    fn may_write(&self, name: &str) -> bool {
        !self.config.dns.provider.is_empty() && self.config.dns.zone_of(name).is_ok()
    }

    /// What we published before in the place of a record.
    fn replaced(&self, written: &Persistent) -> Vec<DnsEntry> {
        let ledger: Ledger = self.state.read(FILE);
        let text = written.text();
        let old = |one: &DnsEntry| match &one.data {
            DnsData::Txt(other) => {
                one.name == written.name() && *other != text && written.is_ours(other)
            }
            _ => false,
        };
        ledger.entries.into_iter().filter(old).collect()
    }

    fn ttl(&self) -> u32 {
        self.config.dns.challenge_ttl
    }

    /// Whether all servers show it, or a record above that is for the names below, too (5).
    async fn look(&self, watcher: &Watcher, own: &Persistent) -> Result<(), String> {
        let seen = watcher.judge(&own.name(), &granted(own)).await;
        if seen.is_err() && self.config.persist_subdomains {
            for domain in above(&own.domain) {
                let above = Persistent {
                    domain: domain.to_owned(),
                    wildcard: true,
                    ..own.clone()
                };
                if watcher.judge(&above.name(), &granted(&above)).await.is_ok() {
                    return Ok(());
                }
            }
        }
        seen
    }

    /// Publishes it, waits until all servers show it, and removes what we published there before.
    async fn publish_persistent(
        &self,
        watcher: &Watcher,
        written: &Persistent,
    ) -> Result<(), Trouble> {
        let entry = DnsEntry {
            name: written.name(),
            ttl: self.ttl(),
            data: DnsData::Txt(written.text()),
        };
        let publisher = self.publisher().await?;
        let mut ledger: Ledger = self.state.read(FILE);
        // Written down first: what a kill leaves is known.
        if !ledger.has(&entry) {
            ledger.entries.push(entry.clone());
            self.state.write(FILE, &ledger)?;
        }
        let (kind, data) = record(&entry.data).map_err(Trouble::Setting)?;
        publisher.add(&entry.name, kind, entry.ttl, data).await?;
        watcher.until(&entry.name, &granted(written)).await?;
        for entry in self.replaced(written) {
            let (kind, data) = record(&entry.data).map_err(Trouble::Setting)?;
            publisher.remove(&entry.name, kind, data).await?;
            ledger.forget(&entry);
            self.state.write(FILE, &ledger)?;
        }
        Ok(())
    }
}

/// Whether the texts at a server do.
fn granted(own: &Persistent) -> impl Fn(&[String]) -> Result<(), String> + '_ {
    move |texts: &[String]| {
        let texts = texts.iter().map(String::as_str);
        own.granted(texts, now()).map(drop)
    }
}

fn parent(domain: &str) -> Option<&str> {
    domain.split_once('.').map(|(_, parent)| parent)
}

/// The domains above one, without those of one label.
fn above(domain: &str) -> impl Iterator<Item = &str> {
    let all = std::iter::successors(parent(domain), |one| parent(one));
    all.filter(|one| one.contains('.'))
}

/// As in a zone file.
fn line(written: &Persistent, ttl: u32) -> String {
    let record = Record {
        name: written.name(),
        ttl,
        data: Data::Txt(written.text()),
        purpose: "",
    };
    record.to_string()
}

fn host(url: &str) -> Option<String> {
    let url = reqwest::Url::parse(url).ok()?;
    url.host_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    fn body(more: &Value) -> Vec<u8> {
        let mut challenge =
            json!({ "type": "dns-persist-01", "url": "https://ca/1", "status": "pending" });
        let members = more.as_object().unwrap().clone();
        challenge.as_object_mut().unwrap().extend(members);
        let other = json!({ "type": "dns-01", "url": "https://ca/2", "token": "t" });
        json!({ "status": "pending", "challenges": [other, challenge] })
            .to_string()
            .into_bytes()
    }

    #[test]
    fn what_the_library_leaves_out_is_noticed() {
        let more = json!({ "issuer-domain-names": ["a.example", "xn--4ca.example"], "accounturi": "https://ca/acct/1" });
        let found = offers(&body(&more));
        let offer = Offer {
            issuers: vec!["a.example".to_owned(), "xn--4ca.example".to_owned()],
            account: Some("https://ca/acct/1".to_owned()),
        };
        assert_eq!(found, [("https://ca/1".to_owned(), Ok(offer))]);
        // Draft 00.
        let found = offers(&body(&json!({ "issuer-domain-names": ["a.example"] })));
        assert_eq!(found[0].1.as_ref().unwrap().account, None);
        for other in ["", "[]", "{}", "-----BEGIN", r#"{"challenges":[1,{}]}"#] {
            assert_eq!(offers(other.as_bytes()), [], "{other}");
        }
    }

    #[test]
    fn a_malformed_challenge_is_refused() {
        let many: Vec<String> = (0..11).map(|n| format!("a{n}.example")).collect();
        let long = format!("{}.example", vec!["a".repeat(60); 5].join("."));
        let good = json!(["a.example"]);
        for (names, uri) in [
            (json!(null), json!(null)),
            (json!("a.example"), json!(null)),
            (json!([]), json!(null)),
            (json!(many), json!(null)),
            (json!([1]), json!(null)),
            (json!([""]), json!(null)),
            (json!(["A.example"]), json!(null)),
            (json!(["a.example."]), json!(null)),
            (json!(["é.example"]), json!(null)),
            (json!(["a.example; policy=wildcard"]), json!(null)),
            (json!([long]), json!(null)),
            (good.clone(), json!("")),
            (good.clone(), json!(7)),
            (good.clone(), json!("https://ca/1; policy=wildcard")),
            (good.clone(), json!("https://ca/\n1")),
            (
                good.clone(),
                json!(format!("https://ca/{}", "a".repeat(URI_MAX))),
            ),
        ] {
            let more = json!({ "issuer-domain-names": names, "accounturi": uri });
            assert!(offers(&body(&more))[0].1.is_err(), "{more}");
        }
    }

    #[test]
    fn domains_above_are_not_those_of_registries_alone() {
        let list: Vec<&str> = above("a.b.example.org").collect();
        assert_eq!(list, ["b.example.org", "example.org"]);
        assert_eq!(above("example.org").count(), 0);
    }
}
