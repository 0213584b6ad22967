//! FUTURERELEASE, MT-PRIORITY and DELIVERBY at MAIL.

use super::*;
use types::{ByMode, moment};

async fn login(client: &mut Client) {
    client.expect("220").await;
    client.ask("EHLO client.example\r\n", "250").await;
    // \0jane\0secret
    client.ask("AUTH PLAIN AGphbmUAc2VjcmV0\r\n", "235").await;
}

async fn submission(change: impl FnOnce(&mut Policy)) -> Client {
    let mut client = Client::connect(ListenerRole::Submission, change);
    login(&mut client).await;
    client
}

/// Sends a message with these parameters of MAIL, and gives its envelope.
async fn envelope(client: &mut Client, parameters: &str, end: &str) -> types::Envelope {
    client
        .ask(
            format!("MAIL FROM:<jane@example.org> {parameters}\r\n"),
            "250",
        )
        .await;
    client.ask("RCPT TO:<jane@example.org>\r\n", "250").await;
    client.ask("DATA\r\n", "354").await;
    client
        .ask("From: jane@example.org\r\n\r\nx\r\n.\r\n", end)
        .await;
    client.commits().remove(0).0.envelope
}

#[tokio::test]
async fn a_submission_is_held() {
    let mut client = submission(|policy| policy.terms.future_release = 7200).await;
    let offer = client.ask("EHLO client.example\r\n", "250").await;
    let line = offer
        .lines()
        .find_map(|line| line.get(4..)?.strip_prefix("FUTURERELEASE "))
        .unwrap();
    let (interval, last) = line.split_once(' ').unwrap();
    assert_eq!(interval, "7200");
    let last = moment::parse_date_time(last).unwrap();
    assert!(last >= crate::trace_header::now() + 7190);
    login_again(&mut client).await;
    let held = envelope(&mut client, "HOLDFOR=3600", "250 2.0.0").await;
    let release = held.terms.release.unwrap();
    assert_eq!(release.interval, Some(3600));
    assert!((last - 3700..last - 3500).contains(&release.at));
    let until = moment::date_time(last - 60);
    let held = envelope(&mut client, &format!("HOLDUNTIL={until}"), "250 2.0.0").await;
    let release = held.terms.release.unwrap();
    assert_eq!((release.at, release.interval), (last - 60, None));
    for (parameters, answer) in [
        ("HOLDFOR=7300", "501 5.5.4"),
        ("HOLDUNTIL=2099-01-01T00:00:00Z", "501 5.5.4"),
        ("HOLDUNTIL=2001-01-01T00:00:00Z", "501 5.5.4"),
        ("HOLDFOR=600 BY=300;R", "501 5.5.4"),
        ("HOLDFOR=0", "501 5.5.4"),
    ] {
        client
            .ask(
                format!("MAIL FROM:<jane@example.org> {parameters}\r\n"),
                answer,
            )
            .await;
    }
}

/// EHLO did not end the login.
async fn login_again(client: &mut Client) {
    client.ask("AUTH PLAIN AGphbmUAc2VjcmV0\r\n", "503").await;
}

#[tokio::test]
async fn only_submissions_are_held() {
    let mut client = Client::connect(ListenerRole::Mx, |_| {});
    client.expect("220").await;
    let offer = client.ask("EHLO client.example\r\n", "250").await;
    assert!(!offer.contains("FUTURERELEASE"));
    assert!(offer.contains("MT-PRIORITY\r\n") && offer.contains("DELIVERBY 60\r\n"));
    client
        .ask("MAIL FROM:<a@other.example> HOLDFOR=60\r\n", "555 5.5.4")
        .await;
    let mut client = submission(|policy| policy.terms.future_release = 0).await;
    client
        .ask("MAIL FROM:<jane@example.org> HOLDFOR=60\r\n", "555 5.5.4")
        .await;
}

#[tokio::test]
async fn strangers_may_lower_a_priority_and_users_raise_it() {
    let mut client = Client::ready(ListenerRole::Mx).await;
    let reply = client
        .ask(
            "MAIL FROM:<a@other.example> MT-PRIORITY=5\r\n",
            "250 2.3.6 0 ",
        )
        .await;
    assert!(reply.contains("0 is the priority"));
    client.ask("RCPT TO:<jane@example.org>\r\n", "250").await;
    client.ask("DATA\r\n", "354").await;
    client.ask("x\r\n.\r\n", "250 2.3.6 0 ").await;
    let commit = client.commits().remove(0).0;
    assert_eq!(commit.envelope.terms.priority, Some(0));
    let prefix = String::from_utf8(commit.prefix.to_vec()).unwrap();
    assert!(prefix.contains("\r\n\tPRIORITY 0;\r\n"), "{prefix}");
    client
        .ask(
            "MAIL FROM:<a@other.example> MT-PRIORITY=-3\r\n",
            "250 2.1.0",
        )
        .await;
    let mut client = submission(|policy| policy.terms.priority_policy = "MIXER".to_owned()).await;
    let offer = client.ask("EHLO client.example\r\n", "250").await;
    assert!(offer.contains("MT-PRIORITY MIXER\r\n"));
    let sent = envelope(&mut client, "MT-PRIORITY=6", "250 2.0.0").await;
    assert_eq!(sent.terms.priority, Some(6));
    assert_eq!(
        envelope(&mut client, "", "250 2.0.0").await.terms,
        types::Terms::default()
    );
    let mut client = submission(|policy| policy.terms.priority = false).await;
    client
        .ask(
            "MAIL FROM:<jane@example.org> MT-PRIORITY=1\r\n",
            "555 5.5.4",
        )
        .await;
}

#[tokio::test]
async fn a_time_limit_counts_from_now() {
    let mut client = submission(|policy| policy.terms.deliver_by_min = 120).await;
    let now = crate::trace_header::now();
    let sent = envelope(&mut client, "BY=120;RT", "250 2.0.0").await;
    let by = sent.terms.by.unwrap();
    assert!(by.deadline >= now + 120 && by.deadline <= now + 180);
    assert_eq!((by.mode, by.trace), (ByMode::Return, true));
    // The minimum is for what is to be returned.
    let sent = envelope(&mut client, "BY=-10;N", "250 2.0.0").await;
    assert!(sent.terms.notify_at().unwrap() < now + 60);
    for (parameters, answer) in [("BY=119;R", "555 5.5.4"), ("BY=5", "501 5.5.4")] {
        client
            .ask(
                format!("MAIL FROM:<jane@example.org> {parameters}\r\n"),
                answer,
            )
            .await;
    }
    let mut client = submission(|policy| policy.terms.deliver_by = false).await;
    client
        .ask("MAIL FROM:<jane@example.org> BY=600;N\r\n", "555 5.5.4")
        .await;
}
