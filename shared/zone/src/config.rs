//! The section `[dns]`.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What is promised to senders that fetch our policy (RFC 8461 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MtaStsMode {
    /// No policy, and no record.
    #[default]
    Off,
    /// A policy that promises nothing: the way to withdraw one.
    None,
    /// Failures are reported, mail comes regardless.
    Testing,
    /// Mail comes by TLS with a valid certificate or not at all.
    Enforce,
}

impl MtaStsMode {
    /// The word in the policy.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Off | Self::None => "none",
            Self::Testing => "testing",
            Self::Enforce => "enforce",
        }
    }
}

/// The section `[dns]`: what the records of our domains are to say. `{domain}` and `{host}` in a text stand for the domain and
/// for `suite.hostname`; an empty text is a record that is not wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Seconds for which others may keep the records.
    pub ttl: u32,
    /// The public addresses of `suite.hostname`. Without them its A and AAAA records are neither printed nor compared.
    pub addresses: Vec<IpAddr>,
    /// Mail exchangers, `10 mx.example.org`; without any it is `suite.hostname`.
    pub mx: Vec<String>,
    /// SPF of the domain (RFC 7208).
    pub spf: String,
    /// SPF of `suite.hostname`, for the name in EHLO (RFC 7208 2.3).
    pub host_spf: String,
    /// DMARC (RFC 7489).
    pub dmarc: String,
    /// Where others report trouble with TLS (RFC 8460 3).
    pub tls_rpt: String,
    /// MTA-STS (RFC 8461): `off`, `none`, `testing` or `enforce`. The policy must be served by HTTPS at `mta-sts.` and the domain.
    pub mta_sts: MtaStsMode,
    /// Seconds for which a policy holds at those who fetched it; up to 31,557,600.
    pub mta_sts_max_age: u32,
    /// The host that serves the policy; `suite.hostname` if it is empty.
    pub mta_sts_host: String,
    /// TLSA records of the mail exchangers (RFC 7672). They count in signed zones only.
    pub tlsa: bool,
    /// SRV records that mail programs look for.
    pub srv: bool,
    /// The host that serves autoconfig and autodiscover by HTTPS; empty: none does.
    pub autoconfig: String,
    /// Who may issue certificates (RFC 8659): `letsencrypt.org`, or with the account,
    /// `letsencrypt.org; accounturi=https://...` (RFC 8657). Empty: nothing is said.
    pub caa: Vec<String>,
    /// What is different for a domain, as `[dns.domain."example.org"]`.
    pub domain: BTreeMap<String, DomainConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ttl: 3600,
            addresses: Vec::new(),
            mx: Vec::new(),
            spf: "v=spf1 mx -all".to_owned(),
            host_spf: "v=spf1 a -all".to_owned(),
            dmarc: "v=DMARC1; p=quarantine; rua=mailto:postmaster@{domain}".to_owned(),
            tls_rpt: "v=TLSRPTv1; rua=mailto:postmaster@{domain}".to_owned(),
            mta_sts: MtaStsMode::Off,
            mta_sts_max_age: 604_800,
            mta_sts_host: String::new(),
            tlsa: true,
            srv: true,
            autoconfig: String::new(),
            caa: Vec::new(),
            domain: BTreeMap::new(),
        }
    }
}

/// `[dns.domain."example.org"]`: each setting counts instead of the one in `[dns]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DomainConfig {
    /// [`Config::mx`].
    pub mx: Option<Vec<String>>,
    /// [`Config::spf`].
    pub spf: Option<String>,
    /// [`Config::dmarc`].
    pub dmarc: Option<String>,
    /// [`Config::tls_rpt`].
    pub tls_rpt: Option<String>,
    /// [`Config::mta_sts`].
    pub mta_sts: Option<MtaStsMode>,
    /// [`Config::tlsa`].
    pub tlsa: Option<bool>,
    /// [`Config::srv`].
    pub srv: Option<bool>,
    /// [`Config::autoconfig`].
    pub autoconfig: Option<String>,
    /// [`Config::caa`].
    pub caa: Option<Vec<String>>,
}

