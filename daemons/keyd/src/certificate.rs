//! TLS certificates and their keys.

use crate::config::{CertificateFiles, Config};
use crate::issued::IssuedStore;
use crate::{KeyError, self_signed, state_file};
use aws_lc_rs::digest;
use ipc::api::keyd::Certificate;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{InconsistentKeys, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What TLS 1.2 and 1.3 can use of RSA, ECDSA and Ed25519 keys (RFC 8446 4.2.3), best first.
const SCHEMES: &[SignatureScheme] = &[
    SignatureScheme::ED25519,
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
];

/// A certificate that we can sign for.
#[derive(Clone)]
pub(crate) struct Held {
    pub(crate) public: Certificate,
    /// Seconds since 1970 from which the leaf is good.
    pub(crate) begins: u64,
    key: Arc<dyn SigningKey>,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.public.fmt(f)
    }
}

impl Held {
    /// Takes a chain and its key from PEM texts.
    ///
    /// # Errors
    /// Nothing usable in them, or a key that belongs to another certificate.
    pub(crate) fn from_pem(chain: &[u8], key: &[u8], self_signed: bool) -> Result<Self, KeyError> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(|_| KeyError::NoCertificate)?;
        let leaf = chain.first().ok_or(KeyError::NoCertificate)?;
        let der = PrivateKeyDer::from_pem_slice(key).map_err(|_| KeyError::NoKey)?;
        let key = any_supported_type(&der).map_err(|_| KeyError::NoKey)?;
        match CertifiedKey::new(chain.clone(), Arc::clone(&key)).keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => return Err(KeyError::Mismatch),
            Err(_) => return Err(KeyError::NoCertificate),
        }
        let Facts {
            names,
            begins,
            expires,
        } = facts(leaf)?;
        let schemes = SCHEMES
            .iter()
            .filter(|scheme| key.choose_scheme(&[**scheme]).is_some())
            .map(|scheme| u16::from(*scheme))
            .collect();
        let public = Certificate {
            key: number(leaf),
            names,
            chain: chain.iter().map(|der| der.as_ref().into()).collect(),
            schemes,
            expires,
            self_signed,
        };
        Ok(Self {
            public,
            begins,
            key,
        })
    }
}

/// The same certificate has the same number, also after a restart.
fn number(leaf: &[u8]) -> u64 {
    let hash = digest::digest(&digest::SHA256, leaf);
    hash.as_ref()
        .iter()
        .take(8)
        .fold(0, |number, octet| number << 8 | u64::from(*octet))
}

/// What a leaf says of itself.
struct Facts {
    names: Vec<String>,
    begins: u64,
    expires: u64,
}

/// The DNS names of the subjectAltName (RFC 6125 6.4.4: the common name only if there is none), and the validity.
fn facts(leaf: &[u8]) -> Result<Facts, KeyError> {
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| KeyError::NoCertificate)?;
    let mut names: Vec<String> = Vec::new();
    if let Ok(Some(extension)) = certificate.subject_alternative_name() {
        for name in &extension.value.general_names {
            if let GeneralName::DNSName(name) = name {
                names.push(name.to_ascii_lowercase());
            }
        }
    }
    if names.is_empty() {
        for name in certificate.subject().iter_common_name() {
            names.extend(name.as_str().ok().map(str::to_ascii_lowercase));
        }
    }
    let validity = certificate.validity();
    let seconds = |time: i64| u64::try_from(time).unwrap_or(0);
    Ok(Facts {
        names,
        begins: seconds(validity.not_before.timestamp()),
        expires: seconds(validity.not_after.timestamp()),
    })
}

/// The certificates in use, and the keys of those that were in use before the last change: handshakes under way, and
/// listeners which have not heard of the change yet, still need those.
#[derive(Debug)]
pub(crate) struct CertificateStore {
    state: PathBuf,
    host: String,
    held: Vec<Held>,
    /// By the files they came from: what stays when a file is broken.
    from_files: HashMap<CertificateFiles, Held>,
    /// What authorities made for keys of ours.
    pub(crate) issued: IssuedStore,
    retired: Vec<Held>,
}

