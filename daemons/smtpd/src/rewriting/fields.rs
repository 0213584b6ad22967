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
        for place in addresses(value) {
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

/// Where something stands that may be an address (RFC 5322 3.4): inside of angle brackets, or a word with an `@`. Quoted strings
/// and comments are passed over.
fn addresses(value: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut word: Option<usize> = None;
    let mut chars = value.char_indices();
    let mut depth = 0_u32;
    while let Some((at, c)) = chars.next() {
        let ends_word = c.is_whitespace() || "<>,;:()\"".contains(c);
        if depth == 0 && !ends_word {
            word.get_or_insert(at);
            continue;
        }
        if let Some(start) = word.take() {
            found.push(start..at);
        }
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '\\' => drop(chars.next()),
            '"' if depth == 0 => skip_quoted(&mut chars),
            _ => {}
        }
    }
    if let Some(start) = word.filter(|_| depth == 0) {
        found.push(start..value.len());
    }
    found.retain(|place| {
        value
            .get(place.clone())
            .is_some_and(|text| text.contains('@'))
    });
    found
}

fn skip_quoted(chars: &mut std::str::CharIndices<'_>) {
    while let Some((_, c)) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '"' => return,
            _ => {}
        }
    }
}
