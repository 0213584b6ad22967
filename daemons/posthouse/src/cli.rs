//! The command line: what can be typed. Each command's work stands in `command/`.

mod certificate;
mod hook;
mod limit;
mod list;
mod report;
mod transfer;

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

pub use certificate::{Certificate, Dkim};
pub use hook::{Hook, HookTrial};
pub use limit::{Greylist, Limit};
pub use list::{HeldPost, ListFields, ListHeld, ListMember, Lists};
pub use report::Report;
pub use transfer::{
    Backup, Export, Format, Fsck, Import, Index, Into, Protection, Quoting, Restore, Schema,
    Script, Verify,
};

/// Runs, administers and checks a Posthouse mail suite.
#[derive(Parser, Debug)]
#[command(
    name = "posthouse",
    version,
    about,
    long_about = "Runs, administers and checks a Posthouse mail suite.\n\n\
        EXIT STATUS\n  0  done\n  1  it could not be done; the reason is on standard error\n  \
        2  the command line is wrong\n  3  a check found errors\n  4  a daemon could not be reached\n\n\
        ENVIRONMENT\n  POSTHOUSE_CONFIG  the configuration file, if neither --config nor --dir is given\n  \
        POSTHOUSE_SECTION__KEY  overrides a key of a section, for example POSTHOUSE_SMTPD__MAX_MESSAGE_SIZE\n  \
        POSTHOUSE_LOG  what is logged, for example info,imapd=debug\n\n\
        FILES\n  /etc/posthouse/posthouse.toml  the configuration; conf.d/*.toml beside it is read after it"
)]
pub struct Cli {
    /// The configuration file. Default: POSTHOUSE_CONFIG, else /etc/posthouse/posthouse.toml.
    #[arg(long, short = 'c', global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A folder with posthouse.toml and all state, as `posthouse up --dir` uses it.
    #[arg(
        long,
        short = 'd',
        global = true,
        value_name = "DIR",
        conflicts_with = "config"
    )]
    pub dir: Option<PathBuf>,
    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run one daemon in the foreground, as its unit does.
    Run {
        /// keyd, authd, stored, deliverd, relayd, queued, smtpd, indexd, imapd, pop3d, sieved, certd, limitd, reportd, hookd or httpd.
        role: String,
    },
    /// Run all daemons in the foreground, without root, until Ctrl-C.
    Up(Up),
    /// Mail domains.
    #[command(subcommand)]
    Domain(Domain),
    /// Accounts.
    #[command(subcommand)]
    Account(Account),
    /// Addresses with other addresses behind them.
    #[command(subcommand)]
    Alias(Alias),
    /// Addresses whose members all get the mail.
    #[command(subcommand)]
    Group(Group),
    /// Mailing lists.
    #[command(subcommand)]
    List(Lists),
    /// Passwords for single programs.
    #[command(subcommand)]
    AppPassword(AppPassword),
    /// Addresses and networks that may not log in.
    #[command(subcommand)]
    Block(Block),
    /// Rates and quotas: what addresses, senders, recipients and accounts have used.
    #[command(subcommand)]
    Limit(Limit),
    /// Greylisting: who was asked to come again, and who need not.
    #[command(subcommand)]
    Greylist(Greylist),
    /// DKIM keys.
    #[command(subcommand)]
    Dkim(Dkim),
    /// TLS certificates.
    #[command(subcommand)]
    Certificate(Certificate),
    /// The DNS records that domains need.
    #[command(subcommand)]
    Dns(Dns),
    /// Show how mail to a domain is protected on its way, and why.
    Tls(Tls),
    /// Reports of DMARC and TLS: those of others, and ours.
    #[command(subcommand)]
    Report(Report),
    /// The mail queue.
    #[command(subcommand)]
    Queue(Queue),
    /// Send a message: from options, or a whole one from standard input as sendmail does.
    Send(Send),
    /// Judge who sent a message, as smtpd would, and say what it would do: from a file or standard input.
    Judge(Judge),
    /// Sieve scripts of accounts.
    #[command(subcommand)]
    Script(Script),
    /// Bring mail from elsewhere into an account.
    #[command(subcommand)]
    Import(Import),
    /// Take mail out as files that other programs read.
    #[command(subcommand)]
    Export(Export),
    /// Back up all accounts, mail and keys while the suite runs.
    Backup(Backup),
    /// Put a backup back on an empty machine.
    Restore(Restore),
    /// See whether a backup is complete and sound.
    Verify(Verify),
    /// Examine the mail store, and mend it.
    Fsck(Fsck),
    /// Versions of the databases' schemas, and the backup points from before they were changed.
    #[command(subcommand)]
    Schema(Schema),
    /// The full-text index.
    #[command(subcommand)]
    Index(Index),
    /// Filters: milters, HTTP hooks, Sieve scripts at the stages of SMTP.
    #[command(subcommand)]
    Hook(Hook),
    /// How every daemon does.
    Status {
        /// Show what each daemon can reach, and try to break out of each.
        #[arg(long)]
        security: bool,
    },
    /// The metrics of all daemons in the text format of Prometheus.
    Metrics,
    /// Find what is wrong before users do: configuration, certificates, DNS, ports, permissions, store.
    Check {
        /// Leave out what needs DNS answers from outside.
        #[arg(long)]
        offline: bool,
    },
    /// Read configuration and certificates again in all daemons.
    Reload,
    /// The configuration file.
    #[command(subcommand)]
    Config(Config),
    /// Try one thing from inside a daemon, to see that it cannot.
    Probe {
        /// The daemon.
        role: String,
        /// What to try.
        #[command(subcommand)]
        attempt: Probe,
    },
    /// Print completions for a shell.
    Completions {
        /// bash, zsh, fish, elvish or powershell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages.
    Man {
        /// The folder to write to.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

/// Run all daemons.
#[derive(Args, Debug)]
pub struct Up {
    /// Make a demo domain with two accounts and a first mail, and tell how to use them.
    #[arg(long)]
    pub demo: bool,
}

/// Domains.
#[derive(Subcommand, Debug)]
pub enum Domain {
    /// Add a domain.
    Add(DomainFields),
    /// List the domains.
    List,
    /// Show one domain.
    Show {
        /// Its name.
        name: String,
    },
    /// Change a domain; what is not given stays.
    Set(DomainFields),
    /// Remove a domain that has no accounts, aliases or groups.
    Remove {
        /// Its name.
        name: String,
    },
}

/// What a domain has.
#[derive(Args, Debug)]
pub struct DomainFields {
    /// Its name, for example example.org.
    pub name: String,
    /// Whether mail is taken for it.
    #[arg(long)]
    pub enabled: Option<bool>,
    /// Where mail for unknown addresses goes; empty for nowhere.
    #[arg(long, value_name = "ADDRESS")]
    pub catch_all: Option<String>,
    /// Another domain whose addresses it has as well, those aside that it has itself; empty for none.
    #[arg(long, value_name = "DOMAIN")]
    pub alias_of: Option<String>,
    /// Whether user+detail is delivered to user.
    #[arg(long)]
    pub subaddressing: Option<bool>,
    /// The quota of new accounts: 500M, 10G; 0 is unlimited.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub quota: Option<u64>,
}

/// Accounts.
#[derive(Subcommand, Debug)]
pub enum Account {
    /// Add an account. Its password is read from the terminal or from standard input.
    Add(AccountFields),
    /// List the accounts.
    List {
        /// Only of this domain.
        #[arg(long)]
        domain: Option<String>,
    },
    /// Show one account.
    Show {
        /// Its name.
        name: String,
    },
    /// Change an account; what is not given stays.
    Set(AccountFields),
    /// Remove an account from the directory. Its mail stays, unless --erase is given.
    Remove {
        /// Its name.
        name: String,
        /// Erase its mail and scripts, too. Nothing brings them back.
        #[arg(long)]
        erase: bool,
    },
}

/// What an account has.
#[derive(Args, Debug)]
pub struct AccountFields {
    /// Its login and primary address.
    pub name: String,
    /// The person's name.
    #[arg(long)]
    pub display_name: Option<String>,
    /// Whether it may log in and gets mail.
    #[arg(long)]
    pub enabled: Option<bool>,
    /// How much mail it may hold: 500M, 10G; 0 is unlimited.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub quota: Option<u64>,
    /// How many messages it may hold; 0 is unlimited.
    #[arg(long, value_name = "NUMBER")]
    pub quota_messages: Option<u64>,
    /// What it may do: read, write, submit, with commas; or all.
    #[arg(long, value_name = "RIGHTS", value_parser = rights)]
    pub rights: Option<types::Rights>,
    /// Ask for a password (always done by add, unless --password-hash is given).
    #[arg(long)]
    pub password: bool,
    /// Take the first line of standard input as the password.
    #[arg(long, conflicts_with = "password_hash")]
    pub password_stdin: bool,
    /// A hash from another system: $argon2id$, $6$, $5$, $2y$, {SSHA}, {BLF-CRYPT} ...
    #[arg(long, value_name = "HASH")]
    pub password_hash: Option<String>,
}

/// Aliases.
#[derive(Subcommand, Debug)]
pub enum Alias {
    /// Add an alias.
    Add {
        /// The address.
        address: String,
        /// Where its mail goes.
        #[arg(required = true)]
        targets: Vec<String>,
    },
    /// List the aliases.
    List,
    /// Show one alias.
    Show {
        /// The address.
        address: String,
    },
    /// Replace the targets of an alias.
    Set {
        /// The address.
        address: String,
        /// Where its mail goes from now on.
        #[arg(required = true)]
        targets: Vec<String>,
    },
    /// Remove an alias.
    Remove {
        /// The address.
        address: String,
    },
}

/// Groups.
#[derive(Subcommand, Debug)]
pub enum Group {
    /// Add a group.
    Add(GroupFields),
    /// List the groups.
    List,
    /// Show one group.
    Show {
        /// Its address.
        address: String,
    },
    /// Change a group; what is not given stays.
    Set(GroupFields),
    /// Remove a group.
    Remove {
        /// Its address.
        address: String,
    },
}

/// What a group has.
#[derive(Args, Debug)]
pub struct GroupFields {
    /// Its address.
    pub address: String,
    /// What it is for.
    #[arg(long)]
    pub description: Option<String>,
    /// A member: an account, or an address elsewhere. May be given several times; replaces all members.
    #[arg(long = "member", value_name = "ADDRESS")]
    pub members: Vec<String>,
    /// Whether members may send as the group.
    #[arg(long)]
    pub send_as: Option<bool>,
    /// Whether the group has mailboxes of its own, which its members share: its mail goes there, and not to each member.
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    pub shared: Option<bool>,
}

/// Application passwords.
#[derive(Subcommand, Debug)]
pub enum AppPassword {
    /// Make a password and show it once.
    Add {
        /// The account.
        account: String,
        /// What it is for.
        label: String,
        /// What it may do: read, write, submit, with commas; or all.
        #[arg(long, value_parser = rights, default_value = "all")]
        rights: types::Rights,
    },
    /// List those of an account.
    List {
        /// The account.
        account: String,
    },
    /// Show one, without its secret.
    Show {
        /// The account.
        account: String,
        /// Which.
        label: String,
    },
    /// Remove one.
    Remove {
        /// The account.
        account: String,
        /// Which.
        label: String,
    },
}

/// Blocks.
#[derive(Subcommand, Debug)]
pub enum Block {
    /// Block an address or network.
    Add {
        /// 192.0.2.1, 192.0.2.0/24 or 2001:db8::/64.
        network: String,
        /// Why.
        #[arg(long, default_value = "by hand")]
        reason: String,
        /// For how long: 30m, 12h, 7d; for ever if not given.
        #[arg(long, value_parser = duration)]
        lasting: Option<u64>,
    },
    /// List the blocks in force.
    List,
    /// Lift a block.
    Remove {
        /// As listed.
        network: String,
    },
}

/// DNS records.
#[derive(Subcommand, Debug)]
pub enum Dns {
    /// Print every record that a domain needs, as lines for its zone file.
    #[command(
        after_help = "What the records say is set in the section [dns] of the configuration; DKIM keys and certificates are \
        keyd's. Records of other zones, such as those of a mail exchanger elsewhere, stand at the end as comments."
    )]
    Show {
        /// The domain.
        domain: String,
    },
    /// Have certd publish what is missing, and take back what it published before and is needed no more. First shown, with --yes done.
    #[command(
        after_help = "Only in the zones that certd.dns names. What others published is never changed: such records are listed as to be \
        changed by hand, and the exit status is 3."
    )]
    Publish {
        /// The domain.
        domain: String,
        /// The name server to ask what is published; the system's if not given.
        #[arg(long, value_name = "ADDRESS")]
        resolver: Option<String>,
        /// Do it.
        #[arg(long)]
        yes: bool,
    },
    /// Have certd remove what it published for a domain. First shown, with --yes done.
    Unpublish {
        /// The domain.
        domain: String,
        /// Do it.
        #[arg(long)]
        yes: bool,
    },
    /// Compare what is published with what is needed.
    #[command(
        after_help = "Of each record it says: present; note (published otherwise, which may well be meant: a stricter policy, \
        another address for reports); missing; different; conflict (a second policy, for example); unknown (no answer). The \
        exit status is 3 if anything but present and note was found."
    )]
    Check {
        /// The domain.
        domain: String,
        /// The name server to ask, `192.0.2.1` or `192.0.2.1:53`; the system's if not given.
        #[arg(long, value_name = "ADDRESS")]
        resolver: Option<String>,
    },
}

