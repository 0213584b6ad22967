//! Reports on messages that require TLS (RFC 8689 5): protected as the message was, or without what is to be protected.
//!
//! Such a report has REQUIRETLS itself. If its way back is not protected well enough, it goes once more, without REQUIRETLS and without the
//! header of the message that it is about: the sender hears that it failed, and nobody reads what it was.

use crate::message::Message;
use crate::report::{Composed, Event, Subject};
use memchr::memmem;
use types::{Enhanced, Status};

/// The origin of reports.
pub(crate) const ORIGIN: &str = "report";

/// The report without REQUIRETLS, if that is what kept it from being delivered.
pub(crate) fn instead(message: &Message, body: &[u8], subjects: &[Subject]) -> Option<Composed> {
    let head = &message.head;
    let unprotected = subjects
        .iter()
        .any(|subject| subject.event == Event::Failed && wants_tls(&subject.status));
    let ours = head.origin == ORIGIN && head.envelope.sender.is_none();
    if !(ours && head.envelope.require_tls && unprotected) {
        return None;
    }
    let body = redacted(body)?;
    let mut head = head.clone();
    head.envelope.require_tls = false;
    head.prefix_len = 0;
    head.body_len = body.len() as u64;
    head.spooled = false;
    Some(Composed {
        head,
        prefix: Vec::new(),
        body,
    })
}

/// RFC 8689 4.2.1: no TLS as needed, or no REQUIRETLS.
fn wants_tls(status: &Status) -> bool {
    matches!(status.enhanced, Enhanced(5, 7, 10 | 30))
}

/// A report as [`crate::report::Reporter`] writes it, without its third part. RFC 6522 3: that one may be left out.
fn redacted(report: &[u8]) -> Option<Vec<u8>> {
    let header = report.get(..memmem::find(report, b"\r\n\r\n")?)?;
    let begin = memmem::find(header, b"boundary=\"")? + b"boundary=\"".len();
    let rest = header.get(begin..)?;
    let boundary = rest.get(..memchr::memchr(b'"', rest)?)?;
    let line = [b"\r\n--", boundary].concat();
    let ends: Vec<usize> = memmem::find_iter(report, &line).take(4).collect();
    // Three parts, and the end.
    let [_, _, third, _] = ends.as_slice() else {
        return None;
    };
    let mut short = report.get(..*third)?.to_vec();
    short.extend_from_slice(&line);
    short.extend_from_slice(b"--\r\n");
    Some(short)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_third_part_goes() {
        let report = b"From: a\r\nContent-Type: multipart/report; report-type=\"delivery-status\";\r\n\tboundary=\"b1\"\r\n\r\n\
            \r\n--b1\r\nContent-Type: text/plain\r\n\r\ntext\r\n--b1\r\nContent-Type: message/delivery-status\r\n\r\nAction: failed\r\n\
            \r\n--b1\r\nContent-Type: text/rfc822-headers\r\n\r\nSubject: secret\r\n\r\n--b1--\r\n";
        let short = redacted(report).unwrap();
        let text = String::from_utf8(short.clone()).unwrap();
        assert!(
            text.contains("Action: failed") && !text.contains("secret"),
            "{text}"
        );
        assert!(
            text.ends_with("\r\n--b1--\r\n") && text.matches("--b1").count() == 3,
            "{text}"
        );
        // Not twice, and nothing that is not one of ours.
        assert_eq!(redacted(&short), None);
        assert_eq!(redacted(b"Subject: a\r\n\r\nb"), None);
        assert_eq!(redacted(b""), None);
    }
}
