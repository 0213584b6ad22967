//! `posthouse limit` and `posthouse greylist` on the command line.

use super::duration;
use clap::Subcommand;

/// `posthouse limit`
#[derive(Subcommand, Debug)]
pub enum Limit {
    /// List the counts that have used the most of their limits.
    List {
        /// Only of this rule.
        #[arg(long)]
        rule: Option<String>,
        /// So many, up to 300.
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Show what is counted under a key.
    Show {
        /// An address, network, sender, recipient, domain or account; or a whole key as listed.
        key: String,
    },
    /// Forget what is counted under a key.
    Reset {
        /// As for show.
        key: String,
        /// Only of this rule.
        #[arg(long)]
        rule: Option<String>,
    },
}

/// `posthouse greylist`
#[derive(Subcommand, Debug)]
pub enum Greylist {
    /// List who was asked to come again, the latest first, and the networks that need not.
    List {
        /// Only with exactly this network, sender or recipient.
        item: Option<String>,
        /// So many, up to 150.
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// Let the network of an address pass.
    Allow {
        /// An address in it.
        address: std::net::IpAddr,
        /// For how long: 12h, 7d; as long as greylisting remembers others if not given.
        #[arg(long, value_parser = duration)]
        lasting: Option<u64>,
    },
    /// Forget a network, sender or recipient.
    Forget {
        /// As listed.
        item: String,
    },
}
