//! What every daemon serves to the command line tool. Codes from 0xF000 on.

use crate::operation;
use serde::{Deserialize, Serialize};
use types::Role;

/// Is it there?
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ping;
operation!(Ping = 0xF000, idempotent -> ());

/// How does it do?
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status;
operation!(Status = 0xF001, idempotent -> StatusReply);

/// The answer to [`Status`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatusReply {
    /// The daemon.
    pub role: Role,
    /// Its version, `0.1.0`.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Its effective user id.
    pub uid: u32,
    /// Seconds since it was ready.
    pub uptime: u64,
    /// What the sandbox holds it to, and what the kernel could not do: one fact a line.
    pub sandbox: Vec<String>,
    /// The daemons it calls, and whether it is connected to them.
    pub peers: Vec<(Role, bool)>,
    /// `name=value` facts of this daemon (sessions, queue length ...).
    pub facts: Vec<(String, String)>,
    /// The TCP listeners: name and address.
    pub listeners: Vec<(String, String)>,
}

/// Its metrics in the text format of Prometheus.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Metrics;
operation!(Metrics = 0xF002, idempotent -> String);

/// Reads configuration and certificates again, as HUP does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reload;
operation!(Reload = 0xF003, idempotent -> ());

/// Drains and ends, as TERM does.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shutdown;
operation!(Shutdown = 0xF004, idempotent -> ());

/// Tries to break out, to show that it cannot. What succeeds is undone at once; a file is never written to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Probe {
    /// Open that file for reading.
    Read(String),
    /// Open that file for writing, or create one in that directory.
    Write(String),
    /// Connect by TCP to that address and port.
    Connect(std::net::SocketAddr),
    /// Listen on TCP at that address and port.
    Listen(std::net::SocketAddr),
    /// Run that program.
    Execute(String),
}
operation!(Probe = 0xF005, idempotent -> Probed);

/// The answer to [`Probe`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    /// Whether it could do it.
    pub possible: bool,
    /// What the kernel said.
    pub detail: String,
}
