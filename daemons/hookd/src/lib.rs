//! hookd: asks filters about mail while it arrives: milters, HTTP hooks, the administrator's Sieve scripts.
//!
//! SECURITY: user `posthouse-hook`.
//!
//! STANDARDS: none yet.
//!
//! RECOVERY: filters' sessions: smtpd does for these what the configuration says of a filter that is away.
#![forbid(unsafe_code)]

mod config;

pub use config::Config;

use runtime::{Failure, Needs, Setting, Start};
use types::Role;

/// What it needs of its surroundings.
///
/// # Errors
/// A configuration that makes no sense.
pub fn needs(_: &Config, _: &Setting) -> Result<Needs, Failure> {
    Ok(Needs::default())
}

/// Runs until it is told to stop.
///
/// # Errors
/// What keeps it from starting.
pub async fn run(start: Start<Config>) -> Result<(), Failure> {
    let _ = start.serve(ipc::Router::new(Role::Hookd)).await;
    Ok(())
}
