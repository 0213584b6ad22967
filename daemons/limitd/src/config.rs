//! The section `[limitd]`.

use crate::rate::Rates;
use serde::{Deserialize, Serialize};
use std::path::Path;
use types::Network;

/// What smtpd does while limitd is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Away {
    /// Mail goes on, and is not counted.
    #[default]
    Accept,
    /// Clients are told to come again.
    Later,
}

/// The section `[limitd]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether it runs at all. smtpd asks it only for what rules and greylisting need.
    pub enabled: bool,
    /// What smtpd does while limitd is away: `accept` (default; mail goes on uncounted) or `later` (451).
    pub away: Away,
    /// Where quotas and greylisting are kept: `postgres://...` or `mysql://...`; by default `limits.db` in the state directory, in
    /// SQLite. Several hosts that name the same server share what greylisting knows; each counts for itself. A change needs a
    /// restart.
    pub database: String,
    /// Connections to it at most. 4.
    pub connections: u32,
    /// Keys that each limit of each rule remembers; when there are more, those that have used the least are forgotten. 50,000.
    pub entries: usize,
    /// What changed is written so often, in milliseconds: 100 to 60,000. A crash loses no more than that. A change needs a
    /// restart. 2,000.
    pub write_ms: u64,
    /// Bits of an IPv4 address that make its network, for `network` in keys and for greylisting. 24.
    pub ipv4_network: u8,
    /// The same of an IPv6 address, which also counts as this network where a key has `address`. 64.
    pub ipv6_network: u8,
    /// The rules, as `[[limitd.rule]]`. All that fit a client hold. None.
    pub rule: Vec<RuleConfig>,
    /// `[limitd.greylist]`
    pub greylist: Greylist,
}

impl Config {
    /// The URL of its database; `state_dir` is its own directory.
    pub fn url(&self, state_dir: &Path) -> String {
        match self.database.as_str() {
            "" => format!("sqlite://{}", state_dir.join("limits.db").display()),
            url => url.to_owned(),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: false,
            away: Away::default(),
            database: String::new(),
            connections: 4,
            entries: 50_000,
            write_ms: 2000,
            ipv4_network: 24,
            ipv6_network: 64,
            rule: Vec::new(),
            greylist: Greylist::default(),
        }
    }
}

/// A part of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyPart {
    /// The client's address; of IPv6 its network.
    Address,
    /// The client's network.
    Network,
    /// What it calls itself in EHLO.
    Helo,
    /// MAIL FROM.
    Sender,
    /// Its domain.
    SenderDomain,
    /// RCPT TO: each recipient by itself.
    Recipient,
    /// Its domain.
    RecipientDomain,
    /// The account that is logged in.
    Account,
    /// The listener of smtpd.
    Listener,
}

/// What is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Counted {
    /// Connections.
    Connections,
    /// Messages that were taken.
    #[default]
    Messages,
    /// Their recipients.
    Recipients,
    /// Their octets.
    Octets,
    /// Recipients that are not here.
    Unknown,
}

impl Counted {
    /// As the configuration writes it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Messages => "messages",
            Self::Recipients => "recipients",
            Self::Octets => "octets",
            Self::Unknown => "unknown",
        }
    }
}

/// What happens at the limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The client is told to come again: 421, 451 or 452.
    #[default]
    Later,
    /// It is refused for good: 550 or 554.
    Refuse,
    /// It is logged.
    Log,
}

/// `[[limitd.rule]]`. It holds for a client if all its conditions do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuleConfig {
    /// Its name, which must be its own: lower-case letters, digits, `-` and `_`.
    pub name: String,

    /// Condition: one of these listeners of smtpd.
    pub listener: Vec<String>,
    /// Condition: the client is in one of these networks.
    pub network: Vec<Network>,
    /// Condition: the client is in none of these networks.
    pub except_network: Vec<Network>,
    /// Condition: one of these senders. `jane@example.org`, `example.org`, `.example.org` (all below it), `*`, or `<>` (reports).
    pub sender: Vec<String>,
    /// Condition: one of these recipients, written in the same way.
    pub recipient: Vec<String>,
    /// Condition: one of these accounts is logged in.
    pub account: Vec<String>,
    /// Condition: some account is logged in (`true`), or none (`false`).
    pub login: Option<bool>,

    /// For whom there is one count each: any of `address`, `network`, `helo`, `sender`, `sender_domain`, `recipient`,
    /// `recipient_domain`, `account`, `listener`; one count for all if it is empty.
    pub key: Vec<KeyPart>,
    /// What is counted: `connections`, `messages` (default), `recipients`, `octets`, or `unknown` recipients.
    pub count: Counted,
    /// How much in which period: `100/1h`, `20/1m, 500/1d`, `200M/1d`. Periods of an hour and more survive restarts.
    pub limit: Rates,
    /// What happens then: `later` (default), `refuse` or `log`.
    pub action: Action,
    /// What the client is told, instead of the usual words; `{wait}` is the seconds until there is room.
    pub text: String,
}

/// What greylisting does for a sender whose SPF passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SpfPass {
    /// The domain stands where otherwise the network does.
    #[default]
    ByDomain,
    /// It need not wait.
    Exempt,
    /// Nothing: SPF is not looked at.
    None,
}

/// `[limitd.greylist]`: unknown clients are asked to come again, which mail servers do and many spam programs do not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Greylist {
    /// Whether anybody is asked to. false.
    pub enabled: bool,
    /// Only at these listeners; empty: at all of them, for clients without a login.
    pub listener: Vec<String>,
    /// Seconds before the same network, sender and recipient may come again. 300.
    pub delay: u64,
    /// Seconds within which it must come again, or it begins anew. 86,400: a day.
    pub window: u64,
    /// Seconds without mail after which it is forgotten that it came again. 3,110,400: 36 days.
    pub lifetime: u64,
    /// So many messages after waiting, and the whole network need not wait any more, for `lifetime`; 0: never. 5.
    pub network_after: u64,
    /// For senders whose SPF passes: `by-domain` (default; the domain counts instead of the network, so that it may come again from
    /// another address), `exempt` (they need not wait), or `none`. DNS is asked only about those who would have to wait.
    pub spf_pass: SpfPass,
    /// Networks that need not wait.
    pub except_network: Vec<Network>,
    /// Clients that need not, by their names in DNS, which must lead back to their addresses: `mail.example.org`, `.example.org`.
    pub except_client: Vec<String>,
    /// Senders that need not: `jane@example.org`, `example.org`, `.example.org`.
    pub except_sender: Vec<String>,
    /// Recipients whose mail need not.
    pub except_recipient: Vec<String>,
    /// What is remembered in memory: combinations, and networks. 100,000 each.
    pub entries: usize,
    /// Rows kept in the database at most; those that wait longest are forgotten first. 1,000,000.
    pub rows: u64,
}

impl Default for Greylist {
    fn default() -> Self {
        Self {
            enabled: false,
            listener: Vec::new(),
            delay: 300,
            window: 86_400,
            lifetime: 3_110_400,
            network_after: 5,
            spf_pass: SpfPass::default(),
            except_network: Vec::new(),
            except_client: Vec::new(),
            except_sender: Vec::new(),
            except_recipient: Vec::new(),
            entries: 100_000,
            rows: 1_000_000,
        }
    }
}
