//! queued's core as a process that is killed with -9 at random moments, under load: nothing that it acknowledged is lost.
//!
//! The child plays the listeners, deliverd and relayd. What deliverd and relayd took stands in a file, a line each, written
//! before they answer. Some recipients fail at first, some for ever, so that the queue table, reports and the spool have
//! their part.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use async_trait::async_trait;
use ipc::Fault;
use ipc::api::deliverd::{Deliver, Delivered};
use ipc::api::queued::{Commit, Origin, QueueFilter, Right};
use ipc::api::relayd::{Relay, Relayed};
use queued::{Config, Core, Peers};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use types::{
    Body, BodyType, Enhanced, Envelope, Grant, Notify, Outcome, Recipient, Role, Route, Status,
    Terms, TraceId,
};

const DIRECTORY: &str = "QUEUED_CRASH_TEST";
const DRAIN: &str = "QUEUED_CRASH_TEST_DRAIN";
const ROUNDS: usize = 12;
const LINES: usize = 16;

struct Fakes {
    log: File,
}

fn status(code: u16, enhanced: Enhanced) -> Status {
    Status {
        code,
        enhanced,
        text: "says the test".to_owned(),
        host: None,
    }
}

impl Fakes {
    /// One write, so that a line is whole or not there. Checks the body too.
    fn take(
        &self,
        kind: char,
        id: types::QueueId,
        to: &str,
        prefix: &[u8],
        body: &Body,
        file: &Option<File>,
    ) -> Outcome {
        if to.starts_with("never") {
            return Outcome::Permanent(status(550, Enhanced(5, 1, 1)));
        }
        if to.starts_with("late") && rand::random_range(0..3) > 0 {
            return Outcome::Temporary(status(451, Enhanced(4, 2, 0)));
        }
        match (body, file) {
            (Body::Inline(octets), None) => assert!(!octets.is_empty()),
            (Body::Attached { len }, Some(file)) => {
                assert_eq!(file.metadata().unwrap().len(), *len)
            }
            other => panic!("{other:?}"),
        }
        assert!(prefix.is_empty() || prefix == b"Received: x\r\n");
        (&self.log)
            .write_all(format!("{kind} {id} {to}\n").as_bytes())
            .unwrap();
        Outcome::Done(status(250, Enhanced(2, 0, 0)))
    }
}

#[async_trait]
impl Peers for Fakes {
    async fn deliver(&self, call: &Deliver, body: Option<File>) -> Result<Delivered, Fault> {
        let outcomes = call
            .recipients
            .iter()
            .map(|one| {
                let to = one.address.to_string();
                (
                    one.index,
                    self.take('L', call.id, &to, &call.prefix, &call.body, &body),
                )
            })
            .collect();
        Ok(Delivered {
            outcomes,
            follow_ups: Vec::new(),
        })
    }

    async fn relay(&self, call: &Relay, body: Option<File>) -> Result<Relayed, Fault> {
        let outcomes = call
            .recipients
            .iter()
            .map(|one| {
                let to = one.address.to_string();
                (
                    one.index,
                    self.take('R', call.id, &to, &call.prefix, &call.body, &body),
                )
            })
            .collect();
        Ok(Relayed {
            outcomes,
            dsn_passed: false,
            host: None,
            destination_down: false,
            by_passed: false,
            policy: None,
        })
    }

