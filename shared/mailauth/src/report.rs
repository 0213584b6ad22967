//! What the checks found.

use crate::field::has_result;
use serde::Serialize;
use std::fmt;

/// A result as Authentication-Results names it (RFC 8601 2.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    /// Nothing was published, or there was nothing to check.
    #[default]
    None,
    /// It is genuine.
    Pass,
    /// It is not.
    Fail,
    /// SPF: probably not.
    SoftFail,
    /// It says nothing either way.
    Neutral,
    /// It may be in order, and does not count here.
    Policy,
    /// Could not be found out now.
    TempError,
    /// Can never be found out.
    PermError,
}

impl Word {
    /// In lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::SoftFail => "softfail",
            Self::Neutral => "neutral",
            Self::Policy => "policy",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// All of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether the client's name and address lead to each other (RFC 8601 3).
    pub iprev: IprevReport,
    /// SPF of the HELO name; `None` where that is no domain.
    pub spf_helo: Option<SpfReport>,
    /// SPF of the reverse-path; `None` for the null one, for which the HELO name stands (RFC 7208 2.4).
    pub spf_mail_from: Option<SpfReport>,
    /// DKIM, one for each signature.
    pub dkim: Vec<DkimReport>,
    /// ARC.
    pub arc: ArcReport,
    /// DMARC.
    pub dmarc: DmarcReport,
}

impl Report {
    /// SPF as policies see it: that of the reverse-path, or of the HELO name for the null one.
    pub fn spf(&self) -> Option<&SpfReport> {
        self.spf_mail_from.as_ref().or(self.spf_helo.as_ref())
    }

    /// Which of these sealers found, when it took the message, that DMARC passed for the domain in From. Seals are looked at from
    /// the newest on, and nothing counts that is older than one of somebody else (RFC 8617 7.2).
    pub fn vouched_by(&self, trusted: &[String]) -> Option<&str> {
        if self.arc.result != Word::Pass {
            return None;
        }
        let sets = self.arc.sealers.iter().zip(&self.arc.results).rev();
        sets.take_while(|(sealer, _)| trusted.contains(sealer))
            .find(|(_, found)| has_result(found, "dmarc", "header.from", &self.dmarc.domain))
            .map(|(sealer, _)| sealer.as_str())
    }
}

/// One SPF check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SpfReport {
    /// The result.
    pub result: Word,
    /// The domain that was asked for.
    pub domain: String,
    /// MAIL FROM, where its local part can be written plainly; else empty.
    pub address: String,
    /// What the domain itself says of a fail (`exp=`); text of strangers.
    pub explanation: Option<String>,
}

/// One DKIM signature.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DkimReport {
    /// The result.
    pub result: Word,
    /// `d=`; empty if the signature cannot be read.
    pub domain: String,
    /// `s=`.
    pub selector: String,
    /// `a=`.
    pub algorithm: String,
    /// The beginning of `b=`, which tells signatures apart (RFC 6008).
    pub signature: String,
    /// Why, in a few words; empty for pass.
    pub reason: String,
}

/// The ARC chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ArcReport {
    /// The result.
    pub result: Word,
    /// The domains that sealed, oldest first.
    pub sealers: Vec<String>,
    /// What each found, in the same order: the text of its ARC-Authentication-Results.
    #[serde(skip)]
    pub results: Vec<String>,
    /// Why, in a few words; empty for pass and none.
    pub reason: String,
}

/// What a domain wants done with mail that fails (RFC 7489 6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DmarcPolicy {
    /// Nothing.
    #[default]
    None,
    /// To be treated as suspicious.
    Quarantine,
    /// To be refused.
    Reject,
}

impl DmarcPolicy {
    /// In lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Quarantine => "quarantine",
            Self::Reject => "reject",
        }
    }
}

/// DMARC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DmarcReport {
    /// The result.
    pub result: Word,
    /// The domain of From; of several, the one that decided.
    pub domain: String,
    /// What that domain publishes.
    pub policy: DmarcPolicy,
    /// SPF passed for a domain that aligns.
    pub spf_aligned: bool,
    /// A DKIM signature of a domain that aligns passed.
    pub dkim_aligned: bool,
    /// Why, in a few words; empty for pass and none.
    pub reason: String,
    /// The record that was found; `None` if there is none.
    #[serde(skip)]
    pub published: Option<Box<Published>>,
}

/// A DMARC record, as reports tell of it (RFC 7489 6.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// The domain at which it stands.
    pub domain: String,
    /// Whether alignment of DKIM is strict.
    pub strict_dkim: bool,
    /// The same of SPF.
    pub strict_spf: bool,
    /// `p`.
    pub policy: DmarcPolicy,
    /// `sp`.
    pub subdomains: DmarcPolicy,
    /// `fo`: `0`, `1`, `d`, `s` or `d:s`.
    pub failures: &'static str,
    /// Addresses for aggregate reports, and how large these may be in octets (0: no limit).
    pub rua: Vec<(String, u64)>,
    /// Addresses for failure reports.
    pub ruf: Vec<String>,
}

/// The client's name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct IprevReport {
    /// The result.
    pub result: Word,
    /// The address, as text.
    pub address: String,
    /// The name that leads back to the address; empty if none does.
    pub name: String,
}
