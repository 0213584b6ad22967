//! The structure of a message (RFC 2046): one pass over the lines, parts found by their boundaries, offsets kept.
//!
//! Nesting is a stack, not recursion, so that no message can exhaust the machine's. A boundary is looked for among those
//! of all open multiparts, the longest match wins, and only the beginning of the line has to match (RFC 2046 5.1.1); its
//! line end belongs to it, not to the part before.

use crate::Limits;
use crate::header::{
    Field, FieldSpan, HeaderIndex, is_empty_line, is_listing_field, line_len, split_field,
};
use crate::media::{self, ContentType};
use crate::transfer::Encoding;
use serde::{Deserialize, Serialize};

/// What is below a part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PartKind {
    /// Content.
    #[default]
    Single,
    /// Its children are parts.
    Multipart,
    /// message/rfc822 or message/global: its one child is a message.
    Message,
}

/// One part, in the order of the message; the parts below it follow it. All offsets count from the start
/// of the body; after [`crate::Parsed::prepend`], from the start of the message as clients see it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Where its header starts.
    pub header: u64,
    /// Where its content starts: behind the empty line.
    pub body: u64,
    /// Where its content ends.
    pub end: u64,
    /// Line ends in its content.
    pub lines: u32,
    /// How many parts are below it, at all depths: they are the next ones in the list.
    pub below: u32,
    /// What they are.
    pub kind: PartKind,
    /// How its content is encoded.
    pub encoding: Encoding,
    /// `type/subtype` in lower case.
    pub media: String,
    /// The charset as declared, in lower case; empty if none is.
    pub charset: String,
    /// Content-Disposition's type in lower case; empty if there is none.
    pub disposition: String,
    /// The file name, decoded; empty if there is none.
    pub name: String,
}

impl Part {
    /// Octets of its content, still encoded.
    pub fn len(&self) -> u64 {
        self.end.saturating_sub(self.body)
    }

    /// Whether it has no content.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is text of any kind.
    pub fn is_text(&self) -> bool {
        self.kind == PartKind::Single && self.media.starts_with("text/")
    }
}

/// The fields of a part's header that BODYSTRUCTURE shows, as they stand there.
#[derive(Default)]
pub(crate) struct MimeFields<'a> {
    pub(crate) content_type: Option<ContentType>,
    has_content_type: bool,
    pub(crate) encoding: Option<&'a [u8]>,
    pub(crate) id: Option<&'a [u8]>,
    pub(crate) description: Option<&'a [u8]>,
    pub(crate) disposition: Option<&'a [u8]>,
    pub(crate) language: Option<&'a [u8]>,
    pub(crate) location: Option<&'a [u8]>,
    pub(crate) md5: Option<&'a [u8]>,
    /// Only where a message starts.
    pub(crate) envelope: Option<Box<EnvelopeFields<'a>>>,
}

/// The fields of ENVELOPE, and References.
#[derive(Default)]
pub(crate) struct EnvelopeFields<'a> {
    pub(crate) date: Option<&'a [u8]>,
    pub(crate) subject: Option<&'a [u8]>,
    pub(crate) from: Vec<&'a [u8]>,
    pub(crate) sender: Vec<&'a [u8]>,
    pub(crate) reply_to: Vec<&'a [u8]>,
    pub(crate) to: Vec<&'a [u8]>,
    pub(crate) cc: Vec<&'a [u8]>,
    pub(crate) bcc: Vec<&'a [u8]>,
    pub(crate) in_reply_to: Option<&'a [u8]>,
    pub(crate) message_id: Option<&'a [u8]>,
    pub(crate) references: Option<&'a [u8]>,
}

impl<'a> MimeFields<'a> {
    fn note(&mut self, field: &Field<'a>) {
        let mut lower = [0_u8; 25];
        let Some(name) = lower.get_mut(..field.name.len()) else {
            return;
        };
        name.copy_from_slice(field.name);
        name.make_ascii_lowercase();
        let value = field.value;
        match &*name {
            b"content-type" if !self.has_content_type => {
                self.has_content_type = true;
                self.content_type = ContentType::parse(value);
            }
            b"content-transfer-encoding" => self.encoding = Some(value),
            b"content-id" => self.id = Some(value),
            b"content-description" => self.description = Some(value),
            b"content-disposition" => self.disposition = Some(value),
            b"content-language" => self.language = Some(value),
            b"content-location" => self.location = Some(value),
            b"content-md5" => self.md5 = Some(value),
            other => {
                if let Some(envelope) = &mut self.envelope {
                    envelope.note(other, value);
                }
            }
        }
    }
}

