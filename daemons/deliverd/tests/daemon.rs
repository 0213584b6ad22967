//! The program itself, sandbox and all: called as queued calls it, with an authd and a stored of the test beside it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use ipc::api::authd::{Resolution, ResolveRecipient, Target};
use ipc::api::deliverd::{Deliver, Delivered, LocalRecipient};
use ipc::api::stored;
use ipc::{Client, ClientOptions, Router, ServerOptions, Users};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use types::{AccountId, Body, MailboxId, ModSeq, Notify, Outcome, QueueId, Role, TraceId, Uid};

/// Ends with the test.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(router: Router, role: Role, run: &Path, stop: &watch::Receiver<bool>) {
    let socket = runtime::socket_path(run, role);
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let listener = tokio::net::UnixListener::bind(socket).unwrap();
    tokio::spawn(router.serve(
        listener,
        Users::Single,
        ServerOptions::default(),
        stop.clone(),
    ));
}

/// Every address is an account, the other one than the letter says elsewhere.
fn authd() -> Router {
    Router::new(Role::Authd).on(|_, request: ResolveRecipient| async move {
        let account = Target::Account {
            account: AccountId(7),
            name: request.address,
            detail: None,
            quota_bytes: 0,
            quota_messages: 0,
        };
        Ok(Resolution::Local(vec![account]))
    })
}

/// Shows what it was given: the call, and the body.
fn stored(seen: mpsc::Sender<(stored::Deliver, Vec<u8>)>) -> Router {
    Router::new(Role::Stored).on(move |mut context: ipc::Context, call: stored::Deliver| {
        let seen = seen.clone();
        async move {
            let body = match (&call.message.body, context.descriptors.pop()) {
                (Body::Inline(octets), None) => octets.0.clone(),
                (Body::Attached { len }, Some(descriptor)) => {
                    let mut body = vec![0; usize::try_from(*len).unwrap()];
                    std::fs::File::from(descriptor)
                        .read_exact_at(&mut body, 0)
                        .unwrap();
                    body
                }
                other => panic!("{other:?}"),
            };
            let done = stored::Stored {
                mailbox: MailboxId(1),
                uid: Uid(1),
                modseq: ModSeq(1),
                duplicate: false,
            };
            let results = call.targets.iter().map(|_| Ok(done)).collect();
            seen.send((call, body)).await.unwrap();
            Ok(results)
        }
    })
}

fn deliver(body: Body) -> Deliver {
    Deliver {
        id: QueueId(1),
        trace: TraceId(2),
        arrived: 1_700_000_000,
        sender: None,
        ret: None,
        envid: None,
        recipients: vec![LocalRecipient {
            index: 4,
            address: "you@us.example".parse().unwrap(),
            orcpt: None,
            notify: Notify::default(),
        }],
        prefix: b"Received: by us\r\n".to_vec().into(),
        body,
        ours: false,
        by: None,
        let_in: false,
    }
}

fn assert_delivered(delivered: &Delivered) {
    assert!(
        matches!(delivered.outcomes.as_slice(), [(4, Outcome::Done(_))]),
        "{delivered:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_delivers() {
    let home = tempfile::tempdir().unwrap();
    let run = home.path().join("run");
    std::fs::create_dir_all(&run).unwrap();
    let (_stop, stopping) = watch::channel(false);
    let (sender, mut seen) = mpsc::channel(8);
    serve(authd(), Role::Authd, &run, &stopping);
    serve(stored(sender), Role::Stored, &run, &stopping);
    let config = home.path().join("posthouse.toml");
    let state = home.path().join("state");
    std::fs::create_dir_all(state.join("store/blobs/tmp")).unwrap();
    // As stored makes it: deliverd reads scripts there. It stays open, so that a reader finds it.
    let url = store::Config::default().url(&state.join("store"));
    let database = sql::Db::open(&url, &sql::Options::writer()).await.unwrap();
    sql::migrate(&database, store::COMPONENT, store::MIGRATIONS)
        .await
        .unwrap();
    let text = format!("[suite]\nstate_dir = {state:?}\nrun_dir = {run:?}\nusers = \"single\"\n");
    std::fs::write(&config, text).unwrap();
    let program = env!("CARGO_BIN_EXE_deliverd");
    let _daemon = Daemon(
        Command::new(program)
            .arg("--config")
            .arg(&config)
            .spawn()
            .unwrap(),
    );
    let socket = runtime::socket_path(&run, Role::Deliverd);
    let queued = Client::new(
        Role::Queued,
        Role::Deliverd,
        socket,
        ClientOptions::default(),
    );
    assert!(queued.ready(Duration::from_secs(20)).await);

    let body = b"From: me@there.example\r\nSubject: test\r\n\r\nhello\r\n";
    let inline = deliver(Body::Inline(body.to_vec().into()));
    assert_delivered(&queued.call(TraceId(2), &inline).await.unwrap());
    let (call, given) = seen.recv().await.unwrap();
    assert_eq!(given, body);
    let prefix = "Return-Path: <>\r\nDelivered-To: you@us.example\r\nReceived: by us\r\n";
    assert_eq!(call.targets[0].prefix.as_slice(), prefix.as_bytes());
    assert_eq!(
        message::Parsed::decode(&call.message.parsed)
            .unwrap()
            .base_subject,
        "TEST"
    );

    let path = home.path().join("body");
    std::fs::write(&path, [&body[..], b"not the body"].concat()).unwrap();
    let file = OwnedFd::from(std::fs::File::open(&path).unwrap());
    let attached = deliver(Body::Attached {
        len: body.len() as u64,
    });
    let (delivered, _) = queued
        .call_with(TraceId(2), &attached, vec![file], Duration::from_secs(20))
        .await
        .unwrap();
    assert_delivered(&delivered);
    let (call, given) = seen.recv().await.unwrap();
    assert_eq!(
        (given.as_slice(), call.message.body.len()),
        (&body[..], body.len() as u64)
    );
    assert_eq!(
        message::Parsed::decode(&call.message.parsed).unwrap().size,
        body.len() as u64
    );
}
