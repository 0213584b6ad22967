//! What a search asks of each message: from the view where it knows the answer, from what is stored beside a message where
//! that does, and only then from the message.

use super::indexed::Indexed;
use crate::rows::Chunk;
use crate::session::within;
use crate::view::{Row, Snapshot};
use imap::{SearchKey, SequenceSet, date};
use roaring::RoaringTreemap;
use std::sync::Arc;
use store::{Content, SystemFlags};

/// Octets of text of one message that are looked at.
const TEXT_MAX: usize = 64 << 20;

/// A search, ready to be asked of each message.
#[derive(Debug)]
pub(super) enum Plan {
    All(Vec<Plan>),
    Any(Vec<Plan>),
    Not(Box<Plan>),
    Test(Test),
}

#[derive(Debug)]
pub(super) enum Test {
    Always,
    Never,
    /// Positions from 1, ascending ranges.
    Numbers(Vec<(u32, u32)>),
    Uids(Vec<(u32, u32)>),
    System(SystemFlags),
    Keyword(String),
    /// INTERNALDATE: days, from (included) and to (excluded).
    Day(i32, i32),
    Sent(i32, i32),
    /// SAVEDATE (RFC 8514): days.
    Saved(i32, i32),
    Larger(u64),
    Smaller(u64),
    /// INTERNALDATE in seconds: at most, at least.
    NotAfter(i64),
    NotBefore(i64),
    ModSeq(u64),
    Email(u64),
    Thread(u64),
    /// A field's name and what its value contains, in lower case.
    Header(String, String),
    Body(String),
    Text(String),
    /// What the index found, up to which content it knows, and the test for what is newer.
    Indexed(Arc<RoaringTreemap>, u64, Box<Test>),
}

/// The number in an EMAILID or THREADID (RFC 8474), as FETCH shows it.
fn object_id(text: &str, letter: char) -> Option<u64> {
    let digits = text.strip_prefix(letter)?;
    // RFC 8474 5: ids are opaque, so only the very text that FETCH shows is one
    let number: u64 = digits.parse().ok()?;
    (number.to_string() == digits).then_some(number)
}

/// What a search needs to know besides the messages.
pub(super) struct Ground<'a> {
    /// The mailbox.
    pub(super) shown: &'a Snapshot,
    /// What `$` means: UIDs.
    pub(super) saved: &'a [u32],
    /// Seconds since 1970.
    pub(super) now: i64,
    /// What the index says.
    pub(super) indexed: &'a Indexed,
}

impl Ground<'_> {
    /// The search, ready to be asked.
    pub(super) fn plan(&self, key: &SearchKey) -> Plan {
        self.planned(key, false)
    }

    fn planned(&self, key: &SearchKey, fuzzy: bool) -> Plan {
        let test = match key {
            SearchKey::And(keys) => {
                return Plan::All(keys.iter().map(|key| self.planned(key, fuzzy)).collect());
            }
            SearchKey::Or(one, other) => {
                return Plan::Any(vec![self.planned(one, fuzzy), self.planned(other, fuzzy)]);
            }
            SearchKey::Not(key) => return Plan::Not(Box::new(self.planned(key, fuzzy))),
            // RFC 6203 5: what is no text is matched exactly
            SearchKey::Fuzzy(key) => return self.planned(key, true),
            SearchKey::All => Test::Always,
            // Nobody is promised \Recent.
            SearchKey::Recent => Test::Never,
            SearchKey::Sequence(set) => self.numbers(set),
            SearchKey::Uid(set) => {
                let largest = self.shown.rows.last().map_or(0, |row| row.uid);
                Test::Uids(set.resolve(largest).unwrap_or_else(|| self.saved_uids()))
            }
            SearchKey::Flag(name) => {
                let system = SystemFlags::NAMES
                    .iter()
                    .find(|(_, known)| known.eq_ignore_ascii_case(name));
                match system {
                    Some((flag, _)) => Test::System(*flag),
                    None => Test::Keyword(name.clone()),
                }
            }
            SearchKey::Before(day) => Test::Day(i32::MIN, *day),
            SearchKey::On(day) => Test::Day(*day, day.saturating_add(1)),
            SearchKey::Since(day) => Test::Day(*day, i32::MAX),
            SearchKey::SavedBefore(day) => Test::Saved(i32::MIN, *day),
            SearchKey::SavedOn(day) => Test::Saved(*day, day.saturating_add(1)),
            SearchKey::SavedSince(day) => Test::Saved(*day, i32::MAX),
            // RFC 8514 4.3: every mailbox of the store keeps them
            SearchKey::SaveDateSupported => Test::Always,
            SearchKey::SentBefore(day) => Test::Sent(i32::MIN, *day),
            SearchKey::SentOn(day) => Test::Sent(*day, day.saturating_add(1)),
            SearchKey::SentSince(day) => Test::Sent(*day, i32::MAX),
            SearchKey::Larger(size) => Test::Larger(*size),
            SearchKey::Smaller(size) => Test::Smaller(*size),
            // RFC 5032 3
            SearchKey::Older(seconds) => Test::NotAfter(self.now - i64::from(*seconds)),
            SearchKey::Younger(seconds) => Test::NotBefore(self.now - i64::from(*seconds)),
            SearchKey::ModSeq(modseq) => Test::ModSeq(*modseq),
            SearchKey::EmailId(id) => object_id(id, 'M').map_or(Test::Never, Test::Email),
            SearchKey::ThreadId(id) => object_id(id, 'T').map_or(Test::Never, Test::Thread),
            SearchKey::Header(name, text) => Test::Header(name.clone(), text.to_lowercase()),
            SearchKey::Body(text) => Test::Body(text.to_lowercase()),
            SearchKey::Text(text) => Test::Text(text.to_lowercase()),
        };
        Plan::Test(match self.indexed.hits(key, fuzzy) {
            Some(hits) => Test::Indexed(hits, self.indexed.covered(), Box::new(test)),
            None => test,
        })
    }

    fn numbers(&self, set: &SequenceSet) -> Test {
        let largest = u32::try_from(self.shown.rows.len()).unwrap_or(u32::MAX);
        match set.resolve(largest) {
            Some(ranges) => Test::Numbers(ranges),
            None => Test::Uids(self.saved_uids()),
        }
    }

    fn saved_uids(&self) -> Vec<(u32, u32)> {
        imap::from_numbers(self.saved.iter().copied())
    }
}

