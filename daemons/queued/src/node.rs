//! This node among those that share the queue table: its name, its number, and its lease.
//!
//! A lease is a number that is never used again. Whatever a node works on bears it; whatever it settles must still bear it. The
//! node renews its lease, by the clock of the database; when it has not done so in time, another node takes what bears it. So one
//! statement now and then is all that renewing costs, however much is leased, and a node that was away for longer than its lease
//! (stopped, or cut off) finds that its word does not count any more.

use crate::ids::NODE_MAX;
use sql::{Db, Error, Kind, Tx, Value, args};
use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use types::QueueId;

/// What tells this state directory from all others, and the number that it was given.
#[derive(Clone, Debug)]
struct Identity {
    instance: String,
    number: Option<u16>,
}

#[derive(Debug)]
struct State {
    identity: Identity,
    lease: u64,
    /// The lease holds until then: by two clocks, of which one may stand still while the machine sleeps.
    until: Option<(Instant, SystemTime)>,
    /// Why there is none, if another node has the name.
    refused: Option<String>,
}

/// This node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    path: Option<PathBuf>,
    seconds: u64,
    /// Whether there may be others.
    shared: bool,
    state: Mutex<State>,
}

/// What others see of a node.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) name: String,
    pub(crate) number: u16,
    pub(crate) lease: u64,
    pub(crate) alive: bool,
    pub(crate) began: u64,
    pub(crate) seen: u64,
    pub(crate) in_journal: u64,
    pub(crate) loaded: u64,
}

/// What joining found.
#[derive(Debug, Default)]
pub(crate) struct Joined {
    /// Messages that an earlier run put into the table, of which its journal may not know it.
    pub(crate) unconfirmed: Vec<QueueId>,
}

