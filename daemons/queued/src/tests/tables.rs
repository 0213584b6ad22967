//! The queue table on all databases.

use super::*;
use crate::node::{self, Node};
use crate::record::Head;
use crate::table::{self, Due, LOCAL, Leased, NEVER, Parked, Table, Waiting};
use crate::table_change::{Change, Made, Settled};
use crate::table_control::{self, Action};

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
        held: None,
        moderated: None,
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
        lease: 0,
    }))
}

/// A node's table.
fn node_table(url: &str, name: &str, lease: u64) -> Table {
    let shared = !url.starts_with("sqlite:");
    Table::new(
        url.to_owned(),
        Node::open(name, None, lease, shared).unwrap(),
    )
}

fn done(id: QueueId, lease: u64, done: &[u16]) -> Change {
    Change::Settle(Box::new(Settled {
        id,
        lease,
        done: done.to_vec(),
        ..Settled::default()
    }))
}

async fn lease(table: &Table, due: &Due, now: u64, limit: usize) -> (u64, Vec<Leased>) {
    let wanted = [(due.clone(), limit)];
    let (lease, mut leased) = table.lease(&wanted, now, 3000).await.unwrap();
    (lease, leased.remove(0))
}

async fn leased(table: &Table, destination: &str, now: u64, limit: usize) -> (u64, Vec<Leased>) {
    let due = Due {
        name: destination.to_owned(),
        failures: 0,
    };
    lease(table, &due, now, limit).await
}

