//! CREATE, DELETE, RENAME, SUBSCRIBE.

use super::{Batch, Refusal};
use crate::Error;
use sql::args;
use types::{AccountId, MailboxId};

/// Characters of a full name at most: what an index of MySQL holds.
const NAME_MAX: usize = 650;
/// Mailboxes of an account at most.
const MAILBOXES_MAX: usize = 10_000;
/// Names an account may subscribe to at most.
const SUBSCRIPTIONS_MAX: u64 = 20_000;

/// A special use in its usual case.
fn known_use(given: &str) -> Result<&'static str, Refusal> {
    crate::known_special_use(given).ok_or(Refusal::Invalid("no such special use"))
}

/// A full name in the form in which it is stored: INBOX in capitals, no final separator.
fn normal(name: &str) -> Result<String, Refusal> {
    let name = name.strip_suffix('/').unwrap_or(name);
    if name.is_empty() || name.chars().count() > NAME_MAX {
        return Err(Refusal::Invalid("a mailbox name has 1 to 650 characters"));
    }
    if name
        .chars()
        .any(|c| c.is_control() || ('\u{2028}'..='\u{2029}').contains(&c))
    {
        return Err(Refusal::Invalid("a mailbox name has no control characters"));
    }
    let level = |level: &str| !level.is_empty() && level.trim() == level;
    if !name.split('/').all(level) {
        return Err(Refusal::Invalid(
            "a level of a mailbox name is not empty and has no space at its ends",
        ));
    }
    Ok(crate::canonical(name).into_owned())
}

