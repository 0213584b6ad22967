//! FETCH (RFC 9051 6.4.5).

use crate::cursor::{Cursor, Parse, is_astring_char, upper};
use crate::{Refusal, SequenceSet, number, put};

/// Parts inside parts that a section can name.
const DEPTH_MAX: usize = 200;

/// FETCH or UID FETCH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// The set holds UIDs, and the answers have UID.
    pub uid: bool,
    /// Which.
    pub set: SequenceSet,
    /// What is asked, macros resolved, without duplicates of simple items.
    pub items: Vec<FetchItem>,
    /// CHANGEDSINCE (RFC 7162 3.1.4.1).
    pub changed_since: Option<u64>,
    /// VANISHED (RFC 7162 3.2.6).
    pub vanished: bool,
    /// PARTIAL (RFC 9394 3.3).
    pub page: Option<Page>,
}

/// An item of FETCH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchItem {
    /// UID
    Uid,
    /// FLAGS
    Flags,
    /// INTERNALDATE
    InternalDate,
    /// RFC822.SIZE
    Size,
    /// MODSEQ (RFC 7162)
    ModSeq,
    /// ENVELOPE
    Envelope,
    /// BODY: BODYSTRUCTURE without its extensions.
    Body,
    /// BODYSTRUCTURE
    BodyStructure,
    /// EMAILID (RFC 8474)
    EmailId,
    /// THREADID (RFC 8474)
    ThreadId,
    /// SAVEDATE (RFC 8514)
    SaveDate,
    /// PREVIEW, PREVIEW (LAZY) (RFC 8970)
    Preview,
    /// BODY[...], BODY.PEEK[...], RFC822, RFC822.HEADER, RFC822.TEXT
    Section {
        /// Of what.
        section: Section,
        /// Does not set \Seen.
        peek: bool,
        /// Which octets of it.
        partial: Option<Partial>,
        /// How the answer names it, up to the space before its value.
        label: Vec<u8>,
    },
    /// BINARY[...], BINARY.PEEK[...] (RFC 9051 6.4.5)
    Binary {
        /// The part's numbers; none for the message.
        path: Vec<u32>,
        /// Does not set \Seen.
        peek: bool,
        /// Which octets of it.
        partial: Option<Partial>,
        /// How the answer names it.
        label: Vec<u8>,
    },
    /// BINARY.SIZE[...]
    BinarySize {
        /// The part's numbers; none for the message.
        path: Vec<u32>,
        /// How the answer names it.
        label: Vec<u8>,
    },
}

/// The range of PARTIAL (RFC 9394 3.1): which of the results, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Counted from the last result: `-1:-100`.
    pub from_end: bool,
    /// The smaller number.
    pub low: u32,
    /// The larger number, included.
    pub high: u32,
}

impl Page {
    /// The part of `results` that is meant, in their order; none when it lies behind their end.
    pub fn of<T>(self, results: &[T]) -> &[T] {
        let at = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let len = results.len();
        let (low, high) = (at(self.low - 1).min(len), at(self.high).min(len));
        let range = match self.from_end {
            false => low..high,
            true => len - high..len - low,
        };
        results.get(range).unwrap_or_default()
    }

    pub(crate) fn parse(cursor: &mut Cursor<'_>) -> Parse<Self> {
        const WRONG: &str = "PARTIAL takes a range, of which both ends have one sign";
        let from_end = cursor.eat(b'-');
        let one = cursor.positive()?;
        cursor.expect(b':', WRONG)?;
        if cursor.eat(b'-') != from_end {
            return Err(Refusal::bad(WRONG));
        }
        let other = cursor.positive()?;
        Ok(Self {
            from_end,
            low: one.min(other),
            high: one.max(other),
        })
    }
}

/// `<first.count>`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial {
    /// The first octet.
    pub first: u64,
    /// Octets, not 0.
    pub count: u64,
}

