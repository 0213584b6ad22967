//! POP3 (RFC 1939): commands and multi-line responses, without I/O.
#![forbid(unsafe_code)]

mod command;
pub mod fuzz;
mod stuffing;

pub use command::{BadCommand, Command, parse};
pub use stuffing::{Stuffing, Top};

/// Octets of a command line at most, its end included (RFC 2449 4). AUTH's initial response may be longer.
pub const LINE: usize = 255;
