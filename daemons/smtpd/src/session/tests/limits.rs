//! Limits, order, ends and TLS of sessions.

use super::*;

#[tokio::test]
async fn lmtp_answers_each_recipient() {
    let mut client = Client::connect(ListenerRole::Lmtp, |_| {});
    client.expect("220 mx.example.org LMTP").await;
    client.ask("EHLO c\r\n", "500").await;
    client.ask("LHLO c\r\n", "250").await;
    let rcpt = "RCPT TO:<jane@example.org>\r\n";
    client
        .say(format!(
            "{ENVELOPE}RCPT TO:<nobody@example.org>\r\n{rcpt}DATA\r\nx\r\n.\r\nNOOP\r\n"
        ))
        .await;
    for start in [
        "250",
        "250",
        "550 5.1.1",
        "250",
        "354",
        "250 2.0.0 Queued",
        "250 2.0.0 Queued",
        "250 2.0.0 OK",
    ] {
        client.expect(start).await;
    }
    let commits = client.commits();
    assert_eq!(commits.len(), 1);
    assert_eq!(
        commits[0].0.envelope.recipients.len(),
        1,
        "the same twice is one"
    );
}

#[tokio::test]
async fn loops_are_cut() {
    let mut client = Client::ready(ListenerRole::Mx).await;
    for (hops, answer) in [(50, "250"), (51, "554 5.4.6")] {
        let header = "Received: from x by y\r\n".repeat(hops);
        client
            .say(format!("{ENVELOPE}DATA\r\n{header}\r\n.\r\n"))
            .await;
        for start in ["250", "250", "354", answer] {
            client.expect(start).await;
        }
    }
}

#[tokio::test]
async fn patience_has_limits() {
    let mut client = Client::ready(ListenerRole::Mx).await;
    client.say("FOO\r\n".repeat(20)).await;
    for _ in 0..20 {
        client.expect("500 5.5.1").await;
    }
    client.expect("421 4.7.0").await;
    assert_eq!(client.reply().await, "CLOSED");

    let mut client = Client::connect(ListenerRole::Mx, |policy| {
        policy.limits.unknown_per_session = 3
    });
    client.say("EHLO c\r\nMAIL FROM:<>\r\n").await;
    client.expect("220").await;
    client.expect("250").await;
    client.expect("250").await;
    client.say("RCPT TO:<x@example.org>\r\n".repeat(3)).await;
    for start in ["550 5.1.1", "550 5.1.1", "550 5.1.1", "421 4.7.0"] {
        client.expect(start).await;
    }

    let mut client = Client::ready(ListenerRole::Mx).await;
    client.say("NOOP\r\n".repeat(200)).await;
    for _ in 0..199 {
        client.expect("250").await;
    }
    client.expect("421 4.7.0").await;

    let mut client = Client::connect(ListenerRole::Mx, |policy| policy.limits.recipients = 1);
    client
        .say(format!("EHLO c\r\n{ENVELOPE}RCPT TO:<postmaster>\r\n"))
        .await;
    for start in ["220", "250", "250", "250", "452 4.5.3"] {
        client.expect(start).await;
    }

    let mut client = Client::connect(ListenerRole::Mx, |policy| {
        policy.limits.messages_per_session = 1
    });
    client
        .say(format!(
            "EHLO c\r\n{ENVELOPE}DATA\r\nx\r\n.\r\nMAIL FROM:<>\r\n"
        ))
        .await;
    for start in ["220", "250", "250", "250", "354", "250", "421"] {
        client.expect(start).await;
    }
}

#[tokio::test]
async fn the_silent_are_sent_away() {
    let hasty = |policy: &mut Policy| {
        policy.timeouts.command_s = 1;
        policy.timeouts.data_s = 1;
    };
    let mut client = Client::connect(ListenerRole::Mx, hasty);
    client.expect("220").await;
    client.expect("421 4.4.2").await;
    assert_eq!(client.reply().await, "CLOSED");
    let mut client = Client::connect(ListenerRole::Mx, hasty);
    let script = format!("EHLO c\r\n{ENVELOPE}DATA\r\nhalf of it\r\n");
    client.say(script).await;
    for start in ["220", "250", "250", "250", "354", "421 4.4.2"] {
        client.expect(start).await;
    }
    assert!(client.commits().is_empty());
}

#[tokio::test]
async fn a_shutdown_waits_for_the_message_under_way() {
    let mut client = Client::ready(ListenerRole::Mx).await;
    client.say(format!("{ENVELOPE}DATA\r\nhalf\r\n")).await;
    for start in ["250", "250", "354"] {
        client.expect(start).await;
    }
    client.drain.send(true).unwrap();
    client.ask("rest\r\n.\r\n", "250 2.0.0 Queued").await;
    client.expect("421 4.3.2").await;
    assert_eq!(client.reply().await, "CLOSED");
    assert_eq!(client.commits().len(), 1);
}

#[tokio::test]
async fn lines_that_are_no_lines() {
    let mut client = Client::ready(ListenerRole::Mx).await;
    let long = "x".repeat(9000);
    client.ask(format!("{long}\r\n"), "500 5.5.2").await;
    client.ask("NOOP\r\n", "250").await;
    client.say("NOOP\nQUIT\r\n").await;
    client.expect("521 5.5.2").await;
    assert_eq!(client.reply().await, "CLOSED");
}

