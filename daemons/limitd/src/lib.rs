//! limitd: counts what each address, sender, recipient and account has used: rates, quotas, greylisting.
//!
//! SECURITY: user `posthouse-limit`.
//!
//! STANDARDS: none yet.
//!
//! RECOVERY: counts of the last seconds; greylisting and quotas stay.
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
    let _ = start.serve(ipc::Router::new(Role::Limitd)).await;
    Ok(())
}
