//! DKIM keys (RFC 6376, RFC 8463): one PKCS#8 PEM file a key, `dkim/<domain>/<selector>.pem` in the state directory.
//!
//! An operator may put keys of another system there (also PKCS#1); they are found at start and on HUP. A key's state stands in
//! `<selector>.state` beside it; without that file it is active.

use crate::{KeyError, state_file};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256};
use aws_lc_rs::{digest, rand, rsa};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ipc::api::keyd::{DkimAlgorithm, DkimKey, DkimState};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

/// A private key. Its memory is cleared when it is dropped (AWS-LC does).
enum Secret {
    Rsa(Box<rsa::KeyPair>),
    Ed25519(Ed25519KeyPair),
}

/// A private key with what is public of it.
pub(crate) struct Key {
    secret: Secret,
    public: DkimKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.public.fmt(f)
    }
}

impl Key {
    /// Signs what RFC 6376 3.7 collects.
    ///
    /// # Errors
    /// [`KeyError::Crypto`].
    pub(crate) fn sign(&self, data: &[u8]) -> Result<Vec<u8>, KeyError> {
        match &self.secret {
            Secret::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(
                    &RSA_PKCS1_SHA256,
                    &rand::SystemRandom::new(),
                    data,
                    &mut signature,
                )
                .map_err(|_| KeyError::Crypto("RSA signature"))?;
                Ok(signature)
            }
            // RFC 8463 3: PureEdDSA over the SHA-256 of the data
            Secret::Ed25519(key) => Ok(key
                .sign(digest::digest(&digest::SHA256, data).as_ref())
                .as_ref()
                .to_vec()),
        }
    }

    fn from_pem(domain: &str, selector: &str, pem: &[u8]) -> Result<Self, KeyError> {
        let der = PrivateKeyDer::from_pem_slice(pem).map_err(|_| KeyError::NoKey)?;
        let rsa = match &der {
            PrivateKeyDer::Pkcs1(der) => rsa::KeyPair::from_der(der.secret_pkcs1_der()).ok(),
            PrivateKeyDer::Pkcs8(der) => rsa::KeyPair::from_pkcs8(der.secret_pkcs8_der()).ok(),
            _ => None,
        };
        let secret = match (rsa, &der) {
            (Some(key), _) => Secret::Rsa(Box::new(key)),
            (None, PrivateKeyDer::Pkcs8(der)) => Secret::Ed25519(
                Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der())
                    .map_err(|_| KeyError::NoKey)?,
            ),
            _ => return Err(KeyError::NoKey),
        };
        Self::new(domain, selector, secret)
    }

    fn new(domain: &str, selector: &str, secret: Secret) -> Result<Self, KeyError> {
        // RFC 6376 3.6.1; RFC 8463 4
        let (algorithm, record) = match &secret {
            Secret::Rsa(key) => {
                let spki = AsDer::<PublicKeyX509Der<'_>>::as_der(key.public_key())
                    .map_err(|_| KeyError::Crypto("RSA public key"))?;
                let text = BASE64.encode(spki.as_ref());
                (
                    DkimAlgorithm::Rsa2048,
                    format!("v=DKIM1; k=rsa; h=sha256; p={text}"),
                )
            }
            Secret::Ed25519(key) => {
                let text = BASE64.encode(key.public_key().as_ref());
                (
                    DkimAlgorithm::Ed25519,
                    format!("v=DKIM1; k=ed25519; h=sha256; p={text}"),
                )
            }
        };
        Ok(Self {
            secret,
            public: DkimKey {
                domain: domain.to_owned(),
                selector: selector.to_owned(),
                algorithm,
                record,
                state: DkimState::Active,
            },
        })
    }
}

/// The word in the state file; a second line is for later.
fn state_word(state: DkimState) -> &'static str {
    match state {
        DkimState::Prepared => "prepared",
        DkimState::Active => "active",
        DkimState::Retired => "retired",
    }
}

fn state_of(word: &str) -> Option<DkimState> {
    [DkimState::Prepared, DkimState::Active, DkimState::Retired]
        .into_iter()
        .find(|state| state_word(*state) == word)
}

/// A new key, and the PEM file that will hold it.
pub(crate) struct Fresh {
    key: Key,
    pem: Zeroizing<String>,
}

