//! certd: gets certificates from an authority by ACME, and renews them in time.
//!
//! For the names of the configuration it orders certificates, answers the authority's challenges (HTTP-01, TLS-ALPN-01, DNS-01, DNS-PERSIST-01), and gives
//! the chains to keyd, which uses them at once: listeners show them from the next handshake on. It renews when the authority suggests to
//! (ARI), or after two thirds of their life. Without `certd.enabled` it does nothing of that.
//!
//! For the domains that `certd.dkim` names it changes DKIM keys: has keyd make one, publishes its record, waits until every authoritative
//! server shows it, has it sign and the old one retire, and removes the old record when mail on its way has arrived.
//!
//! Where httpd runs, that has the port for HTTP-01 and asks here what to say; and each of our domains gets certificates for what httpd
//! serves for it: `mta-sts.` and its name, `autoconfig.` and its name.
//!
//! It publishes the records that the operator tells it to, removes none but those, and announces the key of the next certificate by TLSA records
//! before that is ordered.
//!
//! Keys are keyd's matter: those of certificates are born there, and every request to the authority is signed there with an account
//! key that never leaves it. certd holds no secret but that of the DNS provider, if there is one.
//!
//! | in the state directory `certificates` (mode 0700) | |
//! |---|---|
//! | `account.json` | the address of our account at the authority |
//! | `published.json` | the records that were published by `posthouse dns publish`, and those for DNS-PERSIST-01 |
//! | `persist.json` | what the authority looks for in records for DNS-PERSIST-01 |
//! | `dkim-DOMAIN.json` | how far the change of the domain's DKIM keys is |
//! | `certificate-NAME.json` | the order under way, failures, when it is renewed or tried again |
//!
//! SECURITY: user `posthouse-cert`. Connects to the authority, name servers and the DNS provider; accepts on port 80 for HTTP-01 or port 443
//! for TLS-ALPN-01 while the configuration says so, and on no other. Writes only its state directory, reads besides the secrets' files of
//! its section. Calls keyd, and authd for the names of our domains. Whoever holds it can get certificates for our names while they do, and
//! change the records of our zones; they cannot take a private key along, nor read mail.
//!
//! STANDARDS: RFC 8555 (ACME), RFC 8737 (TLS-ALPN-01), RFC 9773 (renewal information), RFC 7515 and RFC 7638 (requests), RFC 2136 and
//! RFC 8945 (DNS updates), draft-ietf-acme-dns-persist-01 (DNS-PERSIST-01).
//!
//! RECOVERY: each step of an order is written down before it is made; after a kill the order is taken up where it was, with the key that
//! keyd keeps for it. Failures are tried again, the pauses doubling up to `certd.retry_max`; the certificate in use stays until another is
//! there. All of the state directory can be lost: orders then begin anew.
#![forbid(unsafe_code)]

mod alpn01;
mod answers;
mod authority;
mod board;
mod config;
mod dns;
mod door;
pub mod fuzz;
mod http01;
mod jws;
mod order;
mod persist;
mod plan;
mod publish;
mod rotation;
mod served;
mod state;
mod tlsa;
mod trouble;
mod worker;

pub use config::{ChallengeKind, Config, Wanted};
pub use dns::DnsConfig;
pub use rotation::DkimConfig;

use answers::Answers;
use board::Board;
use door::Limits;
use ipc::api::certd::{
    CertificateOrder, CertificateRevoke, CertificateStatus, DkimRotate, DkimRotations, DnsChange,
    DnsPublished, HttpChallenge,
};
use ipc::{ClientOptions, Fault, FaultKind, Router};
use runtime::{Document, Failure, Listen, Needs, Setting, Start, metrics};
use serde::Deserialize;
use served::Served;
use state::State;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, oneshot};
use types::Role;
use worker::{Command, Request, Worker};

/// The listener for HTTP-01.
const HTTP: &str = "http";
/// The listener for TLS-ALPN-01.
const TLS_ALPN: &str = "tls-alpn";
/// Commands of operators that wait for the one before.
const WAITING_MAX: usize = 16;