impl Partial {
    /// The octets of `whole` that are meant; none when it begins behind the end.
    pub fn of(self, whole: std::ops::Range<u64>) -> std::ops::Range<u64> {
        let start = whole.start.saturating_add(self.first).min(whole.end);
        let end = start.saturating_add(self.count).min(whole.end);
        start..end
    }
}

/// A section of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// The part's numbers; none for the message.
    pub path: Vec<u32>,
    /// What of it.
    pub text: SectionText,
}

/// What of a part is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SectionText {
    /// All of the message, or the content of the part.
    Content,
    /// HEADER
    Header,
    /// HEADER.FIELDS, and with `not` HEADER.FIELDS.NOT.
    Fields {
        /// The names as the client wrote them.
        names: Vec<String>,
        /// All but these.
        not: bool,
    },
    /// TEXT
    Text,
    /// MIME
    Mime,
}

impl FetchItem {
    /// Whether answering sets \Seen (RFC 9051 6.4.5).
    pub fn sets_seen(&self) -> bool {
        match self {
            Self::Section { peek, .. } | Self::Binary { peek, .. } => !peek,
            _ => false,
        }
    }
}

pub(super) fn parse(cursor: &mut Cursor<'_>, uid: bool) -> Parse<Fetch> {
    cursor.space()?;
    let set = SequenceSet::parse(cursor)?;
    cursor.space()?;
    let mut items = Vec::new();
    if cursor.peek() == Some(b'(') {
        cursor.list(|cursor| item(cursor, &mut items))?;
        if items.is_empty() {
            return Err(Refusal::bad("FETCH needs an item"));
        }
    } else if !r#macro(cursor, &mut items) {
        item(cursor, &mut items)?;
    }
    let mut fetch = Fetch {
        uid,
        set,
        items,
        changed_since: None,
        vanished: false,
        page: None,
    };
    if !cursor.at_end() {
        cursor.space()?;
        cursor.list(|cursor| {
            match cursor.word()?.as_str() {
                "CHANGEDSINCE" => {
                    cursor.space()?;
                    fetch.changed_since = Some(cursor.number64()?);
                }
                "VANISHED" => fetch.vanished = true,
                "PARTIAL" => {
                    cursor.space()?;
                    fetch.page = Some(Page::parse(cursor)?);
                }
                _ => return Err(Refusal::bad("There is no such modifier of FETCH")),
            }
            Ok(())
        })?;
    }
    Ok(fetch)
}

/// Items in parentheses, added to those that are there.
pub(super) fn items(cursor: &mut Cursor<'_>, items: &mut Vec<FetchItem>) -> Parse<()> {
    cursor.list(|cursor| item(cursor, items))?;
    Ok(())
}

/// RFC 9051 6.4.5: macros stand alone.
fn r#macro(cursor: &mut Cursor<'_>, items: &mut Vec<FetchItem>) -> bool {
    let fast = [FetchItem::Flags, FetchItem::InternalDate, FetchItem::Size];
    if cursor.eat_word("FAST") {
        items.extend(fast);
    } else if cursor.eat_word("ALL") {
        items.extend(fast);
        items.push(FetchItem::Envelope);
    } else if cursor.eat_word("FULL") {
        items.extend(fast);
        items.extend([FetchItem::Envelope, FetchItem::Body]);
    } else {
        return false;
    }
    true
}

