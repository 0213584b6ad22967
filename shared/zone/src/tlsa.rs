//! What records say of keys.

use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// The SHA-256 of a certificate's public key (DER), as TLSA `3 1 1` has it (RFC 6698 2.1); `None` if it is no certificate.
#[must_use]
pub fn key_digest(certificate: &[u8]) -> Option<[u8; 32]> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(Sha256::digest(parsed.public_key().raw).into())
}

/// The bits of an RSA public key (SubjectPublicKeyInfo, DER), as DKIM publishes it; `None` if it is none.
#[must_use]
pub fn rsa_bits(key: &[u8]) -> Option<usize> {
    let (_, info) = SubjectPublicKeyInfo::from_der(key).ok()?;
    match info.parsed().ok()? {
        PublicKey::RSA(key) => Some(key.key_size()),
        _ => None,
    }
}
