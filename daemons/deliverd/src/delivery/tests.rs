#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod lists;
mod moderation;

use super::*;
use std::collections::HashMap;
use std::io::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use types::{AccountId, MailboxId, ModSeq, Notify, QueueId, TraceId, Uid};

/// A directory from a table; `down` is away.
#[derive(Default)]
struct Table(HashMap<String, Resolution>);

impl Directory for Table {
    async fn resolve(&self, _trace: TraceId, address: &Address) -> Result<Resolution, Fault> {
        match self.0.get(&address.key()) {
            Some(resolution) => Ok(resolution.clone()),
            None if address.local() == "down" => {
                Err(Fault::new(FaultKind::Temporary, "authd is away"))
            }
            None => Ok(Resolution::Unknown),
        }
    }

    async fn forward_sender(
        &self,
        _trace: TraceId,
        request: ForwardSender,
    ) -> Result<Option<Address>, Fault> {
        let ours = format!(
            "SRS0={}={}",
            request.sender.domain(),
            request.sender.local()
        );
        Ok(Address::new(&ours, request.owner.domain()).ok())
    }

    async fn list_poster(
        &self,
        _: TraceId,
        request: ListPoster,
    ) -> Result<Option<ListStanding>, Fault> {
        Ok(moderation::standing(&request).or_else(|| lists::standing(&request)))
    }

    async fn list_recipients(
        &self,
        _: TraceId,
        request: ListRecipients,
    ) -> Result<Vec<Address>, Fault> {
        Ok(lists::page(&request))
    }

    async fn list_copies(
        &self,
        _: TraceId,
        request: ListCopies,
    ) -> Result<Option<ListCopiesPage>, Fault> {
        Ok(lists::copies(&request))
    }

    async fn list_bounced(&self, _: TraceId, _: ListBounced) -> Result<ListSuspended, Fault> {
        Ok(ListSuspended::default())
    }

    async fn list_command(&self, _: TraceId, request: ListCommand) -> Result<ListAnswer, Fault> {
        Ok(moderation::answer(&request))
    }

    async fn list_hold(&self, _: TraceId, request: ListHold) -> Result<Option<ListDecide>, Fault> {
        Ok(moderation::addresses(&request))
    }
}

impl<D: Directory, S: Store> Delivery<D, S> {
    async fn deliver(&self, call: Deliver, file: Option<File>) -> Result<Delivered, Fault> {
        Ok(self.deliver_posts(call, file).await?.0)
    }
}

/// A store that keeps what it is given, once for each (id, recipient, account), and refuses certain accounts.
#[derive(Default)]
struct Kept {
    copies: Mutex<Vec<One>>,
    refuse: Mutex<HashMap<u64, FaultKind>>,
    calls: AtomicUsize,
}

struct One {
    target: stored::DeliverTarget,
    message: stored::NewMessage,
    attached: Option<Vec<u8>>,
}

impl Store for Arc<Kept> {
    async fn remember(&self, _: TraceId, _: stored::Remember) -> Result<(), Fault> {
        Ok(())
    }

    async fn deliver(
        &self,
        _trace: TraceId,
        call: stored::Deliver,
        file: Option<Arc<File>>,
    ) -> Result<StoreResults, Fault> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let attached = file.map(|file| {
            use std::os::unix::fs::FileExt as _;
            let mut content = vec![0; usize::try_from(call.message.body.len()).unwrap()];
            file.read_exact_at(&mut content, 0).unwrap();
            content
        });
        let mut copies = self.copies.lock().unwrap();
        let refuse = self.refuse.lock().unwrap();
        if refuse.contains_key(&0) {
            return Err(Fault::new(FaultKind::Temporary, "internal words"));
        }
        let results = call.targets.into_iter().map(|target| {
            if let Some(kind) = refuse.get(&target.account.0) {
                return Err(Fault::new(*kind, "internal words"));
            }
            let same = |one: &One| {
                (one.target.recipient, one.target.account) == (target.recipient, target.account)
            };
            let duplicate = copies.iter().any(same);
            if !duplicate {
                copies.push(One {
                    target,
                    message: call.message.clone(),
                    attached: attached.clone(),
                });
            }
            Ok(stored::Stored {
                mailbox: MailboxId(1),
                uid: Uid(1),
                modseq: ModSeq(1),
                duplicate,
            })
        });
        Ok(results.collect())
    }
}

