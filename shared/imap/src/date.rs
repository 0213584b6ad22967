//! Dates: of INTERNALDATE and APPEND (`17-Jul-1996 02:44:25 -0700`) and of SEARCH (`1-Feb-1994`), RFC 9051 9.

use crate::cursor::{Cursor, Parse};
use crate::number;
use crate::refusal::Refusal;
use types::moment::{civil, days};

const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

const DAY: i64 = 86_400;

/// The last second that four digits of a year can say.
const LAST: i64 = 253_402_300_799;

/// The first second of the year 0.
const FIRST: i64 = -62_167_219_200;

/// The day (since 1970-01-01, UTC) of a time in seconds since 1970: what SEARCH compares INTERNALDATE by.
pub fn day_of(unix: i64) -> i32 {
    i32::try_from(unix.div_euclid(DAY)).unwrap_or(i32::MAX)
}

/// The day of a Date field as its sender wrote it: `zone` is minutes east of UTC (RFC 9051 6.4.4, SENTON).
pub fn day_in_zone(unix: i64, zone: i16) -> i32 {
    day_of(unix.saturating_add(i64::from(zone) * 60))
}

/// Appends a date-time in quotes, in UTC. What four digits of a year cannot say is shown as the nearest that they can.
pub fn write(out: &mut Vec<u8>, unix: i64) {
    let unix = unix.clamp(FIRST, LAST);
    let (year, month, day) = civil(unix.div_euclid(DAY));
    let second = unix.rem_euclid(DAY);
    out.push(b'"');
    // RFC 9051 9: date-day-fixed, a space or a digit first
    digits(out, day, 2, b' ');
    out.push(b'-');
    let name = usize::try_from(month - 1)
        .ok()
        .and_then(|at| MONTHS.get(at));
    out.extend_from_slice(name.map_or(b"Jan".as_slice(), |name| name.as_slice()));
    out.push(b'-');
    digits(out, year, 4, b'0');
    for (number, before) in [
        (second / 3600, b' '),
        (second / 60 % 60, b':'),
        (second % 60, b':'),
    ] {
        out.push(before);
        digits(out, number, 2, b'0');
    }
    out.extend_from_slice(b" +0000\"");
}

fn digits(out: &mut Vec<u8>, number: i64, width: usize, fill: u8) {
    let start = out.len();
    number::write(out, number.unsigned_abs());
    while out.len() < start + width {
        out.insert(start, fill);
    }
}

/// Days since 1970-01-01 of `1-Feb-1994`, quoted or not.
pub(crate) fn parse_day(cursor: &mut Cursor<'_>) -> Parse<i32> {
    let quoted = cursor.eat(b'"');
    let day = day_month_year(cursor)?;
    if quoted {
        cursor.expect(b'"', "A date does not end")?;
    }
    i32::try_from(day).map_err(|_| Refusal::bad("A date is out of range"))
}

/// Seconds since 1970 of `"17-Jul-1996 02:44:25 -0700"`.
pub(crate) fn parse_time(cursor: &mut Cursor<'_>) -> Parse<i64> {
    const WRONG: &str = "A date-time is malformed";
    cursor.expect(b'"', WRONG)?;
    let _fixed_width = cursor.eat(b' ');
    let days = day_month_year(cursor)?;
    cursor.expect(b' ', WRONG)?;
    let hour = two(cursor, 23)?;
    cursor.expect(b':', WRONG)?;
    let minute = two(cursor, 59)?;
    cursor.expect(b':', WRONG)?;
    let second = two(cursor, 60)?;
    cursor.expect(b' ', WRONG)?;
    let west = match cursor.peek() {
        Some(b'+') => false,
        Some(b'-') => true,
        _ => return Err(Refusal::bad(WRONG)),
    };
    cursor.eat(if west { b'-' } else { b'+' });
    let zone = cursor.run(|byte| byte.is_ascii_digit());
    let number = number::read(zone).filter(|_| zone.len() == 4);
    let number = number.and_then(|number| i64::try_from(number).ok());
    let number = number.ok_or(Refusal::bad(WRONG))?;
    let east = (number / 100 * 60 + number % 100) * 60;
    cursor.expect(b'"', WRONG)?;
    let local = days * DAY + hour * 3600 + minute * 60 + second;
    Ok(if west { local + east } else { local - east })
}