impl Config {
    /// What holds for a domain (A-label, lower case): the section, with what is said of the domain put over it.
    #[must_use]
    pub fn of(&self, domain: &str) -> Self {
        let mut config = self.clone();
        let own = std::mem::take(&mut config.domain);
        let same = |(name, _): &(&String, &DomainConfig)| name.eq_ignore_ascii_case(domain);
        if let Some((_, own)) = own.iter().find(same) {
            let own = own.clone();
            config.mx = own.mx.unwrap_or(config.mx);
            config.spf = own.spf.unwrap_or(config.spf);
            config.dmarc = own.dmarc.unwrap_or(config.dmarc);
            config.tls_rpt = own.tls_rpt.unwrap_or(config.tls_rpt);
            config.mta_sts = own.mta_sts.unwrap_or(config.mta_sts);
            config.tlsa = own.tlsa.unwrap_or(config.tlsa);
            config.srv = own.srv.unwrap_or(config.srv);
            config.autoconfig = own.autoconfig.unwrap_or(config.autoconfig);
            config.caa = own.caa.unwrap_or(config.caa);
        }
        config
    }

    /// With reports going to the addresses that are there for them, where nobody said otherwise and mail for them is `taken`.
    #[must_use]
    pub fn with_reports(mut self, domain: &str, taken: impl Fn(&str) -> bool) -> Self {
        let default = Self::default();
        let ours = |text: &mut String, default: &str, local: &str| {
            if text == default && taken(&format!("{local}@{domain}")) {
                *text = text.replace("mailto:postmaster@", &format!("mailto:{local}@"));
            }
        };
        ours(&mut self.dmarc, &default.dmarc, "dmarc-reports");
        ours(&mut self.tls_rpt, &default.tls_rpt, "tls-reports");
        self
    }

    /// Whether `host` (`suite.hostname`) is to serve the MTA-STS policy of any domain.
    #[must_use]
    pub fn serves_policies(&self, host: &str) -> bool {
        let elsewhere = self.mta_sts_host.trim_end_matches('.');
        let here = elsewhere.is_empty() || elsewhere.eq_ignore_ascii_case(host);
        let mut own = self.domain.values().filter_map(|domain| domain.mta_sts);
        here && (self.mta_sts != MtaStsMode::Off || own.any(|mode| mode != MtaStsMode::Off))
    }

    /// Whether `host` (`suite.hostname`) is to serve anything by HTTPS for any domain.
    #[must_use]
    pub fn serves_web(&self, host: &str) -> bool {
        let mut domains = self.domain.keys().map(|domain| self.of(domain));
        self.serves_policies(host)
            || self.serves_autoconfig(host)
            || domains.any(|domain| domain.serves_autoconfig(host))
    }

    /// Whether `host` (`suite.hostname`) is to answer mail programs. For what holds for a domain: [`Config::of`].
    #[must_use]
    pub fn serves_autoconfig(&self, host: &str) -> bool {
        self.autoconfig
            .trim_end_matches('.')
            .eq_ignore_ascii_case(host)
    }

    /// What makes no sense in the section, if anything does.
    ///
    /// # Errors
    /// A text for the operator that names the setting.
    pub fn validate(&self) -> Result<(), String> {
        self.validate_one("dns")?;
        for name in self.domain.keys() {
            self.of(name).validate_one(&format!("dns.domain.{name}"))?;
        }
        Ok(())
    }