fn account(number: u64, name: &str, detail: Option<&str>) -> Target {
    Target::Account {
        account: AccountId(number),
        name: name.parse().unwrap(),
        detail: detail.map(str::to_owned),
        quota_bytes: 1000,
        quota_messages: 10,
    }
}

fn forward(to: &str) -> Target {
    Target::Forward(to.parse().unwrap())
}

fn delivery(table: &[(&str, Vec<Target>)]) -> (Delivery<Table, Arc<Kept>>, Arc<Kept>) {
    let mut directory = Table::default();
    for (address, targets) in table {
        directory
            .0
            .insert((*address).to_owned(), Resolution::Local(targets.clone()));
    }
    directory
        .0
        .insert("off@x.example".to_owned(), Resolution::Disabled);
    directory
        .0
        .insert("moved@x.example".to_owned(), Resolution::Remote);
    let store = Arc::new(Kept::default());
    (
        Delivery::new(directory, store.clone(), Config::default(), None),
        store,
    )
}

fn call(recipients: &[&str], body: &str) -> Deliver {
    let recipients = recipients
        .iter()
        .zip(0..)
        .map(|(address, index)| LocalRecipient {
            index,
            address: address.parse().unwrap(),
            orcpt: None,
            notify: Notify::default(),
        });
    Deliver {
        id: QueueId(7),
        trace: TraceId(8),
        arrived: 1_700_000_000,
        sender: Some("me@there.example".parse().unwrap()),
        ret: None,
        envid: None,
        recipients: recipients.collect(),
        prefix: b"Received: by us\r\n".as_slice().into(),
        body: Body::Inline(body.as_bytes().into()),
        ours: false,
        by: None,
        let_in: false,
    }
}

fn summary(delivered: &Delivered) -> String {
    let each = delivered
        .outcomes
        .iter()
        .map(|(index, outcome)| match outcome {
            Outcome::Done(status) => format!("{index}:d{}", status.code),
            Outcome::Temporary(status) => format!("{index}:t{}", status.code),
            Outcome::Permanent(status) => format!("{index}:p{}", status.code),
        });
    each.collect::<Vec<_>>().join(" ")
}

const BODY: &str = "From: me@there.example\r\nSubject: x\r\n\r\nhello\r\n";

#[tokio::test]
async fn a_copy_has_its_own_trace_fields_and_a_true_description() {
    let (delivery, store) = delivery(&[("a@x.example", vec![account(1, "anna@x.example", None)])]);
    let delivered = delivery
        .deliver(call(&["a@x.example"], BODY), None)
        .await
        .unwrap();
    assert_eq!(summary(&delivered), "0:d250");
    let copies = store.copies.lock().unwrap();
    let One {
        target, message, ..
    } = &copies[0];
    let prefix =
        "Return-Path: <me@there.example>\r\nDelivered-To: anna@x.example\r\nReceived: by us\r\n";
    assert_eq!(target.prefix.as_slice(), prefix.as_bytes());
    assert_eq!(message.body, Body::Inline(BODY.as_bytes().into()));
    assert_eq!(
        (target.quota_bytes, target.quota_messages, message.date),
        (1000, 10, 1_700_000_000)
    );
    let parsed = message::Parsed::decode(&message.parsed).unwrap();
    assert_eq!(
        parsed,
        message::parse(b"", BODY.as_bytes(), &message::Limits::default())
    );
}

