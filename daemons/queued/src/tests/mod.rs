//! The queue with deliverd, relayd and keyd played by the tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod deferred;
mod flow;
mod held;
mod moderation;
mod operator;
mod policies;
mod tables;
mod terms;

use crate::config::Config;
use crate::core::Core;
use crate::peers::Peers;
use async_trait::async_trait;
use ipc::api::deliverd::{Deliver, Delivered, FollowUp};
use ipc::api::queued::{Commit, Origin, QueueFilter, Right};
use ipc::api::relayd::{Relay, Relayed, StsPolicy};
use ipc::{Fault, FaultKind};
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use types::{
    Address, Body, BodyType, Enhanced, Envelope, Grant, Notify, Outcome, QueueId, Recipient, Role,
    Route, Status, Terms, TraceId,
};

/// A message that a fake took.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) id: QueueId,
    pub(super) sender: String,
    pub(super) to: String,
    pub(super) text: String,
    pub(super) signed: bool,
    pub(super) route: Option<String>,
    /// With a time limit.
    pub(super) by: bool,
}

/// deliverd, relayd and keyd.
#[derive(Default)]
pub(super) struct Fakes {
    /// What an address answers, by its text; the last answer stays. Those without one take everything.
    pub(super) answers: Mutex<HashMap<String, Vec<Outcome>>>,
    /// Aliases to elsewhere.
    pub(super) redirects: Mutex<HashMap<String, Vec<Address>>>,
    pub(super) local: Mutex<Vec<Taken>>,
    pub(super) relayed: Mutex<Vec<Taken>>,
    pub(super) attempts: AtomicUsize,
    pub(super) down: AtomicBool,
    pub(super) dsn_passed: AtomicBool,
    pub(super) by_passed: AtomicBool,
    /// What relayd remembers of all domains, and what it was told of them.
    pub(super) policy: Mutex<Option<StsPolicy>>,
    pub(super) carried: Mutex<Vec<Option<StsPolicy>>>,
    pub(super) away: AtomicBool,
    pub(super) verified: AtomicUsize,
    /// Mailing lists, whose posts wait for the owners until they are let in.
    pub(super) lists: Mutex<Vec<String>>,
    /// What comes to an address is an owner's decision: of which list, on what, and which.
    pub(super) decisions: Mutex<HashMap<String, (String, QueueId, bool)>>,
}

impl Fakes {
    pub(super) fn answer(&self, address: &str, outcomes: &[Outcome]) {
        self.answers
            .lock()
            .unwrap()
            .insert(address.to_owned(), outcomes.to_vec());
    }

    fn outcome(&self, address: &str) -> Outcome {
        let mut answers = self.answers.lock().unwrap();
        match answers.get_mut(address) {
            Some(list) if list.len() > 1 => list.remove(0),
            Some(list) => list[0].clone(),
            None => done(),
        }
    }

    fn of_list(&self, call: &Deliver, index: u16, to: &str) -> Option<FollowUp> {
        if let Some((list, post, accept)) = self.decisions.lock().unwrap().get(to).cloned() {
            return Some(FollowUp::Decide {
                index,
                list: list.parse().unwrap(),
                post,
                accept,
                owner: "owner@example.org".parse().unwrap(),
                done: b"Subject: done\r\n\r\n".to_vec().into(),
                gone: b"Subject: gone\r\n\r\n".to_vec().into(),
            });
        }
        let held = !call.let_in && self.lists.lock().unwrap().iter().any(|list| list == to);
        held.then(|| FollowUp::Hold {
            index,
            list: to.parse().unwrap(),
            why: "says the test".to_owned(),
            seconds: 1000,
            quiet: to.starts_with("quiet"),
            recipients: owners().len() as u64,
            content: NOTICE.len() as u64,
        })
    }

    pub(super) fn local(&self) -> Vec<Taken> {
        self.local.lock().unwrap().clone()
    }

    pub(super) fn relayed(&self) -> Vec<Taken> {
        self.relayed.lock().unwrap().clone()
    }
}

/// What owners are told of a post, and who they are.
const NOTICE: &[u8] = b"Subject: a post waits\r\n\r\n";

