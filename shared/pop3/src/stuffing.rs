//! Multi-line responses (RFC 1939 3): lines that begin with a dot get another one, and a lone dot ends.

/// Writes the octets of a message as a multi-line response, in any pieces.
#[derive(Clone, Debug)]
pub struct Stuffing {
    /// The last octet written was a line's end, or nothing was.
    fresh: bool,
    /// The last octet was CR.
    cr: bool,
    empty: bool,
}

impl Default for Stuffing {
    fn default() -> Self {
        Self {
            fresh: true,
            cr: false,
            empty: true,
        }
    }
}

impl Stuffing {
    /// Writes a piece.
    pub fn write(&mut self, out: &mut Vec<u8>, piece: &[u8]) {
        out.reserve(piece.len() + 8);
        for line in piece.split_inclusive(|octet| *octet == b'\n') {
            if self.fresh && line.first() == Some(&b'.') {
                out.push(b'.');
            }
            out.extend_from_slice(line);
            self.fresh = line.last() == Some(&b'\n');
            self.cr = line.last() == Some(&b'\r');
            self.empty = false;
        }
    }

    /// Ends it. A message that does not end with a line's end gets one.
    pub fn end(&mut self, out: &mut Vec<u8>) {
        if !self.fresh {
            // A CR that ended a piece was one half of a line's end.
            out.extend_from_slice(if self.cr { b"\n" } else { b"\r\n" });
        } else if !self.empty && !out.ends_with(b"\r\n") && out.ends_with(b"\n") {
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
        *self = Self::default();
    }
}

/// How much of a message TOP shows: its header and so many lines of the body (RFC 1939 7).
#[derive(Clone, Copy, Debug)]
pub struct Top {
    lines: u32,
    body: bool,
    /// Octets of the present line, its CR aside.
    line: usize,
    done: bool,
}

impl Top {
    /// Header and so many lines.
    pub fn new(lines: u32) -> Self {
        Self {
            lines,
            body: false,
            line: 0,
            done: false,
        }
    }

    /// Whether nothing more is shown.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// How many octets of the next piece are shown.
    pub fn take(&mut self, piece: &[u8]) -> usize {
        let mut shown = 0;
        for octet in piece {
            if self.done {
                return shown;
            }
            shown += 1;
            match octet {
                b'\n' => {
                    if self.body {
                        self.lines = self.lines.saturating_sub(1);
                    } else if self.line == 0 {
                        self.body = true;
                    }
                    self.done = self.body && self.lines == 0;
                    self.line = 0;
                }
                b'\r' => {}
                _ => self.line += 1,
            }
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(pieces: &[&str]) -> String {
        let mut out = Vec::new();
        let mut stuffing = Stuffing::default();
        for piece in pieces {
            stuffing.write(&mut out, piece.as_bytes());
        }
        stuffing.end(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn dots_are_doubled_at_the_beginning_of_lines_only() {
        assert_eq!(
            written(&["a.b\r\n.\r\n..c\r\n"]),
            "a.b\r\n..\r\n...c\r\n.\r\n"
        );
        assert_eq!(written(&[".x\r\n"]), "..x\r\n.\r\n");
        assert_eq!(written(&["a\r\n", ".b", ".c\r\n"]), "a\r\n..b.c\r\n.\r\n");
        assert_eq!(written(&[]), ".\r\n");
    }

    #[test]
    fn a_last_line_without_an_end_gets_one() {
        assert_eq!(written(&["a"]), "a\r\n.\r\n");
        assert_eq!(written(&["a\r"]), "a\r\n.\r\n");
        assert_eq!(written(&["a\r", "\n"]), "a\r\n.\r\n");
    }

    #[test]
    fn top_shows_the_header_and_some_lines() {
        let message = b"Subject: x\r\nTo: y\r\n\r\none\r\ntwo\r\nthree\r\n";
        for (lines, expected) in [(0, 21), (1, 26), (2, 31), (9, message.len())] {
            let mut top = Top::new(lines);
            assert_eq!(top.take(message), expected, "{lines}");
            let mut top = Top::new(lines);
            let shown: usize = message.chunks(4).map(|piece| top.take(piece)).sum();
            assert_eq!(shown, expected, "{lines} in pieces");
        }
    }
}