#[tokio::test]
async fn the_null_sender_is_shown_as_such() {
    let (delivery, store) = delivery(&[("a@x.example", vec![account(1, "anna@x.example", None)])]);
    let call = Deliver {
        sender: None,
        ..call(&["a@x.example"], BODY)
    };
    delivery.deliver(call, None).await.unwrap();
    assert!(
        store.copies.lock().unwrap()[0]
            .target
            .prefix
            .starts_with(b"Return-Path: <>\r\n")
    );
}

#[tokio::test]
async fn what_is_suspicious_goes_to_junk() {
    let (delivery, store) = delivery(&[
        ("a@x.example", vec![account(1, "anna@x.example", None)]),
        (
            "a+lists@x.example",
            vec![account(1, "anna@x.example", Some("lists"))],
        ),
        ("b@y.example", vec![account(2, "bert@y.example", None)]),
    ]);
    let suspect = |field: &str, recipients: &[&str]| Deliver {
        prefix: format!("Received: by us\r\nX-Posthouse-Suspect: {field}\r\n")
            .into_bytes()
            .into(),
        ..call(recipients, BODY)
    };
    let all = ["a@x.example", "a+lists@x.example", "b@y.example"];
    let delivered = delivery
        .deliver(suspect("junk; checks=dmarc", &all), None)
        .await
        .unwrap();
    assert_eq!(summary(&delivered), "0:d250 1:d250 2:d250");
    let places = || {
        let mut copies = store.copies.lock().unwrap();
        let all: Vec<(u64, String, bool)> = copies
            .drain(..)
            .map(|one| (one.target.account.0, one.target.mailbox, one.target.create))
            .collect();
        all
    };
    let junk = |account| (account, "Junk".to_owned(), true);
    assert_eq!(places(), [junk(1), junk(2)], "one copy an account");
    let some = suspect(
        "junk; checks=dmarc;\r\n\trecipients=1",
        &["a@x.example", "b@y.example"],
    );
    delivery.deliver(some, None).await.unwrap();
    assert_eq!(places(), [(1, String::new(), false), junk(2)]);
    let tagged = suspect("tag; checks=spf", &["a@x.example"]);
    delivery.deliver(tagged, None).await.unwrap();
    assert_eq!(places(), [(1, String::new(), false)]);
}

#[tokio::test]
async fn each_recipient_has_its_outcome() {
    let (delivery, store) = delivery(&[
        ("a@x.example", vec![account(1, "anna@x.example", None)]),
        ("full@x.example", vec![account(2, "full@x.example", None)]),
        ("sick@x.example", vec![account(3, "sick@x.example", None)]),
        ("busy@x.example", vec![account(4, "busy@x.example", None)]),
        (
            "list@x.example",
            vec![
                account(1, "anna@x.example", None),
                account(3, "sick@x.example", None),
            ],
        ),
    ]);
    store.refuse.lock().unwrap().extend([
        (2, FaultKind::OverQuota),
        (3, FaultKind::Internal),
        (4, FaultKind::Busy),
    ]);
    let to = [
        "a@x.example",
        "full@x.example",
        "sick@x.example",
        "busy@x.example",
        "list@x.example",
        "none@x.example",
        "off@x.example",
        "moved@x.example",
        "down@x.example",
    ];
    let delivered = delivery.deliver(call(&to, BODY), None).await.unwrap();
    assert_eq!(
        summary(&delivered),
        "0:d250 1:p552 2:t451 3:t452 4:t451 5:p550 6:p550 7:p550 8:t451"
    );
    assert!(
        !format!("{delivered:?}").contains("internal words"),
        "the log's words are not the sender's"
    );
    // What is tried again is not doubled where it succeeded.
    store.refuse.lock().unwrap().clear();
    let mut again = call(&["list@x.example"], BODY);
    again.recipients[0].index = 4;
    assert_eq!(
        summary(&delivery.deliver(again, None).await.unwrap()),
        "4:d250"
    );
    let accounts: Vec<u64> = store
        .copies
        .lock()
        .unwrap()
        .iter()
        .map(|one| one.target.account.0)
        .collect();
    assert_eq!(accounts, [1, 3]);
}

