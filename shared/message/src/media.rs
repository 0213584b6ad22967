//! MIME fields with parameters: Content-Type, Content-Disposition, Content-Language (RFC 2045 5.1, RFC 2183, RFC 2231,
//! RFC 3282).

use crate::tokens::{Step, Tokens};

/// Names and values in their order, continuations joined.
pub(crate) type Parameters = Vec<(Vec<u8>, Vec<u8>)>;

/// A Content-Type as written, without its syntax.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ContentType {
    pub(crate) main: Vec<u8>,
    pub(crate) sub: Vec<u8>,
    pub(crate) parameters: Parameters,
}

impl ContentType {
    /// `None` if there is nothing that could be a type.
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        let mut tokens = Tokens::new(value);
        let mut found = Self::default();
        if tokens.skip_space() != Step::More
            || tokens.mime_token(&mut found.main) != Step::More
            || !tokens.at(b'/')
        {
            return None;
        }
        tokens.bump();
        if tokens.skip_space() != Step::More {
            return None;
        }
        match tokens.mime_token(&mut found.sub) {
            Step::Bad => return None,
            Step::End => {}
            Step::More => found.parameters = parameters(&mut tokens),
        }
        Some(found)
    }

    pub(crate) fn is(&self, main: &str, sub: &str) -> bool {
        self.is_main(main) && self.sub.eq_ignore_ascii_case(sub.as_bytes())
    }

    pub(crate) fn is_main(&self, main: &str) -> bool {
        self.main.eq_ignore_ascii_case(main.as_bytes())
    }

    pub(crate) fn parameter(&self, name: &str) -> Option<&[u8]> {
        parameter(&self.parameters, name)
    }
}

/// The value of the first parameter with that name.
pub(crate) fn parameter<'p>(parameters: &'p Parameters, name: &str) -> Option<&'p [u8]> {
    parameters
        .iter()
        .find(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes()))
        .map(|(_, value)| value.as_slice())
}

/// Content-Disposition: its type and parameters.
pub(crate) fn disposition(value: &[u8]) -> Option<(Vec<u8>, Parameters)> {
    let mut tokens = Tokens::new(value);
    let mut kind = Vec::new();
    if tokens.skip_space() != Step::More {
        return None;
    }
    match tokens.mime_token(&mut kind) {
        Step::Bad => None,
        Step::End => Some((kind, Vec::new())),
        Step::More => Some((kind, parameters(&mut tokens))),
    }
}

/// Content-Language: the tags.
pub(crate) fn languages(value: &[u8]) -> Vec<Vec<u8>> {
    let mut tokens = Tokens::new(value);
    let mut tags = Vec::new();
    while tokens.skip_space() == Step::More {
        let mut tag = Vec::new();
        let step = tokens.mime_token(&mut tag);
        if !tag.is_empty() {
            tags.push(tag);
        }
        if step != Step::More || !tokens.at(b',') {
            break;
        }
        tokens.bump();
    }
    tags
}

/// Content-Transfer-Encoding: one token, and nothing else but comments.
pub(crate) fn encoding_token(value: &[u8]) -> Option<Vec<u8>> {
    let mut tokens = Tokens::new(value);
    let mut token = Vec::new();
    (tokens.skip_space() == Step::More && tokens.mime_token(&mut token) == Step::End)
        .then_some(token)
}

/// Reads `*(";" parameter)`. What is broken is passed over octet by octet until the next `;`.
fn parameters(tokens: &mut Tokens<'_>) -> Parameters {
    let mut plain = Parameters::new();
    let mut pieces = Vec::new();
    while !tokens.is_done() {
        if !tokens.at(b';') {
            tokens.bump();
            continue;
        }
        tokens.bump();
        let Some((name, value)) = one_parameter(tokens) else {
            continue;
        };
        match Piece::of(&name, &value) {
            Some(piece) => pieces.push(piece),
            None => plain.push((name, value)),
        }
    }
    if !pieces.is_empty() {
        join_pieces(pieces, &mut plain);
    }
    plain
}

