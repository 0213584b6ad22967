//! How a message comes in: checked, kept where the promise is, and begun.

use super::{Core, jobs, kind_of, log_queued, now};
use crate::config::Ack;
use crate::message::{Content, Fresh, Home, Message};
use crate::record::{self, Head, Note};
use crate::rights::Allowed;
use crate::seen::{Look, outcome_of};
use crate::table_change::{Change, NotMade, Settled};
use crate::writer::Entry;
use ipc::api::queued::{Commit, Right};
use ipc::{Fault, FaultKind};
use journal::Kind;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use types::{Body, QueueId, Role};

/// How long a commit waits at most while too much is in memory.
const PATIENCE: Duration = Duration::from_secs(10);

impl Core {
    /// Accepts a message (see [`Commit`]). `connection` is that of the caller, which owns the spool slots it opened.
    ///
    /// # Errors
    /// See [`Commit`].
    pub async fn commit(
        self: &Arc<Self>,
        caller: Role,
        connection: u64,
        call: Commit,
    ) -> Result<(), Fault> {
        let id = call.id;
        let look = self.seen().look(id);
        let sender = match look {
            // RFC 5321 4.2.5: what was promised once is not taken twice.
            Look::Done => return Ok(()),
            Look::UnderWay(same) => return outcome_of(same).await,
            Look::New(sender) => sender,
        };
        // The caller may go away; what was begun is finished.
        let core = Arc::clone(self);
        let held = call.held.is_some();
        let task = tokio::spawn(async move {
            let begin = Instant::now();
            let result = core.commit_new(caller, connection, call).await;
            let mut seen = core.seen();
            seen.under_way.remove(&id.0);
            if result.is_ok() {
                seen.insert(id.0);
                core.counters.commit.observe(begin.elapsed());
                core.counters.accepted.add_one();
                core.counters.held.add(u64::from(held));
            } else {
                core.counters.refused.add_one();
            }
            drop(seen);
            sender.send_replace(Some(result.clone()));
            result
        });
        task.await.unwrap_or_else(|_| {
            self.seen().under_way.remove(&id.0);
            Err(Fault::new(
                FaultKind::Internal,
                "the commit failed; the log says more",
            ))
        })
    }

    async fn commit_new(
        self: &Arc<Self>,
        caller: Role,
        connection: u64,
        call: Commit,
    ) -> Result<(), Fault> {
        self.slow_down().await;
        self.check_room()?;
        let Allowed { relay, sign } = self.check(caller, &call).await?;
        if self.config.ack == Ack::Sql && self.ids.is_earlier(call.id) {
            // Committed before a restart, perhaps, and not done: then it is there.
            let known = self.table.known(&[call.id]).await.map_err(away)?;
            if !known.is_empty() {
                return Ok(());
            }
        }
        if call.held.as_ref().is_some_and(|held| !held.fits()) {
            return Err(Fault::new(
                FaultKind::Invalid,
                "too much is said of why it is held",
            ));
        }
        let slot = match &call.body {
            Body::Inline(octets) if octets.len() > Body::INLINE_MAX => {
                return Err(Fault::new(
                    FaultKind::Invalid,
                    "the body belongs into a spool file",
                ));
            }
            Body::Inline(_) => None,
            Body::Slot { slot, len } => Some((*slot, *len)),
            Body::Attached { .. } => {
                return Err(Fault::new(
                    FaultKind::Invalid,
                    "a body must be inline or a slot",
                ));
            }
        };
        if let Some((slot, len)) = slot {
            let core = Arc::clone(self);
            let id = call.id;
            let settled =
                tokio::task::spawn_blocking(move || core.spool.commit(slot, connection, id, len))
                    .await;
            settled
                .map_err(|_| std::io::Error::other("the task failed"))
                .flatten()
                .map_err(|error| {
                    let kind = match error.kind() {
                        std::io::ErrorKind::InvalidInput => FaultKind::Invalid,
                        _ => kind_of(&error),
                    };
                    Fault::new(kind, format!("the spool: {error}"))
                })?;
        }
        let head = Head {
            trace: call.trace,
            arrived: now(),
            origin: origin(&call),
            may_relay: relay,
            sign,
            prefix_len: u32::try_from(call.prefix.len()).unwrap_or(u32::MAX),
            body_len: call.body.len(),
            spooled: slot.is_some(),
            envelope: call.envelope,
            listener: call.origin.listener,
            held: call.held,
            moderated: None,
        };
        let body = match call.body {
            Body::Inline(octets) => octets.0,
            _ => Vec::new(),
        };
        let fresh = Fresh {
            id: call.id,
            head,
            prefix: call.prefix.0,
            body,
        };
        let accepted = match self.config.ack {
            Ack::Journal => self.accept(vec![fresh], Vec::new()).await,
            Ack::Sql => self.accept_in_table(fresh).await,
        };
        if accepted.is_err() && slot.is_some() {
            self.spool.remove(call.id);
        }
        accepted
    }

