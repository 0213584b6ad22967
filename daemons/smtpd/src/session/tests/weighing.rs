//! What limitd is asked at which stage, and what its answers do.

use super::*;
use crate::limitd::Asked;
use types::{Enhanced, Status};

const ALL: Asked = Asked {
    connect: true,
    mail: true,
    recipient: true,
    unknown: true,
    message: true,
    later: false,
};

fn status(code: u16) -> Option<Status> {
    Some(Status {
        code,
        enhanced: Enhanced(if code < 500 { 4 } else { 5 }, 7, 1),
        text: "Enough".to_owned(),
        host: None,
    })
}

async fn client(change: impl FnOnce(&mut Policy)) -> Client {
    let mut client = Client::connect(ListenerRole::Mx, |policy| {
        policy.asked = Some(ALL);
        change(policy);
    });
    client.expect("220").await;
    client.ask("EHLO client.example\r\n", "250").await;
    client
}

fn answer(client: &Client, at: &'static str, answer: Option<Status>) {
    client.memory.limits.lock().unwrap().insert(at, answer);
}

fn asked(client: &Client) -> Vec<&'static str> {
    client
        .memory
        .weighed
        .lock()
        .unwrap()
        .iter()
        .map(stage)
        .collect()
}

#[tokio::test]
async fn every_stage_may_stop_the_client() {
    let mut client = client(|_| {}).await;
    answer(&client, "mail", status(451));
    client
        .ask("MAIL FROM:<a@b.example> SIZE=99\r\n", "451 4.7.1 Enough")
        .await;
    client.memory.limits.lock().unwrap().clear();
    client
        .ask("MAIL FROM:<a@b.example> SIZE=99\r\n", "250")
        .await;
    answer(&client, "recipient", status(550));
    client
        .ask("RCPT TO:<jane@example.org>\r\n", "550 5.7.1 Enough")
        .await;
    client.ask("DATA\r\n", "554").await;
    client.memory.limits.lock().unwrap().clear();
    client.ask("RCPT TO:<jane@example.org>\r\n", "250").await;
    client
        .ask("RCPT TO:<postmaster@example.org>\r\n", "250")
        .await;
    let weighed = client
        .memory
        .weighed
        .lock()
        .unwrap()
        .last()
        .cloned()
        .unwrap();
    assert_eq!(weighed.facts.helo, "client.example");
    assert_eq!(weighed.facts.client, Some("192.0.2.1".parse().unwrap()));
    let expected = Stage::Recipient {
        recipient: "postmaster@example.org".parse().unwrap(),
        taken: 1,
        taken_there: 1,
        declared: 99,
    };
    assert_eq!(weighed.stage, expected);
    client.ask("DATA\r\n", "354").await;
    answer(&client, "message", status(452));
    client
        .ask("Subject: x\r\n\r\nx\r\n.\r\n", "452 4.7.1 Enough")
        .await;
    assert!(client.commits().is_empty());
    assert_eq!(asked(&client).first(), Some(&"connect"));
    // An unknown recipient is answered as ever, and then the session is over.
    answer(&client, "unknown", status(421));
    client.ask("MAIL FROM:<a@b.example>\r\n", "250").await;
    client
        .ask("RCPT TO:<nobody@example.org>\r\n", "550 5.1.1")
        .await;
    client.expect("421 4.7.0 Enough").await;
    client.expect("CLOSED").await;
}

#[tokio::test]
async fn what_is_not_taken_is_given_back() {
    let mut client = client(|_| {}).await;
    for (fault, end) in [(Some(FaultKind::Busy), "452"), (None, "250 2.0.0")] {
        client.ask("MAIL FROM:<a@b.example>\r\n", "250").await;
        client.ask("RCPT TO:<jane@example.org>\r\n", "250").await;
        client.ask("DATA\r\n", "354").await;
        *client.memory.fault.lock().unwrap() = fault;
        client.ask("Subject: x\r\n\r\nx\r\n.\r\n", end).await;
        *client.memory.fault.lock().unwrap() = None;
        let given_back = client.memory.given_back.lock().unwrap().drain(..).count();
        assert_eq!(given_back, usize::from(fault.is_some()));
    }
}

#[tokio::test]
async fn without_limitd_mail_goes_on_or_waits() {
    for (later, code) in [(false, "250"), (true, "451 4.3.0")] {
        let mut client = client(|policy| {
            policy.asked = Some(Asked {
                connect: false,
                later,
                ..ALL
            });
        })
        .await;
        answer(&client, "mail", None);
        client.ask("MAIL FROM:<a@b.example>\r\n", code).await;
    }
}

#[tokio::test]
async fn nothing_is_asked_that_no_rule_needs() {
    let mut client = client(|policy| {
        policy.asked = Some(Asked {
            message: true,
            ..Asked::default()
        })
    })
    .await;
    client.ask("MAIL FROM:<a@b.example>\r\n", "250").await;
    client.ask("RCPT TO:<jane@example.org>\r\n", "250").await;
    client.ask("RCPT TO:<nobody@example.org>\r\n", "550").await;
    client.ask("DATA\r\n", "354").await;
    client.ask("Subject: x\r\n\r\nx\r\n.\r\n", "250").await;
    assert_eq!(asked(&client), ["message"]);
}

#[tokio::test]
async fn the_door_may_stay_shut() {
    let mut client = Client::connect(ListenerRole::Mx, |policy| policy.asked = Some(ALL));
    // Before the session's task runs for the first time.
    answer(&client, "connect", status(550));
    client.expect("554 5.7.1 Enough").await;
    client.expect("CLOSED").await;
}

/// DNS is asked only about whom greylisting would let wait, and once in a transaction.
#[tokio::test]
async fn who_would_have_to_wait_is_looked_for_in_dns() {
    let mut client = client(|_| {}).await;
    client.ask("MAIL FROM:<a@fails.example>\r\n", "250").await;
    client.ask("RCPT TO:<jane@example.org>\r\n", "250").await;
    assert!(client.memory.identified.lock().unwrap().is_empty());
    let grey = status(451).map(|status| Status {
        text: "Grey".to_owned(),
        ..status
    });
    answer(&client, "recipient", grey.clone());
    for address in ["jane", "postmaster"] {
        client
            .ask(&format!("RCPT TO:<{address}@example.org>\r\n"), "451")
            .await;
    }
    let identified = client.memory.identified.lock().unwrap().clone();
    assert_eq!(identified.len(), 1, "{identified:?}");
    let asked = "192.0.2.1 client.example Some(";
    assert!(identified.iter().all(|of| of.starts_with(asked)));
    client.ask("RSET\r\n", "250").await;
    client.ask("MAIL FROM:<a@passes.example>\r\n", "250").await;
    client.ask("RCPT TO:<jane@example.org>\r\n", "250").await;
    let last = client.memory.weighed.lock().unwrap().last().cloned();
    let identity = last.unwrap().facts.identity.unwrap();
    assert_eq!(identity.spf.as_deref(), Some("passes.example"));
    assert_eq!(client.memory.identified.lock().unwrap().len(), 2);
    // Another answer than greylisting's is not asked about again.
    answer(&client, "recipient", status(550));
    client.ask("MAIL FROM:<a@passes.example>\r\n", "503").await;
    client.ask("RSET\r\n", "250").await;
    client.ask("MAIL FROM:<b@passes.example>\r\n", "250").await;
    client
        .ask("RCPT TO:<jane@example.org>\r\n", "550 5.7.1 Enough")
        .await;
    assert_eq!(client.memory.identified.lock().unwrap().len(), 2);
}
