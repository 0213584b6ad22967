//! The store as a few maps: what every change should do.

use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// A change, with small numbers that stand for mailboxes and UIDs.
#[derive(Clone, Debug)]
pub enum Op {
    Deliver(Vec<Mail>),
    Append(u8, Mail),
    Flags {
        account: u8,
        mailbox: u8,
        uids: Vec<(u32, u32)>,
        change: u8,
        flags: Vec<&'static str>,
        since: Option<u8>,
    },
    Copy(u8, u8, Vec<(u32, u32)>, u8),
    Move(u8, u8, Vec<(u32, u32)>, u8),
    Expunge(u8, u8, Option<Vec<(u32, u32)>>),
    Create(u8, &'static str),
    Delete(u8, u8),
    Rename(u8, u8, &'static str),
    Subscribe(u8, &'static str, bool),
    Collect,
}

#[derive(Clone, Debug)]
pub struct Mail {
    pub account: u8,
    pub queue: u8,
    pub body: u8,
    pub name: &'static str,
    pub flags: Vec<&'static str>,
    pub quota: u8,
}

const NAMES: [&str; 10] = [
    "INBOX", "Work", "Work/Old", "Wörk", "a/b/c", "inbox", "Sent", "Work/", "Work ", "a",
];
const FLAGS: [&str; 6] = ["\\Seen", "\\Deleted", "\\Flagged", "$Junk", "b", "B"];

fn mail() -> impl Strategy<Value = Mail> {
    let name = prop::sample::select(&NAMES[..]);
    let flags = prop::sample::subsequence(&FLAGS[..], 0..3);
    (0..2u8, 0..20u8, 0..4u8, name, flags, 0..12u8).prop_map(
        |(account, queue, body, name, flags, quota)| Mail {
            account,
            queue,
            body,
            name,
            flags,
            quota,
        },
    )
}

fn uids() -> impl Strategy<Value = Vec<(u32, u32)>> {
    prop_oneof![
        4 => prop::collection::btree_set(1..14u32, 0..5).prop_map(|set| set.into_iter().map(|n| (n, n)).collect()),
        2 => (1..8u32, 0..5u32).prop_map(|(low, more)| vec![(low, low + more)]),
        2 => (1..4u32, 0..2u32).prop_map(|(low, more)| vec![(low, low + more), (low + more + 2, low + more + 3), (12, 4_000_000_000)]),
        1 => Just(vec![(1, u32::MAX)]),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let name = prop::sample::select(&NAMES[..]);
    let flags = prop::sample::subsequence(&FLAGS[..], 0..4);
    prop_oneof![
        6 => vec(mail(), 1..5).prop_map(Op::Deliver),
        2 => (0..9u8, mail()).prop_map(|(m, mail)| Op::Append(m, mail)),
        5 => (0..2u8, 0..9u8, uids(), 0..3u8, flags, prop::option::of(0..40u8)).prop_map(
            |(account, mailbox, uids, change, flags, since)| Op::Flags { account, mailbox, uids, change, flags, since }),
        3 => (0..2u8, 0..9u8, uids(), 0..9u8).prop_map(|(a, m, u, t)| Op::Copy(a, m, u, t)),
        3 => (0..2u8, 0..9u8, uids(), 0..9u8).prop_map(|(a, m, u, t)| Op::Move(a, m, u, t)),
        3 => (0..2u8, 0..9u8, prop::option::of(uids())).prop_map(|(a, m, u)| Op::Expunge(a, m, u)),
        2 => (0..2u8, name.clone()).prop_map(|(a, n)| Op::Create(a, n)),
        1 => (0..2u8, 0..9u8).prop_map(|(a, m)| Op::Delete(a, m)),
        1 => (0..2u8, 0..9u8, name.clone()).prop_map(|(a, m, n)| Op::Rename(a, m, n)),
        1 => (0..2u8, name, any::<bool>()).prop_map(|(a, n, s)| Op::Subscribe(a, n, s)),
        1 => Just(Op::Collect),
    ]
}

pub fn ops() -> impl Strategy<Value = Vec<Op>> {
    vec(op(), 20..60)
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub body: u8,
    pub flags: BTreeSet<String>,
    pub modseq: u64,
    /// Equal for messages that are one e-mail: a number of the model's own.
    pub email: u64,
    pub size: u64,
}

#[derive(Clone, Debug)]
pub struct Folder {
    pub id: u64,
    pub uidvalidity: u32,
    pub uidnext: u32,
    pub modseq: u64,
    pub messages: BTreeMap<u32, Message>,
    /// UID and modseq of what is gone.
    pub gone: Vec<(u32, u64)>,
}

#[derive(Clone, Debug, Default)]
pub struct Account {
    pub modseq: u64,
    pub folders: BTreeMap<String, Folder>,
    pub subscribed: BTreeSet<String>,
    pub marks: BTreeMap<u8, (u64, u32)>,
}

impl Account {
    pub fn usage(&self) -> (u64, u64) {
        let all = || self.folders.values().flat_map(|f| f.messages.values());
        (all().map(|m| m.size).sum(), all().count() as u64)
    }
}

#[derive(Clone, Debug, Default)]
pub struct Model {
    pub accounts: BTreeMap<u64, Account>,
    pub next_email: u64,
}

pub fn has(ranges: &[(u32, u32)], uid: u32) -> bool {
    ranges
        .iter()
        .any(|(low, high)| (*low..=*high).contains(&uid))
}

/// Flags as a set: keywords without case, first spelling kept.
pub fn with(set: &BTreeSet<String>, more: &[&str]) -> BTreeSet<String> {
    let mut set = set.clone();
    for flag in more {
        if !set.iter().any(|known| known.eq_ignore_ascii_case(flag)) {
            set.insert((*flag).to_owned());
        }
    }
    set
}

pub fn without(set: &BTreeSet<String>, less: &[&str]) -> BTreeSet<String> {
    set.iter()
        .filter(|flag| !less.iter().any(|gone| gone.eq_ignore_ascii_case(flag)))
        .cloned()
        .collect()
}

/// The name as the store keeps it; `None` if it refuses it.
pub fn normal(name: &str) -> Option<String> {
    let name = name.strip_suffix('/').unwrap_or(name);
    if name.trim() != name {
        return None;
    }
    Some(if name.eq_ignore_ascii_case("INBOX") {
        "INBOX".to_owned()
    } else {
        name.to_owned()
    })
}

pub fn body(number: u8) -> Vec<u8> {
    format!(
        "Message-ID: <m{number}@x>\r\nSubject: {number}\r\n\r\n{}",
        "text ".repeat(usize::from(number) * 100)
    )
    .into_bytes()
}
