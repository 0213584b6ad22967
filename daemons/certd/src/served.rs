//! Where httpd runs: the challenges that it answers for us, and the certificates for the hosts that it serves.

use crate::config::{ChallengeKind, Config, Target};
use crate::worker::Worker;
use ipc::api::authd::DomainNames;
use runtime::Document;
use serde::Deserialize;
use types::{Role, TraceId};

/// What httpd has taken over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Served {
    /// It owns the port for HTTP-01.
    pub(crate) http: bool,
    /// Where it does HTTPS, if it does.
    https: Option<String>,
    /// `suite.hostname`, and what the records of our domains say, if it serves any of them.
    web: Option<(String, zone::Config)>,
}

impl Served {
    /// # Errors
    /// Sections that make no sense.
    pub(crate) fn of(document: &Document, config: &Config) -> Result<Self, String> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Httpd {
            http_address: Option<String>,
            https_address: Option<String>,
        }
        if !document.enabled(Role::Httpd) {
            return Ok(Self::default());
        }
        let told = |error: runtime::Failure| error.to_string();
        let httpd: Httpd = document.section(Role::Httpd.name()).map_err(told)?;
        let dns: zone::Config = document.section("dns").map_err(told)?;
        let host = document.suite().map_err(told)?.hostname;
        let wanted = config.enabled && config.web_hosts && dns.serves_web(&host);
        let served = Self {
            http: httpd.http_address.is_none_or(|address| !address.is_empty()),
            https: Some(httpd.https_address.unwrap_or_else(|| "[::]:443".to_owned())),
            web: wanted.then_some((host, dns)),
        };
        // RFC 8737 3: the handshake would have to be ours, and is httpd's.
        if config.uses(ChallengeKind::TlsAlpn01)
            && served.https.as_ref() == Some(&config.tls_alpn_address)
        {
            return Err(format!(
                "certd.challenge: tls-alpn-01 needs {}, where httpd serves HTTPS: use http-01 or dns-01",
                config.tls_alpn_address
            ));
        }
        Ok(served)
    }

    /// The certificates for these domains, beside those of the configuration. One each: a domain whose records do not lead here yet is
    /// in nobody's way.
    fn targets(&self, config: &Config, own: &[Target], domains: &[String]) -> Vec<Target> {
        let Some((host, dns)) = &self.web else {
            return Vec::new();
        };
        let hosts = domains.iter().flat_map(|domain| {
            let of = dns.of(domain);
            let policy = of.mta_sts != zone::MtaStsMode::Off && dns.serves_policies(host);
            let policy = policy.then(|| format!("mta-sts.{domain}"));
            let autoconfig = of.serves_autoconfig(host);
            let autoconfig = autoconfig.then(|| format!("autoconfig.{domain}"));
            [policy, autoconfig].into_iter().flatten()
        });
        let fresh = hosts.filter(|host| !own.iter().any(|target| target.covers(host)));
        fresh
            .map(|host| Target {
                id: host.clone(),
                names: vec![host],
                challenge: config.challenge,
            })
            .collect()
    }
}

impl Worker {
    /// Asks which domains are ours now, if that matters.
    pub(crate) async fn follow_domains(&mut self) {
        if self.served.web.is_some() {
            match self.authd.call(TraceId(0), &DomainNames).await {
                Ok(domains) => self.domains = Some(domains),
                Err(error) => {
                    tracing::warn!(%error, "certificates for the hosts of our domains wait for authd");
                }
            }
        }
        self.join_targets();
    }

    /// Whether it is known which certificates there shall be: before that none is given up.
    pub(crate) fn knows_all(&self) -> bool {
        self.served.web.is_none() || self.domains.is_some()
    }

    /// What the configuration names, and what follows from the domains.
    pub(crate) fn join_targets(&mut self) {
        let domains = self.domains.as_deref().unwrap_or_default();
        let more = self.served.targets(&self.config, &self.configured, domains);
        let all: Vec<Target> = self.configured.iter().cloned().chain(more).collect();
        if all != self.targets {
            self.targets = all;
            self.board.begin(&self.config, &self.targets);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn served(text: &str) -> Result<Served, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("posthouse.toml");
        std::fs::write(&file, text).unwrap();
        let document = Document::load(&file).unwrap();
        let config: Config = document.section("certd").unwrap();
        Served::of(&document, &config)
    }

    const ON: &str =
        "[suite]\nhostname = 'mail.example'\n[httpd]\nenabled = true\n[dns]\nmta_sts = 'testing'\n";

    #[test]
    fn each_domain_with_a_policy_has_a_certificate() {
        let config = Config {
            enabled: true,
            ..Config::default()
        };
        let own = config.targets(&["mail.example".to_owned()]).unwrap();
        let domains = ["a.example", "b.example", "off.example"].map(str::to_owned);
        let ids = |served: &Served, own: &[Target]| -> Vec<String> {
            let targets = served.targets(&config, own, &domains);
            targets.into_iter().map(|target| target.id).collect()
        };
        let on = format!("{ON}domain.'off.example'.mta_sts = 'off'\n[certd]\nenabled = true\n");
        let on = served(&on).unwrap();
        assert_eq!(ids(&on, &own), ["mta-sts.a.example", "mta-sts.b.example"]);
        let mut wide = own.clone();
        wide[0].names.push("*.a.example".to_owned());
        assert_eq!(ids(&on, &wide), ["mta-sts.b.example"]);
        let programs = format!(
            "{}autoconfig = 'Mail.example'\n[certd]\nenabled = true\n",
            ON.replace("testing", "off")
        );
        let programs = ids(&served(&programs).unwrap(), &own);
        assert_eq!(
            programs[..2],
            ["autoconfig.a.example", "autoconfig.b.example"]
        );
        for off in [
            ON.replace("enabled = true", "enabled = false") + "[certd]\nenabled = true\n",
            ON.replace("testing", "off") + "[certd]\nenabled = true\n",
            format!("{ON}mta_sts_host = 'www.example'\n[certd]\nenabled = true\n"),
            format!("{ON}[certd]\nenabled = true\nweb_hosts = false\n"),
            ON.to_owned(),
        ] {
            assert_eq!(ids(&served(&off).unwrap(), &own), [""; 0], "{off}");
        }
    }

    #[test]
    fn ports_have_one_owner() {
        let with = |httpd: &str, certd: &str| {
            served(&format!(
                "[httpd]\nenabled = true\n{httpd}\n[certd]\nenabled = true\n{certd}\n"
            ))
        };
        assert!(with("", "").unwrap().http);
        assert!(!with("http_address = ''", "").unwrap().http);
        let alpn = "challenge = 'tls-alpn-01'";
        assert!(with("", alpn).unwrap_err().contains("dns-01"));
        assert!(with("https_address = '192.0.2.1:443'", alpn).is_ok());
        assert!(!served("[certd]\nenabled = true\n").unwrap().http);
    }
}
