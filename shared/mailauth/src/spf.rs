//! SPF (RFC 7208) of the two identities.

use crate::report::{SpfReport, Word};
use crate::{Case, Client};
use mail_auth::spf::verify::SpfParameters;
use mail_auth::{Parameters, SpfResult};
use types::Address;

/// Of the HELO name; `None` where that is no domain (RFC 7208 2.3).
pub(crate) async fn helo(case: &Case<'_>, client: &Client<'_>, host: &str) -> Option<SpfReport> {
    let domain = Address::domain_of(client.helo).ok()?;
    // An address literal, or a single label.
    if domain.starts_with('[') || !domain.contains('.') {
        return None;
    }
    let question = SpfParameters::verify_ehlo(client.address.to_canonical(), &domain, host);
    Some(ask(case, question, domain.clone(), String::new()).await)
}

/// Of the reverse-path; `None` for the null one.
pub(crate) async fn mail_from(
    case: &Case<'_>,
    client: &Client<'_>,
    host: &str,
) -> Option<SpfReport> {
    let sender = client.sender?;
    let text = format!("{}@{}", sender.local(), sender.domain());
    let helo = if client.helo.is_empty() { "unknown" } else { client.helo };
    let question = SpfParameters::verify_mail_from(client.address.to_canonical(), helo, host, &text);
    let plain = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
    let address = if sender.local().chars().all(plain) && !sender.domain().starts_with('[') {
        text.clone()
    } else {
        String::new()
    };
    Some(ask(case, question, sender.domain().to_owned(), address).await)
}

async fn ask(
    case: &Case<'_>,
    question: SpfParameters<'_>,
    domain: String,
    address: String,
) -> SpfReport {
    let ledger = case.ledger;
    let parameters = Parameters {
        params: question,
        cache_txt: Some(ledger),
        cache_mx: Some(ledger),
        cache_ptr: Some(ledger),
        cache_ipv4: Some(ledger),
        cache_ipv6: Some(ledger),
    };
    let answer = case
        .in_time(case.authenticator.check_host(parameters))
        .await;
    let result = match answer.as_ref().map(mail_auth::SpfOutput::result) {
        None => Word::TempError,
        _ if ledger.exceeded() => Word::PermError,
        Some(SpfResult::TempError) => Word::TempError,
        // RFC 7208 4.6.4
        Some(_) if ledger.too_many_void() => Word::PermError,
        Some(SpfResult::Pass) => Word::Pass,
        Some(SpfResult::Fail) => Word::Fail,
        Some(SpfResult::SoftFail) => Word::SoftFail,
        Some(SpfResult::Neutral) => Word::Neutral,
        Some(SpfResult::PermError) => Word::PermError,
        Some(SpfResult::None) => Word::None,
    };
    let explanation = answer
        .filter(|_| result == Word::Fail)
        .and_then(|answer| answer.explanation().map(str::to_owned));
    SpfReport {
        result,
        domain,
        address,
        explanation,
    }
}
