//! Text in Unicode: charsets and encoded words (RFC 2047). The tables are mail-parser's and encoding_rs'.

use mail_parser::decoders::charsets::map::charset_decoder;
use std::borrow::Cow;

/// Octets of a charset as text. Unknown charsets, and text that is not in the charset it claims, are read as UTF-8 if they
/// are valid as such, otherwise as Windows-1252, which is what most such mail is in.
pub fn to_text(octets: &[u8], charset: &[u8]) -> String {
    let name = charset.trim_ascii();
    let is_utf8 = name.is_empty()
        || [
            &b"utf-8"[..],
            b"utf8",
            b"us-ascii",
            b"ascii",
            b"unknown-8bit",
        ]
        .iter()
        .any(|utf8| utf8.eq_ignore_ascii_case(name));
    if is_utf8 && let Ok(text) = std::str::from_utf8(octets) {
        return text.to_owned();
    }
    let declared = if is_utf8 { None } else { charset_decoder(name) };
    match declared {
        Some(decode) => decode(octets),
        None => match std::str::from_utf8(octets) {
            Ok(text) => text.to_owned(),
            Err(_) => match charset_decoder(b"windows-1252") {
                // Mostly valid UTF-8 with a damaged spot is still UTF-8.
                Some(decode) if !name.is_empty() || mostly_latin(octets) => decode(octets),
                _ => String::from_utf8_lossy(octets).into_owned(),
            },
        },
    }
}

/// Whether the first invalid sequence comes before any valid multi-octet one.
fn mostly_latin(octets: &[u8]) -> bool {
    match octets.utf8_chunks().next() {
        Some(chunk) => chunk.valid().is_ascii(),
        None => false,
    }
}

/// Whether a charset of that name can be read (SEARCH's BADCHARSET, RFC 9051 6.4.4).
pub fn is_known(charset: &[u8]) -> bool {
    let name = charset.trim_ascii();
    name.eq_ignore_ascii_case(b"utf-8")
        || name.eq_ignore_ascii_case(b"us-ascii")
        || charset_decoder(name).is_some()
}

struct Word<'a> {
    charset: &'a [u8],
    octets: Vec<u8>,
    rest: &'a [u8],
}

/// A header value as text: unfolded, encoded words decoded (RFC 2047), raw eight-bit text read as UTF-8 or Windows-1252.
pub fn header_text(value: &[u8]) -> String {
    let value = crate::wire::unfold(value);
    if memchr::memmem::find(&value, b"=?").is_none() {
        return match value {
            Cow::Borrowed(plain) => to_text(plain, b""),
            Cow::Owned(plain) => to_text(&plain, b""),
        };
    }
    let mut text = String::with_capacity(value.len());
    let mut rest: &[u8] = &value;
    // Behind the last `?=` no word can end, so none is looked for: keeps it linear.
    let last_end = memchr::memmem::rfind(&value, b"?=").unwrap_or(0);
    // Octets of words not yet turned into text: characters may be split between words of the same charset.
    let mut held: Option<(&[u8], Vec<u8>)> = None;
    while !rest.is_empty() {
        let offset = value.len() - rest.len();
        let start = if offset <= last_end {
            memchr::memmem::find(rest, b"=?")
        } else {
            None
        };
        let (plain, tail) = rest.split_at(start.unwrap_or(rest.len()));
        let word = read_word(tail);
        // RFC 2047 6.2: white space between two words is not shown.
        let between = word.is_some() && plain.iter().all(u8::is_ascii_whitespace);
        if !(between && held.is_some()) {
            flush(&mut held, &mut text);
            text.push_str(&to_text(plain, b""));
        }
        match word {
            Some(word) => {
                match &mut held {
                    Some((charset, octets)) if charset.eq_ignore_ascii_case(word.charset) => {
                        octets.extend_from_slice(&word.octets);
                    }
                    _ => {
                        flush(&mut held, &mut text);
                        held = Some((word.charset, word.octets));
                    }
                }
                rest = word.rest;
            }
            None => {
                flush(&mut held, &mut text);
                let (mark, after) = tail.split_at(tail.len().min(2));
                text.push_str(&String::from_utf8_lossy(mark));
                rest = after;
            }
        }
    }
    flush(&mut held, &mut text);
    text
}

fn flush(held: &mut Option<(&[u8], Vec<u8>)>, text: &mut String) {
    if let Some((charset, octets)) = held.take() {
        text.push_str(&to_text(&octets, charset));
    }
}

/// `=?charset*language?B?text?=` at the start. A word is taken as ended at 2,000 octets at the latest: senders exceed
/// RFC 2047's 75, but not by that much.
fn read_word(data: &[u8]) -> Option<Word<'_>> {
    let data = data.get(..data.len().min(2000)).map(|head| (head, data))?;
    let inner = data.0.strip_prefix(b"=?")?;
    let charset_end = memchr::memchr(b'?', inner.get(..inner.len().min(64))?)?;
    let (charset, inner) = inner.split_at(charset_end);
    let charset = charset.split(|b| *b == b'*').next()?;
    let [b'?', encoding, b'?', inner @ ..] = inner else {
        return None;
    };
    let text_len = memchr::memmem::find(inner, b"?=")?;
    let text = inner.get(..text_len)?;
    let octets = match encoding {
        b'b' | b'B' => crate::transfer::base64(text, usize::MAX),
        b'q' | b'Q' => {
            let mut octets = Vec::with_capacity(text.len());
            crate::transfer::escapes(text, true, &mut octets);
            octets
        }
        _ => return None,
    };
    let used = data.0.len() - inner.len() + text_len + 2;
    Some(Word {
        charset,
        octets,
        rest: data.1.get(used..)?,
    })
}
