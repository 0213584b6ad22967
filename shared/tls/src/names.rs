//! Which certificate for which name.

use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::sync::Arc;

/// Certificates by name.
#[derive(Debug)]
pub(crate) struct Chosen {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// By what stands behind `*.`.
    wild: HashMap<String, Arc<CertifiedKey>>,
    default: Option<Arc<CertifiedKey>>,
}

impl Chosen {
    /// The first is for clients that name nothing, or something unknown. An earlier one wins a name.
    pub(crate) fn new(keys: Vec<(Vec<String>, Arc<CertifiedKey>)>) -> Self {
        let default = keys.first().map(|(_, key)| Arc::clone(key));
        let (mut exact, mut wild) = (HashMap::new(), HashMap::new());
        for (names, key) in keys {
            for name in names {
                let (table, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut wild, parent.to_owned()),
                    None => (&mut exact, name),
                };
                table
                    .entry(name.to_ascii_lowercase())
                    .or_insert_with(|| Arc::clone(&key));
            }
        }
        Self {
            exact,
            wild,
            default,
        }
    }

    /// RFC 6066 3, RFC 6125 6.4.3: exact first, then one label for a `*`, then the default.
    pub(crate) fn for_name(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let found = name.and_then(|name| self.named(name));
        found.or(self.default.as_ref()).cloned()
    }

    /// Whether one is for the name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.named(name).is_some()
    }

    fn named(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let name = name.to_ascii_lowercase();
        let parent = name.split_once('.').map(|(_, parent)| parent);
        self.exact.get(&name).or_else(|| self.wild.get(parent?))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::signer::RemoteKey;
    use ipc::blocking;
    use rustls_pki_types::CertificateDer;
    use types::Role;

    fn chosen(names: &[&[&str]]) -> Chosen {
        let keyd = Arc::new(blocking::Client::new(Role::Imapd, Role::Keyd, "/nowhere"));
        let key = |at: usize| {
            let chain = vec![CertificateDer::from(vec![u8::try_from(at).unwrap()])];
            let key = Arc::new(RemoteKey::new(0, &[], Arc::clone(&keyd)));
            Arc::new(CertifiedKey::new(chain, key))
        };
        let keys = names.iter().enumerate().map(|(at, names)| {
            let names = names.iter().map(|name| (*name).to_owned());
            (names.collect(), key(at))
        });
        Chosen::new(keys.collect())
    }

    fn which(chosen: &Chosen, name: Option<&str>) -> Option<u8> {
        let key = chosen.for_name(name)?;
        key.cert.first()?.as_ref().first().copied()
    }

    #[test]
    fn exact_names_go_before_wildcards_and_these_before_the_default() {
        let chosen = chosen(&[
            &["mail.example.org"],
            &["*.example.org", "example.org"],
            &["imap.example.org", "mail.example.org"],
        ]);
        for (name, at) in [
            (None, 0),
            (Some("mail.example.org"), 0),
            (Some("MAIL.Example.ORG"), 0),
            (Some("imap.example.org"), 2),
            (Some("smtp.example.org"), 1),
            (Some("example.org"), 1),
            // RFC 6125 6.4.3: a wildcard is one label.
            (Some("a.b.example.org"), 0),
            (Some("elsewhere.test"), 0),
            (Some("org"), 0),
        ] {
            assert_eq!(which(&chosen, name), Some(at), "{name:?}");
            let stranger = ["a.b.example.org", "elsewhere.test", "org"];
            let known = name.is_some_and(|name| !stranger.contains(&name));
            assert_eq!(name.is_some_and(|name| chosen.has(name)), known, "{name:?}");
        }
    }

    #[test]
    fn without_certificates_there_is_none() {
        assert_eq!(which(&chosen(&[]), Some("example.org")), None);
    }
}
