//! limitd: counts what each address, sender, recipient and account has used: rates, quotas, greylisting.
//!
//! smtpd asks it, at each step of a client, whether the client may go on, and it answers from memory.
//!
//! - **Rules** (`[[limitd.rule]]`) count connections, messages, recipients, octets or unknown recipients, by any key: client
//!   address or network, EHLO name, sender, recipient, their domains, account, listener. What is over the limit is told to come
//!   again, refused, or logged. A message is counted when it is taken, and only then: what a rule or another check stops costs nothing of
//!   a quota.
//! - **Windows** slide (`src/window.rs`): in no period, wherever it begins, is more let through than the limit says. Those of an hour and
//!   more are written to the database every two seconds and read when limitd starts; shorter ones live in memory.
//! - **Memory** is bounded: each limit has a table of so many keys, and forgets the ones that have used the least of it
//!   (`src/table.rs`).
//! - **Greylisting** (`[limitd.greylist]`) asks a network, sender and recipient that were not seen together to come again. What it
//!   knows is in the database, which several hosts may share.
//!
//! SECURITY: user `posthouse-limit`. No network, except to the SQL server where one is configured. Writes its state directory `limits`; calls
//! nobody. It knows who wrote to whom lately (greylisting's rows), and no content.
//!
//! STANDARDS: RFC 6647 (greylisting), 5321 4.5.3.2 and 4.5.4 (clients try again), 3463 (enhanced codes).
//!
//! RECOVERY: after a kill, the counts of the last seconds and of short periods are gone; quotas and greylisting are read from the
//! database again. While limitd is away smtpd does as `limitd.away` says; while its database is away it goes on from memory, and
//! writes when it can. Rules and greylisting are taken over on HUP; the database needs a restart.
#![forbid(unsafe_code)]

mod config;
mod counts;
pub mod fuzz;
mod grey;
mod pattern;
mod rate;
mod rule;
mod service;
mod store;
mod table;
#[cfg(test)]
mod tests;
mod window;

pub use config::{Action, Away, Config, Counted, Greylist, KeyPart, RuleConfig, SpfPass};
pub use rate::{Rate, Rates};
pub use store::{COMPONENT, MIGRATIONS};

use ipc::FaultKind;
use runtime::{Failure, Needs, Setting, Start};
use service::Limits;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use store::Store;
use tokio::time::MissedTickBehavior;
use types::Role;

/// How often what does not count any more is forgotten.
const SWEEP: Duration = Duration::from_secs(60);

/// What it needs besides its state directory: the SQL server, or the directory of a SQLite file elsewhere.
///
/// # Errors
/// A rule or a setting that makes no sense.
pub fn needs(config: &Config, _: &Setting) -> Result<Needs, Failure> {
    service::check(config).map_err(Failure::new)?;
    let mut needs = Needs::default();
    match sql::sqlite_file(&config.database) {
        Some(file) => needs.write.extend(file.parent().map(PathBuf::from)),
        None => needs.servers = !config.database.is_empty(),
    }
    Ok(needs)
}

/// Whether the listeners that rules and greylisting name are there.
///
/// # Errors
/// One is not.
pub fn check_listeners(config: &Config, listeners: &[String]) -> Result<(), Failure> {
    let named = config
        .rule
        .iter()
        .flat_map(|rule| &rule.listener)
        .chain(&config.greylist.listener);
    match named.into_iter().find(|name| !listeners.contains(name)) {
        Some(name) => Err(Failure::new(format!(
            "limitd: smtpd has no listener {name:?}"
        ))),
        None => Ok(()),
    }
}

/// Runs until it is told to stop.
///
/// # Errors
/// The database cannot be used, or settings are impossible.
pub async fn run(start: Start<Config>) -> Result<(), Failure> {
    let config = start.config().clone();
    let mut stopping = start.stopping();
    let Some(limits) = open(&start, &config).await? else {
        return Ok(());
    };
    let limits = Arc::new(limits);
    let [keys, greys] = [Arc::clone(&limits), Arc::clone(&limits)];
    start.fact("keys", move || keys.sizes().0.to_string());
    start.fact("greylisted", move || greys.sizes().1.to_string());
    let mut documents = start.documents();
    let server = start.serve(limits.router(ipc::Router::new(Role::Limitd)));
    let mut flush = tokio::time::interval(Duration::from_millis(config.write_ms.max(100)));
    let mut sweep = tokio::time::interval(SWEEP);
    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => break,
            _ = flush.tick() => limits.flush().await,
            _ = sweep.tick() => limits.sweep().await,
            Ok(()) = documents.changed() => {
                let document = Arc::clone(&documents.borrow_and_update());
                let new = document.section::<Config>(Role::Limitd.name()).map_err(|error| error.to_string());
                if let Err(error) = new.and_then(|new| limits.reload(&new)) {
                    tracing::error!(%error, "the section [limitd] stays as it was");
                }
            }
        }
    }
    // Calls under way are answered first.
    let _ = server.await;
    limits.flush().await;
    limits.close().await;
    Ok(())
}

/// Opens the database, and waits for a server that comes up after us; `None` if it is told to stop meanwhile.
async fn open(start: &Start<Config>, config: &Config) -> Result<Option<Limits>, Failure> {
    let url = config.url(&start.state_dir());
    let options = sql::Options {
        max_connections: config.connections,
        // Small: what is asked often is in our own memory.
        cache_kib: 1024,
        mmap_mib: 64,
        ..sql::Options::writer()
    };
    let db = sql::Db::open(&url, &options)
        .await
        .map_err(|error| Failure::new(format!("the database of limits: {error}")))?;
    let store = Store::new(db, &start.suite().hostname);
    let mut stopping = start.stopping();
    loop {
        match Limits::open(config, store.clone()).await {
            Ok(limits) => return Ok(Some(limits)),
            Err(fault) if fault.kind == FaultKind::Temporary => {
                tracing::warn!(%fault, "the database of limits is not there yet");
            }
            Err(fault) => return Err(Failure::new(fault.text)),
        }
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => return Ok(None),
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}