/// The suite's own names: in the greeting of SMTP, and where mail programs are sent to.
pub(crate) fn hosts(document: &Document) -> Result<Vec<String>, String> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Smtpd {
        hostname: Option<String>,
    }
    let told = |error: Failure| error.to_string();
    let suite = document.suite().map_err(told)?;
    let smtpd: Smtpd = document.section(Role::Smtpd.name()).map_err(told)?;
    let all = std::iter::once(suite.hostname).chain(smtpd.hostname);
    let mut names: Vec<String> = Vec::new();
    for name in all.map(|name| name.to_ascii_lowercase()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Its listeners for challenges, and the files with secrets.
///
/// # Errors
/// A configuration that makes no sense.
pub fn needs(config: &Config, setting: &Setting) -> Result<Needs, Failure> {
    config
        .targets(&hosts(&setting.document)?)
        .map_err(Failure::new)?;
    config.sound_rotation().map_err(Failure::new)?;
    let served = Served::of(&setting.document, config).map_err(Failure::new)?;
    let mut listen = Vec::new();
    for (kind, name, address) in [
        (ChallengeKind::Http01, HTTP, &config.http_address),
        (ChallengeKind::TlsAlpn01, TLS_ALPN, &config.tls_alpn_address),
    ] {
        let elsewhere = kind == ChallengeKind::Http01 && served.http;
        if config.uses(kind) && !elsewhere {
            listen.push(Listen {
                name: name.to_owned(),
                address: address.clone(),
            });
        }
    }
    let files = [
        &config.directory_ca_file,
        &config.eab_key_file,
        &config.dns.secret_file,
        &config.dns.consumer_key_file,
    ];
    // Where rustls-native-certs looks before the system's places: a proxy on the way to the providers has its own authority.
    let trusted =
        ["SSL_CERT_FILE", "SSL_CERT_DIR"].map(|name| std::env::var_os(name).map(Into::into));
    Ok(Needs {
        listen,
        read: files
            .into_iter()
            .flatten()
            .cloned()
            .chain(trusted.into_iter().flatten())
            .collect(),
        ..Needs::default()
    })
}

/// Runs until it is told to stop.
///
/// # Errors
/// A configuration that makes no sense.
pub async fn run(mut start: Start<Config>) -> Result<(), Failure> {
    let config = start.config().clone();
    let documents = start.documents();
    let (targets, served) = {
        let document = Arc::clone(&documents.borrow());
        let targets = config.targets(&hosts(&document)?).map_err(Failure::new)?;
        let served = Served::of(&document, &config).map_err(Failure::new)?;
        (targets, served)
    };
    let answers = Answers::default();
    let limits = Limits {
        connections: config.connections,
        time: Duration::from_secs(config.connection_timeout),
    };
    let mut doors = Vec::new();
    for listener in start.take_listeners() {
        let (answers, stopping) = (answers.clone(), start.stopping());
        doors.push(if listener.name == TLS_ALPN {
            tokio::spawn(door::keep(listener, limits, stopping, move |visitor| {
                alpn01::answer(visitor, answers.clone())
            }))
        } else {
            tokio::spawn(door::keep(listener, limits, stopping, move |visitor| {
                http01::answer(visitor, answers.clone())
            }))
        });
    }
    let board = Board::new(
        metrics::counter(
            "posthouse_certificates_issued_total",
            "Certificates that the authority made.",
        ),
        metrics::counter(
            "posthouse_certificates_failed_total",
            "Attempts to get a certificate that failed.",
        ),
    );
    board.begin(&config, &targets);
    facts(&start, &board);
    let worker = Worker {
        config,
        configured: targets.clone(),
        targets,
        served,
        domains: None,
        authd: start.client(Role::Authd),
        keyd: start.client_with(Role::Keyd, ClientOptions::default()),
        state: State::new(start.state_dir()),
        answers: answers.clone(),
        board: board.clone(),
        known: None,
        patience: Arc::new(AtomicU64::new(0)),
    };
    let (requests, waiting) = mpsc::channel(WAITING_MAX);
    let work = tokio::spawn(worker.run(waiting, documents, start.stopping()));
    let server = start.serve(router(Router::new(Role::Certd), &board, requests, answers));
    if work.await.is_err() {
        return Err(Failure::new("the work on certificates ended by a defect"));
    }
    for door in doors {
        let _ = door.await;
    }
    let _ = server.await;
    Ok(())
}

fn facts(start: &Start<Config>, board: &Board) {
    let shown = board.clone();
    start.fact("certificates", move || {
        let all = shown.all();
        if !all.enabled {
            return "off".to_owned();
        }
        let good = all.certificates.iter().filter(|row| row.state == "good");
        format!("{}/{}", good.count(), all.certificates.len())
    });
}

fn router(
    router: Router,
    board: &Board,
    requests: mpsc::Sender<Request>,
    answers: Answers,
) -> Router {
    let (shown, rotations) = (board.clone(), board.clone());
    let (order, revoke, rotate) = (requests.clone(), requests.clone(), requests.clone());
    let (published, change) = (requests.clone(), requests);
    router
        .on(move |_, _: CertificateStatus| std::future::ready(Ok(shown.all())))
        .on(move |_, request: CertificateOrder| {
            let requests = order.clone();
            let CertificateOrder { id, renew } = request;
            async move {
                let command = Command::Order { id, renew };
                ask(&requests, |done| Request::Certificate(command, done)).await
            }
        })
        .on(move |_, request: CertificateRevoke| {
            let requests = revoke.clone();
            let CertificateRevoke { id, reason } = request;
            async move {
                let command = Command::Revoke { id, reason };
                ask(&requests, |done| Request::Certificate(command, done)).await
            }
        })
        .on(move |_, _: DnsPublished| {
            let requests = published.clone();
            async move { ask(&requests, Request::Published).await }
        })
        .on(move |_, request: DnsChange| {
            let requests = change.clone();
            async move { ask(&requests, |done| Request::Change(request, done)).await }
        })
        .on(move |_, asked: HttpChallenge| {
            std::future::ready(Ok(answers.token_for(&asked.token, &asked.host)))
        })
        .on(move |_, _: DkimRotations| std::future::ready(Ok(rotations.rotations())))
        .on(move |_, request: DkimRotate| {
            let requests = rotate.clone();
            async move { ask(&requests, |done| Request::Rotate(request.domain, done)).await }
        })
}

async fn ask<T>(
    requests: &mpsc::Sender<Request>,
    request: impl FnOnce(oneshot::Sender<Result<T, Fault>>) -> Request,
) -> Result<T, Fault> {
    let (done, answer) = oneshot::channel();
    let busy = |_| Fault::new(FaultKind::Busy, "certd has much to do: try again later");
    requests.try_send(request(done)).map_err(busy)?;
    let ended = |_| Fault::new(FaultKind::Temporary, "certd stops");
    answer.await.map_err(ended)?
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |time| time.as_secs())
}
