//! The section `[certd]`.

use crate::dns::DnsConfig;
use crate::rotation::DkimConfig;
use ipc::api::keyd::CertificateAlgorithm;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Let's Encrypt.
const DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// The section `[certd]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether certificates are got from the authority at all. With `true` you accept the authority's terms of service.
    pub enabled: bool,
    /// The authority's ACME directory (RFC 8555 7.1.1). Let's Encrypt's for trials is
    /// `https://acme-staging-v02.api.letsencrypt.org/directory`.
    pub directory: String,
    /// PEM file of further certificate authorities for the connection to the directory itself: for an authority inside your house.
    pub directory_ca_file: Option<PathBuf>,
    /// Mail addresses that the authority may write to.
    pub contact: Vec<String>,
    /// Names of the certificate; empty: `suite.hostname`, and `smtpd.hostname` if that is another.
    pub names: Vec<String>,
    /// Further certificates, as `[[certd.certificate]]` with `names`. Clients get the one for the name they ask for.
    pub certificate: Vec<Wanted>,
    /// How control over the names is shown: `http-01` (port 80), `tls-alpn-01` (port 443), `dns-01` (with `[certd.dns]`) or
    /// `dns-persist-01` (a record that stays). The last two alone are for wildcards.
    pub challenge: ChallengeKind,
    /// For `dns-persist-01`: which of the authority's issuer domain names is written into the record, as `letsencrypt.org`; empty: the
    /// first that it offers. With it the record is known before the first order.
    pub persist_issuer: String,
    /// For `dns-persist-01`: seconds since 1970 after which the record is to count no more (`persistUntil`); 0: it counts always.
    pub persist_until: u64,
    /// For `dns-persist-01`: whether the authority takes a record with `policy=wildcard` for all names below it. It may, and Let's
    /// Encrypt does not; without it each name has a record.
    pub persist_subdomains: bool,
    /// Whether there are also certificates for what httpd serves: `mta-sts.` and `autoconfig.` and each domain where `[dns]` wants it.
    pub web_hosts: bool,
    /// Where HTTP-01 is answered. The authority asks port 80. Not opened for other challenges, nor where httpd has that port.
    pub http_address: String,
    /// Where TLS-ALPN-01 is answered. The authority asks port 443. Not opened for other challenges.
    pub tls_alpn_address: String,
    /// Connections to those two at one time; more are closed. 1 to 10,000.
    pub connections: usize,
    /// Seconds that such a connection has in all.
    pub connection_timeout: u64,
    /// Kind of the certificates' keys: `ecdsa-p256`, `ecdsa-p384` or `rsa2048`.
    pub key: CertificateAlgorithm,
    /// The authority's profile (a kind of certificate), if it has several: Let's Encrypt has `classic`, `tlsserver`, `shortlived`.
    pub profile: String,
    /// A certificate is renewed when so many percent of its life are over, 1 to 95, unless the authority suggests a time (RFC 9773).
    pub renew_percent: u32,
    /// Whether the authority's suggestion is asked for.
    pub renewal_info: bool,
    /// Seconds after a failed attempt before the next; doubled with each failure.
    pub retry_min: u64,
    /// Seconds between attempts at most.
    pub retry_max: u64,
    /// Seconds that the authority has for one answer.
    pub timeout: u64,
    /// Seconds that the authority has to look at the challenges, and again to make the certificate.
    pub order_timeout: u64,
    /// Key identifier of an external account binding (RFC 8555 7.3.4), for authorities that want customers only.
    pub eab_key_id: String,
    /// File with its HMAC key in base64url.
    pub eab_key_file: Option<PathBuf>,
    /// Name servers to ask whether a record is published, `192.0.2.1:53`; the system's if there are none.
    pub nameservers: Vec<SocketAddr>,
    /// Where DNS records are published.
    pub dns: DnsConfig,
    /// DKIM keys that are changed by themselves.
    pub dkim: DkimConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: false,
            directory: DIRECTORY.to_owned(),
            directory_ca_file: None,
            contact: Vec::new(),
            names: Vec::new(),
            certificate: Vec::new(),
            challenge: ChallengeKind::default(),
            persist_issuer: String::new(),
            persist_until: 0,
            persist_subdomains: false,
            web_hosts: true,
            http_address: "[::]:80".to_owned(),
            tls_alpn_address: "[::]:443".to_owned(),
            connections: 64,
            connection_timeout: 10,
            key: CertificateAlgorithm::default(),
            profile: String::new(),
            renew_percent: 67,
            renewal_info: true,
            retry_min: 60,
            retry_max: 21_600,
            timeout: 30,
            order_timeout: 180,
            eab_key_id: String::new(),
            eab_key_file: None,
            nameservers: Vec::new(),
            dns: DnsConfig::default(),
            dkim: DkimConfig::default(),
        }
    }
}