impl Plan {
    /// Whether it holds, as far as `ask` knows.
    pub(super) fn holds(&self, ask: &mut impl FnMut(&Test) -> Option<bool>) -> Option<bool> {
        let mut known = true;
        match self {
            Self::Test(test) => ask(test),
            Self::Not(plan) => plan.holds(ask).map(|held| !held),
            Self::All(plans) => {
                for plan in plans {
                    match plan.holds(ask) {
                        Some(true) => {}
                        Some(false) => return Some(false),
                        None => known = false,
                    }
                }
                known.then_some(true)
            }
            Self::Any(plans) => {
                for plan in plans {
                    match plan.holds(ask) {
                        Some(true) => return Some(true),
                        Some(false) => {}
                        None => known = false,
                    }
                }
                known.then_some(false)
            }
        }
    }
}

/// When it came into the mailbox; INTERNALDATE for a message of which that is not known (RFC 8514 4.3).
fn saved(row: &Row) -> i64 {
    match row.saved {
        0 => row.date,
        saved => i64::from(saved),
    }
}

/// Whether ascending ranges have all of these numbers, or none.
fn within_all(ranges: &[(u32, u32)], from: u32, to: u32) -> Option<bool> {
    let at = ranges.partition_point(|(_, high)| *high < from);
    match ranges.get(at) {
        Some((low, high)) if *low <= from && to <= *high => Some(true),
        Some((low, _)) if *low <= to => None,
        _ => Some(false),
    }
}

/// What is the same for all rows of a chunk, of which the first has that position.
pub(super) fn ask_chunk(test: &Test, start: usize, chunk: &Chunk) -> Option<bool> {
    let number = |position: usize| u32::try_from(position).unwrap_or(u32::MAX);
    let rows = chunk.rows();
    match test {
        Test::Numbers(ranges) => within_all(ranges, number(start + 1), number(start + rows.len())),
        Test::Uids(ranges) => within_all(ranges, rows.first()?.uid, rows.last()?.uid),
        Test::Always => Some(true),
        Test::Never => Some(false),
        Test::System(flag) if chunk.all.contains(*flag) => Some(true),
        Test::System(flag) if !chunk.any.contains(*flag) => Some(false),
        Test::Keyword(_) if !chunk.has_keywords() => Some(false),
        Test::ModSeq(modseq) if chunk.modseq < *modseq => Some(false),
        _ => None,
    }
}

/// What the view knows.
pub(super) fn ask_row(test: &Test, position: usize, row: &Row) -> Option<bool> {
    Some(match test {
        Test::Always => true,
        Test::Never => false,
        Test::Numbers(ranges) => within(
            ranges,
            u32::try_from(position)
                .unwrap_or(u32::MAX)
                .saturating_add(1),
        ),
        Test::Uids(ranges) => within(ranges, row.uid),
        Test::System(flag) => row.system.contains(*flag),
        Test::Keyword(name) => row
            .keywords
            .as_deref()
            .is_some_and(|words| words.split(' ').any(|word| word.eq_ignore_ascii_case(name))),
        Test::Day(from, to) => (*from..*to).contains(&date::day_of(row.date)),
        Test::Saved(from, to) => (*from..*to).contains(&date::day_of(saved(row))),
        Test::Larger(size) => row.size > *size,
        Test::Smaller(size) => row.size < *size,
        Test::NotAfter(unix) => row.date <= *unix,
        Test::NotBefore(unix) => row.date >= *unix,
        Test::ModSeq(modseq) => row.modseq >= *modseq,
        Test::Email(id) => row.content.0 == *id,
        Test::Thread(id) => row.thread.0 == *id,
        Test::Indexed(hits, covered, _) => {
            return Indexed::holds(*covered, hits, row.content.0);
        }
        Test::Sent(..) | Test::Header(..) | Test::Body(_) | Test::Text(_) => return None,
    })
}

