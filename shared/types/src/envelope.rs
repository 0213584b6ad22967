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
