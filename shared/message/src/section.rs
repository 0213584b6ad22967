//! Sections of a message (RFC 9051 6.4.5.1): which octets BODY[...] and BINARY[...] mean.

use crate::structure::children;
use crate::tree::{Part, PartKind};
use std::ops::Range;

/// What of a part is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionText {
    /// Its content: `BODY[1.2]`; of the message: all of it.
    Content,
    /// `HEADER`, and what `HEADER.FIELDS` selects from ([`crate::select_fields`]).
    Header,
    /// `TEXT`
    Text,
    /// `MIME`
    Mime,
}

/// The part with these numbers; none for the message itself. Parts of a message inside it follow its number directly.
pub fn find_part<'p>(parts: &'p [Part], path: &[u32]) -> Option<&'p Part> {
    parts.get(position(parts, path)?)
}

fn position(parts: &[Part], path: &[u32]) -> Option<usize> {
    let mut here = 0;
    let mut inside_message = true;
    let mut in_multipart = false;
    for (index, number) in path.iter().enumerate() {
        let nth = usize::try_from(number.checked_sub(1)?).ok()?;
        let part = parts.get(here)?;
        here = match (part.kind, inside_message) {
            (PartKind::Multipart, _) => children(parts, here).nth(nth)?,
            // RFC 9051 6.4.5.1: every message has at least one part; that of a non-multipart is number 1.
            (_, true) if nth == 0 => here,
            (PartKind::Message, false) => {
                let child = here + 1;
                match parts.get(child)?.kind {
                    PartKind::Multipart => children(parts, child).nth(nth)?,
                    _ if nth == 0 => child,
                    _ => return None,
                }
            }
            // A part of a multipart can be named once more as its own part 1, as others do.
            (PartKind::Single, false) if in_multipart && nth == 0 && index + 1 == path.len() => {
                here
            }
            _ => return None,
        };
        in_multipart = part.kind == PartKind::Multipart;
        inside_message = false;
    }
    Some(here)
}

/// The octets of a section. For what clients see, the parts must have been moved by [`crate::Parsed::prepend`]. `None` if the message has no such section: to IMAP that
/// is NIL.
pub fn locate(parts: &[Part], path: &[u32], text: SectionText) -> Option<Range<u64>> {
    let at = position(parts, path)?;
    let part = parts.get(at)?;
    if path.is_empty() {
        return match text {
            SectionText::Content => Some(part.header..part.end),
            SectionText::Header => Some(part.header..part.body),
            SectionText::Text => Some(part.body..part.end),
            SectionText::Mime => None,
        };
    }
    match text {
        SectionText::Content => Some(part.body..part.end),
        SectionText::Mime => Some(part.header..part.body),
        SectionText::Header | SectionText::Text => {
            if part.kind != PartKind::Message {
                return None;
            }
            let inner = parts.get(at + 1)?;
            Some(match text {
                SectionText::Header => inner.header..inner.body,
                _ => inner.body..inner.end,
            })
        }
    }
}

/// The content of a part without its transfer encoding: BINARY (RFC 9051 6.4.5.1, RFC 3516). `message` is prefix and body
/// together. The outer `None`: no such part; the inner one: its encoding is unknown (UNKNOWN-CTE).
pub fn binary(parts: &[Part], path: &[u32], message: &[u8]) -> Option<Option<Vec<u8>>> {
    let range = locate(parts, path, SectionText::Content)?;
    let start = usize::try_from(range.start).ok()?;
    let end = usize::try_from(range.end).ok()?;
    let content = message.get(start..end.min(message.len()))?;
    let encoding = match find_part(parts, path) {
        Some(part) if !path.is_empty() && part.kind == PartKind::Single => part.encoding,
        _ => crate::Encoding::Binary,
    };
    Some(encoding.decode(content, usize::MAX))
}
