//! The protocol between a mail server and its filters (milters), from the server's side: octets in, replies out, without I/O.
//!
//! It is Sendmail's, which has no standard: versions 2 and 6, and what lies between. A packet is its length (four octets, the most
//! significant first), a letter, and what belongs to that. [`put`] writes commands, [`Reader`] cuts replies apart, [`Reply`] reads
//! them, and [`Terms`] is what both sides agreed on.
#![forbid(unsafe_code)]

pub mod fuzz;
pub mod put;
mod reader;
mod reply;
mod status;
mod terms;

pub use put::{CHUNK, Family};
pub use reader::{Packet, Reader, TooLong};
pub use reply::{Malformed, Reply};
pub use status::{Answer, answer};
pub use terms::{Actions, Asked, Disagreement, Place, Steps, Terms, offer};