impl Batch {
    /// CREATE, with its parents.
    ///
    /// # Errors
    /// [`Error`]: the batch is spoiled.
    pub async fn create(
        &mut self,
        account: AccountId,
        name: &str,
        special_use: Option<&str>,
    ) -> Result<Result<MailboxId, Refusal>, Error> {
        let name = match normal(name) {
            Ok(name) => name,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let special_use = match special_use.map(known_use).transpose() {
            Ok(special_use) => special_use,
            Err(refusal) => return Ok(Err(refusal)),
        };
        self.provision(&[account]).await?;
        self.load_all(account).await?;
        if self.named(account, &name).is_some() {
            return Ok(Err(Refusal::Conflict("the mailbox exists")));
        }
        let mine = self.mailboxes.values().filter(|m| m.account == account);
        if mine.count() + name.split('/').count() > MAILBOXES_MAX {
            return Ok(Err(Refusal::Invalid("the account has too many mailboxes")));
        }
        let modseq = self.advance(account);
        self.create_parents(account, &name, modseq).await?;
        let id = self
            .insert_mailbox(account, &name, special_use, modseq)
            .await?;
        Ok(Ok(id))
    }

    /// DELETE.
    ///
    /// # Errors
    /// [`Error`]: the batch is spoiled.
    pub async fn delete(
        &mut self,
        account: AccountId,
        mailbox: MailboxId,
    ) -> Result<Result<(), Refusal>, Error> {
        if !self.owns(account, mailbox).await? {
            return Ok(Err(Refusal::NotFound));
        }
        self.load_all(account).await?;
        let Some(state) = self.mailboxes.get(&mailbox) else {
            return Ok(Err(Refusal::NotFound));
        };
        if state.name == "INBOX" {
            return Ok(Err(Refusal::Invalid("INBOX cannot be deleted")));
        }
        let below = format!("{}/", state.name);
        let mut mine = self.mailboxes.values().filter(|m| m.account == account);
        // RFC 9051 6.3.5
        if mine.any(|other| other.name.starts_with(&below)) {
            return Ok(Err(Refusal::Conflict("the mailbox has mailboxes below it")));
        }
        let (bytes, total) = (state.bytes, state.total);
        self.orphan(mailbox, "uid > 0", &[]).await?;
        for table in ["message", "expunged", "acl", "metadata"] {
            let text = format!("DELETE FROM {table} WHERE mailbox = ?");
            self.tx.execute(&text, args![mailbox.0]).await?;
        }
        for table in ["mailbox_state", "mailbox"] {
            let text = format!("DELETE FROM {table} WHERE id = ?");
            self.tx.execute(&text, args![mailbox.0]).await?;
        }
        if let Some(gone) = self.mailboxes.remove(&mailbox) {
            self.names.remove(&(account, gone.name));
        }
        self.advance(account);
        if let Some(row) = self.accounts.get_mut(&account) {
            row.bytes = row.bytes.saturating_sub(bytes);
            row.messages = row.messages.saturating_sub(total);
        }
        self.touched.entry(account).or_default().insert(mailbox);
        Ok(Ok(()))
    }

    /// RENAME, with all below it; of INBOX: its messages move to a new mailbox (RFC 9051 6.3.6).
    ///
    /// # Errors
    /// [`Error`]: the batch is spoiled.
    pub async fn rename(
        &mut self,
        account: AccountId,
        mailbox: MailboxId,
        name: &str,
    ) -> Result<Result<(), Refusal>, Error> {
        if !self.owns(account, mailbox).await? {
            return Ok(Err(Refusal::NotFound));
        }
        self.load_all(account).await?;
        let name = match normal(name) {
            Ok(name) => name,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let Some(old) = self.mailboxes.get(&mailbox).map(|state| state.name.clone()) else {
            return Ok(Err(Refusal::NotFound));
        };
        if self.named(account, &name).is_some() {
            return Ok(Err(Refusal::Conflict("the mailbox exists")));
        }
        if old == "INBOX" {
            let modseq = self.advance(account);
            self.create_parents(account, &name, modseq).await?;
            let target = self.insert_mailbox(account, &name, None, modseq).await?;
            let moved = self.move_all(account, mailbox, target).await?;
            return Ok(moved.map(drop));
        }
        let below = format!("{old}/");
        if name.starts_with(&below) {
            return Ok(Err(Refusal::Invalid(
                "a mailbox cannot be moved below itself",
            )));
        }
        let moving: Vec<(MailboxId, String)> = self
            .mailboxes
            .iter()
            .filter(|(_, state)| state.account == account)
            .filter_map(|(id, state)| {
                let rest = state.name.strip_prefix(&old)?;
                (rest.is_empty() || rest.starts_with('/')).then(|| (*id, format!("{name}{rest}")))
            })
            .collect();
        if moving.iter().any(|(_, new)| new.chars().count() > NAME_MAX) {
            return Ok(Err(Refusal::Invalid(
                "a mailbox name has 1 to 650 characters",
            )));
        }
        if moving
            .iter()
            .any(|(_, new)| self.named(account, new).is_some())
        {
            return Ok(Err(Refusal::Conflict(
                "a mailbox below the new name exists",
            )));
        }
        let modseq = self.advance(account);
        self.create_parents(account, &name, modseq).await?;
        for (id, new) in moving {
            self.rename_one(account, id, new, modseq).await?;
        }
        Ok(Ok(()))
    }

    /// SUBSCRIBE, UNSUBSCRIBE: of any name.
    ///
    /// # Errors
    /// [`Error`]: the batch is spoiled.
    pub async fn subscribe(
        &mut self,
        account: AccountId,
        name: &str,
        subscribed: bool,
    ) -> Result<Result<(), Refusal>, Error> {
        let name = match normal(name) {
            Ok(name) => name,
            Err(refusal) => return Ok(Err(refusal)),
        };
        self.provision(&[account]).await?;
        if subscribed {
            let count = self
                .tx
                .fetch_optional(
                    "SELECT COUNT(*) FROM subscription WHERE account = ?",
                    args![account.0],
                )
                .await?;
            if count.map_or(Ok(0), |row| row.u64(0))? >= SUBSCRIPTIONS_MAX {
                return Ok(Err(Refusal::Invalid("too many subscriptions")));
            }
        }
        let text = if subscribed {
            "INSERT {ignore} INTO subscription (account, name) VALUES (?, ?) {do_nothing}"
        } else {
            "DELETE FROM subscription WHERE account = ? AND name = ?"
        };
        let changed = self.tx.execute(text, args![account.0, name]).await?;
        if changed > 0 {
            self.advance(account);
            self.touched.entry(account).or_default();
        }
        Ok(Ok(()))
    }

    /// The modseq of a change of the account.
    fn advance(&mut self, account: AccountId) -> u64 {
        self.touched.entry(account).or_default();
        self.accounts
            .get_mut(&account)
            .map_or(1, super::state::AccountRow::advance)
    }

    async fn create_parents(
        &mut self,
        account: AccountId,
        name: &str,
        modseq: u64,
    ) -> Result<(), Error> {
        for (at, _) in name.match_indices('/') {
            let parent = name.get(..at).unwrap_or_default();
            if self.named(account, parent).is_none() {
                self.insert_mailbox(account, parent, None, modseq).await?;
            }
        }
        Ok(())
    }

    async fn insert_mailbox(
        &mut self,
        account: AccountId,
        name: &str,
        special_use: Option<&str>,
        modseq: u64,
    ) -> Result<MailboxId, Error> {
        let id = self.take_mailbox_ids(1).await?;
        let mut row = self.accounts.get(&account).copied().unwrap_or_default();
        let state = self.new_mailbox(&mut row, account, name);
        self.accounts.insert(account, row);
        self.take_special_use(account, special_use).await?;
        self.tx
            .execute(
                "INSERT INTO mailbox (id, account, name, uidvalidity, special_use) VALUES (?, ?, ?, ?, ?)",
                args![id, account.0, name, state.uidvalidity, special_use],
            )
            .await?;
        self.enter(MailboxId(id), state);
        self.touch(MailboxId(id), modseq);
        Ok(MailboxId(id))
    }

    /// RFC 6154 5.3: one mailbox a use.
    async fn take_special_use(
        &mut self,
        account: AccountId,
        special_use: Option<&str>,
    ) -> Result<(), Error> {
        if special_use.is_some() {
            self.tx
                .execute(
                    "UPDATE mailbox SET special_use = NULL WHERE account = ? AND special_use = ?",
                    args![account.0, special_use],
                )
                .await?;
        }
        Ok(())
    }

    /// Gives a mailbox its special use, or takes it away (RFC 6154 5.4). The use is looked at before anything is written.
    pub(super) async fn set_special_use(
        &mut self,
        account: AccountId,
        mailbox: MailboxId,
        special_use: Option<&str>,
    ) -> Result<Result<(), Refusal>, Error> {
        let special_use = match special_use.map(known_use).transpose() {
            Ok(special_use) => special_use,
            Err(refusal) => return Ok(Err(refusal)),
        };
        self.take_special_use(account, special_use).await?;
        self.tx
            .execute(
                "UPDATE mailbox SET special_use = ? WHERE id = ?",
                args![special_use, mailbox.0],
            )
            .await?;
        Ok(Ok(()))
    }

    async fn rename_one(
        &mut self,
        account: AccountId,
        id: MailboxId,
        new: String,
        modseq: u64,
    ) -> Result<(), Error> {
        self.tx
            .execute(
                "UPDATE mailbox SET name = ? WHERE id = ?",
                args![new.as_str(), id.0],
            )
            .await?;
        let Some(state) = self.mailboxes.get_mut(&id) else {
            return Ok(());
        };
        let old = std::mem::replace(&mut state.name, new.clone());
        self.names.remove(&(account, old.clone()));
        self.names.insert((account, new.clone()), id);
        // The subscription goes with the mailbox, as its user expects.
        let gone = self
            .tx
            .execute(
                "DELETE FROM subscription WHERE account = ? AND name = ?",
                args![account.0, old],
            )
            .await?;
        if gone > 0 {
            self.tx
                .execute(
                    "INSERT {ignore} INTO subscription (account, name) VALUES (?, ?) {do_nothing}",
                    args![account.0, new],
                )
                .await?;
        }
        self.touch(id, modseq);
        Ok(())
    }
}
