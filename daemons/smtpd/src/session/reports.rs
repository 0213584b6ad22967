//! What reports say of a message: counted after it was judged.

use super::Session;
use super::transaction::Transaction;
use crate::backend::Backend;
use crate::checks::{Checks, Decision, Evidence};
use crate::trace_header::now;
use ipc::api::reportd::{Evaluation, FailedMail, Published};
use mailauth::{DmarcPolicy, Report, Word};
use tokio::io::{AsyncRead, AsyncWrite};
use types::Treatment;

/// Characters of what strangers wrote.
const TEXT_MAX: usize = 250;

impl<S: AsyncRead + AsyncWrite + Unpin + Send, B: Backend> Session<S, B> {
    /// The header, where a failure may have to be shown.
    pub(super) fn header_for_reports(
        &self,
        checks: &Checks,
        evidence: &Evidence,
    ) -> Option<Vec<u8>> {
        let reports = checks.reports.as_ref()?;
        let header = &evidence.header;
        let begin = header.get(..FailedMail::HEADER_MAX).unwrap_or(header);
        reports.wants_failures.then(|| begin.to_vec())
    }

    /// Counts what was found, if the domain in From wants to hear of it.
    pub(super) fn count_for_reports(
        &self,
        checks: &Checks,
        transaction: &Transaction,
        report: &Report,
        decision: &Decision,
        header: Option<Vec<u8>>,
    ) {
        let (Some(reports), Some(published)) = (&checks.reports, &report.dmarc.published) else {
            return;
        };
        // What has no result yet comes again, or cannot be reported.
        let later = matches!(decision, Decision::Refuse(code, ..) if *code < 500);
        let decided = matches!(report.dmarc.result, Word::Pass | Word::Fail);
        // Reports on reports would never end.
        let own = transaction.recipients.iter().all(|recipient| {
            reports
                .own
                .iter()
                .any(|pattern| pattern.matches(&recipient.address))
        });
        if later || !decided || own || (published.rua.is_empty() && published.ruf.is_empty()) {
            return;
        }
        let vouched = report.vouched_by(&checks.config.trusted_sealers);
        let evaluation = Evaluation {
            rua: published.rua.clone(),
            published: Published {
                domain: published.domain.clone(),
                strict_dkim: published.strict_dkim,
                strict_spf: published.strict_spf,
                policy: published.policy.as_str().to_owned(),
                subdomains: published.subdomains.as_str().to_owned(),
                failures: published.failures.to_owned(),
            },
            source: self.peer.address.map(|address| address.to_canonical()),
            envelope_to: transaction
                .recipients
                .first()
                .map(|recipient| recipient.address.domain().to_owned())
                .unwrap_or_default(),
            envelope_from: transaction
                .sender
                .as_ref()
                .map(|sender| sender.domain().to_owned())
                .unwrap_or_default(),
            ..evaluation(report, decision, vouched)
        };
        if let Some(header) = header.filter(|_| wants_failure(report, published.failures)) {
            reports.failed(FailedMail {
                trace: transaction.trace,
                ruf: published.ruf.clone(),
                mail_from: transaction
                    .sender
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                header: header.into(),
                results: results(
                    report,
                    &checks.config.authserv_id,
                    &self.service.policy.hostname,
                ),
                evaluation: evaluation.clone(),
            });
        }
        if !evaluation.rua.is_empty() {
            reports.add(evaluation, now());
        }
    }
}

/// RFC 7489 6.3: what `fo` asks for.
fn wants_failure(report: &Report, failures: &str) -> bool {
    let dmarc = &report.dmarc;
    match failures {
        "0" => !dmarc.spf_aligned && !dmarc.dkim_aligned,
        "1" => !dmarc.spf_aligned || !dmarc.dkim_aligned,
        other => {
            let signature = report.dkim.iter().any(|one| one.result == Word::Fail);
            let spf = report.spf().is_some_and(|spf| spf.result == Word::Fail);
            (other.contains('d') && signature) || (other.contains('s') && spf)
        }
    }
}

/// What the policy and the signatures came to.
fn evaluation(report: &Report, decision: &Decision, vouched: Option<&str>) -> Evaluation {
    let dmarc = &report.dmarc;
    let failed = dmarc.result == Word::Fail;
    let done = match decision {
        Decision::Refuse(..) => DmarcPolicy::Reject,
        Decision::Take(suspicions)
            if suspicions
                .iter()
                .any(|one| one.treatment == Treatment::Junk) =>
        {
            DmarcPolicy::Quarantine
        }
        Decision::Take(_) => DmarcPolicy::None,
    };
    // RFC 7489 7.2: why the policy was not followed.
    let mut reasons = Vec::new();
    let expected = if failed {
        dmarc.policy
    } else {
        DmarcPolicy::None
    };
    match vouched {
        Some(sealer) if failed && done != expected => {
            reasons.push((
                "trusted_forwarder".to_owned(),
                short(&format!("arc=pass by {sealer}")),
            ));
        }
        _ if done != expected => reasons.push(("local_policy".to_owned(), String::new())),
        _ => {}
    }
    let dkim = report
        .dkim
        .iter()
        .filter(|one| !one.domain.is_empty())
        .take(10);
    Evaluation {
        disposition: done.as_str().to_owned(),
        dkim_aligned: dmarc.dkim_aligned,
        spf_aligned: dmarc.spf_aligned,
        reasons,
        header_from: short(&dmarc.domain),
        dkim: dkim
            .map(|one| {
                let result = one.result.as_str().to_owned();
                (
                    short(&one.domain),
                    short(&one.selector),
                    result,
                    short(&one.reason),
                )
            })
            .collect(),
        spf: report.spf().map(|spf| {
            let scope = if report.spf_mail_from.is_some() {
                "mfrom"
            } else {
                "helo"
            };
            (
                short(&spf.domain),
                scope.to_owned(),
                spf.result.as_str().to_owned(),
            )
        }),
        ..Evaluation::default()
    }
}

/// The value of Authentication-Results in one line.
fn results(report: &Report, authserv_id: &str, hostname: &str) -> String {
    let own = if authserv_id.is_empty() {
        hostname
    } else {
        authserv_id
    };
    let field = report.field(own);
    let value = field.split_once(':').map_or("", |(_, value)| value);
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn short(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(TEXT_MAX)
        .collect()
}
