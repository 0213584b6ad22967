//! BODYSTRUCTURE and BODY (RFC 9051 7.5.2).

use crate::Limits;
use crate::envelope::{self, Addresses};
use crate::media;
use crate::tree::{MimeFields, Part, PartKind, Scan};
use crate::wire;

/// Appends BODYSTRUCTURE of the whole message.
pub(crate) fn write(out: &mut Vec<u8>, scan: &Scan<'_>, limits: &Limits) {
    write_part(out, scan, 0, limits);
}

/// Recursion is bounded: the scan nests no deeper than [`Limits::DEPTH_MAX`].
fn write_part(out: &mut Vec<u8>, scan: &Scan<'_>, index: usize, limits: &Limits) {
    let (Some(part), Some(fields)) = (scan.parts.get(index), scan.fields.get(index)) else {
        return;
    };
    out.push(b'(');
    // A multipart that could not be looked into (no boundary, limits) is still shown as one: the grammar has no other form.
    if part.media.starts_with("multipart/") {
        write_multipart(out, scan, index, limits);
    } else {
        write_single(out, part, fields);
        if part.kind == PartKind::Message {
            let child = index + 1;
            out.push(b' ');
            if let Some(inner) = scan.fields.get(child).and_then(|f| f.envelope.as_deref()) {
                envelope::write(out, inner, &Addresses::of(inner, limits));
            }
            out.push(b' ');
            write_part(out, scan, child, limits);
        }
        if part.kind == PartKind::Message || part.is_text() {
            out.extend_from_slice(format!(" {}", part.lines).as_bytes());
        }
        out.push(b' ');
        wire::nstring_unfolded(out, fields.md5);
        write_common(out, fields);
    }
    out.push(b')');
}

fn write_multipart(out: &mut Vec<u8>, scan: &Scan<'_>, index: usize, limits: &Limits) {
    let mut empty = true;
    for child in children(&scan.parts, index) {
        empty = false;
        write_part(out, scan, child, limits);
    }
    if empty {
        // The grammar knows no multipart without parts: one empty text stands for them.
        out.extend_from_slice(
            b"(\"text\" \"plain\" (\"charset\" \"us-ascii\") NIL NIL \"7bit\" 0 0 NIL NIL NIL NIL)",
        );
    }
    let Some(fields) = scan.fields.get(index) else {
        return;
    };
    out.push(b' ');
    let media = fields.content_type.as_ref();
    wire::string(out, media.map_or(&b"mixed"[..], |media| &media.sub));
    out.push(b' ');
    write_parameters(out, media.map_or(&[][..], |media| &media.parameters), false);
    write_common(out, fields);
}

/// The fields that all single parts have: type to size.
fn write_single(out: &mut Vec<u8>, part: &Part, fields: &MimeFields<'_>) {
    match &fields.content_type {
        Some(media) => {
            wire::string(out, &media.main);
            out.push(b' ');
            wire::string(out, &media.sub);
        }
        None if part.kind == PartKind::Message => out.extend_from_slice(b"\"message\" \"rfc822\""),
        None => out.extend_from_slice(b"\"text\" \"plain\""),
    }
    out.push(b' ');
    let parameters = fields
        .content_type
        .as_ref()
        .map_or(&[][..], |m| &m.parameters);
    write_parameters(out, parameters, part.is_text());
    out.push(b' ');
    wire::nstring_unfolded(out, fields.id);
    out.push(b' ');
    wire::nstring_unfolded(out, fields.description);
    out.push(b' ');
    match fields.encoding.and_then(media::encoding_token) {
        Some(token) => wire::string(out, &token),
        None => out.extend_from_slice(b"\"7bit\""),
    }
    out.extend_from_slice(format!(" {}", part.len()).as_bytes());
}

/// Disposition, language, location.
fn write_common(out: &mut Vec<u8>, fields: &MimeFields<'_>) {
    out.push(b' ');
    match fields.disposition.and_then(media::disposition) {
        Some((kind, parameters)) => {
            out.push(b'(');
            wire::string(out, &kind);
            out.push(b' ');
            write_parameters(out, &parameters, false);
            out.push(b')');
        }
        None => out.extend_from_slice(b"NIL"),
    }
    out.push(b' ');
    let languages = fields.language.map(media::languages).unwrap_or_default();
    if languages.is_empty() {
        out.extend_from_slice(b"NIL");
    } else {
        out.push(b'(');
        for (position, language) in languages.iter().enumerate() {
            if position > 0 {
                out.push(b' ');
            }
            wire::string(out, language);
        }
        out.push(b')');
    }
    out.push(b' ');
    wire::nstring_unfolded(out, fields.location);
}

