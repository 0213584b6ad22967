//! The section `[hookd]`.

use ipc::api::hookd::Away;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use types::Network;

/// A moment at which filters are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// A client came.
    Connect,
    /// It said EHLO, HELO or LHLO.
    Ehlo,
    /// MAIL.
    Mail,
    /// RCPT, each.
    Rcpt,
    /// The message is there.
    Data,
}

impl Stage {
    /// As the configuration names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Ehlo => "ehlo",
            Self::Mail => "mail",
            Self::Rcpt => "rcpt",
            Self::Data => "data",
        }
    }
}

/// Whose mail a filter sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clients {
    /// Everybody's.
    #[default]
    All,
    /// Of those who are not logged in.
    Unauthenticated,
    /// Of those who are.
    Authenticated,
}

/// What comes of mail that a filter wants in quarantine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quarantine {
    /// It is filed in Junk; mail to other hosts is refused.
    #[default]
    Junk,
    /// It is held in the queue until an operator releases or removes it.
    Hold,
}

/// A filter that speaks the milter protocol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MilterConfig {
    /// Its name, for logs.
    pub name: String,
    /// `host:port`, or the path of a local socket.
    pub address: String,
    /// Only for these listeners of smtpd; none is all.
    pub listeners: Vec<String>,
    /// Whose mail it sees.
    pub clients: Clients,
    /// Clients from there pass it by.
    pub exempt_networks: Vec<Network>,
    /// Its place among all filters: smaller first; equal ones run as they are listed, Sieve before milters before HTTP.
    pub order: i32,
    /// The version of the protocol that it is offered: 2 to 6.
    pub version: u32,
    /// Seconds for the connection.
    pub connect_timeout_s: u64,
    /// Seconds for each answer.
    pub command_timeout_s: u64,
    /// Seconds for the answer at the end of a message; a sign of life begins them anew.
    pub message_timeout_s: u64,
    /// Octets that it may answer to one message.
    pub max_response_bytes: usize,
    /// What is done when it is away, too slow or not understood.
    pub away: Away,
    /// Recipients that it adds may be on other hosts, if the client may send there.
    pub may_relay: bool,
    /// What comes of mail that it wants in quarantine: `junk` (default), or `hold` (it stays in the queue until an operator releases it).
    pub quarantine: Quarantine,
}

impl Default for MilterConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            address: String::new(),
            listeners: Vec::new(),
            clients: Clients::All,
            exempt_networks: Vec::new(),
            order: 0,
            version: 6,
            connect_timeout_s: 10,
            command_timeout_s: 30,
            message_timeout_s: 120,
            max_response_bytes: 16_777_216,
            away: Away::Later,
            may_relay: false,
            quarantine: Quarantine::Junk,
        }
    }
}

/// A filter that is asked over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Its name, for logs.
    pub name: String,
    /// Where requests are sent (POST): `https://` or `http://`.
    pub url: String,
    /// When it is asked.
    pub stages: Vec<Stage>,
    /// Only for these listeners of smtpd; none is all.
    pub listeners: Vec<String>,
    /// Whose mail it sees.
    pub clients: Clients,
    /// Clients from there pass it by.
    pub exempt_networks: Vec<Network>,
    /// Its place among all filters: smaller first; equal ones run as they are listed, Sieve before milters before HTTP.
    pub order: i32,
    /// Fields of the request.
    pub headers: BTreeMap<String, String>,
    /// Fields of the request whose values are secrets: the files that hold them.
    pub secret_headers: BTreeMap<String, PathBuf>,
    /// A PEM file of authorities that certificates may come from, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// Seconds for a request and its answer.
    pub timeout_s: u64,
    /// Octets of a message that it is sent; of a larger one it sees the header.
    pub max_message_bytes: u64,
    /// Octets of an answer.
    pub max_response_bytes: usize,
    /// What is done when it is away, too slow or not understood.
    pub away: Away,
    /// Recipients that it adds may be on other hosts, if the client may send there.
    pub may_relay: bool,
    /// What comes of mail that it wants in quarantine: `junk` (default), or `hold` (it stays in the queue until an operator releases it).
    pub quarantine: Quarantine,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            url: String::new(),
            stages: vec![Stage::Data],
            listeners: Vec::new(),
            clients: Clients::All,
            exempt_networks: Vec::new(),
            order: 0,
            headers: BTreeMap::new(),
            secret_headers: BTreeMap::new(),
            ca_file: None,
            timeout_s: 30,
            max_message_bytes: 10_485_760,
            max_response_bytes: 16_777_216,
            away: Away::Later,
            may_relay: false,
            quarantine: Quarantine::Junk,
        }
    }
}

