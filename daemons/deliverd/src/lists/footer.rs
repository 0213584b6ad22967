//! A footer below a message, without breaking it: in its text where that can be done, as a part of its own otherwise. What is signed
//! or encrypted stays as it is (RFC 1847, RFC 5751, RFC 3156).

use mail_builder::encoders::{Base64Encoder, QuotedPrintableEncoder};
use message::{Encoding, Fields};

/// A message that is being changed: its header without the empty line, and its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Letter {
    pub(super) header: Vec<u8>,
    pub(super) body: Vec<u8>,
}

/// What the header says of the body.
struct Media {
    kind: String,
    charset: String,
    boundary: String,
    encoding: Encoding,
}

impl Letter {
    /// Parts a message.
    pub(super) fn of(octets: &[u8]) -> Self {
        let mut fields = Fields::new(octets);
        fields.by_ref().for_each(drop);
        let rest = fields.rest();
        let header = octets.get(..octets.len() - rest.len()).unwrap_or_default();
        let body = rest
            .strip_prefix(b"\r\n")
            .or_else(|| rest.strip_prefix(b"\n"));
        let mut header = header.to_vec();
        if !header.is_empty() && !header.ends_with(b"\n") {
            header.extend_from_slice(b"\r\n");
        }
        Self {
            header,
            body: body.unwrap_or(rest).to_vec(),
        }
    }

    pub(super) fn field(&self, name: &str) -> Option<&[u8]> {
        Fields::new(&self.header)
            .find(|field| field.name.eq_ignore_ascii_case(name.as_bytes()))
            .map(|field| field.value)
    }

    /// Removes fields.
    pub(super) fn remove(&mut self, gone: impl Fn(&[u8]) -> bool) {
        let mut kept = Vec::with_capacity(self.header.len());
        for field in Fields::new(&self.header) {
            if !gone(field.name) {
                kept.extend_from_slice(field.raw);
            }
        }
        self.header = kept;
    }

    /// Puts a field where the first one of that name stands, and removes the others; at the end if there is none.
    pub(super) fn replace(&mut self, name: &str, value: &[u8]) {
        let mut new = Vec::with_capacity(self.header.len() + value.len() + 32);
        let field = [name.as_bytes(), b": ", value, b"\r\n"].concat();
        let mut there = false;
        for one in Fields::new(&self.header) {
            if !one.name.eq_ignore_ascii_case(name.as_bytes()) {
                new.extend_from_slice(one.raw);
            } else if !std::mem::replace(&mut there, true) {
                new.extend_from_slice(&field);
            }
        }
        if !there {
            new.extend_from_slice(&field);
        }
        self.header = new;
    }

    /// All of it.
    pub(super) fn into_octets(mut self) -> Vec<u8> {
        self.header.extend_from_slice(b"\r\n");
        self.header.append(&mut self.body);
        self.header
    }

    fn media(&self) -> Media {
        let text = |name: &str| {
            let value = self.field(name).unwrap_or_default();
            String::from_utf8_lossy(value).replace(['\r', '\n'], "")
        };
        let content = text("Content-Type");
        let kind = content.split(';').next().unwrap_or_default().trim();
        let kind = match kind {
            "" => "text/plain".to_owned(),
            kind => kind.to_ascii_lowercase(),
        };
        let encoding = match text("Content-Transfer-Encoding")
            .trim()
            .to_ascii_lowercase()
            .as_str()
        {
            "" | "7bit" => Encoding::SevenBit,
            "8bit" => Encoding::EightBit,
            "binary" => Encoding::Binary,
            "quoted-printable" => Encoding::QuotedPrintable,
            "base64" => Encoding::Base64,
            _ => Encoding::Unknown,
        };
        Media {
            kind,
            charset: parameter(&content, "charset").to_ascii_lowercase(),
            boundary: parameter(&content, "boundary"),
            encoding,
        }
    }

    /// Appends a footer; whether it did. `mark` makes boundaries that stand in no other message.
    pub(super) fn append(&mut self, footer: &str, mark: &str) -> bool {
        let mut text = String::with_capacity(footer.len() + 64);
        for line in footer.trim_end().lines() {
            // With its trailing white space: a line of `-- ` begins a signature (RFC 3676 4.3).
            text.push_str(line.trim_end_matches('\r'));
            text.push_str("\r\n");
        }
        let media = self.media();
        let sealed = matches!(
            media.kind.as_str(),
            "multipart/signed"
                | "multipart/encrypted"
                | "application/pkcs7-mime"
                | "application/x-pkcs7-mime"
        );
        if sealed || media.encoding == Encoding::Unknown {
            return false;
        }
        match media.kind.as_str() {
            "text/plain" if self.append_text(&media, &text) => true,
            "multipart/mixed" if !media.boundary.is_empty() => self.append_part(&media, &text),
            _ => {
                self.wrap(&media, &text, mark);
                true
            }
        }
    }

    /// Below the text, in its own charset and encoding; whether that goes.
    fn append_text(&mut self, media: &Media, text: &str) -> bool {
        let utf8 = matches!(media.charset.as_str(), "utf-8" | "utf8");
        let superset = utf8
            || media.charset.is_empty()
            || [
                "us-ascii",
                "iso-8859-",
                "windows-125",
                "koi8-",
                "gbk",
                "gb2312",
                "gb18030",
                "big5",
                "euc-",
            ]
            .iter()
            .any(|known| media.charset.starts_with(known));
        // Of a charset that is not one of these, the octets are not known.
        let fits = if text.is_ascii() { superset } else { utf8 };
        if !fits {
            return false;
        }
        match media.encoding {
            Encoding::SevenBit | Encoding::EightBit | Encoding::Binary => {
                if !text.is_ascii() && media.encoding == Encoding::SevenBit {
                    return false;
                }
                end_line(&mut self.body);
                self.body.extend_from_slice(text.as_bytes());
            }
            Encoding::QuotedPrintable => {
                let encoder = QuotedPrintableEncoder::new().preserve_line_breaks();
                let Ok(encoded) = encoder.encode(text.as_bytes()) else {
                    return false;
                };
                end_line(&mut self.body);
                self.body.extend(crlf(&encoded));
            }
            Encoding::Base64 => {
                let mut plain = message::transfer::base64(&self.body, self.body.len());
                end_line(&mut plain);
                plain.extend_from_slice(text.as_bytes());
                let Some(encoded) = base64(&plain) else {
                    return false;
                };
                self.body = encoded;
            }
            Encoding::Unknown => return false,
        }
        true
    }

