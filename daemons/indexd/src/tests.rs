//! The index with contents as the store gives them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use crate::index::Shelf;
use crate::library::Library;
use crate::{Config, query};
use ipc::api::indexd::{Field, Match, Mode, Search};
use roaring::RoaringTreemap;
use store::{Content, ContentBody};
use types::{AccountId, ContentId};

const ONE: AccountId = AccountId(1);

fn content(id: u64, subject: &str, text: &str) -> Content {
    let body = format!(
        "From: Ann <ann@example.org>\r\nTo: bob@example.net\r\nSubject: {subject}\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n"
    )
    .into_bytes();
    Content {
        id: ContentId(id),
        prefix: b"Return-Path: <>\r\n".to_vec(),
        parsed: message::parse(b"", &body, &message::Limits::default()).encode(),
        body: ContentBody::Octets(body),
    }
}

fn found(shelf: &Shelf, account: AccountId, field: Field, mode: Mode, text: &str) -> Vec<u64> {
    let call = Search {
        account,
        matches: vec![Match {
            field,
            text: text.to_owned(),
            mode,
        }],
        scores: true,
    };
    let answer = query::search(shelf, &call).unwrap();
    let hits = RoaringTreemap::deserialize_from(answer.hits[0].as_slice()).unwrap();
    let mut scored: Vec<u64> = answer.scores.iter().map(|(id, _)| *id).collect();
    scored.sort_unstable();
    assert_eq!(scored, hits.iter().collect::<Vec<_>>());
    assert!(
        answer
            .scores
            .iter()
            .all(|(_, score)| (1..=100).contains(score))
    );
    hits.iter().collect()
}

fn filled(home: &std::path::Path) -> Shelf {
    let shelf = Shelf::open(home, &Config::default()).unwrap();
    let mine = [
        content(
            1,
            "Café meeting",
            "The meetings were moved to the second floor of the building",
        ),
        content(
            2,
            "hello",
            "A meeting was held and everybody liked the coffee very much",
        ),
        content(3, "東京", "明日は東京都に行きます"),
    ];
    shelf.add(ONE, &mine).unwrap();
    shelf
        .add(AccountId(0x11), &[content(1, "secret meeting", "other")])
        .unwrap();
    shelf.commit(&[(ONE, ContentId(3))]).unwrap();
    shelf
}

#[test]
fn words_phrases_prefixes_and_fields() {
    let home = tempfile::tempdir().unwrap();
    let shelf = filled(home.path());
    let words = |field, text| found(&shelf, ONE, field, Mode::Words, text);
    assert_eq!(words(Field::Text, "cafe"), [1]);
    assert_eq!(words(Field::Body, "cafe"), [] as [u64; 0]);
    assert_eq!(words(Field::Body, "meet"), [1, 2]);
    assert_eq!(words(Field::Body, "meeting "), [2]);
    assert_eq!(words(Field::Body, "second floor"), [1]);
    assert_eq!(words(Field::Body, "second flo"), [1]);
    assert_eq!(words(Field::Body, "floor second"), [] as [u64; 0]);
    assert_eq!(words(Field::Body, "東京"), [3]);
    assert_eq!(words(Field::Body, "都に行"), [3]);
    assert_eq!(words(Field::From, "ann@example.org"), [1, 2, 3]);
    assert_eq!(words(Field::To, "ann"), [] as [u64; 0]);
    assert_eq!(words(Field::Subject, "secret"), [] as [u64; 0]);
    assert_eq!(words(Field::Text, "--"), [1, 2, 3]);
    assert_eq!(
        found(&shelf, AccountId(0x11), Field::Text, Mode::Words, "meeting"),
        [1]
    );
}

#[test]
fn other_forms_and_slips_count_when_fuzzy() {
    let home = tempfile::tempdir().unwrap();
    let shelf = filled(home.path());
    let fuzzy = |field, text| found(&shelf, ONE, field, Mode::Fuzzy, text);
    assert_eq!(fuzzy(Field::Body, "meetings"), [1, 2]);
    assert_eq!(fuzzy(Field::Body, "coffe"), [2]);
    assert_eq!(fuzzy(Field::Body, "biulding"), [1]);
    assert_eq!(fuzzy(Field::Body, "secret"), [] as [u64; 0]);
}

#[test]
fn what_is_committed_says_how_far_it_is() {
    let home = tempfile::tempdir().unwrap();
    let shelf = filled(home.path());
    shelf
        .add(ONE, &[content(4, "never committed", "x")])
        .unwrap();
    // As after a kill: what was not committed is gone.
    drop(shelf);
    let shelf = Shelf::open(home.path(), &Config::default()).unwrap();
    assert_eq!(shelf.reached.covered(ONE), ContentId(3));
    assert_eq!(shelf.documents(), 4);
    // Given again, it is there once.
    shelf
        .add(ONE, &[content(3, "again", "x"), content(4, "new", "x")])
        .unwrap();
    shelf.remove(ONE, &[ContentId(1)]).unwrap();
    shelf.commit(&[(ONE, ContentId(4))]).unwrap();
    assert_eq!(shelf.documents(), 4);
    assert_eq!(
        found(&shelf, ONE, Field::Text, Mode::Words, "--"),
        [2, 3, 4]
    );
    shelf.forget(ONE).unwrap();
    assert_eq!(
        (shelf.documents(), shelf.reached.covered(ONE)),
        (1, ContentId(0))
    );
}

#[test]
fn a_rebuild_survives_a_restart_and_damage_is_moved_aside() {
    let home = tempfile::tempdir().unwrap();
    let config = Config::default();
    let library = Library::open(home.path(), &config).unwrap();
    library
        .serving()
        .add(ONE, &[content(1, "old", "x")])
        .unwrap();
    library.serving().commit(&[]).unwrap();
    library.rebuild().unwrap();
    drop(library);
    let library = Library::open(home.path(), &config).unwrap();
    assert_eq!(library.serving().documents(), 1);
    let new = library.building().unwrap();
    new.add(ONE, &[content(1, "new", "x"), content(2, "new", "x")])
        .unwrap();
    new.commit(&[]).unwrap();
    // One that is not the rebuild under way never serves.
    library.switch(&library.serving()).unwrap();
    assert_eq!(library.serving().documents(), 1);
    library.switch(&new).unwrap();
    drop(new);
    assert_eq!(library.serving().documents(), 2);
    drop(library);
    assert!(!home.path().join("1").exists());
    std::fs::write(home.path().join("2/meta.json"), b"{").unwrap();
    let library = Library::open(home.path(), &config).unwrap();
    assert_eq!(library.serving().documents(), 0);
    assert!(home.path().join("2.damaged").exists());
}
