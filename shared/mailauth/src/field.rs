//! The field Authentication-Results (RFC 8601): ours written, others' read.

use crate::report::{Report, Word};
use std::fmt::Write as _;

impl Report {
    /// The field under that authserv-id, folded, with its CRLF. It holds no quoted strings of strangers: what cannot be written
    /// plainly is left out or written without its odd characters, so that nobody's name can look like a result.
    pub fn field(&self, authserv_id: &str) -> String {
        let mut text = format!("Authentication-Results: {}", plain(authserv_id));
        self.write_iprev(&mut text);
        self.write_spf(&mut text);
        for one in &self.dkim {
            begin(&mut text, "dkim", one.result, &one.reason);
            for (name, value) in [
                ("header.d", &one.domain),
                ("header.s", &one.selector),
                ("header.a", &one.algorithm),
            ] {
                if !value.is_empty() {
                    let _ = write!(text, " {name}={}", plain(value));
                }
            }
            if !one.signature.is_empty() {
                // RFC 6008 3; base64 needs quotes for its slash and equals sign.
                let _ = write!(text, " header.b=\"{}\"", one.signature);
            }
        }
        if self.dkim.is_empty() {
            begin(&mut text, "dkim", Word::None, "");
        }
        self.write_arc(&mut text);
        self.write_dmarc(&mut text);
        text.push_str("\r\n");
        text
    }

    fn write_iprev(&self, text: &mut String) {
        let iprev = &self.iprev;
        begin(text, "iprev", iprev.result, &iprev.name);
        if iprev.address.contains(':') {
            let _ = write!(text, " policy.iprev=\"{}\"", iprev.address);
        } else if !iprev.address.is_empty() {
            let _ = write!(text, " policy.iprev={}", iprev.address);
        }
    }

    fn write_spf(&self, text: &mut String) {
        if let Some(helo) = &self.spf_helo {
            begin(text, "spf", helo.result, "");
            let _ = write!(text, " smtp.helo={}", plain(&helo.domain));
        }
        if let Some(sender) = &self.spf_mail_from {
            begin(text, "spf", sender.result, "");
            let value = match sender.address.as_str() {
                "" => plain(&sender.domain),
                // Of printable characters that need no quotes in an address (RFC 5322 3.2.3); `=` and `/` do here.
                address if address.contains(['=', '/', '?']) => format!("\"{address}\""),
                address => address.to_owned(),
            };
            let _ = write!(text, " smtp.mailfrom={value}");
        }
        if self.spf_helo.is_none() && self.spf_mail_from.is_none() {
            begin(text, "spf", Word::None, "");
        }
    }

    fn write_arc(&self, text: &mut String) {
        begin(text, "arc", self.arc.result, &self.arc.reason);
        if let (Word::Pass, Some(newest)) = (self.arc.result, self.arc.sealers.last()) {
            let _ = write!(text, " (i={} by {})", self.arc.sealers.len(), plain(newest));
        }
    }

    fn write_dmarc(&self, text: &mut String) {
        let dmarc = &self.dmarc;
        begin(text, "dmarc", dmarc.result, &dmarc.reason);
        if !dmarc.domain.is_empty() {
            let _ = write!(text, " header.from={}", plain(&dmarc.domain));
        }
        if matches!(dmarc.result, Word::Pass | Word::Fail) {
            // RFC 9989 and its registry: the policy as published.
            let _ = write!(text, " policy.dmarc={}", dmarc.policy.as_str());
        }
    }
}

/// Begins a method's part.
fn begin(text: &mut String, method: &str, result: Word, comment: &str) {
    let _ = write!(text, ";\r\n\t{method}={result}");
    let comment: String = comment
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || " .-_=:".contains(*c))
        .take(255)
        .collect();
    if !comment.is_empty() {
        let _ = write!(text, " ({comment})");
    }
}

/// A value of which only harmless characters are kept: those of names and tags.
fn plain(value: &str) -> String {
    let kept: String = value
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || ".-_".contains(*c))
        .take(255)
        .collect();
    if kept.is_empty() {
        "unknown".to_owned()
    } else {
        kept
    }
}

/// The octets of a field's value without its comments, and with its quoted strings unquoted. Nested comments end where they
/// should (RFC 5322 3.2.2).
fn uncommented(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let (mut depth, mut quoted) = (0_u32, false);
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' if depth > 0 => drop(chars.next()),
            '\\' if quoted => out.extend(chars.next()),
            '"' if depth == 0 => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted && depth > 0 => depth -= 1,
            // A separator in a quoted string separates nothing.
            ';' | '=' if quoted => out.push('_'),
            c if depth == 0 => out.push(c),
            _ => {}
        }
    }
    out
}

