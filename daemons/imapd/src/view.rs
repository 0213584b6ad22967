//! Views: what a mailbox holds, in memory, shared by all sessions that have it open and kept current from the change log.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use store::{Mailbox, MessageRow, Reader};
use tokio::sync::watch;
use types::{AccountId, MailboxId, ModSeq, Uid};

/// A mailbox at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its counters.
    pub mailbox: Mailbox,
    /// Its messages, by UID.
    pub rows: Vec<Row>,
}

/// A message of a [`Snapshot`]; small, since there may be a million.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// UID.
    pub uid: u32,
    /// System flags.
    pub system: store::SystemFlags,
    /// Keywords; most messages have none.
    pub keywords: Option<Arc<str>>,
    /// MODSEQ.
    pub modseq: u64,
    /// RFC822.SIZE.
    pub size: u64,
    /// INTERNALDATE, seconds since 1970.
    pub date: i64,
    /// What it is.
    pub content: types::ContentId,
    /// EMAILID.
    pub email: types::EmailId,
    /// THREADID.
    pub thread: types::ThreadId,
}

impl From<MessageRow> for Row {
    fn from(row: MessageRow) -> Self {
        Self {
            uid: row.uid.0,
            system: row.flags.system,
            keywords: (!row.flags.keywords.is_empty()).then(|| row.flags.keywords.into()),
            modseq: row.modseq.0,
            size: row.size,
            date: row.date,
            content: row.content,
            email: row.email,
            thread: row.thread,
        }
    }
}

impl Snapshot {
    /// The position of a UID.
    pub fn position(&self, uid: u32) -> Option<usize> {
        self.rows.binary_search_by_key(&uid, |row| row.uid).ok()
    }

    /// Positions of the messages whose UIDs are in these ascending ranges.
    pub fn positions(&self, ranges: &[(u32, u32)]) -> Vec<usize> {
        let mut found = Vec::new();
        for (low, high) in ranges {
            let from = self.rows.partition_point(|row| row.uid < *low);
            let to = self.rows.partition_point(|row| row.uid <= *high);
            found.extend(from..to);
        }
        found
    }
}

/// A mailbox that sessions have open.
#[derive(Debug)]
pub struct View {
    account: AccountId,
    mailbox: MailboxId,
    current: watch::Sender<Arc<Snapshot>>,
    refreshing: tokio::sync::Mutex<()>,
}

impl View {
    /// The mailbox as it was last read.
    pub fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current.borrow())
    }

    /// Changes when the mailbox did.
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.current.subscribe()
    }

    /// Reads what has changed. `false` if the mailbox is gone.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn refresh(&self, reader: &Reader) -> Result<bool, store::Error> {
        let _one = self.refreshing.lock().await;
        let old = self.current();
        let Some(changes) = reader
            .changes(self.account, self.mailbox, old.mailbox.modseq)
            .await?
        else {
            return Ok(false);
        };
        if changes.mailbox.uidvalidity != old.mailbox.uidvalidity || !changes.complete {
            return self.load(reader).await;
        }
        if changes.changed.is_empty() && changes.expunged.is_empty() {
            if changes.mailbox != old.mailbox {
                let snapshot = Snapshot {
                    mailbox: changes.mailbox,
                    rows: old.rows.clone(),
                };
                self.current.send_replace(Arc::new(snapshot));
            }
            return Ok(true);
        }
        let rows = merged(&old.rows, changes.changed, &changes.expunged);
        self.current.send_replace(Arc::new(Snapshot {
            mailbox: changes.mailbox,
            rows,
        }));
        Ok(true)
    }

    async fn load(&self, reader: &Reader) -> Result<bool, store::Error> {
        let Some(snapshot) = load(reader, self.account, self.mailbox).await? else {
            return Ok(false);
        };
        self.current.send_replace(Arc::new(snapshot));
        Ok(true)
    }
}

async fn load(
    reader: &Reader,
    account: AccountId,
    mailbox: MailboxId,
) -> Result<Option<Snapshot>, store::Error> {
    let mut rows = Vec::new();
    let found = reader
        .messages(account, mailbox, Uid(1), |row| rows.push(Row::from(row)))
        .await?;
    Ok(found.map(|mailbox| Snapshot { mailbox, rows }))
}

/// Old rows with changed ones in their place, new ones behind, and without those that are gone.
fn merged(old: &[Row], changed: Vec<MessageRow>, expunged: &[(u32, u32)]) -> Vec<Row> {
    let mut rows = Vec::with_capacity(old.len() + changed.len());
    let mut changed = changed.into_iter().map(Row::from).peekable();
    let mut gone = expunged.iter().copied().peekable();
    let mut is_gone = |uid: u32| {
        while gone.next_if(|(_, high)| *high < uid).is_some() {}
        gone.peek().is_some_and(|(low, _)| *low <= uid)
    };
    for row in old {
        while let Some(before) = changed.next_if(|new| new.uid < row.uid) {
            rows.push(before);
        }
        match changed.next_if(|new| new.uid == row.uid) {
            Some(new) => rows.push(new),
            None if is_gone(row.uid) => {}
            None => rows.push(row.clone()),
        }
    }
    rows.extend(changed);
    rows
}

