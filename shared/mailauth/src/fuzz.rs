//! Entry points for fuzzers: each takes any octets, and panics only if a promise is broken.

use crate::{BodyHashes, DkimReport, Report, SpfReport, arc, claims, dkim, has_result, header_len};
use mail_auth::AuthenticatedMessage;

/// Any message: its header is read, its body hashed, its signatures and seals are looked at as far as that goes without keys.
pub fn signed(octets: &[u8]) {
    let end = header_len(octets).unwrap_or(octets.len());
    let (header, body) = octets.split_at(end);
    let mut hashes = BodyHashes::wanted(header);
    hashes.update(body);
    let Some(mut message) = AuthenticatedMessage::parse_with_opts(header, None, true) else {
        return;
    };
    hashes.put_into(&mut message);
    for signature in &message.dkim_headers {
        let _ = dkim::refused(signature);
    }
    let _ = arc::refused(&message);
}

/// Anybody's Authentication-Results, and names in ours: our field has the results that we found and no others.
pub fn results(octets: &[u8]) {
    let text = String::from_utf8_lossy(octets);
    let _ = has_result(&text, "dmarc", "header.from", "example.org");
    let mut lines = text.lines();
    let mut next = || lines.next().unwrap_or_default().to_owned();
    let report = Report {
        spf_helo: Some(SpfReport {
            domain: next(),
            ..SpfReport::default()
        }),
        dkim: vec![DkimReport {
            domain: next(),
            selector: next(),
            reason: next(),
            ..DkimReport::default()
        }],
        ..Report::default()
    };
    let field = report.field("mx.example.org");
    assert_eq!(field.matches(';').count(), 5, "a name became a result");
    assert_eq!(field.matches("\r\n").count(), 6, "a name became a line");
    let value = field.split_once(' ').map_or("", |(_, value)| value);
    assert!(claims(value.as_bytes(), "mx.example.org"));
}

/// Any record as SPF; what it asks for has the form of a name or is not asked for.
pub fn spf(octets: &[u8]) {
    crate::spf::fuzz(octets);
}
