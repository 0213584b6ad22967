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

/// Serves MacVerify slowly: each call waits for a word.
fn held(word: &Arc<tokio::sync::Semaphore>) -> Router {
    let word = Arc::clone(word);
    Router::new(Role::Keyd).on(move |_, request: keyd::MacVerify| {
        let word = Arc::clone(&word);
        async move {
            word.acquire().await.unwrap().forget();
            Ok(request.data.is_empty())
        }
    })
}

#[tokio::test]
async fn calls_under_way_are_answered_before_a_server_ends() {
    let socket = Socket::new("drain");
    let word = Arc::new(tokio::sync::Semaphore::new(0));
    let (stop, task) = socket.serve(held(&word));
    let client = socket.client(Role::Stored, Role::Keyd);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let client = client.clone();
        calls.spawn(async move { client.call(TraceId(1), &question(&[1; 30_000])).await });
    }
    assert!(client.ready(Duration::from_secs(5)).await);
    // One answer shows that the server has the calls; those behind it are in the same socket.
    word.add_permits(1);
    assert!(!calls.join_next().await.unwrap().unwrap().unwrap());
    stop.send(true).unwrap();
    word.add_permits(1000);
    task.await.unwrap();
    let mut answered = 1;
    // What was not read before the end waits for the next server.
    let (_stop, _task) = socket.serve(held(&word));
    while let Some(call) = calls.join_next().await {
        assert!(!call.unwrap().unwrap());
        answered += 1;
    }
    assert_eq!(answered, 200);
}

#[tokio::test]
async fn a_caller_that_does_not_wait_gets_a_timeout_and_the_next_call_works() {
    let socket = Socket::new("timeout");
    let word = Arc::new(tokio::sync::Semaphore::new(0));
    let (_stop, _task) = socket.serve(held(&word));
    let client = socket.client(Role::Stored, Role::Keyd);
    let late = client
        .call_with(
            TraceId(1),
            &question(b""),
            vec![],
            Duration::from_millis(30),
        )
        .await;
    assert!(matches!(late, Err(CallError::Timeout(Role::Keyd))));
    word.add_permits(2);
    assert!(client.call(TraceId(1), &question(b"")).await.unwrap());
}

#[tokio::test]
async fn what_may_not_be_done_twice_is_lost_and_not_repeated() {
    let socket = Socket::new("lost");
    let calls = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&calls);
    let router = Router::new(Role::Queued).on(move |_, _: queued::OpenSpool| {
        seen.fetch_add(1, Ordering::Relaxed);
        std::future::pending::<Result<_, Fault>>()
    });
    let (_stop, task) = socket.serve(router);
    let client = socket.client(Role::Smtpd, Role::Queued);
    let call = tokio::spawn({
        let client = client.clone();
        async move {
            client
                .call(TraceId(1), &queued::OpenSpool { expected: 1 })
                .await
        }
    });
    while calls.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    task.abort();
    assert!(matches!(
        call.await.unwrap(),
        Err(CallError::Lost(Role::Queued))
    ));
}

#[tokio::test]
async fn a_call_that_breaks_each_connection_is_given_up() {
    let socket = Socket::new("poison");
    let listener = UnixListener::bind(&socket.0).unwrap();
    let seen = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&seen);
    // Each connection is served until the call is there, and ends then.
    tokio::spawn(async move {
        loop {
            let word = Arc::new(tokio::sync::Semaphore::new(0));
            let (stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("ipc-{}-poison-in", std::process::id()));
            let _ = std::fs::remove_file(&path);
            let inner = UnixListener::bind(&path).unwrap();
            let (_stop, stopping) = watch::channel(false);
            let server = tokio::spawn(held(&word).serve(
                inner,
                Users::Single,
                ServerOptions::default(),
                stopping,
            ));
            let mut behind = tokio::net::UnixStream::connect(&path).await.unwrap();
            let mut front = stream;
            // Hello both ways, the call, and then nothing comes back: cut it off.
            let copy = tokio::io::copy_bidirectional(&mut front, &mut behind);
            let _ = tokio::time::timeout(Duration::from_millis(20), copy).await;
            server.abort();
            let _ = std::fs::remove_file(path);
        }
    });
    let client = socket.client(Role::Stored, Role::Keyd);
    let given_up = client.call(TraceId(1), &question(b"")).await;
    assert!(
        matches!(given_up, Err(CallError::Lost(Role::Keyd))),
        "{given_up:?}"
    );
    assert!(seen.load(Ordering::Relaxed) >= 8);
}

