//! The lexer: one command's octets, literals included as they came.

use crate::refusal::Refusal;
use crate::{Names, mailbox, number};
use std::borrow::Cow;

pub(crate) type Parse<T> = Result<T, Refusal>;

/// RFC 9051 9: ATOM-CHAR.
pub(crate) fn is_atom_char(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e)
        && !matches!(byte, b'(' | b')' | b'{' | b'%' | b'*' | b'"' | b'\\' | b']')
}

/// RFC 9051 9: ASTRING-CHAR.
pub(crate) fn is_astring_char(byte: u8) -> bool {
    is_atom_char(byte) || byte == b']'
}

/// Position in a command.
#[derive(Clone)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
    names: Names,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(octets: &'a [u8], names: Names) -> Self {
        Self {
            rest: octets,
            names,
        }
    }

    pub(crate) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn advance(&mut self, count: usize) {
        self.rest = self.rest.get(count..).unwrap_or_default();
    }

    /// Takes `byte` if it is next.
    pub(crate) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.advance(1);
        }
        found
    }

    pub(crate) fn expect(&mut self, byte: u8, otherwise: &'static str) -> Parse<()> {
        match self.eat(byte) {
            true => Ok(()),
            false => Err(Refusal::bad(otherwise)),
        }
    }

    /// Exactly one space.
    pub(crate) fn space(&mut self) -> Parse<()> {
        self.expect(b' ', "A space is missing between arguments")
    }

    /// The end of the command; spaces before it are forgiven.
    pub(crate) fn end(&mut self) -> Parse<()> {
        match self.rest.trim_ascii().is_empty() {
            true => Ok(()),
            false => Err(Refusal::bad("The command has too many arguments")),
        }
    }

    /// Whether nothing but spaces is left.
    pub(crate) fn at_end(&self) -> bool {
        self.rest.trim_ascii().is_empty()
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The longest run of octets for which `inside` holds.
    pub(crate) fn run(&mut self, inside: impl Fn(u8) -> bool) -> &'a [u8] {
        let len = self
            .rest
            .iter()
            .position(|byte| !inside(*byte))
            .unwrap_or(self.rest.len());
        let (run, rest) = self.rest.split_at_checked(len).unwrap_or_default();
        self.rest = rest;
        run
    }

    pub(crate) fn atom(&mut self) -> Parse<&'a [u8]> {
        let atom = self.run(is_atom_char);
        match atom.is_empty() {
            true => Err(Refusal::bad("A word is missing")),
            false => Ok(atom),
        }
    }

    /// An atom in upper case: a keyword.
    pub(crate) fn word(&mut self) -> Parse<String> {
        Ok(upper(self.atom()?))
    }

    /// Takes `word` (given in upper case) if it is the next atom, any case.
    pub(crate) fn eat_word(&mut self, word: &str) -> bool {
        let mut ahead = self.clone();
        let found = ahead
            .run(is_atom_char)
            .eq_ignore_ascii_case(word.as_bytes());
        if found {
            *self = ahead;
        }
        found
    }

    /// RFC 9051 9: astring.
    pub(crate) fn astring(&mut self) -> Parse<Cow<'a, [u8]>> {
        match self.peek() {
            Some(b'"' | b'{') => self.string(),
            _ => {
                let atom = self.run(is_astring_char);
                match atom.is_empty() {
                    true => Err(Refusal::bad("A string is missing")),
                    false => Ok(Cow::Borrowed(atom)),
                }
            }
        }
    }

    /// An astring of UTF-8.
    pub(crate) fn text(&mut self) -> Parse<String> {
        String::from_utf8(self.astring()?.into_owned())
            .map_err(|_| Refusal::bad("The text is not valid UTF-8"))
    }

    /// A quoted string or literal.
    pub(crate) fn string(&mut self) -> Parse<Cow<'a, [u8]>> {
        match self.peek() {
            Some(b'"') => self.quoted(),
            Some(b'{') => self.literal(),
            _ => Err(Refusal::bad("A string is missing")),
        }
    }

    /// A string or NIL.
    pub(crate) fn nstring(&mut self) -> Parse<Option<Cow<'a, [u8]>>> {
        match self.peek() {
            Some(b'"' | b'{') => self.string().map(Some),
            _ if self.eat_word("NIL") => Ok(None),
            _ => Err(Refusal::bad("A string or NIL is missing")),
        }
    }

    fn quoted(&mut self) -> Parse<Cow<'a, [u8]>> {
        const OPEN: Refusal = Refusal::bad("A quoted string does not end");
        self.advance(1);
        let mut plain: Option<Vec<u8>> = None;
        let mut at = 0;
        loop {
            let byte = self.rest.get(at).copied().ok_or(OPEN)?;
            match byte {
                b'"' => {
                    let text = match plain {
                        Some(plain) => Cow::Owned(plain),
                        None => Cow::Borrowed(self.rest.get(..at).unwrap_or_default()),
                    };
                    self.advance(at + 1);
                    return Ok(text);
                }
                b'\\' => {
                    let plain =
                        plain.get_or_insert_with(|| self.rest.get(..at).unwrap_or_default().into());
                    at += 1;
                    plain.push(self.rest.get(at).copied().ok_or(OPEN)?);
                }
                // RFC 9051 9: TEXT-CHAR excludes CR and LF; CHAR excludes NUL
                0 | b'\r' | b'\n' => return Err(OPEN),
                byte => {
                    if let Some(plain) = &mut plain {
                        plain.push(byte);
                    }
                }
            }
            at += 1;
        }
    }

    fn literal(&mut self) -> Parse<Cow<'a, [u8]>> {
        const WRONG: Refusal = Refusal::bad("A literal is malformed");
        self.advance(1);
        let digits = self.run(|byte| byte.is_ascii_digit());
        let len = number::read(digits)
            .and_then(|len| usize::try_from(len).ok())
            .ok_or(WRONG)?;
        let _non_synchronising = self.eat(b'+');
        self.expect(b'}', WRONG.text)?;
        let _carriage_return = self.eat(b'\r');
        self.expect(b'\n', WRONG.text)?;
        let (content, rest) = self.rest.split_at_checked(len).ok_or(WRONG)?;
        self.rest = rest;
        Ok(Cow::Borrowed(content))
    }

    fn digits(&mut self) -> Parse<u64> {
        number::read(self.run(|byte| byte.is_ascii_digit()))
            .ok_or(Refusal::bad("A number is missing or too large"))
    }

    /// RFC 9051 9: number, 0 to 2^32 - 1.
    pub(crate) fn number(&mut self) -> Parse<u32> {
        u32::try_from(self.digits()?).map_err(|_| Refusal::bad("A number is too large"))
    }

    /// RFC 9051 9: nz-number.
    pub(crate) fn positive(&mut self) -> Parse<u32> {
        match self.number()? {
            0 => Err(Refusal::bad("A number must not be zero")),
            number => Ok(number),
        }
    }

    /// RFC 9051 9: number64, below 2^63.
    pub(crate) fn number64(&mut self) -> Parse<u64> {
        match self.digits()? {
            number if number < 1 << 63 => Ok(number),
            _ => Err(Refusal::bad("A number is too large")),
        }
    }

    /// A mailbox name, in Unicode and with INBOX in its canonical case.
    pub(crate) fn mailbox(&mut self) -> Parse<String> {
        let name = self.astring()?;
        mailbox::decode(&name, self.names)
    }

    /// The same as the client wrote it: for commands that tell where it is kept in another form.
    pub(crate) fn supplied_mailbox(&mut self) -> Parse<String> {
        let name = self.astring()?;
        mailbox::supplied(&name, self.names)
    }

    /// RFC 9051 9: list-mailbox; in Unicode.
    pub(crate) fn pattern(&mut self) -> Parse<String> {
        match self.peek() {
            Some(b'"' | b'{') => {
                let pattern = self.string()?;
                mailbox::decode_pattern(&pattern, self.names)
            }
            _ => {
                let pattern = self.run(|byte| is_astring_char(byte) || matches!(byte, b'%' | b'*'));
                match pattern.is_empty() {
                    true => Err(Refusal::bad("A mailbox pattern is missing")),
                    false => mailbox::decode_pattern(pattern, self.names),
                }
            }
        }
    }

    /// `(` item *(SP item) `)`; may be empty.
    pub(crate) fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Parse<T>) -> Parse<Vec<T>> {
        self.expect(b'(', "A parenthesis is missing")?;
        let mut items = Vec::new();
        if self.eat(b')') {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.eat(b')') {
                return Ok(items);
            }
            self.space()?;
        }
    }
}

/// In upper case; what is not ASCII does not come here.
pub(crate) fn upper(atom: &[u8]) -> String {
    atom.iter()
        .map(|byte| char::from(byte.to_ascii_uppercase()))
        .collect()
}
