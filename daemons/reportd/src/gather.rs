//! What smtpd and relayd found, counted into the reports that are being gathered.

use crate::config::Config;
use crate::store::{Store, clean, fault, now, pack, unpack};
use ipc::Fault;
use ipc::api::reportd::{
    Evaluation, Judged, Published, TlsCount, TlsFailure, TlsPolicy, TlsResults,
};
use runtime::metrics::{Counter, counter};
use serde::{Deserialize, Serialize};
use sql::{Error, Tx, Value, args};
use std::sync::Arc;

/// Characters of a text of strangers at most.
const TEXT_MAX: usize = 250;
/// Lines of a policy, and names in it, at most.
const LINES_MAX: usize = 20;
/// DKIM signatures of a row at most.
const SIGNATURES_MAX: usize = 10;

/// Where a report goes, and how large it may be.
pub(crate) type Destinations = Vec<(String, u64)>;

/// A row of a report of ours, without its count. Stored: the order of fields and variants is that of the columns' version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Row {
    Dmarc(Box<Evaluation>),
    Tls(TlsPolicy, Option<TlsFailure>),
}

/// What is counted.
#[derive(Clone)]
pub(crate) struct Figures {
    counted: Counter,
    left_out: Counter,
}

impl Figures {
    pub(crate) fn new() -> Self {
        Self {
            counted: counter(
                "reportd_results_total",
                "Results of DMARC and TLS that were counted for reports.",
            ),
            left_out: counter(
                "reportd_results_left_out_total",
                "Results that found no place in a report: too many reports or rows.",
            ),
        }
    }
}

/// Counts results.
pub(crate) struct Gatherer {
    pub(crate) store: Arc<Store>,
    pub(crate) config: Arc<Config>,
    pub(crate) figures: Figures,
}

/// One result, ready to be counted.
struct Result_ {
    kind: &'static str,
    domain: String,
    at: u64,
    count: u64,
    policy: Option<Published>,
    destinations: Destinations,
    row: Row,
}

impl Gatherer {
    /// Counts what smtpd found.
    ///
    /// # Errors
    /// The database.
    pub(crate) async fn judged(&self, call: Judged) -> Result<(), Fault> {
        if !self.config.send.dmarc {
            return Ok(());
        }
        let results = call.evaluations.into_iter().take(Judged::MAX);
        self.count(results.filter_map(of_dmarc).collect()).await
    }

    /// Counts what relayd saw.
    ///
    /// # Errors
    /// The database.
    pub(crate) async fn tls(&self, call: TlsResults) -> Result<(), Fault> {
        if !self.config.send.tls {
            return Ok(());
        }
        let results = call.results.into_iter().take(TlsResults::MAX);
        self.count(results.filter_map(of_tls).collect()).await
    }

    async fn count(&self, results: Vec<Result_>) -> Result<(), Fault> {
        let _writing = self.store.write().await;
        let db = self.store.db().await.map_err(fault)?;
        let mut tx = db.begin().await.map_err(fault)?;
        let mut left_out = 0;
        let mut counted = 0;
        for result in results {
            if self.config.is_excluded(&result.domain) || result.destinations.is_empty() {
                continue;
            }
            let count = result.count;
            match self.one(&mut tx, result).await.map_err(fault)? {
                true => counted += count,
                false => left_out += count,
            }
        }
        tx.commit().await.map_err(fault)?;
        self.figures.counted.add(counted);
        self.figures.left_out.add(left_out);
        Ok(())
    }

    /// Counts one; `false` if there is no place for it.
    async fn one(&self, tx: &mut Tx, result: Result_) -> Result<bool, Error> {
        let Some((report, rows)) = self.period(tx, &result).await? else {
            return Ok(false);
        };
        let data = pack(&result.row);
        let digest = blake3::hash(&data).as_bytes().to_vec();
        let text =
            "UPDATE report_out_row SET messages = messages + ? WHERE report = ? AND digest = ?";
        let known = tx
            .execute(text, args![result.count, report, digest.clone()])
            .await?;
        let fits = rows < self.config.send.max_rows;
        if known == 0 && fits {
            let text =
                "INSERT INTO report_out_row (report, digest, messages, data) VALUES (?, ?, ?, ?)";
            tx.execute(text, args![report, digest, result.count, data])
                .await?;
        }
        let (new, counted, lost) = match (known, fits) {
            (0, true) => (1_u64, result.count, 0),
            (0, false) => (0, 0, result.count),
            _ => (0, result.count, 0),
        };
        // What the domain publishes may change in the interval: the last record counts.
        tx.execute(
            "UPDATE report_out SET row_count = row_count + ?, messages = messages + ?, left_out = left_out + ?,
                policy = ?, destinations = ? WHERE id = ?",
            args![
                new,
                counted,
                lost,
                result.policy.as_ref().map(pack),
                pack(&result.destinations),
                report
            ],
        )
        .await?;
        Ok(lost == 0)
    }

