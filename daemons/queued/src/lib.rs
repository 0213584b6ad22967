//! queued: takes responsibility for messages, and sees to it that they arrive.
//!
//! A listener reserves an id, writes it into Received, and commits the message under it. The commit is a record in the journal
//! ([`journal`]); all commits that arrive while the disk is syncing share the next sync. After the answer the message survives
//! power loss: that is what smtpd's 250 stands on.
//!
//! - **Here** recipients go to deliverd at once, many messages at a time. What it leaves to do (redirects) is in the journal
//!   before the recipient is freed.
//! - **Other hosts**' recipients go to relayd, one message and destination at a time, with a number of connections for each
//!   destination that starts small, grows by success and shrinks by failure. A dead destination is probed by one message.
//! - **What fails for now** moves to the queue table (SQLite in the state directory, or a shared PostgreSQL or MySQL), so that
//!   the journal's segments can be reused. Only what is due is loaded, destination by destination: neither memory nor work grows
//!   with the backlog.
//! - **Rules** send certain mail another way, by another schedule or at another speed. Where they change how a destination is
//!   spoken to, its mail stands in a queue of its own (`example.net/bulk`).
//! - **Several nodes** may share the table: each works on what bears its lease, and what it settles counts only as long as it does.
//!   With `ack = "sql"` a message is in the shared table before it is acknowledged, and needs this node's disk no more.
//! - **Mail for later** (FUTURERELEASE) is in the queue table until its time, and what is more urgent (MT-PRIORITY) goes first.
//! - **Reports that reportd has due** are fetched, committed as messages of our own or posted by relayd, and then settled with it.
//! - **Policies of MTA-STS** that relayd has found are remembered in the queue's database, and go along with the next message to their domain.
//! - **Posts that wait for the owners of a mailing list** are held in the queue table until one of them decides, or their time is over.
//! - **Senders are told** of failures, of a delay, and of success if they asked (DSN).
//!
//! It holds up before it breaks: when the disk runs low, or too much is queued, or the disk is too slow, a commit is Busy, which
//! smtpd answers with 452.
//!
//! SECURITY: user `posthouse-queue`; no network but that to a shared queue table; writes its state directory `queue` only.
//! Serves smtpd (ReserveIds, OpenSpool, ReadSpool, CloseSpool, Commit) and posthouse (the same, and QueueList, QueueShow, QueueRetry,
//! QueueHold, QueueRelease, QueueRemove, QueueReroute, QueueStats, QueueExplain, QueueNodes, QueueForget, QueueDecide). Calls deliverd, relayd, keyd
//! and reportd (ClaimReport, SettleReport). A message with recipients
//! elsewhere needs a right: a grant whose seal keyd confirms, a configured network, or the operator; so a hijacked listener is
//! no open relay. A recipient accepted as local that is not is relayed only with such a right.
//!
//! STANDARDS: RFC 5321 4.2.5, 4.5.4, 4.5.5, 6.1, 6.3; RFC 3461, 3462, 3463, 3464, 6533 (DSN); RFC 8689 5 (reports on what requires TLS); RFC 3834 5 (Auto-Submitted);
//! RFC 4865 (FUTURERELEASE), 6710 (MT-PRIORITY), 2852 (DELIVERBY).
//!
//! RECOVERY: killed at any moment, it loses nothing that it acknowledged. The journal is read at start and what is in it is
//! delivered again; deliverd takes nothing twice. What another host took just before may be sent to it twice (RFC 1047). The
//! queue table's word counts for messages that are in both. What a node that shares the table had leased is another's when the lease
//! is over. Files in the spool that belong to no message are removed. A damaged
//! journal segment is reported and kept as `journal/*.damaged`.
#![forbid(unsafe_code)]

mod bodies;
mod by_priority;
mod config;
mod control;
mod copies;
mod core;
mod counters;
mod destination;
mod distribute;
mod explain;
mod ids;
mod lanes;
mod loader;
mod local;
mod message;
mod moderation;
mod node;
mod pace;
mod peers;
mod policies;
mod pulse;
mod record;
mod redact;
mod relays;
mod replay;
mod report;
mod report_mail;
mod rights;
mod rule;
mod schema;
mod seen;
mod service;
mod settle;
mod spool;
mod table;
mod table_change;
mod table_control;
mod table_writer;
mod waiting;
mod writer;

