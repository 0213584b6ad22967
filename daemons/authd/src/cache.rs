//! Answers kept in memory: bounded, expiring, and void after each change of the directory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// Counts the changes of the directory; shared by all caches.
#[derive(Clone, Debug, Default)]
pub(crate) struct Generation(Arc<AtomicU64>);

impl Generation {
    /// Voids what is cached.
    pub(crate) fn advance(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }

    /// To be read before the database is.
    pub(crate) fn current(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

struct Entry<V> {
    value: V,
    made: Instant,
    generation: u64,
}

/// Cached answers by key.
pub(crate) struct Cache<V> {
    entries: RwLock<HashMap<String, Entry<V>>>,
    generation: Generation,
    limit: usize,
    fresh: Duration,
    stale: Duration,
}

impl<V: Clone> Cache<V> {
    pub(crate) fn new(
        generation: Generation,
        limit: usize,
        fresh: Duration,
        stale: Duration,
    ) -> Self {
        Self {
            entries: RwLock::default(),
            generation,
            limit: limit.max(1),
            fresh,
            stale,
        }
    }

    /// A fresh answer.
    pub(crate) fn get(&self, key: &str) -> Option<V> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(key)?;
        let fresh =
            entry.generation == self.generation.current() && entry.made.elapsed() < self.fresh;
        fresh.then(|| entry.value.clone())
    }

    /// An answer that was good lately, for when the database cannot be asked.
    pub(crate) fn get_stale(&self, key: &str) -> Option<V> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(key)?;
        let usable = entry.generation == self.generation.current()
            && entry.made.elapsed() < self.fresh + self.stale;
        usable.then(|| entry.value.clone())
    }

    /// Keeps an answer that was read when the directory was at `generation`.
    pub(crate) fn put(&self, key: String, value: V, generation: u64) {
        if generation != self.generation.current() {
            return;
        }
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= self.limit && !entries.contains_key(&key) {
            let keep = self.fresh;
            entries
                .retain(|_, entry| entry.generation == generation && entry.made.elapsed() < keep);
            if entries.len() >= self.limit {
                // Whoever floods us with keys loses the cache's help, not our memory.
                entries.clear();
            }
        }
        let entry = Entry {
            value,
            made: Instant::now(),
            generation,
        };
        entries.insert(key, entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_expire_with_changes_and_are_bounded() {
        let generation = Generation::default();
        let hour = Duration::from_secs(3600);
        let cache = Cache::new(generation.clone(), 10, hour, hour);
        let now = generation.current();
        cache.put("a".into(), 1, now);
        assert_eq!(cache.get("a"), Some(1));
        generation.advance();
        assert_eq!((cache.get("a"), cache.get_stale("a")), (None, None));
        // Read before the change: not kept.
        cache.put("a".into(), 1, now);
        assert_eq!(cache.get("a"), None);
        for n in 0..100 {
            cache.put(n.to_string(), n, generation.current());
        }
        assert!(
            cache
                .entries
                .read()
                .is_ok_and(|entries| entries.len() <= 10)
        );
        let stale = Cache::new(generation.clone(), 10, Duration::ZERO, hour);
        stale.put("a".into(), 2, generation.current());
        assert_eq!((stale.get("a"), stale.get_stale("a")), (None, Some(2)));
    }
}
