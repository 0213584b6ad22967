//! What a query costs on top of the database's own work.
//!
//! `cargo run --release -p sql --features testing --example overhead [URL]`
#![allow(clippy::unwrap_used)]

use sql::{Db, Options, args};
use std::time::Instant;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let test = sql::testing::sqlite().unwrap();
    let url = std::env::args().nth(1).unwrap_or(test.url.clone());
    let db = Db::open(&url, &Options::writer()).await.unwrap();
    db.execute(
        "CREATE TABLE IF NOT EXISTS overhead (id {bigint} NOT NULL PRIMARY KEY, data {blob} NOT NULL)",
        args![],
    )
    .await
    .unwrap();
    let rows = (0..10_000).flat_map(|n| args![n, vec![7u8; 320]]).collect();
    db.insert_many(
        "INSERT {ignore} INTO overhead (id, data)",
        2,
        rows,
        "{do_nothing}",
    )
    .await
    .unwrap();
    let text = "SELECT data FROM overhead WHERE id = ?";
    let many = 5000;
    let began = Instant::now();
    for n in 0..many {
        db.fetch_optional(text, args![n]).await.unwrap().unwrap();
    }
    let pool = began.elapsed() / many;
    let mut tx = db.snapshot().await.unwrap();
    let began = Instant::now();
    for n in 0..many {
        tx.fetch_optional(text, args![n]).await.unwrap().unwrap();
    }
    let inside = began.elapsed() / many;
    tx.commit().await.unwrap();
    let began = Instant::now();
    let mut count = 0;
    let mut rows = db.fetch("SELECT id, data FROM overhead", args![]).unwrap();
    while let Some(row) = rows.next().await.unwrap() {
        count += row.blob(1).unwrap().len() / 320;
    }
    drop(rows);
    let streamed = began.elapsed() / u32::try_from(count).unwrap();
    println!(
        "{}: one row by key: {pool:?} on the pool, {inside:?} in a transaction; {streamed:?} a row streamed",
        db.dialect().name()
    );
}
