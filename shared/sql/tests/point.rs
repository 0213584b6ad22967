//! Backup points on all three databases: made before a change, kept while it is under way, and put back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use sql::point::{self, list};
use sql::{Db, Dialect, Kind, Migration, Options, Points, args};
use std::path::{Path, PathBuf};

const SCHEMA: &[Migration] = &[
    Migration {
        version: 1,
        name: "first",
        statements: &[
            "CREATE TABLE IF NOT EXISTS thing (
                id {bigint} NOT NULL, name {name} NOT NULL, data {blob}, PRIMARY KEY (id)) {clustered}",
            "CREATE INDEX {if_not_exists} thing_name ON thing (name)",
        ],
    },
    Migration {
        version: 2,
        name: "second",
        statements: &[
            "ALTER TABLE thing ADD COLUMN more {bigint} NOT NULL DEFAULT 7",
            "CREATE TABLE IF NOT EXISTS other (id {bigint} NOT NULL PRIMARY KEY) {table}",
        ],
    },
    Migration {
        version: 3,
        name: "third",
        statements: &["UPDATE thing SET name = 'changed'"],
    },
];

/// A last step that cannot be done.
const BROKEN: &[Migration] = &[
    SCHEMA[0],
    SCHEMA[1],
    Migration {
        version: 3,
        name: "broken",
        statements: &["UPDATE nothing SET name = 'changed'"],
    },
];

async fn version_1(db: &Db) {
    sql::migrate(db, "test", SCHEMA.get(..1).unwrap())
        .await
        .unwrap();
    db.execute("DELETE FROM thing", args![]).await.unwrap();
    for number in 0..3000 {
        let name = format!("näme {number}");
        let data = (number % 2 == 0).then(|| vec![u8::try_from(number % 256).unwrap(); 50]);
        db.execute(
            "INSERT INTO thing (id, name, data) VALUES (?, ?, ?)",
            args![number, name, data],
        )
        .await
        .unwrap();
    }
}

async fn names(db: &Db) -> Vec<(i64, String, Option<Vec<u8>>)> {
    let rows = db
        .fetch_all("SELECT id, name, data FROM thing ORDER BY id", args![])
        .await
        .unwrap();
    rows.iter()
        .map(|row| {
            (
                row.int(0).unwrap(),
                row.text(1).unwrap().to_owned(),
                row.blob_opt(2).unwrap().map(<[u8]>::to_vec),
            )
        })
        .collect()
}

async fn put_back(db: Db, url: &str, point: &Path) -> Db {
    if db.dialect() == Dialect::Sqlite {
        db.close().await;
        let file = PathBuf::from(url.strip_prefix("sqlite://").unwrap());
        let aside = point::put_file_back(&file, point).await.unwrap();
        assert!(aside.unwrap().exists());
        return Db::open(url, &Options::writer()).await.unwrap();
    }
    let (version, rows) = point::put_rows_back(&db, "test", SCHEMA, point)
        .await
        .unwrap();
    assert_eq!((version, rows), (1, 3000));
    db
}

#[tokio::test]
async fn a_point_is_made_before_a_change_and_can_be_put_back() {
    for test in sql::testing::databases().await.unwrap() {
        eprintln!("on {}", test.name);
        let folder = tempfile::tempdir().unwrap();
        let points = Points::new(folder.path().to_owned());
        let db = test.open().await.unwrap();
        let there = points.folder_of(&db).await.unwrap();
        // What is empty needs none.
        sql::migrate_with_point(&db, "test", SCHEMA.get(..1).unwrap(), &points)
            .await
            .unwrap();
        assert!(list(&there, "test").is_empty());
        version_1(&db).await;
        let before = names(&db).await;
        assert_eq!(
            sql::migrate_with_point(&db, "test", SCHEMA, &points)
                .await
                .unwrap(),
            3
        );
        assert!(
            names(&db)
                .await
                .iter()
                .all(|(_, name, _)| name == "changed")
        );
        let made = list(&there, "test");
        assert_eq!(made.len(), 1);
        let made = made.first().unwrap();
        assert_eq!(made.version, 1);
        let mode = std::os::unix::fs::MetadataExt::mode(&made.path.metadata().unwrap());
        assert_eq!(mode & 0o777, 0o600);
        // Nothing to do, nothing made.
        sql::migrate_with_point(&db, "test", SCHEMA, &points)
            .await
            .unwrap();
        assert_eq!(list(&there, "test").len(), 1);

        let db = put_back(db, &test.url, &made.path).await;
        assert_eq!(sql::schema_version(&db, "test").await.unwrap(), 1);
        assert_eq!(names(&db).await, before);
        assert_eq!(
            sql::migrate_with_point(&db, "test", SCHEMA, &points)
                .await
                .unwrap(),
            3
        );
    }
}

