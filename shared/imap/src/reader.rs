//! From the octets of a connection to whole commands.

use crate::command::{Place, awaits_message};
use crate::cursor::{Cursor, is_astring_char};
use crate::{Names, number};

/// Buffers above this are given back once a command is done: idle connections stay small.
const KEPT: usize = 1024;

/// The head of a literal, `~{18446744073709551615+}`, is never longer.
const HEAD_MAX: usize = 32;

/// Bounds of what a client may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Octets of a command without its literals.
    pub line: usize,
    /// Octets of all literals of a command, the message of APPEND aside.
    pub literals: usize,
    /// Octets of a non-synchronising literal: `u64::MAX` is LITERAL+, 4096 is LITERAL- (RFC 7888).
    pub non_synchronising: u64,
    /// Octets that are read and thrown away to get in step again after one of the above; then the connection is hopeless.
    pub skip: u64,
}

impl Default for Limits {
    /// 64 KiB a line, 64 KiB of literals, LITERAL+, 64 MiB to skip.
    fn default() -> Self {
        Self {
            line: 64 * 1024,
            literals: 64 * 1024,
            non_synchronising: u64::MAX,
            skip: 64 * 1024 * 1024,
        }
    }
}

/// A literal that is announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Literal {
    /// Its octets.
    pub len: u64,
    /// The client waits for a continuation request before it sends them.
    pub synchronising: bool,
    /// literal8 (RFC 9051 4.3).
    pub binary: bool,
}

/// What was too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overrun {
    /// [`Limits::line`]
    Line,
    /// [`Limits::literals`], or [`Limits::non_synchronising`].
    Literal,
}