impl Node {
    /// Reads what is known of this node from the file at `path`. `seconds`: how long its lease is.
    pub(crate) fn open(
        name: &str,
        path: Option<&Path>,
        seconds: u64,
        shared: bool,
    ) -> std::io::Result<Self> {
        let identity = match path.map(std::fs::read_to_string) {
            Some(Ok(text)) => {
                let mut words = text.split_whitespace();
                let damaged = || std::io::Error::other("the node's file is damaged");
                Identity {
                    instance: words.next().ok_or_else(damaged)?.to_owned(),
                    number: words
                        .next()
                        .map(str::parse)
                        .transpose()
                        .map_err(|_| damaged())?,
                }
            }
            Some(Err(error)) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => Identity {
                instance: format!("{:032x}", rand::random::<u128>()),
                number: None,
            },
        };
        Ok(Self {
            name: name.to_owned(),
            path: path.map(Path::to_owned),
            seconds: seconds.max(2),
            shared,
            state: Mutex::new(State {
                identity,
                lease: 0,
                until: None,
                refused: None,
            }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the table may have other nodes.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared
    }

    /// How long the lease is.
    pub(crate) fn span(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// How often the lease is renewed.
    pub(crate) fn pulse(&self) -> Duration {
        Duration::from_millis(self.seconds * 1000 / 4)
    }

    /// This node's number.
    ///
    /// # Errors
    /// It has none yet, or another node has its name.
    pub(crate) fn number(&self) -> Result<u16, Error> {
        let state = self.state();
        let away = |text: &str| Error::new(Kind::Unavailable, text);
        if let Some(text) = &state.refused {
            return Err(away(text));
        }
        match state.identity.number {
            Some(number) => Ok(number),
            None if !self.shared => Ok(0),
            None => Err(away("this node was never in touch with the queue table")),
        }
    }

    /// The lease of what is being taken from the journal to the table: nobody else's before the journal knows it.
    pub(crate) fn parking(&self) -> Result<i64, Error> {
        Ok(parking(self.number()?))
    }

    /// The lease, if it holds.
    pub(crate) fn lease(&self) -> Option<u64> {
        let state = self.state();
        let (until, wall) = state.until?;
        (Instant::now() < until && SystemTime::now() < wall).then_some(state.lease)
    }

    /// As [`Node::lease`].
    ///
    /// # Errors
    /// It does not hold.
    pub(crate) fn needed(&self) -> Result<u64, Error> {
        self.lease().ok_or_else(|| {
            let refused = self.state().refused.clone();
            let text = refused.unwrap_or_else(|| "this node's lease is over".to_owned());
            Error::new(Kind::Unavailable, text)
        })
    }

    /// Whether this is the lease, and it holds.
    pub(crate) fn holds(&self, lease: u64) -> bool {
        self.lease() == Some(lease)
    }

    fn renewed(&self, lease: u64, asked: (Instant, SystemTime)) {
        let mut state = self.state();
        state.lease = lease;
        // The server counts whole seconds.
        let span = if self.shared {
            Duration::from_secs(self.seconds.saturating_sub(1))
        } else {
            Duration::from_secs(1 << 40)
        };
        state.until = Some((asked.0 + span, asked.1 + span));
    }

    fn remember(&self, number: u16) -> Result<(), Error> {
        let identity = Identity {
            number: Some(number),
            ..self.state().identity.clone()
        };
        if let Some(path) = self.path.as_ref().filter(|_| self.shared) {
            write(path, &format!("{} {number}\n", identity.instance)).map_err(|error| {
                Error::new(Kind::Unavailable, format!("the node's file: {error}"))
            })?;
        }
        self.state().identity = identity;
        Ok(())
    }

    /// Takes a new lease; what an earlier one of this node bears is free again.
    pub(crate) async fn join(&self, db: &Db) -> Result<Joined, Error> {
        let asked = (Instant::now(), SystemTime::now());
        let Identity { instance, number } = self.state().identity.clone();
        let last = self.state().lease;
        let mut tx = db.begin().await?;
        let row = tx
            .fetch_optional(
                "SELECT number, instance, lease, CAST(CASE WHEN lease_until < {clock} THEN 1 ELSE 0 END AS {int})
                    FROM queue_node WHERE name = ? {for_update}",
                args![self.name.as_str()],
            )
            .await?;
        let mut taken = BTreeSet::new();
        for row in tx
            .fetch_all("SELECT number FROM queue_node", args![])
            .await?
        {
            taken.insert(row.u32(0)?);
        }
        let mut earlier = None;
        let mut ours = number;
        if let Some(row) = &row {
            let same = row.text(1)? == instance;
            let lease = row.u64(2)?;
            let alive = lease != 0 && !row.bool(3)?;
            // Of this state directory, but not ours: it was copied, and the copy is at work.
            let copy = last != 0 && lease != last;
            if self.shared && alive && (!same || copy) {
                let text = format!(
                    "another node at this queue table is named {}, and is alive: set queued.node to a name of its own",
                    self.name
                );
                self.state().refused = Some(text.clone());
                return Err(Error::new(Kind::Unavailable, text));
            }
            earlier = Some((row.u32(0)?, lease, same));
            ours = same
                .then(|| u16::try_from(row.u32(0)?).map_err(|_| corrupt()).map(Some))
                .transpose()?
                .flatten();
        }
        let number = match ours {
            _ if !self.shared => 0,
            Some(number) if row.is_some() || !taken.contains(&u32::from(number)) => number,
            _ => (1..=NODE_MAX)
                .find(|number| !taken.contains(&u32::from(*number)))
                .ok_or_else(|| {
                    Error::new(
                        Kind::Unavailable,
                        "there is no number for one more node: forget old ones",
                    )
                })?,
        };
        let lease = rand::random::<u64>() >> 2 | 1;
        if !self.shared {
            // The only node had another name, perhaps.
            tx.execute(
                "DELETE FROM queue_node WHERE name <> ?",
                args![self.name.as_str()],
            )
            .await?;
            let text = "UPDATE queue_recipient SET lease = 0 WHERE lease > 0";
            tx.execute(text, args![]).await?;
        }
        let (text, more) = if row.is_some() {
            ("UPDATE queue_node SET number = ?, instance = ?, lease = ?, lease_until = {clock} + ?, began = {clock},
                seen = {clock}, in_journal = 0, loaded = 0 WHERE name = ?", 5)
        } else {
            ("INSERT INTO queue_node (number, instance, lease, lease_until, began, seen, in_journal, loaded, name)
                VALUES (?, ?, ?, {clock} + ?, {clock}, {clock}, 0, 0, ?)", 5)
        };
        let values = args![
            u32::from(number),
            instance,
            lease,
            self.seconds,
            self.name.as_str()
        ];
        debug_assert_eq!(values.len(), more);
        tx.execute(text, values).await?;
        if let Some((old, lease, same)) = earlier {
            let mut leases = vec![lease.cast_signed()];
            if !same {
                // The journal that should have known of these is gone.
                leases.push(-1 - i64::from(old));
            }
            for lease in leases.into_iter().filter(|lease| *lease != 0) {
                free(&mut tx, lease).await?;
            }
        }
        let mut joined = Joined::default();
        if last == 0 {
            let text = "SELECT DISTINCT id FROM queue_recipient WHERE lease = ?";
            for row in tx.fetch_all(text, args![parking(number)]).await? {
                joined.unconfirmed.push(QueueId(row.u64(0)?));
            }
        }
        tx.commit().await?;
        self.remember(number)?;
        self.renewed(lease, asked);
        self.state().refused = None;
        Ok(joined)
    }

    /// Renews the lease; `false`: it is lost.
    pub(crate) async fn renew(&self, db: &Db, in_journal: u64, loaded: u64) -> Result<bool, Error> {
        let asked = (Instant::now(), SystemTime::now());
        let lease = self.state().lease;
        let text = "UPDATE queue_node SET lease_until = {clock} + ?, seen = {clock}, in_journal = ?, loaded = ?
            WHERE name = ? AND lease = ?";
        let values = args![self.seconds, in_journal, loaded, self.name.as_str(), lease];
        let found = db.execute(text, values).await? == 1;
        if found {
            self.renewed(lease, asked);
        } else {
            self.state().until = None;
        }
        Ok(found)
    }

    /// Sees to it that a lease holds until the transaction is over: whoever takes over waits for it, and finds what it did. The time
    /// alone would not do: this process may have been stopped since it looked at it.
    ///
    /// # Errors
    /// It does not hold.
    pub(crate) async fn insist(&self, tx: &mut Tx, lease: u64) -> Result<(), Error> {
        if !self.shared {
            return Ok(());
        }
        let text = "SELECT number FROM queue_node WHERE name = ? AND lease = ? {share}";
        match tx
            .fetch_optional(text, args![self.name.as_str(), lease])
            .await?
        {
            Some(_) => Ok(()),
            None => Err(Error::new(Kind::Unavailable, "this node's lease is over")),
        }
    }

    /// Gives back what bears the lease, at the end.
    pub(crate) async fn leave(&self, db: &Db) -> Result<(), Error> {
        let lease = {
            let mut state = self.state();
            state.until = None;
            state.lease
        };
        let mut tx = db.begin().await?;
        let text = "UPDATE queue_node SET lease = 0, seen = {clock}, loaded = 0 WHERE name = ? AND lease = ?";
        if tx.execute(text, args![self.name.as_str(), lease]).await? == 1 {
            free(&mut tx, lease.cast_signed()).await?;
        }
        tx.commit().await
    }
}

/// See [`Node::parking`].
fn parking(number: u16) -> i64 {
    -1 - i64::from(number)
}

fn corrupt() -> Error {
    Error::new(Kind::Corrupt, "a row of the nodes cannot be read")
}

/// Frees what bears a lease; gives how many recipients that were.
async fn free(tx: &mut Tx, lease: i64) -> Result<u64, Error> {
    let text = "SELECT DISTINCT destination FROM queue_recipient WHERE lease = ?";
    let names: Vec<Value> = tx
        .fetch_all(text, args![lease])
        .await?
        .iter()
        .map(|row| row.text(0).map(Value::from))
        .collect::<Result<_, _>>()?;
    let text = "UPDATE queue_recipient SET lease = 0 WHERE lease = ?";
    let count = tx.execute(text, args![lease]).await?;
    if !names.is_empty() {
        let values: Vec<Value> = names
            .iter()
            .flat_map(|name| [name.clone(), Value::from(0_u64), Value::from(0_u64)])
            .collect();
        // Dead ones too: the probe went with the node.
        tx.insert_many(
            "INSERT INTO queue_destination (name, next, failures)",
            3,
            values,
            "{on_conflict:name} next = 0",
        )
        .await?;
    }
    Ok(count)
}

/// Takes over from nodes whose lease is over; gives their names, and how many recipients they had.
pub(crate) async fn take_over(db: &Db, own: &str) -> Result<Vec<(String, u64)>, Error> {
    let text = "SELECT name, lease FROM queue_node WHERE lease <> 0 AND lease_until < {clock} AND name <> ?";
    let mut over = Vec::new();
    for row in db.fetch_all(text, args![own]).await? {
        let (name, lease) = (row.text(0)?.to_owned(), row.u64(1)?);
        let mut tx = db.begin().await?;
        let text = "UPDATE queue_node SET lease = 0 WHERE name = ? AND lease = ? AND lease_until < {clock}";
        if tx.execute(text, args![name.as_str(), lease]).await? == 1 {
            let count = free(&mut tx, lease.cast_signed()).await?;
            tx.commit().await?;
            over.push((name, count));
        } else {
            tx.rollback().await?;
        }
    }
    Ok(over)
}

/// Forgets a node that does not come back: what its journal had not let go of is free. `false`: there is none, or it is alive.
pub(crate) async fn forget(db: &Db, name: &str) -> Result<bool, Error> {
    let mut tx = db.begin().await?;
    let text = "SELECT number FROM queue_node WHERE name = ? AND (lease = 0 OR lease_until < {clock}) {for_update}";
    let Some(row) = tx.fetch_optional(text, args![name]).await? else {
        tx.rollback().await?;
        return Ok(false);
    };
    let number = row.u32(0)?;
    let text = "SELECT lease FROM queue_node WHERE name = ?";
    let lease = tx.fetch_optional(text, args![name]).await?;
    let lease = lease.map_or(Ok(0), |row| row.int(0))?;
    for lease in [lease, -1 - i64::from(number)]
        .into_iter()
        .filter(|lease| *lease != 0)
    {
        free(&mut tx, lease).await?;
    }
    tx.execute("DELETE FROM queue_node WHERE name = ?", args![name])
        .await?;
    tx.commit().await?;
    Ok(true)
}

/// All nodes.
pub(crate) async fn all(db: &Db) -> Result<Vec<Seen>, Error> {
    let text = "SELECT name, number, lease, CAST(CASE WHEN lease_until < {clock} THEN 1 ELSE 0 END AS {int}), began, seen,
        in_journal, loaded FROM queue_node ORDER BY name";
    let rows = db.fetch_all(text, args![]).await?;
    rows.iter()
        .map(|row| {
            let lease = row.u64(2)?;
            Ok(Seen {
                name: row.text(0)?.to_owned(),
                number: u16::try_from(row.u32(1)?).map_err(|_| corrupt())?,
                lease,
                alive: lease != 0 && !row.bool(3)?,
                began: row.u64(4)?,
                seen: row.u64(5)?,
                in_journal: row.u64(6)?,
                loaded: row.u64(7)?,
            })
        })
        .collect()
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_data()?;
    std::fs::rename(&fresh, path)?;
    path.parent().map_or(Ok(()), |directory| {
        std::fs::File::open(directory)?.sync_all()
    })
}
