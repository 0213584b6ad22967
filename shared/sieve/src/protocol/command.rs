//! Commands of the client.

use super::assembly::Word;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// A command (RFC 5804 2).
#[derive(Clone, PartialEq, Eq)]
pub enum Command {
    /// AUTHENTICATE
    Authenticate {
        /// In upper case.
        mechanism: String,
        /// The initial response, decoded; empty is not the same as none.
        initial: Option<Vec<u8>>,
    },
    /// STARTTLS
    StartTls,
    /// LOGOUT
    Logout,
    /// CAPABILITY
    Capability,
    /// HAVESPACE
    HaveSpace {
        /// The script's name.
        name: String,
        /// Octets.
        size: u32,
    },
    /// PUTSCRIPT
    PutScript {
        /// The script's name.
        name: String,
        /// Its text.
        content: Vec<u8>,
    },
    /// LISTSCRIPTS
    ListScripts,
    /// SETACTIVE; `None`: no script is to be active.
    SetActive(Option<String>),
    /// GETSCRIPT
    GetScript(String),
    /// DELETESCRIPT
    DeleteScript(String),
    /// RENAMESCRIPT
    RenameScript {
        /// Which.
        from: String,
        /// Its new name.
        to: String,
    },
    /// CHECKSCRIPT
    CheckScript(Vec<u8>),
    /// NOOP, perhaps with a tag to be given back.
    Noop(Option<String>),
    /// UNAUTHENTICATE
    Unauthenticate,
}

/// A client's answer to a SASL challenge.
#[derive(Clone, PartialEq, Eq)]
pub enum Response {
    /// It goes on, with these octets.
    Data(Vec<u8>),
    /// It does not (`*`).
    Cancelled,
}

/// Whether a script may have that name: 1 to 128 characters, no controls, no line or paragraph separators.
///
/// # Errors
/// What is wrong with it, for the client.
pub fn script_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("A script's name cannot be empty");
    }
    if name.chars().count() > 128 {
        return Err("A script's name has 128 characters at most");
    }
    // RFC 5804 1.6. A replacement character is what a name became that was something else.
    let bad = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{fffd}');
    match name.chars().any(bad) {
        true => Err("A script's name cannot have controls or line separators in it"),
        false => Ok(()),
    }
}

fn utf8(octets: Vec<u8>) -> Result<String, &'static str> {
    String::from_utf8(octets).map_err(|_| "Strings must be UTF-8")
}

fn name(octets: Vec<u8>) -> Result<String, &'static str> {
    let name = utf8(octets)?;
    script_name(&name)?;
    Ok(name)
}

fn base64(octets: &[u8]) -> Result<Vec<u8>, &'static str> {
    BASE64
        .decode(octets)
        .map_err(|_| "The response is not valid base64")
}

/// The words' texts, if they are all texts and as many as that.
fn texts<const N: usize>(words: Vec<Word>) -> Result<[Vec<u8>; N], &'static str> {
    let mut texts = Vec::with_capacity(N);
    for word in words {
        match word {
            Word::Text(text) => texts.push(text),
            Word::Atom(_) | Word::Number(_) => return Err("A string is expected there"),
        }
    }
    texts
        .try_into()
        .map_err(|_| "The command takes another number of arguments")
}

/// Makes a command of its words.
///
/// # Errors
/// What is wrong with it, for the client.
pub fn parse(words: Vec<Word>) -> Result<Command, &'static str> {
    let mut words = words.into_iter();
    let Some(Word::Atom(verb)) = words.next() else {
        return Err("A command is expected");
    };
    let mut rest: Vec<Word> = words.collect();
    let bare = |command, rest| texts::<0>(rest).map(|_| command);
    match verb.as_str() {
        "AUTHENTICATE" => authenticate(rest),
        "STARTTLS" => bare(Command::StartTls, rest),
        "LOGOUT" => bare(Command::Logout, rest),
        "CAPABILITY" => bare(Command::Capability, rest),
        "LISTSCRIPTS" => bare(Command::ListScripts, rest),
        "UNAUTHENTICATE" => bare(Command::Unauthenticate, rest),
        "HAVESPACE" => {
            let Some(Word::Number(size)) = rest.pop() else {
                return Err("A name and a number are expected");
            };
            let [script] = texts(rest)?;
            Ok(Command::HaveSpace {
                name: name(script)?,
                size,
            })
        }
        "PUTSCRIPT" => {
            let [script, content] = texts(rest)?;
            Ok(Command::PutScript {
                name: name(script)?,
                content,
            })
        }
        "SETACTIVE" => {
            let [script] = texts(rest)?;
            // RFC 5804 2.8: "" is none
            let script = (!script.is_empty()).then(|| name(script)).transpose()?;
            Ok(Command::SetActive(script))
        }
        "GETSCRIPT" => texts(rest).and_then(|[script]| Ok(Command::GetScript(name(script)?))),
        "DELETESCRIPT" => texts(rest).and_then(|[script]| Ok(Command::DeleteScript(name(script)?))),
        "RENAMESCRIPT" => {
            let [from, to] = texts(rest)?;
            Ok(Command::RenameScript {
                from: name(from)?,
                to: name(to)?,
            })
        }
        "CHECKSCRIPT" => texts(rest).map(|[content]| Command::CheckScript(content)),
        "NOOP" if rest.is_empty() => Ok(Command::Noop(None)),
        "NOOP" => texts(rest).and_then(|[tag]| Ok(Command::Noop(Some(utf8(tag)?)))),
        _ => Err("There is no such command"),
    }
}

