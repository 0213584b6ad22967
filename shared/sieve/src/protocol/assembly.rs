//! The lines and literals of one command, put together.

/// A piece of a command (RFC 5804 4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// An atom, in upper case.
    Atom(String),
    /// A number.
    Number(u32),
    /// A quoted string or a literal: without NUL, but not yet known to be UTF-8.
    Text(Vec<u8>),
}

/// How much of one command is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Octets of its lines and literals together.
    pub octets: u64,
    /// Octets of literals that are passed over before the client is given up.
    pub skip: u64,
}

/// What is wrong with a command as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is not made of words.
    #[error("{0}")]
    Malformed(&'static str),
    /// It is longer than [`Limits::octets`].
    #[error("The command is too long")]
    TooLong,
}

/// What comes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many octets of a literal, for [`Assembly::literal`]; then the rest of the line.
    Literal(u64),
    /// So many octets that nobody wants; then the rest of the line.
    Skip(u64),
    /// The command is complete. The assembly is ready for the next.
    Done(Result<Vec<Word>, Fault>),
    /// Where the next command begins cannot be known, or only after too much: close the connection.
    Hopeless,
}

/// Puts one command after another together.
#[derive(Clone, Debug)]
pub struct Assembly {
    limits: Limits,
    words: Vec<Word>,
    octets: u64,
    skipped: u64,
    fault: Option<Fault>,
}

/// The end of a line that announces a literal: where it begins, and its size. `None` inside: more than 64 bits.
fn literal_head(line: &[u8]) -> Option<(usize, Option<u64>)> {
    let inner = line.strip_suffix(b"}")?;
    // RFC 5804 4: clients write {n+}. {n} is what servers write; it is taken alike, and not waited for.
    let inner = inner.strip_suffix(b"+").unwrap_or(inner);
    let digits = inner
        .iter()
        .rev()
        .take_while(|octet| octet.is_ascii_digit())
        .count();
    let (head, digits) = inner.split_at_checked(inner.len() - digits)?;
    if digits.is_empty() || head.last() != Some(&b'{') {
        return None;
    }
    let size = std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse().ok());
    Some((head.len() - 1, size))
}

/// The words of a line, or of its part before a literal.
fn words(mut rest: &[u8], spaced: bool, words: &mut Vec<Word>) -> Result<bool, Fault> {
    let mut spaced = spaced;
    while let Some((&first, after)) = rest.split_first() {
        if first == b' ' {
            spaced = true;
            rest = after;
            continue;
        }
        if !spaced {
            return Err(Fault::Malformed("A space is missing between two words"));
        }
        let (word, left) = match first {
            b'"' => quoted(after)?,
            _ => atom(rest)?,
        };
        words.push(word);
        spaced = false;
        rest = left;
    }
    Ok(spaced)
}

fn quoted(mut rest: &[u8]) -> Result<(Word, &[u8]), Fault> {
    let mut text = Vec::new();
    loop {
        match rest {
            [b'"', left @ ..] => return Ok((Word::Text(text), left)),
            [b'\\', octet @ (b'"' | b'\\'), left @ ..] => {
                text.push(*octet);
                rest = left;
            }
            [b'\\', ..] => {
                return Err(Fault::Malformed(
                    "In quoted strings \\ stands before \" and \\ only",
                ));
            }
            [0 | b'\r', ..] => {
                return Err(Fault::Malformed("NUL and CR cannot be in quoted strings"));
            }
            [octet, left @ ..] => {
                text.push(*octet);
                rest = left;
            }
            [] => return Err(Fault::Malformed("A quoted string has no end")),
        }
    }
}

fn atom(rest: &[u8]) -> Result<(Word, &[u8]), Fault> {
    let bad = |octet: &u8| !octet.is_ascii_alphanumeric() && !matches!(octet, b'-' | b'_');
    let len = rest
        .iter()
        .position(|octet| *octet == b' ' || *octet == b'"')
        .unwrap_or(rest.len());
    let (atom, left) = rest.split_at_checked(len).unwrap_or((rest, &[]));
    if atom.iter().any(bad) {
        return Err(Fault::Malformed("That is no word of a command"));
    }
    let atom = String::from_utf8_lossy(atom);
    if !atom.bytes().all(|octet| octet.is_ascii_digit()) {
        return Ok((Word::Atom(atom.to_ascii_uppercase()), left));
    }
    match atom.parse() {
        Ok(number) => Ok((Word::Number(number), left)),
        // RFC 5804 4: 32 bits
        Err(_) => Err(Fault::Malformed("The number is too large")),
    }
}

