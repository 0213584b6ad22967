//! What an operator asks: list, show, retry, hold, release, remove, reroute, figures.
//!
//! A message is in the journal until its first attempts are over, and in the queue table from then on; an operator sees one
//! queue. What is under way is told what to do when its attempt is over.

use crate::core::{Core, now};
use crate::message::{End, Home, Message};
use crate::node::{self, Seen};
use crate::record::{Head, Moderated};
use crate::rule::Looked;
use crate::table::Waiting;
use crate::table_control::{Action, Listed, normal};
use crate::waiting::Times;
use ipc::api::queued::{
    QueueDetail, QueueEntry, QueueFigures, QueueFilter, QueueNode, QueueRecipient,
};
use ipc::{Fault, FaultKind};
use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use types::{Enhanced, QueueId, Recipient, Status};

/// Recipients shown of a message.
const SHOWN: usize = 50;
/// Messages in one answer: a frame holds no more than 128 KiB.
const LISTED: u32 = 200;
/// Octets of the header that are shown.
const HEADER: usize = 16 * 1024;

fn away(error: sql::Error) -> Fault {
    Fault::new(FaultKind::Temporary, format!("the queue table: {error}"))
}

/// Whether a message of the journal is among those that the filter means.
fn matches(message: &Message, filter: &QueueFilter) -> bool {
    let by_text = |text: &str, key: &str, domain: &str| {
        let text = normal(text);
        text.strip_prefix('@')
            .map_or_else(|| text == key, |wanted| wanted == domain)
    };
    let envelope = &message.head.envelope;
    let sender = filter
        .sender
        .as_ref()
        .is_none_or(|text| match &envelope.sender {
            Some(sender) => by_text(text, &sender.key(), sender.domain()),
            None => text == "<>",
        });
    let recipient = filter.recipient.as_ref().is_none_or(|text| {
        envelope
            .recipients
            .iter()
            .any(|one| by_text(text, &one.address.key(), one.address.domain()))
    });
    let held = filter.held.is_none_or(|held| message.is_held() == held);
    (filter.ids.is_empty() || filter.ids.contains(&message.id)) && sender && recipient && held
}

fn entry_of_fresh(core: &Core, message: &Message) -> QueueEntry {
    let done = message.progress().done.clone();
    let head = &message.head;
    let left = || {
        (0_u16..)
            .zip(&head.envelope.recipients)
            .filter(|(index, _)| !done.contains(index))
    };
    let held = core.waiting_post(head);
    let recipients = left().take(SHOWN).map(|(_, recipient)| {
        if let Some(held) = &held {
            return shown(held, recipient);
        }
        let rule = core
            .rules
            .find(&Looked::of(head, recipient.address.domain()));
        let times = Times::of(&core.config, head, rule.map(|rule| &**rule));
        QueueRecipient {
            recipient: recipient.clone(),
            attempts: 0,
            next: head.arrived.max(times.not_before),
            expires: times.expires,
            last: None,
        }
    });
    QueueEntry {
        id: message.id,
        trace: head.trace,
        arrived: head.arrived,
        size: head.size(),
        sender: head.envelope.sender.clone(),
        held: message.is_held(),
        recipients: recipients.collect(),
        pending: u32::try_from(left().count()).unwrap_or(u32::MAX),
        terms: head.envelope.terms,
        node: core.table.node.name.clone(),
        hold: head.held.clone().filter(|_| message.is_held()),
        post: post_of(head),
    }
}

/// Under which id a post came that waits for the owners of a list.
fn post_of(head: &Head) -> Option<QueueId> {
    match &head.moderated {
        Some(Moderated::Waits { post, .. }) => Some(*post),
        _ => None,
    }
}

fn shown(waiting: &Waiting, recipient: &Recipient) -> QueueRecipient {
    QueueRecipient {
        recipient: recipient.clone(),
        attempts: waiting.attempts,
        next: waiting.due,
        expires: waiting.expires,
        last: waiting.last.clone(),
    }
}

