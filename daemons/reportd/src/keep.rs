//! Reports of others: taken, and shown again.

use crate::config::Config;
use crate::intake::{self, Kept};
use crate::outgoing::Outgoing;
use crate::store::{Store, clean, fault, now, pack, unpack};
use ipc::api::reportd::{
    ReportDetail, ReportEntry, ReportFilter, ReportList, ReportRow, ReportShow, ReportSummary,
    ReportSummaryReply, SummarySource, TakeReport, TakenReport,
};
use ipc::{Fault, FaultKind};
use runtime::metrics::counter;
use sql::{Error, Value, args};
use std::fs::File;
use std::io::Read;
use std::sync::Arc;
use tokio::sync::Semaphore;
use types::{Address, Body};

/// Rows of a summary at most.
const SUMMARY_ROWS: u32 = 50;

/// Takes reports.
pub(crate) struct Keeper {
    pub(crate) store: Arc<Store>,
    pub(crate) config: Arc<Config>,
    pub(crate) outgoing: Arc<Outgoing>,
    /// One message is looked at at a time: that bounds the memory.
    pub(crate) place: Semaphore,
}

impl Keeper {
    /// Takes a message.
    ///
    /// # Errors
    /// The database; a call that makes no sense.
    pub(crate) async fn take(
        &self,
        call: TakeReport,
        file: Option<File>,
    ) -> Result<TakenReport, Fault> {
        let closing = |_| Fault::new(FaultKind::Temporary, "shutting down");
        let _place = self.place.acquire().await.map_err(closing)?;
        if let Some(known) = self.known(&call).await.map_err(fault)? {
            return Ok(known);
        }
        let config = Arc::clone(&self.config);
        let (prefix, body) = (call.prefix.clone(), call.body.clone());
        let read = move || -> std::io::Result<Vec<Kept>> {
            let most = config.intake.max_message;
            let len = body.len();
            let octets = match (body, file) {
                (Body::Inline(octets), None) => octets.0,
                (Body::Attached { .. }, Some(file)) => {
                    let mut octets = Vec::new();
                    // What is too large is still kept by its beginning.
                    let some = if len > most { 64 * 1024 } else { len };
                    let mut reader = Positioned { file, at: 0 }.take(some);
                    reader.read_to_end(&mut octets)?;
                    octets
                }
                _ => return Err(std::io::Error::from(std::io::ErrorKind::InvalidInput)),
            };
            if len > most {
                let why =
                    format!("the message has {len} octets: more than reportd.intake.max_message");
                return Ok(vec![intake::unreadable(&prefix, &octets, &why)]);
            }
            Ok(intake::read(&prefix, &octets, &config.intake))
        };
        let read = tokio::task::spawn_blocking(read).await;
        let found = read
            .map_err(|error| Fault::new(FaultKind::Internal, error.to_string()))?
            .map_err(|error| {
                let kind = match error.kind() {
                    std::io::ErrorKind::InvalidInput => FaultKind::Invalid,
                    _ => FaultKind::Temporary,
                };
                Fault::new(kind, format!("the message cannot be read: {error}"))
            })?;
        self.keep(&call, found).await
    }

    /// What was made of this message before: it may come again when its answer was lost.
    async fn known(&self, call: &TakeReport) -> Result<Option<TakenReport>, Error> {
        let text = "SELECT kind, domain, note FROM report_in WHERE queue_id = ? AND idx = ? ORDER BY part LIMIT 1";
        let db = self.store.db().await?;
        let row = db
            .fetch_optional(text, args![call.id.0, u32::from(call.index)])
            .await?;
        row.map(|row| {
            let kind = row.text(0)?.to_owned();
            Ok(TakenReport {
                about: format!("{} {}", row.text(1)?, row.text_opt(2)?.unwrap_or_default()),
                forward: self.forward(&kind),
                kind,
            })
        })
        .transpose()
    }

    fn forward(&self, kind: &str) -> Option<Address> {
        let to = &self.config.intake.forward_unreadable;
        (kind == "unreadable" && !to.is_empty())
            .then(|| to.parse().ok())
            .flatten()
    }

