//! keyd: signatures and seals, never keys.

use crate::{event, operation};
use serde::{Deserialize, Serialize};
use types::Octets;

/// The TLS certificates it holds keys for; the first is the default.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ListCertificates;
operation!(ListCertificates = 1, idempotent -> Vec<Certificate>);

/// A certificate with a key in keyd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Names of its key in [`TlsSign`].
    pub key: u64,
    /// Host names it is good for, lower case, `*.` for wildcards.
    pub names: Vec<String>,
    /// DER, leaf first.
    pub chain: Vec<Octets>,
    /// The TLS signature schemes (IANA code points) which its key can make.
    pub schemes: Vec<u16>,
    /// Seconds since 1970 at which the leaf expires.
    pub expires: u64,
    /// Made by keyd itself: no client trusts it.
    pub self_signed: bool,
}

/// Signs a TLS handshake.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TlsSign {
    /// [`Certificate::key`].
    pub key: u64,
    /// One of [`Certificate::schemes`].
    pub scheme: u16,
    /// What is signed: the transcript as TLS gives it to the key; at most 16 KiB.
    pub message: Octets,
}
operation!(TlsSign = 2, idempotent -> Octets);

/// From now on, [`CertificatesChanged`] is sent on this connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WatchCertificates;
operation!(WatchCertificates = 3, idempotent -> ());

/// The answer to [`ListCertificates`] is another now.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CertificatesChanged;
event!(CertificatesChanged = 1);

/// The DKIM keys of a domain (A-label, lower case); of all domains when empty.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DkimKeys {
    /// The signing domain, `d=`.
    pub domain: String,
}
operation!(DkimKeys = 4, idempotent -> Vec<DkimKey>);

/// A DKIM key (RFC 6376, RFC 8463).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DkimKey {
    /// `d=`.
    pub domain: String,
    /// `s=`.
    pub selector: String,
    /// `a=`.
    pub algorithm: DkimAlgorithm,
    /// The value of the TXT record at `selector._domainkey.domain`.
    pub record: String,
    /// Whether mail is signed with it.
    pub state: DkimState,
}

/// Where a key is in its life. Its record is published in all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DkimState {
    /// Published, not yet used: others may not see the record everywhere yet.
    Prepared,
    /// Mail is signed with it.
    #[default]
    Active,
    /// Not used any more; mail that was signed with it still verifies.
    Retired,
}

/// A DKIM algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DkimAlgorithm {
    /// rsa-sha256 with a 2048-bit key.
    Rsa2048,
    /// ed25519-sha256.
    Ed25519,
}

/// Makes a key. [`crate::FaultKind::Conflict`] if the selector is taken.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DkimCreate {
    /// `d=`.
    pub domain: String,
    /// `s=`: a DNS label.
    pub selector: String,
    /// The algorithm.
    pub algorithm: DkimAlgorithm,
    /// What it begins as.
    pub state: DkimState,
}
operation!(DkimCreate = 5, once -> DkimKey);

/// Removes a key for good.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DkimRemove {
    /// `d=`.
    pub domain: String,
    /// `s=`.
    pub selector: String,
}
operation!(DkimRemove = 6, idempotent -> ());

/// Moves a key to another state.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DkimMark {
    /// `d=`.
    pub domain: String,
    /// `s=`.
    pub selector: String,
    /// The new state.
    pub state: DkimState,
}
operation!(DkimMark = 20, idempotent -> DkimKey);

/// Signs the canonicalised header fields of a message (RFC 6376 3.7): the algorithm hashes them itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DkimSign {
    /// `d=`.
    pub domain: String,
    /// `s=`.
    pub selector: String,
    /// The octets that are signed; at most 96 KiB.
    pub data: Octets,
}
operation!(DkimSign = 7, idempotent -> Octets);

/// Seals octets with the token key: HMAC-SHA256, 32 octets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MacSign {
    /// Keeps seals for different ends apart.
    pub purpose: String,
    /// What is sealed; at most 4 KiB.
    pub data: Octets,
}
operation!(MacSign = 8, idempotent -> Octets);

/// Whether a seal is genuine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MacVerify {
    /// As given to [`MacSign`].
    pub purpose: String,
    /// As given to [`MacSign`].
    pub data: Octets,
    /// The seal.
    pub mac: Octets,
}
operation!(MacVerify = 9, idempotent -> bool);

/// Makes a key for a certificate of these names, and gives a request for one (RFC 2986). While no chain has come for it, the
/// same names give the same key again: an order survives restarts of everybody.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CertificateRequest {
    /// What the certificate is called here: a host name, as a rule the first of its names.
    pub id: String,
    /// The DNS names, `*.` for wildcards.
    pub names: Vec<String>,
    /// The kind of key.
    pub algorithm: CertificateAlgorithm,
}
operation!(CertificateRequest = 21, idempotent -> CertificateRequested);

/// The kind of a certificate's key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CertificateAlgorithm {
    /// ECDSA with NIST P-256: what every client knows, and small.
    #[default]
    EcdsaP256,
    /// ECDSA with NIST P-384.
    EcdsaP384,
    /// RSA with 2048 bits, for clients from before 2010.
    Rsa2048,
}

/// A request that can be handed to an authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRequested {
    /// PKCS#10, DER.
    pub csr: Octets,
    /// SHA-256 of the key's SubjectPublicKeyInfo: the digest of a TLSA record `3 1 1` (RFC 6698 2.1).
    pub key_digest: Octets,
}

/// Takes the chain that an authority made for the key of [`CertificateRequest`]. It is in use from then on.
/// [`crate::FaultKind::Invalid`] if key, names, dates or links do not fit: then all stays as it was.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CertificateInstall {
    /// As in [`CertificateRequest`].
    pub id: String,
    /// PEM, leaf first.
    pub chain: String,
}
operation!(CertificateInstall = 22, idempotent -> IssuedCertificate);

/// The certificates that came by [`CertificateInstall`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IssuedCertificates;
operation!(IssuedCertificates = 23, idempotent -> Vec<IssuedCertificate>);

/// A certificate that an authority made for a key of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedCertificate {
    /// As in [`CertificateRequest`].
    pub id: String,
    /// Its names, lower case.
    pub names: Vec<String>,
    /// Seconds since 1970 from which it is good.
    pub begins: u64,
    /// Seconds since 1970 at which it expires.
    pub expires: u64,
    /// DER.
    pub leaf: Octets,
}

/// Forgets a certificate that came by [`CertificateInstall`], and its key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CertificateRemove {
    /// As in [`CertificateRequest`].
    pub id: String,
}
operation!(CertificateRemove = 24, idempotent -> ());

/// The public half of the account key for an ACME authority; made when it is first asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AcmeKey {
    /// The address of the authority's directory: each has a key of its own.
    pub directory: String,
}
operation!(AcmeKey = 25, idempotent -> AcmePublicKey);

/// A point of NIST P-256, as RFC 7518 6.2.1 has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcmePublicKey {
    /// 32 octets.
    pub x: Octets,
    /// 32 octets.
    pub y: Octets,
}

/// Signs a request to an ACME authority (RFC 7515 5.1) with ES256 (RFC 7518 3.4): 64 octets.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AcmeSign {
    /// As in [`AcmeKey`].
    pub directory: String,
    /// Protected header and payload in base64url, with a dot between; at most 64 KiB.
    pub data: Octets,
}
operation!(AcmeSign = 26, idempotent -> Octets);