impl Fresh {
    /// Makes a key; RSA takes some 100 ms.
    ///
    /// # Errors
    /// [`KeyError::Crypto`].
    pub(crate) fn generate(
        domain: &str,
        selector: &str,
        algorithm: DkimAlgorithm,
    ) -> Result<Self, KeyError> {
        let failed = |_| KeyError::Crypto("key generation");
        let (secret, pem) = match algorithm {
            DkimAlgorithm::Rsa2048 => {
                let key = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).map_err(failed)?;
                let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&key).map_err(failed)?;
                (Secret::Rsa(Box::new(key)), pem(der.as_ref()))
            }
            DkimAlgorithm::Ed25519 => {
                let key = Ed25519KeyPair::generate().map_err(failed)?;
                let der = key.to_pkcs8v1().map_err(failed)?;
                (Secret::Ed25519(key), pem(der.as_ref()))
            }
        };
        Ok(Self {
            key: Key::new(domain, selector, secret)?,
            pem,
        })
    }
}

/// PKCS#8 in PEM (RFC 7468 10).
pub(crate) fn pem(der: &[u8]) -> Zeroizing<String> {
    let base64 = Zeroizing::new(BASE64.encode(der));
    let mut text = Zeroizing::new(String::with_capacity(base64.len() + base64.len() / 32 + 80));
    text.push_str("-----BEGIN PRIVATE KEY-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END PRIVATE KEY-----\n");
    text
}

/// A signing domain in the form in which keys are filed; it is safe as a file name.
fn domain_name(domain: &str) -> Result<String, KeyError> {
    let name = types::Address::domain_of(domain)
        .map_err(|error| KeyError::Invalid(format!("{domain}: {error}")))?;
    if name.starts_with('[') {
        return Err(KeyError::Invalid(format!(
            "{domain}: an address literal has no DNS records"
        )));
    }
    Ok(name)
}

/// A selector: one DNS label (RFC 6376 3.1 allows more of them, joined by dots).
fn selector_name(selector: &str) -> Result<String, KeyError> {
    let name = selector.to_ascii_lowercase();
    let fine = !name.is_empty()
        && name.len() <= 63
        && !name.starts_with('-')
        && !name.ends_with('-')
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_');
    if fine {
        Ok(name)
    } else {
        Err(KeyError::Invalid(
            "a selector is 1 to 63 letters, digits, - and _, such as 2026a".to_owned(),
        ))
    }
}

/// All DKIM keys, by domain and selector.
#[derive(Debug)]
pub(crate) struct DkimStore {
    directory: PathBuf,
    keys: BTreeMap<(String, String), Arc<Key>>,
    limit: usize,
}

