//! Reports on TLS (RFC 8460 4.4).

use super::{Kept, Unreadable};
use crate::config::Intake;
use crate::store::clean;
use ipc::api::reportd::ReportRow;
use serde::Deserialize;
use std::io::BufRead;
use types::moment;

/// Values in the text for each row that is allowed. No value takes more memory than a few hundred octets besides its text, and the
/// text is bounded.
const VALUES: usize = 16;

#[derive(Deserialize)]
struct Report {
    #[serde(rename = "organization-name", default)]
    organization: Option<String>,
    #[serde(rename = "date-range", default)]
    range: Range,
    #[serde(rename = "contact-info", default)]
    contact: Option<String>,
    #[serde(rename = "report-id", default)]
    id: Option<String>,
    policies: Vec<Policy>,
}

#[derive(Default, Deserialize)]
struct Range {
    #[serde(rename = "start-datetime", default)]
    start: String,
    #[serde(rename = "end-datetime", default)]
    end: String,
}

#[derive(Deserialize)]
struct Policy {
    policy: Details,
    #[serde(default)]
    summary: Summary,
    #[serde(rename = "failure-details", default)]
    failures: Option<Vec<Failure>>,
}

#[derive(Deserialize)]
struct Details {
    #[serde(rename = "policy-type", default)]
    kind: String,
    #[serde(rename = "policy-domain", default)]
    domain: String,
}

#[derive(Default, Deserialize)]
struct Summary {
    #[serde(rename = "total-successful-session-count", default)]
    passed: u64,
    #[serde(rename = "total-failure-session-count", default)]
    failed: u64,
}

#[derive(Deserialize)]
struct Failure {
    #[serde(rename = "result-type", default)]
    kind: String,
    #[serde(rename = "sending-mta-ip", default)]
    sending: Option<String>,
    #[serde(rename = "receiving-mx-hostname", default)]
    mx: Option<String>,
    #[serde(rename = "receiving-ip", default)]
    receiving: Option<String>,
    #[serde(rename = "failed-session-count", default)]
    count: u64,
    #[serde(rename = "failure-reason-code", default)]
    code: Option<String>,
    #[serde(rename = "additional-information", default)]
    more: Option<String>,
}

/// Reads a report.
pub(crate) fn parse(mut from: impl BufRead, bounds: &Intake) -> Result<Kept, Unreadable> {
    let mut text = Vec::new();
    from.read_to_end(&mut text).map_err(Unreadable::of_io)?;
    let values = text.iter().filter(|octet| b",{[:".contains(octet)).count();
    if values > bounds.max_rows.saturating_mul(VALUES).max(4096) {
        return Err(Unreadable("it has too many values".to_owned()));
    }
    let report: Report = serde_json::from_slice(&text)
        .map_err(|error| Unreadable(format!("its JSON is no report: {error}")))?;
    drop(text);
    let mut kept = Kept {
        kind: "tls",
        organization: clean(&report.organization.unwrap_or_default(), 250),
        report_id: clean(&report.id.unwrap_or_default(), 250),
        begin: moment::parse_date_time(&report.range.start).unwrap_or(0),
        end: moment::parse_date_time(&report.range.end).unwrap_or(0),
        ..Kept::default()
    };
    kept.field("contact", &report.contact.unwrap_or_default());
    for policy in report.policies {
        if kept.domain.is_empty() {
            kept.domain = super::domain(&policy.policy.domain);
        }
        kept.passed = kept
            .passed
            .saturating_add(policy.summary.passed.min(1 << 40));
        kept.failed = kept
            .failed
            .saturating_add(policy.summary.failed.min(1 << 40));
        let failures = policy.failures.unwrap_or_default();
        if kept.rows.len() + failures.len() + 1 > bounds.max_rows {
            return Err(Unreadable(format!(
                "it has more than {} rows",
                bounds.max_rows
            )));
        }
        let kind = clean(&policy.policy.kind, 60);
        if policy.summary.passed > 0 || failures.is_empty() {
            kept.rows.push(ReportRow {
                identity: kind.clone(),
                result: "success".to_owned(),
                dkim: true,
                spf: true,
                count: policy.summary.passed.min(1 << 40),
                ..ReportRow::default()
            });
        }
        kept.rows
            .extend(failures.into_iter().map(|failure| row(&kind, failure)));
    }
    if kept.domain.is_empty() {
        return Err(Unreadable(
            "it does not say about which domain it is".to_owned(),
        ));
    }
    Ok(kept)
}

fn row(kind: &str, failure: Failure) -> ReportRow {
    let parts = [
        ("to", failure.receiving),
        ("from", failure.sending),
        ("", failure.code),
        ("", failure.more),
    ];
    let mut detail = String::new();
    for (label, text) in parts {
        let text = text.unwrap_or_default();
        if !text.is_empty() {
            detail.push_str(&format!("{label} {text}; "));
        }
    }
    ReportRow {
        source: clean(&failure.mx.unwrap_or_default(), 250),
        identity: kind.to_owned(),
        result: clean(&failure.kind, 60),
        dkim: false,
        spf: false,
        detail: clean(detail.trim_end_matches("; "), 600),
        count: failure.count.min(1 << 40),
    }
}
