//! DKIM signatures (RFC 6376, 8301, 8463).

use crate::Case;
use crate::report::{DkimReport, Word};
use crate::tags::well_formed;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::future::join_all;
use mail_auth::common::crypto::{Algorithm, CryptoError};
use mail_auth::common::headers::Header;
use mail_auth::dkim::{DkimError, Signature};
use mail_auth::{AuthenticatedMessage, DkimResult, DnsError, Error, Parameters};

/// A signature and what became of it; without [`Signature`] where it cannot be read.
pub(crate) struct Checked<'a> {
    pub(crate) signature: Option<&'a Signature>,
    pub(crate) report: DkimReport,
}

/// All signatures, each for itself and all at once, so that one slow name server costs no other signature its time.
pub(crate) async fn check<'a>(
    case: &Case<'_>,
    message: &'a AuthenticatedMessage<'a>,
) -> Vec<Checked<'a>> {
    let mut order: Vec<&'a Header<'a, Signature>> = message.dkim_headers.iter().collect();
    order.sort_by_key(|header| !of_author(&header.header.d, message));
    let verified = order.iter().enumerate().map(async |(at, header)| {
        let signature = &header.header;
        let mut report = describe(signature);
        (report.result, report.reason) = match refused(header) {
            Some(refused) => refused,
            None if at >= case.limits.signatures => {
                (Word::Policy, "not verified: too many signatures".to_owned())
            }
            None => one(case, message, header).await,
        };
        Checked {
            signature: Some(signature),
            report,
        }
    });
    let mut all = join_all(verified).await;
    let broken = message
        .errors
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case(b"dkim-signature"));
    all.extend(broken.take(case.limits.signatures).map(|header| Checked {
        signature: None,
        report: DkimReport {
            // RFC 8601 2.7.1
            result: match header.header {
                Error::Dkim(DkimError::SignatureLength) => Word::Policy,
                _ => Word::Neutral,
            },
            reason: words(&header.header).to_owned(),
            ..DkimReport::default()
        },
    }));
    all.truncate(case.limits.signatures.max(1) * 2);
    all
}

/// A guess, for the order only.
fn of_author(domain: &str, message: &AuthenticatedMessage<'_>) -> bool {
    message.from.iter().any(|from| {
        let of = from.rsplit_once('@').map_or("", |(_, of)| of);
        of.eq_ignore_ascii_case(domain)
            || of.ends_with(&format!(".{domain}"))
            || domain.ends_with(&format!(".{of}"))
    })
}

/// Why a signature counts for nothing, whether or not it is genuine.
pub(crate) fn refused(header: &Header<'_, Signature>) -> Option<(Word, String)> {
    let signature = &header.header;
    // RFC 6376 6.1.1
    if !well_formed(header.value, &["v", "a", "b", "bh", "d", "h", "s"]) {
        return Some((Word::PermError, "a tag is missing or wrong".to_owned()));
    }
    // RFC 8301 3.1
    if signature.a == Algorithm::RsaSha1 {
        return Some((Word::PermError, "rsa-sha1 does not count".to_owned()));
    }
    // RFC 6376 6.1.1
    if !signature
        .h
        .iter()
        .any(|name| name.eq_ignore_ascii_case("from"))
    {
        return Some((Word::PermError, "From is not signed".to_owned()));
    }
    None
}

async fn one<'a>(
    case: &Case<'_>,
    message: &'a AuthenticatedMessage<'a>,
    header: &'a Header<'a, Signature>,
) -> (Word, String) {
    let single = AuthenticatedMessage {
        dkim_headers: vec![header.clone()],
        errors: Vec::new(),
        ams_headers: Vec::new(),
        as_headers: Vec::new(),
        aar_headers: Vec::new(),
        ..message.clone()
    };
    let ledger = case.ledger;
    let parameters = Parameters {
        params: &single,
        cache_txt: Some(ledger),
        cache_mx: Some(ledger),
        cache_ptr: Some(ledger),
        cache_ipv4: Some(ledger),
        cache_ipv6: Some(ledger),
    };
    let outputs = case
        .in_time(case.authenticator.verify_dkim(parameters))
        .await;
    match outputs
        .as_deref()
        .and_then(<[_]>::first)
        .map(|output| output.result())
    {
        None => (Word::TempError, "no answer in time".to_owned()),
        Some(DkimResult::Pass) => (Word::Pass, String::new()),
        Some(DkimResult::None) => (Word::None, String::new()),
        // RFC 6376 3.6.1: a signature that does not fit is a fail, also where the body alone was changed.
        Some(DkimResult::Neutral(error @ Error::Dkim(DkimError::FailedBodyHashMatch))) => {
            (Word::Fail, words(error).to_owned())
        }
        Some(DkimResult::Neutral(error)) => (Word::Neutral, words(error).to_owned()),
        Some(DkimResult::Fail(error)) => (Word::Fail, words(error).to_owned()),
        Some(DkimResult::PermError(error)) => (Word::PermError, words(error).to_owned()),
        Some(DkimResult::TempError(error)) => (Word::TempError, words(error).to_owned()),
    }
}