/// Protection on the way.
#[derive(Args, Debug)]
#[command(
    after_help = "Shown is what relayd would demand of each host of the destination with the settings of now: by the table \
    [relayd.tls], by DANE (TLSA records in signed zones), by MTA-STS. What it remembers of earlier policies is not known here. \
    The exit status is 3 if a host would not be tried, or did not live up to it."
)]
pub struct Tls {
    /// The domain.
    pub domain: String,
    /// Connect to each host, start TLS and see whether it is as demanded. No mail is sent.
    #[arg(long)]
    pub connect: bool,
}

/// The queue.
#[derive(Subcommand, Debug)]
pub enum Queue {
    /// List what waits.
    List(Filter),
    /// Show one message with its header and recipients.
    Show {
        /// Its id.
        id: String,
    },
    /// Try now.
    Retry(Filter),
    /// Do not try until released.
    Hold(Filter),
    /// End holding.
    Release {
        /// Which.
        #[command(flatten)]
        filter: Filter,
        /// Also send now what its sender wanted to be held until later.
        #[arg(long)]
        early: bool,
    },
    /// Remove for good.
    Remove {
        /// Which.
        #[command(flatten)]
        filter: Filter,
        /// Report the failure to the senders.
        #[arg(long)]
        bounce: bool,
    },
    /// Send another way from now on.
    Reroute {
        /// Which.
        #[command(flatten)]
        filter: Filter,
        /// A route of relayd's configuration, or host:port; the ordinary way if not given.
        #[arg(long)]
        route: Option<String>,
    },
    /// Tell which rule decides what of a message.
    Explain {
        /// Its id.
        id: String,
    },
    /// Figures of the queue.
    Stats,
    /// List the nodes that share the queue.
    Nodes {
        /// Forget this one, which does not come back: what it had in its hands is for the others.
        #[arg(long, value_name = "NAME")]
        forget: Option<String>,
    },
}

