//! Addresses in the header fields of a submission, exchanged where they stand: everything else of the field stays as it is.

use message::Fields;
use std::ops::Range;
use types::Address;

/// What an address becomes; `None` if it stays.
type Change<'a> = &'a dyn Fn(&Address) -> Option<Address>;

/// A message with the addresses of From, Sender and Reply-To exchanged; `None` if none is.
pub(super) fn rewrite(octets: &[u8], change: Change<'_>) -> Option<Vec<u8>> {
    let mut changes: Vec<(Range<usize>, String)> = Vec::new();
    let mut at = 0;
    for field in Fields::new(octets) {
        let start = at;
        at += field.raw.len();
        let meant = [&b"From"[..], b"Sender", b"Reply-To"];
        if !meant
            .iter()
            .any(|name| field.name.eq_ignore_ascii_case(name))
        {
            continue;
        }
        let Ok(text) = std::str::from_utf8(field.raw) else {
            continue;
        };
        let Some(colon) = text.find(':') else {
            continue;
        };
        let value = text.get(colon + 1..).unwrap_or_default();
        for place in message::address_places(value) {
            let old = value.get(place.clone()).and_then(|text| text.parse().ok());
            if let Some(new) = old.and_then(|old| change(&old)) {
                let from = start + colon + 1;
                changes.push((from + place.start..from + place.end, new.to_string()));
            }
        }
    }
    if changes.is_empty() {
        return None;
    }
    let mut rewritten = Vec::with_capacity(octets.len() + 256);
    let mut at = 0;
    for (place, new) in changes {
        rewritten.extend_from_slice(octets.get(at..place.start)?);
        rewritten.extend_from_slice(new.as_bytes());
        at = place.end;
    }
    rewritten.extend_from_slice(octets.get(at..)?);
    Some(rewritten)
}
