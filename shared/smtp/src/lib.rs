//! SMTP (RFC 5321) and LMTP (RFC 2033) as a codec: bytes in, events out, and the other way round. No I/O, no clock.
//!
//! What a server needs: [`LineReader`] cuts command lines, [`Command::parse`] reads them, [`DataDecoder`] undoes dot-stuffing
//! under strict line endings, [`LineEndings`] checks BDAT chunks, [`reply`] writes answers, [`proxy`] reads the header that a
//! load balancer puts before a connection. What a client needs is in [`client`].
//!
//! All parsers are incremental: any split of the same octets gives the same events. None panics, and each has a limit for
//! what it keeps.
#![forbid(unsafe_code)]

pub mod client;
mod command;
mod data;
pub mod fuzz;
mod line;
mod parameters;
mod path;
pub mod proxy;
pub mod reply;
pub mod xtext;

pub use command::{Command, CommandError, Mail, Rcpt};
pub use data::{DataDecoder, DataProgress, LineEndings, Newlines, Repair, has_eight_bit, has_nul};
pub use line::{Line, LineLimits, LineReader};
pub use parameters::{By, Hold, MailParameters, RcptParameters};
pub use path::{ForwardPath, PathError, ReversePath};
