//! The section `[smtpd]`.

use crate::checks::ChecksConfig;
use crate::dnslist::DnsListsConfig;
use crate::rewriting::{BccRule, RewriteRule};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What a listener is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListenerRole {
    /// Mail from other servers to our domains: port 25. No login, no relaying.
    #[default]
    Mx,
    /// Mail from our users to everybody: ports 587 and 465. Only after a login.
    Submission,
    /// LMTP (RFC 2033) from other software on this or a neighbouring host: to our domains, one reply a recipient.
    Lmtp,
}

/// How a listener does TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsMode {
    /// Not at all.
    None,
    /// STARTTLS is offered (RFC 3207).
    #[default]
    Starttls,
    /// From the first octet (RFC 8314 3.3).
    Implicit,
}

/// What becomes of a message with a CR or LF that is not part of a CRLF. Either way only CRLF `.` CRLF ends a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LineEndingPolicy {
    /// It is refused with 550 after its end.
    #[default]
    Refuse,
    /// A lone LF becomes CRLF, a lone CR a blank.
    Repair,
}

/// Numbers that nothing may exceed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections in all; more are answered 421.
    pub connections: usize,
    /// Connections from one address (IPv6: one /64) outside `trusted_networks`; 0 is no limit.
    pub connections_per_address: usize,
    /// Octets of a message, as announced in SIZE (RFC 1870).
    pub message_bytes: u64,
    /// Recipients of a message, at most 65,535; more are answered 452 (RFC 5321 4.5.3.1.10).
    pub recipients: usize,
    /// Messages in one session; then 421.
    pub messages_per_session: u32,
    /// Commands in one session; then 421.
    pub commands_per_session: u32,
    /// Commands since the last accepted message, accepted recipients not counted; then 421.
    pub idle_commands: u32,
    /// Commands answered 5xx for their form in one session; then 421.
    pub bad_commands: u32,
    /// Received fields in a message: one more is a loop (RFC 5321 6.3).
    pub received: usize,
    /// Octets of a message's header; more is answered 552.
    pub header_bytes: usize,
    /// Octets of a command line with CRLF (RFC 5321 4.5.3.1.4).
    pub command_line: usize,
    /// Octets of MAIL and RCPT, which the extensions make longer.
    pub envelope_line: usize,
    /// Octets of AUTH and of the lines of its exchange (RFC 4954 4).
    pub auth_line: usize,
    /// Octets of a line in a message without CRLF (RFC 5321 4.5.3.1.6 says 998); 0 is no limit, because a message with longer
    /// lines is better delivered than lost.
    pub body_line: u64,
    /// Unknown recipients in a session before each further one is answered late.
    pub unknown_before_delay: u32,
    /// How late, in milliseconds.
    pub unknown_delay_ms: u64,
    /// Unknown recipients in a session before it is closed with 421.
    pub unknown_per_session: u32,
    /// Unknown recipients from one address outside `trusted_networks` in `unknown_window_s` before its new connections are
    /// answered 421; 0 is no limit.
    pub unknown_per_address: u32,
    /// Seconds.
    pub unknown_window_s: u64,
    /// Failed logins in a session before it is closed. (authd counts and delays across sessions.)
    pub failed_logins: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 2000,
            connections_per_address: 50,
            message_bytes: 52_428_800,
            recipients: 1000,
            messages_per_session: 10_000,
            commands_per_session: 100_000,
            idle_commands: 200,
            bad_commands: 20,
            received: 50,
            header_bytes: 262_144,
            command_line: 512,
            envelope_line: 2048,
            auth_line: 12_288,
            body_line: 0,
            unknown_before_delay: 5,
            unknown_delay_ms: 1000,
            unknown_per_session: 50,
            unknown_per_address: 200,
            unknown_window_s: 600,
            failed_logins: 3,
        }
    }
}

