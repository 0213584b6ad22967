//! What follows DATA and BDAT, under strict line endings.
//!
//! Only the octets CR LF `.` CR LF end a message, and only CR LF ends a line (RFC 5321 2.3.8, 4.1.1.4). A message with a CR or
//! LF elsewhere is read to its true end and then refused, so that no second message can be smuggled past a server that reads
//! such endings another way.

use memchr::{memchr, memchr2};

/// What becomes of a CR or LF that is not part of a CRLF.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Newlines {
    /// The message is to be refused: [`DataDecoder::stray`] says so at its end.
    #[default]
    Refuse,
    /// A lone LF becomes CRLF, a lone CR a blank. The end of the message is found as strictly.
    Repair,
}

/// How far [`DataDecoder::decode`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataProgress {
    /// Octets of the input that are done with. All of it, unless the message ended before.
    pub consumed: usize,
    /// The message ended.
    pub done: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    LineStart,
    Middle,
    /// A CR in a line, not yet given out.
    Cr,
    /// The dot at the start of a line, not given out.
    Dot,
    /// Dot and CR at the start of a line, not given out.
    DotCr,
}

/// Undoes dot-stuffing (RFC 5321 4.5.2), and finds the end.
#[derive(Clone, Debug)]
pub struct DataDecoder {
    newlines: Newlines,
    at: At,
    stray: bool,
    line: u64,
    longest: u64,
}

impl DataDecoder {
    /// A decoder for one message, which begins behind the CRLF of DATA.
    pub fn new(newlines: Newlines) -> Self {
        Self {
            newlines,
            at: At::LineStart,
            stray: false,
            line: 0,
            longest: 0,
        }
    }

    /// Whether a lone CR or LF was seen.
    pub fn stray(&self) -> bool {
        self.stray
    }

    /// The longest line so far in octets, CRLF not counted (RFC 5321 4.5.3.1.6: 998).
    pub fn longest_line(&self) -> u64 {
        self.longest.max(self.line)
    }

    /// Reads on. The message's octets are given to `sink` in slices of the input where possible.
    pub fn decode(&mut self, input: &[u8], sink: &mut impl FnMut(&[u8])) -> DataProgress {
        let mut position = 0;
        while position < input.len() {
            let rest = input.get(position..).unwrap_or_default();
            match self.at {
                At::LineStart | At::Middle => position += self.lines(rest, sink),
                At::Cr => position += self.after_cr(rest, sink),
                At::Dot => position += self.after_dot(rest),
                At::DotCr => {
                    if rest.first() == Some(&b'\n') {
                        return DataProgress {
                            consumed: position + 1,
                            done: true,
                        };
                    }
                    // The dot was stuffing, and the CR is a lone one.
                    self.lone_cr(sink);
                }
            }
        }
        DataProgress {
            consumed: position,
            done: false,
        }
    }

    /// The fast way: as many whole lines as there are, given out in one slice. Stops at a dot that starts a line, at a CR at the
    /// end of the input, and at a lone CR or LF.
    fn lines(&mut self, rest: &[u8], sink: &mut impl FnMut(&[u8])) -> usize {
        let mut at = 0;
        loop {
            if self.at == At::LineStart {
                match rest.get(at) {
                    None => break,
                    Some(b'.') => {
                        self.at = At::Dot;
                        give(rest.get(..at), sink);
                        return at + 1;
                    }
                    Some(_) => self.at = At::Middle,
                }
            }
            let unseen = rest.get(at..).unwrap_or_default();
            let Some(found) = memchr2(b'\r', b'\n', unseen) else {
                self.line += unseen.len() as u64;
                at = rest.len();
                break;
            };
            self.line += found as u64;
            at += found;
            match (rest.get(at), rest.get(at + 1)) {
                (Some(b'\r'), Some(b'\n')) => {
                    at += 2;
                    self.end_line();
                }
                (Some(b'\r'), _) => {
                    self.at = At::Cr;
                    give(rest.get(..at), sink);
                    return at + 1;
                }
                _ => {
                    give(rest.get(..at), sink);
                    self.lone_lf(sink);
                    return at + 1;
                }
            }
        }
        give(rest.get(..at), sink);
        at
    }

