//! DKIM keys that are changed by themselves: made, published, waited for, used, retired, unpublished.
//!
//! Each step is written down when it is done, and each can be done twice: a kill between two of them costs a repetition.

use crate::config::Config;
use crate::dns::Watcher;
use crate::state::State;
use crate::trouble::Trouble;
use crate::worker::Worker;
use crate::{now, plan};
use dns_update::{DnsRecord, DnsRecordType};
use ipc::api::certd::DkimRotationRow;
use ipc::api::keyd::{
    DkimAlgorithm, DkimCreate, DkimKey, DkimKeys, DkimMark, DkimRemove, DkimState,
};
use ipc::{Fault, FaultKind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use types::TraceId;

const DAY: u64 = 86_400;

/// `[certd.dkim]`: DKIM keys that are changed by themselves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DkimConfig {
    /// Domains whose keys are changed; each is in one of `certd.dns.zones`, and has a key (`posthouse dkim create`).
    pub rotate: Vec<String>,
    /// Days that a key signs before another takes over.
    pub days: u32,
    /// Seconds between the moment when all name servers show the new record and the first signature with it: as long as others may
    /// remember that it was not there (the zone's negative TTL, RFC 2308 5).
    pub settle: u64,
    /// Days that the record of a key that signs no more stays published, for mail on its way.
    pub retire_days: u32,
    /// Seconds for which others may keep the records.
    pub ttl: u32,
}

impl Default for DkimConfig {
    fn default() -> Self {
        Self {
            rotate: Vec::new(),
            days: 180,
            settle: 3600,
            retire_days: 14,
            ttl: 3600,
        }
    }
}

