//! Reports of others: found in messages, read within bounds, kept.
//!
//! Everything here comes from strangers. A message is looked at one at a time and up to a size; what an attachment unpacks to is
//! parsed as it comes and never lies in memory as a whole, JSON apart, whose size and number of values are bounded.

mod arf;
mod dmarc;
mod tls;
mod unpack;

use crate::config::Intake;
use crate::store::clean;
use ipc::api::reportd::ReportRow;
use message::{Fields, Limits, Part, PartKind};
use unpack::Inside;

/// Octets that are kept of what cannot be read.
const UNREADABLE_MAX: usize = 32 * 1024;
/// Fields that are kept of a report.
const FIELDS_MAX: usize = 40;

/// Why something is no report that can be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable(pub(crate) String);

impl Unreadable {
    fn of_io(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::InvalidData => Self(error.to_string()),
            _ => Self(format!("the attachment is damaged: {error}")),
        }
    }

    fn of_xml(error: quick_xml::Error) -> Self {
        match error {
            quick_xml::Error::Io(error) => {
                Self::of_io(std::io::Error::new(error.kind(), error.to_string()))
            }
            other => Self(format!("its XML is malformed: {other}")),
        }
    }
}

/// A report as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    /// `dmarc`, `tls`, `arf`, `bounce` or `unreadable`.
    pub(crate) kind: &'static str,
    pub(crate) organization: String,
    pub(crate) domain: String,
    pub(crate) report_id: String,
    pub(crate) begin: u64,
    pub(crate) end: u64,
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) note: String,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) rows: Vec<ReportRow>,
    /// A header, or the beginning of what cannot be read.
    pub(crate) text: Vec<u8>,
}

impl Kept {
    fn field(&mut self, name: &str, value: &str) {
        let value = clean(value, 600);
        if !value.is_empty() && self.fields.len() < FIELDS_MAX {
            self.fields.push((name.to_owned(), value));
        }
    }
}

/// A domain of a report: lower case, without a final dot; `unknown` text stays text.
fn domain(text: &str) -> String {
    clean(text, 253).trim_end_matches('.').to_lowercase()
}

/// What is in a message: at least one, if only that it cannot be read.
pub(crate) fn read(prefix: &[u8], body: &[u8], bounds: &Intake) -> Vec<Kept> {
    let limits = Limits {
        depth: 20,
        parts: 100,
        preview: 0,
        ..Limits::default()
    };
    let parsed = message::parse(prefix, body, &limits);
    let mut found = Vec::new();
    let mut troubles: Vec<String> = Vec::new();
    let mut skip = 0;
    for (at, part) in parsed.parts.iter().enumerate() {
        if at < skip {
            continue;
        }
        if found.len() >= bounds.max_attachments.max(1) {
            break;
        }
        let taken = match part.media.as_str() {
            "message/feedback-report" => {
                let next = parsed.parts.get(at + 1);
                let about = next.map_or(&[][..], |next| content(body, next));
                arf::parse(content(body, part), about)
                    .ok_or_else(|| Unreadable("its feedback has no type".to_owned()))
            }
            "message/delivery-status" => {
                let next = parsed.parts.get(at + 1);
                let about = next.map_or(&[][..], |next| content(body, next));
                bounce(content(body, part), about).ok_or_else(|| {
                    Unreadable("it is a report on delivery, and of no failure".to_owned())
                })
            }
            // What another message has in it is not this message's.
            _ if part.kind == PartKind::Message => {
                skip = at + 1 + part.below as usize;
                continue;
            }
            _ if part.kind == PartKind::Multipart || !may_hold(part) => continue,
            _ => attachment(body, part, bounds),
        };
        match taken {
            Ok(kept) => found.push(kept),
            Err(Unreadable(why)) => troubles.push(why),
        }
    }
    if found.is_empty() {
        let why = troubles
            .first()
            .map_or("there is no report in it", String::as_str);
        found.push(unreadable(prefix, body, why));
    } else if let (Some(first), Some(why)) = (found.first_mut(), troubles.first()) {
        first.field("not read", why);
    }
    found
}

