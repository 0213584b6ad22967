//! The section `[smtpd.checks]`.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// What is done with a message that fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It is written down and nothing else.
    #[default]
    Record,
    /// A field says so, for scripts and mail programs.
    Tag,
    /// It goes to Junk.
    Quarantine,
    /// It is refused.
    Reject,
}

/// What is done with a message for which DMARC fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DmarcAction {
    /// It is written down and nothing else.
    Record,
    /// A field says so.
    Tag,
    /// It goes to Junk, whatever the domain publishes.
    Quarantine,
    /// It is refused, whatever the domain publishes.
    Reject,
    /// What the domain wants: nothing, Junk or a refusal.
    #[default]
    AsPublished,
    /// It is refused where the domain wants it in quarantine or refused.
    Enforce,
}

/// Settings under one name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// Everything is written down, nothing is done.
    Relaxed,
    /// DMARC as published; SPF alone does nothing.
    #[default]
    Published,
    /// What fails SPF or DMARC is tagged.
    Tag,
    /// What fails SPF or DMARC goes to Junk.
    Quarantine,
    /// What fails SPF or DMARC is refused.
    Reject,
    /// What fails SPF is refused, and what fails DMARC where the domain publishes more than `p=none`.
    Strict,
}

impl Preset {
    pub(crate) fn actions(self) -> (Action, DmarcAction) {
        match self {
            Self::Relaxed => (Action::Record, DmarcAction::Record),
            Self::Published => (Action::Record, DmarcAction::AsPublished),
            Self::Tag => (Action::Tag, DmarcAction::Tag),
            Self::Quarantine => (Action::Quarantine, DmarcAction::Quarantine),
            Self::Reject => (Action::Reject, DmarcAction::Reject),
            Self::Strict => (Action::Reject, DmarcAction::Enforce),
        }
    }
}

/// What is done when DNS does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Temporary {
    /// The message is taken.
    #[default]
    Accept,
    /// The client is asked to come again (451) where the answer could matter.
    Defer,
}

/// Another policy for some mail. What it leaves out holds for all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// Mail that comes through these listeners; empty is all.
    pub listeners: Vec<String>,
    /// Mail to these domains of ours; with a dot before it, those below; empty is all.
    pub recipients: Vec<String>,
    /// Mail whose From or MAIL FROM is of these domains; with a dot before it, those below; empty is all. Anybody can write them:
    /// good for making exceptions of partners that cannot do better.
    pub senders: Vec<String>,
    /// As `smtpd.checks.policy`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<Preset>,
    /// As `smtpd.checks.spf`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spf: Option<Action>,
    /// As `smtpd.checks.dmarc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dmarc: Option<DmarcAction>,
}

/// `[smtpd.checks]`: who really sent what comes to `mx` listeners. Clients in `trusted_networks` and `relay_networks`, and those on
/// Unix sockets, are not judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChecksConfig {
    /// Whether anything is checked. A change needs a restart. true.
    pub enabled: bool,
    /// By which name our results are known in Authentication-Results; empty: `smtpd.hostname`. If it is another than
    /// `suite.hostname`, `relayd.arc.authserv_id` must say so too.
    pub authserv_id: String,
    /// Name servers as `address:port`; empty: those of /etc/resolv.conf. A caching one on this host is best. Ports that were not
    /// there at the start need a restart.
    pub nameservers: Vec<SocketAddr>,
    /// What is done with mail that fails: `relaxed` (nothing), `published` (what the domain of the author publishes for DMARC;
    /// default), `tag`, `quarantine` (to Junk), `reject`, or `strict` (refused where SPF fails, or DMARC does and the domain
    /// publishes more than `p=none`).
    pub policy: Preset,
    /// Where SPF fails, and DMARC does not pass all the same: `record`, `tag`, `quarantine` or `reject`, instead of what the
    /// policy says.
    pub spf: Option<Action>,
    /// Where DMARC fails: `record`, `tag`, `quarantine`, `reject`, `as-published` or `enforce`, instead of what the policy says.
    pub dmarc: Option<DmarcAction>,
    /// Where DNS does not answer: `accept` (default) or `defer`, which lets the client come again. It never refuses for good.
    pub temporary: Temporary,
    /// Domains whose ARC seals are believed: mail that fails DMARC is taken if one of them found on its arrival that it passed.
    /// None.
    pub trusted_sealers: Vec<String>,
    /// Other policies for some mail, as `[[smtpd.checks.rule]]` with `listeners`, `recipients`, `senders`, and `policy`, `spf`,
    /// `dmarc`; the first that fits a recipient holds for it. None.
    pub rule: Vec<Rule>,
    /// `[smtpd.checks.limits]`
    pub limits: mailauth::Limits,
}

impl Default for ChecksConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            authserv_id: String::new(),
            nameservers: Vec::new(),
            policy: Preset::default(),
            spf: None,
            dmarc: None,
            temporary: Temporary::default(),
            trusted_sealers: Vec::new(),
            rule: Vec::new(),
            limits: mailauth::Limits::default(),
        }
    }
}

impl ChecksConfig {
    /// The ports of the name servers; `others`: somebody else asks them too.
    pub(crate) fn dns_ports(&self, others: bool) -> Vec<u16> {
        if !self.enabled && !others {
            return Vec::new();
        }
        if self.nameservers.is_empty() {
            return vec![53];
        }
        let mut ports: Vec<u16> = self.nameservers.iter().map(SocketAddr::port).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }
}
