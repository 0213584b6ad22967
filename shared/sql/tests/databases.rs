//! The same statements on all three databases.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use sql::{Db, Kind, Migration, Options, Value, args};

const SCHEMA: &[Migration] = &[
    Migration {
        version: 1,
        name: "first",
        statements: &[
            "CREATE TABLE IF NOT EXISTS thing (
                id {bigint} NOT NULL, name {name} NOT NULL, note {text}, data {blob}, hash {hash},
                PRIMARY KEY (id)) {clustered}",
            "CREATE UNIQUE INDEX {if_not_exists} thing_name ON thing (name)",
        ],
    },
    Migration {
        version: 2,
        name: "second",
        statements: &["ALTER TABLE thing ADD COLUMN more {bigint} NOT NULL DEFAULT 7"],
    },
];

#[tokio::test]
async fn the_same_statements_work_everywhere() {
    for test in sql::testing::databases().await.unwrap() {
        eprintln!("on {}", test.name);
        let db = test.open().await.unwrap();
        values_come_back(&db).await;
        batches(&db).await;
        together(&db).await;
        errors_have_their_kind(&db).await;
        transactions(&db).await;
        streams(&db).await;
    }
}

#[tokio::test]
async fn migrations_are_repeatable_and_refuse_a_newer_schema() {
    for test in sql::testing::databases().await.unwrap() {
        eprintln!("on {}", test.name);
        let db = test.open().await.unwrap();
        let early = sql::verify(&db, "test", SCHEMA).await.unwrap_err();
        assert_eq!(early.kind(), Kind::Unavailable);
        let first = SCHEMA.get(..1).unwrap();
        assert_eq!(sql::migrate(&db, "test", first).await.unwrap(), 1);
        let old = sql::verify(&db, "test", SCHEMA).await.unwrap_err();
        assert_eq!(old.kind(), Kind::Schema);
        assert_eq!(sql::migrate(&db, "test", SCHEMA).await.unwrap(), 2);
        assert_eq!(sql::migrate(&db, "test", SCHEMA).await.unwrap(), 2);
        assert_eq!(sql::verify(&db, "test", SCHEMA).await.unwrap(), 2);
        let newer = sql::migrate(&db, "test", first).await.unwrap_err();
        assert_eq!(newer.kind(), Kind::Schema);
        // As if the program had been killed before it noted the step.
        if db.dialect() == sql::Dialect::MySql {
            db.execute("UPDATE schema_version SET version = 1", args![])
                .await
                .unwrap();
            assert_eq!(sql::migrate(&db, "test", SCHEMA).await.unwrap(), 2);
        }
    }
}

async fn values_come_back(db: &Db) {
    sql::migrate(db, "test", SCHEMA).await.unwrap();
    let insert = "INSERT INTO thing (id, name, note, data, hash) VALUES (?, ?, ?, ?, ?)";
    let all: Vec<u8> = (0..=255).collect();
    db.execute(
        insert,
        args![
            -1,
            "Ünïcode ?",
            None::<&str>,
            None::<Vec<u8>>,
            None::<Vec<u8>>
        ],
    )
    .await
    .unwrap();
    db.execute(
        insert,
        args![u64::MAX - 5, "b", "", all.as_slice(), [0u8; 32]],
    )
    .await
    .unwrap();
    let rows = db
        .fetch_all(
            "SELECT id, name, note, data, hash, more FROM thing WHERE id IN (?, ?) ORDER BY name",
            args![-1, u64::MAX - 5],
        )
        .await
        .unwrap();
    let [b, u] = rows.as_slice() else {
        panic!("two rows")
    };
    assert_eq!(b.u64(0).unwrap(), u64::MAX - 5);
    assert_eq!(b.text(2).unwrap(), "");
    assert_eq!(b.blob(3).unwrap(), all);
    assert_eq!(b.blob(4).unwrap(), [0; 32]);
    assert_eq!(u.int(0).unwrap(), -1);
    assert_eq!(u.text(1).unwrap(), "Ünïcode ?");
    assert_eq!(u.text_opt(2).unwrap(), None);
    assert_eq!(u.blob_opt(3).unwrap(), None);
    assert_eq!(u.u32(5).unwrap(), 7);
    assert!(u.text(2).is_err() && u.int(99).is_err());
    let row = db
        .fetch_optional(
            "SELECT COUNT(*), CAST(SUM(id) AS {int}), MIN(id), COALESCE(MAX(more), 0) FROM thing WHERE id < 0",
            args![],
        )
        .await
        .unwrap()
        .unwrap();
    assert_eq!((row.int(0).unwrap(), row.int(2).unwrap()), (2, -6));
    assert_eq!((row.int(1).unwrap(), row.int(3).unwrap()), (-7, 7));
}

