//! Entry points for fuzzers: each takes any octets, and panics only if the crate breaks a promise.

use crate::{Limits, Parsed, PartKind, SectionText, body_of, locate};

/// A message. The first two octets choose how much of it is a prefix and how narrow the limits are.
pub fn message(octets: &[u8]) {
    let narrow = octets.first().copied().unwrap_or_default();
    let limits = if narrow & 1 == 0 {
        Limits::default()
    } else {
        Limits {
            depth: usize::from(narrow % 7),
            parts: usize::from(narrow % 11),
            header_bytes: usize::from(narrow) * 4,
            fields: usize::from(narrow % 13),
            addresses: usize::from(narrow % 5),
            listing_bytes: usize::from(narrow),
            references: usize::from(narrow % 3),
            preview: usize::from(narrow % 50),
        }
    };
    let cut = usize::from(octets.get(1).copied().unwrap_or_default()).min(octets.len());
    let (prefix, body) = octets.split_at(cut);
    let mut parsed = crate::parse(prefix, body, &limits);
    assert_eq!(
        Parsed::decode(&parsed.encode()).ok().as_ref(),
        Some(&parsed)
    );
    assert!(body_of(&parsed.structure).is_some());
    parsed.prepend(prefix);
    check_tree(&parsed, octets.len() as u64);
    crate::for_each_text(&parsed, octets, 1 << 16, |_| true);
    for path in [&[][..], &[1], &[2], &[1, 1], &[2, 1, 1]] {
        for text in [
            SectionText::Content,
            SectionText::Header,
            SectionText::Text,
            SectionText::Mime,
        ] {
            if let Some(range) = locate(&parsed.parts, path, text) {
                assert!(range.start <= range.end && range.end <= parsed.size);
            }
        }
        let _ = crate::binary(&parsed.parts, path, octets);
    }
    let _ = crate::select_fields(octets, &["subject"], false);
    let _ = crate::select_fields(octets, &["subject"], true);
}

fn check_tree(parsed: &Parsed, size: u64) {
    assert_eq!(parsed.size, size);
    let mut ends: Vec<(usize, u64)> = Vec::new();
    for (at, part) in parsed.parts.iter().enumerate() {
        assert!(part.header <= part.body && part.body <= part.end && part.end <= size);
        assert!(part.kind != PartKind::Single || part.below == 0);
        ends.retain(|(last, _)| *last >= at);
        if let Some((last, end)) = ends.last() {
            assert!(part.end <= *end && at + part.below as usize <= *last);
        }
        ends.push((at + part.below as usize, part.end));
    }
}

/// A header value as text, and as addresses.
pub fn header(octets: &[u8]) {
    let _ = crate::header_text(octets);
    let _ = crate::first_domain(octets);
}

/// A stored description.
pub fn stored(octets: &[u8]) {
    let _ = Parsed::decode(octets);
    let _ = crate::stored::envelope(octets);
    let _ = crate::stored::structure(octets);
    let _ = crate::stored::select_listed(octets, octets, &["subject", "x-other"]);
    let _ = body_of(octets);
}
