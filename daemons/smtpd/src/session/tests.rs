//! Sessions over a pipe, with back ends that remember what they were given.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod early;
mod limits;
mod rewriting;
mod senders;
mod terms;
mod weighing;

use super::*;
use crate::checks::Evidence;
use crate::config::Config;
use crate::dnslist::{Asking, Stranger};
use ipc::api::authd::{AuthContinue, AuthFailure, AuthReply, AuthStart, Resolution, Target};
use ipc::api::limitd::{Identity, Stage, Weigh, Weighed};
use ipc::api::queued::{Commit, Right, SpoolSlot};
use ipc::{Fault, FaultKind};
use std::collections::HashMap;
use std::fs::File;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::DuplexStream;
use types::{AccountId, Body, BodyType, Grant, QueueId, Rights, Route};

/// authd and queued in one: `jane@example.org` is local, `other.example` is elsewhere.
#[derive(Default)]
struct Memory {
    bindings: Mutex<Vec<(String, types::Octets)>>,
    commits: Mutex<Vec<(Commit, Vec<u8>)>>,
    fault: Mutex<Option<FaultKind>>,
    spools: Mutex<HashMap<u64, std::path::PathBuf>>,
    closed: Mutex<Vec<u64>>,
    resolved: AtomicU64,
    full: AtomicU64,
    ids: AtomicU64,
    /// What the checks of senders find, and of whom and what they were asked.
    report: Mutex<mailauth::Report>,
    judged: Mutex<Vec<(String, Vec<u8>)>>,
    /// What limitd says at a stage (`None`: it is away), what it was asked, and what was given back.
    limits: Mutex<HashMap<&'static str, Option<types::Status>>>,
    weighed: Mutex<Vec<Weigh>>,
    given_back: Mutex<Vec<Weigh>>,
    /// What lists in DNS say.
    standing: Mutex<Standing>,
    /// When lists were asked, and who was looked for in DNS.
    looked_up: Mutex<Vec<Asking>>,
    identified: Mutex<Vec<String>>,
}

fn stage(weigh: &Weigh) -> &'static str {
    match weigh.stage {
        Stage::Connect => "connect",
        Stage::Mail { .. } => "mail",
        Stage::Recipient { .. } => "recipient",
        Stage::Unknown { .. } => "unknown",
        Stage::Message { .. } => "message",
    }
}

impl Memory {
    fn fail(&self) -> Result<(), Fault> {
        match *self.fault.lock().unwrap() {
            Some(kind) => Err(Fault::new(kind, "away")),
            None => Ok(()),
        }
    }
}

impl Backend for Arc<Memory> {
    async fn resolve(&self, _: TraceId, address: &Address) -> Result<Resolution, Fault> {
        self.resolved.fetch_add(1, Ordering::SeqCst);
        self.fail()?;
        Ok(match (address.local(), address.domain()) {
            ("jane" | "postmaster" | "jürgen", "example.org") => {
                Resolution::Local(vec![Target::Account {
                    account: AccountId(1),
                    name: address.clone(),
                    detail: None,
                    quota_bytes: 0,
                    quota_messages: 0,
                }])
            }
            ("asleep", "example.org") => Resolution::Disabled,
            (_, "example.org") => Resolution::Unknown,
            _ => Resolution::Remote,
        })
    }

    async fn may_send(&self, _: TraceId, _: AccountId, address: &Address) -> Result<bool, Fault> {
        self.fail()?;
        Ok(address.to_string() == "jane@example.org")
    }

    async fn auth_start(&self, _: TraceId, start: AuthStart) -> Result<AuthReply, Fault> {
        self.fail()?;
        *self.bindings.lock().unwrap() = start.client.bindings.clone();
        Ok(match (start.mechanism.as_str(), start.initial.as_deref()) {
            ("PLAIN", Some(b"\0jane\0secret")) => success(None),
            ("PLAIN", Some(_)) => AuthReply::Failure {
                reason: AuthFailure::Credentials,
                delay_ms: 0,
            },
            _ => AuthReply::Challenge {
                exchange: 7,
                data: b"go on".to_vec().into(),
            },
        })
    }

