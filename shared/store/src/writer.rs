//! Writing: for stored alone.
//!
//! A [`Batch`] is one transaction that takes any number of changes. It reads the counters of the accounts and mailboxes
//! concerned once, keeps them, and writes them back at the end. What a caller asked wrongly is a [`Refusal`], found before
//! anything of that change is written; an [`Error`] spoils the whole batch: drop it, and try its changes one by one.

mod across;
mod collect;
mod examine;
mod flag;
mod folder;
mod objects;
mod people;
mod provision;
mod put;
mod state;
mod transfer;

pub use collect::{Collected, Retention};
pub use examine::Examination;
pub use flag::FlagChange;
pub use objects::Objects;
pub use people::Limits;
pub use put::{Body, Incoming, Once, Placed, Target, pack, thread_keys};
pub use transfer::Transferred;

use crate::{COMPONENT, Config, Error, MIGRATIONS};
use sql::{Db, Statement, Tx, Value, args};
use state::{AccountRow, MailboxState};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use types::{AccountId, MailboxId, ModSeq, RequestId};

/// The store's writer. There is one process that has one.
#[derive(Clone, Debug)]
pub struct Writer {
    db: Db,
}

/// Why a change is not made. Nothing of it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The mailbox is not there, or not this account's.
    #[error("no such mailbox")]
    NotFound,
    /// A mailbox of that name is there, or has children.
    #[error("{0}")]
    Conflict(&'static str),
    /// It makes no sense.
    #[error("{0}")]
    Invalid(&'static str),
    /// The account is full.
    #[error("the account is over its quota")]
    OverQuota,
    /// One thing is larger than it may be.
    #[error("it is too large")]
    TooLarge,
    /// There are as many already as there may be.
    #[error("there are too many")]
    TooMany,
}

/// What an account may hold; 0 is unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Octets.
    pub bytes: u64,
    /// Messages.
    pub messages: u64,
}

impl Quota {
    fn allows(self, account: &AccountRow, bytes: u64, messages: u64) -> bool {
        (self.bytes == 0 || account.bytes.saturating_add(bytes) <= self.bytes)
            && (self.messages == 0 || account.messages.saturating_add(messages) <= self.messages)
    }
}

/// Figures of the whole store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Accounts that have mailboxes.
    pub accounts: u64,
    /// Messages.
    pub messages: u64,
    /// Their octets.
    pub bytes: u64,
}

/// Several changes in one transaction. Dropping it undoes them.
pub struct Batch {
    tx: Tx,
    now: i64,
    accounts: HashMap<AccountId, AccountRow>,
    mailboxes: HashMap<MailboxId, MailboxState>,
    names: HashMap<(AccountId, String), MailboxId>,
    touched: BTreeMap<AccountId, BTreeSet<MailboxId>>,
    /// Insertions that nothing in this batch has needed to see yet: written in one go at the end.
    pending: Vec<Statement>,
    given_up: bool,
}

/// What a committed batch has changed: each account's modseq, and its mailboxes.
pub type Touched = Vec<(AccountId, ModSeq, Vec<MailboxId>)>;

impl Writer {
    /// Opens the database, without a look at its schema: [`Writer::migrate`] comes next. `state` is stored's state directory.
    ///
    /// # Errors
    /// SQLite: the file cannot be opened. The configuration.
    pub async fn open(config: &Config, state: &Path) -> Result<Self, Error> {
        Ok(Self {
            db: Db::open(&config.url(state), &config.options(false)).await?,
        })
    }

    /// A writer on a database that is open already.
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// Makes the schema, or brings it to this version once a backup point of the older one is complete.
    ///
    /// # Errors
    /// The schema is newer; the database cannot be reached; there is no room for the point: then nothing was changed.
    pub async fn migrate_with_point(&self, points: &sql::Points) -> Result<u32, Error> {
        Ok(sql::migrate_with_point(&self.db, COMPONENT, MIGRATIONS, points).await?)
    }

    /// As [`Writer::migrate_with_point`] without a point: for what is empty, or a copy itself.
    ///
    /// # Errors
    /// The schema is newer; the database cannot be reached.
    pub async fn migrate(&self) -> Result<u32, Error> {
        Ok(sql::migrate(&self.db, COMPONENT, MIGRATIONS).await?)
    }

    /// A reader on the same connections: it sees what is committed.
    pub fn reader(&self, blobs: std::sync::Arc<blob::Blobs>) -> crate::Reader {
        crate::Reader::new(self.db.clone(), blobs)
    }

