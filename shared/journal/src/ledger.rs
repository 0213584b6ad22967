//! Which records are live, and so which segments can go.

use crate::format::Position;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The records of a message that is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The message.
    pub put: Position,
    /// What happened to it, in the order in which it was written.
    pub notes: Vec<Position>,
}

#[derive(Debug, Default)]
struct Tally {
    /// Records of messages that are not done.
    live: u64,
    /// Older segments with records that records of this one free. While they exist, this one must.
    frees: BTreeSet<u64>,
    /// Never to be removed.
    damaged: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    entries: HashMap<u64, Entry>,
    segments: BTreeMap<u64, Tally>,
}

impl Ledger {
    pub(crate) fn add_segment(&mut self, number: u64, damaged: bool) {
        self.segments.entry(number).or_default().damaged |= damaged;
    }

    pub(crate) fn put(&mut self, id: u64, at: Position) {
        self.free(id, at.segment);
        self.count(at.segment);
        let entry = Entry {
            put: at,
            notes: Vec::new(),
        };
        self.entries.insert(id, entry);
    }

    pub(crate) fn note(&mut self, id: u64, at: Position) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.notes.push(at);
            self.count(at.segment);
        }
    }

    /// A record in `segment` frees the message. Whether there was one.
    pub(crate) fn free(&mut self, id: u64, segment: u64) -> bool {
        let Some(entry) = self.entries.remove(&id) else {
            return false;
        };
        for at in std::iter::once(&entry.put).chain(&entry.notes) {
            if let Some(tally) = self.segments.get_mut(&at.segment) {
                tally.live = tally.live.saturating_sub(1);
            }
            if at.segment != segment {
                self.segments
                    .entry(segment)
                    .or_default()
                    .frees
                    .insert(at.segment);
            }
        }
        true
    }

    /// `segment` must not go before `other`.
    pub(crate) fn outlive(&mut self, segment: u64, other: u64) {
        if segment != other {
            self.segments
                .entry(segment)
                .or_default()
                .frees
                .insert(other);
        }
    }

    fn count(&mut self, segment: u64) {
        self.segments.entry(segment).or_default().live += 1;
    }

    pub(crate) fn entry(&self, id: u64) -> Option<&Entry> {
        self.entries.get(&id)
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (u64, &Entry)> {
        self.entries.iter().map(|(id, entry)| (*id, entry))
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_damaged(&self, segment: u64) -> bool {
        self.segments
            .get(&segment)
            .is_some_and(|tally| tally.damaged)
    }

    /// The segments that nothing needs, `active` and the newest `keep` others aside, oldest first. A segment whose marks free records of another one of
    /// these is not yet among them: that one must be gone durably first.
    pub(crate) fn removable(&self, active: Option<u64>, keep: usize) -> Vec<u64> {
        let others = self
            .segments
            .keys()
            .filter(|number| Some(**number) != active);
        let old = others.count().saturating_sub(keep);
        self.segments
            .iter()
            .filter(|(number, _)| Some(**number) != active)
            .take(old)
            .filter(|(_, tally)| {
                tally.live == 0
                    && !tally
                        .frees
                        .iter()
                        .any(|freed| self.segments.contains_key(freed))
            })
            .map(|(number, _)| *number)
            .collect()
    }

    pub(crate) fn remove_segment(&mut self, number: u64) {
        self.segments.remove(&number);
    }
}
