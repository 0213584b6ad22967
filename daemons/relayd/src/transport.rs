//! The section `[relayd.tls]`: how well mail is protected on its way to which destination.

use ipc::api::relayd::TlsDemand;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::PathBuf;

/// What is demanded of a destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// What the destination publishes by DANE or MTA-STS; `may` if it publishes neither.
    #[default]
    Auto,
    /// No TLS.
    None,
    /// TLS where the host offers it, in the clear if that fails. The certificate is not verified (RFC 7435).
    May,
    /// TLS or nothing. The certificate is not verified.
    Encrypt,
    /// What it publishes by DANE; `may` if it publishes nothing.
    Dane,
    /// DANE or nothing.
    DaneOnly,
    /// What it publishes by MTA-STS; `may` if it publishes nothing.
    MtaSts,
    /// A policy of MTA-STS, in mode `enforce` or `testing`, is kept to as if it were `enforce`; without one there is nothing.
    MtaStsOnly,
    /// TLS with a certificate of an authority for the host's name, as MX gives it.
    Verify,
    /// The same, for the destination's own name: what MX says need not be believed.
    Secure,
}

impl Level {
    /// As in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::None => "none",
            Self::May => "may",
            Self::Encrypt => "encrypt",
            Self::Dane => "dane",
            Self::DaneOnly => "dane-only",
            Self::MtaSts => "mta-sts",
            Self::MtaStsOnly => "mta-sts-only",
            Self::Verify => "verify",
            Self::Secure => "secure",
        }
    }

    /// What a rule of the queue wants goes before this. Where something is promised that needs TLS (REQUIRETLS, a password, TLS from
    /// the first octet), it can only ask for more; and that TLS is a must never makes less of what must be proved.
    pub(crate) fn or(self, wanted: Option<TlsDemand>, promised: bool) -> Self {
        match (wanted, self) {
            (Some(TlsDemand::None), _) if !promised => Self::None,
            (Some(TlsDemand::Opportunistic), _) if !promised => Self::May,
            (Some(TlsDemand::Required), Self::None | Self::May) => Self::Encrypt,
            (Some(TlsDemand::Verified), level) if level != Self::Secure => Self::Verify,
            (_, level) => level,
        }
    }

    /// Whether TLSA records are looked up.
    pub(crate) fn wants_dane(self) -> bool {
        matches!(self, Self::Auto | Self::Dane | Self::DaneOnly)
    }

    /// Whether a policy is looked up.
    pub(crate) fn wants_sts(self) -> bool {
        matches!(self, Self::Auto | Self::MtaSts | Self::MtaStsOnly)
    }

    /// Whether it is what the destination publishes that counts, so that the sender may do without it (RFC 8689 4.2.2).
    pub(crate) fn is_theirs(self) -> bool {
        matches!(self, Self::Auto | Self::Dane | Self::MtaSts)
    }
}

/// The oldest version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MinVersion {
    /// TLS 1.2 (RFC 5246)
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    /// TLS 1.3 (RFC 8446)
    #[serde(rename = "1.3")]
    Tls13,
}

/// Whether signatures in DNS are checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dnssec {
    /// If the name servers give them: whether they do is tried at the root zone. Once they did, they have to until the
    /// restart.
    #[default]
    Auto,
    /// Always: name servers that leave them out make all mail wait.
    Require,
    /// Never: no DANE.
    Off,
}

/// The section `[relayd.tls]`. A single word instead, `tls = "encrypt"`, is its `policy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Transport {
    /// What is demanded of destinations that are not in the table: `auto` (default: DANE and MTA-STS where they are published,
    /// else `may`), `none`, `may`, `encrypt`, `dane`, `dane-only`, `mta-sts`, `mta-sts-only`, `verify`, `secure`.
    /// docs/transport.md says what each is.
    pub policy: Level,
    /// The oldest version of TLS: `1.2` (default) or `1.3`.
    pub min_version: MinVersion,
    /// Whether signatures in DNS are checked: `auto` (default: if the name servers give them), `require`, `off`.
    pub dnssec: Dnssec,
    /// A file of DNSKEY records that trust in DNS begins with, instead of the root zone's keys, which are built in. For tests
    /// and roots of one's own.
    pub trust_anchors: Option<PathBuf>,
    /// The port that policies of MTA-STS are fetched from. 443; others are for tests.
    pub mta_sts_port: u16,
    /// Seconds that fetching a policy may take. 30.
    pub mta_sts_timeout: u64,
    /// Policies kept in memory at most. 10,000.
    pub mta_sts_cache: usize,
    /// Seconds after which a policy is fetched again although its id has not changed. 86,400.
    pub mta_sts_refresh: u64,
    /// What is different for a destination, as `[relayd.tls.destination."example.org"]`; `".example.org"` is all below it.
    pub destination: BTreeMap<String, DestinationTls>,
}

