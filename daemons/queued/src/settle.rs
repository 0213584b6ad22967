//! What follows from an attempt: reports, marks, and the queue table for what must wait.
//!
//! Order is everything: what a recipient leaves behind (a report, a redirected copy) is durable before the recipient is freed.

use crate::core::{Core, now};
use crate::message::{End, Fresh, Home, Job, Message};
use crate::record::{self, Head, Note};
use crate::redact;
use crate::report::{Composed, Event, Returned, Subject};
use crate::table::{Change, LOCAL, Parked, Settled, Waiting};
use crate::writer::Entry;
use ipc::{Fault, FaultKind};
use journal::Kind;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use types::{Enhanced, QueueId, Status};

/// How much of a message in the spool is read for what needs its header.
const HEADER_MAX: u64 = 64 * 1024;

/// The ends of a job, sorted.
#[derive(Debug, Default)]
struct Sorted {
    subjects: Vec<Subject>,
    done: Vec<u16>,
    again: Vec<Waiting>,
    remote: Vec<Waiting>,
}

impl Core {
    /// To be tried again after the usual pause.
    pub(crate) fn again_for(&self, head: &Head, waiting: &Waiting, status: Status) -> End {
        let pause = self.pause_for(head, waiting);
        End::Again {
            status: Some(status),
            due: now() + pause,
            counted: true,
        }
    }

    /// The same for all recipients of a job: its first one counts.
    pub(crate) fn again(&self, job: &Job, status: Status) -> End {
        match job.recipients.first() {
            Some(waiting) => self.again_for(&job.message.head, waiting, status),
            None => End::Dropped,
        }
    }

    /// What an operator wants instead of an attempt.
    pub(crate) fn steered(&self, job: &Job) -> Option<Vec<End>> {
        let terms = &job.message.head.envelope.terms;
        let steer = job.message.steer();
        let end = match steer.removed {
            Some(true) => End::Failed(Status {
                code: 550,
                enhanced: Enhanced(5, 7, 0),
                text: "removed from the queue by the operator".to_owned(),
                host: None,
            }),
            Some(false) => End::Dropped,
            None if steer.held => End::Again {
                status: None,
                due: now(),
                counted: false,
            },
            None => {
                // RFC 2852 4.1: from its time on it is not delivered any more
                let over = terms.return_at().is_some_and(|end| end <= now());
                if !over {
                    return None;
                }
                let last = job.recipients.first().and_then(|one| one.last.clone());
                End::Failed(expired(last))
            }
        };
        Some(vec![end; job.recipients.len()])
    }

    /// The file of a body that is in the spool.
    pub(crate) fn open_body(&self, message: &Message) -> Result<Option<File>, Fault> {
        if !message.head.spooled {
            return Ok(None);
        }
        let file = self.spool.read(message.id);
        file.map(Some)
            .map_err(|error| Fault::new(FaultKind::Temporary, format!("the spool: {error}")))
    }

    /// The first octets of a body that is in the spool.
    pub(crate) fn read_body(&self, message: &Message, most: u64) -> Result<Vec<u8>, Fault> {
        let fault =
            |error: std::io::Error| Fault::new(FaultKind::Temporary, format!("the spool: {error}"));
        let file = self.spool.read(message.id).map_err(fault)?;
        let mut octets = vec![0; usize::try_from(message.head.body_len.min(most)).unwrap_or(0)];
        file.read_exact_at(&mut octets, 0).map_err(fault)?;
        Ok(octets)
    }

