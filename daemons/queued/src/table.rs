//! The queue table: mail that waits. See [`crate::schema`]; how it is changed is in [`crate::table_change`].

use crate::message::Content;
use crate::node::Node;
use crate::record::{self, Head};
use crate::schema::{COMPONENT, MIGRATIONS};
use sql::{Db, Error, Kind, Options, Row, Tx, Value, args};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use tokio::sync::OnceCell;
use types::{QueueId, Status};

/// The destination of recipients here.
pub(crate) const LOCAL: &str = "local";
/// The destination of posts that wait for the owners of a mailing list, where nothing is tried: no domain has such a name.
pub(crate) const POSTS: &str = "held posts";
/// A time that never comes, in seconds since 1970.
pub(crate) const NEVER: u64 = 1 << 50;

/// A message that goes into the table.
#[derive(Clone, Debug)]
pub(crate) struct Parked {
    pub(crate) id: QueueId,
    pub(crate) head: Head,
    pub(crate) prefix: Vec<u8>,
    /// `None` if it is in the spool.
    pub(crate) body: Option<Vec<u8>>,
    pub(crate) recipients: Vec<Waiting>,
    /// 0: anybody's; a lease; or that of [`Node::parking`].
    pub(crate) lease: i64,
}

/// A recipient that waits. Times are in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting {
    pub(crate) index: u16,
    /// [`LOCAL`] or a domain.
    pub(crate) destination: String,
    pub(crate) route: Option<String>,
    pub(crate) held: bool,
    pub(crate) due: u64,
    /// When the sender is to be warned or the message to be given up.
    pub(crate) attention: u64,
    pub(crate) expires: u64,
    pub(crate) attempts: u32,
    pub(crate) last: Option<Status>,
    /// -9 to 9; the highest is tried first.
    pub(crate) priority: i8,
    /// Not tried before, not even at an operator's word.
    pub(crate) not_before: u64,
}

impl Waiting {
    /// Whether nothing is to be done for it now.
    pub(crate) fn waits(&self, now: u64) -> bool {
        self.held || self.due > now
    }
}

/// A message of which recipients are leased, and these.
#[derive(Debug)]
pub(crate) struct Leased {
    pub(crate) id: QueueId,
    pub(crate) head: Head,
    pub(crate) waiting: Vec<Waiting>,
    /// Its octets, if they were read along.
    pub(crate) content: Option<Content>,
}

/// A destination that is to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) name: String,
    pub(crate) failures: u32,
}

/// The table. It may be away when queued starts, and is opened when it is first needed.
#[derive(Debug)]
pub(crate) struct Table {
    url: String,
    pub(crate) node: Node,
    db: OnceCell<Db>,
    /// Messages in it, about: counted now and then, and what this node puts in and takes out.
    pub(crate) count: AtomicU64,
    /// Messages of an earlier run of which the journal may not know that they are here.
    unconfirmed: Mutex<Vec<QueueId>>,
}

pub(crate) fn malformed(_: record::RecordError) -> Error {
    Error::new(Kind::Corrupt, "a row of the queue table cannot be read")
}

pub(crate) fn number(value: u64) -> Value {
    Value::from(value)
}

impl Table {
    pub(crate) fn new(url: String, node: Node) -> Self {
        Self {
            url,
            node,
            db: OnceCell::new(),
            count: AtomicU64::new(0),
            unconfirmed: Mutex::default(),
        }
    }

    /// The database, opened and migrated, with a lease for this node.
    pub(crate) async fn db(&self) -> Result<&Db, Error> {
        // In a place of its own: everybody may be the first, and nobody has room for all that this takes.
        self.db.get_or_try_init(|| Box::pin(self.open())).await
    }

