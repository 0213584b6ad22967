//! A record's text (RFC 7208 12).

use super::macros::MacroString;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A record that is written as it must be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) directives: Vec<(Qualifier, Mechanism)>,
    pub(super) redirect: Option<MacroString>,
    pub(super) exp: Option<MacroString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Qualifier {
    Pass,
    Fail,
    SoftFail,
    Neutral,
}

/// Lengths of prefixes: of IPv4, of IPv6.
type Cidr = (u32, u32);

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mechanism {
    All,
    Include(MacroString),
    A(Option<MacroString>, Cidr),
    Mx(Option<MacroString>, Cidr),
    Ptr(Option<MacroString>),
    Ip4(Ipv4Addr, u32),
    Ip6(Ipv6Addr, u32),
    Exists(MacroString),
}

/// Whether a TXT record is one of SPF (RFC 7208 4.5).
pub(super) fn is_spf(octets: &[u8]) -> bool {
    let (start, rest) = octets.split_at_checked(6).unwrap_or((octets, b""));
    start.eq_ignore_ascii_case(b"v=spf1") && matches!(rest.first(), None | Some(b' '))
}

impl Record {
    /// `None` is a syntax error: permerror (RFC 7208 4.6).
    pub(super) fn parse(octets: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(octets.get(6..)?).ok()?;
        let mut record = Self {
            directives: Vec::new(),
            redirect: None,
            exp: None,
        };
        for term in text.split(' ').filter(|term| !term.is_empty()) {
            if !term.bytes().all(|octet| octet.is_ascii_graphic()) {
                return None;
            }
            match modifier(term) {
                Some((name, value)) if name.eq_ignore_ascii_case("redirect") => {
                    once(&mut record.redirect, value)?;
                }
                Some((name, value)) if name.eq_ignore_ascii_case("exp") => {
                    once(&mut record.exp, value)?;
                }
                // RFC 7208 6: unknown ones are ignored, if they are well formed.
                Some((_, value)) => drop(MacroString::parse(value, false)?),
                None => record.directives.push(directive(term)?),
            }
        }
        Some(record)
    }
}

/// RFC 7208 6: redirect and exp stand once each.
fn once(place: &mut Option<MacroString>, value: &str) -> Option<()> {
    let domain = domain_spec(value)?;
    place.replace(domain).is_none().then_some(())
}

/// `name=value`, where the name is one.
fn modifier(term: &str) -> Option<(&str, &str)> {
    let (name, value) = term.split_once('=')?;
    let mut chars = name.bytes();
    let letter = chars.next().is_some_and(|c| c.is_ascii_alphabetic());
    let rest = chars.all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c));
    (letter && rest).then_some((name, value))
}

fn directive(term: &str) -> Option<(Qualifier, Mechanism)> {
    let (qualifier, rest) = match term.as_bytes().first()? {
        b'+' => (Qualifier::Pass, term.get(1..)?),
        b'-' => (Qualifier::Fail, term.get(1..)?),
        b'~' => (Qualifier::SoftFail, term.get(1..)?),
        b'?' => (Qualifier::Neutral, term.get(1..)?),
        _ => (Qualifier::Pass, term),
    };
    let end = rest.find([':', '/']).unwrap_or(rest.len());
    let (name, arguments) = rest.split_at_checked(end)?;
    let mechanism = match name.to_ascii_lowercase().as_str() {
        "all" if arguments.is_empty() => Mechanism::All,
        "include" => Mechanism::Include(domain_spec(arguments.strip_prefix(':')?)?),
        "exists" => Mechanism::Exists(domain_spec(arguments.strip_prefix(':')?)?),
        "a" => {
            let (domain, cidr) = domain_and_cidr(arguments)?;
            Mechanism::A(domain, cidr)
        }
        "mx" => {
            let (domain, cidr) = domain_and_cidr(arguments)?;
            Mechanism::Mx(domain, cidr)
        }
        "ptr" if arguments.is_empty() => Mechanism::Ptr(None),
        "ptr" => Mechanism::Ptr(Some(domain_spec(arguments.strip_prefix(':')?)?)),
        "ip4" => {
            let (address, length) = network(arguments.strip_prefix(':')?, 32)?;
            Mechanism::Ip4(address.parse().ok()?, length)
        }
        "ip6" => {
            let (address, length) = network(arguments.strip_prefix(':')?, 128)?;
            Mechanism::Ip6(address.parse().ok()?, length)
        }
        _ => return None,
    };
    Some((qualifier, mechanism))
}

