//! One host, all that it can say.

use super::server::{Script, Server, StartTls};
use super::{BODY, client, config, job, statuses, summary};
use crate::config::{Config, EightBit, Protocol, RouteConfig, TlsMode};
use ipc::api::relayd::Relayed;
use runtime::Source;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use types::{BodyType, Enhanced, Notify, Ret};

fn route(server: &Server, tls: TlsMode) -> RouteConfig {
    RouteConfig {
        pattern: "*".to_owned(),
        host: "localhost".to_owned(),
        port: Some(server.address.port()),
        tls,
        ..RouteConfig::default()
    }
}

/// A configuration in which everything goes to this server. Its name needs no DNS.
fn to(server: &Server) -> Config {
    let mut route = route(server, TlsMode::Opportunistic);
    route.host = "127.0.0.1".to_owned();
    Config {
        route: vec![route],
        ..config()
    }
}

async fn deliver(script: Script, recipients: &[&str]) -> (Relayed, Server) {
    let server = Server::start(script).await;
    let relayed = client(to(&server))
        .deliver(
            &job(recipients, BODY.as_bytes()).await,
            "there.example",
            None,
        )
        .await;
    (relayed, server)
}

fn replies(replies: &[(&'static str, &'static str)]) -> Script {
    Script {
        replies: replies.to_vec(),
        ..Script::default()
    }
}

#[tokio::test]
async fn a_message_arrives_as_it_was() {
    let (relayed, server) =
        deliver(Script::default(), &["a@there.example", "b@there.example"]).await;
    assert_eq!(summary(&relayed), "d250 d250");
    assert_eq!(statuses(&relayed)[0].1.text, "queued as 1");
    assert_eq!(server.messages(), [format!("Received: by us\r\n{BODY}")]);
    let size = BODY.len() + "Received: by us\r\n".len();
    assert_eq!(
        server.commands(),
        [
            "EHLO us.example".to_owned(),
            format!("MAIL FROM:<me@us.example> SIZE={size}"),
            "RCPT TO:<a@there.example>".to_owned(),
            "RCPT TO:<b@there.example>".to_owned(),
            "DATA".to_owned(),
        ]
    );
    assert!(!relayed.destination_down && !relayed.dsn_passed);
}

#[tokio::test]
async fn without_pipelining_it_goes_step_by_step() {
    let script = Script {
        extensions: vec!["SIZE"],
        ..replies(&[("RCPT TO:<b", "550 5.1.1 nobody")])
    };
    let (relayed, server) = deliver(script, &["a@there.example", "b@there.example"]).await;
    assert_eq!(summary(&relayed), "d250 p550");
    assert_eq!(server.messages().len(), 1);
}

#[tokio::test]
async fn helo_is_said_where_ehlo_is_not_known() {
    let (relayed, server) = deliver(replies(&[("EHLO", "502 what?")]), &["a@there.example"]).await;
    assert_eq!(summary(&relayed), "d250");
    assert_eq!(
        server.commands()[1..3],
        ["HELO us.example", "MAIL FROM:<me@us.example>"]
    );
}

#[tokio::test]
async fn each_recipient_has_its_own_outcome() {
    let script = replies(&[
        ("RCPT TO:<temp", "450 4.2.1 later"),
        ("RCPT TO:<perm", "550-5.1.1 no\r\n550 5.1.1 such user"),
        ("RCPT TO:<many", "552 too many recipients"),
        ("RCPT TO:<full", "552 5.2.2 mailbox full"),
    ]);
    let to = [
        "ok@t.example",
        "temp@t.example",
        "perm@t.example",
        "many@t.example",
        "full@t.example",
    ];
    let (relayed, server) = deliver(script, &to).await;
    assert_eq!(summary(&relayed), "d250 t450 p550 t452 p552");
    let status = statuses(&relayed)[2].1;
    assert_eq!(
        (status.enhanced, status.text.as_str()),
        (Enhanced(5, 1, 1), "no such user")
    );
    assert_eq!(
        status.host,
        Some(format!("127.0.0.1[127.0.0.1]:{}", server.address.port()))
    );
    assert_eq!(server.messages().len(), 1);
}

