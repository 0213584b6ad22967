//! Delivery status notifications: RFC 3461, 3462, 3464, 6533. Octets out; no clock, no I/O.

use crate::record::Head;
use mail_builder::MessageBuilder;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::date::Date;
use mail_builder::headers::raw::Raw;
use mail_builder::mime::{BodyPart, MimePart};
use std::fmt::Write;
use types::{
    Address, BodyType, Envelope, Notify, QueueId, Recipient, Ret, Route, Status, Terms, TraceId,
};

/// What is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Given up.
    Failed,
    /// Not yet; it is still tried.
    Delayed,
    /// In a mailbox here.
    Delivered,
    /// Handed to a host that reports nothing itself (RFC 3461 5.2.2).
    Relayed,
    /// Handed to another host, of which the sender is told because of the time limit that was set (RFC 2852 4.1).
    HandedOver,
}

impl Event {
    /// RFC 3464 2.3.3
    fn action(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Delayed => "delayed",
            Self::Delivered => "delivered",
            Self::Relayed | Self::HandedOver => "relayed",
        }
    }

    fn subject(self) -> &'static str {
        match self {
            Self::Failed => "Your message could not be delivered",
            Self::Delayed => "Your message is delayed",
            Self::Delivered | Self::Relayed => "Your message was delivered",
            Self::HandedOver => "Your message was handed over",
        }
    }

    /// Whether the sender asked for it (RFC 3461 4.1). A delay beyond a time limit is told to who said nothing or DELAY
    /// (RFC 2852 4.1.3), a hand-over because of a limit to all but NEVER (4.1.4).
    pub(crate) fn is_wanted(self, notify: Notify) -> bool {
        match self {
            Self::Failed => notify.failure,
            Self::Delayed => notify.delay,
            Self::Delivered | Self::Relayed => notify.success,
            Self::HandedOver => !notify.is_never(),
        }
    }
}

/// A recipient that is reported on.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) index: u16,
    pub(crate) event: Event,
    pub(crate) status: Status,
    /// Seconds since 1970 until which it is tried.
    pub(crate) until: Option<u64>,
}

/// Who reports.
#[derive(Clone, Debug)]
pub(crate) struct Reporter {
    pub(crate) hostname: String,
    pub(crate) from: String,
    /// Messages beyond this are returned with their header only.
    pub(crate) return_full_max: u64,
}

/// The fields of a report that tell what terms the message had.
fn terms_fields(terms: &Terms) -> String {
    let mut fields = String::new();
    if let Some(by) = terms.by {
        // RFC 2852 5: deliver-by-date-field
        let date = Date::new(i64::try_from(by.deadline).unwrap_or_default()).to_rfc822();
        let _ = write!(fields, "Deliver-By-Date: {date}\r\n");
    }
    if let Some(release) = terms.release {
        // RFC 4865 5.1.2: what was asked for
        let asked = match release.interval {
            Some(seconds) => format!("for;{seconds}"),
            None => format!("until;{}", types::moment::date_time(release.at)),
        };
        let _ = write!(fields, "Future-Release-Request: {asked}\r\n");
    }
    fields
}

/// What is returned of the message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Returned<'a> {
    /// Prefix and body, or as much of them as was read.
    pub(crate) octets: &'a [u8],
    /// Whether that is all.
    pub(crate) whole: bool,
}

