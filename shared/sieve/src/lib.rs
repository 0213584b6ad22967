//! Sieve (RFC 5228): how scripts are compiled here, and the codec of ManageSieve (RFC 5804). Without I/O; the language itself
//! is sieve-rs's work.
#![forbid(unsafe_code)]

mod compile;
mod declare;
pub mod fuzz;
pub mod protocol;
mod token;

pub use compile::{Compiled, Limits, Problem, capabilities, compile, runtime};
pub use sieve_rs as engine;