    fn sort(&self, job: &mut Job, ends: Vec<End>) -> Sorted {
        let now = now();
        let message = &job.message;
        let mut sorted = Sorted::default();
        for (mut waiting, end) in std::mem::take(&mut job.recipients).into_iter().zip(ends) {
            let index = waiting.index;
            let subject = |event, status, until| Subject {
                index,
                event,
                status,
                until,
            };
            match end {
                End::Done(status, event) => {
                    log(message, index, "delivered", &status, &job.destination);
                    sorted.done.push(index);
                    sorted
                        .subjects
                        .extend(event.map(|event| subject(event, status, None)));
                }
                End::Failed(status) => {
                    self.counters.failed.add_one();
                    log(message, index, "failed", &status, &job.destination);
                    sorted.done.push(index);
                    sorted.subjects.push(subject(Event::Failed, status, None));
                }
                End::Dropped => sorted.done.push(index),
                End::Remote => {
                    let recipient = message.head.envelope.recipients.get(usize::from(index));
                    waiting.destination = recipient
                        .map(|one| self.rules.destination(&message.head, one.address.domain()))
                        .unwrap_or_default();
                    waiting.due = now;
                    sorted.remote.push(waiting);
                }
                End::Again {
                    status,
                    due,
                    counted,
                } => {
                    if counted {
                        waiting.attempts = waiting.attempts.saturating_add(1);
                        self.counters.deferred.add_one();
                    }
                    if let Some(status) = status {
                        log(message, index, "deferred", &status, &job.destination);
                        waiting.last = Some(status);
                    }
                    if now >= waiting.expires && counted {
                        let status = expired(waiting.last.take());
                        self.counters.failed.add_one();
                        log(message, index, "expired", &status, &job.destination);
                        sorted.done.push(index);
                        sorted.subjects.push(subject(Event::Failed, status, None));
                    } else {
                        waiting.due = due;
                        sorted.again.push(waiting);
                    }
                }
            }
        }
        sorted
    }

    /// Takes note of how a job ended: one end for each of its recipients, in their order.
    pub(crate) async fn settle(
        self: &Arc<Self>,
        mut job: Job,
        ends: Vec<End>,
        mut fresh: Vec<Fresh>,
    ) {
        let sorted = self.sort(&mut job, ends);
        fresh.extend(self.reports(&job.message, &sorted.subjects).await);
        match job.message.home {
            Home::Journal(_) => self.settle_journal(&job, sorted, fresh).await,
            Home::Table => self.settle_table(&job, sorted, fresh).await,
        }
    }

    async fn settle_journal(self: &Arc<Self>, job: &Job, sorted: Sorted, fresh: Vec<Fresh>) {
        let message = &job.message;
        let id = message.id;
        let again = crate::core::jobs(message, sorted.remote.clone());
        let (over, waiting) = {
            let mut progress = message.progress();
            progress.jobs = (progress.jobs + again.len()).saturating_sub(1);
            progress.done.extend(&sorted.done);
            progress.waiting.extend(sorted.again);
            let over = progress.jobs == 0;
            (
                over,
                if over {
                    std::mem::take(&mut progress.waiting)
                } else {
                    Vec::new()
                },
            )
        };
        let finished = over && waiting.is_empty();
        let spooled = message.head.spooled;
        let entry = if finished {
            Some(Entry::free(id.0))
        } else if sorted.done.is_empty() && sorted.remote.is_empty() {
            None
        } else {
            let note = Note {
                done: sorted.done.clone(),
                remote: sorted.remote.iter().map(|waiting| waiting.index).collect(),
            };
            let parts = [note.to_record(), Vec::new(), Vec::new()];
            Some(Entry {
                kind: Kind::Note,
                version: record::VERSION,
                id: id.0,
                parts,
            })
        };
        if !fresh.is_empty() {
            if !self.accept_surely(fresh, entry).await {
                return;
            }
        } else if let Some(entry) = entry {
            if finished && spooled {
                // The body must not go before the mark is on the disk.
                if !self.mark_surely(entry).await {
                    return;
                }
            } else {
                // What is done here may be done again by a replay: deliverd knows it. What another host took may not.
                let relayed = job.destination != LOCAL && !sorted.done.is_empty();
                self.writer.later(vec![entry], relayed);
            }
        }
        if finished {
            self.forget(message);
            if spooled {
                self.spool.remove(id);
            }
        }
        for job in again {
            self.dispatch(job);
        }
        if over && !finished {
            self.park(Arc::clone(message), waiting).await;
        }
    }

    /// Frees a message of the journal of which nothing is left.
    pub(crate) async fn finish(self: &Arc<Self>, message: &Message) {
        if self.mark_surely(Entry::free(message.id.0)).await {
            self.forget(message);
            if message.head.spooled {
                self.spool.remove(message.id);
            }
        }
    }

