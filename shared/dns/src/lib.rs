//! The resolver of the daemons that ask DNS, made of their settings in one place.
//!
//! It is a stub resolver (RFC 1034 5.3.1) with a cache of its own: it asks the name servers that the settings name, or the system's. A caching name
//! server on this host is what a mail server should ask (127.0.0.1, without the limits that public ones have).
//!
//! [`Validating`] does not believe those servers: it checks the signatures itself (DNSSEC).
#![forbid(unsafe_code)]

mod secure;
mod sieve;

pub use secure::{Found, Proven, Unknown, Validating};

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{ConnectionProvider, Resolver, ResolverBuilder, TokioResolver};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// How often a question is asked before it counts as not answered.
const ATTEMPTS: usize = 3;
/// How long an answer is kept at most, whatever its TTL.
const POSITIVE_MAX: Duration = Duration::from_secs(3600);
/// How long it is kept that there is none.
const NEGATIVE_MAX: Duration = Duration::from_secs(60);

/// A resolver that asks these servers, or the system's if there are none; each has `timeout` for an answer, one second at
/// least.
///
/// # Errors
/// If it cannot be made of these settings.
pub fn resolver(nameservers: &[SocketAddr], timeout: Duration) -> Result<TokioResolver, NetError> {
    let mut builder = builder(nameservers);
    tune(builder.options_mut(), timeout);
    builder.build()
}

/// Sets what every resolver here has, with `timeout` for an answer of one server, one second at least.
pub fn tune(options: &mut ResolverOpts, timeout: Duration) {
    options.timeout = timeout.max(Duration::from_secs(1));
    options.attempts = ATTEMPTS;
    options.positive_max_ttl = Some(POSITIVE_MAX);
    options.negative_max_ttl = Some(NEGATIVE_MAX);
}

/// One to be made with other options.
pub fn builder(nameservers: &[SocketAddr]) -> ResolverBuilder<TokioRuntimeProvider> {
    builder_over(nameservers, TokioRuntimeProvider::default())
}

fn builder_over<P: ConnectionProvider>(
    nameservers: &[SocketAddr],
    provider: P,
) -> ResolverBuilder<P> {
    if nameservers.is_empty() {
        return system(provider);
    }
    let servers = nameservers.iter().map(server).collect();
    let config = ResolverConfig::from_parts(None, Vec::new(), servers);
    Resolver::builder_with_config(config, provider)
}

fn server(address: &SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.to_vec())
}

/// The system's name servers; without a usable /etc/resolv.conf the one on this host, as resolv.conf(5) says.
fn system<P: ConnectionProvider>(provider: P) -> ResolverBuilder<P> {
    Resolver::builder(provider.clone()).unwrap_or_else(|error| {
        tracing::warn!(%error, "no system resolver configuration: asking the name server on this host");
        let local = NameServerConfig::udp_and_tcp(Ipv4Addr::LOCALHOST.into());
        let config = ResolverConfig::from_parts(None, Vec::new(), vec![local]);
        Resolver::builder_with_config(config, provider)
    })
}

/// The name as one that no search list is tried for: with its final dot.
pub fn fqdn(name: &str) -> String {
    format!("{}.", name.trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_end_with_one_dot() {
        assert_eq!(fqdn("example.org"), "example.org.");
        assert_eq!(fqdn("example.org."), "example.org.");
    }

    #[tokio::test]
    async fn a_resolver_asks_whom_it_is_told() {
        let server: SocketAddr = "127.0.0.1:5300".parse().unwrap();
        let made = resolver(&[server], Duration::ZERO).unwrap();
        assert_eq!(made.options().timeout, Duration::from_secs(1));
    }
}