/// All views of this process.
#[derive(Debug)]
pub struct Views {
    reader: Reader,
    table: Mutex<Table>,
    warm: usize,
}

#[derive(Debug, Default)]
struct Table {
    open: HashMap<MailboxId, Weak<View>>,
    /// The ones used last, kept for the next session.
    warm: std::collections::VecDeque<Arc<View>>,
}

impl Views {
    /// None open yet; `warm` are kept when nobody has them open.
    pub fn new(reader: Reader, warm: usize) -> Self {
        Self {
            reader,
            table: Mutex::default(),
            warm,
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The view of a mailbox, current now; `None` if there is no such mailbox.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn open(
        &self,
        account: AccountId,
        mailbox: MailboxId,
    ) -> Result<Option<Arc<View>>, store::Error> {
        let known = self
            .table()
            .open
            .get(&mailbox)
            .and_then(Weak::upgrade)
            .filter(|view| view.account == account);
        if let Some(view) = known {
            let there = view.refresh(&self.reader).await?;
            self.keep(&view);
            return Ok(there.then_some(view));
        }
        let Some(snapshot) = load(&self.reader, account, mailbox).await? else {
            return Ok(None);
        };
        let view = Arc::new(View {
            account,
            mailbox,
            current: watch::Sender::new(Arc::new(snapshot)),
            refreshing: tokio::sync::Mutex::default(),
        });
        // Two sessions may have read it at the same time: one of both stays.
        let mut table = self.table();
        let view = match table.open.get(&mailbox).and_then(Weak::upgrade) {
            Some(other) => other,
            None => {
                table.open.retain(|_, view| view.strong_count() > 0);
                table.open.insert(mailbox, Arc::downgrade(&view));
                view
            }
        };
        drop(table);
        self.keep(&view);
        Ok(Some(view))
    }

    fn keep(&self, view: &Arc<View>) {
        let mut table = self.table();
        table.warm.retain(|kept| !Arc::ptr_eq(kept, view));
        table.warm.push_back(Arc::clone(view));
        while table.warm.len() > self.warm {
            table.warm.pop_front();
        }
    }

    /// How many are in memory.
    pub fn count(&self) -> usize {
        self.table()
            .open
            .values()
            .filter(|view| view.strong_count() > 0)
            .count()
    }

    /// stored says that an account has changed: those views that somebody looks at are read again. The others are when
    /// they are opened.
    pub fn changed(
        self: &Arc<Self>,
        account: Option<AccountId>,
        modseq: ModSeq,
        mailboxes: &[MailboxId],
    ) {
        let concerned: Vec<Arc<View>> = {
            let table = self.table();
            let view = |id: &MailboxId| table.open.get(id).and_then(Weak::upgrade);
            if mailboxes.is_empty() {
                table.open.values().filter_map(Weak::upgrade).collect()
            } else {
                mailboxes.iter().filter_map(view).collect()
            }
        };
        for view in concerned {
            let mine = account.is_none_or(|account| account == view.account);
            let news = account.is_none() || view.current.borrow().mailbox.modseq < modseq;
            if !mine || !news || view.current.receiver_count() == 0 {
                continue;
            }
            let views = Arc::clone(self);
            tokio::spawn(async move {
                match view.refresh(&views.reader).await {
                    Ok(true) => {}
                    // Sessions find out when they look.
                    Ok(false) => view.current.send_modify(|_| ()),
                    Err(error) => tracing::warn!(%error, "a mailbox cannot be read again now"),
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use store::Flags;

    fn message(uid: u32, modseq: u64) -> MessageRow {
        MessageRow {
            uid: Uid(uid),
            flags: Flags::default(),
            modseq: ModSeq(modseq),
            size: 1,
            date: 0,
            saved: 0,
            email: types::EmailId(1),
            thread: types::ThreadId(1),
            content: types::ContentId(1),
        }
    }

    #[test]
    fn changes_are_merged_by_uid() {
        let old: Vec<Row> = [2, 4, 6, 8, 10]
            .map(|uid| Row::from(message(uid, 1)))
            .to_vec();
        let new = merged(
            &old,
            vec![message(4, 2), message(11, 2), message(12, 2)],
            &[(1, 3), (8, 8)],
        );
        let seen: Vec<(u32, u64)> = new.iter().map(|row| (row.uid, row.modseq)).collect();
        assert_eq!(seen, [(4, 2), (6, 1), (10, 1), (11, 2), (12, 2)]);
    }
}
