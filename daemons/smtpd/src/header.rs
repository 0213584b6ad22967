//! What the header of an incoming message says that matters here: hops, and what a submission may lack.

use message::Fields;
use std::ops::Range;
use std::sync::Arc;
use types::Suspicion;

/// Facts of a header, read once.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Received fields.
    pub received: usize,
    /// Has a Date.
    pub date: bool,
    /// Has a Message-ID.
    pub message_id: bool,
    /// Where the From fields stand, whole.
    pub from: Vec<Range<usize>>,
    /// Where the fields stand that are taken out.
    removed: Vec<Range<usize>>,
}

/// Which fields are taken out, besides Return-Path: the final delivery writes that (RFC 5321 4.4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removal {
    /// Bcc: a submission's blind recipients are nobody's business (RFC 5322 3.6.3).
    pub bcc: bool,
    /// What only we may say: Authentication-Results under this authserv-id (RFC 8601 5), and what goes with them.
    pub claims: Option<Arc<str>>,
}

impl Header {
    /// Reads the header at the start of `octets`.
    pub fn scan(octets: &[u8], removal: &Removal) -> Self {
        let mut header = Self::default();
        let mut at = 0;
        for field in Fields::new(octets) {
            let place = at..at + field.raw.len();
            at = place.end;
            let is = |name: &str| field.name.eq_ignore_ascii_case(name.as_bytes());
            // The first letter decides for most fields.
            match field.name.first() {
                Some(b'R' | b'r') if is("Received") => header.received += 1,
                Some(b'R' | b'r') if is("Return-Path") => header.removed.push(place),
                Some(b'D' | b'd') if is("Date") => header.date = true,
                Some(b'M' | b'm') if is("Message-ID") => header.message_id = true,
                Some(b'F' | b'f') if is("From") => header.from.push(place),
                Some(b'B' | b'b') if removal.bcc && is("Bcc") => header.removed.push(place),
                Some(b'A' | b'a') if is("Authentication-Results") => {
                    let ours = |id: &Arc<str>| mailauth::claims(field.value, id);
                    if removal.claims.as_ref().is_some_and(ours) {
                        header.removed.push(place);
                    }
                }
                Some(b'X' | b'x') if removal.claims.is_some() && is(Suspicion::FIELD) => {
                    header.removed.push(place);
                }
                _ => {}
            }
        }
        header
    }

    /// Takes the fields out that do not travel on. Call last: the places of the others are void afterwards.
    pub fn take_out(&self, octets: &mut Vec<u8>) {
        for place in self.removed.iter().rev() {
            if place.end <= octets.len() {
                octets.drain(place.clone());
            }
        }
    }
}

/// The addresses of a From field (RFC 5322 3.6.2), `local@domain` as written. `None` if it has something that is no address.
pub fn from_addresses(field: &[u8]) -> Option<Vec<types::Address>> {
    let mut octets = field.to_vec();
    octets.extend_from_slice(b"\r\n");
    let parsed = mail_parser::MessageParser::default().parse_headers(&octets)?;
    let mut addresses = Vec::new();
    for one in parsed.from()?.iter() {
        addresses.push(one.address.as_deref()?.parse().ok()?);
    }
    (!addresses.is_empty()).then_some(addresses)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MESSAGE: &[u8] = b"Return-Path: <x@y.example>\r\nReceived: a\r\n\tb\r\nReceived: c\r\nFrom: \"J, D\" <j@d.example>\r\nbcc: z@y.example,\r\n w@y.example\r\nDate: today\r\n\r\nReceived: in the body\r\n";

    #[test]
    fn facts_of_a_header() {
        let blind = Removal {
            bcc: true,
            claims: None,
        };
        let header = Header::scan(MESSAGE, &blind);
        assert_eq!(header.received, 2);
        assert!(header.date && !header.message_id);
        assert_eq!(header.from.len(), 1);
        let from = &MESSAGE[header.from[0].clone()];
        assert_eq!(from_addresses(from).unwrap()[0].to_string(), "j@d.example");
        let mut rest = MESSAGE.to_vec();
        header.take_out(&mut rest);
        assert_eq!(
            rest,
            b"Received: a\r\n\tb\r\nReceived: c\r\nFrom: \"J, D\" <j@d.example>\r\nDate: today\r\n\r\nReceived: in the body\r\n"
        );
        let mut rest = MESSAGE.to_vec();
        Header::scan(MESSAGE, &Removal::default()).take_out(&mut rest);
        assert!(rest.starts_with(b"Received: a") && rest.len() == MESSAGE.len() - 28);
    }

    #[test]
    fn no_header_at_all() {
        let removal = Removal::default();
        assert_eq!(Header::scan(b"", &removal), Header::default());
        assert_eq!(
            Header::scan(b"\r\nDate: x\r\n", &removal),
            Header::default()
        );
    }

    #[test]
    fn what_only_we_may_say_is_taken_out() {
        let message = b"Authentication-Results: mx.ours.example; spf=pass\r\nauthentication-results : (x)\r\n \"MX.ours.example\"; dkim=pass\r\nX-POSTHOUSE-SUSPECT: tag\r\nAuthentication-Results: other.example; spf=fail\r\nARC-Authentication-Results: i=1; mx.ours.example; none\r\n\r\nbody\r\n";
        let ours = Removal {
            bcc: false,
            claims: Some("mx.ours.example".into()),
        };
        let mut rest = message.to_vec();
        Header::scan(message, &ours).take_out(&mut rest);
        assert_eq!(
            rest,
            b"Authentication-Results: other.example; spf=fail\r\nARC-Authentication-Results: i=1; mx.ours.example; none\r\n\r\nbody\r\n"
        );
        let mut all = message.to_vec();
        Header::scan(message, &Removal::default()).take_out(&mut all);
        assert_eq!(all, message);
    }

    #[test]
    fn senders_by_name() {
        let list = |text: &str| {
            from_addresses(text.as_bytes()).map(|list| {
                list.iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(" ")
            })
        };
        assert_eq!(
            list("From: a@b.example, \"x\" <c@d.example>\r\n").unwrap(),
            "a@b.example c@d.example"
        );
        assert_eq!(list("From: nobody\r\n"), None);
        assert_eq!(list("From:\r\n"), None);
    }
}