impl<'a> EnvelopeFields<'a> {
    fn note(&mut self, name: &[u8], value: &'a [u8]) {
        match name {
            b"date" => self.date = Some(value),
            b"subject" => self.subject = Some(value),
            b"from" => self.from.push(value),
            b"sender" => self.sender.push(value),
            b"reply-to" => self.reply_to.push(value),
            b"to" => self.to.push(value),
            b"cc" => self.cc.push(value),
            b"bcc" => self.bcc.push(value),
            b"in-reply-to" => self.in_reply_to = Some(value),
            b"message-id" => self.message_id = Some(value),
            b"references" => self.references = Some(value),
            _ => {}
        }
    }
}

/// What one pass over a message finds.
pub(crate) struct Scan<'a> {
    pub(crate) parts: Vec<Part>,
    pub(crate) fields: Vec<MimeFields<'a>>,
    pub(crate) index: HeaderIndex,
    /// The raw lines of the fields that clients list with.
    pub(crate) listing: Vec<u8>,
    pub(crate) listing_complete: bool,
}

/// A multipart whose boundary still counts.
struct Live {
    boundary: Vec<u8>,
    part: usize,
}

/// A boundary line.
struct Hit {
    /// Which of the live multiparts.
    live: usize,
    /// `--boundary--`
    closing: bool,
    /// Where its line starts.
    start: usize,
    /// Line ends before it.
    lines: u64,
}

struct Scanner<'a, 'l> {
    data: &'a [u8],
    pos: usize,
    /// Line ends before `pos`.
    lines: u64,
    /// For each part: `lines` where its content starts.
    lines_before: Vec<u64>,
    open: Vec<usize>,
    live: Vec<Live>,
    limits: &'l Limits,
    found: Scan<'a>,
}

/// Finds the parts of `body`. Of the header lines in `prefix`, which stand before it, the values count, but no offset does.
pub(crate) fn scan<'a>(prefix: &'a [u8], body: &'a [u8], limits: &Limits) -> Scan<'a> {
    let mut scanner = Scanner {
        data: body,
        pos: 0,
        lines: 0,
        lines_before: Vec::new(),
        open: Vec::new(),
        live: Vec::new(),
        limits,
        found: Scan {
            parts: Vec::new(),
            fields: Vec::new(),
            index: HeaderIndex {
                spans: Vec::new(),
                complete: true,
            },
            listing: Vec::new(),
            listing_complete: true,
        },
    };
    scanner.add_part(true);
    for field in crate::header::Fields::new(prefix) {
        scanner.note_value(&field, true);
    }
    scanner.run();
    scanner.found
}