fn entry_of_listed(listed: Listed, nodes: &[Seen]) -> QueueEntry {
    let Listed {
        id,
        head,
        waiting,
        lease,
    } = listed;
    let node = nodes
        .iter()
        .find(|node| lease != 0 && node.lease == lease)
        .map(|node| node.name.clone())
        .unwrap_or_default();
    let held = waiting.iter().any(|one| one.held);
    let post = post_of(&head);
    let mut terms = head.envelope.terms;
    // An operator may have released it early.
    if waiting.iter().all(|one| one.not_before == 0) {
        terms.release = None;
    }
    let pending = u32::try_from(waiting.len()).unwrap_or(u32::MAX);
    let recipients = waiting.into_iter().take(SHOWN).filter_map(|one| {
        let recipient = head.envelope.recipients.get(usize::from(one.index))?;
        Some(shown(&one, recipient))
    });
    QueueEntry {
        id,
        trace: head.trace,
        arrived: head.arrived,
        size: head.size(),
        recipients: recipients.collect(),
        sender: head.envelope.sender,
        held,
        pending,
        terms,
        node,
        hold: head.held.filter(|_| held),
        post,
    }
}

impl Core {
    fn fresh_matching(
        &self,
        filter: &QueueFilter,
        after: Option<QueueId>,
        limit: usize,
    ) -> Vec<Arc<Message>> {
        let fresh = self.fresh();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let behind = fresh.range((from, Bound::Unbounded));
        behind
            .map(|(_, message)| message)
            .filter(|message| matches(message, filter))
            .take(limit)
            .cloned()
            .collect()
    }

    /// See [`ipc::api::queued::QueueList`].
    ///
    /// # Errors
    /// Temporary: the queue table is away.
    pub async fn list(
        &self,
        filter: &QueueFilter,
        after: Option<QueueId>,
        limit: u32,
    ) -> Result<Vec<QueueEntry>, Fault> {
        let limit = limit.clamp(1, LISTED);
        self.whole().await;
        // These first: one that is moved meanwhile is in both, not in neither.
        let fresh: Vec<QueueEntry> = self
            .fresh_matching(filter, after, limit as usize)
            .iter()
            .map(|message| entry_of_fresh(self, message))
            .collect();
        let listed = self
            .table
            .list(filter, after.unwrap_or_default(), limit)
            .await
            .map_err(away)?;
        let nodes = self
            .seen_nodes(listed.iter().any(|one| one.lease != 0))
            .await?;
        let mut entries: Vec<QueueEntry> = listed
            .into_iter()
            .map(|listed| entry_of_listed(listed, &nodes))
            .chain(fresh)
            .collect();
        entries.sort_by_key(|entry| entry.id);
        entries.dedup_by_key(|entry| entry.id);
        entries.truncate(limit as usize);
        shorten(&mut entries);
        Ok(entries)
    }

    /// The nodes, if somebody wants to know.
    async fn seen_nodes(&self, wanted: bool) -> Result<Vec<Seen>, Fault> {
        if !wanted {
            return Ok(Vec::new());
        }
        let db = self.table.db().await.map_err(away)?;
        node::all(db).await.map_err(away)
    }

    /// See [`ipc::api::queued::QueueNodes`].
    ///
    /// # Errors
    /// Temporary: the queue table is away.
    pub(crate) async fn nodes(&self) -> Result<Vec<QueueNode>, Fault> {
        let own = &self.table.node;
        let shown = |seen: Seen| QueueNode {
            alive: seen.alive || !own.is_shared(),
            own: seen.name == own.name,
            name: seen.name,
            number: seen.number,
            began: seen.began,
            seen: seen.seen,
            in_journal: seen.in_journal,
            loaded: seen.loaded,
        };
        let mut nodes: Vec<QueueNode> = self
            .seen_nodes(true)
            .await?
            .into_iter()
            .map(shown)
            .collect();
        for node in nodes.iter_mut().filter(|node| node.own) {
            node.in_journal = self.fresh().len() as u64;
            node.loaded = self.loaded.load(Ordering::Relaxed);
        }
        Ok(nodes)
    }

    /// See [`ipc::api::queued::QueueForget`].
    ///
    /// # Errors
    /// Temporary: the queue table is away.
    pub(crate) async fn forget_node(&self, name: &str) -> Result<bool, Fault> {
        let db = self.table.db().await.map_err(away)?;
        let forgotten =
            name != self.table.node.name && node::forget(db, name).await.map_err(away)?;
        if forgotten {
            tracing::info!(node = name, "forgotten by the operator");
            self.due.notify_one();
        }
        Ok(forgotten)
    }

