//! What a call is: its number, its name, whether it may be sent twice, its answer.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fmt;

/// A request that a daemon serves. The type is the request's payload.
pub trait Operation: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Unique at its server.
    const CODE: u16;
    /// As topology.toml names it.
    const NAME: &'static str;
    /// Whether doing it twice is the same as doing it once: only then is it sent again after a lost connection.
    const IDEMPOTENT: bool;
    /// What comes back.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
}

/// A notice from a server to those who asked for it. A hint: it may be lost, and whoever reconnects compares states.
pub trait Event: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Unique at its server.
    const CODE: u16;
    /// For logs.
    const NAME: &'static str;
}

/// The event by which a server says that it dropped events for want of room. Its payload is empty.
pub(crate) const DROPPED: u16 = u16::MAX;

/// Makes a struct an [`Operation`]: `operation!(Commit = 3, idempotent -> Committed);`, or `once` instead of
/// `idempotent` for what must not be sent again.
#[macro_export]
macro_rules! operation {
    ($name:ident = $code:literal, idempotent -> $reply:ty) => {
        $crate::operation!(@ $name, $code, true, $reply);
    };
    ($name:ident = $code:literal, once -> $reply:ty) => {
        $crate::operation!(@ $name, $code, false, $reply);
    };
    (@ $name:ident, $code:literal, $idempotent:literal, $reply:ty) => {
        impl $crate::Operation for $name {
            const CODE: u16 = $code;
            const NAME: &'static str = stringify!($name);
            const IDEMPOTENT: bool = $idempotent;
            type Reply = $reply;
        }
    };
}

/// Makes a struct an [`Event`]: `event!(Changed = 1);`.
#[macro_export]
macro_rules! event {
    ($name:ident = $code:literal) => {
        impl $crate::Event for $name {
            const CODE: u16 = $code;
            const NAME: &'static str = stringify!($name);
        }
    };
}

/// Why a call was not done. The text is for a log or an operator, never for a mail client as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// What to make of it.
    pub kind: FaultKind,
    /// What happened, without secrets.
    pub text: String,
}

/// What to make of a [`Fault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FaultKind {
    /// The store or a peer is away: try again later (SMTP 451).
    Temporary,
    /// A limit of load or space is reached: try again later (SMTP 452).
    Busy,
    /// The caller may not do this.
    Denied,
    /// What the call names is not there.
    NotFound,
    /// The call makes no sense; the caller's fault.
    Invalid,
    /// It is there already, or changed meanwhile.
    Conflict,
    /// A limit of the account is reached (SMTP 552, IMAP OVERQUOTA).
    OverQuota,
    /// A defect of the server; a log line there says more.
    Internal,
}

impl Fault {
    /// A fault of that kind.
    pub fn new(kind: FaultKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
        }
    }

    /// Whether the same call may succeed later.
    pub fn is_temporary(&self) -> bool {
        matches!(
            self.kind,
            FaultKind::Temporary | FaultKind::Busy | FaultKind::Internal
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.text, self.kind)
    }
}

impl std::error::Error for Fault {}
