//! smtpd: speaks SMTP, submission and LMTP with the network, and commits what it takes to queued.
//!
//! Recipients are verified by authd while the client waits; a message is acknowledged when queued has synced it. Up to
//! 64 KiB a message goes in the commit itself, a larger one into a file which queued opened. smtpd keeps nothing.
//!
//! | role of a listener | for | takes mail |
//! |---|---|---|
//! | `mx` | other servers | to our domains (and for `relay_networks` to all) |
//! | `submission` | our users | to everybody, after a login, under their own addresses |
//! | `lmtp` | other software here | to our domains, with one answer a recipient |
//!
//! What comes to `mx` listeners from strangers is checked for its sender: SPF, DKIM, DMARC, ARC and the client's name, whose
//! results it writes into Authentication-Results; fields that claim to be that are taken out (`[smtpd.checks]`).
//!
//! Strangers are also looked up in the lists of `[smtpd.dnslists]`, have to wait for their turn (`[smtpd.early]`), and everybody is weighed by limitd
//! where its rules and greylisting need it; while that is away, mail goes on or waits as `limitd.away` says.
//!
//! Rules may rewrite senders and recipients on arrival, and add recipients that nobody sees (`[[smtpd.rewrite]]`, `[[smtpd.bcc]]`).
//!
//! SECURITY: user `posthouse-smtp`. Listens, asks name servers (UDP, and TCP to their ports) and connects to nobody else, writes no
//! file, reads none but its configuration and resolv.conf. Calls authd (logins, recipients), keyd (TLS signatures), queued
//! (commits), limitd (Weigh: limits), reportd (Judged: what the checks found, later and never waited for) and, where filters are
//! configured, hookd (what they say and change). It sees the passwords of PLAIN and LOGIN for as long as
//! authd takes to check them; SCRAM never shows them.
//!
//! STANDARDS: RFC 5321 (SMTP), 6409 (submission), 8314 (implicit TLS), 2033 (LMTP), 1870 (SIZE), 2034 and 3463 (enhanced
//! codes), 2920 (PIPELINING), 3030 (CHUNKING, BINARYMIME), 3207 (STARTTLS), 3461 (DSN), 4954 (AUTH), 6152 (8BITMIME), 6531
//! (SMTPUTF8), 8689 (REQUIRETLS), 9422 (LIMITS), 4865 (FUTURERELEASE), 6710 (MT-PRIORITY), 2852 (DELIVERBY); the PROXY
//! protocol, versions 1 and 2; 7208 (SPF), 6376, 8301 and 8463 (DKIM), 7489 and 9989 (DMARC), 8617 (ARC), 8601
//! (Authentication-Results), 7372 (codes for them), 5782 (lists in DNS).
//!
//! RECOVERY: sessions end with the process. What was not acknowledged is the client's to send again; a commit whose answer was
//! lost is made again under the same id, and queued takes it once.
#![forbid(unsafe_code)]

mod backend;
mod checks;
mod clients;
mod config;
mod dnslist;
mod early;
mod figures;
mod header;
mod hooks;
mod limitd;
mod listener;
mod peers;
mod recipients;
mod reports;
mod rewriting;
mod serving;
mod session;
mod trace_header;

pub use checks::{
    Action, ChecksConfig, DmarcAction, Opinion, Preset, Question, Rule, Temporary, opinion,
};
pub use config::{
    Config, EarlyAction, EarlyConfig, Limits, LineEndingPolicy, ListenerConfig, ListenerRole,
    TermsConfig, Timeouts, TlsMode,
};
pub use dnslist::{Ask, DnsList, DnsLists, DnsListsConfig, Kind, ListAction, ListStage, When};
pub use rewriting::{BccRule, RewriteRule, Which};

use clients::Clients;
use runtime::{Failure, Listen, Needs, Setting, Start};
use serving::Surroundings;
use session::Door;
use std::sync::Arc;
use tokio::sync::watch;
use types::Role;