pub use config::{Ack, Config};
pub use core::Core;
pub use pace::Rate;
pub use peers::{Daemons, Peers};
pub use rule::RuleConfig;

use ipc::ClientOptions;
use runtime::{Failure, Needs, Setting, Start};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use types::Role;

/// What it needs besides what topology gives it: a way to the server of a shared queue table.
///
/// # Errors
/// A rule that makes no sense.
pub fn needs(config: &Config, _setting: &Setting) -> Result<Needs, Failure> {
    rule::Rules::new(&config.rule).map_err(Failure::new)?;
    if config.lease < 2 {
        return Err(Failure::new("queued.lease is at least 2 seconds"));
    }
    if config.node.is_empty() || config.node.len() > 200 {
        return Err(Failure::new("queued.node is a name of 1 to 200 octets"));
    }
    Ok(Needs {
        servers: config.database != "sqlite" && !config.database.starts_with("sqlite:"),
        ..Needs::default()
    })
}

/// Whether the rules refer to what is there: the names of relayd's routes, and of smtpd's listeners.
///
/// # Errors
/// A rule that makes no sense, or refers to nothing.
pub fn check_rules(
    config: &Config,
    routes: &[String],
    listeners: &[String],
) -> Result<(), Failure> {
    rule::Rules::new(&config.rule)
        .and_then(|rules| rules.refer_to(routes, listeners))
        .map_err(Failure::new)
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// The state directory or the configuration cannot be used.
pub async fn run(start: Start<Config>) -> Result<(), Failure> {
    let config = start.config().clone();
    let window = |count: usize| ClientOptions {
        window: count.max(1),
        ..ClientOptions::default()
    };
    let peers = Daemons {
        deliverd: start.client_with(Role::Deliverd, window(config.local_concurrency)),
        relayd: start.client_with(Role::Relayd, window(config.remote_concurrency)),
        keyd: start.client(Role::Keyd),
        deliver_timeout: Duration::from_secs(config.deliver_timeout),
        relay_timeout: Duration::from_secs(config.relay_timeout),
    };
    let relayd = peers.relayd.clone();
    let core = Core::open(
        config,
        &start.state_dir(),
        &start.suite().hostname,
        Arc::new(peers),
    )
    .map_err(Failure::new)?;
    facts(&start, &core);
    core.start();
    if start.enabled(Role::Reportd) {
        let reportd = start.client(Role::Reportd);
        tokio::spawn(report_mail::run(Arc::clone(&core), reportd, relayd));
    }
    let serving = start.serve(service::router(&core));
    let ended = serving.await;
    core.close().await;
    ended.map_err(|_| Failure::new("serving failed; the log says more"))
}

/// What `posthouse status` shows.
fn facts(start: &Start<Config>, core: &Arc<Core>) {
    type Figure = fn(&Core) -> u64;
    let figures: [(&str, Figure); 14] = [
        ("accepted", |core| core.counters.accepted.get()),
        ("refused", |core| core.counters.refused.get()),
        ("delivered", |core| core.counters.delivered.get()),
        ("relayed", |core| core.counters.relayed.get()),
        ("deferred", |core| core.counters.deferred.get()),
        ("failed", |core| core.counters.failed.get()),
        ("reports", |core| core.counters.reports.get()),
        ("in_journal", |core| core.fresh().len() as u64),
        ("in_table", |core| core.table.count.load(Ordering::Relaxed)),
        ("loaded", |core| core.loaded.load(Ordering::Relaxed)),
        ("memory_octets", Core::memory),
        ("journal_octets", |core| core.writer.bytes()),
        ("journal_syncs", |core| core.writer.counts().0),
        ("journal_records", |core| core.writer.counts().1),
    ];
    for (name, figure) in figures {
        let core = Arc::downgrade(core);
        start.fact(name, move || {
            core.upgrade()
                .map_or_else(String::new, |core| figure(&core).to_string())
        });
    }
}

#[cfg(test)]
mod tests;