    fn validate_one(&self, section: &str) -> Result<(), String> {
        for line in &self.mx {
            exchanger(line).ok_or_else(|| {
                format!(
                    "{section}.mx: {line:?} is not a preference and a host, as `10 mx.example.org`"
                )
            })?;
        }
        let begins = [
            ("spf", &self.spf, "v=spf1"),
            ("host_spf", &self.host_spf, "v=spf1"),
            ("dmarc", &self.dmarc, "v=DMARC1"),
            ("tls_rpt", &self.tls_rpt, "v=TLSRPTv1"),
        ];
        for (key, text, begin) in begins {
            if !text.is_empty() && !text.starts_with(begin) {
                return Err(format!("{section}.{key}: the text must begin with {begin}"));
            }
            if text.chars().any(char::is_control) {
                return Err(format!(
                    "{section}.{key}: there is a control character in it"
                ));
            }
        }
        for issuer in &self.caa {
            if issuer.trim().is_empty() || issuer.chars().any(char::is_control) {
                return Err(format!(
                    "{section}.caa: {issuer:?} names no issuer, as `letsencrypt.org`"
                ));
            }
        }
        for (key, host) in [
            ("mta_sts_host", &self.mta_sts_host),
            ("autoconfig", &self.autoconfig),
        ] {
            if !host.is_empty() && !is_host(host) {
                return Err(format!("{section}.{key}: {host:?} is no host name"));
            }
        }
        // RFC 8461 3.2
        if self.mta_sts_max_age > 31_557_600 {
            return Err(format!("{section}.mta_sts_max_age: 31,557,600 at most"));
        }
        Ok(())
    }

    /// The mail exchangers in order: preference and host, lower case.
    #[must_use]
    pub fn exchangers(&self, host: &str) -> Vec<(u16, String)> {
        let mut list: Vec<(u16, String)> =
            self.mx.iter().filter_map(|line| exchanger(line)).collect();
        if list.is_empty() {
            list.push((10, host.to_ascii_lowercase()));
        }
        list.sort();
        list.dedup();
        list
    }
}

fn exchanger(line: &str) -> Option<(u16, String)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (preference, host) = match words.as_slice() {
        [host] => (10, *host),
        [preference, host] => (preference.parse().ok()?, *host),
        _ => return None,
    };
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    is_host(&host).then_some((preference, host))
}

/// Letters, digits and hyphens in labels (RFC 1123 2.1).
fn is_host(name: &str) -> bool {
    let fine = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    name.len() <= 253 && name.trim_end_matches('.').split('.').all(fine)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_domain_has_settings_of_its_own() {
        let config: Config = toml::from_str(
            "mx = ['20 b.example', 'A.example.']\n[domain.'one.example']\nspf = ''\nmta_sts = 'enforce'",
        )
        .unwrap();
        config.validate().unwrap();
        assert_eq!(
            config.exchangers("x"),
            [(10, "a.example".to_owned()), (20, "b.example".to_owned())]
        );
        assert_eq!(config.of("two.example").spf, "v=spf1 mx -all");
        let one = config.of("ONE.example");
        assert_eq!((one.spf.as_str(), one.mta_sts), ("", MtaStsMode::Enforce));
        assert_eq!(one.dmarc, config.dmarc);
    }

    #[test]
    fn reports_go_where_they_are_taken() {
        let config = Config::default()
            .with_reports("a.example", |address| address == "dmarc-reports@a.example");
        assert!(config.dmarc.contains("rua=mailto:dmarc-reports@{domain}"));
        assert!(config.tls_rpt.contains("rua=mailto:postmaster@{domain}"));
        let own = Config {
            dmarc: "v=DMARC1; p=none".to_owned(),
            ..Config::default()
        };
        assert_eq!(
            own.clone().with_reports("a.example", |_| true).dmarc,
            own.dmarc
        );
    }

    #[test]
    fn nonsense_is_named() {
        for (text, word) in [
            ("mx = ['ten mx.example']", "dns.mx"),
            ("mx = ['10 mx_.exa mple']", "dns.mx"),
            ("spf = 'spf1 -all'", "dns.spf"),
            (
                "[domain.'a.example']\ndmarc = 'p=none'",
                "dns.domain.a.example.dmarc",
            ),
            ("caa = ['']", "dns.caa"),
            ("mta_sts_max_age = 40000000", "max_age"),
            ("autoconfig = 'a b'", "autoconfig"),
        ] {
            let config: Config = toml::from_str(text).unwrap();
            assert!(config.validate().unwrap_err().contains(word), "{text}");
        }
    }
}
