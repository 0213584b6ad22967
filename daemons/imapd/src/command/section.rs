//! Items of FETCH that show the message itself: which octets they mean, and how they get to the client without all being in
//! memory at once.

use super::fetch::separate;
use crate::session::{End, Refused, Session};
use imap::{FetchItem, Partial, Section, SectionText, put};
use message::{Encoding, Parsed, PartKind};
use std::borrow::Cow;
use std::ops::Range;
use store::{Content, ContentBody};
use tokio::io::{AsyncRead, AsyncWrite};

/// How much of a message the items of a FETCH need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    /// What the view knows.
    View,
    /// What is stored beside the message.
    Described,
    /// That, if it has the header fields asked for; otherwise the message.
    Listed,
    /// The message.
    Text,
}

fn listed_names(item: &FetchItem) -> Option<&[String]> {
    match item {
        FetchItem::Section { section, .. } if section.path.is_empty() => match &section.text {
            SectionText::Fields { names, not: false } => Some(names),
            _ => None,
        },
        _ => None,
    }
}

/// What the items need at most.
pub(super) fn need(items: &[FetchItem]) -> Need {
    let of = |item: &FetchItem| match item {
        FetchItem::Envelope | FetchItem::Body | FetchItem::BodyStructure | FetchItem::Preview => {
            Need::Described
        }
        item if listed_names(item).is_some() => Need::Listed,
        FetchItem::Section { .. } | FetchItem::Binary { .. } | FetchItem::BinarySize { .. } => {
            Need::Text
        }
        _ => Need::View,
    };
    items.iter().map(of).max().unwrap_or(Need::View)
}

/// Header fields that the description answers alone, one for each item that asks; `None` if it cannot answer them all.
pub(super) fn listed(items: &[FetchItem], content: &Content) -> Option<Vec<Vec<u8>>> {
    items
        .iter()
        .filter_map(listed_names)
        .map(|names| {
            message::stored::select_listed(&content.parsed, &content.prefix, names)
                .ok()
                .flatten()
        })
        .collect()
}

/// A message in the form in which its sections are found.
struct Text<'c> {
    content: &'c Content,
    parsed: Option<Parsed>,
}

/// The stored form of a message is not what it should be.
#[derive(Debug)]
struct Damaged;

impl Text<'_> {
    fn len(&self) -> Result<u64, Damaged> {
        let body = match &self.content.body {
            ContentBody::Octets(octets) => octets.len() as u64,
            ContentBody::Outside { len, .. } => *len,
            ContentBody::None => return Err(Damaged),
        };
        Ok(self.content.prefix.len() as u64 + body)
    }

    fn parsed(&mut self) -> Result<&Parsed, Damaged> {
        if self.parsed.is_none() {
            let mut parsed = Parsed::decode(&self.content.parsed).map_err(|_| Damaged)?;
            parsed.prepend(&self.content.prefix);
            self.parsed = Some(parsed);
        }
        self.parsed.as_ref().ok_or(Damaged)
    }

    /// Where a section lies; `None` if there is none.
    fn locate(&mut self, section: &Section) -> Result<Option<Range<u64>>, Damaged> {
        use message::SectionText as Kind;
        let kind = match &section.text {
            // The whole message needs no description.
            SectionText::Content if section.path.is_empty() => return Ok(Some(0..self.len()?)),
            SectionText::Content => Kind::Content,
            SectionText::Header | SectionText::Fields { .. } => Kind::Header,
            SectionText::Text => Kind::Text,
            SectionText::Mime => Kind::Mime,
        };
        let whole = self.len()?;
        let found = message::locate(&self.parsed()?.parts, &section.path, kind);
        Ok(found.map(|range| range.start.min(whole)..range.end.min(whole)))
    }

    /// Where a part's content lies and how it is encoded.
    fn part(&mut self, path: &[u32]) -> Result<Option<(Range<u64>, Encoding)>, Damaged> {
        let section = Section {
            path: path.to_vec(),
            text: SectionText::Content,
        };
        let Some(range) = self.locate(&section)? else {
            return Ok(None);
        };
        let encoding = match message::find_part(&self.parsed()?.parts, path) {
            Some(part) if !path.is_empty() && part.kind == PartKind::Single => part.encoding,
            _ => Encoding::Binary,
        };
        Ok(Some((range, encoding)))
    }
}

