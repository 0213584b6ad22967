//! APPEND and REPLACE (RFC 9051 6.3.12, RFC 8508), with several messages (RFC 3502), made of parts (RFC 4469), in UTF-8
//! (RFC 6855): the text between the messages, which arrive by themselves.

use super::Command;
use crate::cursor::{Cursor, Parse};
use crate::reader::tag_of;
use crate::set::SequenceNumber;
use crate::{Names, Refusal, Refused, date, flag};

/// Where messages go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// Into which mailbox.
    pub mailbox: String,
    /// REPLACE: instead of which message of the selected mailbox.
    pub replaces: Option<Replaced>,
}

impl Append {
    /// The command's name.
    pub fn name(&self) -> &'static str {
        match self.replaces {
            None => "APPEND",
            Some(Replaced { uid: false, .. }) => "REPLACE",
            Some(Replaced { uid: true, .. }) => "UID REPLACE",
        }
    }

    /// Whether it names a message by its sequence number.
    pub fn uses_sequence_number(&self) -> bool {
        matches!(self.replaces, Some(Replaced { uid: false, .. }))
    }
}

/// The message that REPLACE replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// The number is a UID.
    pub uid: bool,
    /// Which.
    pub number: SequenceNumber,
}

/// What comes after the mailbox, in the order in which it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppendPiece {
    /// A message begins.
    Message {
        /// Flags to set.
        flags: Vec<String>,
        /// INTERNALDATE in seconds since 1970.
        date: Option<i64>,
    },
    /// The literal that follows belongs to the message.
    Literal {
        /// It was announced as UTF8 (RFC 6855 4).
        utf8: bool,
    },
    /// What this URL means belongs to the message (RFC 4469).
    Url(String),
    /// The message is complete.
    End,
}

/// The beginning of a command, up to its first literal that is a message's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendHead {
    /// Its tag.
    pub tag: String,
    /// Where messages go.
    pub append: Append,
    /// What is known of the first message.
    pub pieces: Vec<AppendPiece>,
}

/// A position in the syntax.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// A message begins.
    Message,
    /// Behind a literal that was a whole message.
    Whole,
    /// Behind the literal of `UTF8 (`.
    Utf8 { part: bool },
    /// In the list of CATENATE.
    Parts { first: bool },
    /// Behind a message.
    Behind,
}

/// Where the text goes on after a literal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    at: At,
    /// REPLACE takes one message only.
    single: bool,
}

/// Reads the text between the literals of one command.
#[derive(Clone, Copy, Debug)]
pub struct AppendParser {
    place: Place,
}

impl AppendParser {
    /// Reads the head of [`crate::Event::Message`].
    ///
    /// # Errors
    /// [`Refused`] says how to answer.
    pub fn begin(head: &[u8], names: Names) -> Result<(Self, AppendHead), Refused> {
        let Some(tag) = tag_of(head) else {
            return Err(Refused {
                tag: None,
                refusal: Refusal::bad("A tag is missing or invalid"),
            });
        };
        let rest = head.get(tag.len()..).unwrap_or_default();
        let mut cursor = Cursor::new(rest, names);
        let mut pieces = Vec::new();
        let begun = begin(&mut cursor).and_then(|(append, place)| {
            let place = place.follow(&mut cursor, true, &mut pieces)?;
            Ok((append, place))
        });
        match begun {
            Ok((append, place)) => Ok((
                Self { place },
                AppendHead {
                    tag,
                    append,
                    pieces,
                },
            )),
            Err(refusal) => Err(Refused {
                tag: Some(tag),
                refusal,
            }),
        }
    }

    /// Reads what follows a literal: up to the next one of [`crate::Event::Message`], or if `last` to the end of the command.
    ///
    /// # Errors
    /// The syntax is wrong.
    pub fn go_on(&mut self, text: &[u8], last: bool) -> Result<Vec<AppendPiece>, Refusal> {
        let mut pieces = Vec::new();
        let mut cursor = Cursor::new(text, Names::Utf8);
        self.place = self.place.follow(&mut cursor, !last, &mut pieces)?;
        Ok(pieces)
    }
}

/// Whether the literal behind `text` is a message or a part of one; then where the text goes on behind it. `place` is where
/// this text began, if it is not the beginning of a command.
pub(crate) fn awaits_message(place: Option<Place>, text: &[u8]) -> Option<Place> {
    let mut cursor = Cursor::new(text, Names::Utf8);
    let place = match place {
        Some(place) => place,
        None => {
            let tag = tag_of(text)?;
            cursor = Cursor::new(text.get(tag.len()..)?, Names::Utf8);
            begin(&mut cursor).ok()?.1
        }
    };
    place.follow(&mut cursor, true, &mut Vec::new()).ok()
}

/// A command whose messages are made of URLs alone, behind its name.
pub(super) fn whole(name: &str, uid: bool, cursor: &mut Cursor<'_>) -> Parse<Option<Command>> {
    let Some((append, place)) = destination(name, uid, cursor)? else {
        return Ok(None);
    };
    let mut pieces = Vec::new();
    place.follow(cursor, false, &mut pieces)?;
    Ok(Some(Command::Append { append, pieces }))
}

