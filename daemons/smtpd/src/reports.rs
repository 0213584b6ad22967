//! What the checks found, counted for reportd: in bounded memory, handed over every few seconds, never waited for.

use crate::Config;
use ipc::Client;
use ipc::api::reportd::{Evaluation, FailedMail, Judged};
use runtime::metrics::counter;
use runtime::tally::{Count, Tally};
use runtime::{Failure, Start};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use types::{AddressPattern, ReportAddresses, Role, TraceId};

/// Kinds of results that wait for reportd at most; more are dropped.
const KINDS_MAX: usize = 5000;
/// Failures that wait for reportd at most.
const FAILURES_MAX: usize = 20;
/// How often they are handed over.
const EVERY: Duration = Duration::from_secs(3);
/// Octets of a call, about.
const CALL_MAX: usize = 48 * 1024;
/// Answers on destinations that are remembered.
const ANSWERS_MAX: usize = 10_000;
/// For how long.
const ANSWER_AGE: Duration = Duration::from_secs(3600);

/// Results that wait.
#[derive(Debug)]
pub(crate) struct Reports {
    results: Tally<Evaluation>,
    failures: Mutex<Vec<FailedMail>>,
    /// Failures are reported at all.
    pub(crate) wants_failures: bool,
    /// Mail to these alone is not reported on: it is reports.
    pub(crate) own: Vec<AddressPattern>,
}

/// Begins to gather, if reports are sent and mail is checked.
pub(crate) fn start(start: &Start<Config>) -> Result<Option<Arc<Reports>>, Failure> {
    let settings: ReportAddresses = start.section(Role::Reportd.name())?;
    let sends = settings.send.dmarc || settings.send.failure;
    if !sends || !start.enabled(Role::Reportd) {
        return Ok(None);
    }
    let config = start.config();
    let hostname = config
        .hostname
        .as_deref()
        .unwrap_or(&start.suite().hostname);
    let Some(judge) = crate::judge(&config.checks, hostname)? else {
        return Ok(None);
    };
    let dropped = counter(
        "smtpd_report_results_dropped_total",
        "Results of DMARC that were dropped because reportd did not take them.",
    );
    let reports = Arc::new(Reports {
        results: Tally::new(KINDS_MAX, dropped),
        failures: Mutex::default(),
        wants_failures: settings.send.failure,
        own: settings.patterns().map_err(Failure::new)?,
    });
    let hand_over = HandOver {
        reports: Arc::clone(&reports),
        reportd: start.client(Role::Reportd),
        judge,
        answers: HashMap::new(),
    };
    tokio::spawn(hand_over.run(start.stopping()));
    Ok(Some(reports))
}

impl Reports {
    /// Counts a result. `at` and `count` of it are 0.
    pub(crate) fn add(&self, evaluation: Evaluation, now: u64) {
        self.results.add(evaluation, now);
    }

    /// Keeps a failure, if there is room.
    pub(crate) fn failed(&self, failed: FailedMail) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() < FAILURES_MAX {
            failures.push(failed);
        }
    }
}

struct HandOver {
    reports: Arc<Reports>,
    reportd: Client,
    judge: mailauth::Judge,
    /// Whether a destination agreed to hear of a domain.
    answers: HashMap<(String, String), (Instant, bool)>,
}

impl HandOver {
    async fn run(mut self, mut stop: watch::Receiver<bool>) {
        loop {
            let stopped = tokio::select! {
                () = tokio::time::sleep(EVERY) => false,
                _ = stop.wait_for(|stop| *stop) => true,
            };
            self.once().await;
            if stopped {
                return;
            }
        }
    }

