//! stored over its socket, with a keyd that knows one seal.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use ipc::api::keyd::MacVerify;
use ipc::api::stored::{
    AppendMessage, Changed, CloseUpload, Deliver, DeliverTarget, FlagChange, Mutate, Mutated,
    Mutation, MutationResult, NewMessage, OpenUpload, Provision, StoreStatus, Subscribe,
};
use ipc::{CallError, Client, ClientOptions, FaultKind, Heard, Router, ServerOptions, Users};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use store::{ContentBody, Reader};
use stored::{Config, Service};
use tokio::net::UnixListener;
use tokio::sync::watch;
use types::{AccountId, Body, Grant, MailboxId, QueueId, RequestId, Rights, Role, TraceId, Uid};

const SEAL: [u8; 32] = [7; 32];

struct Suite {
    home: PathBuf,
    store: store::Config,
    verified: Arc<AtomicUsize>,
    _keyd_stop: watch::Sender<bool>,
    _directory: tempfile::TempDir,
}

struct Running {
    service: Service,
    stop: watch::Sender<bool>,
    served: tokio::task::JoinHandle<()>,
}

impl Suite {
    fn new(url: Option<String>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().to_owned();
        let verified = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&verified);
        let keyd = Router::new(Role::Keyd).on(move |_, call: MacVerify| {
            counter.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Ok(
                call.purpose == Grant::PURPOSE && call.mac.as_slice() == SEAL
            ))
        });
        let listener = UnixListener::bind(home.join("keyd.sock")).unwrap();
        let (stop, stopping) = watch::channel(false);
        tokio::spawn(keyd.serve(listener, Users::Single, ServerOptions::default(), stopping));
        Self {
            home,
            store: store::Config {
                url,
                timeout_seconds: 2,
                ..store::Config::default()
            },
            verified,
            _keyd_stop: stop,
            _directory: directory,
        }
    }

    async fn start(&self) -> Running {
        let config = Config {
            collect_seconds: 1,
            ..Config::default()
        };
        let keyd = Client::new(
            Role::Stored,
            Role::Keyd,
            self.home.join("keyd.sock"),
            ClientOptions::default(),
        );
        let service = Service::open(
            config,
            &self.store,
            &blob::Config::default(),
            &self.home,
            keyd,
        )
        .await
        .unwrap();
        let path = self.home.join("stored.sock");
        if path.exists() {
            std::fs::remove_file(&path).unwrap();
        }
        let listener = UnixListener::bind(path).unwrap();
        let (stop, stopping) = watch::channel(false);
        let served = tokio::spawn(service.router().serve(
            listener,
            Users::Single,
            ServerOptions::default(),
            stopping,
        ));
        Running {
            service,
            stop,
            served,
        }
    }

    fn client(&self, role: Role) -> Client {
        Client::new(
            role,
            Role::Stored,
            self.home.join("stored.sock"),
            ClientOptions::default(),
        )
    }

    async fn reader(&self) -> Reader {
        let begun = std::time::Instant::now();
        loop {
            match Reader::open(&self.store, &blob::Config::default(), &self.home).await {
                Ok(reader) => return reader,
                Err(error) => assert!(error.is_temporary(), "{error}"),
            }
            assert!(begun.elapsed() < Duration::from_secs(60));
        }
    }
}

impl Running {
    async fn end(self) {
        self.stop.send_replace(true);
        self.served.await.unwrap();
        self.service.finish().await;
    }
}

fn grant(account: u64) -> Grant {
    Grant {
        account: AccountId(account),
        name: format!("user{account}@example.org"),
        groups: Vec::new(),
        rights: Rights::ALL,
        expires: u64::MAX / 4,
        quota_bytes: 0,
        quota_messages: 0,
        mac: SEAL.to_vec().into(),
    }
}

fn octets(text: &str) -> Vec<u8> {
    format!("Message-ID: <{text}@x>\r\nSubject: {text}\r\n\r\n{text}\r\n").into_bytes()
}

