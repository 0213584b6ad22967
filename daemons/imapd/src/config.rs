//! The section `[imapd]`.

use access::{ListenerConfig, Logins, Section, TlsMode};
use serde::{Deserialize, Serialize};

/// What SEARCH's TEXT, BODY, SUBJECT, FROM, TO, CC and BCC look for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SearchMode {
    /// Any piece of text, as RFC 3501 6.4.4 has it: every message in question is read.
    #[default]
    Substring,
    /// Words and beginnings of words, through indexd.
    Words,
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
    /// Messages that one command may work on, which clients are told of (RFC 9738, which asks for 1,000 at least): of more, the
    /// last ones are fetched, searched, changed or moved; copies, APPEND, SORT and THREAD are refused. 0, no limit: programs that
    /// do not know of it take a part for all. What is expunged without UIDs is not counted.
    pub message_limit: u32,
    /// The same for COPY and APPEND alone. 0, no limit. Without effect if there is a `message_limit`.
    pub save_limit: u32,
    /// Malformed commands in one session before it is closed. 20.
    pub bad_commands: u32,
    /// Failed logins in one session before it is closed. 3.
    pub failed_logins: u32,
    /// Seconds for the TLS handshake, and in all until the login. 60.
    pub login_s: u64,
    /// Seconds without a command before a session is closed; RFC 9051 5.4 asks for 1,800 at least. 1,860.
    pub idle_s: u64,
    /// Seconds for the client to take what it is sent, and to send the next piece of a message. 120.
    pub write_s: u64,
    /// KiB of messages above 64 KiB that may be in memory at once, for all sessions; others wait up to
    /// half a minute. 131,072.
    pub large_kib: u32,
    /// What searches for text look for: `substring` (default), pieces of text, for which messages are read; or `words`, whole
    /// words and beginnings of words, for which the index is asked (docs/search.md).
    pub search: SearchMode,
    /// Mailboxes that one search of several takes (RFC 7377). 2,000.
    pub search_mailboxes: usize,
    /// Searches and sorts of one session whose changes are told (RFC 5267). 10; at least 1.
    pub contexts: usize,
    /// Messages of a sort whose changes are told. 50,000.
    pub context_messages: usize,
    /// Mailboxes whose view is kept for the next session after the last one has left. 64.
    pub warm_views: usize,
    /// Messages of which is kept what SORT and THREAD compare, for the next time: about 400 octets each. 50,000.
    pub warm_briefs: usize,
    /// Mailboxes of an account that NOTIFY watches (RFC 5465); an account with more of them hears of the selected one
    /// only. 2,000.
    pub notify_mailboxes: usize,
    /// How to reach the administrator, as a URI (`mailto:postmaster@example.org`): what clients are told when they ask for the
    /// annotation `/shared/admin` (RFC 5464 6.2.1). Empty: nothing.
    pub admin: String,
    /// Seconds after which a client that waits for a change is told that it goes on, and again (RFC 9585). 10; 0 is never.
    pub progress_s: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listener: vec![
                ListenerConfig::new("imap", "[::]:143", TlsMode::Starttls),
                ListenerConfig::new("imaps", "[::]:993", TlsMode::Implicit),
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
            message_limit: 0,
            save_limit: 0,
            bad_commands: 20,
            failed_logins: 3,
            login_s: 60,
            idle_s: 1860,
            write_s: 120,
            large_kib: 131_072,
            search: SearchMode::default(),
            search_mailboxes: 2000,
            contexts: 10,
            context_messages: 50_000,
            warm_views: 64,
            warm_briefs: 50_000,
            notify_mailboxes: 2000,
            admin: String::new(),
            progress_s: 10,
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
