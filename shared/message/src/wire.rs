//! The strings of IMAP (RFC 9051 4.3).

use std::borrow::Cow;

/// More escapes than this in a quoted string, and a literal is the shorter way.
const ESCAPES_MAX: usize = 4;

/// Appends a string: quoted where it can be, otherwise as a literal (RFC 9051 4.3). Eight-bit text is always a literal:
/// IMAP4rev1 knows nothing else, and IMAP4rev2 takes it too. NUL, which neither can carry, becomes 0x80.
pub(crate) fn string(out: &mut Vec<u8>, value: &[u8]) {
    let mut escapes = 0;
    let mut literal = false;
    for byte in value {
        match byte {
            b'"' | b'\\' => escapes += 1,
            0 | b'\r' | b'\n' | 0x80.. => literal = true,
            _ => {}
        }
    }
    if literal || escapes > ESCAPES_MAX {
        out.push(b'{');
        out.extend_from_slice(value.len().to_string().as_bytes());
        out.extend_from_slice(b"}\r\n");
        out.extend(value.iter().map(|b| if *b == 0 { 0x80 } else { *b }));
        return;
    }
    out.push(b'"');
    if escapes == 0 {
        out.extend_from_slice(value);
    } else {
        for byte in value {
            if matches!(byte, b'"' | b'\\') {
                out.push(b'\\');
            }
            out.push(*byte);
        }
    }
    out.push(b'"');
}

/// Appends a string or NIL.
pub(crate) fn nstring(out: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        Some(value) => string(out, value),
        None => out.extend_from_slice(b"NIL"),
    }
}

/// A header field's value on one line: line ends are taken out, the white space behind them stays (RFC 5322 2.2.3).
pub(crate) fn unfold(value: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'\r', b'\n', value).is_none() {
        return Cow::Borrowed(value);
    }
    Cow::Owned(
        value
            .iter()
            .copied()
            .filter(|b| !matches!(b, b'\r' | b'\n'))
            .collect(),
    )
}

/// Appends an unfolded header value or NIL.
pub(crate) fn nstring_unfolded(out: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        Some(value) => string(out, &unfold(value)),
        None => out.extend_from_slice(b"NIL"),
    }
}

/// Appends text that is read by people, or NIL: in one line, runs of white space as one space and none at the ends, so that
/// the sender's folds do not show.
pub(crate) fn nstring_readable(out: &mut Vec<u8>, value: Option<&[u8]>) {
    let Some(value) = value.map(<[u8]>::trim_ascii) else {
        out.extend_from_slice(b"NIL");
        return;
    };
    let plain = memchr::memchr3(b'\t', b'\r', b'\n', value).is_none()
        && memchr::memmem::find(value, b"  ").is_none();
    if plain {
        string(out, value);
        return;
    }
    let mut line = Vec::with_capacity(value.len());
    for byte in value {
        match byte {
            b'\r' | b'\n' => {}
            b' ' | b'\t' if line.last() == Some(&b' ') => {}
            b' ' | b'\t' => line.push(b' '),
            other => line.push(*other),
        }
    }
    string(out, &line);
}
