//! Dot-stuffing (RFC 5321 4.5.2) as a stream.

/// Encodes a message for DATA, piece by piece. Lone CR and lone LF become CRLF on the way: what leaves here has no line ending
/// that two servers could read differently (RFC 5321 2.3.8). A message that may hold such octets (see
/// [`crate::LineEndings`]) is therefore changed, so sign what this gives, not what it got.
#[derive(Clone, Debug)]
pub struct Stuffer {
    line_start: bool,
    held_cr: bool,
}

impl Default for Stuffer {
    fn default() -> Self {
        Self {
            line_start: true,
            held_cr: false,
        }
    }
}

impl Stuffer {
    /// Encodes the next piece, and gives the result to `sink` in slices of the input where possible.
    pub fn encode(&mut self, input: &[u8], sink: &mut impl FnMut(&[u8])) {
        if input.is_empty() {
            return;
        }
        let mut start = 0;
        let mut at = 0;
        if std::mem::take(&mut self.held_cr) {
            sink(b"\r\n");
            self.line_start = true;
            if input.first() == Some(&b'\n') {
                start = 1;
                at = 1;
            }
        }
        let flush = |from: usize, to: usize, sink: &mut dyn FnMut(&[u8])| {
            if let Some(run) = input.get(from..to).filter(|run| !run.is_empty()) {
                sink(run);
            }
        };
        loop {
            if std::mem::take(&mut self.line_start) {
                match input.get(at) {
                    None => {
                        self.line_start = true;
                        break;
                    }
                    Some(b'.') => {
                        // The run that ends here has no dot yet, the next begins with the original one.
                        flush(start, at, sink);
                        sink(b".");
                        start = at;
                    }
                    Some(_) => {}
                }
            }
            let rest = input.get(at..).unwrap_or_default();
            let Some(found) = memchr::memchr2(b'\r', b'\n', rest) else {
                break;
            };
            at += found;
            match (input.get(at), input.get(at + 1)) {
                (Some(b'\r'), Some(b'\n')) => at += 2,
                (Some(b'\r'), None) => {
                    flush(start, at, sink);
                    self.held_cr = true;
                    return;
                }
                _ => {
                    flush(start, at, sink);
                    sink(b"\r\n");
                    at += 1;
                    start = at;
                }
            }
            self.line_start = true;
        }
        flush(start, input.len(), sink);
    }

    /// Ends the message: a last CRLF where it has none, and the line with the dot.
    pub fn finish(&mut self, sink: &mut impl FnMut(&[u8])) {
        if std::mem::take(&mut self.held_cr) || !self.line_start {
            sink(b"\r\n");
        }
        self.line_start = true;
        sink(b".\r\n");
    }

    /// [`Stuffer::encode`] into a buffer.
    pub fn encode_into(&mut self, input: &[u8], out: &mut Vec<u8>) {
        self.encode(input, &mut |piece| out.extend_from_slice(piece));
    }

    /// [`Stuffer::finish`] into a buffer.
    pub fn finish_into(&mut self, out: &mut Vec<u8>) {
        self.finish(&mut |piece| out.extend_from_slice(piece));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{DataDecoder, Newlines};
    use proptest::prelude::*;

    fn encode(pieces: &[&[u8]]) -> Vec<u8> {
        let mut stuffer = Stuffer::default();
        let mut out = Vec::new();
        for piece in pieces {
            stuffer.encode_into(piece, &mut out);
        }
        stuffer.finish_into(&mut out);
        out
    }

    #[test]
    fn dots_are_doubled_and_endings_repaired() {
        for (input, expected) in [
            (&b""[..], &b".\r\n"[..]),
            (b"a", b"a\r\n.\r\n"),
            (b"a\r\n", b"a\r\n.\r\n"),
            (b".", b"..\r\n.\r\n"),
            (b".a\r\n..b\r\n.\r\n", b"..a\r\n...b\r\n..\r\n.\r\n"),
            (b"a\n.\nb", b"a\r\n..\r\nb\r\n.\r\n"),
            (b"a\r.\rb\r", b"a\r\n..\r\nb\r\n.\r\n"),
            (b"\r\n\r\n.\r\n", b"\r\n\r\n..\r\n.\r\n"),
            (b"a\r\r\n", b"a\r\n\r\n.\r\n"),
        ] {
            assert_eq!(
                encode(&[input]),
                expected,
                "{:?}",
                String::from_utf8_lossy(input)
            );
        }
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(proptest::sample::select(&b"\r\n..ab"[..]).boxed(), 0..60)
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(input in text(), cut in 0_usize..60) {
            let cut = cut.min(input.len());
            prop_assert_eq!(encode(&[&input]), encode(&[&input[..cut], b"", &input[cut..]]));
        }

        #[test]
        fn a_server_reads_what_was_meant_and_nothing_behind_it(input in text()) {
            let mut encoded = encode(&[&input]);
            let len = encoded.len();
            encoded.extend_from_slice(b"NEXT");
            let mut decoded = Vec::new();
            let mut decoder = DataDecoder::new(Newlines::Refuse);
            let progress = decoder.decode(&encoded, &mut |piece| decoded.extend_from_slice(piece));
            prop_assert!(progress.done && !decoder.stray());
            prop_assert_eq!(progress.consumed, len);
            // what arrives is the input with its endings repaired
            let mut expected = Vec::new();
            let mut bytes = input.iter().copied().peekable();
            while let Some(byte) = bytes.next() {
                match byte {
                    b'\r' => { bytes.next_if_eq(&b'\n'); expected.extend_from_slice(b"\r\n"); }
                    b'\n' => expected.extend_from_slice(b"\r\n"),
                    other => expected.push(other),
                }
            }
            if !expected.is_empty() && !expected.ends_with(b"\n") { expected.extend_from_slice(b"\r\n"); }
            prop_assert_eq!(decoded, expected);
        }
    }
}
