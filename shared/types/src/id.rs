//! Identifiers. Each is a number of its own type, so that a UID is never passed where a modseq belongs.

use crate::base32;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// An account of the directory. Given by authd, never reused.
    AccountId(u64)
);
number!(
    /// A mailbox (folder) of one account. Given by stored, never reused.
    MailboxId(u64)
);
number!(
    /// The immutable content of a message in one account: shared by its copies.
    ContentId(u64)
);
number!(
    /// One e-mail in the sense of JMAP: kept by MOVE, new for each COPY.
    EmailId(u64)
);
number!(
    /// A conversation in one account.
    ThreadId(u64)
);
number!(
    /// An IMAP unique identifier (RFC 9051 2.3.1.1): 1..=4294967295, ascending in a mailbox.
    Uid(u32)
);
number!(
    /// The account's counter of changes (RFC 7162): IMAP's HIGHESTMODSEQ, JMAP's state. Starts at 1, below 2^63.
    ModSeq(u64)
);
number!(
    /// Makes a `Mutate` idempotent: stored remembers it in the same transaction. Random.
    RequestId(u128)
);

macro_rules! base32_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                base32::write(f, self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                base32::write(f, self.0)
            }
        }

        impl FromStr for $name {
            type Err = &'static str;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                base32::read(text).map(Self).ok_or("expected 13 letters and digits")
            }
        }
    };
}

base32_id!(
    /// A message in the queue: ascending with time, unique on its node for ever. Shown in Received, logs and tools.
    QueueId
);
base32_id!(
    /// Follows one message or session through all daemons and their logs.
    TraceId
);

/// BLAKE3 of a body's octets, before compression.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlobId(pub [u8; 32]);

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ids_survive_their_text() {
        for value in [0, 1, 31, 32, u64::MAX, 0x0123_4567_89ab_cdef] {
            let text = QueueId(value).to_string();
            assert_eq!(text.len(), 13);
            assert_eq!(text.parse::<QueueId>().unwrap().0, value);
            assert_eq!(text.to_lowercase().parse::<QueueId>().unwrap().0, value);
        }
        assert!("G000000000000".parse::<QueueId>().is_err());
        assert!("short".parse::<TraceId>().is_err());
    }
}
