//! When the recipients of a message are tried, when somebody looks after them, and when they are given up.

use crate::config::{Config, with_jitter};
use crate::core::{Core, now};
use crate::record::{Head, Note};
use crate::rule::{Looked, RuleConfig};
use crate::table::{LOCAL, Waiting};
use types::Route;

/// The times of a message's recipients, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    /// Not tried before.
    pub(crate) not_before: u64,
    /// When the sender is to be warned, or the message to be given up.
    pub(crate) attention: u64,
    /// When it is given up.
    pub(crate) expires: u64,
}

impl Times {
    /// Those of a new message's recipients that a rule means, or none.
    pub(crate) fn of(config: &Config, head: &Head, rule: Option<&RuleConfig>) -> Self {
        let terms = &head.envelope.terms;
        let is_report = head.envelope.sender.is_none();
        // RFC 4865 4: while it is held, no time passes for it
        let begin = head.arrived.max(terms.released());
        let ours = if is_report {
            config.expire_reports
        } else {
            config.expire
        };
        let usual = begin.saturating_add(rule.and_then(|rule| rule.expire).unwrap_or(ours));
        // RFC 2852 4.1: returned at its time, if not sooner
        let expires = terms.return_at().map_or(usual, |end| end.min(usual));
        let warning = rule
            .and_then(|rule| rule.delay_warning)
            .unwrap_or(config.delay_warning);
        let warning = (warning > 0).then(|| begin.saturating_add(warning));
        let attention = if is_report {
            expires
        } else {
            [warning, terms.notify_at()]
                .into_iter()
                .flatten()
                .fold(expires, u64::min)
        };
        Self {
            not_before: terms.released(),
            attention,
            expires,
        }
    }
}

/// When a recipient of whose delay the sender was told at `now` needs attention again: at its time limit (RFC 2852 4.1) if that
/// comes, or when it is given up.
pub(crate) fn next_attention(head: &Head, waiting: &Waiting, now: u64) -> u64 {
    let limit = head.envelope.terms.notify_at();
    limit
        .filter(|limit| *limit > now)
        .map_or(waiting.expires, |limit| limit.min(waiting.expires))
}

impl Core {
    /// The recipients of a new message that are not done.
    pub(crate) fn waiting(&self, head: &Head, note: &Note) -> Vec<Waiting> {
        if let Some(post) = self.waiting_post(head) {
            return vec![post];
        }
        let now = now();
        let mut waiting = Vec::with_capacity(head.envelope.recipients.len());
        for (index, recipient) in (0_u16..).zip(&head.envelope.recipients) {
            if note.done.contains(&index) {
                continue;
            }
            let local = recipient.route == Route::Local && !note.remote.contains(&index);
            let domain = recipient.address.domain();
            let rule = self.rules.find(&Looked::of(head, domain));
            let times = Times::of(&self.config, head, rule.map(|rule| &**rule));
            waiting.push(Waiting {
                index,
                destination: if local {
                    LOCAL.to_owned()
                } else {
                    self.rules.destination(head, domain)
                },
                route: None,
                held: head.held.is_some(),
                due: now.max(times.not_before),
                attention: times.attention,
                expires: times.expires,
                attempts: 0,
                last: None,
                priority: head.envelope.terms.effective_priority(),
                not_before: times.not_before,
            });
        }
        waiting
    }

    /// How long to wait after the next attempt at a recipient fails for now, in seconds.
    pub(crate) fn pause_for(&self, head: &Head, waiting: &Waiting) -> u64 {
        let attempts = waiting.attempts.saturating_add(1);
        let recipient = head.envelope.recipients.get(usize::from(waiting.index));
        let pause = recipient
            .and_then(|one| self.rules.find(&Looked::of(head, one.address.domain())))
            .and_then(|rule| rule.pause(attempts));
        match pause {
            Some(pause) => with_jitter(pause, rand::random()),
            None => {
                let local = waiting.destination == LOCAL;
                self.config.pause(local, attempts, rand::random())
            }
        }
    }

    /// How long a destination is left alone that has failed so often in a row, in seconds.
    pub(crate) fn pause_of(&self, destination: &str, failures: u32) -> u64 {
        let rule = self.rules.of_destination(destination);
        match rule.and_then(|rule| rule.pause(failures)) {
            Some(pause) => with_jitter(pause, rand::random()),
            None => self.config.pause(false, failures, rand::random()),
        }
    }
}
