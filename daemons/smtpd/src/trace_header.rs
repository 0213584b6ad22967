//! The header fields that we put before a message (RFC 5321 4.4, RFC 3848, RFC 6409 8).

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};
use types::{Address, QueueId};

/// What a Received field says.
#[derive(Debug)]
pub struct Received<'a> {
    /// The name that the client gave, as it came.
    pub helo: &'a str,
    /// The client; `None` on a Unix socket.
    pub client: Option<IpAddr>,
    /// Version and cipher, if there is TLS.
    pub tls: Option<(&'a str, &'a str)>,
    /// Our name.
    pub host: &'a str,
    /// How it came.
    pub with: With,
    /// Under which id it is queued.
    pub id: QueueId,
    /// The recipient, if there is only one: more would tell them of each other.
    pub recipient: Option<&'a Address>,
    /// Whom the client named instead of this recipient, before a rule changed it.
    pub asked: Option<&'a Address>,
    /// The priority that was granted, if one was asked for.
    pub priority: Option<i8>,
    /// Seconds since 1970.
    pub at: u64,
}

/// What the protocol is called (RFC 3848, RFC 6531 4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct With {
    /// LMTP.
    pub lmtp: bool,
    /// EHLO was said, not HELO.
    pub extended: bool,
    /// MAIL said SMTPUTF8.
    pub utf8: bool,
    /// Under TLS.
    pub tls: bool,
    /// After AUTH.
    pub auth: bool,
}

impl With {
    fn write(self, out: &mut String) {
        out.push_str(match (self.utf8, self.lmtp, self.extended) {
            (true, true, _) => "UTF8LMTP",
            (true, false, _) => "UTF8SMTP",
            (false, true, _) => "LMTP",
            (false, false, true) => "ESMTP",
            (false, false, false) => "SMTP",
        });
        // RFC 3848 1: the letters belong to ESMTP and LMTP only
        if self.extended || self.lmtp || self.utf8 {
            if self.tls {
                out.push('S');
            }
            if self.auth {
                out.push('A');
            }
        }
    }
}

impl Received<'_> {
    /// Appends the field, folded, with its CRLF.
    pub fn write(&self, out: &mut String) {
        out.push_str("Received: from ");
        push_name(out, self.helo, self.with.utf8);
        match self.client {
            Some(IpAddr::V4(v4)) => {
                let _ = write!(out, " ([{v4}])");
            }
            Some(IpAddr::V6(v6)) => match v6.to_ipv4_mapped() {
                Some(v4) => {
                    let _ = write!(out, " ([{v4}])");
                }
                None => {
                    let _ = write!(out, " ([IPv6:{v6}])");
                }
            },
            None => out.push_str(" (local)"),
        }
        if let Some((version, cipher)) = self.tls {
            let _ = write!(out, "\r\n\t(using {version} with cipher {cipher})");
        }
        let _ = write!(out, "\r\n\tby {} (Posthouse) with ", self.host);
        self.with.write(out);
        let _ = write!(out, " id {}", self.id);
        if let Some(recipient) = self.recipient {
            let _ = write!(out, "\r\n\tfor <{recipient}>");
            if let Some(asked) = self.asked {
                // RFC 5322 3.2.2: a comment, of a quoted pair where one of its own characters stands
                out.push_str(" (sent to ");
                for c in asked.to_string().chars() {
                    if matches!(c, '(' | ')' | '\\') {
                        out.push('\\');
                    }
                    out.push(c);
                }
                out.push(')');
            }
        }
        if let Some(priority) = self.priority {
            // RFC 6710 4.1, 8: an additional clause of Received
            let _ = write!(out, "\r\n\tPRIORITY {priority}");
        }
        out.push_str(";\r\n\t");
        push_date(out, self.at);
        out.push_str("\r\n");
    }
}

