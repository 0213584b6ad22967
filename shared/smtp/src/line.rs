//! Command lines, cut out of a stream of octets (RFC 5321 2.3.8, 4.5.3.1.4).

use memchr::memchr;

/// How long lines may be, in octets with their CRLF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineLimits {
    /// An ordinary command (RFC 5321 4.5.3.1.4: at least 512).
    pub command: usize,
    /// MAIL and RCPT, which the extensions make longer (RFC 3461 4: ORCPT alone 500, ENVID 100).
    pub envelope: usize,
    /// AUTH, and the lines of a SASL exchange (RFC 4954 4: 12,288).
    pub sasl: usize,
}

impl Default for LineLimits {
    fn default() -> Self {
        Self {
            command: 512,
            envelope: 2048,
            sasl: 12_288,
        }
    }
}

impl LineLimits {
    /// The limit for a line that begins like this.
    fn of(&self, start: &[u8], sasl: bool) -> usize {
        if sasl {
            return self.sasl;
        }
        let verb = start.get(..5).unwrap_or(start);
        if verb.eq_ignore_ascii_case(b"MAIL ") || verb.eq_ignore_ascii_case(b"RCPT ") {
            self.envelope.max(self.command)
        } else if verb.eq_ignore_ascii_case(b"AUTH ") {
            self.sasl.max(self.command)
        } else {
            self.command
        }
    }
}

/// What stands at the start of the input. `consumed` octets of it are done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A line, without its CRLF.
    Complete {
        /// Its octets.
        line: &'a [u8],
        /// With the CRLF.
        consumed: usize,
    },
    /// A line that was too long ends here: answer 500 (RFC 5321 4.5.3.1.4), go on behind it.
    TooLong {
        /// Up to and with its CRLF.
        consumed: usize,
    },
    /// A CR or LF that is not part of a CRLF. What is a line is unclear from here on (RFC 5321 2.3.8): answer, and close.
    Stray {
        /// Up to and with the octet.
        consumed: usize,
    },
    /// More octets are needed. The `consumed` ones were part of a line that is too long.
    Incomplete {
        /// May be 0.
        consumed: usize,
    },
}

/// Cuts lines. It keeps no octets itself: the caller keeps what was not consumed, and adds to it.
#[derive(Clone, Debug)]
pub struct LineReader {
    limits: LineLimits,
    scanned: usize,
    skipping: bool,
    sasl: bool,
}

impl LineReader {
    /// A reader with these limits.
    pub fn new(limits: LineLimits) -> Self {
        Self {
            limits,
            scanned: 0,
            skipping: false,
            sasl: false,
        }
    }

    /// Whether the next lines belong to a SASL exchange.
    pub fn set_sasl(&mut self, sasl: bool) {
        self.sasl = sasl;
    }

    /// The next line at the start of `input`, which holds all that was not consumed so far.
    pub fn next<'a>(&mut self, input: &'a [u8]) -> Line<'a> {
        let limit = self.limits.of(input, self.sasl);
        let unseen = input.get(self.scanned..).unwrap_or_default();
        let Some(found) = memchr(b'\n', unseen) else {
            return self.incomplete(input, limit);
        };
        let at = self.scanned + found;
        let consumed = at + 1;
        self.scanned = 0;
        let line = input.get(..at).unwrap_or_default();
        let Some(line) = line
            .strip_suffix(b"\r")
            .filter(|l| memchr(b'\r', l).is_none())
        else {
            self.skipping = false;
            return Line::Stray { consumed };
        };
        if std::mem::take(&mut self.skipping) || consumed > limit {
            return Line::TooLong { consumed };
        }
        Line::Complete { line, consumed }
    }

    fn incomplete(&mut self, input: &[u8], limit: usize) -> Line<'static> {
        if !self.skipping && input.len() <= limit {
            // The last octet may be the CR of a CRLF.
            self.scanned = input.len();
            return Line::Incomplete { consumed: 0 };
        }
        self.skipping = true;
        self.scanned = 0;
        // A CR at the very end may be half of the ending.
        let held = usize::from(input.last() == Some(&b'\r'));
        let done = input.get(..input.len() - held).unwrap_or_default();
        if memchr(b'\r', done).is_some() {
            self.skipping = false;
            return Line::Stray {
                consumed: input.len(),
            };
        }
        Line::Incomplete {
            consumed: done.len(),
        }
    }
}

impl Default for LineReader {
    fn default() -> Self {
        Self::new(LineLimits::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, PartialEq)]
    enum Event {
        Line(Vec<u8>),
        TooLong,
        Stray,
    }

    fn events(pieces: &[&[u8]]) -> Vec<Event> {
        let limits = LineLimits {
            command: 20,
            envelope: 40,
            sasl: 60,
        };
        let mut reader = LineReader::new(limits);
        let mut buffer: Vec<u8> = Vec::new();
        let mut events = Vec::new();
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                let consumed = match reader.next(&buffer) {
                    Line::Complete { line, consumed } => {
                        events.push(Event::Line(line.to_vec()));
                        consumed
                    }
                    Line::TooLong { consumed } => {
                        events.push(Event::TooLong);
                        consumed
                    }
                    Line::Stray { .. } => {
                        events.push(Event::Stray);
                        return events;
                    }
                    Line::Incomplete { consumed } => {
                        buffer.drain(..consumed);
                        assert!(buffer.len() <= 61, "the reader must not hoard");
                        break;
                    }
                };
                buffer.drain(..consumed);
            }
        }
        events
    }

    #[test]
    fn lines_and_their_limits() {
        let line = |text: &str| Event::Line(text.as_bytes().to_vec());
        assert_eq!(
            events(&[b"NOOP\r\n\r\nQUIT\r\n"]),
            [line("NOOP"), line(""), line("QUIT")]
        );
        assert_eq!(
            events(&[b"NOOP 5678901234567890\r\nNOOP\r\n"]),
            [Event::TooLong, line("NOOP")]
        );
        assert_eq!(
            events(&[b"NOOP 5678901234567\r\n"]),
            [line("NOOP 5678901234567")],
        );
        assert_eq!(
            events(&[b"mail FROM:<a@b.example> SIZE=12345\r\n"]),
            [line("mail FROM:<a@b.example> SIZE=12345")]
        );
        assert_eq!(
            events(&[&[b'x'; 100], &[b'x'; 100], b"\r\nNOOP\r\n"]),
            [Event::TooLong, line("NOOP")]
        );
    }

    #[test]
    fn stray_line_endings_are_seen() {
        for input in [
            &b"NOOP\nRSET\r\n"[..],
            b"NOOP\rRSET\r\n",
            b"NOOP\r\r\n",
            b"\n",
            b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\rxxxxxxxxxxxx\r\n",
        ] {
            assert_eq!(events(&[input]), [Event::Stray]);
        }
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_lines(
            words in proptest::collection::vec(proptest::sample::select(vec![
                &b"NOOP"[..], b"\r\n", b"\r\n", b"\r\n", b"MAIL FROM:<a@b>", b"x", b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxx", b"\r", b"\n",
            ]), 0..20),
            cuts in proptest::collection::vec(0_usize..200, 0..6),
        ) {
            let input = words.concat();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(input.len())).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&input[from..cut]);
                from = cut;
            }
            pieces.push(&input[from..]);
            let mut whole = events(&[&input]);
            let mut split = events(&pieces);
            // A stray CR in a line whose end never comes may be noticed or not: both only close the connection.
            let open = |events: &mut Vec<Event>| if events.last() == Some(&Event::Stray) { events.pop(); };
            open(&mut whole);
            open(&mut split);
            prop_assert_eq!(whole, split);
        }
    }
}
