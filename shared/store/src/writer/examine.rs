//! Looking whether an account's rows agree with each other and its bodies are there, and mending what can be computed anew.

use super::Writer;
use crate::Error;
use blob::Blobs;
use sql::{Row, Tx, args};
use std::collections::HashMap;
use types::{AccountId, BlobId};

/// Findings of one account that are told at most.
const FINDINGS_MAX: usize = 1000;
/// Bodies that are looked at together.
const PAGE: u32 = 200;

/// What was found in one account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Examination {
    /// Which; `None`: what belongs to no account was looked at.
    pub account: Option<AccountId>,
    /// Its messages.
    pub messages: u64,
    /// What is wrong, and whether it was mended (or could be).
    pub findings: Vec<(String, bool)>,
}

impl Examination {
    fn find(&mut self, text: String, mendable: bool) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push((text, mendable));
        }
    }
}

/// What a mailbox's messages add up to.
#[derive(Default)]
struct Sums {
    total: i64,
    bytes: i64,
    unseen: i64,
    deleted: i64,
    uid: i64,
    modseq: i64,
}

impl Writer {
    /// Examines the first account with at least this number, and mends it if told to: counters are computed anew from the
    /// messages, and contents that no message has are given to the collector. Nothing else is changed. At the end (no such
    /// account) looks for rows that belong to none.
    ///
    /// # Errors
    /// [`Error`]: nothing was mended.
    pub async fn examine(
        &self,
        blobs: &Blobs,
        from: AccountId,
        repair: bool,
        bodies: bool,
    ) -> Result<Examination, Error> {
        let mut tx = self.db.begin().await?;
        // The account's other writers wait: what is counted stays as it is.
        let account = tx
            .fetch_optional(
                "SELECT id, modseq, bytes, messages FROM account WHERE id >= ? ORDER BY id LIMIT 1 {for_update}",
                args![from.0],
            )
            .await?;
        let mut found = Examination::default();
        let Some(row) = account else {
            strays(&mut tx, &mut found).await?;
            tx.rollback().await?;
            return Ok(found);
        };
        let account = AccountId(row.u64(0)?);
        found.account = Some(account);
        counters(&mut tx, account, &row, repair, &mut found).await?;
        references(&mut tx, account, repair, &mut found).await?;
        if repair {
            tx.commit().await?;
        } else {
            tx.rollback().await?;
        }
        self.bodies_of(blobs, account, bodies, &mut found).await?;
        Ok(found)
    }

    /// Every body of the account is there; with `read`, it is what its hash says.
    async fn bodies_of(
        &self,
        blobs: &Blobs,
        account: AccountId,
        read: bool,
        found: &mut Examination,
    ) -> Result<(), Error> {
        let data = if read { "b.data" } else { "NULL" };
        let text = format!(
            "SELECT DISTINCT b.id, b.hash, CASE WHEN b.data IS NULL THEN 1 ELSE 0 END, {data} FROM content c \
             JOIN body b ON b.id = c.blob_id WHERE c.account = ? AND b.id > ? ORDER BY b.id LIMIT {PAGE}"
        );
        let mut after = 0_u64;
        loop {
            let rows = self.db.fetch_all(&text, args![account.0, after]).await?;
            let Some(last) = rows.last() else {
                return Ok(());
            };
            after = last.u64(0)?;
            for row in &rows {
                let id = BlobId(row.blob(1)?.try_into().unwrap_or_default());
                let trouble = match (row.bool(2)?, read) {
                    (true, true) => blobs.verify(id).await.err().map(|error| error.to_string()),
                    (true, false) => match blobs.exists(id).await {
                        Ok(true) => None,
                        Ok(false) => Some(format!("the body {id} is not there")),
                        Err(error) => return Err(error.into()),
                    },
                    (false, true) => {
                        let sound = blob::decode(row.blob(3)?, usize::MAX >> 1)
                            .is_ok_and(|octets| blob::id_of(&octets) == id);
                        (!sound).then(|| format!("the body {id} is damaged in its row"))
                    }
                    (false, false) => None,
                };
                if let Some(text) = trouble {
                    found.find(text, false);
                }
            }
        }
    }
}