    fn after_cr(&mut self, rest: &[u8], sink: &mut impl FnMut(&[u8])) -> usize {
        if rest.first() == Some(&b'\n') {
            sink(b"\r\n");
            self.end_line();
            1
        } else {
            self.lone_cr(sink);
            0
        }
    }

    fn after_dot(&mut self, rest: &[u8]) -> usize {
        if rest.first() == Some(&b'\r') {
            self.at = At::DotCr;
            1
        } else {
            // RFC 5321 4.5.2: the first dot of a longer line goes
            self.at = At::Middle;
            0
        }
    }

    fn end_line(&mut self) {
        self.at = At::LineStart;
        self.longest = self.longest.max(self.line);
        self.line = 0;
    }

    fn lone_cr(&mut self, sink: &mut impl FnMut(&[u8])) {
        self.stray = true;
        self.at = At::Middle;
        self.line += 1;
        sink(match self.newlines {
            Newlines::Refuse => b"\r",
            Newlines::Repair => b" ",
        });
    }

    fn lone_lf(&mut self, sink: &mut impl FnMut(&[u8])) {
        self.stray = true;
        self.longest = self.longest.max(self.line);
        self.line = 0;
        // Not a line's start: only a true CRLF makes a dot special.
        self.at = At::Middle;
        sink(match self.newlines {
            Newlines::Refuse => b"\n",
            Newlines::Repair => b"\r\n",
        });
    }
}

fn give(slice: Option<&[u8]>, sink: &mut impl FnMut(&[u8])) {
    if let Some(slice) = slice.filter(|slice| !slice.is_empty()) {
        sink(slice);
    }
}

/// Makes CRLF of what is otherwise a lone LF, and a blank of a lone CR, in octets that come without dot-stuffing (BDAT): as
/// [`Newlines::Repair`] does for DATA.
#[derive(Clone, Debug, Default)]
pub struct Repair {
    cr: bool,
}

impl Repair {
    /// Reads on. A CR at the end of the input is kept back until it is known what it is.
    pub fn feed(&mut self, input: &[u8], sink: &mut impl FnMut(&[u8])) {
        let mut rest = input;
        if rest.is_empty() {
            return;
        }
        if std::mem::take(&mut self.cr) {
            match rest.split_first() {
                Some((b'\n', behind)) => {
                    sink(b"\r\n");
                    rest = behind;
                }
                _ => sink(b" "),
            }
        }
        let mut from = 0;
        while let Some(found) = memchr2(b'\r', b'\n', rest.get(from..).unwrap_or_default()) {
            let at = from + found;
            let (before, there) = rest.split_at(at);
            match there {
                [b'\r', b'\n', ..] => {
                    from = at + 2;
                    continue;
                }
                [b'\r'] => {
                    give(Some(before), sink);
                    self.cr = true;
                    return;
                }
                [b'\r', ..] => {
                    give(Some(before), sink);
                    sink(b" ");
                }
                _ => {
                    give(Some(before), sink);
                    sink(b"\r\n");
                }
            }
            rest = rest.get(at + 1..).unwrap_or_default();
            from = 0;
        }
        give(Some(rest), sink);
    }

    /// Nothing more comes.
    pub fn finish(&mut self, sink: &mut impl FnMut(&[u8])) {
        if std::mem::take(&mut self.cr) {
            sink(b" ");
        }
    }
}

/// Watches octets that come without dot-stuffing (BDAT, or a stored message) for lone CR and LF and for long lines.
#[derive(Clone, Debug, Default)]
pub struct LineEndings {
    cr: bool,
    stray: bool,
    line: u64,
    longest: u64,
    ends_line: bool,
}

impl LineEndings {
    /// Looks at the next octets.
    pub fn feed(&mut self, input: &[u8]) {
        let mut rest = input;
        let Some(&last) = input.last() else { return };
        if std::mem::take(&mut self.cr) {
            match rest.split_first() {
                Some((b'\n', behind)) => {
                    self.end_line();
                    rest = behind;
                }
                _ => self.stray = true,
            }
        }
        while let Some(found) = memchr2(b'\r', b'\n', rest) {
            self.line += found as u64;
            let (_, at) = rest.split_at(found);
            match at {
                [b'\r', b'\n', behind @ ..] => {
                    self.end_line();
                    rest = behind;
                }
                [b'\r'] => {
                    self.cr = true;
                    rest = &[];
                }
                [_, behind @ ..] => {
                    self.stray = true;
                    rest = behind;
                }
                [] => rest = &[],
            }
        }
        self.line += rest.len() as u64;
        self.ends_line = last == b'\n' && self.line == 0;
    }