    /// As the last part of a multipart/mixed.
    fn append_part(&mut self, media: &Media, text: &str) -> bool {
        let Some(at) = closing(&self.body, &media.boundary) else {
            return false;
        };
        let eight = matches!(media.encoding, Encoding::EightBit | Encoding::Binary);
        let part = [
            format!("--{}\r\n", media.boundary).into_bytes(),
            part(text, eight),
        ]
        .concat();
        self.body.splice(at..at, part);
        true
    }

    /// What it was becomes the first part of a multipart/mixed, with the fields that are about it (RFC 2045 3).
    fn wrap(&mut self, media: &Media, text: &str, mark: &str) {
        let boundary = format!("=_list-{mark}");
        let mut own = Vec::new();
        for field in Fields::new(&self.header) {
            if is_content(field.name) {
                own.extend_from_slice(field.raw);
            }
        }
        self.remove(is_content);
        if self.field("MIME-Version").is_none() {
            self.replace("MIME-Version", b"1.0");
        }
        self.replace(
            "Content-Type",
            format!("multipart/mixed; boundary=\"{boundary}\"").as_bytes(),
        );
        // RFC 2045 6.4: a multipart says what its parts need.
        match media.encoding {
            Encoding::EightBit => self.replace("Content-Transfer-Encoding", b"8bit"),
            Encoding::Binary => self.replace("Content-Transfer-Encoding", b"binary"),
            _ => {}
        }
        let mut body = format!("--{boundary}\r\n").into_bytes();
        body.extend(own);
        body.extend_from_slice(b"\r\n");
        body.append(&mut self.body);
        end_line(&mut body);
        body.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
        body.extend(part(text, false));
        body.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
        self.body = body;
    }
}

fn is_content(name: &[u8]) -> bool {
    name.get(..8)
        .is_some_and(|start| start.eq_ignore_ascii_case(b"content-"))
}

/// The footer as a part: its header, an empty line, its text.
fn part(text: &str, eight: bool) -> Vec<u8> {
    let (encoding, body) = match base64(text.as_bytes()) {
        _ if text.is_ascii() => ("7bit", text.as_bytes().to_vec()),
        Some(encoded) if !eight => ("base64", encoded),
        _ => ("8bit", text.as_bytes().to_vec()),
    };
    let mut part = format!(
        "Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: inline\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    )
    .into_bytes();
    part.extend(body);
    part
}

fn base64(octets: &[u8]) -> Option<Vec<u8>> {
    let encoded = Base64Encoder::new().wrap_lines().encode(octets).ok()?;
    let mut encoded = crlf(&encoded);
    end_line(&mut encoded);
    Some(encoded)
}

fn crlf(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len() + 16);
    for octet in octets {
        if *octet == b'\n' && out.last() != Some(&b'\r') {
            out.push(b'\r');
        }
        out.push(*octet);
    }
    out
}

fn end_line(octets: &mut Vec<u8>) {
    if !octets.is_empty() && !octets.ends_with(b"\n") {
        octets.extend_from_slice(b"\r\n");
    }
}

/// Where the line begins that closes a multipart.
fn closing(body: &[u8], boundary: &str) -> Option<usize> {
    let line = format!("--{boundary}--");
    let mut end = body.len();
    loop {
        let start = body
            .get(..end)?
            .iter()
            .rposition(|o| *o == b'\n')
            .map_or(0, |at| at + 1);
        let text = body.get(start..end)?;
        if text.starts_with(line.as_bytes()) && text.get(line.len()..)?.trim_ascii().is_empty() {
            return Some(start);
        }
        end = start.checked_sub(1)?;
    }
}

/// A parameter of a field, unquoted.
fn parameter(value: &str, name: &str) -> String {
    let mut rest = value.split_once(';').map_or("", |(_, rest)| rest);
    loop {
        let (key, behind) = match rest.split_once('=') {
            Some((key, behind)) => (
                key.trim().trim_start_matches(';').trim(),
                behind.trim_start(),
            ),
            None => return String::new(),
        };
        let (found, after) = if let Some(quoted) = behind.strip_prefix('"') {
            let mut text = String::new();
            let mut chars = quoted.char_indices();
            let mut end = quoted.len();
            while let Some((at, c)) = chars.next() {
                match c {
                    '\\' => text.extend(chars.next().map(|(_, c)| c)),
                    '"' => {
                        end = at + 1;
                        break;
                    }
                    c => text.push(c),
                }
            }
            (text, quoted.get(end..).unwrap_or_default())
        } else {
            let end = behind
                .find(|c: char| c == ';' || c.is_whitespace())
                .unwrap_or(behind.len());
            (
                behind.get(..end).unwrap_or_default().to_owned(),
                behind.get(end..).unwrap_or_default(),
            )
        };
        if key.eq_ignore_ascii_case(name) {
            return found;
        }
        rest = after.split_once(';').map_or("", |(_, rest)| rest);
    }
}