/// A message of our own, ready for the queue.
#[derive(Clone, Debug)]
pub(crate) struct Composed {
    pub(crate) head: Head,
    pub(crate) prefix: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

impl Reporter {
    /// Writes the report on these recipients of a message, or `None` if there is nobody to report to or nothing that is
    /// wanted. `id` is that of the report.
    pub(crate) fn report(
        &self,
        id: QueueId,
        of: (QueueId, &Head),
        subjects: &[Subject],
        returned: Returned<'_>,
        now: u64,
    ) -> Option<Composed> {
        let (of_id, head) = of;
        // RFC 5321 4.5.5, RFC 3464 2: nothing is reported to the null sender.
        let sender = head.envelope.sender.as_ref()?;
        let wanted: Vec<(&Subject, &Recipient)> = subjects
            .iter()
            .filter_map(|subject| {
                let recipient = head.envelope.recipients.get(usize::from(subject.index))?;
                subject
                    .event
                    .is_wanted(recipient.notify)
                    .then_some((subject, recipient))
            })
            .collect();
        let (first, _) = wanted.first()?;
        let international = head.envelope.smtputf8;
        let text = self.text(head, &wanted);
        let status = self.status(head, &wanted);
        let failed = wanted
            .iter()
            .any(|(subject, _)| subject.event == Event::Failed);
        let (kind, content) = self.content(head, returned, failed);
        let eight_bit = !content.is_ascii() || !status.is_ascii();
        let encoding = |octets: &[u8]| if octets.is_ascii() { "7bit" } else { "8bit" };
        // RFC 6533 3, 4.2
        let status_type = if international {
            "message/global-delivery-status"
        } else {
            "message/delivery-status"
        };
        let parts = vec![
            MimePart::new(
                ContentType::new("text/plain").attribute("charset", "utf-8"),
                BodyPart::Text(text.into()),
            ),
            MimePart::new(
                ContentType::new(status_type),
                BodyPart::Binary(status.as_bytes().into()),
            )
            .transfer_encoding(encoding(status.as_bytes())),
            MimePart::new(ContentType::new(kind), BodyPart::Binary(content.into()))
                .transfer_encoding(encoding(content)),
        ];
        // RFC 3462 1
        let report = MimePart::new(
            ContentType::new("multipart/report").attribute("report-type", "delivery-status"),
            BodyPart::Multipart(parts),
        );
        let body = MessageBuilder::new()
            .header("From", Raw::new(format!("Mail delivery <{}>", self.from)))
            .header("To", Raw::new(format!("<{sender}>")))
            .header("Subject", Raw::new(first.event.subject()))
            .date(Date::new(i64::try_from(now).unwrap_or_default()))
            .header(
                "Message-ID",
                Raw::new(format!("<{id}.report@{}>", self.hostname)),
            )
            // RFC 3834 5
            .header("Auto-Submitted", Raw::new("auto-replied"))
            .header("X-Queue-ID", Raw::new(of_id.to_string()))
            .body(report)
            .write_to_vec()
            .ok()?;
        let mut about = self.envelope(
            head.trace,
            sender,
            eight_bit,
            international,
            now,
            body.len(),
        );
        // RFC 6710 4.6: a report is as urgent as what it reports; RFC 8689 5: and protected as it was.
        about.envelope.terms.priority = head.envelope.terms.priority;
        about.envelope.require_tls = head.envelope.require_tls;
        Some(Composed {
            head: about,
            prefix: Vec::new(),
            body,
        })
    }

    /// Our own message to an address: from nobody (RFC 3461 6.1).
    fn envelope(
        &self,
        trace: TraceId,
        to: &Address,
        eight_bit: bool,
        international: bool,
        now: u64,
        len: usize,
    ) -> Head {
        Head {
            trace,
            arrived: now,
            origin: crate::redact::ORIGIN.to_owned(),
            may_relay: true,
            sign: true,
            envelope: Envelope {
                sender: None,
                ret: Some(Ret::Headers),
                envid: None,
                body: if eight_bit {
                    BodyType::EightBit
                } else {
                    BodyType::SevenBit
                },
                smtputf8: international || to.needs_utf8(),
                require_tls: false,
                terms: Terms::default(),
                recipients: vec![Recipient {
                    address: to.clone(),
                    orcpt: None,
                    // RFC 3461 6.1
                    notify: Notify {
                        success: false,
                        failure: false,
                        delay: false,
                        explicit: true,
                    },
                    // deliverd says if it is not.
                    route: Route::Local,
                }],
            },
            prefix_len: 0,
            body_len: len as u64,
            spooled: false,
            listener: String::new(),
            held: None,
            moderated: None,
        }
    }

    /// The report that a report could not be delivered, to the postmaster.
    pub(crate) fn double_bounce(
        &self,
        to: &Address,
        of: (QueueId, &Head),
        subjects: &[Subject],
        now: u64,
    ) -> Composed {
        let (id, head) = of;
        let mut text =
            String::from("This report could not be delivered, and nobody but you is told:\r\n\r\n");
        for subject in subjects {
            if let Some(recipient) = head.envelope.recipients.get(usize::from(subject.index)) {
                let _ = write!(
                    text,
                    "  <{}>\r\n    {}\r\n",
                    recipient.address, subject.status
                );
            }
        }
        let body = MessageBuilder::new()
            .header("From", Raw::new(format!("Mail delivery <{}>", self.from)))
            .header("To", Raw::new(format!("<{to}>")))
            .header("Subject", Raw::new("A report could not be delivered"))
            .date(Date::new(i64::try_from(now).unwrap_or_default()))
            .header(
                "Message-ID",
                Raw::new(format!("<{id}.double@{}>", self.hostname)),
            )
            .header("Auto-Submitted", Raw::new("auto-generated"))
            .text_body(text)
            .write_to_vec()
            .unwrap_or_default();
        let head = self.envelope(head.trace, to, false, false, now, body.len());
        Composed {
            head,
            prefix: Vec::new(),
            body,
        }
    }