#[tokio::test]
async fn refusals_at_each_step() {
    for (script, outcome) in [
        (replies(&[("MAIL", "451 4.3.0 not now")]), "t451 t451"),
        (replies(&[("MAIL", "553 5.1.8 not you")]), "p553 p553"),
        (replies(&[("RCPT", "550 no")]), "p550 p550"),
        (replies(&[("DATA", "554 5.5.0 no")]), "p554 p554"),
        (replies(&[("DATA", "451 4.5.0 later")]), "t451 t451"),
        (replies(&[("DATA", "250 what")]), "t250 t250"),
        (replies(&[("MESSAGE", "554 5.7.1 spam")]), "p554 p554"),
        (replies(&[("MESSAGE", "452 4.3.1 full")]), "t452 t452"),
        (replies(&[("CONNECT", "554 5.3.2 closed")]), "p554 p554"),
        (replies(&[("CONNECT", "421 4.3.2 busy")]), "t421 t421"),
        (replies(&[("CONNECT", "drop")]), "t421 t421"),
        (replies(&[("CONNECT", "HTTP/1.1 400")]), "t421 t421"),
        (replies(&[("EHLO", "451 later")]), "t451 t451"),
        (replies(&[("MAIL", "421 4.3.2 shutting down")]), "t421 t421"),
        (replies(&[("RCPT", "drop")]), "t421 t421"),
        (replies(&[("DATA", "drop")]), "t421 t421"),
        (replies(&[("BODY", "drop")]), "t421 t421"),
        (replies(&[("MESSAGE", "drop")]), "t421 t421"),
    ] {
        for pipelining in [true, false] {
            let mut script = script.clone();
            if !pipelining {
                script.extensions = vec!["8BITMIME"];
            }
            let text = format!("{:?}", script.replies);
            let (relayed, server) = deliver(script, &["a@t.example", "b@t.example"]).await;
            assert_eq!(summary(&relayed), outcome, "{text} pipelining {pipelining}");
            let refused = text.contains("MESSAGE\", \"5") || text.contains("MESSAGE\", \"4");
            assert_eq!(server.messages().len(), usize::from(refused), "{text}");
        }
    }
}

#[tokio::test]
async fn what_was_decided_before_the_connection_broke_stays() {
    let script = replies(&[("RCPT TO:<a", "550 5.1.1 no"), ("BODY", "drop")]);
    let (relayed, _) = deliver(script, &["a@t.example", "b@t.example"]).await;
    assert_eq!(summary(&relayed), "p550 t421");
}

#[tokio::test]
async fn data_accepted_for_nobody_is_ended() {
    let (relayed, server) = deliver(
        replies(&[("RCPT", "550 no"), ("DATA", "354 go on")]),
        &["a@t.example"],
    )
    .await;
    assert_eq!(summary(&relayed), "p550");
    assert_eq!(server.messages(), [""]);
}

#[tokio::test]
async fn nobody_listens() {
    let server = Server::start(Script::default()).await;
    let mut config = to(&server);
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    config.route[0].port = Some(closed.port());
    let relayed = client(config)
        .deliver(&job(&["a@t.example"], b"x").await, "t.example", None)
        .await;
    assert_eq!(summary(&relayed), "t421");
    assert_eq!(statuses(&relayed)[0].1.enhanced, Enhanced(4, 4, 1));
    assert!(relayed.destination_down);
}

#[tokio::test]
async fn opportunistic_tls_falls_back() {
    for (starttls, secured, connections) in [
        (StartTls::NotOffered, 0, 1),
        (StartTls::Works, 1, 1),
        (StartTls::Refused, 0, 1),
        (StartTls::Broken, 0, 2),
    ] {
        let refused = if starttls == StartTls::Refused {
            vec![("STARTTLS", "454 4.7.0 not now")]
        } else {
            Vec::new()
        };
        let script = Script {
            starttls,
            ..replies(&refused)
        };
        let (relayed, server) = deliver(script, &["a@t.example"]).await;
        assert_eq!(summary(&relayed), "d250");
        let seen = server.seen.lock().unwrap();
        assert_eq!((seen.tls, seen.connections), (secured, connections));
        assert_eq!(relayed.host.unwrap().ends_with("TLSv1.3"), secured == 1);
    }
}

#[tokio::test]
async fn required_tls_does_not_fall_back() {
    for starttls in [StartTls::NotOffered, StartTls::Refused, StartTls::Broken] {
        let refused = if starttls == StartTls::Refused {
            vec![("STARTTLS", "454 4.7.0 not now")]
        } else {
            Vec::new()
        };
        let server = Server::start(Script {
            starttls,
            ..replies(&refused)
        })
        .await;
        let mut config = to(&server);
        config.route[0].tls = TlsMode::Required;
        let relayed = client(config)
            .deliver(&job(&["a@t.example"], b"x").await, "t.example", None)
            .await;
        assert!(summary(&relayed).starts_with('t'), "{}", summary(&relayed));
        assert!(server.messages().is_empty());
    }
}

