//! A process that appends is killed with -9, again and again: what it acknowledged is there, what it freed is not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use journal::{Journal, Kind, Options, Record};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

const DIRECTORY: &str = "JOURNAL_KILL_TEST";

fn options() -> Options {
    Options {
        segment_size: 64 * 1024,
        ..Options::default()
    }
}

fn body(id: u64) -> Vec<u8> {
    vec![id as u8; (id % 700) as usize]
}

/// The child: says `+ID` when a message is in, `-ID` when it is freed. Frees only now and then wait for a sync.
#[test]
fn child() {
    let Ok(directory) = std::env::var(DIRECTORY) else {
        return;
    };
    let mut journal = Journal::open(Path::new(&directory), options()).unwrap();
    let mut out = std::io::stdout().lock();
    let mut id = journal
        .live()
        .map(|(id, _)| id)
        .max()
        .unwrap_or(0)
        .max(std::env::var("JOURNAL_KILL_FROM").unwrap().parse().unwrap());
    loop {
        let bodies: Vec<(u64, Vec<u8>)> =
            (1..=id % 7 + 1).map(|n| (id + n, body(id + n))).collect();
        let batch: Vec<Record<'_>> = bodies
            .iter()
            .map(|(id, body)| Record {
                kind: Kind::Put,
                version: 1,
                id: *id,
                parts: [b"<", body, b">"],
            })
            .collect();
        journal.append(&batch, true).unwrap();
        for (done, _) in &bodies {
            writeln!(out, "+{done}").unwrap();
            id = *done;
        }
        let free: Vec<Record<'_>> = (id.saturating_sub(30)..id.saturating_sub(20))
            .map(Record::free)
            .collect();
        journal.append(&free, id % 3 == 0).unwrap();
        for record in free {
            writeln!(out, "-{}", record.id).unwrap();
        }
        out.flush().unwrap();
    }
}

#[test]
fn killed_at_any_moment_it_keeps_what_it_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let mut live = BTreeSet::new();
    let mut last = 0;
    for round in 0..20_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(DIRECTORY, directory.path())
            .env("JOURNAL_KILL_FROM", last.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        let mut killed = false;
        while let Some(Ok(line)) = lines.next() {
            if let Some(id) = line.strip_prefix('+').and_then(|id| id.parse::<u64>().ok()) {
                live.insert(id);
                last = last.max(id);
                seen += 1;
            } else if let Some(id) = line.strip_prefix('-').and_then(|id| id.parse::<u64>().ok()) {
                live.remove(&id);
            }
            if seen > 40 + round * 37 && !killed {
                child.kill().unwrap();
                killed = true;
            }
        }
        child.wait().unwrap();
        assert!(killed, "the child ended by itself");
        let journal = Journal::open(directory.path(), options()).unwrap();
        assert!(journal.damage().is_empty());
        let found: BTreeSet<u64> = journal.live().map(|(id, _)| id).collect();
        let lost: Vec<&u64> = live.difference(&found).collect();
        // The process may have freed ten of the last thirty and not have come to say so. Newer ones it never frees.
        assert!(
            lost.iter().all(|id| **id + 60 > last && **id + 12 <= last),
            "round {round}: lost {lost:?}, last {last}"
        );
        // A page cache survives its process, so a mark that was written counts even without a sync.
        let back: Vec<&u64> = found
            .difference(&live)
            .filter(|id| **id < last.saturating_sub(60))
            .collect();
        assert!(back.is_empty(), "round {round}: back {back:?}");
        for (id, entry) in journal.live() {
            let content = journal.reader().read(entry.put).unwrap();
            assert_eq!(content.payload, [b"<".as_slice(), &body(id), b">"].concat());
        }
        last = last.max(found.last().copied().unwrap_or(0));
        live = found;
    }
}
