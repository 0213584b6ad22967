//! Views: what a mailbox holds, in memory, shared by all sessions that have it open and kept current from the change log.

pub use crate::rows::Row;
use crate::rows::{Builder, RowReader, Rows};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use store::{Mailbox, Reader};
use tokio::sync::watch;
use types::{AccountId, MailboxId, ModSeq, Uid};

/// A mailbox at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its counters.
    pub mailbox: Mailbox,
    /// Its messages, by UID.
    pub rows: Rows,
}

impl Snapshot {
    /// The position of a UID.
    pub fn position(&self, uid: u32) -> Option<usize> {
        self.rows.position(uid)
    }

    /// Positions of the messages whose UIDs are in these ascending ranges.
    pub fn positions(&self, ranges: &[(u32, u32)]) -> Vec<usize> {
        let mut found = Vec::new();
        for (low, high) in ranges {
            let to = high
                .checked_add(1)
                .map_or(self.rows.len(), |next| self.rows.before(next));
            found.extend(self.rows.before(*low)..to);
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
        let mut reader = RowReader::default();
        let changed = changes
            .changed
            .into_iter()
            .map(|row| reader.row(row))
            .collect();
        let rows = old.rows.merged(changed, &changes.expunged);
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
    let mut builder = Builder::default();
    let mut rows = RowReader::default();
    let found = reader
        .messages(account, mailbox, Uid(1), |row| builder.push(rows.row(row)))
        .await?;
    let rows = builder.finish();
    Ok(found.map(|mailbox| Snapshot { mailbox, rows }))
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
    /// Sessions that want to hear of any change in an account.
    followers: HashMap<AccountId, watch::Sender<u64>>,
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

    /// A mailbox as it is now, of which nothing is kept unless somebody has it open; `None` if there is no such mailbox.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn glance(
        &self,
        account: AccountId,
        mailbox: MailboxId,
    ) -> Result<Option<Arc<Snapshot>>, store::Error> {
        let known = self.table().open.get(&mailbox).and_then(Weak::upgrade);
        let Some(view) = known.filter(|view| view.account == account) else {
            let loaded = load(&self.reader, account, mailbox).await?;
            return Ok(loaded.map(Arc::new));
        };
        let there = view.refresh(&self.reader).await?;
        Ok(there.then(|| view.current()))
    }

    fn keep(&self, view: &Arc<View>) {
        let mut table = self.table();
        table.warm.retain(|kept| !Arc::ptr_eq(kept, view));
        table.warm.push_back(Arc::clone(view));
        while table.warm.len() > self.warm {
            table.warm.pop_front();
        }
    }

    /// Changes whenever something in the account does.
    pub fn follow(&self, account: AccountId) -> watch::Receiver<u64> {
        let mut table = self.table();
        table.followers.entry(account).or_default().subscribe()
    }

    fn wake(&self, account: Option<AccountId>) {
        let mut table = self.table();
        table.followers.retain(|of, follower| {
            if account.is_none_or(|account| account == *of) {
                follower.send_modify(|count| *count = count.wrapping_add(1));
            }
            follower.receiver_count() > 0
        });
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
        self.wake(account);
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
