//! What came of each session's security, in the words of RFC 8460: one log line and one count a session.

use std::fmt::{self, Display};
use std::net::IpAddr;
use types::TraceId;

/// Where the demand came from (RFC 8460 4.4 `policy-type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PolicyType {
    /// DANE.
    Tlsa,
    /// MTA-STS.
    Sts,
    /// The destination publishes none: what our own settings say.
    NoPolicyFound,
}

impl PolicyType {
    /// As in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tlsa => "tlsa",
            Self::Sts => "sts",
            Self::NoPolicyFound => "no-policy-found",
        }
    }
}

/// How it went wrong (RFC 8460 4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResultType {
    /// 4.3.1: the host does not offer STARTTLS.
    StarttlsNotSupported,
    /// 4.3.1: the certificate is for none of the names that are due.
    CertificateHostMismatch,
    /// 4.3.1: its time is over, or has not begun.
    CertificateExpired,
    /// 4.3.1: nobody who is trusted vouches for it.
    CertificateNotTrusted,
    /// 4.3.1: anything else, such as a handshake that broke off.
    ValidationFailure,
    /// 4.3.2.1: no TLSA record fits the certificates.
    TlsaInvalid,
    /// 4.3.2.1: signatures that do not verify.
    DnssecInvalid,
    /// 4.3.2.1: our settings demand DANE, and there is none.
    DaneRequired,
    /// 4.3.2.2: no policy to be had over HTTPS.
    StsPolicyFetchError,
    /// 4.3.2.2: the policy makes no sense.
    StsPolicyInvalid,
    /// 4.3.2.2: the policy's server is not the right one.
    StsWebpkiInvalid,
}

impl ResultType {
    /// As in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::StarttlsNotSupported => "starttls-not-supported",
            Self::CertificateHostMismatch => "certificate-host-mismatch",
            Self::CertificateExpired => "certificate-expired",
            Self::CertificateNotTrusted => "certificate-not-trusted",
            Self::ValidationFailure => "validation-failure",
            Self::TlsaInvalid => "tlsa-invalid",
            Self::DnssecInvalid => "dnssec-invalid",
            Self::DaneRequired => "dane-required",
            Self::StsPolicyFetchError => "sts-policy-fetch-error",
            Self::StsPolicyInvalid => "sts-policy-invalid",
            Self::StsWebpkiInvalid => "sts-webpki-invalid",
        }
    }
}

/// What is wrong, for reports and for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// For reports.
    pub kind: ResultType,
    /// For people.
    pub text: String,
}

impl Problem {
    pub(crate) fn new(kind: ResultType, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
        }
    }
}

impl Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text, self.kind.name())
    }
}

/// One session, or why there was none, as a report on TLS counts it (RFC 8460 4.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsResult {
    /// Where the demand came from.
    pub policy: PolicyType,
    /// The domain that it is of.
    pub domain: String,
    /// The mail exchanger with its address; empty if none was come to.
    pub mx: String,
    /// `None`: as it should be.
    pub problem: Option<Problem>,
    /// Whether it was gone on with regardless.
    pub delivered: bool,
    /// The exchanger's address, if it was connected to.
    pub address: Option<IpAddr>,
    /// The policy as reports show it.
    pub shown: Shown,
}

/// A policy as reports show it (RFC 8460 4.4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Its lines, or the TLSA records.
    pub text: Vec<String>,
    /// The exchangers that it names.
    pub mx: Vec<String>,
    /// The message is better sent in the clear than not at all, as reports are (RFC 8689 3): it says nothing about TLS.
    pub unreported: bool,
}

impl TlsResult {
    /// Writes and counts it.
    pub(crate) fn log(&self, trace: TraceId) {
        let (policy, domain, mx) = (self.policy.name(), &self.domain, &self.mx);
        let result = self
            .problem
            .as_ref()
            .map_or("success", |problem| problem.kind.name());
        match &self.problem {
            None => tracing::debug!(%trace, policy, domain, mx, result, "TLS session"),
            Some(problem) => {
                let reason = &problem.text;
                let went_on = self.delivered;
                tracing::info!(%trace, policy, domain, mx, result, reason, went_on, "TLS session");
            }
        }
        let name = format!("relayd_tls_sessions_total{{policy=\"{policy}\",result=\"{result}\"}}");
        runtime::metrics::counter(
            &name,
            "Sessions with other hosts by the policy they were under and what came of it (RFC 8460 4.3).",
        )
        .add_one();
    }
}
