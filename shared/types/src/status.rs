//! How a delivery attempt ended.

use serde::{Deserialize, Serialize};
use std::fmt;

/// An enhanced status code (RFC 3463): class 2, 4 or 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enhanced(pub u8, pub u16, pub u16);

impl fmt::Display for Enhanced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// What a server (ours or another) said of one recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The SMTP reply code, 200..=599.
    pub code: u16,
    /// Its enhanced code.
    pub enhanced: Enhanced,
    /// The text, without codes, one line; at most 1,000 octets.
    pub text: String,
    /// The host that said it; `None` when it was ourselves.
    pub host: Option<String>,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.code, self.enhanced, self.text)
    }
}

/// The end of one attempt for one recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The next host or the store has it.
    Done(Status),
    /// Try again later.
    Temporary(Status),
    /// Never: report to the sender.
    Permanent(Status),
}
