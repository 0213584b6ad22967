//! `[smtpd.dnslists]` and `[[smtpd.dnslists.list]]`.

use super::answer::Answers;
use serde::{Deserialize, Serialize};

/// What a list is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Who is on it is not wanted.
    #[default]
    Block,
    /// Who is on it is known to be good.
    Allow,
}

/// What a list is asked about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ask {
    /// The client's address.
    #[default]
    Client,
    /// The name in EHLO.
    Helo,
    /// The domain of MAIL FROM.
    Sender,
}

/// What is done with mail of somebody on a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListAction {
    /// A field says so.
    Tag,
    /// It goes to Junk.
    Junk,
    /// The client is told to come again: 451.
    Later,
    /// It is refused: 554.
    #[default]
    Refuse,
}

/// When a client is told that its address is on a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// At RCPT.
    #[default]
    Rcpt,
    /// Instead of the greeting.
    Connect,
}

/// When a list is asked first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListStage {
    /// At MAIL, and again with all others at RCPT.
    Mail,
    /// At RCPT.
    #[default]
    Rcpt,
}

/// `[[smtpd.dnslists.list]]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DnsList {
    /// Below which domain it is asked: `zen.example.org`.
    pub zone: String,
    /// `block` (default) or `allow`. An allow list lets pass: no block list and no greylisting then.
    pub kind: Kind,
    /// What it is asked about: `client` (default; its address), `helo` (the name in EHLO), `sender` (the domain of MAIL FROM).
    pub ask: Ask,
    /// Which answers count: `127.0.0.2`, `127.0.0.0/24`, or `127.0.0.0/24&6` (one of these bits of the last octet is set). Any
    /// in 127.0.0.0/8 if it is empty.
    pub answers: Vec<String>,
    /// How much it weighs against `smtpd.dnslists.threshold`. 1.
    pub weight: u32,
    /// `refuse` (default), `later`, `junk` or `tag`.
    pub action: ListAction,
    /// `rcpt` (default), or `mail`: who is on it is stopped at MAIL already, and reaches not even postmaster.
    pub stage: ListStage,
    /// What the client is told; `{address}`, `{name}` (what was asked about), `{zone}`, and `{txt}` (what the list says of it) are
    /// filled in.
    pub text: String,
}

impl Default for DnsList {
    fn default() -> Self {
        Self {
            zone: String::new(),
            kind: Kind::default(),
            ask: Ask::default(),
            answers: Vec::new(),
            weight: 1,
            action: ListAction::default(),
            stage: ListStage::default(),
            text: "{name} is listed at {zone}".to_owned(),
        }
    }
}

/// `[smtpd.dnslists]`: lists in DNS (RFC 5782) that are asked about strangers on `mx` listeners. Clients in `trusted_networks` and
/// `relay_networks` are not asked about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DnsListsConfig {
    /// The lists, as `[[smtpd.dnslists.list]]`. The name servers are those of `smtpd.checks.nameservers`. None.
    pub list: Vec<DnsList>,
    /// What is listed at block lists that weigh so much together is stopped, as the strictest of them says. 1.
    pub threshold: u32,
    /// When: `rcpt` (default: the log shows who was meant, and postmaster is reachable) or `connect` (for addresses on block lists
    /// that refuse or say later).
    pub when: When,
    /// Seconds for all lists together, 1 to 30; what has no answer by then is not listed. 5.
    pub timeout: u64,
    /// Local parts of our domains that everybody reaches (RFC 2142).
    pub reachable: Vec<String>,
}

impl Default for DnsListsConfig {
    fn default() -> Self {
        Self {
            list: Vec::new(),
            threshold: 1,
            when: When::default(),
            timeout: 5,
            reachable: ["postmaster", "abuse"].map(str::to_owned).to_vec(),
        }
    }
}

impl DnsListsConfig {
    /// What is wrong with them.
    pub(crate) fn fault(&self) -> Option<String> {
        if self.threshold == 0 || !(1..=30).contains(&self.timeout) {
            return Some("threshold is 1 or more, timeout from 1 to 30".to_owned());
        }
        for list in &self.list {
            let zone = &list.zone;
            if let Err(error) = types::Address::domain_of(zone) {
                return Some(format!("zone {zone:?}: {error}"));
            }
            if list.text.len() > 400 || list.text.chars().any(char::is_control) {
                return Some(format!("{zone}: text is one line of at most 400 octets"));
            }
            if let Err(error) = Answers::new(&list.answers) {
                return Some(format!("{zone}: {error}"));
            }
        }
        None
    }
}
