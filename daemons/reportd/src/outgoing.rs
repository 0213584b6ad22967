//! Reports of ours that are due: written out when queued asks for them, and forgotten some days after it has them.

use crate::compose::{self, About};
use crate::config::Config;
use crate::gather::{Destinations, Row, forget_rows, rows};
use crate::store::{Store, clean, fault, now, pack, unpack};
use ipc::api::reportd::{
    ClaimReport, DueReport, FailedMail, PendingReport, Published, ReportPending, ReportPreview,
    SettleReport,
};
use ipc::{Fault, FaultKind};
use runtime::metrics::{Counter, counter};
use sql::{Error, Value, args};
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use types::{Address, Body, Octets, QueueId, TraceId};

/// Reports that are looked at for one that can be sent, in one call.
const LOOKS: usize = 20;
/// Domains whose failure reports are counted at once.
const DOMAINS_MAX: usize = 10_000;
/// Characters of what is told to operators.
pub(crate) const NOTE_MAX: usize = 250;

/// What queued and the operator ask for.
pub(crate) struct Outgoing {
    pub(crate) store: Arc<Store>,
    pub(crate) config: Arc<Config>,
    /// From.
    pub(crate) sender: Address,
    /// The connection that claimed last: another one means that what was claimed and not settled is to be given again.
    claimer: AtomicU64,
    /// Failure reports in this hour, by domain.
    hourly: Mutex<(u64, HashMap<String, u64>)>,
    sent: Counter,
    pub(crate) dropped: Counter,
    pub(crate) deferred: Counter,
}

/// A row of `report_out`.
pub(crate) struct Report {
    pub(crate) id: u64,
    pub(crate) kind: String,
    domain: String,
    begin: u64,
    end: u64,
    queue_id: u64,
    left_out: u64,
    policy: Published,
    pub(crate) destinations: Destinations,
    pub(crate) content: Option<Vec<u8>>,
    /// It is posted.
    pub(crate) post: bool,
    /// Seconds since 1970 of the first attempt to post it; 0 before that.
    pub(crate) first_at: u64,
}

const COLUMNS: &str = "id, kind, domain, begin_at, end_at, queue_id, left_out, policy, destinations, content, post, first_at";

fn report(row: &sql::Row) -> Result<Report, Error> {
    Ok(Report {
        id: row.u64(0)?,
        kind: row.text(1)?.to_owned(),
        domain: row.text(2)?.to_owned(),
        begin: row.u64(3)?,
        end: row.u64(4)?,
        queue_id: row.u64(5)?,
        left_out: row.u64(6)?,
        policy: row.blob_opt(7)?.and_then(unpack).unwrap_or_default(),
        destinations: destinations(row, 8)?,
        content: row.blob_opt(9)?.map(<[u8]>::to_vec),
        post: row.u64(10)? != 0,
        first_at: row.u64(11)?,
    })
}

/// The column of destinations.
pub(crate) fn destinations(row: &sql::Row, column: usize) -> Result<Destinations, Error> {
    Ok(row.blob_opt(column)?.and_then(unpack).unwrap_or_default())
}

/// A report, ready to go.
pub(crate) struct Written {
    pub(crate) to: Vec<Address>,
    /// Where it is posted instead.
    pub(crate) post: Option<String>,
    pub(crate) message: Vec<u8>,
}

impl Outgoing {
    pub(crate) fn new(store: Arc<Store>, config: Arc<Config>, sender: Address) -> Self {
        Self {
            store,
            config,
            sender,
            claimer: AtomicU64::new(u64::MAX),
            hourly: Mutex::default(),
            sent: counter(
                "reportd_reports_sent_total",
                "Reports that queued took, or that were posted.",
            ),
            dropped: counter(
                "reportd_reports_dropped_total",
                "Reports that were not sent: too large, refused, given up, or nowhere to go.",
            ),
            deferred: counter(
                "reportd_reports_deferred_total",
                "Attempts to post a report that failed for now.",
            ),
        }
    }

