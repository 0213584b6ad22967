//! Content transfer encodings, undone tolerantly (RFC 2045 6.7, 6.8): what is damaged costs its own octets only.

/// The value of two hexadecimal digits.
pub(crate) fn hex_octet(digits: &[u8]) -> Option<u8> {
    let digit = |b: &u8| char::from(*b).to_digit(16);
    match digits {
        [high, low] => u8::try_from(digit(high)? * 16 + digit(low)?).ok(),
        _ => None,
    }
}

fn sextet(byte: u8) -> Option<u32> {
    match byte {
        b'A'..=b'Z' => Some(u32::from(byte - b'A')),
        b'a'..=b'z' => Some(u32::from(byte - b'a') + 26),
        b'0'..=b'9' => Some(u32::from(byte - b'0') + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

/// Base64. Characters outside the alphabet are passed over (RFC 2045 6.8); padding ends a run, after which another may
/// follow, as some senders join encoded pieces. At most `limit` octets come out.
pub fn base64(data: &[u8], limit: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity((data.len() / 4 * 3 + 3).min(limit.saturating_add(3)));
    let (mut bits, mut have) = (0_u32, 0_u32);
    for byte in data {
        match sextet(*byte) {
            Some(value) => {
                bits = (bits << 6) | value;
                have += 6;
                if have >= 8 {
                    have -= 8;
                    out.push((bits >> have) as u8);
                    if out.len() >= limit {
                        break;
                    }
                }
            }
            None if *byte == b'=' => (bits, have) = (0, 0),
            None => {}
        }
    }
    out
}

/// Quoted-printable (RFC 2045 6.7): soft line breaks vanish, white space before a line end is transport's. A broken escape
/// stays as it is. At most about `limit` octets come out.
pub fn quoted_printable(data: &[u8], limit: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len().min(limit));
    let mut rest = data;
    while !rest.is_empty() && out.len() < limit {
        let (line, after) = rest.split_at(crate::header::line_len(rest));
        rest = after;
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let end = line.get(text.len()..).unwrap_or_default();
        // RFC 2045 6.7 rule 3, also for a soft break
        let text = text.trim_ascii_end();
        match text.strip_suffix(b"=") {
            Some(soft) => escapes(soft, false, &mut out),
            None => {
                escapes(text, false, &mut out);
                out.extend_from_slice(end);
            }
        }
    }
    out
}

/// Resolves `=XX`, and `_` as a space in encoded words (RFC 2047 4.2).
pub(crate) fn escapes(text: &[u8], word: bool, out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'=' => match after.split_at_checked(2) {
                Some((digits, behind)) if hex_octet(digits).is_some() => {
                    out.extend(hex_octet(digits));
                    rest = behind;
                }
                _ => out.push(b'='),
            },
            b'_' if word => out.push(b' '),
            other => out.push(*other),
        }
    }
}

/// The five encodings of RFC 2045 and RFC 3030, and the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Encoding {
    /// `7bit`, or nothing said.
    #[default]
    SevenBit,
    /// `8bit`
    EightBit,
    /// `binary`
    Binary,
    /// `quoted-printable`
    QuotedPrintable,
    /// `base64`
    Base64,
    /// An encoding that nobody has defined (BINARY: UNKNOWN-CTE, RFC 3516 4.3).
    Unknown,
}

impl Encoding {
    pub(crate) fn of(token: &[u8]) -> Self {
        match token.to_ascii_lowercase().as_slice() {
            b"7bit" => Self::SevenBit,
            b"8bit" => Self::EightBit,
            b"binary" => Self::Binary,
            b"quoted-printable" => Self::QuotedPrintable,
            b"base64" => Self::Base64,
            _ => Self::Unknown,
        }
    }

    /// Undoes the encoding; at most about `limit` octets come out. `None` for an unknown one.
    pub fn decode(self, data: &[u8], limit: usize) -> Option<Vec<u8>> {
        match self {
            Self::SevenBit | Self::EightBit | Self::Binary => {
                Some(data.get(..limit).unwrap_or(data).to_vec())
            }
            Self::QuotedPrintable => Some(quoted_printable(data, limit)),
            Self::Base64 => Some(base64(data, limit)),
            Self::Unknown => None,
        }
    }
}
