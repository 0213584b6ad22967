//! Times as operators read them.

use std::time::{SystemTime, UNIX_EPOCH};
use types::moment;

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}

/// `2026-03-01 12:00:05Z` (RFC 3339 with a space).
pub(crate) fn utc(seconds: u64) -> String {
    moment::date_time(seconds).replace('T', " ")
}

/// Seconds since 1970 of a time in UTC.
pub(crate) fn unix((year, month, day): (i64, i64, i64), seconds_of_day: i64) -> i64 {
    moment::days(year, month, day) * 86_400 + seconds_of_day
}

#[cfg(test)]
mod tests {
    use super::{unix, utc};

    #[test]
    fn civil_times_are_counted() {
        assert_eq!(unix((1970, 1, 1), 0), 0);
        assert_eq!(unix((2000, 2, 29), 0), 951_782_400);
        assert_eq!(unix((2026, 9, 21), 51_200), 1_790_000_000);
        assert_eq!(unix((1969, 12, 31), 86_399), -1);
    }

    #[test]
    fn times_are_civil() {
        assert_eq!(utc(0), "1970-01-01 00:00:00Z");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00:00Z");
        assert_eq!(utc(1_790_000_000), "2026-09-21 14:13:20Z");
    }
}