fn authenticate(rest: Vec<Word>) -> Result<Command, &'static str> {
    let (mechanism, initial) = if rest.len() > 1 {
        let [mechanism, initial] = texts(rest)?;
        (mechanism, Some(base64(&initial)?))
    } else {
        let [mechanism] = texts(rest)?;
        (mechanism, None)
    };
    let mechanism = utf8(mechanism)?.to_ascii_uppercase();
    Ok(Command::Authenticate { mechanism, initial })
}

/// Reads the answer to a challenge: one string.
///
/// # Errors
/// What is wrong with it, for the client.
pub fn response(words: Vec<Word>) -> Result<Response, &'static str> {
    let [text] = texts(words)?;
    // RFC 5804 2.1
    if text == b"*" {
        return Ok(Response::Cancelled);
    }
    base64(&text).map(Response::Data)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::protocol::{Assembly, Limits, Step};

    fn words(line: &str) -> Vec<Word> {
        let mut assembly = Assembly::new(Limits {
            octets: 4096,
            skip: 0,
        });
        match assembly.line(line.as_bytes()) {
            Step::Done(Ok(words)) => words,
            step => panic!("{line}: {step:?}"),
        }
    }

    fn read(line: &str) -> Result<Command, &'static str> {
        parse(words(line))
    }

    #[test]
    fn commands_of_the_rfc_are_read() {
        let name = |name: &str| name.to_owned();
        // RFC 5804 2.1, 2.5, 2.6, 2.8, 2.9, 2.10, 2.11.1, 2.12, 2.13
        let initial = Some(b"\0tim\0tanstaaftanstaaf".to_vec());
        let cases = [
            (
                "Authenticate \"PLAIN\" \"AHRpbQB0YW5zdGFhZnRhbnN0YWFm\"",
                Command::Authenticate {
                    mechanism: name("PLAIN"),
                    initial,
                },
            ),
            (
                "AUTHENTICATE \"external\" \"\"",
                Command::Authenticate {
                    mechanism: name("EXTERNAL"),
                    initial: Some(Vec::new()),
                },
            ),
            (
                "Authenticate \"DIGEST-MD5\"",
                Command::Authenticate {
                    mechanism: name("DIGEST-MD5"),
                    initial: None,
                },
            ),
            ("STARTTLS", Command::StartTls),
            ("Logout", Command::Logout),
            ("CAPABILITY", Command::Capability),
            (
                "HAVESPACE \"myscript\" 999999",
                Command::HaveSpace {
                    name: name("myscript"),
                    size: 999_999,
                },
            ),
            (
                "PUTSCRIPT \"foo\" \"keep;\"",
                Command::PutScript {
                    name: name("foo"),
                    content: b"keep;".to_vec(),
                },
            ),
            ("Listscripts", Command::ListScripts),
            (
                "SETACTIVE \"vacationscript\"",
                Command::SetActive(Some(name("vacationscript"))),
            ),
            ("setactive \"\"", Command::SetActive(None)),
            (
                "Getscript \"myscript\"",
                Command::GetScript(name("myscript")),
            ),
            ("Deletescript \"foo\"", Command::DeleteScript(name("foo"))),
            (
                "RENAMESCRIPT \"foo\" \"bar\"",
                Command::RenameScript {
                    from: name("foo"),
                    to: name("bar"),
                },
            ),
            (
                "CHECKSCRIPT \"#comment\"",
                Command::CheckScript(b"#comment".to_vec()),
            ),
            ("NOOP", Command::Noop(None)),
            (
                "NOOP \"STARTTLS-SYNC-42\"",
                Command::Noop(Some(name("STARTTLS-SYNC-42"))),
            ),
            ("UNAUTHENTICATE", Command::Unauthenticate),
        ];
        for (line, command) in cases {
            assert!(read(line) == Ok(command), "{line}");
        }
    }

    #[test]
    fn what_is_no_command_is_refused() {
        for line in [
            "",
            "\"NOOP\"",
            "17",
            "FETCH",
            "LOGOUT \"now\"",
            "HAVESPACE \"a\"",
            "HAVESPACE 5 \"a\"",
            "HAVESPACE \"\" 5",
            "PUTSCRIPT \"a\"",
            "PUTSCRIPT \"\" \"keep;\"",
            "GETSCRIPT foo",
            "DELETESCRIPT \"a\u{2028}b\"",
            "RENAMESCRIPT \"a\" \"\"",
            "AUTHENTICATE",
            "AUTHENTICATE \"PLAIN\" \"!\"",
            "NOOP \"a\" \"b\"",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
        let broken = vec![Word::Atom("GETSCRIPT".to_owned()), Word::Text(vec![0xff])];
        assert!(parse(broken).is_err());
    }

    #[test]
    fn names_are_checked() {
        for name in ["a", "Ärger & Co", "a/b", &"ä".repeat(128)] {
            assert_eq!(script_name(name), Ok(()), "{name}");
        }
        for name in [
            "",
            "a\nb",
            "\u{7f}",
            "\u{85}",
            "a\u{2029}",
            &"a".repeat(129),
        ] {
            assert!(script_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn responses_are_read() {
        assert!(response(words("\"*\"")) == Ok(Response::Cancelled));
        assert!(response(words("\"\"")) == Ok(Response::Data(Vec::new())));
        assert!(response(words("\"cnNw\"")) == Ok(Response::Data(b"rsp".to_vec())));
        assert!(response(words("cnNw")).is_err());
        assert!(response(words("\"c\"")).is_err());
        assert!(response(words("\"cnNw\" \"cnNw\"")).is_err());
    }
}