/// The client's word, harmless: what could end the field, begin a comment or confuse a reader becomes `?`.
fn push_name(out: &mut String, name: &str, utf8: bool) {
    out.extend(name.chars().take(255).map(|c| match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_' | ':' | '[' | ']' => c,
        // RFC 6531 3.7.3: only in a message that says SMTPUTF8
        c if utf8 && !c.is_ascii() && c.is_alphanumeric() => c,
        _ => '?',
    }));
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}

/// Appends a date as RFC 5322 3.3 wants it, in UTC.
pub fn push_date(out: &mut String, at: u64) {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let days = (at / 86_400).cast_signed();
    let seconds = at % 86_400;
    let (year, month, day) = types::moment::civil(days);
    let name = |names: &[&'static str], at: i64| -> &'static str {
        usize::try_from(at)
            .ok()
            .and_then(|at| names.get(at))
            .copied()
            .unwrap_or_default()
    };
    let _ = write!(
        out,
        "{}, {day} {} {year:04} {:02}:{:02}:{:02} +0000",
        name(&DAYS, days % 7),
        name(&MONTHS, month - 1),
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
    );
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn date(at: u64) -> String {
        let mut out = String::new();
        push_date(&mut out, at);
        out
    }

    #[test]
    fn dates() {
        assert_eq!(date(0), "Thu, 1 Jan 1970 00:00:00 +0000");
        assert_eq!(date(951_782_399), "Mon, 28 Feb 2000 23:59:59 +0000");
        assert_eq!(date(951_782_400), "Tue, 29 Feb 2000 00:00:00 +0000");
        assert_eq!(date(1_709_210_096), "Thu, 29 Feb 2024 12:34:56 +0000");
        assert_eq!(date(4_102_444_800), "Fri, 1 Jan 2100 00:00:00 +0000");
    }

    #[test]
    fn a_received_field() {
        let recipient: Address = "jane@example.org".parse().unwrap();
        let mut field = Received {
            helo: "client.example",
            client: Some("192.0.2.1".parse().unwrap()),
            tls: Some(("TLSv1.3", "TLS_AES_256_GCM_SHA384")),
            host: "mx.example.org",
            with: With {
                extended: true,
                tls: true,
                auth: true,
                ..With::default()
            },
            id: QueueId(1),
            recipient: Some(&recipient),
            asked: None,
            priority: Some(-3),
            at: 0,
        };
        let mut out = String::new();
        field.write(&mut out);
        assert_eq!(
            out,
            "Received: from client.example ([192.0.2.1])\r\n\
             \t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384)\r\n\
             \tby mx.example.org (Posthouse) with ESMTPSA id 0000000000001\r\n\
             \tfor <jane@example.org>\r\n\
             \tPRIORITY -3;\r\n\
             \tThu, 1 Jan 1970 00:00:00 +0000\r\n"
        );
        field.helo = "evil)\r\nX: (";
        field.client = Some("::ffff:192.0.2.1".parse().unwrap());
        field.tls = None;
        field.recipient = None;
        field.priority = None;
        out.clear();
        field.write(&mut out);
        assert!(out.starts_with("Received: from evil???X:?? ([192.0.2.1])\r\n\tby"));
        assert_eq!(out.lines().count(), 3);
    }

    #[test]
    fn protocols_by_name() {
        let name = |with: With| {
            let mut out = String::new();
            with.write(&mut out);
            out
        };
        let plain = With::default();
        assert_eq!(name(plain), "SMTP");
        assert_eq!(name(With { tls: true, ..plain }), "SMTP");
        let extended = With {
            extended: true,
            ..plain
        };
        assert_eq!(name(extended), "ESMTP");
        let secure = With {
            tls: true,
            ..extended
        };
        assert_eq!(name(secure), "ESMTPS");
        let utf8 = With {
            utf8: true,
            auth: true,
            ..secure
        };
        assert_eq!(name(utf8), "UTF8SMTPSA");
        let lmtp = With {
            lmtp: true,
            ..extended
        };
        assert_eq!(name(lmtp), "LMTP");
    }
}
