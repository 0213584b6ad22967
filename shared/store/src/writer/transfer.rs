//! COPY, MOVE, EXPUNGE: rows by sets, never one by one.

use super::flag::bound;
use super::{Batch, Quota, Refusal};
use crate::flags::SystemFlags;
use crate::range::conditions;
use crate::{Error, Ranges, to_ranges};
use sql::{Value, args};
use types::{AccountId, MailboxId};

/// What COPY and MOVE tell (RFC 4315): pairs by position.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transferred {
    /// UIDVALIDITY of the target.
    pub uidvalidity: u32,
    /// UIDs in the source.
    pub source: Ranges,
    /// UIDs in the target.
    pub target: Ranges,
}

/// One message on its way.
struct Item {
    uid: u32,
    flags: SystemFlags,
    size: u64,
}

const MESSAGE: &str = "message";
/// Through the index of those with `\Deleted`, which SQLite's planner does not see to be short.
const DELETED: &str = "message {indexed_by:message_deleted}";
const ALL: [(u32, u32); 1] = [(1, u32::MAX)];

impl Batch {
    /// COPY: new messages on the same content.
    ///
    /// # Errors
    /// [`Error`]: the batch is spoiled.
    pub async fn copy(
        &mut self,
        account: AccountId,
        quota: Quota,
        source: MailboxId,
        uids: &[(u32, u32)],
        target: MailboxId,
    ) -> Result<Result<Transferred, Refusal>, Error> {
        self.transfer(account, Some(quota), source, uids, target)
            .await
    }

    /// MOVE (RFC 6851): the messages keep what they are, EMAILID included.
    ///
    /// # Errors
    /// [`Error`]: the batch is spoiled.
    pub async fn move_to(
        &mut self,
        account: AccountId,
        source: MailboxId,
        uids: &[(u32, u32)],
        target: MailboxId,
    ) -> Result<Result<Transferred, Refusal>, Error> {
        self.transfer(account, None, source, uids, target).await
    }

    /// Moves all messages: RENAME of INBOX.
    pub(super) async fn move_all(
        &mut self,
        account: AccountId,
        source: MailboxId,
        target: MailboxId,
    ) -> Result<Result<Transferred, Refusal>, Error> {
        self.transfer(account, None, source, &ALL, target).await
    }

    async fn transfer(
        &mut self,
        account: AccountId,
        copy: Option<Quota>,
        source: MailboxId,
        uids: &[(u32, u32)],
        target: MailboxId,
    ) -> Result<Result<Transferred, Refusal>, Error> {
        if !self.owns(account, source).await? || !self.owns(account, target).await? {
            return Ok(Err(Refusal::NotFound));
        }
        // UIDs that come into being here are not meant when source and target are the same.
        let uids = clipped(uids, self.mailboxes.get(&source).map_or(0, |s| s.uidnext));
        let conditions = conditions(&uids);
        let mut parts = Vec::with_capacity(conditions.len());
        for (condition, values) in &conditions {
            parts.push(self.items(MESSAGE, source, condition, values).await?);
        }
        let count = parts.iter().map(|items| items.len() as u64).sum::<u64>();
        let bytes = parts.iter().flatten().map(|item| item.size).sum::<u64>();
        let (Some(row), Some(to)) = (
            self.accounts.get_mut(&account),
            self.mailboxes.get_mut(&target),
        ) else {
            return Ok(Err(Refusal::NotFound));
        };
        let mut done = Transferred {
            uidvalidity: to.uidvalidity,
            ..Transferred::default()
        };
        if count == 0 {
            return Ok(Ok(done));
        }
        if copy.is_some_and(|quota| !quota.allows(row, bytes, count)) {
            return Ok(Err(Refusal::OverQuota));
        }
        let first = to.uidnext;
        let Some(next) = u32::try_from(count)
            .ok()
            .and_then(|count| first.checked_add(count))
        else {
            return Ok(Err(Refusal::Invalid("the mailbox has used up its UIDs")));
        };
        to.uidnext = next;
        let modseq = row.advance();
        let mut email = 0;
        if copy.is_some() {
            email = row.take_ids(count);
            row.bytes = row.bytes.saturating_add(bytes);
            row.messages += count;
        }
        for item in parts.iter().flatten() {
            to.count(item.flags, 1, item.size, true);
        }
        let mut before = 0;
        for ((condition, values), items) in conditions.iter().zip(&parts) {
            let email_of = match copy {
                Some(_) => "? + ROW_NUMBER() OVER (ORDER BY uid)",
                None => "email",
            };
            let text = format!(
                "INSERT INTO message (mailbox, uid, account, content, email, thread, flags, keywords, date, saved, modseq, size)
                    SELECT ?, ? + ROW_NUMBER() OVER (ORDER BY uid), account, content, {email_of}, thread, flags, keywords,
                        date, ?, ?, size
                    FROM message WHERE mailbox = ? AND {condition}"
            );
            // ROW_NUMBER counts from 1.
            let mut all = args![target.0, u64::from(first) + before - 1];
            if copy.is_some() {
                all.push((email + before).wrapping_sub(1).into());
            }
            all.extend(args![self.now, modseq]);
            all.extend(bound(source, values, []));
            self.tx.execute(&text, all).await?;
            before += items.len() as u64;
        }
        done.source = to_ranges(parts.iter().flatten().map(|item| item.uid));
        done.target = vec![(first, next - 1)];
        if copy.is_none() {
            for ((condition, values), items) in conditions.iter().zip(&parts) {
                self.remove(source, condition, values).await?;
                self.count_out(source, items);
            }
            self.bury(source, modseq, &done.source).await?;
            self.touch(source, modseq);
        }
        self.touch(target, modseq);
        Ok(Ok(done))
    }