/// What has arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Send a continuation request: the client waits to send a literal.
    Continue,
    /// A whole command, for [`crate::parse`]. Without its line end, with its literals.
    Command(&'a [u8]),
    /// An APPEND or REPLACE up to its message or a part of it, for [`crate::AppendParser`]. Call [`Reader::accept`] (and send a
    /// continuation request if it is synchronising), or [`Reader::refuse`] and answer NO.
    Message {
        /// What stands before the literal: from the tag, or from the literal before it.
        head: &'a [u8],
        /// The message, or a part of it.
        literal: Literal,
    },
    /// Octets of the accepted message.
    Data(&'a [u8]),
    /// The command is complete: what stands behind its last message, for [`crate::AppendParser::go_on`].
    MessageEnd(&'a [u8]),
    /// The line asked for by [`Reader::expect_response`], without its line end.
    Response(&'a [u8]),
    /// Answer BAD: the command is too long, and the rest of it is skipped. Unanswered continuation requests are void.
    Overrun {
        /// Its tag, if it has a valid one.
        tag: Option<String>,
        /// What was too much.
        what: Overrun,
    },
    /// Close the connection: it cannot be brought in step again within [`Limits::skip`].
    Hopeless,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the text of a command.
    Text,
    /// In a literal of a command.
    Literal {
        left: usize,
    },
    /// A message is announced and neither accepted nor refused.
    Offered(Literal, Place),
    /// In an accepted message.
    Message {
        left: u64,
    },
    /// A response is expected instead of a command.
    Response,
    /// Skipping text; the tail of it is held, since it may announce a literal.
    SkipText {
        budget: u64,
    },
    /// Skipping a literal.
    SkipLiteral {
        left: u64,
        budget: u64,
    },
    Hopeless,
}

/// Cuts octets into commands. Holds at most one incomplete command.
#[derive(Debug)]
pub struct Reader {
    limits: Limits,
    state: State,
    held: Vec<u8>,
    /// Octets of text and of literals in `held`.
    text: usize,
    literals: usize,
    /// `held` was given out and is done with.
    spent: bool,
    /// Where the text of a command goes on behind a message.
    place: Option<Place>,
}

impl Reader {
    /// For a new connection.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Text,
            held: Vec::new(),
            text: 0,
            literals: 0,
            spent: false,
            place: None,
        }
    }

    /// Other limits from the next octets on: after login.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The next line is no command, but answers a continuation request (AUTHENTICATE, IDLE).
    pub fn expect_response(&mut self) {
        self.reset();
        self.state = State::Response;
    }

    /// The message that was announced is wanted.
    pub fn accept(&mut self) {
        if let State::Offered(literal, place) = self.state {
            self.reset();
            self.place = Some(place);
            self.state = State::Message { left: literal.len };
        }
    }

    /// The message that was announced is not wanted; if it comes nevertheless, it is skipped.
    pub fn refuse(&mut self) {
        if let State::Offered(literal, _) = self.state {
            self.reset();
            self.skip_literal(literal, self.limits.skip);
        }
    }

    /// Whether it is between commands.
    pub fn is_idle(&self) -> bool {
        self.state == State::Text && (self.spent || self.held.is_empty() && self.place.is_none())
    }

    fn reset(&mut self) {
        self.state = State::Text;
        self.held.clear();
        if self.held.capacity() > KEPT {
            self.held = Vec::new();
        }
        self.text = 0;
        self.literals = 0;
        self.spent = false;
        self.place = None;
    }

    /// RFC 7888 4: what a refused synchronising literal announces is never sent.
    fn skip_literal(&mut self, literal: Literal, budget: u64) {
        self.state = match (literal.synchronising, budget.checked_sub(literal.len)) {
            (true, _) => State::Text,
            (false, Some(budget)) => State::SkipLiteral {
                left: literal.len,
                budget,
            },
            (false, None) => State::Hopeless,
        };
    }

    /// The next event in `input`, which is shortened by what was read; `None` when more octets are needed: then `input` is
    /// empty, or a message is offered.
    pub fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Option<Event<'s>> {
        if self.spent {
            self.reset();
        }
        let ready = loop {
            match self.step(input) {
                Step::Again => {}
                Step::Starved => return None,
                Step::Ready(ready) => break ready,
            }
        };
        Some(match ready {
            Ready::Event(event) => event,
            Ready::Line(line) => self.line_event(trim_line_end(line)),
            Ready::Held => self.line_event(trim_line_end(&self.held)),
            Ready::Message { literal, head } => Event::Message {
                head: self.held.get(..head).unwrap_or_default(),
                literal,
            },
        })
    }

    fn line_event<'l>(&self, line: &'l [u8]) -> Event<'l> {
        match (self.state, self.place) {
            (State::Response, _) => Event::Response(line),
            (_, Some(_)) => Event::MessageEnd(line),
            (_, None) => Event::Command(line),
        }
    }

    fn step<'i>(&mut self, input: &mut &'i [u8]) -> Step<'i> {
        match self.state {
            State::Message { left: 0 } | State::Literal { left: 0 } => self.state = State::Text,
            State::SkipLiteral { left: 0, budget } => self.state = State::SkipText { budget },
            State::Hopeless => return Step::Ready(Ready::Event(Event::Hopeless)),
            State::Offered(..) => return Step::Starved,
            _ if input.is_empty() => return Step::Starved,
            State::Message { left } => {
                let data = take(input, left);
                self.state = State::Message {
                    left: left - data.len() as u64,
                };
                return Step::Ready(Ready::Event(Event::Data(data)));
            }
            State::Literal { left } => {
                let data = take(input, left as u64);
                self.held.extend_from_slice(data);
                self.state = State::Literal {
                    left: left - data.len(),
                };
            }
            State::SkipLiteral { left, budget } => {
                let left = left - take(input, left).len() as u64;
                self.state = State::SkipLiteral { left, budget };
            }
            State::SkipText { budget } => self.skip_text(input, budget),
            State::Text | State::Response => return self.line(input),
        }
        Step::Again
    }

    fn skip_text(&mut self, input: &mut &[u8], budget: u64) {
        let (line, complete) = take_line(input);
        let Some(budget) = budget.checked_sub(line.len() as u64) else {
            self.state = State::Hopeless;
            return;
        };
        let tail = line.len().saturating_sub(HEAD_MAX);
        self.held
            .extend_from_slice(line.get(tail..).unwrap_or_default());
        let surplus = self.held.len().saturating_sub(HEAD_MAX);
        self.held.drain(..surplus);
        self.state = State::SkipText { budget };
        if complete {
            let literal = literal_at_end(trim_line_end(&self.held)).map(|(literal, _)| literal);
            self.reset();
            if let Some(literal) = literal {
                self.skip_literal(literal, budget);
            }
        }
    }

    /// Reads one line of a command or a response.
    fn line<'i>(&mut self, input: &mut &'i [u8]) -> Step<'i> {
        let (line, complete) = take_line(input);
        self.text = self.text.saturating_add(line.len());
        if self.text > self.limits.line.saturating_add(2) {
            return Step::Ready(Ready::Event(self.overrun_line(line, complete)));
        }
        if complete && self.held.is_empty() && literal_at_end(trim_line_end(line)).is_none() {
            // The usual case: one line in one piece. It is given out where it lies.
            self.spent = true;
            return Step::Ready(Ready::Line(line));
        }
        self.held.extend_from_slice(line);
        if !complete {
            return Step::Starved;
        }
        match (self.state, literal_at_end(trim_line_end(&self.held))) {
            (State::Text, Some((literal, head))) => self.announced(literal, head),
            _ => {
                self.spent = true;
                Step::Ready(Ready::Held)
            }
        }
    }

    /// The line held announces a literal; `head` octets stand before it.
    fn announced<'i>(&mut self, literal: Literal, head: usize) -> Step<'i> {
        let text = self.held.get(..head).unwrap_or_default();
        if let Some(place) = awaits_message(self.place, text) {
            self.state = State::Offered(literal, place);
            return Step::Ready(Ready::Message { literal, head });
        }
        let room = self.limits.literals.saturating_sub(self.literals);
        let fits = usize::try_from(literal.len).ok().filter(|len| *len <= room);
        let allowed = literal.synchronising || literal.len <= self.limits.non_synchronising;
        let Some(len) = fits.filter(|_| allowed) else {
            let tag = tag_of(&self.held).filter(|_| self.place.is_none());
            self.reset();
            self.skip_literal(literal, self.limits.skip);
            return Step::Ready(Ready::Event(Event::Overrun {
                tag,
                what: Overrun::Literal,
            }));
        };
        self.literals += len;
        self.state = State::Literal { left: len };
        match literal.synchronising {
            true => Step::Ready(Ready::Event(Event::Continue)),
            false => Step::Again,
        }
    }

    fn overrun_line(&mut self, line: &[u8], complete: bool) -> Event<'static> {
        // The tag must stand, with the space behind it, in what is allowed: so the cut of the input does not matter.
        let mut front: Vec<u8> = self
            .held
            .iter()
            .chain(line)
            .copied()
            .take(TAG_MAX + 1)
            .collect();
        front.truncate(self.limits.line);
        let tag = tag_of(&front).filter(|tag| front.len() > tag.len());
        let in_command = self.state == State::Text && self.place.is_none();
        self.held.extend_from_slice(line);
        let tail = self
            .held
            .split_off(self.held.len().saturating_sub(HEAD_MAX));
        // What is beyond the limit is skipped already, however much of it came in one piece.
        let skipped = self.text.saturating_sub(self.limits.line) as u64;
        let budget = self.limits.skip.checked_sub(skipped);
        self.reset();
        match (budget, complete) {
            (None, _) => self.state = State::Hopeless,
            (Some(budget), false) => {
                self.held = tail;
                self.state = State::SkipText { budget };
            }
            (Some(budget), true) => {
                if let Some((literal, _)) = literal_at_end(trim_line_end(&tail)) {
                    self.skip_literal(literal, budget);
                }
            }
        }
        Event::Overrun {
            tag: tag.filter(|_| in_command),
            what: Overrun::Line,
        }
    }
}