    /// The reply to a request that was done before.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn reply(
        &self,
        account: AccountId,
        request: RequestId,
    ) -> Result<Option<Vec<u8>>, Error> {
        let row = self
            .db
            .fetch_optional(
                "SELECT reply FROM request WHERE id = ? AND account = ?",
                args![request.0.to_be_bytes(), account.0],
            )
            .await?;
        Ok(row.map(|row| row.blob(0).map(<[u8]>::to_vec)).transpose()?)
    }

    /// Which database.
    pub fn database(&self) -> &'static str {
        self.db.dialect().name()
    }

    /// Begins a batch; `now` is seconds since 1970.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn begin(&self, now: i64) -> Result<Batch, Error> {
        Ok(Batch {
            tx: self.db.begin().await?,
            now,
            accounts: HashMap::new(),
            mailboxes: HashMap::new(),
            names: HashMap::new(),
            touched: BTreeMap::new(),
            pending: Vec::new(),
            given_up: false,
        })
    }

    /// Figures of the whole store.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn figures(&self) -> Result<Figures, Error> {
        let row = self
            .db
            .fetch_optional(
                "SELECT COUNT(*), CAST(COALESCE(SUM(messages), 0) AS {int}),
                    CAST(COALESCE(SUM(bytes), 0) AS {int}) FROM account",
                args![],
            )
            .await?;
        let Some(row) = row else {
            return Ok(Figures::default());
        };
        Ok(Figures {
            accounts: row.u64(0)?,
            messages: row.u64(1)?,
            bytes: row.u64(2)?,
        })
    }
}

impl Batch {
    /// Of these requests, those that were done already, with their replies. A request of another account does not count.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn repeated(
        &mut self,
        requests: &[(AccountId, RequestId)],
    ) -> Result<HashMap<(AccountId, RequestId), Vec<u8>>, Error> {
        let mut found = HashMap::new();
        if requests.is_empty() {
            return Ok(found);
        }
        let list: Vec<Value> = requests
            .iter()
            .map(|(_, id)| Value::from(id.0.to_be_bytes()))
            .collect();
        // Of two accounts only one could have a random id, but a hijacked caller is not random.
        let text = "SELECT id, account, reply FROM request WHERE id IN ({list})";
        for row in self.tx.fetch_in(text, &[], list).await? {
            let id: [u8; 16] = row
                .blob(0)?
                .try_into()
                .map_err(|_| Error::Damaged("a request id has the wrong length".to_owned()))?;
            let key = (AccountId(row.u64(1)?), RequestId(u128::from_be_bytes(id)));
            found.insert(key, row.blob(2)?.to_vec());
        }
        Ok(found)
    }

    /// Notes requests as done, each with its reply, in this transaction.
    pub fn remember(&mut self, done: Vec<(AccountId, RequestId, Vec<u8>)>) {
        let mut values = Vec::with_capacity(done.len() * 4);
        for (account, id, reply) in done {
            values.extend(args![id.0.to_be_bytes(), account.0, reply, self.now]);
        }
        self.defer(
            "INSERT INTO request (id, account, reply, at)",
            4,
            values,
            "",
        );
    }

    /// Inserts rows before the batch ends, or before it reads.
    fn defer(&mut self, head: &str, columns: usize, values: Vec<Value>, tail: &str) {
        let dialect = self.tx.dialect();
        self.pending
            .extend(Statement::insertions(dialect, head, columns, values, tail));
    }

    /// Writes what was deferred, so that statements see it.
    async fn write_pending(&mut self) -> Result<(), Error> {
        let pending = std::mem::take(&mut self.pending);
        if !pending.is_empty() {
            self.tx.execute_each(pending).await?;
        }
        Ok(())
    }

    /// The account's modseq with what this batch has done so far; 0 if it has no mailboxes.
    pub fn modseq(&self, account: AccountId) -> ModSeq {
        ModSeq(self.accounts.get(&account).map_or(0, |row| row.modseq))
    }

    /// Writes the counters back and commits: then all is durable. Gives what has changed.
    ///
    /// # Errors
    /// [`Error`]; if it is temporary, nobody knows whether the batch is committed: the same changes can be given again.
    pub async fn commit(mut self) -> Result<Touched, Error> {
        if self.given_up {
            self.tx.rollback().await?;
            return Ok(Touched::new());
        }
        self.flush().await?;
        let touched = std::mem::take(&mut self.touched);
        let touched = touched
            .into_iter()
            .map(|(account, mailboxes)| {
                let modseq = self.modseq(account);
                (account, modseq, mailboxes.into_iter().collect())
            })
            .collect();
        self.tx.commit().await?;
        Ok(touched)
    }

    /// Gives up what was done: [`Batch::commit`] will undo it. For a batch of one change, a part of which cannot be.
    pub fn give_up(&mut self) {
        self.given_up = true;
    }

    /// Undoes everything.
    ///
    /// # Errors
    /// The connection is lost: it is undone then too.
    pub async fn rollback(self) -> Result<(), Error> {
        Ok(self.tx.rollback().await?)
    }
}
