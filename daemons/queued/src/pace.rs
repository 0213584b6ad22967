//! So many messages to one destination in a period.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;

/// So many messages in so many seconds: `100/1h`, `5/10s`, `1/90`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rate {
    /// Messages, 1 to 100,000.
    pub messages: u32,
    /// Seconds, 1 to 604,800.
    pub seconds: u64,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || {
            format!("{text:?} is no rate: write messages and a period, like 100/1h, 5/10s or 1/90")
        };
        let (messages, period) = text.split_once('/').ok_or_else(fault)?;
        let (number, unit) = match period.char_indices().next_back() {
            Some((at, unit)) if unit.is_ascii_alphabetic() => {
                (period.get(..at).unwrap_or_default(), unit)
            }
            _ => (period, 's'),
        };
        let unit = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(fault()),
        };
        let count: u64 = if number.is_empty() {
            1
        } else {
            number.parse().map_err(|_| fault())?
        };
        let rate = Self {
            messages: messages.trim().parse().map_err(|_| fault())?,
            seconds: count.saturating_mul(unit),
        };
        if !(1..=100_000).contains(&rate.messages) || !(1..=604_800).contains(&rate.seconds) {
            return Err(format!(
                "{text:?}: a rate is of 1 to 100,000 messages in 1 second to 7 days"
            ));
        }
        Ok(rate)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, unit) = match self.seconds {
            seconds if seconds % 86_400 == 0 => (seconds / 86_400, "d"),
            seconds if seconds % 3600 == 0 => (seconds / 3600, "h"),
            seconds if seconds % 60 == 0 => (seconds / 60, "m"),
            seconds => (seconds, "s"),
        };
        write!(f, "{}/{count}{unit}", self.messages)
    }
}

impl TryFrom<String> for Rate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Rate> for String {
    fn from(rate: Rate) -> Self {
        rate.to_string()
    }
}

/// Keeps a rate exactly: in no period, wherever it begins, more messages than it allows. Time is given, in milliseconds.
#[derive(Debug)]
pub(crate) struct Pace {
    rate: Rate,
    /// When the last ones were begun.
    begun: VecDeque<u64>,
}

impl Pace {
    pub(crate) fn new(rate: Rate) -> Self {
        Self {
            rate,
            begun: VecDeque::new(),
        }
    }

    fn forget(&mut self, now: u64) {
        let period = self.rate.seconds.saturating_mul(1000);
        while self.begun.front().is_some_and(|at| at + period <= now) {
            self.begun.pop_front();
        }
    }

    /// How many more may begin now.
    pub(crate) fn left(&mut self, now: u64) -> usize {
        self.forget(now);
        (self.rate.messages as usize).saturating_sub(self.begun.len())
    }

    /// When the next one may begin.
    pub(crate) fn next(&mut self, now: u64) -> u64 {
        if self.left(now) > 0 {
            return now;
        }
        let period = self.rate.seconds.saturating_mul(1000);
        self.begun.front().map_or(now, |at| at + period)
    }

    pub(crate) fn begin(&mut self, now: u64) {
        self.begun.push_back(now);
    }

    /// Whether it remembers nothing that counts.
    pub(crate) fn is_idle(&mut self, now: u64) -> bool {
        self.forget(now);
        self.begun.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rates_are_read_and_written() {
        for (text, messages, seconds, again) in [
            ("100/1h", 100, 3600, "100/1h"),
            ("5/10s", 5, 10, "5/10s"),
            ("1/90", 1, 90, "1/90s"),
            ("60/m", 60, 60, "60/1m"),
            ("7/7d", 7, 604_800, "7/7d"),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!((rate.messages, rate.seconds), (messages, seconds));
            assert_eq!(rate.to_string(), again);
        }
        for bad in [
            "", "5", "0/1s", "5/0s", "5/1w", "x/1s", "5/8d", "-1/1s", "5/1µ",
        ] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
    }

    #[test]
    fn no_period_has_more_than_the_rate() {
        let mut pace = Pace::new("3/10s".parse().unwrap());
        let mut begun = Vec::new();
        for now in (0..60_000).step_by(700) {
            if pace.left(now) > 0 {
                pace.begin(now);
                begun.push(now);
            } else {
                assert!(pace.next(now) > now);
            }
        }
        for window in begun.windows(4) {
            assert!(window.last().unwrap() - window.first().unwrap() >= 10_000);
        }
        assert!(begun.len() >= 15);
        assert!(!pace.is_idle(60_000) && pace.is_idle(70_000));
    }
}