fn network(text: &str, most: u32) -> Option<(&str, u32)> {
    match text.split_once('/') {
        Some((address, length)) => Some((address, prefix(length, most)?)),
        None => Some((text, most)),
    }
}

/// A length without leading zeros.
fn prefix(text: &str, most: u32) -> Option<u32> {
    let fine = text == "0" || !text.starts_with('0') && text.bytes().all(|c| c.is_ascii_digit());
    let length: u32 = fine.then(|| text.parse().ok()).flatten()?;
    (length <= most).then_some(length)
}

/// `[":" domain-spec] [dual-cidr-length]` (RFC 7208 5.3).
fn domain_and_cidr(text: &str) -> Option<(Option<MacroString>, Cidr)> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    let (mut rest, mut cidr) = (text, (32, 128));
    if let Some((before, length)) = rest.rsplit_once("//")
        && digits(length)
    {
        cidr.1 = prefix(length, 128)?;
        rest = before;
    }
    if let Some((before, length)) = rest.rsplit_once('/')
        && digits(length)
    {
        cidr.0 = prefix(length, 32)?;
        rest = before;
    }
    match rest {
        "" => Some((None, cidr)),
        rest => Some((Some(domain_spec(rest.strip_prefix(':')?)?), cidr)),
    }
}

/// A macro string that ends with a macro or a top label (RFC 7208 7.1).
fn domain_spec(text: &str) -> Option<MacroString> {
    let parsed = MacroString::parse(text, false)?;
    if parsed.ends_with_macro() {
        return Some(parsed);
    }
    let undotted = text.strip_suffix('.').unwrap_or(text);
    let (_, top) = undotted.rsplit_once('.')?;
    let alphanumeric = |c: u8| c.is_ascii_alphanumeric();
    let fine = top.bytes().all(|c| alphanumeric(c) || c == b'-')
        && top.bytes().next().is_some_and(alphanumeric)
        && top.bytes().last().is_some_and(alphanumeric)
        && !top.bytes().all(|c| c.is_ascii_digit());
    fine.then_some(parsed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn which_records_are_spf() {
        assert!(is_spf(b"v=spf1") && is_spf(b"V=SPF1 -all"));
        assert!(!is_spf(b"v=spf10 -all") && !is_spf(b"v=spf") && !is_spf(b""));
    }

    #[test]
    fn what_is_written_wrongly_is_no_record() {
        let parse = |text: &str| Record::parse(format!("v=spf1 {text}").as_bytes());
        for fine in [
            "a mx ptr -all",
            "a:foo:bar/baz.example.com/24//64",
            "ip4:192.0.2.0/24 ip6:2001:db8::/32",
            "include:_spf.%{d} redirect=%{d2}.example. x=%{l}",
            "exists:%{ir}.sbl.example.org ?all",
            "",
        ] {
            assert!(parse(fine).is_some(), "{fine}");
        }
        for wrong in [
            "a/33",
            "a//129",
            "a/032",
            "a:museum",
            "a:111.222.33",
            "ip4:1.2.3",
            "ip4:1.2.3.4/032",
            "ip4",
            "include:",
            "all:x",
            "nothing",
            "a:example.com\0.x",
            "redirect=a.example redirect=b.example",
            "exp=",
            "a:%{c}.example",
            "a:%{d0}.example",
            "a:abc.example.-com",
            "=x",
            "ip6:::1.1.1.1/0/1",
            "x=%",
        ] {
            assert!(parse(wrong).is_none(), "{wrong}");
        }
        assert!(Record::parse(b"v=spf1 a:\xef\xbb\xbfx.example").is_none());
    }
}