    /// EXPUNGE, of all or of these UIDs: those with `\Deleted`. Gives what is gone.
    ///
    /// # Errors
    /// [`Error`]: the batch is spoiled.
    pub async fn expunge(
        &mut self,
        account: AccountId,
        mailbox: MailboxId,
        uids: Option<&[(u32, u32)]>,
    ) -> Result<Result<Ranges, Refusal>, Error> {
        if !self.owns(account, mailbox).await? {
            return Ok(Err(Refusal::NotFound));
        }
        if self
            .mailboxes
            .get(&mailbox)
            .is_none_or(|state| state.deleted == 0)
        {
            return Ok(Ok(Ranges::new()));
        }
        let (from, conditions) = match uids {
            Some(uids) => (MESSAGE, conditions(uids)),
            None => (DELETED, vec![("uid > 0".to_owned(), Vec::new())]),
        };
        let mut gone = Vec::new();
        let mut modseq = 0;
        for (condition, values) in conditions {
            let condition = format!("{condition} AND (flags & 8) <> 0");
            let items = self.items(from, mailbox, &condition, &values).await?;
            if items.is_empty() {
                continue;
            }
            let Some(row) = self.accounts.get_mut(&account) else {
                return Ok(Err(Refusal::NotFound));
            };
            if modseq == 0 {
                modseq = row.advance();
            }
            let bytes = items.iter().map(|item| item.size).sum();
            row.bytes = row.bytes.saturating_sub(bytes);
            row.messages = row.messages.saturating_sub(items.len() as u64);
            // By their UIDs from here on: no planner then goes through the whole mailbox for the flag.
            let uids = to_ranges(items.iter().map(|item| item.uid));
            for (condition, values) in crate::range::conditions(&uids) {
                self.orphan(mailbox, &condition, &values).await?;
                self.remove(mailbox, &condition, &values).await?;
            }
            self.count_out(mailbox, &items);
            gone.extend(items.iter().map(|item| item.uid));
        }
        let gone = to_ranges(gone);
        if modseq != 0 {
            self.bury(mailbox, modseq, &gone).await?;
            self.touch(mailbox, modseq);
        }
        Ok(Ok(gone))
    }

    /// REPLACE (RFC 8508 3): removes a message of the account, if it is still there, after another was put.
    ///
    /// # Errors
    /// [`Error`]: the batch is spoiled.
    pub async fn replace(
        &mut self,
        account: AccountId,
        mailbox: MailboxId,
        uids: &[(u32, u32)],
    ) -> Result<(), Error> {
        if !self.owns(account, mailbox).await? {
            return Ok(());
        }
        for (condition, values) in conditions(uids) {
            if self
                .items(MESSAGE, mailbox, &condition, &values)
                .await?
                .is_empty()
            {
                return Ok(());
            }
        }
        self.take_away(account, mailbox, uids).await
    }

