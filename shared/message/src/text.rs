//! The text of a message: for searches and for the preview.

use crate::tree::Part;
use crate::{Parsed, charset};
use mail_parser::decoders::html::html_to_text;

/// Octets decoded for a preview. Text begins early, even in HTML with style sheets.
const PREVIEW_INPUT: usize = 16 * 1024;

/// The text of a part: transfer encoding and charset undone, HTML without its tags. `message` is what the offsets count in;
/// at most about `limit` octets are decoded. `None` if it is no text, or its encoding is unknown.
pub fn part_text(part: &Part, message: &[u8], limit: usize) -> Option<String> {
    if !part.is_text() {
        return None;
    }
    let start = usize::try_from(part.body).ok()?;
    let end = usize::try_from(part.end).ok()?;
    decoded(part, message.get(start..end.min(message.len()))?, limit)
}

fn decoded(part: &Part, content: &[u8], limit: usize) -> Option<String> {
    let octets = part.encoding.decode(content, limit)?;
    let text = charset::to_text(&octets, part.charset.as_bytes());
    Some(if part.media == "text/html" {
        html_to_text(&text)
    } else {
        text
    })
}

/// Calls `each` with the text of every text part, until it returns `false`. At most about `limit` octets are decoded in all.
pub fn for_each_text(
    parsed: &Parsed,
    message: &[u8],
    limit: usize,
    mut each: impl FnMut(&str) -> bool,
) {
    let mut left = limit;
    for part in &parsed.parts {
        if left == 0 {
            return;
        }
        let Some(text) = part_text(part, message, left) else {
            continue;
        };
        left = left.saturating_sub(usize::try_from(part.len()).unwrap_or(usize::MAX));
        if !each(&text) {
            return;
        }
    }
}

/// The first `limit` characters of what there is to read, in one line. Plain text is taken before HTML; attachments count
/// for nothing.
pub(crate) fn preview(parts: &[Part], body: &[u8], limit: usize) -> String {
    let readable = |media: &'static str| {
        parts.iter().find(move |part| {
            part.is_text()
                && part.media == media
                && part.disposition != "attachment"
                && !part.is_empty()
        })
    };
    for part in [readable("text/plain"), readable("text/html")]
        .into_iter()
        .flatten()
    {
        let position = |offset: u64| {
            usize::try_from(offset)
                .unwrap_or(usize::MAX)
                .min(body.len())
        };
        let (start, end) = (position(part.body), position(part.end));
        // Encoded text is at most three times as long as what it stands for, as far as readers care.
        let end = end.min(start.saturating_add(match part.media.as_str() {
            "text/html" => PREVIEW_INPUT,
            _ => limit.saturating_mul(12).min(PREVIEW_INPUT),
        }));
        let content = body.get(start..end).unwrap_or_default();
        if let Some(text) = decoded(part, content, PREVIEW_INPUT) {
            let line = one_line(&text, limit);
            if !line.is_empty() {
                return line;
            }
        }
    }
    String::new()
}

/// White space collapsed, control characters and rulers left out.
fn one_line(text: &str, limit: usize) -> String {
    let mut out = String::with_capacity(limit + 8);
    let mut count = 0;
    for word in text.split(|c: char| c.is_whitespace() || c.is_control() || c == '\u{fffd}') {
        let ruler = word.len() > 2 && word.bytes().all(|b| b"-=_*#~".contains(&b));
        if word.is_empty() || ruler {
            continue;
        }
        if count > 0 {
            out.push(' ');
            count += 1;
        }
        for c in word.chars() {
            if count >= limit {
                return out;
            }
            out.push(c);
            count += 1;
        }
    }
    out
}

/// Whether the message carries something that a reader would call an attachment: a part meant as such, a file with a name
/// that is not shown in the text, or a forwarded message. Signatures are none.
pub(crate) fn has_attachment(parts: &[Part]) -> bool {
    parts.iter().any(|part| {
        let signature =
            part.media.ends_with("-signature") || part.media == "application/pgp-encrypted";
        let leaf = part.kind != crate::PartKind::Multipart;
        let inline = part.disposition == "inline";
        leaf && !signature
            && (part.disposition == "attachment"
                || (!part.name.is_empty() && !inline)
                || (part.media.starts_with("application/") && !inline)
                || (part.kind == crate::PartKind::Message && part.below > 0))
    })
}
