//! The section `[authd]`.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// How new passwords are hashed (argon2id, RFC 9106).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hashing {
    /// KiB of memory that one hash takes. 19,456 (19 MiB) is the common advice for logins; 8 to 262,144.
    pub memory_kib: u32,
    /// Passes over the memory, 1 to 16.
    pub iterations: u32,
    /// Hashes that are computed at once: `concurrent` times `memory_kib` bounds the memory that logins take.
    pub concurrent: usize,
    /// Logins that may wait for their turn; more are told to come again.
    pub waiting: usize,
    /// Whether a password whose hash is of another kind, or weaker, is hashed anew at its next successful login.
    pub rehash: bool,
    /// Whether `{PLAIN}` passwords are accepted from other systems. They are as bad as they look.
    pub plain: bool,
}

impl Default for Hashing {
    fn default() -> Self {
        Self {
            memory_kib: 19_456,
            iterations: 2,
            concurrent: 2,
            waiting: 256,
            rehash: true,
            plain: false,
        }
    }
}

/// SCRAM-SHA-256 (RFC 7677).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scram {
    /// Whether SCRAM is served. The client's secret never crosses the wire, but the keys stored for it are quicker to guess from
    /// a stolen database than argon2id; whoever fears that more switches it off, and no keys are stored.
    pub enabled: bool,
    /// Iterations, 4,096 to 1,000,000. The client computes them at each login. A change works for new accounts.
    pub iterations: u32,
}

impl Default for Scram {
    fn default() -> Self {
        Self {
            enabled: true,
            iterations: 20_000,
        }
    }
}

/// What becomes of failed logins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Blocking {
    /// Whether addresses are blocked automatically.
    pub enabled: bool,
    /// Failures within `window_seconds` after which an address is blocked. The same wrong password again counts once.
    pub address_failures: u32,
    /// Failures within `window_seconds` after which a network (IPv4 /24, IPv6 /64) is blocked.
    pub network_failures: u32,
    /// Seconds for which failures are remembered.
    pub window_seconds: u64,
    /// Seconds for which a block holds.
    pub block_seconds: u64,
    /// Milliseconds that the answer to an address's first failure is held back; it doubles with each further one.
    pub delay_ms: u32,
    /// The longest of these delays.
    pub delay_max_ms: u32,
    /// Addresses and networks that are never blocked or delayed. Loopback is among them by default.
    pub allow: Vec<IpNet>,
    /// Addresses whose failures are remembered at once.
    pub remembered: usize,
}

impl Default for Blocking {
    fn default() -> Self {
        let loopback = ["127.0.0.0/8", "::1/128"];
        Self {
            enabled: true,
            address_failures: 10,
            network_failures: 50,
            window_seconds: 900,
            block_seconds: 3600,
            delay_ms: 500,
            delay_max_ms: 15_000,
            allow: loopback
                .iter()
                .filter_map(|text| text.parse().ok())
                .collect(),
            remembered: 100_000,
        }
    }
}

/// Access tokens of an OAuth 2.0 or OpenID Connect provider as logins (RFC 7628).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OAuth {
    /// The provider's issuer URL; its keys are found through `.well-known/openid-configuration`. With it, tokens that are signed
    /// (JWT, RFC 9068) are checked here. Empty: none.
    pub issuer: String,
    /// Where other tokens, or all if there is no issuer, are checked (RFC 7662). Empty: nowhere.
    pub introspection_url: String,
    /// For the introspection, with HTTP basic authentication.
    pub client_id: String,
    /// A file with the secret that goes with it.
    pub client_secret_file: Option<std::path::PathBuf>,
    /// A token must be meant for one of these (`aud`). Needed with an issuer: a token for another service is not for us.
    pub audiences: Vec<String>,
    /// The claim that holds the account's name.
    pub claim: String,
    /// A scope that a token must have; clients are told it when they are refused. Empty: any.
    pub scope: String,
    /// Seconds for which a token that was good is known without asking again, but never beyond its own end.
    pub cached_seconds: u64,
    /// Seconds that the provider has for an answer.
    pub timeout_seconds: u64,
}

impl Default for OAuth {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            introspection_url: String::new(),
            client_id: String::new(),
            client_secret_file: None,
            audiences: Vec::new(),
            claim: "email".to_owned(),
            scope: String::new(),
            cached_seconds: 300,
            timeout_seconds: 5,
        }
    }
}

impl OAuth {
    /// Whether tokens are taken at all.
    pub fn enabled(&self) -> bool {
        !self.issuer.is_empty() || !self.introspection_url.is_empty()
    }
}

