//! What an operator asks of the queue table.

use crate::record::Head;
use crate::table::{COLUMNS, LOCAL, POSTS, Table, Waiting, heads, waiting};
use crate::table_change::look_at;
use ipc::api::queued::QueueFilter;
use sql::{Error, Tx, Value, args, placeholders};
use std::collections::{BTreeMap, BTreeSet};
use types::{Address, QueueId};

/// Seconds that what is released is left to be tried before its sender is warned, or it is given up: it may have been held for longer
/// than a message waits.
const RELEASED: u64 = 3600;

/// What to do with the recipients that a filter finds.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Due now.
    Retry,
    /// Not tried.
    Hold,
    /// Tried again; what its sender wanted to be held until later (RFC 4865) only if `early`.
    Release {
        /// See above.
        early: bool,
    },
    /// To be sent another way.
    Reroute(Option<String>),
    /// Gone.
    Remove,
}

/// A message with its recipients that are not done.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) id: QueueId,
    pub(crate) head: Head,
    pub(crate) waiting: Vec<Waiting>,
    /// The lease of those that a node works on; 0 if none does.
    pub(crate) lease: u64,
}

/// An address or a domain as the table has it.
pub(crate) fn normal(text: &str) -> String {
    match text.parse::<Address>() {
        Ok(address) => address.key(),
        Err(_) => match text
            .strip_prefix('@')
            .and_then(|domain| Address::domain_of(domain).ok())
        {
            Some(domain) => format!("@{domain}"),
            None => text.to_lowercase(),
        },
    }
}

/// The filter as conditions on `m` (messages) and `r` (recipients), each with ` AND ` before it.
fn conditions(filter: &QueueFilter) -> (String, Vec<Value>) {
    let mut text = String::new();
    let mut args = Vec::new();
    if !filter.ids.is_empty() {
        let mut list: Vec<Value> = filter.ids.iter().map(|id| Value::from(id.0)).collect();
        let count = sql::pad(&mut list);
        text.push_str(&format!(" AND r.id IN ({})", placeholders(count)));
        args.append(&mut list);
    }
    if let Some(sender) = &filter.sender {
        let sender = normal(sender);
        match sender.strip_prefix('@') {
            Some(domain) => {
                text.push_str(" AND m.sender_domain = ?");
                args.push(Value::from(domain));
            }
            None => {
                text.push_str(" AND m.sender = ?");
                args.push(Value::from(if sender == "<>" { "" } else { &sender }));
            }
        }
    }
    if let Some(recipient) = &filter.recipient {
        let recipient = normal(recipient);
        match recipient.strip_prefix('@') {
            Some(domain) => {
                text.push_str(" AND r.domain = ?");
                args.push(Value::from(domain));
            }
            None => {
                text.push_str(" AND r.address = ?");
                args.push(Value::from(recipient));
            }
        }
    }
    if let Some(held) = filter.held {
        text.push_str(" AND r.held = ?");
        args.push(Value::from(held));
    }
    (text, args)
}

impl Table {
    /// Ids that the filter finds behind `after`, ascending; of posts that wait for the owners of a list too if `posts`.
    async fn find(
        &self,
        tx: &mut Tx,
        filter: &QueueFilter,
        after: QueueId,
        limit: u32,
        posts: bool,
    ) -> Result<Vec<Value>, Error> {
        let (mut text, mut more) = conditions(filter);
        if !posts {
            text.push_str(" AND r.destination <> ?");
            more.push(Value::from(POSTS));
        }
        // The messages themselves are large: they are not looked through for what the recipients tell.
        let messages = match filter.sender {
            Some(_) => " JOIN queue_message m ON m.id = r.id",
            None => "",
        };
        let text = format!(
            "SELECT DISTINCT r.id FROM queue_recipient r{messages} WHERE r.id > ?{text} ORDER BY r.id LIMIT ?"
        );
        let mut args = args![after.0];
        args.append(&mut more);
        args.push(Value::from(limit));
        let rows = tx.fetch_all(&text, args).await?;
        rows.iter().map(|row| row.u64(0).map(Value::from)).collect()
    }

    /// Messages that the filter finds, oldest first, with all their recipients.
    pub(crate) async fn list(
        &self,
        filter: &QueueFilter,
        after: QueueId,
        limit: u32,
    ) -> Result<Vec<Listed>, Error> {
        let mut tx = self.db().await?.snapshot().await?;
        let ids = self.find(&mut tx, filter, after, limit, true).await?;
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut heads = heads(&mut tx, ids.clone()).await?;
        let text = format!(
            "SELECT {COLUMNS} FROM queue_recipient WHERE id IN ({{list}}) ORDER BY id, idx"
        );
        let mut listed: BTreeMap<u64, (u64, Vec<Waiting>)> = BTreeMap::new();
        for row in &tx.fetch_in(&text, &[], ids).await? {
            let (lease, list) = listed.entry(row.u64(0)?).or_default();
            *lease = row.u64(12)?.max(*lease);
            list.push(waiting(row)?);
        }
        tx.rollback().await?;
        Ok(listed
            .into_iter()
            .filter_map(|(id, (lease, waiting))| {
                heads.remove(&id).map(|head| Listed {
                    id: QueueId(id),
                    head,
                    waiting,
                    lease,
                })
            })
            .collect())
    }