    async fn verify(&self, _: TraceId, _: &Grant) -> Result<bool, Fault> {
        Ok(true)
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap();
    out.flush().unwrap();
}

fn message(core: &Core, count: u64) -> Commit {
    let kinds: &[&str] = match count % 6 {
        0 => &["now", "late"],
        1 => &["never"],
        _ => &["now"],
    };
    let id = core.reserve(1).unwrap();
    let mut recipients = Vec::new();
    for kind in kinds {
        for (domain, route) in [
            ("example.org", Route::Local),
            ("example.net", Route::Remote),
        ] {
            recipients.push(Recipient {
                address: format!("{kind}-{id}@{domain}").parse().unwrap(),
                orcpt: None,
                notify: Notify::default(),
                route,
            });
        }
    }
    let body = if count.is_multiple_of(7) {
        let (slot, mut file) = core.open_spool(1, 1000).unwrap();
        file.write_all(&[b'x'; 100_000]).unwrap();
        Body::Slot { slot, len: 100_000 }
    } else {
        Body::Inline(format!("Subject: {id}\r\n\r\nText\r\n").into_bytes().into())
    };
    Commit {
        id,
        trace: TraceId(1),
        origin: Origin {
            right: Right::Operator,
            listener: "test".to_owned(),
            client: String::new(),
        },
        envelope: Envelope {
            sender: Some(format!("sender-{id}@example.org").parse().unwrap()),
            ret: None,
            envid: None,
            body: BodyType::SevenBit,
            smtputf8: false,
            require_tls: false,
            terms: Terms::default(),
            recipients,
        },
        prefix: b"Received: x\r\n".to_vec().into(),
        body,
        held: None,
    }
}

/// The process that is killed: says `+ID NEVER` for each message that is acknowledged, and with DRAIN `done` when all is out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(directory) = std::env::var(DIRECTORY) else {
        return;
    };
    let directory = Path::new(&directory);
    let log = File::options()
        .create(true)
        .append(true)
        .open(directory.join("taken"))
        .unwrap();
    let config = Config {
        min_free: 0,
        segment_size: 64 * 1024,
        retry_min: 0,
        retry_max: 0,
        local_retry_min: 0,
        local_concurrency: LINES,
        remote_concurrency: LINES,
        ..Config::default()
    };
    let core = Core::open(
        config,
        &directory.join("queue"),
        "mx.example.org",
        Arc::new(Fakes { log }),
    )
    .unwrap();
    core.start();
    if std::env::var(DRAIN).is_ok() {
        while !core
            .list(&QueueFilter::default(), None, 1)
            .await
            .unwrap()
            .is_empty()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Orphans go when the replay is over.
        let begin = Instant::now();
        let spool = directory.join("queue/spool");
        while std::fs::read_dir(&spool).unwrap().next().is_some()
            && begin.elapsed() < Duration::from_secs(10)
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        say("done");
        return;
    }
    let lines: Vec<_> = (0..LINES as u64)
        .map(|line| {
            let core = Arc::clone(&core);
            tokio::spawn(async move {
                for count in line.. {
                    let call = message(&core, count);
                    let id = call.id;
                    if core.commit(Role::Posthouse, 1, call).await.is_ok() {
                        say(&format!("+{id} {}", count % 6));
                    }
                }
            })
        })
        .collect();
    for line in lines {
        line.await.unwrap();
    }
}

fn spawn(directory: &Path, drain: bool) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped());
    if drain {
        command.env(DRAIN, "1");
    }
    command.spawn().unwrap()
}

#[test]
fn killed_at_any_moment_it_loses_nothing_that_it_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("queue")).unwrap();
    let mut acknowledged: BTreeMap<String, u64> = BTreeMap::new();
    for round in 0..ROUNDS {
        let mut child = spawn(directory.path(), false);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // A number of messages and a bit of time: the moment is another in each round.
        let enough = rand::random_range(1..250);
        let mut seen = 0;
        for line in lines.map_while(Result::ok) {
            if let Some((id, kind)) = line.strip_prefix('+').and_then(|rest| rest.split_once(' ')) {
                acknowledged.insert(id.to_owned(), kind.parse().unwrap());
                seen += 1;
                if seen == enough {
                    std::thread::sleep(Duration::from_micros(rand::random_range(0..20_000)));
                    child.kill().unwrap();
                }
            }
        }
        child.wait().unwrap();
        assert!(seen >= enough, "round {round}: the child ended by itself");
    }
    let begin = Instant::now();
    let mut child = spawn(directory.path(), true);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "done"), "not drained");
    child.wait().unwrap();
    eprintln!(
        "{} messages acknowledged, drained in {:?}",
        acknowledged.len(),
        begin.elapsed()
    );
    check(directory.path(), &acknowledged);
}

fn check(directory: &Path, acknowledged: &BTreeMap<String, u64>) {
    let log = std::fs::read_to_string(directory.join("taken")).unwrap();
    let mut taken: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut reported = BTreeSet::new();
    for line in log.lines() {
        let mut words = line.split(' ');
        let (kind, to) = (words.next().unwrap(), words.nth(1).unwrap());
        if let Some(rest) = to.strip_prefix("sender-") {
            reported.insert(rest.split('@').next().unwrap().to_owned());
        }
        *taken.entry((kind.to_owned(), to.to_owned())).or_default() += 1;
    }
    for (id, kind) in acknowledged {
        let expected: &[&str] = match kind {
            0 => &["now", "late"],
            1 => &[],
            _ => &["now"],
        };
        for name in expected {
            for (kind, domain) in [("L", "example.org"), ("R", "example.net")] {
                let key = (kind.to_owned(), format!("{name}-{id}@{domain}"));
                assert!(taken.contains_key(&key), "lost: {key:?}");
            }
        }
        if *kind == 1 {
            assert!(reported.contains(id), "no report on {id}");
        }
    }
    // What another host had taken when the process died may be sent again: at each death at most the attempts that are not settled, of which
    // queued has two for each connection (one under way, one that is being written down).
    let twice: usize = taken
        .iter()
        .filter(|((kind, _), _)| kind == "R")
        .map(|(_, count)| count - 1)
        .sum();
    eprintln!("{twice} relayed twice");
    assert!(twice <= ROUNDS * 2 * LINES, "{twice} relayed twice");
    let spool = std::fs::read_dir(directory.join("queue/spool"))
        .unwrap()
        .count();
    assert_eq!(spool, 0, "orphans in the spool");
}