fn owners() -> Vec<u8> {
    let owners: Vec<Address> = vec!["owner@example.org".parse().unwrap()];
    postcard::to_stdvec(&owners).unwrap()
}

pub(super) fn status(code: u16, enhanced: Enhanced) -> Status {
    Status {
        code,
        enhanced,
        text: "says the test".to_owned(),
        host: None,
    }
}

pub(super) fn done() -> Outcome {
    Outcome::Done(status(250, Enhanced(2, 0, 0)))
}

pub(super) fn later() -> Outcome {
    Outcome::Temporary(status(451, Enhanced(4, 2, 0)))
}

pub(super) fn never() -> Outcome {
    Outcome::Permanent(status(550, Enhanced(5, 1, 1)))
}

fn text(prefix: &[u8], body: &Body, file: Option<File>) -> String {
    let mut octets = prefix.to_vec();
    match (body, file) {
        (Body::Inline(body), None) => octets.extend_from_slice(body),
        (Body::Attached { len }, Some(file)) => {
            file.take(*len).read_to_end(&mut octets).unwrap();
        }
        other => panic!("{other:?}"),
    }
    String::from_utf8_lossy(&octets).into_owned()
}

#[async_trait]
impl Peers for Fakes {
    async fn deliver(&self, call: &Deliver, body: Option<File>) -> Result<Delivered, Fault> {
        self.attempts.fetch_add(1, SeqCst);
        if self.away.load(SeqCst) {
            return Err(Fault::new(FaultKind::Temporary, "deliverd is away"));
        }
        let text = text(&call.prefix, &call.body, body);
        let mut delivered = Delivered {
            outcomes: Vec::new(),
            follow_ups: Vec::new(),
        };
        for recipient in &call.recipients {
            let to = recipient.address.to_string();
            let redirect = self.redirects.lock().unwrap().get(&to).cloned();
            if let Some(targets) = redirect {
                delivered.follow_ups.push(FollowUp::Redirect {
                    content: None,
                    options: Default::default(),
                    index: recipient.index,
                    to: targets,
                    prefix: format!("Delivered-To: {to}\r\n").into_bytes().into(),
                });
                delivered.outcomes.push((recipient.index, done()));
                continue;
            }
            if let Some(follow_up) = self.of_list(call, recipient.index, &to) {
                delivered.follow_ups.push(follow_up);
                delivered.outcomes.push((recipient.index, done()));
                continue;
            }
            let outcome = self.outcome(&to);
            if matches!(outcome, Outcome::Done(_)) {
                self.local.lock().unwrap().push(Taken {
                    id: call.id,
                    sender: call
                        .sender
                        .as_ref()
                        .map(ToString::to_string)
                        .unwrap_or_default(),
                    to,
                    text: text.clone(),
                    signed: false,
                    route: None,
                    by: false,
                });
            }
            delivered.outcomes.push((recipient.index, outcome));
        }
        Ok(delivered)
    }

    async fn deliver_posts(
        &self,
        call: &Deliver,
        body: Option<File>,
    ) -> Result<(Delivered, Vec<File>), Fault> {
        let delivered = self.deliver(call, body).await?;
        let held = |one: &&FollowUp| matches!(one, FollowUp::Hold { .. });
        let file = |_| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&owners()).unwrap();
            file.write_all(NOTICE).unwrap();
            file
        };
        let files = delivered.follow_ups.iter().filter(held).map(file).collect();
        Ok((delivered, files))
    }

    async fn relay(&self, call: &Relay, body: Option<File>) -> Result<Relayed, Fault> {
        self.attempts.fetch_add(1, SeqCst);
        self.carried.lock().unwrap().push(call.policy.clone());
        let text = text(&call.prefix, &call.body, body);
        let mut relayed = Relayed {
            outcomes: Vec::new(),
            dsn_passed: self.dsn_passed.load(SeqCst),
            host: Some("mx.example.net".to_owned()),
            destination_down: self.down.load(SeqCst),
            by_passed: self.by_passed.load(SeqCst),
            policy: self.policy.lock().unwrap().clone(),
        };
        for recipient in &call.recipients {
            assert_eq!(recipient.address.domain(), call.domain);
            let to = recipient.address.to_string();
            let outcome = if relayed.destination_down {
                later()
            } else {
                self.outcome(&to)
            };
            if matches!(outcome, Outcome::Done(_)) {
                self.relayed.lock().unwrap().push(Taken {
                    id: call.id,
                    sender: call
                        .sender
                        .as_ref()
                        .map(ToString::to_string)
                        .unwrap_or_default(),
                    to,
                    text: text.clone(),
                    signed: call.sign,
                    route: call.route.clone(),
                    by: call.terms.by.is_some(),
                });
            }
            relayed.outcomes.push((recipient.index, outcome));
        }
        Ok(relayed)
    }

    async fn verify(&self, _: TraceId, grant: &Grant) -> Result<bool, Fault> {
        self.verified.fetch_add(1, SeqCst);
        Ok(grant.mac.as_slice() == b"genuine")
    }
}