fn describe(signature: &Signature) -> DkimReport {
    let start = signature.b.get(..6).unwrap_or(&signature.b);
    DkimReport {
        result: Word::None,
        domain: signature.d.to_ascii_lowercase(),
        selector: signature.s.clone(),
        algorithm: signature.a.name().to_owned(),
        signature: BASE64.encode(start),
        reason: String::new(),
    }
}

/// What an error is called in the field; never a text of strangers.
pub(crate) fn words(error: &Error) -> &'static str {
    use mail_auth::arc::ArcError;
    match error {
        Error::ParseError => "the record cannot be read",
        Error::MissingParameters => "a tag is missing",
        Error::NoHeadersFound => "no signed field is there",
        Error::Base64 => "not base64",
        Error::NotAligned => "not aligned",
        Error::Io(_) | Error::Dkim2(_) => "error",
        Error::Crypto(CryptoError::IncompatibleAlgorithms) => "the key is of another algorithm",
        Error::Crypto(_) => "the signature is wrong",
        Error::Dns(DnsError::Resolver(_)) => "DNS does not answer",
        Error::Dns(DnsError::RecordNotFound(_)) => "no record",
        Error::Dns(DnsError::InvalidRecordType) => "no usable record",
        Error::Dkim(error) => match error {
            DkimError::UnsupportedVersion => "unknown version",
            DkimError::UnsupportedAlgorithm => "unknown algorithm",
            DkimError::UnsupportedCanonicalization => "unknown canonicalization",
            DkimError::UnsupportedKeyType => "unknown type of key",
            DkimError::FailedBodyHashMatch => "the body was changed",
            DkimError::FailedAuidMatch => "i= is not of d=",
            DkimError::RevokedPublicKey => "the key is revoked",
            DkimError::SignatureExpired => "the signature has expired",
            DkimError::SignatureLength => "l= leaves the end of the body open",
        },
        Error::Arc(error) => match error {
            ArcError::ChainTooLong => "too many sets",
            ArcError::InvalidInstance(_) => "i= is wrong",
            ArcError::InvalidCV => "cv= is wrong",
            ArcError::HasHeaderTag => "a seal has h=",
            ArcError::BrokenChain => "the chain is broken",
            ArcError::FailedBodyHashMatch => "the body was changed",
            ArcError::SignatureExpired => "the signature has expired",
            ArcError::SignatureLength => "l= leaves the end of the body open",
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn of(tags: &str) -> Option<String> {
        let header = format!("DKIM-Signature: {tags}\r\nFrom: a@a.example\r\n\r\n");
        let message = AuthenticatedMessage::parse_with_opts(header.as_bytes(), None, true).unwrap();
        refused(message.dkim_headers.first().unwrap()).map(|(_, reason)| reason)
    }

    #[test]
    fn what_counts_for_nothing() {
        let rest = "d=a.example; s=s; bh=MA==; b=MA==";
        assert_eq!(of(&format!("v=1; a=rsa-sha256; h=to:From; {rest}")), None);
        let sha1 = of(&format!("v=1; a=rsa-sha1; h=from; {rest}")).unwrap();
        assert_eq!(sha1, "rsa-sha1 does not count");
        let open = of(&format!("v=1; a=rsa-sha256; h=to:subject; {rest}")).unwrap();
        assert_eq!(open, "From is not signed");
        let double = of(&format!("v=1; a=rsa-sha256; h=from; {rest}; d=b.example")).unwrap();
        assert_eq!(double, "a tag is missing or wrong");
    }
}
