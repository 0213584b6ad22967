//! How the queue table is changed: what came meanwhile, in one transaction.
//!
//! What is settled must bear the lease under which it was worked on; otherwise another node has it since, and nothing of it is
//! done, reports included: they go into the table in the same transaction.

use crate::record;
use crate::table::{Parked, Table, Waiting, number};
use sql::{Error, Tx, Value, args};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use types::QueueId;

/// What became of recipients of a message in the table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settled {
    pub(crate) id: QueueId,
    /// Under which they were worked on; 0: whoever has them.
    pub(crate) lease: u64,
    pub(crate) done: Vec<u16>,
    /// With their new times. Their destination may be another one now.
    pub(crate) again: Vec<Waiting>,
    /// Those whose sender was told of a delay.
    pub(crate) warned: Vec<u16>,
    /// When somebody looks after these again.
    pub(crate) attention: u64,
    /// Reports and redirected copies that follow from it.
    pub(crate) fresh: Vec<Parked>,
    /// Whether its body may be in the table in pieces.
    pub(crate) pieces: bool,
}

/// What is asked of the table's writer.
#[derive(Debug)]
pub(crate) enum Change {
    /// A message that is acknowledged when it is in the table.
    Accept(Box<Parked>),
    /// A message of the journal.
    Park(Box<Parked>),
    /// The journal knows that the table has it: it may be tried, at these destinations from then on.
    Confirm(QueueId, Vec<(String, u64)>),
    /// An attempt is over.
    Settle(Box<Settled>),
}

/// What a change came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    /// It is done.
    Done,
    /// Nothing is left of the message.
    Gone,
    /// Another has it since.
    Fenced,
}

/// A change that failed. In doubt: it may have been made all the same.
#[derive(Debug)]
pub(crate) struct NotMade {
    pub(crate) error: Error,
    pub(crate) in_doubt: bool,
}

impl From<Error> for NotMade {
    fn from(error: Error) -> Self {
        Self {
            error,
            in_doubt: false,
        }
    }
}

/// When destinations are to be looked at.
type Looks = BTreeMap<String, u64>;

fn look(looks: &mut Looks, name: &str, at: u64) {
    match looks.get_mut(name) {
        Some(next) => *next = at.min(*next),
        None => drop(looks.insert(name.to_owned(), at)),
    }
}

impl Table {
    /// Makes all changes in one transaction; says of each what it came to.
    pub(crate) async fn change(&self, changes: &[Change]) -> Result<Vec<Made>, NotMade> {
        let mut tx = self.db().await?.begin().await?;
        // What is put there under a lease that nobody has would be nobody's for ever.
        let leases: BTreeSet<i64> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Accept(parked) => Some(parked.lease),
                _ => None,
            })
            .filter(|lease| *lease != 0)
            .collect();
        for lease in leases {
            self.node.insist(&mut tx, lease.cast_unsigned()).await?;
        }
        let mut looks = Looks::new();
        let settled: Vec<&Settled> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Settle(settled) => Some(&**settled),
                _ => None,
            })
            .collect();
        let ends = settle(&mut tx, &settled, &mut looks).await?;
        let fresh = settled
            .iter()
            .zip(&ends)
            .filter(|(_, end)| **end != Made::Fenced)
            .flat_map(|(settled, _)| &settled.fresh);
        let parked: Vec<&Parked> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Accept(parked) | Change::Park(parked) => Some(&**parked),
                _ => None,
            })
            .chain(fresh)
            .collect();
        put(&mut tx, &self.node.name, &parked, &mut looks).await?;
        let confirmed: Vec<Value> = changes
            .iter()
            .filter_map(|change| match change {
                Change::Confirm(id, due) => {
                    due.iter()
                        .for_each(|(name, at)| look(&mut looks, name, *at));
                    Some(number(id.0))
                }
                _ => None,
            })
            .collect();
        if !confirmed.is_empty() {
            let text = "UPDATE queue_recipient SET lease = 0 WHERE lease = ? AND id IN ({list})";
            tx.execute_in(text, &args![self.node.parking()?], confirmed)
                .await?;
        }
        look_at(&mut tx, looks).await?;
        tx.commit().await.map_err(|error| NotMade {
            error,
            in_doubt: true,
        })?;
        let mut ends = ends.into_iter();
        Ok(changes
            .iter()
            .map(|change| match change {
                Change::Settle(_) => ends.next().unwrap_or(Made::Fenced),
                _ => Made::Done,
            })
            .collect())
    }
}

async fn put(tx: &mut Tx, node: &str, parked: &[&Parked], looks: &mut Looks) -> Result<(), Error> {
    let mut messages = Vec::new();
    let mut recipients = Vec::new();
    for message in parked {
        let sender = message.head.envelope.sender.as_ref();
        messages.extend(args![
            message.id.0,
            node,
            message.head.arrived,
            message.head.size(),
            sender.map(types::Address::key).unwrap_or_default(),
            sender
                .map(|sender| sender.domain().to_owned())
                .unwrap_or_default(),
            message.head.to_column(),
            message.prefix.clone(),
            message.body.clone(),
        ]);
        for waiting in &message.recipients {
            let Some(recipient) = message
                .head
                .envelope
                .recipients
                .get(usize::from(waiting.index))
            else {
                continue;
            };
            recipients.extend(args![
                message.id.0,
                u32::from(waiting.index),
                waiting.destination.as_str(),
                recipient.address.key(),
                recipient.address.domain(),
                waiting.route.clone(),
                waiting.held,
                waiting.due,
                waiting.attention,
                waiting.expires,
                waiting.attempts,
                waiting.last.as_ref().map(record::versioned),
                0_u64,
                i64::from(waiting.priority),
                waiting.not_before,
                message.lease,
            ]);
            if !waiting.held && message.lease == 0 {
                look(looks, &waiting.destination, waiting.due);
            }
        }
    }
    if messages.is_empty() {
        return Ok(());
    }
    tx.insert_many(
        "INSERT {ignore} INTO queue_message
            (id, node, arrived, size, sender, sender_domain, head, prefix, body)",
        9,
        messages,
        "{do_nothing}",
    )
    .await?;
    tx.insert_many(
        "INSERT {ignore} INTO queue_recipient (id, idx, destination, address, domain, route, held, due, attention,
            expires, attempts, last, lease_until, priority, not_before, lease)",
        16,
        recipients,
        "{do_nothing}",
    )
    .await?;
    Ok(())
}

