//! How fast a message must come. Pure: the time is a parameter.

use crate::config::Timeouts;
use std::time::{Duration, Instant};

/// The time that a message, or one chunk of it, has.
#[derive(Debug)]
pub(crate) struct Pace {
    until: Instant,
    /// Octets that a window must bring; 0 is no minimum.
    least: u64,
    window: Duration,
    since: Instant,
    had: u64,
}

impl Pace {
    /// For a message that began then.
    pub(super) fn new(timeouts: &Timeouts, began: Instant) -> Self {
        Self::at(timeouts, began, Instant::now())
    }

    fn at(timeouts: &Timeouts, began: Instant, now: Instant) -> Self {
        let window = timeouts.data_window_s.max(1);
        Self {
            until: began + Timeouts::of(timeouts.message_s),
            least: timeouts.data_rate.saturating_mul(window),
            window: Duration::from_secs(window),
            since: now,
            had: 0,
        }
    }

    /// What is left of the time for the whole message.
    pub(super) fn left(&self, now: Instant) -> Duration {
        self.until
            .saturating_duration_since(now)
            .max(Duration::from_millis(1))
    }

    /// Whether the time is over.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        now >= self.until
    }

    /// Whether the last window, which has just ended, brought too little.
    pub(super) fn is_slow(&mut self, received: u64, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) < self.window {
            return false;
        }
        let brought = received.saturating_sub(self.had);
        (self.since, self.had) = (now, received);
        brought < self.least
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trickle_ends_and_a_slow_link_does_not() {
        let timeouts = Timeouts {
            data_rate: 10,
            data_window_s: 60,
            message_s: 600,
            ..Timeouts::default()
        };
        let begin = Instant::now();
        let second = Duration::from_secs(1);
        let first_slow = |octets: u64| {
            let mut pace = Pace::at(&timeouts, begin, begin);
            (1..600).find(|at| pace.is_slow(u64::from(*at) * octets, begin + second * *at))
        };
        assert_eq!(first_slow(9), Some(60));
        assert_eq!(first_slow(10), None);
        // A pause within the window is made up for.
        let mut pace = Pace::at(&timeouts, begin, begin);
        assert!(!pace.is_slow(0, begin + second * 59) && !pace.is_slow(600, begin + second * 60));
        assert!(
            !pace.is_slow(601, begin + second * 119) && pace.is_slow(1199, begin + second * 121)
        );
        assert_eq!(pace.left(begin + second * 599), second);
        assert_eq!(pace.left(begin + second * 700), Duration::from_millis(1));
    }
}
