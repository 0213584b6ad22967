//! The messages that carry reports.

use super::About;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;

/// How a report travels.
pub(crate) struct Carried<'a> {
    /// What it is about.
    pub(crate) about: &'a About<'a>,
    /// The XML or JSON.
    pub(crate) content: &'a str,
    /// Seconds since 1970.
    pub(crate) now: u64,
}

pub(crate) fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(
        Vec::with_capacity(content.len() / 8),
        Compression::default(),
    );
    // Writing to memory cannot fail.
    let _ = encoder.write_all(content);
    encoder.finish().unwrap_or_default()
}

/// An aggregate report (RFC 7489 7.2.1.1), as far as `To` is concerned complete by [`addressed`].
pub(crate) fn dmarc(carried: &Carried<'_>) -> Vec<u8> {
    let About {
        submitter,
        domain,
        begin,
        ..
    } = carried.about;
    let end = carried.about.end.saturating_sub(1);
    let name = format!("{submitter}!{domain}!{begin}!{end}.xml.gz");
    let text =
        format!("This is an aggregate report of DMARC on mail that claimed to be from {domain}.");
    letter(
        carried,
        "multipart/mixed",
        "",
        "application/gzip",
        &name,
        &text,
    )
}

/// A report on TLS (RFC 8460 5.1 and 5.3).
pub(crate) fn tls(carried: &Carried<'_>) -> Vec<u8> {
    let About {
        submitter,
        domain,
        begin,
        report_id,
        ..
    } = carried.about;
    let end = carried.about.end.saturating_sub(1);
    let unique = report_id.split('@').next().unwrap_or_default();
    let name = format!("{submitter}!{domain}!{begin}!{end}!{unique}.json.gz");
    let text = format!(
        "This is an aggregate report on TLS sessions with the mail exchangers of {domain}."
    );
    // RFC 8460 5.3: what is reported must not keep the report away (RFC 8689 3).
    let fields = format!(
        "TLS-Report-Domain: {domain}\r\nTLS-Report-Submitter: {submitter}\r\nTLS-Required: No\r\n"
    );
    let kind = "multipart/report; report-type=\"tlsrpt\"";
    letter(
        carried,
        kind,
        &fields,
        "application/tlsrpt+gzip",
        &name,
        &text,
    )
}

fn letter(
    carried: &Carried<'_>,
    kind: &str,
    fields: &str,
    media: &str,
    name: &str,
    text: &str,
) -> Vec<u8> {
    let About {
        submitter,
        domain,
        report_id,
        ..
    } = carried.about;
    let mut out = head(carried.about, carried.now);
    let boundary = boundary(report_id);
    let _ = write!(
        out,
        "Subject: Report Domain: {domain}\r\n Submitter: {submitter}\r\n Report-ID: <{report_id}>\r\n\
         {fields}Content-Type: {kind};\r\n boundary=\"{boundary}\"\r\n\r\n\
         --{boundary}\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n{text}\r\n\r\n\
         --{boundary}\r\nContent-Type: {media};\r\n name=\"{name}\"\r\nContent-Transfer-Encoding: base64\r\n\
         Content-Disposition: attachment;\r\n filename=\"{name}\"\r\n\r\n"
    );
    let encoded = BASE64_STANDARD.encode(gzip(carried.content.as_bytes()));
    for line in encoded.as_bytes().chunks(76) {
        out.extend_from_slice(line);
        out.extend_from_slice(b"\r\n");
    }
    let _ = write!(out, "\r\n--{boundary}--\r\n");
    out
}

/// The fields that all have, without To.
pub(crate) fn head(about: &About<'_>, now: u64) -> Vec<u8> {
    let About {
        from, report_id, ..
    } = about;
    let date = date(now);
    format!(
        "From: <{from}>\r\nDate: {date}\r\nMessage-ID: <{report_id}>\r\nMIME-Version: 1.0\r\n\
         Auto-Submitted: auto-generated\r\n"
    )
    .into_bytes()
}

pub(crate) fn boundary(report_id: &str) -> String {
    let digest = blake3::hash(report_id.as_bytes()).to_hex();
    format!("report-{}", digest.get(..24).unwrap_or_default())
}

/// The message with its To field.
pub(crate) fn addressed(mut message: Vec<u8>, to: &[types::Address]) -> Vec<u8> {
    let list: Vec<String> = to.iter().map(|address| format!("<{address}>")).collect();
    let mut whole = format!("To: {}\r\n", list.join(",\r\n ")).into_bytes();
    whole.append(&mut message);
    whole
}

/// RFC 5322 3.3, in UTC.
fn date(now: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let days = now / 86_400;
    let (year, month, day) = types::moment::civil(i64::try_from(days).unwrap_or(0));
    let weekday = DAYS
        .get(usize::try_from(days % 7).unwrap_or(0))
        .unwrap_or(&"Thu");
    let month = usize::try_from(month).unwrap_or(1).saturating_sub(1);
    let month = MONTHS.get(month).unwrap_or(&"Jan");
    let (hour, minute, second) = (now / 3600 % 24, now / 60 % 60, now % 60);
    format!("{weekday}, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02} +0000")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_in_messages() {
        assert_eq!(date(0), "Thu, 01 Jan 1970 00:00:00 +0000");
        assert_eq!(date(1_790_000_000), "Mon, 21 Sep 2026 14:13:20 +0000");
    }
}