#[tokio::test]
async fn a_full_mailbox_defers_if_so_configured() {
    let (mut delivery, store) =
        delivery(&[("a@x.example", vec![account(1, "anna@x.example", None)])]);
    delivery.config.over_quota = OverQuota::Defer;
    store.refuse.lock().unwrap().insert(1, FaultKind::OverQuota);
    assert_eq!(
        summary(
            &delivery
                .deliver(call(&["a@x.example"], BODY), None)
                .await
                .unwrap()
        ),
        "0:t452"
    );
}

#[tokio::test]
async fn an_account_gets_one_copy_however_it_is_addressed() {
    let anna = || account(1, "anna@x.example", None);
    let (delivery, store) = delivery(&[
        ("anna@x.example", vec![anna()]),
        (
            "info@x.example",
            vec![anna(), account(2, "bob@x.example", None)],
        ),
        (
            "anna+lists@x.example",
            vec![account(1, "anna@x.example", Some("lists"))],
        ),
        (
            "anna+x*y@x.example",
            vec![account(1, "anna@x.example", Some("x*y"))],
        ),
    ]);
    let to = [
        "anna@x.example",
        "info@x.example",
        "anna+lists@x.example",
        "anna+x*y@x.example",
    ];
    let delivered = delivery.deliver(call(&to, BODY), None).await.unwrap();
    assert_eq!(summary(&delivered), "0:d250 1:d250 2:d250 3:d250");
    let copies: Vec<_> = store
        .copies
        .lock()
        .unwrap()
        .iter()
        .map(|one| (one.target.account.0, one.target.mailbox.clone()))
        .collect();
    assert_eq!(
        copies,
        [
            (1, String::new()),
            (2, String::new()),
            (1, "lists".to_owned())
        ]
    );
}

#[tokio::test]
async fn forwards_are_handed_back_once() {
    let (delivery, store) = delivery(&[
        (
            "f@x.example",
            vec![forward("me@far.example"), forward("you@far.example")],
        ),
        (
            "both@x.example",
            vec![
                account(1, "anna@x.example", None),
                forward("me@far.example"),
            ],
        ),
    ]);
    let delivered = delivery
        .deliver(call(&["f@x.example"], BODY), None)
        .await
        .unwrap();
    assert_eq!(summary(&delivered), "0:d250");
    let expected = FollowUp::Redirect {
        content: None,
        options: ipc::api::deliverd::RedirectOptions {
            sender: Some("SRS0=there.example=me@x.example".parse().unwrap()),
            ..Default::default()
        },
        index: 0,
        to: vec![
            "me@far.example".parse().unwrap(),
            "you@far.example".parse().unwrap(),
        ],
        prefix: b"Delivered-To: f@x.example\r\n".as_slice().into(),
    };
    assert_eq!(delivered.follow_ups, [expected]);
    store.refuse.lock().unwrap().insert(1, FaultKind::Temporary);
    let delivered = delivery
        .deliver(call(&["both@x.example"], BODY), None)
        .await
        .unwrap();
    assert_eq!(
        (summary(&delivered).as_str(), delivered.follow_ups.len()),
        ("0:t451", 0)
    );
    store.refuse.lock().unwrap().insert(1, FaultKind::OverQuota);
    let delivered = delivery
        .deliver(call(&["both@x.example"], BODY), None)
        .await
        .unwrap();
    assert_eq!(
        (summary(&delivered).as_str(), delivered.follow_ups.len()),
        ("0:p552", 1)
    );
}

