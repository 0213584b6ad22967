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
//! How well a host must be known before it gets anything is settled for each of them: by our own table, by what its domain
//! publishes (DANE, whose signatures are checked here, or MTA-STS, whose policies are fetched and remembered here), by what the
//! message asks for. `[relayd.tls]` and docs/transport.md say how; what came of it is logged and counted in the words of TLS
//! reports.
//!
//! Reports on TLS that go to an `https:` address are posted, one attempt a call (`[relayd.post]`).
//!
//! When and how often an attempt is made, and how many at a time, is queued's decision.
//!
//! The client is our own, also for smart hosts with a login. lettre, which the suite uses elsewhere, sends a message from
//! memory in one piece, gives it up when one recipient is refused, and hides the single replies: none of that is good enough
//! for a relay.
//!
//! SECURITY: user `posthouse-relay`. Connects to other hosts, to the HTTPS servers of MTA-STS policies and of those who want
//! reports (at public addresses alone, as strangers name them) and to DNS, accepts nothing, writes nothing. Reads the body of
//! its job through a descriptor, the password files of routes, the certificate authorities and trust anchors. Calls keyd
//! (DkimKeys, DkimSign) and reportd (TlsResults: later, and never waited for). Serves queued alone (Relay, PostReport). TLS is
//! opportunistic unless the destination or we demand more; what it then promises is that listeners learn nothing, not that the
//! host is the right one (RFC 7435). Name servers are not believed where signatures count. Passwords are sent under TLS only,
//! unless a route says `tls = "none"`.
//!
//! STANDARDS: RFC 5321 (client), RFC 1870 (SIZE), RFC 2033 (LMTP), RFC 2034 and RFC 3463 (enhanced codes), RFC 2920
//! (pipelining), RFC 3030 (CHUNKING, for binary mail), RFC 3207 (STARTTLS), RFC 3461 (DSN parameters), RFC 4033 to 4035 and RFC
//! 5155 (DNSSEC), RFC 4954 (AUTH), RFC 6152 (8BITMIME; no conversion), RFC 6376 and RFC 8463 (DKIM), RFC 6531 (SMTPUTF8), RFC
//! 6698, RFC 7671 and RFC 7672 (DANE), RFC 7505 (null MX), RFC 8314 (implicit TLS), RFC 8460 (TLS reports: the words, and
//! HTTPS), RFC 8461 (MTA-STS), RFC 8617 (ARC, sealing), RFC 8689 (REQUIRETLS), RFC 9422 (LIMITS), RFC 6710
//! (MT-PRIORITY), RFC 2852 (DELIVERBY).
//!
//! RECOVERY: keeps no state; policies of MTA-STS are remembered by queued, who gives them along. When it is killed in the middle of a message, queued tries again by its schedule; a message whose
//! last reply was lost may then arrive twice (RFC 1047).
#![forbid(unsafe_code)]

mod arc;
mod attempt;
mod config;
mod connection;
mod content;
mod demand;
mod dkim;
mod dns;
mod explain;
pub mod fuzz;
mod https;
mod pool;
mod post;
mod reports;
mod result;
mod service;
mod signing;
mod sts;
mod tls;
mod tlsa;
mod transaction;
mod transport;
mod verdict;
mod verify;

pub use arc::Sealing;
pub use config::{AddressOrder, Config, EightBit, Protocol, RouteConfig, TlsMode};
pub use explain::{Explanation, HostExplanation, explain};
pub use post::Posting;
pub use result::{PolicyType, Problem, ResultType, Shown, TlsResult};
pub use signing::{DomainSigning, Form, Signing};
pub use transport::{DestinationTls, Dnssec, Level, MinVersion, Transport};

use ipc::api::relayd::{PostReport, Relay};
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
    config.tls.validate().map_err(Failure::new)?;
    config.post.validate().map_err(Failure::new)?;
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
        read: passwords
            .chain(config.tls_ca_file.clone())
            .chain(config.tls.trust_anchors.clone())
            .collect(),
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
    let mut client = attempt::Client::new(config, hostname).map_err(Failure::new)?;
    client.reports = reports::wanted(&start)?;
    let service = Arc::new(service::Service::new(client, signer, sealer));
    let idle = service.clone();
    let reaper = tokio::spawn(async move { idle.client.close_idle().await });
    let policies = service.clone();
    let renewer = tokio::spawn(async move { policies.client.renew_policies().await });
    if service.client.reports.is_some() {
        let reporting = service.clone();
        let (reportd, stop) = (start.client(Role::Reportd), start.stopping());
        tokio::spawn(async move { reporting.client.hand_over(reportd, stop).await });
    }
    let (answering, posting) = (service.clone(), service.clone());
    let router = ipc::Router::new(Role::Relayd)
        .on(move |context, call: Relay| {
            let service = answering.clone();
            async move { service.relay(call, context.descriptors).await }
        })
        .on(move |context, call: PostReport| {
            let service = posting.clone();
            async move { service.post(call, context.descriptors).await }
        });
    let served = start.serve(router).await;
    reaper.abort();
    renewer.abort();
    service.client.close_all().await;
    served.map_err(|error| Failure::new(error.to_string()))
}

#[cfg(test)]
mod tests;