    /// The report that is being gathered, and its rows; made if there is none. `None`: there are too many.
    async fn period(&self, tx: &mut Tx, result: &Result_) -> Result<Option<(u64, u64)>, Error> {
        let text = "SELECT id, row_count FROM report_out WHERE kind = ? AND domain = ? AND begin_at <= ? AND end_at > ?
            AND state = 'gathering' AND queue_id = 0 ORDER BY id DESC LIMIT 1";
        let at = result.at.min(now());
        let place = args![result.kind, result.domain.as_str(), at, at];
        if let Some(row) = tx.fetch_optional(text, place).await? {
            return Ok(Some((row.u64(0)?, row.u64(1)?)));
        }
        let text = "SELECT COUNT(*) FROM report_out WHERE state = 'gathering' AND queue_id = 0";
        let open = tx.fetch_optional(text, args![]).await?;
        if open.map_or(Ok(0), |row| row.u64(0))? >= self.config.send.max_reports {
            return Ok(None);
        }
        // An interval may have been ended early; the next report begins where that ended.
        let text =
            "SELECT MAX(end_at) FROM report_out WHERE kind = ? AND domain = ? AND end_at <= ?";
        let before = args![result.kind, result.domain.as_str(), at];
        let ended = tx.fetch_optional(text, before).await?;
        let ended = ended.map_or(Ok(None), |row| row.int_opt(0))?.unwrap_or(0);
        let (begin, end) = interval(at, self.config.send.interval);
        let begin = begin.max(u64::try_from(ended).unwrap_or(0));
        let id = self.store.next_out();
        let due = end + spread(result.kind, &result.domain, self.config.send.spread);
        tx.execute(
            "INSERT INTO report_out (id, kind, domain, begin_at, end_at, due, state, lease, queue_id, row_count, messages,
                left_out) VALUES (?, ?, ?, ?, ?, ?, 'gathering', 0, 0, 0, 0, 0)",
            args![id, result.kind, result.domain.as_str(), begin, end, due],
        )
        .await?;
        Ok(Some((id, 0)))
    }
}

/// The interval around a moment: both ends are multiples of its length, so that a day begins at midnight UTC (RFC 7489 7.2,
/// RFC 8460 4.1).
pub(crate) fn interval(at: u64, length: u64) -> (u64, u64) {
    let length = length.max(1);
    let begin = at - at % length;
    (begin, begin + length)
}

/// The moment within the spread at which a domain gets its report: always the same, so that intervals stay apart.
fn spread(kind: &str, domain: &str, most: u64) -> u64 {
    let digest = blake3::hash(format!("{kind} {domain}").as_bytes());
    let number = digest
        .as_bytes()
        .first_chunk::<8>()
        .copied()
        .map_or(0, u64::from_le_bytes);
    number.checked_rem(most.max(1)).unwrap_or(0)
}

fn domain(text: &str) -> Option<String> {
    types::Address::domain_of(text)
        .ok()
        .filter(|name| name.len() <= 253)
}

fn short(text: &mut String) {
    *text = clean(text, TEXT_MAX);
}

/// The row is the evaluation without what belongs to the report.
fn of_dmarc(mut evaluation: Evaluation) -> Option<Result_> {
    let domain = domain(&evaluation.published.domain)?;
    let policy = std::mem::take(&mut evaluation.published);
    let destinations = std::mem::take(&mut evaluation.rua);
    let (at, count) = (evaluation.at, u64::from(evaluation.count.max(1)));
    (evaluation.at, evaluation.count) = (0, 0);
    evaluation.dkim.truncate(SIGNATURES_MAX);
    evaluation.reasons.truncate(SIGNATURES_MAX);
    for text in [
        &mut evaluation.envelope_to,
        &mut evaluation.envelope_from,
        &mut evaluation.header_from,
        &mut evaluation.disposition,
    ] {
        short(text);
    }
    for (domain, selector, result, reason) in &mut evaluation.dkim {
        [domain, selector, result, reason]
            .into_iter()
            .for_each(short);
    }
    for (kind, comment) in &mut evaluation.reasons {
        [kind, comment].into_iter().for_each(short);
    }
    if let Some((domain, scope, result)) = &mut evaluation.spf {
        [domain, scope, result].into_iter().for_each(short);
    }
    Some(Result_ {
        kind: "dmarc",
        domain,
        at,
        count,
        policy: Some(policy),
        destinations,
        row: Row::Dmarc(Box::new(evaluation)),
    })
}

fn of_tls(mut count: TlsCount) -> Option<Result_> {
    let domain = domain(&count.domain)?;
    for list in [&mut count.policy.text, &mut count.policy.mx] {
        list.truncate(LINES_MAX);
        list.iter_mut().for_each(short);
    }
    short(&mut count.policy.kind);
    short(&mut count.policy.domain);
    if let Some(failure) = &mut count.failure {
        [&mut failure.kind, &mut failure.mx, &mut failure.reason]
            .into_iter()
            .for_each(short);
    }
    Some(Result_ {
        kind: "tls",
        domain,
        at: count.at,
        count: u64::from(count.count.max(1)),
        policy: None,
        destinations: count.rua.into_iter().map(|uri| (uri, 0)).collect(),
        row: Row::Tls(count.policy, count.failure),
    })
}

/// The rows of a report, those that count most first.
pub(crate) async fn rows(store: &Store, report: u64, most: u64) -> Result<Vec<(Row, u64)>, Error> {
    let text = "SELECT data, messages FROM report_out_row WHERE report = ? ORDER BY messages DESC, digest LIMIT ?";
    let found = store
        .db()
        .await?
        .fetch_all(text, args![report, most])
        .await?;
    let mut rows = Vec::with_capacity(found.len());
    for row in found {
        if let Some(data) = unpack(row.blob(0)?) {
            rows.push((data, row.u64(1)?));
        }
    }
    Ok(rows)
}

/// Forgets the rows of reports.
pub(crate) async fn forget_rows(store: &Store, reports: Vec<Value>) -> Result<(), Error> {
    if reports.is_empty() {
        return Ok(());
    }
    let text = "DELETE FROM report_out_row WHERE report IN ({list})";
    store.db().await?.execute_in(text, &[], reports).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_begin_at_midnight() {
        assert_eq!(
            interval(1_800_000_123, 86_400),
            (1_799_971_200, 1_800_057_600)
        );
        assert_eq!(interval(7200, 3600), (7200, 10_800));
        assert!(spread("dmarc", "a.example", 7200) < 7200);
        assert_eq!(spread("dmarc", "a.example", 0), 0);
    }
}