#[tokio::test]
async fn certificates_are_verified_where_a_route_asks() {
    for (tls, implicit) in [(TlsMode::Required, false), (TlsMode::Implicit, true)] {
        let starttls = if implicit {
            StartTls::NotOffered
        } else {
            StartTls::Works
        };
        let server = Server::start(Script {
            starttls,
            implicit,
            ..Script::default()
        })
        .await;
        // "localhost" is in /etc/hosts.
        let mut config = Config {
            route: vec![route(&server, tls)],
            ..config()
        };
        config.addresses = crate::config::AddressOrder::Ipv4Only;
        let message = job(&["a@t.example"], b"x").await;
        let untrusted = client(config.clone())
            .deliver(&message, "t.example", None)
            .await;
        assert!(summary(&untrusted).starts_with('t'));
        assert!(
            statuses(&untrusted)[0].1.text.contains("certificate"),
            "{untrusted:?}"
        );
        config.tls_ca_file = Some(server.ca_file.clone());
        let trusted = client(config.clone())
            .deliver(&message, "t.example", None)
            .await;
        assert_eq!(summary(&trusted), "d250");
        config.route[0].host = "127.0.0.1".to_owned();
        let other_name = client(config.clone())
            .deliver(&message, "t.example", None)
            .await;
        assert!(summary(&other_name).starts_with('t'));
        config.route[0].verify = Some(false);
        let unverified = client(config).deliver(&message, "t.example", None).await;
        assert_eq!(summary(&unverified), "d250");
    }
}

#[tokio::test]
async fn smart_hosts_are_logged_in_to() {
    let password =
        std::env::temp_dir().join(format!("posthouse-relayd-password-{}", std::process::id()));
    std::fs::write(&password, "secret\nsecond line\n").unwrap();
    for (offer, expected) in [
        ("AUTH PLAIN LOGIN", vec!["AUTH PLAIN AG1lAHNlY3JldA=="]),
        ("AUTH LOGIN", vec!["AUTH LOGIN", "bWU=", "c2VjcmV0"]),
    ] {
        let script = Script {
            extensions: vec!["PIPELINING", offer],
            starttls: StartTls::Works,
            ..replies(&[
                ("AUTH LOGIN", "334 VXNlcm5hbWU6"),
                ("bWU=", "334 UGFzc3dvcmQ6"),
                ("c2VjcmV0", "235 fine"),
            ])
        };
        let server = Server::start(script).await;
        let mut config = to(&server);
        config.route[0].username = Some("me".to_owned());
        config.route[0].password_file = Some(password.clone());
        let relayed = client(config)
            .deliver(&job(&["a@t.example"], b"x").await, "t.example", None)
            .await;
        assert_eq!(summary(&relayed), "d250");
        let commands = server.commands();
        assert_eq!(
            commands[3..3 + expected.len()],
            expected,
            "after EHLO, STARTTLS, EHLO"
        );
    }
    // Not in the clear, and a refusal does not bounce the mail.
    for (script, code) in [
        (
            Script {
                extensions: vec!["AUTH PLAIN"],
                ..Script::default()
            },
            "t451",
        ),
        (
            Script {
                extensions: vec!["AUTH PLAIN"],
                starttls: StartTls::Works,
                ..replies(&[("AUTH", "535 5.7.8 no")])
            },
            "t454",
        ),
    ] {
        let server = Server::start(script).await;
        let mut config = to(&server);
        config.route[0].username = Some("me".to_owned());
        config.route[0].password_file = Some(password.clone());
        let relayed = client(config)
            .deliver(&job(&["a@t.example"], b"x").await, "t.example", None)
            .await;
        assert_eq!(summary(&relayed), code);
        assert!(!format!("{relayed:?}").contains("secret"));
    }
    std::fs::remove_file(password).unwrap();
}

#[tokio::test]
async fn lmtp_answers_for_each_recipient() {
    let server = Server::start(Script {
        lmtp: true,
        ..Script::default()
    })
    .await;
    let mut config = to(&server);
    config.route[0].protocol = Protocol::Lmtp;
    let to = ["a@t.example", "b@t.example", "c@t.example"];
    let relayed = client(config)
        .deliver(&job(&to, b"x").await, "t.example", None)
        .await;
    assert_eq!(summary(&relayed), "d250 t452 d250");
    assert_eq!(server.commands()[0], "LHLO us.example");
}

