//! Certificates that authorities made for keys of ours: `issued/<id>/current.pem` is the chain with its key, `issued/<id>/pending.pem`
//! the key of the next one, with its names before it.

use crate::certificate::Held;
use crate::{KeyError, state_file};
use ipc::api::keyd::{CertificateAlgorithm, CertificateRequested, IssuedCertificate};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

/// Authorities that we know take at most 100 names.
const NAMES_MAX: usize = 100;
/// A certificate that begins later than that is not taken; clocks differ.
const CLOCKS: u64 = 3600;

/// A key that waits for its certificate, and what is asked for.
#[derive(Debug)]
pub(crate) struct Pending {
    id: String,
    names: Vec<String>,
    key: KeyPair,
}

impl Pending {
    /// Makes a key; RSA takes some 100 ms.
    ///
    /// # Errors
    /// Bad names, or the library.
    pub(crate) fn make(
        id: &str,
        names: &[String],
        algorithm: CertificateAlgorithm,
    ) -> Result<Self, KeyError> {
        let (id, names) = (file_name(id)?, certificate_names(names)?);
        let algorithm = match algorithm {
            CertificateAlgorithm::EcdsaP256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            CertificateAlgorithm::EcdsaP384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            CertificateAlgorithm::Rsa2048 => &rcgen::PKCS_RSA_SHA256,
        };
        let key =
            KeyPair::generate_for(algorithm).map_err(|_| KeyError::Crypto("key generation"))?;
        Ok(Self { id, names, key })
    }

    fn from_file(id: &str, text: &[u8]) -> Result<Self, KeyError> {
        let text = std::str::from_utf8(text).map_err(|_| KeyError::NoKey)?;
        let names = text
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("names: "));
        let names = names.ok_or(KeyError::NoKey)?;
        Ok(Self {
            id: id.to_owned(),
            names: names.split(' ').map(str::to_owned).collect(),
            key: KeyPair::from_pem(text).map_err(|_| KeyError::NoKey)?,
        })
    }

    fn to_file(&self) -> Zeroizing<String> {
        let key = Zeroizing::new(self.key.serialize_pem());
        Zeroizing::new(format!("names: {}\n{}", self.names.join(" "), *key))
    }

    fn is_for(&self, names: &[String], algorithm: CertificateAlgorithm) -> bool {
        let own = self.key.algorithm();
        self.names == names
            && match algorithm {
                CertificateAlgorithm::EcdsaP256 => *own == rcgen::PKCS_ECDSA_P256_SHA256,
                CertificateAlgorithm::EcdsaP384 => *own == rcgen::PKCS_ECDSA_P384_SHA384,
                CertificateAlgorithm::Rsa2048 => *own == rcgen::PKCS_RSA_SHA256,
            }
    }

    /// The request (RFC 2986; RFC 8555 7.4: the names stand in it as subjectAltName).
    pub(crate) fn request(&self) -> Result<CertificateRequested, KeyError> {
        let failed = |_: rcgen::Error| KeyError::Crypto("certificate request");
        let mut params = CertificateParams::new(self.names.clone()).map_err(failed)?;
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&self.key).map_err(failed)?;
        let spki = self.key.subject_public_key_info();
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &spki);
        Ok(CertificateRequested {
            csr: request.der().as_ref().into(),
            key_digest: digest.as_ref().into(),
        })
    }
}

/// What authorities made for us.
#[derive(Debug)]
pub(crate) struct IssuedStore {
    directory: PathBuf,
    held: BTreeMap<String, Held>,
}

impl IssuedStore {
    /// # Errors
    /// The directory cannot be made.
    pub(crate) fn open(state: &Path) -> io::Result<Self> {
        let directory = state.join("issued");
        state_file::make_directory(&directory)?;
        let held = BTreeMap::new();
        Ok(Self { directory, held })
    }