impl Default for Transport {
    fn default() -> Self {
        Self {
            policy: Level::default(),
            min_version: MinVersion::default(),
            dnssec: Dnssec::default(),
            trust_anchors: None,
            mta_sts_port: 443,
            mta_sts_timeout: 30,
            mta_sts_cache: 10_000,
            mta_sts_refresh: 86_400,
            destination: BTreeMap::new(),
        }
    }
}

/// `[relayd.tls.destination."example.org"]`: each setting counts instead of the one in `[relayd.tls]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DestinationTls {
    /// [`Transport::policy`].
    pub policy: Option<Level>,
    /// [`Transport::min_version`].
    pub min_version: Option<MinVersion>,
    /// With `verify` and `secure`: names of which the certificate must have one. `hostname` stands for the exchanger's name,
    /// `nexthop` for the destination's, `dot-nexthop` for those below it; `.example.org` for all below that.
    pub names: Option<Vec<String>>,
}

/// Takes the table, or the word that stood there before there was one.
pub(crate) fn table_or_word<'de, D: Deserializer<'de>>(from: D) -> Result<Transport, D::Error> {
    struct Either;
    impl<'de> Visitor<'de> for Either {
        type Value = Transport;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("the table [relayd.tls], or its policy as one word")
        }

        fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<Transport, E> {
            let policy = match word {
                "opportunistic" => Level::Auto,
                "required" => Level::Encrypt,
                other => {
                    let other: serde::de::value::StrDeserializer<'_, E> =
                        serde::de::IntoDeserializer::into_deserializer(other);
                    Level::deserialize(other).map_err(E::custom)?
                }
            };
            Ok(Transport {
                policy,
                ..Transport::default()
            })
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Transport, A::Error> {
            Transport::deserialize(MapAccessDeserializer::new(map)).map_err(A::Error::custom)
        }
    }
    from.deserialize_any(Either)
}

/// What holds for one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) level: Level,
    pub(crate) min_version: MinVersion,
    pub(crate) names: Vec<String>,
    /// The entry that says so.
    pub(crate) entry: Option<String>,
}

/// The table, ready to be asked.
pub(crate) struct Rules {
    default: Rule,
    entries: HashMap<String, DestinationTls>,
}

impl Rules {
    pub(crate) fn of(transport: &Transport) -> Self {
        let entries = transport.destination.iter();
        Self {
            default: Rule {
                level: transport.policy,
                min_version: transport.min_version,
                names: Vec::new(),
                entry: None,
            },
            entries: entries
                .map(|(key, entry)| (key.to_ascii_lowercase(), entry.clone()))
                .collect(),
        }
    }

    /// For a domain: its own entry, else that of the nearest domain above it that is for all below.
    pub(crate) fn domain(&self, domain: &str) -> Rule {
        self.find(domain).unwrap_or_else(|| self.default.clone())
    }

    /// For a host that a route names: `[host]:port`, `[host]`, then as for a domain. `None` if there is no entry.
    pub(crate) fn next_hop(&self, host: &str, port: u16) -> Option<Rule> {
        let bare = host.trim_matches(['[', ']']);
        [format!("[{bare}]:{port}"), format!("[{bare}]")]
            .iter()
            .find_map(|key| self.entry(key))
            .or_else(|| self.find(bare))
    }

    fn find(&self, domain: &str) -> Option<Rule> {
        let domain = domain.to_ascii_lowercase();
        if let Some(rule) = self.entry(&domain) {
            return Some(rule);
        }
        let mut above = domain.as_str();
        while let Some((_, parent)) = above.split_once('.') {
            let found = self
                .entry(&format!(".{parent}"))
                .or_else(|| self.entry(&format!("*.{parent}")));
            if found.is_some() {
                return found;
            }
            above = parent;
        }
        None
    }

    fn entry(&self, key: &str) -> Option<Rule> {
        let entry = self.entries.get(key)?;
        Some(Rule {
            level: entry.policy.unwrap_or(self.default.level),
            min_version: entry.min_version.unwrap_or(self.default.min_version),
            names: entry.names.clone().unwrap_or_default(),
            entry: Some(key.to_owned()),
        })
    }
}

impl Rule {
    /// The names of which a certificate must have one.
    pub(crate) fn certificate_names(&self, host: &str, next_hop: &str) -> Vec<String> {
        let defaults = match self.level {
            Level::Secure => vec!["nexthop".to_owned(), "dot-nexthop".to_owned()],
            _ => vec!["hostname".to_owned()],
        };
        let names = if self.names.is_empty() {
            &defaults
        } else {
            &self.names
        };
        names
            .iter()
            .map(|name| match name.as_str() {
                "hostname" => host.to_owned(),
                "nexthop" => next_hop.to_owned(),
                "dot-nexthop" => format!(".{next_hop}"),
                other => other.trim_end_matches('.').to_ascii_lowercase(),
            })
            .collect()
    }
}

