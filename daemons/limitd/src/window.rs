//! What was used in the last period: a sliding window of slots. Pure: the time is a parameter, in milliseconds since 1970.
//!
//! A period is cut into [`SLOTS`] slots of a clock that all windows share, and one count is kept for each, and for the one that the period's
//! begin lies in. All of that one counts still: in no period, wherever it begins, is more let through than the limit says, and
//! what was used is given back a twelfth of the period late at most. (GCRA needs one number instead of thirteen, but lets twice
//! the limit through in a period that begins with a burst: "500 a day" would not be what it says.)

use crate::rate::Rate;

/// Into how many a period is cut.
const SLOTS: usize = 12;
/// One more is kept: the one that is half over.
const KEPT: usize = SLOTS + 1;

/// The counts of one key under one rate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Window {
    /// The number of the newest slot, counted since 1970.
    newest: u64,
    /// By number of the slot, modulo their count.
    slots: [u64; KEPT],
}

/// Milliseconds of a slot.
fn width(rate: Rate) -> u64 {
    (rate.period * 1000).div_ceil(SLOTS as u64).max(1)
}

fn index(slot: u64) -> usize {
    usize::try_from(slot % KEPT as u64).unwrap_or(0)
}

impl Window {
    /// Forgets the slots that the period has left. A clock that was set back is not followed.
    fn turn(&mut self, rate: Rate, now: u64) {
        let slot = now / width(rate);
        let passed = slot.saturating_sub(self.newest);
        for step in 1..=passed.min(KEPT as u64) {
            let at = index(self.newest.wrapping_add(step));
            if passed >= KEPT as u64 {
                self.slots = [0; KEPT];
                break;
            }
            if let Some(count) = self.slots.get_mut(at) {
                *count = 0;
            }
        }
        self.newest = self.newest.max(slot);
    }

    /// What is used now.
    pub(crate) fn used(&self, rate: Rate, now: u64) -> u64 {
        let mut turned = self.clone();
        turned.turn(rate, now);
        turned.sum()
    }

    fn sum(&self) -> u64 {
        self.slots
            .iter()
            .fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Counts, whatever the limit says.
    pub(crate) fn add(&mut self, rate: Rate, now: u64, amount: u64) {
        self.turn(rate, now);
        if let Some(count) = self.slots.get_mut(index(self.newest)) {
            *count = count.saturating_add(amount);
        }
    }

    /// Takes back what was counted a moment ago.
    pub(crate) fn give_back(&mut self, rate: Rate, now: u64, amount: u64) {
        self.turn(rate, now);
        let mut left = amount;
        for back in 0..KEPT as u64 {
            if let Some(count) = self.slots.get_mut(index(self.newest.wrapping_sub(back))) {
                let taken = left.min(*count);
                *count -= taken;
                left -= taken;
            }
            if left == 0 {
                return;
            }
        }
    }

    /// Milliseconds until so much more fits; `None` if it never does.
    pub(crate) fn wait(&self, rate: Rate, now: u64, amount: u64) -> Option<u64> {
        let room = rate.amount.checked_sub(amount)?;
        let mut turned = self.clone();
        turned.turn(rate, now);
        let mut left = turned.sum();
        if left <= room {
            return Some(0);
        }
        for age in (0..KEPT as u64).rev() {
            let slot = turned.newest.wrapping_sub(age);
            left = left.saturating_sub(turned.slots.get(index(slot)).copied().unwrap_or(0));
            if left <= room {
                // When this slot is the one that is forgotten.
                let at = slot.wrapping_add(KEPT as u64).saturating_mul(width(rate));
                return Some(at.saturating_sub(now));
            }
        }
        None
    }

    /// When nothing of it counts any more, seconds since 1970.
    pub(crate) fn expires(&self, rate: Rate) -> u64 {
        (self.newest.saturating_add(KEPT as u64)).saturating_mul(width(rate)) / 1000 + 1
    }

    /// For the database: number of the newest slot, and the counts, oldest first.
    pub(crate) fn write(&self) -> String {
        let counts = (0..KEPT as u64).rev().map(|age| {
            let slot = self.newest.wrapping_sub(age);
            self.slots
                .get(index(slot))
                .copied()
                .unwrap_or(0)
                .to_string()
        });
        let counts: Vec<String> = counts.collect();
        format!("{} {}", self.newest, counts.join(" "))
    }

    /// Reads what [`Self::write`] wrote.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let mut numbers = text.split(' ').map(|number| number.parse::<u64>().ok());
        let newest = numbers.next()??;
        let mut window = Self {
            newest,
            slots: [0; KEPT],
        };
        for age in (0..KEPT as u64).rev() {
            *window.slots.get_mut(index(newest.wrapping_sub(age)))? = numbers.next()??;
        }
        numbers.next().is_none().then_some(window)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    const START: u64 = 1_800_000_000_123;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    #[test]
    fn what_was_used_is_given_back() {
        let rate = rate("10/1m");
        let mut window = Window::default();
        for _ in 0..10 {
            assert_eq!(window.wait(rate, START, 1), Some(0));
            window.add(rate, START, 1);
        }
        let wait = window.wait(rate, START, 1).unwrap();
        assert!((60_000..=65_000).contains(&wait), "{wait}");
        assert_eq!(window.used(rate, START + wait - 1), 10);
        assert_eq!(window.used(rate, START + wait), 0);
        assert_eq!(window.wait(rate, START, 11), None);
        window.give_back(rate, START, 3);
        assert_eq!(
            (window.used(rate, START), window.wait(rate, START, 3)),
            (7, Some(0))
        );
        // A clock that was set back.
        assert_eq!(window.used(rate, START - 3_600_000), 7);
        assert!(window.expires(rate) > START / 1000 + 60);
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let rate = rate("10/1h");
        let mut window = Window::default();
        for step in 0..40 {
            window.add(rate, START + step * 200_000, step);
            assert_eq!(Window::read(&window.write()), Some(window.clone()));
        }
        for bad in ["", "1", "1 2 3", "x", "-1 0 0 0 0 0 0 0 0 0 0 0 0 0"] {
            assert_eq!(Window::read(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_period_has_more_than_the_limit(
            steps in proptest::collection::vec((0_u64..20_000, 1_u64..4), 1..200),
        ) {
            let rate = rate("10/1m");
            let mut window = Window::default();
            let mut now = START;
            let mut taken: Vec<(u64, u64)> = Vec::new();
            for (pause, amount) in steps {
                now += pause;
                let wait = window.wait(rate, now, amount).unwrap();
                if wait == 0 {
                    window.add(rate, now, amount);
                    taken.push((now, amount));
                } else {
                    // Not a moment too early, and not too late either.
                    prop_assert!(window.wait(rate, now + wait, amount) == Some(0));
                    prop_assert!(window.wait(rate, now + wait - 1, amount) != Some(0));
                    prop_assert!(wait <= 65_000);
                }
                let last: u64 = taken.iter().filter(|(at, _)| *at + 60_000 > now).map(|(_, amount)| amount).sum();
                prop_assert!(last <= 10, "{last}");
            }
        }
    }
}
