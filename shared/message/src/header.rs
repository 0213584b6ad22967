//! Header blocks: the fields one after another, found again by name without reading the block (RFC 5322 2.2).

use serde::{Deserialize, Serialize};

/// One header field where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// Its name as written, without the colon; empty for a line that is no field.
    pub name: &'a [u8],
    /// What follows the colon, without leading white space and without the last line end; folds are still in it.
    pub value: &'a [u8],
    /// The whole field with its line ends.
    pub raw: &'a [u8],
}

/// The fields of a header block in their order. Ends at the empty line or at the end of the data.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Reads `header`, which may go on into the body: the empty line ends it.
    pub fn new(header: &'a [u8]) -> Self {
        Self { rest: header }
    }

    /// What has not been read yet: after the last field, the empty line and the body.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        if self.rest.is_empty() || is_empty_line(self.rest) {
            return None;
        }
        let (raw, rest) = self.rest.split_at(field_len(self.rest));
        self.rest = rest;
        Some(split_field(raw))
    }
}

/// Whether an empty line stands at the start.
pub(crate) fn is_empty_line(data: &[u8]) -> bool {
    data.starts_with(b"\r\n") || data.starts_with(b"\n")
}

/// The length of the line at the start, with its line end.
pub(crate) fn line_len(data: &[u8]) -> usize {
    memchr::memchr(b'\n', data).map_or(data.len(), |at| at + 1)
}

/// The length of the field at the start, with its folded lines (RFC 5322 2.2.3).
fn field_len(data: &[u8]) -> usize {
    let mut len = 0;
    loop {
        len += line_len(data.get(len..).unwrap_or_default());
        match data.get(len) {
            Some(b' ' | b'\t') => {}
            _ => return len,
        }
    }
}

/// Splits a field's octets at the colon.
pub(crate) fn split_field(raw: &[u8]) -> Field<'_> {
    let (name, value) = match memchr::memchr2(b':', b'\n', raw) {
        Some(at) if raw.get(at) == Some(&b':') => raw.split_at(at),
        _ => {
            return Field {
                name: b"",
                value: raw.trim_ascii(),
                raw,
            };
        }
    };
    let value = value.get(1..).unwrap_or_default();
    let value = value.strip_suffix(b"\n").unwrap_or(value);
    let value = value.strip_suffix(b"\r").unwrap_or(value);
    Field {
        // RFC 5322 4.5: white space before the colon is obsolete, but it occurs.
        name: name.trim_ascii_end(),
        value: value.trim_ascii_start(),
        raw,
    }
}

/// Where a field stands: a hash of its name and its length. The fields stand without gaps, so the starts follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FieldSpan {
    hash: u16,
    len: u32,
}

impl FieldSpan {
    pub(crate) fn of(field: &Field<'_>) -> Self {
        Self {
            hash: name_hash(field.name),
            len: u32::try_from(field.raw.len()).unwrap_or(u32::MAX),
        }
    }
}

/// FNV-1a of the name in lower case, folded. Collisions cost a comparison, nothing else.
fn name_hash(name: &[u8]) -> u16 {
    let hash = name.iter().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0193)
    });
    ((hash >> 16) ^ (hash & 0xffff)) as u16
}

/// Which fields the header has and where, by hashes of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderIndex {
    pub(crate) spans: Vec<FieldSpan>,
    /// Whether it covers the whole header ([`crate::Limits::header_bytes`]).
    pub(crate) complete: bool,
}

impl HeaderIndex {
    /// Whether a field of that name may be there. `false` is certain.
    pub fn may_have(&self, name: &[u8]) -> bool {
        let hash = name_hash(name);
        !self.complete || self.spans.iter().any(|span| span.hash == hash)
    }

    /// The offsets, in the message, of the fields that may have that name; compare the name there. `None` if the index does
    /// not cover the header: then read it with [`Fields`].
    pub fn find(&self, name: &[u8]) -> Option<Vec<std::ops::Range<u64>>> {
        if !self.complete {
            return None;
        }
        let hash = name_hash(name);
        let mut start = 0_u64;
        let mut found = Vec::new();
        for span in &self.spans {
            let end = start + u64::from(span.len);
            if span.hash == hash {
                found.push(start..end);
            }
            start = end;
        }
        Some(found)
    }

    /// Takes up fields that stand before those it has.
    pub(crate) fn prepend(&mut self, fields: &[u8]) {
        let spans = Fields::new(fields).map(|field| FieldSpan::of(&field));
        self.spans.splice(0..0, spans);
    }

    /// How many fields it knows.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether the message has no header field.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }
}

/// Whether one of `names` is this field's name (RFC 5322 1.2.2: in any case).
pub fn is_named(field: &[u8], names: &[impl AsRef<[u8]>]) -> bool {
    names
        .iter()
        .any(|name| name.as_ref().eq_ignore_ascii_case(field))
}

/// The fields of `header` with one of `names`, in their order there, and the empty line: BODY[HEADER.FIELDS (...)]
/// (RFC 9051 6.4.5.1). With `not`, the fields with other names: HEADER.FIELDS.NOT.
pub fn select_fields(header: &[u8], names: &[impl AsRef<[u8]>], not: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let mut fields = Fields::new(header);
    for field in fields.by_ref() {
        if is_named(field.name, names) != not {
            out.extend_from_slice(field.raw);
        }
    }
    // A header that breaks off in the middle of a line is shown with the line completed.
    if !out.is_empty() && !out.ends_with(b"\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// The fields with one of `names`: of the listing, and those of the prefix that no listing has.
pub(crate) fn select_from(prefix: &[u8], listing: &[u8], names: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let wanted = |field: &Field<'_>| is_named(field.name, names);
    let mut out = Vec::with_capacity(listing.len() + 2);
    for field in Fields::new(prefix).filter(wanted) {
        if !is_listing_field(field.name) {
            out.extend_from_slice(field.raw);
        }
    }
    for field in Fields::new(listing).filter(wanted) {
        out.extend_from_slice(field.raw);
    }
    if !out.is_empty() && !out.ends_with(b"\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// The fields that clients ask for when they show a list, sort it or thread it: their lines are kept beside the message, so
/// that such a request never opens the body. In lower case.
pub(crate) fn is_listing_field(name: &[u8]) -> bool {
    let mut lower = [0_u8; 28];
    let Some(buffer) = lower.get_mut(..name.len()) else {
        return false;
    };
    buffer.copy_from_slice(name);
    buffer.make_ascii_lowercase();
    matches!(
        &*buffer,
        b"date"
            | b"subject"
            | b"from"
            | b"sender"
            | b"reply-to"
            | b"to"
            | b"cc"
            | b"bcc"
            | b"message-id"
            | b"in-reply-to"
            | b"references"
            | b"content-type"
            | b"content-transfer-encoding"
            | b"content-description"
            | b"newsgroups"
            | b"priority"
            | b"x-priority"
            | b"importance"
            | b"x-label"
            | b"lines"
            | b"list-id"
            | b"list-post"
            | b"list-subscribe"
            | b"list-unsubscribe"
            | b"auto-submitted"
            | b"disposition-notification-to"
            | b"x-draft-info"
            | b"x-spam-flag"
            | b"x-spam-score"
            | b"x-spam-status"
    )
}
