//! Documents and comparisons; the rest is tested against a server by tests/e2e/test_meilisearch.py.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use super::document::{document, spelt};
use super::search::has_phrase;
use crate::{Config, Meilisearch};
use serde_json::json;
use store::{Content, ContentBody};
use types::{AccountId, ContentId};

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

#[test]
fn a_document_has_the_words_of_each_place() {
    let body = "From: Ann <ann@example.org>\r\nSubject: Café 東京都\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nThe meetings were moved to the second floor of the building.\r\n";
    let body = body.as_bytes().to_vec();
    let content = Content {
        id: ContentId(7),
        prefix: Vec::new(),
        parsed: message::parse(b"", &body, &message::Limits::default()).encode(),
        body: ContentBody::Octets(body),
    };
    let made = document(&Config::default(), AccountId(3), &content);
    assert_eq!(made["key"], "3-7");
    assert_eq!((&made["account"], &made["content"]), (&json!(3), &json!(7)));
    assert_eq!(made["from"], json!(["ann ann example org"]));
    let (tokyo, kyoto, to) = (spelt("東京", true), spelt("京都", true), spelt("都", true));
    assert_eq!(tokyo, "u06771u04eac");
    assert_eq!(
        made["subject"],
        json!([format!("cafe {tokyo} {kyoto} {to}")])
    );
    assert_eq!(
        made["body"],
        json!(["the meetings were moved to the second floor of the building"])
    );
    assert!(made.get("cc").is_none());
    // A header field each is a piece of its own.
    assert_eq!(made["head"].as_array().unwrap().len(), 3);
    let forms = words(made["forms"].as_str().unwrap());
    for form in ["meetings", "meet", "floor"] {
        assert!(forms.contains(&form.to_owned()), "{form} in {forms:?}");
    }
    assert_eq!(forms.iter().filter(|word| *word == "the").count(), 1);
}

#[test]
fn phrases_are_compared_word_by_word() {
    let piece = "to the second floor of the building";
    assert!(has_phrase(piece, &words("second floor"), false));
    assert!(!has_phrase(piece, &words("second flo"), false));
    assert!(has_phrase(piece, &words("second flo"), true));
    assert!(!has_phrase(piece, &words("sec floor"), true));
    assert!(!has_phrase(piece, &words("floor second"), true));
    assert!(!has_phrase("floor", &words("second floor"), true));
}

#[test]
fn an_address_that_gives_mail_away_is_refused() {
    let with = |url: &str, plain: bool| Meilisearch {
        url: url.to_owned(),
        plain,
        secret_key: blob::Secret("geheim".to_owned()),
        ..Meilisearch::default()
    };
    for good in [
        "https://search.example.org",
        "http://127.0.0.1:7700",
        "http://[::1]:7700/",
        "http://localhost",
    ] {
        assert_eq!(with(good, false).check(), Ok(()), "{good}");
    }
    assert_eq!(with("http://search:7700", true).check(), Ok(()));
    for bad in [
        "http://search.example.org",
        "http://127.0.0.1.example.org",
        "http://localhost@example.org",
        "https://user:pass@example.org",
        "ftp://127.0.0.1",
        "https://",
    ] {
        assert!(with(bad, false).check().is_err(), "{bad}");
    }
    assert!(!format!("{:?}", with("https://a", false)).contains("geheim"));
}
