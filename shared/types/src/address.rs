//! Mail addresses (RFC 5321 4.1.2, RFC 6531), as the suite compares and stores them.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A mailbox address. The local part is kept as it came; the domain is in lower case and A-label form, or an address
/// literal in brackets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Address {
    local: String,
    domain: String,
}

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No `@`, or nothing before or behind it.
    #[error("an address has the form local@domain")]
    Form,
    /// Longer than RFC 5321 4.5.3.1 allows (64 octets local, 255 domain).
    #[error("the local part is limited to 64 octets, the domain to 255")]
    Length,
    /// A character that may not stand there.
    #[error("the local part has a character that is not allowed unquoted")]
    Local,
    /// Not a domain name.
    #[error("the domain is not a valid name")]
    Domain,
}

impl Address {
    /// Makes an address from its parts: the local part unquoted, the domain in any case, U-label or A-label.
    ///
    /// # Errors
    /// See [`AddressError`].
    pub fn new(local: &str, domain: &str) -> Result<Self, AddressError> {
        if local.is_empty() || domain.is_empty() {
            return Err(AddressError::Form);
        }
        // RFC 5321 4.5.3.1.1
        if local.len() > 64 {
            return Err(AddressError::Length);
        }
        if local.chars().any(char::is_control) {
            return Err(AddressError::Local);
        }
        Ok(Self {
            local: local.to_owned(),
            domain: Self::domain_of(domain)?,
        })
    }

    /// A domain in the form in which all daemons compare it: lower case, A-labels, no final dot; literals as they are.
    ///
    /// # Errors
    /// [`AddressError::Domain`] and [`AddressError::Length`].
    pub fn domain_of(domain: &str) -> Result<String, AddressError> {
        if domain.starts_with('[') && domain.ends_with(']') {
            return Ok(domain.to_ascii_lowercase());
        }
        let domain = domain.strip_suffix('.').unwrap_or(domain);
        let ascii = if domain.is_ascii() {
            domain.to_ascii_lowercase()
        } else {
            idna::domain_to_ascii(domain).map_err(|_| AddressError::Domain)?
        };
        if ascii.is_empty() || ascii.len() > 255 {
            return Err(AddressError::Length);
        }
        let fine = |label: &str| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if ascii.split('.').all(fine) {
            Ok(ascii)
        } else {
            Err(AddressError::Domain)
        }
    }

    /// The local part, unquoted, as it came.
    pub fn local(&self) -> &str {
        &self.local
    }

    /// The domain: lower case, A-labels; or a literal in brackets.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The form under which the directory files it: the local part in lower case too.
    pub fn key(&self) -> String {
        format!("{}@{}", self.local.to_lowercase(), self.domain)
    }

    /// Whether sending it needs SMTPUTF8 (RFC 6531 3.3).
    pub fn needs_utf8(&self) -> bool {
        !self.local.is_ascii()
    }

    /// Splits off the subaddress (RFC 5233): `user+detail@domain`.
    pub fn split_detail(&self, separator: char) -> (Self, Option<&str>) {
        match self.local.split_once(separator) {
            Some((user, detail)) if !user.is_empty() => (
                Self {
                    local: user.to_owned(),
                    domain: self.domain.clone(),
                },
                Some(detail),
            ),
            _ => (self.clone(), None),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let atom = |c: char| {
            c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || !c.is_ascii()
        };
        // RFC 5321 4.1.2: Dot-string, otherwise Quoted-string
        let dot_string = self
            .local
            .split('.')
            .all(|part| !part.is_empty() && part.chars().all(atom));
        if dot_string {
            return write!(f, "{}@{}", self.local, self.domain);
        }
        f.write_str("\"")?;
        for c in self.local.chars() {
            if c == '"' || c == '\\' {
                f.write_str("\\")?;
            }
            write!(f, "{c}")?;
        }
        write!(f, "\"@{}", self.domain)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    /// Reads `local@domain` with the local part bare or as a quoted string. No comments, no source routes.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (local, domain) = text.rsplit_once('@').ok_or(AddressError::Form)?;
        if let Some(inner) = local.strip_prefix('"').and_then(|l| l.strip_suffix('"')) {
            let mut plain = String::with_capacity(inner.len());
            let mut chars = inner.chars();
            while let Some(c) = chars.next() {
                match c {
                    '\\' => plain.push(chars.next().ok_or(AddressError::Local)?),
                    '"' => return Err(AddressError::Local),
                    other => plain.push(other),
                }
            }
            return Self::new(&plain, domain);
        }
        let bad = |c: char| c.is_whitespace() || "()<>[]:;@\\,\"".contains(c);
        if local.chars().any(bad) || local.split('.').any(str::is_empty) {
            return Err(if local.is_empty() {
                AddressError::Form
            } else {
                AddressError::Local
            });
        }
        Self::new(local, domain)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_are_normalised_and_quoted_when_they_must() {
        let plain: Address = "Jane.Doe@EXAMPLE.org.".parse().unwrap();
        assert_eq!(plain.to_string(), "Jane.Doe@example.org");
        assert_eq!(plain.key(), "jane.doe@example.org");
        let quoted: Address = r#""two words\"x"@example.org"#.parse().unwrap();
        assert_eq!(quoted.local(), "two words\"x");
        assert_eq!(quoted.to_string(), r#""two words\"x"@example.org"#);
        let idn: Address = "info@BÜCHER.example".parse().unwrap();
        assert_eq!(idn.domain(), "xn--bcher-kva.example");
        assert_eq!(
            "a@[127.0.0.1]".parse::<Address>().unwrap().domain(),
            "[127.0.0.1]"
        );
        let (user, detail) = "jane+lists@example.org"
            .parse::<Address>()
            .map(|a| {
                let (user, detail) = a.split_detail('+');
                (user, detail.map(str::to_owned))
            })
            .unwrap();
        assert_eq!((user.local(), detail.as_deref()), ("jane", Some("lists")));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in [
            "", "@", "a@", "@b", "a b@c", "a..b@c", "a@b..c", "a@-b.c", "a\r\n@b", "a@b c",
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad:?}");
        }
    }
}