/// Seconds after which a silent client is answered 421 (RFC 5321 4.5.3.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// For the PROXY header and the TLS handshake, each.
    pub handshake_s: u64,
    /// For the next command, to its end.
    pub command_s: u64,
    /// For the next octets of a message.
    pub data_s: u64,
    /// For a whole message, in however many chunks it comes.
    pub message_s: u64,
    /// Octets a second that a message must bring on average over any `data_window_s`; 0 is no minimum. 64: a tenth of the slowest
    /// mobile link.
    pub data_rate: u64,
    /// Seconds.
    pub data_window_s: u64,
    /// For the client to take a reply.
    pub write_s: u64,
    /// For a whole session; 0 is no limit.
    pub session_s: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake_s: 30,
            command_s: 300,
            data_s: 180,
            message_s: 3600,
            data_rate: 64,
            data_window_s: 300,
            write_s: 120,
            session_s: 14_400,
        }
    }
}

impl Timeouts {
    pub(crate) fn of(seconds: u64) -> Duration {
        Duration::from_secs(seconds.max(1))
    }
}

/// What senders may ask for besides delivery: later, sooner than others, or not too late.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TermsConfig {
    /// Seconds for which a submission may be held at most (FUTURERELEASE, RFC 4865): up to 999,999,999; 0 offers it not.
    /// 2,592,000: thirty days.
    pub future_release: u64,
    /// Whether priorities are offered (MT-PRIORITY, RFC 6710). true.
    pub priority: bool,
    /// The name of the priority policy in the answer to EHLO: `MIXER`, `STANAG4406`, `NSEP`; none if it is empty (default).
    pub priority_policy: String,
    /// The highest priority that logins, `trusted_networks` and `relay_networks` get, -9 to 9. 9.
    pub priority_known: i8,
    /// The highest priority that all others get, -9 to 9. 0.
    pub priority_others: i8,
    /// Whether a time limit of delivery is offered (DELIVERBY, RFC 2852). true.
    pub deliver_by: bool,
    /// The fewest seconds of a time limit after which a message is to be returned. 60; 0 is no minimum.
    pub deliver_by_min: u32,
}

impl Default for TermsConfig {
    fn default() -> Self {
        Self {
            future_release: 2_592_000,
            priority: true,
            priority_policy: String::new(),
            priority_known: 9,
            priority_others: 0,
            deliver_by: true,
            deliver_by_min: 60,
        }
    }
}

impl TermsConfig {
    /// What is wrong with it.
    pub(crate) fn fault(&self) -> Option<String> {
        // RFC 4865 4: nine digits
        if self.future_release > 999_999_999 {
            return Some("future_release has at most nine digits".to_owned());
        }
        let policy = &self.priority_policy;
        let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        // RFC 6710 6: priority-policy-name
        if policy.len() > 20 || !policy.bytes().all(letter) {
            return Some(format!("priority_policy {policy:?} is no name of a policy"));
        }
        for (name, value) in [
            ("priority_known", self.priority_known),
            ("priority_others", self.priority_others),
        ] {
            if !(-9..=9).contains(&value) {
                return Some(format!("{name} is from -9 to 9"));
            }
        }
        // RFC 2852 3: nine digits
        (self.deliver_by_min > 999_999_999)
            .then(|| "deliver_by_min has at most nine digits".to_owned())
    }
}

/// What is done with a client that does not wait for its turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EarlyAction {
    /// It is answered 554, and the connection is closed.
    #[default]
    Refuse,
    /// It is logged.
    Log,
    /// Nothing.
    Allow,
}

/// `[smtpd.early]`: strangers that speak before their turn, as mail servers do not. It is not about `trusted_networks`,
/// `relay_networks`, logins and implicit TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EarlyConfig {
    /// Octets before the greeting: `refuse` (default), `log` or `allow`.
    pub before_greeting: EarlyAction,
    /// How long strangers wait for the greeting, in milliseconds, up to 60,000: programs that send spam often do not. 0: it is
    /// only looked whether something is there already.
    pub greeting_delay_ms: u64,
    /// Commands behind EHLO, DATA and others that must be the last of a group (RFC 2920), or groups without EHLO: `refuse`
    /// (default), `log` or `allow`.
    pub pipelining: EarlyAction,
}