#[tokio::test]
async fn loops_are_ended() {
    let (delivery, store) = delivery(&[
        ("f@x.example", vec![forward("me@far.example")]),
        ("info@x.example", vec![account(1, "anna@x.example", None)]),
    ]);
    let back = format!("Received: x\r\nDelivered-To: F@X.example\r\n{BODY}");
    let delivered = delivery
        .deliver(call(&["f@x.example"], &back), None)
        .await
        .unwrap();
    assert_eq!(summary(&delivered), "0:p554");
    let resent = format!("delivered-to:  anna@x.example \r\n{BODY}");
    let delivered = delivery
        .deliver(call(&["info@x.example"], &resent), None)
        .await
        .unwrap();
    assert_eq!(summary(&delivered), "0:p554");
    let quoted = format!("{BODY}Delivered-To: anna@x.example\r\n");
    let delivered = delivery
        .deliver(call(&["info@x.example"], &quoted), None)
        .await
        .unwrap();
    assert_eq!(summary(&delivered), "0:d250", "only the header counts");
    assert_eq!(store.copies.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_large_body_goes_on_by_its_descriptor() {
    let (delivery, store) = delivery(&[("a@x.example", vec![account(1, "anna@x.example", None)])]);
    let path = std::env::temp_dir().join(format!("posthouse-deliverd-{}", std::process::id()));
    let body = format!("{BODY}{}", "a line\r\n".repeat(20_000));
    let mut file = std::fs::File::options()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    file.write_all(body.as_bytes()).unwrap();
    file.write_all(b"behind").unwrap();
    std::fs::remove_file(&path).unwrap();
    let len = body.len() as u64;
    let attached = Deliver {
        body: Body::Attached { len },
        ..call(&["a@x.example"], "")
    };
    let delivered = delivery
        .deliver(attached.clone(), Some(file))
        .await
        .unwrap();
    assert_eq!(summary(&delivered), "0:d250");
    let copies = std::mem::take(&mut *store.copies.lock().unwrap());
    assert_eq!(copies[0].message.body, Body::Attached { len });
    assert_eq!(copies[0].attached.as_deref(), Some(body.as_bytes()));
    assert_eq!(
        message::Parsed::decode(&copies[0].message.parsed)
            .unwrap()
            .size,
        len
    );
    assert!(delivery.deliver(attached, None).await.is_err());
}

#[tokio::test]
async fn copies_go_to_the_store_together_in_frames_that_hold_them() {
    let name = |n: u64| format!("u{n}@x.example");
    let table: Vec<(String, Vec<Target>)> = (1..=500)
        .map(|n| (name(n), vec![account(n, &name(n), None)]))
        .collect();
    let table: Vec<(&str, Vec<Target>)> = table
        .iter()
        .map(|(name, targets)| (name.as_str(), targets.clone()))
        .collect();
    let (delivery, store) = delivery(&table);
    let to: Vec<&str> = table.iter().map(|(name, _)| *name).collect();
    let delivered = delivery.deliver(call(&to[..50], BODY), None).await.unwrap();
    assert_eq!(delivered.outcomes.len(), 50);
    assert_eq!(store.calls.load(Ordering::SeqCst), 1);
    let long = format!("{BODY}{}", "a line\r\n".repeat(8000));
    let mut many = call(&to, &long);
    many.prefix = b"Received: by us\r\n".repeat(50).into();
    let delivered = delivery.deliver(many, None).await.unwrap();
    assert_eq!(delivered.outcomes.len(), 500);
    assert!(
        delivered
            .outcomes
            .iter()
            .all(|(_, outcome)| matches!(outcome, Outcome::Done(_)))
    );
    let calls = store.calls.load(Ordering::SeqCst) - 1;
    assert!((8..=12).contains(&calls), "{calls}");
}

#[tokio::test]
async fn a_store_that_is_away_defers_all() {
    let (delivery, store) = delivery(&[("a@x.example", vec![account(1, "anna@x.example", None)])]);
    store.refuse.lock().unwrap().insert(0, FaultKind::Temporary);
    assert_eq!(
        summary(
            &delivery
                .deliver(call(&["a@x.example"], BODY), None)
                .await
                .unwrap()
        ),
        "0:t451"
    );
}