    async fn settle_table(self: &Arc<Self>, job: &Job, sorted: Sorted, fresh: Vec<Fresh>) {
        if !fresh.is_empty() && !self.accept_surely(fresh, None).await {
            return;
        }
        let id = job.message.id;
        let mut again = sorted.again;
        again.extend(sorted.remote);
        let settled = Settled {
            id,
            done: sorted.done,
            again,
        };
        let mut pause = Duration::from_millis(200);
        loop {
            match self
                .table_writer
                .change(Change::Settle(settled.clone()))
                .await
            {
                Ok(gone) => {
                    if gone {
                        let _ = self.table.count.fetch_update(
                            Ordering::Relaxed,
                            Ordering::Relaxed,
                            |n| Some(n.saturating_sub(1)),
                        );
                        if job.message.head.spooled {
                            self.spool.remove(id);
                        }
                    }
                    break;
                }
                Err(error) => {
                    tracing::warn!(%id, %error, "the queue table cannot be written");
                    if self.pause(&mut pause).await {
                        break;
                    }
                }
            }
        }
        let _ = self
            .loaded
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                Some(n.saturating_sub(1))
            });
        self.due.notify_one();
    }

    /// Moves a message from the journal to the queue table, with those of its recipients that must wait.
    pub(crate) async fn park(self: &Arc<Self>, message: Arc<Message>, mut waiting: Vec<Waiting>) {
        let id = message.id;
        {
            let steer = message.steer();
            for one in &mut waiting {
                one.held = steer.held;
                if let Some(route) = &steer.route
                    && one.destination != LOCAL
                {
                    one.route.clone_from(route);
                }
            }
        }
        let parked = self.content(&message).await.map(|content| Parked {
            id,
            head: message.head.clone(),
            prefix: content.prefix.clone(),
            body: content.body.clone(),
            recipients: waiting.clone(),
        });
        let written = match parked {
            Ok(parked) => self
                .table_writer
                .change(Change::Park(Box::new(parked)))
                .await
                .map_err(|e| e.to_string()),
            Err(fault) => Err(fault.to_string()),
        };
        match written {
            Ok(_) => {
                // From here on the table has it; a replay asks the table before it believes the journal. Only when this mark
                // is durable may the table let it go.
                if !self.mark_surely(Entry::free(id.0)).await {
                    return;
                }
                self.table.count.fetch_add(1, Ordering::Relaxed);
                self.forget(&message);
                self.due.notify_one();
            }
            Err(error) => {
                tracing::warn!(%id, %error, "the queue table cannot be written: kept in the journal");
                let core = Arc::clone(self);
                tokio::spawn(async move {
                    let due = waiting.iter().map(|one| one.due).min().unwrap_or(0);
                    let pause = due.saturating_sub(now()).clamp(1, 60);
                    tokio::time::sleep(Duration::from_secs(pause)).await;
                    if due <= now() && !message.steer().held {
                        core.retry(&message, waiting);
                    } else {
                        core.park_again(message, waiting).await;
                    }
                });
            }
        }
    }

    /// As [`Core::park`], for a task of its own.
    fn park_again(
        self: &Arc<Self>,
        message: Arc<Message>,
        waiting: Vec<Waiting>,
    ) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        let core = Arc::clone(self);
        Box::pin(async move { core.park(message, waiting).await })
    }

    /// Another attempt at what could not be parked.
    fn retry(self: &Arc<Self>, message: &Arc<Message>, waiting: Vec<Waiting>) {
        let jobs = crate::core::jobs(message, waiting);
        message.progress().jobs = jobs.len();
        for job in jobs {
            self.dispatch(job);
        }
    }

    /// Waits longer and longer; whether the queue ends.
    async fn pause(&self, pause: &mut Duration) -> bool {
        let stopped = tokio::time::timeout(*pause, self.stopped()).await.is_ok();
        *pause = (*pause * 2).min(Duration::from_secs(30));
        stopped
    }

    /// Accepts messages of our own, however long it takes, with the mark that frees what they follow from. `false`: the queue
    /// ended before.
    async fn accept_surely(self: &Arc<Self>, fresh: Vec<Fresh>, entry: Option<Entry>) -> bool {
        let mut pause = Duration::from_millis(200);
        let mut fresh = fresh;
        loop {
            let again: Vec<Fresh> = fresh
                .iter()
                .map(|one| Fresh {
                    id: one.id,
                    head: one.head.clone(),
                    prefix: one.prefix.clone(),
                    body: one.body.clone(),
                })
                .collect();
            let more = entry
                .iter()
                .map(|entry| Entry {
                    kind: entry.kind,
                    version: entry.version,
                    id: entry.id,
                    parts: entry.parts.clone(),
                })
                .collect();
            match self.accept(fresh, more).await {
                Ok(()) => return true,
                Err(fault) => {
                    tracing::warn!(%fault, "a report or a redirected message waits for the journal")
                }
            }
            if self.pause(&mut pause).await {
                return false;
            }
            fresh = again;
        }
    }

    /// Writes a mark durably, however long it takes. `false`: the queue ended before.
    async fn mark_surely(self: &Arc<Self>, entry: Entry) -> bool {
        let mut pause = Duration::from_millis(200);
        loop {
            let again = Entry {
                kind: entry.kind,
                version: entry.version,
                id: entry.id,
                parts: entry.parts.clone(),
            };
            match self.writer.commit(vec![again]).await {
                Ok(_) => return true,
                Err(fault) => tracing::warn!(%fault, "a mark waits for the journal"),
            }
            if self.pause(&mut pause).await {
                return false;
            }
        }
    }

    /// The reports that follow from what happened, as new messages.
    pub(crate) async fn reports(
        self: &Arc<Self>,
        message: &Arc<Message>,
        subjects: &[Subject],
    ) -> Vec<Fresh> {
        let head = &message.head;
        let failed = || {
            subjects
                .iter()
                .filter(|subject| subject.event == Event::Failed)
        };
        let wanted = subjects.iter().any(|subject| {
            let recipient = head.envelope.recipients.get(usize::from(subject.index));
            recipient.is_some_and(|recipient| subject.event.is_wanted(recipient.notify))
        });
        if head.envelope.sender.is_none() {
            if head.envelope.require_tls && failed().next().is_some() {
                let body = self.returned(message).await;
                if let Some(composed) = redact::instead(message, &body, subjects) {
                    tracing::info!(id = %message.id, trace = %head.trace, "a report cannot be protected: it goes without the message's header");
                    return self
                        .reserve(1)
                        .map(|id| fresh(id, composed))
                        .into_iter()
                        .collect();
                }
            }
            return match (&self.double_bounces_to, failed().next()) {
                (Some(to), Some(_))
                    if head
                        .envelope
                        .recipients
                        .iter()
                        .all(|one| one.address != *to) =>
                {
                    let composed =
                        self.reporter
                            .double_bounce(to, (message.id, head), subjects, now());
                    self.reserve(1)
                        .map(|id| fresh(id, composed))
                        .into_iter()
                        .collect()
                }
                (_, Some(_)) => {
                    tracing::warn!(id = %message.id, trace = %head.trace, "a report could not be delivered: dropped");
                    Vec::new()
                }
                _ => Vec::new(),
            };
        }
        if !wanted {
            return Vec::new();
        }
        let octets = self.returned(message).await;
        let whole = octets.len() as u64 == head.size();
        let Ok(id) = self.reserve(1) else {
            return Vec::new();
        };
        let returned = Returned {
            octets: &octets,
            whole,
        };
        let report = self
            .reporter
            .report(id, (message.id, head), subjects, returned, now());
        self.counters.reports.add(u64::from(report.is_some()));
        report
            .map(|composed| fresh(id, composed))
            .into_iter()
            .collect()
    }

    /// What can be returned of a message.
    async fn returned(&self, message: &Message) -> Vec<u8> {
        let Ok(content) = self.content(message).await else {
            return Vec::new();
        };
        let mut octets = content.prefix.clone();
        match &content.body {
            Some(body) => octets.extend_from_slice(body),
            None => {
                let most = if message.head.size() <= self.config.return_full_max {
                    u64::MAX
                } else {
                    HEADER_MAX
                };
                octets.extend(self.read_body(message, most).unwrap_or_default());
            }
        }
        octets
    }
}

fn fresh(id: QueueId, composed: Composed) -> Fresh {
    let Composed { head, prefix, body } = composed;
    Fresh {
        id,
        head,
        prefix,
        body,
    }
}

/// RFC 3463 X.4.7
pub(crate) fn expired(last: Option<Status>) -> Status {
    let (text, host) = last.map_or((String::new(), None), |last| {
        (format!("; the last answer was: {last}"), last.host)
    });
    Status {
        code: 554,
        enhanced: Enhanced(5, 4, 7),
        text: format!("the message could not be delivered in time{text}"),
        host,
    }
}

fn log(message: &Message, index: u16, what: &str, status: &Status, destination: &str) {
    let recipient = message.head.envelope.recipients.get(usize::from(index));
    let to = recipient
        .map(|recipient| recipient.address.to_string())
        .unwrap_or_default();
    let host = status.host.as_deref().unwrap_or_default();
    tracing::info!(
        id = %message.id, trace = %message.head.trace, to, destination, host, reply = %status, "{what}"
    );
}
