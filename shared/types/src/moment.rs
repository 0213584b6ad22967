//! Times as RFC 3339 writes them, `2026-11-28T22:00:00Z`, and the calendar behind every other form.

/// Seconds since 1970 as a date and time in UTC, to the second.
pub fn date_time(seconds: u64) -> String {
    let rest = seconds % 86_400;
    let (year, month, day) = civil((seconds / 86_400).cast_signed());
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Reads a date and time (RFC 3339 5.6, date-time): with `Z` or an offset; fractions of a second are dropped. Seconds since
/// 1970; `None` if it is none, or before 1970.
pub fn parse_date_time(text: &str) -> Option<u64> {
    let text = text.as_bytes();
    let shape = text.get(4) == Some(&b'-')
        && text.get(7) == Some(&b'-')
        && text.get(10).is_some_and(|t| t.eq_ignore_ascii_case(&b'T'))
        && text.get(13) == Some(&b':')
        && text.get(16) == Some(&b':');
    if !shape {
        return None;
    }
    let (year, month, day) = (
        number(text, 0, 4)?,
        number(text, 5, 2)?,
        number(text, 8, 2)?,
    );
    let (hour, minute) = (number(text, 11, 2)?, number(text, 14, 2)?);
    let second = number(text, 17, 2)?;
    // RFC 3339 5.7: 60 is a leap second
    let sound =
        (1..=days_of(year, month)?).contains(&day) && hour <= 23 && minute <= 59 && second <= 60;
    if !sound {
        return None;
    }
    let mut zone = text.get(19..)?;
    if let Some(fraction) = zone.strip_prefix(b".") {
        let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
        zone = (digits > 0).then(|| fraction.get(digits..))??;
    }
    let offset = match zone {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = (number(zone, 1, 2)?, number(zone, 4, 2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset = (hours * 60 + minutes) * 60;
            if *sign == b'-' { -offset } else { offset }
        }
        _ => return None,
    };
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    u64::try_from(seconds).ok()
}

/// So many digits at a place.
fn number(text: &[u8], at: usize, digits: usize) -> Option<i64> {
    text.get(at..at + digits)?.iter().try_fold(0, |sum, byte| {
        byte.is_ascii_digit()
            .then(|| sum * 10 + i64::from(byte - b'0'))
    })
}

/// How many days a month has.
fn days_of(year: i64, month: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => Some(if leap { 29 } else { 28 }),
        4 | 6 | 9 | 11 => Some(30),
        1 | 3 | 5 | 7 | 8 | 10 | 12 => Some(31),
        _ => None,
    }
}

/// Days since 1970-01-01 of a date: year, month (1 to 12) and day. By eras of 400 years that begin in March, so that the leap day
/// is their years' last one (Howard Hinnant, "chrono-compatible low-level date algorithms").
pub fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let from_march = (month + 9) % 12;
    let of_year = (153 * from_march + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month (1 to 12) and day of so many days since 1970-01-01.
pub fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_dates_are_each_others_inverse() {
        for day in (-720_000..3_000_000).step_by(37) {
            let (year, month, of_month) = civil(day);
            assert!((1..=12).contains(&month) && (1..=31).contains(&of_month));
            assert_eq!(days(year, month, of_month), day);
        }
        assert_eq!(civil(-1), (1969, 12, 31));
        assert_eq!(civil(11_016), (2000, 2, 29));
    }

    #[test]
    fn times_are_written_and_read_back() {
        assert_eq!(date_time(0), "1970-01-01T00:00:00Z");
        assert_eq!(date_time(1_790_000_000), "2026-09-21T14:13:20Z");
        for at in [0, 951_782_400, 1_790_000_000, 4_102_444_799] {
            assert_eq!(parse_date_time(&date_time(at)), Some(at));
        }
        assert_eq!(
            parse_date_time("2026-09-21t16:13:20.25+02:00"),
            Some(1_790_000_000)
        );
        assert_eq!(
            parse_date_time("2026-09-21T09:13:20-05:00"),
            Some(1_790_000_000)
        );
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for bad in [
            "",
            "2026-09-21",
            "2026-09-21T14:13:20",
            "2026-09-21T14:13Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-09-21T24:00:00Z",
            "2026-09-21T14:13:20.Z",
            "2026-09-21T14:13:20Z ",
            "2026-09-21T14:13:20+2:00",
            "1969-12-31T23:59:59Z",
            "2026-09-21 14:13:20Z",
        ] {
            assert_eq!(parse_date_time(bad), None, "{bad:?}");
        }
    }
}