    fn about<'a>(&'a self, report: &'a Report, report_id: &'a str) -> About<'a> {
        let submitter = self.sender.domain();
        About {
            submitter,
            organization: match self.config.organization.as_str() {
                "" => submitter,
                own => own,
            },
            from: "",
            contact: &self.config.contact,
            domain: &report.domain,
            report_id,
            begin: report.begin,
            end: report.end,
            left_out: report.left_out,
        }
    }

    /// The name of a report: the same whenever it is asked for.
    fn name(&self, report: &Report) -> String {
        let Report {
            id, kind, begin, ..
        } = report;
        format!("{kind}.{begin}.{id}@{}", self.sender.domain())
    }

    /// The XML or JSON.
    pub(crate) async fn content(&self, report: &Report) -> Result<String, Error> {
        let name = self.name(report);
        let from = self.sender.to_string();
        let about = About {
            from: &from,
            ..self.about(report, &name)
        };
        let rows = rows(&self.store, report.id, self.config.send.max_rows).await?;
        Ok(match report.kind.as_str() {
            "dmarc" => {
                let rows = rows.iter().filter_map(|(row, count)| match row {
                    Row::Dmarc(evaluation) => Some((&**evaluation, *count)),
                    Row::Tls(..) => None,
                });
                compose::dmarc::write(&about, &report.policy, &rows.collect::<Vec<_>>())
            }
            _ => {
                let rows = rows.iter().filter_map(|(row, count)| match row {
                    Row::Tls(policy, failure) => Some((policy, failure.as_ref(), *count)),
                    Row::Dmarc(_) => None,
                });
                compose::tls::write(&about, &rows.collect::<Vec<_>>())
            }
        })
    }

    /// Writes a report out; why it cannot be sent otherwise.
    async fn write(&self, report: &Report) -> Result<Result<Written, String>, Error> {
        if report.post {
            return self.write_post(report).await;
        }
        let message = match &report.content {
            Some(content) => content.clone(),
            None => {
                let content = self.content(report).await?;
                let name = self.name(report);
                let from = self.sender.to_string();
                let about = About {
                    from: &from,
                    ..self.about(report, &name)
                };
                let carried = compose::mail::Carried {
                    about: &about,
                    content: &content,
                    // What is given twice is the same twice.
                    now: report.end,
                };
                match report.kind.as_str() {
                    "dmarc" => compose::mail::dmarc(&carried),
                    _ => compose::mail::tls(&carried),
                }
            }
        };
        if let Some(why) = self.too_large(&message) {
            return Ok(Err(why));
        }
        let size = message.len() as u64;
        let mut to = Vec::new();
        let mut why = "it has no destination".to_owned();
        for (text, most) in &report.destinations {
            if to.len() >= self.config.send.max_destinations {
                break;
            }
            let Ok(address) = text.parse::<Address>() else {
                why = format!("{} is no address", clean(text, 100));
                continue;
            };
            // RFC 7489 6.3: what is larger than a destination takes is not sent there.
            if *most > 0 && size > *most {
                why = format!("{address} takes {most} octets at most, and it has {size}");
            } else if self.refused(&address.key()).await? {
                why = format!("{address} refused a report before");
            } else if !to.contains(&address) {
                to.push(address);
            }
        }
        if to.is_empty() {
            return Ok(Err(why));
        }
        let message = compose::mail::addressed(message, &to);
        Ok(Ok(Written {
            to,
            post: None,
            message,
        }))
    }

    pub(crate) fn too_large(&self, message: &[u8]) -> Option<String> {
        let size = message.len() as u64;
        (size > self.config.send.max_bytes)
            .then(|| format!("{size} octets are more than reportd.send.max_bytes"))
    }

    /// `destination` is an address's key, or where reports are posted.
    pub(crate) async fn refused(&self, destination: &str) -> Result<bool, Error> {
        let text = "SELECT 1 FROM report_refused WHERE address = ? AND until_at > ?";
        let found = self
            .store
            .db()
            .await?
            .fetch_optional(text, args![destination, now()]);
        Ok(found.await?.is_some())
    }

    /// Notes that a destination refused a report: an address's key, or where it was posted.
    pub(crate) async fn refuse(&self, destination: &str) -> Result<(), Error> {
        let until = now() + self.config.send.refused_days * 86_400;
        let text = "INSERT INTO report_refused (address, until_at) VALUES (?, ?)
            {on_conflict:address} until_at = {excluded:until_at}";
        let db = self.store.db().await?;
        db.execute(text, args![destination, until]).await?;
        Ok(())
    }

    /// Gives what is due. A message that does not fit into a frame is in the file.
    ///
    /// # Errors
    /// The database.
    pub(crate) async fn claim(
        &self,
        connection: u64,
        call: &ClaimReport,
    ) -> Result<Option<(DueReport, Option<File>)>, Fault> {
        let _writing = self.store.write().await;
        if self.claimer.swap(connection, Ordering::Relaxed) != connection {
            let text = "UPDATE report_out SET lease = 0 WHERE state = 'gathering' AND lease > 0";
            let db = self.store.db().await.map_err(fault)?;
            db.execute(text, args![]).await.map_err(fault)?;
        }
        for _ in 0..LOOKS {
            let Some(report) = self.first_due(call.posts).await.map_err(fault)? else {
                return Ok(None);
            };
            if report.is_to_be_split() {
                self.split(&report, call).await.map_err(fault)?;
                continue;
            }
            let written = match self.write(&report).await.map_err(fault)? {
                Ok(written) => written,
                Err(why) => {
                    tracing::info!(
                        id = report.id,
                        kind = report.kind,
                        domain = report.domain,
                        why,
                        "report not sent"
                    );
                    self.end(report.id, "dropped", &why).await.map_err(fault)?;
                    self.dropped.add_one();
                    continue;
                }
            };
            let queue_id = match report.queue_id {
                0 => call.queue_id.0,
                first => first,
            };
            let text = "UPDATE report_out SET queue_id = ?, lease = ?, first_at = ? WHERE id = ?";
            let now = now();
            let first = match report.first_at {
                0 => now,
                first => first,
            };
            let lease = now + DueReport::LEASE;
            let db = self.store.db().await.map_err(fault)?;
            db.execute(text, args![queue_id, lease, first, report.id])
                .await
                .map_err(fault)?;
            let (message, file) = body(written.message)?;
            let due = DueReport {
                id: report.id,
                trace: runtime::new_trace(),
                queue_id: QueueId(queue_id),
                sender: Some(self.sender.clone()),
                to: written.to,
                message,
                post: written.post,
            };
            return Ok(Some((due, file)));
        }
        Ok(None)
    }

    async fn first_due(&self, posts: bool) -> Result<Option<Report>, Error> {
        let now = now();
        let mail = if posts { "" } else { "AND post = 0" };
        let text = format!(
            "SELECT {COLUMNS} FROM report_out WHERE state = 'gathering' AND due <= ? AND lease <= ? {mail} ORDER BY due, id LIMIT 1"
        );
        let row = self
            .store
            .db()
            .await?
            .fetch_optional(&text, args![now, now])
            .await?;
        row.as_ref().map(report).transpose()
    }

    pub(crate) async fn end(&self, id: u64, state: &str, note: &str) -> Result<(), Error> {
        let text = "UPDATE report_out SET state = ?, note = ?, content = NULL, due = ? WHERE id = ? AND state = 'gathering'";
        let db = self.store.db().await?;
        db.execute(text, args![state, clean(note, NOTE_MAX), now(), id])
            .await?;
        forget_rows(&self.store, vec![Value::from(id)]).await
    }

    /// Notes what became of a report.
    ///
    /// # Errors
    /// The database.
    pub(crate) async fn settle(&self, trace: TraceId, call: &SettleReport) -> Result<(), Fault> {
        let _writing = self.store.write().await;
        let id = call.id;
        let done = match (&call.again, &call.refused) {
            (Some(why), _) => self.put_off(id, trace, why).await,
            (None, Some(why)) => {
                tracing::info!(report = id, %trace, why, "report refused");
                self.dropped.add_one();
                self.give_up(id, why).await
            }
            (None, None) => {
                tracing::info!(report = id, %trace, "report sent");
                self.sent.add_one();
                self.end(id, "sent", "").await
            }
        };
        done.map_err(fault)
    }

    /// Makes a failure report of its own, if the domain has not had too many of them.
    ///
    /// # Errors
    /// The database.
    pub(crate) async fn failed(&self, failed: FailedMail) -> Result<(), Fault> {
        let domain = failed.evaluation.published.domain.clone();
        let now = now();
        if !self.config.send.failure
            || failed.ruf.is_empty()
            || self.config.is_excluded(&domain)
            || !self.may_fail(&domain, now)
        {
            return Ok(());
        }
        let _writing = self.store.write().await;
        let id = self.store.next_out();
        let report = Report {
            id,
            kind: "failure".to_owned(),
            domain: domain.clone(),
            begin: now,
            end: now,
            queue_id: 0,
            left_out: 0,
            policy: Published::default(),
            destinations: Vec::new(),
            content: None,
            post: false,
            first_at: 0,
        };
        let name = self.name(&report);
        let from = self.sender.to_string();
        let about = About {
            from: &from,
            ..self.about(&report, &name)
        };
        let content = compose::failure::write(&about, &failed, self.config.send.redact, now);
        let destinations: Destinations = failed.ruf.into_iter().map(|uri| (uri, 0)).collect();
        let text = "INSERT INTO report_out (id, kind, domain, begin_at, end_at, due, state, lease, queue_id, row_count,
            messages, left_out, destinations, content) VALUES (?, 'failure', ?, ?, ?, ?, 'gathering', 0, 0, 1, 1, 0, ?, ?)";
        let values = args![id, domain, now, now, now, pack(&destinations), content];
        let db = self.store.db().await.map_err(fault)?;
        db.execute(text, values).await.map_err(fault)?;
        Ok(())
    }

    fn may_fail(&self, domain: &str, now: u64) -> bool {
        let mut hourly = self.hourly.lock().unwrap_or_else(PoisonError::into_inner);
        if hourly.0 != now / 3600 {
            *hourly = (now / 3600, HashMap::new());
        }
        if hourly.1.len() >= DOMAINS_MAX && !hourly.1.contains_key(domain) {
            return false;
        }
        let count = hourly.1.entry(domain.to_owned()).or_default();
        *count += 1;
        *count <= self.config.send.failures_per_hour
    }

    /// What is not sent yet, or was lately.
    ///
    /// # Errors
    /// The database.
    pub(crate) async fn pending(&self, call: &ReportPending) -> Result<Vec<PendingReport>, Fault> {
        let text = "SELECT id, kind, domain, begin_at, end_at, due, row_count, messages, destinations, state, note, attempts
            FROM report_out WHERE id > ? ORDER BY id LIMIT ?";
        let limit = call.limit.clamp(1, 100);
        let db = self.store.db().await.map_err(fault)?;
        let rows = db
            .fetch_all(text, args![call.after, limit])
            .await
            .map_err(fault)?;
        let now = now();
        let read = |row: &sql::Row| -> Result<PendingReport, Error> {
            let destinations = destinations(row, 8)?;
            let due = row.u64(5)?;
            let state = match row.text(9)? {
                "gathering" if due <= now => "due",
                "gathering" if row.u64(11)? > 0 => "deferred",
                other => other,
            };
            Ok(PendingReport {
                id: row.u64(0)?,
                kind: row.text(1)?.to_owned(),
                domain: row.text(2)?.to_owned(),
                begin: row.u64(3)?,
                end: row.u64(4)?,
                due,
                rows: row.u64(6)?,
                count: row.u64(7)?,
                to: destinations
                    .into_iter()
                    .map(|(uri, _)| clean(&uri, 250))
                    .collect(),
                state: state.to_owned(),
                note: row.text_opt(10)?.unwrap_or_default().to_owned(),
            })
        };
        rows.iter()
            .map(read)
            .collect::<Result<_, _>>()
            .map_err(fault)
    }

    /// A report as it would be sent now.
    ///
    /// # Errors
    /// NotFound; the database.
    pub(crate) async fn preview(&self, call: &ReportPreview) -> Result<Octets, Fault> {
        let text = format!("SELECT {COLUMNS} FROM report_out WHERE id = ? AND state = 'gathering'");
        let db = self.store.db().await.map_err(fault)?;
        let row = db
            .fetch_optional(&text, args![call.id])
            .await
            .map_err(fault)?;
        let none = || Fault::new(FaultKind::NotFound, format!("no report {} waits", call.id));
        let report = report(&row.ok_or_else(none)?).map_err(fault)?;
        let mut octets = match report.content {
            Some(content) => content,
            None => self.content(&report).await.map_err(fault)?.into_bytes(),
        };
        octets.truncate(ReportPreview::MAX);
        Ok(octets.into())
    }

    /// Which of our reports wait that are meant.
    async fn waiting(&self, ids: &[u64], domain: &str) -> Result<Vec<u64>, Error> {
        let db = self.store.db().await?;
        let text = "SELECT id, domain FROM report_out WHERE state = 'gathering'";
        let wanted: BTreeSet<u64> = ids.iter().copied().collect();
        let mut found = Vec::new();
        for row in db.fetch_all(text, args![]).await? {
            let (id, of) = (row.u64(0)?, row.text(1)?);
            if wanted.contains(&id) || domain == "*" || (!domain.is_empty() && of == domain) {
                found.push(id);
            }
        }
        Ok(found)
    }

    /// Drops reports.
    ///
    /// # Errors
    /// The database.
    pub(crate) async fn cancel(&self, ids: &[u64], domain: &str) -> Result<u64, Fault> {
        let _writing = self.store.write().await;
        let found = self.waiting(ids, domain).await.map_err(fault)?;
        for id in &found {
            self.end(*id, "dropped", "cancelled by an operator")
                .await
                .map_err(fault)?;
        }
        Ok(found.len() as u64)
    }

    /// Ends the intervals of reports now.
    ///
    /// # Errors
    /// The database.
    pub(crate) async fn send(&self, ids: &[u64], domain: &str) -> Result<u64, Fault> {
        let _writing = self.store.write().await;
        let found = self.waiting(ids, domain).await.map_err(fault)?;
        let db = self.store.db().await.map_err(fault)?;
        let end = now();
        // One that is being posted is not posted twice for that.
        let text =
            "UPDATE report_out SET due = 0, lease = CASE WHEN post = 1 THEN lease ELSE 0 END,
            end_at = CASE WHEN end_at > ? THEN ? ELSE end_at END
            WHERE id = ? AND state = 'gathering'";
        for id in &found {
            db.execute(text, args![end, end, *id])
                .await
                .map_err(fault)?;
        }
        Ok(found.len() as u64)
    }
}

/// Inline, or in a file that has no name.
fn body(message: Vec<u8>) -> Result<(Body, Option<File>), Fault> {
    if message.len() <= Body::INLINE_MAX {
        return Ok((Body::Inline(Octets(message)), None));
    }
    let made = || -> std::io::Result<File> {
        let descriptor = rustix::fs::memfd_create("report", rustix::fs::MemfdFlags::CLOEXEC)?;
        let mut file = File::from(descriptor);
        file.write_all(&message)?;
        Ok(file)
    };
    let file = made().map_err(|error| Fault::new(FaultKind::Temporary, error.to_string()))?;
    let len = message.len() as u64;
    Ok((Body::Attached { len }, Some(file)))
}
