//! The ARC chain (RFC 8617).

use crate::Case;
use crate::dkim::words;
use crate::report::{ArcReport, Word};
use crate::tags::well_formed;
use mail_auth::common::crypto::Algorithm;
use mail_auth::{AuthenticatedMessage, DkimResult, Parameters};

/// The chain as a whole: `none`, `pass`, `fail`, or `temperror` where DNS does not answer.
pub(crate) async fn check<'a>(case: &Case<'_>, message: &'a AuthenticatedMessage<'a>) -> ArcReport {
    let failed = |reason: &str| ArcReport {
        result: Word::Fail,
        reason: reason.to_owned(),
        ..ArcReport::default()
    };
    if message.has_arc_errors {
        let error = message
            .errors
            .iter()
            .find(|header| header.name.to_ascii_lowercase().starts_with(b"arc-"));
        return failed(error.map_or("the chain is broken", |header| words(&header.header)));
    }
    if message.ams_headers.is_empty()
        && message.as_headers.is_empty()
        && message.aar_headers.is_empty()
    {
        return ArcReport::default();
    }
    if message.ams_headers.is_empty() {
        return failed("the chain is broken");
    }
    if let Some(reason) = refused(message) {
        return failed(reason);
    }
    let ledger = case.ledger;
    let parameters = Parameters {
        params: message,
        cache_txt: Some(ledger),
        cache_mx: Some(ledger),
        cache_ptr: Some(ledger),
        cache_ipv4: Some(ledger),
        cache_ipv6: Some(ledger),
    };
    let Some(output) = case
        .in_time(case.authenticator.verify_arc(parameters))
        .await
    else {
        return ArcReport {
            result: Word::TempError,
            reason: "no answer in time".to_owned(),
            ..ArcReport::default()
        };
    };
    let (result, reason) = match output.result() {
        DkimResult::None => (Word::None, String::new()),
        DkimResult::Pass => (Word::Pass, String::new()),
        DkimResult::TempError(error) => (Word::TempError, words(error).to_owned()),
        // RFC 8617 5.2: there is no third state.
        DkimResult::Neutral(error) | DkimResult::Fail(error) | DkimResult::PermError(error) => {
            (Word::Fail, words(error).to_owned())
        }
    };
    let sets = output.sets();
    ArcReport {
        result,
        reason,
        sealers: sets
            .iter()
            .map(|set| set.seal.header.d.to_ascii_lowercase())
            .collect(),
        results: sets
            .iter()
            .map(|set| String::from_utf8_lossy(set.results.value).into_owned())
            .collect(),
    }
}

/// Why a chain counts for nothing, whether or not its signatures are genuine.
pub(crate) fn refused(message: &AuthenticatedMessage<'_>) -> Option<&'static str> {
    let sha1 = message
        .as_headers
        .iter()
        .any(|seal| seal.header.a == Algorithm::RsaSha1)
        || message
            .ams_headers
            .iter()
            .any(|one| one.header.a == Algorithm::RsaSha1);
    // RFC 8617 4.1.2, 4.1.3
    let seal = ["a", "b", "cv", "d", "i", "s"];
    let signature = ["a", "b", "bh", "d", "h", "i", "s"];
    let whole = message
        .as_headers
        .iter()
        .all(|one| well_formed(one.value, &seal))
        && message
            .ams_headers
            .iter()
            .all(|one| well_formed(one.value, &signature));
    if !whole {
        return Some("a tag is missing or wrong");
    }
    // RFC 8301 3.1
    if sha1 {
        return Some("rsa-sha1 does not count");
    }
    // RFC 8617 4.1.2, RFC 6376 5.4
    let newest = message.ams_headers.iter().max_by_key(|one| one.header.i)?;
    let names = &newest.header.h;
    if names
        .iter()
        .any(|name| name.eq_ignore_ascii_case("arc-seal"))
    {
        return Some("a message signature covers a seal");
    }
    if !names.iter().any(|name| name.eq_ignore_ascii_case("from")) {
        return Some("From is not signed");
    }
    None
}
