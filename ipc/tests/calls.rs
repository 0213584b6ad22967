//! Calls over real sockets: answers, descriptors, refusals, lost connections.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use ipc::api::{keyd, queued, stored};
use ipc::{
    CallError, Client, ClientOptions, Fault, FaultKind, Heard, Router, ServerOptions, Users,
    blocking,
};
use std::io::{Read, Seek, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::watch;
use types::{Octets, Role, TraceId};

struct Socket(PathBuf);

impl Socket {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ipc-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        Self(path)
    }

    fn serve(&self, router: Router) -> (watch::Sender<bool>, tokio::task::JoinHandle<()>) {
        let _ = std::fs::remove_file(&self.0);
        let listener = UnixListener::bind(&self.0).unwrap();
        let (stop, stopping) = watch::channel(false);
        let task =
            tokio::spawn(router.serve(listener, Users::Single, ServerOptions::default(), stopping));
        (stop, task)
    }

    fn client(&self, caller: Role, server: Role) -> Client {
        Client::new(caller, server, &self.0, ClientOptions::default())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn verifier(calls: Arc<AtomicU32>) -> Router {
    Router::new(Role::Keyd).on(move |_, request: keyd::MacVerify| {
        calls.fetch_add(1, Ordering::Relaxed);
        async move { Ok(request.mac == request.data) }
    })
}

fn question(data: &[u8]) -> keyd::MacVerify {
    keyd::MacVerify {
        purpose: "test".into(),
        data: data.into(),
        mac: Octets(b"yes".to_vec()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_are_answered_each_with_its_own_answer() {
    let socket = Socket::new("many");
    let (_stop, _task) = socket.serve(verifier(Arc::default()));
    let client = socket.client(Role::Stored, Role::Keyd);
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..2000 {
        let client = client.clone();
        calls.spawn(async move {
            let expected = n % 3 == 0;
            let data = if expected {
                b"yes".to_vec()
            } else {
                vec![7; n * 40]
            };
            assert_eq!(
                client
                    .call(TraceId(n as u64), &question(&data))
                    .await
                    .unwrap(),
                expected
            );
        });
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn a_descriptor_travels_with_the_reply_and_with_the_call() {
    let socket = Socket::new("descriptor");
    let router = Router::new(Role::Queued).on(
        |context: ipc::Context, request: queued::OpenSpool| async move {
            let path = std::env::temp_dir().join(format!("ipc-{}-spool", std::process::id()));
            let file = std::fs::File::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&path)
                .unwrap();
            std::fs::remove_file(path).unwrap();
            context.attach(file.into());
            Ok(queued::SpoolSlot {
                slot: request.expected + 1,
            })
        },
    );
    let (_stop, _task) = socket.serve(router);
    let client = socket.client(Role::Smtpd, Role::Queued);
    let request = queued::OpenSpool { expected: 41 };
    let (slot, mut files) = client
        .call_with(TraceId(1), &request, Vec::new(), Duration::from_secs(5))
        .await
        .unwrap();
    assert_eq!((slot.slot, files.len()), (42, 1));
    let mut file = std::fs::File::from(files.remove(0));
    file.write_all(b"body").unwrap();
    file.rewind().unwrap();
    let mut back = String::new();
    file.read_to_string(&mut back).unwrap();
    assert_eq!(back, "body");
}

#[tokio::test]
async fn who_may_not_call_is_told_so() {
    let socket = Socket::new("denied");
    let (_stop, _task) = socket.serve(verifier(Arc::default()));
    // queued may verify, authd may connect but only seal, smtpd's hello is fine but the operation is not its own.
    let client = socket.client(Role::Authd, Role::Keyd);
    match client.call(TraceId(1), &question(b"x")).await {
        Err(CallError::Fault(fault)) => assert_eq!(fault.kind, FaultKind::Denied),
        other => panic!("{other:?}"),
    }
    // deliverd may not call keyd at all: it never gets a connection.
    let client = socket.client(Role::Deliverd, Role::Keyd);
    assert!(!client.ready(Duration::from_millis(300)).await);
}

#[tokio::test]
async fn what_may_be_done_twice_survives_a_server_that_dies() {
    let socket = Socket::new("restart");
    let calls = Arc::new(AtomicU32::new(0));
    let client = socket.client(Role::Stored, Role::Keyd);
    // Nobody serves yet: the call waits.
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.call(TraceId(1), &question(b"yes")).await }
    });
    // The first server takes the call and never answers.
    let stuck = Router::new(Role::Keyd)
        .on(|_, _: keyd::MacVerify| std::future::pending::<Result<bool, Fault>>());
    let (stop, task) = socket.serve(stuck);
    assert!(client.ready(Duration::from_secs(5)).await);
    task.abort();
    let _ = task.await;
    drop(stop);
    let (_stop, _task) = socket.serve(verifier(Arc::clone(&calls)));
    assert!(waiting.await.unwrap().unwrap());
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn events_come_and_a_new_connection_says_so() {
    let socket = Socket::new("events");
    let router = || {
        Router::new(Role::Stored).on(|context: ipc::Context, _: stored::Subscribe| async move {
            let changed = stored::Changed {
                account: types::AccountId(7),
                modseq: types::ModSeq(9),
                mailboxes: vec![],
            };
            assert!(context.connection.notify(&changed));
            Ok(())
        })
    };
    let client = socket.client(Role::Imapd, Role::Stored);
    let mut events = client.events::<stored::Changed>();
    for _ in 0..2 {
        let (stop, task) = socket.serve(router());
        assert_eq!(events.next().await, Some(Heard::Resync));
        client.call(TraceId(1), &stored::Subscribe).await.unwrap();
        match events.next().await {
            Some(Heard::Event(changed)) => assert_eq!(changed.account.0, 7),
            other => panic!("{other:?}"),
        }
        stop.send(true).unwrap();
        task.await.unwrap();
    }
}

#[tokio::test]
async fn a_handler_that_panics_ends_its_call_only() {
    let socket = Socket::new("panic");
    let router = Router::new(Role::Keyd).on(|_, request: keyd::MacVerify| async move {
        assert!(request.data.is_empty(), "as wanted");
        Ok(true)
    });
    let (_stop, _task) = socket.serve(router);
    let client = socket.client(Role::Queued, Role::Keyd);
    let failed = client.call(TraceId(1), &question(b"x")).await.unwrap_err();
    assert_eq!(failed.fault().unwrap().kind, FaultKind::Internal);
    assert!(client.call(TraceId(1), &question(b"")).await.unwrap());
}

#[tokio::test]
async fn a_payload_over_the_limit_is_an_error_of_its_call() {
    let socket = Socket::new("long");
    let (_stop, _task) = socket.serve(verifier(Arc::default()));
    let client = socket.client(Role::Stored, Role::Keyd);
    let too_long = question(&vec![0; ipc::frame::MAX_PAYLOAD + 1]);
    assert!(matches!(
        client.call(TraceId(1), &too_long).await,
        Err(CallError::Protocol(..))
    ));
    assert!(client.call(TraceId(1), &question(b"yes")).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_blocking_client_calls_and_calls_again() {
    let socket = Socket::new("blocking");
    let (stop, task) = socket.serve(verifier(Arc::default()));
    let client = Arc::new(blocking::Client::new(Role::Stored, Role::Keyd, &socket.0));
    let call = |client: Arc<blocking::Client>| {
        tokio::task::spawn_blocking(move || client.call(TraceId(1), &question(b"yes")))
    };
    assert!(call(Arc::clone(&client)).await.unwrap().unwrap());
    stop.send(true).unwrap();
    task.await.unwrap();
    let (_stop, _task) = socket.serve(verifier(Arc::default()));
    assert!(call(client).await.unwrap().unwrap());
}

/// Not a test but a measurement: `cargo test --release -p ipc --test calls -- --ignored --nocapture cost`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn cost_of_a_call() {
    let socket = Socket::new("cost");
    let (_stop, _task) = socket.serve(verifier(Arc::default()));
    let client = socket.client(Role::Stored, Role::Keyd);
    let cpu = || {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let mut fields = stat.rsplit(')').next().unwrap().split_whitespace().skip(11);
        let mut next = || fields.next().unwrap().parse::<u64>().unwrap();
        next() + next()
    };
    for size in [20, 2000] {
        let (before, began) = (cpu(), std::time::Instant::now());
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..32 {
            let client = client.clone();
            calls.spawn(async move {
                for _ in 0..3000 {
                    client
                        .call(TraceId(1), &question(&vec![1; size]))
                        .await
                        .unwrap();
                }
            });
        }
        while calls.join_next().await.is_some() {}
        let us = (cpu() - before) as f64 * 10_000.0 / 96_000.0;
        println!(
            "{size} octets: {us:.1} us CPU a call, {:.0} calls/s",
            96_000.0 / began.elapsed().as_secs_f64()
        );
    }
}
