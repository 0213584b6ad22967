//! httpd: HTTPS: shows the MTA-STS policies of our domains, and hands challenges of certificates to certd.
//!
//! Two listeners. `https` serves `https://mta-sts.DOMAIN/.well-known/mta-sts.txt`: the text that the id in the domain's `_mta-sts` record
//! was made of, from the same section `[dns]`, so that record and policy change together. `http` answers an authority's HTTP-01
//! challenges with what certd says, and sends everybody else to HTTPS.
//!
//! Where `dns.autoconfig` names this host, mail programs are told their servers (autoconfig, autodiscover): those that the SRV records name.
//!
//! Members of mailing lists leave by a link in their copies of posts (RFC 8058): POST does it, GET shows a button. authd knows whether the
//! token in it is one of ours, and what it means.
//!
//! A host is ours if a certificate names it: nothing else has to be asked, no list of domains be known. Requests for other hosts get
//! 421, and no redirect leads away from here.
//!
//! Each connection has its limits: octets and time of a header, time of an answer, idle time, requests, streams of HTTP/2 and how many
//! of them are taken back, and a longest life. Bodies of requests are not read, but for two small forms.
//!
//! SECURITY: user `posthouse-http`. Accepts on its ports and cannot connect; reads and writes no files. Calls keyd, which signs handshakes,
//! certd, which knows the answers to challenges, and authd (ListUnsubscribe). Whoever holds it can show other policies for our domains, have
//! certificates made for our names while certd orders some, and end memberships whose links are used meanwhile; no mail, no password and no key is within reach.
//!
//! STANDARDS: RFC 8461 3.2 and 3.3 (MTA-STS policies), RFC 8555 8.3 (HTTP-01), RFC 9110, RFC 9112, RFC 9113 (HTTP), RFC 6797 (HSTS), RFC 8058 (one click).
//!
//! RECOVERY: connections. Nothing is kept; clients ask again.
#![forbid(unsafe_code)]

mod answer;
mod autoconfig;
mod config;
mod door;
pub mod fuzz;
mod pulse;
mod seats;
mod service;
mod services;
mod site;
mod unsubscribe;

pub use config::Config;
pub use services::services;

use ipc::{Router, blocking};
use runtime::{Document, Failure, Listen, Needs, Setting, Start};
use seats::Seats;
use service::{Figures, Front, Settings};
use std::sync::{Arc, PoisonError, RwLock};
use tls::Certificates;
use types::Role;

/// The listener with TLS.
const HTTPS: &str = "https";
/// The listener without.
const HTTP: &str = "http";
/// RFC 7301: the better ones first.
const PROTOCOLS: [&[u8]; 3] = [b"h2", b"http/1.1", b"http/1.0"];

fn settings(document: &Document) -> Result<Settings, Failure> {
    let config: Config = document.section(Role::Httpd.name())?;
    config.sound()?;
    let dns: zone::Config = document.section("dns")?;
    dns.validate().map_err(Failure::new)?;
    let services = services(document)?;
    Ok(Settings {
        config,
        dns,
        services,
    })
}

/// Its listeners.
///
/// # Errors
/// A configuration that makes no sense.
pub fn needs(config: &Config, setting: &Setting) -> Result<Needs, Failure> {
    settings(&setting.document)?;
    let listen = [(HTTPS, &config.https_address), (HTTP, &config.http_address)];
    let listen = listen
        .into_iter()
        .filter(|(_, address)| config.enabled && !address.is_empty())
        .map(|(name, address)| Listen {
            name: name.to_owned(),
            address: address.clone(),
        });
    Ok(Needs {
        listen: listen.collect(),
        ..Needs::default()
    })
}

/// Runs until it is told to stop and the connections have ended.
///
/// # Errors
/// What keeps it from starting.
pub async fn run(mut start: Start<Config>) -> Result<(), Failure> {
    let mut documents = start.documents();
    let settings_now = {
        let document = Arc::clone(&documents.borrow_and_update());
        settings(&document)?
    };
    let signer = blocking::Client::new(Role::Httpd, Role::Keyd, start.socket(Role::Keyd));
    let certificates = Certificates::from_keyd(start.client(Role::Keyd), signer).await;
    let acceptor = certificates
        .acceptor_for(&PROTOCOLS)
        .map_err(|error| Failure::new(format!("TLS: {error}")))?;
    let front = Arc::new(Front {
        settings: RwLock::new(Arc::new(settings_now)),
        host: start.suite().hostname.to_ascii_lowercase(),
        certificates,
        authd: start.client(Role::Authd),
        certd: start
            .enabled(Role::Certd)
            .then(|| start.client(Role::Certd)),
        seats: Seats::new(),
        figures: Figures::new(),
    });
    let counted = front.seats.clone();
    start.fact("connections", move || counted.count().to_string());
    let mut doors = Vec::new();
    for listener in start.take_listeners() {
        let tls = (listener.name == HTTPS).then(|| acceptor.clone());
        doors.push(tokio::spawn(door::keep(
            listener,
            tls,
            Arc::clone(&front),
            start.stopping(),
        )));
    }
    let follower = tokio::spawn({
        let front = Arc::clone(&front);
        async move {
            while documents.changed().await.is_ok() {
                let document = Arc::clone(&documents.borrow_and_update());
                match settings(&document) {
                    Ok(new) => {
                        let mut current = front
                            .settings
                            .write()
                            .unwrap_or_else(PoisonError::into_inner);
                        *current = Arc::new(new);
                    }
                    Err(error) => tracing::error!(%error, "the section [httpd] stays as it was"),
                }
            }
        }
    });
    let server = start.serve(Router::new(Role::Httpd));
    for door in doors {
        let _ = door.await;
    }
    follower.abort();
    let _ = server.await;
    Ok(())
}
