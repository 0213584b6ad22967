//! Commands of the client.

use std::str;

/// A command (RFC 1939, 2449, 2595, 5034, 6856).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// USER
    User(String),
    /// PASS: all of the rest of the line.
    Pass(String),
    /// AUTH; without a mechanism the client asks which there are. `=` is an empty initial response (RFC 5034 4).
    Auth {
        /// In upper case.
        mechanism: Option<String>,
        /// Still base64.
        initial: Option<String>,
    },
    /// APOP, which needs the password in clear at the server.
    Apop,
    /// CAPA (RFC 2449 5)
    Capa,
    /// STLS (RFC 2595 4)
    Stls,
    /// UTF8 (RFC 6856 2)
    Utf8,
    /// LANG (RFC 6856 3), with the language range asked for; without one the client asks which there are.
    Lang(Option<String>),
    /// STAT
    Stat,
    /// LIST, of one message or of all.
    List(Option<u32>),
    /// UIDL, of one message or of all.
    Uidl(Option<u32>),
    /// RETR
    Retr(u32),
    /// TOP: message and lines.
    Top(u32, u32),
    /// DELE
    Dele(u32),
    /// NOOP
    Noop,
    /// RSET
    Rset,
    /// QUIT
    Quit,
}

/// Why a line is no command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCommand {
    /// No such command.
    #[error("There is no such command")]
    Unknown,
    /// It is not written like this.
    #[error("The command's arguments are not what it takes")]
    Arguments,
    /// Not UTF-8, or controls in it.
    #[error("The line has characters that may not be in it")]
    Characters,
}

/// Reads a line without its end.
///
/// # Errors
/// [`BadCommand`]
pub fn parse(line: &[u8]) -> Result<Command, BadCommand> {
    let line = str::from_utf8(line).map_err(|_| BadCommand::Characters)?;
    if line.chars().any(char::is_control) {
        return Err(BadCommand::Characters);
    }
    let (name, rest) = match line.split_once(' ') {
        Some((name, rest)) => (name, Some(rest)),
        None => (line, None),
    };
    let name = name.to_ascii_uppercase();
    // A password may begin with spaces and have some in it (RFC 1939 7, PASS).
    if name == "PASS" {
        let password = rest.ok_or(BadCommand::Arguments)?;
        return Ok(Command::Pass(password.to_owned()));
    }
    let words: Vec<&str> = rest.map_or(Vec::new(), |rest| rest.split_ascii_whitespace().collect());
    let bare = |command| match words.as_slice() {
        [] => Ok(command),
        _ => Err(BadCommand::Arguments),
    };
    match name.as_str() {
        "USER" => match words.as_slice() {
            [] => Err(BadCommand::Arguments),
            _ => Ok(Command::User(
                rest.unwrap_or_default().trim_matches(' ').to_owned(),
            )),
        },
        "AUTH" => match words.as_slice() {
            [] => Ok(Command::Auth {
                mechanism: None,
                initial: None,
            }),
            [mechanism] => Ok(Command::Auth {
                mechanism: Some(mechanism.to_ascii_uppercase()),
                initial: None,
            }),
            [mechanism, initial] => Ok(Command::Auth {
                mechanism: Some(mechanism.to_ascii_uppercase()),
                initial: Some((*initial).to_owned()),
            }),
            _ => Err(BadCommand::Arguments),
        },
        "APOP" => Ok(Command::Apop),
        "CAPA" => bare(Command::Capa),
        "STLS" => bare(Command::Stls),
        "UTF8" => bare(Command::Utf8),
        "LANG" => match words.as_slice() {
            [] => Ok(Command::Lang(None)),
            [range] if is_range(range) => Ok(Command::Lang(Some((*range).to_owned()))),
            _ => Err(BadCommand::Arguments),
        },
        "STAT" => bare(Command::Stat),
        "LIST" => maybe(&words).map(Command::List),
        "UIDL" => maybe(&words).map(Command::Uidl),
        "RETR" => one(&words).map(Command::Retr),
        "DELE" => one(&words).map(Command::Dele),
        "TOP" => match words.as_slice() {
            [message, lines] => Ok(Command::Top(number(message)?, number(lines)?)),
            _ => Err(BadCommand::Arguments),
        },
        "NOOP" => bare(Command::Noop),
        "RSET" => bare(Command::Rset),
        "QUIT" => bare(Command::Quit),
        _ => Err(BadCommand::Unknown),
    }
}

/// A basic language range (RFC 4647 2.1): `*`, or subtags of 1 to 8 letters and digits.
fn is_range(word: &str) -> bool {
    let subtag = |tag: &str| {
        (1..=8).contains(&tag.len()) && tag.bytes().all(|octet| octet.is_ascii_alphanumeric())
    };
    word == "*" || word.split('-').all(subtag)
}

fn number(word: &str) -> Result<u32, BadCommand> {
    if !word.bytes().all(|octet| octet.is_ascii_digit()) {
        return Err(BadCommand::Arguments);
    }
    word.parse().map_err(|_| BadCommand::Arguments)
}

fn one(words: &[&str]) -> Result<u32, BadCommand> {
    match words {
        [word] => number(word),
        _ => Err(BadCommand::Arguments),
    }
}

fn maybe(words: &[&str]) -> Result<Option<u32>, BadCommand> {
    match words {
        [] => Ok(None),
        _ => one(words).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_in_any_case() {
        assert_eq!(parse(b"quit"), Ok(Command::Quit));
        assert_eq!(parse(b"Retr 5"), Ok(Command::Retr(5)));
        assert_eq!(parse(b"TOP 1 10"), Ok(Command::Top(1, 10)));
        assert_eq!(parse(b"LIST"), Ok(Command::List(None)));
        assert_eq!(parse(b"LANG"), Ok(Command::Lang(None)));
        for range in ["*", "en", "i-default", "de-CH-1996"] {
            let asked = Command::Lang(Some(range.to_owned()));
            assert_eq!(parse(format!("lang {range}").as_bytes()), Ok(asked));
        }
        assert_eq!(parse(b"UIDL 2"), Ok(Command::Uidl(Some(2))));
        assert_eq!(parse(b"USER mrose"), Ok(Command::User("mrose".to_owned())));
        assert_eq!(
            parse(b"PASS  two  spaces "),
            Ok(Command::Pass(" two  spaces ".to_owned()))
        );
        // RFC 5034 6
        let auth = Command::Auth {
            mechanism: Some("PLAIN".to_owned()),
            initial: Some("dGVzdAB0ZXN0AHRlc3Q=".to_owned()),
        };
        assert_eq!(parse(b"AUTH PLAIN dGVzdAB0ZXN0AHRlc3Q="), Ok(auth));
    }

    #[test]
    fn what_is_no_command_is_refused() {
        assert_eq!(parse(b""), Err(BadCommand::Unknown));
        assert_eq!(parse(b"XTND XMIT"), Err(BadCommand::Unknown));
        for line in [
            "RETR",
            "RETR x",
            "RETR -1",
            "RETR 99999999999",
            "TOP 1",
            "STAT 1",
            "DELE 1 2",
            "LIST +1",
            "LANG en de",
            "LANG e_n",
            "LANG en-",
            "UTF8 now",
        ] {
            assert_eq!(parse(line.as_bytes()), Err(BadCommand::Arguments), "{line}");
        }
        assert_eq!(parse(b"USER a\0b"), Err(BadCommand::Characters));
        assert_eq!(parse(b"USER \xff"), Err(BadCommand::Characters));
    }
}
