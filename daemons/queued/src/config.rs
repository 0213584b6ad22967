//! The section `[queued]` of the configuration.

use serde::{Deserialize, Serialize};

/// `[queued]`. Times are in seconds, sizes in octets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The queue table's database: `sqlite`, which is a file in the state directory, or a `postgres://` or `mysql://` URL. `sqlite`.
    pub database: String,
    /// The name of this node in a queue table that several share: no two nodes may have the same. `local`.
    pub node: String,
    /// Where a message is when it is acknowledged: `journal`, in this node's state directory, or `sql`, in the queue table. `journal`.
    pub ack: Ack,
    /// After so long without a word, the others take over what a node was working on. 60.
    pub lease: u64,
    /// The host name in reports and Message-IDs; empty is `[suite].hostname`.
    pub hostname: String,
    /// The From of reports. Empty is `MAILER-DAEMON@` and the host name.
    pub report_from: String,
    /// Who gets the reports on reports that could not be delivered; empty: only the log does.
    pub double_bounces_to: String,
    /// Networks (`192.0.2.0/24`, `2001:db8::/32`) whose clients may relay without a login. None.
    pub relay_networks: Vec<types::Network>,

    /// Octets of a journal segment. 4 MiB.
    pub segment_size: u64,
    /// Messages written by one sync at most. 1,000.
    pub batch_messages: usize,
    /// Octets written by one sync at most. 8 MiB.
    pub batch_bytes: usize,
    /// Messages that wait for that at most; more are Busy. 4,096.
    pub commit_backlog: usize,
    /// Spool files that listeners may have open at once. 1,024.
    pub spool_slots: usize,

    /// Octets of accepted messages that are kept in memory until their first attempt; the rest is read again. 16 MiB.
    pub memory: u64,
    /// Accepted messages before their first attempt at most: more go to the queue table at once. With half as many more, commits
    /// wait for up to ten seconds; with twice as many they are refused for a time. 10,000.
    pub max_fresh: usize,
    /// Messages in the queue at most: more are Busy. 1,000,000.
    pub max_messages: u64,
    /// Octets that must be free in the state directory, otherwise everything is Busy. 128 MiB.
    pub min_free: u64,

    /// Calls to deliverd at once. 64.
    pub local_concurrency: usize,
    /// Connections to other hosts at once. 200.
    pub remote_concurrency: usize,
    /// Connections to one destination: with so many it begins. 4.
    pub destination_start: usize,
    /// Connections to one destination at most. 20.
    pub destination_max: usize,
    /// Messages that wait in memory for one destination at most. 500.
    pub destination_backlog: usize,
    /// Messages that are loaded from the queue table at once at most. 2,000.
    pub loaded: usize,

    /// The first pause after a temporary failure; each next one is twice as long, with a tenth of jitter. 300.
    pub retry_min: u64,
    /// The longest pause. 14,400.
    pub retry_max: u64,
    /// As `retry_min`, for recipients here. 30.
    pub local_retry_min: u64,
    /// When a message is given up. 432,000: five days (RFC 5321 4.5.4.1).
    pub expire: u64,
    /// When a report without an answer is given up. 172,800: two days.
    pub expire_reports: u64,
    /// When the sender is told of a delay; 0 is never. 14,400.
    pub delay_warning: u64,
    /// Messages beyond this are returned with their header only. 65,536.
    pub return_full_max: u64,
    /// Received fields beyond which a message that is redirected is taken for a loop. 50.
    pub max_hops: usize,
    /// A destination whose attempts take longer than this counts as slow: all slow ones together get half of the connections at
    /// most while others wait. 2.
    pub slow_after: u64,
    /// Domains whose MTA-STS policies are remembered; those that were fetched longest ago are forgotten first. 0: none is. 10,000.
    pub sts_policies: u64,
    /// One attempt at a destination may take so long. 1,800.
    pub relay_timeout: u64,
    /// One local delivery may take so long. 120.
    pub deliver_timeout: u64,
    /// What is different for certain mail, as `[[queued.rule]]` (docs/queue.md). The first rule that means it decides.
    pub rule: Vec<crate::RuleConfig>,
}

/// What is durable when a message is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ack {
    /// A record in this node's journal.
    #[default]
    Journal,
    /// A row in the queue table.
    Sql,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            database: "sqlite".to_owned(),
            node: "local".to_owned(),
            ack: Ack::Journal,
            lease: 60,
            hostname: String::new(),
            report_from: String::new(),
            double_bounces_to: String::new(),
            relay_networks: Vec::new(),
            segment_size: 4 * 1024 * 1024,
            batch_messages: 1000,
            batch_bytes: 8 * 1024 * 1024,
            commit_backlog: 4096,
            spool_slots: 1024,
            memory: 16 * 1024 * 1024,
            max_fresh: 10_000,
            max_messages: 1_000_000,
            min_free: 128 * 1024 * 1024,
            local_concurrency: 64,
            remote_concurrency: 200,
            destination_start: 4,
            destination_max: 20,
            destination_backlog: 500,
            loaded: 2000,
            retry_min: 300,
            retry_max: 14_400,
            local_retry_min: 30,
            expire: 432_000,
            expire_reports: 172_800,
            delay_warning: 14_400,
            return_full_max: 65_536,
            max_hops: 50,
            slow_after: 2,
            sts_policies: 10_000,
            relay_timeout: 1800,
            deliver_timeout: 120,
            rule: Vec::new(),
        }
    }
}

impl Config {
    /// How long to wait after so many attempts, in seconds; `jitter` is from 0 to 1.
    pub(crate) fn pause(&self, local: bool, attempts: u32, jitter: f64) -> u64 {
        let first = if local {
            self.local_retry_min
        } else {
            self.retry_min
        };
        let doubled = first.saturating_mul(
            1_u64
                .checked_shl(attempts.saturating_sub(1).min(40))
                .unwrap_or(u64::MAX),
        );
        with_jitter(doubled.min(self.retry_max), jitter)
    }
}

/// Up to a tenth more, so that what failed together does not return together.
pub(crate) fn with_jitter(pause: u64, jitter: f64) -> u64 {
    pause.saturating_add((pause as f64 * 0.1 * jitter.clamp(0.0, 1.0)) as u64)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let config = Config::default();
        assert_eq!(config.pause(false, 1, 0.0), 300);
        assert_eq!(config.pause(false, 3, 0.0), 1200);
        assert_eq!(config.pause(false, 3, 1.0), 1320);
        assert_eq!(config.pause(false, 60, 0.0), 14_400);
        assert_eq!(config.pause(true, 1, 0.0), 30);
    }
}
