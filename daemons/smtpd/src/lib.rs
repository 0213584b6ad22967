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
//! Rules may rewrite senders and recipients on arrival, and add recipients that nobody sees (`[[smtpd.rewrite]]`, `[[smtpd.bcc]]`).
//!
//! SECURITY: user `posthouse-smtp`. Listens, asks name servers (UDP, and TCP to their ports) and connects to nobody else, writes no
//! file, reads none but its configuration and resolv.conf. Calls authd (logins, recipients), keyd (TLS signatures) and queued
//! (commits). It sees the passwords of PLAIN and LOGIN for as long as
//! authd takes to check them; SCRAM never shows them.
//!
//! STANDARDS: RFC 5321 (SMTP), 6409 (submission), 8314 (implicit TLS), 2033 (LMTP), 1870 (SIZE), 2034 and 3463 (enhanced
//! codes), 2920 (PIPELINING), 3030 (CHUNKING, BINARYMIME), 3207 (STARTTLS), 3461 (DSN), 4954 (AUTH), 6152 (8BITMIME), 6531
//! (SMTPUTF8), 8689 (REQUIRETLS), 9422 (LIMITS), 4865 (FUTURERELEASE), 6710 (MT-PRIORITY), 2852 (DELIVERBY); the PROXY
//! protocol, versions 1 and 2; 7208 (SPF), 6376, 8301 and 8463 (DKIM), 7489 and 9989 (DMARC), 8617 (ARC), 8601
//! (Authentication-Results), 7372 (codes for them).
//!
//! RECOVERY: sessions end with the process. What was not acknowledged is the client's to send again; a commit whose answer was
//! lost is made again under the same id, and queued takes it once.
#![forbid(unsafe_code)]

mod backend;
mod checks;
mod clients;
mod config;
mod figures;
mod header;
mod listener;
mod peers;
mod recipients;
mod rewriting;
mod session;
mod trace_header;

pub use checks::{
    Action, ChecksConfig, DmarcAction, Opinion, Preset, Question, Rule, Temporary, opinion,
};
pub use config::{
    Config, Limits, LineEndingPolicy, ListenerConfig, ListenerRole, TermsConfig, Timeouts, TlsMode,
};
pub use rewriting::{BccRule, RewriteRule, Which};

use clients::Clients;
use listener::{Networks, Serving};
use peers::Peers;
use runtime::{Failure, Listen, Needs, Setting, Start};
use session::{Door, Policy, Service};
use std::sync::Arc;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use types::{Address, Role};

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
        dns_ports: config.checks.dns_ports(),
        ..Needs::default()
    })
}

/// What sessions are served by under this configuration. Listeners are not part of it: those stay as they are.
fn serving(
    config: &Config,
    suite: &str,
    backend: Peers,
    clients: Arc<Clients>,
    tls: Option<TlsAcceptor>,
) -> Result<Serving<Peers>, Failure> {
    let hostname = config.hostname.as_deref().unwrap_or(suite).to_owned();
    let postmaster = Address::new("postmaster", &hostname)
        .map_err(|error| Failure::new(format!("suite.hostname {hostname:?}: {error}")))?;
    let checks = checks::Checks::new(&config.checks)?;
    let rewriting = rewriting::Rewriting::new(config)?.map(Arc::new);
    let authserv_id = match config.checks.authserv_id.as_str() {
        "" => hostname.as_str(),
        own => own,
    };
    let authserv_id = authserv_id.into();
    let service = Service {
        backend,
        policy: Policy {
            hostname,
            postmaster,
            limits: config.limits.clone(),
            timeouts: config.timeouts.clone(),
            line_endings: config.line_endings,
            check_from: config.check_from,
            auth_without_tls: config.auth_without_tls,
            mechanisms: config.mechanisms.clone(),
            authserv_id,
            checks,
            terms: config.terms.clone(),
            rewriting,
        },
        clients,
        confirmed: recipients::ConfirmedRecipients::default(),
        figures: figures::Figures::default(),
        tls,
    };
    let networks = Networks {
        proxy: config.proxy_networks.clone(),
        trusted: config.trusted_networks.clone(),
        relay: config.relay_networks.clone(),
    };
    Ok(Serving {
        service: Arc::new(service),
        networks: Arc::new(networks),
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

/// Runs until it is told to stop and the sessions have ended.
///
/// # Errors
/// A host name that is no domain name; TLS that cannot be set up.
pub async fn run(mut start: Start<Config>) -> Result<(), Failure> {
    let config = start.config().clone();
    let suite = start.suite().hostname.clone();
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
    let back_ends = (start.client(Role::Authd), start.client(Role::Queued));
    let seats = Arc::clone(&clients);
    let prepare = move |config: &Config, suite: &str| {
        let judge = judge(&config.checks, config.hostname.as_deref().unwrap_or(suite))?;
        let peers = Peers::new(back_ends.0.clone(), back_ends.1.clone(), judge);
        serving(config, suite, peers, Arc::clone(&seats), tls.clone()).map(Arc::new)
    };
    let (change, serving) = watch::channel(prepare(&config, &suite)?);
    let mut documents = start.documents();
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
            let new = document
                .section(Role::Smtpd.name())
                .and_then(|config: Config| prepare(&config, &document.suite()?.hostname));
            match new {
                Ok(new) => drop(change.send_replace(new)),
                Err(error) => tracing::error!(%error, "the section [smtpd] stays as it was"),
            }
        }
    });
    while doors.join_next().await.is_some() {}
    let _ = served.await;
    Ok(())
}
