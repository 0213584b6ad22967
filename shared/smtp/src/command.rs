//! Commands as a server reads them (RFC 5321 4.1.1 and its extensions).

use crate::parameters::{MailParameters, RcptParameters};
use crate::path::{ForwardPath, PathError, ReversePath};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use types::{Address, Enhanced};

/// MAIL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// `None` is `<>`.
    pub sender: Option<Address>,
    /// The path had characters beyond ASCII: SMTPUTF8 must be among the parameters.
    pub utf8: bool,
    /// The parameters.
    pub parameters: MailParameters,
}

/// RCPT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rcpt {
    /// `None` is `<Postmaster>`.
    pub address: Option<Address>,
    /// The path had characters beyond ASCII: MAIL must have said SMTPUTF8.
    pub utf8: bool,
    /// The path had a source route; it is ignored.
    pub source_route: bool,
    /// The parameters.
    pub parameters: RcptParameters,
}

/// A command. Texts are slices of the line.
#[derive(Clone, PartialEq, Eq)]
pub enum Command<'a> {
    /// EHLO with the client's name: 1 to 255 octets without blanks.
    Ehlo(&'a str),
    /// HELO with the client's name.
    Helo(&'a str),
    /// LHLO with the client's name (RFC 2033).
    Lhlo(&'a str),
    /// MAIL FROM.
    Mail(Box<Mail>),
    /// RCPT TO.
    Rcpt(Box<Rcpt>),
    /// DATA.
    Data,
    /// BDAT (RFC 3030).
    Bdat {
        /// Octets that follow the command line.
        size: u64,
        /// The message ends with it.
        last: bool,
    },
    /// RSET.
    Rset,
    /// NOOP.
    Noop,
    /// QUIT.
    Quit,
    /// VRFY with its text.
    Vrfy(&'a str),
    /// EXPN with its text.
    Expn(&'a str),
    /// HELP with its text, which may be empty.
    Help(&'a str),
    /// STARTTLS (RFC 3207).
    StartTls,
    /// AUTH (RFC 4954).
    Auth {
        /// Upper case is for the caller to make; letters, digits, `-` and `_`, 1 to 20.
        mechanism: &'a str,
        /// The initial response, decoded.
        initial: Option<Vec<u8>>,
    },
}

impl std::fmt::Debug for Command<'_> {
    /// Never shows a SASL response.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ehlo(host) => write!(f, "EHLO {host}"),
            Self::Helo(host) => write!(f, "HELO {host}"),
            Self::Lhlo(host) => write!(f, "LHLO {host}"),
            Self::Mail(mail) => write!(f, "{mail:?}"),
            Self::Rcpt(rcpt) => write!(f, "{rcpt:?}"),
            Self::Bdat { size, last } => write!(f, "BDAT {size} last={last}"),
            Self::Auth { mechanism, initial } => {
                write!(f, "AUTH {mechanism} initial={}", initial.is_some())
            }
            Self::Vrfy(text) => write!(f, "VRFY {text}"),
            Self::Expn(text) => write!(f, "EXPN {text}"),
            Self::Help(text) => write!(f, "HELP {text}"),
            Self::Data => f.write_str("DATA"),
            Self::Rset => f.write_str("RSET"),
            Self::Noop => f.write_str("NOOP"),
            Self::Quit => f.write_str("QUIT"),
            Self::StartTls => f.write_str("STARTTLS"),
        }
    }
}

/// Why a line is no command. [`CommandError::status`] is what to answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No such verb.
    #[error("Command not recognised")]
    Unknown,
    /// A control character, or what is not UTF-8.
    #[error("The command has characters that may not stand in it")]
    Characters,
    /// The verb is right, the rest is not; this is what is expected.
    #[error("Syntax: {0}")]
    Syntax(&'static str),
    /// MAIL with a malformed path.
    #[error("Bad sender address: {0}")]
    Sender(PathError),
    /// RCPT with a malformed path.
    #[error("Bad recipient address: {0}")]
    Recipient(PathError),
    /// Parameters that are not `NAME` or `NAME=value`.
    #[error("Malformed parameters: expected NAME=value, separated by blanks")]
    ParameterSyntax,
    /// A parameter of an extension that is not offered.
    #[error("A parameter is not known here")]
    UnknownParameter,
    /// A parameter whose value is malformed.
    #[error("The value of {0} is malformed")]
    Parameter(&'static str),
    /// A parameter given twice.
    #[error("{0} may be given only once")]
    Duplicate(&'static str),
    /// AUTH with an initial response that is no base64.
    #[error("The initial response is not valid base64")]
    Base64,
    /// BDAT without a readable size: where the next command begins is unknown, so the connection must be closed.
    #[error("Syntax: BDAT size [LAST]; closing the connection, because the chunk's end is unknown")]
    ChunkSize,
}

impl CommandError {
    /// The reply code and its enhanced code (RFC 5321 4.2.2, RFC 3463, RFC 5248).
    pub fn status(&self) -> (u16, Enhanced) {
        match self {
            Self::Unknown => (500, Enhanced(5, 5, 1)),
            Self::Characters => (500, Enhanced(5, 5, 2)),
            Self::Syntax(_) | Self::ParameterSyntax | Self::Parameter(_) | Self::Duplicate(_) => {
                (501, Enhanced(5, 5, 4))
            }
            Self::Base64 => (501, Enhanced(5, 5, 2)),
            Self::Sender(_) => (501, Enhanced(5, 1, 7)),
            Self::Recipient(_) => (501, Enhanced(5, 1, 3)),
            Self::UnknownParameter => (555, Enhanced(5, 5, 4)),
            Self::ChunkSize => (521, Enhanced(5, 5, 4)),
        }
    }
}

impl<'a> Command<'a> {
    /// Reads a command line, which comes without its CRLF.
    ///
    /// # Errors
    /// See [`CommandError`].
    pub fn parse(line: &'a [u8]) -> Result<Self, CommandError> {
        let text = std::str::from_utf8(line).map_err(|_| bad_characters(line))?;
        if text.bytes().any(|b| b < 0x20 || b == 0x7f) {
            return Err(bad_characters(line));
        }
        // RFC 5321 4.1.1: trailing blanks are tolerated
        let text = text.trim_end_matches(' ');
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        let rest = rest.trim_start_matches(' ');
        let Some(verb) = Verb::of(verb) else {
            return Err(CommandError::Unknown);
        };
        match verb {
            Verb::Ehlo => Ok(Self::Ehlo(host(rest, "EHLO host.name")?)),
            Verb::Helo => Ok(Self::Helo(host(rest, "HELO host.name")?)),
            Verb::Lhlo => Ok(Self::Lhlo(host(rest, "LHLO host.name")?)),
            Verb::Mail => mail(rest),
            Verb::Rcpt => rcpt(rest),
            Verb::Data => alone(rest, Self::Data, "DATA"),
            Verb::Bdat => bdat(rest),
            Verb::Rset => alone(rest, Self::Rset, "RSET"),
            Verb::Noop => Ok(Self::Noop),
            Verb::Quit => alone(rest, Self::Quit, "QUIT"),
            Verb::Vrfy => text_of(rest, Self::Vrfy, "VRFY address"),
            Verb::Expn => text_of(rest, Self::Expn, "EXPN list"),
            Verb::Help => Ok(Self::Help(rest)),
            Verb::StartTls => alone(rest, Self::StartTls, "STARTTLS"),
            Verb::Auth => auth(rest),
        }
    }
}

/// BDAT is the one command after which a misreading matters: its octets would be taken for commands.
fn bad_characters(line: &[u8]) -> CommandError {
    match line.split_at_checked(4) {
        Some((verb, _)) if verb.eq_ignore_ascii_case(b"BDAT") => CommandError::ChunkSize,
        _ => CommandError::Characters,
    }
}

#[derive(Clone, Copy)]
enum Verb {
    Ehlo,
    Helo,
    Lhlo,
    Mail,
    Rcpt,
    Data,
    Bdat,
    Rset,
    Noop,
    Quit,
    Vrfy,
    Expn,
    Help,
    StartTls,
    Auth,
}

impl Verb {
    fn of(word: &str) -> Option<Self> {
        const VERBS: [(&str, Verb); 15] = [
            ("MAIL", Verb::Mail),
            ("RCPT", Verb::Rcpt),
            ("DATA", Verb::Data),
            ("EHLO", Verb::Ehlo),
            ("QUIT", Verb::Quit),
            ("RSET", Verb::Rset),
            ("BDAT", Verb::Bdat),
            ("AUTH", Verb::Auth),
            ("STARTTLS", Verb::StartTls),
            ("NOOP", Verb::Noop),
            ("HELO", Verb::Helo),
            ("LHLO", Verb::Lhlo),
            ("VRFY", Verb::Vrfy),
            ("EXPN", Verb::Expn),
            ("HELP", Verb::Help),
        ];
        VERBS
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case(word))
            .map(|(_, verb)| *verb)
    }
}

fn alone<'a>(
    rest: &str,
    command: Command<'a>,
    syntax: &'static str,
) -> Result<Command<'a>, CommandError> {
    if rest.is_empty() {
        Ok(command)
    } else {
        Err(CommandError::Syntax(syntax))
    }
}

fn text_of<'a>(
    rest: &'a str,
    command: fn(&'a str) -> Command<'a>,
    syntax: &'static str,
) -> Result<Command<'a>, CommandError> {
    if rest.is_empty() {
        Err(CommandError::Syntax(syntax))
    } else {
        Ok(command(rest))
    }
}

