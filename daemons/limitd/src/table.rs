//! Counts by key, so many at most.
//!
//! A table that is full makes room by looking at a few entries and forgetting the one that has used the least of its limit. So
//! nobody gets a count of his own forgotten by making many other keys: each of those has used less than the count that he wants
//! gone. Each limit has a table of its own: whoever invents senders fills that of the senders, and not that of the accounts.

use crate::rate::Rate;
use crate::window::Window;
use std::collections::HashMap;
use std::sync::Arc;

/// Entries looked at for one to forget.
const LOOKED_AT: usize = 16;

#[derive(Debug)]
struct Entry {
    key: Arc<str>,
    window: Window,
    dirty: bool,
}

/// The counts of one limit of one rule.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) rate: Rate,
    most: usize,
    /// Whether what changes is noted, to be written.
    keeps: bool,
    places: HashMap<Arc<str>, usize>,
    entries: Vec<Entry>,
    dirty: Vec<Arc<str>>,
    gone: Vec<Arc<str>>,
}

/// What is to be written of a table.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Keys, their windows, and when those are forgotten.
    pub(crate) written: Vec<(Arc<str>, String, u64)>,
    /// Keys that are no more.
    pub(crate) gone: Vec<Arc<str>>,
}

impl Table {
    pub(crate) fn new(rate: Rate, most: usize, keeps: bool) -> Self {
        Self {
            rate,
            most: most.max(1),
            keeps,
            places: HashMap::new(),
            entries: Vec::new(),
            dirty: Vec::new(),
            gone: Vec::new(),
        }
    }