/// `[[certd.certificate]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Its names, `*.` for wildcards.
    pub names: Vec<String>,
    /// `certd.challenge` if it is not given.
    pub challenge: Option<ChallengeKind>,
}

/// How control over a name is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChallengeKind {
    /// RFC 8555 8.3.
    #[default]
    #[serde(rename = "http-01")]
    Http01,
    /// RFC 8737.
    #[serde(rename = "tls-alpn-01")]
    TlsAlpn01,
    /// RFC 8555 8.4.
    #[serde(rename = "dns-01")]
    Dns01,
    /// draft-ietf-acme-dns-persist-01.
    #[serde(rename = "dns-persist-01")]
    DnsPersist01,
}

impl ChallengeKind {
    /// As the protocol calls it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
            Self::Dns01 => "dns-01",
            Self::DnsPersist01 => "dns-persist-01",
        }
    }
}

/// A certificate that there shall be, with all that holds for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) id: String,
    pub(crate) names: Vec<String>,
    pub(crate) challenge: ChallengeKind,
}

impl Target {
    /// Whether its certificate is good for this host (RFC 6125 6.4.3).
    pub(crate) fn covers(&self, host: &str) -> bool {
        let parent = host.split_once('.').map(|(_, parent)| parent);
        self.names.iter().any(|name| {
            name == host || name.strip_prefix("*.").is_some_and(|of| Some(of) == parent)
        })
    }
}

impl Config {
    /// The certificates that there shall be. `hosts` are the suite's own names.
    ///
    /// # Errors
    /// What makes no sense, with the setting.
    pub(crate) fn targets(&self, hosts: &[String]) -> Result<Vec<Target>, String> {
        if !self.enabled {
            return Ok(Vec::new());
        }
        self.sound()?;
        let mut first = if self.names.is_empty() {
            hosts.to_vec()
        } else {
            self.names.clone()
        };
        first.dedup();
        let main = Wanted {
            names: first,
            challenge: None,
        };
        let mut all: Vec<Target> = Vec::new();
        for wanted in std::iter::once(&main).chain(&self.certificate) {
            let target = self.target(wanted)?;
            if all.iter().any(|other| other.id == target.id) {
                return Err(format!(
                    "certd.certificate: two certificates begin with {}: join them, or put another name first",
                    target.id
                ));
            }
            all.push(target);
        }
        Ok(all)
    }

    fn target(&self, wanted: &Wanted) -> Result<Target, String> {
        let challenge = wanted.challenge.unwrap_or(self.challenge);
        let mut names = Vec::with_capacity(wanted.names.len());
        for name in &wanted.names {
            let plain = name.strip_prefix("*.").unwrap_or(name);
            let checked = types::Address::domain_of(plain)
                .map_err(|error| format!("certd.names: {name}: {error}"))?;
            if checked.starts_with('[') || !checked.contains('.') {
                return Err(format!(
                    "certd.names: no authority gives a certificate for {name}: set suite.hostname or certd.names to full host names"
                ));
            }
            let by_dns = matches!(
                challenge,
                ChallengeKind::Dns01 | ChallengeKind::DnsPersist01
            );
            if plain.len() < name.len() && !by_dns {
                // RFC 8555 7.1.3; authorities accept DNS alone for wildcards.
                return Err(format!(
                    "certd.names: {name} needs challenge = \"dns-01\" or \"dns-persist-01\""
                ));
            }
            let checked = if plain.len() < name.len() {
                format!("*.{checked}")
            } else {
                checked
            };
            if !names.contains(&checked) {
                names.push(checked);
            }
        }
        let id = names.first().map(|name| name.trim_start_matches("*."));
        let id = id.ok_or("certd.certificate: one has no names")?.to_owned();
        if challenge == ChallengeKind::Dns01 && self.dns.provider.is_empty() {
            return Err("certd.challenge: dns-01 needs certd.dns.provider".to_owned());
        }
        Ok(Target {
            id,
            names,
            challenge,
        })
    }

