//! Reverse-path and forward-path (RFC 5321 4.1.2, RFC 6531 3.3), read strictly.

use std::net::{Ipv4Addr, Ipv6Addr};
use types::{Address, AddressError};

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No angle brackets around it.
    #[error("put the address in angle brackets: <local@domain>")]
    Brackets,
    /// Empty where an address is needed.
    #[error("an address is needed between the angle brackets")]
    Empty,
    /// A source route that is no list of domains.
    #[error("the source route is malformed; source routes are obsolete, leave it out")]
    SourceRoute,
    /// The local part is neither a dot-string nor a quoted string.
    #[error("the part before the @ is malformed; quote it if it has special characters")]
    Local,
    /// No domain name and no address literal.
    #[error("the part behind the @ is no domain name or address literal")]
    Domain,
    /// No `@`.
    #[error("the address has no @domain")]
    NoDomain,
    /// Longer than RFC 5321 4.5.3.1 allows.
    #[error("the address is too long: 64 octets before the @, 255 behind it")]
    Length,
}

/// What MAIL FROM names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReversePath {
    /// `None` is `<>`.
    pub address: Option<Address>,
    /// It had characters beyond ASCII, in either part: SMTPUTF8 is needed (RFC 6531 3.4).
    pub utf8: bool,
    /// It had a source route, which is ignored (RFC 5321 appendix C).
    pub source_route: bool,
}

/// What RCPT TO names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardPath {
    /// `None` is `<Postmaster>` without a domain (RFC 5321 4.1.1.3).
    pub address: Option<Address>,
    /// As in [`ReversePath`].
    pub utf8: bool,
    /// As in [`ReversePath`].
    pub source_route: bool,
}

impl ReversePath {
    /// Reads a path at the start of `text`; returns it and what follows the closing bracket.
    ///
    /// # Errors
    /// See [`PathError`].
    pub fn read(text: &str) -> Result<(Self, &str), PathError> {
        let inner = text.strip_prefix('<').ok_or(PathError::Brackets)?;
        if let Some(rest) = inner.strip_prefix('>') {
            let null = Self {
                address: None,
                utf8: false,
                source_route: false,
            };
            return Ok((null, rest));
        }
        let (read, rest) = mailbox(inner, false)?;
        Ok((
            Self {
                address: read.address,
                utf8: read.utf8,
                source_route: read.source_route,
            },
            rest,
        ))
    }
}

impl ForwardPath {
    /// Reads a path at the start of `text`; returns it and what follows the closing bracket.
    ///
    /// # Errors
    /// See [`PathError`].
    pub fn read(text: &str) -> Result<(Self, &str), PathError> {
        let inner = text.strip_prefix('<').ok_or(PathError::Brackets)?;
        if inner.starts_with('>') {
            return Err(PathError::Empty);
        }
        mailbox(inner, true)
    }
}

/// `[source-route] local-part "@" domain ">"`.
fn mailbox(text: &str, postmaster: bool) -> Result<(ForwardPath, &str), PathError> {
    let (rest, source_route) = skip_source_route(text)?;
    let (local, rest) = local_part(rest)?;
    if local.is_empty() {
        return Err(PathError::Local);
    }
    let Some(rest) = rest.strip_prefix('@') else {
        let after = rest.strip_prefix('>').ok_or(PathError::Local)?;
        // RFC 5321 4.1.1.3: "Postmaster" alone, in any case
        if postmaster && local.eq_ignore_ascii_case("postmaster") {
            let path = ForwardPath {
                address: None,
                utf8: false,
                source_route,
            };
            return Ok((path, after));
        }
        return Err(PathError::NoDomain);
    };
    let end = rest.find('>').ok_or(PathError::Brackets)?;
    let (domain, behind) = rest.split_at(end);
    if domain.starts_with('[') {
        literal(domain)?;
    }
    let address = Address::new(&local, domain).map_err(|error| match error {
        AddressError::Length => PathError::Length,
        AddressError::Local => PathError::Local,
        AddressError::Form | AddressError::Domain => PathError::Domain,
    })?;
    let path = ForwardPath {
        utf8: !local.is_ascii() || !domain.is_ascii(),
        address: Some(address),
        source_route,
    };
    Ok((path, behind.strip_prefix('>').unwrap_or_default()))
}

/// `@a,@b:`; its domains are checked and dropped.
fn skip_source_route(text: &str) -> Result<(&str, bool), PathError> {
    if !text.starts_with('@') {
        return Ok((text, false));
    }
    let (route, rest) = text.split_once(':').ok_or(PathError::SourceRoute)?;
    for hop in route.split(',') {
        let domain = hop.strip_prefix('@').ok_or(PathError::SourceRoute)?;
        Address::domain_of(domain).map_err(|_| PathError::SourceRoute)?;
    }
    Ok((rest, true))
}

