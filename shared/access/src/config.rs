//! Settings that these daemons share.

use serde::{Deserialize, Serialize};

/// How a listener does TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// Not at all.
    None,
    /// The client may ask for it (STARTTLS, STLS).
    #[default]
    Starttls,
    /// From the first octet (RFC 8314 3).
    Implicit,
}

/// Where a daemon listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerConfig {
    /// Its name: in logs and in `posthouse status`; also of its systemd socket.
    pub name: String,
    /// `address:port`, `[::]:port` (IPv4 too), or `unix:/path`.
    pub address: String,
    /// `starttls` (default), `implicit` or `none`.
    #[serde(default)]
    pub tls: TlsMode,
}

impl ListenerConfig {
    /// A listener of that name.
    pub fn new(name: &str, address: &str, tls: TlsMode) -> Self {
        Self {
            name: name.to_owned(),
            address: address.to_owned(),
            tls,
        }
    }
}

/// Who may log in how, and how many there may be. Stands in each daemon's own section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logins {
    /// Networks whose clients may log in without TLS.
    pub plain_networks: Vec<types::Network>,
    /// SASL mechanisms, in the order of the offer.
    pub mechanisms: Vec<String>,
    /// Connections in all.
    pub connections: usize,
    /// Connections of one address that are not logged in; 0 is no limit.
    pub per_address: usize,
    /// Connections of one account; 0 is no limit.
    pub per_account: usize,
    /// Failed logins in one session before it is closed.
    pub failed: u32,
    /// Seconds for the TLS handshake and all else until the login.
    pub login_s: u64,
    /// Seconds without a command before a session is closed.
    pub idle_s: u64,
    /// Seconds for the client to take what it is sent.
    pub write_s: u64,
}