/// What a step of the reader came to.
enum Step<'i> {
    /// Go on.
    Again,
    /// More octets are needed, or a decision on an offered message.
    Starved,
    Ready(Ready<'i>),
}

/// An event, as far as it can be told without borrowing the reader.
enum Ready<'i> {
    Event(Event<'i>),
    /// A line in one piece.
    Line(&'i [u8]),
    /// A line, or several with literals, in `held`.
    Held,
    Message {
        literal: Literal,
        head: usize,
    },
}

/// Takes at most `limit` octets off the front.
fn take<'i>(input: &mut &'i [u8], limit: u64) -> &'i [u8] {
    let len = usize::try_from(limit).map_or(input.len(), |limit| limit.min(input.len()));
    let (data, rest) = input.split_at_checked(len).unwrap_or_default();
    *input = rest;
    data
}

/// Takes a line with its end, or all there is if it does not end.
fn take_line<'i>(input: &mut &'i [u8]) -> (&'i [u8], bool) {
    match memchr::memchr(b'\n', input) {
        Some(at) => (take(input, at as u64 + 1), true),
        None => (take(input, u64::MAX), false),
    }
}

/// Clients end lines with CR LF; people at terminals with LF.
fn trim_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// The literal that a line without its end announces, and what stands before it.
fn literal_at_end(line: &[u8]) -> Option<(Literal, usize)> {
    let inner = line.strip_suffix(b"}")?;
    let from = inner.len().saturating_sub(HEAD_MAX);
    let open = from + memchr::memrchr(b'{', inner.get(from..)?)?;
    let digits = inner.get(open + 1..)?;
    let (digits, synchronising) = match digits.strip_suffix(b"+") {
        Some(digits) => (digits, false),
        None => (digits, true),
    };
    // RFC 9051 9: number64
    let len = number::read(digits).filter(|len| *len < 1 << 63)?;
    let binary = open > 0 && line.get(open - 1) == Some(&b'~');
    let literal = Literal {
        len,
        synchronising,
        binary,
    };
    Some((literal, open - usize::from(binary)))
}

