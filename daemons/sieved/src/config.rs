//! The section `[sieved]`.

use access::{ListenerConfig, Logins, Section, TlsMode};
use serde::{Deserialize, Serialize};

/// The section `[sieved]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The listeners, as `[[sieved.listener]]`. By default `sieve` on port 4190.
    pub listener: Vec<ListenerConfig>,
    /// Networks whose clients may log in without TLS. Loopback.
    pub plain_login_networks: Vec<types::Network>,
    /// SASL mechanisms, in the order of the offer.
    pub mechanisms: Vec<String>,
    /// Connections in all. 500.
    pub connections: usize,
    /// Connections of one address that are not logged in. 20; 0 is no limit.
    pub connections_per_address: usize,
    /// Connections of one account. 20; 0 is no limit.
    pub connections_per_account: usize,
    /// Malformed commands in one session before it is closed. 20.
    pub bad_commands: u32,
    /// Failed logins in one session before it is closed. 3.
    pub failed_logins: u32,
    /// Seconds for the TLS handshake, and in all until the login. 60.
    pub login_s: u64,
    /// Seconds without a command before a session is closed; RFC 5804 1.2 asks for 1,800 at least. 1,800.
    pub idle_s: u64,
    /// Seconds for the client to take what it is sent. 120.
    pub write_s: u64,
    /// Scripts of one account. stored has a limit of its own. 100.
    pub scripts: usize,
    /// Octets of one script. stored has a limit of its own. 102,400.
    pub script_bytes: u32,
}

/// What sieved reads of the section `[deliverd]`: scripts are checked within the limits within which they run.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Delivery {
    pub(crate) sieve: Running,
}

/// What sieved reads of `[deliverd.sieve]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Running {
    pub(crate) limits: sieve::Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listener: vec![ListenerConfig::new("sieve", "[::]:4190", TlsMode::Starttls)],
            plain_login_networks: types::Network::LOOPBACK.to_vec(),
            mechanisms: ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN"]
                .map(str::to_owned)
                .to_vec(),
            connections: 500,
            connections_per_address: 20,
            connections_per_account: 20,
            bad_commands: 20,
            failed_logins: 3,
            login_s: 60,
            idle_s: 1800,
            write_s: 120,
            scripts: 100,
            script_bytes: 102_400,
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
            per_account: self.connections_per_account,
            failed: self.failed_logins,
            login_s: self.login_s,
            idle_s: self.idle_s,
            write_s: self.write_s,
        }
    }
}
