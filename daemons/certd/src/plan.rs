//! When a certificate is ordered. Time is a parameter.

use crate::config::{Config, Target};
use crate::state::Progress;
use ipc::api::keyd::IssuedCertificate;

/// The longest pause between two looks: clocks are set, machines sleep.
pub(crate) const LOOK: u64 = 300;

/// When a certificate is to be ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    /// Seconds since 1970.
    pub(crate) at: u64,
    /// Why, for the log.
    pub(crate) why: &'static str,
}

/// Decides it from what is in use and what was tried.
pub(crate) fn due(
    target: &Target,
    current: Option<&IssuedCertificate>,
    progress: &Progress,
) -> Due {
    let (at, why) = match current {
        _ if progress.forced => (0, "it is asked for"),
        None => (0, "there is none"),
        Some(current) if !same(&current.names, &target.names) => (0, "its names have changed"),
        Some(_) if progress.renew_at == 0 => (u64::MAX, "it is good"),
        Some(_) => (progress.renew_at, "its time has come"),
    };
    Due {
        at: at.max(progress.retry_at),
        why,
    }
}

fn same(one: &[String], other: &[String]) -> bool {
    one.len() == other.len() && one.iter().all(|name| other.contains(name))
}

/// When a certificate is renewed if the authority suggests nothing.
pub(crate) fn by_age(current: &IssuedCertificate, config: &Config) -> u64 {
    let life = current.expires.saturating_sub(current.begins);
    current.begins
        + life / 100 * u64::from(config.renew_percent)
        + life % 100 * u64::from(config.renew_percent) / 100
}

/// A time in the window that the authority suggests (RFC 9773 4.2); `share` is 0 to 1, by chance.
pub(crate) fn within(window: (u64, u64), share: f64) -> u64 {
    let (start, end) = window;
    let length = end.saturating_sub(start);
    // Some years of seconds are exact in a float.
    start + (length as f64 * share.clamp(0.0, 1.0)) as u64
}

/// When the next attempt is made after so many failures.
pub(crate) fn retry_at(now: u64, failures: u32, config: &Config) -> u64 {
    let doubled = config.retry_min.saturating_mul(
        1_u64
            .checked_shl(failures.saturating_sub(1))
            .unwrap_or(u64::MAX),
    );
    now.saturating_add(doubled.min(config.retry_max))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::ChallengeKind;

    fn target() -> Target {
        Target {
            id: "a".to_owned(),
            names: vec!["a".to_owned(), "b".to_owned()],
            challenge: ChallengeKind::Http01,
        }
    }

    fn current(names: &[&str]) -> IssuedCertificate {
        IssuedCertificate {
            id: "a".to_owned(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            begins: 1000,
            expires: 2000,
            leaf: Vec::new().into(),
        }
    }

    #[test]
    fn what_is_missing_or_different_is_due_at_once_but_not_before_the_retry() {
        let mut progress = Progress::default();
        assert_eq!(due(&target(), None, &progress).at, 0);
        assert_eq!(due(&target(), Some(&current(&["a"])), &progress).at, 0);
        assert_eq!(
            due(&target(), Some(&current(&["b", "a"])), &progress).at,
            u64::MAX
        );
        progress.renew_at = 1670;
        assert_eq!(
            due(&target(), Some(&current(&["b", "a"])), &progress).at,
            1670
        );
        progress.retry_at = 1700;
        assert_eq!(
            due(&target(), Some(&current(&["b", "a"])), &progress).at,
            1700
        );
        assert_eq!(due(&target(), None, &progress).at, 1700);
        progress.forced = true;
        progress.retry_at = 0;
        assert_eq!(due(&target(), Some(&current(&["b", "a"])), &progress).at, 0);
    }

    #[test]
    fn times_are_shares_of_a_life_or_of_a_window() {
        let config = Config::default();
        assert_eq!(by_age(&current(&["a"]), &config), 1670);
        assert_eq!(within((100, 200), 0.0), 100);
        assert_eq!(within((100, 200), 0.5), 150);
        assert_eq!(within((100, 200), 1.0), 200);
        assert_eq!(within((200, 100), 0.5), 200);
    }

    #[test]
    fn pauses_double_up_to_the_limit() {
        let config = Config::default();
        let pauses: Vec<u64> = (1..=3).map(|n| retry_at(0, n, &config)).collect();
        assert_eq!(pauses, [60, 120, 240]);
        assert_eq!(retry_at(0, 50, &config), 21_600);
        assert_eq!(retry_at(0, u32::MAX, &config), 21_600);
    }
}