impl Assembly {
    /// Nothing was read yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            words: Vec::new(),
            octets: 0,
            skipped: 0,
            fault: None,
        }
    }

    /// Other limits, from the next command on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Takes a line without its end; after a literal, the rest of the line.
    pub fn line(&mut self, line: &[u8]) -> Step {
        let head = literal_head(line);
        self.octets = self.octets.saturating_add(line.len() as u64);
        if self.octets > self.limits.octets {
            self.fail(Fault::TooLong);
        }
        if self.fault.is_none()
            && let Err(fault) = self.read(line, head.map(|(at, _)| at))
        {
            self.fail(fault);
        }
        // A string ends with a quotation mark, so what ends like a literal's head is one, or the line is malformed.
        match head {
            Some((_, size)) => self.announce(size),
            None => self.done(),
        }
    }

    /// Takes the octets of [`Step::Literal`].
    pub fn literal(&mut self, octets: Vec<u8>) {
        if octets.contains(&0) {
            // RFC 5804 4: OCTET is %x01-FF
            self.fail(Fault::Malformed("NUL cannot be in strings"));
        } else if self.fault.is_none() {
            self.words.push(Word::Text(octets));
        }
    }

    fn read(&mut self, line: &[u8], literal: Option<usize>) -> Result<(), Fault> {
        let begins = self.words.is_empty();
        let Some(at) = literal else {
            words(line, begins, &mut self.words)?;
            return Ok(());
        };
        let before = line.get(..at).unwrap_or_default();
        if words(before, begins, &mut self.words)? {
            return Ok(());
        }
        Err(Fault::Malformed("A space is missing before a literal"))
    }

    fn announce(&mut self, size: Option<u64>) -> Step {
        let Some(size) = size else {
            return Step::Hopeless;
        };
        let octets = self.octets.saturating_add(size);
        if self.fault.is_none() && octets <= self.limits.octets {
            self.octets = octets;
            return Step::Literal(size);
        }
        if self.fault.is_none() {
            self.fail(Fault::TooLong);
        }
        self.skipped = self.skipped.saturating_add(size);
        if self.skipped > self.limits.skip {
            return Step::Hopeless;
        }
        Step::Skip(size)
    }

    fn fail(&mut self, fault: Fault) {
        self.words = Vec::new();
        self.fault.get_or_insert(fault);
    }

    fn done(&mut self) -> Step {
        self.octets = 0;
        self.skipped = 0;
        let words = std::mem::take(&mut self.words);
        Step::Done(self.fault.take().map_or(Ok(words), Err))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        octets: 60,
        skip: 100,
    };

    fn text(text: &str) -> Word {
        Word::Text(text.as_bytes().to_vec())
    }

    fn atom(text: &str) -> Word {
        Word::Atom(text.to_owned())
    }

    #[test]
    fn words_are_read() {
        let mut assembly = Assembly::new(LIMITS);
        let done = |words| Step::Done(Ok(words));
        assert_eq!(
            assembly.line(b"HaveSpace \"a \\\"b\\\\\" 99999"),
            done(vec![
                atom("HAVESPACE"),
                text("a \"b\\"),
                Word::Number(99999)
            ])
        );
        assert_eq!(assembly.line(b""), done(Vec::new()));
        // What looks like a literal inside a string is none.
        assert_eq!(
            assembly.line(b"NOOP \"{3+}\""),
            done(vec![atom("NOOP"), text("{3+}")])
        );
        assert_eq!(assembly.line(b"PUTSCRIPT {3+}"), Step::Literal(3));
        assembly.literal(b"a\r\n".to_vec());
        assert_eq!(assembly.line(b" {0}"), Step::Literal(0));
        assembly.literal(Vec::new());
        assert_eq!(
            assembly.line(b""),
            done(vec![atom("PUTSCRIPT"), text("a\r\n"), text("")])
        );
    }

    #[test]
    fn what_is_malformed_is_refused_and_the_next_command_is_read() {
        for line in [
            &b"NOOP\"x\""[..],
            b"NOOP \"x",
            b"NOOP \"\\x\"",
            b"NOOP \"\0\"",
            b"NOOP (x)",
            b"NOOP 4294967296",
            b"NOOP \"x\"\"y\"",
            b"NOOP {3+} x",
            b"\xffNOOP",
        ] {
            let mut assembly = Assembly::new(LIMITS);
            let step = assembly.line(line);
            assert!(
                matches!(step, Step::Done(Err(Fault::Malformed(_)))),
                "{step:?}"
            );
            assert_eq!(assembly.line(b"NOOP"), Step::Done(Ok(vec![atom("NOOP")])));
        }
    }

    #[test]
    fn a_literal_of_a_malformed_command_is_no_command() {
        let mut assembly = Assembly::new(LIMITS);
        assert_eq!(assembly.line(b"(PUTSCRIPT {6+}"), Step::Skip(6));
        assert!(matches!(assembly.line(b""), Step::Done(Err(_))));
        assert_eq!(assembly.line(b"PUTSCRIPT{6+}"), Step::Skip(6));
        assert!(matches!(assembly.line(b""), Step::Done(Err(_))));
        assert_eq!(assembly.line(b"CHECKSCRIPT {2+}"), Step::Literal(2));
        assembly.literal(b"a\0".to_vec());
        assert!(matches!(assembly.line(b""), Step::Done(Err(_))));
        assert_eq!(assembly.line(b"NOOP"), Step::Done(Ok(vec![atom("NOOP")])));
    }

    #[test]
    fn what_is_too_long_is_passed_over_up_to_a_limit() {
        let mut assembly = Assembly::new(LIMITS);
        assert_eq!(assembly.line(b"CHECKSCRIPT {61+}"), Step::Skip(61));
        assert_eq!(assembly.line(b""), Step::Done(Err(Fault::TooLong)));
        // Literals of one command count together.
        assert_eq!(assembly.line(b"PUTSCRIPT {20+}"), Step::Literal(20));
        assembly.literal(vec![b'a'; 20]);
        assert_eq!(assembly.line(b" {30+}"), Step::Skip(30));
        assert_eq!(assembly.line(b" {71+}"), Step::Hopeless);
        let mut assembly = Assembly::new(LIMITS);
        let endless = b"CHECKSCRIPT {99999999999999999999+}";
        assert_eq!(assembly.line(endless), Step::Hopeless);
        let mut assembly = Assembly::new(LIMITS);
        assert_eq!(assembly.line(&[b'A'; 61]), Step::Done(Err(Fault::TooLong)));
        assert_eq!(assembly.line(b"NOOP"), Step::Done(Ok(vec![atom("NOOP")])));
    }
}
