//! Passwords as people type them: the same characters may come in several encodings.

use std::borrow::Cow;
use unicode_normalization::{UnicodeNormalization, is_nfc};

/// The OpaqueString profile (RFC 8265 4.2.2): blanks of other scripts become spaces, and the text is NFC. `None` if nothing
/// is left or a control character is in it.
pub(crate) fn opaque(password: &str) -> Option<Cow<'_, str>> {
    if password.is_empty() || password.chars().any(char::is_control) {
        return None;
    }
    if password.is_ascii() {
        return Some(Cow::Borrowed(password));
    }
    let blank = |c: char| c != ' ' && c.is_whitespace();
    if is_nfc(password) && !password.chars().any(blank) {
        return Some(Cow::Borrowed(password));
    }
    let mapped = password.chars().map(|c| if blank(c) { ' ' } else { c });
    Some(Cow::Owned(mapped.nfc().collect()))
}

/// SASLprep (RFC 4013), which SCRAM clients apply (RFC 5802 2.2); what it forbids stays as it is, as most clients leave it.
pub(crate) fn saslprep(password: &str) -> Cow<'_, str> {
    stringprep::saslprep(password).unwrap_or(Cow::Borrowed(password))
}
