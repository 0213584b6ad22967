//! Commands, written into a buffer, so that several go in one packet (RFC 2920).

use super::Capabilities;
use crate::{By, xtext};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt::Write as _;
use types::{Address, BodyType, ByMode, Notify, Ret};

/// MAIL, with what it may say. Parameters that the server does not offer are left out; whether the message may go there at
/// all without them (8BITMIME, SMTPUTF8, REQUIRETLS) is for the caller to decide before.
#[derive(Clone, Copy, Debug, Default)]
pub struct MailFrom<'a> {
    /// `None` is `<>`.
    pub sender: Option<&'a Address>,
    /// Octets of the message as it is sent, without dot-stuffing (RFC 1870 3).
    pub size: Option<u64>,
    /// RFC 6152, RFC 3030.
    pub body: BodyType,
    /// RFC 6531.
    pub smtputf8: bool,
    /// RFC 3461 4.3.
    pub ret: Option<Ret>,
    /// RFC 3461 4.4; not yet xtext.
    pub envid: Option<&'a str>,
    /// RFC 8689.
    pub require_tls: bool,
    /// RFC 6710.
    pub priority: Option<i8>,
    /// RFC 2852: what is left of the time.
    pub by: Option<By>,
}

/// RCPT, with what it may say; the DSN parameters only where the server offers DSN.
#[derive(Clone, Copy, Debug)]
pub struct RcptTo<'a> {
    /// The forward-path.
    pub address: &'a Address,
    /// RFC 3461 4.1; sent only if `explicit`.
    pub notify: Notify,
    /// RFC 3461 4.2: `type;value`, not yet xtext.
    pub orcpt: Option<&'a str>,
}

/// Appends, without control characters: nothing that is written here can end a line.
fn push(out: &mut Vec<u8>, text: &str) {
    out.extend(text.bytes().filter(|byte| *byte >= 0x20 && *byte != 0x7f));
}

fn line(out: &mut Vec<u8>, text: &str) {
    push(out, text);
    out.extend_from_slice(b"\r\n");
}

/// `EHLO host`.
pub fn ehlo(out: &mut Vec<u8>, host: &str) {
    push(out, "EHLO ");
    line(out, host);
}

/// `HELO host`.
pub fn helo(out: &mut Vec<u8>, host: &str) {
    push(out, "HELO ");
    line(out, host);
}

/// `LHLO host` (RFC 2033 4.1).
pub fn lhlo(out: &mut Vec<u8>, host: &str) {
    push(out, "LHLO ");
    line(out, host);
}

/// `MAIL FROM:<...>` with parameters.
pub fn mail(out: &mut Vec<u8>, mail: &MailFrom<'_>, offered: &Capabilities) {
    let mut text = String::with_capacity(128);
    match mail.sender {
        Some(sender) => {
            let _ = write!(text, "MAIL FROM:<{sender}>");
        }
        None => text.push_str("MAIL FROM:<>"),
    }
    if let Some(size) = mail.size.filter(|_| offered.size) {
        let _ = write!(text, " SIZE={size}");
    }
    match mail.body {
        BodyType::EightBit if offered.eight_bit => text.push_str(" BODY=8BITMIME"),
        BodyType::Binary if offered.binary => text.push_str(" BODY=BINARYMIME"),
        _ => {}
    }
    if mail.smtputf8 && offered.smtputf8 {
        text.push_str(" SMTPUTF8");
    }
    if offered.dsn {
        match mail.ret {
            Some(Ret::Full) => text.push_str(" RET=FULL"),
            Some(Ret::Headers) => text.push_str(" RET=HDRS"),
            None => {}
        }
        // RFC 3461 4.4: printable ASCII before encoding
        let sendable =
            |envid: &&str| !envid.is_empty() && envid.bytes().all(|b| (0x20..0x7f).contains(&b));
        if let Some(envid) = mail.envid.filter(sendable) {
            let _ = write!(text, " ENVID={}", xtext::encode(envid));
        }
    }
    if mail.require_tls && offered.require_tls {
        text.push_str(" REQUIRETLS");
    }
    if let Some(priority) = mail.priority.filter(|_| offered.priority) {
        let _ = write!(text, " MT-PRIORITY={priority}");
    }
    if let Some(by) = mail.by.filter(|_| offered.deliver_by.is_some()) {
        let mode = match by.mode {
            ByMode::Notify => 'N',
            ByMode::Return => 'R',
        };
        let trace = if by.trace { "T" } else { "" };
        let seconds = by.seconds.clamp(-999_999_999, 999_999_999);
        let _ = write!(text, " BY={seconds};{mode}{trace}");
    }
    line(out, &text);
}

/// `RCPT TO:<...>` with parameters. `smtputf8` says whether MAIL carried SMTPUTF8.
pub fn rcpt(out: &mut Vec<u8>, rcpt: &RcptTo<'_>, offered: &Capabilities, smtputf8: bool) {
    let mut text = String::with_capacity(128);
    let _ = write!(text, "RCPT TO:<{}>", rcpt.address);
    if offered.dsn {
        if rcpt.notify.explicit {
            notify(&mut text, rcpt.notify);
        }
        let original = rcpt
            .orcpt
            .and_then(|orcpt| xtext::encode_orcpt(orcpt, smtputf8));
        if let Some(original) = original {
            let _ = write!(text, " ORCPT={original}");
        }
    }
    line(out, &text);
}

