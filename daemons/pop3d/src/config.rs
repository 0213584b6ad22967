//! The section `[pop3d]`.

use access::{ListenerConfig, Logins, Section, TlsMode};
use serde::{Deserialize, Serialize};

/// The section `[pop3d]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The listeners, as `[[pop3d.listener]]`. By default `pop3` on port 110 and `pop3s` on 995.
    pub listener: Vec<ListenerConfig>,
    /// Networks whose clients may log in without TLS. Loopback.
    pub plain_login_networks: Vec<types::Network>,
    /// SASL mechanisms, in the order of the offer. USER and PASS go with PLAIN.
    pub mechanisms: Vec<String>,
    /// Connections in all. 2,000.
    pub connections: usize,
    /// Connections of one address that are not logged in. 50; 0 is no limit.
    pub connections_per_address: usize,
    /// Malformed commands in one session before it is closed. 20.
    pub bad_commands: u32,
    /// Failed logins in one session before it is closed. 3.
    pub failed_logins: u32,
    /// Seconds for the TLS handshake, and in all until the login. 60.
    pub login_s: u64,
    /// Seconds without a command before a session is closed; RFC 1939 3 asks for 600 at least. 600.
    pub idle_s: u64,
    /// Seconds for the client to take what it is sent. 120.
    pub write_s: u64,
    /// Messages of a maildrop at most; those beyond, the newest, are not shown. 1,000,000.
    pub messages: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listener: vec![
                ListenerConfig::new("pop3", "[::]:110", TlsMode::Starttls),
                ListenerConfig::new("pop3s", "[::]:995", TlsMode::Implicit),
            ],
            plain_login_networks: types::Network::LOOPBACK.to_vec(),
            mechanisms: ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN"]
                .map(str::to_owned)
                .to_vec(),
            connections: 2000,
            connections_per_address: 50,
            bad_commands: 20,
            failed_logins: 3,
            login_s: 60,
            idle_s: 600,
            write_s: 120,
            messages: 1_000_000,
        }
    }
}

impl Section for Config {
    fn listeners(&self) -> &[ListenerConfig] {
        &self.listener
    }

    fn logins(&self) -> Logins {
        Logins {
            plain_networks: self.plain_login_networks.clone(),
            mechanisms: self.mechanisms.clone(),
            connections: self.connections,
            per_address: self.connections_per_address,
            // The maildrop's lock leaves one of an account anyway.
            per_account: 0,
            failed: self.failed_logins,
            login_s: self.login_s,
            idle_s: self.idle_s,
            write_s: self.write_s,
        }
    }
}
