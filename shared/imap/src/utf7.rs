//! Modified UTF-7, IMAP4rev1's form of mailbox names (RFC 3501 5.1.3).

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,";

/// A name that is not valid modified UTF-7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not valid modified UTF-7")]
pub struct Utf7Error;

fn value(letter: u8) -> Option<u32> {
    Some(u32::from(match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        b',' => 63,
        _ => return None,
    }))
}

/// Decodes a name. What needs no shift may stand in one: clients do that.
///
/// # Errors
/// [`Utf7Error`]: an octet outside printable ASCII, a shift that does not end, bits left over, or lone surrogates.
pub fn decode(name: &[u8]) -> Result<String, Utf7Error> {
    let mut text = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'&' => {
                let end = rest
                    .iter()
                    .position(|byte| *byte == b'-')
                    .ok_or(Utf7Error)?;
                let (shifted, after) = rest.split_at_checked(end).ok_or(Utf7Error)?;
                rest = after.get(1..).ok_or(Utf7Error)?;
                if shifted.is_empty() {
                    text.push('&');
                } else {
                    decode_shifted(shifted, &mut text)?;
                }
            }
            0x20..=0x7e => text.push(char::from(byte)),
            _ => return Err(Utf7Error),
        }
    }
    Ok(text)
}

fn decode_shifted(shifted: &[u8], text: &mut String) -> Result<(), Utf7Error> {
    let mut units = Vec::with_capacity(shifted.len() * 3 / 8 + 1);
    let mut bits = 0u32;
    let mut count = 0;
    for letter in shifted {
        bits = bits << 6 | value(*letter).ok_or(Utf7Error)?;
        count += 6;
        if count >= 16 {
            count -= 16;
            let unit = u16::try_from(bits >> count & 0xffff).map_err(|_| Utf7Error)?;
            units.push(unit);
            bits &= (1 << count) - 1;
        }
    }
    // What pads the last letter is less than one letter, and zero.
    if count >= 6 || bits != 0 {
        return Err(Utf7Error);
    }
    for char in char::decode_utf16(units) {
        let char = char.map_err(|_| Utf7Error)?;
        // A control character is no part of a name, shifted or not.
        if char.is_control() {
            return Err(Utf7Error);
        }
        text.push(char);
    }
    Ok(())
}

/// Appends a name in modified UTF-7.
pub fn encode_into(name: &str, out: &mut Vec<u8>) {
    let mut shifted: Vec<u16> = Vec::new();
    for char in name.chars() {
        if matches!(char, ' '..='~') {
            flush(&mut shifted, out);
            match char {
                '&' => out.extend_from_slice(b"&-"),
                // Printable ASCII is one octet.
                other => out.push(u8::try_from(other).unwrap_or(b'?')),
            }
        } else {
            let mut pair = [0u16; 2];
            shifted.extend_from_slice(char.encode_utf16(&mut pair));
        }
    }
    flush(&mut shifted, out);
}

fn flush(units: &mut Vec<u16>, out: &mut Vec<u8>) {
    if units.is_empty() {
        return;
    }
    out.push(b'&');
    let mut bits = 0u32;
    let mut count = 0;
    for unit in units.drain(..) {
        bits = bits << 16 | u32::from(unit);
        count += 16;
        while count >= 6 {
            count -= 6;
            push_letter(bits >> count, out);
            bits &= (1 << count) - 1;
        }
    }
    if count > 0 {
        push_letter(bits << (6 - count), out);
    }
    out.push(b'-');
}

fn push_letter(bits: u32, out: &mut Vec<u8>) {
    let index = usize::try_from(bits & 63).unwrap_or_default();
    out.push(ALPHABET.get(index).copied().unwrap_or(b'A'));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn encode(name: &str) -> String {
        let mut out = Vec::new();
        encode_into(name, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn rfc_3501_examples() {
        for (utf7, text) in [
            ("~peter/mail/&U,BTFw-/&ZeVnLIqe-", "~peter/mail/台北/日本語"),
            ("&Jjo-!", "☺!"),
            ("Entw&APw-rfe", "Entwürfe"),
            ("A&-B", "A&B"),
            ("&2D3eAA-", "😀"),
        ] {
            assert_eq!(decode(utf7.as_bytes()).unwrap(), text);
            assert_eq!(encode(text), utf7);
        }
        assert_eq!(decode(b"&U,BTFw-&ZeVnLIqe-").unwrap(), "台北日本語");
    }

    #[test]
    fn malformed_names_are_refused() {
        for bad in [
            &b"&Jjo!"[..],
            b"A&B",
            b"&=-",
            b"&2D0-",
            b"\xc3\xbc",
            b"&AAo-",
            b"&Jj-",
            b"a\x01",
        ] {
            assert_eq!(decode(bad), Err(Utf7Error), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn every_name_survives(name in "[^\\p{Cc}]*") {
            prop_assert_eq!(decode(encode(&name).as_bytes()).unwrap(), name);
        }

        #[test]
        fn any_octets_are_decoded_or_refused(octets: Vec<u8>) {
            let _ = decode(&octets);
        }
    }
}