/// The tag at the front of a command.
pub(crate) fn tag_of(command: &[u8]) -> Option<String> {
    let mut cursor = Cursor::new(command, Names::Utf8);
    let tag = cursor.run(|byte| is_astring_char(byte) && byte != b'+');
    if tag.is_empty() || tag.len() > TAG_MAX || !matches!(cursor.peek(), None | Some(b' ')) {
        return None;
    }
    String::from_utf8(tag.to_vec()).ok()
}

/// Longer tags are refused: they are sent back with each answer.
pub(crate) const TAG_MAX: usize = 200;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// Events as text, one letter first. Messages are accepted; `step` octets arrive at a time.
    fn events(limits: Limits, octets: &[u8], step: usize, accept: bool) -> Vec<String> {
        let mut reader = Reader::new(limits);
        let mut seen: Vec<String> = Vec::new();
        for piece in octets.chunks(step.max(1)) {
            let mut input = piece;
            while let Some(event) = reader.next(&mut input) {
                let mut offered = false;
                match event {
                    Event::Continue => seen.push("+".into()),
                    Event::Command(line) => {
                        seen.push(format!("C {}", String::from_utf8_lossy(line)));
                    }
                    Event::Message { head, literal } => {
                        let head = String::from_utf8_lossy(head);
                        seen.push(format!("M {head} {}", literal.len));
                        offered = true;
                    }
                    Event::Data(data) => {
                        let text = String::from_utf8_lossy(data).into_owned();
                        match seen.last_mut() {
                            Some(last) if last.starts_with("D ") => last.push_str(&text),
                            _ => seen.push(format!("D {text}")),
                        }
                    }
                    Event::MessageEnd(tail) => {
                        seen.push(format!("E{}", String::from_utf8_lossy(tail)));
                    }
                    Event::Response(line) => {
                        seen.push(format!("R {}", String::from_utf8_lossy(line)));
                    }
                    Event::Overrun { tag, what } => seen.push(format!("! {tag:?} {what:?}")),
                    Event::Hopeless => {
                        seen.push("X".into());
                        return seen;
                    }
                }
                if offered {
                    match accept {
                        true => reader.accept(),
                        false => reader.refuse(),
                    }
                }
            }
            assert!(input.is_empty());
        }
        seen
    }

    fn all_steps(limits: Limits, octets: &[u8], accept: bool, expected: &[&str]) {
        for step in [1, 2, 3, 7, 1000] {
            assert_eq!(
                events(limits, octets, step, accept),
                expected,
                "step {step}"
            );
        }
    }

    fn small() -> Limits {
        Limits {
            line: 40,
            literals: 10,
            non_synchronising: u64::MAX,
            skip: 1000,
        }
    }

    #[test]
    fn commands_and_literals() {
        all_steps(
            small(),
            b"a1 NOOP\r\na2 LOGIN {2}\r\nme {3+}\r\na\r\nb\r\n\r\n* NOOP\n",
            true,
            &[
                "C a1 NOOP",
                "+",
                "C a2 LOGIN {2}\r\nme {3+}\r\na\r\nb",
                "C ",
                "C * NOOP",
            ],
        );
    }

    #[test]
    fn messages_are_streamed() {
        all_steps(
            small(),
            b"a1 APPEND x (\\Seen) {25}\r\nline\r\nline\r\nand more... \n\r\na2 NOOP\r\n",
            true,
            &[
                "M a1 APPEND x (\\Seen)  25",
                "D line\r\nline\r\nand more... \n",
                "E",
                "C a2 NOOP",
            ],
        );
        all_steps(
            small(),
            b"a1 APPEND {1}\r\nx ~{3+}\r\nabc\r\na2 NOOP\r\n",
            true,
            &["+", "M a1 APPEND {1}\r\nx  3", "D abc", "E", "C a2 NOOP"],
        );
        all_steps(
            small(),
            b"a1 APPEND x {3+}\r\nabc {2+}\r\nde\r\na2 NOOP\r\n",
            true,
            &[
                "M a1 APPEND x  3",
                "D abc",
                "M   2",
                "D de",
                "E",
                "C a2 NOOP",
            ],
        );
        all_steps(
            small(),
            b"a1 APPEND x {3+}\r\nabc x {2+}\r\nde\r\na2 NOOP\r\n",
            true,
            &["M a1 APPEND x  3", "D abc", "E x {2+}\r\nde", "C a2 NOOP"],
        );
        all_steps(
            small(),
            b"a1 APPEND x CATENATE (TEXT {1+}\r\na URL {2+}\r\n/x TEXT ~{3+}\r\nbcd)\r\na2 NOOP\r\n",
            true,
            &[
                "M a1 APPEND x CATENATE (TEXT  1",
                "D a",
                "M  URL {2+}\r\n/x TEXT  3",
                "D bcd",
                "E)",
                "C a2 NOOP",
            ],
        );
        all_steps(
            small(),
            b"a1 APPEND x {0+}\r\n\r\na2 NOOP\r\n",
            true,
            &["M a1 APPEND x  0", "E", "C a2 NOOP"],
        );
    }

    #[test]
    fn refused_messages_are_skipped() {
        all_steps(
            small(),
            b"a1 APPEND x {3+}\r\nabc\r\na2 NOOP\r\n",
            false,
            &["M a1 APPEND x  3", "C a2 NOOP"],
        );
        // A synchronising one never comes.
        all_steps(
            small(),
            b"a1 APPEND x {3}\r\na2 NOOP\r\n",
            false,
            &["M a1 APPEND x  3", "C a2 NOOP"],
        );
    }

    #[test]
    fn what_is_too_long_is_skipped() {
        let long = "x".repeat(60);
        all_steps(
            small(),
            format!("a1 {long} {{20+}}\r\n01234567890123456789 {{3+}}\r\nabc\r\na2 NOOP\r\n")
                .as_bytes(),
            true,
            &["! Some(\"a1\") Line", "C a2 NOOP"],
        );
        all_steps(
            small(),
            b"a1 LOGIN {11+}\r\n12345678901 {1+}\r\nx\r\na2 NOOP\r\n",
            true,
            &["! Some(\"a1\") Literal", "C a2 NOOP"],
        );
        all_steps(
            small(),
            b"a1 LOGIN {11}\r\na2 LOGIN {6+}\r\n123456 {6}\r\na3 NOOP\r\n",
            true,
            &[
                "! Some(\"a1\") Literal",
                "! Some(\"a2\") Literal",
                "C a3 NOOP",
            ],
        );
        all_steps(
            small(),
            b"a1 LOGIN {99999+}\r\n12345678901",
            true,
            &["! Some(\"a1\") Literal", "X"],
        );
        all_steps(
            Limits {
                non_synchronising: 4,
                ..small()
            },
            b"a1 LOGIN {4+}\r\n1234 {5+}\r\n12345\r\na2 NOOP\r\n",
            true,
            &["! Some(\"a1\") Literal", "C a2 NOOP"],
        );
    }

    #[test]
    fn responses_are_no_commands() {
        let mut reader = Reader::new(small());
        let mut input: &[u8] = b"a1 IDLE\r\nDONE\r\na2 NOOP\r\n";
        assert_eq!(reader.next(&mut input), Some(Event::Command(b"a1 IDLE")));
        reader.expect_response();
        assert_eq!(reader.next(&mut input), Some(Event::Response(b"DONE")));
        assert_eq!(reader.next(&mut input), Some(Event::Command(b"a2 NOOP")));
        assert_eq!(reader.next(&mut input), None);
        assert!(reader.is_idle());
    }

    fn likely() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just("a1 APPEND x {3}\r\n".to_owned()),
            Just("a1 APPEND x CATENATE (TEXT {1+}\r\n".to_owned()),
            Just(" {2+}\r\n".to_owned()),
            Just(" URL {2+}\r\n".to_owned()),
            Just("a LOGIN {5+}\r\n".to_owned()),
            Just("{12+}".to_owned()),
            Just("~{2}".to_owned()),
            Just("\r\n".to_owned()),
            Just("\n".to_owned()),
            Just("tag NOOP\r\n".to_owned()),
            "[ -~]{0,50}",
        ];
        proptest::collection::vec(piece, 0..20).prop_map(|pieces| pieces.concat().into_bytes())
    }

    proptest! {
        #[test]
        fn the_cut_of_the_input_does_not_matter(octets in likely(), step in 1usize..9, accept: bool) {
            let whole = events(small(), &octets, usize::MAX, accept);
            let cut = events(small(), &octets, step, accept);
            prop_assert_eq!(whole, cut);
        }

        #[test]
        fn any_octets_are_cut(octets: Vec<u8>, step in 1usize..9) {
            events(small(), &octets, step, true);
        }
    }
}
