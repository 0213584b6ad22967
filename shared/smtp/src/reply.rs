//! Replies as a server writes them (RFC 5321 4.2, RFC 2034).

use std::io::Write as _;
use types::Enhanced;

/// A reply line's limit with its CRLF (RFC 5321 4.5.3.1.5).
const LINE: usize = 512;

/// Appends a reply. `\n` in `text` begins a further line; a line that would be longer than 512 octets is broken at a blank
/// where there is one. The enhanced code stands on every line (RFC 2034 4); leave it out for the greeting, the answers to
/// EHLO and HELO, and 3xx. Control characters become `?`.
pub fn write(out: &mut Vec<u8>, code: u16, enhanced: Option<Enhanced>, text: &str) {
    let mut rest = text;
    loop {
        let (line, next) = match rest.split_once('\n') {
            Some((line, next)) => (line, Some(next)),
            None => (rest, None),
        };
        write_line(out, code, enhanced, line, next.is_none());
        match next {
            Some(next) => rest = next,
            None => return,
        }
    }
}

fn write_line(out: &mut Vec<u8>, code: u16, enhanced: Option<Enhanced>, line: &str, last: bool) {
    // "250-" "5.123.123 " CRLF
    const ROOM: usize = LINE - 4 - 10 - 2;
    let mut rest = line;
    loop {
        let cut = if rest.len() <= ROOM {
            rest.len()
        } else {
            let limit = (0..=ROOM)
                .rev()
                .find(|&at| rest.is_char_boundary(at))
                .unwrap_or(ROOM);
            let blank = rest.get(..limit).and_then(|head| head.rfind(' '));
            blank.filter(|&at| at > 0).unwrap_or(limit)
        };
        let (piece, behind) = rest.split_at_checked(cut).unwrap_or((rest, ""));
        let behind = behind.trim_start_matches(' ');
        let separator = if last && behind.is_empty() { ' ' } else { '-' };
        let _ = write!(out, "{code}{separator}");
        if let Some(enhanced) = enhanced {
            let _ = write!(out, "{enhanced} ");
        }
        if piece.bytes().any(|b| b < 0x20 || b == 0x7f) {
            out.extend(
                piece
                    .bytes()
                    .map(|b| if b < 0x20 || b == 0x7f { b'?' } else { b }),
            );
        } else {
            out.extend_from_slice(piece.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        if behind.is_empty() {
            return;
        }
        rest = behind;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::client::{ReplyLimits, ReplyParser};
    use proptest::prelude::*;

    fn written(code: u16, enhanced: Option<Enhanced>, text: &str) -> String {
        let mut out = Vec::new();
        write(&mut out, code, enhanced, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_and_codes() {
        assert_eq!(
            written(250, Some(Enhanced(2, 1, 0)), "OK"),
            "250 2.1.0 OK\r\n"
        );
        assert_eq!(
            written(250, None, "mx\nSIZE 5\nDSN"),
            "250-mx\r\n250-SIZE 5\r\n250 DSN\r\n"
        );
        assert_eq!(
            written(550, Some(Enhanced(5, 1, 1)), "a\nb"),
            "550-5.1.1 a\r\n550 5.1.1 b\r\n"
        );
        assert_eq!(written(250, None, "a\rb"), "250 a?b\r\n");
        assert_eq!(written(354, None, ""), "354 \r\n");
    }

    proptest! {
        #[test]
        fn what_is_written_is_one_reply_within_limits(text in "[a-zü \n]{0,1500}") {
            let out = written(550, Some(Enhanced(5, 7, 1)), &text);
            prop_assert!(out.split_inclusive("\r\n").all(|line| line.len() <= 512 && line.ends_with("\r\n")));
            let (taken, reply) = ReplyParser::new(ReplyLimits { line: 512, lines: 2000 }).feed(out.as_bytes()).unwrap();
            prop_assert_eq!(taken, out.len());
            let reply = reply.unwrap();
            prop_assert_eq!(reply.code, 550);
            prop_assert_eq!(reply.enhanced, Some(Enhanced(5, 7, 1)));
            let letters = |s: &str| s.replace([' ', '\n'], "");
            prop_assert_eq!(letters(&reply.lines.concat()), letters(&text));
        }
    }
}