/// What smtpd needs from its surroundings: its listeners.
///
/// # Errors
/// A listener that makes no sense.
pub fn needs(config: &Config, _: &Setting) -> Result<Needs, Failure> {
    let mut names: Vec<&str> = Vec::new();
    for listener in &config.listener {
        if names.contains(&listener.name.as_str()) {
            return Err(Failure::new(format!(
                "smtpd.listener: there are two named {:?}",
                listener.name
            )));
        }
        names.push(&listener.name);
        if listener.role == ListenerRole::Submission
            && listener.tls == TlsMode::None
            && !config.auth_without_tls
        {
            let name = &listener.name;
            return Err(Failure::new(format!(
                "smtpd.listener {name:?}: nobody could log in without TLS; set tls = \"starttls\" or \"implicit\""
            )));
        }
    }
    for rule in &config.checks.rule {
        if let Some(name) = rule
            .listeners
            .iter()
            .find(|name| !names.contains(&name.as_str()))
        {
            return Err(Failure::new(format!(
                "smtpd.checks.rule: there is no listener {name:?}"
            )));
        }
    }
    if let Some(fault) = config.dnslists.fault() {
        return Err(Failure::new(format!("smtpd.dnslists: {fault}")));
    }
    rewriting::Rewriting::new(config)?;
    if let Some(fault) = config.terms.fault() {
        return Err(Failure::new(format!("smtpd.terms: {fault}")));
    }
    let listen = config
        .listener
        .iter()
        .map(|listener| Listen {
            name: listener.name.clone(),
            address: listener.address.clone(),
        })
        .collect();
    Ok(Needs {
        listen,
        dns_ports: config.checks.dns_ports(!config.dnslists.list.is_empty()),
        ..Needs::default()
    })
}

/// Who asks DNS for the checks; `None` if nothing is checked.
///
/// # Errors
/// No resolver can be made of these settings.
pub fn judge(checks: &ChecksConfig, hostname: &str) -> Result<Option<mailauth::Judge>, Failure> {
    if !checks.enabled {
        return Ok(None);
    }
    mailauth::Judge::new(&checks.nameservers, checks.limits.clone(), hostname)
        .map(Some)
        .map_err(|error| Failure::new(format!("smtpd.checks.nameservers: {error}")))
}

/// Who asks lists in DNS; `None` if there are none.
///
/// # Errors
/// No resolver can be made of these settings.
pub fn lists(config: &Config) -> Result<Option<DnsLists>, Failure> {
    DnsLists::new(&config.dnslists, &config.checks.nameservers)
        .map_err(|error| Failure::new(format!("smtpd.dnslists: {error}")))
}

/// Runs until it is told to stop and the sessions have ended.
///
/// # Errors
/// A host name that is no domain name; TLS that cannot be set up.
pub async fn run(mut start: Start<Config>) -> Result<(), Failure> {
    let config = start.config().clone();
    let listeners = start.take_listeners();
    let wants_tls = config
        .listener
        .iter()
        .any(|listener| listener.tls != TlsMode::None);
    let tls = if wants_tls {
        let signer = ipc::blocking::Client::new(Role::Smtpd, Role::Keyd, start.socket(Role::Keyd));
        let certificates = tls::Certificates::from_keyd(start.client(Role::Keyd), signer).await;
        Some(
            certificates
                .acceptor()
                .map_err(|error| Failure::new(format!("TLS: {error}")))?,
        )
    } else {
        None
    };
    let clients = Arc::new(Clients::default());
    // A connection is only kept to a daemon that runs.
    let running = |role: Role| start.enabled(role).then(|| start.client(role));
    let surroundings = Surroundings {
        authd: start.client(Role::Authd),
        queued: start.client(Role::Queued),
        limitd: running(Role::Limitd),
        hookd: running(Role::Hookd),
        reports: reports::start(&start)?,
        clients: Arc::clone(&clients),
        tls,
    };
    let mut documents = start.documents();
    let first = surroundings.serving(&documents.borrow())?;
    let (change, serving) = watch::channel(first);
    start.fact("connections", move || clients.connections().to_string());
    let stopping = start.stopping();
    let served = start.serve(ipc::Router::new(Role::Smtpd));
    let mut doors = tokio::task::JoinSet::new();
    for (listener, settings) in listeners.into_iter().zip(&config.listener) {
        let door = Arc::new(Door {
            name: settings.name.clone(),
            role: settings.role,
            tls: settings.tls,
            auth: settings.role == ListenerRole::Submission,
        });
        doors.spawn(listener::accept(
            listener,
            door,
            serving.clone(),
            stopping.clone(),
        ));
    }
    tokio::spawn(async move {
        while documents.changed().await.is_ok() {
            let document = Arc::clone(&documents.borrow_and_update());
            match surroundings.serving(&document) {
                Ok(new) => drop(change.send_replace(new)),
                Err(error) => tracing::error!(%error, "the section [smtpd] stays as it was"),
            }
        }
    });
    while doors.join_next().await.is_some() {}
    let _ = served.await;
    Ok(())
}