#[tokio::test]
async fn extensions_are_used_and_missed() {
    let everything = vec![
        "PIPELINING",
        "8BITMIME",
        "SMTPUTF8",
        "DSN",
        "SIZE 1000",
        "CHUNKING",
        "BINARYMIME",
    ];
    let mut message = job(&["jörg@t.example"], "Subject: ä\r\n\r\nä\r\n".as_bytes()).await;
    message.smtputf8 = true;
    message.body_type = BodyType::EightBit;
    message.ret = Some(Ret::Headers);
    message.envid = Some("id+1".to_owned());
    message.recipients[0].orcpt = Some("rfc822;old@t.example".to_owned());
    message.recipients[0].notify = Notify {
        success: true,
        failure: true,
        delay: false,
        explicit: true,
    };
    let server = Server::start(Script {
        extensions: everything.clone(),
        ..Script::default()
    })
    .await;
    let relayed = client(to(&server))
        .deliver(&message, "t.example", None)
        .await;
    assert_eq!(summary(&relayed), "d250");
    assert!(relayed.dsn_passed);
    let commands = server.commands();
    assert_eq!(
        commands[1],
        "MAIL FROM:<me@us.example> SIZE=36 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=id+2B1"
    );
    assert_eq!(
        commands[2],
        "RCPT TO:<jörg@t.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;old@t.example"
    );
    // Not offered.
    let plain = Server::start(Script {
        extensions: vec!["8BITMIME"],
        ..Script::default()
    })
    .await;
    let relayed = client(to(&plain))
        .deliver(&message, "t.example", None)
        .await;
    assert_eq!(
        (summary(&relayed), statuses(&relayed)[0].1.enhanced),
        ("p550".to_owned(), Enhanced(5, 6, 7))
    );
    let mut eight = job(&["a@t.example"], "Subject: x\r\n\r\nä\r\n".as_bytes()).await;
    eight.body_type = BodyType::EightBit;
    let seven = Server::start(Script {
        extensions: vec![],
        ..Script::default()
    })
    .await;
    let mut config = to(&seven);
    assert_eq!(
        summary(
            &client(config.clone())
                .deliver(&eight, "t.example", None)
                .await
        ),
        "d250"
    );
    config.eight_bit = EightBit::Bounce;
    let relayed = client(config).deliver(&eight, "t.example", None).await;
    assert_eq!(
        (summary(&relayed), statuses(&relayed)[0].1.enhanced),
        ("p554".to_owned(), Enhanced(5, 6, 3))
    );
    // Too large.
    let large = job(&["a@t.example"], &b"line\r\n".repeat(1000)).await;
    let relayed = client(to(&server)).deliver(&large, "t.example", None).await;
    assert_eq!(
        (summary(&relayed), statuses(&relayed)[0].1.enhanced),
        ("p552".to_owned(), Enhanced(5, 3, 4))
    );
    // Binary.
    let mut binary = job(&["a@t.example"], b"X: y\r\n\r\n.\r\n\x00\xff\n.").await;
    binary.body_type = BodyType::Binary;
    let relayed = client(to(&server))
        .deliver(&binary, "t.example", None)
        .await;
    assert_eq!(summary(&relayed), "d250");
    assert_eq!(
        server.seen.lock().unwrap().messages[1],
        b"Received: by us\r\nX: y\r\n\r\n.\r\n\x00\xff\n."
    );
    let relayed = client(to(&seven)).deliver(&binary, "t.example", None).await;
    assert_eq!(summary(&relayed), "p554");
    // REQUIRETLS.
    let mut secret = job(&["a@t.example"], b"x").await;
    secret.require_tls = true;
    let relayed = client(to(&server))
        .deliver(&secret, "t.example", None)
        .await;
    assert_eq!(
        (summary(&relayed), statuses(&relayed)[0].1.enhanced),
        ("p550".to_owned(), Enhanced(5, 7, 10)),
        "no TLS at all"
    );
    assert!(!relayed.destination_down, "other mail may go there");
    let tls = Server::start(Script {
        starttls: StartTls::Works,
        ..Script::default()
    })
    .await;
    let mut config = Config {
        route: vec![route(&tls, TlsMode::Opportunistic)],
        addresses: crate::config::AddressOrder::Ipv4Only,
        ..config_with(&tls)
    };
    let relayed = client(config.clone())
        .deliver(&secret, "t.example", None)
        .await;
    assert_eq!(
        (summary(&relayed), statuses(&relayed)[0].1.enhanced),
        ("p550".to_owned(), Enhanced(5, 7, 30))
    );
    let both = Server::start(Script {
        starttls: StartTls::Works,
        extensions: vec!["REQUIRETLS"],
        ..Script::default()
    })
    .await;
    config.route = vec![route(&both, TlsMode::Opportunistic)];
    config.tls_ca_file = Some(both.ca_file.clone());
    assert_eq!(
        summary(&client(config).deliver(&secret, "t.example", None).await),
        "d250"
    );
    assert!(
        both.commands()
            .iter()
            .any(|command| command.contains("REQUIRETLS"))
    );
}