impl DkimStore {
    /// Reads all keys. One that cannot be read is left out, and the log says so.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub(crate) fn open(state: &Path, limit: usize) -> io::Result<Self> {
        let directory = state.join("dkim");
        state_file::make_directory(&directory)?;
        let mut store = Self {
            directory,
            keys: BTreeMap::new(),
            limit,
        };
        store.reload()?;
        Ok(store)
    }

    /// Reads the directory again. A key whose file is broken now stays as it was.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(crate) fn reload(&mut self) -> io::Result<()> {
        let mut keys = BTreeMap::new();
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(domain) = name.to_str().and_then(|name| domain_name(name).ok()) else {
                continue;
            };
            if !entry.path().is_dir() {
                continue;
            }
            for file in std::fs::read_dir(entry.path())? {
                let path = file?.path();
                let stem = path.file_stem().and_then(|stem| stem.to_str());
                let Some(selector) = stem.and_then(|stem| selector_name(stem).ok()) else {
                    continue;
                };
                if path.extension().is_none_or(|extension| extension != "pem") {
                    continue;
                }
                let id = (domain.clone(), selector);
                match Self::read_key(&id, &path) {
                    Ok(key) => drop(keys.insert(id, Arc::new(key))),
                    Err(error) => {
                        tracing::error!(path = %path.display(), %error, "DKIM key left as it was: its file must be a PEM private key, RSA or Ed25519");
                        if let Some(old) = self.keys.get(&id) {
                            keys.insert(id, Arc::clone(old));
                        }
                    }
                }
            }
        }
        self.keys = keys;
        Ok(())
    }

    fn read_key(id: &(String, String), path: &Path) -> Result<Key, KeyError> {
        let pem = state_file::read(path)?.ok_or(KeyError::NoKey)?;
        let mut key = Key::from_pem(&id.0, &id.1, &pem)?;
        if let Some(octets) = state_file::read(&path.with_extension("state"))? {
            let text = String::from_utf8_lossy(&octets);
            let word = text.lines().next().unwrap_or_default().trim();
            key.public.state = state_of(word).ok_or_else(|| {
                KeyError::Invalid(format!(
                    "the state file beside it says {word:?}: prepared, active or retired is known"
                ))
            })?;
        }
        Ok(key)
    }

    /// Moves a key to another state.
    ///
    /// # Errors
    /// [`KeyError::Invalid`], [`KeyError::NotFound`], and those of the file system.
    pub(crate) fn mark(
        &mut self,
        domain: &str,
        selector: &str,
        state: DkimState,
    ) -> Result<DkimKey, KeyError> {
        let id = (domain_name(domain)?, selector_name(selector)?);
        if !self.keys.contains_key(&id) {
            return Err(KeyError::NotFound);
        }
        let path = self.path(&id.0, &id.1);
        Self::write_state(&path, state)?;
        // Read again, as keys cannot be copied.
        let key = Self::read_key(&id, &path)?;
        let public = key.public.clone();
        self.keys.insert(id, Arc::new(key));
        Ok(public)
    }

    fn write_state(path: &Path, state: DkimState) -> io::Result<()> {
        let text = format!("{}\n", state_word(state));
        state_file::write(&path.with_extension("state"), text.as_bytes())
    }

    /// The keys of a domain, or of all domains when it is empty; by domain and selector.
    pub(crate) fn list(&self, domain: &str) -> Vec<DkimKey> {
        let domain = domain.to_ascii_lowercase();
        if domain.is_empty() {
            return self.keys.values().map(|key| key.public.clone()).collect();
        }
        self.keys
            .range((domain.clone(), String::new())..)
            .take_while(|((of, _), _)| *of == domain)
            .map(|(_, key)| key.public.clone())
            .collect()
    }

    /// One key.
    pub(crate) fn get(&self, domain: &str, selector: &str) -> Option<Arc<Key>> {
        let id = (domain.to_ascii_lowercase(), selector.to_ascii_lowercase());
        self.keys.get(&id).cloned()
    }

    /// Whether a key of that name can be kept; gives the names in the form in which they are filed.
    ///
    /// # Errors
    /// [`KeyError::Invalid`], [`KeyError::Taken`], [`KeyError::TooMany`].
    pub(crate) fn vacancy(
        &self,
        domain: &str,
        selector: &str,
    ) -> Result<(String, String), KeyError> {
        let id = (domain_name(domain)?, selector_name(selector)?);
        if self.keys.len() >= self.limit {
            return Err(KeyError::TooMany(self.limit));
        }
        if self.keys.contains_key(&id) || self.path(&id.0, &id.1).exists() {
            return Err(KeyError::Taken);
        }
        Ok(id)
    }

    /// Keeps a new key.
    ///
    /// # Errors
    /// Those of [`DkimStore::vacancy`], and those of the file system.
    pub(crate) fn keep(&mut self, mut fresh: Fresh, state: DkimState) -> Result<DkimKey, KeyError> {
        fresh.key.public.state = state;
        let public = fresh.key.public.clone();
        let id = self.vacancy(&public.domain, &public.selector)?;
        let path = self.path(&id.0, &id.1);
        if let Some(directory) = path.parent() {
            state_file::make_directory(directory)?;
        }
        // The state first: a key that is not to be used yet must not be active after a kill between the two.
        Self::write_state(&path, state)?;
        state_file::write(&path, fresh.pem.as_bytes())?;
        self.keys.insert(id, Arc::new(fresh.key));
        Ok(public)
    }

    /// Removes a key for good, if it is there.
    ///
    /// # Errors
    /// [`KeyError::Invalid`], and those of the file system.
    pub(crate) fn remove(&mut self, domain: &str, selector: &str) -> Result<(), KeyError> {
        let id = (domain_name(domain)?, selector_name(selector)?);
        let path = self.path(&id.0, &id.1);
        state_file::remove(&path)?;
        state_file::remove(&path.with_extension("state"))?;
        // Only succeeds when it is empty.
        if let Some(directory) = path.parent() {
            let _ = std::fs::remove_dir(directory);
        }
        self.keys.remove(&id);
        Ok(())
    }

    fn path(&self, domain: &str, selector: &str) -> PathBuf {
        self.directory.join(domain).join(format!("{selector}.pem"))
    }
}

#[cfg(test)]
#[path = "dkim_tests.rs"]
mod tests;