#[tokio::test]
async fn order_matters() {
    let mut client = Client::connect(ListenerRole::Mx, |_| {});
    client.expect("220 mx.example.org ESMTP").await;
    client.ask("MAIL FROM:<>\r\n", "503 5.5.1").await;
    client.ask("HELO c\r\n", "250 mx.example.org\r\n").await;
    client.ask("MAIL FROM:<> SIZE=1\r\n", "555 5.5.4").await;
    client
        .ask("RCPT TO:<jane@example.org>\r\n", "503 5.5.1")
        .await;
    client.ask("DATA\r\n", "503 5.5.1").await;
    client.ask("MAIL FROM:<>\r\n", "250").await;
    client.ask("MAIL FROM:<>\r\n", "503 5.5.1").await;
    client.ask("EHLO c\r\n", "250").await;
    client
        .ask("RCPT TO:<jane@example.org>\r\n", "503 5.5.1")
        .await;
    client.ask("STARTTLS\r\n", "502 5.5.1").await;
    client.ask("VRFY jane\r\n", "252").await;
    client
        .ask("MAIL FROM:<> RET=HDRS ENVID=x+2By SMTPUTF8\r\n", "250")
        .await;
    let rcpt = "RCPT TO:<jürgen@example.org> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;j+40example.org\r\n";
    client.ask(rcpt, "250").await;
    client.ask("DATA\r\n", "354").await;
    client.ask("\r\n.\r\n", "250").await;
    let (commit, _) = client.commits().remove(0);
    assert_eq!(commit.envelope.envid.as_deref(), Some("x+y"));
    assert_eq!(commit.envelope.ret, Some(types::Ret::Headers));
    let recipient = &commit.envelope.recipients[0];
    assert_eq!(recipient.orcpt.as_deref(), Some("rfc822;j@example.org"));
    assert!(recipient.notify.success && recipient.notify.delay && !recipient.notify.failure);
    let prefix = String::from_utf8(commit.prefix.to_vec()).unwrap();
    assert!(prefix.contains(" with UTF8SMTP id "));
}

/// A certificate of our own on both sides.
fn tls_ends() -> (TlsAcceptor, tokio_rustls::TlsConnector) {
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig, pki_types};
    let made = rcgen::generate_simple_self_signed(vec!["mx.example.org".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let server = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (
        TlsAcceptor::from(Arc::new(server)),
        tokio_rustls::TlsConnector::from(Arc::new(client)),
    )
}

#[tokio::test]
async fn starttls_forgets_what_was_said_and_binds_the_login() {
    let (acceptor, connector) = tls_ends();
    let mut client = Client::connect_tls(ListenerRole::Submission, Some(acceptor), |policy| {
        policy.auth_without_tls = false;
    });
    client.expect("220").await;
    let offer = client.ask("EHLO plain.example\r\n", "250").await;
    assert!(offer.contains("STARTTLS") && !offer.contains("AUTH") && !offer.contains("REQUIRETLS"));
    client
        .ask("AUTH PLAIN AGphbmUAc2VjcmV0\r\n", "538 5.7.11")
        .await;
    client
        .ask("MAIL FROM:<jane@example.org>\r\n", "530 5.7.0")
        .await;
    // What is pipelined behind STARTTLS is nobody's word.
    client
        .ask("STARTTLS\r\nEHLO injected.example\r\nNOOP\r\n", "220 2.0.0")
        .await;
    assert!(client.held.is_empty());
    let name = tokio_rustls::rustls::pki_types::ServerName::try_from("mx.example.org").unwrap();
    let mut stream = connector.connect(name, client.stream).await.unwrap();
    let secret = stream
        .get_ref()
        .1
        .export_keying_material([0_u8; 32], b"EXPORTER-Channel-Binding", Some(b""))
        .unwrap();
    let script = "MAIL FROM:<>\r\nEHLO secure.example\r\nSTARTTLS\r\nAUTH PLAIN AGphbmUAc2VjcmV0\r\nMAIL FROM:<jane@example.org> REQUIRETLS\r\nRCPT TO:<a@other.example>\r\nDATA\r\nFrom: jane@example.org\r\n\r\n.\r\nQUIT\r\n";
    stream.write_all(script.as_bytes()).await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert!(
        said.starts_with("503 5.5.1 "),
        "EHLO must come again: {said}"
    );
    assert!(said.contains(" AUTH SCRAM-SHA-256-PLUS ".trim_start()) && said.contains("REQUIRETLS"));
    assert!(!said.contains("STARTTLS\r\n"));
    for code in [
        "503 5.5.1 TLS is on",
        "235 2.7.0",
        "250 2.1.0",
        "250 2.1.5",
        "354",
        "250 2.0.0 Queued",
        "221 2.0.0",
    ] {
        assert!(said.contains(&format!("\r\n{code}")), "{code} in {said}");
    }
    let bindings = client.memory.bindings.lock().unwrap().clone();
    let bound = (
        "tls-exporter".to_owned(),
        types::Octets::from(secret.to_vec()),
    );
    assert!(bindings.contains(&bound));
    let (commit, _) = client.memory.commits.lock().unwrap().remove(0);
    assert!(commit.envelope.require_tls);
    let prefix = String::from_utf8(commit.prefix.to_vec()).unwrap();
    assert!(
        prefix.contains("\r\n\t(using TLSv1.3 with cipher TLS_AES_"),
        "{prefix}"
    );
    assert!(prefix.contains(" with ESMTPSA id "));
}
