//! The result of parsing, complete.

use crate::header::HeaderIndex;
use crate::tree::{EnvelopeFields, Part, Scan};
use crate::{
    Limits, address::EnvelopeAddress, charset, envelope, ids, structure, subject, text, tree, wire,
};
use mail_parser::DateTime;
use serde::{Deserialize, Serialize};

/// The Date field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Seconds since 1970, UTC.
    pub unix: i64,
    /// Minutes east of UTC, as the sender wrote: SENTON and its kin take the date as written (RFC 9051 6.4.4).
    pub zone: i16,
}

/// All that is stored beside a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parsed {
    /// ENVELOPE in its wire form, parentheses included.
    #[serde(with = "crate::stored::bytes")]
    pub envelope: Vec<u8>,
    /// BODYSTRUCTURE in its wire form. BODY is made from it by [`crate::body_of`].
    #[serde(with = "crate::stored::bytes")]
    pub structure: Vec<u8>,
    /// The raw lines of the header fields that clients list, sort and thread with, in the order of the header.
    #[serde(with = "crate::stored::bytes")]
    pub listing: Vec<u8>,
    /// Whether all such fields are in `listing` ([`Limits::listing_bytes`]).
    pub listing_complete: bool,
    /// The names of all header fields, hashed.
    pub index: HeaderIndex,
    /// Octets of the body. RFC822.SIZE is this and the length of the prefix.
    pub size: u64,
    /// Octets of the header in the body, with its empty line.
    pub header_len: u64,
    /// The Date field; `None` if there is none that can be read.
    pub sent: Option<Sent>,
    /// RFC 5256 2.1 base subject, in upper case.
    pub base_subject: String,
    /// Whether taking the base subject took off a sign of a reply or a forward.
    pub is_reply: bool,
    /// The mailbox (local part) of the first From, in upper case: SORT FROM. Empty if there is none.
    pub from: String,
    /// The same of To.
    pub to: String,
    /// The same of Cc.
    pub cc: String,
    /// The name of the first From, or its address without one: what is shown, and RFC 5957 DISPLAYFROM.
    pub from_display: String,
    /// The same of To.
    pub to_display: String,
    /// Message-ID without its brackets.
    pub message_id: Option<String>,
    /// In-Reply-To, all identifiers.
    pub in_reply_to: Vec<String>,
    /// References, oldest first.
    pub references: Vec<String>,
    /// Whether a reader would look for a paper clip.
    pub has_attachment: bool,
    /// The beginning of the text, in one line.
    pub preview: String,
    /// The message and all its parts, in their order; never empty after [`parse`].
    pub parts: Vec<Part>,
}

/// Parses a message. `prefix` are header lines that stand before `body`, each complete: what they say (Date, Message-ID)
/// counts as if they were in it, but all offsets and sizes are of the body alone, so that several copies with other prefixes
/// share one description. [`Parsed::prepend`] makes it that of a copy.
pub fn parse(prefix: &[u8], body: &[u8], limits: &Limits) -> Parsed {
    let scan = tree::scan(prefix, body, limits);
    let none = EnvelopeFields::default();
    let fields = scan
        .fields
        .first()
        .and_then(|fields| fields.envelope.as_deref())
        .unwrap_or(&none);
    let addresses = envelope::Addresses::of(fields, limits);
    let mut envelope = Vec::with_capacity(512);
    envelope::write(&mut envelope, fields, &addresses);
    let mut structure = Vec::with_capacity(256);
    structure::write(&mut structure, &scan, limits);
    let subject = fields.subject.map(charset::header_text).unwrap_or_default();
    let (base_subject, is_reply) = subject::base_subject(&subject);
    let ids = |value: Option<&[u8]>| {
        value
            .map(|value| ids::message_ids(value, limits.references))
            .unwrap_or_default()
    };
    let parsed = Parsed {
        size: body.len() as u64,
        header_len: scan.parts.first().map_or(0, |root| root.body),
        sent: fields.date.and_then(sent),
        base_subject,
        is_reply,
        from: mailbox_key(&addresses.from),
        to: mailbox_key(&addresses.to),
        cc: mailbox_key(&addresses.cc),
        from_display: display(&addresses.from),
        to_display: display(&addresses.to),
        message_id: fields.message_id.and_then(ids::message_id),
        in_reply_to: ids(fields.in_reply_to),
        references: ids(fields.references),
        has_attachment: text::has_attachment(&scan.parts),
        preview: text::preview(&scan.parts, body, limits.preview),
        envelope,
        structure,
        ..Parsed::default()
    };
    let Scan {
        parts,
        index,
        listing,
        listing_complete,
        ..
    } = scan;
    Parsed {
        parts,
        index,
        listing,
        listing_complete,
        ..parsed
    }
}