#[tokio::test(flavor = "multi_thread")]
async fn all_databases_agree() {
    for database in sql::testing::databases().await.unwrap() {
        let table = node_table(&database.url, "one", 60);
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
        assert_eq!(table.change(&changes).await.unwrap(), [Made::Done; 5]);
        // Once more, as after a commit of which nobody knows.
        table.change(&changes).await.unwrap();
        assert_eq!(
            table.known(&[QueueId(1), QueueId(9)]).await.unwrap().len(),
            1,
            "{}",
            database.name
        );
        // Another node that starts looks at everything once; it gets nothing that is leased.
        let other = node_table(&database.url, "two", 60);
        other.known(&[]).await.unwrap();
        assert_eq!(table.next().await.unwrap(), 0);
        table
            .postpone(&[("example.net".to_owned(), 11)])
            .await
            .unwrap();
        table
            .postpone(&[("example.com".to_owned(), 50)])
            .await
            .unwrap();
        let due = table.due(20, 10).await.unwrap();
        assert_eq!(
            due.iter().map(|due| due.name.as_str()).collect::<Vec<_>>(),
            ["example.net"]
        );
        assert_eq!(table.next().await.unwrap(), 11);
        let (token, mine) = lease(&table, &due[0], 20, 2).await;
        let (_, theirs) = lease(&other, &due[0], 20, 10).await;
        assert!(mine.len() <= 2 && !mine.is_empty());
        assert_eq!(mine.len() + theirs.len(), 5, "{}", database.name);
        assert!(
            mine.iter()
                .all(|one| theirs.iter().all(|other| one.id != other.id))
        );
        assert!(
            mine.iter()
                .all(|one| one.waiting.len() == 2 && one.head.trace == TraceId(u64::MAX))
        );
        let (id, list) = (&mine[0].id, &mine[0].waiting);
        assert_eq!(
            mine[0].content.as_ref().unwrap().body.as_deref(),
            Some(b"\0\xffxy".as_slice())
        );
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
            lease: token,
            done: vec![0],
            again: vec![again.clone()],
            ..Settled::default()
        };
        assert_eq!(
            table
                .change(&[Change::Settle(Box::new(settled))])
                .await
                .unwrap(),
            [Made::Done]
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
        let whoever = done(*id, 0, &[1, 2]);
        assert_eq!(table.change(&[whoever]).await.unwrap(), [Made::Gone]);
        assert!(table.content(*id).await.unwrap().is_none());
        // Attention: what is not leased.
        let (token, needy) = table.lease_attention(600, 100).await.unwrap();
        assert_eq!(needy.len(), 4);
        assert!(
            needy
                .iter()
                .all(|one| one.waiting.len() == 1 && one.waiting[0].destination == "example.com")
        );
        for one in &needy {
            let settled = Settled {
                id: one.id,
                lease: token,
                warned: vec![1],
                attention: 1000,
                ..Settled::default()
            };
            let change = Change::Settle(Box::new(settled));
            assert_eq!(table.change(&[change]).await.unwrap(), [Made::Done]);
        }
        assert!(table.lease_attention(600, 100).await.unwrap().1.is_empty());
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
        assert_eq!(lease(&table, &due, 700, 10).await.1.len(), 1, "a probe");
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
        let due = Due {
            name: "example.net".to_owned(),
            failures: 0,
        };
        assert!(lease(&table, &due, 9000, 10).await.1.is_empty());
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
        let table = node_table(&database.url, "one", 60);
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
        let due = Due {
            name: "example.net".to_owned(),
            failures: 0,
        };
        let mut order = Vec::new();
        for _ in 0..5 {
            let (_, leased) = lease(&table, &due, 50, 1).await;
            order.extend(leased.iter().map(|one| one.id.0));
        }
        assert_eq!(order, [5, 3, 1, 2], "{}", database.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn retrying_does_not_release_what_is_held_for_later() {
    for database in sql::testing::databases().await.unwrap() {
        let table = node_table(&database.url, "one", 60);
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

/// A node that was silent for longer than its lease: another takes over, and its word does not count any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_over_counts_no_more() {
    for database in sql::testing::databases().await.unwrap() {
        if database.name == "SQLite" {
            continue;
        }
        let (one, two) = (
            node_table(&database.url, "one", 2),
            node_table(&database.url, "two", 60),
        );
        let changes: Vec<Change> = (1..=4)
            .map(|id| parked(id, vec![waiting(0, "example.net", 10)]))
            .collect();
        one.change(&changes).await.unwrap();
        let (old, mine) = leased(&one, "example.net", 20, 4).await;
        assert_eq!((mine.len(), one.node.holds(old)), (4, true));
        assert!(leased(&two, "example.net", 20, 4).await.1.is_empty());
        let db = two.db().await.unwrap();
        assert!(
            node::take_over(db, "two").await.unwrap().is_empty(),
            "alive"
        );
        // Nobody renews it.
        until("the end of the lease", async || {
            node::take_over(db, "two").await.unwrap() == [("one".to_owned(), 4)]
        })
        .await;
        assert!(!one.node.holds(old));
        assert!(one.lease_attention(600, 1).await.is_err());
        // Nothing is put there under a lease that nobody has.
        let late = Parked {
            id: QueueId(78),
            head: head("jane@example.org", &["a@example.net"]),
            prefix: Vec::new(),
            body: Some(Vec::new()),
            recipients: vec![waiting(0, "example.net", 10)],
            lease: old.cast_signed(),
        };
        assert!(one.change(&[Change::Accept(Box::new(late))]).await.is_err());
        // What nobody has taken yet counts as little as what the other works on.
        let (new, theirs) = leased(&two, "example.net", 20, 2).await;
        assert_eq!(theirs.len(), 2);
        let report = Parked {
            id: QueueId(77),
            head: head("", &["jane@example.org"]),
            prefix: Vec::new(),
            body: Some(Vec::new()),
            recipients: vec![waiting(0, LOCAL, 0)],
            lease: 0,
        };
        for id in 1..=4 {
            let late = Settled {
                id: QueueId(id),
                lease: old,
                done: vec![0],
                fresh: vec![report.clone()],
                ..Settled::default()
            };
            let late = Change::Settle(Box::new(late));
            assert_eq!(one.change(&[late]).await.unwrap(), [Made::Fenced]);
        }
        assert_eq!(two.figures().await.unwrap().messages, 4, "and no report");
        // It finds out, and goes on under a new lease.
        assert!(!one.node.renew(one.db().await.unwrap(), 0, 0).await.unwrap());
        one.node.join(one.db().await.unwrap()).await.unwrap();
        let (newer, rest) = leased(&one, "example.net", 20, 4).await;
        assert_eq!(rest.len(), 2);
        for (lease, taken, table) in [(new, theirs, &two), (newer, rest, &one)] {
            for one in taken {
                let made = table.change(&[done(one.id, lease, &[0])]).await.unwrap();
                assert_eq!(made, [Made::Gone], "{}", database.name);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_of_one_living_node() {
    for database in sql::testing::databases().await.unwrap() {
        if database.name == "SQLite" {
            continue;
        }
        let one = node_table(&database.url, "one", 2);
        let db = one.db().await.unwrap();
        let same_name = node_table(&database.url, "one", 2);
        let error = same_name.db().await.unwrap_err().to_string();
        assert!(error.contains("named one"), "{error}");
        assert!(same_name.node.number().is_err());
        assert_eq!(one.node.number().unwrap(), 1);
        let two = node_table(&database.url, "two", 60);
        two.db().await.unwrap();
        assert_eq!(two.node.number().unwrap(), 2);
        // What the journal of the first has not let go of is nobody else's, unless it is forgotten.
        let put = Parked {
            id: QueueId(5),
            head: head("jane@example.org", &["a@example.net"]),
            prefix: Vec::new(),
            body: Some(Vec::new()),
            recipients: vec![waiting(0, "example.net", 10)],
            lease: one.node.parking().unwrap(),
        };
        let put = Change::Park(Box::new(put));
        one.change(&[put]).await.unwrap();
        assert!(!node::forget(db, "one").await.unwrap(), "alive");
        one.node.leave(db).await.unwrap();
        let mut names = Vec::new();
        for seen in node::all(db).await.unwrap() {
            names.push((seen.name, seen.alive));
        }
        assert_eq!(names, [("one".to_owned(), false), ("two".to_owned(), true)]);
        two.postpone(&[("example.net".to_owned(), 0)])
            .await
            .unwrap();
        assert!(leased(&two, "example.net", 20, 4).await.1.is_empty());
        assert!(node::forget(db, "one").await.unwrap());
        assert_eq!(leased(&two, "example.net", 20, 4).await.1.len(), 1);
        // The name is free again, with a number that nobody has.
        same_name.db().await.unwrap();
        assert_eq!(same_name.node.number().unwrap(), 1);
    }
}

/// Two nodes put and take at one destination all the time: nothing is forgotten, nothing taken twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_waits_for_ever_between_two_nodes() {
    const EACH: u64 = 150;
    for database in sql::testing::databases().await.unwrap() {
        if database.name == "SQLite" {
            continue;
        }
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = Vec::new();
        for node in 1..=2_u64 {
            let table = Arc::new(node_table(&database.url, &format!("n{node}"), 60));
            table.db().await.unwrap();
            let putter = Arc::clone(&table);
            tasks.push(tokio::spawn(async move {
                for count in 0..EACH {
                    let id = node * 10_000 + count;
                    let places = ["a.example", "b.example"];
                    let list = vec![waiting(0, places[count as usize % 2], 10)];
                    while putter.change(&[parked(id, list.clone())]).await.is_err() {}
                }
            }));
            let seen = Arc::clone(&seen);
            tasks.push(tokio::spawn(async move {
                while seen.lock().unwrap().len() < 2 * EACH as usize {
                    // As the loader: only where the table says so.
                    let Ok(due) = table.due(20, 10).await else {
                        continue;
                    };
                    for due in due {
                        let wanted = [(due, 5)];
                        let Ok((lease, taken)) = table.lease(&wanted, 20, 3000).await else {
                            continue;
                        };
                        for one in taken.into_iter().flatten() {
                            while table.change(&[done(one.id, lease, &[0])]).await.is_err() {}
                            seen.lock().unwrap().push(one.id);
                        }
                    }
                }
            }));
        }
        let all = async {
            for task in tasks {
                task.await.unwrap();
            }
        };
        if tokio::time::timeout(Duration::from_secs(60), all)
            .await
            .is_err()
        {
            panic!(
                "{}: {} were taken",
                database.name,
                seen.lock().unwrap().len()
            );
        }
        let mut seen = seen.lock().unwrap().clone();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len() as u64, 2 * EACH, "{}", database.name);
    }
}

/// What is known by its messages is not looked for among all that waits at a destination: with a long queue that is what it would cost.
#[tokio::test]
async fn a_long_queue_is_not_looked_through() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", directory.path().join("queue.db").display());
    let table = node_table(&url, "local", 60);
    let db = table.db().await.unwrap();
    let ids = vec!["?"; 512].join(", ");
    let texts = [
        format!("SELECT * FROM queue_recipient WHERE {}", table::FREE_HERE),
        format!(
            "UPDATE queue_recipient SET lease = 1 WHERE {}",
            table::FREE_HERE
        ),
        table_control::DESTINATIONS.to_owned(),
    ];
    for text in texts {
        let text = format!("EXPLAIN QUERY PLAN {}", text.replace("{list}", &ids));
        let args = vec![sql::Value::from(0_u64); text.matches('?').count()];
        let rows = db.fetch_all(&text, args).await.unwrap();
        let plan: Vec<&str> = rows.iter().map(|row| row.text(3).unwrap()).collect();
        assert!(plan[0].contains("PRIMARY KEY (id=?)"), "{text}: {plan:?}");
    }
}
