//! A script's tokens (RFC 5228 8.1): enough to see its commands, and where their strings stand.

/// A piece of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// An identifier or a number.
    Word(&'a [u8]),
    /// What stands between quotes, as it is written; nothing for a text of several lines.
    Text(&'a [u8]),
    /// A mark.
    Other(u8),
}

/// Where a name is required: its opening quote, or `None` if no `require` has it, so written.
pub(crate) fn requirement(script: &[u8], name: &str) -> Option<usize> {
    let (mut rest, mut command): (_, &[u8]) = (script, b"");
    while let Some((token, behind)) = next(rest) {
        rest = behind;
        match token {
            Token::Word(word) if command.is_empty() => command = word,
            Token::Other(b';' | b'{' | b'}') => command = b"",
            Token::Text(text)
                if command.eq_ignore_ascii_case(b"require") && text == name.as_bytes() =>
            {
                let end = script.len() - rest.len();
                return end.checked_sub(text.len() + 2);
            }
            _ => {}
        }
    }
    None
}

/// Where the last command ends, if it lacks its semicolon or block (RFC 5228 2.9).
pub(crate) fn unfinished(script: &[u8]) -> Option<usize> {
    let (mut rest, mut open) = (script, None);
    while let Some((token, behind)) = next(rest) {
        rest = behind;
        let ends = matches!(token, Token::Other(b';' | b'}'));
        open = (!ends).then_some(script.len() - rest.len());
    }
    open
}

/// The next token, and what is behind it (RFC 5228 8.1).
pub(crate) fn next(mut rest: &[u8]) -> Option<(Token<'_>, &[u8])> {
    loop {
        rest = rest.trim_ascii_start();
        rest = match rest {
            [b'#', ..] => behind(rest, b"\n"),
            [b'/', b'*', inside @ ..] => behind(inside, b"*/"),
            _ => break,
        };
    }
    let (first, after) = rest.split_first()?;
    if *first == b'"' {
        return Some(quoted(after));
    }
    let part = |octet: &u8| octet.is_ascii_alphanumeric() || *octet == b'_';
    if !part(first) {
        return Some((Token::Other(*first), after));
    }
    let end = rest.iter().take_while(|octet| part(octet)).count();
    let (word, after) = rest.split_at_checked(end)?;
    if word.eq_ignore_ascii_case(b"text") && after.first() == Some(&b':') {
        // What it says is no name; it ends with a line of one point.
        return Some((Token::Text(b""), behind_point(behind(after, b"\n"))));
    }
    Some((Token::Word(word), after))
}

/// What is behind a line of one point.
fn behind_point(mut lines: &[u8]) -> &[u8] {
    loop {
        match lines {
            [] => return lines,
            [b'.', b'\n', rest @ ..] | [b'.', b'\r', b'\n', rest @ ..] => return rest,
            _ => lines = behind(lines, b"\n"),
        }
    }
}

fn quoted(after: &[u8]) -> (Token<'_>, &[u8]) {
    let mut escaped = false;
    let end = after.iter().position(|octet| {
        let ends = *octet == b'"' && !escaped;
        escaped = *octet == b'\\' && !escaped;
        ends
    });
    let end = end.unwrap_or(after.len());
    let text = after.get(..end).unwrap_or_default();
    (Token::Text(text), after.get(end + 1..).unwrap_or_default())
}

/// What is behind a mark; nothing if it is not there.
fn behind<'a>(rest: &'a [u8], mark: &[u8]) -> &'a [u8] {
    let found = rest.windows(mark.len()).position(|piece| piece == mark);
    found
        .and_then(|at| rest.get(at + mark.len()..))
        .unwrap_or_default()
}
