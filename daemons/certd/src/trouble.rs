//! Why a certificate could not be got, and what that means for the order.

use crate::dns::DnsError;
use instant_acme::{Error, Problem};
use ipc::CallError;

/// Why an attempt ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// The authority could not be reached, or refused.
    #[error("the authority: {}", words(.0))]
    Authority(#[from] Error),
    /// The authority looked at the challenges, or made something, and is not content: this order is over.
    #[error("{0}")]
    Refused(String),
    /// keyd is away, or does not take what came.
    #[error("keyd: {0}")]
    Keyd(#[from] CallError),
    /// Records for DNS-01.
    #[error("{0}")]
    Dns(#[from] DnsError),
    /// The order waits until the TLSA records of its key are seen everywhere; until then at least (seconds since 1970).
    #[error(
        "TLSA records of the next key are published: the certificate is ordered when they are seen everywhere and have settled"
    )]
    Later(u64),
    /// Records that the authority will look for are missing: the lines to be published, each with what was seen instead.
    #[error("DNS does not show yet what the authority will look for: publish {0}")]
    Unpublished(String),
    /// The configuration, or a file that it names.
    #[error("{0}")]
    Setting(String),
    /// The state directory.
    #[error("the state directory: {0}")]
    State(#[from] std::io::Error),
}

impl Trouble {
    /// Whether the order is over, so that the next attempt begins another.
    pub(crate) fn ends_order(&self) -> bool {
        match self {
            Self::Refused(_) => true,
            // What the authority said of the order itself; not that it was asked too often.
            Self::Authority(Error::Api(problem)) => {
                !is(problem, "rateLimited") && !is(problem, "serverInternal")
            }
            Self::Keyd(error) => error.fault().is_some_and(|fault| !fault.is_temporary()),
            _ => false,
        }
    }

    /// Whether the authority does not know our account (any more).
    pub(crate) fn is_unknown_account(&self) -> bool {
        matches!(self, Self::Authority(Error::Api(problem)) if is(problem, "accountDoesNotExist"))
    }

    /// Whether the authority says that the certificate is revoked already.
    pub(crate) fn is_revoked(&self) -> bool {
        matches!(self, Self::Authority(Error::Api(problem)) if is(problem, "alreadyRevoked"))
    }

    /// Whether it was in the way that the order names what it replaces: that was replaced before (RFC 9773 5), or the authority does
    /// not repeat it, which the library demands.
    pub(crate) fn is_about_replacing(&self) -> bool {
        match self {
            Self::Authority(Error::Api(problem)) => is(problem, "alreadyReplaced"),
            Self::Authority(Error::Other(error)) => error.to_string().starts_with("replaces field"),
            _ => false,
        }
    }
}

/// RFC 8555 6.7
fn is(problem: &Problem, kind: &str) -> bool {
    let known = problem.r#type.as_deref();
    known.and_then(|text| text.strip_prefix("urn:ietf:params:acme:error:")) == Some(kind)
}

fn words(error: &Error) -> String {
    match error {
        Error::Api(problem) => said(problem),
        other => other.to_string(),
    }
}

/// What a problem says (RFC 7807), with those of single names (RFC 8555 6.7.1).
pub(crate) fn said(problem: &Problem) -> String {
    let kind = problem.r#type.as_deref().unwrap_or_default();
    let kind = kind.rsplit(':').next().unwrap_or_default();
    let mut text = format!(
        "{} ({kind})",
        problem.detail.as_deref().unwrap_or("no reason given")
    );
    for part in &problem.subproblems {
        text.push_str(&format!("; {part}"));
    }
    // It goes into a log and a state file: bounded, and one line.
    text.chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .take(1000)
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn problem(kind: &str) -> Trouble {
        let text = format!(
            r#"{{"type":"urn:ietf:params:acme:error:{kind}","detail":"a\nb","status":400}}"#
        );
        Trouble::Authority(Error::Api(serde_json::from_str(&text).unwrap()))
    }

    #[test]
    fn an_order_ends_with_a_refusal_and_not_with_a_lost_connection() {
        assert!(problem("malformed").ends_order());
        assert!(problem("unauthorized").ends_order());
        assert!(!problem("rateLimited").ends_order());
        assert!(Trouble::Refused("no".to_owned()).ends_order());
        assert!(!Trouble::Authority(Error::Other("reset".into())).ends_order());
        assert!(!Trouble::Authority(Error::Timeout(None)).ends_order());
        assert!(problem("accountDoesNotExist").is_unknown_account());
        assert!(problem("alreadyRevoked").is_revoked());
        assert!(!problem("malformed").is_revoked());
    }

    #[test]
    fn what_the_authority_says_is_one_line() {
        assert_eq!(problem("caa").to_string(), "the authority: a b (caa)");
    }
}
