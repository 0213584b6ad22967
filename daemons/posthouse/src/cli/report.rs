//! `posthouse report`.

use super::duration;
use clap::Subcommand;

/// `posthouse report`
#[derive(Subcommand, Debug)]
pub enum Report {
    /// The reports of others, newest first.
    List {
        /// Only dmarc, tls, arf, bounce or unreadable.
        #[arg(long)]
        kind: Option<String>,
        /// Only about this domain.
        #[arg(long)]
        domain: Option<String>,
        /// Only what came in this time: 12h, 7d.
        #[arg(long, value_parser = duration)]
        since: Option<u64>,
        /// Only those that tell of failures.
        #[arg(long)]
        failing: bool,
        /// At most so many.
        #[arg(long, default_value_t = 50)]
        limit: u32,
    },
    /// One report of somebody else, with its rows.
    Show {
        /// As listed.
        id: u64,
    },
    /// Who sends as a domain and what fails, in one screen.
    Summary {
        /// The domain; all if not given.
        #[arg(long)]
        domain: Option<String>,
        /// The time that is looked at: 12h, 7d.
        #[arg(long, value_parser = duration, default_value = "7d")]
        since: u64,
    },
    /// Our own reports: those that are gathered, due, or were sent lately.
    Pending {
        /// Show this one as it would be sent now.
        #[arg(long)]
        show: Option<u64>,
    },
    /// Drop reports of ours that are not sent yet.
    Cancel {
        /// As `pending` lists them.
        ids: Vec<u64>,
        /// All to this domain; `*` is all.
        #[arg(long)]
        domain: Option<String>,
    },
    /// Send reports of ours now, before their time.
    Send {
        /// As `pending` lists them.
        ids: Vec<u64>,
        /// All to this domain; `*` is all.
        #[arg(long)]
        domain: Option<String>,
    },
}
