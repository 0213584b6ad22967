//! Entry points for fuzzers: each takes any octets, and panics only if the crate breaks a promise.

use crate::subject::base_subject;
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
    if let Some(surrogate) = crate::surrogate(octets) {
        assert!(surrogate.is_ascii(), "RFC 6858 gives ASCII");
        // The same fields in the same order, and the same end.
        let fields = |header| crate::Fields::new(header).count();
        assert_eq!(fields(&surrogate), fields(octets));
    }
}

/// A subject: its base has nothing left to take off, and a reply or a forward has the same base.
pub fn subject(octets: &[u8]) {
    let text: String = String::from_utf8_lossy(octets).chars().take(400).collect();
    let (base, _) = base_subject(&text);
    // In upper case a text may be longer: up to three characters for one.
    assert_eq!(base_subject(&base).0, base, "{text:?}");
    for mark in ["Re: ", "FWD:", "re[2]: ", "Fw : "] {
        let (of_reply, is_reply) = base_subject(&format!("{mark}{text}"));
        assert!(is_reply, "{mark}{text:?}");
        assert_eq!(of_reply, base, "{mark}{text:?}");
    }
    let (of_forward, is_forward) = base_subject(&format!("{text} (fwd)"));
    assert!(is_forward);
    assert_eq!(of_forward, base, "{text:?} (fwd)");
}

/// A stored description.
pub fn stored(octets: &[u8]) {
    let _ = Parsed::decode(octets);
    let _ = crate::stored::envelope(octets);
    let _ = crate::stored::structure(octets);
    let _ = crate::stored::select_listed(octets, octets, &["subject", "x-other"]);
    let _ = body_of(octets);
}
