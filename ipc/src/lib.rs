//! How the daemons of the suite talk: local sockets, small frames, declared operations.
//!
//! - `topology.toml` says who may call whom for what; [`topology`] reads it.
//! - `src/api/` declares the operations, one file a serving daemon.
//! - [`Client`] keeps one connection to a daemon, multiplexes calls over it, and connects again when it is lost;
//!   calls that may be made twice are then sent again within their deadline.
//! - [`Router`] serves: it knows its peer by the kernel's word (SO_PEERCRED) and the topology, works on a bounded
//!   number of calls at once, and lets the socket hold back the rest.
//! - Large bodies never cross a socket: descriptors do (SCM_RIGHTS).
//!
//! A connection begins with a hello of each side, which carries a hash of the API's source: a stale daemon is refused with
//! a clear message instead of misread.
#![forbid(unsafe_code)]

pub mod api;
pub mod blocking;
mod client;
pub mod frame;
pub mod fuzz;
mod hello;
mod operation;
mod server;
mod socket;
pub mod topology;

pub use client::{CallError, Client, ClientOptions, Events, Heard};
pub use frame::MAX_DESCRIPTORS;
pub use hello::api_hash;
pub use operation::{Event, Fault, FaultKind, Operation};
pub use server::{Connection, Context, Peer, Router, ServerOptions, Users};
