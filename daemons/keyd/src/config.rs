//! The section `[keyd]`.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A certificate and its key, in files.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// PEM: the certificate, then those that lead to its root.
    pub cert: PathBuf,
    /// PEM: the private key (PKCS#8, PKCS#1 or SEC 1). keyd's user must be able to read it, and nobody else needs to.
    pub key: PathBuf,
}

/// The section `[keyd]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The TLS certificates, as `[[keyd.certificate]]` with `cert` and `key`; clients that name no host get the first. Empty:
    /// keyd makes one itself, which no client trusts. Read again on HUP.
    pub certificate: Vec<CertificateFiles>,
    /// Days that a self-made certificate is valid.
    pub self_signed_days: u32,
    /// A self-made certificate is replaced so many days before it expires.
    pub renew_days: u32,
    /// DKIM keys that may be kept at once.
    pub dkim_keys: usize,
    /// Certificates from authorities (by certd) that may be kept at once.
    pub issued_certificates: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            certificate: Vec::new(),
            self_signed_days: 365,
            renew_days: 30,
            dkim_keys: 10_000,
            issued_certificates: 50,
        }
    }
}