fn item(cursor: &mut Cursor<'_>, items: &mut Vec<FetchItem>) -> Parse<()> {
    let name = upper(cursor.run(|byte| byte.is_ascii_alphanumeric() || byte == b'.'));
    let section = cursor.peek() == Some(b'[');
    let item = match (name.as_str(), section) {
        ("UID", false) => FetchItem::Uid,
        ("FLAGS", false) => FetchItem::Flags,
        ("INTERNALDATE", false) => FetchItem::InternalDate,
        ("RFC822.SIZE", false) => FetchItem::Size,
        ("MODSEQ", false) => FetchItem::ModSeq,
        ("ENVELOPE", false) => FetchItem::Envelope,
        ("BODY", false) => FetchItem::Body,
        ("BODYSTRUCTURE", false) => FetchItem::BodyStructure,
        ("EMAILID", false) => FetchItem::EmailId,
        ("THREADID", false) => FetchItem::ThreadId,
        ("SAVEDATE", false) => FetchItem::SaveDate,
        ("PREVIEW", false) => preview(cursor)?,
        // RFC 3501 6.4.5: old names
        ("RFC822", false) => old_name("RFC822", SectionText::Content, false),
        ("RFC822.HEADER", false) => old_name("RFC822.HEADER", SectionText::Header, true),
        ("RFC822.TEXT", false) => old_name("RFC822.TEXT", SectionText::Text, false),
        ("BODY", true) => body(cursor, false)?,
        ("BODY.PEEK", true) => body(cursor, true)?,
        ("BINARY", true) => binary(cursor, false)?,
        ("BINARY.PEEK", true) => binary(cursor, true)?,
        ("BINARY.SIZE", true) => binary_size(cursor)?,
        _ => return Err(Refusal::bad("There is no such item of FETCH")),
    };
    if !items.contains(&item) {
        items.push(item);
    }
    Ok(())
}

/// RFC 8970 3.1: what is kept beside every message is at hand, so that LAZY changes nothing.
fn preview(cursor: &mut Cursor<'_>) -> Parse<FetchItem> {
    let mut ahead = cursor.clone();
    if ahead.eat(b' ') && ahead.eat(b'(') {
        *cursor = ahead;
        let modifier = cursor.word()?;
        cursor.expect(b')', "PREVIEW has a list that does not end")?;
        if modifier != "LAZY" {
            return Err(Refusal::bad("There is no such modifier of PREVIEW"));
        }
    }
    Ok(FetchItem::Preview)
}

fn old_name(label: &str, text: SectionText, peek: bool) -> FetchItem {
    FetchItem::Section {
        section: Section {
            path: Vec::new(),
            text,
        },
        peek,
        partial: None,
        label: label.as_bytes().to_vec(),
    }
}

fn body(cursor: &mut Cursor<'_>, peek: bool) -> Parse<FetchItem> {
    let section = section(cursor)?;
    let partial = partial(cursor)?;
    let mut label = b"BODY[".to_vec();
    put_path(&mut label, &section.path);
    put_section_text(&mut label, &section);
    close_label(&mut label, partial);
    Ok(FetchItem::Section {
        section,
        peek,
        partial,
        label,
    })
}

fn binary(cursor: &mut Cursor<'_>, peek: bool) -> Parse<FetchItem> {
    let path = part_numbers(cursor)?;
    let partial = partial(cursor)?;
    let mut label = b"BINARY[".to_vec();
    put_path(&mut label, &path);
    close_label(&mut label, partial);
    Ok(FetchItem::Binary {
        path,
        peek,
        partial,
        label,
    })
}

fn binary_size(cursor: &mut Cursor<'_>) -> Parse<FetchItem> {
    let path = part_numbers(cursor)?;
    let mut label = b"BINARY.SIZE[".to_vec();
    put_path(&mut label, &path);
    close_label(&mut label, None);
    Ok(FetchItem::BinarySize { path, label })
}

fn part_numbers(cursor: &mut Cursor<'_>) -> Parse<Vec<u32>> {
    let section = section(cursor)?;
    match section.text {
        SectionText::Content => Ok(section.path),
        _ => Err(Refusal::bad("BINARY takes part numbers only")),
    }
}

impl Section {
    /// From the opening bracket to the closing one.
    pub(crate) fn parse(cursor: &mut Cursor<'_>) -> Parse<Self> {
        section(cursor)
    }
}

