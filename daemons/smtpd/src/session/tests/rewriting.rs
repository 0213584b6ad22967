//! Addresses that become others, and copies.

use super::*;
use types::Recipient;

async fn with_rules(role: ListenerRole, rules: &str) -> Client {
    let listener = "[[listener]]\nname = 'test'\naddress = '127.0.0.1:25'\n";
    let config: Config = toml::from_str(&format!("{rules}\n{listener}")).unwrap();
    let rewriting = Rewriting::new(&config).unwrap().map(Arc::new);
    let mut client = Client::connect(role, |policy| policy.rewriting = rewriting);
    client.expect("220").await;
    let hello = match role {
        ListenerRole::Lmtp => "LHLO client.example\r\n",
        _ => "EHLO client.example\r\n",
    };
    client.ask(hello, "250").await;
    client
}

fn recipients(commit: &Commit) -> Vec<String> {
    let show = |one: &Recipient| format!("{} {:?} {:?}", one.address, one.orcpt, one.route);
    commit.envelope.recipients.iter().map(show).collect()
}

const JANES: &str = "[[rewrite]]\nfrom = '@old.example'\nto = '@example.org'\n\
                     [[rewrite]]\nfrom = '@out.example'\nto = '@other.example'\n\
                     [[rewrite]]\nwhich = 'sender'\nfrom = '@pc.example'\nto = '@example.org'";

#[tokio::test]
async fn recipients_are_rewritten_before_they_are_resolved() {
    let mut client = with_rules(ListenerRole::Mx, JANES).await;
    client.ask("MAIL FROM:<a@pc.example>\r\n", "250").await;
    client
        .ask(
            "RCPT TO:<nobody@old.example>\r\n",
            "550 5.1.1 nobody@example.org",
        )
        .await;
    client.ask("RCPT TO:<jane@old.example>\r\n", "250").await;
    // The same mailbox by its new name.
    client.ask("RCPT TO:<jane@example.org>\r\n", "250").await;
    // A rule gives nobody the right to relay.
    client
        .ask("RCPT TO:<x@out.example>\r\n", "550 5.7.1 Relaying denied")
        .await;
    client.ask("DATA\r\n", "354").await;
    client
        .ask("From: a@pc.example\r\n\r\nx\r\n.\r\n", "250")
        .await;
    let (commit, body) = client.commits().remove(0);
    assert_eq!(
        recipients(&commit),
        ["jane@example.org Some(\"rfc822;jane@old.example\") Local"]
    );
    assert_eq!(commit.envelope.sender.unwrap().to_string(), "a@example.org");
    let prefix = String::from_utf8(commit.prefix.to_vec()).unwrap();
    assert!(
        prefix.contains("\r\n\tfor <jane@example.org> (sent to jane@old.example);"),
        "{prefix}"
    );
    assert_eq!(body, b"From: a@pc.example\r\n\r\nx\r\n");
}

#[tokio::test]
async fn what_the_client_says_of_the_original_recipient_stays() {
    let mut client = with_rules(ListenerRole::Mx, JANES).await;
    client.ask("MAIL FROM:<>\r\n", "250").await;
    client
        .ask(
            "RCPT TO:<jane@old.example> ORCPT=rfc822;j@first.example\r\n",
            "250",
        )
        .await;
    client.ask("RCPT TO:<Postmaster>\r\n", "250").await;
    client.ask("DATA\r\n", "354").await;
    client.ask("\r\nx\r\n.\r\n", "250").await;
    let (commit, _) = client.commits().remove(0);
    assert_eq!(commit.envelope.sender, None);
    let first = &commit.envelope.recipients[0];
    assert_eq!(first.orcpt.as_deref(), Some("rfc822;j@first.example"));
    let prefix = String::from_utf8(commit.prefix.to_vec()).unwrap();
    assert!(!prefix.contains("old.example"), "{prefix}");
}

#[tokio::test]
async fn the_checks_are_about_the_sender_that_the_client_gave() {
    let listener = "[[listener]]\nname = 'test'\naddress = '127.0.0.1:25'\n";
    let config: Config = toml::from_str(&format!("{JANES}\n{listener}")).unwrap();
    let rewriting = Rewriting::new(&config).unwrap().map(Arc::new);
    let mut client = Client::connect(ListenerRole::Mx, |policy| {
        policy.rewriting = rewriting;
        policy.checks = crate::checks::Checks::new(&config.checks).unwrap();
    });
    client.expect("220").await;
    client.ask("EHLO client.example\r\n", "250").await;
    client.ask("MAIL FROM:<a@pc.example>\r\n", "250").await;
    client.ask("RCPT TO:<jane@example.org>\r\n", "250").await;
    client.ask("DATA\r\n", "354").await;
    client.ask("\r\nx\r\n.\r\n", "250").await;
    let judged = client.memory.judged.lock().unwrap().remove(0).0;
    assert!(judged.contains("pc.example"), "{judged}");
}

