//! relayd: hands messages to other hosts.
#![forbid(unsafe_code)]

mod attempt;
pub mod config;
mod connection;
mod content;
mod dkim;
mod dns;
mod pool;
mod service;
mod tls;
mod transaction;
mod verdict;

pub use config::Config;

#[cfg(test)]
mod tests;
