//! Counters of accounts and mailboxes: read once a batch, written back once.

use super::Batch;
use crate::Error;
use crate::flags::SystemFlags;
use sql::{Row, Statement, Value, args};
use types::{AccountId, MailboxId};

/// A row of `account`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AccountRow {
    pub(super) modseq: u64,
    pub(super) next_id: u64,
    pub(super) uidvalidity: u32,
    pub(super) bytes: u64,
    pub(super) messages: u64,
    pub(super) dirty: bool,
}

impl AccountRow {
    /// The next id of content, e-mail or conversation in this account.
    pub(super) fn take_id(&mut self) -> u64 {
        self.take_ids(1)
    }

    /// The first of so many ids.
    pub(super) fn take_ids(&mut self, count: u64) -> u64 {
        let id = self.next_id;
        self.next_id += count;
        self.dirty = true;
        id
    }

    /// The modseq of the next change.
    pub(super) fn advance(&mut self) -> u64 {
        self.modseq += 1;
        self.dirty = true;
        self.modseq
    }
}

/// A row of `mailbox` with that of `mailbox_state`.
#[derive(Clone, Debug)]
pub(super) struct MailboxState {
    pub(super) account: AccountId,
    pub(super) name: String,
    pub(super) uidvalidity: u32,
    pub(super) uidnext: u32,
    pub(super) modseq: u64,
    pub(super) floor: u64,
    pub(super) total: u64,
    pub(super) unseen: u64,
    pub(super) deleted: u64,
    pub(super) bytes: u64,
    pub(super) dirty: bool,
}

impl MailboxState {
    /// Counts messages with these flags in (`sign` 1) or out (-1).
    pub(super) fn count(&mut self, flags: SystemFlags, count: u64, bytes: u64, adding: bool) {
        let apply = |value: &mut u64, by: u64| {
            *value = if adding {
                value.saturating_add(by)
            } else {
                value.saturating_sub(by)
            };
        };
        apply(&mut self.total, count);
        apply(&mut self.bytes, bytes);
        if !flags.contains(SystemFlags::SEEN) {
            apply(&mut self.unseen, count);
        }
        if flags.contains(SystemFlags::DELETED) {
            apply(&mut self.deleted, count);
        }
        self.dirty = true;
    }
}

const MAILBOX: &str = "SELECT m.id, m.account, m.name, m.uidvalidity, s.uidnext, s.modseq, s.floor, s.total, s.unseen,
    s.deleted, s.bytes FROM mailbox m JOIN mailbox_state s ON s.id = m.id";

fn read_mailbox(row: &Row) -> Result<(MailboxId, MailboxState), sql::Error> {
    let state = MailboxState {
        account: AccountId(row.u64(1)?),
        name: row.text(2)?.to_owned(),
        uidvalidity: row.u32(3)?,
        uidnext: row.u32(4)?,
        modseq: row.u64(5)?,
        floor: row.u64(6)?,
        total: row.u64(7)?,
        unseen: row.u64(8)?,
        deleted: row.u64(9)?,
        bytes: row.u64(10)?,
        dirty: false,
    };
    Ok((MailboxId(row.u64(0)?), state))
}

impl Batch {
    /// Reads accounts that this batch does not know yet. Those that are not there stay unknown.
    pub(super) async fn load_accounts(&mut self, ids: &[AccountId]) -> Result<(), Error> {
        let rows = self.tx.fetch_each(vec![self.accounts_query(ids)]).await?;
        self.know_accounts(rows.first().map_or(&[], Vec::as_slice))
    }

    pub(super) fn accounts_query(&self, ids: &[AccountId]) -> Vec<Statement> {
        let mut list: Vec<u64> = ids
            .iter()
            .filter(|id| !self.accounts.contains_key(id))
            .map(|id| id.0)
            .collect();
        list.sort_unstable();
        list.dedup();
        let list: Vec<Value> = list.into_iter().map(Value::from).collect();
        let text = "SELECT id, modseq, next_id, uidvalidity, bytes, messages FROM account
            WHERE id IN ({list}) {for_update}";
        Statement::listed(text, &[], &list)
    }

    pub(super) fn know_accounts(&mut self, rows: &[Row]) -> Result<(), Error> {
        for row in rows {
            let account = AccountRow {
                modseq: row.u64(1)?,
                next_id: row.u64(2)?,
                uidvalidity: row.u32(3)?,
                bytes: row.u64(4)?,
                messages: row.u64(5)?,
                dirty: false,
            };
            self.accounts.insert(AccountId(row.u64(0)?), account);
        }
        Ok(())
    }

