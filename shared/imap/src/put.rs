//! Pieces of responses, appended to a buffer.

use crate::SequenceSet;
use crate::number;

/// More escapes than this in a quoted string, and a literal is the shorter way.
const ESCAPES_MAX: usize = 4;

/// Quoted strings are at most so long: some clients read them into small buffers.
const QUOTED_MAX: usize = 1000;

/// The state of a response: tagged or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Done.
    Ok,
    /// Refused or failed.
    No,
    /// Not understood.
    Bad,
}

impl Condition {
    const fn name(self) -> &'static [u8] {
        match self {
            Self::Ok => b"OK ",
            Self::No => b"NO ",
            Self::Bad => b"BAD ",
        }
    }
}

/// Appends text as it is.
pub fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

/// Appends a number in decimal.
pub fn number(out: &mut Vec<u8>, number: u64) {
    number::write(out, number);
}

/// Appends a whole status response: `tag OK [CODE] text`. `code` is without brackets, empty for none.
pub fn status(out: &mut Vec<u8>, tag: &str, condition: Condition, code: &str, text: &str) {
    out.extend_from_slice(tag.as_bytes());
    out.push(b' ');
    out.extend_from_slice(condition.name());
    if !code.is_empty() {
        out.push(b'[');
        out.extend_from_slice(code.as_bytes());
        out.extend_from_slice(b"] ");
    }
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends a command continuation request (RFC 9051 7.6).
pub fn continuation(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(b"+ ");
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Appends a SASL challenge in base64 (RFC 9051 6.2.2).
pub fn challenge(out: &mut Vec<u8>, data: &[u8]) {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(data);
    continuation(out, &encoded);
}

/// Reads a SASL response in base64; `None` if it is not valid.
pub fn response(line: &[u8]) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(line).ok()
}

/// Appends the head of a literal: `{n}` and the line end. The octets must follow.
pub fn literal_head(out: &mut Vec<u8>, len: u64) {
    out.push(b'{');
    number::write(out, len);
    out.extend_from_slice(b"}\r\n");
}

/// Appends the head of a literal8 (RFC 9051 4.3, for octets with NUL in BINARY): `~{n}` and the line end.
pub fn literal8_head(out: &mut Vec<u8>, len: u64) {
    out.push(b'~');
    literal_head(out, len);
}

/// Appends a literal.
pub fn literal(out: &mut Vec<u8>, octets: &[u8]) {
    literal_head(out, octets.len() as u64);
    out.extend_from_slice(octets);
}

/// Appends a string: quoted where it can be, otherwise as a literal. `utf8` says whether the client takes UTF-8 in quoted
/// strings (RFC 9051 4.3; IMAP4rev1 does not).
pub fn quoted_or_literal(out: &mut Vec<u8>, octets: &[u8], utf8: bool) {
    let mut escapes = 0;
    let mut plain = octets.len() <= QUOTED_MAX;
    let mut high = false;
    for byte in octets {
        match byte {
            b'"' | b'\\' => escapes += 1,
            0 | b'\r' | b'\n' => plain = false,
            0x80.. => high = true,
            _ => {}
        }
    }
    if high && !(utf8 && std::str::from_utf8(octets).is_ok()) {
        plain = false;
    }
    if !plain || escapes > ESCAPES_MAX {
        return literal(out, octets);
    }
    out.push(b'"');
    if escapes == 0 {
        out.extend_from_slice(octets);
    } else {
        for byte in octets {
            if matches!(byte, b'"' | b'\\') {
                out.push(b'\\');
            }
            out.push(*byte);
        }
    }
    out.push(b'"');
}

/// Appends a string as any client reads it.
pub fn string(out: &mut Vec<u8>, octets: &[u8]) {
    quoted_or_literal(out, octets, false);
}

/// Appends a string or NIL.
pub fn nstring(out: &mut Vec<u8>, octets: Option<&[u8]>) {
    match octets {
        Some(octets) => string(out, octets),
        None => out.extend_from_slice(b"NIL"),
    }
}

/// Appends `items` with spaces between and in parentheses.
pub fn list<'t>(out: &mut Vec<u8>, items: impl IntoIterator<Item = &'t str>) {
    out.push(b'(');
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(item.as_bytes());
    }
    out.push(b')');
}

/// Appends ascending, disjoint ranges as a set.
pub fn set(out: &mut Vec<u8>, ranges: &[(u32, u32)]) {
    SequenceSet::write(out, ranges);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Names;
    use crate::cursor::Cursor;
    use proptest::prelude::*;

    #[test]
    fn status_responses() {
        let mut out = Vec::new();
        status(
            &mut out,
            "a1",
            Condition::Ok,
            "READ-WRITE",
            "SELECT completed",
        );
        status(&mut out, "*", Condition::Bad, "", "What?");
        assert_eq!(
            out,
            b"a1 OK [READ-WRITE] SELECT completed\r\n* BAD What?\r\n"
        );
    }

    #[test]
    fn strings() {
        let write = |octets: &[u8]| {
            let mut out = Vec::new();
            string(&mut out, octets);
            String::from_utf8_lossy(&out).into_owned()
        };
        assert_eq!(write(b""), "\"\"");
        assert_eq!(write(b"a \"b\" \\"), "\"a \\\"b\\\" \\\\\"");
        assert_eq!(write(b"a\r\nb"), "{4}\r\na\r\nb");
        assert_eq!(write("ü".as_bytes()), "{2}\r\nü");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(octets: Vec<u8>, utf8: bool) {
            let mut out = Vec::new();
            quoted_or_literal(&mut out, &octets, utf8);
            let mut cursor = Cursor::new(&out, Names::Utf8);
            prop_assert_eq!(cursor.string().unwrap().into_owned(), octets);
            prop_assert!(cursor.at_end());
        }
    }
}
