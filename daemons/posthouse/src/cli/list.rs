//! `posthouse list`

use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Mailing lists.
#[derive(Subcommand, Debug)]
pub enum Lists {
    /// Make a list.
    Create(ListFields),
    /// Show the lists.
    List,
    /// Show one list.
    Show {
        /// Its address.
        address: String,
    },
    /// Change a list; what is not given stays.
    Set(ListFields),
    /// Remove a list with its members.
    Remove {
        /// Its address.
        address: String,
    },
    /// Members of a list.
    #[command(subcommand)]
    Member(ListMember),
    /// Posts that wait for the owners of a list: show them, or decide on them.
    #[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
    Held {
        /// The list whose posts are shown.
        #[arg(required = true)]
        list: Option<String>,
        /// What becomes of one.
        #[command(subcommand)]
        decide: Option<ListHeld>,
    },
}

/// What becomes of a post that waits.
#[derive(Subcommand, Debug)]
pub enum ListHeld {
    /// Let it in: it goes to the members.
    Accept(HeldPost),
    /// Refuse it, with a report to its sender.
    Reject(HeldPost),
    /// Remove it; nobody hears of it.
    Discard(HeldPost),
}

/// A post that waits.
#[derive(Args, Debug)]
pub struct HeldPost {
    /// The list.
    pub list: String,
    /// Its id in the queue, or that under which it came.
    pub id: String,
}

/// What a list has.
#[derive(Args, Debug)]
pub struct ListFields {
    /// Its address.
    pub address: String,
    /// What it is for, in one line.
    #[arg(long)]
    pub description: Option<String>,
    /// An owner's address: mail to LIST-owner goes there. May be given several times; replaces all owners.
    #[arg(long = "owner", value_name = "ADDRESS")]
    pub owners: Vec<String>,
    /// Who may post.
    #[arg(long, value_parser = ["anyone", "members", "owners"])]
    pub posting: Option<String>,
    /// Who becomes a member by mail: nobody, whom an owner lets in, or whoever confirms that the address is theirs.
    #[arg(long, value_parser = ["closed", "owner", "confirm"])]
    pub subscription: Option<String>,
    /// What stands before the subject in brackets; empty for nothing.
    #[arg(long)]
    pub tag: Option<String>,
    /// A text below each post; empty for nothing.
    #[arg(long, allow_hyphen_values = true)]
    pub footer: Option<String>,
    /// The same from a file.
    #[arg(long, value_name = "FILE", conflicts_with = "footer")]
    pub footer_file: Option<PathBuf>,
    /// Whether posts have the list's address as From: if the author's domain needs it for DMARC, always, or never.
    #[arg(long, value_parser = ["auto", "always", "never"])]
    pub own_from: Option<String>,
    /// Where answers go.
    #[arg(long, value_parser = ["author", "list"])]
    pub reply_to: Option<String>,
    /// An address that gets each post as well, such as a shared group's; empty for none.
    #[arg(long, value_name = "ADDRESS")]
    pub archive: Option<String>,
    /// The web page of the archive, for List-Archive; empty for none.
    #[arg(long, value_name = "URL")]
    pub archive_url: Option<String>,
    /// Octets of a post at most; 0 for no limit of its own.
    #[arg(long, value_name = "OCTETS")]
    pub max_bytes: Option<u64>,
    /// Days with bounces after which a member gets nothing more; 0 for never.
    #[arg(long, value_name = "DAYS")]
    pub max_bounces: Option<u32>,
    /// Whether each member gets a copy of their own, with a reverse-path that tells whose bounces come back, and a link to leave by one
    /// click where httpd runs.
    #[arg(long, value_parser = ["yes", "no"])]
    pub personal: Option<String>,
    /// Which posts wait for the owners: none, those of whoever may not post, or all but the owners' own.
    #[arg(long, value_parser = ["none", "others", "all"])]
    pub moderation: Option<String>,
    /// Days for which they wait at most: 1 to 30.
    #[arg(long, value_name = "DAYS")]
    pub held_days: Option<u32>,
}

/// Members of a list.
#[derive(Subcommand, Debug)]
pub enum ListMember {
    /// Make a member, or change one; its bounces are forgotten.
    Add {
        /// The list.
        list: String,
        /// Here or elsewhere.
        address: String,
        /// The person's name.
        #[arg(long)]
        name: Option<String>,
        /// Posts, but gets no mail.
        #[arg(long)]
        nomail: bool,
        /// Gets mail, but may not post where members may.
        #[arg(long)]
        no_post: bool,
    },
    /// Show the members.
    List {
        /// The list.
        list: String,
    },
    /// End memberships.
    Remove {
        /// The list.
        list: String,
        /// Whose.
        #[arg(required = true)]
        addresses: Vec<String>,
    },
    /// Make members of a file, one a line: `jane@example.org` or `Jane <jane@example.org>`.
    Import {
        /// The list.
        list: String,
        /// The file; standard input if it is not given.
        file: Option<PathBuf>,
    },
}