// RFC 5321 4.1.4: a server may not refuse mail because the name is not what it thinks it should be
fn host<'a>(rest: &'a str, syntax: &'static str) -> Result<&'a str, CommandError> {
    if rest.is_empty() || rest.len() > 255 || rest.contains(' ') {
        return Err(CommandError::Syntax(syntax));
    }
    Ok(rest)
}

/// Behind `FROM:` or `TO:`; a blank after the colon is tolerated, because many programs send it.
fn after<'a>(rest: &'a str, word: &str) -> Option<&'a str> {
    let (head, tail) = rest.split_at_checked(word.len())?;
    head.eq_ignore_ascii_case(word)
        .then(|| tail.trim_start_matches(' '))
}

fn mail(rest: &str) -> Result<Command<'_>, CommandError> {
    const SYNTAX: &str = "MAIL FROM:<address> [parameters]";
    let rest = after(rest, "FROM:").ok_or(CommandError::Syntax(SYNTAX))?;
    let (path, rest) = ReversePath::read(rest).map_err(CommandError::Sender)?;
    if !rest.is_empty() && !rest.starts_with(' ') {
        return Err(CommandError::Syntax(SYNTAX));
    }
    Ok(Command::Mail(Box::new(Mail {
        sender: path.address,
        utf8: path.utf8,
        parameters: MailParameters::read(rest)?,
    })))
}