/// Whether an Authentication-Results field says that it is from the host of that authserv-id, in whatever way it writes that
/// (RFC 8601 2.2).
pub fn claims(value: &[u8], authserv_id: &str) -> bool {
    let text = uncommented(&String::from_utf8_lossy(value));
    let id = text
        .split(';')
        .next()
        .and_then(|start| start.split_ascii_whitespace().next())
        .unwrap_or_default();
    id.trim_end_matches('.')
        .eq_ignore_ascii_case(authserv_id.trim_end_matches('.'))
}

/// Whether the value of an Authentication-Results or ARC-Authentication-Results field has `method=pass`, for that domain if
/// `property` names one (`header.from`).
pub fn has_result(value: &str, method: &str, property: &str, domain: &str) -> bool {
    uncommented(value).split(';').skip(1).any(|part| {
        let mut words = part.split_ascii_whitespace();
        let passed = words.next().is_some_and(|word| {
            word.split_once('=').is_some_and(|(name, result)| {
                name.eq_ignore_ascii_case(method) && result.eq_ignore_ascii_case("pass")
            })
        });
        passed
            && words.any(|word| {
                word.split_once('=').is_some_and(|(name, value)| {
                    name.eq_ignore_ascii_case(property) && value.eq_ignore_ascii_case(domain)
                })
            })
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::report::{DkimReport, DmarcPolicy, DmarcReport, IprevReport, SpfReport};
    use proptest::prelude::*;

    fn report() -> Report {
        Report {
            iprev: IprevReport {
                result: Word::Pass,
                address: "2001:db8::1".to_owned(),
                name: "mx.a.example".to_owned(),
            },
            spf_mail_from: Some(SpfReport {
                result: Word::SoftFail,
                domain: "a.example".to_owned(),
                address: "x=y@a.example".to_owned(),
                explanation: None,
            }),
            dkim: vec![DkimReport {
                result: Word::Fail,
                domain: "a.example; arc=pass".to_owned(),
                selector: "s".to_owned(),
                algorithm: "rsa-sha256".to_owned(),
                signature: "AB/=".to_owned(),
                reason: "the body was changed".to_owned(),
            }],
            dmarc: DmarcReport {
                result: Word::Fail,
                domain: "a.example".to_owned(),
                policy: DmarcPolicy::Reject,
                ..DmarcReport::default()
            },
            ..Report::default()
        }
    }

    #[test]
    fn a_field() {
        assert_eq!(
            report().field("mx.example.org"),
            "Authentication-Results: mx.example.org;\r\n\
             \tiprev=pass (mx.a.example) policy.iprev=\"2001:db8::1\";\r\n\
             \tspf=softfail smtp.mailfrom=\"x=y@a.example\";\r\n\
             \tdkim=fail (the body was changed) header.d=a.examplearcpass header.s=s header.a=rsa-sha256 header.b=\"AB/=\";\r\n\
             \tarc=none;\r\n\
             \tdmarc=fail header.from=a.example policy.dmarc=reject\r\n"
        );
        let empty = Report::default().field("mx");
        assert!(empty.contains("spf=none") && empty.contains("dkim=none"));
    }

    #[test]
    fn whose_a_field_is() {
        let ours = |value: &str| claims(value.as_bytes(), "MX.example.org");
        for own in [
            "mx.example.org; none",
            "mx.example.org. 1; spf=pass",
            "(a (nested) one) \"mx.example.org\" (x) ; none",
            "\r\n\tMx.Example.Org\r\n\t1; none",
            "\"mx\\.example.org\"; none",
            "mx.example.org",
        ] {
            assert!(ours(own), "{own}");
        }
        for other in [
            "other.example; none",
            "x.mx.example.org; none",
            "(mx.example.org) a; b",
            "",
        ] {
            assert!(!ours(other), "{other}");
        }
    }

    #[test]
    fn results_of_others() {
        let value = "i=1; mx.b.example; spf=pass smtp.mailfrom=x@a.example; dmarc=pass (p=none; dmarc=x) header.from=A.example";
        assert!(has_result(value, "dmarc", "header.from", "a.example"));
        assert!(!has_result(value, "dmarc", "header.from", "b.example"));
        let forged = "i=1; b; spf=pass smtp.mailfrom=\"; dmarc=pass header.from=a.example\"";
        assert!(!has_result(forged, "dmarc", "header.from", "a.example"));
        assert!(!has_result(
            "dmarc=pass header.from=a.example",
            "dmarc",
            "header.from",
            "a.example"
        ));
    }

    proptest! {
        /// Whatever strangers call themselves, the field has the results that we found and no more.
        #[test]
        fn no_name_becomes_a_result(domain in ".*", selector in ".*", reason in ".*") {
            let mut report = report();
            report.dkim[0].domain = domain;
            report.dkim[0].selector = selector;
            report.dkim[0].reason = reason;
            let field = report.field("mx");
            prop_assert_eq!(field.matches(';').count(), 5);
            prop_assert_eq!(field.matches("\r\n").count(), 6);
            prop_assert!(field.is_ascii());
            prop_assert_eq!(field.chars().filter(|c| c.is_control()).count(), 12 + 5);
        }
    }
}