    async fn keep(&self, call: &TakeReport, found: Vec<Kept>) -> Result<TakenReport, Fault> {
        let mut taken = TakenReport::default();
        let _writing = self.store.write().await;
        for kept in found.iter().filter(|kept| kept.kind == "bounce") {
            self.bounced(kept).await.map_err(fault)?;
        }
        let db = self.store.db().await.map_err(fault)?;
        let mut tx = db.begin().await.map_err(fault)?;
        for (part, kept) in found.iter().enumerate() {
            if part == 0 {
                let Kept {
                    domain,
                    organization,
                    note,
                    ..
                } = kept;
                kept.kind.clone_into(&mut taken.kind);
                taken.about = format!("{domain} {organization} {note}").trim().to_owned();
                taken.forward = self.forward(kept.kind);
            }
            // The same report may be sent twice, by those who doubt their queues; counted twice it would be wrong.
            let part = u32::try_from(part).unwrap_or(u32::MAX);
            let twice = self.is_known(&mut tx, kept).await.map_err(fault)?;
            self.insert(&mut tx, call, part, kept, twice)
                .await
                .map_err(fault)?;
            let name = format!("reportd_reports_taken_total{{kind=\"{}\"}}", kept.kind);
            counter(&name, "Reports of others that were taken, by kind.").add_one();
        }
        tx.commit().await.map_err(fault)?;
        Ok(taken)
    }

    async fn is_known(&self, tx: &mut sql::Tx, kept: &Kept) -> Result<bool, Error> {
        if kept.report_id.is_empty() {
            return Ok(false);
        }
        let text = "SELECT 1 FROM report_in WHERE report_id = ? AND kind = ? AND organization = ? AND domain = ?
            AND begin_at = ? AND end_at = ? LIMIT 1";
        let values = args![
            kept.report_id.as_str(),
            kept.kind,
            kept.organization.as_str(),
            kept.domain.as_str(),
            kept.begin,
            kept.end
        ];
        Ok(tx.fetch_optional(text, values).await?.is_some())
    }

