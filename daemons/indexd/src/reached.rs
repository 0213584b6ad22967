//! How far an index is, account by account.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use types::{AccountId, ContentId};

/// The highest content of each account up to which all can be found.
#[derive(Debug, Default)]
pub(crate) struct Reached {
    covered: Mutex<HashMap<AccountId, ContentId>>,
    forgotten: AtomicU64,
}

impl Reached {
    fn covered_all(&self) -> MutexGuard<'_, HashMap<AccountId, ContentId>> {
        self.covered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All contents of the account up to this one can be found.
    pub(crate) fn covered(&self, account: AccountId) -> ContentId {
        self.known(account).unwrap_or_default()
    }

    /// The same; `None` if nothing was said of the account.
    pub(crate) fn known(&self, account: AccountId) -> Option<ContentId> {
        self.covered_all().get(&account).copied()
    }

    /// The accounts that are known.
    pub(crate) fn accounts(&self) -> Vec<AccountId> {
        self.covered_all().keys().copied().collect()
    }

    /// Notes what can be found from now on.
    pub(crate) fn extend(&self, reached: impl IntoIterator<Item = (AccountId, ContentId)>) {
        self.covered_all().extend(reached);
    }

    /// Nothing is known of any account.
    pub(crate) fn clear(&self) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        self.covered_all().clear();
    }

    /// Called before an account is removed: a search in between has its caller look itself.
    pub(crate) fn forget(&self, account: AccountId) {
        self.forgotten.fetch_add(1, Ordering::SeqCst);
        self.covered_all().remove(&account);
    }

    /// How often accounts were forgotten.
    pub(crate) fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::SeqCst)
    }
}
