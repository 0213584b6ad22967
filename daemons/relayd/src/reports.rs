//! What became of TLS, counted for reportd: in bounded memory, handed over every few seconds, never waited for. Where reports go is
//! looked up then, and for domains alone that were talked to (RFC 8460 3).

use crate::attempt::Client;
use crate::config::Config;
use crate::demand::Wish;
use crate::result::TlsResult;
use hickory_resolver::net::NetError;
use ipc::api::reportd::{TlsCount, TlsFailure, TlsPolicy, TlsResults};
use runtime::metrics::counter;
use runtime::tally::{Count, Tally};
use runtime::{Failure, Start};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use types::{Address, ReportAddresses, Role, TraceId};

/// Kinds of results that wait for reportd at most; more are dropped.
const KINDS_MAX: usize = 5000;
/// How often they are handed over.
const EVERY: Duration = Duration::from_secs(3);
/// Octets of a call, about.
const CALL_MAX: usize = 48 * 1024;
/// Domains whose record is looked up in one round.
const LOOKUPS: usize = 200;
/// Records that are remembered, and for how long.
const RECORDS_MAX: usize = 10_000;
const RECORD_AGE: Duration = Duration::from_secs(3600);
/// Lines of a policy, and characters of a text, that are reported.
const LINES_MAX: usize = 20;
const TEXT_MAX: usize = 250;

/// Results that wait.
#[derive(Debug)]
pub(crate) struct Reports(Tally<TlsCount>);

/// Where results are counted, if reports on TLS are sent.
pub(crate) fn wanted(start: &Start<Config>) -> Result<Option<Arc<Reports>>, Failure> {
    let settings: ReportAddresses = start.section(Role::Reportd.name())?;
    let dropped = counter(
        "relayd_report_results_dropped_total",
        "Results of TLS that were dropped because reportd did not take them.",
    );
    let sends = start.enabled(Role::Reportd) && settings.send.tls;
    Ok(sends.then(|| Arc::new(Reports(Tally::new(KINDS_MAX, dropped)))))
}

impl Client {
    /// Writes, counts and reports a result.
    pub(crate) fn tell(&self, mut result: TlsResult, wish: Wish) {
        result.shown.unreported = wish.tls_optional;
        result.log(wish.trace);
        self.report(&result);
    }

    /// Counts a result for a report.
    pub(crate) fn report(&self, result: &TlsResult) {
        let Some(reports) = &self.reports else { return };
        // An address literal has no domain to report to.
        if result.shown.unreported || result.domain.starts_with('[') {
            return;
        }
        reports.0.add(kind(result), crate::service::now());
    }

    /// Hands results over until the daemon stops.
    pub(crate) async fn hand_over(&self, reportd: ipc::Client, mut stop: watch::Receiver<bool>) {
        let Some(reports) = &self.reports else { return };
        let mut records = HashMap::new();
        loop {
            let stopped = tokio::select! {
                () = tokio::time::sleep(EVERY) => false,
                _ = stop.wait_for(|stop| *stop) => true,
            };
            self.hand_over_once(reports, &reportd, &mut records).await;
            if stopped {
                return;
            }
        }
    }

    async fn hand_over_once(
        &self,
        reports: &Reports,
        reportd: &ipc::Client,
        records: &mut Records,
    ) {
        records.retain(|_, (since, _)| since.elapsed() < RECORD_AGE);
        let mut batch: Vec<(TlsCount, Count, Vec<String>)> = Vec::new();
        let (mut room, mut lookups) = (CALL_MAX, LOOKUPS);
        for (result, count) in reports.0.take() {
            let rua = match records.get(&result.domain) {
                Some((_, rua)) => rua.clone(),
                None if lookups == 0 => {
                    reports.0.put(result, count);
                    continue;
                }
                None => {
                    lookups -= 1;
                    let Ok(rua) = self.rua(&result.domain).await else {
                        reports.0.put(result, count);
                        continue;
                    };
                    if records.len() < RECORDS_MAX {
                        let entry = (Instant::now(), rua.clone());
                        records.insert(result.domain.clone(), entry);
                    }
                    rua
                }
            };
            if rua.is_empty() {
                continue;
            }
            let weight = weight(&result, &rua);
            if batch.len() >= TlsResults::MAX || room < weight {
                call(reports, reportd, std::mem::take(&mut batch)).await;
                room = CALL_MAX;
            }
            room = room.saturating_sub(weight);
            batch.push((result, count, rua));
        }
        if !batch.is_empty() {
            call(reports, reportd, batch).await;
        }
    }

