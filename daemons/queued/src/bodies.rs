//! Bodies that are too large for a row, where several nodes share the queue table: in pieces beside it, so that any node has them.
//!
//! A node that works on such a message fetches its body into its own spool, and removes it there when the attempt is over.

use crate::core::{Core, now};
use crate::message::{Home, Message};
use crate::table::{Table, number};
use ipc::{Fault, FaultKind};
use sql::{Db, Error, args};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use types::QueueId;

/// Octets of a piece: a few of them are in memory at once.
const PIECE: usize = 256 * 1024;
/// Pieces without a message are removed when they are so old, in seconds: a message that is being put there has them first.
const ORPHANED: u64 = 86_400;

impl Table {
    async fn put_piece(&self, id: QueueId, seq: u64, octets: &[u8]) -> Result<(), Error> {
        let text = "INSERT {ignore} INTO queue_piece (id, seq, written, octets) VALUES (?, ?, ?, ?) {do_nothing}";
        let db = self.db().await?;
        db.execute(text, args![id.0, seq, now(), octets])
            .await
            .map(drop)
    }

    async fn piece(&self, id: QueueId, seq: u64) -> Result<Option<Vec<u8>>, Error> {
        let text = "SELECT octets FROM queue_piece WHERE id = ? AND seq = ?";
        let row = self
            .db()
            .await?
            .fetch_optional(text, args![id.0, seq])
            .await?;
        row.map(|row| row.blob(0).map(<[u8]>::to_vec)).transpose()
    }

    /// Removes pieces whose message never came, or went while they were being written.
    pub(crate) async fn sweep(&self, db: &Db) -> Result<u64, Error> {
        let text = "SELECT DISTINCT id FROM queue_piece WHERE written < ? AND NOT EXISTS
            (SELECT 1 FROM queue_message WHERE queue_message.id = queue_piece.id)";
        let rows = db
            .fetch_all(text, args![now().saturating_sub(ORPHANED)])
            .await?;
        let list = rows
            .iter()
            .map(|row| row.u64(0).map(number))
            .collect::<Result<Vec<_>, _>>()?;
        db.execute_in("DELETE FROM queue_piece WHERE id IN ({list})", &[], list)
            .await
    }
}

fn fault(what: &str, error: &dyn std::fmt::Display) -> Fault {
    Fault::new(FaultKind::Temporary, format!("{what}: {error}"))
}

impl Core {
    /// Whether bodies in the spool are for the queue table too.
    pub(crate) fn shares_bodies(&self) -> bool {
        self.table.node.is_shared()
    }

    /// Puts the body of a message in the spool into the table, for all nodes.
    pub(crate) async fn share_body(&self, id: QueueId, len: u64) -> Result<(), Fault> {
        let file = self
            .spool
            .read(id)
            .map_err(|error| fault("the spool", &error))?;
        let mut at = 0;
        let mut seq = 0;
        while at < len {
            let size = usize::try_from((len - at).min(PIECE as u64)).unwrap_or(PIECE);
            let mut piece = vec![0; size];
            file.read_exact_at(&mut piece, at)
                .map_err(|error| fault("the spool", &error))?;
            self.table
                .put_piece(id, seq, &piece)
                .await
                .map_err(|error| fault("the queue table", &error))?;
            at += size as u64;
            seq += 1;
        }
        Ok(())
    }

    /// Fetches the body of a message from the table into the spool.
    async fn fetch_body(&self, id: QueueId, len: u64) -> Result<(), Fault> {
        self.check_free(len)?;
        let mut fetched = self
            .spool
            .fetch()
            .map_err(|error| fault("the spool", &error))?;
        let mut at = 0;
        let mut seq = 0;
        while at < len {
            let piece = self
                .table
                .piece(id, seq)
                .await
                .map_err(|error| fault("the queue table", &error))?
                .ok_or_else(|| fault("the queue table", &"a piece of the body is missing"))?;
            fetched
                .write_all(&piece)
                .map_err(|error| fault("the spool", &error))?;
            at += piece.len() as u64;
            seq += 1;
        }
        fetched.keep(id).map_err(|error| fault("the spool", &error))
    }

    /// The file of a body that is in the spool, or in the table for all nodes.
    pub(crate) async fn open_body(&self, message: &Message) -> Result<Option<File>, Fault> {
        let head = &message.head;
        if !head.spooled {
            return Ok(None);
        }
        let elsewhere = self.shares_bodies() && matches!(message.home, Home::Table(_));
        match self.spool.read(message.id) {
            Err(error) if elsewhere && error.kind() == std::io::ErrorKind::NotFound => {
                self.fetch_body(message.id, head.body_len).await?;
                self.spool.read(message.id)
            }
            other => other,
        }
        .map(Some)
        .map_err(|error| fault("the spool", &error))
    }

    /// The first octets of a body that is in the spool.
    pub(crate) async fn read_body(&self, message: &Message, most: u64) -> Result<Vec<u8>, Fault> {
        let Some(file) = self.open_body(message).await? else {
            return Ok(Vec::new());
        };
        let mut octets = vec![0; usize::try_from(message.head.body_len.min(most)).unwrap_or(0)];
        file.read_exact_at(&mut octets, 0)
            .map_err(|error| fault("the spool", &error))?;
        Ok(octets)
    }

    /// This node does not work on a message of the table any more: its copy of the body goes, if others have theirs.
    pub(crate) fn drop_body(self: &Arc<Self>, message: &Message, gone: bool) {
        if message.head.spooled && (gone || self.shares_bodies()) {
            self.spool.remove(message.id);
        }
    }
}
