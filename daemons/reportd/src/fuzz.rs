//! Entries for fuzzers: no octets of a stranger may do harm.

use crate::config::Intake;
use crate::intake;

/// Small bounds, so that they are met.
fn bounds() -> Intake {
    Intake {
        max_compressed: 256 * 1024,
        max_decompressed: 1024 * 1024,
        max_rows: 200,
        ..Intake::default()
    }
}

/// A message that may hold reports.
pub fn message(octets: &[u8]) {
    let bounds = bounds();
    let found = intake::read(b"", octets, &bounds);
    assert!(!found.is_empty());
    for kept in found {
        assert!(kept.rows.len() <= bounds.max_rows);
        assert!(kept.domain.chars().count() <= 253 && kept.organization.chars().count() <= 250);
        assert!(!kept.domain.chars().any(char::is_control));
    }
}

/// An attachment: XML, JSON, gzip or zip.
pub fn attachment(octets: &[u8]) {
    if let Ok(kept) = intake::of_file(octets, &bounds()) {
        assert!(!kept.domain.is_empty());
    }
}
