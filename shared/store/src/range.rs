//! Ranges of UIDs, and how they are asked for.

#[cfg(feature = "writer")]
use sql::Value;

/// Ascending, disjoint ranges of UIDs, both ends included.
pub type Ranges = Vec<(u32, u32)>;

/// Puts ascending numbers together to ranges.
pub fn to_ranges(numbers: impl IntoIterator<Item = u32>) -> Ranges {
    let mut ranges: Ranges = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some((_, high)) if high.checked_add(1) == Some(number) => *high = number,
            _ => ranges.push((number, number)),
        }
    }
    ranges
}

#[cfg(feature = "writer")]
/// Ranges in one condition at most.
const RANGES_MAX: usize = 64;
#[cfg(feature = "writer")]
/// Single numbers in one condition at most.
const SINGLES_MAX: usize = 512;

#[cfg(feature = "writer")]
/// Conditions on the column `uid`, each with its parameters, which together mean all of `ranges`, in ascending order. Few
/// different texts come of it: lists are padded to powers of two.
pub(crate) fn conditions(ranges: &[(u32, u32)]) -> Vec<(String, Vec<Value>)> {
    let singles = ranges.len() > 1 && ranges.iter().all(|(low, high)| low == high);
    if singles {
        return ranges
            .chunks(SINGLES_MAX)
            .map(|chunk| {
                let mut args: Vec<Value> = chunk.iter().map(|(low, _)| (*low).into()).collect();
                let count = sql::pad(&mut args);
                (format!("uid IN ({})", sql::placeholders(count)), args)
            })
            .collect();
    }
    ranges
        .chunks(RANGES_MAX)
        .map(|chunk| {
            let mut args: Vec<Value> = Vec::with_capacity(chunk.len() * 4);
            if let [(low, high)] = chunk {
                return ("uid BETWEEN ? AND ?".to_owned(), sql::args![*low, *high]);
            }
            // The outer bound helps the planner.
            let count = chunk.len().next_power_of_two();
            let last = chunk.last().copied().unwrap_or_default();
            args.push(chunk.first().map_or(0, |range| range.0).into());
            args.push(last.1.into());
            let padded = chunk.iter().copied().chain(std::iter::repeat(last));
            for (low, high) in padded.take(count) {
                args.extend(sql::args![low, high]);
            }
            let terms = vec!["uid BETWEEN ? AND ?"; count].join(" OR ");
            (format!("uid BETWEEN ? AND ? AND ({terms})"), args)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn numbers_become_ranges_and_conditions() {
        assert_eq!(to_ranges([1, 2, 3, 7, 9, 10]), [(1, 3), (7, 7), (9, 10)]);
        assert_eq!(to_ranges([u32::MAX]), [(u32::MAX, u32::MAX)]);
        let (text, args) = conditions(&[(1, 3), (7, 7), (9, 10)]).remove(0);
        assert_eq!(text.matches('?').count(), args.len());
        assert_eq!(args.len(), 10);
        assert_eq!(conditions(&to_ranges((0..1000).map(|n| n * 2))).len(), 2);
        assert_eq!(conditions(&[]).len(), 0);
    }
}