/// `range`, as far as it lies in `start..start + octets.len()`.
fn overlap<'o>(octets: &'o [u8], start: u64, range: &Range<u64>) -> &'o [u8] {
    let at = |position: u64| {
        usize::try_from(position.saturating_sub(start))
            .unwrap_or(usize::MAX)
            .min(octets.len())
    };
    octets
        .get(at(range.start)..at(range.end))
        .unwrap_or_default()
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    /// Appends all items that the view does not know. `listed` are the fields from [`listed`], if they were found there.
    /// `Ok(false)`: a part's encoding is unknown, and NIL stands for it.
    pub(super) async fn put_message(
        &mut self,
        first: &mut bool,
        items: &[FetchItem],
        content: &Content,
        listed: Option<Vec<Vec<u8>>>,
    ) -> Result<bool, Refused> {
        let mut text = Text {
            content,
            parsed: None,
        };
        let mut listed = listed.map(Vec::into_iter);
        let mut known = true;
        for item in items {
            match item {
                FetchItem::Envelope | FetchItem::Body | FetchItem::BodyStructure => {
                    separate(&mut self.out, first);
                    put_description(&mut self.out, item, content)
                        .map_err(|_| self.damaged(content))?;
                }
                FetchItem::Preview => {
                    separate(&mut self.out, first);
                    // RFC 8970 3.1: never more than 256 characters; empty if there is no text
                    let parsed = text.parsed().map_err(|_| self.damaged(content))?;
                    put::text(&mut self.out, "PREVIEW ");
                    let preview = parsed.preview.as_bytes();
                    put::quoted_or_literal(&mut self.out, preview, self.rev2 || self.utf8);
                }
                FetchItem::Section {
                    section,
                    partial,
                    label,
                    ..
                } => {
                    separate(&mut self.out, first);
                    self.out.extend_from_slice(label);
                    self.out.push(b' ');
                    let lines = listed_names(item).and_then(|_| listed.as_mut()?.next());
                    self.put_section(&mut text, section, *partial, lines)
                        .await?;
                }
                FetchItem::Binary {
                    path,
                    partial,
                    label,
                    ..
                } => {
                    separate(&mut self.out, first);
                    self.out.extend_from_slice(label);
                    self.out.push(b' ');
                    known &= self.put_binary(&mut text, path, *partial).await?;
                }
                FetchItem::BinarySize { path, label } => {
                    separate(&mut self.out, first);
                    self.out.extend_from_slice(label);
                    self.out.push(b' ');
                    let decoded = self.decoded(&mut text, path).await?;
                    known &= !matches!(decoded, Some(None));
                    put::number(
                        &mut self.out,
                        decoded.flatten().map_or(0, |octets| octets.len() as u64),
                    );
                }
                _ => {}
            }
        }
        Ok(known)
    }

    /// What a response has begun with cannot be taken back: the session ends.
    fn damaged(&mut self, content: &Content) -> Refused {
        tracing::error!(trace = %self.trace, content = %content.id, "a stored message is damaged");
        Refused::End(End::Damaged)
    }

    async fn put_section(
        &mut self,
        text: &mut Text<'_>,
        section: &Section,
        partial: Option<Partial>,
        listed: Option<Vec<u8>>,
    ) -> Result<(), Refused> {
        if let Some(lines) = listed {
            put::literal(&mut self.out, cut(&lines, partial));
            return Ok(());
        }
        let Some(range) = text
            .locate(section)
            .map_err(|_| self.damaged(text.content))?
        else {
            put::text(&mut self.out, "NIL");
            return Ok(());
        };
        if let SectionText::Fields { names, not } = &section.text {
            let header = self.octets(text.content, range).await?;
            let lines = message::select_fields(&header, names, *not);
            put::literal(&mut self.out, cut(&lines, partial));
            return Ok(());
        }
        let range = partial.map_or(range.clone(), |partial| partial.of(range));
        put::literal_head(&mut self.out, range.end - range.start);
        self.put_range(text.content, range).await
    }

    /// The octets of a section, for another message; `None` if there is no such part.
    pub(super) async fn section_octets(
        &mut self,
        content: &Content,
        section: &Section,
        partial: Option<Partial>,
    ) -> Result<Option<Vec<u8>>, Refused> {
        let mut text = Text {
            content,
            parsed: None,
        };
        let located = text.locate(section).map_err(|_| self.damaged(content))?;
        let Some(range) = located else {
            return Ok(None);
        };
        if let SectionText::Fields { names, not } = &section.text {
            let header = self.octets(content, range).await?;
            let lines = message::select_fields(&header, names, *not);
            return Ok(Some(cut(&lines, partial).to_vec()));
        }
        let range = partial.map_or(range.clone(), |partial| partial.of(range));
        Ok(Some(self.octets(content, range).await?.into_owned()))
    }

    /// The outer `None`: no such part. The inner one: its encoding is unknown.
    async fn decoded(
        &mut self,
        text: &mut Text<'_>,
        path: &[u32],
    ) -> Result<Option<Option<Vec<u8>>>, Refused> {
        let Some((range, encoding)) = text.part(path).map_err(|_| self.damaged(text.content))?
        else {
            return Ok(None);
        };
        let octets = self.octets(text.content, range).await?;
        Ok(Some(encoding.decode(&octets, usize::MAX)))
    }

    async fn put_binary(
        &mut self,
        text: &mut Text<'_>,
        path: &[u32],
        partial: Option<Partial>,
    ) -> Result<bool, Refused> {
        let decoded = self.decoded(text, path).await?;
        match decoded
            .as_ref()
            .and_then(Option::as_ref)
            .map(|octets| cut(octets, partial))
        {
            Some(octets) => {
                // RFC 9051 4.3: only literal8 holds NUL
                match octets.contains(&0) {
                    true => put::literal8_head(&mut self.out, octets.len() as u64),
                    false => put::literal_head(&mut self.out, octets.len() as u64),
                }
                self.put_slices(octets).await?;
            }
            None => put::text(&mut self.out, "NIL"),
        }
        Ok(!matches!(decoded, Some(None)))
    }

    /// Octets of prefix and body together, in one piece.
    async fn octets<'c>(
        &mut self,
        content: &'c Content,
        range: Range<u64>,
    ) -> Result<Cow<'c, [u8]>, Refused> {
        let prefix = overlap(&content.prefix, 0, &range);
        let start = content.prefix.len() as u64;
        let body = match &content.body {
            ContentBody::Octets(octets) => Cow::Borrowed(overlap(octets, start, &range)),
            ContentBody::Outside { .. } => Cow::Owned(self.outside(content, &range).await?),
            ContentBody::None => return Err(self.damaged(content)),
        };
        if prefix.is_empty() {
            return Ok(body);
        }
        let mut whole = Vec::with_capacity(prefix.len() + body.len());
        whole.extend_from_slice(prefix);
        whole.extend_from_slice(&body);
        Ok(Cow::Owned(whole))
    }

    /// The part of a body outside of the database that lies in `range` of prefix and body.
    async fn outside(&mut self, content: &Content, range: &Range<u64>) -> Result<Vec<u8>, Refused> {
        let ContentBody::Outside { blob, len } = &content.body else {
            return Err(self.damaged(content));
        };
        let start = content.prefix.len() as u64;
        let part =
            range.start.saturating_sub(start).min(*len)..range.end.saturating_sub(start).min(*len);
        if part.is_empty() {
            return Ok(Vec::new());
        }
        let expected = part.end - part.start;
        let read = match part == (0..*len) {
            true => self.service.reader.body(*blob).await,
            false => self.service.reader.body_range(*blob, part).await,
        };
        match read {
            Ok(octets) if octets.len() as u64 == expected => Ok(octets),
            Ok(_) => Err(self.damaged(content)),
            Err(error) => {
                tracing::error!(trace = %self.trace, %error, "a body cannot be read");
                Err(self.damaged(content))
            }
        }
    }

    /// Sends octets of prefix and body together.
    async fn put_range(&mut self, content: &Content, range: Range<u64>) -> Result<(), Refused> {
        self.put_slices(overlap(&content.prefix, 0, &range)).await?;
        let start = content.prefix.len() as u64;
        match &content.body {
            ContentBody::Octets(octets) => self.put_slices(overlap(octets, start, &range)).await,
            ContentBody::Outside { .. } => {
                let _room = self.room(range.end - range.start).await;
                let octets = self.outside(content, &range).await?;
                self.put_slices(&octets).await
            }
            ContentBody::None => Err(self.damaged(content)),
        }
    }

    /// Through the output buffer in pieces, so that it stays small.
    async fn put_slices(&mut self, octets: &[u8]) -> Result<(), Refused> {
        for piece in octets.chunks(64 * 1024) {
            self.out.extend_from_slice(piece);
            self.flush_if_full().await?;
        }
        Ok(())
    }
}