    async fn insert(
        &self,
        tx: &mut sql::Tx,
        call: &TakeReport,
        part: u32,
        kept: &Kept,
        twice: bool,
    ) -> Result<(), Error> {
        let id = self.store.next_in();
        let (passed, failed, rows, note) = match twice {
            true => (0, 0, 0, "the same report came before".to_owned()),
            false => (
                kept.passed,
                kept.failed,
                kept.rows.len() as u64,
                kept.note.clone(),
            ),
        };
        let sender = call
            .sender
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        tx.execute(
            "INSERT INTO report_in (id, queue_id, idx, part, kind, taken, organization, sender, domain, report_id, begin_at,
                end_at, passed, failed, row_count, note, fields, content)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            args![
                id,
                call.id.0,
                u32::from(call.index),
                part,
                kept.kind,
                now(),
                kept.organization.as_str(),
                clean(&sender, 500),
                kept.domain.as_str(),
                kept.report_id.as_str(),
                kept.begin,
                kept.end,
                passed,
                failed,
                rows,
                note,
                pack(&kept.fields),
                (!kept.text.is_empty()).then(|| kept.text.clone()),
            ],
        )
        .await?;
        if twice {
            return Ok(());
        }
        let text = "INSERT INTO report_in_row (report, number, source, identity, result, dkim, spf, messages, detail)";
        for (chunk, rows) in kept.rows.chunks(500).enumerate() {
            let mut values: Vec<Value> = Vec::with_capacity(rows.len() * 9);
            for (at, row) in rows.iter().enumerate() {
                values.extend(args![
                    id,
                    (chunk * 500 + at) as u64,
                    row.source.as_str(),
                    row.identity.as_str(),
                    row.result.as_str(),
                    row.dkim,
                    row.spf,
                    row.count,
                    row.detail.as_str(),
                ]);
            }
            tx.insert_many(text, 9, values, "").await?;
        }
        Ok(())
    }

    /// A report of ours came back: its destination gets none for a while, if it was really sent there.
    async fn bounced(&self, kept: &Kept) -> Result<(), Error> {
        let field = |name: &str| {
            let found = kept.fields.iter().find(|(own, _)| own == name);
            found.map_or("", |(_, value)| value.as_str())
        };
        let Ok(address) = field("recipient").parse::<Address>() else {
            return Ok(());
        };
        // kind.begin.id@domain
        let Some((local, _)) = field("message").split_once('@') else {
            return Ok(());
        };
        let Some(id) = local
            .rsplit('.')
            .next()
            .and_then(|id| id.parse::<u64>().ok())
        else {
            return Ok(());
        };
        let text = "SELECT destinations FROM report_out WHERE id = ? AND state = 'sent'";
        let row = self
            .store
            .db()
            .await?
            .fetch_optional(text, args![id])
            .await?;
        let sent: crate::gather::Destinations = row
            .as_ref()
            .map(|row| row.blob_opt(0))
            .transpose()?
            .flatten()
            .and_then(unpack)
            .unwrap_or_default();
        let ours = sent.iter().any(|(uri, _)| {
            uri.parse::<Address>()
                .is_ok_and(|sent| sent.key() == address.key())
        });
        if ours {
            tracing::info!(%address, "a report came back: no more go there for now");
            self.outgoing.refuse(&address.key()).await?;
        }
        Ok(())
    }

    /// Reports of others, newest first.
    ///
    /// # Errors
    /// The database.
    pub(crate) async fn list(&self, call: &ReportList) -> Result<Vec<ReportEntry>, Fault> {
        let (condition, mut values) = condition(&call.filter);
        let before = if call.before == 0 {
            1 << 60
        } else {
            call.before
        };
        values.extend(args![before, call.limit.clamp(1, 100)]);
        let text = format!(
            "SELECT {ENTRY} FROM report_in WHERE {condition} AND id < ? ORDER BY id DESC LIMIT ?"
        );
        let db = self.store.db().await.map_err(fault)?;
        let rows = db.fetch_all(&text, values).await.map_err(fault)?;
        rows.iter()
            .map(entry)
            .collect::<Result<_, _>>()
            .map_err(fault)
    }

    /// One of them.
    ///
    /// # Errors
    /// NotFound; the database.
    pub(crate) async fn show(&self, call: &ReportShow) -> Result<ReportDetail, Fault> {
        let text =
            format!("SELECT {ENTRY}, row_count, fields, content FROM report_in WHERE id = ?");
        let db = self.store.db().await.map_err(fault)?;
        let row = db
            .fetch_optional(&text, args![call.id])
            .await
            .map_err(fault)?;
        let none = || {
            Fault::new(
                FaultKind::NotFound,
                format!("there is no report {}", call.id),
            )
        };
        let row = row.ok_or_else(none)?;
        let detail = || -> Result<ReportDetail, Error> {
            Ok(ReportDetail {
                entry: entry(&row)?,
                all_rows: row.u64(12)?,
                fields: row.blob_opt(13)?.and_then(unpack).unwrap_or_default(),
                text: row.blob_opt(14)?.unwrap_or_default().into(),
                rows: Vec::new(),
            })
        };
        let mut detail = detail().map_err(fault)?;
        let text = "SELECT source, identity, result, dkim, spf, detail, messages FROM report_in_row WHERE report = ?
            ORDER BY messages DESC, number LIMIT ?";
        let rows = db
            .fetch_all(text, args![call.id, ReportDetail::ROWS_MAX])
            .await
            .map_err(fault)?;
        let mut room: usize = 60 * 1024;
        for row in rows.iter().map(report_row) {
            let row = row.map_err(fault)?;
            // An answer is one frame.
            let Some(left) =
                room.checked_sub(row.source.len() + row.detail.len() + row.identity.len() + 60)
            else {
                break;
            };
            room = left;
            detail.rows.push(row);
        }
        Ok(detail)
    }

    /// All of them in one screen.
    ///
    /// # Errors
    /// The database.
    pub(crate) async fn summary(&self, call: &ReportSummary) -> Result<ReportSummaryReply, Fault> {
        self.sum(call).await.map_err(fault)
    }

    async fn sum(&self, call: &ReportSummary) -> Result<ReportSummaryReply, Error> {
        let filter = ReportFilter {
            domain: call.domain.clone(),
            since: call.since,
            ..ReportFilter::default()
        };
        let (which, values) = condition(&filter);
        let db = self.store.db().await?;
        let mut reply = ReportSummaryReply::default();
        let text = format!(
            "SELECT kind, COUNT(*), CAST(SUM(passed) AS {{int}}), CAST(SUM(failed) AS {{int}}) FROM report_in WHERE {which}
                GROUP BY kind ORDER BY kind"
        );
        for row in db.fetch_all(&text, values.clone()).await? {
            let (kind, count) = (row.text(0)?.to_owned(), row.u64(1)?);
            match kind.as_str() {
                "dmarc" => reply.messages = (row.u64(2)?, row.u64(3)?),
                "tls" => reply.sessions = (row.u64(2)?, row.u64(3)?),
                _ => {}
            }
            reply.reports.push((kind, count));
        }
        let text = format!(
            "SELECT organization, CAST(SUM(passed + failed) AS {{int}}) AS amount FROM report_in WHERE {which}
                AND kind IN ('dmarc', 'tls') GROUP BY organization ORDER BY amount DESC, organization LIMIT 10"
        );
        for row in db.fetch_all(&text, values.clone()).await? {
            reply.reporters.push((row.text(0)?.to_owned(), row.u64(1)?));
        }
        let text = format!(
            "SELECT source, identity,
                CAST(SUM(CASE WHEN r.dkim + r.spf > 0 THEN messages ELSE 0 END) AS {{int}}) AS good,
                CAST(SUM(CASE WHEN r.dkim + r.spf = 0 THEN messages ELSE 0 END) AS {{int}}) AS bad,
                CAST(SUM(r.dkim * messages) AS {{int}}), CAST(SUM(r.spf * messages) AS {{int}}),
                CAST(SUM(CASE WHEN result IN ('reject', 'quarantine') THEN messages ELSE 0 END) AS {{int}})
                FROM report_in_row r JOIN report_in ON report_in.id = r.report WHERE {which} AND kind = 'dmarc'
                GROUP BY source, identity ORDER BY bad DESC, good DESC, source LIMIT ?"
        );
        let mut limited = values.clone();
        limited.push(Value::from(SUMMARY_ROWS));
        for row in db.fetch_all(&text, limited.clone()).await? {
            reply.sources.push(SummarySource {
                source: row.text(0)?.to_owned(),
                identity: row.text(1)?.to_owned(),
                passed: row.u64(2)?,
                failed: row.u64(3)?,
                dkim: row.u64(4)?,
                spf: row.u64(5)?,
                stopped: row.u64(6)?,
            });
        }
        let text = format!(
            "SELECT source, identity, result, MIN(detail), CAST(SUM(messages) AS {{int}}) AS amount
                FROM report_in_row r JOIN report_in ON report_in.id = r.report WHERE {which} AND kind = 'tls'
                AND result <> 'success' GROUP BY source, identity, result ORDER BY amount DESC, source LIMIT ?"
        );
        for row in db.fetch_all(&text, limited.clone()).await? {
            let count = row.u64(4)?;
            let failure = ReportRow {
                source: row.text(0)?.to_owned(),
                identity: row.text(1)?.to_owned(),
                result: row.text(2)?.to_owned(),
                detail: row.text_opt(3)?.unwrap_or_default().to_owned(),
                count,
                ..ReportRow::default()
            };
            reply.failures.push((failure, count));
        }
        let text = format!(
            "SELECT result, CAST(SUM(messages) AS {{int}}) AS amount FROM report_in_row r
                JOIN report_in ON report_in.id = r.report WHERE {which} AND kind = 'arf'
                GROUP BY result ORDER BY amount DESC, result LIMIT ?"
        );
        for row in db.fetch_all(&text, limited).await? {
            reply
                .complaints
                .push((row.text(0)?.to_owned(), row.u64(1)?));
        }
        Ok(reply)
    }
}

