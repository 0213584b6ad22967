//! What can be typed about whole accounts and the whole store: import, export, backup, examination.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Import.
#[derive(Subcommand, Debug)]
pub enum Import {
    /// From a Maildir: Maildir++ (.Sent.2024) or nested folders, with flags, dates, Dovecot's keywords and subscriptions.
    #[command(after_help = AGAIN)]
    Maildir {
        /// The folder that has `cur` and `new`.
        folder: PathBuf,
        /// Where to, and how.
        #[command(flatten)]
        into: Into,
    },
    /// From mbox files: one file is INBOX, a folder is a tree of mailboxes.
    #[command(after_help = AGAIN)]
    Mbox {
        /// The file or folder.
        path: PathBuf,
        /// How lines that begin with From are quoted: mboxrd takes one > away from any number, mboxo from one.
        #[arg(long, value_enum, default_value = "mboxrd")]
        quoting: Quoting,
        /// Where to, and how.
        #[command(flatten)]
        into: Into,
    },
    /// From another server, by IMAP. Nothing is changed there.
    #[command(after_help = AGAIN)]
    Imap {
        /// Its name or address; `name:port` for another port than 993 (143 without TLS from the start).
        server: String,
        /// The login there.
        #[arg(long, short = 'u')]
        user: String,
        /// A file whose first line is the password; otherwise it is asked for, or read from standard input.
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        /// How the connection is protected.
        #[arg(long, value_enum, default_value = "implicit")]
        tls: Protection,
        /// A file of certificates (PEM) to trust instead of the system's.
        #[arg(long, value_name = "FILE")]
        ca: Option<PathBuf>,
        /// Only these folders, by their names there; may be given several times.
        #[arg(long = "folder", value_name = "NAME")]
        folders: Vec<String>,
        /// Where to, and how.
        #[command(flatten)]
        into: Into,
    },
}

const AGAIN: &str = "Run it again to go on after an interruption, or to fetch what has come since: what was imported is not \
    imported twice, not even after kill -9. What is known of it stands in a state file (--state). At the end the number and \
    the BLAKE3 of every message in the store are compared with the source. A message that cannot be imported is listed, and \
    the others go on; then the exit status is 1.";

/// Where imported mail goes.
#[derive(Args, Debug, Clone)]
pub struct Into {
    /// The account, or a shared group's address.
    #[arg(long, short = 'a', value_name = "NAME")]
    pub account: String,
    /// A folder that everything goes below; the source's INBOX becomes this folder itself.
    #[arg(long, value_name = "FOLDER")]
    pub into: Option<String>,
    /// Say what would be imported, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Forget earlier runs: everything is imported once more.
    #[arg(long)]
    pub again: bool,
    /// The state file; by default one below `import` in the suite's state directory, named after account and source.
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// Folders that are filled at once.
    #[arg(long, value_name = "NUMBER", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub window: u32,
}

/// How `From ` is quoted in an mbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Quoting {
    /// `>From `, `>>From ` and so on lose one `>`.
    Mboxrd,
    /// Only `>From ` loses it.
    Mboxo,
    /// Nothing is quoted.
    None,
}

/// How a connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protection {
    /// TLS from the first octet.
    Implicit,
    /// TLS after STARTTLS.
    Starttls,
    /// None. For loopback and networks that are trusted.
    None,
}

/// Export.
#[derive(Subcommand, Debug)]
pub enum Export {
    /// All of an account: mail with flags and dates, subscriptions, Sieve scripts.
    #[command(
        after_help = "It is written beside the target, as TARGET.part, and gets its name when it is complete and \
        compared with the store; run it again to go on after an interruption."
    )]
    Account {
        /// The account, or a shared group's address.
        name: String,
        /// The folder to make; it must not exist.
        folder: PathBuf,
        /// As what.
        #[arg(long, value_enum, default_value = "maildir")]
        format: Format,
    },
}

/// Formats of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Maildir++ as Dovecot has it.
    Maildir,
    /// A file a mailbox, mboxrd.
    Mbox,
}

