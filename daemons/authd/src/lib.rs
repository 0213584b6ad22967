//! authd: the directory (domains, accounts, aliases, groups, mailing lists) and the only place that knows password hashes.
//!
//! Listeners bring it the SASL exchanges of their clients; it answers with a challenge, a refusal, or a grant: account, rights,
//! expiry, quota, sealed by keyd, which stored and queued demand before they act. smtpd and deliverd ask it where mail for
//! an address goes and who may send from it; these answers come from memory, and are void at once when an operator
//! changes the directory.
//!
//! - **Passwords**: new ones are hashed with argon2id, a few at a time, so that a storm of logins waits instead of filling the
//!   memory. The formats of other systems are read (`src/password`) and replaced at the next login. A password that was right is
//!   known for a minute, under a keyed hash of account, password and stored hash. SCRAM keys are made when a password is set,
//!   or at the first login with PLAIN of an account whose hash came from elsewhere: until then SCRAM fails for it.
//! - **Application passwords** have a label and rights of their own, are 24 random letters, and work with all mechanisms.
//! - **Access tokens** (OAUTHBEARER, XOAUTH2) are checked with the keys of the OpenID Connect provider that `authd.oauth` names,
//!   or by asking it. A token stands for the account that its claim names, with that account's rights, and never for another.
//! - **SASL**: PLAIN, LOGIN, SCRAM-SHA-256 and -PLUS. A listener that hands over channel bindings must offer -PLUS: a client
//!   that could bind and was not offered to is told of a downgrade.
//! - **Failed logins** are answered later and later; addresses and networks that go on are blocked for a while, and are then
//!   refused before anything is hashed. Blocks survive restarts, and are listed and lifted by `posthouse`.
//! - **Forwarding**: makes the addresses of ours under which other people's mail goes on (SRS, `src/srs.rs`), and finds back what
//!   comes to them.
//! - **Mailing lists**: their settings and members, what bounces say of these, and the tokens by which people join and leave by
//!   mail (`src/mailing.rs`), or by a link; the reverse-paths of personal copies (`src/personal.rs`).
//! - **Names**: domains are kept as A-labels; local parts are NFC and matched without regard to case.
//!
//! SECURITY: user `posthouse-auth`. No network, except to the SQL server and the token provider where one is configured. Writes its state directory
//! `directory`, and calls keyd (MacSign) only. Who may ask for what stands in ipc/topology.toml. No answer has a hash or a
//! key in it, and no log a password. Unknown accounts cost as much time as known ones, and have SCRAM salts that stay the same.
//!
//! STANDARDS: RFC 4422, 4616 (SASL, PLAIN), 5802, 7677 (SCRAM), 7628, 7662, 9068 (tokens), 5929, 9266 (channel bindings), 8265, 4013 (preparation of passwords),
//! 9106 (argon2), 5233 (subaddresses), 5321 4.5.1 and 2142 (postmaster), 5890 and 6531 (names).
//!
//! RECOVERY: the database is all there is: `directory.db` (SQLite, WAL) in the state directory, or the server that
//! `authd.database` names. After a kill, exchanges under way and the counts of recent failures are gone. While the server is away,
//! addresses that were asked for lately are still resolved; all else is temporarily refused, and mail waits at the sender.
//! A change of the section `[authd]` needs a restart.
#![forbid(unsafe_code)]

mod admin;
mod cache;
mod config;
mod directory;
mod exchange;
pub mod fuzz;
mod grant;
mod login;
mod mailing;
mod moderation;
mod name;
mod oauth;
mod password;
mod personal;
mod resolve;
mod sasl;
mod scram;
mod secret;
mod service;
mod srs;
mod throttle;
mod verify;

pub use config::{Blocking, Cleartext, Config, Hashing, OAuth, Scram};
pub use directory::schema::{COMPONENT, MIGRATIONS};
pub use password::HashError;
pub use service::Service;

use ipc::{Fault, FaultKind, Router};
use runtime::{Failure, Needs, Setting, Start};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use tokio::time::MissedTickBehavior;
use types::Role;

/// What it needs besides its state directory: the SQL server, or the directory of a SQLite file elsewhere.
///
/// # Errors
/// Settings that cannot be.
pub fn needs(config: &Config, _: &Setting) -> Result<Needs, Failure> {
    admin::check(config)?;
    oauth::check(&config.oauth).map_err(Failure::new)?;
    let mut needs = Needs {
        servers: config.oauth.enabled(),
        ..Needs::default()
    };
    needs.read.extend(config.oauth.client_secret_file.clone());
    match sql::sqlite_file(&config.database) {
        Some(file) => needs.write.extend(file.parent().map(PathBuf::from)),
        None => needs.servers |= !config.database.is_empty(),
    }
    Ok(needs)
}

/// How often blocks are read again.
const REFRESH: Duration = Duration::from_secs(60);

/// Serves until it is told to stop.
///
/// # Errors
/// The database cannot be used, or settings are impossible.
pub async fn run(start: Start<Config>) -> Result<(), Failure> {
    let mut config = start.config().clone();
    let reports: types::ReportAddresses = start.section(Role::Reportd.name())?;
    config.reports = reports.patterns().map_err(Failure::new)?;
    config.hostname = start.suite().hostname.to_ascii_lowercase();
    let mut stopping = start.stopping();
    let url = match config.database.as_str() {
        "" => format!(
            "sqlite://{}",
            start.state_dir().join("directory.db").display()
        ),
        url => url.to_owned(),
    };
    let options = sql::Options {
        max_connections: config.connections,
        // Small: what is asked often is in our own memory.
        cache_kib: 1024,
        mmap_mib: 64,
        ..sql::Options::writer()
    };
    let db = sql::Db::open(&url, &options)
        .await
        .map_err(|error| Failure::new(format!("the directory database: {error}")))?;
    let state = start.state_dir();
    let service = loop {
        let seal = grant::by_keyd(start.client(Role::Keyd), types::Grant::PURPOSE);
        let srs = grant::by_keyd(start.client(Role::Keyd), srs::PURPOSE);
        let lists = grant::by_keyd(start.client(Role::Keyd), mailing::PURPOSE);
        match Service::open(db.clone(), &state, config.clone(), seal).await {
            Ok(service) => {
                break service.with_srs(srs, config.srs.clone()).with_lists(lists);
            }
            // A server that comes up after us.
            Err(fault) if fault.kind == FaultKind::Temporary => {
                tracing::warn!(%fault, "the directory database is not there yet");
            }
            Err(fault) => return Err(Failure::new(fault.text)),
        }
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => return Ok(()),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    };
    let counted = service.clone();
    start.fact("exchanges", move || counted.logins.under_way().to_string());
    let server = start.serve(service.router(Router::new(Role::Authd)));
    let mut refresh = tokio::time::interval(REFRESH);
    refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => break,
            _ = refresh.tick() => service.refresh().await,
        }
    }
    // Calls under way are answered first.
    let _ = server.await;
    db.close().await;
    Ok(())
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |time| time.as_secs())
}

impl From<HashError> for Fault {
    fn from(error: HashError) -> Self {
        Self::new(FaultKind::Invalid, error.to_string())
    }
}
