//! When a client that waits is told that its command goes on (RFC 9585).

use std::time::{Duration, Instant};

/// The time between two such lines; `None` for none at all.
pub(super) fn pause(seconds: u64) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

/// Looks at the clock for work that is done in steps.
#[derive(Debug)]
pub(super) struct Pace {
    pause: Option<Duration>,
    last: Instant,
    /// The client is told how much is done.
    pub(super) counted: bool,
}

impl Pace {
    /// From now on, every so many seconds; 0 is never.
    pub(super) fn new(seconds: u64) -> Self {
        Self {
            pause: pause(seconds),
            last: Instant::now(),
            counted: true,
        }
    }

    /// Without saying how much is done.
    pub(super) fn uncounted(self) -> Self {
        Self {
            counted: false,
            ..self
        }
    }

    /// Whether it is time, which begins anew then.
    pub(super) fn due(&mut self) -> bool {
        let due = self.pause.is_some_and(|pause| self.last.elapsed() >= pause);
        if due {
            self.last = Instant::now();
        }
        due
    }
}