    /// For people.
    fn text(&self, head: &Head, wanted: &[(&Subject, &Recipient)]) -> String {
        let mut text = format!("This is the mail system at {}.\r\n\r\n", self.hostname);
        let sections = [
            (
                Event::Failed,
                "Your message could not be delivered to these recipients, and is not tried any more:",
            ),
            (
                Event::Delayed,
                "Your message could not be delivered yet to these recipients. It is tried further; you need do nothing:",
            ),
            (
                Event::Delivered,
                "Your message was delivered to these recipients:",
            ),
            (
                Event::Relayed,
                "Your message was handed to the mail system of these recipients, which will not report on it:",
            ),
            (
                Event::HandedOver,
                "Your message, which had a time limit, was handed to the next mail system of these recipients:",
            ),
        ];
        for (event, heading) in sections {
            let mut of_this = wanted
                .iter()
                .filter(|(subject, _)| subject.event == event)
                .peekable();
            if of_this.peek().is_none() {
                continue;
            }
            let _ = write!(text, "{heading}\r\n\r\n");
            for (subject, recipient) in of_this {
                let status = &subject.status;
                let who = status
                    .host
                    .as_deref()
                    .map(|host| format!("{host} said: "))
                    .unwrap_or_default();
                let _ = write!(
                    text,
                    "  <{}>\r\n    {who}{} {} {}\r\n",
                    recipient.address,
                    status.code,
                    status.enhanced,
                    one_line(&status.text)
                );
                if let (Event::Delayed, Some(until)) = (event, subject.until) {
                    let until = Date::new(i64::try_from(until).unwrap_or_default()).to_rfc822();
                    let _ = write!(text, "    It is given up at {until}.\r\n");
                }
                text.push_str("\r\n");
            }
        }
        let arrived = Date::new(i64::try_from(head.arrived).unwrap_or_default()).to_rfc822();
        let _ = write!(
            text,
            "Your message arrived here at {arrived}. What can be returned of it is attached.\r\n"
        );
        text
    }

    /// RFC 3464 2
    fn status(&self, head: &Head, wanted: &[(&Subject, &Recipient)]) -> String {
        let mut status = String::new();
        if let Some(envid) = &head.envelope.envid {
            // RFC 3464 2.2.1
            let _ = write!(status, "Original-Envelope-Id: {}\r\n", one_line(envid));
        }
        let arrived = Date::new(i64::try_from(head.arrived).unwrap_or_default()).to_rfc822();
        let _ = write!(
            status,
            "Reporting-MTA: dns; {}\r\nArrival-Date: {arrived}\r\n",
            self.hostname
        );
        status.push_str(&terms_fields(&head.envelope.terms));
        for (subject, recipient) in wanted {
            status.push_str("\r\n");
            if let Some(orcpt) = &recipient.orcpt
                && let Some((kind, address)) = orcpt.split_once(';')
            {
                // RFC 3464 2.3.1
                let _ = write!(
                    status,
                    "Original-Recipient: {}; {}\r\n",
                    one_line(kind),
                    one_line(address)
                );
            }
            // RFC 6533 3: addresses beyond ASCII are of the type utf-8.
            let kind = if recipient.address.needs_utf8() {
                "utf-8"
            } else {
                "rfc822"
            };
            let said = &subject.status;
            let _ = write!(
                status,
                "Final-Recipient: {kind}; {}\r\nAction: {}\r\nStatus: {}\r\n",
                recipient.address,
                subject.event.action(),
                said.enhanced
            );
            if let Some(host) = &said.host {
                // RFC 3464 2.3.5: only if another MTA said it.
                let _ = write!(status, "Remote-MTA: dns; {}\r\n", one_line(host));
                let _ = write!(
                    status,
                    "Diagnostic-Code: smtp; {} {} {}\r\n",
                    said.code,
                    said.enhanced,
                    one_line(&said.text)
                );
            } else if matches!(subject.event, Event::Failed | Event::Delayed) {
                let _ = write!(
                    status,
                    "Diagnostic-Code: x-posthouse; {}\r\n",
                    one_line(&said.text)
                );
            }
            if let (Event::Delayed, Some(until)) = (subject.event, subject.until) {
                // RFC 3464 2.3.9
                let until = Date::new(i64::try_from(until).unwrap_or_default()).to_rfc822();
                let _ = write!(status, "Will-Retry-Until: {until}\r\n");
            }
        }
        status
    }

