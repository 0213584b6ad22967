//! Where addresses stand in a field, for those who change them there.

use std::ops::Range;

/// Where something stands that may be an address (RFC 5322 3.4): inside of angle brackets, or a word with an `@`. Quoted strings
/// and comments are passed over.
pub fn address_places(value: &str) -> Vec<Range<usize>> {
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