/// Counters of the account and its mailboxes, beside what its messages add up to.
async fn counters(
    tx: &mut Tx,
    account: AccountId,
    row: &Row,
    repair: bool,
    found: &mut Examination,
) -> Result<(), Error> {
    let states = tx
        .fetch_all(
            "SELECT s.id, m.name, s.uidnext, s.modseq, s.total, s.unseen, s.deleted, s.bytes FROM mailbox m \
             JOIN mailbox_state s ON s.id = m.id WHERE m.account = ? ORDER BY s.id {for_update}",
            args![account.0],
        )
        .await?;
    let mut sums = sums(tx, account).await?;
    let all = Sums {
        total: sums.values().map(|of| of.total).sum(),
        bytes: sums.values().map(|of| of.bytes).sum(),
        modseq: sums.values().map(|of| of.modseq).max().unwrap_or(0),
        ..Sums::default()
    };
    found.messages = u64::try_from(all.total).unwrap_or(0);
    for state in &states {
        let of = sums.remove(&state.int(0)?).unwrap_or_default();
        mailbox(tx, state, &of, repair, found).await?;
    }
    for (mailbox, of) in sums {
        let text = format!(
            "{} messages are in the mailbox {mailbox}, which is not there",
            of.total
        );
        found.find(text, false);
    }
    let (modseq, bytes, messages) = (row.int(1)?, row.int(2)?, row.int(3)?);
    if (bytes, messages) != (all.bytes, all.total) || modseq < all.modseq {
        found.find(
            format!(
                "the account counts {messages} messages with {bytes} octets at modseq {modseq}; there are {} with {} at {}",
                all.total, all.bytes, all.modseq
            ),
            true,
        );
        if repair {
            tx.execute(
                "UPDATE account SET bytes = ?, messages = ?, modseq = ? WHERE id = ?",
                args![all.bytes, all.total, modseq.max(all.modseq), account.0],
            )
            .await?;
        }
    }
    Ok(())
}

async fn sums(tx: &mut Tx, account: AccountId) -> Result<HashMap<i64, Sums>, Error> {
    let rows = tx
        .fetch_all(
            "SELECT mailbox, CAST(COUNT(*) AS {int}), CAST(SUM(size) AS {int}), \
             CAST(SUM(CASE WHEN (flags & 1) = 0 THEN 1 ELSE 0 END) AS {int}), \
             CAST(SUM(CASE WHEN (flags & 8) <> 0 THEN 1 ELSE 0 END) AS {int}), \
             MAX(uid), MAX(modseq) FROM message WHERE account = ? GROUP BY mailbox",
            args![account.0],
        )
        .await?;
    let mut sums = HashMap::with_capacity(rows.len());
    for row in &rows {
        let of = Sums {
            total: row.int(1)?,
            bytes: row.int(2)?,
            unseen: row.int(3)?,
            deleted: row.int(4)?,
            uid: row.int(5)?,
            modseq: row.int(6)?,
        };
        sums.insert(row.int(0)?, of);
    }
    Ok(sums)
}