    async fn auth_continue(&self, _: TraceId, next: AuthContinue) -> Result<AuthReply, Fault> {
        assert_eq!(next.exchange, 7);
        Ok(success(Some(next.response.to_vec())))
    }

    async fn queue_id(&self, _: TraceId) -> Result<QueueId, Fault> {
        self.fail()?;
        Ok(QueueId(self.ids.fetch_add(1, Ordering::SeqCst)))
    }

    async fn open_spool(&self, _: TraceId, _: u64) -> Result<(SpoolSlot, File), Fault> {
        self.fail()?;
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let slot = NEXT.fetch_add(1, Ordering::SeqCst);
        if self.full.load(Ordering::SeqCst) > 0 {
            let file = File::options().write(true).open("/dev/full").unwrap();
            return Ok((SpoolSlot { slot }, file));
        }
        let name = format!("smtpd-session-{}-{slot}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let file = File::create(&path).unwrap();
        self.spools.lock().unwrap().insert(slot, path);
        Ok((SpoolSlot { slot }, file))
    }

    async fn close_spool(&self, _: TraceId, slot: SpoolSlot) {
        self.closed.lock().unwrap().push(slot.slot);
        if let Some(path) = self.spools.lock().unwrap().remove(&slot.slot) {
            std::fs::remove_file(path).unwrap();
        }
    }

    async fn judge(&self, client: &mailauth::Client<'_>, evidence: Evidence) -> mailauth::Report {
        let of = format!("{} {} {:?}", client.address, client.helo, client.sender);
        self.judged.lock().unwrap().push((of, evidence.header));
        self.report.lock().unwrap().clone()
    }

    async fn identify(&self, client: &mailauth::Client<'_>) -> Identity {
        let of = format!("{} {} {:?}", client.address, client.helo, client.sender);
        self.identified.lock().unwrap().push(of);
        Identity {
            name: None,
            spf: client.sender.map(|sender| sender.domain().to_owned()),
        }
    }

    async fn standing(&self, of: Stranger, at: Asking) -> Standing {
        self.looked_up.lock().unwrap().push(at);
        let mut standing = self.standing.lock().unwrap().clone();
        standing.of = of;
        standing
    }

    async fn weigh(&self, _: TraceId, weigh: &Weigh) -> Result<Weighed, Fault> {
        self.weighed.lock().unwrap().push(weigh.clone());
        let status = match self.limits.lock().unwrap().get(stage(weigh)) {
            Some(None) => return Err(Fault::new(FaultKind::Temporary, "away")),
            Some(Some(status)) => Some(status.clone()),
            None => None,
        };
        let rule = match &status {
            Some(status) if status.text == "Grey" => "greylist",
            _ => "rule",
        };
        let unidentified = rule == "greylist" && weigh.facts.identity.is_none();
        let passed = (weigh.facts.identity.as_ref()).is_some_and(|identity| {
            rule == "greylist" && identity.spf.as_deref() == Some("passes.example")
        });
        Ok(Weighed {
            status: status.filter(|_| !passed),
            rule: rule.to_owned(),
            unidentified,
        })
    }

    async fn give_back(&self, _: TraceId, weigh: Weigh) {
        self.given_back.lock().unwrap().push(weigh);
    }

    async fn commit(&self, commit: Commit) -> Result<(), Fault> {
        self.fail()?;
        let body = match &commit.body {
            Body::Inline(octets) => octets.to_vec(),
            Body::Slot { slot, len } => {
                let path = self.spools.lock().unwrap().remove(slot).unwrap();
                let octets = std::fs::read(&path).unwrap();
                std::fs::remove_file(path).unwrap();
                assert_eq!(octets.len() as u64, *len);
                octets
            }
            Body::Attached { .. } => panic!("not from smtpd"),
        };
        self.commits.lock().unwrap().push((commit, body));
        Ok(())
    }
}

fn success(data: Option<Vec<u8>>) -> AuthReply {
    AuthReply::Success {
        login: Login {
            name: "jane@example.org".to_owned(),
            grant: Grant {
                name: "a@example.org".to_owned(),
                groups: Vec::new(),
                account: AccountId(1),
                rights: Rights::ALL,
                expires: u64::MAX,
                quota_bytes: 0,
                quota_messages: 0,
                mac: Vec::new().into(),
            },
        },
        data: data.map(types::Octets::from),
    }
}

/// The client's end.
struct Client {
    stream: DuplexStream,
    memory: Arc<Memory>,
    drain: watch::Sender<bool>,
    held: Vec<u8>,
}

impl Client {
    fn connect(role: ListenerRole, change: impl FnOnce(&mut Policy)) -> Self {
        Self::connect_tls(role, None, change)
    }

