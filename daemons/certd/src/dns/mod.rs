//! DNS records that are published and removed by ourselves, in the zones that the configuration names and in no other.

mod propagation;
mod provider;

pub(crate) use propagation::Watcher;
pub(crate) use provider::Publisher;

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// `[certd.dns]`: where records are published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DnsConfig {
    /// Who serves the zones: `rfc2136` (any name server that takes updates with TSIG), `cloudflare`, `route53`, `google-cloud-dns`,
    /// `digitalocean`, `ovh`, `bunny`, `desec`, `dnsimple`, `gandi`, `hetzner`, `linode`, `ns1`, `pdns`, `porkbun`, `scaleway` or `vultr`.
    /// Empty: nothing is published.
    pub provider: String,
    /// The zones that may be written, as `example.org`. A name goes into the longest that it is in.
    pub zones: Vec<String>,
    /// Where the provider is: for `rfc2136` the primary name server, `tcp://192.0.2.1:53` or `udp://...`; for `pdns` the address of
    /// its API; for `ovh` one of `ovh-eu`, `ovh-us`, `ovh-ca`; for `route53` another address of its API than
    /// `https://route53.amazonaws.com`. The others are where the library knows them to be.
    pub server: String,
    /// The region that requests to `route53` are signed for; empty: `us-east-1`.
    pub region: String,
    /// The name beside the secret: of the TSIG key, Route 53's access key id, OVH's application key, DNSimple's account, Google Cloud's
    /// project, Porkbun's API key.
    pub user: String,
    /// File with the secret: the TSIG key in base64, an API token, Google Cloud's service account (JSON).
    pub secret_file: Option<PathBuf>,
    /// File with OVH's consumer key.
    pub consumer_key_file: Option<PathBuf>,
    /// The TSIG algorithm.
    pub tsig_algorithm: String,
    /// Seconds for which others may keep the records of challenges.
    pub challenge_ttl: u32,
    /// Name servers that must all show a record before it counts as published, `192.0.2.1:53`; empty: those that the zone names
    /// (NS).
    pub authoritative: Vec<SocketAddr>,
    /// Seconds for a record to appear at all of them.
    pub propagation_timeout: u64,
    /// Seconds between the moment when all name servers show the TLSA record of a new key and the order for its certificate: twice the
    /// TTL of those records (RFC 7671 8.1).
    pub tlsa_settle: u64,
    /// Milliseconds between two looks.
    pub propagation_pause_ms: u64,
    /// Seconds that the provider has for one change.
    pub timeout: u64,
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self {
            provider: String::new(),
            zones: Vec::new(),
            server: String::new(),
            region: String::new(),
            user: String::new(),
            secret_file: None,
            consumer_key_file: None,
            tsig_algorithm: "hmac-sha256".to_owned(),
            challenge_ttl: 60,
            authoritative: Vec::new(),
            propagation_timeout: 600,
            tlsa_settle: 7200,
            propagation_pause_ms: 2000,
            timeout: 30,
        }
    }
}

/// Why a record could not be published, removed or seen.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DnsError {
    /// The name is in none of our zones.
    #[error("{0} is in none of the zones that certd.dns.zones names")]
    Foreign(String),
    /// The configuration.
    #[error("{0}")]
    Setting(String),
    /// What the provider says.
    #[error("the DNS provider: {0}")]
    Provider(String),
    /// Not all authoritative servers show it in time; which does not.
    #[error(
        "{name} does not show the record within {seconds} s (certd.dns.propagation_timeout): {why}"
    )]
    Unseen {
        /// The record's name.
        name: String,
        /// How long was waited.
        seconds: u64,
        /// Of the last look.
        why: String,
    },
}

impl DnsConfig {
    /// # Errors
    /// What makes no sense.
    pub(crate) fn sound(&self) -> Result<(), String> {
        if self.provider.is_empty() {
            return Ok(());
        }
        if self.zones.is_empty() {
            return Err("certd.dns.zones: name the zones that may be written".to_owned());
        }
        if self.timeout == 0 || self.propagation_timeout == 0 || self.propagation_pause_ms < 10 {
            return Err(
                "certd.dns: timeout and propagation_timeout are at least 1, propagation_pause_ms at least 10"
                    .to_owned(),
            );
        }
        provider::sound(self)
    }

    /// The zone that a name is in, without the final dot.
    ///
    /// # Errors
    /// None of ours.
    pub(crate) fn zone_of(&self, name: &str) -> Result<String, DnsError> {
        let plain = |text: &str| text.trim_end_matches('.').to_ascii_lowercase();
        let name = plain(name);
        self.zones
            .iter()
            .map(|zone| plain(zone))
            .filter(|zone| {
                let rest = name.strip_suffix(zone.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            })
            .max_by_key(String::len)
            .ok_or(DnsError::Foreign(name))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_longest_zone_counts_and_no_other_is_written() {
        let config = DnsConfig {
            zones: vec!["example.org".into(), "Mail.example.org.".into()],
            ..DnsConfig::default()
        };
        let zone = |name: &str| config.zone_of(name).ok();
        assert_eq!(
            zone("a.mail.EXAMPLE.org.").as_deref(),
            Some("mail.example.org")
        );
        assert_eq!(
            zone("mail.example.org").as_deref(),
            Some("mail.example.org")
        );
        assert_eq!(
            zone("_acme-challenge.example.org").as_deref(),
            Some("example.org")
        );
        for name in ["notexample.org", "org", "example.org.evil.test", ""] {
            assert_eq!(zone(name), None, "{name}");
        }
    }

    #[test]
    fn a_provider_needs_its_settings() {
        let config = |provider: &str| DnsConfig {
            provider: provider.to_owned(),
            zones: vec!["example.org".to_owned()],
            ..DnsConfig::default()
        };
        assert!(config("").sound().is_ok());
        assert!(config("nobody").sound().unwrap_err().contains("nobody"));
        assert!(
            config("cloudflare")
                .sound()
                .unwrap_err()
                .contains("secret_file")
        );
        let mut one = config("rfc2136");
        one.secret_file = Some("/x".into());
        one.user = "key".to_owned();
        assert!(one.sound().unwrap_err().contains("server"));
        one.server = "tcp://127.0.0.1:53".to_owned();
        one.sound().unwrap();
        one.tsig_algorithm = "hmac-none".to_owned();
        assert!(one.sound().unwrap_err().contains("tsig_algorithm"));
        one.zones.clear();
        assert!(one.sound().unwrap_err().contains("zones"));
    }
}