impl<'a> Scanner<'a, '_> {
    fn offset(&self, at: usize) -> u64 {
        at as u64
    }

    fn rest(&self) -> &'a [u8] {
        self.data.get(self.pos..).unwrap_or_default()
    }

    fn add_part(&mut self, is_message: bool) {
        self.found.parts.push(Part {
            header: self.offset(self.pos),
            ..Part::default()
        });
        self.found.fields.push(MimeFields {
            envelope: is_message.then(Box::default),
            ..MimeFields::default()
        });
        self.lines_before.push(0);
        if self.found.parts.len() >= self.limits.parts {
            // The rest is one part, whatever is in it.
            self.live.clear();
        }
    }

    fn run(&mut self) {
        let mut digest = false;
        loop {
            self.read_header();
            let part = self.found.parts.len() - 1;
            let boundary = self.classify(part, digest);
            self.open.push(part);
            match self.found.parts.get(part).map(|part| part.kind) {
                Some(PartKind::Message) => {
                    digest = false;
                    self.add_part(true);
                    continue;
                }
                Some(PartKind::Multipart) => self.live.push(Live { boundary, part }),
                _ => {}
            }
            let Some(hit) = self.next_sibling() else {
                return;
            };
            digest = self
                .live
                .get(hit)
                .and_then(|live| self.found.fields.get(live.part))
                .and_then(|fields| fields.content_type.as_ref())
                .is_some_and(|media| media.is("multipart", "digest"));
            self.add_part(false);
        }
    }

    /// Passes content up to the next part and closes what ends before it; `None` at the end of the message.
    fn next_sibling(&mut self) -> Option<usize> {
        loop {
            let Some(hit) = self.seek_boundary() else {
                self.close_above(None, self.data.len(), self.lines);
                return None;
            };
            let multipart = self.live.get(hit.live).map(|live| live.part);
            // RFC 2046 5.1.1: the line end before the boundary belongs to the boundary.
            let before = self.data.get(..hit.start).unwrap_or_default();
            let (end, lines) = if before.ends_with(b"\r\n") {
                (hit.start - 2, hit.lines - 1)
            } else if before.ends_with(b"\n") {
                (hit.start - 1, hit.lines - 1)
            } else {
                (hit.start, hit.lines)
            };
            self.close_above(multipart, end, lines);
            if hit.closing {
                // What follows is the epilogue, up to a boundary of those around it.
                self.live.truncate(hit.live);
            } else {
                self.live.truncate(hit.live + 1);
                return Some(hit.live);
            }
        }
    }

    /// Ends the open parts that are inside `part` (all, if there is none).
    fn close_above(&mut self, part: Option<usize>, end: usize, lines: u64) {
        let last = self.found.parts.len() - 1;
        let mut end = end as u64;
        while let Some(top) = self.open.last().copied() {
            if Some(top) == part {
                return;
            }
            self.open.pop();
            let before = self.lines_before.get(top).copied().unwrap_or_default();
            if let Some(part) = self.found.parts.get_mut(top) {
                // A header cut short by the boundary lies behind the line end that belongs to the boundary.
                end = end.max(part.body);
                part.end = end;
                part.lines = u32::try_from(lines.saturating_sub(before)).unwrap_or(u32::MAX);
                part.below = u32::try_from(last - top).unwrap_or(u32::MAX);
            }
        }
    }

    /// Reads the header of the last part. It ends at the empty line, at the end of the message, or at a boundary.
    fn read_header(&mut self) {
        let part = self.found.parts.len() - 1;
        let is_root = part == 0;
        let start = self.pos;
        loop {
            let rest = self.rest();
            if rest.is_empty() {
                break;
            }
            if is_empty_line(rest) {
                self.pass_line(rest);
                break;
            }
            if rest.starts_with(b"--") && self.boundary_at(rest).is_some() {
                break;
            }
            let field_start = self.pos;
            self.pass_line(rest);
            while matches!(self.rest().first(), Some(b' ' | b'\t')) {
                let rest = self.rest();
                self.pass_line(rest);
            }
            let raw = self.data.get(field_start..self.pos).unwrap_or_default();
            self.note_field(&split_field(raw), is_root, self.pos - start);
        }
        let body = self.offset(self.pos);
        if let Some(part) = self.found.parts.last_mut() {
            part.body = body;
            part.end = body;
        }
        if let Some(before) = self.lines_before.last_mut() {
            *before = self.lines;
        }
    }

    fn pass_line(&mut self, rest: &[u8]) {
        let len = line_len(rest);
        self.pos += len;
        if rest.get(len.wrapping_sub(1)) == Some(&b'\n') {
            self.lines += 1;
        }
    }

    fn note_field(&mut self, field: &Field<'a>, is_root: bool, header_len: usize) {
        if header_len > self.limits.header_bytes {
            if is_root {
                self.found.index.complete = false;
                self.found.listing_complete = false;
            }
            return;
        }
        self.note_value(field, is_root);
        if is_root {
            if self.found.index.spans.len() < self.limits.fields {
                self.found.index.spans.push(FieldSpan::of(field));
            } else {
                self.found.index.complete = false;
            }
        }
    }

    fn note_value(&mut self, field: &Field<'a>, is_root: bool) {
        if let Some(fields) = self.found.fields.last_mut() {
            fields.note(field);
        }
        if is_root && is_listing_field(field.name) {
            if self.found.listing.len() + field.raw.len() <= self.limits.listing_bytes {
                self.found.listing.extend_from_slice(field.raw);
            } else {
                self.found.listing_complete = false;
            }
        }
    }

    /// Decides what the part is from its header; the boundary if it is a multipart.
    fn classify(&mut self, index: usize, digest: bool) -> Vec<u8> {
        let may_nest = self.open.len() + 1 < self.limits.depth.min(Limits::DEPTH_MAX)
            && self.found.parts.len() < self.limits.parts;
        let (Some(part), Some(fields)) = (
            self.found.parts.get_mut(index),
            self.found.fields.get(index),
        ) else {
            return Vec::new();
        };
        part.encoding = fields
            .encoding
            .and_then(media::encoding_token)
            .map(|token| Encoding::of(&token))
            .unwrap_or_default();
        let mut boundary = Vec::new();
        match &fields.content_type {
            // RFC 2046 5.1.5: in a digest, messages are what goes without saying.
            None if digest => {
                "message/rfc822".clone_into(&mut part.media);
                part.kind = PartKind::Message;
            }
            None => "text/plain".clone_into(&mut part.media),
            Some(media) => {
                part.media = lossy_lower(&media.main);
                part.media.push('/');
                part.media.push_str(&lossy_lower(&media.sub));
                part.charset = media
                    .parameter("charset")
                    .map(lossy_lower)
                    .unwrap_or_default();
                // RFC 6532 3.7: message/global is what message/rfc822 is.
                if media.is("message", "rfc822") || media.is("message", "global") {
                    part.kind = PartKind::Message;
                } else if media.is_main("multipart")
                    && let Some(found) = media.parameter("boundary")
                    && !found.is_empty()
                {
                    part.kind = PartKind::Multipart;
                    boundary = found.get(..256).unwrap_or(found).to_vec();
                }
            }
        }
        if !may_nest {
            part.kind = PartKind::Single;
        }
        part_name(part, fields);
        boundary
    }

    /// Finds the next line that is a boundary of a live multipart, and passes it.
    fn seek_boundary(&mut self) -> Option<Hit> {
        if self.live.is_empty() {
            let rest = self.rest();
            self.lines += memchr::memchr_iter(b'\n', rest).count() as u64;
            self.pos = self.data.len();
            return None;
        }
        loop {
            let rest = self.rest();
            if rest.is_empty() {
                return None;
            }
            let hit = if rest.starts_with(b"--") {
                self.boundary_at(rest)
            } else {
                None
            };
            let (start, lines) = (self.pos, self.lines);
            self.pass_line(rest);
            if let Some((live, closing)) = hit {
                return Some(Hit {
                    live,
                    closing,
                    start,
                    lines,
                });
            }
        }
    }

    /// Which live boundary stands at the start of this line, which begins with `--`.
    fn boundary_at(&self, line: &[u8]) -> Option<(usize, bool)> {
        let text = line.get(2..)?;
        let mut best: Option<usize> = None;
        for (index, live) in self.live.iter().enumerate().rev() {
            let longer = best
                .and_then(|best| self.live.get(best))
                .is_none_or(|best| best.boundary.len() < live.boundary.len());
            if longer && text.starts_with(&live.boundary) {
                best = Some(index);
            }
        }
        let best = best?;
        let behind = text.get(self.live.get(best)?.boundary.len()..)?;
        Some((best, behind.starts_with(b"--")))
    }
}

fn lossy_lower(text: &[u8]) -> String {
    String::from_utf8_lossy(text).to_ascii_lowercase()
}

/// Disposition and file name (RFC 2183 2.3; the `name` of Content-Type where that is missing).
fn part_name(part: &mut Part, fields: &MimeFields<'_>) {
    let mut name = None;
    if let Some((kind, parameters)) = fields.disposition.and_then(media::disposition) {
        part.disposition = lossy_lower(&kind);
        name = file_name(&parameters, "filename", "filename*");
    }
    if let (None, Some(media)) = (&name, &fields.content_type) {
        name = file_name(&media.parameters, "name", "name*");
    }
    part.name = name.unwrap_or_default();
}

fn file_name(parameters: &media::Parameters, plain: &str, extended: &str) -> Option<String> {
    let text = match media::parameter(parameters, extended) {
        Some(value) => media::extended_text(value),
        None => crate::charset::header_text(media::parameter(parameters, plain)?),
    };
    Some(text.chars().filter(|c| !c.is_control()).take(255).collect())
}
