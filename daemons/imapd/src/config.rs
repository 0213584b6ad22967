//! The section `[imapd]`.

use serde::{Deserialize, Serialize};

/// How a listener does TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// Not at all.
    None,
    /// STARTTLS is offered (RFC 9051 6.2.1).
    #[default]
    Starttls,
    /// From the first octet (RFC 8314 3.2).
    Implicit,
}

/// Where imapd listens.
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

/// The section `[imapd]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The listeners, as `[[imapd.listener]]`. By default `imap` on port 143 and `imaps` on 993.
    pub listener: Vec<ListenerConfig>,
    /// Networks whose clients may log in without TLS. Loopback.
    pub plain_login_networks: Vec<types::Network>,
    /// SASL mechanisms, in the order of the offer.
    pub mechanisms: Vec<String>,
    /// Connections in all. 5,000.
    pub connections: usize,
    /// Connections of one address that are not logged in. 50; 0 is no limit.
    pub connections_per_address: usize,
    /// Connections of one account. 100; 0 is no limit.
    pub connections_per_account: usize,
    /// Octets of a command line without literals. 65,536.
    pub line: usize,
    /// Octets of the literals of one command, the message of APPEND aside. 65,536.
    pub literals: usize,
    /// Octets of a message that is appended (RFC 7889). 52,428,800.
    pub append_bytes: u64,
    /// Malformed commands in one session before it is closed. 20.
    pub bad_commands: u32,
    /// Failed logins in one session before it is closed. 3.
    pub failed_logins: u32,
    /// Seconds for the TLS handshake, and until the login. 60.
    pub login_s: u64,
    /// Seconds without a command before a session is closed; RFC 9051 5.4 asks for 1,800 at least. 1,860.
    pub idle_s: u64,
    /// Seconds for the client to take what it is sent, and to send the next piece of a message. 120.
    pub write_s: u64,
    /// KiB of messages above 64 KiB that may be in memory at once, for all sessions; others wait up to
    /// half a minute. 131,072.
    pub large_kib: u32,
    /// Mailboxes whose view is kept for the next session after the last one has left. 64.
    pub warm_views: usize,
}

impl Default for Config {
    fn default() -> Self {
        let listener = |name: &str, address: &str, tls| ListenerConfig {
            name: name.to_owned(),
            address: address.to_owned(),
            tls,
        };
        Self {
            listener: vec![
                listener("imap", "[::]:143", TlsMode::Starttls),
                listener("imaps", "[::]:993", TlsMode::Implicit),
            ],
            plain_login_networks: types::Network::LOOPBACK.to_vec(),
            mechanisms: ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN"]
                .map(str::to_owned)
                .to_vec(),
            connections: 5000,
            connections_per_address: 50,
            connections_per_account: 100,
            line: 65_536,
            literals: 65_536,
            append_bytes: 52_428_800,
            bad_commands: 20,
            failed_logins: 3,
            login_s: 60,
            idle_s: 1860,
            write_s: 120,
            large_kib: 131_072,
            warm_views: 64,
        }
    }
}