async fn batches(db: &Db) {
    db.execute("DELETE FROM thing", args![]).await.unwrap();
    let rows: Vec<Value> = (0..1000).flat_map(|n| args![n, format!("n{n}")]).collect();
    let inserted = db
        .insert_many("INSERT INTO thing (id, name)", 2, rows.clone(), "")
        .await
        .unwrap();
    assert_eq!(inserted, 1000);
    let mut again = rows.get(..20).unwrap().to_vec();
    again.extend(args![1000, "new"]);
    let inserted = db
        .insert_many(
            "INSERT {ignore} INTO thing (id, name)",
            2,
            again,
            "{do_nothing}",
        )
        .await
        .unwrap();
    assert_eq!(inserted, 1);
    db.insert_many(
        "INSERT INTO thing (id, name, more)",
        3,
        args![5, "n5", 50, 6, "n6", 60],
        "{on_conflict:id} more = thing.more + {excluded:more}",
    )
    .await
    .unwrap();
    let found = db
        .fetch_in(
            "SELECT id, more FROM thing WHERE more = ? AND id IN ({list}) ORDER BY id",
            &args![57],
            (0..700).map(Value::from).collect(),
        )
        .await
        .unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found.first().unwrap().int(0).unwrap(), 5);
    let removed = db
        .execute_in(
            "DELETE FROM thing WHERE id IN ({list})",
            &[],
            (0..700).map(Value::from).collect(),
        )
        .await
        .unwrap();
    assert_eq!(removed, 700);
}

async fn together(db: &Db) {
    use sql::Statement;
    let one = |text: &str, args: Vec<Value>| Statement {
        text: text.to_owned(),
        args,
    };
    let mut tx = db.begin().await.unwrap();
    tx.execute_each(vec![
        one("DELETE FROM thing", args![]),
        one(
            "INSERT INTO thing (id, name) VALUES (?, ?), (?, ?)",
            args![1, "a", 2, "b"],
        ),
        one("UPDATE thing SET more = ? WHERE id = ?", args![9, 2]),
    ])
    .await
    .unwrap();
    let by_id = |ids: Vec<Value>| {
        Statement::listed(
            "SELECT id, more FROM thing WHERE id IN ({list}) ORDER BY id",
            &[],
            &ids,
        )
    };
    for long in [0, 600] {
        let found = tx
            .fetch_each(vec![
                by_id(args![1, 2, 3]),
                by_id(args![]),
                vec![one("SELECT COUNT(*), 0 FROM thing WHERE id > ?", args![5])],
                by_id((2..2 + long).map(Value::from).collect()),
            ])
            .await
            .unwrap();
        let ids = |at: usize| -> Vec<i64> {
            let rows: &Vec<sql::Row> = found.get(at).unwrap();
            rows.iter().map(|row| row.int(0).unwrap()).collect()
        };
        assert_eq!((ids(0), ids(1), ids(2)), (vec![1, 2], vec![], vec![0]));
        assert_eq!(ids(3).len(), usize::from(long > 0));
    }
    let failed = tx
        .execute_each(vec![
            one("UPDATE thing SET more = ? WHERE id = ?", args![10, 2]),
            one("INSERT INTO thing (id, name) VALUES (?, ?)", args![1, "c"]),
        ])
        .await;
    assert_eq!(failed.unwrap_err().kind(), Kind::Unique);
    tx.rollback().await.unwrap();
}

