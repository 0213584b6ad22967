//! The lexical elements of header fields: white space and comments, atoms, quoted strings, phrases, domains
//! (RFC 5322 3.2, 4.1), and the tokens of MIME (RFC 2045 5.1). Tolerant: each function says whether it found the element,
//! and what it has read so far stays usable.

/// What follows an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It was there, and more text follows.
    More,
    /// It was there, and the text ends behind it.
    End,
    /// It was not there, or it is broken.
    Bad,
}

/// A header field's value, read from left to right. No function goes back, so reading is linear.
pub(crate) struct Tokens<'a> {
    data: &'a [u8],
    pos: usize,
    /// The text of the last comment: `user@example.org (Name)` is how names were once written (RFC 5322 A.6.3).
    pub(crate) comment: Vec<u8>,
}

fn is_atext(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80 || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

fn is_mime_token(byte: u8) -> bool {
    // RFC 2045 5.1: no space, control or tspecials
    byte > b' ' && byte != 0x7f && !b"()<>@,;:\\\"/[]?=".contains(&byte)
}

/// Copies text without its line ends: unfolding (RFC 5322 2.2.3).
fn push_unfolded(out: &mut Vec<u8>, text: &[u8]) {
    out.extend(text.iter().filter(|b| !matches!(b, b'\r' | b'\n')));
}

impl<'a> Tokens<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self {
            data,
            pos: 0,
            comment: Vec::new(),
        }
    }

    pub(crate) fn peek(&self) -> Option<u8> {
        self.data.get(self.pos).copied()
    }

    pub(crate) fn at(&self, byte: u8) -> bool {
        self.peek() == Some(byte)
    }

    pub(crate) fn bump(&mut self) {
        self.pos += 1;
    }

    pub(crate) fn position(&self) -> usize {
        self.pos
    }

    pub(crate) fn rewind(&mut self, position: usize) {
        self.pos = position;
    }

    pub(crate) fn is_done(&self) -> bool {
        self.pos >= self.data.len()
    }

    fn since(&self, start: usize) -> &'a [u8] {
        self.data.get(start..self.pos).unwrap_or_default()
    }

    fn here(&self) -> Step {
        if self.is_done() {
            Step::End
        } else {
            Step::More
        }
    }

    /// Passes CFWS (RFC 5322 3.2.2). `Bad` for a comment without end, which swallows the rest.
    pub(crate) fn skip_space(&mut self) -> Step {
        while let Some(byte) = self.peek() {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => self.bump(),
                b'(' => {
                    if self.skip_comment() == Step::Bad {
                        return Step::Bad;
                    }
                }
                _ => return Step::More,
            }
        }
        Step::End
    }

    fn skip_comment(&mut self) -> Step {
        self.bump();
        self.comment.clear();
        let mut depth = 1_u32;
        while let Some(byte) = self.peek() {
            self.bump();
            match byte {
                b'(' => depth += 1,
                b')' => {
                    depth -= 1;
                    if depth == 0 {
                        return self.here();
                    }
                }
                b'\r' | b'\n' => continue,
                b'\\' => {
                    if let Some(escaped) = self.peek() {
                        self.bump();
                        self.comment.push(escaped);
                    }
                    continue;
                }
                _ => {}
            }
            self.comment.push(byte);
        }
        Step::Bad
    }

    /// Takes the octets for which `keep` holds.
    fn run(&mut self, out: &mut Vec<u8>, keep: impl Fn(u8) -> bool) -> bool {
        let start = self.pos;
        while self.peek().is_some_and(&keep) {
            self.bump();
        }
        out.extend_from_slice(self.since(start));
        self.pos > start
    }

    /// `"..."` with its escapes resolved; the position must be at the quote.
    pub(crate) fn quoted(&mut self, out: &mut Vec<u8>) -> Step {
        self.bump();
        while let Some(byte) = self.peek() {
            self.bump();
            match byte {
                b'"' => return self.skip_space(),
                b'\r' | b'\n' => {}
                b'\\' => {
                    let Some(escaped) = self.peek() else {
                        return Step::Bad;
                    };
                    self.bump();
                    out.push(escaped);
                }
                other => out.push(other),
            }
        }
        Step::Bad
    }

    /// RFC 5322 3.2.3 with the obsolete white space around dots.
    pub(crate) fn dot_atom(&mut self, out: &mut Vec<u8>) -> Step {
        loop {
            if !self.run(out, is_atext) {
                return Step::Bad;
            }
            match self.skip_space() {
                Step::More if self.at(b'.') => {
                    self.bump();
                    out.push(b'.');
                    if self.skip_space() != Step::More {
                        return Step::Bad;
                    }
                }
                other => return other,
            }
        }
    }

    /// A local part as it occurs: dots may stand anywhere in it, with white space around them (RFC 5322 4.4).
    pub(crate) fn loose_dot_atom(&mut self, out: &mut Vec<u8>) -> Step {
        loop {
            if !self.run(out, |b| is_atext(b) || b == b'.') {
                return Step::Bad;
            }
            let after_dot = out.last() == Some(&b'.');
            match self.skip_space() {
                Step::More if self.at(b'.') || (after_dot && self.peek().is_some_and(is_atext)) => {
                }
                other => return other,
            }
        }
    }

    /// A display name: words with single spaces between them, dots allowed (RFC 5322 4.1). May be empty.
    pub(crate) fn phrase(&mut self, out: &mut Vec<u8>) -> Step {
        if self.is_done() {
            return Step::End;
        }
        if self.at(b'.') {
            return Step::Bad;
        }
        loop {
            let step = if self.at(b'"') {
                self.quoted(out)
            } else {
                self.run(out, |b| is_atext(b) || b == b'.');
                self.skip_space()
            };
            if step != Step::More {
                return step;
            }
            match self.peek() {
                Some(byte) if is_atext(byte) || byte == b'"' || byte == b'.' => out.push(b' '),
                _ => return Step::More,
            }
        }
    }

    /// What follows an `@`, at which the position must be: a name or a literal in brackets.
    pub(crate) fn domain(&mut self, out: &mut Vec<u8>) -> Step {
        self.bump();
        if self.skip_space() != Step::More {
            return Step::Bad;
        }
        if !self.at(b'[') {
            return self.dot_atom(out);
        }
        let start = self.pos;
        while let Some(byte) = self.peek() {
            self.bump();
            match byte {
                b']' => {
                    push_unfolded(out, self.since(start));
                    return self.skip_space();
                }
                b'\\' => self.bump(),
                _ => {}
            }
        }
        Step::Bad
    }

    /// RFC 2045 5.1 `token`, with white space around it passed over.
    pub(crate) fn mime_token(&mut self, out: &mut Vec<u8>) -> Step {
        if self.run(out, is_mime_token) {
            self.skip_space()
        } else {
            Step::Bad
        }
    }

    /// A parameter's unquoted value. Wider than RFC 2045's token, as senders do not keep to it: all up to `;` or a space.
    pub(crate) fn loose_value(&mut self, out: &mut Vec<u8>) -> Step {
        self.run(out, |b| !matches!(b, b';' | b' ' | b'\t' | b'\r' | b'\n'));
        self.skip_space()
    }
}