    fn connect_tls(
        role: ListenerRole,
        tls: Option<TlsAcceptor>,
        change: impl FnOnce(&mut Policy),
    ) -> Self {
        let config = Config::default();
        let mut policy = Policy {
            hostname: "mx.example.org".to_owned(),
            postmaster: "postmaster@example.org".parse().unwrap(),
            limits: config.limits,
            timeouts: config.timeouts,
            line_endings: config.line_endings,
            check_from: true,
            auth_without_tls: true,
            mechanisms: config.mechanisms,
            authserv_id: "mx.example.org".into(),
            checks: None,
            terms: config.terms,
            asked: None,
            lists: None,
            early: config.early,
            rewriting: None,
        };
        policy.limits.unknown_delay_ms = 0;
        // Most tests say all at once; `early` is about those who must not.
        policy.early.pipelining = crate::config::EarlyAction::Allow;
        change(&mut policy);
        let memory = Arc::new(Memory::default());
        let mode = if tls.is_some() {
            TlsMode::Starttls
        } else {
            TlsMode::None
        };
        let service = Arc::new(Service {
            backend: Arc::clone(&memory),
            policy,
            clients: Arc::default(),
            confirmed: ConfirmedRecipients::default(),
            hooks: None,
            figures: Figures::default(),
            tls,
        });
        let door = Arc::new(Door {
            name: "test".to_owned(),
            role,
            tls: mode,
            auth: role == ListenerRole::Submission,
        });
        let peer = Peer {
            address: Some("192.0.2.1".parse().unwrap()),
            may_relay: false,
            trusted: false,
            early: false,
        };
        let (stream, theirs) = tokio::io::duplex(64 * 1024);
        let (drain, draining) = watch::channel(false);
        tokio::spawn(Session::new(service, door, peer, None, theirs, draining).run());
        Self {
            stream,
            memory,
            drain,
            held: Vec::new(),
        }
    }

    async fn ready(role: ListenerRole) -> Self {
        let mut client = Self::connect(role, |_| {});
        client.expect("220").await;
        client.ask("EHLO client.example\r\n", "250").await;
        client
    }

    /// All lines of the next reply.
    async fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            while let Some(end) = self.held.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.held.drain(..=end).collect();
                let line = String::from_utf8(line).unwrap();
                assert!(line.ends_with("\r\n"));
                let last = line.as_bytes().get(3) == Some(&b' ');
                reply.push_str(&line);
                if last {
                    return reply;
                }
            }
            if self.stream.read_buf(&mut self.held).await.unwrap() == 0 {
                return format!("{reply}CLOSED");
            }
        }
    }

    async fn expect(&mut self, start: &str) -> String {
        let reply = self.reply().await;
        assert!(reply.starts_with(start), "{start} expected, got {reply}");
        reply
    }

    async fn say(&mut self, octets: impl AsRef<[u8]>) {
        self.stream.write_all(octets.as_ref()).await.unwrap();
    }

    async fn ask(&mut self, octets: impl AsRef<[u8]>, start: &str) -> String {
        self.say(octets).await;
        self.expect(start).await
    }

    fn commits(&self) -> Vec<(Commit, Vec<u8>)> {
        std::mem::take(&mut *self.memory.commits.lock().unwrap())
    }
}

