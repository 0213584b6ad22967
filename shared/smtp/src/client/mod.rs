//! The client's half: reading replies and capabilities, writing commands and messages.

mod capabilities;
mod reply;
mod stuffing;
mod write;

pub use capabilities::{Capabilities, Limits};
pub use reply::{Reply, ReplyError, ReplyLimits, ReplyParser};
pub use stuffing::Stuffer;
pub use write::{MailFrom, RcptTo};
pub use write::{auth, bdat, data, ehlo, helo, lhlo, mail, noop, quit, rcpt, rset, starttls};
