//! Bodies in the storage that no row names.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod letter;

use std::sync::Arc;
use store::writer::{Body, Incoming, Once, Writer};
use types::{BlobId, QueueId};

const DAY: u64 = 86_400;

/// A message whose body lies in the storage.
fn stored_outside(id: BlobId, octets: &[u8]) -> Incoming {
    Incoming {
        body: Arc::new(Body {
            id,
            len: octets.len() as u64,
            data: None,
        }),
        ..letter::of(octets, Once::Delivery(QueueId(7), 0))
    }
}

fn seconds() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

#[tokio::test]
async fn what_was_killed_between_body_and_row_is_found_and_given_to_the_collector() {
    for test in sql::testing::databases().await.unwrap() {
        eprintln!("on {}", test.name);
        let home = tempfile::tempdir().unwrap();
        let blobs = blob::Blobs::open_writer(&blob::Config::default(), home.path()).unwrap();
        let writer = Writer::new(test.open().await.unwrap());
        writer.migrate().await.unwrap();
        let octets = b"Subject: x\r\n\r\nkept".to_vec();
        let kept = blobs.put(&octets).await.unwrap();
        let mut batch = writer.begin(0).await.unwrap();
        let message = stored_outside(kept, &octets);
        let placed = batch.put(&[&message]).await.unwrap();
        assert!(placed.iter().all(Result::is_ok));
        batch.commit().await.unwrap();
        let lost = blobs.put(b"its row was never written").await.unwrap();
        let known = blobs.put(b"the collector knows").await.unwrap();
        writer.abandon(known).await.unwrap();

        let all = async |repair, now| {
            let (mut objects, mut findings) = (0, Vec::new());
            for first in 0..=u8::MAX {
                let found = writer
                    .examine_objects(&blobs, first, repair, now)
                    .await
                    .unwrap();
                assert_eq!(found.orphans, found.findings.len() as u64);
                objects += found.objects;
                findings.extend(found.findings);
            }
            (objects, findings)
        };
        // It may be on its way.
        assert_eq!(all(true, seconds()).await, (3, Vec::new()));
        let later = seconds() + DAY + 60;
        let (_, found) = all(false, later).await;
        let [(text, true)] = found.as_slice() else {
            panic!("{found:?}")
        };
        assert!(text.contains(&lost.to_string()), "{text}");
        assert_eq!(writer.gone().await.unwrap(), [known]);
        assert_eq!(all(true, later).await.1, found);
        let mut gone = writer.gone().await.unwrap();
        gone.sort_by_key(|id| id.0);
        let mut expected = [known, lost];
        expected.sort_by_key(|id| id.0);
        assert_eq!(gone, expected);
        assert!(all(false, later).await.1.is_empty());
        // It is no longer the collector's when a message with the same body comes.
        let again = b"its row was never written".to_vec();
        let mut batch = writer.begin(0).await.unwrap();
        let mut message = stored_outside(blobs.put(&again).await.unwrap(), &again);
        message.once = Once::Delivery(QueueId(8), 0);
        batch.put(&[&message]).await.unwrap();
        batch.commit().await.unwrap();
        assert_eq!(writer.gone().await.unwrap(), [known]);
    }
}