/// Which messages. All given conditions must hold.
#[derive(Args, Debug)]
pub struct Filter {
    /// Their ids.
    pub ids: Vec<String>,
    /// Only with this sender: an address, @domain, or <>.
    #[arg(long)]
    pub sender: Option<String>,
    /// Only with such a recipient: an address or @domain.
    #[arg(long)]
    pub recipient: Option<String>,
    /// Only held ones (true), or only others (false).
    #[arg(long)]
    pub held: Option<bool>,
    /// All messages; needed by commands that change when nothing else is given.
    #[arg(long)]
    pub all: bool,
}

/// Sending.
#[derive(Args, Debug)]
pub struct Send {
    /// The sender's address.
    #[arg(long, short = 'f')]
    pub from: Option<String>,
    /// The subject. With it the message is composed; without it a whole message is read from standard input.
    #[arg(long, short = 's')]
    pub subject: Option<String>,
    /// The text; standard input if not given.
    #[arg(long)]
    pub text: Option<String>,
    /// Take the recipients from To, Cc and Bcc, too (sendmail -t).
    #[arg(long, short = 't')]
    pub read_recipients: bool,
    /// The recipients.
    pub to: Vec<String>,
}

/// Configuration.
#[derive(Subcommand, Debug)]
pub enum Config {
    /// Say what is wrong with it.
    Check,
    /// Show what is in force after files and environment.
    Show {
        /// Only this section.
        section: Option<String>,
    },
    /// Print a file with every default explained.
    Example,
}