    pub(crate) fn keeps(&self) -> bool {
        self.keeps
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    fn window(&self, key: &str) -> Option<&Window> {
        let place = self.places.get(key)?;
        self.entries.get(*place).map(|entry| &entry.window)
    }

    /// Milliseconds until so much more fits; `None` if it never does.
    pub(crate) fn wait(&self, key: &str, now: u64, amount: u64) -> Option<u64> {
        match self.window(key) {
            Some(window) => window.wait(self.rate, now, amount),
            None => (amount <= self.rate.amount).then_some(0),
        }
    }

    /// Counts, whatever the limit says.
    pub(crate) fn add(&mut self, key: &str, now: u64, amount: u64) {
        let place = match self.places.get(key) {
            Some(place) => *place,
            None => self.insert(key.into(), Window::default(), now),
        };
        let rate = self.rate;
        self.change(place, |window| window.add(rate, now, amount));
    }

    /// Takes back what was counted a moment ago.
    pub(crate) fn give_back(&mut self, key: &str, now: u64, amount: u64) {
        let rate = self.rate;
        if let Some(place) = self.places.get(key) {
            self.change(*place, |window| window.give_back(rate, now, amount));
        }
    }

    fn change(&mut self, place: usize, change: impl FnOnce(&mut Window)) {
        let Some(entry) = self.entries.get_mut(place) else {
            return;
        };
        change(&mut entry.window);
        if self.keeps && !std::mem::replace(&mut entry.dirty, true) {
            self.dirty.push(Arc::clone(&entry.key));
        }
    }

    fn insert(&mut self, key: Arc<str>, window: Window, now: u64) -> usize {
        if self.entries.len() >= self.most {
            self.make_room(now);
        }
        let place = self.entries.len();
        self.places.insert(Arc::clone(&key), place);
        self.entries.push(Entry {
            key,
            window,
            dirty: false,
        });
        place
    }

    fn make_room(&mut self, now: u64) {
        let len = self.entries.len();
        let looked_at = (0..LOOKED_AT.min(len)).map(|_| rand::random_range(0..len));
        let least = looked_at.min_by_key(|place| {
            self.entries
                .get(*place)
                .map_or(0, |entry| entry.window.used(self.rate, now))
        });
        if let Some(place) = least {
            self.remove(place);
        }
    }

    fn remove(&mut self, place: usize) {
        let entry = self.entries.swap_remove(place);
        self.places.remove(&entry.key);
        if let Some(moved) = self.entries.get(place) {
            self.places.insert(Arc::clone(&moved.key), place);
        }
        if self.keeps && self.gone.len() < self.most {
            self.gone.push(entry.key);
        }
    }

    /// Takes what was kept in the database.
    pub(crate) fn load(&mut self, key: &str, window: Window) {
        if self.entries.len() < self.most && !self.places.contains_key(key) {
            self.insert(key.into(), window, 0);
        }
    }

    /// Forgets what does not count any more; the database does so by itself.
    pub(crate) fn sweep(&mut self, now: u64) {
        let mut place = 0;
        while let Some(entry) = self.entries.get(place) {
            if entry.window.used(self.rate, now) == 0 {
                let noted = self.gone.len();
                self.remove(place);
                self.gone.truncate(noted);
            } else {
                place += 1;
            }
        }
        if self.places.capacity() > 4 * self.places.len() + 1024 {
            self.places.shrink_to_fit();
            self.entries.shrink_to_fit();
        }
    }

    /// What has changed since the last time.
    pub(crate) fn changes(&mut self) -> Changes {
        let mut changes = Changes {
            written: Vec::new(),
            gone: std::mem::take(&mut self.gone),
        };
        // A key that went and came again is there.
        changes.gone.retain(|key| !self.places.contains_key(key));
        for key in std::mem::take(&mut self.dirty) {
            let place = self.places.get(&key).copied();
            if let Some(entry) = place.and_then(|place| self.entries.get_mut(place)) {
                entry.dirty = false;
                let expires = entry.window.expires(self.rate);
                changes.written.push((key, entry.window.write(), expires));
            }
        }
        changes
    }

    /// They could not be written: they are still to be.
    pub(crate) fn take_back(&mut self, changes: Changes) {
        for (key, _, _) in changes.written {
            if let Some(place) = self.places.get(&key) {
                self.change(*place, |_| {});
            }
        }
        let room = self.most.saturating_sub(self.gone.len());
        self.gone.extend(changes.gone.into_iter().take(room));
    }

    /// Forgets the keys that `which` means; how many.
    pub(crate) fn reset(&mut self, which: impl Fn(&str) -> bool) -> u64 {
        let mut count = 0;
        let mut place = 0;
        while let Some(entry) = self.entries.get(place) {
            if which(&entry.key) {
                self.remove(place);
                count += 1;
            } else {
                place += 1;
            }
        }
        count
    }

    /// Keys with what they have used and how many milliseconds they have to wait.
    pub(crate) fn used(&self, now: u64) -> impl Iterator<Item = (&str, u64, u64)> {
        self.entries.iter().filter_map(move |entry| {
            let used = entry.window.used(self.rate, now);
            let wait = entry.window.wait(self.rate, now, 1).unwrap_or(0);
            (used > 0).then_some((&*entry.key, used, wait))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    #[test]
    fn what_has_used_much_is_not_forgotten() {
        let mut table = Table::new("10/1h".parse().unwrap(), 100, true);
        table.add("hot", NOW, 10);
        for number in 0..10_000 {
            table.add(&format!("flood {number}"), NOW, 1);
        }
        assert_eq!(table.len(), 100);
        assert_ne!(table.wait("hot", NOW, 1), Some(0));
        let changes = table.changes();
        assert!(changes.written.len() <= 100 && changes.gone.len() <= 100);
        assert!(changes.written.iter().any(|(key, _, _)| &**key == "hot"));
        assert_eq!(table.changes(), Changes::default());
        let hot = table.window("hot").unwrap().clone();
        table.take_back(changes);
        assert_eq!(table.changes().written.len(), 100);
        assert_eq!(table.reset(|key| key == "hot"), 1);
        assert_eq!(table.wait("hot", NOW, 10), Some(0));
        assert_eq!(table.changes().gone, ["hot".into()]);
        table.load("hot", hot);
        assert_eq!(
            table.used(NOW).find(|(key, _, _)| *key == "hot").unwrap().1,
            10
        );
        table.sweep(NOW + 2 * 3_600_000);
        assert_eq!(table.len(), 0);
        assert_eq!(table.changes(), Changes::default());
    }
}