#[tokio::test]
async fn users_masquerade_in_envelope_and_header() {
    let rules = "[[rewrite]]\nwhich = 'both'\nfrom = '@pc.example'\nto = '@example.org'\nlogin = true\nheader = true";
    let mut client = with_rules(ListenerRole::Submission, rules).await;
    client.ask("AUTH PLAIN AGphbmUAc2VjcmV0\r\n", "235").await;
    client
        .ask(
            "MAIL FROM:<bob@pc.example>\r\n",
            "553 5.7.1 You may not send as bob@example.org",
        )
        .await;
    for chunked in [false, true] {
        client.ask("MAIL FROM:<jane@pc.example>\r\n", "250").await;
        client.ask("RCPT TO:<x@other.example>\r\n", "250").await;
        let header = "From: Jane <jane@pc.example>\r\nDate: x\r\nMessage-ID: <x@x>\r\n\r\n";
        let text = format!("{header}{}", "x\r\n".repeat(40_000));
        if chunked {
            let (first, last) = text.split_at(20);
            client
                .ask(format!("BDAT {}\r\n{first}", first.len()), "250")
                .await;
            client
                .ask(format!("BDAT {} LAST\r\n{last}", last.len()), "250")
                .await;
        } else {
            client.ask("DATA\r\n", "354").await;
            client.ask(format!("{text}.\r\n"), "250").await;
        }
        let (commit, body) = client.commits().remove(0);
        let wanted = text.replace("jane@pc.example", "jane@example.org");
        assert_eq!(body, wanted.as_bytes());
        assert_eq!(
            commit.envelope.sender.unwrap().to_string(),
            "jane@example.org"
        );
    }
}

const COPIES: &str = "[[bcc]]\nrecipients = ['@example.org']\n\
                      to = ['postmaster@example.org', 'unknown@example.org', 'x@other.example', 'jane@example.org']";

#[tokio::test]
async fn copies_are_invisible_and_never_in_the_way() {
    for role in [ListenerRole::Mx, ListenerRole::Lmtp] {
        let mut client = with_rules(role, COPIES).await;
        client.ask("MAIL FROM:<a@other.example>\r\n", "250").await;
        client.ask("RCPT TO:<jane@example.org>\r\n", "250").await;
        client.ask("DATA\r\n", "354").await;
        client
            .ask("\r\nx\r\n.\r\nNOOP\r\n", "250 2.0.0 Queued")
            .await;
        // One answer, to NOOP.
        client.ask("QUIT\r\n", "250 2.0.0").await;
        client.expect("221").await;
        let (commit, _) = client.commits().remove(0);
        assert_eq!(
            recipients(&commit),
            [
                "jane@example.org None Local",
                "postmaster@example.org None Local"
            ]
        );
        let notify = commit.envelope.recipients[1].notify;
        assert!(notify.explicit && !notify.failure && !notify.success && !notify.delay);
        assert_eq!(commit.origin.right, Right::Incoming);
        let prefix = String::from_utf8(commit.prefix.to_vec()).unwrap();
        assert!(prefix.contains("for <jane@example.org>;") && !prefix.contains("postmaster"));
    }
}

#[tokio::test]
async fn copies_of_what_users_send_may_go_elsewhere() {
    let rules = "[[bcc]]\nsenders = ['jane@example.org']\nto = ['archive@other.example']";
    let mut client = with_rules(ListenerRole::Submission, rules).await;
    client.ask("AUTH PLAIN AGphbmUAc2VjcmV0\r\n", "235").await;
    client.ask("MAIL FROM:<jane@example.org>\r\n", "250").await;
    client.ask("RCPT TO:<jane@example.org>\r\n", "250").await;
    client.ask("DATA\r\n", "354").await;
    client
        .ask("From: jane@example.org\r\n\r\nx\r\n.\r\n", "250")
        .await;
    let (commit, _) = client.commits().remove(0);
    assert_eq!(recipients(&commit)[1], "archive@other.example None Remote");
    assert!(matches!(commit.origin.right, Right::Submission(_)));
}
