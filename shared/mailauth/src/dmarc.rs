//! DMARC (RFC 7489, RFC 9989): whether the domain that people see in From is one that SPF or DKIM vouches for.

use crate::dkim::{Checked, words};
use crate::ledger::Ledger;
use crate::report::{DmarcPolicy, DmarcReport, Published, SpfReport, Word};
use crate::{Case, Client};
use mail_auth::dmarc::verify::DmarcParameters;
use mail_auth::dmarc::{Alignment, Policy, Report};
use mail_auth::{
    AuthenticatedMessage, DkimOutput, DmarcOutput, DmarcResult, DnsError, Error, Parameters,
    SpfOutput, SpfResult,
};
use types::Address;

/// Domains in From that are looked at. RFC 7489 6.6.1 leaves several to the receiver; the worst of them decides here, lest a
/// second one be a way around the first.
const DOMAINS_MAX: usize = 4;

pub(crate) async fn check<'a>(
    case: &Case<'_>,
    client: &Client<'_>,
    message: &'a AuthenticatedMessage<'a>,
    dkim: &[Checked<'a>],
    spf_helo: &Option<SpfReport>,
    spf_mail_from: &Option<SpfReport>,
) -> DmarcReport {
    let mut domains: Vec<String> = Vec::new();
    for from in &message.from {
        let domain = from.rsplit_once('@').map_or("", |(_, domain)| domain);
        // As names are compared: a final dot, or another form of letters, is no other domain.
        let domain = Address::domain_of(domain.trim()).unwrap_or_else(|_| domain.to_owned());
        if !domain.is_empty() && !domains.contains(&domain) {
            domains.push(domain);
        }
    }
    if domains.len() > DOMAINS_MAX {
        return DmarcReport {
            result: Word::PermError,
            domain: domains.swap_remove(0),
            // Nobody writes such mail; what it hides behind the first domains is not known.
            policy: DmarcPolicy::Quarantine,
            reason: "From names too many domains".to_owned(),
            ..DmarcReport::default()
        };
    }
    // RFC 7489 3.1.2: the null reverse-path is judged by the HELO name.
    let spf = match client.sender {
        Some(_) => spf_mail_from.as_ref(),
        None => spf_helo.as_ref(),
    };
    let mut worst: Option<DmarcReport> = None;
    for domain in &domains {
        let report = one(case, domain, dkim, spf).await;
        let heavier = worst
            .as_ref()
            .is_none_or(|worst| weight(&report) > weight(worst));
        if heavier {
            worst = Some(report);
        }
    }
    worst.unwrap_or_default()
}

fn weight(report: &DmarcReport) -> (u8, DmarcPolicy) {
    let result = match report.result {
        Word::Fail => 4,
        Word::TempError => 3,
        Word::PermError => 2,
        Word::None => 1,
        _ => 0,
    };
    (result, report.policy)
}

async fn one(
    case: &Case<'_>,
    domain: &str,
    dkim: &[Checked<'_>],
    spf: Option<&SpfReport>,
) -> DmarcReport {
    let author = AuthenticatedMessage {
        from: vec![format!("x@{domain}")],
        ..AuthenticatedMessage::default()
    };
    let outputs: Vec<DkimOutput<'_>> = dkim
        .iter()
        .filter_map(|checked| {
            let output = match checked.report.result {
                Word::Pass => DkimOutput::pass(),
                Word::TempError => DkimOutput::temp_err(unanswered()),
                _ => return None,
            };
            Some(output.with_signature(checked.signature?))
        })
        .collect();
    let spf_domain = spf.map_or("", |spf| spf.domain.as_str());
    let spf_output =
        SpfOutput::new(spf_domain.to_owned()).with_result(match spf.map(|spf| spf.result) {
            Some(Word::Pass) => SpfResult::Pass,
            Some(Word::TempError) => SpfResult::TempError,
            _ => SpfResult::None,
        });
    let ledger = case.ledger;
    let parameters = Parameters {
        params: DmarcParameters::new(&author, &outputs, spf_domain, &spf_output),
        cache_txt: Some(ledger),
        cache_mx: Some(ledger),
        cache_ptr: Some(ledger),
        cache_ipv4: Some(ledger),
        cache_ipv6: Some(ledger),
    };
    match case
        .in_time(case.authenticator.verify_dmarc(parameters))
        .await
    {
        Some(output) => DmarcReport {
            published: published(&output, ledger),
            ..report(domain, &output)
        },
        None => DmarcReport {
            result: Word::TempError,
            domain: domain.to_owned(),
            reason: "no answer in time".to_owned(),
            ..DmarcReport::default()
        },
    }
}

/// Addresses of one record that are kept.
const ADDRESSES_MAX: usize = 10;

/// The record, and where it stands: the library does not say, but the ledger saw who was asked.
fn published(output: &DmarcOutput, ledger: &Ledger) -> Option<Box<Published>> {
    let record = output.dmarc_record_cloned()?;
    let policy = |policy: Policy| match policy {
        Policy::Reject => DmarcPolicy::Reject,
        Policy::Quarantine => DmarcPolicy::Quarantine,
        Policy::None | Policy::Unspecified => DmarcPolicy::None,
    };
    let mail = |uri: &&mail_auth::dmarc::URI| {
        uri.uri.contains('@') && !uri.uri.contains("://") && uri.uri.len() <= 320
    };
    let addresses = |uris: &[mail_auth::dmarc::URI]| -> Vec<(String, u64)> {
        uris.iter()
            .filter(mail)
            .take(ADDRESSES_MAX)
            .map(|uri| (uri.uri.clone(), uri.max_size as u64))
            .collect()
    };
    Some(Box::new(Published {
        domain: ledger
            .place_of(&record)
            .unwrap_or_else(|| output.domain().to_owned()),
        strict_dkim: record.adkim == Alignment::Strict,
        strict_spf: record.aspf == Alignment::Strict,
        policy: policy(record.p),
        subdomains: policy(record.sp),
        failures: match record.fo {
            Report::All => "0",
            Report::Any => "1",
            Report::Dkim => "d",
            Report::Spf => "s",
            Report::DkimSpf => "d:s",
        },
        rua: addresses(&record.rua),
        ruf: addresses(&record.ruf)
            .into_iter()
            .map(|(address, _)| address)
            .collect(),
    }))
}

fn unanswered() -> Error {
    Error::Dns(DnsError::Resolver(String::new()))
}

fn report(domain: &str, output: &DmarcOutput) -> DmarcReport {
    let (result, reason) = match output.result() {
        DmarcResult::Pass => (Word::Pass, ""),
        DmarcResult::None => (Word::None, ""),
        DmarcResult::Fail(_) => (Word::Fail, "neither SPF nor DKIM vouches for the domain"),
        DmarcResult::TempError(error) => (Word::TempError, words(&error)),
        DmarcResult::PermError(error) => (Word::PermError, words(&error)),
    };
    let asked = match output.domain() {
        "" => domain,
        own => own,
    };
    DmarcReport {
        result,
        domain: asked.to_owned(),
        policy: match output.policy() {
            Policy::Reject => DmarcPolicy::Reject,
            Policy::Quarantine => DmarcPolicy::Quarantine,
            Policy::None | Policy::Unspecified => DmarcPolicy::None,
        },
        spf_aligned: *output.spf_result() == DmarcResult::Pass,
        dkim_aligned: *output.dkim_result() == DmarcResult::Pass,
        reason: reason.to_owned(),
        published: None,
    }
}
