//! Following the store.

use crate::Config;
use crate::backend::{Library, Shelf};
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use store::{AccountRow, Reader};
use tokio::sync::Notify;
use types::{AccountId, ContentId};

/// Accounts read at one time.
const ACCOUNTS: u32 = 500;
/// Ids read at one time.
const IDS: u32 = 10_000;
/// Before trying again what failed; twice as long each further time.
const RETRY: Duration = Duration::from_secs(1);
/// The longest time before trying again.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Keeps the indexes as the store is.
pub(crate) struct Follower {
    pub library: Library,
    pub reader: Reader,
    pub config: Config,
    /// Something may have changed.
    pub hint: Notify,
    /// Why it does not go on.
    pub trouble: Mutex<String>,
    /// Held while an index is written, so that none writes what another has just made untrue.
    pub turn: tokio::sync::Mutex<()>,
    /// How many contents were behind at the last look.
    pub missing: AtomicU64,
}

impl Follower {
    /// Follows for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut purge = Instant::now();
        let idle = Duration::from_secs(self.config.idle_s);
        let every = Duration::from_secs(self.config.purge_s.max(1));
        let mut retry = RETRY;
        loop {
            let mut done = self.round().await;
            if done.is_ok() && purge.elapsed() >= every {
                purge = Instant::now();
                done = self.purge().await;
            }
            let failed = done.is_err();
            self.tell(done);
            if failed {
                // New mail does not make it any better.
                tokio::time::sleep(retry).await;
                retry = (retry * 2).min(RETRY_MAX);
                continue;
            }
            retry = RETRY;
            let wait = idle.max(Duration::from_secs(1));
            if tokio::time::timeout(wait, self.hint.notified())
                .await
                .is_ok()
            {
                // More may come along: written together, it costs less.
                tokio::time::sleep(Duration::from_millis(self.config.delay_ms)).await;
            } else {
                for shelf in self.library.all() {
                    shelf.rest(idle).await;
                }
            }
        }
    }

    fn tell(&self, done: Result<(), String>) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let now = done.err().unwrap_or_default();
        if *trouble != now {
            if now.is_empty() {
                tracing::info!("indexing goes on");
            } else {
                tracing::error!(error = %now, "indexing does not go on now");
            }
            *trouble = now;
        }
    }

    async fn accounts(&self) -> Result<Vec<AccountRow>, String> {
        let mut all: Vec<AccountRow> = Vec::new();
        loop {
            let after = all.last().map_or(AccountId(0), |row| row.id);
            let part = self
                .reader
                .accounts(after, ACCOUNTS)
                .await
                .map_err(|error| error.to_string())?;
            let last = part.len() < ACCOUNTS as usize;
            all.extend(part);
            if last {
                return Ok(all);
            }
        }
    }

    /// Brings all indexes up to the store.
    async fn round(&self) -> Result<(), String> {
        self.library.prepare().await?;
        let rows = self.accounts().await?;
        let behind = |shelf: &Shelf, row: &AccountRow| {
            let covered = shelf.reached().covered(row.id);
            row.last_content.0.saturating_sub(covered.0)
        };
        let serving = self.library.serving();
        serving.learn(&rows).await?;
        let missing = rows.iter().map(|row| behind(&serving, row)).sum();
        self.missing.store(missing, Ordering::Relaxed);
        // The serving one first: it is asked now. If it cannot go on, a rebuild still can: that is the cure.
        let building = self.library.building();
        let brought = self.bring(&serving, &rows).await;
        if brought.is_ok() {
            self.missing.store(0, Ordering::Relaxed);
        }
        // Only the one that was brought up here may serve; a rebuild may have begun meanwhile.
        if let Some(new) = building {
            new.learn(&rows).await?;
            self.bring(&new, &rows).await?;
            let _turn = self.turn.lock().await;
            self.library.switch(&new).await?;
        }
        brought
    }

    /// Brings one index up to the store. Begins anew when an account was forgotten meanwhile.
    async fn bring(&self, shelf: &Shelf, rows: &[AccountRow]) -> Result<(), String> {
        while !self.bring_once(shelf, rows).await? {}
        Ok(())
    }

    /// False if an account was forgotten meanwhile: how far it had come is then no longer true.
    async fn bring_once(&self, shelf: &Shelf, rows: &[AccountRow]) -> Result<bool, String> {
        let forgotten = shelf.reached().forgotten();
        let mut reached: Vec<(AccountId, ContentId)> = Vec::new();
        for row in rows {
            let mut at = shelf.reached().covered(row.id);
            let from = at;
            while at < row.last_content {
                let limit = self.config.batch_messages.max(1);
                let contents = self
                    .reader
                    .contents_after(
                        row.id,
                        at,
                        limit,
                        self.config.batch_bytes,
                        self.config.body_bytes,
                    )
                    .await
                    .map_err(|error| error.to_string())?;
                let Some(last) = contents.last() else {
                    // What is between was deleted.
                    at = row.last_content;
                    break;
                };
                at = last.id;
                reached.push((row.id, at));
                let _turn = self.turn.lock().await;
                if shelf.reached().forgotten() != forgotten {
                    return Ok(false);
                }
                let pending = shelf.add(row.id, contents).await?;
                if pending >= self.config.commit_messages {
                    shelf.commit(std::mem::take(&mut reached)).await?;
                }
            }
            if at > from {
                reached.push((row.id, at));
            }
        }
        let _turn = self.turn.lock().await;
        if shelf.reached().forgotten() != forgotten {
            return Ok(false);
        }
        shelf.commit(reached).await?;
        Ok(true)
    }

    /// Removes an account from all indexes; it is read again from its beginning if the store still has it.
    pub(crate) async fn forget(&self, account: AccountId) -> Result<(), String> {
        let _turn = self.turn.lock().await;
        for shelf in self.library.all() {
            shelf.forget(account).await?;
        }
        Ok(())
    }

    /// Begins a new index beside the present one.
    pub(crate) async fn rebuild(&self) -> Result<(), String> {
        let _turn = self.turn.lock().await;
        self.library.rebuild().await
    }

    /// Removes what is no longer in the store.
    async fn purge(&self) -> Result<(), String> {
        let rows = self.accounts().await?;
        let known: HashSet<AccountId> = rows.iter().map(|row| row.id).collect();
        for shelf in self.library.all() {
            for gone in shelf.strangers(&known).await? {
                self.forget(gone).await?;
            }
        }
        for row in rows {
            self.purge_account(&row).await?;
        }
        Ok(())
    }

    async fn purge_account(&self, row: &AccountRow) -> Result<(), String> {
        // The store takes contents away some time after the change that let go of them: no modseq tells, but their number.
        let count = self
            .reader
            .content_count(row.id)
            .await
            .map_err(|error| error.to_string())?;
        let mut there = None;
        for shelf in self.library.all() {
            if shelf.count(row.id).await? == count {
                continue;
            }
            let there = match &mut there {
                Some(there) => there,
                empty => empty.insert(self.ids(row.id).await?),
            };
            let mut gone = shelf.contents(row.id).await?;
            // What came after the look at the store is not gone.
            gone.retain(|id| *id <= row.last_content && !there.contains(id));
            if !gone.is_empty() {
                let _turn = self.turn.lock().await;
                shelf.remove(row.id, gone).await?;
            }
        }
        Ok(())
    }

    async fn ids(&self, account: AccountId) -> Result<HashSet<ContentId>, String> {
        let (mut all, mut after) = (HashSet::new(), ContentId(0));
        loop {
            let part = self
                .reader
                .content_ids(account, after, IDS)
                .await
                .map_err(|error| error.to_string())?;
            let last = part.len() < IDS as usize;
            after = part.last().copied().unwrap_or(after);
            all.extend(part);
            if last {
                return Ok(all);
            }
        }
    }
}
