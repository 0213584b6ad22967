//! Clients that do not wait, speak something else, or are on a list in DNS.

use super::*;
use crate::config::EarlyAction;
use crate::dnslist::{Asking, ListAction, When};
use crate::session::ListPolicy;
use types::{Enhanced, Status};

#[tokio::test]
async fn other_protocols_are_cut_off() {
    for line in [
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "CONNECT other.example:25 HTTP/1.0\r\n",
        "SSH-2.0-x\r\n",
    ] {
        let mut client = Client::connect(ListenerRole::Mx, |_| {});
        client.expect("220").await;
        client.say(line).await;
        client.expect("554 5.5.1 This is SMTP").await;
        client.expect("CLOSED").await;
    }
}

#[tokio::test]
async fn who_does_not_wait_for_an_answer_is_cut_off() {
    let cut = "554 5.5.1 You did not wait";
    for group in [
        "EHLO client.example\r\nMAIL FROM:<a@b.example>\r\n",
        "HELO client.example\r\nRSET\r\n",
    ] {
        let mut client = Client::connect(ListenerRole::Mx, strict);
        client.expect("220").await;
        client.say(group).await;
        client.expect(cut).await;
        client.expect("CLOSED").await;
    }
    // Groups are for those who were offered them.
    let mut client = Client::connect(ListenerRole::Mx, strict);
    client.expect("220").await;
    client.ask("HELO client.example\r\n", "250").await;
    client
        .say("MAIL FROM:<a@b.example>\r\nRCPT TO:<jane@example.org>\r\n")
        .await;
    client.expect(cut).await;
    // The message does not come before 354.
    let mut client = Client::connect(ListenerRole::Mx, strict);
    client.expect("220").await;
    client.ask("EHLO client.example\r\n", "250").await;
    client.ask("MAIL FROM:<a@b.example>\r\n", "250").await;
    client.ask("RCPT TO:<jane@example.org>\r\n", "250").await;
    client.say("DATA\r\nSubject: x\r\n\r\nx\r\n.\r\n").await;
    client.expect(cut).await;
    assert!(client.commits().is_empty());
    // A group as it should be, and one that is only logged.
    let mut client = Client::connect(ListenerRole::Mx, strict);
    client.expect("220").await;
    client.ask("EHLO client.example\r\n", "250").await;
    client
        .say("MAIL FROM:<a@b.example>\r\nRCPT TO:<jane@example.org>\r\nDATA\r\n")
        .await;
    for code in ["250", "250", "354"] {
        client.expect(code).await;
    }
    let mut client = Client::connect(ListenerRole::Mx, |policy| {
        policy.early.pipelining = EarlyAction::Log
    });
    client.expect("220").await;
    client.say("EHLO client.example\r\nNOOP\r\n").await;
    client.expect("250").await;
    client.expect("250 2.0.0").await;
}

fn strict(policy: &mut Policy) {
    policy.early.pipelining = EarlyAction::Refuse;
}

fn listed(client: &Client, action: ListAction, code: u16) {
    let status = Status {
        code,
        enhanced: Enhanced(if code < 500 { 4 } else { 5 }, 7, 1),
        text: "192.0.2.1 is listed at bl.example".to_owned(),
        host: None,
    };
    client.memory.standing.lock().unwrap().stopped = Some((action, status));
}

fn with_lists(when: When) -> impl FnOnce(&mut Policy) {
    move |policy: &mut Policy| {
        policy.lists = Some(ListPolicy {
            when,
            at_mail: false,
            reachable: vec!["postmaster".to_owned()],
        });
    }
}

#[tokio::test]
async fn the_listed_hear_it_at_rcpt_and_reach_postmaster() {
    let mut client = Client::connect(ListenerRole::Mx, with_lists(When::Rcpt));
    listed(&client, ListAction::Refuse, 554);
    client.expect("220").await;
    client.ask("EHLO client.example\r\n", "250").await;
    client.ask("MAIL FROM:<a@b.example>\r\n", "250").await;
    client
        .ask(
            "RCPT TO:<jane@example.org>\r\n",
            "554 5.7.1 192.0.2.1 is listed at bl.example",
        )
        .await;
    client
        .ask("RCPT TO:<postmaster@example.org>\r\n", "250")
        .await;
    let mut client = Client::connect(ListenerRole::Mx, with_lists(When::Connect));
    listed(&client, ListAction::Later, 451);
    client.expect("421 4.7.0 192.0.2.1 is listed").await;
    client.expect("CLOSED").await;
    // Our users are not asked about.
    let mut client = Client::connect(ListenerRole::Submission, with_lists(When::Connect));
    listed(&client, ListAction::Refuse, 554);
    client.expect("220").await;
}

#[tokio::test]
async fn a_list_may_be_asked_at_mail() {
    let at_mail = |policy: &mut Policy| {
        with_lists(When::Rcpt)(policy);
        policy.lists.as_mut().unwrap().at_mail = true;
    };
    let mut client = Client::connect(ListenerRole::Mx, at_mail);
    client.expect("220").await;
    client.ask("EHLO client.example\r\n", "250").await;
    listed(&client, ListAction::Refuse, 554);
    client
        .ask(
            "MAIL FROM:<a@b.example>\r\n",
            "554 5.7.1 192.0.2.1 is listed at bl.example",
        )
        .await;
    client
        .ask("RCPT TO:<postmaster@example.org>\r\n", "503")
        .await;
    // What is only marked goes on, and is asked about again where it is.
    listed(&client, ListAction::Junk, 554);
    client.ask("MAIL FROM:<a@b.example>\r\n", "250").await;
    client.ask("RCPT TO:<jane@example.org>\r\n", "250").await;
    let looked_up = client.memory.looked_up.lock().unwrap().clone();
    assert_eq!(looked_up, [Asking::Mail, Asking::Mail, Asking::Rcpt]);
}

#[tokio::test]
async fn the_suspicious_goes_to_junk() {
    let mut client = Client::connect(ListenerRole::Mx, with_lists(When::Rcpt));
    listed(&client, ListAction::Junk, 554);
    client.expect("220").await;
    client.ask("EHLO client.example\r\n", "250").await;
    client.ask("MAIL FROM:<a@b.example>\r\n", "250").await;
    client.ask("RCPT TO:<jane@example.org>\r\n", "250").await;
    client.ask("DATA\r\n", "354").await;
    client.ask("Subject: x\r\n\r\nx\r\n.\r\n", "250").await;
    let (commit, _) = client.commits().remove(0);
    let prefix = String::from_utf8(commit.prefix.to_vec()).unwrap();
    assert!(
        prefix.contains("X-Posthouse-Suspect: junk; checks=dnslist\r\n"),
        "{prefix}"
    );
}
