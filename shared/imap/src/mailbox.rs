//! Names of mailboxes and the patterns of LIST.

use crate::cursor::Parse;
use crate::refusal::Refusal;
use crate::{put, utf7};
use unicode_normalization::{UnicodeNormalization as _, is_nfc};

/// What stands between the levels of a name.
pub const DELIMITER: char = '/';

/// A pattern has at most so many wildcards, so that matching stays cheap.
const WILDCARDS_MAX: usize = 32;

/// Longer names and patterns are refused, in octets of UTF-8.
const NAME_MAX: usize = 1024;

/// How mailbox names travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Names {
    /// IMAP4rev1: modified UTF-7; UTF-8 is understood too.
    #[default]
    ModifiedUtf7,
    /// After ENABLE IMAP4rev2: UTF-8 (RFC 9051 5.1).
    Utf8,
}

impl Names {
    /// Appends a name as a string that a client of this kind understands.
    pub fn put(self, out: &mut Vec<u8>, name: &str) {
        match self {
            Self::Utf8 => put::quoted_or_literal(out, name.as_bytes(), true),
            Self::ModifiedUtf7 if name.is_ascii() && !name.contains('&') => {
                put::quoted_or_literal(out, name.as_bytes(), false);
            }
            Self::ModifiedUtf7 => {
                let mut encoded = Vec::with_capacity(name.len() * 2);
                utf7::encode_into(name, &mut encoded);
                put::quoted_or_literal(out, &encoded, false);
            }
        }
    }
}

/// INBOX in upper case, alone or as the first level (RFC 9051 5.1: INBOX is case-insensitive).
pub fn canonical_name(name: &str) -> String {
    match name.split_once(DELIMITER) {
        Some((first, rest)) if first.eq_ignore_ascii_case("INBOX") => format!("INBOX/{rest}"),
        None if name.eq_ignore_ascii_case("INBOX") => "INBOX".to_owned(),
        _ => name.to_owned(),
    }
}

/// In NFC, the one form in which names are kept (RFC 9051 5.1, RFC 5198 3).
fn composed(name: String) -> String {
    match name.is_ascii() || is_nfc(&name) {
        true => name,
        false => name.nfc().collect(),
    }
}

fn unicode(name: &[u8], names: Names) -> Parse<String> {
    if name.len() > NAME_MAX {
        return Err(Refusal::name("The mailbox name is too long"));
    }
    let plain = match names {
        Names::Utf8 => None,
        Names::ModifiedUtf7 if !name.is_ascii() => None,
        Names::ModifiedUtf7 => Some(utf7::decode(name).map_err(|_| {
            Refusal::name("The mailbox name is not valid modified UTF-7 (RFC 3501 5.1.3)")
        })?),
    };
    let text = match plain {
        Some(plain) => plain,
        None => std::str::from_utf8(name)
            .map_err(|_| match names {
                // RFC 9755 3
                Names::Utf8 => Refusal::bad("The mailbox name is not valid UTF-8"),
                Names::ModifiedUtf7 => Refusal::name("The mailbox name is not valid UTF-8"),
            })?
            .to_owned(),
    };
    // RFC 9051 5.1: no control characters
    match text.chars().any(char::is_control) {
        true => Err(Refusal::name("The mailbox name has control characters")),
        false => Ok(text),
    }
}

/// The name as it is kept.
pub(crate) fn decode(name: &[u8], names: Names) -> Parse<String> {
    Ok(composed(supplied(name, names)?))
}

/// The name as the client wrote it, which may not be the form in which it is kept (RFC 9051 6.3.9.7).
pub(crate) fn supplied(name: &[u8], names: Names) -> Parse<String> {
    Ok(canonical_name(&unicode(name, names)?))
}

pub(crate) fn decode_pattern(pattern: &[u8], names: Names) -> Parse<String> {
    unicode(pattern, names)
}

/// A pattern of LIST: `*` is anything, `%` anything within a level (RFC 9051 6.3.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    chars: Vec<char>,
}

impl Pattern {
    /// From a reference and a pattern in Unicode, which are simply joined.
    ///
    /// # Errors
    /// [`Refusal`]: more than 32 wildcards.
    pub fn new(reference: &str, pattern: &str) -> Result<Self, Refusal> {
        let joined = composed(canonical_name(&format!("{reference}{pattern}")));
        let mut chars: Vec<char> = Vec::with_capacity(joined.len());
        for char in joined.chars() {
            match (chars.last(), char) {
                // Neighbouring wildcards are one, the stronger one.
                (Some('*'), '*' | '%') => {}
                (Some('%'), '%') => {}
                (Some('%'), '*') => {
                    chars.pop();
                    chars.push('*');
                }
                _ => chars.push(char),
            }
        }
        let wildcards = chars.iter().filter(|c| matches!(c, '*' | '%')).count();
        match wildcards > WILDCARDS_MAX {
            true => Err(Refusal::bad("The pattern has too many wildcards")),
            false => Ok(Self { chars }),
        }
    }