impl Transport {
    /// What makes no sense.
    ///
    /// # Errors
    /// A text that names the setting.
    pub(crate) fn validate(&self) -> Result<(), String> {
        for (key, entry) in &self.destination {
            let at = format!("[relayd.tls.destination.\"{key}\"]");
            if key.is_empty() || key.contains(char::is_whitespace) {
                return Err(format!("{at}: no destination is called so"));
            }
            let level = entry.policy.unwrap_or(self.policy);
            let named = matches!(level, Level::Verify | Level::Secure);
            if entry.names.as_ref().is_some_and(|names| !names.is_empty()) && !named {
                let level = level.name();
                return Err(format!(
                    "{at}: `names` is for the policies verify and secure, not {level}"
                ));
            }
            if self.dnssec == Dnssec::Off && level == Level::DaneOnly {
                return Err(format!(
                    "{at}: dane-only cannot be kept to with dnssec = \"off\""
                ));
            }
        }
        if self.dnssec == Dnssec::Off && self.policy == Level::DaneOnly {
            return Err(
                "[relayd.tls]: dane-only cannot be kept to with dnssec = \"off\"".to_owned(),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_rule_goes_before_the_table_but_not_before_a_promise() {
        use TlsDemand::{None as Plain, Opportunistic, Required, Verified};
        for (level, wanted, promised, expected) in [
            (Level::Auto, Plain, false, Level::None),
            (Level::Encrypt, Opportunistic, false, Level::May),
            (Level::May, Required, false, Level::Encrypt),
            (Level::None, Verified, false, Level::Verify),
            // What is published stays, and TLS with it: see Demand::at_least.
            (Level::Auto, Required, false, Level::Auto),
            (Level::DaneOnly, Required, false, Level::DaneOnly),
            (Level::Secure, Verified, false, Level::Secure),
            (Level::Auto, Plain, true, Level::Auto),
            (Level::Encrypt, Opportunistic, true, Level::Encrypt),
            (Level::Verify, Required, true, Level::Verify),
        ] {
            let level_then = level.or(Some(wanted), promised);
            assert_eq!(level_then, expected, "{level:?} {wanted:?} {promised}");
            assert_eq!(level.or(None, promised), level);
        }
    }

    fn transport(entries: &[(&str, Level)]) -> Transport {
        let entry = |(key, level): &(&str, Level)| {
            let entry = DestinationTls {
                policy: Some(*level),
                ..DestinationTls::default()
            };
            ((*key).to_owned(), entry)
        };
        Transport {
            destination: entries.iter().map(entry).collect(),
            ..Transport::default()
        }
    }

    #[test]
    fn the_nearest_entry_counts() {
        let rules = Rules::of(&transport(&[
            ("Example.org", Level::Encrypt),
            (".example.org", Level::Verify),
            ("*.deep.example.org", Level::May),
            (".org", Level::None),
        ]));
        for (domain, level) in [
            ("example.org", Level::Encrypt),
            ("EXAMPLE.ORG", Level::Encrypt),
            ("a.example.org", Level::Verify),
            ("deep.example.org", Level::Verify),
            ("a.b.deep.example.org", Level::May),
            ("other.org", Level::None),
            ("org", Level::Auto),
            ("example.com", Level::Auto),
            ("xexample.org", Level::None),
        ] {
            assert_eq!(rules.domain(domain).level, level, "{domain}");
        }
    }

    #[test]
    fn next_hops_are_named_with_or_without_port() {
        let rules = Rules::of(&transport(&[
            ("[smart.example]:587", Level::Secure),
            ("[smart.example]", Level::Encrypt),
            (".hosts.example", Level::Verify),
        ]));
        let level = |host, port| rules.next_hop(host, port).map(|rule| rule.level);
        assert_eq!(level("smart.example", 587), Some(Level::Secure));
        assert_eq!(level("[smart.example]", 25), Some(Level::Encrypt));
        assert_eq!(level("a.hosts.example", 25), Some(Level::Verify));
        assert_eq!(level("other.example", 25), None);
        // An entry for a host is none for the domain of that name.
        assert_eq!(rules.domain("smart.example").level, Level::Auto);
    }

    #[test]
    fn names_of_certificates() {
        let mut rule = Rules::of(&transport(&[("t.example", Level::Secure)])).domain("t.example");
        assert_eq!(
            rule.certificate_names("mx.example", "t.example"),
            ["t.example", ".t.example"]
        );
        rule.names = vec!["hostname".to_owned(), ".Mail.example".to_owned()];
        assert_eq!(
            rule.certificate_names("mx.example", "t.example"),
            ["mx.example", ".mail.example"]
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let mut bad = transport(&[("t.example", Level::May)]);
        bad.destination.get_mut("t.example").unwrap().names = Some(vec!["hostname".to_owned()]);
        assert!(bad.validate().unwrap_err().contains("names"));
        let mut bad = transport(&[("t.example", Level::DaneOnly)]);
        assert!(bad.validate().is_ok());
        bad.dnssec = Dnssec::Off;
        assert!(bad.validate().unwrap_err().contains("dnssec"));
    }
}