/// What is kept of a message that is not understood.
pub(crate) fn unreadable(prefix: &[u8], body: &[u8], why: &str) -> Kept {
    let subject = Fields::new(body)
        .find(|field| field.name.eq_ignore_ascii_case(b"subject"))
        .map(|field| message::header_text(field.value))
        .unwrap_or_default();
    let mut kept = Kept {
        kind: "unreadable",
        note: clean(why, 250),
        ..Kept::default()
    };
    kept.field("subject", &subject);
    let own = prefix.get(..UNREADABLE_MAX / 4).unwrap_or(prefix);
    kept.text = own.to_vec();
    kept.text
        .extend_from_slice(body.get(..UNREADABLE_MAX - own.len()).unwrap_or(body));
    kept
}

fn content<'a>(body: &'a [u8], part: &Part) -> &'a [u8] {
    let place = usize::try_from(part.body).and_then(|begin| Ok(begin..usize::try_from(part.end)?));
    place
        .ok()
        .and_then(|place| body.get(place))
        .unwrap_or_default()
}

/// Whether a part may be a report: by its type, or where that says little, by its name.
fn may_hold(part: &Part) -> bool {
    let name = part.name.to_ascii_lowercase();
    let named = [".xml", ".json", ".gz", ".zip", ".gzip"]
        .iter()
        .any(|end| name.ends_with(end));
    matches!(
        part.media.as_str(),
        "application/gzip"
            | "application/x-gzip"
            | "application/zip"
            | "application/x-zip"
            | "application/x-zip-compressed"
            | "application/xml"
            | "text/xml"
            | "application/json"
            | "application/tlsrpt+json"
            | "application/tlsrpt+gzip"
    ) || named
}

fn attachment(body: &[u8], part: &Part, bounds: &Intake) -> Result<Kept, Unreadable> {
    let most = usize::try_from(bounds.max_compressed)
        .unwrap_or(usize::MAX)
        .saturating_add(16);
    let data = part
        .encoding
        .decode(content(body, part), most)
        .ok_or_else(|| Unreadable("its encoding is not known".to_owned()))?;
    of_file(&data, bounds)
}

/// Reads an attachment.
pub(crate) fn of_file(data: &[u8], bounds: &Intake) -> Result<Kept, Unreadable> {
    let (inside, reader) = unpack::open(data, bounds)?;
    match inside {
        Inside::Xml => dmarc::parse(reader, bounds),
        Inside::Json => tls::parse(reader, bounds),
        Inside::Packed => Err(Unreadable("it is an archive in an archive".to_owned())),
        Inside::Other => Err(Unreadable("it holds neither XML nor JSON".to_owned())),
    }
}

/// A report of ours that came back (RFC 3464): who refused it, and which it was.
fn bounce(status: &[u8], about: &[u8]) -> Option<Kept> {
    let text = String::from_utf8_lossy(status.get(..UNREADABLE_MAX).unwrap_or(status));
    let value = |name: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.trim()
                .eq_ignore_ascii_case(name)
                .then(|| clean(value, 250))
        })
    };
    if !value("action")?.eq_ignore_ascii_case("failed") {
        return None;
    }
    let recipient = value("final-recipient")?;
    let address = recipient.rsplit(';').next().unwrap_or_default().trim();
    let mut kept = Kept {
        kind: "bounce",
        domain: domain(address.rsplit_once('@')?.1),
        note: format!(
            "{address}: {}",
            value("diagnostic-code")
                .or(value("status"))
                .unwrap_or_default()
        ),
        failed: 1,
        ..Kept::default()
    };
    kept.note = clean(&kept.note, 250);
    kept.field("recipient", address);
    let id = Fields::new(about)
        .find(|field| field.name.eq_ignore_ascii_case(b"message-id"))
        .map(|field| {
            String::from_utf8_lossy(field.value)
                .trim_matches(['<', '>', ' '])
                .to_owned()
        });
    kept.field("message", &id.unwrap_or_default());
    Some(kept)
}

#[cfg(test)]
mod tests;