/// Judging.
#[derive(Args, Debug)]
pub struct Judge {
    /// The message; standard input if not given.
    pub file: Option<PathBuf>,
    /// The address of the client that brings it.
    #[arg(long, value_name = "ADDRESS")]
    pub client: std::net::IpAddr,
    /// What the client calls itself.
    #[arg(long, value_name = "NAME", default_value = "")]
    pub helo: String,
    /// MAIL FROM; nothing or `<>` for the null sender.
    #[arg(long, value_name = "ADDRESS", default_value = "")]
    pub sender: String,
    /// A recipient, whose domain may have a policy of its own. May be repeated.
    #[arg(long, value_name = "ADDRESS")]
    pub recipient: Vec<String>,
    /// The listener through which it comes; the first for other servers if not given.
    #[arg(long, value_name = "NAME")]
    pub listener: Option<String>,
    /// A name server to ask instead of the configured ones, address:port. May be repeated.
    #[arg(long, value_name = "ADDRESS")]
    pub nameserver: Vec<std::net::SocketAddr>,
    /// Seconds that it has for an answer, instead of the configured ones.
    #[arg(long, value_name = "SECONDS")]
    pub dns_timeout: Option<u64>,
}

/// Attempts to break out.
#[derive(Subcommand, Debug)]
pub enum Probe {
    /// Open a file for reading.
    Read {
        /// The file.
        path: String,
    },
    /// Open a file for writing, or create one in a folder.
    Write {
        /// The file or folder.
        path: String,
    },
    /// Connect by TCP.
    Connect {
        /// address:port.
        to: std::net::SocketAddr,
    },
    /// Listen on TCP.
    Listen {
        /// address:port.
        on: std::net::SocketAddr,
    },
    /// Run a program.
    Execute {
        /// The program.
        path: String,
    },
}