    /// Removes these messages, whatever their flags: the second half of a move to another account.
    pub(super) async fn take_away(
        &mut self,
        account: AccountId,
        mailbox: MailboxId,
        uids: &[(u32, u32)],
    ) -> Result<(), Error> {
        let Some(row) = self.accounts.get_mut(&account) else {
            return Ok(());
        };
        let modseq = row.advance();
        for (condition, values) in conditions(uids) {
            let items = self.items(MESSAGE, mailbox, &condition, &values).await?;
            if let Some(row) = self.accounts.get_mut(&account) {
                let bytes = items.iter().map(|item| item.size).sum();
                row.bytes = row.bytes.saturating_sub(bytes);
                row.messages = row.messages.saturating_sub(items.len() as u64);
            }
            self.orphan(mailbox, &condition, &values).await?;
            self.remove(mailbox, &condition, &values).await?;
            self.count_out(mailbox, &items);
        }
        self.bury(mailbox, modseq, uids).await?;
        self.touch(mailbox, modseq);
        Ok(())
    }

    async fn items(
        &mut self,
        from: &str,
        mailbox: MailboxId,
        condition: &str,
        values: &[Value],
    ) -> Result<Vec<Item>, Error> {
        let text = format!(
            "SELECT uid, flags, size FROM {from} WHERE mailbox = ? AND {condition} ORDER BY uid"
        );
        let mut items = Vec::new();
        let mut rows = self.tx.fetch(&text, bound(mailbox, values, []))?;
        while let Some(row) = rows.next().await? {
            items.push(Item {
                uid: row.u32(0)?,
                flags: SystemFlags(u8::try_from(row.int(1)?).unwrap_or_default()),
                size: row.u64(2)?,
            });
        }
        Ok(items)
    }

    /// Deletes rows.
    async fn remove(
        &mut self,
        mailbox: MailboxId,
        condition: &str,
        values: &[Value],
    ) -> Result<(), Error> {
        let text = format!("DELETE FROM message WHERE mailbox = ? AND {condition}");
        self.tx.execute(&text, bound(mailbox, values, [])).await?;
        Ok(())
    }

    /// Takes messages from a mailbox's counters.
    fn count_out(&mut self, mailbox: MailboxId, items: &[Item]) {
        if let Some(state) = self.mailboxes.get_mut(&mailbox) {
            for item in items {
                state.count(item.flags, 1, item.size, false);
            }
        }
    }

    /// Marks contents that may be nobody's any more: the collector looks.
    pub(super) async fn orphan(
        &mut self,
        mailbox: MailboxId,
        condition: &str,
        values: &[Value],
    ) -> Result<(), Error> {
        let text = format!(
            "INSERT {{ignore}} INTO orphan (account, content) SELECT DISTINCT account, content FROM message
                WHERE mailbox = ? AND {condition} {{do_nothing}}"
        );
        self.tx.execute(&text, bound(mailbox, values, [])).await?;
        Ok(())
    }

    /// Writes tombstones.
    async fn bury(
        &mut self,
        mailbox: MailboxId,
        modseq: u64,
        gone: &[(u32, u32)],
    ) -> Result<(), Error> {
        let mut values = Vec::with_capacity(gone.len() * 5);
        for (low, high) in gone {
            values.extend(args![mailbox.0, modseq, *low, *high, self.now]);
        }
        self.tx
            .insert_many(
                "INSERT INTO expunged (mailbox, modseq, low, high, at)",
                5,
                values,
                "",
            )
            .await?;
        Ok(())
    }
}

/// Ranges below `end`.
fn clipped(ranges: &[(u32, u32)], end: u32) -> Ranges {
    let last = end.saturating_sub(1);
    ranges
        .iter()
        .filter(|(low, _)| *low <= last)
        .map(|(low, high)| (*low, (*high).min(last)))
        .collect()
}