    async fn once(&mut self) {
        let mut batch: Vec<(Evaluation, Count)> = Vec::new();
        let mut room = CALL_MAX;
        for (result, count) in self.reports.results.take() {
            let weight = weight(&result);
            if batch.len() >= Judged::MAX || room < weight {
                self.hand_over(std::mem::take(&mut batch), Vec::new()).await;
                room = CALL_MAX;
            }
            room = room.saturating_sub(weight);
            batch.push((result, count));
        }
        if !batch.is_empty() {
            self.hand_over(batch, Vec::new()).await;
        }
        let failures = {
            let mut failures = self
                .reports
                .failures
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *failures)
        };
        for failed in failures {
            self.hand_over(Vec::new(), vec![failed]).await;
        }
    }

    async fn hand_over(&mut self, batch: Vec<(Evaluation, Count)>, failures: Vec<FailedMail>) {
        let mut call = Judged::default();
        let mut held = Vec::new();
        for (result, count) in batch {
            let mut evaluation = result.clone();
            let uris: Vec<String> = result.rua.iter().map(|(uri, _)| uri.clone()).collect();
            let Some(agreed) = self.agreed(&result.published.domain, &uris).await else {
                // Asked again later.
                held.push((result, count));
                continue;
            };
            evaluation.rua.retain(|(uri, _)| agreed.contains(uri));
            if evaluation.rua.is_empty() {
                continue;
            }
            (evaluation.at, evaluation.count) = (count.first, count.count);
            call.evaluations.push(evaluation);
            held.push((result, count));
        }
        for mut failed in failures {
            let domain = failed.evaluation.published.domain.clone();
            failed.ruf = self.agreed(&domain, &failed.ruf).await.unwrap_or_default();
            if !failed.ruf.is_empty() {
                call.failures.push(failed);
            }
        }
        if !call.evaluations.is_empty() || !call.failures.is_empty() {
            match self.reportd.call(TraceId::default(), &call).await {
                Ok(()) => {
                    let taken = |(result, _): &(Evaluation, Count)| {
                        call.evaluations.iter().any(|sent| same(sent, result))
                    };
                    held.retain(|one| !taken(one));
                }
                Err(error) => tracing::debug!(%error, "results of DMARC wait for reportd"),
            }
        }
        for (result, count) in held {
            self.reports.results.put(result, count);
        }
    }

    /// Which destinations agreed; `None` if that cannot be found out now.
    async fn agreed(&mut self, domain: &str, uris: &[String]) -> Option<Vec<String>> {
        let target = |uri: &str| {
            uri.rsplit_once('@')
                .map_or("", |(_, domain)| domain)
                .to_ascii_lowercase()
        };
        self.answers
            .retain(|_, (since, _)| since.elapsed() < ANSWER_AGE);
        let mut agreed = Vec::new();
        for uri in uris {
            let key = (domain.to_owned(), target(uri));
            let known = self.answers.get(&key).map(|(_, answer)| *answer);
            let answer = match known {
                Some(answer) => answer,
                None => {
                    let asked = self.judge.agreed(domain, std::slice::from_ref(uri)).await?;
                    let answer = !asked.is_empty();
                    if self.answers.len() < ANSWERS_MAX {
                        self.answers.insert(key, (Instant::now(), answer));
                    }
                    answer
                }
            };
            if answer {
                agreed.push(uri.clone());
            }
        }
        Some(agreed)
    }
}

/// Whether a result is the one that was handed over, its destinations apart.
fn same(sent: &Evaluation, result: &Evaluation) -> bool {
    let bare = Evaluation {
        at: 0,
        count: 0,
        rua: result.rua.clone(),
        ..sent.clone()
    };
    bare == *result
}

/// Octets in a call, about.
fn weight(evaluation: &Evaluation) -> usize {
    let rua: usize = evaluation.rua.iter().map(|(uri, _)| uri.len() + 12).sum();
    let signatures = evaluation.dkim.iter();
    let dkim: usize = signatures
        .map(|(a, b, c, d)| a.len() + b.len() + c.len() + d.len() + 8)
        .sum();
    let reasons: usize = evaluation
        .reasons
        .iter()
        .map(|(a, b)| a.len() + b.len() + 4)
        .sum();
    rua + dkim + reasons + evaluation.header_from.len() + evaluation.envelope_from.len() + 1024
}
