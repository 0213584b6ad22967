//! The program itself, sandbox and all: called as queued calls it, with a keyd and a mail server of the test beside it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use ipc::api::keyd::{DkimAlgorithm, DkimKey, DkimKeys, DkimSign};
use ipc::api::relayd::{Relay, RelayRecipient, Relayed};
use ipc::{Client, ClientOptions, Router, ServerOptions, Users};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::mpsc;
use std::time::Duration;
use tokio::sync::watch;
use types::{Body, BodyType, Notify, Outcome, QueueId, Role, TraceId};

/// Ends with the test.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Takes one message after the other and hands it out as it came over the line.
fn mail_server() -> (u16, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, messages) = mpsc::sync_channel(8);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let sender = sender.clone();
            std::thread::spawn(move || {
                stream.write_all(b"220 ready\r\n").unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap());
                let mut line = String::new();
                while lines.read_line(&mut line).unwrap_or(0) > 0 {
                    let reply = match line.get(..4).unwrap_or_default() {
                        "DATA" => {
                            stream.write_all(b"354 go on\r\n").unwrap();
                            let mut message = String::new();
                            while !message.ends_with("\r\n.\r\n") {
                                lines.read_line(&mut message).unwrap();
                            }
                            sender.send(message).unwrap();
                            "250 2.0.0 taken\r\n"
                        }
                        "QUIT" => "221 bye\r\n",
                        _ => "250 fine\r\n",
                    };
                    stream.write_all(reply.as_bytes()).unwrap();
                    line.clear();
                }
            });
        }
    });
    (port, messages)
}

/// A keyd whose signatures are no signatures, but show that it was asked.
fn keyd(run: &Path, stop: watch::Receiver<bool>) {
    let socket = runtime::socket_path(run, Role::Keyd);
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let listener = tokio::net::UnixListener::bind(socket).unwrap();
    let router = Router::new(Role::Keyd)
        .on(|_, keys: DkimKeys| async move {
            let key = DkimKey {
                state: ipc::api::keyd::DkimState::Active,
                domain: keys.domain,
                selector: "one".to_owned(),
                algorithm: DkimAlgorithm::Rsa2048,
                record: String::new(),
            };
            Ok(vec![key])
        })
        .on(|_, sign: DkimSign| async move {
            let text = String::from_utf8(sign.data.0).unwrap();
            assert!(
                text.starts_with("subject:test\r\nfrom:me@us.example\r\n"),
                "{text}"
            );
            Ok(b"signed by keyd".to_vec().into())
        });
    tokio::spawn(router.serve(listener, Users::Single, ServerOptions::default(), stop));
}

fn relay(body: Body) -> Relay {
    Relay {
        id: QueueId(1),
        trace: TraceId(2),
        domain: "there.example".to_owned(),
        route: None,
        sender: Some("me@us.example".parse().unwrap()),
        ret: None,
        envid: None,
        body_type: BodyType::SevenBit,
        smtputf8: false,
        require_tls: false,
        recipients: vec![RelayRecipient {
            index: 4,
            address: "you@there.example".parse().unwrap(),
            orcpt: None,
            notify: Notify::default(),
        }],
        sign: true,
        prefix: b"Received: by us\r\n".to_vec().into(),
        body,
        terms: types::Terms::default(),
        manner: ipc::api::relayd::Manner::default(),
        policy: None,
    }
}

async fn call(queued: &Client, relay: &Relay, descriptors: Vec<OwnedFd>) -> Relayed {
    let (relayed, _) = queued
        .call_with(TraceId(2), relay, descriptors, Duration::from_secs(20))
        .await
        .unwrap();
    relayed
}

fn assert_sent(relayed: &Relayed) {
    let [(4, Outcome::Done(status))] = relayed.outcomes.as_slice() else {
        panic!("{relayed:?}")
    };
    assert_eq!(status.text, "taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_signs_and_sends() {
    let home = tempfile::tempdir().unwrap();
    let run = home.path().join("run");
    let (port, messages) = mail_server();
    let (_stop, stopping) = watch::channel(false);
    std::fs::create_dir_all(&run).unwrap();
    keyd(&run, stopping);
    let config = home.path().join("posthouse.toml");
    let text = format!(
        "[suite]\nhostname = \"us.example\"\nstate_dir = {:?}\nrun_dir = {run:?}\nusers = \"single\"\n\
         [[relayd.route]]\nmatch = \"there.example\"\nhost = \"127.0.0.1\"\nport = {port}\n",
        home.path().join("state"),
    );
    std::fs::write(&config, text).unwrap();
    let program = env!("CARGO_BIN_EXE_relayd");
    let _daemon = Daemon(
        Command::new(program)
            .arg("--config")
            .arg(&config)
            .spawn()
            .unwrap(),
    );
    let socket = runtime::socket_path(&run, Role::Relayd);
    let queued = Client::new(Role::Queued, Role::Relayd, socket, ClientOptions::default());
    assert!(queued.ready(Duration::from_secs(20)).await);

    let body = b"From: me@us.example\r\nSubject: test\r\n\r\nhello\r\n";
    assert_sent(
        &call(
            &queued,
            &relay(Body::Inline(body.to_vec().into())),
            Vec::new(),
        )
        .await,
    );
    let message = messages.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(
        message.starts_with("DKIM-Signature: v=1; a=rsa-sha256; s=one; d=us.example;"),
        "{message}"
    );
    let flat: String = message.split_whitespace().collect();
    assert!(flat.contains(";b=c2lnbmVkIGJ5IGtleWQ=;"), "{message}");
    assert!(message.ends_with(
        "Received: by us\r\nFrom: me@us.example\r\nSubject: test\r\n\r\nhello\r\n.\r\n"
    ));

    // A body by its descriptor, from a directory that the daemon may not open itself.
    let path = home.path().join("body");
    std::fs::write(&path, [&body[..], b"not the body"].concat()).unwrap();
    let file = OwnedFd::from(std::fs::File::open(&path).unwrap());
    let attached = Body::Attached {
        len: body.len() as u64,
    };
    assert_sent(&call(&queued, &relay(attached.clone()), vec![file]).await);
    assert!(
        messages
            .recv_timeout(Duration::from_secs(10))
            .unwrap()
            .ends_with("hello\r\n.\r\n")
    );
    let missing = queued.call(TraceId(2), &relay(attached)).await;
    assert!(missing.unwrap_err().fault().is_some());
}