fn message(octets: &[u8], body: Body) -> NewMessage {
    NewMessage {
        parsed: message::parse(b"", octets, &message::Limits::default())
            .encode()
            .into(),
        body,
        date: 1000,
    }
}

fn inline(text: &str) -> NewMessage {
    let octets = octets(text);
    message(&octets, Body::Inline(octets.clone().into()))
}

fn target(account: u64, mailbox: &str) -> DeliverTarget {
    DeliverTarget {
        recipient: 0,
        account: AccountId(account),
        quota_bytes: 0,
        quota_messages: 0,
        mailbox: mailbox.to_owned(),
        create: false,
        flags: Vec::new(),
        prefix: b"Return-Path: <>\r\n".to_vec().into(),
    }
}

fn delivery(id: u64, text: &str, targets: Vec<DeliverTarget>) -> Deliver {
    Deliver {
        id: QueueId(id),
        message: inline(text),
        targets,
    }
}

async fn mutate(client: &Client, request: u128, mutation: Mutation) -> Result<Mutated, CallError> {
    let call = Mutate {
        request: RequestId(request),
        grant: grant(1),
        account: AccountId(1),
        mutation,
    };
    client.call(TraceId(1), &call).await
}

fn kind<T: std::fmt::Debug>(result: Result<T, CallError>) -> FaultKind {
    result.unwrap_err().fault().unwrap().kind
}

async fn inbox(reader: &Reader) -> store::Mailbox {
    reader
        .mailbox_named(AccountId(1), "inbox")
        .await
        .unwrap()
        .unwrap()
}

