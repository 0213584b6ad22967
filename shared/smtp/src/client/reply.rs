//! Replies of servers (RFC 5321 4.2), with the enhanced code split off (RFC 2034).

use types::{Enhanced, Status};

/// A whole reply: all lines of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// 200..=599.
    pub code: u16,
    /// The enhanced code of the first line, if it has one whose class fits the code (RFC 2034 4).
    pub enhanced: Option<Enhanced>,
    /// The text of each line without codes; control characters are removed, what is not UTF-8 is replaced. At least one.
    pub lines: Vec<String>,
}

impl Reply {
    /// 2xx: done.
    pub fn is_positive(&self) -> bool {
        self.code / 100 == 2
    }

    /// 3xx: go on.
    pub fn is_intermediate(&self) -> bool {
        self.code / 100 == 3
    }

    /// 4xx: try again later.
    pub fn is_transient(&self) -> bool {
        self.code / 100 == 4
    }

    /// 5xx: never.
    pub fn is_permanent(&self) -> bool {
        self.code / 100 == 5
    }

    /// The text in one line, at most 1,000 octets.
    pub fn text(&self) -> String {
        let mut text = self.lines.join(" ");
        if text.len() > 1000 {
            let end = (0..=1000)
                .rev()
                .find(|&at| text.is_char_boundary(at))
                .unwrap_or(0);
            text.truncate(end);
        }
        text
    }

    /// The enhanced code, or the class alone (`4.0.0`) where the server gave none.
    pub fn enhanced_or_class(&self) -> Enhanced {
        let class = match self.code / 100 {
            4 => 4,
            5 => 5,
            _ => 2,
        };
        self.enhanced.unwrap_or(Enhanced(class, 0, 0))
    }

    /// As the suite keeps what a host said of a recipient.
    pub fn status(&self, host: Option<&str>) -> Status {
        Status {
            code: self.code,
            enhanced: self.enhanced_or_class(),
            text: self.text(),
            host: host.map(str::to_owned),
        }
    }
}

/// How much of a reply is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyLimits {
    /// Octets of a line, CRLF included. RFC 5321 4.5.3.1.5 says 512; servers in the field send more.
    pub line: usize,
    /// Lines of a reply.
    pub lines: usize,
}

impl Default for ReplyLimits {
    fn default() -> Self {
        Self {
            line: 4096,
            lines: 128,
        }
    }
}

/// Why what came is no reply. The connection is of no use afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// Does not begin with a code from 200 to 599 and a space or hyphen.
    #[error("the server sent a line that is no SMTP reply")]
    Malformed,
    /// The lines of one reply have different codes.
    #[error("the server sent a reply whose lines have different codes")]
    MixedCodes,
    /// Longer than [`ReplyLimits::line`].
    #[error("the server sent a reply line that is too long")]
    LineTooLong,
    /// More than [`ReplyLimits::lines`].
    #[error("the server sent a reply of too many lines")]
    TooManyLines,
}

/// Puts replies together from octets as they arrive.
#[derive(Clone, Debug, Default)]
pub struct ReplyParser {
    limits: ReplyLimits,
    partial: Vec<u8>,
    code: Option<u16>,
    enhanced: Option<Enhanced>,
    lines: Vec<String>,
}

impl ReplyParser {
    /// A parser with these limits.
    pub fn new(limits: ReplyLimits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Whether nothing of an unfinished reply has been read.
    pub fn is_idle(&self) -> bool {
        self.partial.is_empty() && self.code.is_none()
    }

    /// Reads on. Returns how many octets it took, and a reply if one is complete; the rest belongs to the next reply.
    /// Without a reply, everything was taken. A lone LF ends a line too: on this side that hurts nobody.
    ///
    /// # Errors
    /// See [`ReplyError`]; the parser must not be used afterwards.
    pub fn feed(&mut self, input: &[u8]) -> Result<(usize, Option<Reply>), ReplyError> {
        let mut taken = 0;
        while let Some(rest) = input.get(taken..).filter(|rest| !rest.is_empty()) {
            let Some(end) = memchr::memchr(b'\n', rest) else {
                if self.partial.len() + rest.len() > self.limits.line {
                    return Err(ReplyError::LineTooLong);
                }
                self.partial.extend_from_slice(rest);
                return Ok((input.len(), None));
            };
            let (line, _) = rest.split_at(end + 1);
            taken += end + 1;
            if self.partial.len() + line.len() > self.limits.line {
                return Err(ReplyError::LineTooLong);
            }
            let last = if self.partial.is_empty() {
                self.line(line)?
            } else {
                let mut whole = std::mem::take(&mut self.partial);
                whole.extend_from_slice(line);
                let last = self.line(&whole)?;
                whole.clear();
                self.partial = whole;
                last
            };
            if last {
                return Ok((taken, self.finish()));
            }
        }
        Ok((taken, None))
    }

    fn finish(&mut self) -> Option<Reply> {
        Some(Reply {
            code: self.code.take()?,
            enhanced: self.enhanced.take(),
            lines: std::mem::take(&mut self.lines),
        })
    }

    /// Takes one line with its ending; true if it is the last of its reply.
    fn line(&mut self, line: &[u8]) -> Result<bool, ReplyError> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (code, rest) = line.split_at_checked(3).ok_or(ReplyError::Malformed)?;
        let code = code
            .iter()
            .try_fold(0_u16, |sum, &digit| {
                digit
                    .is_ascii_digit()
                    .then(|| sum * 10 + u16::from(digit - b'0'))
            })
            .filter(|code| (200..600).contains(code))
            .ok_or(ReplyError::Malformed)?;
        let (last, text) = match rest.split_first() {
            // RFC 5321 4.2: a code alone is to be accepted
            None => (true, rest),
            Some((b' ', text)) => (true, text),
            Some((b'-', text)) => (false, text),
            Some(_) => return Err(ReplyError::Malformed),
        };
        match self.code {
            None => self.code = Some(code),
            Some(first) if first == code => {}
            Some(_) => return Err(ReplyError::MixedCodes),
        }
        if self.lines.len() >= self.limits.lines {
            return Err(ReplyError::TooManyLines);
        }
        let (enhanced, text) = split_enhanced(code, text);
        if self.lines.is_empty() {
            self.enhanced = enhanced;
        }
        let text = String::from_utf8_lossy(text);
        self.lines
            .push(text.chars().filter(|c| !c.is_control()).collect());
        Ok(last)
    }
}

