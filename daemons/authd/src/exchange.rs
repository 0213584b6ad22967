//! SASL exchanges under way: bounded in number and time, each bound to the connection on which it began.

use std::collections::HashMap;

struct Entry<S> {
    connection: u64,
    until: u64,
    state: S,
}

/// Exchanges under way, by their number. `S` is what is remembered of each.
pub(crate) struct Exchanges<S> {
    entries: HashMap<u64, Entry<S>>,
    limit: usize,
    seconds: u64,
}

impl<S> Exchanges<S> {
    pub(crate) fn new(limit: usize, seconds: u64) -> Self {
        Self {
            entries: HashMap::new(),
            limit,
            seconds,
        }
    }

    /// Remembers an exchange under a number that was drawn for it; `false` if there are too many.
    pub(crate) fn add(&mut self, number: u64, connection: u64, state: S, now: u64) -> bool {
        if self.entries.len() >= self.limit {
            self.entries.retain(|_, entry| entry.until > now);
        }
        if self.entries.len() >= self.limit || self.entries.contains_key(&number) {
            return false;
        }
        let entry = Entry {
            connection,
            until: now + self.seconds,
            state,
        };
        self.entries.insert(number, entry);
        true
    }

    /// Takes an exchange out, if it belongs to that connection and has not expired.
    pub(crate) fn take(&mut self, number: u64, connection: u64, now: u64) -> Option<S> {
        if self.entries.get(&number)?.connection != connection {
            return None;
        }
        let entry = self.entries.remove(&number)?;
        (entry.until > now).then_some(entry.state)
    }

    /// Forgets what a connection left behind.
    pub(crate) fn closed(&mut self, connection: u64) {
        self.entries
            .retain(|_, entry| entry.connection != connection);
    }

    /// Exchanges under way.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exchanges_are_bounded_bound_and_expire() {
        let mut exchanges = Exchanges::new(2, 10);
        assert!(exchanges.add(1, 7, "a", 0));
        assert!(exchanges.add(2, 7, "b", 5));
        assert!(!exchanges.add(3, 7, "c", 9));
        assert!(exchanges.add(3, 8, "c", 10));
        assert_eq!(exchanges.take(2, 8, 11), None);
        assert_eq!(exchanges.take(2, 7, 11), Some("b"));
        assert_eq!(exchanges.take(2, 7, 11), None);
        assert_eq!(exchanges.take(3, 8, 20), None);
        assert!(exchanges.add(4, 9, "d", 20));
        exchanges.closed(9);
        assert_eq!((exchanges.take(4, 9, 20), exchanges.len()), (None, 0));
    }
}
