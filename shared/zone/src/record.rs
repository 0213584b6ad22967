//! Records, and their text in a zone file (RFC 1035 5).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A type of record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Kind {
    A,
    Aaaa,
    Cname,
    Mx,
    Txt,
    Srv,
    Tlsa,
    Caa,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Cname => "CNAME",
            Self::Mx => "MX",
            Self::Txt => "TXT",
            Self::Srv => "SRV",
            Self::Tlsa => "TLSA",
            Self::Caa => "CAA",
        })
    }
}

/// What a record says. Names are in lower case, without the final dot; the root is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Data {
    /// An address.
    A(Ipv4Addr),
    /// An address.
    Aaaa(Ipv6Addr),
    /// Another name of it.
    Cname(String),
    /// A mail exchanger: preference and host.
    Mx(u16, String),
    /// A text, its strings joined.
    Txt(String),
    /// A service (RFC 2782).
    Srv {
        /// The lowest first.
        priority: u16,
        /// The share among equals.
        weight: u16,
        /// The port.
        port: u16,
        /// The host; empty: there is no such service.
        target: String,
    },
    /// A certificate association (RFC 6698).
    Tlsa {
        /// 3 is DANE-EE.
        usage: u8,
        /// 1 is the public key.
        selector: u8,
        /// 1 is SHA-256.
        matching: u8,
        /// The digest.
        digest: Vec<u8>,
    },
    /// Who may issue certificates (RFC 8659).
    Caa {
        /// 128 is critical.
        flags: u8,
        /// `issue`, `issuewild`, `iodef` ...
        tag: String,
        /// The issuer and its parameters.
        value: String,
    },
}

impl Data {
    /// Its type.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::A(_) => Kind::A,
            Self::Aaaa(_) => Kind::Aaaa,
            Self::Cname(_) => Kind::Cname,
            Self::Mx(..) => Kind::Mx,
            Self::Txt(_) => Kind::Txt,
            Self::Srv { .. } => Kind::Srv,
            Self::Tlsa { .. } => Kind::Tlsa,
            Self::Caa { .. } => Kind::Caa,
        }
    }
}

/// As in a zone file.
impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::A(address) => write!(f, "{address}"),
            Self::Aaaa(address) => write!(f, "{address}"),
            Self::Cname(name) => write!(f, "{name}."),
            Self::Mx(preference, host) => write!(f, "{preference} {host}."),
            Self::Txt(text) => f.write_str(&strings(text)),
            Self::Srv {
                priority,
                weight,
                port,
                target,
            } => write!(f, "{priority} {weight} {port} {target}."),
            Self::Tlsa {
                usage,
                selector,
                matching,
                digest,
            } => {
                write!(f, "{usage} {selector} {matching} ")?;
                digest.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
            }
            Self::Caa { flags, tag, value } => {
                write!(f, "{flags} {tag} {}", quoted(value.as_bytes()))
            }
        }
    }
}

/// A text as strings of 255 octets at most (RFC 1035 3.3).
fn strings(text: &str) -> String {
    if text.is_empty() {
        return "\"\"".to_owned();
    }
    let parts: Vec<String> = text.as_bytes().chunks(255).map(quoted).collect();
    parts.join(" ")
}

/// RFC 1035 5.1: `"` and `\` are escaped, other than printable ASCII is written by its number.
fn quoted(octets: &[u8]) -> String {
    let mut text = String::with_capacity(octets.len() + 2);
    text.push('"');
    for octet in octets {
        match octet {
            b'"' | b'\\' => {
                text.push('\\');
                text.push(char::from(*octet));
            }
            b' '..=b'~' => text.push(char::from(*octet)),
            other => text.push_str(&format!("\\{other:03}")),
        }
    }
    text.push('"');
    text
}

/// A record that is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its name: lower case, without the final dot.
    pub name: String,
    /// Seconds.
    pub ttl: u32,
    /// What it says.
    pub data: Data,
    /// What it is for, in a word or two: `SPF`, `DKIM`.
    pub purpose: &'static str,
}