async fn mailbox(
    tx: &mut Tx,
    state: &Row,
    of: &Sums,
    repair: bool,
    found: &mut Examination,
) -> Result<(), Error> {
    let (uidnext, modseq) = (state.int(2)?, state.int(3)?);
    let counted = (state.int(4)?, state.int(5)?, state.int(6)?, state.int(7)?);
    let real = (of.total, of.unseen, of.deleted, of.bytes);
    if counted == real && uidnext > of.uid && modseq >= of.modseq {
        return Ok(());
    }
    found.find(
        format!(
            "{} counts {} messages ({} unseen, {} deleted, {} octets), next UID {uidnext}; there are {} ({}, {}, {}), last UID {}",
            state.text(1)?,
            counted.0,
            counted.1,
            counted.2,
            counted.3,
            real.0,
            real.1,
            real.2,
            real.3,
            of.uid
        ),
        true,
    );
    if repair {
        tx.execute(
            "UPDATE mailbox_state SET total = ?, unseen = ?, deleted = ?, bytes = ?, uidnext = ?, modseq = ? WHERE id = ?",
            args![
                real.0,
                real.1,
                real.2,
                real.3,
                uidnext.max(of.uid + 1),
                modseq.max(of.modseq),
                state.int(0)?
            ],
        )
        .await?;
    }
    Ok(())
}

/// Rows that name rows which are not there, and contents that nobody names.
async fn references(
    tx: &mut Tx,
    account: AccountId,
    repair: bool,
    found: &mut Examination,
) -> Result<(), Error> {
    let bare = tx
        .fetch_all(
            "SELECT m.mailbox, m.uid FROM message m LEFT JOIN content c ON c.account = m.account AND c.id = m.content \
             WHERE m.account = ? AND c.id IS NULL ORDER BY m.mailbox, m.uid LIMIT 1000",
            args![account.0],
        )
        .await?;
    for row in &bare {
        let (mailbox, uid) = (row.int(0)?, row.int(1)?);
        found.find(
            format!("the message with UID {uid} in the mailbox {mailbox} has no content"),
            false,
        );
    }
    let bodiless = tx
        .fetch_all(
            "SELECT c.id FROM content c LEFT JOIN body b ON b.id = c.blob_id WHERE c.account = ? AND b.id IS NULL LIMIT 1000",
            args![account.0],
        )
        .await?;
    for row in &bodiless {
        found.find(format!("the content {} has no body", row.int(0)?), false);
    }
    let unused = tx
        .fetch_all(
            "SELECT c.id FROM content c LEFT JOIN message m ON m.account = c.account AND m.content = c.id \
             LEFT JOIN orphan o ON o.account = c.account AND o.content = c.id \
             WHERE c.account = ? AND m.uid IS NULL AND o.content IS NULL LIMIT 1000",
            args![account.0],
        )
        .await?;
    if unused.is_empty() {
        return Ok(());
    }
    found.find(
        format!("{} contents belong to no message", unused.len()),
        true,
    );
    if repair {
        for row in &unused {
            tx.execute(
                "INSERT {ignore} INTO orphan (account, content) VALUES (?, ?) {do_nothing}",
                args![account.0, row.int(0)?],
            )
            .await?;
        }
    }
    Ok(())
}

/// Rows of accounts and mailboxes that are not there.
async fn strays(tx: &mut Tx, found: &mut Examination) -> Result<(), Error> {
    for (what, text) in [
        (
            "mailboxes belong to no account",
            "SELECT COUNT(*) FROM mailbox m LEFT JOIN account a ON a.id = m.account WHERE a.id IS NULL",
        ),
        (
            "mailboxes have no counters",
            "SELECT COUNT(*) FROM mailbox m LEFT JOIN mailbox_state s ON s.id = m.id WHERE s.id IS NULL",
        ),
        (
            "counters belong to no mailbox",
            "SELECT COUNT(*) FROM mailbox_state s LEFT JOIN mailbox m ON m.id = s.id WHERE m.id IS NULL",
        ),
        (
            "messages belong to no account",
            "SELECT COUNT(*) FROM message m LEFT JOIN account a ON a.id = m.account WHERE a.id IS NULL",
        ),
    ] {
        let count = tx.fetch_optional(text, args![]).await?;
        let count = count.map_or(Ok(0), |row| row.int(0))?;
        if count > 0 {
            found.find(format!("{count} {what}"), false);
        }
    }
    Ok(())
}
