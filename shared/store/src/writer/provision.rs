//! A new account's mailboxes.

use super::Batch;
use super::state::{AccountRow, MailboxState};
use crate::Error;
use sql::args;
use types::{AccountId, MailboxId};

/// What every account begins with (RFC 6154).
pub(super) const STANDARD: [(&str, Option<&str>); 6] = [
    ("INBOX", None),
    ("Drafts", Some("\\Drafts")),
    ("Sent", Some("\\Sent")),
    ("Junk", Some("\\Junk")),
    ("Trash", Some("\\Trash")),
    ("Archive", Some("\\Archive")),
];

impl Batch {
    /// Makes the standard mailboxes of those accounts that are not there yet.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn provision(&mut self, accounts: &[AccountId]) -> Result<(), Error> {
        self.write_pending().await?;
        self.load_accounts(accounts).await?;
        let mut missing: Vec<AccountId> = accounts.to_vec();
        missing.sort_unstable();
        missing.dedup();
        missing.retain(|id| !self.accounts.contains_key(id));
        if missing.is_empty() {
            return Ok(());
        }
        let count = missing.len() * STANDARD.len();
        let mut next = self.take_mailbox_ids(count as u64).await?;
        let mut mailboxes = Vec::with_capacity(count * 5);
        let mut subscriptions = Vec::with_capacity(count * 2);
        for account in missing {
            let mut row = AccountRow {
                // RFC 7162: a modseq of a mailbox is at least 1.
                modseq: 1,
                next_id: 1,
                uidvalidity: u32::try_from(self.now).unwrap_or(1).max(1),
                dirty: true,
                ..AccountRow::default()
            };
            for (name, special_use) in STANDARD {
                let state = self.new_mailbox(&mut row, account, name);
                mailboxes.extend(args![next, account.0, name, state.uidvalidity, special_use]);
                subscriptions.extend(args![account.0, name]);
                self.enter(MailboxId(next), state);
                self.touched
                    .entry(account)
                    .or_default()
                    .insert(MailboxId(next));
                next += 1;
            }
            self.accounts.insert(account, row);
        }
        self.tx
            .insert_many(
                "INSERT INTO mailbox (id, account, name, uidvalidity, special_use)",
                5,
                mailboxes,
                "",
            )
            .await?;
        self.tx
            .insert_many(
                "INSERT {ignore} INTO subscription (account, name)",
                2,
                subscriptions,
                "{do_nothing}",
            )
            .await?;
        Ok(())
    }

    /// The counters of a new mailbox. Its UIDVALIDITY is higher than that of any before it in the account, so that a name
    /// that is used again is told apart (RFC 9051 2.3.1.1).
    pub(super) fn new_mailbox(
        &self,
        row: &mut AccountRow,
        account: AccountId,
        name: &str,
    ) -> MailboxState {
        let now = u32::try_from(self.now).unwrap_or_default();
        row.uidvalidity = row.uidvalidity.saturating_add(1).max(now);
        row.dirty = true;
        MailboxState {
            account,
            name: name.to_owned(),
            uidvalidity: row.uidvalidity,
            uidnext: 1,
            modseq: row.modseq,
            floor: row.modseq,
            total: 0,
            unseen: 0,
            deleted: 0,
            bytes: 0,
            dirty: true,
        }
    }

    /// The first of so many new mailbox ids; they are never given again.
    pub(super) async fn take_mailbox_ids(&mut self, count: u64) -> Result<u64, Error> {
        self.tx
            .execute(
                "INSERT INTO counter (name, next) VALUES ('mailbox', ?)
                    {on_conflict:name} next = counter.next + ?",
                args![1 + count, count],
            )
            .await?;
        let row = self
            .tx
            .fetch_optional("SELECT next FROM counter WHERE name = 'mailbox'", args![])
            .await?;
        let next = row.ok_or_else(|| Error::Damaged("no counter of mailboxes".to_owned()))?;
        Ok(next.u64(0)? - count)
    }
}
