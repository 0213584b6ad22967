//! A mailbox with more messages than are read at a time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod letter;

use letter::{ACCOUNT, incoming};
use std::sync::Arc;
use store::writer::{FlagChange, Incoming, Once, Quota, Writer};
use store::{Flags, MessageRow};
use types::{ModSeq, Uid};

/// All messages are read as the change log tells them, which is another way through the store.
#[tokio::test]
async fn thousands_are_read_as_they_are() {
    for test in sql::testing::databases().await.unwrap() {
        eprintln!("on {}", test.name);
        let home = tempfile::tempdir().unwrap();
        let writer = Writer::new(test.open().await.unwrap());
        writer.migrate().await.unwrap();
        let blobs = blob::Blobs::open_writer(&blob::Config::default(), home.path()).unwrap();
        let reader = writer.reader(Arc::new(blobs));
        let mut batch = writer.begin(1000).await.unwrap();
        // A date before 1970, too, is read as it is.
        let letter = Incoming {
            flags: Flags::parse(&["\\Seen"]).unwrap(),
            date: -5,
            ..incoming("one of many", Once::Request)
        };
        let placed = batch.put(&[&letter]).await.unwrap().remove(0).unwrap();
        let mailbox = placed.mailbox;
        for _ in 0..13 {
            let all = [(1, u32::MAX)];
            let quota = Quota::default();
            let copied = batch.copy(ACCOUNT, quota, mailbox, &all, mailbox).await;
            copied.unwrap().unwrap();
        }
        // 8,192 messages, some of them with keywords, and with gaps where one part of them ends and another begins.
        let keywords = Flags::parse(&["$Junk", "a,b", "work"]).unwrap();
        let some = [(1, 3), (4095, 4097), (8192, 8192)];
        batch
            .change_flags(ACCOUNT, mailbox, &some, FlagChange::Add, &keywords, None)
            .await
            .unwrap()
            .unwrap();
        let deleted = Flags::parse(&["\\Deleted"]).unwrap();
        let gone = [(2, 2), (4090, 4092), (8000, 8100)];
        batch
            .change_flags(ACCOUNT, mailbox, &gone, FlagChange::Add, &deleted, None)
            .await
            .unwrap()
            .unwrap();
        batch.commit().await.unwrap();
        let octets = letter.body.len;
        assert_eq!(reader.deleted_bytes(mailbox).await.unwrap(), 105 * octets);
        let mut batch = writer.begin(1000).await.unwrap();
        let expunged = batch.expunge(ACCOUNT, mailbox, None).await.unwrap();
        assert_eq!(expunged.unwrap(), gone);
        batch.commit().await.unwrap();

        assert_eq!(reader.deleted_bytes(mailbox).await.unwrap(), 0);
        let changes = reader.changes(ACCOUNT, mailbox, ModSeq(0)).await.unwrap();
        let expected = changes.unwrap().changed;
        assert_eq!(expected.len(), 8192 - 105);
        assert!(
            expected
                .iter()
                .any(|row| row.flags.keywords.contains("a,b"))
        );
        for from in [1, 4093, 9000] {
            let mut rows: Vec<MessageRow> = Vec::new();
            let found = reader
                .messages(ACCOUNT, mailbox, Uid(from), |row| rows.push(row))
                .await
                .unwrap();
            assert_eq!(found.unwrap().total, 8192 - 105);
            let expected: Vec<MessageRow> = expected
                .iter()
                .filter(|row| row.uid.0 >= from)
                .cloned()
                .collect();
            assert!(
                rows == expected,
                "from {from}: {} of {}",
                rows.len(),
                expected.len()
            );
        }
    }
}