/// From the space before the command's name to the one behind the mailbox.
fn begin(cursor: &mut Cursor<'_>) -> Parse<(Append, Place)> {
    cursor.space()?;
    let mut name = cursor.word()?;
    let uid = name == "UID";
    if uid {
        cursor.space()?;
        name = cursor.word()?;
    }
    destination(&name, uid, cursor)?.ok_or(Refusal::bad("There is no such command"))
}

fn destination(name: &str, uid: bool, cursor: &mut Cursor<'_>) -> Parse<Option<(Append, Place)>> {
    let replaces = match (name, uid) {
        ("APPEND", false) => None,
        ("REPLACE", uid) => {
            cursor.space()?;
            let number = match cursor.eat(b'*') {
                true => SequenceNumber::Largest,
                false => SequenceNumber::Number(cursor.positive()?),
            };
            Some(Replaced { uid, number })
        }
        _ => return Ok(None),
    };
    cursor.space()?;
    let mailbox = cursor.mailbox()?;
    cursor.space()?;
    let place = Place {
        at: At::Message,
        single: replaces.is_some(),
    };
    Ok(Some((Append { mailbox, replaces }, place)))
}

impl Place {
    /// Follows the text from here to its end, which must be where a message's literal begins (`literal`), or the end of the
    /// command.
    fn follow(
        mut self,
        cursor: &mut Cursor<'_>,
        literal: bool,
        pieces: &mut Vec<AppendPiece>,
    ) -> Parse<Self> {
        const MISSING: Refusal = Refusal::bad("A message is missing");
        loop {
            match self.at {
                At::Whole => {
                    pieces.push(AppendPiece::End);
                    self.at = At::Behind;
                }
                At::Behind if !literal && cursor.at_end() => return Ok(self),
                At::Behind => {
                    if self.single {
                        return Err(Refusal::bad("REPLACE takes one message"));
                    }
                    cursor.space()?;
                    self.at = At::Message;
                }
                At::Message => {
                    pieces.push(message(cursor)?);
                    if cursor.is_empty() {
                        pieces.push(AppendPiece::Literal { utf8: false });
                        self.at = At::Whole;
                        return if literal { Ok(self) } else { Err(MISSING) };
                    } else if cursor.eat_word("CATENATE") {
                        cursor.space()?;
                        cursor.expect(b'(', "CATENATE takes a list of parts")?;
                        self.at = At::Parts { first: true };
                    } else if let Some(place) = self.utf8(cursor, false, literal, pieces)? {
                        return Ok(place);
                    } else {
                        return Err(MISSING);
                    }
                }
                At::Utf8 { part } => {
                    cursor.expect(b')', "A parenthesis is missing behind the UTF-8 message")?;
                    self.at = match part {
                        true => At::Parts { first: false },
                        false => At::Whole,
                    };
                }
                At::Parts { first: false } if cursor.eat(b')') => self.at = At::Whole,
                At::Parts { first } => {
                    if !first {
                        cursor.space()?;
                    }
                    self.at = At::Parts { first: false };
                    if cursor.eat_word("URL") {
                        cursor.space()?;
                        pieces.push(AppendPiece::Url(cursor.text()?));
                    } else if cursor.eat_word("TEXT") {
                        cursor.space()?;
                        pieces.push(AppendPiece::Literal { utf8: false });
                        let there = literal && cursor.is_empty();
                        return if there { Ok(self) } else { Err(MISSING) };
                    } else if let Some(place) = self.utf8(cursor, true, literal, pieces)? {
                        return Ok(place);
                    } else {
                        return Err(Refusal::bad("CATENATE has parts of TEXT, UTF8 or URL"));
                    }
                }
            }
        }
    }

    /// RFC 6855 4: `UTF8 (` before a literal8.
    fn utf8(
        self,
        cursor: &mut Cursor<'_>,
        part: bool,
        literal: bool,
        pieces: &mut Vec<AppendPiece>,
    ) -> Parse<Option<Self>> {
        if !cursor.eat_word("UTF8") {
            return Ok(None);
        }
        cursor.space()?;
        cursor.expect(b'(', "UTF8 takes a literal in parentheses")?;
        pieces.push(AppendPiece::Literal { utf8: true });
        match literal && cursor.is_empty() {
            true => Ok(Some(Self {
                at: At::Utf8 { part },
                ..self
            })),
            false => Err(Refusal::bad("UTF8 takes a literal in parentheses")),
        }
    }
}