fn section(cursor: &mut Cursor<'_>) -> Parse<Section> {
    const WRONG: &str = "A section is malformed";
    cursor.expect(b'[', WRONG)?;
    let mut path = Vec::new();
    while cursor.peek().is_some_and(|byte| byte.is_ascii_digit()) {
        path.push(cursor.positive()?);
        if path.len() > DEPTH_MAX {
            return Err(Refusal::bad("A section is too deep"));
        }
        if !cursor.eat(b'.') {
            cursor.expect(b']', WRONG)?;
            let text = SectionText::Content;
            return Ok(Section { path, text });
        }
    }
    let name = upper(cursor.run(|byte| byte.is_ascii_alphabetic() || byte == b'.'));
    let text = match name.as_str() {
        "" if path.is_empty() => SectionText::Content,
        "HEADER" => SectionText::Header,
        "TEXT" => SectionText::Text,
        "MIME" if !path.is_empty() => SectionText::Mime,
        "HEADER.FIELDS" | "HEADER.FIELDS.NOT" => {
            cursor.space()?;
            SectionText::Fields {
                names: cursor.list(field_name)?,
                not: name.ends_with("NOT"),
            }
        }
        _ => return Err(Refusal::bad(WRONG)),
    };
    cursor.expect(b']', WRONG)?;
    Ok(Section { path, text })
}

/// A header field's name, which is an astring that is sent back as it is.
fn field_name(cursor: &mut Cursor<'_>) -> Parse<String> {
    const WRONG: Refusal = Refusal::bad("That is no name of a header field");
    let name = cursor.astring()?;
    // RFC 5322 2.2: printable ASCII without the colon
    let valid = !name.is_empty()
        && name
            .iter()
            .all(|byte| matches!(byte, b'!'..=b'~') && *byte != b':');
    match valid {
        true => String::from_utf8(name.into_owned()).map_err(|_| WRONG),
        false => Err(WRONG),
    }
}

fn partial(cursor: &mut Cursor<'_>) -> Parse<Option<Partial>> {
    const WRONG: &str = "A partial is malformed: <first.count>";
    if !cursor.eat(b'<') {
        return Ok(None);
    }
    let first = cursor.number64()?;
    cursor.expect(b'.', WRONG)?;
    let count = cursor.number64()?;
    cursor.expect(b'>', WRONG)?;
    match count {
        0 => Err(Refusal::bad(WRONG)),
        count => Ok(Some(Partial { first, count })),
    }
}

fn put_path(label: &mut Vec<u8>, path: &[u32]) {
    for (index, part) in path.iter().enumerate() {
        if index > 0 {
            label.push(b'.');
        }
        number::write(label, u64::from(*part));
    }
}

fn put_section_text(label: &mut Vec<u8>, section: &Section) {
    let name = match &section.text {
        SectionText::Content => return,
        SectionText::Header => "HEADER",
        SectionText::Fields { not: false, .. } => "HEADER.FIELDS (",
        SectionText::Fields { not: true, .. } => "HEADER.FIELDS.NOT (",
        SectionText::Text => "TEXT",
        SectionText::Mime => "MIME",
    };
    if !section.path.is_empty() {
        label.push(b'.');
    }
    label.extend_from_slice(name.as_bytes());
    if let SectionText::Fields { names, .. } = &section.text {
        for (index, name) in names.iter().enumerate() {
            if index > 0 {
                label.push(b' ');
            }
            match name.bytes().all(is_astring_char) {
                true => label.extend_from_slice(name.as_bytes()),
                false => put::string(label, name.as_bytes()),
            }
        }
        label.push(b')');
    }
}

/// RFC 9051 7.5.2: the answer names the origin octet only.
fn close_label(label: &mut Vec<u8>, partial: Option<Partial>) {
    label.push(b']');
    if let Some(partial) = partial {
        label.push(b'<');
        number::write(label, partial.first);
        label.push(b'>');
    }
}
