//! GETMETADATA and SETMETADATA (RFC 5464).

use crate::Refusal;
use crate::cursor::{Cursor, Parse};
use types::Octets;

/// Entries of one command.
const ENTRIES_MAX: usize = 200;

/// GETMETADATA (RFC 5464 4.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetMetadata {
    /// Of which; `None` is the server.
    pub mailbox: Option<String>,
    /// Entry names in lower case, 1 to 200.
    pub entries: Vec<String>,
    /// MAXSIZE: longer values, in octets, are left out.
    pub max_size: Option<u64>,
    /// DEPTH
    pub depth: Depth,
}

/// DEPTH (RFC 5464 4.2.2): what is told besides the entries that are named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Depth {
    /// Nothing.
    #[default]
    Zero,
    /// Those right below.
    One,
    /// All below.
    Infinity,
}

impl Depth {
    /// Whether `entry` is told where `asked` is named.
    pub fn covers(self, asked: &str, entry: &str) -> bool {
        let Some(rest) = entry.strip_prefix(asked) else {
            return false;
        };
        match (rest.strip_prefix('/'), self) {
            (None, _) => rest.is_empty(),
            (Some(_), Self::Zero) => false,
            (Some(below), Self::One) => !below.contains('/'),
            (Some(_), Self::Infinity) => true,
        }
    }
}

/// SETMETADATA (RFC 5464 4.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetMetadata {
    /// Of which; `None` is the server.
    pub mailbox: Option<String>,
    /// Entry names in lower case with their values, 1 to 200, no name twice; `None` removes.
    pub entries: Vec<(String, Option<Octets>)>,
}

/// RFC 5464 3.2. With a depth, the levels `/private` and `/shared` may be asked for themselves.
fn entry(cursor: &mut Cursor<'_>) -> Parse<String> {
    const WRONG: Refusal =
        Refusal::bad("An entry name begins with /private/ or /shared/, and has no * or %");
    let name = cursor.astring()?.to_ascii_lowercase();
    let plain = |octet: &u8| octet.is_ascii_graphic() && !matches!(octet, b'*' | b'%');
    if !name.iter().all(plain) {
        return Err(WRONG);
    }
    let name = String::from_utf8(name).map_err(|_| WRONG)?;
    let mut levels = name.strip_prefix('/').ok_or(WRONG)?.split('/');
    let known = matches!(levels.next(), Some("private" | "shared"));
    match known && levels.all(|level| !level.is_empty()) {
        true => Ok(name),
        false => Err(WRONG),
    }
}

/// One name, or several in parentheses.
pub(super) fn entries(cursor: &mut Cursor<'_>) -> Parse<Vec<String>> {
    let entries = match cursor.peek() {
        Some(b'(') => cursor.list(entry)?,
        _ => vec![entry(cursor)?],
    };
    match entries.len() {
        1..=ENTRIES_MAX => Ok(entries),
        _ => Err(Refusal::bad("There are no entries, or too many")),
    }
}

/// The empty name is the server.
fn mailbox(cursor: &mut Cursor<'_>) -> Parse<Option<String>> {
    let mut ahead = cursor.clone();
    if ahead.astring()?.is_empty() {
        *cursor = ahead;
        return Ok(None);
    }
    cursor.mailbox().map(Some)
}

/// The options stand before the mailbox in the formal syntax of RFC 5464, and behind it in its examples.
pub(super) fn get(cursor: &mut Cursor<'_>) -> Parse<GetMetadata> {
    let mut get = GetMetadata {
        mailbox: None,
        entries: Vec::new(),
        max_size: None,
        depth: Depth::Zero,
    };
    cursor.space()?;
    let first = cursor.peek() == Some(b'(');
    if first {
        options(cursor, &mut get)?;
        cursor.space()?;
    }
    get.mailbox = mailbox(cursor)?;
    cursor.space()?;
    let mut ahead = cursor.clone();
    if !first && ahead.peek() == Some(b'(') && options(&mut ahead, &mut get).is_ok() {
        ahead.space()?;
        *cursor = ahead;
    }
    get.entries = entries(cursor)?;
    if get.depth == Depth::Zero && get.entries.iter().any(|name| !is_below_root(name)) {
        return Err(Refusal::bad(
            "/private and /shared are asked for with a DEPTH",
        ));
    }
    Ok(get)
}

fn is_below_root(name: &str) -> bool {
    name.matches('/').count() > 1
}

fn options(cursor: &mut Cursor<'_>, get: &mut GetMetadata) -> Parse<()> {
    const DEPTH: Refusal = Refusal::bad("DEPTH is 0, 1 or infinity");
    cursor.list(|cursor| {
        match cursor.word()?.as_str() {
            "MAXSIZE" => {
                cursor.space()?;
                get.max_size = Some(u64::from(cursor.number()?));
            }
            "DEPTH" => {
                cursor.space()?;
                get.depth = match cursor.word()?.as_str() {
                    "0" => Depth::Zero,
                    "1" => Depth::One,
                    "INFINITY" => Depth::Infinity,
                    _ => return Err(DEPTH),
                };
            }
            _ => return Err(Refusal::bad("There is no such option of GETMETADATA")),
        }
        Ok(())
    })?;
    Ok(())
}