/// Flags and date, with the spaces behind them.
fn message(cursor: &mut Cursor<'_>) -> Parse<AppendPiece> {
    let mut flags = Vec::new();
    if cursor.peek() == Some(b'(') {
        flags = flag::parse_list(cursor)?;
        cursor.space()?;
    }
    let mut date = None;
    if cursor.peek() == Some(b'"') {
        date = Some(date::parse_time(cursor)?);
        cursor.space()?;
    }
    Ok(AppendPiece::Message { flags, date })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn begun(head: &str) -> Result<(AppendParser, AppendHead), Refused> {
        AppendParser::begin(head.as_bytes(), Names::Utf8)
    }

    const LITERAL: AppendPiece = AppendPiece::Literal { utf8: false };

    #[test]
    fn several_messages() {
        // RFC 3502 6.3.11
        let head = "A003 APPEND saved-messages (\\Seen) \"17-Jul-1996 02:44:25 -0700\" ";
        let (mut parser, begun) = begun(head).unwrap();
        assert_eq!(
            (begun.tag.as_str(), begun.append.name()),
            ("A003", "APPEND")
        );
        assert_eq!(begun.append.mailbox, "saved-messages");
        let first = AppendPiece::Message {
            flags: vec!["\\Seen".to_owned()],
            date: Some(837_596_665),
        };
        assert_eq!(begun.pieces, [first, LITERAL]);
        let pieces = parser.go_on(b" (\\Seen \\Flagged) ", false).unwrap();
        assert!(
            matches!(&pieces[..], [AppendPiece::End, AppendPiece::Message { flags, .. }, LITERAL] if flags.len() == 2)
        );
        assert_eq!(parser.go_on(b"", true).unwrap(), [AppendPiece::End]);
        assert!(parser.clone().go_on(b" x", true).is_err());
        assert!(parser.clone().go_on(b" (\\Seen)", false).is_err());
    }

    #[test]
    fn parts() {
        // RFC 4469 5
        let head = "A003 APPEND Drafts (\\Seen \\Draft $MDNSent) CATENATE (URL \
                    \"/Drafts;UIDVALIDITY=385759045/;UID=20/;section=HEADER\" TEXT ";
        let (mut parser, begun) = begun(head).unwrap();
        let url = "/Drafts;UIDVALIDITY=385759045/;UID=20/;section=HEADER".to_owned();
        assert_eq!(
            begun.pieces.get(1..).unwrap(),
            [AppendPiece::Url(url), LITERAL]
        );
        let text = b" URL \"/x/;UID=1\" UTF8 (";
        let pieces = parser.go_on(text, false).unwrap();
        let url = AppendPiece::Url("/x/;UID=1".to_owned());
        assert_eq!(pieces, [url, AppendPiece::Literal { utf8: true }]);
        assert_eq!(parser.go_on(b")) ", true).unwrap(), [AppendPiece::End]);
    }

    #[test]
    fn a_message_of_urls_alone_is_an_ordinary_command() {
        let line = b"a UID REPLACE 7 INBOX CATENATE (URL /INBOX/;UID=7 URL {9}\r\n/x/;UID=1)";
        let command = crate::parse(line, Names::Utf8).unwrap().command;
        let Command::Append { append, pieces } = command else {
            panic!("{command:?}");
        };
        assert_eq!(append.name(), "UID REPLACE");
        let number = SequenceNumber::Number(7);
        assert_eq!(append.replaces, Some(Replaced { uid: true, number }));
        assert_eq!(pieces.len(), 4);
        let line = b"a APPEND INBOX CATENATE (URL /x) (\\Seen) CATENATE (URL /y)";
        let command = crate::parse(line, Names::Utf8).unwrap().command;
        assert!(matches!(&command, Command::Append { pieces, .. } if pieces.len() == 6));
        for line in [
            "a APPEND INBOX",
            "a APPEND INBOX ",
            "a UID APPEND INBOX CATENATE (URL /x)",
            "a APPEND INBOX CATENATE ()",
            "a APPEND INBOX CATENATE (URL /x",
            "a REPLACE 0 INBOX CATENATE (URL /x)",
            "a REPLACE 1 INBOX CATENATE (URL /x) CATENATE (URL /x)",
        ] {
            assert!(
                crate::parse(line.as_bytes(), Names::Utf8).is_err(),
                "{line}"
            );
        }
    }

    #[test]
    fn only_literals_of_messages_are_awaited() {
        for (text, awaited) in [
            ("a APPEND INBOX ", true),
            ("a APPEND INBOX (\\Seen) ", true),
            ("a APPEND ", false),
            ("a APPEND INBOX CATENATE (URL ", false),
            ("a APPEND INBOX CATENATE (URL {2}\r\n/x TEXT ", true),
            ("a APPEND INBOX UTF8 (", true),
            ("a REPLACE 5 Drafts ", true),
            ("a UID REPLACE * Drafts ", true),
            ("a LOGIN ", false),
        ] {
            assert_eq!(
                awaits_message(None, text.as_bytes()).is_some(),
                awaited,
                "{text}"
            );
        }
        let place = awaits_message(None, b"a REPLACE 5 Drafts ").unwrap();
        assert_eq!(awaits_message(Some(place), b" "), None);
        let place = awaits_message(None, b"a APPEND Drafts ").unwrap();
        assert!(awaits_message(Some(place), b" ").is_some());
        assert_eq!(awaits_message(Some(place), b" (\\Seen"), None);
    }
}
