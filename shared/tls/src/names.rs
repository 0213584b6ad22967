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
        let found = name.and_then(|name| {
            let name = name.to_ascii_lowercase();
            let parent = name.split_once('.').map(|(_, parent)| parent);
            self.exact.get(&name).or_else(|| self.wild.get(parent?))
        });
        found.or(self.default.as_ref()).cloned()
    }
}