/// The recipients that there are of these messages, with their leases. Nobody changes them before the transaction ends.
async fn lock(
    tx: &mut Tx,
    settled: &[&Settled],
) -> Result<HashMap<QueueId, BTreeMap<u16, u64>>, Error> {
    let ids: BTreeSet<QueueId> = settled.iter().map(|one| one.id).collect();
    let list = ids.iter().map(|id| number(id.0)).collect();
    let text = "SELECT id, idx, lease FROM queue_recipient WHERE id IN ({list}) ORDER BY id, idx {for_update}";
    let mut found: HashMap<QueueId, BTreeMap<u16, u64>> = HashMap::new();
    for row in tx.fetch_in(text, &[], list).await? {
        let index = u16::try_from(row.u32(1)?).unwrap_or(u16::MAX);
        found
            .entry(QueueId(row.u64(0)?))
            .or_default()
            .insert(index, row.u64(2)?);
    }
    Ok(found)
}

async fn settle(tx: &mut Tx, settled: &[&Settled], looks: &mut Looks) -> Result<Vec<Made>, Error> {
    if settled.is_empty() {
        return Ok(Vec::new());
    }
    let mut found = lock(tx, settled).await?;
    let mut ends = Vec::with_capacity(settled.len());
    // Messages that are done as a whole go together.
    let mut gone = Vec::new();
    for one in settled {
        let Some(rows) = found.get_mut(&one.id) else {
            ends.push(Made::Fenced);
            continue;
        };
        let ours = |index: &u16| {
            rows.get(index)
                .is_some_and(|lease| one.lease == 0 || *lease == one.lease)
        };
        let done: Vec<u16> = one.done.iter().copied().filter(ours).collect();
        let again: Vec<&Waiting> = one.again.iter().filter(|one| ours(&one.index)).collect();
        let warned: Vec<u16> = one.warned.iter().copied().filter(ours).collect();
        if done.is_empty() && again.is_empty() && warned.is_empty() {
            ends.push(Made::Fenced);
            continue;
        }
        for index in &done {
            rows.remove(index);
        }
        if rows.is_empty() {
            gone.push(number(one.id.0));
            ends.push(Made::Gone);
            continue;
        }
        remove(tx, one.id, &done).await?;
        for waiting in again {
            put_back(tx, one.id, waiting, looks).await?;
        }
        if !warned.is_empty() {
            tx.execute_in(
                "UPDATE queue_recipient SET attention = ?, lease = 0 WHERE id = ? AND idx IN ({list})",
                &args![one.attention, one.id.0],
                indexes(&warned),
            )
            .await?;
        }
        ends.push(Made::Done);
    }
    if !gone.is_empty() {
        let text = "DELETE FROM queue_recipient WHERE id IN ({list})";
        tx.execute_in(text, &[], gone.clone()).await?;
        let text = "DELETE FROM queue_message WHERE id IN ({list})";
        tx.execute_in(text, &[], gone.clone()).await?;
        if settled.iter().any(|one| one.pieces) {
            let text = "DELETE FROM queue_piece WHERE id IN ({list})";
            tx.execute_in(text, &[], gone).await?;
        }
    }
    Ok(ends)
}

fn indexes(list: &[u16]) -> Vec<Value> {
    list.iter()
        .map(|index| Value::from(u32::from(*index)))
        .collect()
}

async fn remove(tx: &mut Tx, id: QueueId, done: &[u16]) -> Result<(), Error> {
    if done.is_empty() {
        return Ok(());
    }
    let text = "DELETE FROM queue_recipient WHERE id = ? AND idx IN ({list})";
    tx.execute_in(text, &args![id.0], indexes(done))
        .await
        .map(drop)
}

async fn put_back(
    tx: &mut Tx,
    id: QueueId,
    waiting: &Waiting,
    looks: &mut Looks,
) -> Result<(), Error> {
    look(looks, &waiting.destination, waiting.due);
    tx.execute(
        "UPDATE queue_recipient SET destination = ?, due = ?, attempts = ?, last = ?, lease = 0
            WHERE id = ? AND idx = ?",
        args![
            waiting.destination.as_str(),
            waiting.due,
            waiting.attempts,
            waiting.last.as_ref().map(record::versioned),
            id.0,
            u32::from(waiting.index),
        ],
    )
    .await
    .map(drop)
}

/// Sees to it that destinations are looked at in time, unless they are dead. Their rows are locked whether they change or not, in
/// the order of their names: whoever looks at them next sees what this transaction put there.
pub(crate) async fn look_at(tx: &mut Tx, looks: Looks) -> Result<(), Error> {
    if looks.is_empty() {
        return Ok(());
    }
    let values = looks
        .into_iter()
        .flat_map(|(name, next)| args![name, next, 0_u64])
        .collect();
    tx.insert_many(
        "INSERT INTO queue_destination (name, next, failures)",
        3,
        values,
        "{on_conflict:name} next = CASE WHEN queue_destination.failures = 0 AND queue_destination.next > {excluded:next}
            THEN {excluded:next} ELSE queue_destination.next END",
    )
    .await
    .map(drop)
}