    /// Reads the mailboxes with one of these names in one of these accounts.
    pub(super) fn named_query(accounts: &[AccountId], names: &[&str]) -> Vec<Statement> {
        let mut accounts: Vec<u64> = accounts.iter().map(|id| id.0).collect();
        accounts.sort_unstable();
        accounts.dedup();
        let mut names: Vec<Value> = names.iter().map(|name| (*name).into()).collect();
        let count = sql::pad(&mut names);
        let text = format!(
            "{MAILBOX} WHERE m.name IN ({}) AND m.account IN ({{list}})",
            sql::placeholders(count)
        );
        let list: Vec<Value> = accounts.into_iter().map(Value::from).collect();
        Statement::listed(&text, &names, &list)
    }

    /// Reads mailboxes by their ids.
    pub(super) async fn load_mailboxes(&mut self, ids: &[MailboxId]) -> Result<(), Error> {
        let rows = self.tx.fetch_each(vec![self.mailboxes_query(ids)]).await?;
        self.know(rows.first().map_or(&[], Vec::as_slice))
    }

    pub(super) fn mailboxes_query(&self, ids: &[MailboxId]) -> Vec<Statement> {
        let list: Vec<Value> = ids
            .iter()
            .filter(|id| !self.mailboxes.contains_key(id))
            .map(|id| id.0.into())
            .collect();
        let text = format!("{MAILBOX} WHERE m.id IN ({{list}})");
        Statement::listed(&text, &[], &list)
    }

    /// Reads all mailboxes of an account.
    pub(super) async fn load_all(&mut self, account: AccountId) -> Result<(), Error> {
        let text = format!("{MAILBOX} WHERE m.account = ?");
        let rows = self.tx.fetch_all(&text, args![account.0]).await?;
        self.know(&rows)
    }

    pub(super) fn know(&mut self, rows: &[Row]) -> Result<(), Error> {
        for row in rows {
            let (id, state) = read_mailbox(row)?;
            // What the batch knows is newer.
            if !self.mailboxes.contains_key(&id) {
                self.enter(id, state);
            }
        }
        Ok(())
    }

    /// Takes note of a mailbox.
    pub(super) fn enter(&mut self, id: MailboxId, state: MailboxState) {
        self.names.insert((state.account, state.name.clone()), id);
        self.mailboxes.insert(id, state);
    }

    /// The mailbox of that name, among those that were read.
    pub(super) fn named(&self, account: AccountId, name: &str) -> Option<MailboxId> {
        self.names.get(&(account, name.to_owned())).copied()
    }

    /// Notes that a mailbox was changed, with the modseq of the change.
    pub(super) fn touch(&mut self, id: MailboxId, modseq: u64) {
        if let Some(state) = self.mailboxes.get_mut(&id) {
            state.modseq = state.modseq.max(modseq);
            state.dirty = true;
            self.touched.entry(state.account).or_default().insert(id);
        }
    }

    /// Writes what has changed.
    pub(super) async fn flush(&mut self) -> Result<(), Error> {
        let mut values = Vec::new();
        for (id, row) in self.accounts.iter_mut().filter(|(_, row)| row.dirty) {
            row.dirty = false;
            values.extend(args![
                id.0,
                row.modseq,
                row.next_id,
                row.uidvalidity,
                row.bytes,
                row.messages
            ]);
        }
        self.defer(
                "INSERT INTO account (id, modseq, next_id, uidvalidity, bytes, messages)",
                6,
                values,
                "{on_conflict:id} modseq = {excluded:modseq}, next_id = {excluded:next_id},
                    uidvalidity = {excluded:uidvalidity}, bytes = {excluded:bytes}, messages = {excluded:messages}",
            );
        let mut values = Vec::new();
        for (id, state) in self.mailboxes.iter_mut().filter(|(_, state)| state.dirty) {
            state.dirty = false;
            values.extend(args![
                id.0,
                state.uidnext,
                state.modseq,
                state.floor,
                state.total,
                state.unseen,
                state.deleted,
                state.bytes
            ]);
        }
        self.defer(
                "INSERT INTO mailbox_state (id, uidnext, modseq, floor, total, unseen, deleted, bytes)",
                8,
                values,
                "{on_conflict:id} uidnext = {excluded:uidnext}, modseq = {excluded:modseq}, floor = {excluded:floor},
                    total = {excluded:total}, unseen = {excluded:unseen}, deleted = {excluded:deleted},
                    bytes = {excluded:bytes}",
            );
        self.write_pending().await
    }
}
