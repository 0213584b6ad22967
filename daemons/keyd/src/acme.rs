//! Account keys for ACME authorities: ECDSA on P-256, one for each authority, `acme/<hash of its directory's address>.pem`.

use crate::{KeyError, state_file};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use aws_lc_rs::{digest, rand};
use ipc::api::keyd::AcmePublicKey;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Authorities that a site changes between in its life; the bound keeps a caller from filling the disk.
const AUTHORITIES_MAX: usize = 32;
/// An address that is longer is none.
const ADDRESS_MAX: usize = 1024;

/// The account keys, read or made when they are first needed.
pub(crate) struct AccountKeys {
    directory: PathBuf,
    keys: Mutex<HashMap<String, Arc<EcdsaKeyPair>>>,
}

impl AccountKeys {
    /// # Errors
    /// The directory cannot be made.
    pub(crate) fn open(state: &Path) -> io::Result<Self> {
        let directory = state.join("acme");
        state_file::make_directory(&directory)?;
        Ok(Self {
            directory,
            keys: Mutex::default(),
        })
    }

    /// What the authority may know. Blocks on files.
    ///
    /// # Errors
    /// No address, a broken file, the limit, the file system.
    pub(crate) fn public(&self, authority: &str) -> Result<AcmePublicKey, KeyError> {
        let key = self.key(authority, true)?;
        // SEC 1 2.3.3: 04, x, y.
        let point = key.public_key().as_ref();
        let (Some(x), Some(y)) = (point.get(1..33), point.get(33..65)) else {
            return Err(KeyError::Crypto("account key"));
        };
        Ok(AcmePublicKey {
            x: x.into(),
            y: y.into(),
        })
    }

    /// Signs for the authority. Blocks on files the first time.
    ///
    /// # Errors
    /// No key for it yet, or one that cannot be read.
    pub(crate) fn sign(&self, authority: &str, data: &[u8]) -> Result<Vec<u8>, KeyError> {
        // RFC 7515 5.1: nothing else is signed with these keys.
        let alphabet = |octet: &u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_');
        let mut parts = data.split(|octet| *octet == b'.');
        let (header, payload, more) = (parts.next(), parts.next(), parts.next());
        let fine = header.is_some_and(|part| !part.is_empty() && part.iter().all(alphabet))
            && payload.is_some_and(|part| part.iter().all(alphabet))
            && more.is_none();
        if !fine {
            return Err(KeyError::Invalid(
                "this is no signing input of a JWS".to_owned(),
            ));
        }
        let key = self.key(authority, false)?;
        key.sign(&rand::SystemRandom::new(), data)
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_| KeyError::Crypto("ECDSA signature"))
    }

    fn key(&self, authority: &str, make: bool) -> Result<Arc<EcdsaKeyPair>, KeyError> {
        if !authority.starts_with("https://")
            || authority.len() > ADDRESS_MAX
            || authority.bytes().any(|octet| !octet.is_ascii_graphic())
        {
            return Err(KeyError::Invalid(
                "the address of an authority's directory begins with https://".to_owned(),
            ));
        }
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = keys.get(authority) {
            return Ok(Arc::clone(key));
        }
        let path = self.path(authority);
        let key = match state_file::read(&path)? {
            Some(pem) => {
                let der = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| KeyError::NoKey)?;
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_der())
                    .map_err(|_| KeyError::NoKey)?
            }
            None if make => self.make(&path, authority)?,
            None => return Err(KeyError::NotFound),
        };
        let key = Arc::new(key);
        keys.insert(authority.to_owned(), Arc::clone(&key));
        Ok(key)
    }

    fn make(&self, path: &Path, authority: &str) -> Result<EcdsaKeyPair, KeyError> {
        if std::fs::read_dir(&self.directory)?.count() >= AUTHORITIES_MAX {
            return Err(KeyError::Invalid(format!(
                "there are account keys for {AUTHORITIES_MAX} authorities: remove old ones from {}",
                self.directory.display()
            )));
        }
        let failed = |_| KeyError::Crypto("account key");
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(failed)?;
        let der = key.to_pkcs8v1().map_err(failed)?;
        let mut text = crate::dkim::pem(der.as_ref());
        // RFC 7468 5.2: text before the PEM is for people.
        text.insert_str(0, &format!("ACME account key for {authority}\n"));
        state_file::write(path, text.as_bytes())?;
        tracing::info!(authority, "ACME account key made");
        Ok(key)
    }

    fn path(&self, authority: &str) -> PathBuf {
        let hash = digest::digest(&digest::SHA256, authority.as_bytes());
        let name: String = hash
            .as_ref()
            .iter()
            .take(12)
            .map(|octet| format!("{octet:02x}"))
            .collect();
        self.directory.join(format!("{name}.pem"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    const ONE: &str = "https://acme.example/directory";

    #[test]
    fn a_key_is_made_once_for_each_authority_and_signs_requests_alone() {
        let state = tempfile::tempdir().unwrap();
        let keys = AccountKeys::open(state.path()).unwrap();
        assert!(matches!(keys.sign(ONE, b"aa.bb"), Err(KeyError::NotFound)));
        let public = keys.public(ONE).unwrap();
        assert_ne!(keys.public("https://other.example/").unwrap(), public);
        let keys = AccountKeys::open(state.path()).unwrap();
        assert_eq!(keys.public(ONE).unwrap(), public);
        let point = [&[4], public.x.as_slice(), public.y.as_slice()].concat();
        let verifier = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
        // POST-as-GET has an empty payload (RFC 8555 6.3).
        for data in [b"eyJh_-9.eyJi".as_slice(), b"eyJh."] {
            let signature = keys.sign(ONE, data).unwrap();
            assert!(verifier.verify(data, &signature).is_ok());
            assert!(verifier.verify(b"else", &signature).is_err());
        }
        for data in [b"".as_slice(), b".b", b"a", b"a.b.c", b"a b.c", b"a.b\n"] {
            assert!(matches!(keys.sign(ONE, data), Err(KeyError::Invalid(_))));
        }
        for authority in ["", "http://acme.example/", "https://a b/"] {
            assert!(matches!(keys.public(authority), Err(KeyError::Invalid(_))));
        }
    }

    #[test]
    fn the_number_of_authorities_is_bounded() {
        let state = tempfile::tempdir().unwrap();
        let keys = AccountKeys::open(state.path()).unwrap();
        for n in 0..AUTHORITIES_MAX {
            keys.public(&format!("https://acme.example/{n}")).unwrap();
        }
        assert!(matches!(keys.public(ONE), Err(KeyError::Invalid(_))));
    }
}
