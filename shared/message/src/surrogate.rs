//! Headers with UTF-8 in them (RFC 6532), for clients that know ASCII only (RFC 6858).

use crate::address::{EnvelopeAddress, parse_list};
use crate::charset::header_text;
use crate::header::{Field, Fields};
use std::str;

/// Stands for an address that is not ASCII (RFC 6858 2.1). Nobody can reply to it.
const INVALID: &str = "<invalid@internationalized-address.invalid>";
/// Characters of an encoded word's text; with the rest of it a line stays below the 76 of RFC 2047 2.
const WORD: usize = 48;
/// Addresses of one field at most; what is beyond is left away.
const ADDRESSES: usize = 2000;

const ADDRESS_FIELDS: [&str; 12] = [
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Bcc",
    "Resent-From",
    "Resent-Sender",
    "Resent-To",
    "Resent-Cc",
    "Resent-Bcc",
    "Resent-Reply-To",
];
/// Text without structure, which encoded words can carry (RFC 2047 5).
const TEXT_FIELDS: [&str; 3] = ["Subject", "Comments", "Content-Description"];

/// A header block, its empty line included, in ASCII: addresses that are not ASCII become one that cannot be replied to, with
/// the true one in the name; text becomes encoded words; in other fields each character that is not ASCII becomes `?`.
/// Fields that are ASCII stay as they are. `None` if all is ASCII, or if it is not UTF-8: that is no internationalized
/// message (RFC 6532), only an old one that breaks the rules, which clients have always had to cope with.
///
/// Only the header itself: the headers of MIME parts are in the body, and stay.
pub fn surrogate(header: &[u8]) -> Option<Vec<u8>> {
    if header.is_ascii() || str::from_utf8(header).is_err() {
        return None;
    }
    let mut out = Vec::with_capacity(header.len() * 2);
    let mut fields = Fields::new(header);
    for field in fields.by_ref() {
        if field.raw.is_ascii() {
            out.extend_from_slice(field.raw);
        } else {
            rewrite(&field, &mut out);
        }
    }
    replace(fields.rest(), &mut out);
    Some(out)
}