/// Reads `500M`, `10G`, `1048576`.
fn size(text: &str) -> Result<u64, String> {
    let upper = text.trim().to_ascii_uppercase();
    let upper = upper
        .strip_suffix("IB")
        .or(upper.strip_suffix('B'))
        .unwrap_or(&upper);
    let (digits, factor) = match upper.char_indices().last() {
        Some((at, 'K')) => (&upper[..at], 1 << 10),
        Some((at, 'M')) => (&upper[..at], 1 << 20),
        Some((at, 'G')) => (&upper[..at], 1 << 30),
        Some((at, 'T')) => (&upper[..at], 1_u64 << 40),
        _ => (upper, 1),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(factor))
        .ok_or_else(|| "expected a size such as 500M or 10G".to_owned())
}

/// Reads `30m`, `12h`, `7d` into seconds.
fn duration(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.char_indices().last() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3600),
        Some((at, 'd')) => (&text[..at], 86_400),
        _ => (text, 1),
    };
    digits
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(factor))
        .ok_or_else(|| "expected a duration such as 30m, 12h or 7d".to_owned())
}

/// Reads `read,submit` or `all`.
fn rights(text: &str) -> Result<types::Rights, String> {
    let mut bits = 0;
    for word in text.split(',') {
        bits |= match word.trim() {
            "read" => types::Rights::READ.0,
            "write" => types::Rights::WRITE.0,
            "submit" => types::Rights::SUBMIT.0,
            "all" => types::Rights::ALL.0,
            other => return Err(format!("{other:?} is none of read, write, submit, all")),
        };
    }
    Ok(types::Rights(bits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_and_durations_have_units() {
        assert_eq!(size("500M"), Ok(500 << 20));
        assert_eq!(size("10GiB"), Ok(10 << 30));
        assert_eq!(size("7"), Ok(7));
        assert!(size("ten").is_err());
        assert_eq!(duration("2h"), Ok(7200));
        assert!(duration("soon").is_err());
        assert_eq!(rights("read,submit"), Ok(types::Rights(5)));
        assert!(rights("fly").is_err());
    }
}
