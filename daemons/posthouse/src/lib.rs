//! posthouse: the command line tool, and every daemon in one program.
//!
//! `posthouse run ROLE` is a daemon, `posthouse up` supervises all of them, everything else asks the running ones over their
//! sockets. It serves nothing.
//!
//! # SECURITY
//! Runs as whoever calls it. Daemons take its calls when it runs as root, or as their own user when they all share one.
//! Passwords are read from the terminal, standard input or a file, never from the command line. It changes mail through
//! stored alone, with a grant that authd gives to it; export, backup and script read the store's tables themselves. A backup
//! has password hashes and private keys: its folder is made 0700. Restore writes the tables while all daemons are stopped.
//!
//! # STANDARDS
//! Exit status as sysexits does not have it: see `posthouse --help`.
//!
//! # RECOVERY
//! `up` starts a daemon that ended again, and its children end with it. import, export, backup and restore may be killed at any
//! time, and go on when they are called again: what they have done stands in the import's state file, in the unfinished
//! folder of the export, in the packs of the backup, in `restore.json` of the state directory.
#![forbid(unsafe_code)]

mod cli;
mod command;
mod connect;
mod demo;
mod failure;
mod mailstore;
mod output;
mod password;
mod progress;
#[cfg(test)]
mod scratch;
mod time;

pub use command::import::fuzz;

use clap::Parser;
use cli::{Cli, Command};
use connect::{Place, Suite};
use failure::Failure;
use std::process::ExitCode;

/// The whole program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("posthouse: {failure}");
            failure.into()
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let json = cli.json;
    let up_dir = matches!(cli.command, Command::Up(_)) && cli.config.is_none();
    let dir = cli.dir.or_else(|| up_dir.then(|| "var".into()));
    let place = Place::find(cli.config, dir)?;
    // What needs no daemon, or becomes one, before there is a reactor.
    match cli.command {
        Command::Run { role } => return command::run::run(&place, &role),
        Command::Config(config) => command::config::run(&place, json, config)?,
        Command::Completions { shell } => command::man::completions(shell),
        Command::Man { out } => command::man::pages(&out)?,
        other => {
            let reactor = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|error| Failure::new(error.to_string()))?;
            reactor.block_on(ask(&place, json, other))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn ask(place: &Place, json: bool, command: Command) -> Result<(), Failure> {
    if let Command::Up(options) = &command {
        command::up::write_config(place)?;
        return command::up::run(place, options).await;
    }
    if let Command::Check { offline } = command {
        return command::check::run(place, json, offline).await;
    }
    if let Command::Tls(options) = command {
        return command::tls::run(place, json, options).await;
    }
    if let Command::Verify(options) = command {
        return command::backup::verify(place, json, options).await;
    }
    if let Command::Schema(command) = command {
        return command::schema::run(place, json, command).await;
    }
    if let Command::Restore(options) = command {
        return command::backup::restore(place, json, options).await;
    }
    if let Command::Judge(options) = command {
        return command::judge::run(place, json, options).await;
    }
    let suite = Suite::open(place, json)?;
    match command {
        Command::Script(command) => {
            let store = mailstore::MailStore::of(place)?;
            let deliverd: deliverd::Config = place
                .document()?
                .section("deliverd")
                .map_err(|error| Failure::new(error.to_string()))?;
            command::script::run(&suite, &store, &deliverd.sieve.limits, command).await
        }
        Command::Import(command) => command::import::run(&suite, place, command).await,
        Command::Export(command) => command::export::run(&suite, place, command).await,
        Command::Backup(options) => command::backup::back_up(&suite, place, options).await,
        Command::Fsck(options) => command::fsck::run(&suite, options).await,
        Command::Index(command) => command::index::run(&suite, command).await,
        Command::Hook(command) => command::hook::run(&suite, command).await,
        Command::Domain(command) => command::domain::run(&suite, command).await,
        Command::Account(command) => command::account::run(&suite, command).await,
        Command::Alias(command) => command::alias::run(&suite, command).await,
        Command::Group(command) => command::group::run(&suite, command).await,
        Command::List(command) => command::list::run(&suite, command).await,
        Command::AppPassword(command) => command::app_password::run(&suite, command).await,
        Command::Limit(command) => command::limit::run(&suite, command).await,
        Command::Greylist(command) => command::greylist::run(&suite, command).await,
        Command::Block(command) => command::block::run(&suite, command).await,
        Command::Dkim(command) => command::dkim::run(&suite, command).await,
        Command::Certificate(command) => command::certificate::run(&suite, command).await,
        Command::Dns(command) => command::dns::run(&suite, place, command).await,
        Command::Report(command) => command::report::run(&suite, command).await,
        Command::Queue(command) => command::queue::run(&suite, command).await,
        Command::Send(options) => command::send::run(&suite, options).await,
        Command::Status { security } => command::status::run(&suite, security).await,
        Command::Metrics => command::status::metrics(&suite).await,
        Command::Reload => command::status::reload(&suite).await,
        Command::Probe { role, attempt } => command::probe::run(&suite, &role, attempt).await,
        Command::Run { .. }
        | Command::Up(_)
        | Command::Check { .. }
        | Command::Tls(_)
        | Command::Judge(_)
        | Command::Verify(_)
        | Command::Restore(_)
        | Command::Schema(_)
        | Command::Config(_)
        | Command::Completions { .. }
        | Command::Man { .. } => Ok(()),
    }
}