async fn whole(reader: &Reader, mailbox: MailboxId, uid: u32) -> store::Content {
    let mut rows = Vec::new();
    reader
        .messages(AccountId(1), mailbox, types::Uid(1), |row| rows.push(row))
        .await
        .unwrap()
        .unwrap();
    let row = rows.iter().find(|row| row.uid.0 == uid).unwrap();
    reader
        .whole(AccountId(1), row.content)
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_and_changes_are_done_once_and_told() {
    for test in sql::testing::databases().await.unwrap() {
        eprintln!("on {}", test.name);
        let suite = Suite::new(Some(test.url.clone()));
        let running = suite.start().await;
        let deliverd = suite.client(Role::Deliverd);
        let imapd = suite.client(Role::Imapd);
        let mut events = imapd.events::<Changed>();
        imapd.call(TraceId(1), &Subscribe).await.unwrap();

        let call = delivery(
            5,
            "first",
            vec![target(1, ""), target(2, "Junk"), target(1, "")],
        );
        let results = deliverd.call(TraceId(1), &call).await.unwrap();
        assert_eq!(results.len(), 3);
        let first = *results[0].as_ref().unwrap();
        assert!(!first.duplicate);
        assert!(results[2].as_ref().unwrap().duplicate);
        let again = deliverd.call(TraceId(1), &call).await.unwrap();
        assert!(
            again
                .iter()
                .all(|result| result.as_ref().unwrap().duplicate)
        );
        assert_eq!(again[0].as_ref().unwrap().uid, first.uid);

        let reader = suite.reader().await;
        let mailbox = inbox(&reader).await;
        assert_eq!((mailbox.total, mailbox.unseen), (1, 1));
        let content = whole(&reader, mailbox.id, first.uid.0).await;
        assert_eq!(content.body, ContentBody::Octets(octets("first")));
        assert_eq!(content.prefix, b"Return-Path: <>\r\n");
        let heard = loop {
            match events.next().await.unwrap() {
                Heard::Event(changed) if changed.account == AccountId(1) => break changed,
                _ => {}
            }
        };
        assert_eq!(heard.modseq, first.modseq);

        let append = Mutation::Append {
            mailbox: mailbox.id,
            messages: vec![AppendMessage {
                flags: vec!["\\Seen".to_owned()],
                message: inline("second"),
            }],
            replaces: None,
        };
        let done = mutate(&imapd, 1, append.clone()).await.unwrap();
        assert_eq!(mutate(&imapd, 1, append).await.unwrap(), done);
        let MutationResult::Appended { uids, .. } = done.result else {
            panic!("{done:?}")
        };
        assert_eq!(uids, [types::Uid(2)]);
        let deleted = Mutation::Flags {
            mailbox: mailbox.id,
            uids: vec![(1, 1)],
            change: FlagChange::Add,
            flags: vec!["\\Deleted".to_owned()],
            unchanged_since: None,
        };
        mutate(&imapd, 2, deleted).await.unwrap();
        let expunge = Mutation::Expunge {
            mailbox: mailbox.id,
            uids: None,
        };
        let gone = mutate(&imapd, 3, expunge.clone()).await.unwrap();
        assert_eq!(gone.result, MutationResult::Expunged(vec![(1, 1)]));
        assert_eq!(mutate(&imapd, 3, expunge).await.unwrap(), gone);
        assert_eq!(inbox(&reader).await.total, 1);
        let nowhere = Mutation::MailboxDelete {
            mailbox: MailboxId(12345),
        };
        assert_eq!(kind(mutate(&imapd, 4, nowhere).await), FaultKind::NotFound);
        let figures = suite
            .client(Role::Posthouse)
            .call(TraceId(1), &StoreStatus)
            .await
            .unwrap();
        assert_eq!((figures.accounts, figures.messages), (2, 2));
        assert_eq!(figures.database, test.name);
        // All that needed a grant asked keyd once.
        assert_eq!(suite.verified.load(Ordering::Relaxed), 1);
        running.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_is_needed_for_every_change() {
    let suite = Suite::new(None);
    let running = suite.start().await;
    let imapd = suite.client(Role::Imapd);
    let call = |grant: Grant| Provision { grant };
    imapd.call(TraceId(1), &call(grant(1))).await.unwrap();
    let forged = Grant {
        mac: vec![0; 32].into(),
        ..grant(1)
    };
    assert_eq!(
        kind(imapd.call(TraceId(1), &call(forged)).await),
        FaultKind::Denied
    );
    let expired = Grant {
        expires: 5,
        ..grant(1)
    };
    assert_eq!(
        kind(imapd.call(TraceId(1), &call(expired)).await),
        FaultKind::Denied
    );
    let reading = Mutate {
        request: RequestId(1),
        grant: Grant {
            rights: Rights::READ,
            ..grant(1)
        },
        account: AccountId(1),
        mutation: Mutation::Subscribe {
            name: "x".to_owned(),
            subscribed: true,
        },
    };
    assert_eq!(
        kind(imapd.call(TraceId(1), &reading).await),
        FaultKind::Denied
    );
    // Another account's mailbox is nowhere.
    let reader = suite.reader().await;
    let mailbox = inbox(&reader).await.id;
    imapd.call(TraceId(1), &call(grant(2))).await.unwrap();
    let foreign = Mutate {
        request: RequestId(2),
        grant: grant(2),
        account: AccountId(2),
        mutation: Mutation::Expunge {
            mailbox,
            uids: None,
        },
    };
    assert_eq!(
        kind(imapd.call(TraceId(1), &foreign).await),
        FaultKind::NotFound
    );
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_go_through_files_and_are_collected() {
    let suite = Suite::new(None);
    let running = suite.start().await;
    let imapd = suite.client(Role::Imapd);
    let deliverd = suite.client(Role::Deliverd);
    imapd
        .call(TraceId(1), &Provision { grant: grant(1) })
        .await
        .unwrap();
    let reader = suite.reader().await;
    let mailbox = inbox(&reader).await.id;
    let mut large = octets("large");
    large.extend((0..300_000u32).flat_map(|n| format!("{n}\r\n").into_bytes()));
    let len = large.len() as u64;

    let open = OpenUpload {
        grant: grant(1),
        account: AccountId(1),
        expected: len,
    };
    let (slot, files) = imapd
        .call_with(TraceId(1), &open, Vec::new(), Duration::from_secs(10))
        .await
        .unwrap();
    let mut file = std::fs::File::from(files.into_iter().next().unwrap());
    std::io::Write::write_all(&mut file, &large).unwrap();
    let append = |message| Mutation::Append {
        mailbox,
        messages: vec![AppendMessage {
            flags: Vec::new(),
            message,
        }],
        replaces: None,
    };
    let call = append(message(&large, Body::Slot { slot, len }));
    let done = mutate(&imapd, 1, call.clone()).await.unwrap();
    // Sent again after the connection was lost: there is no such upload, but an answer.
    let other = suite.client(Role::Imapd);
    assert_eq!(mutate(&other, 1, call.clone()).await.unwrap(), done);
    assert_eq!(kind(mutate(&other, 2, call).await), FaultKind::Temporary);
    // A full account may still upload what goes to another one.
    let mut full = open.clone();
    full.grant.quota_bytes = 10;
    assert_eq!(
        kind(other.call(TraceId(1), &full).await),
        FaultKind::OverQuota
    );
    full.account = AccountId(2);
    other.call(TraceId(1), &full).await.unwrap();
    // Given back by somebody else, it stays; given back by its own connection, it is gone.
    let (slot, files) = imapd
        .call_with(TraceId(1), &open, Vec::new(), Duration::from_secs(10))
        .await
        .unwrap();
    let mut file = std::fs::File::from(files.into_iter().next().unwrap());
    std::io::Write::write_all(&mut file, &large).unwrap();
    let close = CloseUpload { slot };
    other.call(TraceId(1), &close).await.unwrap();
    let call = append(message(&large, Body::Slot { slot, len }));
    let done = mutate(&imapd, 3, call).await.unwrap();
    let MutationResult::Appended { uids, .. } = done.result else {
        panic!("{done:?}");
    };
    assert_eq!(uids, [Uid(2)]);
    let (slot, _) = imapd
        .call_with(TraceId(1), &open, Vec::new(), Duration::from_secs(10))
        .await
        .unwrap();
    let close = CloseUpload { slot };
    imapd.call(TraceId(1), &close).await.unwrap();
    imapd.call(TraceId(1), &close).await.unwrap();
    let call = append(message(&large, Body::Slot { slot, len }));
    assert_eq!(kind(mutate(&imapd, 4, call).await), FaultKind::Temporary);
    assert_eq!(
        whole(&reader, mailbox, 1).await.body,
        ContentBody::Octets(large.clone())
    );

    // The same body by descriptor, to another account: stored once.
    let path = suite.home.join("body");
    std::fs::write(&path, &large).unwrap();
    let call = Deliver {
        id: QueueId(9),
        message: message(&large, Body::Attached { len }),
        targets: vec![target(1, "Archive")],
    };
    let file = std::fs::File::open(&path).unwrap();
    let (results, _) = deliverd
        .call_with(
            TraceId(1),
            &call,
            vec![file.into()],
            Duration::from_secs(10),
        )
        .await
        .unwrap();
    let archived = *results[0].as_ref().unwrap();
    assert_eq!(objects(&suite.home), 1);

    for (request, mailbox) in [(10, mailbox), (20, archived.mailbox)] {
        let deleted = Mutation::Flags {
            mailbox,
            uids: vec![(1, u32::MAX)],
            change: FlagChange::Add,
            flags: vec!["\\Deleted".to_owned()],
            unchanged_since: None,
        };
        mutate(&imapd, request, deleted).await.unwrap();
        let expunge = Mutation::Expunge {
            mailbox,
            uids: None,
        };
        mutate(&imapd, request + 1, expunge).await.unwrap();
    }
    until(|| objects(&suite.home) == 0).await;
    running.end().await;
}

/// Bodies in the directory.
fn objects(home: &Path) -> usize {
    fn count(directory: &Path) -> usize {
        let Ok(entries) = std::fs::read_dir(directory) else {
            return 0;
        };
        entries
            .flatten()
            .map(|entry| match entry.file_type() {
                Ok(kind) if kind.is_dir() => count(&entry.path()),
                _ => 1,
            })
            .sum()
    }
    count(&home.join("blobs"))
}

async fn until(mut condition: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !condition() {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "it does not happen"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_hold_and_one_bad_change_does_not_spoil_the_others() {
    let suite = Suite::new(None);
    let running = suite.start().await;
    let deliverd = suite.client(Role::Deliverd);
    let calls = (0..50u64).map(|n| {
        let mut to = target(1 + n % 5, "INBOX");
        if n % 5 == 0 {
            to.quota_messages = 3;
        }
        if n % 5 == 1 {
            to.flags = vec!["\\Nonsense".to_owned()];
        }
        delivery(n, &format!("m{n}"), vec![to])
    });
    let mut tasks = tokio::task::JoinSet::new();
    for (n, call) in calls.enumerate() {
        let deliverd = deliverd.clone();
        tasks.spawn(async move { (n, deliverd.call(TraceId(1), &call).await.unwrap()) });
    }
    let (mut done, mut full, mut bad) = (0, 0, 0);
    while let Some(result) = tasks.join_next().await {
        let (n, results) = result.unwrap();
        match &results[0] {
            Ok(_) => done += 1,
            Err(fault) if fault.kind == FaultKind::OverQuota => {
                assert_eq!(n % 5, 0);
                full += 1;
            }
            Err(fault) => {
                assert_eq!((n % 5, fault.kind), (1, FaultKind::Invalid));
                bad += 1;
            }
        }
    }
    assert_eq!((done, full, bad), (33, 7, 10));
    let reader = suite.reader().await;
    assert_eq!(inbox(&reader).await.total, 3);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let suite = Suite::new(None);
    let running = suite.start().await;
    let deliverd = suite.client(Role::Deliverd);
    let call = delivery(1, "kept", vec![target(1, "INBOX")]);
    let first = deliverd.call(TraceId(1), &call).await.unwrap();
    running.end().await;
    let running = suite.start().await;
    let again = deliverd.call(TraceId(1), &call).await.unwrap();
    assert!(again[0].as_ref().unwrap().duplicate);
    assert_eq!(
        again[0].as_ref().unwrap().uid,
        first[0].as_ref().unwrap().uid
    );
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_goes_away_comes_back() {
    use sql::testing::{Server, ServerKind};
    use std::os::unix::fs::PermissionsExt;
    for kind in [ServerKind::Postgres, ServerKind::MySql] {
        let home = tempfile::tempdir().unwrap();
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let Some(mut server) = Server::start(kind, &home.path().join("server")).unwrap() else {
            eprintln!("SKIPPED: {} is not installed", kind.name());
            continue;
        };
        let admin = sql::Db::open(&server.url(), &sql::Options::default())
            .await
            .unwrap();
        admin
            .execute("CREATE DATABASE mail", Vec::new())
            .await
            .unwrap();
        admin.close().await;
        let url = match kind {
            ServerKind::Postgres => server.url().replace("/postgres?", "/mail?"),
            ServerKind::MySql => server.url().replace("/mysql?", "/mail?"),
        };
        // It starts while the server is away.
        server.stop().unwrap();
        let suite = Suite::new(Some(url));
        let running = suite.start().await;
        let deliverd = suite.client(Role::Deliverd);
        let away = deliverd
            .call(TraceId(1), &delivery(1, "one", vec![target(1, "")]))
            .await;
        assert!(away.unwrap_err().is_temporary());
        for round in 0..2u64 {
            server.resume().unwrap();
            let begun = std::time::Instant::now();
            loop {
                let call = delivery(round, "one", vec![target(1, "")]);
                match deliverd.call(TraceId(1), &call).await {
                    Ok(results) => break assert!(results[0].is_ok()),
                    Err(error) => assert!(error.is_temporary(), "{error}"),
                }
                assert!(begun.elapsed() < Duration::from_secs(60));
            }
            server.stop().unwrap();
            let call = delivery(100 + round, "two", vec![target(1, "")]);
            let away = deliverd.call(TraceId(1), &call).await;
            assert!(away.unwrap_err().is_temporary());
        }
        server.resume().unwrap();
        let reader = suite.reader().await;
        assert_eq!(inbox(&reader).await.total, 2);
        running.end().await;
    }
}
