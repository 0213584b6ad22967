//! certd: certificates from an authority, for the operator.

use crate::operation;
use serde::{Deserialize, Serialize};

/// What it does and has done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CertificateStatus;
operation!(CertificateStatus = 1, idempotent -> CertificateStatusReply);

/// The answer to [`CertificateStatus`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatusReply {
    /// `certd.enabled`.
    pub enabled: bool,
    /// The authority's directory.
    pub directory: String,
    /// The address of our account there; empty before the first order.
    pub account: String,
    /// One for each certificate of the configuration.
    pub certificates: Vec<OrderedCertificate>,
}

/// How a certificate of the configuration stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderedCertificate {
    /// The first of its names, without `*.`.
    pub id: String,
    /// Its names.
    pub names: Vec<String>,
    /// How control over the names is shown: `http-01`, `tls-alpn-01`, `dns-01`.
    pub challenge: String,
    /// `none`, `ordering`, `good`, `due` or `failed`.
    pub state: String,
    /// Seconds since 1970 at which the one in use expires; 0 if there is none.
    pub expires: u64,
    /// Seconds since 1970 at which it is renewed.
    pub renew_at: u64,
    /// The window that the authority suggests for that (RFC 9773), if it does.
    pub window: Option<(u64, u64)>,
    /// Attempts that failed since the last that did not.
    pub failures: u32,
    /// Seconds since 1970 before which it is not tried again.
    pub retry_at: u64,
    /// Why the last attempt failed.
    pub trouble: String,
}

/// Orders a certificate of the configuration now, and answers when it is in use or why it is not. What is good already is left
/// alone unless `renew` says so.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CertificateOrder {
    /// [`OrderedCertificate::id`].
    pub id: String,
    /// Also if the one in use is good.
    pub renew: bool,
}
operation!(CertificateOrder = 2, once -> OrderedCertificate);

/// Has the authority revoke the certificate in use (RFC 8555 7.6), then orders another with a new key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CertificateRevoke {
    /// [`OrderedCertificate::id`].
    pub id: String,
    /// Why.
    pub reason: RevocationReason,
}
operation!(CertificateRevoke = 3, once -> OrderedCertificate);

/// Why a certificate is revoked (RFC 5280 5.3.1; what subscribers may give).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum RevocationReason {
    /// Nothing is said.
    #[default]
    Unspecified,
    /// Somebody else has the key.
    KeyCompromise,
    /// The names are ours no more.
    CessationOfOperation,
    /// There is another one.
    Superseded,
}
