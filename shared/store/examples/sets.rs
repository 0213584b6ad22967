//! How long changes and reads of whole sets take, on a mailbox of 10,000 messages.
//!
//! `cargo run --release -p store --features writer --example sets [URL]`
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;
use std::time::Instant;
use store::writer::{
    Batch, Body, FlagChange, Incoming, Once, Quota, Target, Writer, pack, thread_keys,
};
use store::{Flags, Wanted};
use types::{AccountId, Uid};

const ACCOUNT: AccountId = AccountId(1);

fn incoming(number: u64) -> Incoming {
    let octets = format!(
        "From: Alice <alice@example.org>\r\nTo: bob@example.net\r\nSubject: Number {number}\r\nMessage-ID: <{number}@example.org>\r\n\r\n{}",
        format!("line {number}\r\n").repeat(150)
    )
    .into_bytes();
    let parsed = message::parse(b"", &octets, &message::Limits::default());
    Incoming {
        account: ACCOUNT,
        quota: Quota::default(),
        target: Target::Named("INBOX".to_owned()),
        create: false,
        once: Once::Request,
        flags: Flags::default(),
        date: 0,
        prefix: Vec::new(),
        threads: thread_keys(ACCOUNT, &parsed),
        parsed: Arc::new(pack(&parsed.encode())),
        body: Arc::new(Body {
            id: blob::id_of(&octets),
            len: octets.len() as u64,
            data: Some(blob::encode(&octets, 3)),
        }),
    }
}

async fn timed(name: &str, writer: &Writer, change: impl AsyncFnOnce(&mut Batch)) {
    let began = Instant::now();
    let mut batch = writer.begin(1000).await.unwrap();
    change(&mut batch).await;
    batch.commit().await.unwrap();
    println!("{name}: {:?}", began.elapsed());
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let home = tempfile::tempdir().unwrap();
    let config = store::Config {
        url: std::env::args().nth(1),
        ..store::Config::default()
    };
    let writer = Writer::open(&config, home.path()).await.unwrap();
    writer.migrate().await.unwrap();
    let blobs = blob::Blobs::open_writer(&blob::Config::default(), home.path()).unwrap();
    let reader = writer.reader(Arc::new(blobs));
    for part in 0..40u64 {
        let messages: Vec<Incoming> = (part * 250..(part + 1) * 250).map(incoming).collect();
        let messages: Vec<&Incoming> = messages.iter().collect();
        let mut batch = writer.begin(1000).await.unwrap();
        batch.put(&messages).await.unwrap();
        batch.commit().await.unwrap();
    }
    let inbox = reader
        .mailbox_named(ACCOUNT, "INBOX")
        .await
        .unwrap()
        .unwrap()
        .id;
    let archive = reader
        .mailbox_named(ACCOUNT, "Archive")
        .await
        .unwrap()
        .unwrap()
        .id;
    let first = [(1, 1000)];
    let seen = Flags::parse(&["\\Seen"]).unwrap();
    let deleted = Flags::parse(&["\\Deleted", "$word"]).unwrap();
    for _ in 0..3 {
        timed("STORE 1:1000 +FLAGS (\\Seen)", &writer, async |batch| {
            let done = batch
                .change_flags(ACCOUNT, inbox, &first, FlagChange::Add, &seen, None)
                .await;
            done.unwrap().unwrap();
        })
        .await;
        timed("STORE 1:1000 -FLAGS (\\Seen)", &writer, async |batch| {
            let done = batch
                .change_flags(ACCOUNT, inbox, &first, FlagChange::Remove, &seen, None)
                .await;
            done.unwrap().unwrap();
        })
        .await;
    }
    timed("COPY 1:1000", &writer, async |batch| {
        let done = batch
            .copy(ACCOUNT, Quota::default(), inbox, &first, archive)
            .await;
        done.unwrap().unwrap();
    })
    .await;
    timed("MOVE 1:1000", &writer, async |batch| {
        let done = batch.move_to(ACCOUNT, inbox, &first, archive).await;
        done.unwrap().unwrap();
    })
    .await;
    timed(
        "STORE 1:1000 +FLAGS (\\Deleted $word)",
        &writer,
        async |batch| {
            let done = batch
                .change_flags(ACCOUNT, archive, &first, FlagChange::Add, &deleted, None)
                .await;
            done.unwrap().unwrap();
        },
    )
    .await;
    timed("EXPUNGE of 1000", &writer, async |batch| {
        let gone = batch
            .expunge(ACCOUNT, archive, None)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(gone, [(1, 1000)]);
    })
    .await;
    for _ in 0..3 {
        let began = Instant::now();
        let mut ids = Vec::new();
        reader
            .messages(ACCOUNT, inbox, Uid(1), |row| ids.push(row.content))
            .await
            .unwrap()
            .unwrap();
        println!("view of {}: {:?}", ids.len(), began.elapsed());
        let began = Instant::now();
        let wanted = Wanted {
            parsed: true,
            ..Wanted::default()
        };
        let mut octets = 0;
        reader
            .contents(ACCOUNT, &ids, wanted, |content| {
                octets += content.parsed.len()
            })
            .await
            .unwrap();
        println!(
            "structures of {}, {octets} octets: {:?}",
            ids.len(),
            began.elapsed()
        );
        let began = Instant::now();
        reader.mailboxes(ACCOUNT).await.unwrap();
        println!("mailboxes: {:?}", began.elapsed());
    }
}