/// Impatient, and with room anywhere.
pub(super) fn config() -> Config {
    Config {
        min_free: 0,
        segment_size: 64 * 1024,
        retry_min: 0,
        retry_max: 0,
        local_retry_min: 0,
        ..Config::default()
    }
}

pub(super) fn open(config: &Config, directory: &Path, fakes: &Arc<Fakes>) -> Arc<Core> {
    let peers: Arc<dyn Peers> = Arc::clone(fakes) as Arc<dyn Peers>;
    let core = Core::open(config.clone(), directory, "mx.example.org", peers).unwrap();
    core.start();
    core
}

/// As killing it does: nothing is written any more. The directory's lock goes with the last task.
pub(super) async fn close(core: Arc<Core>) {
    core.close().await;
    core.table.db().await.unwrap().close().await;
}

pub(super) fn notify(text: &str) -> Notify {
    Notify {
        success: text.contains("SUCCESS"),
        failure: text.contains("FAILURE"),
        delay: text.contains("DELAY"),
        explicit: true,
    }
}

pub(super) fn mail(core: &Core, from: &str, to: &[&str], right: Right) -> Commit {
    let recipients = to.iter().map(|address| {
        let address: Address = address.parse().unwrap();
        let route = if address.domain() == "example.org" {
            Route::Local
        } else {
            Route::Remote
        };
        Recipient {
            address,
            orcpt: None,
            notify: Notify::default(),
            route,
        }
    });
    Commit {
        id: core.reserve(1).unwrap(),
        trace: TraceId(1),
        origin: Origin {
            right,
            listener: "mx".to_owned(),
            client: "192.0.2.1".to_owned(),
        },
        envelope: Envelope {
            sender: from.parse().ok(),
            ret: None,
            envid: None,
            body: BodyType::SevenBit,
            smtputf8: false,
            require_tls: false,
            terms: Terms::default(),
            recipients: recipients.collect(),
        },
        prefix: b"Received: by the test\r\n".to_vec().into(),
        body: Body::Inline(b"Subject: Hello\r\n\r\nText.\r\n".to_vec().into()),
        held: None,
    }
}

pub(super) async fn commit(core: &Arc<Core>, call: Commit) -> Result<(), Fault> {
    let caller = if call.origin.right == Right::Operator {
        Role::Posthouse
    } else {
        Role::Smtpd
    };
    core.commit(caller, 1, call).await
}

/// Sends one as the operator.
pub(super) async fn send(core: &Arc<Core>, from: &str, to: &[&str]) -> QueueId {
    let call = mail(core, from, to, Right::Operator);
    let id = call.id;
    commit(core, call).await.unwrap();
    id
}

/// Waits for a condition, not for a time.
pub(super) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let begin = Instant::now();
    while !condition().await {
        assert!(begin.elapsed() < Duration::from_secs(20), "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(super) async fn empty(core: &Core) {
    until("an empty queue", async || {
        core.list(&QueueFilter::default(), None, 10)
            .await
            .unwrap()
            .is_empty()
    })
    .await;
}
