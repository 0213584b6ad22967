//! deliverd: local delivery.
#![forbid(unsafe_code)]

pub mod config;
mod copies;
mod delivery;

pub use config::{Config, OverQuota};
