//! Crockford's base32 of 64-bit numbers: short, case-insensitive, without look-alike letters.

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// Writes all 13 digits, so that ids sort as text in the order of their numbers.
pub(crate) fn write(f: &mut std::fmt::Formatter<'_>, value: u64) -> std::fmt::Result {
    use std::fmt::Write;
    for shift in (0..13).rev() {
        let digit = (value >> (shift * 5)) & 31;
        let letter = ALPHABET.get(digit as usize).copied().unwrap_or(b'0');
        f.write_char(char::from(letter))?;
    }
    Ok(())
}

/// Reads what [`write()`] wrote, in either case; `None` for anything else.
pub(crate) fn read(text: &str) -> Option<u64> {
    if text.len() != 13 {
        return None;
    }
    let mut value: u64 = 0;
    for (at, byte) in text.bytes().enumerate() {
        let upper = byte.to_ascii_uppercase();
        let digit = ALPHABET.iter().position(|&letter| letter == upper)? as u64;
        if at == 0 && digit > 15 {
            return None;
        }
        value = (value << 5) | digit;
    }
    Some(value)
}