    /// A message of journal or table, and what is shown of it.
    pub(crate) async fn find(&self, id: QueueId) -> Result<(Arc<Message>, QueueEntry), Fault> {
        let fresh = self.fresh().get(&id).cloned();
        Ok(match fresh {
            Some(message) => {
                let entry = entry_of_fresh(self, &message);
                (message, entry)
            }
            None => {
                let filter = QueueFilter {
                    ids: vec![id],
                    ..QueueFilter::default()
                };
                let listed = self
                    .table
                    .list(&filter, QueueId(0), 1)
                    .await
                    .map_err(away)?
                    .pop();
                let listed = listed
                    .ok_or_else(|| Fault::new(FaultKind::NotFound, format!("no message {id}")))?;
                let message = Message::new(id, listed.head.clone(), Home::Table(0), None);
                let nodes = self.seen_nodes(listed.lease != 0).await?;
                (Arc::new(message), entry_of_listed(listed, &nodes))
            }
        })
    }

    /// See [`ipc::api::queued::QueueShow`].
    ///
    /// # Errors
    /// NotFound, and Temporary: the queue table is away.
    pub async fn show(&self, id: QueueId) -> Result<QueueDetail, Fault> {
        let (message, entry) = self.find(id).await?;
        let content = self.content(&message).await?;
        let mut header = content.prefix.clone();
        match &content.body {
            Some(body) => header.extend_from_slice(body.get(..HEADER).unwrap_or(body)),
            None => header.extend(self.read_body(&message, HEADER as u64).await?),
        }
        let end = memchr::memmem::find(&header, b"\r\n\r\n").map_or(header.len(), |end| end + 2);
        header.truncate(end.min(HEADER));
        Ok(QueueDetail {
            entry,
            origin: message.head.origin.clone(),
            header: header.into(),
        })
    }

