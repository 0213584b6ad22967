//! A content as the server keeps it.
//!
//! Words are cut and folded here as for the embedded index, so that the same are found, and no version of the server's own
//! rules of languages matters. Pairs of scripts without spaces are spelt in letters and digits: it leaves them whole.

use crate::Config;
use crate::entry::{self, Gathered};
use crate::schema::Place;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fmt::Write;
use store::Content;
use types::{AccountId, ContentId};

/// Words of a message: the server reads no more than 65,535 of one attribute, gaps included.
const WORDS_MAX: usize = 50_000;
/// Words and stems of the body, each once.
pub(super) const FORMS: &str = "forms";
/// The same of the subject.
pub(super) const SUBJECT_FORMS: &str = "subject_forms";

/// Places that are attributes as they are.
const WHOLE: [Place; 7] = [
    Place::Head,
    Place::Body,
    Place::Subject,
    Place::From,
    Place::To,
    Place::Cc,
    Place::Bcc,
];

/// A word as the server is given it.
pub(super) fn spelt(text: &str, paired: bool) -> String {
    if !paired {
        return text.to_owned();
    }
    let mut spelt = String::with_capacity(12);
    for c in text.chars() {
        let _ = write!(spelt, "u{:05x}", u32::from(c));
    }
    spelt
}

/// The key of a content's document.
pub(super) fn key(account: AccountId, content: ContentId) -> String {
    format!("{}-{}", account.0, content.0)
}

/// Pieces of text, a string each: the server finds no phrase that goes from one into the next.
fn pieces(gathered: &Gathered) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    let mut last = None;
    for token in &gathered.tokens {
        let follows = last.is_some_and(|last| last + 1 == token.position);
        last = Some(token.position);
        let word = spelt(&token.text, token.paired);
        match pieces.last_mut() {
            Some(piece) if follows => {
                piece.push(' ');
                piece.push_str(&word);
            }
            _ => pieces.push(word),
        }
    }
    pieces
}

/// The words of some places, each once.
fn forms(all: [&Gathered; 2]) -> String {
    let words: BTreeSet<String> = all
        .iter()
        .flat_map(|gathered| &gathered.tokens)
        .map(|token| spelt(&token.text, token.paired))
        .collect();
    words.into_iter().collect::<Vec<_>>().join(" ")
}

/// The document of a content.
pub(super) fn document(config: &Config, account: AccountId, content: &Content) -> Value {
    let all = entry::gather(config, content, config.words.min(WORDS_MAX));
    let mut document = Map::new();
    document.insert("key".to_owned(), json!(key(account, content.id)));
    document.insert("account".to_owned(), json!(account.0));
    document.insert("content".to_owned(), json!(content.id.0));
    for (place, gathered) in Place::ALL.iter().zip(&all) {
        if WHOLE.contains(place) && !gathered.tokens.is_empty() {
            document.insert(place.name().to_owned(), json!(pieces(gathered)));
        }
    }
    let [_, body, subject, .., stems, subject_stems] = &all;
    document.insert(FORMS.to_owned(), json!(forms([body, stems])));
    let subject = forms([subject, subject_stems]);
    document.insert(SUBJECT_FORMS.to_owned(), json!(subject));
    Value::Object(document)
}

/// How an index is laid out.
pub(super) fn settings(config: &Config) -> Value {
    let whole: Vec<&str> = WHOLE.iter().map(|place| place.name()).collect();
    let mut searchable = whole.clone();
    searchable.extend([SUBJECT_FORMS, FORMS]);
    json!({
        "searchableAttributes": searchable,
        "filterableAttributes": ["account", "content"],
        "sortableAttributes": ["content"],
        // All that matches is asked for, so that what it takes to rank it well would be spent on everything.
        "rankingRules": ["sort", "words", "typo", "exactness"],
        "stopWords": [],
        "synonyms": {},
        // Slips count in the forms only: the other attributes answer searches that must be exact.
        "typoTolerance": {
            "enabled": true,
            "minWordSizeForTypos": { "oneTypo": 5, "twoTypos": 255 },
            "disableOnAttributes": whole,
        },
        "pagination": { "maxTotalHits": config.meilisearch.results },
        // The words are cut already: no guess at a language may cut them again.
        "localizedAttributes": [{ "attributePatterns": ["*"], "locales": ["eng"] }],
    })
}