fn two(cursor: &mut Cursor<'_>, max: i64) -> Parse<i64> {
    let digits = cursor.run(|byte| byte.is_ascii_digit());
    number::read(digits)
        .filter(|_| digits.len() == 2)
        .and_then(|number| i64::try_from(number).ok())
        .filter(|number| *number <= max)
        .ok_or(Refusal::bad("A time of day is malformed"))
}

fn day_month_year(cursor: &mut Cursor<'_>) -> Parse<i64> {
    const WRONG: Refusal = Refusal::bad("A date is malformed");
    let small = |digits: &[u8]| number::read(digits).and_then(|number| i64::try_from(number).ok());
    let day = cursor.run(|byte| byte.is_ascii_digit());
    let day = small(day).filter(|_| day.len() <= 2).ok_or(WRONG)?;
    cursor.expect(b'-', WRONG.text)?;
    let name = cursor.run(|byte| byte.is_ascii_alphabetic());
    let month = MONTHS
        .iter()
        .position(|month| name.eq_ignore_ascii_case(month.as_slice()))
        .and_then(|at| i64::try_from(at).ok())
        .ok_or(WRONG)?
        + 1;
    cursor.expect(b'-', WRONG.text)?;
    let year = cursor.run(|byte| byte.is_ascii_digit());
    let year = small(year).filter(|_| year.len() == 4).ok_or(WRONG)?;
    let date = days(year, month, day);
    match civil(date) == (year, month, day) {
        true => Ok(date),
        false => Err(WRONG),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Names;
    use proptest::prelude::*;

    fn time(text: &str) -> Parse<i64> {
        parse_time(&mut Cursor::new(text.as_bytes(), Names::Utf8))
    }

    fn day(text: &str) -> Parse<i32> {
        parse_day(&mut Cursor::new(text.as_bytes(), Names::Utf8))
    }

    #[test]
    fn rfc_9051_examples() {
        assert_eq!(time("\"17-Jul-1996 02:44:25 -0700\"").unwrap(), 837_596_665);
        assert_eq!(time("\" 7-Feb-1994 21:52:25 -0800\"").unwrap(), 760_686_745);
        assert_eq!(day("1-Feb-1994").unwrap(), 8797);
        assert_eq!(day("\"01-feb-1994\"").unwrap(), 8797);
        let mut out = Vec::new();
        write(&mut out, 837_596_665);
        assert_eq!(out, b"\"17-Jul-1996 09:44:25 +0000\"");
        out.clear();
        write(&mut out, 0);
        assert_eq!(out, b"\" 1-Jan-1970 00:00:00 +0000\"");
        out.clear();
        write(&mut out, i64::MAX);
        assert_eq!(out, b"\"31-Dec-9999 23:59:59 +0000\"");
    }

    #[test]
    fn impossible_dates_are_refused() {
        for bad in [
            "31-Feb-2000",
            "0-Jan-2000",
            "1-Foo-2000",
            "1-Jan-00",
            "1-1-2000",
            "001-Jan-2000",
        ] {
            assert!(day(bad).is_err(), "{bad}");
        }
        for bad in [
            "\"17-Jul-1996 24:44:25 -0700\"",
            "\"17-Jul-1996 02:44:25\"",
            "\"17-Jul-1996 02:44:25 -070\"",
            "17-Jul-1996 02:44:25 -0700",
        ] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_zone_of_the_sender_decides_the_day() {
        // 1970-01-02 01:00 +0200 is still the first in UTC.
        assert_eq!(day_of(DAY - 3600), 0);
        assert_eq!(day_in_zone(DAY - 3600, 120), 1);
        assert_eq!(day_of(-1), -1);
    }

    proptest! {
        #[test]
        fn times_survive_their_text(unix in FIRST..=LAST) {
            let mut out = Vec::new();
            write(&mut out, unix);
            prop_assert_eq!(time(std::str::from_utf8(&out).unwrap()).unwrap(), unix);
        }
    }
}
