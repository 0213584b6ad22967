//! What is counted, for Prometheus.

use runtime::metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use types::Treatment;

/// The figures of all sessions.
#[derive(Debug)]
pub struct Figures {
    /// Sessions begun.
    pub sessions: Counter,
    /// Sessions now.
    pub open: Gauge,
    /// Messages acknowledged with 250.
    pub accepted: Counter,
    /// Octets of these, as they came.
    pub octets: Counter,
    /// Messages answered 5xx after their end.
    pub refused: Counter,
    /// Messages answered 4xx after their end.
    pub postponed: Counter,
    /// Recipients that are not known.
    pub unknown: Counter,
    /// Recipients elsewhere, for a client that may not relay.
    pub relaying: Counter,
    /// Clients, senders, recipients and messages that a limit stopped.
    pub limited: Counter,
    /// Strangers on a list in DNS that were stopped for it.
    pub listed: Counter,
    /// Clients that did not wait for their turn.
    pub early: Counter,
    /// Clients that spoke another protocol.
    pub foreign: Counter,
    /// Messages that came too slowly.
    pub slow: Counter,
    /// Logins that succeeded.
    pub logins: Counter,
    /// Logins that failed.
    pub failed_logins: Counter,
    /// Messages that filters threw away: acknowledged, and not queued.
    pub discarded: Counter,
    /// Messages that filters want held in the queue.
    pub held: Counter,
    /// From handing a message to queued to its answer.
    pub commit: Histogram,
    /// What the checks of a sender took.
    pub checks: Histogram,
    /// Messages by what DMARC said of them: pass, fail, temperror, and the rest.
    dmarc: [Counter; 4],
    /// Messages that were tagged, and that went to Junk.
    suspected: [Counter; 2],
}

impl Figures {
    /// Counts a message whose sender was checked.
    pub fn checked(&self, report: &mailauth::Report, took: std::time::Duration) {
        let [pass, fail, temporary, other] = &self.dmarc;
        let counter = match report.dmarc.result {
            mailauth::Word::Pass => pass,
            mailauth::Word::Fail => fail,
            mailauth::Word::TempError => temporary,
            _ => other,
        };
        counter.add_one();
        self.checks.observe(took);
    }

    /// Counts a message that is taken although it is suspicious.
    pub fn suspected(&self, treatment: Treatment) {
        let [tagged, junk] = &self.suspected;
        match treatment {
            Treatment::Tag => tagged.add_one(),
            Treatment::Junk => junk.add_one(),
        }
    }
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            sessions: counter("smtpd_sessions_total", "Sessions begun"),
            open: gauge("smtpd_sessions", "Sessions now"),
            accepted: counter("smtpd_accepted_total", "Messages that were acknowledged"),
            octets: counter("smtpd_accepted_bytes_total", "Octets of these"),
            refused: counter("smtpd_refused_total", "Messages refused for good"),
            postponed: counter("smtpd_postponed_total", "Messages refused for now"),
            unknown: counter(
                "smtpd_recipients_refused_total{reason=\"unknown\"}",
                "Recipients refused",
            ),
            relaying: counter(
                "smtpd_recipients_refused_total{reason=\"relaying\"}",
                "Recipients refused",
            ),
            limited: counter("smtpd_limited_total", "What limits and greylisting stopped"),
            listed: counter("smtpd_listed_total", "What lists in DNS stopped"),
            early: counter(
                "smtpd_out_of_turn_total",
                "Clients that did not wait for their turn",
            ),
            foreign: counter(
                "smtpd_other_protocol_total",
                "Clients that spoke another protocol",
            ),
            slow: counter("smtpd_too_slow_total", "Messages that came too slowly"),
            logins: counter("smtpd_logins_total{result=\"ok\"}", "Logins"),
            failed_logins: counter("smtpd_logins_total{result=\"failed\"}", "Logins"),
            discarded: counter("smtpd_discarded_total", "Messages that filters threw away"),
            held: counter("smtpd_held_total", "Messages that filters want held"),
            commit: histogram(
                "smtpd_commit_seconds",
                "From handing a message to queued to its answer",
            ),
            checks: histogram("smtpd_checks_seconds", "Checks of a message's sender"),
            dmarc: ["pass", "fail", "temperror", "other"].map(|result| {
                counter(
                    &format!("smtpd_dmarc_total{{result=\"{result}\"}}"),
                    "Messages by what DMARC said",
                )
            }),
            suspected: ["tag", "junk"].map(|treatment| {
                counter(
                    &format!("smtpd_suspected_total{{treatment=\"{treatment}\"}}"),
                    "Suspicious messages that were taken",
                )
            }),
        }
    }
}