/// What is known of a domain's keys. Times are seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Rotation {
    /// By algorithm.
    turns: BTreeMap<String, Turn>,
    /// Keys that sign no more, whose records are still published.
    retired: Vec<Retired>,
    failures: u32,
    retry_at: u64,
    trouble: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Turn {
    /// When the key in use began to sign, as far as we know.
    since: u64,
    /// The operator wants another.
    forced: bool,
    next: Option<Next>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Next {
    selector: String,
    /// When its record was published; 0: not yet.
    published: u64,
    /// When all name servers showed it; 0: not yet.
    seen: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Retired {
    selector: String,
    record: String,
    remove_at: u64,
}

impl Config {
    /// # Errors
    /// A domain that makes no sense, or is in no zone of ours.
    pub(crate) fn sound_rotation(&self) -> Result<(), String> {
        for domain in &self.dkim.rotate {
            let name = types::Address::domain_of(domain)
                .map_err(|error| format!("certd.dkim.rotate: {domain}: {error}"))?;
            if self.dns.provider.is_empty() {
                return Err("certd.dkim.rotate needs certd.dns.provider".to_owned());
            }
            self.dns
                .zone_of(&name)
                .map_err(|error| format!("certd.dkim.rotate: {error}"))?;
        }
        if self.dkim.days == 0 {
            return Err("certd.dkim.days is at least 1".to_owned());
        }
        self.dns.sound()
    }

    /// The domains, as keyd calls them.
    pub(crate) fn rotated(&self) -> Vec<String> {
        let names = self.dkim.rotate.iter();
        names
            .filter_map(|name| types::Address::domain_of(name).ok())
            .collect()
    }
}

fn word(algorithm: DkimAlgorithm) -> &'static str {
    match algorithm {
        DkimAlgorithm::Rsa2048 => "rsa",
        DkimAlgorithm::Ed25519 => "ed25519",
    }
}

/// A selector that tells when its key was made: `ph20270301r`, with a number behind it if there is such a key.
fn selector(now: u64, algorithm: DkimAlgorithm, taken: &[DkimKey]) -> String {
    let date = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(now);
    let letter = word(algorithm).chars().next().unwrap_or('k');
    let base = format!(
        "ph{:04}{:02}{:02}{letter}",
        date.year(),
        u8::from(date.month()),
        date.day()
    );
    (0..)
        .map(|n| {
            if n == 0 {
                base.clone()
            } else {
                format!("{base}{n}")
            }
        })
        .find(|name| !taken.iter().any(|key| key.selector == *name))
        .unwrap_or(base)
}

fn place(selector: &str, domain: &str) -> String {
    format!("{selector}._domainkey.{domain}")
}

impl Worker {
    /// Takes the next steps of all domains; when to look again.
    pub(crate) async fn rotate(&mut self) -> u64 {
        let mut next = now() + plan::LOOK;
        for domain in self.config.rotated() {
            let mut rotation = self.state.rotation(&domain);
            if rotation.retry_at > now() {
                next = next.min(rotation.retry_at);
                continue;
            }
            match self.steps(&domain, &mut rotation).await {
                Ok(at) => {
                    next = next.min(at);
                    if rotation.failures > 0 {
                        (rotation.failures, rotation.trouble) = (0, String::new());
                        self.keep_rotation(&domain, &rotation);
                    }
                }
                Err(trouble) => {
                    rotation.failures = rotation.failures.saturating_add(1);
                    rotation.retry_at = plan::retry_at(now(), rotation.failures, &self.config);
                    rotation.trouble = trouble.to_string();
                    let seconds = rotation.retry_at.saturating_sub(now());
                    tracing::warn!(domain, failures = rotation.failures, seconds, %trouble, "the DKIM keys stay as they are: it is tried again");
                    self.keep_rotation(&domain, &rotation);
                    next = next.min(rotation.retry_at);
                }
            }
            self.board.rotation(&domain, rows(&domain, &rotation));
        }
        next
    }

    fn keep_rotation(&self, domain: &str, rotation: &Rotation) {
        if let Err(error) = self.state.keep_rotation(domain, rotation) {
            tracing::error!(domain, %error, "the state directory cannot be written");
        }
    }

    /// As far as it goes now; when it goes on.
    async fn steps(&self, domain: &str, rotation: &mut Rotation) -> Result<u64, Trouble> {
        let keys = self.dkim_keys(domain).await?;
        let mut next = u64::MAX;
        for algorithm in [DkimAlgorithm::Rsa2048, DkimAlgorithm::Ed25519] {
            let in_use = keys
                .iter()
                .any(|key| key.algorithm == algorithm && key.state == DkimState::Active);
            if in_use {
                next = next.min(self.turn(domain, algorithm, &keys, rotation).await?);
            } else {
                rotation.turns.remove(word(algorithm));
            }
        }
        Ok(next.min(self.unpublish_retired(domain, rotation).await?))
    }

    async fn dkim_keys(&self, domain: &str) -> Result<Vec<DkimKey>, Trouble> {
        let request = DkimKeys {
            domain: domain.to_owned(),
        };
        Ok(self.keyd.call(TraceId(0), &request).await?)
    }

    /// The change of the key of one algorithm.
    async fn turn(
        &self,
        domain: &str,
        algorithm: DkimAlgorithm,
        keys: &[DkimKey],
        rotation: &mut Rotation,
    ) -> Result<u64, Trouble> {
        let mut turn = rotation
            .turns
            .get(word(algorithm))
            .cloned()
            .unwrap_or_default();
        if turn.since == 0 {
            // Found in use: counted from now.
            turn.since = now();
            self.keep_turn(domain, algorithm, &turn, rotation)?;
        }
        let due = turn
            .since
            .saturating_add(u64::from(self.config.dkim.days) * DAY);
        if turn.next.is_none() && !turn.forced && due > now() {
            return Ok(due);
        }
        let mut next = turn.next.clone().unwrap_or_default();
        if next.selector.is_empty() {
            next.selector = selector(now(), algorithm, keys);
            turn.next = Some(next.clone());
            self.keep_turn(domain, algorithm, &turn, rotation)?;
        }
        let key = match keys.iter().find(|key| key.selector == next.selector) {
            Some(key) => key.clone(),
            None => {
                let request = DkimCreate {
                    domain: domain.to_owned(),
                    selector: next.selector.clone(),
                    algorithm,
                    state: DkimState::Prepared,
                };
                self.keyd.call(TraceId(0), &request).await?
            }
        };
        let name = place(&key.selector, domain);
        if next.published == 0 {
            let record = DnsRecord::TXT(key.record.clone());
            let ttl = self.config.dkim.ttl;
            self.publisher()
                .await?
                .add(&name, DnsRecordType::TXT, ttl, record)
                .await?;
            next.published = now();
            turn.next = Some(next.clone());
            self.keep_turn(domain, algorithm, &turn, rotation)?;
        }
        if next.seen == 0 {
            let watcher = Watcher::new(&self.config.dns, &self.config.nameservers);
            if !watcher.shows_text(&name, &key.record).await? {
                let waited = now().saturating_sub(next.published);
                if waited > self.config.dns.propagation_timeout {
                    tracing::warn!(
                        domain,
                        selector = key.selector,
                        waited,
                        "not all name servers show the new DKIM record: the old key goes on signing"
                    );
                }
                let pause = self.config.dns.propagation_pause_ms.div_ceil(1000);
                return Ok(now() + pause.max(1));
            }
            tracing::info!(
                domain,
                selector = key.selector,
                "all name servers show the new DKIM record"
            );
            next.seen = now();
            turn.next = Some(next.clone());
            self.keep_turn(domain, algorithm, &turn, rotation)?;
        }
        let from = next.seen.saturating_add(self.config.dkim.settle);
        if from > now() {
            return Ok(from);
        }
        self.switch(domain, &key, keys, rotation).await?;
        Ok(now().saturating_add(u64::from(self.config.dkim.days) * DAY))
    }

    /// The new key signs, the old ones sign no more.
    async fn switch(
        &self,
        domain: &str,
        new: &DkimKey,
        keys: &[DkimKey],
        rotation: &mut Rotation,
    ) -> Result<(), Trouble> {
        let mark = |selector: &str, state| DkimMark {
            domain: domain.to_owned(),
            selector: selector.to_owned(),
            state,
        };
        let request = mark(&new.selector, DkimState::Active);
        self.keyd.call(TraceId(0), &request).await?;
        let remove_at = now() + u64::from(self.config.dkim.retire_days) * DAY;
        for old in keys.iter().filter(|old| {
            old.algorithm == new.algorithm
                && old.selector != new.selector
                && old.state == DkimState::Active
        }) {
            // Written down first: what is retired is removed one day, also after a kill.
            if !rotation
                .retired
                .iter()
                .any(|one| one.selector == old.selector)
            {
                rotation.retired.push(Retired {
                    selector: old.selector.clone(),
                    record: old.record.clone(),
                    remove_at,
                });
                self.state.keep_rotation(domain, rotation)?;
            }
            let request = mark(&old.selector, DkimState::Retired);
            self.keyd.call(TraceId(0), &request).await?;
            tracing::info!(
                domain,
                old = old.selector,
                new = new.selector,
                "DKIM key changed"
            );
        }
        let turn = Turn {
            since: now(),
            ..Turn::default()
        };
        self.keep_turn(domain, new.algorithm, &turn, rotation)
    }

    /// Removes the records of keys that have not signed for long, and the keys.
    async fn unpublish_retired(
        &self,
        domain: &str,
        rotation: &mut Rotation,
    ) -> Result<u64, Trouble> {
        while let Some(at) = rotation
            .retired
            .iter()
            .position(|one| one.remove_at <= now())
        {
            let Some(old) = rotation.retired.get(at).cloned() else {
                break;
            };
            let active = self
                .dkim_keys(domain)
                .await?
                .into_iter()
                .any(|key| key.selector == old.selector && key.state != DkimState::Retired);
            // The operator took it back into use: then it is theirs.
            if !active {
                let name = place(&old.selector, domain);
                let record = DnsRecord::TXT(old.record.clone());
                self.publisher()
                    .await?
                    .remove(&name, DnsRecordType::TXT, record)
                    .await?;
                let request = DkimRemove {
                    domain: domain.to_owned(),
                    selector: old.selector.clone(),
                };
                self.keyd.call(TraceId(0), &request).await?;
                tracing::info!(
                    domain,
                    selector = old.selector,
                    "retired DKIM key and its record removed"
                );
            }
            rotation.retired.remove(at);
            self.state.keep_rotation(domain, rotation)?;
        }
        let next = rotation.retired.iter().map(|one| one.remove_at).min();
        Ok(next.unwrap_or(u64::MAX))
    }

    fn keep_turn(
        &self,
        domain: &str,
        algorithm: DkimAlgorithm,
        turn: &Turn,
        rotation: &mut Rotation,
    ) -> Result<(), Trouble> {
        rotation
            .turns
            .insert(word(algorithm).to_owned(), turn.clone());
        Ok(self.state.keep_rotation(domain, rotation)?)
    }

    /// The operator wants other keys now: begins it, and leaves the rest to the next look.
    pub(crate) async fn rotate_now(&mut self, domain: &str) -> Result<Vec<DkimRotationRow>, Fault> {
        let told = |trouble: Trouble| Fault::new(FaultKind::Temporary, trouble.to_string());
        let domain = domain.to_ascii_lowercase();
        if !self.config.rotated().contains(&domain) {
            return Err(Fault::new(
                FaultKind::NotFound,
                format!("{domain} is not in certd.dkim.rotate"),
            ));
        }
        let keys = self.dkim_keys(&domain).await.map_err(told)?;
        let mut rotation = self.state.rotation(&domain);
        let mut any = false;
        for key in keys.iter().filter(|key| key.state == DkimState::Active) {
            let turn = rotation.turns.entry(word(key.algorithm).to_owned());
            turn.or_default().forced = true;
            any = true;
        }
        if !any {
            return Err(Fault::new(
                FaultKind::NotFound,
                format!(
                    "{domain} has no active DKIM key: `posthouse dkim create {domain} --selector ...`"
                ),
            ));
        }
        rotation.retry_at = 0;
        let kept = self.state.keep_rotation(&domain, &rotation);
        kept.map_err(|error| told(error.into()))?;
        self.rotate().await;
        Ok(rows(&domain, &self.state.rotation(&domain)))
    }
}

/// For the operator.
fn rows(domain: &str, rotation: &Rotation) -> Vec<DkimRotationRow> {
    let turns = rotation.turns.iter().map(|(algorithm, turn)| {
        let step = match &turn.next {
            None if turn.forced => "due",
            None => "in use",
            Some(next) if next.published == 0 => "publishing",
            Some(next) if next.seen == 0 => "waiting for name servers",
            Some(_) => "settling",
        };
        DkimRotationRow {
            domain: domain.to_owned(),
            algorithm: algorithm.clone(),
            step: step.to_owned(),
            next: turn
                .next
                .as_ref()
                .map(|next| next.selector.clone())
                .unwrap_or_default(),
            since: turn.since,
            retired: rotation
                .retired
                .iter()
                .map(|one| (one.selector.clone(), one.remove_at))
                .collect(),
            trouble: rotation.trouble.clone(),
        }
    });
    turns.collect()
}

impl State {
    /// What is known of a domain's DKIM keys.
    pub(crate) fn rotation(&self, domain: &str) -> Rotation {
        self.read(&file(domain))
    }

    /// # Errors
    /// The file system.
    pub(crate) fn keep_rotation(&self, domain: &str, rotation: &Rotation) -> std::io::Result<()> {
        self.write(&file(domain), rotation)
    }
}

fn file(domain: &str) -> String {
    format!("dkim-{domain}.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_tell_the_day_and_are_not_taken() {
        let key = |selector: &str| DkimKey {
            domain: "d.example".into(),
            selector: selector.into(),
            algorithm: DkimAlgorithm::Rsa2048,
            record: String::new(),
            state: DkimState::Active,
        };
        let now = 1_800_000_000;
        assert_eq!(selector(now, DkimAlgorithm::Rsa2048, &[]), "ph20270115r");
        assert_eq!(selector(now, DkimAlgorithm::Ed25519, &[]), "ph20270115e");
        let taken = [key("ph20270115r"), key("ph20270115r1")];
        assert_eq!(
            selector(now, DkimAlgorithm::Rsa2048, &taken),
            "ph20270115r2"
        );
    }

    #[test]
    fn a_domain_outside_the_zones_is_named() {
        let mut config = Config::default();
        config.dkim.rotate = vec!["example.org".to_owned()];
        let wrong = |config: &Config| config.sound_rotation().err().unwrap_or_default();
        assert!(wrong(&config).contains("provider"));
        config.dns.provider = "cloudflare".to_owned();
        config.dns.secret_file = Some("/x".into());
        config.dns.zones = vec!["example.net".to_owned()];
        assert!(wrong(&config).contains("example.org"));
        config.dns.zones = vec!["org".to_owned()];
        assert_eq!(config.sound_rotation(), Ok(()));
    }
}