/// Splits `4.7.1 text`; only if the class is that of the code (RFC 2034 4).
fn split_enhanced(code: u16, text: &[u8]) -> (Option<Enhanced>, &[u8]) {
    let end = memchr::memchr(b' ', text).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let mut parts = word.split(|&byte| byte == b'.');
    let mut number = || -> Option<u16> {
        let digits = parts.next()?;
        if digits.is_empty() || digits.len() > 3 {
            return None;
        }
        digits.iter().try_fold(0_u16, |sum, &digit| {
            digit
                .is_ascii_digit()
                .then(|| sum * 10 + u16::from(digit - b'0'))
        })
    };
    let found = (|| Some((number()?, number()?, number()?)))();
    match found {
        Some((class, subject, detail)) if class == code / 100 && parts.next().is_none() => {
            let class = u8::try_from(class).unwrap_or(5);
            (
                Some(Enhanced(class, subject, detail)),
                rest.strip_prefix(b" ").unwrap_or(rest),
            )
        }
        _ => (None, text),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn all(input: &[u8]) -> Vec<Reply> {
        let mut parser = ReplyParser::default();
        let mut at = 0;
        let mut replies = Vec::new();
        while at < input.len() {
            let (taken, reply) = parser.feed(&input[at..]).unwrap();
            at += taken;
            replies.extend(reply);
        }
        replies
    }

    #[test]
    fn replies_of_one_and_of_many_lines() {
        let replies = all(
            b"220 mx.example ESMTP\r\n250-mx.example\r\n250-SIZE 100\r\n250 DSN\r\n550-5.1.1 No such\r\n550 5.1.1 user\r\n354\r\n",
        );
        assert_eq!(replies.len(), 4);
        assert_eq!(replies[0].code, 220);
        assert_eq!(replies[1].lines, ["mx.example", "SIZE 100", "DSN"]);
        assert_eq!(replies[2].enhanced, Some(Enhanced(5, 1, 1)));
        assert_eq!(replies[2].text(), "No such user");
        assert!(replies[3].is_intermediate());
        assert_eq!(replies[3].lines, [""]);
    }

    #[test]
    fn an_enhanced_code_of_another_class_is_text() {
        let reply = all(b"250 4.1.1 strange\r\n").remove(0);
        assert_eq!(reply.enhanced, None);
        assert_eq!(reply.text(), "4.1.1 strange");
        assert_eq!(reply.enhanced_or_class(), Enhanced(2, 0, 0));
        let reply = all(b"220 10.0.0.1 ready\r\n").remove(0);
        assert_eq!(reply.enhanced, None);
        let reply = all(b"450 4.7.1\r\n").remove(0);
        assert_eq!(reply.enhanced, Some(Enhanced(4, 7, 1)));
        assert_eq!(reply.text(), "");
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        let feed = |bytes: &[u8]| ReplyParser::default().feed(bytes).unwrap_err();
        assert_eq!(feed(b"HTTP/1.1 400\r\n"), ReplyError::Malformed);
        assert_eq!(feed(b"25\r\n"), ReplyError::Malformed);
        assert_eq!(feed(b"250x\r\n"), ReplyError::Malformed);
        assert_eq!(feed(b"150 a\r\n"), ReplyError::Malformed);
        assert_eq!(feed(b"250-a\r\n251 b\r\n"), ReplyError::MixedCodes);
        assert_eq!(feed(&[b'2'; 5000]), ReplyError::LineTooLong);
        assert_eq!(feed(&b"250-a\r\n".repeat(200)), ReplyError::TooManyLines);
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_replies(cut in 0_usize..80, second in 0_usize..80) {
            let input = b"250-mx.example\r\n250-PIPELINING\r\n250 8BITMIME\r\n451 4.3.0 later\r\n221 2.0.0 bye\r\n";
            let whole = all(input);
            let mut cuts = [cut.min(input.len()), second.min(input.len())];
            cuts.sort_unstable();
            let mut parser = ReplyParser::default();
            let mut split = Vec::new();
            for mut piece in [&input[..cuts[0]], &input[cuts[0]..cuts[1]], &input[cuts[1]..]] {
                while !piece.is_empty() {
                    let (taken, reply) = parser.feed(piece).unwrap();
                    piece = &piece[taken..];
                    split.extend(reply);
                }
            }
            prop_assert_eq!(whole, split);
            prop_assert!(parser.is_idle());
        }

        #[test]
        fn no_octets_panic(input in proptest::collection::vec(any::<u8>(), 0..600)) {
            let mut parser = ReplyParser::default();
            let mut rest = &input[..];
            while !rest.is_empty() {
                match parser.feed(rest) {
                    Ok((taken, _)) => rest = &rest[taken..],
                    Err(_) => break,
                }
            }
        }
    }
}