/// `attribute "=" value`, the position being behind the semicolon.
fn one_parameter(tokens: &mut Tokens<'_>) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut name = Vec::new();
    if tokens.skip_space() != Step::More
        || tokens.mime_token(&mut name) != Step::More
        || !tokens.at(b'=')
    {
        return None;
    }
    tokens.bump();
    let mut value = Vec::new();
    if tokens.skip_space() == Step::More {
        if tokens.at(b'"') {
            tokens.quoted(&mut value);
        } else {
            tokens.loose_value(&mut value);
        }
    }
    Some((name, value))
}

/// A parameter in the notation of RFC 2231: `name*`, `name*0`, `name*0*`.
struct Piece {
    name: Vec<u8>,
    index: u32,
    extended: bool,
    value: Vec<u8>,
}

impl Piece {
    fn of(name: &[u8], value: &[u8]) -> Option<Self> {
        let star = name.iter().position(|b| *b == b'*')?;
        let (base, rest) = name.split_at(star);
        let rest = rest.get(1..).unwrap_or_default();
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let (number, tail) = rest.split_at(digits);
        let extended = match (number, tail) {
            // `name*=` is one extended value, `name*1=` and `name*1*=` are pieces.
            (b"", b"") => true,
            (_, b"") => false,
            (_, b"*") => true,
            _ => return None,
        };
        if base.is_empty() || digits > 6 {
            return None;
        }
        let index = number
            .iter()
            .fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
        Some(Self {
            name: base.to_vec(),
            index,
            extended,
            value: value.to_vec(),
        })
    }
}

/// RFC 2231 3: joins numbered pieces. Those with a gap are shown as they came.
fn join_pieces(mut pieces: Vec<Piece>, out: &mut Parameters) {
    pieces.sort_by(|a, b| {
        let names = a
            .name
            .to_ascii_lowercase()
            .cmp(&b.name.to_ascii_lowercase());
        names.then(a.index.cmp(&b.index))
    });
    for group in pieces.chunk_by(|a, b| a.name.eq_ignore_ascii_case(&b.name)) {
        let Some(first) = group.first() else { continue };
        let whole = group
            .iter()
            .zip(0..)
            .all(|(piece, index)| piece.index == index);
        if !whole {
            for piece in group {
                let mut name = piece.name.clone();
                name.extend_from_slice(format!("*{}", piece.index).as_bytes());
                if piece.extended {
                    name.push(b'*');
                }
                out.push((name, piece.value.clone()));
            }
            continue;
        }
        let extended = group.iter().any(|piece| piece.extended);
        let mut name = first.name.clone();
        let mut value = Vec::new();
        if extended {
            name.push(b'*');
            if !first.extended {
                value.extend_from_slice(b"''");
            }
        }
        for piece in group {
            if extended && !piece.extended {
                percent_encode(&piece.value, &mut value);
            } else {
                value.extend_from_slice(&piece.value);
            }
        }
        out.push((name, value));
    }
}

/// RFC 2231 7: what is no attribute-char goes as `%XX`.
fn percent_encode(text: &[u8], out: &mut Vec<u8>) {
    for byte in text {
        if *byte <= b' ' || *byte >= 0x7f || b"*'%()<>@,;:\\\"/[]?=".contains(byte) {
            out.extend_from_slice(format!("%{byte:02x}").as_bytes());
        } else {
            out.push(*byte);
        }
    }
}

/// Resolves an extended value (RFC 2231 4): `charset'language'text` with `%XX`. Without the quotes it is read as UTF-8.
pub(crate) fn extended_text(value: &[u8]) -> String {
    let mut split = value.splitn(3, |b| *b == b'\'');
    let (charset, text) = match (split.next(), split.next(), split.next()) {
        (Some(charset), Some(_), Some(text)) => (charset, text),
        _ => (&b""[..], value),
    };
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte == b'%'
            && let Some((digits, after)) = after.split_at_checked(2)
            && let Some(octet) = crate::transfer::hex_octet(digits)
        {
            octets.push(octet);
            rest = after;
        } else {
            octets.push(*byte);
        }
    }
    crate::charset::to_text(&octets, charset)
}