/// A Sieve script of the administrator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SieveConfig {
    /// Its name, for logs.
    pub name: String,
    /// The script.
    pub file: PathBuf,
    /// When it runs.
    pub stages: Vec<Stage>,
    /// Only for these listeners of smtpd; none is all.
    pub listeners: Vec<String>,
    /// Whose mail it sees.
    pub clients: Clients,
    /// Clients from there pass it by.
    pub exempt_networks: Vec<Network>,
    /// Its place among all filters: smaller first; equal ones run as they are listed, Sieve before milters before HTTP.
    pub order: i32,
    /// Octets of a message that it sees; of a larger one it sees the header.
    pub max_message_bytes: u64,
    /// What is done when it fails.
    pub away: Away,
    /// Recipients that it adds may be on other hosts, if the client may send there.
    pub may_relay: bool,
    /// What comes of mail that it wants in quarantine: `junk` (default), or `hold` (it stays in the queue until an operator releases it).
    pub quarantine: Quarantine,
}

impl Default for SieveConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            file: PathBuf::new(),
            stages: vec![Stage::Data],
            listeners: Vec::new(),
            clients: Clients::All,
            exempt_networks: Vec::new(),
            order: 0,
            max_message_bytes: 10_485_760,
            away: Away::Accept,
            may_relay: false,
            quarantine: Quarantine::Junk,
        }
    }
}

/// The section `[hookd]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether it runs at all. false.
    pub enabled: bool,
    /// Sessions at once; more are treated as if all filters were away.
    pub sessions: usize,
    /// Seconds for all filters at one stage together.
    pub stage_timeout_s: u64,
    /// Seconds for all filters that look at a message together.
    pub message_timeout_s: u64,
    /// Octets of messages and new bodies that are in memory at once; more wait.
    pub memory_bytes: usize,
    /// Looks up the names of clients (PTR, confirmed by A or AAAA), which filters are told.
    pub client_names: bool,
    /// Name servers to ask; none: the system's.
    pub nameservers: Vec<SocketAddr>,
    /// Milliseconds for a client's name.
    pub client_names_timeout_ms: u64,
    /// `[hookd.limits]`: what a Sieve script may cost.
    pub limits: sieve::Limits,
    /// `[[hookd.milter]]`
    pub milter: Vec<MilterConfig>,
    /// `[[hookd.http]]`
    pub http: Vec<HttpConfig>,
    /// `[[hookd.sieve]]`
    pub sieve: Vec<SieveConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: false,
            sessions: 4096,
            stage_timeout_s: 60,
            message_timeout_s: 300,
            memory_bytes: 134_217_728,
            client_names: true,
            nameservers: Vec::new(),
            client_names_timeout_ms: 3000,
            limits: sieve::Limits::default(),
            milter: Vec::new(),
            http: Vec::new(),
            sieve: Vec::new(),
        }
    }
}

impl Config {
    /// What makes no sense in it.
    pub(crate) fn fault(&self) -> Option<String> {
        let mut names: Vec<&str> = Vec::new();
        let named = (self.milter.iter().map(|one| ("milter", &one.name)))
            .chain(self.http.iter().map(|one| ("http", &one.name)))
            .chain(self.sieve.iter().map(|one| ("sieve", &one.name)));
        for (kind, name) in named {
            let fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            if name.is_empty() || !name.chars().all(fine) {
                return Some(format!(
                    "hookd.{kind}: the name {name:?} has to be of letters, digits, hyphens, underscores and dots"
                ));
            }
            if names.contains(&name.as_str()) {
                return Some(format!("hookd: there are two filters named {name:?}"));
            }
            if name.len() > types::Held::BY_MAX {
                let most = types::Held::BY_MAX;
                return Some(format!(
                    "hookd.{kind}: the name {name:?} is longer than {most}"
                ));
            }
            names.push(name);
        }
        for one in &self.milter {
            let name = &one.name;
            if !(2..=6).contains(&one.version) {
                return Some(format!("hookd.milter {name:?}: version is 2 to 6"));
            }
            if let Err(fault) = crate::address::Address::read(&one.address) {
                return Some(format!("hookd.milter {name:?}: address: {fault}"));
            }
        }
        for one in &self.http {
            let name = &one.name;
            if !one.url.starts_with("https://") && !one.url.starts_with("http://") {
                return Some(format!(
                    "hookd.http {name:?}: url begins with https:// or http://"
                ));
            }
            if one.stages.is_empty() {
                return Some(format!("hookd.http {name:?}: stages is empty"));
            }
        }
        for one in &self.sieve {
            let name = &one.name;
            if one.file.as_os_str().is_empty() || one.stages.is_empty() {
                return Some(format!("hookd.sieve {name:?}: needs file and stages"));
            }
        }
        None
    }

    /// The files that it reads.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let secrets = self.http.iter().flat_map(|one| one.secret_headers.values());
        let authorities = self.http.iter().filter_map(|one| one.ca_file.as_ref());
        let scripts = self.sieve.iter().map(|one| &one.file);
        secrets.chain(authorities).chain(scripts).cloned().collect()
    }
}
