//! xtext (RFC 3461 4), and the forms in which an internationalised address travels in ORCPT (RFC 6533 3).

/// Why a text cannot be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the value is not valid xtext")]
pub struct XtextError;

/// Decodes xtext: `+` and two upper case hexadecimal digits stand for an octet. The result is printable ASCII: no encoded
/// control characters, no octets above 127 (RFC 3461 4.2, 4.4).
///
/// # Errors
/// [`XtextError`] for everything else.
pub fn decode(text: &str) -> Result<String, XtextError> {
    let mut plain = String::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let octet = match byte {
            b'+' => {
                let high = hexadecimal(bytes.next().ok_or(XtextError)?)?;
                let low = hexadecimal(bytes.next().ok_or(XtextError)?)?;
                high * 16 + low
            }
            b'=' => return Err(XtextError),
            b'!'..=b'~' => byte,
            _ => return Err(XtextError),
        };
        if !(0x20..0x7f).contains(&octet) {
            return Err(XtextError);
        }
        plain.push(char::from(octet));
    }
    Ok(plain)
}

/// Encodes as xtext, octet by octet.
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        match byte {
            b'+' | b'=' => escape(&mut encoded, byte),
            b'!'..=b'~' => encoded.push(char::from(byte)),
            _ => escape(&mut encoded, byte),
        }
    }
    encoded
}

fn escape(encoded: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    encoded.push('+');
    for digit in [byte >> 4, byte & 15] {
        let letter = DIGITS.get(usize::from(digit)).copied().unwrap_or(b'0');
        encoded.push(char::from(letter));
    }
}

// RFC 3461 4: hexadecimal digits are upper case
fn hexadecimal(digit: u8) -> Result<u8, XtextError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(XtextError),
    }
}

/// Decodes the value of ORCPT, `type;value`, to the form in which the suite keeps it: the type in lower case, the value plain.
///
/// # Errors
/// [`XtextError`] if the type is no atom or the value is not encoded as that type demands.
pub fn decode_orcpt(text: &str) -> Result<String, XtextError> {
    let (kind, value) = text.split_once(';').ok_or(XtextError)?;
    let atom = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&b);
    if kind.is_empty() || !kind.bytes().all(atom) || value.is_empty() {
        return Err(XtextError);
    }
    let kind = kind.to_ascii_lowercase();
    let plain = if kind == "utf-8" {
        decode_utf8(value)?
    } else {
        decode(value)?
    };
    Ok(format!("{kind};{plain}"))
}

/// Encodes `type;value` for ORCPT. `utf8`: the transaction carries SMTPUTF8, so that utf-8-addr-unitext may be used.
/// `None` if it has no type, or a character which cannot be sent.
pub fn encode_orcpt(orcpt: &str, utf8: bool) -> Option<String> {
    let (kind, value) = orcpt.split_once(';')?;
    if value.chars().any(char::is_control) {
        return None;
    }
    if !kind.eq_ignore_ascii_case("utf-8") {
        return value
            .is_ascii()
            .then(|| format!("{kind};{}", encode(value)));
    }
    let mut encoded = String::with_capacity(value.len() + kind.len() + 8);
    encoded.push_str("utf-8;");
    for c in value.chars() {
        match c {
            '+' | '=' | '\\' | ' ' => {
                encoded.push_str(&format!("\\x{{{:X}}}", u32::from(c)));
            }
            c if c.is_ascii() || utf8 => encoded.push(c),
            c => encoded.push_str(&format!("\\x{{{:X}}}", u32::from(c))),
        }
    }
    Some(encoded)
}

/// utf-8-addr-xtext and utf-8-addr-unitext (RFC 6533 3): `\x{HEX}` for a character.
fn decode_utf8(text: &str) -> Result<String, XtextError> {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some(embedded) = rest.strip_prefix("\\x{") {
            let (digits, behind) = embedded.split_once('}').ok_or(XtextError)?;
            let upper = |b: u8| b.is_ascii_digit() || (b'A'..=b'F').contains(&b);
            if !(2..=6).contains(&digits.len()) || !digits.bytes().all(upper) {
                return Err(XtextError);
            }
            let number = u32::from_str_radix(digits, 16).map_err(|_| XtextError)?;
            let c = char::from_u32(number)
                .filter(|c| !c.is_control())
                .ok_or(XtextError)?;
            plain.push(c);
            rest = behind;
            continue;
        }
        if matches!(c, '\\' | '+' | '=' | ' ') || c.is_control() {
            return Err(XtextError);
        }
        plain.push(c);
        rest = rest.strip_prefix(c).unwrap_or_default();
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn xtext_is_strict() {
        assert_eq!(decode("a+2Bb+3Dc").unwrap(), "a+b=c");
        for bad in ["+", "+2", "+2b", "a=b", "a b", "+0A", "+80", "ü", "+7F"] {
            assert!(decode(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn original_recipients_of_both_kinds() {
        assert_eq!(
            decode_orcpt("RFC822;jane+2Bx@example.org").unwrap(),
            "rfc822;jane+x@example.org"
        );
        assert_eq!(
            decode_orcpt("utf-8;j\\x{FC}rgen@example.org").unwrap(),
            "utf-8;jürgen@example.org"
        );
        assert_eq!(
            encode_orcpt("utf-8;jürgen@example.org", false).unwrap(),
            "utf-8;j\\x{FC}rgen@example.org"
        );
        assert_eq!(
            encode_orcpt("utf-8;jürgen@example.org", true).unwrap(),
            "utf-8;jürgen@example.org"
        );
        for bad in [
            "rfc822",
            ";x",
            "rfc822;",
            "r c;x",
            "utf-8;\\x{D800}",
            "utf-8;\\x{0A}",
        ] {
            assert!(decode_orcpt(bad).is_err(), "{bad}");
        }
        assert!(encode_orcpt("rfc822;ü", true).is_none());
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(text in "[ -~]{0,60}") {
            prop_assert_eq!(decode(&encode(&text)).unwrap(), text);
        }

        #[test]
        fn utf8_too(text in "\\PC{1,40}", utf8 in any::<bool>()) {
            let orcpt = format!("utf-8;{text}");
            if let Some(encoded) = encode_orcpt(&orcpt, utf8) {
                prop_assert_eq!(decode_orcpt(&encoded).unwrap(), orcpt);
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,80}") {
            let _ = decode(&text);
            let _ = decode_orcpt(&text);
        }
    }
}
