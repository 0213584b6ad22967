//! The SMTP envelope, as it is accepted, journalled and delivered.

use crate::Address;
use serde::{Deserialize, Serialize};

/// Everything MAIL and RCPT said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The reverse-path; `None` is `<>`, to which nothing is ever reported (RFC 5321 4.5.5).
    pub sender: Option<Address>,
    /// How much of the message a failure report carries (RFC 3461 4.3).
    pub ret: Option<Ret>,
    /// The sender's own name for this transaction, xtext-decoded (RFC 3461 4.4); at most 100 octets.
    pub envid: Option<String>,
    /// What the body is declared to be (RFC 6152, RFC 3030).
    pub body: BodyType,
    /// Declared with SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// Only over verified TLS from here on (RFC 8689).
    pub require_tls: bool,
    /// In the order of RCPT; an index into this list names a recipient everywhere. At most 65535.
    pub recipients: Vec<Recipient>,
    /// When, how urgently and how long it is to be tried.
    pub terms: Terms,
}

/// Who has a message held in the queue until an operator releases it, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The filter's name; at most [`Held::BY_MAX`] octets.
    pub by: String,
    /// What it says; at most [`Held::REASON_MAX`] octets, one line.
    pub reason: String,
}

impl Held {
    /// Octets of a name.
    pub const BY_MAX: usize = 64;
    /// Octets of a reason.
    pub const REASON_MAX: usize = 500;

    /// One line each, and no longer than is allowed.
    pub fn new(by: &str, reason: &str) -> Self {
        let line = |text: &str, most: usize| {
            let mut line = text.trim().replace(char::is_control, " ");
            line.truncate(line.floor_char_boundary(most));
            line
        };
        Self {
            by: line(by, Self::BY_MAX),
            reason: line(reason, Self::REASON_MAX),
        }
    }

    /// Whether it is no longer than is allowed.
    pub fn fits(&self) -> bool {
        self.by.len() <= Self::BY_MAX && self.reason.len() <= Self::REASON_MAX
    }
}

/// What the sender asked for besides delivery: later, sooner than others, or not too late. `Default` asks for nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Not to be tried before (RFC 4865).
    pub release: Option<Release>,
    /// The priority as it was granted, -9 to 9; `None` if none was asked for (RFC 6710), which counts as 0.
    pub priority: Option<i8>,
    /// By when it is to be delivered (RFC 2852).
    pub by: Option<DeliverBy>,
}

/// When a message is released for delivery (RFC 4865 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Seconds since 1970.
    pub at: u64,
    /// The seconds of HOLDFOR; `None` if HOLDUNTIL was said.
    pub interval: Option<u32>,
}

/// By when a message is to be delivered, and what happens if it is not (RFC 2852 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliverBy {
    /// Seconds since 1970.
    pub deadline: u64,
    /// What happens then.
    pub mode: ByMode,
    /// Whether each hand-over to a host that knows DELIVERBY is reported, too.
    pub trace: bool,
}

/// RFC 2852 4, by-mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ByMode {
    /// The sender is told of the delay, and delivery goes on.
    Notify,
    /// It is returned to the sender.
    Return,
}

impl Terms {
    /// When it is released, in seconds since 1970; 0 if it was never held.
    pub fn released(&self) -> u64 {
        self.release.map_or(0, |release| release.at)
    }

    /// The priority that counts, -9 to 9.
    pub fn effective_priority(&self) -> i8 {
        self.priority.unwrap_or(0)
    }

    /// When it is to be returned if it is not delivered.
    pub fn return_at(&self) -> Option<u64> {
        self.by
            .filter(|by| by.mode == ByMode::Return)
            .map(|by| by.deadline)
    }

    /// When the sender is to be told if it is not delivered.
    pub fn notify_at(&self) -> Option<u64> {
        self.by
            .filter(|by| by.mode == ByMode::Notify)
            .map(|by| by.deadline)
    }
}

/// One RCPT.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// The forward-path.
    pub address: Address,
    /// The address the sender used in the first place, `type;value`, xtext-decoded (RFC 3461 4.2).
    pub orcpt: Option<String>,
    /// When to report (RFC 3461 4.1).
    pub notify: Notify,
    /// Decided by authd when the recipient was accepted.
    pub route: Route,
}

/// Which way a recipient goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Route {
    /// Into our store, by deliverd (which also follows aliases to remote addresses).
    Local,
    /// To another host, by relayd. Needs the right to relay.
    Remote,
}

/// RET (RFC 3461 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ret {
    /// The whole message.
    Full,
    /// The header only.
    Headers,
}

/// BODY (RFC 6152 3, RFC 3030 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BodyType {
    /// Nothing was said, or 7BIT.
    #[default]
    SevenBit,
    /// 8BITMIME.
    EightBit,
    /// BINARYMIME: lines mean nothing, only BDAT can carry it.
    Binary,
}

/// NOTIFY (RFC 3461 4.1), as a set. `Default` is what is done when nothing was said: failure and delay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notify {
    /// Report a delivery.
    pub success: bool,
    /// Report a failure.
    pub failure: bool,
    /// Report a delay.
    pub delay: bool,
    /// Whether NOTIFY was given; it is passed on only then. All three false and this true is NEVER.
    pub explicit: bool,
}

impl Notify {
    /// NEVER: nothing is reported at all.
    pub fn is_never(self) -> bool {
        self.explicit && !self.success && !self.failure && !self.delay
    }
}

impl Default for Notify {
    fn default() -> Self {
        Self {
            success: false,
            failure: true,
            delay: true,
            explicit: false,
        }
    }
}