    async fn open(&self) -> Result<Db, Error> {
        let options = Options {
            max_connections: 5,
            mmap_mib: 0,
            cache_kib: 4096,
            // A node that is stopped in the middle of a transaction must not stop the others.
            patience: Some(self.node.span()),
            ..Options::writer()
        };
        let db = Db::open(&self.url, &options).await?;
        sql::migrate(&db, COMPONENT, MIGRATIONS).await?;
        let joined = self.node.join(&db).await?;
        self.unconfirmed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(joined.unconfirmed);
        db.execute(
            "UPDATE queue_destination SET next = 0 WHERE failures = 0",
            args![],
        )
        .await?;
        self.recount(&db).await?;
        Ok(db)
    }

    /// Counts the messages: other nodes put some in and take some out.
    pub(crate) async fn recount(&self, db: &Db) -> Result<(), Error> {
        let count = db
            .fetch_optional("SELECT COUNT(*) FROM queue_message", args![])
            .await?;
        self.count
            .store(count.map_or(Ok(0), |row| row.u64(0))?, Ordering::Relaxed);
        Ok(())
    }

    /// See [`crate::node::Joined`]. Given once.
    pub(crate) fn take_unconfirmed(&self) -> Vec<QueueId> {
        std::mem::take(
            &mut *self
                .unconfirmed
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    /// Which of these messages it has.
    pub(crate) async fn known(&self, ids: &[QueueId]) -> Result<BTreeSet<QueueId>, Error> {
        let list = ids.iter().map(|id| number(id.0)).collect();
        let rows = self
            .db()
            .await?
            .fetch_in(
                "SELECT id FROM queue_message WHERE id IN ({list})",
                &[],
                list,
            )
            .await?;
        rows.iter().map(|row| row.u64(0).map(QueueId)).collect()
    }

    /// The destinations to look at now, those that wait longest first.
    pub(crate) async fn due(&self, now: u64, limit: u32) -> Result<Vec<Due>, Error> {
        let rows = self
            .db()
            .await?
            .fetch_all(
                "SELECT name, failures FROM queue_destination WHERE next <= ? ORDER BY next LIMIT ?",
                args![now, limit],
            )
            .await?;
        rows.iter()
            .map(|row| {
                Ok(Due {
                    name: row.text(0)?.to_owned(),
                    failures: row.u32(1)?,
                })
            })
            .collect()
    }

    /// When the next destination is to be looked at, and when the next message needs attention.
    pub(crate) async fn next(&self) -> Result<u64, Error> {
        let db = self.db().await?;
        let next = db
            .fetch_optional("SELECT MIN(next) FROM queue_destination", args![])
            .await?;
        let attention = db
            .fetch_optional(
                "SELECT MIN(attention) FROM queue_recipient WHERE held = 0",
                args![],
            )
            .await?;
        let mut first = NEVER;
        for row in [next, attention].into_iter().flatten() {
            if let Some(value) = row.int_opt(0)? {
                first = first.min(value.cast_unsigned());
            }
        }
        Ok(first)
    }

    /// Leases messages with recipients that are due at these destinations, up to so many at each. One that is dead gets one message,
    /// and is not looked at again before `until` or before what becomes of it is known. Also gives the lease.
    pub(crate) async fn lease(
        &self,
        wanted: &[(Due, usize)],
        now: u64,
        until: u64,
    ) -> Result<(u64, Vec<Vec<Leased>>), Error> {
        let db = self.db().await?;
        let lease = self.node.needed()?;
        let mut tx = db.begin_relaxed().await?;
        self.node.insist(&mut tx, lease).await?;
        let mut taken = Vec::with_capacity(wanted.len());
        for (due, limit) in wanted {
            taken.push(lease_at(&mut tx, lease, due, *limit, now, until).await?);
        }
        let ids: BTreeSet<u64> = taken.iter().flat_map(BTreeMap::keys).copied().collect();
        let contents = contents(&mut tx, ids.into_iter().map(number).collect()).await?;
        tx.commit().await?;
        // A message with recipients at several destinations is given to each.
        let mut heads = contents;
        let mut leased = Vec::with_capacity(taken.len());
        for taken in taken {
            let mut list = Vec::with_capacity(taken.len());
            for (id, waiting) in taken {
                if let Some((head, content)) = heads.get_mut(&id) {
                    list.push(Leased {
                        id: QueueId(id),
                        head: head.clone(),
                        waiting,
                        content: content.take(),
                    });
                }
            }
            leased.push(list);
        }
        Ok((lease, leased))
    }

    /// Leases up to `limit` messages whose sender is to be warned or that are to be given up. Also gives the lease.
    pub(crate) async fn lease_attention(
        &self,
        now: u64,
        limit: u32,
    ) -> Result<(u64, Vec<Leased>), Error> {
        let db = self.db().await?;
        let lease = self.node.needed()?;
        let mut tx = db.begin().await?;
        self.node.insist(&mut tx, lease).await?;
        let rows = tx
            .fetch_all(
                &format!(
                    "SELECT {COLUMNS} FROM queue_recipient WHERE held = 0 AND attention <= ? AND lease = 0
                        ORDER BY attention LIMIT ? {{skip_locked}}"
                ),
                args![now, limit],
            )
            .await?;
        let mut taken: BTreeMap<u64, Vec<Waiting>> = BTreeMap::new();
        for row in &rows {
            taken.entry(row.u64(0)?).or_default().push(waiting(row)?);
        }
        for (id, waiting) in &taken {
            let list = waiting
                .iter()
                .map(|waiting| Value::from(u32::from(waiting.index)))
                .collect();
            tx.execute_in(
                "UPDATE queue_recipient SET lease = ? WHERE id = ? AND idx IN ({list})",
                &args![lease, *id],
                list,
            )
            .await?;
        }
        let mut heads = heads(&mut tx, taken.keys().map(|id| number(*id)).collect()).await?;
        tx.commit().await?;
        let leased = taken.into_iter().filter_map(|(id, waiting)| {
            Some(Leased {
                id: QueueId(id),
                head: heads.remove(&id)?,
                waiting,
                content: None,
            })
        });
        Ok((lease, leased.collect()))
    }

    /// A destination is dead until `next`, or works again (`failures` is 0).
    pub(crate) async fn mark_destination(
        &self,
        name: &str,
        next: u64,
        failures: u32,
    ) -> Result<(), Error> {
        let db = self.db().await?;
        db.execute(
            "INSERT {ignore} INTO queue_destination (name, next, failures) VALUES (?, ?, ?) {do_nothing}",
            args![name, next, failures],
        )
        .await?;
        db.execute(
            "UPDATE queue_destination SET next = ?, failures = ? WHERE name = ?",
            args![next, failures, name],
        )
        .await?;
        Ok(())
    }

    /// Looks at destinations not before these times: there is no room for more of them now.
    pub(crate) async fn postpone(&self, names: &[(String, u64)]) -> Result<(), Error> {
        if names.is_empty() {
            return Ok(());
        }
        let mut tx = self.db().await?.begin_relaxed().await?;
        for (name, next) in names {
            let text = "UPDATE queue_destination SET next = ? WHERE name = ?";
            tx.execute(text, args![*next, name]).await?;
        }
        tx.commit().await
    }

    /// Prefix and body of a message; no body if it is in the spool. `None` if it is gone.
    pub(crate) async fn content(
        &self,
        id: QueueId,
    ) -> Result<Option<(Vec<u8>, Option<Vec<u8>>)>, Error> {
        let row = self
            .db()
            .await?
            .fetch_optional(
                "SELECT prefix, body FROM queue_message WHERE id = ?",
                args![id.0],
            )
            .await?;
        row.map(|row| Ok((row.blob(0)?.to_vec(), row.blob_opt(1)?.map(<[u8]>::to_vec))))
            .transpose()
    }

    /// How many messages there are; with held ones; octets; when the oldest arrived.
    pub(crate) async fn figures(&self) -> Result<Figures, Error> {
        let db = self.db().await?;
        let mut figures = Figures::default();
        let text = "SELECT COUNT(*), CAST(COALESCE(SUM(size), 0) AS {int}), MIN(arrived) FROM queue_message";
        if let Some(row) = db.fetch_optional(text, args![]).await? {
            figures.messages = row.u64(0)?;
            figures.bytes = row.u64(1)?;
            figures.oldest = row.int_opt(2)?.map(i64::cast_unsigned);
        }
        let text = "SELECT COUNT(DISTINCT id) FROM queue_recipient WHERE held = 1";
        if let Some(row) = db.fetch_optional(text, args![]).await? {
            figures.held = row.u64(0)?;
        }
        let text = "SELECT destination, COUNT(DISTINCT id) AS messages FROM queue_recipient GROUP BY destination
            ORDER BY messages DESC LIMIT 20";
        for row in db.fetch_all(text, args![]).await? {
            figures
                .destinations
                .push((row.text(0)?.to_owned(), row.u64(1)?));
        }
        Ok(figures)
    }
}

/// See [`Table::figures`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) messages: u64,
    pub(crate) held: u64,
    pub(crate) bytes: u64,
    pub(crate) oldest: Option<u64>,
    pub(crate) destinations: Vec<(String, u64)>,
}

/// The columns that [`waiting`] reads.
pub(crate) const COLUMNS: &str = "id, idx, destination, route, held, due, attention, expires, attempts, last, priority, not_before, lease";

pub(crate) fn waiting(row: &Row) -> Result<Waiting, Error> {
    Ok(Waiting {
        index: u16::try_from(row.u32(1)?)
            .map_err(|_| Error::new(Kind::Corrupt, "an index is out of range"))?,
        destination: row.text(2)?.to_owned(),
        route: row.text_opt(3)?.map(str::to_owned),
        held: row.bool(4)?,
        due: row.u64(5)?,
        attention: row.u64(6)?,
        expires: row.u64(7)?,
        attempts: row.u32(8)?,
        last: row
            .blob_opt(9)?
            .map(record::of_versioned)
            .transpose()
            .map_err(malformed)?,
        priority: i8::try_from(row.int_opt(10)?.unwrap_or(0)).unwrap_or_default(),
        not_before: row.u64(11)?,
    })
}

/// Recipients at a destination that are due and that nobody works on, by their messages. COALESCE: so that no database looks for them
/// among all that wait there.
pub(crate) const FREE_HERE: &str = "COALESCE(destination, '') = ? AND COALESCE(held, 0) = 0 AND due <= ? AND lease = 0 AND id IN ({list})";

/// The messages to take first at a destination: by priority (RFC 6710 4.2), then by their time. Each priority is one place in
/// the index, so that what is not due yet, or worked on, costs nothing.
async fn first_due(
    tx: &mut Tx,
    destination: &str,
    now: u64,
    limit: usize,
) -> Result<BTreeSet<u64>, Error> {
    let mut ids = BTreeSet::new();
    // Above the highest there is.
    let mut above: i64 = 10;
    while ids.len() < limit {
        let Some(level) = next_level(tx, destination, above).await? else {
            break;
        };
        let text = "SELECT id FROM queue_recipient WHERE destination = ? AND held = 0 AND lease = 0 AND priority = ? AND due <= ?
            ORDER BY due LIMIT ? {skip_locked}";
        let room = limit.saturating_sub(ids.len()) as u64;
        for row in tx
            .fetch_all(text, args![destination, level, now, room])
            .await?
        {
            ids.insert(row.u64(0)?);
        }
        above = level;
    }
    Ok(ids)
}

/// When the next of what nobody works on is due at a destination.
async fn next_due(tx: &mut Tx, destination: &str) -> Result<Option<u64>, Error> {
    let mut next: Option<u64> = None;
    let mut above: i64 = 10;
    while let Some(level) = next_level(tx, destination, above).await? {
        let text = "SELECT due FROM queue_recipient WHERE destination = ? AND held = 0 AND lease = 0 AND priority = ?
            ORDER BY due LIMIT 1";
        if let Some(row) = tx.fetch_optional(text, args![destination, level]).await? {
            let due = row.u64(0)?;
            next = Some(next.map_or(due, |next| next.min(due)));
        }
        above = level;
    }
    Ok(next)
}

/// The highest priority of a destination's mail below another one.
async fn next_level(tx: &mut Tx, destination: &str, above: i64) -> Result<Option<i64>, Error> {
    let text = "SELECT MAX(priority) FROM queue_recipient
        WHERE destination = ? AND held = 0 AND lease = 0 AND priority < ?";
    let level = tx.fetch_optional(text, args![destination, above]).await?;
    level.map_or(Ok(None), |row| row.int_opt(0))
}

/// Leases what is due at one destination.
async fn lease_at(
    tx: &mut Tx,
    lease: u64,
    due: &Due,
    limit: usize,
    now: u64,
    until: u64,
) -> Result<BTreeMap<u64, Vec<Waiting>>, Error> {
    let destination = due.name.as_str();
    let limit = if due.failures > 0 { 1 } else { limit };
    let mut taken: BTreeMap<u64, Vec<Waiting>> = BTreeMap::new();
    // Whoever puts something there or takes something from there has this row until it is done. One that another node is
    // looking at is for another time.
    let text = "SELECT next FROM queue_destination WHERE name = ? {skip_locked}";
    if tx.fetch_optional(text, args![destination]).await?.is_none() {
        return Ok(taken);
    }
    let ids = first_due(tx, destination, now, limit).await?;
    if !ids.is_empty() {
        let text =
            format!("SELECT {COLUMNS} FROM queue_recipient WHERE {FREE_HERE} {{skip_locked}}");
        let list = ids.into_iter().map(number).collect();
        for row in &tx.fetch_in(&text, &args![destination, now], list).await? {
            taken.entry(row.u64(0)?).or_default().push(waiting(row)?);
        }
        let text = format!("UPDATE queue_recipient SET lease = ? WHERE {FREE_HERE}");
        tx.execute_in(
            &text,
            &args![lease, destination, now],
            taken.keys().copied().map(number).collect(),
        )
        .await?;
    }
    let left = next_due(tx, destination).await?;
    let next = match left {
        Some(left) if due.failures == 0 || taken.is_empty() => left,
        _ if taken.is_empty() => NEVER,
        _ => until,
    };
    tx.execute(
        "UPDATE queue_destination SET next = ? WHERE name = ?",
        args![next, destination],
    )
    .await?;
    if left.is_none() && taken.is_empty() {
        tx.execute(
            "DELETE FROM queue_destination WHERE name = ? AND NOT EXISTS
                (SELECT 1 FROM queue_recipient WHERE destination = ?)",
            args![destination, destination],
        )
        .await?;
    }
    Ok(taken)
}

/// Heads and octets of messages.
async fn contents(
    tx: &mut Tx,
    list: Vec<Value>,
) -> Result<HashMap<u64, (Head, Option<Content>)>, Error> {
    let mut contents = HashMap::new();
    let text = "SELECT id, head, prefix, body FROM queue_message WHERE id IN ({list})";
    for row in tx.fetch_in(text, &[], list).await? {
        let id = row.u64(0)?;
        match Head::of_column(row.blob(1)?) {
            Ok(head) => {
                let content = Content {
                    prefix: row.blob(2)?.to_vec(),
                    body: row.blob_opt(3)?.map(<[u8]>::to_vec),
                };
                contents.insert(id, (head, Some(content)));
            }
            Err(error) => {
                tracing::error!(id = %QueueId(id), %error, "a message of the queue table");
            }
        }
    }
    Ok(contents)
}

pub(crate) async fn heads(tx: &mut Tx, list: Vec<Value>) -> Result<HashMap<u64, Head>, Error> {
    let mut heads = HashMap::new();
    if list.is_empty() {
        return Ok(heads);
    }
    for row in tx
        .fetch_in(
            "SELECT id, head FROM queue_message WHERE id IN ({list})",
            &[],
            list,
        )
        .await?
    {
        match Head::of_column(row.blob(1)?) {
            Ok(head) => drop(heads.insert(row.u64(0)?, head)),
            Err(error) => {
                tracing::error!(id = %QueueId(row.u64(0)?), %error, "a message of the queue table")
            }
        }
    }
    Ok(heads)
}
