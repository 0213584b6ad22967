//! `posthouse certificate`, and what `posthouse check` says of certd.

use super::check::Findings;
use crate::cli::Certificate;
use crate::connect::Suite;
use crate::failure::Failure;
use crate::{output, time};
use ipc::api::certd::{
    CertificateOrder, CertificateRevoke, CertificateStatus, CertificateStatusReply,
    OrderedCertificate, RevocationReason,
};
use ipc::api::keyd::{Certificate as Used, ListCertificates};
use serde_json::{Value, json};
use std::time::Duration;
use types::Role::{Certd, Keyd};

/// An order may wait for others, for DNS records to be seen everywhere, and for the authority.
const ORDER: Duration = Duration::from_secs(1800);

const COLUMNS: &[(&str, &str)] = &[
    ("names", "NAMES"),
    ("from", "FROM"),
    ("state", "STATE"),
    ("expires_text", "EXPIRES"),
    ("renew_text", "RENEWED"),
    ("trouble", "TROUBLE"),
];

pub(crate) async fn run(suite: &Suite, command: Certificate) -> Result<(), Failure> {
    match command {
        Certificate::List => list(suite).await,
        Certificate::Order { name } => order(suite, name, false).await,
        Certificate::Renew { name } => order(suite, name, true).await,
        Certificate::Revoke { name, reason } => {
            let reason = match reason.as_str() {
                "unspecified" => RevocationReason::Unspecified,
                "key-compromise" => RevocationReason::KeyCompromise,
                "superseded" => RevocationReason::Superseded,
                "cessation-of-operation" => RevocationReason::CessationOfOperation,
                other => {
                    return Err(Failure::new(format!(
                        "{other:?} is no reason: unspecified, key-compromise, superseded or cessation-of-operation"
                    )));
                }
            };
            let request = CertificateRevoke {
                id: id(&name),
                reason,
            };
            let done = suite.call_within(Certd, &request, ORDER).await?;
            let text = format!(
                "Revoked; another is in use, until {}.",
                time::utc(done.expires)
            );
            output::done(suite.json, &text, &row(&done));
            Ok(())
        }
    }
}

fn id(name: &str) -> String {
    name.trim_start_matches("*.").to_ascii_lowercase()
}

/// How certd stands; it is not there to say so if it is not enabled.
async fn status(suite: &Suite) -> Result<CertificateStatusReply, Failure> {
    match suite.daemons.contains(&Certd) {
        true => suite.call(Certd, &CertificateStatus).await,
        false => Ok(CertificateStatusReply::default()),
    }
}

async fn list(suite: &Suite) -> Result<(), Failure> {
    let used = suite.call(Keyd, &ListCertificates).await?;
    let status = status(suite).await?;
    let mut rows: Vec<Value> = status.certificates.iter().map(row).collect();
    rows.extend(
        used.iter()
            .filter(|used| !is_ours(used, &status))
            .map(used_row),
    );
    output::list(suite.json, COLUMNS, &rows);
    if !suite.json && !status.enabled {
        output::say("certd is not enabled (certd.enabled): none are got from an authority.");
    }
    Ok(())
}

/// Whether certd has a row for it.
fn is_ours(used: &Used, status: &CertificateStatusReply) -> bool {
    !used.self_signed
        && status.certificates.iter().any(|own| {
            own.expires == used.expires && own.names.iter().all(|n| used.names.contains(n))
        })
}

async fn order(suite: &Suite, name: Option<String>, renew: bool) -> Result<(), Failure> {
    let ids = match name {
        Some(name) => vec![id(&name)],
        None => {
            let status = status(suite).await?;
            if !status.enabled {
                return Err(Failure::new("certd is not enabled: set certd.enabled"));
            }
            let all = status.certificates.into_iter();
            all.map(|one| one.id).collect()
        }
    };
    for id in ids {
        let request = CertificateOrder { id, renew };
        let done = suite.call_within(Certd, &request, ORDER).await?;
        let text = format!("{} is good until {}.", done.id, time::utc(done.expires));
        output::done(suite.json, &text, &row(&done));
    }
    Ok(())
}

fn row(one: &OrderedCertificate) -> Value {
    let at = |seconds: u64| (seconds > 0).then(|| time::utc(seconds));
    let trouble = (!one.trouble.is_empty()).then(|| {
        let next = time::utc(one.retry_at);
        match one.state.as_str() {
            "unpublished" => format!("{} (looked at again {next})", one.trouble),
            _ => format!("{} (attempt {}, next {next})", one.trouble, one.failures),
        }
    });
    json!({
        "id": one.id,
        "names": one.names,
        "from": one.challenge,
        "state": one.state,
        "expires": one.expires,
        "expires_text": at(one.expires),
        "renew_at": one.renew_at,
        "renew_text": at(one.renew_at),
        "window": one.window.map(|(start, end)| [start, end]),
        "failures": one.failures,
        "retry_at": one.retry_at,
        "trouble": trouble,
    })
}

fn used_row(used: &Used) -> Value {
    json!({
        "names": used.names,
        "from": if used.self_signed { "keyd itself" } else { "a file" },
        "state": if used.expires > time::now() { "in use" } else { "expired" },
        "expires": used.expires,
        "expires_text": time::utc(used.expires),
    })
}

/// What certd wants and does not get. How long those in use are good is said elsewhere.
pub(crate) async fn check(findings: &mut Findings, suite: &Suite) {
    // Whether certd runs at all is said elsewhere.
    let Ok(status) = suite.call(Certd, &CertificateStatus).await else {
        return;
    };
    for one in &status.certificates {
        let names = one.names.join(", ");
        if one.failures > 0 {
            let text = format!(
                "{names}: certd failed {} times, the next attempt is at {}: {}",
                one.failures,
                time::utc(one.retry_at),
                one.trouble
            );
            // With a good one in use there is time to look.
            if one.expires > time::now() {
                findings.warn("certificates", text);
            } else {
                findings.error("certificates", text);
            }
        } else if one.state == "unpublished" {
            let text = format!("{names}: {}", one.trouble);
            if one.expires > time::now() {
                findings.warn("certificates", text);
            } else {
                findings.error("certificates", text);
            }
        } else if one.state == "none" {
            let text = format!("{names}: certd has not got one yet");
            findings.warn("certificates", text);
        }
    }
}
