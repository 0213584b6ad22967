//! What of a message goes into the index.

use crate::Config;
use crate::schema::Place;
use crate::words::{self, Word};
use message::{Fields, Parsed};
use store::{Content, ContentBody};

/// Octets of header that are looked at.
const HEADER_MAX: usize = 256 * 1024;

/// A word in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// Folded, or a stem.
    pub text: String,
    /// Where it stands; a piece of text begins two behind the end of the one before, so that no phrase goes from one into
    /// the next.
    pub position: usize,
    /// Whether it is of a script without spaces ([`Word::paired`]).
    pub paired: bool,
}

/// The words of one place of one message.
#[derive(Debug, Default)]
pub(crate) struct Gathered {
    /// In their order.
    pub tokens: Vec<Token>,
    position: usize,
}

impl Gathered {
    fn push(&mut self, text: String, paired: bool) {
        self.tokens.push(Token {
            text,
            position: self.position,
            paired,
        });
        self.position += 1;
    }

    fn gap(&mut self) {
        self.position += 2;
    }
}

/// The words of a content, at most `limit` of them, in the order of [`Place::ALL`].
pub(crate) fn gather(config: &Config, content: &Content, limit: usize) -> [Gathered; Place::COUNT] {
    let empty = Vec::new();
    let body = match &content.body {
        ContentBody::Octets(body) => body,
        _ => &empty,
    };
    let mut left = limit;
    let mut all = Place::ALL.map(|_| Gathered::default());
    let subject = headers(&content.prefix, body, config, &mut left, &mut all);
    texts(content, body, config, &mut left, &subject, &mut all);
    all
}

fn add(text: &str, config: &Config, left: &mut usize, to: &mut [&mut Gathered]) {
    words::each(text, config.word_length, true, |word| {
        if *left == 0 {
            return false;
        }
        *left -= 1;
        for gathered in to.iter_mut() {
            gathered.push(word.text.clone(), word.paired);
        }
        true
    });
    for gathered in to.iter_mut() {
        gathered.gap();
    }
}

/// Reads the header fields; returns the subject.
fn headers(
    trace: &[u8],
    body: &[u8],
    config: &Config,
    left: &mut usize,
    all: &mut [Gathered; Place::COUNT],
) -> String {
    let mut subject = String::new();
    let [head, _, in_subject, from, to, cc, bcc, ..] = all;
    let header = body.get(..body.len().min(HEADER_MAX)).unwrap_or(body);
    for field in Fields::new(trace).chain(Fields::new(header)) {
        let text = message::header_text(field.value);
        let own = match field.name.to_ascii_lowercase().as_slice() {
            b"subject" => {
                subject.clone_from(&text);
                Some(&mut *in_subject)
            }
            b"from" => Some(&mut *from),
            b"to" => Some(&mut *to),
            b"cc" => Some(&mut *cc),
            b"bcc" => Some(&mut *bcc),
            _ => None,
        };
        match own {
            Some(own) => add(&text, config, left, &mut [&mut *head, own]),
            None => add(&text, config, left, &mut [&mut *head]),
        }
    }
    subject
}

/// Reads the text parts, and the stems of them and of the subject.
fn texts(
    content: &Content,
    body: &[u8],
    config: &Config,
    left: &mut usize,
    subject: &str,
    all: &mut [Gathered; Place::COUNT],
) {
    let [_, plain, .., stems, subject_stems] = all;
    let stemmed =
        |text: &str, left: &mut usize, mut plain: Option<&mut Gathered>, stems: &mut Gathered| {
            let stemmer = words::stemmer_of(text);
            words::each(text, config.word_length, true, |word| {
                if *left == 0 {
                    return false;
                }
                *left -= 1;
                stems.push(words::stem(stemmer.as_ref(), &word), word.paired);
                if let Some(plain) = plain.as_deref_mut() {
                    let Word { text, paired, .. } = word;
                    plain.push(text, paired);
                }
                true
            });
            stems.gap();
            if let Some(plain) = plain {
                plain.gap();
            }
        };
    stemmed(subject, left, None, subject_stems);
    // What cannot be read of the stored description is parsed again: rows of an older version.
    let parsed = Parsed::decode(&content.parsed)
        .unwrap_or_else(|_| message::parse(&[], body, &message::Limits::default()));
    let limit = usize::try_from(config.body_bytes).unwrap_or(usize::MAX);
    message::for_each_text(&parsed, body, limit, |text| {
        stemmed(text, left, Some(&mut *plain), stems);
        *left > 0
    });
}
