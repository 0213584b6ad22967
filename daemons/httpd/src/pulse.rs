//! The life of one connection: how many requests are under way, and when the last one ended.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Shared by a connection and the requests on it.
#[derive(Debug)]
pub(crate) struct Pulse {
    beat: Mutex<Beat>,
    most: u32,
    full: Notify,
}

#[derive(Debug)]
struct Beat {
    under_way: u32,
    begun: u32,
    last: Instant,
}

/// A request that is under way until this is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay<'a>(&'a Pulse);

impl Pulse {
    /// For `most` requests.
    pub(crate) fn new(most: u32) -> Self {
        Self {
            beat: Mutex::new(Beat {
                under_way: 0,
                begun: 0,
                last: Instant::now(),
            }),
            most,
            full: Notify::new(),
        }
    }

    fn beat(&self) -> MutexGuard<'_, Beat> {
        self.beat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request begins.
    pub(crate) fn begin(&self) -> UnderWay<'_> {
        let mut beat = self.beat();
        beat.under_way += 1;
        beat.begun = beat.begun.saturating_add(1);
        if beat.begun >= self.most {
            self.full.notify_one();
        }
        UnderWay(self)
    }

    /// Requests so far.
    pub(crate) fn begun(&self) -> u32 {
        self.beat().begun
    }

    /// Waits until nothing was under way for so long.
    pub(crate) async fn idle(&self, limit: Duration) {
        loop {
            let until = {
                let beat = self.beat();
                let since = match beat.under_way {
                    0 => beat.last,
                    _ => Instant::now(),
                };
                since + limit
            };
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }

    /// Waits until it has had all requests that it may have.
    pub(crate) async fn full(&self) {
        self.full.notified().await;
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut beat = self.0.beat();
        beat.under_way = beat.under_way.saturating_sub(1);
        beat.last = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn idle_is_counted_from_the_last_answer() {
        let limit = Duration::from_millis(40);
        let began = Instant::now();
        let pulse = Pulse::new(2);
        let request = pulse.begin();
        let mut idle = std::pin::pin!(pulse.idle(limit));
        let soon = Duration::from_millis(100);
        assert!(tokio::time::timeout(soon, idle.as_mut()).await.is_err());
        drop(request);
        idle.await;
        assert!(began.elapsed() >= Duration::from_millis(140));
        let full = pulse.full();
        drop(pulse.begin());
        full.await;
        assert_eq!(pulse.begun(), 2);
    }
}