/// Dot-string or Quoted-string, unquoted; and what follows.
fn local_part(text: &str) -> Result<(String, &str), PathError> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(['@', '>', ' ']).ok_or(PathError::Brackets)?;
        let (local, rest) = text.split_at(end);
        let atom = |c: char| {
            c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || !c.is_ascii()
        };
        let dot_string = local
            .split('.')
            .all(|part| !part.is_empty() && part.chars().all(atom));
        if !dot_string {
            return Err(PathError::Local);
        }
        return Ok((local.to_owned(), rest));
    };
    let mut plain = String::with_capacity(quoted.len().min(64));
    let mut chars = quoted.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' => return Ok((plain, chars.as_str())),
            '\\' => {
                // RFC 5321 4.1.2: quoted-pairSMTP, printable ASCII only
                let escaped = chars.next().filter(|c| (' '..='~').contains(c));
                plain.push(escaped.ok_or(PathError::Local)?);
            }
            c if c.is_control() => return Err(PathError::Local),
            c => plain.push(c),
        }
    }
    Err(PathError::Local)
}

/// RFC 5321 4.1.3: `[192.0.2.1]` or `[IPv6:2001:db8::1]`; no other tag is registered.
fn literal(domain: &str) -> Result<(), PathError> {
    let inner = domain
        .strip_prefix('[')
        .and_then(|d| d.strip_suffix(']'))
        .ok_or(PathError::Domain)?;
    let fine = match inner.split_at_checked(5) {
        Some((tag, v6)) if tag.eq_ignore_ascii_case("IPv6:") => v6.parse::<Ipv6Addr>().is_ok(),
        _ => inner.parse::<Ipv4Addr>().is_ok(),
    };
    if fine { Ok(()) } else { Err(PathError::Domain) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn to(text: &str) -> Result<Option<String>, PathError> {
        ForwardPath::read(text).map(|(path, _)| path.address.map(|a| a.to_string()))
    }

    #[test]
    fn paths_of_all_shapes() {
        let read = |text: &str| to(text).unwrap().unwrap();
        assert_eq!(read("<Jane@EXAMPLE.org>"), "Jane@example.org");
        assert_eq!(
            read("<\"a b\\\"c\"@example.org>"),
            "\"a b\\\"c\"@example.org"
        );
        assert_eq!(read("<\"a@b\"@example.org>"), "\"a@b\"@example.org");
        assert_eq!(read("<\"plain\"@example.org>"), "plain@example.org");
        assert_eq!(read("<a@[192.0.2.1]>"), "a@[192.0.2.1]");
        assert_eq!(read("<a@[IPv6:2001:DB8::1]>"), "a@[ipv6:2001:db8::1]");
        assert_eq!(
            read("<jürgen@bücher.example>"),
            "jürgen@xn--bcher-kva.example"
        );
        assert_eq!(
            read("<user%other.example@example.org>"),
            "user%other.example@example.org"
        );
        assert_eq!(to("<postMASTER>").unwrap(), None);
        let (path, rest) = ForwardPath::read("<@a.example,@b.example:c@d.example> X=1").unwrap();
        assert!(path.source_route);
        assert_eq!(path.address.unwrap().to_string(), "c@d.example");
        assert_eq!(rest, " X=1");
        assert_eq!(ReversePath::read("<>").unwrap().0.address, None);
        assert!(ForwardPath::read("<a@bücher.example>").unwrap().0.utf8);
    }

    #[test]
    fn paths_of_no_shape() {
        use PathError::*;
        for (text, error) in [
            ("a@example.org", Brackets),
            ("<a@example.org", Brackets),
            ("<a", Brackets),
            ("<>", Empty),
            ("<a>", NoDomain),
            ("<@b>", SourceRoute),
            ("<@a,b:c@d>", SourceRoute),
            ("<a@>", Domain),
            ("<a..b@example.org>", Local),
            ("<.a@example.org>", Local),
            ("<a b@example.org>", Local),
            ("<\"a@example.org>", Local),
            ("<\"a\"b@example.org>", Local),
            ("<\"\\\u{1}\"@example.org>", Local),
            ("<a@b@c>", Domain),
            ("<a@[300.1.1.1]>", Domain),
            ("<a@[x:y]>", Domain),
            ("<a@-b.example>", Domain),
            ("<a@b..c>", Domain),
            ("<a@exa mple.org>", Domain),
        ] {
            assert_eq!(to(text).unwrap_err(), error, "{text}");
        }
        let long = format!("<{}@example.org>", "a".repeat(65));
        assert_eq!(to(&long).unwrap_err(), Length);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,80}") {
            let _ = ForwardPath::read(&text);
            let _ = ReversePath::read(&format!("<{text}>"));
        }

        #[test]
        fn what_is_written_is_read(local in "[ -~]{1,30}") {
            let address = Address::new(&local, "example.org").unwrap();
            let text = format!("<{address}>");
            prop_assert_eq!(to(&text).unwrap().unwrap(), address.to_string());
        }
    }
}
