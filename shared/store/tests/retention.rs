//! What is kept for a while only.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod letter;

use letter::{ACCOUNT, incoming};
use std::sync::Arc;
use store::Flags;
use store::writer::{FlagChange, Once, Placed, Refusal, Retention, Writer};
use types::{AccountId, ModSeq, QueueId, RequestId};

const KEEP: Retention = Retention {
    expunged: 100,
    requests: 100,
    delivered: 100,
};

async fn deliver(writer: &Writer, now: i64, queue: u64) -> Result<Placed, Refusal> {
    let once = Once::Delivery(QueueId(queue), 0);
    let letter = incoming(&queue.to_string(), once);
    let mut batch = writer.begin(now).await.unwrap();
    let results = batch.put(&[&letter]).await.unwrap();
    batch.commit().await.unwrap();
    results.into_iter().next().unwrap()
}

#[tokio::test]
async fn records_are_forgotten_when_they_are_old_and_readers_are_told() {
    for test in sql::testing::databases().await.unwrap() {
        eprintln!("on {}", test.name);
        let home = tempfile::tempdir().unwrap();
        let writer = Writer::new(test.open().await.unwrap());
        writer.migrate().await.unwrap();
        let blobs = blob::Blobs::open_writer(&blob::Config::default(), home.path()).unwrap();
        let reader = writer.reader(Arc::new(blobs));
        let placed = deliver(&writer, 1000, 1).await.unwrap();
        deliver(&writer, 1000, 2).await.unwrap();
        let mailbox = placed.mailbox;
        let mut batch = writer.begin(1000).await.unwrap();
        let deleted = Flags::parse(&["\\Deleted"]).unwrap();
        batch
            .change_flags(ACCOUNT, mailbox, &[(1, 1)], FlagChange::Add, &deleted, None)
            .await
            .unwrap()
            .unwrap();
        batch
            .expunge(ACCOUNT, mailbox, None)
            .await
            .unwrap()
            .unwrap();
        batch.remember(vec![(ACCOUNT, RequestId(7), b"done".to_vec())]);
        batch.commit().await.unwrap();

        let since = ModSeq(1);
        for (now, kept) in [(1050, true), (1200, false)] {
            let mut batch = writer.begin(now).await.unwrap();
            batch.trim(KEEP).await.unwrap();
            batch.commit().await.unwrap();
            let changes = reader
                .changes(ACCOUNT, mailbox, since)
                .await
                .unwrap()
                .unwrap();
            assert_eq!(changes.complete, kept);
            assert_eq!(changes.expunged.is_empty(), !kept);
            let now_known = changes.mailbox.modseq;
            let later = reader.changes(ACCOUNT, mailbox, now_known).await.unwrap();
            assert!(later.unwrap().complete);
            let reply = writer.reply(ACCOUNT, RequestId(7)).await.unwrap();
            assert_eq!(reply.is_some(), kept);
            assert_eq!(
                writer.reply(AccountId(2), RequestId(7)).await.unwrap(),
                None
            );
            // Only while the mark is kept is a delivery known as done.
            let again = deliver(&writer, now, 2).await.unwrap();
            assert_eq!(again.duplicate, kept);
        }
        let mut batch = writer.begin(1200).await.unwrap();
        let collected = batch.collect().await.unwrap();
        batch.commit().await.unwrap();
        assert_eq!((collected.contents, collected.blobs), (1, 1));
    }
}