fn config_with(server: &Server) -> Config {
    Config {
        tls_ca_file: Some(server.ca_file.clone()),
        ..config()
    }
}

#[tokio::test]
async fn connections_are_used_again() {
    for extensions in [vec![], vec!["PIPELINING"]] {
        used_again(extensions).await;
    }
}

async fn used_again(extensions: Vec<&'static str>) {
    let server = Server::start(Script {
        extensions,
        ..Script::default()
    })
    .await;
    let mut config = to(&server);
    config.messages_per_connection = 3;
    config.idle_timeout = 60;
    let client = client(config);
    for _ in 0..5 {
        assert_eq!(
            summary(
                &client
                    .deliver(&job(&["a@t.example"], b"x").await, "t.example", None)
                    .await
            ),
            "d250"
        );
    }
    assert_eq!(server.seen.lock().unwrap().connections, 2);
    assert_eq!(
        server
            .commands()
            .iter()
            .filter(|command| *command == "RSET")
            .count(),
        3
    );
    client.close_all().await;
    assert_eq!(
        server
            .commands()
            .iter()
            .filter(|command| *command == "QUIT")
            .count(),
        2
    );
}

#[tokio::test]
async fn a_kept_connection_that_died_does_no_harm() {
    for extensions in [vec![], vec!["PIPELINING"]] {
        for answer in ["drop", "500 what?", "421 too long"] {
            died(extensions.clone(), answer).await;
        }
    }
}

async fn died(extensions: Vec<&'static str>, answer: &'static str) {
    let server = Server::start(Script {
        extensions,
        ..replies(&[("RSET", answer)])
    })
    .await;
    let mut config = to(&server);
    config.idle_timeout = 60;
    let client = client(config);
    for _ in 0..3 {
        assert_eq!(
            summary(
                &client
                    .deliver(&job(&["a@t.example"], b"x").await, "t.example", None)
                    .await
            ),
            "d250"
        );
    }
    assert_eq!(server.messages().len(), 3);
}

#[tokio::test]
async fn a_large_body_comes_from_its_file() {
    let path = std::env::temp_dir().join(format!("posthouse-relayd-body-{}", std::process::id()));
    let body = b"Subject: x\r\n\r\n"
        .iter()
        .copied()
        .chain(b".line of text\r\n".repeat(20_000))
        .collect::<Vec<_>>();
    std::fs::write(&path, [&body[..], b"behind"].concat()).unwrap();
    let server = Server::start(Script {
        extensions: vec!["PIPELINING"],
        ..Script::default()
    })
    .await;
    let mut message = job(&["a@t.example"], b"").await;
    let file = std::fs::File::open(&path).unwrap();
    file.read_at(&mut [0; 1], 0).unwrap();
    message.content.body = Source::File {
        file: Arc::new(file),
        start: 0,
        len: body.len() as u64,
    };
    assert_eq!(
        summary(
            &client(to(&server))
                .deliver(&message, "t.example", None)
                .await
        ),
        "d250"
    );
    assert_eq!(
        server.seen.lock().unwrap().messages[0],
        [b"Received: by us\r\n", &body[..]].concat()
    );
    std::fs::remove_file(path).unwrap();
}

#[tokio::test]
async fn recipients_are_divided_where_the_host_says_so() {
    let server = Server::start(Script {
        extensions: vec!["PIPELINING", "LIMITS RCPTMAX=2"],
        ..Script::default()
    })
    .await;
    let to_all = ["a@t.example", "b@t.example", "c@t.example"];
    let relayed = client(to(&server))
        .deliver(&job(&to_all, b"x").await, "t.example", None)
        .await;
    assert_eq!(summary(&relayed), "d250 d250 d250");
    assert_eq!(server.messages().len(), 2);
}

#[tokio::test]
async fn an_operators_route_comes_first() {
    let server = Server::start(Script::default()).await;
    let mut config = to(&server);
    config.route[0].pattern = "other.example".to_owned();
    config.route[0].name = Some("named".to_owned());
    let client = client(config);
    let message = job(&["a@t.example"], b"x").await;
    for route in [
        "named".to_owned(),
        format!("127.0.0.1:{}", server.address.port()),
    ] {
        assert_eq!(
            summary(&client.deliver(&message, "t.example", Some(&route)).await),
            "d250"
        );
    }
    assert_eq!(
        summary(&client.deliver(&message, "t.example", Some("missing")).await),
        "t451"
    );
}
