//! limitd, as smtpd asks it: only at the stages that its rules need, and never for long.

use ipc::api::limitd::{GiveBack, Weigh, Weighed};
use ipc::{Client, Fault, FaultKind};
use runtime::metrics::{Counter, counter};
use serde::Deserialize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use types::TraceId;

/// How long it may think: it answers from memory, but for what greylisting reads.
const ANSWER: Duration = Duration::from_secs(5);
/// The same when it did not answer before: others must not wait for it, one after the other.
const PROBE: Duration = Duration::from_millis(250);
/// How long its socket may need when it was there a moment ago.
const CONNECT: Duration = Duration::from_secs(1);

/// What is read of the section `[limitd]`: limitd itself checks the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Section {
    enabled: bool,
    away: String,
    rule: Vec<Rule>,
    greylist: Greylist,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Rule {
    count: String,
    key: Vec<String>,
    recipient: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Greylist {
    enabled: bool,
}

/// At which stages limitd is asked, and what is done while it is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// When a client connects.
    pub connect: bool,
    /// At MAIL.
    pub mail: bool,
    /// At RCPT with a recipient that is here.
    pub recipient: bool,
    /// At RCPT with one that is not.
    pub unknown: bool,
    /// After the message.
    pub message: bool,
    /// Clients are told to come again while it is away.
    pub later: bool,
}

impl Section {
    /// `None` if there is nothing to ask.
    pub(crate) fn asked(&self) -> Option<Asked> {
        if !self.enabled || (self.rule.is_empty() && !self.greylist.enabled) {
            return None;
        }
        let counts = |counts: &[&str]| {
            self.rule
                .iter()
                .any(|rule| counts.contains(&rule.count.as_str()))
        };
        let by_recipient = self.rule.iter().any(|rule| {
            !rule.recipient.is_empty() || rule.key.iter().any(|part| part.starts_with("recipient"))
        });
        // Without a word it is messages.
        Some(Asked {
            connect: counts(&["connections", "unknown"]),
            mail: counts(&["", "messages", "octets", "unknown"]),
            recipient: self.greylist.enabled || counts(&["recipients"]) || by_recipient,
            unknown: counts(&["unknown"]),
            message: self.greylist.enabled || counts(&["", "messages", "recipients", "octets"]),
            later: self.away == "later",
        })
    }
}

/// The connection to limitd.
#[derive(Debug)]
pub struct Limitd {
    client: Client,
    away: AtomicBool,
    unanswered: Counter,
}

impl Limitd {
    /// Asks through this connection.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            away: AtomicBool::new(false),
            unanswered: counter(
                "smtpd_limitd_away_total",
                "Questions that limitd did not answer",
            ),
        }
    }

    /// Asks; a fault says that it is away.
    pub(crate) async fn weigh(&self, trace: TraceId, weigh: &Weigh) -> Result<Weighed, Fault> {
        let away = self.away.load(Ordering::Relaxed);
        let limit = if away { PROBE } else { ANSWER };
        let there = self.client.is_connected() || (!away && self.client.ready(CONNECT).await);
        let answer = if there {
            let call = self.client.call_with(trace, weigh, Vec::new(), limit).await;
            call.map(|(weighed, _)| weighed).map_err(Fault::from)
        } else {
            Err(Fault::new(FaultKind::Temporary, "limitd is away"))
        };
        match &answer {
            Ok(_) => {
                if self.away.swap(false, Ordering::Relaxed) {
                    tracing::info!("limitd is there again");
                }
            }
            Err(fault) => {
                self.unanswered.add_one();
                if !self.away.swap(true, Ordering::Relaxed) {
                    tracing::error!(%fault, "limitd is away: nothing is counted until it is there again");
                }
            }
        }
        answer
    }

    pub(crate) async fn give_back(&self, trace: TraceId, weigh: Weigh) {
        if self.client.is_connected() {
            let back = GiveBack { weigh };
            let call = self.client.call_with(trace, &back, Vec::new(), ANSWER);
            if let Err(error) = call.await {
                tracing::debug!(%trace, %error, "what was counted is not given back");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn section(rule: Rule, greylist: bool) -> Section {
        Section {
            enabled: true,
            rule: vec![rule],
            greylist: Greylist { enabled: greylist },
            ..Section::default()
        }
    }

    #[test]
    fn it_is_asked_only_where_it_must_be() {
        let counting = |count: &str| Rule {
            count: count.to_owned(),
            ..Rule::default()
        };
        let asked = |rule, greylist| section(rule, greylist).asked().unwrap();
        let messages = asked(counting(""), false);
        assert!(messages.mail && messages.message && !messages.recipient && !messages.connect);
        let connections = asked(counting("connections"), false);
        assert!(connections.connect && !connections.mail && !connections.message);
        let recipients = asked(counting("recipients"), false);
        assert!(recipients.recipient && recipients.message && !recipients.mail);
        let unknown = asked(counting("unknown"), false);
        assert!(unknown.unknown && unknown.connect && !unknown.message);
        let keyed = Rule {
            key: vec!["recipient_domain".to_owned()],
            ..Rule::default()
        };
        assert!(asked(keyed, false).recipient);
        let grey = asked(counting("connections"), true);
        assert!(grey.recipient && grey.message && !grey.later);
        let mut off = section(counting(""), true);
        off.enabled = false;
        assert_eq!(off.asked(), None);
        assert_eq!(
            Section {
                enabled: true,
                ..Section::default()
            }
            .asked(),
            None
        );
    }
}
