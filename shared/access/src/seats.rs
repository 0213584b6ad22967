//! Who is connected: in all, from one address before the login, and of one account.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use types::AccountId;

/// The connections of this daemon.
#[derive(Debug, Default)]
pub struct Connections {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    total: usize,
    strangers: HashMap<IpAddr, usize>,
    accounts: HashMap<AccountId, usize>,
}

/// A connection's place; given back when it is dropped.
#[derive(Debug)]
pub struct Seat {
    connections: Arc<Connections>,
    stranger: Option<IpAddr>,
    account: Option<AccountId>,
}

impl Connections {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a client that is not logged in; `None` when there is none. `per_address` 0 is no limit.
    pub fn admit(
        self: &Arc<Self>,
        address: Option<IpAddr>,
        total: usize,
        per_address: usize,
    ) -> Option<Seat> {
        let mut table = self.table();
        if table.total >= total {
            return None;
        }
        let stranger = address.filter(|_| per_address > 0);
        if let Some(address) = stranger {
            let count = table.strangers.entry(address).or_default();
            if *count >= per_address {
                return None;
            }
            *count += 1;
        }
        table.total += 1;
        Some(Seat {
            connections: Arc::clone(self),
            stranger,
            account: None,
        })
    }

    /// Connections now, and accounts with one.
    pub fn count(&self) -> (usize, usize) {
        let table = self.table();
        (table.total, table.accounts.len())
    }
}

fn less<K: std::hash::Hash + Eq>(table: &mut HashMap<K, usize>, key: &K) {
    let gone = table.get_mut(key).is_some_and(|count| {
        *count = count.saturating_sub(1);
        *count == 0
    });
    if gone {
        table.remove(key);
    }
}

impl Seat {
    /// The client is no stranger any more; `false` if its account has too many connections. `limit` 0 is none.
    pub fn log_in(&mut self, account: AccountId, limit: usize) -> bool {
        let mut table = self.connections.table();
        let count = table.accounts.entry(account).or_default();
        if limit > 0 && *count >= limit {
            return false;
        }
        *count += 1;
        self.account = Some(account);
        if let Some(address) = self.stranger.take() {
            less(&mut table.strangers, &address);
        }
        true
    }
}

impl Seat {
    /// The client is a stranger again; it keeps its place.
    pub fn log_out(&mut self, address: Option<IpAddr>) {
        let mut table = self.connections.table();
        if let Some(account) = self.account.take() {
            less(&mut table.accounts, &account);
        }
        if self.stranger.is_none()
            && let Some(address) = address
        {
            *table.strangers.entry(address).or_default() += 1;
            self.stranger = Some(address);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.connections.table();
        table.total = table.total.saturating_sub(1);
        if let Some(address) = &self.stranger {
            less(&mut table.strangers, address);
        }
        if let Some(account) = &self.account {
            less(&mut table.accounts, account);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn places_are_counted_and_given_back() {
        let connections = Arc::new(Connections::default());
        let address = Some("192.0.2.1".parse().unwrap());
        let mut first = connections.admit(address, 3, 1).unwrap();
        assert!(connections.admit(address, 3, 1).is_none());
        assert!(first.log_in(AccountId(1), 1));
        let mut second = connections.admit(address, 3, 1).unwrap();
        assert!(!second.log_in(AccountId(1), 1));
        first.log_out(address);
        assert!(connections.admit(address, 9, 2).is_none());
        drop(first);
        assert!(second.log_in(AccountId(1), 1));
        assert_eq!(connections.count(), (1, 1));
        drop(second);
        assert_eq!(connections.count(), (0, 0));
    }
}
