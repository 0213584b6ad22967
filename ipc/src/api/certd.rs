//! certd: certificates from an authority, for the operator.

use crate::operation;
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, Ipv6Addr};
use types::Octets;

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
    /// The records that DNS-PERSIST-01 needs, as far as they are known.
    pub persistent: Vec<PersistentRecord>,
}

/// A record that shows an authority for good that a domain is ours (draft-ietf-acme-dns-persist-01 4.1).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistentRecord {
    /// The domain; `_validation-persist.` stands before it.
    pub domain: String,
    /// The authority's issuer domain names; the first is to be written.
    pub issuers: Vec<String>,
    /// The URIs of our account; the first is to be written.
    pub accounts: Vec<String>,
    /// Whether wildcards are among what it is for.
    pub wildcard: bool,
    /// Seconds since 1970 after which it is to count no more; 0: it counts always.
    pub until: u64,
}

/// How a certificate of the configuration stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderedCertificate {
    /// The first of its names, without `*.`.
    pub id: String,
    /// Its names.
    pub names: Vec<String>,
    /// How control over the names is shown: `http-01`, `tls-alpn-01`, `dns-01`, `dns-persist-01`.
    pub challenge: String,
    /// `unknown` (keyd was not asked yet), `none`, `ordering`, `good`, `due`, `failed` or `unpublished` (a record is waited for, which
    /// `trouble` names).
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

/// How the DKIM keys stand that are changed by themselves.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DkimRotations;
operation!(DkimRotations = 4, idempotent -> Vec<DkimRotationRow>);

/// The change of the key of one domain and algorithm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DkimRotationRow {
    /// `d=`.
    pub domain: String,
    /// `rsa` or `ed25519`.
    pub algorithm: String,
    /// `in use`, `due`, `publishing`, `waiting for name servers` or `settling`.
    pub step: String,
    /// The selector of the next key; empty while there is none.
    pub next: String,
    /// Seconds since 1970 from which the key in use signs, as far as is known.
    pub since: u64,
    /// Selectors that sign no more, and when their records are removed.
    pub retired: Vec<(String, u64)>,
    /// Why it does not go on.
    pub trouble: String,
}

/// Begins to change the keys of a domain now: a hint to look, so asking twice is asking once.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DkimRotate {
    /// One of `certd.dkim.rotate`.
    pub domain: String,
}
operation!(DkimRotate = 5, idempotent -> Vec<DkimRotationRow>);

/// The records that were published by [`DnsChange`], and where that is possible.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DnsPublished;
operation!(DnsPublished = 6, idempotent -> DnsPublishedReply);

/// The answer to [`DnsPublished`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsPublishedReply {
    /// The zones that may be written; none if there is no provider.
    pub zones: Vec<String>,
    /// What was published and not removed.
    pub entries: Vec<DnsEntry>,
}

/// Removes records and publishes others. [`crate::FaultKind::Denied`] if one is in no zone of ours, or one to be removed was not
/// published by certd: then nothing is changed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DnsChange {
    /// Beside those that are there.
    pub publish: Vec<DnsEntry>,
    /// Of [`DnsPublishedReply::entries`].
    pub remove: Vec<DnsEntry>,
}
operation!(DnsChange = 7, idempotent -> ());

/// What is to be said to an authority that asks over HTTP (RFC 8555 8.3): the key authorization, if the token is one of ours and was
/// given for this name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HttpChallenge {
    /// The host of the request, lower case.
    pub host: String,
    /// The last part of the path.
    pub token: String,
}
operation!(HttpChallenge = 8, idempotent -> Option<String>);

/// A DNS record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsEntry {
    /// Its name, lower case, without the final dot.
    pub name: String,
    /// Seconds for which others may keep it.
    pub ttl: u32,
    /// What it says.
    pub data: DnsData,
}

/// What a record says; names without the final dot, the root is empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum DnsData {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Cname(String),
    Mx(u16, String),
    Txt(String),
    Srv {
        priority: u16,
        weight: u16,
        port: u16,
        target: String,
    },
    Tlsa {
        usage: u8,
        selector: u8,
        matching: u8,
        digest: Octets,
    },
    Caa {
        flags: u8,
        tag: String,
        value: String,
    },
}