    /// Whether the name matches. INBOX matches in any case.
    pub fn matches(&self, name: &str) -> bool {
        // The positions in the pattern that can be reached after the characters of the name read so far.
        let mut here: Vec<usize> = vec![0];
        let mut next: Vec<usize> = Vec::new();
        self.close(&mut here);
        let inbox = name == "INBOX";
        for char in name.chars() {
            next.clear();
            for at in here.iter().copied() {
                match self.chars.get(at) {
                    Some('*') => next.push(at),
                    Some('%') if char != DELIMITER => next.push(at),
                    Some(other) if *other == char => next.push(at + 1),
                    Some(other) if inbox && other.eq_ignore_ascii_case(&char) => next.push(at + 1),
                    _ => {}
                }
            }
            self.close(&mut next);
            std::mem::swap(&mut here, &mut next);
            if here.is_empty() {
                return false;
            }
        }
        here.contains(&self.chars.len())
    }

    /// A wildcard may stand for nothing: its successor is reached with it.
    fn close(&self, positions: &mut Vec<usize>) {
        let mut index = 0;
        while let Some(at) = positions.get(index).copied() {
            if matches!(self.chars.get(at), Some('*' | '%')) {
                positions.push(at + 1);
            }
            index += 1;
        }
        positions.sort_unstable();
        positions.dedup();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::new("", pattern).unwrap().matches(name)
    }

    #[test]
    fn wildcards() {
        assert!(matches("*", "a/b/c"));
        assert!(matches("%", "a"));
        assert!(!matches("%", "a/b"));
        assert!(matches("a/%", "a/b"));
        assert!(!matches("a/%", "a/b/c"));
        assert!(matches("a/%/c", "a/b/c"));
        assert!(matches("%/%", "a/b"));
        assert!(matches("%*", "a/b"));
        assert!(matches("in%x", "INBOX"));
        assert!(matches("inbox", "INBOX"));
        assert!(matches("inbox/%", "INBOX/x"));
        assert!(!matches("Sent", "sent"));
        assert!(matches("*b*", "aabaa"));
        assert!(!matches("", "a"));
        assert!(matches("", ""));
        assert!(Pattern::new("", &"*a".repeat(33)).is_err());
        assert!(Pattern::new("Work/", "%").unwrap().matches("Work/x"));
        assert!(matches("Entwu\u{308}%", "Entw\u{fc}rfe"));
    }

    #[test]
    fn names_travel_both_ways() {
        let mut out = Vec::new();
        Names::ModifiedUtf7.put(&mut out, "Entwürfe & \"x\"");
        assert_eq!(out, b"\"Entw&APw-rfe &- \\\"x\\\"\"");
        out.clear();
        Names::Utf8.put(&mut out, "Entwürfe & x");
        assert_eq!(out, "\"Entwürfe & x\"".as_bytes());
        assert_eq!(decode(b"inbox", Names::Utf8).unwrap(), "INBOX");
        assert_eq!(decode(b"InBox/a", Names::Utf8).unwrap(), "INBOX/a");
        assert_eq!(decode(b"inboxes", Names::Utf8).unwrap(), "inboxes");
        assert_eq!(
            decode("Entwürfe".as_bytes(), Names::ModifiedUtf7).unwrap(),
            "Entwürfe"
        );
        assert!(decode(b"a&b", Names::ModifiedUtf7).is_err());
        assert_eq!(decode(b"a&b", Names::Utf8).unwrap(), "a&b");
        assert!(decode(b"a\x07", Names::Utf8).is_err());
    }

    #[test]
    fn names_are_composed() {
        let written = "Entwu\u{308}rfe";
        let name = written.as_bytes();
        assert_eq!(decode(name, Names::Utf8).unwrap(), "Entw\u{fc}rfe");
        assert_eq!(supplied(name, Names::Utf8).unwrap(), written);
        assert_eq!(
            decode(b"Entwu&Awg-rfe", Names::ModifiedUtf7).unwrap(),
            "Entw\u{fc}rfe"
        );
    }

    proptest! {
        #[test]
        fn a_name_matches_itself_and_stars(name in "[a-c/]{0,12}", other in "[a-c/]{0,12}") {
            prop_assert!(matches(&name, &name));
            let surrounded = format!("{}{}{}", other, name, other);
            let starred = format!("*{}*", name);
            prop_assert!(matches(&starred, &surrounded));
        }
    }
}
