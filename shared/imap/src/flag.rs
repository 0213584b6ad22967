//! Flags (RFC 9051 2.3.2): system flags begin with a backslash, keywords do not.

use crate::cursor::{Cursor, Parse};
use crate::refusal::Refusal;

/// The system flags, as they are written.
pub const SYSTEM: [&str; 5] = ["\\Answered", "\\Flagged", "\\Deleted", "\\Seen", "\\Draft"];

/// Keywords of the IANA registry whose case clients do not agree on, as they are registered.
const REGISTERED: [&str; 10] = [
    "$Forwarded",
    "$MDNSent",
    "$Junk",
    "$NotJunk",
    "$Phishing",
    "$Important",
    "$SubmitPending",
    "$Submitted",
    "$HasAttachment",
    "$HasNoAttachment",
];

/// A keyword is at most so long, in octets.
pub const KEYWORD_MAX: usize = 100;

/// System flags and registered keywords in their usual case; other keywords as they are. Flags are the same without
/// regard to case (RFC 9051 2.3.2).
pub fn canonical(flag: &str) -> String {
    SYSTEM
        .iter()
        .chain(&REGISTERED)
        .find(|known| known.eq_ignore_ascii_case(flag))
        .map_or_else(|| flag.to_owned(), |known| (*known).to_owned())
}

/// One flag; `None` for \Recent, which clients cannot set but some send.
pub(crate) fn parse(cursor: &mut Cursor<'_>) -> Parse<Option<String>> {
    let system = cursor.eat(b'\\');
    let name = cursor.atom()?;
    if name.len() > KEYWORD_MAX {
        return Err(Refusal::bad("A keyword is too long"));
    }
    // An atom is ASCII.
    let name = String::from_utf8_lossy(name);
    if !system {
        return Ok(Some(canonical(&name)));
    }
    if name.eq_ignore_ascii_case("Recent") {
        return Ok(None);
    }
    let flag = canonical(&format!("\\{name}"));
    match SYSTEM.contains(&flag.as_str()) {
        true => Ok(Some(flag)),
        false => Err(Refusal::bad("There is no such system flag")),
    }
}

/// `(\Seen $Junk)`, without duplicates.
pub(crate) fn parse_list(cursor: &mut Cursor<'_>) -> Parse<Vec<String>> {
    Ok(distinct(cursor.list(parse)?))
}

/// Flags in a list or, as STORE allows, just one after the other.
pub(crate) fn parse_open(cursor: &mut Cursor<'_>) -> Parse<Vec<String>> {
    if cursor.peek() == Some(b'(') {
        return parse_list(cursor);
    }
    let mut flags = vec![parse(cursor)?];
    while !cursor.at_end() {
        cursor.space()?;
        flags.push(parse(cursor)?);
    }
    Ok(distinct(flags))
}

fn distinct(flags: Vec<Option<String>>) -> Vec<String> {
    let mut seen: Vec<String> = Vec::with_capacity(flags.len());
    for flag in flags.into_iter().flatten() {
        if !seen.iter().any(|known| known.eq_ignore_ascii_case(&flag)) {
            seen.push(flag);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Names;

    fn flags(text: &str) -> Parse<Vec<String>> {
        parse_open(&mut Cursor::new(text.as_bytes(), Names::Utf8))
    }

    #[test]
    fn flags_have_one_case() {
        assert_eq!(
            flags("(\\SEEN $junk Later LATER \\Recent)").unwrap(),
            ["\\Seen", "$Junk", "Later"]
        );
        assert_eq!(
            flags("\\deleted \\Draft").unwrap(),
            ["\\Deleted", "\\Draft"]
        );
        assert_eq!(flags("()").unwrap(), Vec::<String>::new());
        for bad in ["(\\Foo)", "(a", "", "(\\)", "(a  b)", "\"x\""] {
            assert!(flags(bad).is_err(), "{bad}");
        }
        assert!(flags(&"x".repeat(KEYWORD_MAX + 1)).is_err());
    }
}
