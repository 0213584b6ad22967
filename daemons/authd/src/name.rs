//! Names of accounts and addresses as people type them.
//!
//! Domains are filed as A-labels in lower case. Local parts are NFC (RFC 6532 3.1) and compared without regard to case:
//! RFC 5321 2.4 leaves that to the receiving host, which we are, and nobody wants `Jane@` and `jane@` to be two people.

use crate::directory::DirectoryError;
use std::borrow::Cow;
use types::Address;
use unicode_normalization::{UnicodeNormalization, is_nfc};

/// An address in a normal form that still shows its case.
pub(crate) fn normal(address: &Address) -> Cow<'_, Address> {
    if is_nfc(address.local()) {
        return Cow::Borrowed(address);
    }
    let local: String = address.local().nfc().collect();
    Address::new(&local, address.domain()).map_or(Cow::Borrowed(address), Cow::Owned)
}

/// The key under which an address is filed.
pub(crate) fn key(address: &Address) -> String {
    normal(address).key()
}

/// Reads an address that an operator gave.
pub(crate) fn address(text: &str) -> Result<Address, DirectoryError> {
    text.trim()
        .parse::<Address>()
        .map(|address| normal(&address).into_owned())
        .map_err(|error| DirectoryError::Invalid(format!("{text}: {error}")))
}

/// Reads a domain that an operator gave; mail domains are names, never address literals.
pub(crate) fn domain(text: &str) -> Result<String, DirectoryError> {
    let text = text.trim();
    let name = Address::domain_of(text)
        .map_err(|error| DirectoryError::Invalid(format!("{text}: {error}")))?;
    if name.starts_with('[') {
        return Err(DirectoryError::Invalid(format!(
            "{text}: an address literal is no mail domain"
        )));
    }
    Ok(name)
}

/// The key for a login name, with the default domain where it has none. `None` if it is no name at all.
pub(crate) fn login(text: &str, default_domain: &str) -> Option<String> {
    let text = text.trim();
    let whole = if text.contains('@') || default_domain.is_empty() {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(format!("{text}@{default_domain}"))
    };
    whole.parse::<Address>().ok().map(|address| key(&address))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_filed_in_one_form() {
        let filed = "jörg@xn--bcher-kva.example";
        for text in [
            "Jörg@Bücher.example",
            "jo\u{308}rg@xn--bcher-kva.EXAMPLE.",
            " JÖRG@bücher.example ",
        ] {
            assert_eq!(key(&address(text).unwrap()), filed, "{text}");
            assert_eq!(login(text, "").unwrap(), filed, "{text}");
        }
        assert_eq!(login("Jane", "example.org").unwrap(), "jane@example.org");
        assert_eq!(login("jane", ""), None);
        assert_eq!(domain("Bücher.Example.").unwrap(), "xn--bcher-kva.example");
        for bad in ["", "[127.0.0.1]", "a b", "-x.org", "x..org", "a@b"] {
            assert!(domain(bad).is_err(), "{bad}");
        }
    }
}