    fn sound(&self) -> Result<(), String> {
        // RFC 8555 6.1
        if !self.directory.starts_with("https://") {
            return Err("certd.directory: the address begins with https://".to_owned());
        }
        if !(1..=95).contains(&self.renew_percent) {
            return Err("certd.renew_percent is 1 to 95".to_owned());
        }
        if !(1..=10_000).contains(&self.connections) {
            return Err("certd.connections is 1 to 10,000".to_owned());
        }
        if self.retry_min == 0 || self.retry_max < self.retry_min {
            return Err(
                "certd.retry_min is at least 1, and certd.retry_max not less than it".to_owned(),
            );
        }
        if self.timeout == 0 || self.order_timeout == 0 || self.connection_timeout == 0 {
            return Err(
                "certd.timeout, order_timeout and connection_timeout are at least 1".to_owned(),
            );
        }
        if let Some(contact) = self.contact.iter().find(|one| !one.contains('@')) {
            return Err(format!("certd.contact: {contact:?} is no mail address"));
        }
        let issuer = self.persist_issuer.as_str();
        if !issuer.is_empty() && types::Address::domain_of(issuer).as_deref() != Ok(issuer) {
            return Err(format!(
                "certd.persist_issuer: {issuer:?} is no domain name in small letters, as letsencrypt.org"
            ));
        }
        if self.eab_key_id.is_empty() != self.eab_key_file.is_none() {
            return Err("certd.eab_key_id and certd.eab_key_file belong together".to_owned());
        }
        self.dns.sound()
    }

    /// Whether a listener for this challenge is needed.
    pub(crate) fn uses(&self, kind: ChallengeKind) -> bool {
        let further = self.certificate.iter().filter_map(|one| one.challenge);
        self.enabled
            && std::iter::once(self.challenge)
                .chain(further)
                .any(|one| one == kind)
    }

    /// The contacts as addresses (RFC 8555 7.3).
    pub(crate) fn contacts(&self) -> Vec<String> {
        let address = |one: &String| match one.starts_with("mailto:") {
            true => one.clone(),
            false => format!("mailto:{one}"),
        };
        self.contact.iter().map(address).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn config() -> Config {
        Config {
            enabled: true,
            ..Config::default()
        }
    }

    fn hosts() -> Vec<String> {
        vec!["Mail.example.org".to_owned(), "mail.example.org".to_owned()]
    }

    #[test]
    fn the_host_name_is_enough() {
        let targets = config().targets(&hosts()).unwrap();
        assert_eq!(targets.len(), 1);
        assert_eq!(targets[0].names, ["mail.example.org"]);
        assert_eq!(targets[0].id, "mail.example.org");
        assert_eq!(Config::default().targets(&hosts()).unwrap(), []);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let wrong = |change: &dyn Fn(&mut Config)| {
            let mut config = config();
            change(&mut config);
            config.targets(&hosts()).unwrap_err()
        };
        for (change, word) in [
            (
                &(|c: &mut Config| c.directory = "http://x".into()) as &dyn Fn(&mut Config),
                "https",
            ),
            (&|c| c.names = vec!["localhost".into()], "full host names"),
            (&|c| c.names = vec!["a b".into()], "a b"),
            (&|c| c.names = vec!["*.example.org".into()], "dns-01"),
            (&|c| c.challenge = ChallengeKind::Dns01, "certd.dns"),
            (&|c| c.renew_percent = 100, "renew_percent"),
            (&|c| c.retry_max = 1, "retry_max"),
            (&|c| c.contact = vec!["me".into()], "contact"),
            (&|c| c.eab_key_id = "x".into(), "eab_key_file"),
            (&|c| c.persist_issuer = "LE.org".into(), "persist_issuer"),
            (
                &|c| {
                    c.certificate = vec![Wanted {
                        names: vec!["mail.example.org".into()],
                        challenge: None,
                    }];
                },
                "two certificates",
            ),
        ] {
            let error = wrong(change);
            assert!(error.contains(word), "{error} has no {word}");
        }
    }
}