    /// The third part: its type and octets.
    fn content<'a>(
        &self,
        head: &Head,
        returned: Returned<'a>,
        failed: bool,
    ) -> (&'static str, &'a [u8]) {
        let international = head.envelope.smtputf8;
        // RFC 3461 4.3: RET is for failures; all other reports return the header. RFC 3030 3: binary cannot be returned in lines.
        let full = failed
            && returned.whole
            && head.envelope.ret != Some(Ret::Headers)
            // RFC 8689 5: whatever RET says
            && !head.envelope.require_tls
            && head.envelope.body != BodyType::Binary
            && head.size() <= self.return_full_max;
        if full {
            // RFC 6533 4.1
            return (
                if international {
                    "message/global"
                } else {
                    "message/rfc822"
                },
                returned.octets,
            );
        }
        let header = memchr::memmem::find(returned.octets, b"\r\n\r\n")
            .and_then(|end| returned.octets.get(..end + 2))
            .unwrap_or(returned.octets);
        (
            if international {
                "message/global-headers"
            } else {
                "text/rfc822-headers"
            },
            header,
        )
    }
}

/// What others said, made fit for a header field.
fn one_line(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.take(900).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use mail_parser::{MessageParser, MimeHeaders, PartType};
    use types::Enhanced;

    fn head(ret: Option<Ret>, notify: Notify) -> Head {
        let recipient = |address: &str| Recipient {
            address: address.parse().unwrap(),
            orcpt: Some("rfc822;First@example.net".to_owned()),
            notify,
            route: Route::Remote,
        };
        Head {
            trace: TraceId(1),
            arrived: 1_800_000_000,
            origin: "submission".to_owned(),
            may_relay: true,
            sign: true,
            envelope: Envelope {
                sender: Some("jane@example.org".parse().unwrap()),
                ret,
                envid: Some("QQ314159".to_owned()),
                body: BodyType::EightBit,
                smtputf8: false,
                require_tls: false,
                terms: Terms::default(),
                recipients: vec![recipient("one@example.net"), recipient("two@example.net")],
            },
            prefix_len: 0,
            body_len: MESSAGE.len() as u64,
            spooled: false,
            listener: String::new(),
            held: None,
            moderated: None,
        }
    }

    const MESSAGE: &[u8] = b"Received: x\r\nSubject: Gr\xc3\xbc\xc3\x9fe\r\n\r\nIt is I. \xc3\xa9\r\n--not-a-boundary\r\n";

    fn reporter() -> Reporter {
        Reporter {
            hostname: "mx.example.org".to_owned(),
            from: "MAILER-DAEMON@mx.example.org".to_owned(),
            return_full_max: 1000,
        }
    }

    fn subject(index: u16, event: Event) -> Subject {
        let status = Status {
            code: 550,
            enhanced: Enhanced(5, 1, 1),
            text: "no such\r\nuser".to_owned(),
            host: Some("mx.example.net".to_owned()),
        };
        Subject {
            index,
            event,
            status,
            until: Some(1_800_100_000),
        }
    }

    fn composed(head: &Head, subjects: &[Subject]) -> Option<Composed> {
        let returned = Returned {
            octets: MESSAGE,
            whole: true,
        };
        reporter().report(
            QueueId(9),
            (QueueId(8), head),
            subjects,
            returned,
            1_800_000_100,
        )
    }

    #[test]
    fn what_required_tls_is_reported_with_it_and_with_its_header_alone() {
        let mut of = head(Some(Ret::Full), Notify::default());
        of.envelope.require_tls = true;
        let report = composed(&of, &[subject(0, Event::Failed)]).unwrap();
        assert!(report.head.envelope.require_tls);
        let parsed = MessageParser::default().parse(&report.body).unwrap();
        let kind = parsed.part(3).unwrap().content_type().unwrap().clone();
        assert_eq!(kind.subtype(), Some("rfc822-headers"));
        of.envelope.require_tls = false;
        let report = composed(&of, &[subject(0, Event::Failed)]).unwrap();
        assert!(!report.head.envelope.require_tls);
    }

    #[test]
    fn a_failure_report_can_be_read_by_machines() {
        let report =
            composed(&head(None, Notify::default()), &[subject(0, Event::Failed)]).unwrap();
        assert_eq!(report.head.envelope.sender, None);
        assert_eq!(
            report.head.envelope.recipients[0].address.to_string(),
            "jane@example.org"
        );
        assert_eq!(report.head.envelope.body, BodyType::EightBit);
        assert_eq!(report.head.body_len, report.body.len() as u64);
        let parsed = MessageParser::default().parse(&report.body).unwrap();
        let kind = parsed.content_type().unwrap();
        assert_eq!(
            (kind.ctype(), kind.subtype()),
            ("multipart", Some("report"))
        );
        assert_eq!(kind.attribute("report-type"), Some("delivery-status"));
        assert_eq!(
            parsed.header_raw("Auto-Submitted").map(str::trim),
            Some("auto-replied")
        );
        let status = parsed.part(2).unwrap();
        assert_eq!(
            status.content_type().unwrap().subtype(),
            Some("delivery-status")
        );
        let fields = String::from_utf8(status.contents().to_vec()).unwrap();
        for field in [
            "Original-Envelope-Id: QQ314159\r\n",
            "Reporting-MTA: dns; mx.example.org\r\n",
            "\r\n\r\nOriginal-Recipient: rfc822; First@example.net\r\n",
            "Final-Recipient: rfc822; one@example.net\r\n",
            "Action: failed\r\nStatus: 5.1.1\r\n",
            "Remote-MTA: dns; mx.example.net\r\n",
            "Diagnostic-Code: smtp; 550 5.1.1 no such  user\r\n",
        ] {
            assert!(fields.contains(field), "{field} in {fields}");
        }
        // The message comes back octet for octet.
        assert!(memchr::memmem::find(&report.body, MESSAGE).is_some());
        let PartType::Message(inner) = &parsed.part(3).unwrap().body else {
            unreachable!("no message")
        };
        assert_eq!(inner.subject(), Some("Grüße"));
    }

    #[test]
    fn ret_hdrs_returns_the_header_only() {
        let report = composed(
            &head(Some(Ret::Headers), Notify::default()),
            &[subject(0, Event::Failed)],
        )
        .unwrap();
        let parsed = MessageParser::default().parse(&report.body).unwrap();
        assert_eq!(
            parsed.part(3).unwrap().content_type().unwrap().subtype(),
            Some("rfc822-headers")
        );
        assert!(memchr::memmem::find(&report.body, b"It is I").is_none());
        assert!(memchr::memmem::find(&report.body, b"Subject: Gr").is_some());
    }

    #[test]
    fn notify_decides() {
        let never = Notify {
            success: false,
            failure: false,
            delay: false,
            explicit: true,
        };
        assert!(composed(&head(None, never), &[subject(0, Event::Failed)]).is_none());
        assert!(
            composed(
                &head(None, Notify::default()),
                &[subject(0, Event::Delivered)]
            )
            .is_none()
        );
        let success = Notify {
            success: true,
            failure: false,
            delay: false,
            explicit: true,
        };
        let report = composed(
            &head(None, success),
            &[subject(0, Event::Relayed), subject(1, Event::Failed)],
        )
        .unwrap();
        let text = String::from_utf8_lossy(&report.body).into_owned();
        assert!(text.contains("Action: relayed") && !text.contains("two@example.net"));
        assert!(text.contains("rfc822-headers"));
        let delayed = composed(
            &head(None, Notify::default()),
            &[subject(1, Event::Delayed)],
        )
        .unwrap();
        let text = String::from_utf8_lossy(&delayed.body).into_owned();
        assert!(text.contains("Action: delayed") && text.contains("Will-Retry-Until: "));
        let mut null = head(None, Notify::default());
        null.envelope.sender = None;
        assert!(composed(&null, &[subject(0, Event::Failed)]).is_none());
    }
}