async fn errors_have_their_kind(db: &Db) {
    let insert = "INSERT INTO thing (id, name) VALUES (?, ?)";
    let twice = db.execute(insert, args![1000, "x"]).await.unwrap_err();
    assert_eq!(twice.kind(), Kind::Unique);
    let null = db
        .execute(insert, args![5000, None::<&str>])
        .await
        .unwrap_err();
    assert_eq!(null.kind(), Kind::Constraint);
    let wrong = db.execute("SELECT nowhere FROM nowhere", args![]).await;
    assert_eq!(wrong.unwrap_err().kind(), Kind::Statement);
}

async fn transactions(db: &Db) {
    let insert = "INSERT INTO thing (id, name) VALUES (?, ?)";
    let mut tx = db.begin().await.unwrap();
    tx.execute(insert, args![1, "one"]).await.unwrap();
    tx.savepoint().await.unwrap();
    tx.execute(insert, args![2, "two"]).await.unwrap();
    assert!(tx.execute(insert, args![1, "again"]).await.is_err());
    tx.back_to_savepoint().await.unwrap();
    tx.savepoint().await.unwrap();
    tx.execute(insert, args![3, "three"]).await.unwrap();
    tx.release_savepoint().await.unwrap();
    let mut snapshot = db.snapshot().await.unwrap();
    let count = "SELECT COUNT(*) FROM thing WHERE id < 10";
    let seen = snapshot.fetch_optional(count, args![]).await.unwrap();
    assert_eq!(seen.unwrap().int(0).unwrap(), 0);
    tx.commit().await.unwrap();
    let seen = snapshot.fetch_optional(count, args![]).await.unwrap();
    assert_eq!(seen.unwrap().int(0).unwrap(), 0);
    drop(snapshot);
    let mut tx = db.begin().await.unwrap();
    tx.execute("DELETE FROM thing", args![]).await.unwrap();
    drop(tx);
    let rows = db
        .fetch_all("SELECT id FROM thing WHERE id < 10 ORDER BY id", args![])
        .await
        .unwrap();
    let ids: Vec<i64> = rows.iter().map(|row| row.int(0).unwrap()).collect();
    assert_eq!(ids, [1, 3]);
}

async fn streams(db: &Db) {
    let text = "SELECT id FROM thing ORDER BY id";
    let all = db.fetch_all(text, args![]).await.unwrap().len();
    let mut count = 0;
    db.fetch(text, args![])
        .unwrap()
        .each(|_| {
            count += 1;
            Ok::<(), sql::Error>(())
        })
        .await
        .unwrap();
    assert_eq!(count, all);
    // Left in the middle, the connection can be used again.
    for _ in 0..20 {
        let mut rows = db.fetch(text, args![]).unwrap();
        assert!(rows.next().await.unwrap().is_some());
    }
    assert_eq!(db.fetch_all(text, args![]).await.unwrap().len(), all);
}

#[tokio::test]
async fn a_server_that_is_gone_is_a_temporary_error_and_comes_back() {
    use sql::testing::{Server, ServerKind};
    for kind in [ServerKind::Postgres, ServerKind::MySql] {
        let home = tempfile::tempdir().unwrap();
        open_for_all(home.path());
        let directory = home.path().join("server");
        let Some(mut server) = Server::start(kind, &directory).unwrap() else {
            eprintln!("SKIPPED: {} is not installed", kind.name());
            continue;
        };
        let options = Options {
            timeout: std::time::Duration::from_secs(2),
            ..Options::default()
        };
        let db = Db::open(&server.url(), &options).await.unwrap();
        db.fetch_all("SELECT 1", args![]).await.unwrap();
        server.stop().unwrap();
        for _ in 0..3 {
            let error = db.fetch_all("SELECT 1", args![]).await.err().unwrap();
            assert!(error.is_temporary(), "{error:?}");
            let error = db.begin().await.err().unwrap();
            assert!(error.is_temporary(), "{error:?}");
        }
        server.resume().unwrap();
        let begun = std::time::Instant::now();
        while let Err(error) = db.fetch_all("SELECT 1", args![]).await {
            assert!(error.is_temporary(), "{error:?}");
            assert!(begun.elapsed() < std::time::Duration::from_secs(60));
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

fn open_for_all(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}