const ENVELOPE: &str = "MAIL FROM:<a@other.example>\r\nRCPT TO:<jane@example.org>\r\n";

#[tokio::test]
async fn a_pipelined_message_arrives_as_it_was_sent() {
    let mut client = Client::ready(ListenerRole::Mx).await;
    let message = "Return-Path: <forged@other.example>\r\nSubject: x\r\n\r\n..dot\r\nend\r\n.\r\n";
    client.say(format!("{ENVELOPE}DATA\r\n")).await;
    client.expect("250 2.1.0").await;
    client.expect("250 2.1.5").await;
    client.expect("354").await;
    client.say(format!("{message}{ENVELOPE}NOOP\r\n")).await;
    client.expect("250 2.0.0 Queued as").await;
    client.expect("250 2.1.0").await;
    client.expect("250 2.1.5").await;
    client.expect("250 2.0.0").await;
    client.ask("QUIT\r\n", "221").await;
    assert_eq!(client.reply().await, "CLOSED");
    let commits = client.commits();
    let (commit, body) = &commits[0];
    assert_eq!(body, b"Subject: x\r\n\r\n.dot\r\nend\r\n");
    assert_eq!(commit.origin.right, Right::Incoming);
    assert_eq!(commit.envelope.recipients[0].route, Route::Local);
    let prefix = String::from_utf8(commit.prefix.to_vec()).unwrap();
    assert!(prefix.starts_with("Received: from client.example ([192.0.2.1])\r\n\tby mx.example.org (Posthouse) with ESMTP id "));
    assert!(prefix.contains("for <jane@example.org>;"));
    assert!(!prefix.contains("Date:") && !prefix.contains("Message-ID"));
    // The second RCPT of the same address was not asked again.
    assert_eq!(client.memory.resolved.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn any_split_of_a_session_gives_the_same() {
    // The chunks part a CRLF.
    let script = format!("{ENVELOPE}BDAT 7\r\nA: b\r\n\rBDAT 4 LAST\r\n\nx\r\nQUIT\r\n");
    for step in [1, 2, 3, 7, 1000] {
        let mut client = Client::ready(ListenerRole::Mx).await;
        for piece in script.as_bytes().chunks(step) {
            client.say(piece).await;
            tokio::task::yield_now().await;
        }
        for start in [
            "250 2.1.0",
            "250 2.1.5",
            "250 2.0.0 7 octets",
            "250 2.0.0 Queued",
            "221",
        ] {
            client.expect(start).await;
        }
        let commits = client.commits();
        assert_eq!(commits[0].1, b"A: b\r\n\r\nx\r\n", "in pieces of {step}");
    }
}

#[tokio::test]
async fn large_messages_go_into_the_file() {
    let mut client = Client::ready(ListenerRole::Mx).await;
    let line = "0123456789 0123456789 0123456789 0123456789\r\n";
    for size in [60_000, 66_000, 300_000, 3_000_000] {
        let body = format!(
            "Return-Path: <x@y>\r\nSubject: large\r\n\r\n{}",
            line.repeat(size / line.len())
        );
        client.say(format!("{ENVELOPE}DATA\r\n")).await;
        client.expect("250").await;
        client.expect("250").await;
        client.expect("354").await;
        client.ask(format!("{body}.\r\n"), "250 2.0.0 Queued").await;
        let (commit, stored) = client.commits().remove(0);
        assert_eq!(stored, body.as_bytes()["Return-Path: <x@y>\r\n".len()..]);
        assert_eq!(matches!(commit.body, Body::Inline(_)), size < 64 * 1024);
    }
    assert!(client.memory.spools.lock().unwrap().is_empty());
}

#[tokio::test]
async fn files_are_given_back_when_nothing_comes_of_them() {
    let large = format!("Subject: x\r\n\r\n{}", "line\r\n".repeat(100_000));
    // The client goes away in the middle.
    let mut client = Client::ready(ListenerRole::Mx).await;
    client.say(format!("{ENVELOPE}DATA\r\n{large}")).await;
    let memory = Arc::clone(&client.memory);
    drop(client);
    while memory.closed.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(memory.spools.lock().unwrap().is_empty());
    // The disk is full: the message is read to its end, and refused for now.
    let mut client = Client::ready(ListenerRole::Mx).await;
    client.memory.full.store(1, Ordering::SeqCst);
    client
        .say(format!("{ENVELOPE}DATA\r\n{large}{large}.\r\nNOOP\r\n"))
        .await;
    for start in ["250", "250", "354", "452 4.3.1", "250 2.0.0 OK"] {
        client.expect(start).await;
    }
    assert_eq!(client.memory.closed.lock().unwrap().len(), 1);
    // A commit that fails leaves no file either.
    let mut client = Client::ready(ListenerRole::Mx).await;
    client.say(format!("{ENVELOPE}DATA\r\n{large}")).await;
    for start in ["250", "250", "354"] {
        client.expect(start).await;
    }
    while client.memory.spools.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    *client.memory.fault.lock().unwrap() = Some(FaultKind::Temporary);
    client.ask(".\r\n", "451 4.3.0").await;
    assert!(client.memory.spools.lock().unwrap().is_empty());
}

#[tokio::test]
async fn failures_behind_us_are_never_final() {
    for (kind, code) in [
        (FaultKind::Temporary, "451 4.3.0"),
        (FaultKind::Busy, "452 4.3.1"),
        (FaultKind::Internal, "451 4.3.0"),
        (FaultKind::NotFound, "451 4.3.0"),
        (FaultKind::Invalid, "451 4.3.0"),
    ] {
        let mut client = Client::ready(ListenerRole::Mx).await;
        client.say(format!("{ENVELOPE}DATA\r\n")).await;
        for start in ["250", "250", "354"] {
            client.expect(start).await;
        }
        *client.memory.fault.lock().unwrap() = Some(kind);
        client.ask("x\r\n.\r\n", code).await;
        client.ask("MAIL FROM:<>\r\n", "250").await;
        client
            .ask("RCPT TO:<other@example.org>\r\n", "451 4.3.0")
            .await;
    }
}

#[tokio::test]
async fn smuggling_is_refused_after_the_true_end() {
    let inner = "MAIL FROM:<b@other.example>\r\nRCPT TO:<jane@example.org>\r\nDATA\r\nspoof\r\n";
    for end in ["\n.\n", "\n.\r\n", "\r.\r\n", "\r\n.\n", "\r\n.\r", "\r.\r"] {
        let mut client = Client::ready(ListenerRole::Mx).await;
        client
            .say(format!("{ENVELOPE}DATA\r\nbody{end}{inner}.\r\nNOOP\r\n"))
            .await;
        for start in ["250", "250", "354", "550 5.6.11", "250 2.0.0 OK"] {
            client.expect(start).await;
        }
        assert!(client.commits().is_empty(), "{end:?}");
        // By BDAT neither
        let chunk = format!("body{end}{inner}");
        let text = format!("{ENVELOPE}BDAT {} LAST\r\n{chunk}NOOP\r\n", chunk.len());
        client.say(text).await;
        for start in ["250", "250", "550 5.6.11", "250 2.0.0 OK"] {
            client.expect(start).await;
        }
        assert!(client.commits().is_empty(), "{end:?}");
    }
}

#[tokio::test]
async fn repaired_line_endings_are_only_crlf() {
    let mut client = Client::connect(ListenerRole::Mx, |policy| {
        policy.line_endings = LineEndingPolicy::Repair;
    });
    client.expect("220").await;
    client.ask("HELO client.example\r\n", "250 mx").await;
    client
        .say(format!("{ENVELOPE}DATA\r\na\n.\nb\rc\r\n.\r\n"))
        .await;
    for start in ["250", "250", "354", "250"] {
        client.expect(start).await;
    }
    let (commit, body) = client.commits().remove(0);
    assert_eq!(body, b"a\r\n.\r\nb c\r\n");
    let prefix = String::from_utf8(commit.prefix.to_vec()).unwrap();
    assert!(prefix.contains(" with SMTP id "), "{prefix}");
}

#[tokio::test]
async fn chunks_of_text_are_repaired_too() {
    let mut client = Client::connect(ListenerRole::Mx, |policy| {
        policy.line_endings = LineEndingPolicy::Repair;
    });
    client.expect("220").await;
    client.ask("HELO client.example\r\n", "250 mx").await;
    client
        .say(format!(
            "{ENVELOPE}BDAT 6\r\na\n.\nb\rBDAT 5 LAST\r\n\nc\rd\r"
        ))
        .await;
    for start in ["250", "250", "250 2.0.0 6", "250"] {
        client.expect(start).await;
    }
    let (_, body) = client.commits().remove(0);
    assert_eq!(body, b"a\r\n.\r\nb\r\nc d ");
}

#[tokio::test]
async fn binary_messages_need_chunks_and_keep_every_octet() {
    let mut client = Client::ready(ListenerRole::Mx).await;
    client.ask("MAIL FROM:<> BODY=BINARYMIME\r\n", "250").await;
    client.ask("RCPT TO:<jane@example.org>\r\n", "250").await;
    client.ask("DATA\r\n", "503 5.5.1").await;
    client.ask("BDAT 6\r\nA: b\r\n", "250 2.0.0 6 octets").await;
    client.ask("DATA\r\n", "503 5.5.1").await;
    client
        .ask("RCPT TO:<jane@example.org>\r\n", "503 5.5.1")
        .await;
    client
        .ask(b"BDAT 7 LAST\r\n\r\n\n\r\0\xff.", "250 2.0.0 Queued")
        .await;
    let (commit, body) = client.commits().remove(0);
    assert_eq!(body, b"A: b\r\n\r\n\n\r\0\xff.");
    assert_eq!(commit.envelope.body, BodyType::Binary);
    assert_eq!(commit.envelope.sender, None);
    // A chunk for nobody is read all the same.
    client.ask("BDAT 6\r\nQUIT\r\n", "503 5.5.1").await;
    client.ask("BDAT x\r\n", "521 5.5.4").await;
    assert_eq!(client.reply().await, "CLOSED");
}

#[tokio::test]
async fn too_large_is_told_early_and_late() {
    let mut client = Client::connect(ListenerRole::Mx, |policy| {
        policy.limits.message_bytes = 1000
    });
    client.expect("220").await;
    let offer = client.ask("EHLO c\r\n", "250").await;
    assert!(offer.contains("250-SIZE 1000\r\n"));
    client.ask("MAIL FROM:<> SIZE=1001\r\n", "552 5.3.4").await;
    let large = "x\r\n".repeat(400);
    client.say(format!("{ENVELOPE}DATA\r\n{large}.\r\n")).await;
    for start in ["250", "250", "354", "552 5.3.4"] {
        client.expect(start).await;
    }
    let chunk = format!("BDAT {}\r\n{large}", large.len());
    client
        .say(format!(
            "{ENVELOPE}{chunk}{chunk}BDAT 0 LAST\r\nRSET\r\n{ENVELOPE}"
        ))
        .await;
    for start in [
        "250",
        "250",
        "552 5.3.4",
        "503",
        "503",
        "250 2.0.0",
        "250 2.1.0",
        "250 2.1.5",
    ] {
        client.expect(start).await;
    }
    assert!(client.commits().is_empty());
}

#[tokio::test]
async fn there_is_no_relay_here() {
    let mut client = Client::ready(ListenerRole::Mx).await;
    client.ask("MAIL FROM:<jane@example.org>\r\n", "250").await;
    for recipient in [
        "a@other.example",
        "@example.org:a@other.example",
        "\"jane@example.org\"@other.example",
        "a@[192.0.2.9]",
    ] {
        client
            .ask(format!("RCPT TO:<{recipient}>\r\n"), "550 5.7.1")
            .await;
    }
    for recipient in [
        "a%other.example@example.org",
        "other.example!a@example.org",
        "\"a@other.example\"@example.org",
    ] {
        client
            .ask(format!("RCPT TO:<{recipient}>\r\n"), "550 5.1.1")
            .await;
    }
    client
        .ask("RCPT TO:<asleep@example.org>\r\n", "550 5.2.1")
        .await;
    client
        .ask("RCPT TO:<jürgen@example.org>\r\n", "553 5.6.7")
        .await;
    client.ask("DATA\r\n", "554 5.5.1").await;
    client.ask("RCPT TO:<postmaster>\r\n", "250").await;
    client
        .ask("AUTH PLAIN AGphbmUAc2VjcmV0\r\n", "502 5.5.1")
        .await;
}

#[tokio::test]
async fn submissions_need_a_login_and_ones_own_addresses() {
    let mut client = Client::ready(ListenerRole::Submission).await;
    client
        .ask("MAIL FROM:<jane@example.org>\r\n", "530 5.7.0")
        .await;
    client
        .ask("AUTH PLAIN AGphbmUAd3Jvbmc=\r\n", "535 5.7.8")
        .await;
    client.ask("AUTH LOGIN\r\n", "334 Z28gb24=").await;
    client.ask("*\r\n", "501 5.7.0").await;
    client.ask("AUTH CRAM-MD5\r\n", "504 5.5.4").await;
    client
        .ask("AUTH PLAIN AGphbmUAc2VjcmV0\r\n", "235 2.7.0")
        .await;
    client
        .ask("AUTH PLAIN AGphbmUAc2VjcmV0\r\n", "503 5.5.1")
        .await;
    client
        .ask("MAIL FROM:<bob@example.org>\r\n", "553 5.7.1")
        .await;
    let envelope = "MAIL FROM:<jane@example.org>\r\nRCPT TO:<a@other.example>\r\nRCPT TO:<jane@example.org>\r\nDATA\r\n";
    for (header, answer) in [
        (
            "From: Jane <jane@example.org>\r\nBcc: b@other.example\r\n",
            "250 2.0.0",
        ),
        ("From: bob@example.org\r\n", "550 5.7.1"),
        ("From: jane@example.org, bob@example.org\r\n", "550 5.7.1"),
        ("From: nobody\r\n", "550 5.7.1"),
        (
            "Subject: x\r\nDate: y\r\nMessage-ID: <z@other.example>\r\n",
            "250 2.0.0",
        ),
    ] {
        client
            .say(format!("{envelope}{header}\r\nHello\r\n.\r\n"))
            .await;
        for start in ["250", "250", "250", "354", answer] {
            client.expect(start).await;
        }
    }
    let commits = client.commits();
    let (commit, body) = &commits[0];
    assert_eq!(body, b"From: Jane <jane@example.org>\r\n\r\nHello\r\n");
    assert!(matches!(commit.origin.right, Right::Submission(_)));
    assert_eq!(commit.envelope.recipients[0].route, Route::Remote);
    let prefix = String::from_utf8(commit.prefix.to_vec()).unwrap();
    assert!(prefix.contains(" with ESMTPA id "));
    assert!(prefix.contains("\r\nDate: ") && prefix.contains("\r\nMessage-ID: <"));
    assert!(
        !prefix.contains(" for <"),
        "two recipients do not see each other"
    );
    let prefix = String::from_utf8(commits[1].0.prefix.to_vec()).unwrap();
    assert!(
        prefix.ends_with("\r\nFrom: <jane@example.org>\r\n"),
        "{prefix}"
    );
}

#[tokio::test]
async fn a_last_challenge_of_scram_wants_an_empty_answer() {
    let mut client = Client::ready(ListenerRole::Submission).await;
    client
        .ask("AUTH SCRAM-SHA-256 bix5\r\n", "334 Z28gb24=")
        .await;
    client.ask("eA==\r\n", "334 eA==").await;
    client.ask("eA==\r\n", "501 5.5.2").await;
    client.ask("AUTH SCRAM-SHA-256 =\r\n", "334 Z28gb24=").await;
    client.ask("eA==\r\n", "334 eA==").await;
    client.ask("\r\n", "235 2.7.0").await;
}
