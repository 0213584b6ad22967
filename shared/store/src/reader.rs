//! Reading, on connections that cannot write.

mod bulk;
mod contents;
mod expunged;
mod people;

use crate::row::{AccountState, Mailbox, MessageRow};
use crate::{COMPONENT, Config, Error, MIGRATIONS, Ranges};
use blob::Blobs;
use sql::{Db, Statement, args};
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use types::{AccountId, MailboxId, ModSeq, Uid};

pub use contents::Wanted;
pub(crate) use contents::reader_hash;
pub use people::{AccountRow, Script, SharedMailbox};

/// Reads the store. Cheap to clone; all methods work concurrently, on a pool of connections.
#[derive(Clone, Debug)]
pub struct Reader {
    pub(crate) db: Db,
    pub(crate) blobs: Arc<Blobs>,
}

/// What has changed in a mailbox since a modseq.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The mailbox as it is now; [`Mailbox::modseq`] is where to go on from.
    pub mailbox: Mailbox,
    /// New messages and those whose flags changed, by UID.
    pub changed: Vec<MessageRow>,
    /// UIDs that are gone, ascending. It may name UIDs that the caller never knew.
    pub expunged: Ranges,
    /// False if tombstones older than [`Mailbox::floor`] were asked for and are no longer kept: then compare with
    /// [`Reader::messages`].
    pub complete: bool,
}

impl Reader {
    /// Opens the store; `state` is stored's state directory. A database server need not be up yet.
    ///
    /// # Errors
    /// Temporary, if stored has not made the database yet; a schema of another version; the configuration.
    pub async fn open(config: &Config, blobs: &blob::Config, state: &Path) -> Result<Self, Error> {
        let db = Db::open(&config.url(state), &config.options(true)).await?;
        let blobs = Arc::new(Blobs::open(blobs, state)?);
        let reader = Self { db, blobs };
        reader.verify().await?;
        Ok(reader)
    }

    /// A reader on a database that is open already.
    pub fn new(db: Db, blobs: Arc<Blobs>) -> Self {
        Self { db, blobs }
    }

    /// Whether the schema is the one this program knows.
    ///
    /// # Errors
    /// It is not, or the database cannot be reached.
    pub async fn verify(&self) -> Result<(), Error> {
        sql::verify(&self.db, COMPONENT, MIGRATIONS).await?;
        Ok(())
    }