    /// Retries, holds, releases or reroutes; gives how many messages it concerned.
    ///
    /// # Errors
    /// Temporary: the queue table is away.
    pub(crate) async fn act(
        self: &Arc<Self>,
        filter: &QueueFilter,
        action: Action,
    ) -> Result<u64, Fault> {
        if matches!(action, Action::Retry | Action::Reroute(_)) {
            self.relays.reopen();
        }
        // One that is moved meanwhile is found in both.
        let mut concerned = BTreeSet::new();
        for message in self.fresh_matching(filter, None, usize::MAX) {
            if message.head.waits() && !matches!(action, Action::Remove) {
                continue;
            }
            let mut steer = message.steer();
            match &action {
                Action::Hold => steer.held = true,
                Action::Release { .. } => steer.held = false,
                Action::Reroute(route) => steer.route = Some(route.clone()),
                Action::Remove => steer.removed = Some(false),
                Action::Retry => {}
            }
            concerned.insert(message.id);
        }
        let mut after = Some(QueueId(0));
        while let Some(from) = after {
            let (found, gone, next) = self
                .table
                .act(filter, &action, from, now())
                .await
                .map_err(away)?;
            for id in &gone {
                self.spool.remove(*id);
            }
            let less = gone.len() as u64;
            let _ = self
                .table
                .count
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                    Some(n.saturating_sub(less))
                });
            concerned.extend(found);
            after = next;
        }
        let count = concerned.len() as u64;
        self.due.notify_one();
        tracing::info!(?action, messages = count, "by the operator");
        Ok(count)
    }

    /// Removes messages, with reports to their senders if `bounce`.
    ///
    /// # Errors
    /// Temporary: the queue table is away.
    pub async fn remove(
        self: &Arc<Self>,
        filter: &QueueFilter,
        bounce: bool,
    ) -> Result<u64, Fault> {
        if !bounce {
            return self.act(filter, Action::Remove).await;
        }
        let mut count = 0;
        for message in self.fresh_matching(filter, None, usize::MAX) {
            message.steer().removed = Some(true);
            count += 1;
        }
        // The reports that this makes come after it, and stay.
        let end = self.reserve(1)?;
        let mut after = QueueId(0);
        while after < end {
            let page = self.table.list(filter, after, LISTED).await.map_err(away)?;
            let Some(last) = page.last() else { break };
            after = last.id;
            for listed in page.into_iter().filter(|listed| listed.id < end) {
                self.bounce(listed, filter).await;
                count += 1;
            }
        }
        tracing::info!(messages = count, "removed with reports by the operator");
        Ok(count)
    }

    async fn bounce(self: &Arc<Self>, listed: Listed, filter: &QueueFilter) {
        let message = Arc::new(Message::new(listed.id, listed.head, Home::Table(0), None));
        let wanted = filter.recipient.as_deref().map(normal);
        let concerned = |waiting: &Waiting| {
            let recipient = message
                .head
                .envelope
                .recipients
                .get(usize::from(waiting.index));
            match (&wanted, recipient) {
                (Some(wanted), Some(recipient)) => match wanted.strip_prefix('@') {
                    Some(domain) => recipient.address.domain() == domain,
                    None => recipient.address.key() == *wanted,
                },
                _ => true,
            }
        };
        let recipients: Vec<Waiting> = listed.waiting.into_iter().filter(concerned).collect();
        for job in crate::core::jobs(&message, recipients) {
            let end = End::Failed(Status {
                code: 550,
                enhanced: Enhanced(5, 7, 0),
                text: "removed from the queue by the operator".to_owned(),
                host: None,
            });
            let ends = vec![end; job.recipients.len()];
            self.loaded.fetch_add(1, Ordering::Relaxed);
            self.settle(job, ends, Vec::new()).await;
        }
    }

    /// See [`ipc::api::queued::QueueStats`].
    ///
    /// # Errors
    /// Temporary: the queue table is away.
    pub async fn figures(&self) -> Result<QueueFigures, Fault> {
        let table = self.table.figures().await.map_err(away)?;
        let (mut messages, mut held, mut oldest) = (0, 0, table.oldest);
        let mut by_name: HashMap<String, u64> = table.destinations.iter().cloned().collect();
        for message in self.fresh().values() {
            messages += 1;
            held += u64::from(message.is_held());
            oldest = Some(oldest.map_or(message.head.arrived, |first| {
                first.min(message.head.arrived)
            }));
            if let Some(first) = message.head.envelope.recipients.first() {
                let local = first.route == types::Route::Local;
                let name = if local {
                    crate::table::LOCAL
                } else {
                    first.address.domain()
                };
                *by_name.entry(name.to_owned()).or_default() += 1;
            }
        }
        let connections = self.relays.connections();
        let mut destinations: Vec<(String, u64, u32)> = by_name
            .into_iter()
            .map(|(name, count)| {
                let active = connections.get(&name).copied().unwrap_or(0);
                (name, count, active)
            })
            .collect();
        destinations.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        destinations.truncate(20);
        let active = (self.relays.active() + self.locals.active()) as u64;
        let held = held + table.held;
        Ok(QueueFigures {
            messages: messages + table.messages,
            active,
            deferred: (messages + table.messages)
                .saturating_sub(held)
                .saturating_sub(active),
            held,
            bytes: self.writer.bytes() + self.spool.bytes(),
            oldest: oldest.map_or(0, |first| now().saturating_sub(first)),
            destinations,
        })
    }
}

/// Makes a list fit into a frame: the recipients shown grow fewer.
fn shorten(entries: &mut [QueueEntry]) {
    const ROOM: usize = 96 * 1024;
    let size = |entry: &QueueEntry| {
        let one = |recipient: &QueueRecipient| {
            let last = recipient.last.as_ref();
            64 + recipient.recipient.address.local().len()
                + recipient.recipient.address.domain().len()
                + recipient.recipient.orcpt.as_ref().map_or(0, String::len)
                + last.map_or(0, |last| {
                    last.text.len() + last.host.as_ref().map_or(0, String::len)
                })
        };
        let hold = entry.hold.as_ref();
        let hold = hold.map_or(0, |hold| hold.by.len() + hold.reason.len());
        100 + hold + entry.recipients.iter().map(one).sum::<usize>()
    };
    let mut shown = SHOWN;
    while shown > 1 && entries.iter().map(size).sum::<usize>() > ROOM {
        shown /= 2;
        for entry in entries.iter_mut() {
            entry.recipients.truncate(shown);
        }
    }
    if entries.iter().map(size).sum::<usize>() > ROOM {
        let texts = entries.iter_mut().flat_map(|entry| {
            let last = entry
                .recipients
                .iter_mut()
                .filter_map(|one| one.last.as_mut());
            let hold = entry.hold.as_mut().map(|hold| &mut hold.reason);
            last.map(|status| &mut status.text).chain(hold)
        });
        for text in texts {
            text.truncate(text.floor_char_boundary(120));
        }
    }
}
