//! Whether a search says in which character set it is.

use crate::Names;
use crate::cursor::Cursor;
use crate::reader::tag_of;

/// Whether a command is a SEARCH or UID SEARCH with CHARSET, which a client does not send after ENABLE UTF8=ACCEPT (RFC 9755 3).
pub fn searches_in_charset(octets: &[u8]) -> bool {
    let Some(rest) = tag_of(octets).and_then(|tag| octets.get(tag.len()..)) else {
        return false;
    };
    let mut cursor = Cursor::new(rest, Names::Utf8);
    says_charset(&mut cursor).unwrap_or(false)
}

fn says_charset(cursor: &mut Cursor<'_>) -> Option<bool> {
    cursor.space().ok()?;
    if cursor.eat_word("UID") {
        cursor.space().ok()?;
    }
    if !cursor.eat_word("SEARCH") {
        return None;
    }
    cursor.space().ok()?;
    if cursor.eat_word("RETURN") {
        cursor.space().ok()?;
        cursor.run(|octet| octet != b')');
        cursor.expect(b')', "").ok()?;
        cursor.space().ok()?;
    }
    Some(cursor.eat_word("CHARSET"))
}

#[cfg(test)]
mod tests {
    use super::searches_in_charset;

    #[test]
    fn where_the_charset_stands() {
        for (line, says) in [
            ("a SEARCH CHARSET UTF-8 ALL", true),
            ("a uid search charset us-ascii ALL", true),
            ("a SEARCH RETURN (MIN COUNT) CHARSET UTF-8 ALL", true),
            ("a SEARCH RETURN () CHARSET UTF-8 ALL", true),
            ("a SEARCH SUBJECT CHARSET", false),
            ("a SEARCH RETURN (MIN) ALL", false),
            ("a SORT (DATE) UTF-8 ALL", false),
            ("a SEARCH", false),
            ("", false),
        ] {
            assert_eq!(searches_in_charset(line.as_bytes()), says, "{line}");
        }
    }
}