const ENTRY: &str = "id, kind, taken, organization, sender, domain, report_id, begin_at, end_at, passed, failed, note";

fn entry(row: &sql::Row) -> Result<ReportEntry, Error> {
    Ok(ReportEntry {
        id: row.u64(0)?,
        kind: row.text(1)?.to_owned(),
        taken: row.u64(2)?,
        organization: row.text(3)?.to_owned(),
        sender: row.text(4)?.to_owned(),
        domain: row.text(5)?.to_owned(),
        report_id: row.text(6)?.to_owned(),
        begin: row.u64(7)?,
        end: row.u64(8)?,
        passed: row.u64(9)?,
        failed: row.u64(10)?,
        note: row.text_opt(11)?.unwrap_or_default().to_owned(),
    })
}

fn report_row(row: &sql::Row) -> Result<ReportRow, Error> {
    Ok(ReportRow {
        source: row.text(0)?.to_owned(),
        identity: row.text(1)?.to_owned(),
        result: row.text(2)?.to_owned(),
        dkim: row.bool(3)?,
        spf: row.bool(4)?,
        detail: row.text_opt(5)?.unwrap_or_default().to_owned(),
        count: row.u64(6)?,
    })
}

/// The condition of a filter, and its values.
fn condition(filter: &ReportFilter) -> (String, Vec<Value>) {
    let mut text = "taken >= ?".to_owned();
    let mut values = args![filter.since];
    for (column, value) in [("kind", &filter.kind), ("domain", &filter.domain)] {
        if !value.is_empty() {
            text.push_str(&format!(" AND {column} = ?"));
            values.push(Value::from(value.to_lowercase()));
        }
    }
    if filter.failing {
        text.push_str(" AND failed > 0");
    }
    (text, values)
}

/// Reads from the beginning of a file that others have open, too, without moving their place in it.
struct Positioned {
    file: File,
    at: u64,
}

impl Read for Positioned {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        use std::os::unix::fs::FileExt;
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}