/// Forwarding under addresses of ours (SRS).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Srs {
    /// Whether the sender's address of forwarded mail is rewritten to one of ours. What comes back to such addresses is taken
    /// either way, until they expire.
    pub enabled: bool,
    /// The domain of these addresses, one of ours; empty: the domain whose mail is forwarded.
    pub domain: String,
    /// Days for which something may come back, up to 1,000.
    pub days: u32,
}

impl Default for Srs {
    fn default() -> Self {
        Self {
            enabled: true,
            domain: String::new(),
            days: 21,
        }
    }
}

/// When a password may be sent in clear (PLAIN, LOGIN) without TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cleartext {
    /// Never.
    Never,
    /// When it comes over the loopback interface.
    #[default]
    Loopback,
    /// Always. Whoever listens has the password.
    Always,
}

/// The section `[authd]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The directory's database: `postgres://...` or `mysql://...`; empty is SQLite, `directory.db` in the state directory.
    pub database: String,
    /// Connections to the database.
    pub connections: u32,
    /// Appended to a login without `@`; empty: such logins fail.
    pub default_domain: String,
    /// Accounts that may log in as others (SASL authzid), with their own password.
    pub master_users: Vec<String>,
    /// Separates user and detail in an address, where the domain allows subaddresses.
    pub subaddress_separator: char,
    /// Where mail for `postmaster` and `abuse` of a domain goes that has no such address, and of `suite.hostname` if that is no domain of
    /// ours (RFC 5321 4.5.1); empty: nowhere.
    pub postmaster: String,
    /// Whether an account may send from addresses that only reach it as its domain's catch-all.
    pub send_as_catch_all: bool,
    /// Forwarding under addresses of ours (SRS).
    pub srs: Srs,
    /// Ends that one address may have after aliases and groups are followed; what goes beyond is left out.
    pub targets: usize,
    /// Aliases and groups that may stand behind one another.
    pub depth: usize,
    /// Answers about addresses that are kept in memory, and as many about unknown ones.
    pub cached: usize,
    /// Seconds for which such an answer is good when the database may be changed by others.
    pub cache_seconds: u64,
    /// Seconds for which it is still used when the database cannot be reached.
    pub stale_seconds: u64,
    /// The least characters of a new password.
    pub password_min: usize,
    /// The most octets of a password.
    pub password_max: usize,
    /// Application passwords of one account.
    pub app_passwords: usize,
    /// When passwords may be sent in clear without TLS: `never`, `loopback` or `always`.
    pub cleartext: Cleartext,
    /// Seconds for which a password that was right is known without hashing it again; 0: never.
    pub verified_seconds: u64,
    /// SASL exchanges under way.
    pub exchanges: usize,
    /// Seconds for which an exchange waits for the client.
    pub exchange_seconds: u64,
    /// Seconds for which a grant is good, at least half of them from a login on. A session ends with its grant; that of an account
    /// which is disabled meanwhile, too, and not before.
    pub grant_seconds: u64,
    /// Members of a list with personal posts, each of whom is a message of the queue; up to 50,000.
    pub personal_members: u64,
    /// Hashing of passwords.
    pub hashing: Hashing,
    /// SCRAM.
    pub scram: Scram,
    /// Access tokens.
    pub oauth: OAuth,
    /// Failed logins.
    pub blocking: Blocking,
    /// `reportd.addresses`, if reportd runs: not a setting of this section.
    #[serde(skip)]
    pub(crate) reports: Vec<types::AddressPattern>,
    /// Our own name, whose `postmaster` is reached although it may be no domain of ours; from `[suite]`.
    #[serde(skip)]
    pub(crate) hostname: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            database: String::new(),
            connections: 4,
            default_domain: String::new(),
            master_users: Vec::new(),
            subaddress_separator: '+',
            postmaster: String::new(),
            send_as_catch_all: false,
            srs: Srs::default(),
            targets: 500,
            depth: 10,
            cached: 50_000,
            cache_seconds: 60,
            stale_seconds: 3600,
            password_min: 8,
            password_max: 512,
            app_passwords: 50,
            cleartext: Cleartext::Loopback,
            verified_seconds: 60,
            exchanges: 10_000,
            exchange_seconds: 120,
            grant_seconds: 86_400,
            personal_members: 10_000,
            hashing: Hashing::default(),
            scram: Scram::default(),
            oauth: OAuth::default(),
            blocking: Blocking::default(),
            reports: Vec::new(),
            hostname: String::new(),
        }
    }
}
