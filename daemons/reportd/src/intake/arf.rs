//! Feedback on single messages: complaints (RFC 5965), and failures of DMARC (RFC 6591).

use super::Kept;
use crate::store::clean;
use ipc::api::reportd::ReportRow;
use message::Fields;

/// Octets of the report's own fields that are read.
const FIELDS_MAX: usize = 32 * 1024;
/// Octets of the other message's header that are kept.
const HEADER_MAX: usize = 16 * 1024;

/// Fields that are kept, as they are called.
const KNOWN: [&str; 19] = [
    "User-Agent",
    "Original-Envelope-Id",
    "Original-Mail-From",
    "Original-Rcpt-To",
    "Arrival-Date",
    "Received-Date",
    "Reporting-MTA",
    "Source-IP",
    "Source-Port",
    "Incidents",
    "Authentication-Results",
    "Reported-Domain",
    "Reported-URI",
    "Auth-Failure",
    "Identity-Alignment",
    "Delivery-Result",
    "DKIM-Domain",
    "DKIM-Selector",
    "SPF-DNS",
];

/// Reads a report: its fields, and the message that it is about.
pub(crate) fn parse(fields: &[u8], about: &[u8]) -> Option<Kept> {
    let fields = fields.get(..FIELDS_MAX).unwrap_or(fields);
    let mut kept = Kept {
        kind: "arf",
        failed: 1,
        ..Kept::default()
    };
    let mut row = ReportRow::default();
    let mut found = false;
    for field in Fields::new(fields).take(200) {
        let name = String::from_utf8_lossy(field.name).trim().to_owned();
        let value = clean(&String::from_utf8_lossy(field.value), 600);
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if is("Feedback-Type") {
            found = true;
            kept.note = clean(&value, 60).to_ascii_lowercase();
            kept.note.clone_into(&mut row.result);
        } else if is("Incidents") {
            kept.failed = value.parse().unwrap_or(1).clamp(1, 1 << 40);
        } else if is("Source-IP") {
            row.source = clean(&value, 60);
        } else if is("Reported-Domain") {
            kept.domain = super::domain(&value);
        } else if is("Reporting-MTA") {
            let mta = value.rsplit(';').next().unwrap_or_default();
            kept.organization = clean(mta, 250);
        }
        if let Some(known) = KNOWN.iter().find(|known| is(known)) {
            kept.field(known, &value);
        }
    }
    if !found {
        return None;
    }
    let end = message_header_end(about);
    let header = about.get(..end.min(HEADER_MAX)).unwrap_or(about);
    kept.text = header.to_vec();
    let from = Fields::new(header)
        .find(|field| field.name.eq_ignore_ascii_case(b"from"))
        .and_then(|field| message::first_domain(field.value))
        .unwrap_or_default();
    row.identity = super::domain(&from);
    if kept.domain.is_empty() {
        row.identity.clone_into(&mut kept.domain);
    }
    row.count = kept.failed;
    kept.rows.push(row);
    Some(kept)
}

fn message_header_end(message: &[u8]) -> usize {
    let crlf = memchr::memmem::find(message, b"\r\n\r\n").map(|at| at + 2);
    let lf = memchr::memmem::find(message, b"\n\n").map(|at| at + 1);
    match (crlf, lf) {
        (Some(one), Some(other)) => one.min(other),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => message.len(),
    }
}