pub(super) fn set(cursor: &mut Cursor<'_>) -> Parse<SetMetadata> {
    cursor.space()?;
    let mailbox = mailbox(cursor)?;
    cursor.space()?;
    let given = cursor.list(|cursor| {
        let name = entry(cursor)?;
        cursor.space()?;
        let _binary = cursor.eat(b'~');
        let value = cursor.nstring()?;
        Ok((name, value.map(|value| Octets(value.into_owned()))))
    })?;
    let mut entries: Vec<(String, Option<Octets>)> = Vec::with_capacity(given.len());
    for (name, value) in given {
        if !is_below_root(&name) {
            return Err(Refusal::bad("/private and /shared have no value"));
        }
        // The last one counts.
        entries.retain(|(other, _)| *other != name);
        entries.push((name, value));
    }
    match entries.len() {
        1..=ENTRIES_MAX => Ok(SetMetadata { mailbox, entries }),
        _ => Err(Refusal::bad("There are no entries, or too many")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::{Command, Names, parse};

    fn read(line: &str) -> Result<Command, &'static str> {
        match parse(line.as_bytes(), Names::ModifiedUtf7) {
            Ok(tagged) => Ok(tagged.command),
            Err(refused) => Err(refused.refusal.text),
        }
    }

    fn got(line: &str) -> GetMetadata {
        match read(line) {
            Ok(Command::GetMetadata(get)) => get,
            other => panic!("{line}: {other:?}"),
        }
    }

    /// RFC 5464 4.2
    #[test]
    fn the_examples_of_getmetadata() {
        let plain = got("a GETMETADATA \"\" /shared/comment");
        assert_eq!(
            (plain.mailbox, plain.entries),
            (None, vec!["/shared/comment".to_owned()])
        );
        let two = got("a GETMETADATA \"INBOX\" (/shared/comment /Private/Comment)");
        assert_eq!(two.mailbox.as_deref(), Some("INBOX"));
        assert_eq!(two.entries, ["/shared/comment", "/private/comment"]);
        for line in [
            "a GETMETADATA \"INBOX\" (MAXSIZE 1024) (/shared/comment /private/comment)",
            "a GETMETADATA (MAXSIZE 1024) \"INBOX\" (/shared/comment /private/comment)",
        ] {
            let sized = got(line);
            assert_eq!(
                (sized.max_size, sized.entries.len()),
                (Some(1024), 2),
                "{line}"
            );
        }
        let deep = got("a GETMETADATA \"INBOX\" (DEPTH 1) (/private/filters/values)");
        assert_eq!(deep.depth, Depth::One);
        assert_eq!(
            got("a GETMETADATA (DEPTH infinity) INBOX /private").depth,
            Depth::Infinity
        );
    }

    #[test]
    fn depth_counts_levels() {
        let asked = "/private/filters/values";
        let covers = |depth: Depth| {
            ["", "/small", "/small/a", "x"]
                .map(|rest| depth.covers(asked, &format!("{asked}{rest}")))
        };
        assert_eq!(covers(Depth::Zero), [true, false, false, false]);
        assert_eq!(covers(Depth::One), [true, true, false, false]);
        assert_eq!(covers(Depth::Infinity), [true, true, true, false]);
    }

    /// RFC 5464 4.3
    #[test]
    fn the_examples_of_setmetadata() {
        let line = "a SETMETADATA INBOX (/private/comment {35}\r\nMy new comment across\r\ntwo lines.\r\n)";
        let Ok(Command::SetMetadata(set)) = read(line) else {
            panic!("no SETMETADATA")
        };
        assert_eq!(set.mailbox.as_deref(), Some("INBOX"));
        assert_eq!(
            set.entries[0].1.as_ref().unwrap().0,
            b"My new comment across\r\ntwo lines.\r\n"
        );
        let line = "a SETMETADATA \"\" (/private/comment NIL /shared/x ~{2}\r\n\0a /private/comment \"z\")";
        let Ok(Command::SetMetadata(set)) = read(line) else {
            panic!("no SETMETADATA")
        };
        let value = |text: &[u8]| Some(Octets(text.to_vec()));
        let expected = [
            ("/shared/x".to_owned(), value(b"\0a")),
            ("/private/comment".to_owned(), value(b"z")),
        ];
        assert_eq!(set.entries, expected);
    }

    #[test]
    fn names_that_are_none() {
        for name in [
            "/foo/bar",
            "/shared//comment",
            "/shared/comment/",
            "/shared/co*",
            "\"/shared/c%\"",
            "comment",
            "/",
        ] {
            assert!(
                read(&format!("a GETMETADATA INBOX {name}")).is_err(),
                "{name}"
            );
            assert!(
                read(&format!("a SETMETADATA INBOX ({name} \"x\")")).is_err(),
                "{name}"
            );
        }
        for line in [
            "a GETMETADATA INBOX ()",
            "a SETMETADATA INBOX ()",
            "a GETMETADATA INBOX /private",
            "a SETMETADATA INBOX (/private \"x\")",
            "a GETMETADATA (DEPTH 2) INBOX /private/x",
            "a GETMETADATA (SIZE 2) INBOX /private/x",
            "a SETMETADATA INBOX (/private/x)",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
