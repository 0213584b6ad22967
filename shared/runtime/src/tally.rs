//! Counts by key, kept in bounded memory until somebody fetches them.

use crate::metrics::Counter;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Counts of things that are alike.
#[derive(Debug)]
pub struct Tally<K> {
    counts: Mutex<HashMap<K, Count>>,
    most: usize,
    dropped: Counter,
}

/// How often something was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Seconds since 1970 of the first time.
    pub first: u64,
    /// How often.
    pub count: u32,
}

impl<K: Hash + Eq> Tally<K> {
    /// Holds `most` keys; what finds no place is counted as dropped.
    pub fn new(most: usize, dropped: Counter) -> Self {
        Self {
            counts: Mutex::new(HashMap::new()),
            most,
            dropped,
        }
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<K, Count>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one.
    pub fn add(&self, key: K, now: u64) {
        self.put(
            key,
            Count {
                first: now,
                count: 1,
            },
        );
    }

    /// Counts several, as when what was fetched could not be handed on.
    pub fn put(&self, key: K, new: Count) {
        let mut counts = self.counts();
        if let Some(known) = counts.get_mut(&key) {
            known.first = known.first.min(new.first);
            known.count = known.count.saturating_add(new.count);
        } else if counts.len() < self.most {
            counts.insert(key, new);
        } else {
            self.dropped.add(u64::from(new.count));
        }
    }

    /// Fetches all of them.
    pub fn take(&self) -> Vec<(K, Count)> {
        std::mem::take(&mut *self.counts()).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_bounded() {
        let dropped = crate::metrics::counter("tally_test_dropped", "In a test.");
        let tally = Tally::new(2, dropped.clone());
        for key in ["a", "b", "a", "c", "b", "a"] {
            tally.add(key, 10);
        }
        let mut taken = tally.take();
        taken.sort_by_key(|(key, _)| *key);
        let counts: Vec<_> = taken
            .iter()
            .map(|(key, count)| (*key, count.count))
            .collect();
        assert_eq!(counts, [("a", 3), ("b", 2)]);
        assert_eq!(dropped.get(), 1);
        for (key, count) in taken {
            tally.put(key, count);
        }
        tally.add("a", 5);
        assert!(tally.take().contains(&("a", Count { first: 5, count: 4 })));
        assert!(tally.take().is_empty());
    }
}