    /// Does it to a page of what the filter finds behind `after`. Gives the messages it concerned, those of which nothing
    /// is left, and where the next page begins.
    pub(crate) async fn act(
        &self,
        filter: &QueueFilter,
        action: &Action,
        after: QueueId,
        now: u64,
    ) -> Result<(Vec<QueueId>, Vec<QueueId>, Option<QueueId>), Error> {
        const PAGE: u32 = 500;
        let mut tx = self.db().await?.begin().await?;
        // A post that waits for the owners of a list is decided on, and not released.
        let posts = matches!(action, Action::Remove);
        let ids = self.find(&mut tx, filter, after, PAGE, posts).await?;
        let Some(Value::Int(last)) = ids.last() else {
            return Ok((Vec::new(), Vec::new(), None));
        };
        let next = (ids.len() == PAGE as usize).then_some(QueueId(last.cast_unsigned()));
        // A filter by recipient concerns these recipients; all other filters concern messages.
        let (only, more) = match filter.recipient.as_deref().map(normal) {
            None => ("", Vec::new()),
            Some(text) => match text.strip_prefix('@') {
                Some(domain) => (" AND domain = ?", args![domain]),
                None => (" AND address = ?", args![text]),
            },
        };
        let tried = now.saturating_add(RELEASED);
        // COALESCE: they are found by their ids, and not among all that are held or are not.
        let (verb, mut first) = match action {
            Action::Retry => (
                "UPDATE queue_recipient SET due = CASE WHEN not_before > ? THEN not_before ELSE ? END
                    WHERE COALESCE(held, 0) = 0",
                args![now, now],
            ),
            Action::Hold => (
                "UPDATE queue_recipient SET held = 1 WHERE COALESCE(held, 0) = 0",
                args![],
            ),
            Action::Release { early: false } => (
                "UPDATE queue_recipient SET held = 0, due = CASE WHEN not_before > ? THEN not_before ELSE ? END,
                    attention = CASE WHEN attention < ? THEN ? ELSE attention END WHERE COALESCE(held, 0) = 1",
                args![now, now, tried, tried],
            ),
            Action::Release { early: true } => (
                "UPDATE queue_recipient SET held = 0, not_before = 0, due = ?,
                    attention = CASE WHEN attention < ? THEN ? ELSE attention END WHERE (held = 1 OR not_before > ?)",
                args![now, tried, tried, now],
            ),
            Action::Reroute(route) => (
                "UPDATE queue_recipient SET route = ?, due = CASE WHEN not_before > ? THEN not_before ELSE ? END
                    WHERE destination <> ?",
                args![route.clone(), now, now, LOCAL],
            ),
            Action::Remove => ("DELETE FROM queue_recipient WHERE 1 = 1", args![]),
        };
        first.extend(more);
        tx.execute_in(
            &format!("{verb}{only} AND id IN ({{list}})"),
            &first,
            ids.clone(),
        )
        .await?;
        let found: Vec<QueueId> = ids
            .iter()
            .filter_map(|id| match id {
                Value::Int(id) => Some(QueueId(id.cast_unsigned())),
                _ => None,
            })
            .collect();
        let mut gone = Vec::new();
        match action {
            Action::Remove => {
                let touched: BTreeSet<QueueId> = found.iter().copied().collect();
                gone = remove_empty(&mut tx, touched).await?;
                if self.node.is_shared() {
                    let list = gone.iter().map(|id| Value::from(id.0)).collect();
                    tx.execute_in("DELETE FROM queue_piece WHERE id IN ({list})", &[], list)
                        .await?;
                }
            }
            Action::Hold => {}
            Action::Retry | Action::Release { .. } | Action::Reroute(_) => {
                wake(
                    &mut tx,
                    ids.clone(),
                    now,
                    !matches!(action, Action::Release { .. }),
                )
                .await?;
            }
        }
        tx.commit().await?;
        Ok((found, gone, next))
    }
}

/// Where messages go. COALESCE: see [`Table::act`].
pub(crate) const DESTINATIONS: &str = "SELECT DISTINCT destination FROM queue_recipient WHERE COALESCE(held, 0) = 0 AND id IN ({list})";

/// Looks at the destinations of these messages now, also at dead ones if `anyway`.
async fn wake(tx: &mut Tx, ids: Vec<Value>, now: u64, anyway: bool) -> Result<(), Error> {
    let rows = tx.fetch_in(DESTINATIONS, &[], ids).await?;
    let names = rows
        .iter()
        .map(|row| row.text(0).map(str::to_owned))
        .collect::<Result<BTreeSet<_>, _>>()?;
    look_at(tx, names.iter().map(|name| (name.clone(), now)).collect()).await?;
    if anyway {
        for name in names {
            let text = "UPDATE queue_destination SET next = ?, failures = 0 WHERE name = ?";
            tx.execute(text, args![now, name]).await?;
        }
    }
    Ok(())
}

/// Removes those of the messages that have no recipient any more; gives them.
async fn remove_empty(tx: &mut Tx, ids: BTreeSet<QueueId>) -> Result<Vec<QueueId>, Error> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let list: Vec<Value> = ids.iter().map(|id| Value::from(id.0)).collect();
    tx.execute_in(
        "DELETE FROM queue_message WHERE id IN ({list}) AND NOT EXISTS
            (SELECT 1 FROM queue_recipient WHERE queue_recipient.id = queue_message.id)",
        &[],
        list.clone(),
    )
    .await?;
    let rows = tx
        .fetch_in(
            "SELECT id FROM queue_message WHERE id IN ({list})",
            &[],
            list,
        )
        .await?;
    let left = rows
        .iter()
        .map(|row| row.u64(0).map(QueueId))
        .collect::<Result<BTreeSet<_>, _>>()?;
    Ok(ids.difference(&left).copied().collect())
}
