//! Several hosts, found by DNS.

use super::names::{Entry, serve};
use super::server::{Script, Server};
use super::{BODY, client, config, job, statuses, summary};
use crate::config::Config;
use types::Enhanced;

/// Two servers on one port, at 127.0.0.1 and 127.0.0.2.
async fn two(first: Script, second: Script) -> (Server, Server) {
    loop {
        let one = Server::start(first.clone()).await;
        let address = format!("127.0.0.2:{}", one.address.port());
        if std::net::TcpListener::bind(&address).is_ok() {
            return (one, Server::start_at(&address, second).await);
        }
    }
}

async fn with_names(server: &Server, table: Vec<(&'static str, Entry)>) -> Config {
    Config {
        port: server.address.port(),
        nameservers: vec![serve(table).await],
        dns_timeout: 2,
        ..config()
    }
}

fn script(replies: &[(&'static str, &'static str)]) -> Script {
    Script {
        replies: replies.to_vec(),
        ..Script::default()
    }
}

/// More than the sockets hold: a host that goes away in the middle is noticed in the middle.
fn large() -> Vec<u8> {
    b"a line of text\r\n".repeat(2_000_000)
}

const TABLE: &[(&str, Entry)] = &[
    ("t.example", Entry::Mx(20, "second.example")),
    ("t.example", Entry::Mx(10, "first.example")),
    ("first.example", Entry::Address([127, 0, 0, 1])),
    ("second.example", Entry::Address([127, 0, 0, 2])),
];

#[tokio::test]
async fn the_preferred_host_gets_it() {
    let (first, second) = two(Script::default(), Script::default()).await;
    let client = client(with_names(&first, TABLE.to_vec()).await);
    let relayed = client
        .deliver(
            &job(&["a@t.example"], BODY.as_bytes()).await,
            "t.example",
            None,
        )
        .await;
    assert_eq!(summary(&relayed), "d250");
    assert_eq!((first.messages().len(), second.messages().len()), (1, 0));
    assert!(
        relayed
            .host
            .unwrap()
            .starts_with("first.example[127.0.0.1]")
    );
}

#[tokio::test]
async fn the_next_host_is_asked_when_one_fails() {
    for failing in [
        &[("CONNECT", "421 busy")][..],
        &[("CONNECT", "554 no")],
        &[("CONNECT", "drop")],
        &[("EHLO", "451 later")],
        &[("MAIL", "drop")],
        &[("BODY", "drop")],
    ] {
        let (first, second) = two(script(failing), Script::default()).await;
        let client = client(with_names(&first, TABLE.to_vec()).await);
        let in_the_middle = failing.contains(&("BODY", "drop"));
        let body = if in_the_middle {
            large()
        } else {
            BODY.as_bytes().to_vec()
        };
        let relayed = client
            .deliver(&job(&["a@t.example"], &body).await, "t.example", None)
            .await;
        assert_eq!(summary(&relayed), "d250", "{failing:?}");
        assert_eq!(second.messages().len(), 1, "{failing:?}");
    }
}

#[tokio::test]
async fn no_other_host_is_asked_when_one_may_have_it_or_has_refused() {
    for (failing, outcome, down) in [
        (&[("MESSAGE", "drop")][..], "t421", true),
        (&[("RCPT", "550 no")], "p550", false),
        (&[("RCPT", "450 later")], "t450", false),
    ] {
        let (first, second) = two(script(failing), Script::default()).await;
        let client = client(with_names(&first, TABLE.to_vec()).await);
        let relayed = client
            .deliver(
                &job(&["a@t.example"], BODY.as_bytes()).await,
                "t.example",
                None,
            )
            .await;
        assert_eq!(summary(&relayed), outcome, "{failing:?}");
        assert_eq!(relayed.destination_down, down, "{failing:?}");
        assert_eq!(second.seen.lock().unwrap().connections, 0, "{failing:?}");
    }
}

#[tokio::test]
async fn only_those_not_yet_decided_go_to_the_next_host() {
    let (first, second) = two(
        script(&[("RCPT TO:<a", "550 no"), ("BODY", "drop")]),
        Script::default(),
    )
    .await;
    let client = client(with_names(&first, TABLE.to_vec()).await);
    let relayed = client
        .deliver(
            &job(&["a@t.example", "b@t.example"], &large()).await,
            "t.example",
            None,
        )
        .await;
    assert_eq!(summary(&relayed), "p550 d250");
    let asked = second
        .commands()
        .into_iter()
        .filter(|c| c.starts_with("RCPT"))
        .collect::<Vec<_>>();
    assert_eq!(asked, ["RCPT TO:<b@t.example>"]);
}

#[tokio::test]
async fn one_host_of_many_that_says_never_is_not_the_last_word() {
    let (first, _second) = two(
        script(&[("CONNECT", "554 no")]),
        script(&[("CONNECT", "421 busy")]),
    )
    .await;
    let client_both = client(with_names(&first, TABLE.to_vec()).await);
    let relayed = client_both
        .deliver(
            &job(&["a@t.example"], BODY.as_bytes()).await,
            "t.example",
            None,
        )
        .await;
    assert_eq!(summary(&relayed), "t421");
    assert!(relayed.destination_down);
}

#[tokio::test]
async fn what_dns_can_say() {
    let server = Server::start(Script::default()).await;
    let table = vec![
        ("implicit.example", Entry::Address([127, 0, 0, 1])),
        ("null.example", Entry::Mx(0, "")),
        ("empty.example", Entry::Nothing),
        ("failing.example", Entry::Failing),
        ("half.example", Entry::Mx(10, "failing.example")),
        ("half.example", Entry::Mx(20, "implicit.example")),
        ("dead.example", Entry::Mx(10, "missing.example")),
        ("loop.example", Entry::Mx(10, "us.example")),
        ("us.example", Entry::Address([127, 0, 0, 1])),
    ];
    let client = client(with_names(&server, table).await);
    for (domain, outcome, enhanced) in [
        ("implicit.example", "d250", Enhanced(2, 0, 0)),
        ("null.example", "p556", Enhanced(5, 1, 10)),
        ("missing.example", "p550", Enhanced(5, 1, 2)),
        ("empty.example", "p550", Enhanced(5, 4, 4)),
        ("dead.example", "p550", Enhanced(5, 4, 4)),
        ("failing.example", "t451", Enhanced(4, 4, 3)),
        ("half.example", "d250", Enhanced(2, 0, 0)),
        ("loop.example", "p554", Enhanced(5, 4, 6)),
        ("[127.0.0.1]", "d250", Enhanced(2, 0, 0)),
    ] {
        let to = format!("a@{domain}");
        let relayed = client
            .deliver(&job(&[&to], BODY.as_bytes()).await, domain, None)
            .await;
        assert_eq!(summary(&relayed), outcome, "{domain} {relayed:?}");
        assert_eq!(statuses(&relayed)[0].1.enhanced, enhanced, "{domain}");
        assert_eq!(
            relayed.destination_down,
            domain == "failing.example",
            "{domain}"
        );
    }
}

#[tokio::test]
async fn a_host_with_our_own_name_is_ourselves() {
    let server = Server::start(Script {
        name: "us.example",
        ..Script::default()
    })
    .await;
    let client =
        client(with_names(&server, vec![("t.example", Entry::Address([127, 0, 0, 1]))]).await);
    let relayed = client
        .deliver(
            &job(&["a@t.example"], BODY.as_bytes()).await,
            "t.example",
            None,
        )
        .await;
    assert_eq!(
        (summary(&relayed), statuses(&relayed)[0].1.enhanced),
        ("p554".to_owned(), Enhanced(5, 4, 6))
    );
}

#[tokio::test]
async fn a_host_that_has_said_it_all_may_leave() {
    let (first, second) = two(
        script(&[("RCPT", "550 no"), ("DATA", "drop")]),
        Script::default(),
    )
    .await;
    let client = client(with_names(&first, TABLE.to_vec()).await);
    let relayed = client
        .deliver(
            &job(&["a@t.example"], BODY.as_bytes()).await,
            "t.example",
            None,
        )
        .await;
    assert_eq!(
        (summary(&relayed).as_str(), relayed.destination_down),
        ("p550", false)
    );
    assert_eq!(second.seen.lock().unwrap().connections, 0);
}