    /// Whether a lone CR or LF was seen; a CR at the very end counts.
    pub fn stray(&self) -> bool {
        self.stray || self.cr
    }

    /// The longest line so far in octets, CRLF not counted.
    pub fn longest_line(&self) -> u64 {
        self.longest.max(self.line)
    }

    /// Whether the last octets were CRLF.
    pub fn ends_line(&self) -> bool {
        self.ends_line
    }

    fn end_line(&mut self) {
        self.longest = self.longest.max(self.line);
        self.line = 0;
    }
}

/// Whether octets have one above 127: then they are not 7BIT.
pub fn has_eight_bit(octets: &[u8]) -> bool {
    !octets.is_ascii()
}

/// Whether octets have a NUL, which only BINARYMIME may carry (RFC 5321 2.3.1 and 4.1.1.4 speak of lines of text).
pub fn has_nul(octets: &[u8]) -> bool {
    memchr(0, octets).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Decoded {
        octets: Vec<u8>,
        consumed: usize,
        done: bool,
        stray: bool,
        longest: u64,
    }

    fn decode(newlines: Newlines, pieces: &[&[u8]]) -> Decoded {
        let mut decoder = DataDecoder::new(newlines);
        let mut octets = Vec::new();
        let mut consumed = 0;
        for piece in pieces {
            let progress = decoder.decode(piece, &mut |slice| octets.extend_from_slice(slice));
            consumed += progress.consumed;
            if progress.done {
                return Decoded {
                    octets,
                    consumed,
                    done: true,
                    stray: decoder.stray(),
                    longest: decoder.longest_line(),
                };
            }
            assert_eq!(progress.consumed, piece.len());
        }
        Decoded {
            octets,
            consumed,
            done: false,
            stray: decoder.stray(),
            longest: decoder.longest_line(),
        }
    }

    proptest! {
        /// As DATA repairs it, wherever the chunks are cut.
        #[test]
        fn chunks_are_repaired_as_data_is(
            text in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'a')], 0..40),
            cut in 0usize..40,
        ) {
            let (one, two) = text.split_at(cut.min(text.len()));
            let mut repair = Repair::default();
            let mut octets = Vec::new();
            for piece in [one, two] {
                repair.feed(piece, &mut |slice| octets.extend_from_slice(slice));
            }
            repair.finish(&mut |slice| octets.extend_from_slice(slice));
            // A lone CR at the very end cannot be told from a CRLF when DATA's end follows.
            let ended = [&text[..], if text.last() == Some(&b'\r') { b"a" } else { b"" }, b"\r\n.\r\n"].concat();
            let expected = decode(Newlines::Repair, &[&ended]).octets;
            let expected = expected.strip_suffix(b"\r\n").unwrap_or(&expected);
            let expected = if text.last() == Some(&b'\r') { &expected[..expected.len() - 1] } else { expected };
            prop_assert_eq!(octets, expected);
        }
    }

    #[test]
    fn messages_end_where_they_should() {
        for (input, expected) in [
            (&b".\r\n"[..], &b""[..]),
            (b"a\r\n.\r\n", b"a\r\n"),
            (b"..\r\n.\r\n", b".\r\n"),
            (b".a\r\n.\r\n", b"a\r\n"),
            (b"..a\r\n...\r\n\r\n.\r\n", b".a\r\n..\r\n\r\n"),
            (b"a.\r\n.\r\n", b"a.\r\n"),
        ] {
            let mut with_next = input.to_vec();
            with_next.extend_from_slice(b"QUIT\r\n");
            let decoded = decode(Newlines::Refuse, &[&with_next]);
            assert!(decoded.done && !decoded.stray);
            assert_eq!(decoded.octets, expected);
            assert_eq!(decoded.consumed, input.len());
        }
    }

    #[test]
    fn nothing_can_be_smuggled() {
        // Every way in which some server ends a message, none of which is CRLF . CRLF
        for end in [
            &b"\n.\n"[..],
            b"\n.\r\n",
            b"\r.\r\n",
            b"\r.\r",
            b"\r\n.\n",
            b"\r\n.\r",
            b"\r\n.\r\r\n",
            b"\r\r\n.\n",
            b"\n\n.\r\n",
            b"\r\n\0.\r\n",
            b"\r\n.\0\r\n",
            b"\r\n..\r\n",
            b"\n..\r\n",
            b"\r\n.\x0b\r\n",
        ] {
            for newlines in [Newlines::Refuse, Newlines::Repair] {
                let input = [b"body", end, b"MAIL FROM:<a@b>\r\n"].concat();
                let decoded = decode(newlines, &[&input]);
                assert!(!decoded.done, "{:?}", String::from_utf8_lossy(end));
                let whole = [&input[..], b".\r\n"].concat();
                let decoded = decode(newlines, &[&whole]);
                assert!(decoded.done);
                assert_eq!(decoded.consumed, whole.len());
                let strict = [
                    &b"\r\n\0.\r\n"[..],
                    b"\r\n.\0\r\n",
                    b"\r\n..\r\n",
                    b"\r\n.\x0b\r\n",
                ];
                assert_eq!(decoded.stray, !strict.contains(&end));
            }
        }
    }

    #[test]
    fn repair_leaves_only_crlf() {
        let decoded = decode(Newlines::Repair, &[b"a\nb\rc\r\n.\n.\r\nd\r\n.\r\n"]);
        assert_eq!(decoded.octets, b"a\r\nb c\r\n\r\n.\r\nd\r\n");
        assert!(decoded.done && decoded.stray);
    }

    #[test]
    fn long_lines_are_measured() {
        let input = [&[b'x'; 998][..], b"\r\n", &[b'y'; 1200], b"\r\nz\r\n.\r\n"].concat();
        assert_eq!(decode(Newlines::Refuse, &[&input]).longest, 1200);
        let mut watch = LineEndings::default();
        watch.feed(&input);
        assert_eq!(watch.longest_line(), 1200);
        assert!(watch.ends_line() && !watch.stray());
    }

    #[test]
    fn chunks_are_watched() {
        for (pieces, stray, ends) in [
            (&[&b"a\r"[..], b"\nb\r\n"][..], false, true),
            (&[b"a\r", b"b\r\n"], true, true),
            (&[b"a\n"], true, false),
            (&[b"a\r\n\r"], true, false),
            (&[b"a\r\n", b""], false, true),
            (&[b"a"], false, false),
        ] {
            let mut watch = LineEndings::default();
            pieces.iter().for_each(|piece| watch.feed(piece));
            assert_eq!(
                (watch.stray(), watch.ends_line()),
                (stray, ends),
                "{pieces:?}"
            );
        }
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(proptest::sample::select(&b"\r\r\n\n..ab"[..]), 0..60)
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(input in text(), repair in any::<bool>(), one in 0_usize..60, two in 0_usize..60) {
            let newlines = if repair { Newlines::Repair } else { Newlines::Refuse };
            let mut cuts = [one.min(input.len()), two.min(input.len())];
            cuts.sort_unstable();
            let whole = decode(newlines, &[&input]);
            let split = decode(newlines, &[&input[..cuts[0]], &input[cuts[0]..cuts[1]], &input[cuts[1]..]]);
            prop_assert_eq!(whole.octets, split.octets);
            prop_assert_eq!((whole.consumed, whole.done, whole.stray, whole.longest), (split.consumed, split.done, split.stray, split.longest));
        }

        #[test]
        fn the_end_is_the_first_true_one(input in text()) {
            // Against the plainest way to say it
            let framed = [b"\r\n", &input[..]].concat();
            let end = framed.windows(5).position(|window| window == b"\r\n.\r\n");
            let decoded = decode(Newlines::Refuse, &[&input]);
            prop_assert_eq!(decoded.done, end.is_some());
            if let Some(end) = end {
                prop_assert_eq!(decoded.consumed, end + 3);
            }
        }
    }
}
