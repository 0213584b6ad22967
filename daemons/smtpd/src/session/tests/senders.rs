//! Checks of who sends.

use super::*;
use crate::checks::{Checks, ChecksConfig, Temporary};
use mailauth::{DmarcPolicy, DmarcReport, Report, Word};

fn failing(policy: DmarcPolicy) -> Report {
    Report {
        dmarc: DmarcReport {
            result: Word::Fail,
            domain: "bank.example".to_owned(),
            policy,
            ..DmarcReport::default()
        },
        ..Report::default()
    }
}

async fn checking(role: ListenerRole, config: ChecksConfig, report: Report) -> Client {
    let checks = Checks::new(&config).unwrap();
    let mut client = Client::connect(role, |policy| policy.checks = checks);
    *client.memory.report.lock().unwrap() = report;
    client.expect("220").await;
    let hello = match role {
        ListenerRole::Lmtp => "LHLO client.example\r\n",
        _ => "EHLO client.example\r\n",
    };
    client.ask(hello, "250").await;
    client
}

async fn send(client: &mut Client, message: &str, answer: &str) -> String {
    client.ask("MAIL FROM:<a@other.example>\r\n", "250").await;
    client.ask("RCPT TO:<jane@example.org>\r\n", "250").await;
    client.ask("DATA\r\n", "354").await;
    client.ask(format!("{message}\r\n.\r\n"), answer).await
}

const FORGED: &str = "Authentication-Results: mx.example.org; dmarc=pass\r\nX-Posthouse-Suspect: tag; checks=x\r\nFrom: <x@bank.example>\r\n\r\nbody";

#[tokio::test]
async fn results_stand_before_the_message_and_forged_ones_are_gone() {
    let mut client = checking(ListenerRole::Mx, ChecksConfig::default(), Report::default()).await;
    send(&mut client, FORGED, "250").await;
    let (commit, body) = client.commits().remove(0);
    assert_eq!(body, b"From: <x@bank.example>\r\n\r\nbody\r\n");
    let prefix = String::from_utf8(commit.prefix.to_vec()).unwrap();
    let (received, results) = prefix.split_once("Authentication-Results: ").unwrap();
    assert!(received.starts_with("Received: from client.example"));
    assert!(
        results.starts_with("mx.example.org;\r\n\tiprev=none"),
        "{results}"
    );
    assert!(!prefix.contains("X-Posthouse-Suspect"));
    let judged = client.memory.judged.lock().unwrap().clone();
    // What came is judged as it came.
    let header = FORGED.strip_suffix("body").unwrap().as_bytes().to_vec();
    let sender: Address = "a@other.example".parse().unwrap();
    assert_eq!(
        judged,
        [(
            format!("192.0.2.1 client.example {:?}", Some(sender)),
            header
        )]
    );
}

#[tokio::test]
async fn what_the_domain_wants_refused_is_refused() {
    let report = failing(DmarcPolicy::Reject);
    let mut client = checking(ListenerRole::Mx, ChecksConfig::default(), report).await;
    let text = send(
        &mut client,
        "From: <x@bank.example>\r\n\r\nbody",
        "550 5.7.1",
    )
    .await;
    assert!(
        text.contains("bank.example") && text.contains("p=reject"),
        "{text}"
    );
    assert!(client.commits().is_empty());
    // The session goes on.
    *client.memory.report.lock().unwrap() = Report::default();
    send(&mut client, "From: <x@bank.example>\r\n\r\nbody", "250").await;
    assert_eq!(client.commits().len(), 1);
}

#[tokio::test]
async fn quarantine_travels_in_the_prefix() {
    let report = failing(DmarcPolicy::Quarantine);
    let mut client = checking(ListenerRole::Mx, ChecksConfig::default(), report).await;
    send(&mut client, FORGED, "250").await;
    let (commit, body) = client.commits().remove(0);
    let prefix = String::from_utf8(commit.prefix.to_vec()).unwrap();
    assert!(
        prefix.ends_with("X-Posthouse-Suspect: junk; checks=dmarc\r\n"),
        "{prefix}"
    );
    assert!(!String::from_utf8(body).unwrap().contains("X-Posthouse"));
}

#[tokio::test]
async fn no_answer_of_dns_is_no_refusal() {
    let mut report = Report::default();
    report.dmarc.result = Word::TempError;
    let mut client = checking(ListenerRole::Mx, ChecksConfig::default(), report.clone()).await;
    send(&mut client, FORGED, "250").await;
    let defers = ChecksConfig {
        temporary: Temporary::Defer,
        ..ChecksConfig::default()
    };
    let mut client = checking(ListenerRole::Mx, defers, report).await;
    send(&mut client, FORGED, "451 4.7.1").await;
    assert!(client.commits().is_empty());
}

#[tokio::test]
async fn what_is_no_strangers_is_not_judged() {
    let report = failing(DmarcPolicy::Reject);
    let mut client = checking(ListenerRole::Lmtp, ChecksConfig::default(), report.clone()).await;
    send(&mut client, FORGED, "250").await;
    // Software here may hand on what we found before.
    let (commit, body) = client.commits().remove(0);
    assert!(body.starts_with(b"Authentication-Results: mx.example.org; dmarc=pass\r\n"));
    assert!(
        !String::from_utf8(commit.prefix.to_vec())
            .unwrap()
            .contains("Authentication-Results")
    );
    let off = ChecksConfig {
        enabled: false,
        ..ChecksConfig::default()
    };
    let mut client = checking(ListenerRole::Mx, off, report).await;
    send(&mut client, FORGED, "250").await;
    // Nothing is checked, and nobody may say that we did.
    let (commit, body) = client.commits().remove(0);
    assert!(body.starts_with(b"From:"));
    assert!(
        !String::from_utf8(commit.prefix.to_vec())
            .unwrap()
            .contains("Authentication-Results")
    );
    assert!(client.memory.judged.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_large_message_is_judged_by_its_header() {
    let mut client = checking(ListenerRole::Mx, ChecksConfig::default(), Report::default()).await;
    let message = format!("{FORGED}\r\n{}", "0123456789\r\n".repeat(60_000));
    send(&mut client, &message, "250").await;
    let (_, body) = client.commits().remove(0);
    assert_eq!(
        body.len(),
        message.len() + 2 - FORGED.find("From:").unwrap()
    );
    assert!(
        client.memory.judged.lock().unwrap()[0]
            .1
            .ends_with(b"<x@bank.example>\r\n\r\n")
    );
}

#[tokio::test]
async fn a_header_without_end_is_refused() {
    let mut client = checking(ListenerRole::Mx, ChecksConfig::default(), Report::default()).await;
    // Behind what is looked at, a field could claim anything.
    let message = format!("{}{FORGED}", "X-Long: 0123456789\r\n".repeat(20_000));
    send(&mut client, &message, "552 5.3.4").await;
    assert!(client.commits().is_empty());
    let small = format!("{}{FORGED}", "X-Long: 0123456789\r\n".repeat(10_000));
    send(&mut client, &small, "250").await;
}

#[tokio::test]
async fn a_header_without_a_body_is_a_message() {
    let mut client = checking(ListenerRole::Mx, ChecksConfig::default(), Report::default()).await;
    // Too large for a frame, and no empty line in it.
    let header = "X-Long: 0123456789\r\n".repeat(8_000);
    send(&mut client, header.trim_end(), "250").await;
    let (commit, body) = client.commits().remove(0);
    assert!(matches!(commit.body, types::Body::Slot { .. }));
    assert_eq!(body, header.as_bytes());
}