/// `text` has a charset even if none is declared (RFC 2045 5.2).
fn write_parameters(out: &mut Vec<u8>, parameters: &[(Vec<u8>, Vec<u8>)], text: bool) {
    let has_charset = parameters
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case(b"charset"));
    let add_charset = text && !has_charset;
    if parameters.is_empty() && !add_charset {
        out.extend_from_slice(b"NIL");
        return;
    }
    out.push(b'(');
    for (position, (name, value)) in parameters.iter().enumerate() {
        if position > 0 {
            out.push(b' ');
        }
        wire::string(out, name);
        out.push(b' ');
        wire::string(out, value);
    }
    if add_charset {
        if !parameters.is_empty() {
            out.push(b' ');
        }
        out.extend_from_slice(b"\"charset\" \"us-ascii\"");
    }
    out.push(b')');
}

/// The positions of a part's direct children.
pub(crate) fn children(parts: &[Part], index: usize) -> impl Iterator<Item = usize> + '_ {
    let below = parts.get(index).map_or(0, |part| part.below as usize);
    let end = index + below;
    let mut next = index + 1;
    std::iter::from_fn(move || {
        let here = next;
        if here > end {
            return None;
        }
        next = here + 1 + parts.get(here)?.below as usize;
        Some(here)
    })
}

/// BODY from BODYSTRUCTURE: the same without the extension data. `None` if `structure` was not written by this crate.
pub fn body_of(structure: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(structure.len());
    let rest = copy_body(structure, &mut out, 0)?;
    rest.is_empty().then_some(out)
}

/// Copies one parenthesised body and gives what follows it.
fn copy_body<'s>(data: &'s [u8], out: &mut Vec<u8>, depth: usize) -> Option<&'s [u8]> {
    // A message takes two levels for each of the scan's.
    if depth > 2 * Limits::DEPTH_MAX {
        return None;
    }
    let mut rest = data.strip_prefix(b"(")?;
    out.push(b'(');
    if rest.starts_with(b"(") {
        while rest.starts_with(b"(") {
            rest = copy_body(rest, out, depth + 1)?;
        }
        rest = copy_item(rest, out)?;
    } else {
        let (main, sub) = two_strings(rest)?;
        let is_message = main.eq_ignore_ascii_case(b"message")
            && (sub.eq_ignore_ascii_case(b"rfc822") || sub.eq_ignore_ascii_case(b"global"));
        for _ in 0..7 {
            rest = copy_item(rest, out)?;
        }
        // A message that was not looked into (limits) has no envelope: its next item is the MD5.
        if is_message && rest.starts_with(b" (") {
            rest = copy_item(rest, out)?;
            out.push(b' ');
            rest = copy_body(rest.strip_prefix(b" ")?, out, depth + 1)?;
            rest = copy_item(rest, out)?;
        } else if main.eq_ignore_ascii_case(b"text") {
            rest = copy_item(rest, out)?;
        }
    }
    out.push(b')');
    while !rest.starts_with(b")") {
        rest = skip_item(rest)?;
    }
    rest.strip_prefix(b")")
}

/// The first two items, which are quoted strings without escapes wherever it matters.
fn two_strings(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let after = skip_item(data)?;
    let first = data.get(..data.len() - after.len())?;
    let behind = skip_item(after)?;
    let second = after.get(1..after.len() - behind.len())?;
    Some((unquote(first), unquote(second)))
}

fn unquote(item: &[u8]) -> &[u8] {
    item.strip_prefix(b"\"")
        .and_then(|item| item.strip_suffix(b"\""))
        .unwrap_or(item)
}

fn copy_item<'s>(data: &'s [u8], out: &mut Vec<u8>) -> Option<&'s [u8]> {
    let rest = skip_item(data)?;
    out.extend_from_slice(data.get(..data.len() - rest.len())?);
    Some(rest)
}

/// Passes one item with the space before it: atom, quoted string, literal, or list of any depth.
fn skip_item(data: &[u8]) -> Option<&[u8]> {
    let mut rest = data.strip_prefix(b" ").unwrap_or(data);
    let mut depth = 0_usize;
    loop {
        let (first, after) = rest.split_first()?;
        rest = match first {
            b'(' => {
                depth += 1;
                after
            }
            b')' => {
                depth = depth.checked_sub(1)?;
                after
            }
            b' ' => after,
            b'"' => skip_quoted(after)?,
            b'{' => skip_literal(after)?,
            _ => {
                let len = after
                    .iter()
                    .take_while(|b| !matches!(b, b' ' | b')' | b'('))
                    .count();
                after.get(len..)?
            }
        };
        if depth == 0 {
            return Some(rest);
        }
    }
}

fn skip_quoted(data: &[u8]) -> Option<&[u8]> {
    let mut at = 0;
    loop {
        match data.get(at)? {
            b'"' => return data.get(at + 1..),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

fn skip_literal(data: &[u8]) -> Option<&[u8]> {
    let end = memchr::memchr(b'}', data)?;
    let len: usize = std::str::from_utf8(data.get(..end)?).ok()?.parse().ok()?;
    data.get(end + 1..)?.strip_prefix(b"\r\n")?.get(len..)
}
