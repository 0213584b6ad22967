//! Sets of message numbers (RFC 9051 9: sequence-set).

use crate::cursor::{Cursor, Parse};
use crate::number;
use crate::refusal::Refusal;

/// A number in a set, or `*`: the largest there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceNumber {
    /// 1 to 2^32 - 1.
    Number(u32),
    /// `*`
    Largest,
}

impl SequenceNumber {
    fn or(self, largest: u32) -> u32 {
        match self {
            Self::Number(number) => number,
            Self::Largest => largest,
        }
    }
}

/// Sequence numbers or UIDs, as the command says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SequenceSet {
    /// `$`: what the last SEARCH with SAVE found (RFC 9051 6.4.4.1).
    Saved,
    /// Ranges as the client wrote them: any order, overlapping, reversed.
    Ranges(Vec<(SequenceNumber, SequenceNumber)>),
}

impl SequenceSet {
    /// The ranges ascending, disjoint and not touching, both ends included; `None` for [`SequenceSet::Saved`]. `largest` is
    /// what `*` means, 0 in an empty mailbox, where a set with `*` holds nothing for it.
    pub fn resolve(&self, largest: u32) -> Option<Vec<(u32, u32)>> {
        let Self::Ranges(ranges) = self else {
            return None;
        };
        let resolved = ranges
            .iter()
            .map(|(from, to)| {
                let (from, to) = (from.or(largest), to.or(largest));
                (from.min(to), from.max(to))
            })
            .map(|(from, to)| (from.max(1), to))
            .filter(|(from, to)| from <= to)
            .collect();
        Some(merge(resolved))
    }

    /// The largest sequence number that is named; `None` if there is none but `*`.
    pub fn largest_named(&self) -> Option<u32> {
        let Self::Ranges(ranges) = self else {
            return None;
        };
        ranges
            .iter()
            .flat_map(|(from, to)| [*from, *to])
            .filter_map(|number| match number {
                SequenceNumber::Number(number) => Some(number),
                SequenceNumber::Largest => None,
            })
            .max()
    }

    pub(crate) fn parse(cursor: &mut Cursor<'_>) -> Parse<Self> {
        if cursor.eat(b'$') {
            return Ok(Self::Saved);
        }
        let mut ranges = Vec::new();
        loop {
            let from = one(cursor)?;
            let to = match cursor.eat(b':') {
                true => one(cursor)?,
                false => from,
            };
            ranges.push((from, to));
            if !cursor.eat(b',') {
                return Ok(Self::Ranges(ranges));
            }
        }
    }

    /// Appends ranges as a set: `1:3,7`. Nothing for no ranges, which no set can say.
    pub fn write(out: &mut Vec<u8>, ranges: &[(u32, u32)]) {
        for (index, (from, to)) in ranges.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            number::write(out, u64::from(*from));
            if to > from {
                out.push(b':');
                number::write(out, u64::from(*to));
            }
        }
    }
}

fn one(cursor: &mut Cursor<'_>) -> Parse<SequenceNumber> {
    if cursor.eat(b'*') {
        return Ok(SequenceNumber::Largest);
    }
    cursor
        .positive()
        .map(SequenceNumber::Number)
        .map_err(|_| Refusal::bad("A set of message numbers is malformed"))
}

/// Sorts ranges, and joins those that overlap or touch.
pub fn merge(mut ranges: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
    for (from, to) in ranges {
        match merged.last_mut() {
            Some(last) if from <= last.1.saturating_add(1) => last.1 = last.1.max(to),
            _ => merged.push((from, to)),
        }
    }
    merged
}

/// Ranges from ascending numbers.
pub fn from_numbers(numbers: impl IntoIterator<Item = u32>) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some(last) if last.1.checked_add(1) == Some(number) => last.1 = number,
            _ => ranges.push((number, number)),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Names;
    use proptest::prelude::*;

    fn set(text: &str) -> Parse<SequenceSet> {
        let mut cursor = Cursor::new(text.as_bytes(), Names::Utf8);
        let set = SequenceSet::parse(&mut cursor)?;
        cursor.end()?;
        Ok(set)
    }

    #[test]
    fn rfc_9051_examples() {
        let largest = |text: &str, largest| set(text).unwrap().resolve(largest).unwrap();
        assert_eq!(
            largest("2,4:7,9,12:*", 15),
            [(2, 2), (4, 7), (9, 9), (12, 15)]
        );
        assert_eq!(largest("*:4,5:7", 10), [(4, 10)]);
        assert_eq!(largest("291:*", 290), [(290, 291)]);
        assert_eq!(largest("3:1", 9), [(1, 3)]);
        assert_eq!(largest("*", 0), []);
        assert_eq!(largest("1:*", 0), [(1, 1)]);
        assert_eq!(set("$").unwrap(), SequenceSet::Saved);
        assert_eq!(set("1,7:*,3").unwrap().largest_named(), Some(7));
        for bad in [
            "",
            "0",
            "1,",
            ":",
            "1:",
            "a",
            "1:2:3",
            "4294967296",
            "1 2",
            "$,1",
        ] {
            assert!(set(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn resolving_keeps_exactly_the_numbers(
            ranges in proptest::collection::vec((1u32..60, 1u32..60), 1..12),
        ) {
            let text: Vec<String> = ranges.iter().map(|(a, b)| format!("{a}:{b}")).collect();
            let resolved = set(&text.join(",")).unwrap().resolve(60).unwrap();
            for number in 1..=60u32 {
                let named = ranges.iter().any(|(a, b)| (*a.min(b)..=*a.max(b)).contains(&number));
                let found = resolved.iter().any(|(a, b)| (*a..=*b).contains(&number));
                prop_assert_eq!(named, found);
            }
            prop_assert!(resolved.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
            let numbers = resolved.iter().flat_map(|(a, b)| *a..=*b);
            prop_assert_eq!(from_numbers(numbers), resolved.clone());
            let mut out = Vec::new();
            SequenceSet::write(&mut out, &resolved);
            let again = set(std::str::from_utf8(&out).unwrap()).unwrap();
            prop_assert_eq!(again.resolve(60).unwrap(), resolved);
        }
    }
}