    /// While more is in memory than is good, who brings more waits a little: mail comes as fast as the table takes what cannot be tried
    /// now, and is not refused before that is too slow.
    async fn slow_down(&self) {
        let many = self
            .config
            .max_fresh
            .saturating_add(self.config.max_fresh / 2);
        let end = Instant::now() + PATIENCE;
        while self.fresh().len() >= many {
            let left = end.saturating_duration_since(Instant::now());
            let less = tokio::time::timeout(left, self.less_fresh.notified());
            if less.await.is_err() {
                return;
            }
        }
    }

    async fn check(&self, caller: Role, call: &Commit) -> Result<Allowed, Fault> {
        let invalid = |text: &str| Fault::new(FaultKind::Invalid, text);
        let count = call.envelope.recipients.len();
        if count == 0 || count > usize::from(u16::MAX) {
            return Err(invalid("a message has 1 to 65535 recipients"));
        }
        if !self.ids.is_known(call.id) {
            return Err(invalid("the queue id was never reserved"));
        }
        if call.prefix.len() > Body::INLINE_MAX {
            return Err(invalid("the prefix is too long"));
        }
        self.gate.check(&*self.peers, caller, call, now()).await
    }

    /// Writes messages to the journal, with `more` entries behind them, and begins to deliver them.
    pub(crate) async fn accept(
        self: &Arc<Self>,
        messages: Vec<Fresh>,
        more: Vec<Entry>,
    ) -> Result<(), Fault> {
        let mut heads = Vec::with_capacity(messages.len());
        let mut entries = Vec::with_capacity(messages.len() + more.len());
        for message in messages {
            let parts = [message.head.to_record(), message.prefix, message.body];
            entries.push(Entry {
                kind: Kind::Put,
                version: record::VERSION,
                id: message.id.0,
                parts,
            });
            heads.push(message.head);
        }
        entries.extend(more);
        let (entries, positions) = self.writer.commit(entries).await?;
        for ((entry, position), head) in entries.into_iter().zip(positions).zip(heads) {
            let [_, prefix, body] = entry.parts;
            let content = Content {
                prefix,
                body: (!head.spooled).then_some(body),
            };
            self.begin(
                QueueId(entry.id),
                head,
                Home::Journal(position),
                Some(content),
                &Note::default(),
            );
        }
        Ok(())
    }

    /// Writes a message to the queue table, and begins to deliver it under this node's lease, if there is room in memory.
    async fn accept_in_table(self: &Arc<Self>, fresh: Fresh) -> Result<(), Fault> {
        let id = fresh.id;
        let lease = self.table.node.needed().map_err(away)?;
        if fresh.head.spooled && self.shares_bodies() {
            self.share_body(id, fresh.head.body_len).await?;
        }
        let mut parked = self.parked(fresh, 0);
        let now = now();
        let later = parked.recipients.iter().all(|one| one.waits(now));
        let room = self.loaded.load(Ordering::Relaxed) < self.config.loaded as u64;
        let begun = (room && !later).then(|| {
            parked.lease = lease.cast_signed();
            parked.clone()
        });
        let indexes = parked.recipients.iter().map(|one| one.index).collect();
        let head = parked.head.clone();
        let change = Change::Accept(Box::new(parked));
        if let Err(NotMade { error, in_doubt }) = self.table_writer.change(change).await {
            if !self.table_away.swap(true, Ordering::Relaxed) {
                tracing::warn!(%error, "the queue table is away: nothing is accepted");
            }
            if in_doubt {
                self.disown(id, indexes);
            }
            return Err(away(error));
        }
        if self.table_away.swap(false, Ordering::Relaxed) {
            tracing::info!("the queue table is back");
        }
        self.table.count.fetch_add(1, Ordering::Relaxed);
        log_queued(id, &head);
        let Some(begun) = begun else {
            if head.spooled && self.shares_bodies() {
                self.spool.remove(id);
            }
            self.due.notify_one();
            return Ok(());
        };
        let content = Content {
            prefix: begun.prefix,
            body: begun.body,
        };
        let content = self.keep(Some(content));
        let message = Arc::new(Message::new(id, begun.head, Home::Table(lease), content));
        for job in jobs(&message, begun.recipients) {
            self.loaded.fetch_add(1, Ordering::Relaxed);
            self.dispatch(job);
        }
        Ok(())
    }

    /// A message that was refused may be in the table all the same: it goes, so that it is not there twice when its sender comes
    /// again.
    fn disown(self: &Arc<Self>, id: QueueId, done: Vec<u16>) {
        let core = Arc::clone(self);
        tokio::spawn(async move {
            let settled = Settled {
                id,
                done,
                pieces: core.shares_bodies(),
                ..Settled::default()
            };
            core.settle_surely(settled, Vec::new()).await;
        });
    }
}

fn away(error: sql::Error) -> Fault {
    Fault::new(FaultKind::Temporary, format!("the queue table: {error}"))
}

/// Where a message came from, for people.
fn origin(call: &Commit) -> String {
    let right = match &call.origin.right {
        Right::Incoming => String::new(),
        Right::Submission(grant) => format!(" as account {}", grant.account),
        Right::Network(_) => " by its network".to_owned(),
        Right::Operator => " by the operator".to_owned(),
    };
    format!(
        "{} from {}{right}",
        call.origin.listener, call.origin.client
    )
}