fn notify(text: &mut String, notify: Notify) {
    let words = [
        (notify.success, "SUCCESS"),
        (notify.failure, "FAILURE"),
        (notify.delay, "DELAY"),
    ];
    let mut separator = " NOTIFY=";
    for (_, word) in words.iter().filter(|(wanted, _)| *wanted) {
        text.push_str(separator);
        text.push_str(word);
        separator = ",";
    }
    if separator != "," {
        text.push_str(" NOTIFY=NEVER");
    }
}

/// `DATA`.
pub fn data(out: &mut Vec<u8>) {
    line(out, "DATA");
}

/// `BDAT size`, and `LAST` (RFC 3030). The chunk follows at once.
pub fn bdat(out: &mut Vec<u8>, size: u64, last: bool) {
    line(
        out,
        &format!("BDAT {size}{}", if last { " LAST" } else { "" }),
    );
}

/// `RSET`.
pub fn rset(out: &mut Vec<u8>) {
    line(out, "RSET");
}

/// `NOOP`.
pub fn noop(out: &mut Vec<u8>) {
    line(out, "NOOP");
}

/// `QUIT`.
pub fn quit(out: &mut Vec<u8>) {
    line(out, "QUIT");
}

/// `STARTTLS` (RFC 3207). Nothing may be sent behind it before the answer.
pub fn starttls(out: &mut Vec<u8>) {
    line(out, "STARTTLS");
}

/// `AUTH mechanism`, with an initial response if there is one (RFC 4954 4: an empty one is `=`).
pub fn auth(out: &mut Vec<u8>, mechanism: &str, initial: Option<&[u8]>) {
    push(out, "AUTH ");
    push(out, mechanism);
    match initial {
        None => {}
        Some([]) => push(out, " ="),
        Some(octets) => {
            push(out, " ");
            push(out, &STANDARD.encode(octets));
        }
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Command;

    fn everything() -> Capabilities {
        Capabilities {
            size: true,
            eight_bit: true,
            smtputf8: true,
            chunking: true,
            binary: true,
            dsn: true,
            require_tls: true,
            priority: true,
            deliver_by: Some(0),
            ..Capabilities::default()
        }
    }

    #[test]
    fn only_what_is_offered_is_said() {
        let sender: Address = "jane@example.org".parse().unwrap();
        let from = MailFrom {
            sender: Some(&sender),
            size: Some(1234),
            body: BodyType::EightBit,
            smtputf8: true,
            ret: Some(Ret::Headers),
            envid: Some("a+b=c"),
            require_tls: true,
            priority: Some(-3),
            by: Some(By {
                seconds: 90,
                mode: ByMode::Return,
                trace: true,
            }),
        };
        let mut out = Vec::new();
        mail(&mut out, &from, &Capabilities::default());
        assert_eq!(out, b"MAIL FROM:<jane@example.org>\r\n");
        out.clear();
        mail(&mut out, &from, &everything());
        assert_eq!(
            String::from_utf8_lossy(&out),
            "MAIL FROM:<jane@example.org> SIZE=1234 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a+2Bb+3Dc REQUIRETLS MT-PRIORITY=-3 BY=90;RT\r\n"
        );
        let Command::Mail(read) = Command::parse(out.strip_suffix(b"\r\n").unwrap()).unwrap()
        else {
            unreachable!()
        };
        assert_eq!(read.parameters.envid.as_deref(), Some("a+b=c"));
        assert_eq!(
            (read.parameters.priority, read.parameters.by),
            (from.priority, from.by)
        );
        assert_eq!(read.sender, Some(sender));
    }

    #[test]
    fn recipients_carry_their_report_wishes() {
        let address: Address = "\"two words\"@example.org".parse().unwrap();
        let mut to = RcptTo {
            address: &address,
            notify: Notify {
                success: true,
                failure: false,
                delay: true,
                explicit: true,
            },
            orcpt: Some("rfc822;old=x@example.org"),
        };
        let mut out = Vec::new();
        rcpt(&mut out, &to, &everything(), false);
        assert_eq!(
            String::from_utf8_lossy(&out),
            "RCPT TO:<\"two words\"@example.org> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;old+3Dx@example.org\r\n"
        );
        to.notify = Notify {
            success: false,
            failure: false,
            delay: false,
            explicit: true,
        };
        to.orcpt = None;
        out.clear();
        rcpt(&mut out, &to, &everything(), false);
        assert!(out.ends_with(b" NOTIFY=NEVER\r\n"));
        out.clear();
        rcpt(&mut out, &to, &Capabilities::default(), false);
        assert!(out.ends_with(b"example.org>\r\n"));
    }

    #[test]
    fn a_host_name_cannot_inject_a_command() {
        let mut out = Vec::new();
        ehlo(&mut out, "mx\r\nRSET");
        assert_eq!(out, b"EHLO mxRSET\r\n");
        out.clear();
        auth(&mut out, "PLAIN", Some(b""));
        auth(&mut out, "PLAIN", Some(b"\0a\0b"));
        assert_eq!(out, b"AUTH PLAIN =\r\nAUTH PLAIN AGEAYg==\r\n");
    }
}
