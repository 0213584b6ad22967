//! What follows from an attempt: reports, marks, and the queue table for what must wait.
//!
//! Order is everything: what a recipient leaves behind (a report, a redirected copy) is durable before the recipient is freed.

use crate::core::{Core, now};
use crate::message::{End, Fresh, Home, Job, Message};
use crate::record::{self, Head, Note};
use crate::redact;
use crate::report::{Composed, Event, Returned, Subject};
use crate::table::{LOCAL, Parked, Waiting};
use crate::table_change::{Change, Made, NotMade, Settled};
use crate::table_control::Action;
use crate::writer::Entry;
use ipc::api::queued::QueueFilter;
use journal::Kind;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use types::{Enhanced, QueueId, Status};

/// Seconds until a held message is on its way into the table again, which was away.
const HELD_PAUSE: u64 = 10;
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
            Home::Table(lease) => self.settle_table(&job, lease, sorted, fresh).await,
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

    async fn settle_table(
        self: &Arc<Self>,
        job: &Job,
        lease: u64,
        sorted: Sorted,
        fresh: Vec<Fresh>,
    ) {
        let mut again = sorted.again;
        again.extend(sorted.remote);
        let settled = Settled {
            id: job.message.id,
            lease,
            done: sorted.done,
            again,
            pieces: job.message.head.spooled && self.shares_bodies(),
            ..Settled::default()
        };
        let made = self.settle_surely(settled, fresh).await;
        match made {
            Some(Made::Gone) => {
                let _ = self
                    .table
                    .count
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                        Some(n.saturating_sub(1))
                    });
            }
            Some(Made::Fenced) => {
                tracing::warn!(
                    id = %job.message.id, trace = %job.message.head.trace,
                    "another node has it since, or it was removed: what came of this attempt does not count"
                );
            }
            Some(Made::Done) | None => {}
        }
        self.let_go(job, made == Some(Made::Gone));
    }

    /// A job of the table is not in memory any more.
    pub(crate) fn let_go(self: &Arc<Self>, job: &Job, gone: bool) {
        self.memory_less(job.message.forget_content());
        self.drop_body(&job.message, gone);
        let before = self
            .loaded
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                Some(n.saturating_sub(1))
            })
            .unwrap_or(0);
        // The loader need not be told of each.
        if before <= self.config.loaded as u64 / 2 || before.is_multiple_of(64) {
            self.due.notify_one();
        }
    }

    /// Settles, with the messages that follow from it, however long it takes. `None`: the queue ended before.
    pub(crate) async fn settle_surely(
        self: &Arc<Self>,
        mut settled: Settled,
        fresh: Vec<Fresh>,
    ) -> Option<Made> {
        let id = settled.id;
        let mut pause = Duration::from_millis(200);
        let mut bodies = Vec::new();
        for one in fresh {
            if one.head.spooled && self.shares_bodies() {
                while let Err(fault) = self.share_body(one.id, one.head.body_len).await {
                    tracing::warn!(%id, %fault, "a redirected message waits for the queue table");
                    if self.pause(&mut pause).await {
                        return None;
                    }
                }
                bodies.push(one.id);
            }
            settled.fresh.push(self.parked(one, 0));
        }
        let more = settled.fresh.len() as u64;
        loop {
            let change = Change::Settle(Box::new(settled.clone()));
            match self.table_writer.change(change).await {
                Ok(made) => {
                    for id in bodies {
                        self.spool.remove(id);
                    }
                    if made != Made::Fenced && more > 0 {
                        self.table.count.fetch_add(more, Ordering::Relaxed);
                        self.due.notify_one();
                    }
                    return Some(made);
                }
                Err(NotMade { error, .. }) => {
                    tracing::warn!(%id, %error, "the queue table cannot be written");
                    if self.pause(&mut pause).await {
                        return None;
                    }
                }
            }
        }
    }

    /// A message of our own as it goes into the table.
    pub(crate) fn parked(&self, fresh: Fresh, lease: i64) -> Parked {
        let recipients = self.waiting(&fresh.head, &Note::default());
        let body = (!fresh.head.spooled).then_some(fresh.body);
        Parked {
            id: fresh.id,
            head: fresh.head,
            prefix: fresh.prefix,
            body,
            recipients,
            lease,
        }
    }

    /// Moves a message from the journal to the queue table, with those of its recipients that must wait.
    pub(crate) async fn park(self: &Arc<Self>, message: Arc<Message>, waiting: Vec<Waiting>) {
        let _place = self.way_into_table().await;
        // In a place of its own: thousands may wait here, and have no room for it.
        Box::pin(self.park_now(message, waiting)).await;
    }

    async fn park_now(self: &Arc<Self>, message: Arc<Message>, mut waiting: Vec<Waiting>) {
        let id = message.id;
        let steer = message.steer().clone();
        if steer.removed.is_some() {
            // An attempt settles it, without being made.
            self.retry(&message, waiting);
            return;
        }
        for one in &mut waiting {
            one.held = steer.held || message.head.waits();
            if let Some(route) = &steer.route
                && one.destination != LOCAL
            {
                one.route.clone_from(route);
            }
        }
        match self.write_parked(&message, &waiting).await {
            Ok(()) => {
                // From here on the table has it; a replay asks the table before it believes the journal. Only when this mark
                // is durable may the table let it go.
                if !self.mark_surely(Entry::free(id.0)).await {
                    return;
                }
                self.table.count.fetch_add(1, Ordering::Relaxed);
                self.forget(&message);
                if self.confirm_surely(id, &waiting).await {
                    self.drop_body(&message, false);
                    self.due.notify_one();
                }
                self.steer_parked(&message, steer.held).await;
            }
            Err(error) => {
                tracing::warn!(%id, %error, "the queue table cannot be written: kept in the journal");
                let core = Arc::clone(self);
                tokio::spawn(async move {
                    let due = waiting.iter().map(|one| one.due).min().unwrap_or(0);
                    let pause = match steer.held {
                        // Nobody waits for it.
                        true => HELD_PAUSE,
                        false => due.saturating_sub(now()).clamp(1, 60),
                    };
                    tokio::time::sleep(Duration::from_secs(pause)).await;
                    if due <= now() && !message.is_held() {
                        core.retry(&message, waiting);
                    } else {
                        core.park_again(message, waiting).await;
                    }
                });
            }
        }
    }

    /// What an operator said of a message while it was on its way into the table, after it was looked at, and before the table had it.
    fn steer_parked(
        self: &Arc<Self>,
        message: &Message,
        held: bool,
    ) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        let (core, id, steer) = (Arc::clone(self), message.id, message.steer().clone());
        Box::pin(async move {
            let filter = QueueFilter {
                ids: vec![id],
                ..QueueFilter::default()
            };
            let done = match (steer.removed, steer.held) {
                (Some(bounce), _) => core.remove(&filter, bounce).await,
                (None, wanted) if wanted == held => return,
                (None, true) => core.act(&filter, Action::Hold).await,
                (None, false) => core.act(&filter, Action::Release { early: false }).await,
            };
            if let Err(fault) = done {
                tracing::warn!(%id, %fault, "what the operator wants of it is not done: say it again");
            }
        })
    }

    async fn write_parked(&self, message: &Message, waiting: &[Waiting]) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let lease = self.table.node.parking().map_err(|error| text(&error))?;
        let content = self.content(message).await.map_err(|fault| text(&fault))?;
        if message.head.spooled && self.shares_bodies() {
            self.share_body(message.id, message.head.body_len)
                .await
                .map_err(|fault| text(&fault))?;
        }
        let parked = Parked {
            id: message.id,
            head: message.head.clone(),
            prefix: content.prefix.clone(),
            body: content.body.clone(),
            recipients: waiting.to_vec(),
            lease,
        };
        let change = Change::Park(Box::new(parked));
        match self.table_writer.change(change).await {
            Ok(_) => Ok(()),
            Err(not) => Err(text(&not.error)),
        }
    }

    /// Lets the table go on with a message that the journal has let go of. `false`: the queue ended before; the next run does it.
    async fn confirm_surely(&self, id: QueueId, waiting: &[Waiting]) -> bool {
        let mut pause = Duration::from_millis(200);
        loop {
            let looks = waiting
                .iter()
                .filter(|one| !one.held)
                .map(|one| (one.destination.clone(), one.due))
                .collect();
            match self.table_writer.change(Change::Confirm(id, looks)).await {
                Ok(_) => return true,
                Err(NotMade { error, .. }) => {
                    tracing::warn!(%id, %error, "the queue table cannot be written");
                }
            }
            if self.pause(&mut pause).await {
                return false;
            }
        }
    }

    /// Writes marks durably, however long it takes. `false`: the queue ended before.
    pub(crate) async fn free_surely(&self, entries: Vec<Entry>) -> bool {
        let mut pause = Duration::from_millis(200);
        loop {
            let again = entries.iter().map(|entry| Entry::free(entry.id)).collect();
            match self.writer.commit(again).await {
                Ok(_) => return true,
                Err(fault) => tracing::warn!(%fault, "marks wait for the journal"),
            }
            if self.pause(&mut pause).await {
                return false;
            }
        }
    }

    /// Lets the table go on with a message that an earlier run put there.
    pub(crate) async fn confirm_known(&self, id: QueueId) {
        let filter = QueueFilter {
            ids: vec![id],
            ..QueueFilter::default()
        };
        let mut pause = Duration::from_millis(200);
        let listed = loop {
            match self.table.list(&filter, QueueId(0), 1).await {
                Ok(listed) => break listed,
                Err(error) => tracing::warn!(%id, %error, "the queue table cannot be read"),
            }
            if self.pause(&mut pause).await {
                return;
            }
        };
        for one in listed {
            self.confirm_surely(id, &one.waiting).await;
        }
        self.due.notify_one();
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
    pub(crate) async fn pause(&self, pause: &mut Duration) -> bool {
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
                octets.extend(self.read_body(message, most).await.unwrap_or_default());
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
