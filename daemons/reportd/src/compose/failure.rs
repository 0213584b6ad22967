//! Reports of single messages that failed (RFC 6591), made when they are told of, and sent soon.

use super::About;
use super::mail::{boundary, head};
use crate::store::clean;
use ipc::api::reportd::FailedMail;
use std::io::Write;

/// Fields of the header that are shown at all: those that tell where the message came from.
const SHOWN: [&str; 16] = [
    "received",
    "return-path",
    "from",
    "sender",
    "reply-to",
    "to",
    "cc",
    "date",
    "subject",
    "message-id",
    "mime-version",
    "content-type",
    "dkim-signature",
    "list-id",
    "in-reply-to",
    "auto-submitted",
];

/// Writes the message, without To. `redact`: what tells of people is left out (RFC 6590).
pub(crate) fn write(about: &About<'_>, failed: &FailedMail, redact: bool, now: u64) -> Vec<u8> {
    let evaluation = &failed.evaluation;
    let mut out = head(about, now);
    let boundary = boundary(about.report_id);
    let from = clean(&evaluation.header_from, 253);
    let source = evaluation
        .source
        .map(|address| address.to_string())
        .unwrap_or_default();
    let _ = write!(
        out,
        "Subject: DMARC failure of mail from {from}\r\nContent-Type: multipart/report; report-type=feedback-report;\r\n \
         boundary=\"{boundary}\"\r\n\r\n--{boundary}\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n\
         This message from {source} claimed to be from {from}, and failed DMARC.\r\n\r\n\
         --{boundary}\r\nContent-Type: message/feedback-report\r\n\r\n\
         Feedback-Type: auth-failure\r\nUser-Agent: Posthouse\r\nVersion: 1\r\n"
    );
    let mut put = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = write!(out, "{name}: {}\r\n", clean(value, 900));
        }
    };
    let mail_from = if redact {
        hidden(&failed.mail_from)
    } else {
        failed.mail_from.clone()
    };
    put("Original-Mail-From", &mail_from);
    put("Source-IP", &source);
    put("Reported-Domain", &from);
    put("Auth-Failure", "dmarc");
    let aligned = match (evaluation.dkim_aligned, evaluation.spf_aligned) {
        (true, true) => "dkim, spf",
        (true, false) => "dkim",
        (false, true) => "spf",
        (false, false) => "none",
    };
    put("Identity-Alignment", aligned);
    let delivered = match evaluation.disposition.as_str() {
        "reject" => "reject",
        "quarantine" => "spam",
        _ => "delivered",
    };
    put("Delivery-Result", delivered);
    put("Authentication-Results", &failed.results);
    if let Some((domain, selector, ..)) = evaluation.dkim.first() {
        put("DKIM-Domain", domain);
        put("DKIM-Selector", selector);
    }
    let _ = write!(
        out,
        "\r\n--{boundary}\r\nContent-Type: text/rfc822-headers; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    );
    out.extend_from_slice(header(&failed.header, redact).as_bytes());
    let _ = write!(out, "\r\n--{boundary}--\r\n");
    out
}

/// The fields that are shown, one line each.
fn header(raw: &[u8], redact: bool) -> String {
    let text = String::from_utf8_lossy(raw);
    let mut out = String::new();
    let mut field = String::new();
    let lines = text.split("\r\n").chain(std::iter::once(""));
    for line in lines {
        if line.starts_with([' ', '\t']) {
            field.push_str(line);
            continue;
        }
        if let Some((name, value)) = field.split_once(':') {
            let lower = name.trim().to_ascii_lowercase();
            if SHOWN.contains(&lower.as_str()) {
                let value = clean(value, 900);
                let value = match (redact, lower.as_str()) {
                    (true, "subject") => "redacted".to_owned(),
                    (true, _) => hidden(&value),
                    (false, _) => value,
                };
                out.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        line.clone_into(&mut field);
        if line.is_empty() {
            break;
        }
    }
    out
}

/// Local parts of addresses, left out.
fn hidden(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('@') {
        let local = before
            .rfind(|c: char| c.is_whitespace() || "<>,:;()[]=\"".contains(c))
            .map_or(0, |at| {
                at + before
                    .get(at..)
                    .and_then(|c| c.chars().next())
                    .map_or(1, char::len_utf8)
            });
        out.push_str(before.get(..local).unwrap_or_default());
        out.push_str("redacted@");
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_left_out() {
        assert_eq!(
            hidden("a <jane@x.example>, b@y.example"),
            "a <redacted@x.example>, redacted@y.example"
        );
        let raw = b"From: Jane <jane@x.example>\r\nX-Secret: y\r\nSubject: =?utf-8?q?a?=\r\n b\r\n\r\nbody";
        assert_eq!(
            header(raw, true),
            "From: Jane <redacted@x.example>\r\nSubject: redacted\r\n"
        );
        assert!(header(raw, false).contains("jane@x.example"));
    }
}
