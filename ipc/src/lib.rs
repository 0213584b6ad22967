//! How the daemons of the suite talk: local sockets, small frames, declared operations.
#![forbid(unsafe_code)]

pub mod api;
mod operation;

pub use operation::{Event, Fault, FaultKind, Operation};