    /// Where reports on a domain go: none if it does not say so. An error is worth another question.
    async fn rua(&self, domain: &str) -> Result<Vec<String>, ()> {
        match self.dns.texts(&format!("_smtp._tls.{domain}")).await {
            Ok(records) => Ok(addresses(records.iter().map(Vec::as_slice))),
            Err(NetError::Dns(_)) => Ok(Vec::new()),
            Err(error) => {
                tracing::debug!(domain, %error, "no answer about reports on TLS");
                Err(())
            }
        }
    }
}

type Records = HashMap<String, (Instant, Vec<String>)>;

async fn call(
    reports: &Reports,
    reportd: &ipc::Client,
    batch: Vec<(TlsCount, Count, Vec<String>)>,
) {
    let results = batch.iter().map(|(result, count, rua)| TlsCount {
        at: count.first,
        count: count.count,
        rua: rua.clone(),
        ..result.clone()
    });
    let request = TlsResults {
        results: results.collect(),
    };
    if let Err(error) = reportd.call(TraceId::default(), &request).await {
        tracing::debug!(%error, "results of TLS wait for reportd");
        for (result, count, _) in batch {
            reports.0.put(result, count);
        }
    }
}

/// RFC 8460 3: the only record that begins with the version; its `mailto:` and `https:` addresses.
fn addresses<'a>(records: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let ours = |record: &&[u8]| {
        let rest = record.strip_prefix(b"v=TLSRPTv1");
        rest.is_some_and(|rest| rest.trim_ascii_start().starts_with(b";"))
    };
    let mut ours = records.filter(ours);
    let (Some(record), None) = (ours.next(), ours.next()) else {
        return Vec::new();
    };
    let text = String::from_utf8_lossy(record);
    let rua = text.split(';').find_map(|field| {
        let (name, value) = field.split_once('=')?;
        (name.trim() == "rua").then_some(value)
    });
    let destination = |uri: &str| {
        let uri = uri.trim();
        if let Some(url) = crate::post::address(uri) {
            return Some(url);
        }
        let scheme = uri.get(..7)?;
        let address = uri.get(7..)?.split('?').next()?.replace("%40", "@");
        let fine = scheme.eq_ignore_ascii_case("mailto:") && address.parse::<Address>().is_ok();
        fine.then_some(address)
    };
    rua.unwrap_or_default()
        .split(',')
        .filter_map(destination)
        .take(10)
        .collect()
}

fn short(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(TEXT_MAX)
        .collect()
}

/// A result as it is counted.
fn kind(result: &TlsResult) -> TlsCount {
    let lines = |list: &[String]| {
        list.iter()
            .take(LINES_MAX)
            .map(|line| short(line))
            .collect()
    };
    let failure = result.problem.as_ref().map(|problem| TlsFailure {
        kind: problem.kind.name().to_owned(),
        sending: None,
        mx: result.mx.split('[').next().unwrap_or_default().to_owned(),
        receiving: result.address,
        reason: short(&problem.text),
    });
    TlsCount {
        domain: result.domain.trim_end_matches('.').to_ascii_lowercase(),
        policy: TlsPolicy {
            kind: result.policy.name().to_owned(),
            domain: result.domain.clone(),
            text: lines(&result.shown.text),
            mx: lines(&result.shown.mx),
        },
        failure,
        ..TlsCount::default()
    }
}

/// Octets in a call, about.
fn weight(result: &TlsCount, rua: &[String]) -> usize {
    let texts = rua
        .iter()
        .chain(&result.policy.text)
        .chain(&result.policy.mx);
    texts.map(|text| text.len() + 2).sum::<usize>() + 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_reports_go() {
        let of = |records: &[&str]| addresses(records.iter().map(|record| record.as_bytes()));
        let two =
            "v=TLSRPTv1; rua=mailto:a@x.example,https://x.example/v1, MAILTO:b@y.example?subject=x";
        assert_eq!(
            of(&[two, "v=spf1 -all"]),
            ["a@x.example", "https://x.example/v1", "b@y.example"]
        );
        assert_eq!(of(&["v=TLSRPTv1;rua=mailto:a@x.example;"]), ["a@x.example"]);
        for none in [
            &["v=TLSRPTv1; rua=http://x.example/v1"][..],
            &["v=TLSRPTv1; rua=https://user:secret@x.example/"],
            &["v=TLSRPTv2; rua=mailto:a@x.example"],
            &[
                "v=TLSRPTv1; rua=mailto:a@x.example",
                "v=TLSRPTv1; rua=mailto:b@x.example",
            ],
            &["v=TLSRPTv1; rua=mailto:nobody"],
            &[],
        ] {
            assert!(of(none).is_empty(), "{none:?}");
        }
    }
}
