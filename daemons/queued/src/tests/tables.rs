//! The queue table on all databases.

use super::*;
use crate::record::Head;
use crate::table::{Change, LOCAL, NEVER, Parked, Settled, Table, Waiting};
use crate::table_control::Action;

fn head(sender: &str, recipients: &[&str]) -> Head {
    let recipients = recipients.iter().map(|address| Recipient {
        address: address.parse().unwrap(),
        orcpt: None,
        notify: Notify::default(),
        route: Route::Remote,
    });
    Head {
        trace: TraceId(u64::MAX),
        arrived: 100,
        origin: String::new(),
        may_relay: true,
        sign: false,
        envelope: Envelope {
            sender: sender.parse().ok(),
            ret: None,
            envid: None,
            body: BodyType::SevenBit,
            smtputf8: false,
            require_tls: false,
            terms: Terms::default(),
            recipients: recipients.collect(),
        },
        prefix_len: 2,
        body_len: 4,
        spooled: false,
        listener: String::new(),
    }
}

fn waiting(index: u16, destination: &str, due: u64) -> Waiting {
    Waiting {
        index,
        destination: destination.to_owned(),
        route: None,
        held: false,
        due,
        attention: 500,
        expires: 1000,
        attempts: 1,
        last: Some(status(451, Enhanced(4, 0, 0))),
        priority: 0,
        not_before: 0,
    }
}

