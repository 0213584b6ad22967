//! So much in a period, as the configuration writes it.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The longest period: 31 days.
const PERIOD_MAX: u64 = 31 * 86_400;
/// The most in a period.
const AMOUNT_MAX: u64 = 1 << 50;

/// So much in so many seconds: `100/1h`, `20M/1d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How much: messages, recipients, octets.
    pub amount: u64,
    /// Seconds.
    pub period: u64,
}

/// One or more of them, all of which hold: `20/1m, 500/1d`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Rates(pub Vec<Rate>);

fn number(text: &str, units: &[(char, u64)]) -> Option<u64> {
    let (digits, unit) = match text.char_indices().next_back() {
        Some((at, letter)) if letter.is_ascii_alphabetic() => {
            let unit = units.iter().find(|(name, _)| *name == letter)?.1;
            (text.get(..at)?, unit)
        }
        _ => (text, 1),
    };
    let count: u64 = if digits.is_empty() && unit > 1 {
        1
    } else {
        digits.parse().ok()?
    };
    count.checked_mul(unit)
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || {
            format!(
                "{text:?} is no rate: write an amount and a period, like 100/1h, 5/10s or 20M/1d"
            )
        };
        let (amount, period) = text.split_once('/').ok_or_else(fault)?;
        let sizes = [('K', 1 << 10), ('M', 1 << 20), ('G', 1 << 30)];
        let times = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)];
        let rate = Self {
            amount: number(amount.trim(), &sizes).ok_or_else(fault)?,
            period: number(period.trim(), &times).ok_or_else(fault)?,
        };
        if !(1..=AMOUNT_MAX).contains(&rate.amount) || !(1..=PERIOD_MAX).contains(&rate.period) {
            return Err(format!(
                "{text:?}: a rate is of 1 or more in 1 second to 31 days"
            ));
        }
        Ok(rate)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, unit) = match self.period {
            seconds if seconds % 86_400 == 0 => (seconds / 86_400, "d"),
            seconds if seconds % 3600 == 0 => (seconds / 3600, "h"),
            seconds if seconds % 60 == 0 => (seconds / 60, "m"),
            seconds => (seconds, "s"),
        };
        write!(f, "{}/{count}{unit}", self.amount)
    }
}

impl TryFrom<String> for Rates {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let rates: Vec<Rate> = text
            .split(',')
            .map(|one| one.trim().parse())
            .collect::<Result<_, _>>()?;
        let mut periods: Vec<u64> = rates.iter().map(|rate| rate.period).collect();
        periods.sort_unstable();
        periods.dedup();
        if periods.len() < rates.len() {
            return Err(format!("{text:?}: two limits for the same period"));
        }
        Ok(Self(rates))
    }
}

impl From<Rates> for String {
    fn from(rates: Rates) -> Self {
        let list: Vec<String> = rates.0.iter().map(ToString::to_string).collect();
        list.join(", ")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rates_are_read_and_written() {
        for (text, again) in [
            ("100/1h", "100/1h"),
            ("20/1m, 500/1d", "20/1m, 500/1d"),
            ("5/90", "5/90s"),
            ("20M/d", "20971520/1d"),
            ("7/7d,1/m", "7/7d, 1/1m"),
        ] {
            let rates = Rates::try_from(text.to_owned()).unwrap();
            assert_eq!(String::from(rates), again);
        }
        for bad in [
            "",
            "5",
            "0/1h",
            "5/0s",
            "5/1w",
            "x/1s",
            "5/32d",
            "-1/1s",
            "5/1h,6/60m",
            "5/1h,",
            "/h",
        ] {
            assert!(Rates::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
