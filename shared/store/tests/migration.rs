//! A store of version 1, as a program of that time has left it (`migration/version-1.sql`), brought to this version.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use sql::dump::{self, Column, Digest};
use sql::{Db, Dialect, Options, Points, Value, args};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use store::writer::Writer;
use store::{COMPONENT, MIGRATIONS};
use types::AccountId;

const OLD: &str = include_str!("migration/version-1.sql");

/// The old store, in SQLite, as its text makes it.
async fn old(path: &Path) -> Db {
    let url = format!("sqlite://{}", path.display());
    let db = Db::open(&url, &Options::writer()).await.unwrap();
    for statement in OLD.split(";\n") {
        let statement = statement.trim();
        if !["", "BEGIN TRANSACTION", "COMMIT"].contains(&statement) {
            db.execute(statement, args![]).await.unwrap();
        }
    }
    db
}

async fn rows(db: &Db, table: &str) -> (Vec<Column>, Vec<Value>, Digest) {
    let mut tx = db.snapshot().await.unwrap();
    let columns = dump::columns(&mut tx, table).await.unwrap();
    let mut digest = Digest::default();
    let mut values = Vec::new();
    dump::read(&mut tx, table, &columns, |row| {
        digest.add(&row);
        values.extend(row);
        Ok::<(), sql::Error>(())
    })
    .await
    .unwrap();
    tx.commit().await.unwrap();
    (columns, values, digest)
}

async fn digests(db: &Db) -> BTreeMap<String, (u64, String)> {
    let mut found = BTreeMap::new();
    for table in dump::tables(MIGRATIONS.get(..1).unwrap()) {
        let (_, _, digest) = rows(db, &table).await;
        found.insert(table, (digest.rows, digest.hex()));
    }
    found
}

/// Its layout in SQLite.
async fn layout(db: &Db) -> BTreeMap<String, String> {
    let text = "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name <> 'keep_wal'";
    let rows = db.fetch_all(text, args![]).await.unwrap();
    let squeeze = |text: &str| {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        words.join(" ").replace("IF NOT EXISTS ", "")
    };
    rows.iter()
        .map(|row| {
            let name = row.text(0).unwrap().to_owned();
            (name, squeeze(row.text(1).unwrap()))
        })
        .collect()
}

#[tokio::test]
async fn the_first_step_still_makes_what_it_made() {
    let home = tempfile::tempdir().unwrap();
    let old = old(&home.path().join("old.db")).await;
    let new = sql::testing::sqlite().unwrap();
    let db = new.open().await.unwrap();
    sql::migrate(&db, COMPONENT, MIGRATIONS.get(..1).unwrap())
        .await
        .unwrap();
    assert_eq!(layout(&db).await, layout(&old).await);
}

#[tokio::test]
async fn an_old_store_is_whole_afterwards_and_so_is_its_point() {
    for test in sql::testing::databases().await.unwrap() {
        eprintln!("on {}", test.name);
        let home = tempfile::tempdir().unwrap();
        let source = old(&home.path().join("old.db")).await;
        let before = digests(&source).await;
        assert!(before["message"].0 >= 5 && before["body"].0 >= 5);
        let db = match test.open().await.unwrap() {
            db if db.dialect() == Dialect::Sqlite => source,
            db => {
                sql::migrate(&db, COMPONENT, MIGRATIONS.get(..1).unwrap())
                    .await
                    .unwrap();
                for table in before.keys() {
                    let (columns, values, _) = rows(&source, table).await;
                    if !values.is_empty() {
                        dump::write(&db, table, &columns, values).await.unwrap();
                    }
                }
                db
            }
        };
        assert_eq!(digests(&db).await, before);
        assert_eq!(sql::schema_version(&db, COMPONENT).await.unwrap(), 1);

        let points = Points::new(home.path().to_owned());
        let writer = Writer::new(db.clone());
        let version = writer.migrate_with_point(&points).await.unwrap();
        assert_eq!(version, MIGRATIONS.last().unwrap().version);
        assert_eq!(digests(&db).await, before);
        look(&writer, home.path()).await;

        let made = sql::point::list(home.path(), COMPONENT);
        let [point] = made.as_slice() else {
            panic!("{made:?}")
        };
        assert_eq!(point.version, 1);
        if db.dialect() == Dialect::Sqlite {
            let url = format!("sqlite://{}", point.path.display());
            let copy = Db::open(&url, &Options::writer()).await.unwrap();
            assert_eq!(digests(&copy).await, before);
        } else {
            sql::point::put_rows_back(&db, COMPONENT, MIGRATIONS, &point.path)
                .await
                .unwrap();
            assert_eq!(sql::schema_version(&db, COMPONENT).await.unwrap(), 1);
            assert_eq!(digests(&db).await, before);
        }
    }
}

/// What a reader of now sees in the old rows.
async fn look(writer: &Writer, state: &Path) {
    let blobs = blob::Blobs::open_writer(&blob::Config::default(), state).unwrap();
    let blobs = Arc::new(blobs);
    let reader = writer.reader(Arc::clone(&blobs));
    reader.verify().await.unwrap();
    let alice = AccountId(1);
    let mailboxes = reader.mailboxes(alice).await.unwrap();
    let list = mailboxes
        .iter()
        .find(|mailbox| mailbox.name == "Lists/rust")
        .unwrap();
    let mut messages = Vec::new();
    reader
        .messages(alice, list.id, types::Uid(1), |row| messages.push(row))
        .await
        .unwrap();
    assert_eq!(messages.len(), 2);
    let found = reader
        .whole(alice, messages.first().unwrap().content)
        .await
        .unwrap();
    assert!(found.is_some());
    assert!(reader.scripts(alice).await.unwrap().is_empty());
    for account in [alice, AccountId(2)] {
        let examined = writer.examine(&blobs, account, false, true).await.unwrap();
        assert_eq!(examined.findings, []);
    }
}