/// Backup.
#[derive(Args, Debug)]
#[command(
    after_help = "The suite runs on meanwhile. The folder then has one more generation: the rows of the mail store and of the \
    directory as they were at one moment, and keyd's keys; bodies that an earlier generation brought are not copied again. \
    A generation without manifest.json is unfinished: the next run goes on with its bodies. The folder holds password \
    hashes and private keys: it is made 0700. The queue is not in it (see docs/backup.md)."
)]
pub struct Backup {
    /// The folder.
    pub folder: PathBuf,
    /// Leave out keyd's private keys.
    #[arg(long)]
    pub no_keys: bool,
}

/// Verification of a backup.
#[derive(Args, Debug)]
pub struct Verify {
    /// The backup's folder.
    pub folder: PathBuf,
    /// Which generation; the newest complete one if not given.
    #[arg(long, value_name = "NAME")]
    pub generation: Option<String>,
    /// Restore it into this folder, which is made and removed again, and compare all rows and bodies.
    #[arg(long, value_name = "DIR")]
    pub scratch: Option<PathBuf>,
}

/// Restoring.
#[derive(Args, Debug)]
#[command(
    after_help = "All daemons must be stopped and the target empty; it is what the configuration names, which may be \
    another kind of database or of body storage than that of the backup. After an interruption, run it again: it goes on. \
    At the end all rows and bodies are compared with the backup."
)]
pub struct Restore {
    /// The backup's folder.
    pub folder: PathBuf,
    /// Which generation; the newest complete one if not given.
    #[arg(long, value_name = "NAME")]
    pub generation: Option<String>,
}

/// Examination of the store.
#[derive(Args, Debug)]
#[command(
    after_help = "Exit status 3 if something was found that is not mended. It may be interrupted at any time. Without --account \
    bodies in the storage are looked for that no row names (a kill at the wrong moment leaves one): --repair removes those that \
    have been there for more than a day, unless most are nobody's: then the database is rather not the right one."
)]
pub struct Fsck {
    /// Mend what can be mended. Nothing is deleted that cannot be explained.
    #[arg(long)]
    pub repair: bool,
    /// Read every body and compare its hash, instead of looking whether it is there.
    #[arg(long)]
    pub bodies: bool,
    /// Only this account.
    #[arg(long, short = 'a', value_name = "NAME")]
    pub account: Option<String>,
}

/// Schemas.
#[derive(Subcommand, Debug)]
pub enum Schema {
    /// Show which version each database has, what this program needs, what happens at the next start, and the backup points.
    Show,
    /// Put a backup point in the place of the tables it was made of. See docs/upgrade.md.
    #[command(
        after_help = "All daemons must be stopped. Everything that came since the point was made is lost, unless a backup \
        has it. Afterwards start the version of Posthouse that knows the point's schema; this one would change it again. \
        After an interruption, run it again. With SQLite what was there stays beside the file, as FILE.before-TIME."
    )]
    Back {
        /// The backup point, as `posthouse schema show` lists it.
        point: PathBuf,
    },
}

/// The full-text index.
#[derive(Subcommand, Debug)]
pub enum Index {
    /// How far it is.
    Status,
    /// Make it anew; the present one serves until the new one is complete.
    Rebuild {
        /// Only this account.
        #[arg(long, short = 'a', value_name = "NAME")]
        account: Option<String>,
        /// Wait until it is complete.
        #[arg(long)]
        wait: bool,
    },
}

/// Sieve scripts.
#[derive(Subcommand, Debug)]
pub enum Script {
    /// List the scripts of an account.
    List {
        /// The account.
        account: String,
    },
    /// Store a script.
    Put {
        /// The account.
        account: String,
        /// Its name there.
        name: String,
        /// The file; standard input if not given.
        file: Option<PathBuf>,
        /// Make it the active one.
        #[arg(long)]
        activate: bool,
    },
    /// Print a script.
    Show {
        /// The account.
        account: String,
        /// Its name.
        name: String,
    },
    /// Make a script the active one; without a name, none is.
    Activate {
        /// The account.
        account: String,
        /// Its name.
        name: Option<String>,
    },
    /// Delete a script that is not active.
    Delete {
        /// The account.
        account: String,
        /// Its name.
        name: String,
    },
}