    /// An account's counters; `None` if it has never had a mailbox.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn account(&self, account: AccountId) -> Result<Option<AccountState>, Error> {
        let row = self
            .db
            .fetch_optional(
                "SELECT modseq, bytes, messages FROM account WHERE id = ?",
                args![account.0],
            )
            .await?;
        row.map(|row| {
            Ok(AccountState {
                modseq: ModSeq(row.u64(0)?),
                bytes: row.u64(1)?,
                messages: row.u64(2)?,
            })
        })
        .transpose()
    }

    /// All mailboxes of an account with their counters, by name, in the order of its octets.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn mailboxes(&self, account: AccountId) -> Result<Vec<Mailbox>, Error> {
        let subscribed: HashSet<String> = self.subscriptions(account).await?.into_iter().collect();
        let text = format!(
            "SELECT {} FROM mailbox m JOIN mailbox_state s ON s.id = m.id WHERE m.account = ?",
            Mailbox::COLUMNS
        );
        let rows = self.db.fetch_all(&text, args![account.0]).await?;
        let mut mailboxes = Vec::with_capacity(rows.len());
        for row in &rows {
            let mut mailbox = Mailbox::read(row)?;
            mailbox.subscribed = subscribed.contains(&mailbox.name);
            mailboxes.push(mailbox);
        }
        // The databases sort by collations of their own.
        mailboxes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(mailboxes)
    }

    /// The subscribed names, whether there is such a mailbox or not.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn subscriptions(&self, account: AccountId) -> Result<Vec<String>, Error> {
        let rows = self
            .db
            .fetch_all(
                "SELECT name FROM subscription WHERE account = ? ORDER BY name",
                args![account.0],
            )
            .await?;
        rows.iter().map(|row| Ok(row.text(0)?.to_owned())).collect()
    }

    /// One mailbox by its full name; INBOX in any case. [`Mailbox::subscribed`] is not filled in.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn mailbox_named(
        &self,
        account: AccountId,
        name: &str,
    ) -> Result<Option<Mailbox>, Error> {
        let name = crate::canonical(name);
        let text = format!(
            "SELECT {} FROM mailbox m JOIN mailbox_state s ON s.id = m.id WHERE m.account = ? AND m.name = ?",
            Mailbox::COLUMNS
        );
        let row = self
            .db
            .fetch_optional(&text, args![account.0, name.as_ref()])
            .await?;
        Ok(row.map(|row| Mailbox::read(&row)).transpose()?)
    }

    /// One mailbox by its id. [`Mailbox::subscribed`] is not filled in.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn mailbox(
        &self,
        account: AccountId,
        mailbox: MailboxId,
    ) -> Result<Option<Mailbox>, Error> {
        let row = self
            .db
            .fetch_optional(&mailbox_by_id(), args![mailbox.0, account.0])
            .await?;
        Ok(row.map(|row| Mailbox::read(&row)).transpose()?)
    }

    /// All messages of a mailbox, by UID, each given to `take` as it comes, and the mailbox as it was at that moment. `None`
    /// if there is no such mailbox. `from` is the first UID of interest: 1 for all.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn messages(
        &self,
        account: AccountId,
        mailbox: MailboxId,
        from: Uid,
        mut take: impl FnMut(MessageRow) + Send,
    ) -> Result<Option<Mailbox>, Error> {
        let mut snapshot = self.db.snapshot().await?;
        let found = snapshot
            .fetch_optional(&mailbox_by_id(), args![mailbox.0, account.0])
            .await?;
        let Some(found) = found else {
            snapshot.commit().await?;
            return Ok(None);
        };
        let found = Mailbox::read(&found)?;
        if self.db.dialect() == sql::Dialect::Sqlite {
            bulk::messages(&mut snapshot, mailbox, from, take).await?;
            snapshot.commit().await?;
            return Ok(Some(found));
        }
        let text = format!(
            "SELECT {} FROM message WHERE mailbox = ? AND uid >= ? ORDER BY uid",
            MessageRow::COLUMNS
        );
        let mut rows = snapshot.fetch(&text, args![mailbox.0, from.0])?;
        while let Some(row) = rows.next().await? {
            take(MessageRow::read(&row)?);
        }
        drop(rows);
        snapshot.commit().await?;
        Ok(Some(found))
    }

    /// Octets of the messages with `\Deleted`.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn deleted_bytes(&self, mailbox: MailboxId) -> Result<u64, Error> {
        let text = "SELECT CAST(COALESCE(SUM(size), 0) AS {int}) FROM message {indexed_by:message_deleted} \
            WHERE mailbox = ? AND uid > 0 AND (flags & 8) <> 0";
        let row = self.db.fetch_optional(text, args![mailbox.0]).await?;
        Ok(row.map(|row| row.u64(0)).transpose()?.unwrap_or_default())
    }

    /// What has changed in a mailbox after `since`. `None` if there is no such mailbox (any more).
    ///
    /// # Errors
    /// [`Error`]
    pub async fn changes(
        &self,
        account: AccountId,
        mailbox: MailboxId,
        since: ModSeq,
    ) -> Result<Option<Changes>, Error> {
        let one = |text: &str, args| {
            vec![Statement {
                text: text.to_owned(),
                args,
            }]
        };
        let text = format!(
            "SELECT {} FROM message WHERE mailbox = ? AND modseq > ?",
            MessageRow::COLUMNS
        );
        let mut snapshot = self.db.snapshot().await?;
        let results = snapshot
            .fetch_each(vec![
                one(&mailbox_by_id(), args![mailbox.0, account.0]),
                one(&text, args![mailbox.0, since.0]),
                one(
                    "SELECT low, high FROM expunged WHERE mailbox = ? AND modseq > ?",
                    args![mailbox.0, since.0],
                ),
            ])
            .await?;
        snapshot.commit().await?;
        let [found, changed, gone] = results.as_slice() else {
            return Err(Error::Damaged("a query has no result".to_owned()));
        };
        // Whoever does not own the mailbox learns nothing of it.
        let Some(found) = found.first() else {
            return Ok(None);
        };
        let found = Mailbox::read(found)?;
        let mut changes = Changes {
            complete: since >= found.floor,
            mailbox: found,
            changed: Vec::with_capacity(changed.len()),
            expunged: Vec::with_capacity(gone.len()),
        };
        for row in changed {
            changes.changed.push(MessageRow::read(row)?);
        }
        for row in gone {
            changes.expunged.push((row.u32(0)?, row.u32(1)?));
        }
        changes.changed.sort_unstable_by_key(|row| row.uid);
        changes.expunged.sort_unstable();
        Ok(Some(changes))
    }
}

fn mailbox_by_id() -> String {
    format!(
        "SELECT {} FROM mailbox m JOIN mailbox_state s ON s.id = m.id WHERE m.id = ? AND m.account = ?",
        Mailbox::COLUMNS
    )
}