fn is_one_of(name: &[u8], names: &[&str]) -> bool {
    names
        .iter()
        .any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

fn rewrite(field: &Field<'_>, out: &mut Vec<u8>) {
    let written = if !field.name.is_ascii() {
        None
    } else if is_one_of(field.name, &ADDRESS_FIELDS) {
        addresses(field.value)
    } else if is_one_of(field.name, &TEXT_FIELDS) || starts_with_x(field.name) {
        Some(words(&header_text(field.value)))
    } else {
        None
    };
    let Some(written) = written else {
        return replace(field.raw, out);
    };
    out.extend_from_slice(field.name);
    out.push(b':');
    // Long names leave no room for a word in their line.
    out.extend_from_slice(if field.name.len() > 12 {
        b"\r\n "
    } else {
        b" "
    });
    out.extend_from_slice(written.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn starts_with_x(name: &[u8]) -> bool {
    name.get(..2)
        .is_some_and(|start| start.eq_ignore_ascii_case(b"x-"))
}

/// Each character that is not ASCII becomes `?`.
fn replace(octets: &[u8], out: &mut Vec<u8>) {
    // What continues a character (RFC 3629 3) goes with its first octet.
    let kept = octets.iter().filter(|octet| **octet & 0xc0 != 0x80);
    out.extend(kept.map(|octet| if octet.is_ascii() { *octet } else { b'?' }));
}

/// Encoded words (RFC 2047 4.2), one a line; none is split within a character.
fn words(text: &str) -> String {
    let mut all = String::new();
    let mut word = String::new();
    let mut part = String::new();
    for character in text.chars() {
        part.clear();
        let mut octets = [0_u8; 4];
        for octet in character.encode_utf8(&mut octets).bytes() {
            match octet {
                b' ' => part.push('_'),
                // RFC 2047 5 (3): what may stand in a phrase, too
                _ if octet.is_ascii_alphanumeric() => part.push(char::from(octet)),
                _ => part.push_str(&format!("={octet:02X}")),
            }
        }
        if word.len() + part.len() > WORD {
            push_word(&mut all, &word);
            word.clear();
        }
        word.push_str(&part);
    }
    push_word(&mut all, &word);
    all
}

fn push_word(all: &mut String, word: &str) {
    if !all.is_empty() {
        all.push_str("\r\n ");
    }
    all.push_str("=?utf-8?Q?");
    all.push_str(word);
    all.push_str("?=");
}

/// An address list; `None` if it cannot be read as one.
fn addresses(value: &[u8]) -> Option<String> {
    let mut list = Vec::new();
    parse_list(value, &mut list, ADDRESSES);
    let mut out = String::new();
    // Nothing is written between a group's name and its first address.
    let mut fresh = true;
    for address in &list {
        let text = if address.is_group_mark() {
            match &address.mailbox {
                Some(name) => format!("{}:", display(&header_text(name))),
                None => ";".to_owned(),
            }
        } else {
            one_address(address)?
        };
        if text == ";" {
            out.push(';');
            fresh = false;
            continue;
        }
        out.push_str(if fresh { "" } else { ",\r\n " });
        fresh = text.ends_with(':');
        out.push_str(&text);
    }
    (!out.is_empty()).then_some(out)
}

fn one_address(address: &EnvelopeAddress) -> Option<String> {
    let mailbox = str::from_utf8(address.mailbox.as_deref()?).ok()?;
    let domain = str::from_utf8(address.domain.as_deref()?).ok()?;
    let placeholder = mailbox == "MISSING_MAILBOX";
    if placeholder || matches!(domain, "MISSING_DOMAIN" | "SYNTAX_ERROR") {
        return None;
    }
    let name = address.name.as_deref().map(header_text).unwrap_or_default();
    if mailbox.is_ascii() && domain.is_ascii() {
        let local = if is_dot_atom(mailbox) {
            mailbox.to_owned()
        } else {
            quoted(mailbox)
        };
        return Some(match name.as_str() {
            "" => format!("<{local}@{domain}>"),
            name => format!("{} <{local}@{domain}>", display(name)),
        });
    }
    let shown = match name.as_str() {
        "" => format!("{mailbox}@{domain}"),
        name => format!("{name} <{mailbox}@{domain}>"),
    };
    Some(format!("{}\r\n {INVALID}", words(&shown)))
}

fn display(name: &str) -> String {
    if name.is_ascii() {
        quoted(name)
    } else {
        words(name)
    }
}

fn is_dot_atom(text: &str) -> bool {
    let atext =
        |octet: u8| octet.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&octet);
    text.split('.')
        .all(|atom| !atom.is_empty() && atom.bytes().all(atext))
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars().filter(|character| !character.is_control()) {
        if matches!(character, '"' | '\\') {
            out.push('\\');
        }
        out.push(character);
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn shown(header: &str) -> String {
        String::from_utf8(surrogate(header.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn what_is_ascii_or_no_utf8_stays() {
        assert_eq!(surrogate(b"Subject: a\r\n\r\n"), None);
        assert_eq!(surrogate(b"Subject: \xe4\r\n\r\n"), None);
        assert_eq!(surrogate(b""), None);
    }

    #[test]
    fn text_becomes_encoded_words() {
        let header = shown("To: a@b.test\r\nSubject: Grüße, =?utf-8?q?f=C3=BCr?= dich\r\n\r\n");
        assert_eq!(
            header,
            "To: a@b.test\r\nSubject: =?utf-8?Q?Gr=C3=BC=C3=9Fe=2C_f=C3=BCr_dich?=\r\n\r\n"
        );
        let long = shown(&format!("Subject: {}\r\n\r\n", "ü".repeat(100)));
        assert!(long.lines().all(|line| line.len() <= 76), "{long}");
        assert_eq!(
            header_text(long.strip_prefix("Subject: ").unwrap().trim().as_bytes()),
            "ü".repeat(100)
        );
    }

    /// RFC 6858 2.1
    #[test]
    fn addresses_that_are_not_ascii_cannot_be_replied_to() {
        assert_eq!(
            shown("From: Jo <jø@ex.test>\r\nCc: Åse <ase@ex.test>, \"B, C\" <b@ex.test>\r\n\r\n"),
            "From: =?utf-8?Q?Jo_=3Cj=C3=B8=40ex=2Etest=3E?=\r\n <invalid@internationalized-address.invalid>\r\n\
             Cc: =?utf-8?Q?=C3=85se?= <ase@ex.test>,\r\n \"B, C\" <b@ex.test>\r\n\r\n"
        );
        assert_eq!(
            shown("To: Ünion: a@ex.test, b@ex.test;\r\n\r\n"),
            "To: =?utf-8?Q?=C3=9Cnion?=:<a@ex.test>,\r\n <b@ex.test>;\r\n\r\n"
        );
    }

    #[test]
    fn structure_survives_in_other_fields() {
        assert_eq!(
            shown("Content-Type: text/plain; name=\"a\u{2713}ä.txt\"\r\nTo: ü\r\n\r\n"),
            "Content-Type: text/plain; name=\"a??.txt\"\r\nTo: ?\r\n\r\n"
        );
    }
}
