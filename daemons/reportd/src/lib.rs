//! reportd: gathers what is reported of DMARC and TLS, writes the reports that are due, and keeps those of others.
//!
//! SECURITY: user `posthouse-report`.
//!
//! STANDARDS: none yet.
//!
//! RECOVERY: nothing that was taken.
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
    let _ = start.serve(ipc::Router::new(Role::Reportd)).await;
    Ok(())
}
