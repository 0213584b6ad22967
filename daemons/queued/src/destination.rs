//! How many connections a destination gets.
//!
//! Slow start: it begins with a few, gains one for each round of successes, loses half for each failure of the host as a whole.
//! When the last one failed it is dead, and tried by one message only, later and later.

/// The state of one destination. Time and randomness are given.
#[derive(Debug)]
pub(crate) struct Destination {
    start: usize,
    most: usize,
    limit: usize,
    /// Successes since the limit was changed.
    successes: usize,
    active: usize,
    failures: u32,
    /// Milliseconds since 1970 until which nothing is tried.
    closed_until: u64,
}

impl Destination {
    pub(crate) fn new(start: usize, most: usize) -> Self {
        let start = start.max(1);
        Self {
            start,
            most: most.max(start),
            limit: start,
            successes: 0,
            active: 0,
            failures: 0,
            closed_until: 0,
        }
    }

    /// Whether one more may begin.
    pub(crate) fn has_room(&self, now: u64) -> bool {
        now >= self.closed_until && self.active < self.limit
    }

    /// Milliseconds since 1970 of the next probe, if it is dead now.
    pub(crate) fn closed_until(&self, now: u64) -> Option<u64> {
        (now < self.closed_until).then_some(self.closed_until)
    }

    pub(crate) fn begin(&mut self) {
        self.active += 1;
    }

    /// An attempt ended at a host that works.
    pub(crate) fn succeeded(&mut self) {
        self.active = self.active.saturating_sub(1);
        if self.failures > 0 {
            self.limit = self.start;
        }
        self.failures = 0;
        self.closed_until = 0;
        self.successes += 1;
        if self.successes >= self.limit && self.limit < self.most {
            self.limit += 1;
            self.successes = 0;
        }
    }

    /// An attempt found no host. `pause` gives the milliseconds to wait after that many failures; it is dead from now on if no
    /// other attempt is under way. Returns whether it is.
    pub(crate) fn failed(&mut self, now: u64, pause: impl FnOnce(u32) -> u64) -> bool {
        self.active = self.active.saturating_sub(1);
        self.limit = (self.limit / 2).max(1);
        self.successes = 0;
        if self.active > 0 {
            return false;
        }
        self.failures += 1;
        self.closed_until = now + pause(self.failures);
        true
    }

    /// An attempt ended that says nothing about the host.
    pub(crate) fn ended(&mut self) {
        self.active = self.active.saturating_sub(1);
    }

    /// It is known to have failed so often in a row: one attempt at a time.
    pub(crate) fn remember(&mut self, failures: u32) {
        if self.failures < failures {
            self.failures = failures;
            self.limit = 1;
        }
    }

    /// Opens it again, at an operator's word.
    pub(crate) fn reopen(&mut self) {
        self.closed_until = 0;
    }

    /// How many may be under way.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    pub(crate) fn active(&self) -> usize {
        self.active
    }

    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_starts_slowly_and_grows_by_success() {
        let mut destination = Destination::new(2, 5);
        let mut most = 0;
        for _ in 0..100 {
            while destination.has_room(0) {
                destination.begin();
            }
            most = most.max(destination.active());
            while destination.active() > 0 {
                destination.succeeded();
            }
        }
        assert_eq!(most, 5);
    }

    #[test]
    fn a_dead_one_is_probed_by_one() {
        let mut destination = Destination::new(4, 20);
        for _ in 0..4 {
            destination.begin();
        }
        for last in [false, false, false, true] {
            assert_eq!(
                destination.failed(1000, |count| u64::from(count) * 60_000),
                last
            );
        }
        assert_eq!(destination.closed_until(1000), Some(61_000));
        assert!(!destination.has_room(60_999));
        assert!(destination.has_room(61_000));
        destination.begin();
        assert!(!destination.has_room(61_000), "one probe");
        assert!(destination.failed(61_000, |count| u64::from(count) * 60_000));
        assert_eq!(destination.closed_until(61_000), Some(181_000));
        destination.begin();
        destination.succeeded();
        assert!(destination.has_room(61_000));
        assert_eq!(destination.failures(), 0);
    }
}