/// What is stored beside the message knows, and with `body` all the rest.
pub(super) fn ask_content(test: &Test, content: &Content, body: Option<&[u8]>) -> Option<bool> {
    match test {
        Test::Sent(from, to) => {
            let sent = message::Parsed::decode(&content.parsed)
                .ok()
                .and_then(|parsed| parsed.sent);
            // RFC 9051 6.4.4: the date as the sender wrote it, whatever the zone
            Some(sent.is_some_and(|sent| {
                (*from..*to).contains(&date::day_in_zone(sent.unix, sent.zone))
            }))
        }
        Test::Header(name, text) => {
            let names = [name.as_bytes()];
            let listed = message::stored::select_listed(&content.parsed, &content.prefix, &names);
            if let Ok(Some(lines)) = listed {
                return Some(has_field(&lines, name, text));
            }
            let body = body?;
            Some(has_field(&content.prefix, name, text) || has_field(body, name, text))
        }
        Test::Body(text) => Some(in_text(content, body?, text)),
        Test::Text(text) => {
            let body = body?;
            Some(
                in_header(&content.prefix, text)
                    || in_header(body, text)
                    || in_text(content, body, text),
            )
        }
        Test::Indexed(_, _, test) => ask_content(test, content, body),
        _ => None,
    }
}

fn has_field(header: &[u8], name: &str, text: &str) -> bool {
    message::Fields::new(header)
        .filter(|field| field.name.eq_ignore_ascii_case(name.as_bytes()))
        .any(|field| text.is_empty() || contains(&message::header_text(field.value), text))
}

fn in_header(header: &[u8], text: &str) -> bool {
    message::Fields::new(header).any(|field| {
        let name = String::from_utf8_lossy(field.name);
        contains(
            &format!("{name}: {}", message::header_text(field.value).trim()),
            text,
        )
    })
}

fn in_text(content: &Content, body: &[u8], text: &str) -> bool {
    let Ok(parsed) = message::Parsed::decode(&content.parsed) else {
        return contains(&String::from_utf8_lossy(body), text);
    };
    let mut found = false;
    message::for_each_text(&parsed, body, TEXT_MAX, |part| {
        found = contains(part, text);
        !found
    });
    found
}

/// Without regard to case; `text` is in lower case.
fn contains(whole: &str, text: &str) -> bool {
    if text.is_ascii() && whole.is_ascii() {
        let (whole, text) = (whole.as_bytes(), text.as_bytes());
        let Some((first, _)) = text.split_first() else {
            return true;
        };
        let mut rest = whole;
        // Both cases of the first letter are looked for at once; the rest is compared where one stands.
        while let Some(at) = memchr::memchr2(*first, first.to_ascii_uppercase(), rest) {
            let here = rest.get(at..).unwrap_or_default();
            if here
                .get(..text.len())
                .is_some_and(|head| head.eq_ignore_ascii_case(text))
            {
                return true;
            }
            rest = here.get(1..).unwrap_or_default();
        }
        return false;
    }
    whole.to_lowercase().contains(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_found_in_any_case() {
        assert!(contains("Hello World", "o w"));
        assert!(contains("Hello", ""));
        assert!(!contains("Hello", "hellow"));
        assert!(contains("aaab", "aab"));
        assert!(contains("GRÜSSE", "grüsse"));
        assert!(!contains("Grüße", "x"));
    }

    #[test]
    fn a_chunk_is_inside_or_outside_or_both() {
        let ranges = [(3, 5), (8, 20)];
        let of = |from, to| within_all(&ranges, from, to);
        assert_eq!([of(1, 2), of(6, 7), of(21, 30)], [Some(false); 3]);
        assert_eq!([of(3, 5), of(9, 20), of(8, 8)], [Some(true); 3]);
        assert_eq!([of(2, 3), of(5, 6), of(4, 9), of(1, 99)], [None; 4]);
    }

    #[test]
    fn what_is_not_known_stays_open() {
        let text = || Plan::Test(Test::Text("x".into()));
        let always = || Plan::Test(Test::Always);
        let mut ask = |test: &Test| match test {
            Test::Always => Some(true),
            Test::Never => Some(false),
            _ => None,
        };
        assert_eq!(Plan::All(vec![text(), always()]).holds(&mut ask), None);
        assert_eq!(
            Plan::Any(vec![text(), always()]).holds(&mut ask),
            Some(true)
        );
        let never = Plan::Not(Box::new(always()));
        assert_eq!(Plan::All(vec![text(), never]).holds(&mut ask), Some(false));
        assert_eq!(Plan::Not(Box::new(text())).holds(&mut ask), None);
    }

    #[test]
    fn an_object_id_is_what_fetch_shows() {
        assert_eq!(object_id("M7", 'M'), Some(7));
        for other in ["M+7", "M07", "M", "7", "T7", "m7", "M99999999999999999999"] {
            assert_eq!(object_id(other, 'M'), None, "{other}");
        }
    }
}