    /// Reads all that are there; one whose file is broken now stays as it was.
    pub(crate) fn reload(&mut self) {
        let mut found = BTreeMap::new();
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) => {
                tracing::error!(%error, "the certificates of authorities stay as they were");
                return;
            }
        };
        for entry in entries.flatten() {
            let Some(id) = entry.file_name().to_str().map(str::to_owned) else {
                continue;
            };
            match read(&entry.path()) {
                Ok(Some(held)) => drop(found.insert(id, held)),
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(id, %error, "a certificate is left as it was: remove its directory, and order it again");
                    if let Some(old) = self.held.remove(&id) {
                        found.insert(id, old);
                    }
                }
            }
        }
        self.held = found;
    }

    /// All of them; one for the host first, as clients that name nobody get the first.
    pub(crate) fn in_order(&self, host: &str) -> Vec<Held> {
        let host = host.to_ascii_lowercase();
        let (first, rest): (Vec<&Held>, Vec<&Held>) = self
            .held
            .values()
            .partition(|held| held.public.names.contains(&host));
        first.into_iter().chain(rest).cloned().collect()
    }

    /// What is public of them.
    pub(crate) fn list(&self) -> Vec<IssuedCertificate> {
        self.held
            .iter()
            .map(|(id, held)| public(id, held))
            .collect()
    }

    /// The key that waits, if it is for these names.
    ///
    /// # Errors
    /// Bad names, the limit, the file system.
    pub(crate) fn pending(
        &self,
        id: &str,
        names: &[String],
        algorithm: CertificateAlgorithm,
        limit: usize,
    ) -> Result<Option<Pending>, KeyError> {
        let (id, names) = (file_name(id)?, certificate_names(names)?);
        let known = self.directory.join(&id).is_dir();
        if !known && fs::read_dir(&self.directory)?.count() >= limit {
            return Err(KeyError::TooManyIssued(limit));
        }
        let Some(text) = state_file::read(&self.pending_path(&id))? else {
            return Ok(None);
        };
        // A broken file is no order that could be finished.
        let pending = Pending::from_file(&id, &text).ok();
        Ok(pending.filter(|pending| pending.is_for(&names, algorithm)))
    }

    /// Keeps a new key until its chain comes.
    ///
    /// # Errors
    /// Those of the file system.
    pub(crate) fn keep(&self, pending: &Pending) -> Result<(), KeyError> {
        state_file::make_directory(&self.directory.join(&pending.id))?;
        let text = pending.to_file();
        Ok(state_file::write(
            &self.pending_path(&pending.id),
            text.as_bytes(),
        )?)
    }

    /// Takes the chain for the key that waits.
    ///
    /// # Errors
    /// No such key, a chain that does not fit, the file system; then all stays as it was.
    pub(crate) fn install(
        &mut self,
        id: &str,
        chain: &str,
        now: u64,
    ) -> Result<IssuedCertificate, KeyError> {
        let id = file_name(id)?;
        let Some(text) = state_file::read(&self.pending_path(&id))? else {
            return self.again(&id, chain);
        };
        let pending = Pending::from_file(&id, &text)?;
        let key = Zeroizing::new(pending.key.serialize_pem());
        let held = Held::from_pem(chain.as_bytes(), key.as_bytes(), false)?;
        fits(&held, &pending.names, now)?;
        let whole = Zeroizing::new(format!("{}\n{}", chain.trim_end(), *key));
        state_file::write(&self.current_path(&id), whole.as_bytes())?;
        // A kill between the two leaves a key that is in use already: the next order replaces it.
        state_file::remove(&self.pending_path(&id))?;
        let public = public(&id, &held);
        self.held.insert(id, held);
        Ok(public)
    }

    /// The answer to the first call was lost: the same chain is there.
    fn again(&self, id: &str, chain: &str) -> Result<IssuedCertificate, KeyError> {
        let held = self.held.get(id).ok_or(KeyError::NotFound)?;
        use rustls_pki_types::CertificateDer;
        use rustls_pki_types::pem::PemObject;
        let leaf = CertificateDer::from_pem_slice(chain.as_bytes());
        let leaf = leaf.map_err(|_| KeyError::NoCertificate)?;
        match held.public.chain.first() {
            Some(own) if own.as_slice() == leaf.as_ref() => Ok(public(id, held)),
            _ => Err(KeyError::NotFound),
        }
    }

    /// Forgets a certificate and its keys.
    ///
    /// # Errors
    /// A bad name, the file system.
    pub(crate) fn remove(&mut self, id: &str) -> Result<(), KeyError> {
        let id = file_name(id)?;
        state_file::remove(&self.current_path(&id))?;
        state_file::remove(&self.pending_path(&id))?;
        match fs::remove_dir(self.directory.join(&id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        self.held.remove(&id);
        Ok(())
    }

    fn current_path(&self, id: &str) -> PathBuf {
        self.directory.join(id).join("current.pem")
    }

    fn pending_path(&self, id: &str) -> PathBuf {
        self.directory.join(id).join("pending.pem")
    }
}

fn read(directory: &Path) -> Result<Option<Held>, KeyError> {
    let Some(text) = state_file::read(&directory.join("current.pem"))? else {
        return Ok(None);
    };
    Held::from_pem(&text, &text, false).map(Some)
}

fn public(id: &str, held: &Held) -> IssuedCertificate {
    IssuedCertificate {
        id: id.to_owned(),
        names: held.public.names.clone(),
        begins: held.begins,
        expires: held.public.expires,
        leaf: held.public.chain.first().cloned().unwrap_or_default(),
    }
}

/// Whether a chain is what was asked for. Whether clients trust its root is the authority's matter.
fn fits(held: &Held, names: &[String], now: u64) -> Result<(), KeyError> {
    let unfit = |text: String| Err(KeyError::Unfit(text));
    if let Some(missing) = names.iter().find(|name| !held.public.names.contains(name)) {
        return unfit(format!("it is not for {missing}"));
    }
    if held.begins > now.saturating_add(CLOCKS) {
        return unfit("it is not valid yet: compare this host's clock".to_owned());
    }
    if held.public.expires <= now {
        return unfit("it has expired: compare this host's clock".to_owned());
    }
    let mut issuer: Option<Vec<u8>> = None;
    for (at, der) in held.public.chain.iter().enumerate() {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|_| KeyError::NoCertificate)?;
        if certificate.is_ca() != (at > 0) {
            return unfit("leaf and authorities are not in their order".to_owned());
        }
        // RFC 8446 4.4.2: each certifies the one before it.
        if issuer.is_some_and(|issuer| issuer != certificate.subject().as_raw()) {
            return unfit(
                "a certificate of the chain does not certify the one before it".to_owned(),
            );
        }
        issuer = Some(certificate.issuer().as_raw().to_vec());
    }
    Ok(())
}

