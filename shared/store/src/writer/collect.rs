//! What nobody needs any more.

use super::{Batch, Writer};
use crate::{Error, reader_hash};
use sql::{Value, args};
use types::BlobId;

/// How long things are kept after their use, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Tombstones of expunged messages: for clients that come back.
    pub expunged: i64,
    /// Replies to requests.
    pub requests: i64,
    /// Marks of deliveries: longer than the queue keeps a message.
    pub delivered: i64,
}

/// What one step has removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Contents.
    pub contents: u64,
    /// Bodies.
    pub blobs: u64,
    /// Tombstones, requests and marks.
    pub records: u64,
    /// There is more to do.
    pub more: bool,
}

/// Rows looked at in one step, so that no step holds the others up for long.
const STEP: usize = 500;

impl Batch {
    /// Removes contents and bodies that no message has any more, some at a time. Bodies outside of the database are only noted:
    /// see [`Writer::gone`].
    ///
    /// # Errors
    /// [`Error`]
    pub async fn collect(&mut self) -> Result<Collected, Error> {
        self.write_pending().await?;
        let rows = self
            .tx
            .fetch_all(
                &format!(
                    "SELECT account, content FROM orphan ORDER BY account, content LIMIT {STEP}"
                ),
                args![],
            )
            .await?;
        let mut collected = Collected {
            more: rows.len() == STEP,
            ..Collected::default()
        };
        let mut candidates: Vec<(u64, u64)> = Vec::with_capacity(rows.len());
        for row in &rows {
            candidates.push((row.u64(0)?, row.u64(1)?));
        }
        for same in candidates.chunk_by(|a, b| a.0 == b.0) {
            let Some((account, _)) = same.first() else {
                continue;
            };
            let list = || -> Vec<Value> { same.iter().map(|(_, id)| (*id).into()).collect() };
            let first = args![*account];
            let free = self
                .tx
                .fetch_in(
                    "SELECT c.id, c.blob_id FROM content c WHERE c.account = ? AND c.id IN ({list}) AND NOT EXISTS
                        (SELECT 1 FROM message m WHERE m.account = c.account AND m.content = c.id)",
                    &first,
                    list(),
                )
                .await?;
            let mut contents: Vec<Value> = Vec::with_capacity(free.len());
            let mut blobs: Vec<u64> = Vec::with_capacity(free.len());
            for row in &free {
                contents.push(row.u64(0)?.into());
                blobs.push(row.u64(1)?);
            }
            let text = "DELETE FROM content WHERE account = ? AND id IN ({list})";
            collected.contents += self.tx.execute_in(text, &first, contents).await?;
            let text = "DELETE FROM orphan WHERE account = ? AND content IN ({list})";
            self.tx.execute_in(text, &first, list()).await?;
            collected.blobs += self.collect_blobs(blobs).await?;
        }
        Ok(collected)
    }

    async fn collect_blobs(&mut self, mut blobs: Vec<u64>) -> Result<u64, Error> {
        blobs.sort_unstable();
        blobs.dedup();
        let list = blobs.into_iter().map(Value::from).collect();
        let text = "SELECT b.id, CASE WHEN b.data IS NULL THEN b.hash END FROM body b WHERE b.id IN ({list})
            AND NOT EXISTS (SELECT 1 FROM content c WHERE c.blob_id = b.id)";
        let mut ids = Vec::new();
        let mut outside = Vec::new();
        for row in self.tx.fetch_in(text, &[], list).await? {
            ids.push(row.u64(0)?.into());
            outside.extend(row.blob_opt(1)?.map(Value::from));
        }
        self.tx
            .insert_many(
                "INSERT {ignore} INTO blob_gone (hash)",
                1,
                outside,
                "{do_nothing}",
            )
            .await?;
        let text = "DELETE FROM body WHERE id IN ({list})";
        Ok(self.tx.execute_in(text, &[], ids).await?)
    }

