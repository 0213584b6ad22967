//! `posthouse hook` on the command line.

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Filters.
#[derive(Subcommand, Debug)]
pub enum Hook {
    /// List the filters.
    List {
        /// Ask each whether it answers.
        #[arg(long)]
        probe: bool,
    },
    /// Show a message to the filters as if it had come, and say what they make of it. Nothing is queued.
    Test(HookTrial),
}

/// A message that is shown to filters.
#[derive(Args, Debug)]
pub struct HookTrial {
    /// The message; standard input if not given.
    pub file: Option<PathBuf>,
    /// Only this filter.
    #[arg(long, value_name = "NAME")]
    pub filter: Option<String>,
    /// The listener through which it comes; `mx` if not given.
    #[arg(long, value_name = "NAME")]
    pub listener: Option<String>,
    /// The address of the client that brings it; a local one if not given.
    #[arg(long, value_name = "ADDRESS")]
    pub client: Option<std::net::IpAddr>,
    /// What the client calls itself.
    #[arg(long, value_name = "NAME", default_value = "client.invalid")]
    pub helo: String,
    /// The account that is logged in.
    #[arg(long, value_name = "NAME")]
    pub login: Option<String>,
    /// MAIL FROM; nothing or `<>` for the null sender.
    #[arg(long, value_name = "ADDRESS", default_value = "")]
    pub sender: String,
    /// A recipient. May be repeated.
    #[arg(long, value_name = "ADDRESS")]
    pub recipient: Vec<String>,
}
