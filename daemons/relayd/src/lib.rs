//! relayd: hands messages to other hosts.
//!
//! queued asks for one attempt at one destination. relayd finds the hosts (a configured route, or the domain's mail
//! exchangers), connects, secures the connection as far as the host can, and gives the message to them in their order until
//! one has taken it or has said no. The answer has one outcome a recipient, with the host's own words. Connections are kept
//! for a few seconds for the next message to the same host.
//!
//! Mail of local senders is signed (DKIM) on its way out, with each active key that keyd has for the domain of From, or else of
//! the domain above it, of the sender, or of a default one. keyd makes the signature; what it signs, the hash of the body and
//! the header fields, is made here. `[relayd.signing]` says what is covered.
//!
//! Mail of others that is forwarded gets no such signature but a seal (ARC) on what smtpd found out when it came, by the domain
//! that forwards it (`[relayd.arc]`).
//!
//! When and how often an attempt is made, and how many at a time, is queued's decision.
//!
//! The client is our own, also for smart hosts with a login. lettre, which the suite uses elsewhere, sends a message from
//! memory in one piece, gives it up when one recipient is refused, and hides the single replies: none of that is good enough
//! for a relay.
//!
//! SECURITY: user `posthouse-relay`. Connects to other hosts and to DNS, accepts nothing, writes nothing. Reads the body of
//! its job through a descriptor, the password files of routes, and the certificate authorities. Calls keyd (DkimKeys,
//! DkimSign) and nobody else. Serves queued alone. TLS is opportunistic unless a route says more; what it then promises is
//! that listeners learn nothing, not that the host is the right one (RFC 7435). Passwords are sent under TLS only, unless a
//! route says `tls = "none"`.
//!
//! STANDARDS: RFC 5321 (client), RFC 1870 (SIZE), RFC 2033 (LMTP), RFC 2034 and RFC 3463 (enhanced codes), RFC 2920
//! (pipelining), RFC 3030 (CHUNKING, for binary mail), RFC 3207 (STARTTLS), RFC 3461 (DSN parameters), RFC 4954 (AUTH),
//! RFC 6152 (8BITMIME; no conversion), RFC 6376 and RFC 8463 (DKIM), RFC 6531 (SMTPUTF8), RFC 7505 (null MX), RFC 8314
//! (implicit TLS), RFC 8617 (ARC, sealing), RFC 8689 (REQUIRETLS, without the check of MX by DNSSEC or MTA-STS), RFC 9422 (LIMITS),
//! RFC 6710 (MT-PRIORITY), RFC 2852 (DELIVERBY).
//!
//! RECOVERY: keeps no state. When it is killed in the middle of a message, queued tries again by its schedule; a message whose
//! last reply was lost may then arrive twice (RFC 1047).
#![forbid(unsafe_code)]

mod arc;
mod attempt;
mod config;
mod connection;
mod content;
mod dkim;
mod dns;
pub mod fuzz;
mod pool;
mod service;
mod signing;
mod tls;
mod transaction;
mod verdict;

pub use arc::Sealing;
pub use config::{AddressOrder, Config, EightBit, Protocol, RouteConfig, TlsMode};
pub use signing::{DomainSigning, Form, Signing};

use ipc::api::relayd::Relay;
use runtime::{Failure, Needs, Setting, Start};
use std::sync::Arc;
use std::time::Duration;
use types::Role;

/// What it needs besides what topology gives it: the files that routes name.
///
/// # Errors
/// A route that makes no sense.
pub fn needs(config: &Config, _setting: &Setting) -> Result<Needs, Failure> {
    config.signing.validate().map_err(Failure::new)?;
    for route in &config.route {
        if route.pattern.is_empty() || route.host.is_empty() {
            return Err(Failure::new(
                "each [[relayd.route]] needs `match` and `host`",
            ));
        }
        if route.username.is_some() && route.password_file.is_none() {
            let name = route.effective_name();
            return Err(Failure::new(format!(
                "the route {name} has a username and no password_file"
            )));
        }
    }
    let passwords = config
        .route
        .iter()
        .filter_map(|route| route.password_file.clone());
    Ok(Needs {
        read: passwords.chain(config.tls_ca_file.clone()).collect(),
        ..Needs::default()
    })
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// What keeps it from starting: no resolver configuration, an unreadable `tls_ca_file`.
pub async fn run(start: Start<Config>) -> Result<(), Failure> {
    let config = start.config().clone();
    let hostname = config
        .hostname
        .clone()
        .unwrap_or_else(|| start.suite().hostname.clone())
        .to_ascii_lowercase();
    let dns = dns::Dns::new(&config)
        .map_err(|error| Failure::new(format!("the resolver cannot be set up: {error}")))?;
    let tls = tls::TlsClient::new(config.tls_ca_file.as_deref()).map_err(Failure::new)?;
    let signer = config.dkim.then(|| {
        let keyd = ipc::blocking::Client::new(Role::Relayd, Role::Keyd, start.socket(Role::Keyd));
        dkim::Signer::new(
            Arc::new(keyd),
            Duration::from_secs(config.dkim_keys_cache),
            config.signing.clone(),
        )
    });
    let sealer = config
        .arc
        .enabled
        .then(|| arc::Sealer::new(config.arc.clone(), &start.suite().hostname));
    let client = attempt::Client {
        config,
        hostname,
        dns,
        tls,
        pool: pool::Pool::default(),
    };
    let service = Arc::new(service::Service::new(client, signer, sealer));
    let idle = service.clone();
    let reaper = tokio::spawn(async move { idle.client.close_idle().await });
    let answering = service.clone();
    let router = ipc::Router::new(Role::Relayd).on(move |context, call: Relay| {
        let service = answering.clone();
        async move { service.relay(call, context.descriptors).await }
    });
    let served = start.serve(router).await;
    reaper.abort();
    service.client.close_all().await;
    served.map_err(|error| Failure::new(error.to_string()))
}

#[cfg(test)]
mod tests;
