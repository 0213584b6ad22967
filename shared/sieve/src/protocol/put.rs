//! Pieces of responses, appended to a buffer.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// RFC 5804 4: a quoted string has 1,024 octets at most.
const QUOTED_MAX: usize = 1024;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Done.
    Ok,
    /// Refused or failed.
    No,
    /// The connection is closed.
    Bye,
}

/// A response code (RFC 5804 1.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Code {
    /// The mechanism is too weak for this account.
    AuthTooWeak,
    /// Not without TLS.
    EncryptNeeded,
    /// Some limit of the account.
    Quota,
    /// It has as many scripts as it may have.
    QuotaMaxScripts,
    /// The script is larger than it may be.
    QuotaMaxSize,
    /// Data of the SASL mechanism that come with success.
    Sasl(Vec<u8>),
    /// Later it may be possible.
    TryLater,
    /// The script is active.
    Active,
    /// There is no such script.
    NonExistent,
    /// There is a script of that name.
    AlreadyExists,
    /// What came with NOOP.
    Tag(String),
    /// The script is valid, but not without doubts.
    Warnings,
}

/// Appends a string: quoted where that is possible, a literal otherwise.
pub fn string(out: &mut Vec<u8>, octets: &[u8]) {
    let plain = octets.len() <= QUOTED_MAX
        && !octets
            .iter()
            .any(|octet| matches!(octet, 0 | b'\r' | b'\n'))
        && std::str::from_utf8(octets).is_ok();
    if !plain {
        // RFC 5804 4: literal-s2c
        out.extend_from_slice(format!("{{{}}}\r\n", octets.len()).as_bytes());
        out.extend_from_slice(octets);
        return;
    }
    out.push(b'"');
    for octet in octets {
        if matches!(octet, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(*octet);
    }
    out.push(b'"');
}

fn code(out: &mut Vec<u8>, code: &Code) {
    let bare: &[u8] = match code {
        Code::AuthTooWeak => b"(AUTH-TOO-WEAK)",
        Code::EncryptNeeded => b"(ENCRYPT-NEEDED)",
        Code::Quota => b"(QUOTA)",
        Code::QuotaMaxScripts => b"(QUOTA/MAXSCRIPTS)",
        Code::QuotaMaxSize => b"(QUOTA/MAXSIZE)",
        Code::TryLater => b"(TRYLATER)",
        Code::Active => b"(ACTIVE)",
        Code::NonExistent => b"(NONEXISTENT)",
        Code::AlreadyExists => b"(ALREADYEXISTS)",
        Code::Warnings => b"(WARNINGS)",
        Code::Sasl(data) => return with(out, b"(SASL ", BASE64.encode(data).as_bytes()),
        Code::Tag(tag) => return with(out, b"(TAG ", tag.as_bytes()),
    };
    out.extend_from_slice(bare);
}

fn with(out: &mut Vec<u8>, head: &[u8], text: &[u8]) {
    out.extend_from_slice(head);
    string(out, text);
    out.push(b')');
}

/// Appends the line that ends a command, or the connection. Empty text is left out.
pub fn status(out: &mut Vec<u8>, condition: Condition, with_code: Option<&Code>, text: &str) {
    out.extend_from_slice(match condition {
        Condition::Ok => b"OK",
        Condition::No => b"NO",
        Condition::Bye => b"BYE",
    });
    if let Some(with_code) = with_code {
        out.push(b' ');
        code(out, with_code);
    }
    if !text.is_empty() {
        out.push(b' ');
        string(out, text.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends a line of CAPABILITY (RFC 5804 1.7).
pub fn capability(out: &mut Vec<u8>, name: &str, value: Option<&str>) {
    string(out, name.as_bytes());
    if let Some(value) = value {
        out.push(b' ');
        string(out, value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends a line of LISTSCRIPTS (RFC 5804 2.7).
pub fn script(out: &mut Vec<u8>, name: &str, active: bool) {
    string(out, name.as_bytes());
    out.extend_from_slice(if active { b" ACTIVE\r\n" } else { b"\r\n" });
}

/// Appends a script's text, as GETSCRIPT gives it (RFC 5804 2.9): always a literal.
pub fn content(out: &mut Vec<u8>, content: &[u8]) {
    out.extend_from_slice(format!("{{{}}}\r\n", content.len()).as_bytes());
    out.extend_from_slice(content);
    out.extend_from_slice(b"\r\n");
}

/// Appends a SASL challenge (RFC 5804 2.1).
pub fn challenge(out: &mut Vec<u8>, data: &[u8]) {
    string(out, BASE64.encode(data).as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn strings_are_quoted_or_literals() {
        assert_eq!(put(|out| string(out, b"a\"b\\")), "\"a\\\"b\\\\\"");
        assert_eq!(put(|out| string(out, b"")), "\"\"");
        assert_eq!(put(|out| string(out, b"a\r\nb")), "{4}\r\na\r\nb");
        let long = "x".repeat(1025);
        assert_eq!(
            put(|out| string(out, long.as_bytes())),
            format!("{{1025}}\r\n{long}")
        );
    }

    #[test]
    fn responses_are_those_of_the_rfc() {
        let line = |condition, code: Option<Code>, text: &str| {
            put(|out| status(out, condition, code.as_ref(), text))
        };
        assert_eq!(line(Condition::Ok, None, ""), "OK\r\n");
        // RFC 5804 2.5, 2.10, 2.13
        assert_eq!(
            line(Condition::No, Some(Code::QuotaMaxSize), "Quota exceeded"),
            "NO (QUOTA/MAXSIZE) \"Quota exceeded\"\r\n"
        );
        assert_eq!(
            line(
                Condition::No,
                Some(Code::Active),
                "You may not delete an active script"
            ),
            "NO (ACTIVE) \"You may not delete an active script\"\r\n"
        );
        assert_eq!(
            line(
                Condition::Ok,
                Some(Code::Tag("STARTTLS-SYNC-42".to_owned())),
                "Done"
            ),
            "OK (TAG \"STARTTLS-SYNC-42\") \"Done\"\r\n"
        );
        assert_eq!(
            line(
                Condition::Ok,
                Some(Code::Sasl(b"rspauth=ea40f60335c427b5".to_vec())),
                ""
            ),
            "OK (SASL \"cnNwYXV0aD1lYTQwZjYwMzM1YzQyN2I1\")\r\n"
        );
        assert_eq!(
            line(Condition::Bye, None, "line 1\r\nline 2"),
            "BYE {14}\r\nline 1\r\nline 2\r\n"
        );
    }

    #[test]
    fn lists_are_those_of_the_rfc() {
        assert_eq!(
            put(|out| script(out, "vacation_script", false)),
            "\"vacation_script\"\r\n"
        );
        assert_eq!(
            put(|out| script(out, "main_script", true)),
            "\"main_script\" ACTIVE\r\n"
        );
        assert_eq!(
            put(|out| capability(out, "STARTTLS", None)),
            "\"STARTTLS\"\r\n"
        );
        assert_eq!(
            put(|out| capability(out, "VERSION", Some("1.0"))),
            "\"VERSION\" \"1.0\"\r\n"
        );
        assert_eq!(put(|out| content(out, b"keep;")), "{5}\r\nkeep;\r\n");
        assert_eq!(put(|out| challenge(out, b"")), "\"\"\r\n");
    }
}
