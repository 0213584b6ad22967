//! Secrets that authd makes, and keyed hashes that stand for secrets.

use aws_lc_rs::{constant_time, rand};
use ipc::{Fault, FaultKind};
use types::AccountId;
use zeroize::Zeroizing;

/// Random octets.
///
/// # Errors
/// The system has none: nothing secret can be made then.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Fault> {
    let mut octets = [0; N];
    rand::fill(&mut octets).map_err(|_| Fault::new(FaultKind::Internal, "no random octets"))?;
    Ok(octets)
}

/// Letters of an application password.
const LETTERS: usize = 24;

/// A new application password: 24 letters (112 bits), `abcd-efgh-...`.
///
/// # Errors
/// As for [`random`].
pub(crate) fn app_password() -> Result<Zeroizing<String>, Fault> {
    let mut text = Zeroizing::new(String::with_capacity(LETTERS + LETTERS / 4));
    let mut letters = 0;
    while letters < LETTERS {
        let octets = Zeroizing::new(random::<64>()?);
        // Those below 26 * 9 are evenly spread over the letters.
        for octet in octets.iter().filter(|octet| **octet < 234) {
            if letters == LETTERS {
                break;
            }
            if letters > 0 && letters % 4 == 0 {
                text.push('-');
            }
            text.push(char::from(b'a' + octet % 26));
            letters += 1;
        }
    }
    Ok(text)
}

/// What was typed, if it may be an application password: its letters.
pub(crate) fn app_letters(text: &str) -> Option<Zeroizing<String>> {
    let mut letters = Zeroizing::new(String::with_capacity(LETTERS));
    for c in text.chars().filter(|c| !matches!(c, '-' | ' ')) {
        if !c.is_ascii_alphabetic() || letters.len() == LETTERS {
            return None;
        }
        letters.push(c.to_ascii_lowercase());
    }
    (letters.len() == LETTERS).then_some(letters)
}

/// What is stored of an application password.
pub(crate) fn app_hash(account: AccountId, letters: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("posthouse authd application password 1");
    hasher.update(&account.0.to_le_bytes());
    hasher.update(letters.as_bytes());
    *hasher.finalize().as_bytes()
}

/// Whether two secrets are the same, in a time that does not tell where they differ.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// Stands for a list of texts; nothing can be learnt from it without the key.
pub(crate) fn keyed(key: &[u8; 32], fields: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    for field in fields {
        hasher.update(&(field.len() as u64).to_le_bytes());
        hasher.update(field);
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn application_passwords_survive_being_typed() {
        let made = app_password().unwrap();
        assert_eq!(made.len(), 29);
        assert_eq!(made.split('-').count(), 6);
        let letters = app_letters(&made).unwrap();
        assert_eq!(letters.len(), 24);
        for typed in [
            made.to_uppercase(),
            made.replace('-', ""),
            made.replace('-', " "),
        ] {
            assert_eq!(app_letters(&typed).unwrap(), letters);
        }
        assert!(app_letters("short").is_none());
        assert!(app_letters(&format!("{}a", made.as_str())).is_none());
        assert!(app_letters("abcd-efgh-ijkl-mnop-qrst-uvw1").is_none());
        assert_ne!(app_password().unwrap(), made);
        assert_ne!(
            app_hash(AccountId(1), &letters),
            app_hash(AccountId(2), &letters)
        );
        assert_ne!(
            keyed(&[0; 32], &[b"ab", b"c"]),
            keyed(&[0; 32], &[b"a", b"bc"])
        );
    }
}