/// Where smtpd listens, and for whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenerConfig {
    /// Its name: in logs and in `posthouse status`; also of its systemd socket.
    pub name: String,
    /// `address:port`, `[::]:port` (IPv4 too), or `unix:/path`.
    pub address: String,
    /// `mx` (default), `submission` or `lmtp`.
    #[serde(default)]
    pub role: ListenerRole,
    /// `starttls` (default), `implicit` or `none`.
    #[serde(default)]
    pub tls: TlsMode,
}

/// The section `[smtpd]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Our name in greetings and Received; `suite.hostname` if it is not given.
    pub hostname: Option<String>,
    /// The listeners, as `[[smtpd.listener]]`. By default `mx` on port 25, `submission` on 587 and `submissions` on 465.
    pub listener: Vec<ListenerConfig>,
    /// Load balancers whose connections begin with a PROXY header, version 1 or 2. None.
    pub proxy_networks: Vec<types::Network>,
    /// Networks without limits of connections and guesses, whose mail is not checked for its sender and may say what our checks
    /// found. Loopback.
    pub trusted_networks: Vec<types::Network>,
    /// Networks that may relay through `mx` listeners without a login; queued must list them too (`queued.relay_networks`).
    /// None.
    pub relay_networks: Vec<types::Network>,
    /// Lone CR and LF in messages: `refuse` (default) or `repair`.
    pub line_endings: LineEndingPolicy,
    /// Whether the From field of submissions must belong to the login, as MAIL FROM must. true.
    pub check_from: bool,
    /// Whether logins are taken without TLS: only for tests and trusted wires. false.
    pub auth_without_tls: bool,
    /// SASL mechanisms on submission listeners, in the order of the offer.
    pub mechanisms: Vec<String>,
    /// Addresses of the envelope that become others on arrival, as `[[smtpd.rewrite]]` with `which`, `listeners`, `login`, `from`, `to`
    /// and `header`; the first that fits decides (docs/rewriting.md). None.
    pub rewrite: Vec<RewriteRule>,
    /// Recipients who get mail of or to others without anybody seeing it, as `[[smtpd.bcc]]` with `senders`, `recipients`, `listeners`
    /// and `to` (docs/rewriting.md). None.
    pub bcc: Vec<BccRule>,
    /// `[smtpd.checks]`
    pub checks: ChecksConfig,
    /// `[smtpd.dnslists]`
    pub dnslists: DnsListsConfig,
    /// `[smtpd.early]`
    pub early: EarlyConfig,
    /// `[smtpd.limits]`
    pub limits: Limits,
    /// `[smtpd.timeouts]`
    pub timeouts: Timeouts,
    /// `[smtpd.terms]`
    pub terms: TermsConfig,
}

impl Default for Config {
    fn default() -> Self {
        let listener = |name: &str, address: &str, role, tls| ListenerConfig {
            name: name.to_owned(),
            address: address.to_owned(),
            role,
            tls,
        };
        Self {
            hostname: None,
            listener: vec![
                listener("mx", "[::]:25", ListenerRole::Mx, TlsMode::Starttls),
                listener(
                    "submission",
                    "[::]:587",
                    ListenerRole::Submission,
                    TlsMode::Starttls,
                ),
                listener(
                    "submissions",
                    "[::]:465",
                    ListenerRole::Submission,
                    TlsMode::Implicit,
                ),
            ],
            proxy_networks: Vec::new(),
            trusted_networks: types::Network::LOOPBACK.to_vec(),
            relay_networks: Vec::new(),
            line_endings: LineEndingPolicy::default(),
            check_from: true,
            auth_without_tls: false,
            mechanisms: ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "PLAIN", "LOGIN"]
                .map(str::to_owned)
                .to_vec(),
            rewrite: Vec::new(),
            bcc: Vec::new(),
            checks: ChecksConfig::default(),
            dnslists: DnsListsConfig::default(),
            early: EarlyConfig::default(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            terms: TermsConfig::default(),
        }
    }
}
