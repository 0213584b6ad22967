//! Figures for Prometheus.

use runtime::metrics::{self, Counter, Gauge, Histogram};

/// Figures since the start.
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) accepted: Counter,
    pub(crate) held: Counter,
    pub(crate) delivered: Counter,
    pub(crate) relayed: Counter,
    pub(crate) deferred: Counter,
    pub(crate) failed: Counter,
    pub(crate) refused: Counter,
    pub(crate) reports: Counter,
    pub(crate) in_journal: Gauge,
    pub(crate) commit: Histogram,
}

impl Counters {
    pub(crate) fn new() -> Self {
        Self {
            accepted: metrics::counter("queued_accepted_total", "Messages that were accepted"),
            held: metrics::counter(
                "queued_held_total",
                "Messages of these that are held as a filter wants it",
            ),
            delivered: metrics::counter("queued_delivered_total", "Recipients delivered to here"),
            relayed: metrics::counter("queued_relayed_total", "Recipients handed to other hosts"),
            deferred: metrics::counter(
                "queued_deferred_total",
                "Attempts for a recipient that failed for now",
            ),
            failed: metrics::counter("queued_failed_total", "Recipients given up"),
            refused: metrics::counter("queued_refused_total", "Commits that were refused"),
            reports: metrics::counter("queued_reports_total", "Reports written to senders"),
            in_journal: metrics::gauge(
                "queued_journal_messages",
                "Messages whose first attempts are not over",
            ),
            commit: metrics::histogram(
                "queued_commit_seconds",
                "Time from a commit's call to its answer",
            ),
        }
    }
}
