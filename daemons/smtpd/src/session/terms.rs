//! What a sender asks for besides delivery: to be held (RFC 4865), a priority (RFC 6710), a time limit (RFC 2852).

use super::Session;
use crate::backend::Backend;
use crate::config::ListenerRole;
use smtp::{Hold, MailParameters};
use std::fmt::Write as _;
use tokio::io::{AsyncRead, AsyncWrite};
use types::{ByMode, DeliverBy, Enhanced, Release, Terms, moment};

/// A refusal: code, enhanced code, text.
type Refusal = (u16, Enhanced, &'static str);

/// How long a message that is to be held at all may be in hand before that: clocks differ.
const LATE: u64 = 300;

impl<S: AsyncRead + AsyncWrite + Unpin + Send, B: Backend> Session<S, B> {
    /// The lines for the answer to EHLO, each with a line feed before it.
    pub(super) fn offer_terms(&self, text: &mut String, now: u64) {
        let terms = &self.service.policy.terms;
        if self.holds() {
            // RFC 4865 4: the longest interval, and the last time, which is the same now
            let last = moment::date_time(now.saturating_add(terms.future_release));
            let _ = write!(text, "\nFUTURERELEASE {} {last}", terms.future_release);
        }
        if terms.priority {
            text.push_str("\nMT-PRIORITY");
            if !terms.priority_policy.is_empty() {
                let _ = write!(text, " {}", terms.priority_policy);
            }
        }
        if terms.deliver_by {
            text.push_str("\nDELIVERBY");
            if terms.deliver_by_min > 0 {
                let _ = write!(text, " {}", terms.deliver_by_min);
            }
        }
    }

    /// RFC 4865 3: only submissions are held.
    fn holds(&self) -> bool {
        self.door.role == ListenerRole::Submission && self.service.policy.terms.future_release > 0
    }

    /// The terms that MAIL's parameters ask for, as far as they are granted.
    pub(super) fn terms(&self, asked: &MailParameters, now: u64) -> Result<Terms, Refusal> {
        let policy = &self.service.policy.terms;
        let release = self.release(asked.hold, now)?;
        let priority = match asked.priority {
            Some(_) if !policy.priority => {
                return Err((555, Enhanced(5, 5, 4), "MT-PRIORITY is not offered"));
            }
            // RFC 6710 4.1: policy decides what is granted; what is lowered may always be asked for
            asked => asked.map(|wanted| wanted.min(self.highest_priority())),
        };
        let by = match asked.by {
            None => None,
            Some(_) if !policy.deliver_by => {
                return Err((555, Enhanced(5, 5, 4), "DELIVERBY is not offered"));
            }
            // RFC 2852 4: below the minimum that EHLO told
            Some(by)
                if by.mode == ByMode::Return && by.seconds < i64::from(policy.deliver_by_min) =>
            {
                return Err((
                    555,
                    Enhanced(5, 5, 4),
                    "The time limit is too short; EHLO tells the minimum",
                ));
            }
            Some(by) => Some(DeliverBy {
                deadline: now.saturating_add_signed(by.seconds),
                mode: by.mode,
                trace: by.trace,
            }),
        };
        let terms = Terms {
            release,
            priority,
            by,
        };
        // RFC 4865 5.2.2: whatever is to happen at the time limit
        if release.is_some() && by.is_some_and(|by| by.deadline <= terms.released()) {
            return Err((
                501,
                Enhanced(5, 5, 4),
                "The time limit would be over before the message is released",
            ));
        }
        Ok(terms)
    }

    fn release(&self, hold: Option<Hold>, now: u64) -> Result<Option<Release>, Refusal> {
        let Some(hold) = hold else { return Ok(None) };
        if !self.holds() {
            return Err((555, Enhanced(5, 5, 4), "FUTURERELEASE is not offered here"));
        }
        let (mut at, interval) = match hold {
            Hold::For(seconds) => (now.saturating_add(u64::from(seconds)), Some(seconds)),
            Hold::Until(at) => (at, None),
        };
        // RFC 4865 4: beyond what EHLO told
        if at > now.saturating_add(self.service.policy.terms.future_release) {
            return Err((
                501,
                Enhanced(5, 5, 4),
                "That is too far in the future; EHLO tells the limit",
            ));
        }
        if at.saturating_add(LATE) < now {
            return Err((501, Enhanced(5, 5, 4), "That time is over"));
        }
        if interval.is_some() {
            // The second that has begun is not over: never before its time.
            at = at.saturating_add(1);
        }
        Ok(Some(Release { at, interval }))
    }

    fn highest_priority(&self) -> i8 {
        let terms = &self.service.policy.terms;
        if self.login.is_some() || self.peer.trusted || self.peer.may_relay {
            terms.priority_known
        } else {
            terms.priority_others
        }
    }
}
