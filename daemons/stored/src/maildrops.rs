//! Maildrops held by POP3 sessions: one at a time (RFC 1939 3).

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use types::AccountId;

#[derive(Debug, Default)]
pub(crate) struct Maildrops(Mutex<HashMap<AccountId, Held>>);

#[derive(Clone, Copy, Debug)]
struct Held {
    connection: u64,
    holder: u64,
}

impl Maildrops {
    fn held(&self) -> MutexGuard<'_, HashMap<AccountId, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds it, unless somebody else does. A holder whose connection to us broke asks again over a new one.
    pub(crate) fn hold(&self, account: AccountId, connection: u64, holder: u64) -> bool {
        let mut held = self.held();
        match held.get(&account) {
            Some(other) if other.holder != holder => false,
            _ => {
                held.insert(account, Held { connection, holder });
                true
            }
        }
    }

    pub(crate) fn release(&self, account: AccountId, holder: u64) {
        let mut held = self.held();
        if held.get(&account).is_some_and(|mine| mine.holder == holder) {
            held.remove(&account);
        }
    }

    /// The process behind a connection is gone, and its sessions with it.
    pub(crate) fn closed(&self, connection: u64) {
        self.held().retain(|_, held| held.connection != connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_session_holds_a_maildrop() {
        let (maildrops, account) = (Maildrops::default(), AccountId(1));
        assert!(maildrops.hold(account, 1, 10));
        assert!(maildrops.hold(account, 2, 10));
        assert!(!maildrops.hold(account, 2, 11));
        assert!(maildrops.hold(AccountId(2), 2, 11));
        maildrops.release(account, 11);
        assert!(!maildrops.hold(account, 1, 12));
        maildrops.release(account, 10);
        assert!(maildrops.hold(account, 1, 12));
        maildrops.closed(2);
        assert!(!maildrops.hold(account, 3, 13) && maildrops.hold(AccountId(2), 3, 13));
    }
}
