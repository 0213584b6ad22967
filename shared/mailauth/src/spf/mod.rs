//! SPF (RFC 7208) of the two identities. Our own evaluation: syntax is checked for the whole record before anything is asked, and
//! every limit of RFC 7208 4.6.4 holds.

mod evaluate;
mod macros;
mod record;

use crate::report::SpfReport;
use crate::{Case, Client};
use evaluate::{Evaluation, Identity};
use types::Address;

/// For [`crate::fuzz`].
pub(crate) fn fuzz(octets: &[u8]) {
    if record::is_spf(octets)
        && let Some(record) = record::Record::parse(octets)
    {
        evaluate::expand_all(&record);
    }
}

/// Of the HELO name; `None` where that is no domain (RFC 7208 2.3).
pub(crate) async fn helo(case: &Case<'_>, client: &Client<'_>, host: &str) -> Option<SpfReport> {
    let domain = client.helo.trim_end_matches('.');
    // An address literal, or a single label, is nothing to ask for.
    if !domain.contains('.') || domain.starts_with('[') {
        return None;
    }
    let identity = Identity {
        local: "postmaster",
        domain,
    };
    Some(ask(case, client, host, identity, String::new()).await)
}

/// Of the reverse-path; `None` for the null one.
pub(crate) async fn mail_from(
    case: &Case<'_>,
    client: &Client<'_>,
    host: &str,
) -> Option<SpfReport> {
    let sender = client.sender?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
    let address = if sender.local().chars().all(plain) && !sender.domain().starts_with('[') {
        format!("{}@{}", sender.local(), sender.domain())
    } else {
        String::new()
    };
    let identity = Identity {
        local: sender.local(),
        domain: sender.domain(),
    };
    Some(ask(case, client, host, identity, address).await)
}

async fn ask(
    case: &Case<'_>,
    client: &Client<'_>,
    host: &str,
    identity: Identity<'_>,
    address: String,
) -> SpfReport {
    let evaluation = Evaluation::new(
        case.authenticator.resolver(),
        client.address.to_canonical(),
        client.helo,
        host,
        identity,
    );
    let domain = Address::domain_of(identity.domain)
        .unwrap_or_else(|_| identity.domain.to_ascii_lowercase());
    let (result, explanation) = case
        .in_time(evaluation.check())
        .await
        .unwrap_or((crate::Word::TempError, None));
    SpfReport {
        result,
        domain,
        address,
        explanation,
    }
}
