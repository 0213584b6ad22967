//! Jobs that wait in memory, in the order in which they are begun.

use crate::message::Job;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Jobs that wait: those of the highest priority first (RFC 6710 4.2), and among those the one that came first.
#[derive(Debug, Default)]
pub(crate) struct ByPriority {
    jobs: BTreeMap<(Reverse<i8>, u64), Job>,
    came: u64,
}

impl ByPriority {
    pub(crate) fn push(&mut self, job: Job) {
        let priority = job.message.head.envelope.terms.effective_priority();
        self.came += 1;
        self.jobs.insert((Reverse(priority), self.came), job);
    }

    pub(crate) fn pop(&mut self) -> Option<Job> {
        self.jobs.pop_first().map(|(_, job)| job)
    }

    /// The priority of the one that is next; the lowest if there is none.
    pub(crate) fn first_priority(&self) -> i8 {
        self.jobs
            .first_key_value()
            .map_or(i8::MIN, |((Reverse(priority), _), _)| *priority)
    }

    pub(crate) fn len(&self) -> usize {
        self.jobs.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// All of them, in their order.
    pub(crate) fn take(&mut self) -> Vec<Job> {
        std::mem::take(&mut self.jobs).into_values().collect()
    }
}