fn parked(id: u64, waiting: Vec<Waiting>) -> Change {
    Change::Park(Box::new(Parked {
        id: QueueId(id),
        head: head(
            "jane@example.org",
            &["a@example.net", "b@example.com", "c@example.net"],
        ),
        prefix: b"P:".to_vec(),
        body: Some(b"\0\xffxy".to_vec()),
        recipients: waiting,
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn all_databases_agree() {
    for database in sql::testing::databases().await.unwrap() {
        let table = Table::new(database.url.clone(), "one".to_owned());
        let changes: Vec<Change> = (1..=5)
            .map(|id| {
                parked(
                    id,
                    vec![
                        waiting(0, "example.net", 10 + id),
                        waiting(1, "example.com", 50),
                        waiting(2, "example.net", 10 + id),
                    ],
                )
            })
            .collect();
        assert!(table.change(&changes).await.unwrap().is_empty());
        // Once more, as after a commit of which nobody knows.
        table.change(&changes).await.unwrap();
        assert_eq!(
            table.known(&[QueueId(1), QueueId(9)]).await.unwrap().len(),
            1,
            "{}",
            database.name
        );
        // Another node that starts looks at everything once; it gets nothing that is leased.
        let other = Table::new(database.url.clone(), "two".to_owned());
        other.known(&[]).await.unwrap();
        assert_eq!(table.next().await.unwrap(), 0);
        table.postpone("example.net", 11).await.unwrap();
        table.postpone("example.com", 50).await.unwrap();
        let due = table.due(20, 10).await.unwrap();
        assert_eq!(
            due.iter().map(|due| due.name.as_str()).collect::<Vec<_>>(),
            ["example.net"]
        );
        assert_eq!(table.next().await.unwrap(), 11);
        let mine = table.lease(&due[0], 20, 3000, 2).await.unwrap();
        let theirs = other.lease(&due[0], 20, 3000, 10).await.unwrap();
        assert!(mine.len() <= 2 && !mine.is_empty());
        assert_eq!(mine.len() + theirs.len(), 5, "{}", database.name);
        assert!(
            mine.iter()
                .all(|(id, _, _)| theirs.iter().all(|(other, _, _)| id != other))
        );
        assert!(
            mine.iter()
                .all(|(_, head, list)| list.len() == 2 && head.trace == TraceId(u64::MAX))
        );
        let (id, _, list) = &mine[0];
        assert_eq!(
            table.content(*id).await.unwrap().unwrap(),
            (b"P:".to_vec(), Some(b"\0\xffxy".to_vec()))
        );
        // One is done, one waits; the message stays.
        let again = Waiting {
            due: 30,
            attempts: 2,
            ..list[1].clone()
        };
        let settled = Settled {
            id: *id,
            done: vec![0],
            again: vec![again.clone()],
        };
        assert!(
            table
                .change(&[Change::Settle(settled)])
                .await
                .unwrap()
                .is_empty()
        );
        assert_eq!(table.next().await.unwrap(), 30);
        let listed = table
            .list(
                &QueueFilter {
                    ids: vec![*id],
                    ..QueueFilter::default()
                },
                QueueId(0),
                10,
            )
            .await
            .unwrap();
        assert_eq!(listed[0].waiting, [waiting(1, "example.com", 50), again]);
        // The last ones are done.
        let settled = Settled {
            id: *id,
            done: vec![1, 2],
            again: vec![],
        };
        assert_eq!(
            table.change(&[Change::Settle(settled)]).await.unwrap(),
            [*id]
        );
        assert!(table.content(*id).await.unwrap().is_none());
        // Attention: what is not leased.
        let needy = table.lease_attention(600, 3000, 100).await.unwrap();
        assert_eq!(needy.len(), 4);
        assert!(
            needy
                .iter()
                .all(|(_, _, list)| list.len() == 1 && list[0].destination == "example.com")
        );
        for (id, _, _) in &needy {
            table.warned(*id, &[1], 1000).await.unwrap();
        }
        assert!(
            table
                .lease_attention(600, 3000, 100)
                .await
                .unwrap()
                .is_empty()
        );
        // Dead, and then not.
        table.mark_destination("example.com", 700, 3).await.unwrap();
        assert!(
            table
                .due(650, 10)
                .await
                .unwrap()
                .iter()
                .all(|due| due.name != "example.com")
        );
        let due = table
            .due(700, 10)
            .await
            .unwrap()
            .into_iter()
            .find(|due| due.name == "example.com")
            .unwrap();
        assert_eq!(due.failures, 3);
        assert_eq!(
            table.lease(&due, 700, 3000, 10).await.unwrap().len(),
            1,
            "a probe"
        );
        assert!(
            table
                .due(800, 10)
                .await
                .unwrap()
                .iter()
                .all(|due| due.name != "example.com")
        );
        // The operator.
        let all = QueueFilter::default();
        let (count, gone, next) = table
            .act(&all, &Action::Hold, QueueId(0), 800)
            .await
            .unwrap();
        assert_eq!((count.len(), gone.len(), next), (4, 0, None));
        assert_eq!(table.figures().await.unwrap().held, 4);
        table
            .act(&all, &Action::Release { early: false }, QueueId(0), 800)
            .await
            .unwrap();
        table
            .act(
                &all,
                &Action::Reroute(Some("smart".to_owned())),
                QueueId(0),
                800,
            )
            .await
            .unwrap();
        let figures = table.figures().await.unwrap();
        assert_eq!(
            (
                figures.messages,
                figures.held,
                figures.bytes,
                figures.oldest
            ),
            (4, 0, 24, Some(100))
        );
        let only = QueueFilter {
            recipient: Some("@example.com".to_owned()),
            ..QueueFilter::default()
        };
        assert_eq!(
            table
                .act(&only, &Action::Remove, QueueId(0), 800)
                .await
                .unwrap()
                .0
                .len(),
            4
        );
        assert_eq!(
            table.figures().await.unwrap().messages,
            4,
            "the other recipients are still there"
        );
        let (_, gone, _) = table
            .act(&all, &Action::Remove, QueueId(0), 800)
            .await
            .unwrap();
        assert_eq!(gone.len(), 4);
        let due = crate::table::Due {
            name: "example.net".to_owned(),
            failures: 0,
        };
        assert!(table.lease(&due, 9000, 9000, 10).await.unwrap().is_empty());
        assert!(
            table
                .due(NEVER, 10)
                .await
                .unwrap()
                .iter()
                .all(|due| due.name != "example.net"),
            "cleaned up"
        );
        assert_ne!(LOCAL, "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_highest_priority_goes_first() {
    for database in sql::testing::databases().await.unwrap() {
        let table = Table::new(database.url.clone(), "one".to_owned());
        let urgent = |id, priority, due| {
            let waiting = Waiting {
                priority,
                ..waiting(0, "example.net", due)
            };
            parked(id, vec![waiting])
        };
        // The most urgent one is not due yet, the next came last.
        let changes = [
            urgent(1, 0, 10),
            urgent(2, -3, 5),
            urgent(3, 0, 9),
            urgent(4, 9, 100),
            urgent(5, 4, 20),
        ];
        table.change(&changes).await.unwrap();
        let due = crate::table::Due {
            name: "example.net".to_owned(),
            failures: 0,
        };
        let mut order = Vec::new();
        for _ in 0..5 {
            let leased = table.lease(&due, 50, 3000, 1).await.unwrap();
            order.extend(leased.iter().map(|(id, _, _)| id.0));
        }
        assert_eq!(order, [5, 3, 1, 2], "{}", database.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retrying_does_not_release_what_is_held_for_later() {
    for database in sql::testing::databases().await.unwrap() {
        let table = Table::new(database.url.clone(), "one".to_owned());
        let held = Waiting {
            not_before: 900,
            ..waiting(0, "example.net", 900)
        };
        table.change(&[parked(1, vec![held])]).await.unwrap();
        let all = QueueFilter::default();
        let due = async || {
            let listed = table.list(&all, QueueId(0), 10).await.unwrap();
            listed[0].waiting[0].due
        };
        for action in [
            Action::Retry,
            Action::Reroute(None),
            Action::Hold,
            Action::Release { early: false },
        ] {
            table.act(&all, &action, QueueId(0), 500).await.unwrap();
            assert_eq!(due().await, 900, "{action:?} {}", database.name);
        }
        let early = Action::Release { early: true };
        table.act(&all, &early, QueueId(0), 500).await.unwrap();
        assert_eq!(due().await, 500, "{}", database.name);
    }
}