fn rcpt(rest: &str) -> Result<Command<'_>, CommandError> {
    const SYNTAX: &str = "RCPT TO:<address> [parameters]";
    let rest = after(rest, "TO:").ok_or(CommandError::Syntax(SYNTAX))?;
    let (path, rest) = ForwardPath::read(rest).map_err(CommandError::Recipient)?;
    if !rest.is_empty() && !rest.starts_with(' ') {
        return Err(CommandError::Syntax(SYNTAX));
    }
    Ok(Command::Rcpt(Box::new(Rcpt {
        address: path.address,
        utf8: path.utf8,
        source_route: path.source_route,
        parameters: RcptParameters::read(rest)?,
    })))
}

fn bdat(rest: &str) -> Result<Command<'_>, CommandError> {
    let mut words = rest.split(' ').filter(|word| !word.is_empty());
    let size = words
        .next()
        .filter(|size| size.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|size| size.parse().ok())
        .ok_or(CommandError::ChunkSize)?;
    let last = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case("LAST") => true,
        Some(_) => return Err(CommandError::ChunkSize),
    };
    if words.next().is_some() {
        return Err(CommandError::ChunkSize);
    }
    Ok(Command::Bdat { size, last })
}

fn auth(rest: &str) -> Result<Command<'_>, CommandError> {
    const SYNTAX: &str = "AUTH mechanism [initial-response]";
    let (mechanism, response) = match rest.split_once(' ') {
        Some((mechanism, response)) => (mechanism, Some(response.trim_start_matches(' '))),
        None => (rest, None),
    };
    let letter = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    // RFC 4422 3.1: sasl-mech
    if mechanism.is_empty() || mechanism.len() > 20 || !mechanism.bytes().all(letter) {
        return Err(CommandError::Syntax(SYNTAX));
    }
    let initial = match response {
        None => None,
        // RFC 4954 4: an empty initial response
        Some("=") => Some(Vec::new()),
        Some(text) => Some(STANDARD.decode(text).map_err(|_| CommandError::Base64)?),
    };
    Ok(Command::Auth { mechanism, initial })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_verb_in_any_case() {
        let parse = |line: &'static str| Command::parse(line.as_bytes()).unwrap();
        assert_eq!(parse("ehlo mx.example"), Command::Ehlo("mx.example"));
        assert_eq!(parse("HELO [192.0.2.1]  "), Command::Helo("[192.0.2.1]"));
        assert_eq!(parse("LHLO x"), Command::Lhlo("x"));
        assert_eq!(parse("Data "), Command::Data);
        assert_eq!(parse("rset"), Command::Rset);
        assert_eq!(parse("NOOP with words"), Command::Noop);
        assert_eq!(parse("QUIT"), Command::Quit);
        assert_eq!(parse("VRFY jane"), Command::Vrfy("jane"));
        assert_eq!(parse("EXPN list"), Command::Expn("list"));
        assert_eq!(parse("HELP"), Command::Help(""));
        assert_eq!(parse("starttls"), Command::StartTls);
        let bdat = |size, last| Command::Bdat { size, last };
        assert_eq!(parse("BDAT 12"), bdat(12, false));
        assert_eq!(parse("bdat 0 last"), bdat(0, true));
        let auth = |initial: Option<&[u8]>| Command::Auth {
            mechanism: "PLAIN",
            initial: initial.map(<[u8]>::to_vec),
        };
        assert_eq!(parse("AUTH PLAIN"), auth(None));
        assert_eq!(parse("AUTH PLAIN ="), auth(Some(b"")));
        assert_eq!(parse("AUTH PLAIN AGEAYg=="), auth(Some(b"\0a\0b")));
    }

    #[test]
    fn mail_and_rcpt() {
        let Command::Mail(mail) = Command::parse(b"mail from: <a@b.example> SIZE=5").unwrap()
        else {
            panic!("not MAIL")
        };
        assert_eq!(mail.sender.unwrap().to_string(), "a@b.example");
        assert_eq!(mail.parameters.size, Some(5));
        let Command::Rcpt(rcpt) = Command::parse(b"RCPT TO:<@x.example:a@b.example>").unwrap()
        else {
            panic!("not RCPT")
        };
        assert!(rcpt.source_route);
        assert_eq!(rcpt.address.unwrap().to_string(), "a@b.example");
        let Command::Rcpt(rcpt) = Command::parse(b"RCPT TO:<Postmaster>").unwrap() else {
            panic!("not RCPT")
        };
        assert_eq!(rcpt.address, None);
    }

    #[test]
    fn what_to_answer() {
        for (line, code, enhanced) in [
            (&b"FOO"[..], 500, "5.5.1"),
            (b"", 500, "5.5.1"),
            (b"NOOP \x01", 500, "5.5.2"),
            (b"NOOP \xff", 500, "5.5.2"),
            (b"EHLO", 501, "5.5.4"),
            (b"EHLO a b", 501, "5.5.4"),
            (b"DATA now", 501, "5.5.4"),
            (b"STARTTLS now", 501, "5.5.4"),
            (b"MAIL <a@b.example>", 501, "5.5.4"),
            (b"MAIL FROM:a@b.example", 501, "5.1.7"),
            (b"MAIL FROM:<a@b.example>SIZE=1", 501, "5.5.4"),
            (b"MAIL FROM:<a@b.example> FOO=1", 555, "5.5.4"),
            (b"RCPT TO:<>", 501, "5.1.3"),
            (b"RCPT TO:<a@b.example> FOO", 555, "5.5.4"),
            (b"BDAT", 521, "5.5.4"),
            (b"BDAT x", 521, "5.5.4"),
            (b"BDAT 99999999999999999999999", 521, "5.5.4"),
            (b"BDAT 1 FIRST", 521, "5.5.4"),
            (b"BDAT\x01 5", 521, "5.5.4"),
            (b"AUTH", 501, "5.5.4"),
            (b"AUTH PLAIN ?", 501, "5.5.2"),
        ] {
            let error = Command::parse(line).unwrap_err();
            let (got, extra) = error.status();
            assert_eq!(
                (got, extra.to_string().as_str()),
                (code, enhanced),
                "{:?}",
                String::from_utf8_lossy(line)
            );
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let command = Command::parse(b"AUTH PLAIN AGEAc2VjcmV0").unwrap();
        assert_eq!(format!("{command:?}"), "AUTH PLAIN initial=true");
    }

    proptest! {
        #[test]
        fn no_octets_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Command::parse(&line);
        }

        #[test]
        fn nothing_behind_a_verb_panics(
            verb in proptest::sample::select(vec!["MAIL FROM:<", "RCPT TO:<", "BDAT ", "AUTH ", "EHLO "]),
            rest in "\\PC{0,80}",
        ) {
            let line = format!("{verb}{rest}");
            let _ = Command::parse(line.as_bytes());
        }
    }
}
