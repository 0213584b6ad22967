//! ManageSieve on the wire (RFC 5804): words in, commands out; responses appended to a buffer.
//!
//! - [`Assembly`] puts the lines and literals of one command together, and keeps in step with the client through those that
//!   are malformed or too long.
//! - [`parse`] makes a typed [`Command`] of a command's words, [`response`] reads a client's answer to a SASL challenge.
//! - [`put`] writes the pieces of responses.
//! - [`script_name`] says whether a script may be called so.

mod assembly;
mod command;
pub mod put;

pub use assembly::{Assembly, Fault, Limits, Step, Word};
pub use command::{Command, Response, parse, response, script_name};