    /// Removes tombstones, requests and marks of deliveries that are older than they need be kept, some at a time.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn trim(&mut self, keep: Retention) -> Result<Collected, Error> {
        self.write_pending().await?;
        let mut records = self.trim_expunged(self.now - keep.expunged).await?;
        let rows = self
            .tx
            .fetch_all(
                &format!("SELECT id FROM request WHERE at < ? LIMIT {STEP}"),
                args![self.now - keep.requests],
            )
            .await?;
        let mut list = Vec::with_capacity(rows.len());
        for row in &rows {
            list.push(row.blob(0)?.into());
        }
        let text = "DELETE FROM request WHERE id IN ({list})";
        records.push(self.tx.execute_in(text, &[], list).await?);
        // Queue ids ascend with time, so that the oldest stand first.
        let rows = self
            .tx
            .fetch_all(
                &format!("SELECT queue_id, at FROM delivered ORDER BY queue_id LIMIT {STEP}"),
                args![],
            )
            .await?;
        let mut list: Vec<Value> = Vec::new();
        for row in &rows {
            if row.int(1)? < self.now - keep.delivered {
                list.push(row.u64(0)?.into());
            }
        }
        list.dedup();
        let text = "DELETE FROM delivered WHERE queue_id IN ({list})";
        records.push(self.tx.execute_in(text, &[], list).await?);
        let gone = self
            .tx
            .execute("DELETE FROM noted WHERE expires < ?", args![self.now])
            .await?;
        records.push(gone.min(STEP as u64 - 1));
        Ok(Collected {
            records: records.iter().sum(),
            more: records.iter().any(|count| *count >= STEP as u64),
            ..Collected::default()
        })
    }

    /// A mailbox whose tombstones are gone up to a modseq notes that as its floor.
    async fn trim_expunged(&mut self, before: i64) -> Result<Vec<u64>, Error> {
        let rows = self
            .tx
            .fetch_all(
                &format!(
                    "SELECT mailbox, modseq FROM expunged WHERE at < ? ORDER BY at LIMIT {STEP}"
                ),
                args![before],
            )
            .await?;
        let mut floors = std::collections::BTreeMap::<u64, u64>::new();
        for row in &rows {
            let floor = floors.entry(row.u64(0)?).or_default();
            *floor = (*floor).max(row.u64(1)?);
        }
        let mut removed = 0;
        for (mailbox, floor) in floors {
            removed += self
                .tx
                .execute(
                    "DELETE FROM expunged WHERE mailbox = ? AND modseq <= ?",
                    args![mailbox, floor],
                )
                .await?;
            self.tx
                .execute(
                    "UPDATE mailbox_state SET floor = ? WHERE id = ? AND floor < ?",
                    args![floor, mailbox, floor],
                )
                .await?;
        }
        Ok(vec![removed])
    }
}

impl Writer {
    /// Bodies outside of the database that were noted as nobody's, and still are. Delete them, then [`Writer::forget`] them,
    /// while no new body can be written.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn gone(&self) -> Result<Vec<BlobId>, Error> {
        // One that came back in the meantime is somebody's again.
        self.db
            .execute(
                "DELETE FROM blob_gone WHERE hash IN (SELECT hash FROM body)",
                args![],
            )
            .await?;
        let rows = self
            .db
            .fetch_all(&format!("SELECT hash FROM blob_gone LIMIT {STEP}"), args![])
            .await?;
        rows.iter().map(|row| reader_hash(row.blob(0)?)).collect()
    }

    /// Notes a body that was written outside of the database for a message that was not taken.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn abandon(&self, blob: BlobId) -> Result<(), Error> {
        self.db
            .execute(
                "INSERT {ignore} INTO blob_gone (hash) VALUES (?) {do_nothing}",
                args![blob.0],
            )
            .await?;
        Ok(())
    }

    /// Forgets bodies that are deleted.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn forget(&self, blobs: &[BlobId]) -> Result<(), Error> {
        let list = blobs.iter().map(|id| Value::from(id.0)).collect();
        self.db
            .execute_in("DELETE FROM blob_gone WHERE hash IN ({list})", &[], list)
            .await?;
        Ok(())
    }
}
