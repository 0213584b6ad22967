//! What the table demands, and what becomes of it at a host. DANE and MTA-STS themselves are tested with signed zones and real
//! servers under tests/e2e.

use super::names::{Entry, serve};
use super::server::{Script, Server, StartTls};
use super::{BODY, client, config, job, statuses, summary};
use crate::config::Config;
use crate::transport::{DestinationTls, Dnssec, Level};
use types::Enhanced;

const TABLE: &[(&str, Entry)] = &[
    ("t.example", Entry::Mx(10, "localhost")),
    ("localhost", Entry::Address([127, 0, 0, 1])),
];

fn script(starttls: StartTls) -> Script {
    Script {
        starttls,
        ..Script::default()
    }
}

async fn at(server: &Server, level: Level, names: &[&str]) -> Config {
    let mut config = Config {
        port: server.address.port(),
        nameservers: vec![serve(TABLE.to_vec()).await],
        dns_timeout: 1,
        ..config()
    };
    let entry = DestinationTls {
        policy: Some(level),
        names: Some(names.iter().map(|name| (*name).to_owned()).collect()),
        ..DestinationTls::default()
    };
    config.tls.destination.insert("t.example".to_owned(), entry);
    config
}

/// The outcome, and whether the host got it under TLS.
async fn sent(server: &Server, config: Config) -> (String, usize) {
    let message = job(&["a@t.example"], BODY.as_bytes()).await;
    let relayed = client(config).deliver(&message, "t.example", None).await;
    (summary(&relayed), server.seen.lock().unwrap().tls)
}

#[tokio::test]
async fn levels_of_the_table() {
    use StartTls::{Broken, NotOffered, Works};
    for (level, starttls, expected) in [
        (Level::None, Works, ("d250", 0)),
        (Level::May, Works, ("d250", 1)),
        (Level::May, NotOffered, ("d250", 0)),
        (Level::May, Broken, ("d250", 0)),
        (Level::Auto, Broken, ("d250", 0)),
        (Level::Encrypt, Works, ("d250", 1)),
        (Level::Encrypt, NotOffered, ("t451", 0)),
        (Level::Encrypt, Broken, ("t454", 0)),
        // The server's certificate is nobody's.
        (Level::Verify, Works, ("t454", 0)),
        // Nothing is published, and nothing could be proved.
        (Level::DaneOnly, Works, ("t451", 0)),
        (Level::Dane, Works, ("d250", 1)),
        (Level::MtaStsOnly, Works, ("t451", 0)),
        (Level::MtaSts, Works, ("d250", 1)),
    ] {
        let server = Server::start(script(starttls)).await;
        let config = at(&server, level, &[]).await;
        let (outcome, tls) = sent(&server, config).await;
        assert_eq!(outcome, expected.0, "{level:?} {starttls:?}");
        if expected.0.starts_with('d') {
            assert_eq!(tls > 0, expected.1 > 0, "{level:?} {starttls:?}");
        } else {
            assert!(server.messages().is_empty());
        }
    }
}

#[tokio::test]
async fn verified_by_the_names_of_the_table() {
    // The certificate is for localhost.
    for (level, names, outcome) in [
        (Level::Verify, &[][..], "d250"),
        (Level::Secure, &[], "t454"),
        (Level::Secure, &["localhost"], "d250"),
        (Level::Verify, &["nexthop"], "t454"),
    ] {
        let server = Server::start(script(StartTls::Works)).await;
        let mut config = at(&server, level, names).await;
        config.tls_ca_file = Some(server.ca_file.clone());
        assert_eq!(
            sent(&server, config).await.0,
            outcome,
            "{level:?} {names:?}"
        );
    }
}

#[tokio::test]
async fn requiretls_needs_exchangers_that_are_proved() {
    let server = Server::start(Script {
        extensions: vec!["REQUIRETLS"],
        ..script(StartTls::Works)
    })
    .await;
    let mut config = at(&server, Level::Auto, &[]).await;
    config.tls_ca_file = Some(server.ca_file.clone());
    let mut message = job(&["a@t.example"], BODY.as_bytes()).await;
    message.require_tls = true;
    let relayed = client(config.clone())
        .deliver(&message, "t.example", None)
        .await;
    let (kind, status) = statuses(&relayed)[0];
    assert_eq!((kind, status.enhanced), ('p', Enhanced(5, 7, 30)));
    assert!(status.text.contains("proves"), "{}", status.text);
    assert!(!relayed.destination_down, "other mail may go there");
    // Our own table names the certificate: then MX may say what it likes.
    let entry = config.tls.destination.get_mut("t.example").unwrap();
    entry.policy = Some(Level::Secure);
    entry.names = Some(vec!["localhost".to_owned()]);
    let relayed = client(config).deliver(&message, "t.example", None).await;
    assert_eq!(summary(&relayed), "d250");
}

#[tokio::test]
async fn name_servers_without_signatures() {
    for (dnssec, outcome) in [
        // Seen at the root zone: mail goes on as without DNSSEC, ...
        (Dnssec::Auto, "d250"),
        // ... unless that is not to be.
        (Dnssec::Require, "t451"),
    ] {
        let server = Server::start(script(StartTls::Works)).await;
        let mut config = at(&server, Level::Auto, &[]).await;
        config.tls.dnssec = dnssec;
        let message = job(&["a@t.example"], BODY.as_bytes()).await;
        let relayed = client(config).deliver(&message, "t.example", None).await;
        assert_eq!(summary(&relayed), outcome, "{dnssec:?} {relayed:?}");
    }
}