/// The id as it is filed: a host name, safe as a file name.
fn file_name(id: &str) -> Result<String, KeyError> {
    let id = id.to_ascii_lowercase();
    let fine = (1..=253).contains(&id.len())
        && !id.starts_with(['.', '-'])
        && id.bytes().all(|octet| {
            octet.is_ascii_lowercase()
                || octet.is_ascii_digit()
                || matches!(octet, b'.' | b'-' | b'_')
        });
    if fine {
        Ok(id)
    } else {
        Err(KeyError::Invalid(format!(
            "{id:?}: a certificate is called by letters, digits, dots, - and _"
        )))
    }
}

/// Names in lower case, each once.
fn certificate_names(names: &[String]) -> Result<Vec<String>, KeyError> {
    if names.is_empty() || names.len() > NAMES_MAX {
        return Err(KeyError::Invalid(format!(
            "a certificate is for 1 to {NAMES_MAX} names"
        )));
    }
    let mut all: Vec<String> = Vec::with_capacity(names.len());
    for name in names {
        let plain = name.strip_prefix("*.").unwrap_or(name);
        let checked = types::Address::domain_of(plain)
            .map_err(|error| KeyError::Invalid(format!("{name}: {error}")))?;
        if checked.starts_with('[') {
            return Err(KeyError::Invalid(format!("{name} is no DNS name")));
        }
        let checked = if plain.len() < name.len() {
            format!("*.{checked}")
        } else {
            checked
        };
        if !all.contains(&checked) {
            all.push(checked);
        }
    }
    Ok(all)
}

#[cfg(test)]
#[path = "issued_tests.rs"]
mod tests;
