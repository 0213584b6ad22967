//! The JSON of a report on TLS (RFC 8460 4.4).

use super::{About, rfc3339};
use ipc::api::reportd::{TlsFailure, TlsPolicy};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

#[derive(Default)]
struct Sums<'a> {
    passed: u64,
    failed: u64,
    failures: Vec<(&'a TlsFailure, u64)>,
}

/// Writes the report.
pub(crate) fn write(about: &About<'_>, rows: &[(&TlsPolicy, Option<&TlsFailure>, u64)]) -> String {
    let key = |policy: &TlsPolicy| {
        let TlsPolicy {
            kind,
            domain,
            text,
            mx,
        } = policy;
        (kind.clone(), domain.clone(), text.clone(), mx.clone())
    };
    let mut policies: BTreeMap<_, Sums<'_>> = BTreeMap::new();
    for (policy, failure, count) in rows {
        let sums = policies.entry(key(policy)).or_default();
        match failure {
            None => sums.passed += count,
            Some(failure) => {
                sums.failed += count;
                sums.failures.push((failure, *count));
            }
        }
    }
    let policies: Vec<Value> = policies
        .iter()
        .map(|((kind, domain, text, mx), sums)| {
            let mut policy = Map::new();
            policy.insert("policy-type".to_owned(), json!(kind));
            if !text.is_empty() {
                policy.insert("policy-string".to_owned(), json!(text));
            }
            policy.insert("policy-domain".to_owned(), json!(domain));
            if !mx.is_empty() {
                policy.insert("mx-host".to_owned(), json!(mx));
            }
            let failures = sums.failures.iter();
            let failures: Vec<Value> = failures.map(|(one, count)| detail(one, *count)).collect();
            let mut all = json!({
                "policy": policy,
                "summary": {
                    "total-successful-session-count": sums.passed,
                    "total-failure-session-count": sums.failed,
                },
            });
            if let (Some(all), false) = (all.as_object_mut(), failures.is_empty()) {
                all.insert("failure-details".to_owned(), Value::Array(failures));
            }
            all
        })
        .collect();
    let report = json!({
        "organization-name": about.organization,
        "date-range": {
            "start-datetime": rfc3339(about.begin),
            "end-datetime": rfc3339(about.end.saturating_sub(1)),
        },
        "contact-info": about.from,
        "report-id": about.report_id,
        "policies": policies,
    });
    serde_json::to_string_pretty(&report).unwrap_or_default()
}

fn detail(failure: &TlsFailure, count: u64) -> Value {
    let mut detail = Map::new();
    let mut put = |name: &str, value: String| {
        if !value.is_empty() {
            detail.insert(name.to_owned(), Value::String(value));
        }
    };
    put("result-type", failure.kind.clone());
    let address = |address: Option<std::net::IpAddr>| address.map(|address| address.to_string());
    put(
        "sending-mta-ip",
        address(failure.sending).unwrap_or_default(),
    );
    put("receiving-mx-hostname", failure.mx.clone());
    put(
        "receiving-ip",
        address(failure.receiving).unwrap_or_default(),
    );
    put("failure-reason-code", failure.reason.clone());
    detail.insert("failed-session-count".to_owned(), json!(count));
    Value::Object(detail)
}
