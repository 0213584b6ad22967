//! The lines that a filter wants to be answered (REPLYCODE).

/// A reply of SMTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// 400 to 599.
    pub code: u16,
    /// The enhanced code, whose class is that of `code` (RFC 3463).
    pub enhanced: Option<(u8, u16, u16)>,
    /// The lines of text, without codes.
    pub lines: Vec<String>,
}

fn enhanced(word: &str) -> Option<(u8, u16, u16)> {
    let mut parts = word.split('.');
    let mut next = |digits: usize| {
        let part = parts.next()?;
        let fine = (1..=digits).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        fine.then(|| part.parse::<u16>().ok()).flatten()
    };
    let (class, subject, detail) = (next(1)?, next(3)?, next(3)?);
    if parts.next().is_some() {
        return None;
    }
    Some((u8::try_from(class).ok()?, subject, detail))
}

/// Reads the data of REPLYCODE: one line or more, each with the code. `None` if it is no refusal.
pub fn answer(data: &[u8]) -> Option<Answer> {
    let whole = String::from_utf8_lossy(data);
    let mut found: Option<Answer> = None;
    for line in whole.split('\n') {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        let (code, rest) = line.split_at_checked(3)?;
        let code = code
            .bytes()
            .all(|octet| octet.is_ascii_digit())
            .then(|| code.parse::<u16>().ok())??;
        // RFC 5321 4.2: a filter refuses, or says something else than a code
        if !(400..600).contains(&code) || found.as_ref().is_some_and(|first| first.code != code) {
            return None;
        }
        let rest = match rest.as_bytes().first() {
            None => "",
            Some(b' ' | b'-') => rest.get(1..)?,
            Some(_) => return None,
        };
        let (word, text) = rest.split_once(' ').unwrap_or((rest, ""));
        let class = u8::try_from(code / 100).unwrap_or(5);
        let status = enhanced(word);
        let text = if status.is_some() { text } else { rest };
        let status = status.filter(|(first, ..)| *first == class);
        // The library doubles what its own formats would take for directives.
        let text = text.replace("%%", "%");
        let answer = found.get_or_insert(Answer {
            code,
            enhanced: status,
            lines: Vec::new(),
        });
        answer.lines.push(text);
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lines_of_a_reply() {
        let one = answer(b"550 5.7.1 100%% spam").unwrap();
        assert_eq!((one.code, one.enhanced), (550, Some((5, 7, 1))));
        assert_eq!(one.lines, ["100% spam"]);
        let two = answer(b"451-4.7.1 wait\r\n451 4.7.1 a bit\r\n").unwrap();
        assert_eq!((two.code, two.enhanced), (451, Some((4, 7, 1))));
        assert_eq!(two.lines, ["wait", "a bit"]);
        let bare = answer(b"554").unwrap();
        assert_eq!((bare.code, bare.enhanced), (554, None));
        // An enhanced code of another class says something else.
        let mixed = answer(b"550 4.7.1 no").unwrap();
        assert_eq!((mixed.enhanced, mixed.lines[0].as_str()), (None, "no"));
        assert_eq!(answer(b"550 1.2.3.4 is listed").unwrap().enhanced, None);
    }

    #[test]
    fn what_is_no_refusal() {
        for data in [
            b"".as_slice(),
            b"250 OK",
            b"55",
            b"5.0 x",
            b"550x",
            b"550-a\r\n551 b",
            b"999 x",
            b"\xff50 x",
        ] {
            assert_eq!(answer(data), None, "{data:?}");
        }
    }
}