impl Record {
    /// Whether it lies in the domain's own zone, as far as the name tells.
    #[must_use]
    pub fn is_in(&self, domain: &str) -> bool {
        is_in(&self.name, domain)
    }
}

pub(crate) fn is_in(name: &str, domain: &str) -> bool {
    name == domain
        || name
            .strip_suffix(domain)
            .is_some_and(|rest| rest.ends_with('.'))
}

/// A line of a zone file.
impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, ttl, kind) = (&self.name, self.ttl, self.data.kind());
        write!(f, "{name}. {ttl} IN {kind} {}", self.data)
    }
}

/// The records as a piece of the domain's zone file, to be included into it; what belongs to another zone stands there as a
/// comment.
#[must_use]
pub fn zone_file(domain: &str, records: &[Record]) -> String {
    let mut text = String::new();
    let mut purpose = "";
    for record in records.iter().filter(|record| record.is_in(domain)) {
        if record.purpose != purpose {
            purpose = record.purpose;
            text.push_str(&format!("; {purpose}\n"));
        }
        text.push_str(&format!("{record}\n"));
    }
    let mut others = records
        .iter()
        .filter(|record| !record.is_in(domain))
        .peekable();
    if others.peek().is_some() {
        text.push_str(&format!("; These belong to other zones than {domain}:\n"));
    }
    for record in others {
        text.push_str(&format!(";{record}\n"));
    }
    text
}

/// The value of a CAA record in one form: it may have blanks around its signs (RFC 8659 4.2), and libraries and providers write
/// it as they like.
#[must_use]
pub fn caa_value(tag: &str, value: &str) -> String {
    if !tag.eq_ignore_ascii_case("issue") && !tag.eq_ignore_ascii_case("issuewild") {
        return value.to_owned();
    }
    let parts = value.split(';').map(|part| match part.split_once('=') {
        Some((key, value)) => format!("{}={}", key.trim(), value.trim()),
        None => part.trim().to_owned(),
    });
    let parts: Vec<String> = parts.collect();
    parts.join("; ").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_strange_texts_are_written_as_zone_files_have_them() {
        let text = Data::Txt("x".repeat(300)).to_string();
        assert_eq!(
            text,
            format!("\"{}\" \"{}\"", "x".repeat(255), "x".repeat(45))
        );
        assert_eq!(
            Data::Txt("a\"b\\c;é".to_owned()).to_string(),
            "\"a\\\"b\\\\c;\\195\\169\""
        );
        assert_eq!(Data::Txt(String::new()).to_string(), "\"\"");
        let none = Data::Srv {
            priority: 0,
            weight: 0,
            port: 0,
            target: String::new(),
        };
        assert_eq!(none.to_string(), "0 0 0 .");
    }

    #[test]
    fn blanks_in_caa_say_nothing() {
        for text in [
            "ca.example; accounturi=https://a/1; b=c",
            "ca.example;accounturi=https://a/1;b=c",
            " ca.example ;  accounturi = https://a/1 ;b= c ",
        ] {
            assert_eq!(
                caa_value("issue", text),
                "ca.example; accounturi=https://a/1; b=c"
            );
        }
        assert_eq!(caa_value("issue", ";"), ";");
        assert_eq!(caa_value("iodef", "mailto:a;b"), "mailto:a;b");
    }

    #[test]
    fn what_belongs_elsewhere_is_a_comment() {
        let record = |name: &str| Record {
            name: name.to_owned(),
            ttl: 60,
            data: Data::Mx(10, "mx.example.net".to_owned()),
            purpose: "mail exchangers",
        };
        let text = zone_file(
            "example.org",
            &[record("example.org"), record("anexample.org")],
        );
        assert_eq!(
            text,
            "; mail exchangers\nexample.org. 60 IN MX 10 mx.example.net.\n\
             ; These belong to other zones than example.org:\n;anexample.org. 60 IN MX 10 mx.example.net.\n"
        );
    }
}