#[tokio::test]
async fn an_interrupted_migration_keeps_the_point_from_before_it() {
    for test in sql::testing::databases().await.unwrap() {
        eprintln!("on {}", test.name);
        let folder = tempfile::tempdir().unwrap();
        let points = Points::new(folder.path().to_owned());
        let db = test.open().await.unwrap();
        let there = points.folder_of(&db).await.unwrap();
        version_1(&db).await;
        // What an attempt that was killed has left.
        let part = there.join(".test-schema1-20260101T000000Z.db.part");
        std::fs::write(&part, "half").unwrap();
        // Step 2 is done, step 3 fails, again and again.
        for _ in 0..3 {
            sql::migrate_with_point(&db, "test", BROKEN, &points)
                .await
                .unwrap_err();
            assert_eq!(sql::schema_version(&db, "test").await.unwrap(), 2);
        }
        let made = list(&there, "test");
        assert_eq!(made.len(), 1, "{made:?}");
        assert_eq!(made.first().unwrap().version, 1);
        assert!(!part.exists());
        if db.dialect() == Dialect::MySql {
            // As if step 2 had been killed between its statements.
            db.execute("DROP TABLE other", args![]).await.unwrap();
            db.execute(
                "UPDATE schema_version SET version = 1 WHERE component = 'test'",
                args![],
            )
            .await
            .unwrap();
        }
        sql::migrate_with_point(&db, "test", SCHEMA, &points)
            .await
            .unwrap();
        assert_eq!(list(&there, "test").len(), 1);
        db.fetch_all("SELECT id FROM other", args![]).await.unwrap();
    }
}

#[tokio::test]
async fn only_the_newest_are_kept_and_none_if_so_wished() {
    let test = sql::testing::sqlite().unwrap();
    let db = test.open().await.unwrap();
    let mut points = Points::new(PathBuf::from("/nowhere"));
    let there = points.folder_of(&db).await.unwrap();
    for day in 1..5 {
        std::fs::write(
            there.join(format!("test-schema1-2020010{day}T000000Z.db")),
            "x",
        )
        .unwrap();
    }
    let other = there.join("other-schema1-20200101T000000Z.db");
    std::fs::write(&other, "x").unwrap();
    version_1(&db).await;
    points.keep = 0;
    sql::migrate_with_point(&db, "test", SCHEMA.get(..2).unwrap(), &points)
        .await
        .unwrap();
    assert_eq!(list(&there, "test").len(), 4);
    points.keep = 2;
    sql::migrate_with_point(&db, "test", SCHEMA, &points)
        .await
        .unwrap();
    let left: Vec<u32> = list(&there, "test")
        .iter()
        .map(|point| point.version)
        .collect();
    assert_eq!(left, [1, 2]);
    assert!(other.exists());
}

#[tokio::test]
async fn without_a_point_nothing_is_changed() {
    for test in sql::testing::databases().await.unwrap() {
        let db = test.open().await.unwrap();
        version_1(&db).await;
        if db.dialect() == Dialect::Sqlite {
            continue;
        }
        let points = Points::new(PathBuf::from("/proc/nowhere"));
        let error = sql::migrate_with_point(&db, "test", SCHEMA, &points)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("/proc/nowhere"), "{error}");
        assert_eq!(sql::schema_version(&db, "test").await.unwrap(), 1);
    }
}

#[tokio::test]
async fn a_damaged_point_is_refused_before_anything_is_removed() {
    for test in sql::testing::databases().await.unwrap() {
        let folder = tempfile::tempdir().unwrap();
        let points = Points::new(folder.path().to_owned());
        let db = test.open().await.unwrap();
        if db.dialect() == Dialect::Sqlite {
            continue;
        }
        version_1(&db).await;
        sql::migrate_with_point(&db, "test", SCHEMA, &points)
            .await
            .unwrap();
        let made = list(folder.path(), "test").remove(0);
        let whole = std::fs::read(&made.path).unwrap();
        for at in [0, 20, whole.len() / 2, whole.len() - 1] {
            let mut octets = whole.clone();
            *octets.get_mut(at).unwrap() ^= 1;
            std::fs::write(&made.path, &octets).unwrap();
            let error = point::put_rows_back(&db, "test", SCHEMA, &made.path)
                .await
                .unwrap_err();
            assert!(
                [Kind::Corrupt, Kind::Config].contains(&error.kind()),
                "{at}: {error:?}"
            );
        }
        std::fs::write(&made.path, whole.get(..whole.len() - 40).unwrap()).unwrap();
        point::put_rows_back(&db, "test", SCHEMA, &made.path)
            .await
            .unwrap_err();
        assert_eq!(sql::verify(&db, "test", SCHEMA).await.unwrap(), 3);
        assert_eq!(names(&db).await.len(), 3000);
        // One that is interrupted later leaves what nobody begins with.
        std::fs::write(&made.path, &whole).unwrap();
        db.execute(
            "UPDATE schema_version SET version = 2000000000 WHERE component = 'test'",
            args![],
        )
        .await
        .unwrap();
        let error = sql::verify(&db, "test", SCHEMA).await.unwrap_err();
        assert!(error.to_string().contains("put back"), "{error}");
        point::put_rows_back(&db, "test", SCHEMA, &made.path)
            .await
            .unwrap();
        assert_eq!(sql::schema_version(&db, "test").await.unwrap(), 1);
    }
}
