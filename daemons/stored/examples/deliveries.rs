//! How many small deliveries a second the store takes, durable, through its socket.
//!
//! `cargo run --release -p stored --example deliveries [URL|sqlite] [CONCURRENCY] [SECONDS] [ACCOUNTS]`
//! The directory is made below TMPDIR: set that to a disk that really syncs.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use ipc::api::stored::{Deliver, DeliverTarget, NewMessage};
use ipc::{Client, ClientOptions, ServerOptions, Users};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use types::{AccountId, Body, QueueId, Role, TraceId};

fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut args = std::env::args().skip(1);
    let url = args.next().filter(|url| url != "sqlite");
    let mut number = |default: u64| args.next().and_then(|n| n.parse().ok()).unwrap_or(default);
    let (concurrency, seconds, accounts) = (number(64), number(5), number(10));
    let home = tempfile::tempdir().unwrap();
    let keyd = Client::new(
        Role::Stored,
        Role::Keyd,
        home.path().join("none"),
        ClientOptions::default(),
    );
    let store = store::Config {
        url,
        ..store::Config::default()
    };
    let service = stored::Service::open(
        stored::Config::default(),
        &store,
        &blob::Config::default(),
        home.path(),
        keyd,
    )
    .await
    .unwrap();
    let path = home.path().join("stored.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let (_stop, stopping) = tokio::sync::watch::channel(false);
    tokio::spawn(service.router().serve(
        listener,
        Users::Single,
        ServerOptions::default(),
        stopping,
    ));
    let client = Client::new(
        Role::Deliverd,
        Role::Stored,
        &path,
        ClientOptions::default(),
    );
    let next = Arc::new(AtomicU64::new(1));
    let began = Instant::now();
    let cpu_before = cpu();
    let until = began + Duration::from_secs(seconds);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..concurrency {
        let (client, next) = (client.clone(), Arc::clone(&next));
        tasks.spawn(async move {
            let mut took = Vec::new();
            while Instant::now() < until {
                let id = next.fetch_add(1, Ordering::Relaxed);
                let octets = mail(id);
                let call = Deliver {
                    id: QueueId(id),
                    message: NewMessage {
                        parsed: message::parse(b"", &octets, &message::Limits::default())
                            .encode()
                            .into(),
                        body: Body::Inline(octets.into()),
                        date: 1_700_000_000,
                    },
                    targets: vec![DeliverTarget {
                        recipient: 0,
                        account: AccountId(1 + id % accounts),
                        quota_bytes: 0,
                        quota_messages: 0,
                        mailbox: String::new(),
                        create: false,
                        flags: Vec::new(),
                        prefix: b"Return-Path: <a@example.org>\r\nDelivered-To: b@example.org\r\n"
                            .to_vec()
                            .into(),
                    }],
                };
                let asked = Instant::now();
                let results = client.call(TraceId(id), &call).await.unwrap();
                assert!(results[0].is_ok());
                took.push(asked.elapsed());
            }
            took
        });
    }
    let mut took = Vec::new();
    while let Some(part) = tasks.join_next().await {
        took.extend(part.unwrap());
    }
    let wall = began.elapsed();
    let used = cpu() - cpu_before;
    took.sort_unstable();
    let count = took.len();
    let bytes: u64 = std::fs::read_dir(home.path())
        .unwrap()
        .flatten()
        .map(|entry| entry.metadata().map_or(0, |m| m.len()))
        .sum();
    println!(
        "{}: {count} deliveries in {wall:.1?}: {:.0}/s, {:.3} ms CPU each (client and parsing included), p50 {:?} p99 {:?}, {:.0} octets on disk each",
        service.database(),
        count as f64 / wall.as_secs_f64(),
        used.as_secs_f64() * 1000.0 / count as f64,
        took[count / 2],
        took[count * 99 / 100],
        bytes as f64 / count as f64,
    );
    println!(
        "{}",
        runtime::metrics::text()
            .lines()
            .filter(|l| l.contains("stored_c") && !l.contains("bucket") && !l.starts_with('#'))
            .collect::<Vec<_>>()
            .join("\n")
    );
}

/// About 2 KB, each different.
fn mail(id: u64) -> Vec<u8> {
    let mut text = format!(
        "From: Alice Example <alice@example.org>\r\nTo: Bob <bob@example.net>\r\nSubject: Report number {id}\r\nDate: Mon, 1 Jan 2024 10:00:00 +0000\r\nMessage-ID: <{id}.report@example.org>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
    );
    let mut n = id.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    while text.len() < 2000 {
        n ^= n << 13;
        n ^= n >> 7;
        n ^= n << 17;
        text.push_str(&format!("{n:x} is what line said then\r\n"));
    }
    text.into_bytes()
}