fn put_description(
    out: &mut Vec<u8>,
    item: &FetchItem,
    content: &Content,
) -> Result<(), message::stored::StoredError> {
    match item {
        FetchItem::Envelope => {
            put::text(out, "ENVELOPE ");
            out.extend_from_slice(message::stored::envelope(&content.parsed)?);
        }
        FetchItem::BodyStructure => {
            put::text(out, "BODYSTRUCTURE ");
            out.extend_from_slice(message::stored::structure(&content.parsed)?);
        }
        _ => {
            put::text(out, "BODY ");
            let structure = message::stored::structure(&content.parsed)?;
            let body = message::body_of(structure).ok_or(message::stored::StoredError::Damaged)?;
            out.extend_from_slice(&body);
        }
    }
    Ok(())
}

fn cut(octets: &[u8], partial: Option<Partial>) -> &[u8] {
    match partial {
        None => octets,
        Some(partial) => overlap(octets, 0, &partial.of(0..octets.len() as u64)),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn items(text: &str) -> Vec<FetchItem> {
        let line = format!("a FETCH 1 {text}");
        match imap::parse(line.as_bytes(), imap::Names::Utf8)
            .unwrap()
            .command
        {
            imap::Command::Fetch(fetch) => fetch.items,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn no_more_is_read_than_is_needed() {
        for (text, expected) in [
            ("(UID FLAGS INTERNALDATE RFC822.SIZE)", Need::View),
            ("FULL", Need::Described),
            ("BODY.PEEK[HEADER.FIELDS (SUBJECT X-FOO)]", Need::Listed),
            ("(ENVELOPE BODY[HEADER])", Need::Text),
            ("BODY[HEADER.FIELDS.NOT (SUBJECT)]", Need::Text),
            ("BODY[1.HEADER.FIELDS (SUBJECT)]", Need::Text),
            ("BINARY.SIZE[1]", Need::Text),
        ] {
            assert_eq!(need(&items(text)), expected, "{text}");
        }
    }

    #[test]
    fn prefix_and_body_are_one() {
        let octets = b"0123456789";
        assert_eq!(overlap(octets, 0, &(2..4)), b"23");
        assert_eq!(overlap(octets, 100, &(98..103)), b"012");
        assert_eq!(overlap(octets, 100, &(0..100)), b"");
        assert_eq!(overlap(octets, 100, &(105..999)), b"56789");
        let partial = Partial { first: 8, count: 5 };
        assert_eq!(cut(octets, Some(partial)), b"89");
    }

    #[test]
    fn fields_come_from_the_description_or_the_message() {
        let prefix = b"Received: by x\r\n";
        let message = b"Subject: hi\r\nX-Foo: bar\r\n\r\nbody\r\n";
        let parsed = message::parse(prefix, message, &message::Limits::default());
        let content = Content {
            prefix: prefix.to_vec(),
            parsed: parsed.encode(),
            ..Content::default()
        };
        let one = listed(
            &items("(FLAGS BODY[HEADER.FIELDS (Subject X-Absent)])"),
            &content,
        )
        .unwrap();
        assert_eq!(one, [b"Subject: hi\r\n\r\n"]);
        assert!(listed(&items("BODY[HEADER.FIELDS (X-Foo)]"), &content).is_none());
        let mut text = Text {
            content: &content,
            parsed: None,
        };
        assert!(text.len().is_err());
        let whole = Content {
            body: ContentBody::Octets(message.to_vec()),
            ..content.clone()
        };
        text.content = &whole;
        let section = |path: &[u32], text| Section {
            path: path.to_vec(),
            text,
        };
        assert_eq!(
            text.locate(&section(&[], SectionText::Header)).unwrap(),
            Some(0..43)
        );
        assert_eq!(
            text.locate(&section(&[], SectionText::Text)).unwrap(),
            Some(43..49)
        );
        assert_eq!(
            text.locate(&section(&[1], SectionText::Content)).unwrap(),
            Some(43..49)
        );
        assert_eq!(
            text.locate(&section(&[2], SectionText::Content)).unwrap(),
            None
        );
    }
}