#[tokio::test]
async fn too_many_descriptors_are_an_error_of_their_call() {
    let socket = Socket::new("five");
    let (_stop, _task) = socket.serve(verifier(Arc::default()));
    let client = socket.client(Role::Stored, Role::Keyd);
    let five = (0..5).map(|_| std::fs::File::open("/dev/null").unwrap().into());
    let refused = client
        .call_with(
            TraceId(1),
            &question(b""),
            five.collect(),
            Duration::from_secs(5),
        )
        .await;
    assert!(matches!(refused, Err(CallError::Protocol(..))));
    assert!(client.call(TraceId(1), &question(b"yes")).await.unwrap());
}

#[tokio::test]
async fn a_peer_that_reads_too_slowly_hears_that_events_were_dropped() {
    let socket = Socket::new("dropped");
    let router =
        Router::new(Role::Stored).on(|context: ipc::Context, _: stored::Subscribe| async move {
            // No await in between: the writer has no turn, so most of these find no room.
            for modseq in 0..20_000 {
                let changed = stored::Changed {
                    account: types::AccountId(7),
                    modseq: types::ModSeq(modseq),
                    mailboxes: vec![],
                };
                context.connection.notify(&changed);
            }
            Ok(())
        });
    let (_stop, _task) = socket.serve(router);
    let client = socket.client(Role::Imapd, Role::Stored);
    let mut events = client.events::<stored::Changed>();
    assert_eq!(events.next().await, Some(Heard::Resync));
    client.call(TraceId(1), &stored::Subscribe).await.unwrap();
    let mut heard = 0;
    while matches!(events.next().await, Some(Heard::Event(_))) {
        heard += 1;
    }
    assert!(heard < 20_000);
}

#[tokio::test]
async fn a_role_is_the_user_it_runs_as() {
    let socket = Socket::new("users");
    let listener = UnixListener::bind(&socket.0).unwrap();
    let (_stop, stopping) = watch::channel(false);
    let me = rustix::process::geteuid().as_raw();
    let users = [(Role::Stored, me + 1), (Role::Queued, me)];
    tokio::spawn(verifier(Arc::default()).serve(
        listener,
        Users::Separate(users.into()),
        ServerOptions::default(),
        stopping,
    ));
    let liar = socket.client(Role::Stored, Role::Keyd);
    let honest = socket.client(Role::Queued, Role::Keyd);
    assert!(honest.call(TraceId(1), &question(b"yes")).await.unwrap());
    assert!(!liar.ready(Duration::from_millis(100)).await);
    let tool = socket.client(Role::Posthouse, Role::Keyd);
    assert_eq!(tool.ready(Duration::from_millis(100)).await, me == 0);
}

#[tokio::test]
async fn octets_that_are_no_frames_end_their_connection_only() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let socket = Socket::new("noise");
    let (_stop, _task) = socket.serve(verifier(Arc::default()));
    for noise in [
        &b"GET / HTTP/1.1\r\n\r\n GET / HTTP/1.1\r\n"[..],
        &[0; 64],
        &[255; 64],
    ] {
        let mut stream = tokio::net::UnixStream::connect(&socket.0).await.unwrap();
        stream.write_all(noise).await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    }
    let client = socket.client(Role::Stored, Role::Keyd);
    assert!(client.call(TraceId(1), &question(b"yes")).await.unwrap());
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
