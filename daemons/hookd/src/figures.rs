//! What is counted, for Prometheus.

use runtime::metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

/// The figures of all sessions.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) sessions: Gauge,
    pub(crate) refused: Counter,
    pub(crate) discarded: Counter,
    pub(crate) away: Counter,
    pub(crate) stage: Histogram,
    pub(crate) message: Histogram,
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            sessions: gauge("hookd_sessions", "Sessions now"),
            refused: counter("hookd_refused_total", "Refusals of filters"),
            discarded: counter("hookd_discarded_total", "Messages that filters threw away"),
            away: counter(
                "hookd_away_total",
                "Times that a filter was away, too slow or not understood",
            ),
            stage: histogram(
                "hookd_stage_seconds",
                "A filter at a stage before the message",
            ),
            message: histogram("hookd_message_seconds", "A filter with a message"),
        }
    }
}
