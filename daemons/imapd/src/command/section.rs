//! Items of FETCH that show the message itself.

use super::fetch::separate;
use imap::{FetchItem, Partial, Section, SectionText, put};
use message::Parsed;
use store::{Content, ContentBody, Wanted};

/// The stored form of a message is not what it should be.
#[derive(Debug)]
pub(super) struct Damaged;

/// Whether fetching it makes the message seen.
pub(super) fn sets_seen(item: &FetchItem) -> bool {
    match item {
        FetchItem::Section { peek, .. } | FetchItem::Binary { peek, .. } => !peek,
        _ => false,
    }
}

/// HEADER.FIELDS of the message, which the stored description may answer alone.
fn listed(item: &FetchItem) -> bool {
    let FetchItem::Section {
        section:
            Section {
                path,
                text: SectionText::Fields { names, not: false },
            },
        ..
    } = item
    else {
        return false;
    };
    // The fields that the description always holds.
    const KEPT: [&str; 14] = [
        "from",
        "to",
        "cc",
        "bcc",
        "subject",
        "date",
        "message-id",
        "in-reply-to",
        "references",
        "reply-to",
        "sender",
        "content-type",
        "list-id",
        "x-priority",
    ];
    path.is_empty()
        && names
            .iter()
            .all(|name| KEPT.contains(&name.to_ascii_lowercase().as_str()))
}

/// What must be read from the store for these items.
pub(super) fn wanted(items: &[FetchItem]) -> Wanted {
    let mut wanted = Wanted::default();
    for item in items {
        match item {
            FetchItem::Envelope | FetchItem::Body | FetchItem::BodyStructure => {
                wanted.parsed = true
            }
            item if listed(item) => {
                wanted.parsed = true;
                wanted.prefix = true;
            }
            FetchItem::Section { .. } | FetchItem::Binary { .. } | FetchItem::BinarySize { .. } => {
                return Wanted {
                    prefix: true,
                    parsed: true,
                    body: true,
                };
            }
            _ => {}
        }
    }
    wanted
}

/// A message as a client sees it; made when an item needs it.
struct Whole {
    octets: Vec<u8>,
    parsed: Parsed,
}

impl Whole {
    fn of(content: &Content) -> Result<Self, Damaged> {
        let ContentBody::Octets(body) = &content.body else {
            return Err(Damaged);
        };
        let mut parsed = Parsed::decode(&content.parsed).map_err(|_| Damaged)?;
        parsed.prepend(&content.prefix);
        let mut octets = Vec::with_capacity(content.prefix.len() + body.len());
        octets.extend_from_slice(&content.prefix);
        octets.extend_from_slice(body);
        Ok(Self { octets, parsed })
    }

    fn slice(&self, range: std::ops::Range<u64>) -> &[u8] {
        let end = usize::try_from(range.end)
            .unwrap_or(usize::MAX)
            .min(self.octets.len());
        let start = usize::try_from(range.start).unwrap_or(usize::MAX).min(end);
        self.octets.get(start..end).unwrap_or_default()
    }

    fn section(&self, section: &Section) -> Option<std::borrow::Cow<'_, [u8]>> {
        use message::SectionText as Text;
        let locate = |text| {
            message::locate(&self.parsed.parts, &section.path, text).map(|range| self.slice(range))
        };
        Some(match &section.text {
            SectionText::Content => locate(Text::Content)?.into(),
            SectionText::Header => locate(Text::Header)?.into(),
            SectionText::Text => locate(Text::Text)?.into(),
            SectionText::Mime => locate(Text::Mime)?.into(),
            SectionText::Fields { names, not } => {
                message::select_fields(locate(Text::Header)?, names, *not).into()
            }
        })
    }
}

/// Appends all items that the view does not know.
pub(super) fn put_items(
    out: &mut Vec<u8>,
    first: &mut bool,
    items: &[FetchItem],
    content: &Content,
) -> Result<(), Damaged> {
    let mut whole: Option<Whole> = None;
    for item in items {
        match item {
            FetchItem::Envelope => {
                separate(out, first);
                put::text(out, "ENVELOPE ");
                out.extend_from_slice(
                    message::stored::envelope(&content.parsed).map_err(|_| Damaged)?,
                );
            }
            FetchItem::BodyStructure => {
                separate(out, first);
                put::text(out, "BODYSTRUCTURE ");
                out.extend_from_slice(
                    message::stored::structure(&content.parsed).map_err(|_| Damaged)?,
                );
            }
            FetchItem::Body => {
                separate(out, first);
                put::text(out, "BODY ");
                let structure = message::stored::structure(&content.parsed).map_err(|_| Damaged)?;
                out.extend_from_slice(&message::body_of(structure).ok_or(Damaged)?);
            }
            FetchItem::Section {
                section,
                partial,
                label,
                ..
            } => {
                separate(out, first);
                out.extend_from_slice(label);
                if listed(item)
                    && let SectionText::Fields { names, .. } = &section.text
                    && let Ok(Some(lines)) =
                        message::stored::select_listed(&content.parsed, &content.prefix, names)
                {
                    put_octets(out, Some(&lines), *partial);
                    continue;
                }
                let whole = made(&mut whole, content)?;
                put_octets(out, whole.section(section).as_deref(), *partial);
            }
            FetchItem::Binary {
                path,
                partial,
                label,
                ..
            } => {
                separate(out, first);
                out.extend_from_slice(label);
                let whole = made(&mut whole, content)?;
                let decoded = message::binary(&whole.parsed.parts, path, &whole.octets).flatten();
                put_binary(out, decoded.as_deref(), *partial);
            }
            FetchItem::BinarySize { path, label } => {
                separate(out, first);
                out.extend_from_slice(label);
                let whole = made(&mut whole, content)?;
                let decoded = message::binary(&whole.parsed.parts, path, &whole.octets).flatten();
                put::number(out, decoded.map_or(0, |octets| octets.len() as u64));
            }
            _ => {}
        }
    }
    Ok(())
}

fn made<'w>(whole: &'w mut Option<Whole>, content: &Content) -> Result<&'w Whole, Damaged> {
    if whole.is_none() {
        *whole = Some(Whole::of(content)?);
    }
    whole.as_ref().ok_or(Damaged)
}

fn cut(octets: &[u8], partial: Option<Partial>) -> &[u8] {
    let Some(partial) = partial else {
        return octets;
    };
    let range = partial.of(0..octets.len() as u64);
    let bounds = (usize::try_from(range.start), usize::try_from(range.end));
    match bounds {
        (Ok(start), Ok(end)) => octets.get(start..end).unwrap_or_default(),
        _ => &[],
    }
}

/// A literal always: sections are of any size and hold any octets.
fn put_octets(out: &mut Vec<u8>, octets: Option<&[u8]>, partial: Option<Partial>) {
    match octets {
        Some(octets) => put::literal(out, cut(octets, partial)),
        None => put::text(out, "NIL"),
    }
}

fn put_binary(out: &mut Vec<u8>, octets: Option<&[u8]>, partial: Option<Partial>) {
    match octets.map(|octets| cut(octets, partial)) {
        Some(octets) if octets.contains(&0) => {
            put::literal8_head(out, octets.len() as u64);
            out.extend_from_slice(octets);
        }
        Some(octets) => put::literal(out, octets),
        None => put::text(out, "NIL"),
    }
}
