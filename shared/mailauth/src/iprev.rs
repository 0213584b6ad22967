//! iprev (RFC 8601 3): the client's address leads to a name, and that name back to the address.

use crate::Case;
use crate::report::{IprevReport, Word};
use mail_auth::{DnsError, Error, IprevResult, Parameters};
use std::net::IpAddr;

pub(crate) async fn check(case: &Case<'_>, address: IpAddr) -> IprevReport {
    let address = address.to_canonical();
    let ledger = case.ledger;
    let parameters = Parameters {
        params: address,
        cache_txt: Some(ledger),
        cache_mx: Some(ledger),
        cache_ptr: Some(ledger),
        cache_ipv4: Some(ledger),
        cache_ipv6: Some(ledger),
    };
    let output = case
        .in_time(case.authenticator.verify_iprev(parameters))
        .await;
    let result = match output.as_ref().map(|output| &output.result) {
        None => Word::TempError,
        _ if ledger.exceeded() => Word::TempError,
        Some(IprevResult::Pass) => Word::Pass,
        Some(IprevResult::Fail(_)) => Word::Fail,
        // A name that leads nowhere does not lead back.
        Some(IprevResult::PermError(Error::Dns(DnsError::RecordNotFound(_))))
            if output.as_ref().is_some_and(|output| output.ptr.is_some()) =>
        {
            Word::Fail
        }
        Some(IprevResult::TempError(_)) => Word::TempError,
        Some(IprevResult::PermError(_)) => Word::PermError,
        Some(IprevResult::None) => Word::None,
    };
    let name = output
        .filter(|_| result == Word::Pass)
        .and_then(|output| output.ptr)
        .and_then(|names| {
            names
                .first()
                .map(|name| name.trim_end_matches('.').to_owned())
        });
    IprevReport {
        result,
        address: address.to_string(),
        name: name.unwrap_or_default(),
    }
}