impl CertificateStore {
    /// Loads all certificates; makes one if none is configured, or none can be used.
    ///
    /// # Errors
    /// None could be loaded, and none be made.
    pub(crate) fn open(
        state: &Path,
        host: &str,
        config: &Config,
        now: u64,
    ) -> Result<Self, KeyError> {
        let mut store = Self {
            state: state.to_owned(),
            host: host.to_owned(),
            held: Vec::new(),
            from_files: HashMap::new(),
            issued: IssuedStore::open(state)?,
            retired: Vec::new(),
        };
        store.reload(config, now)?;
        Ok(store)
    }

    /// Loads all certificates again; a broken file keeps the old one. Also renews a self-made one in time. Whether the
    /// answer to `ListCertificates` is another now.
    ///
    /// # Errors
    /// There would be no certificate at all; then all stays as it was.
    pub(crate) fn reload(&mut self, config: &Config, now: u64) -> Result<bool, KeyError> {
        let mut held = Vec::new();
        let mut from_files = HashMap::new();
        for files in &config.certificate {
            let found = match load(files) {
                Ok(found) => found,
                Err(error) => {
                    let old = self.from_files.get(files);
                    let what = if old.is_some() {
                        "the certificate in use stays: correct the file, then reload"
                    } else {
                        "a certificate is not used: correct the file, then reload"
                    };
                    tracing::error!(cert = %files.cert.display(), key = %files.key.display(), %error, "{what}");
                    match old {
                        Some(old) => old.clone(),
                        None => continue,
                    }
                }
            };
            if found.public.expires <= now {
                tracing::error!(cert = %files.cert.display(), "the certificate has expired: clients will refuse it; renew it, then reload");
            }
            from_files.insert(files.clone(), found.clone());
            held.push(found);
        }
        self.issued.reload();
        held.extend(self.issued.in_order(&self.host));
        if held.is_empty() {
            held.push(self_signed::current(&self.state, &self.host, config, now)?);
        }
        let changed = held.len() != self.held.len()
            || held
                .iter()
                .zip(&self.held)
                .any(|(new, old)| new.public != old.public);
        if changed {
            self.retired = std::mem::replace(&mut self.held, held);
        }
        self.from_files = from_files;
        Ok(changed)
    }

    /// What clients may know; the first is the default.
    pub(crate) fn list(&self) -> Vec<Certificate> {
        self.held.iter().map(|held| held.public.clone()).collect()
    }

    /// The key with that number.
    pub(crate) fn key(&self, number: u64) -> Option<Arc<dyn SigningKey>> {
        self.held
            .iter()
            .chain(&self.retired)
            .find(|held| held.public.key == number)
            .map(|held| Arc::clone(&held.key))
    }
}

/// Signs a handshake.
///
/// # Errors
/// The key cannot make such a signature.
pub(crate) fn sign(key: &dyn SigningKey, scheme: u16, message: &[u8]) -> Result<Vec<u8>, KeyError> {
    let signer = key
        .choose_scheme(&[SignatureScheme::from(scheme)])
        .ok_or(KeyError::Scheme(scheme))?;
    signer
        .sign(message)
        .map_err(|_| KeyError::Crypto("TLS signature"))
}

fn load(files: &CertificateFiles) -> Result<Held, KeyError> {
    let missing = |path: &Path| KeyError::Invalid(format!("{} is not there", path.display()));
    let chain = state_file::read(&files.cert)?.ok_or_else(|| missing(&files.cert))?;
    let key = state_file::read(&files.key)?.ok_or_else(|| missing(&files.key))?;
    Held::from_pem(&chain, &key, false)
}

#[cfg(test)]
#[path = "certificate_tests.rs"]
mod tests;
