//! Processes that may read a SQLite database but not write its directory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use sql::{Db, Kind, Options, args};
use std::os::unix::fs::PermissionsExt;

async fn count(db: &Db) -> i64 {
    let row = db.fetch_optional("SELECT COUNT(*) FROM t", args![]).await;
    row.unwrap().unwrap().int(0).unwrap()
}

#[tokio::test]
async fn readers_follow_the_writer_without_rights_to_write() {
    let test = sql::testing::sqlite().unwrap();
    let path = std::path::PathBuf::from(test.url.strip_prefix("sqlite://").unwrap());
    let directory = path.parent().unwrap().to_owned();
    let missing = Db::open(&test.url, &Options::reader()).await.unwrap_err();
    assert_eq!(missing.kind(), Kind::Unavailable, "{missing:?}");

    let writer = test.open().await.unwrap();
    writer
        .execute("CREATE TABLE t (x INTEGER)", args![])
        .await
        .unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o640 & !umask()
    );
    for name in ["test.db", "test.db-wal", "test.db-shm"] {
        let file = directory.join(name);
        assert!(file.exists(), "{name}");
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o440)).unwrap();
    }
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o555)).unwrap();
    let reader = Db::open(&test.url, &Options::reader()).await.unwrap();
    assert_eq!(count(&reader).await, 0);
    for n in 1..=3 {
        writer
            .execute("INSERT INTO t VALUES (?)", args![n])
            .await
            .unwrap();
        assert_eq!(count(&reader).await, n);
    }
    let denied = reader.execute("INSERT INTO t VALUES (1)", args![]).await;
    assert_eq!(denied.unwrap_err().kind(), Kind::Denied);

    // The files are still there when the writer's pool is closed.
    writer.close().await;
    assert!(directory.join("test.db-wal").exists());
    let late = Db::open(&test.url, &Options::reader()).await.unwrap();
    assert_eq!(count(&late).await, 3);
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn umask() -> u32 {
    let probe = tempfile::tempdir().unwrap();
    let file = probe.path().join("probe");
    std::fs::write(&file, "").unwrap();
    0o666 & !(std::fs::metadata(file).unwrap().permissions().mode() & 0o777)
}

/// As another user, in another process: only root can try that.
#[tokio::test]
async fn another_user_reads_what_the_group_may_read() {
    if std::env::var_os("SQL_TEST_READER").is_some() {
        let url = std::env::var("SQL_TEST_READER").unwrap();
        let reader = Db::open(&url, &Options::reader()).await.unwrap();
        assert_eq!(count(&reader).await, 1);
        assert!(reader.execute("DELETE FROM t", args![]).await.is_err());
        return;
    }
    let test = sql::testing::sqlite().unwrap();
    let path = std::path::PathBuf::from(test.url.strip_prefix("sqlite://").unwrap());
    let directory = path.parent().unwrap().to_owned();
    let writer = test.open().await.unwrap();
    writer
        .execute("CREATE TABLE t (x INTEGER)", args![])
        .await
        .unwrap();
    writer
        .execute("INSERT INTO t VALUES (1)", args![])
        .await
        .unwrap();
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o750)).unwrap();
    let chgrp = std::process::Command::new("chgrp")
        .args(["-R", "nogroup"])
        .arg(&directory)
        .output()
        .unwrap();
    if !chgrp.status.success() {
        eprintln!("SKIPPED: not root");
        return;
    }
    // The test program itself may lie where the other user cannot go.
    let program = directory.with_extension("program");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = std::process::Command::new("setpriv")
        .args(["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--"])
        .arg(&program)
        .args([
            "--exact",
            "another_user_reads_what_the_group_may_read",
            "--nocapture",
        ])
        .env("SQL_TEST_READER", &test.url)
        .current_dir("/")
        .output()
        .unwrap();
    std::fs::remove_file(program).unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
    drop(writer);
}

#[tokio::test]
async fn a_full_disk_is_told_and_forgotten_when_there_is_room() {
    let test = sql::testing::sqlite().unwrap();
    let options = Options {
        max_connections: 1,
        ..Options::writer()
    };
    let db = Db::open(&test.url, &options).await.unwrap();
    db.execute("CREATE TABLE t (x BLOB)", args![])
        .await
        .unwrap();
    let limit = |pages: u32| format!("PRAGMA max_page_count = {pages}");
    db.fetch_all(&limit(50), args![]).await.unwrap();
    let mut tx = db.begin().await.unwrap();
    let full = loop {
        if let Err(error) = tx
            .execute("INSERT INTO t VALUES (?)", args![vec![1; 20_000]])
            .await
        {
            break error;
        }
    };
    assert_eq!(full.kind(), Kind::Full, "{full:?}");
    assert!(full.is_temporary());
    // Whether SQLite has rolled back by itself or not: the next one finds a sound connection.
    let _ = tx.rollback().await;
    for _ in 0..3 {
        let tx = db.begin().await.unwrap();
        drop(tx);
    }
    db.fetch_all(&limit(100_000), args![]).await.unwrap();
    let mut tx = db.begin().await.unwrap();
    tx.execute("INSERT INTO t VALUES (?)", args![vec![1; 2_000_000]])
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(count(&db).await, 1);
}

#[tokio::test]
async fn a_transaction_that_was_rolled_back_beneath_leaves_no_trace() {
    let test = sql::testing::sqlite().unwrap();
    let options = Options {
        max_connections: 1,
        ..Options::writer()
    };
    let db = Db::open(&test.url, &options).await.unwrap();
    db.execute("CREATE TABLE t (x BLOB)", args![])
        .await
        .unwrap();
    for _ in 0..2 {
        let mut tx = db.begin().await.unwrap();
        tx.execute("INSERT INTO t VALUES (1)", args![])
            .await
            .unwrap();
        // What SQLite does by itself after an I/O error.
        tx.execute("ROLLBACK", args![]).await.unwrap();
        assert!(tx.commit().await.is_err());
    }
    assert_eq!(count(&db).await, 0);
}

#[test]
fn a_database_may_outlive_its_runtime() {
    let test = sql::testing::sqlite().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let (db, tx) = runtime.block_on(async {
        let db = test.open().await.unwrap();
        db.execute("CREATE TABLE t (x INTEGER)", args![])
            .await
            .unwrap();
        let mut tx = db.begin().await.unwrap();
        tx.execute("INSERT INTO t VALUES (1)", args![])
            .await
            .unwrap();
        (db, tx)
    });
    drop(runtime);
    drop(tx);
    drop(db);
}