/// Parses, and encodes within `max` octets: a message that takes more is described less and less, down to its envelope's
/// first addresses and its first part.
pub fn parse_within(prefix: &[u8], body: &[u8], limits: &Limits, max: usize) -> (Parsed, Vec<u8>) {
    let mut limits = limits.clone();
    loop {
        let parsed = parse(prefix, body, &limits);
        let encoded = parsed.encode();
        if encoded.len() <= max || limits.header_bytes == 0 {
            return (parsed, encoded);
        }
        if limits.addresses <= 1 {
            // Not the lists but single values are too long.
            limits.header_bytes = limits.header_bytes.min(prefix.len() + body.len()) / 2;
        }
        limits.parts = (limits.parts / 4).max(1);
        limits.fields /= 4;
        limits.addresses = (limits.addresses / 4).max(1);
        limits.listing_bytes /= 2;
        limits.references /= 2;
    }
}

impl Parsed {
    /// Moves all offsets and sizes for a message that starts with these complete header lines. They change nothing else.
    pub fn prepend(&mut self, fields: &[u8]) {
        let shift = fields.len() as u64;
        self.size += shift;
        self.header_len += shift;
        for (position, part) in self.parts.iter_mut().enumerate() {
            if position > 0 {
                part.header += shift;
            }
            part.body += shift;
            part.end += shift;
        }
        self.index.prepend(fields);
    }

    /// The lines of the fields with one of `names`, with the empty line, if that can be told without the body; otherwise
    /// read the header ([`crate::select_fields`]). `prefix` is what stands before the body in this copy. Not after
    /// [`Parsed::prepend`].
    pub fn select_listed(&self, prefix: &[u8], names: &[impl AsRef<[u8]>]) -> Option<Vec<u8>> {
        let known = |name: &[u8]| match crate::header::is_listing_field(name) {
            true => self.listing_complete,
            false => !self.index.may_have(name),
        };
        if !names.iter().all(|name| known(name.as_ref())) {
            return None;
        }
        Some(crate::header::select_from(prefix, &self.listing, names))
    }

    /// The values of the fields of that name in the body's header as text, if that can be told without the body: for SEARCH.
    /// Of the prefix, those values are among them that [`parse`] was given.
    pub fn listed_values(&self, name: &[u8]) -> Option<Vec<String>> {
        if !crate::header::is_listing_field(name) {
            return if self.index.may_have(name) {
                None
            } else {
                Some(Vec::new())
            };
        }
        if !self.listing_complete {
            return None;
        }
        let values = crate::Fields::new(&self.listing)
            .filter(|field| field.name.eq_ignore_ascii_case(name))
            .map(|field| charset::header_text(field.value));
        Some(values.collect())
    }
}

fn sent(value: &[u8]) -> Option<Sent> {
    let value = wire::unfold(value.get(..200).unwrap_or(value));
    let text = std::str::from_utf8(&value).ok()?;
    let date = DateTime::parse_rfc822(text)?;
    if !date.is_valid() {
        return None;
    }
    let zone = i16::from(date.tz_hour) * 60 + i16::from(date.tz_minute);
    Some(Sent {
        unix: date.to_timestamp(),
        zone: if date.tz_before_gmt { -zone } else { zone },
    })
}

/// Characters of a sort key or a display name at most.
const KEY_MAX: usize = 200;

fn first(list: &[EnvelopeAddress]) -> Option<&EnvelopeAddress> {
    list.iter()
        .find(|address| !address.is_group_mark())
        .or_else(|| list.first())
}

/// RFC 5256 3: the mailbox of the first address, compared without case.
fn mailbox_key(list: &[EnvelopeAddress]) -> String {
    let mailbox = list.first().and_then(|address| address.mailbox.as_deref());
    let text = String::from_utf8_lossy(mailbox.unwrap_or_default()).to_uppercase();
    text.chars().take(KEY_MAX).collect()
}

/// RFC 5957 3: the display name, otherwise mailbox@host.
fn display(list: &[EnvelopeAddress]) -> String {
    let Some(address) = first(list) else {
        return String::new();
    };
    if let Some(name) = &address.name {
        let name = charset::header_text(name);
        if !name.trim().is_empty() {
            return name
                .trim()
                .chars()
                .filter(|c| !c.is_control())
                .take(KEY_MAX)
                .collect();
        }
    }
    let part = |part: &Option<Vec<u8>>| {
        String::from_utf8_lossy(part.as_deref().unwrap_or_default()).into_owned()
    };
    let text = format!("{}@{}", part(&address.mailbox), part(&address.domain));
    text.chars().take(KEY_MAX).collect()
}
