//! A signing key whose private half is in keyd.

use ipc::api::keyd::TlsSign;
use ipc::blocking;
use rustls::sign::{Signer, SigningKey};
use rustls::{Error, SignatureAlgorithm, SignatureScheme};
use std::sync::Arc;
use types::{Octets, TraceId};

/// What rustls takes for a private key.
#[derive(Debug)]
pub(crate) struct RemoteKey {
    key: u64,
    schemes: Vec<SignatureScheme>,
    keyd: Arc<blocking::Client>,
}

impl RemoteKey {
    pub(crate) fn new(key: u64, schemes: &[u16], keyd: Arc<blocking::Client>) -> Self {
        Self {
            key,
            schemes: schemes
                .iter()
                .map(|scheme| SignatureScheme::from(*scheme))
                .collect(),
            keyd,
        }
    }
}

impl SigningKey for RemoteKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let scheme = self
            .schemes
            .iter()
            .find(|scheme| offered.contains(scheme))?;
        Some(Box::new(RemoteSigner {
            key: self.key,
            scheme: *scheme,
            keyd: Arc::clone(&self.keyd),
        }))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.schemes.first() {
            Some(
                SignatureScheme::ECDSA_NISTP256_SHA256
                | SignatureScheme::ECDSA_NISTP384_SHA384
                | SignatureScheme::ECDSA_NISTP521_SHA512,
            ) => SignatureAlgorithm::ECDSA,
            Some(SignatureScheme::ED25519) => SignatureAlgorithm::ED25519,
            _ => SignatureAlgorithm::RSA,
        }
    }
}

#[derive(Debug)]
struct RemoteSigner {
    key: u64,
    scheme: SignatureScheme,
    keyd: Arc<blocking::Client>,
}

impl Signer for RemoteSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let request = TlsSign {
            key: self.key,
            scheme: self.scheme.into(),
            message: Octets::from(message),
        };
        let ask = || self.keyd.call(TraceId(0), &request);
        // Some tens of microseconds on a reactor's thread, unless keyd is away: then other tasks must not wait with us.
        let several = tokio::runtime::Handle::try_current().is_ok_and(|handle| {
            handle.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread
        });
        let signed = if several {
            tokio::task::block_in_place(ask)
        } else {
            ask()
        };
        signed
            .map(|signature| signature.0)
            .map_err(|error| Error::General(format!("keyd did not sign: {error}")))
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}
