//! Mail that a filter wants held until an operator releases it.

use super::*;
use crate::config::Ack;
use crate::core::now;
use crate::table_control::Action;
use std::sync::atomic::Ordering::Relaxed;
use types::Held;

fn because() -> Held {
    Held::new("rspamd", "smells")
}

async fn send_held(core: &Arc<Core>, to: &[&str]) -> QueueId {
    let mut call = mail(core, "jane@example.org", to, Right::Operator);
    call.held = Some(because());
    let id = call.id;
    commit(core, call).await.unwrap();
    id
}

fn only(id: QueueId) -> QueueFilter {
    QueueFilter {
        ids: vec![id],
        ..QueueFilter::default()
    }
}

const RELEASE: Action = Action::Release { early: false };

/// What is there of a message in the queue that is held.
async fn hold_of(core: &Arc<Core>, id: QueueId) -> Option<Held> {
    let listed = core.list(&only(id), None, 10).await.unwrap();
    let entry = listed.first().filter(|entry| entry.held)?;
    assert_eq!(core.show(id).await.unwrap().entry.hold, entry.hold);
    entry.hold.clone()
}

/// Held over a restart, longer than mail waits, and then tried.
async fn waits_for_the_operator(ack: Ack) {
    let dir = tempfile::tempdir().unwrap();
    let fakes = Arc::new(Fakes::default());
    // Whatever waits at all is over its time at once.
    let config = Config {
        ack,
        expire: 0,
        delay_warning: 0,
        ..config()
    };
    let core = open(&config, dir.path(), &fakes);
    core.table.db().await.unwrap();
    let to = ["jane@example.org", "one@example.net"];
    let one = send_held(&core, &to).await;
    let two = send_held(&core, &to).await;
    until("the table", async || {
        core.table.count.load(Relaxed) == 2 && core.fresh().is_empty() && core.memory() == 0
    })
    .await;
    assert_eq!(core.loaded.load(Relaxed), 0);
    assert_eq!(hold_of(&core, one).await, Some(because()));
    close(core).await;
    let core = open(&config, dir.path(), &fakes);
    core.table.db().await.unwrap();
    core.act(&QueueFilter::default(), Action::Retry)
        .await
        .unwrap();
    // What comes later goes on meanwhile, and the loader has looked at the table.
    send(&core, "jane@example.org", &["two@example.net"]).await;
    until("the other", async || fakes.relayed().len() == 1).await;
    assert_eq!(fakes.attempts.load(SeqCst), 1);
    assert_eq!(hold_of(&core, one).await, Some(because()));
    assert_eq!(core.figures().await.unwrap().held, 2);
    assert_eq!(core.act(&only(one), RELEASE).await.unwrap(), 1);
    until("it", async || {
        fakes.relayed().len() == 2 && fakes.local().len() == 1
    })
    .await;
    assert!(fakes.local()[0].id == one && fakes.relayed()[1].id == one);
    assert_eq!(hold_of(&core, two).await, Some(because()));
    assert_eq!(core.remove(&only(two), false).await.unwrap(), 1);
    empty(&core).await;
    assert_eq!(fakes.attempts.load(SeqCst), 3, "no attempt, and no report");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_for_the_operator() {
    waits_for_the_operator(Ack::Journal).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_where_the_table_has_the_promise() {
    waits_for_the_operator(Ack::Sql).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_released_message_that_fails_is_given_up_in_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = Arc::new(Fakes::default());
    let config = Config {
        expire: 0,
        ..config()
    };
    let core = open(&config, dir.path(), &fakes);
    fakes.answer("one@example.net", &[later()]);
    let id = send_held(&core, &["one@example.net"]).await;
    until("the table", async || core.table.count.load(Relaxed) == 1).await;
    core.act(&only(id), RELEASE).await.unwrap();
    until("a report", async || fakes.local().len() == 1).await;
    let report = &fakes.local()[0];
    assert_eq!(report.to, "jane@example.org");
    assert!(report.text.contains("451 4.2.0"), "{}", report.text);
    empty(&core).await;
}

/// The operator may speak while it is still in the journal.
#[tokio::test(flavor = "multi_thread")]
async fn on_its_way_into_the_table_it_heeds_the_operator() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = Arc::new(Fakes::default());
    let core = open(&config(), dir.path(), &fakes);
    let mut places = Vec::new();
    for _ in 0..crate::core::PARKS {
        places.push(core.way_into_table().await);
    }
    let released = send_held(&core, &["one@example.net"]).await;
    let removed = send_held(&core, &["two@example.net"]).await;
    let stays = send_held(&core, &["three@example.net"]).await;
    let began = now();
    assert_eq!(core.fresh().len(), 3);
    for id in [released, removed, stays] {
        assert_eq!(hold_of(&core, id).await, Some(because()));
    }
    assert_eq!(core.act(&only(released), RELEASE).await.unwrap(), 1);
    assert_eq!(core.remove(&only(removed), false).await.unwrap(), 1);
    assert_eq!(hold_of(&core, released).await, None);
    drop(places);
    until("the released one", async || fakes.relayed().len() == 1).await;
    until("the removed one to be gone", async || {
        core.list(&only(removed), None, 1).await.unwrap().is_empty()
    })
    .await;
    until("the table", async || core.fresh().is_empty()).await;
    assert_eq!(fakes.relayed()[0].id, released);
    assert_eq!(hold_of(&core, stays).await, Some(because()));
    assert_eq!(fakes.attempts.load(SeqCst), 1);
    assert!(now() < began + 60);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reason_has_its_bounds() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = Arc::new(Fakes::default());
    let core = open(&config(), dir.path(), &fakes);
    let mut call = mail(&core, "", &["jane@example.org"], Right::Incoming);
    call.held = Some(Held {
        by: "x".to_owned(),
        reason: "y".repeat(Held::REASON_MAX + 1),
    });
    let fault = commit(&core, call.clone()).await.unwrap_err();
    assert_eq!(fault.kind, FaultKind::Invalid);
    call.held = Some(Held::new(&"\u{e4}".repeat(99), &"y\n".repeat(999)));
    let longest = call.held.clone().unwrap();
    assert!(longest.by.len() == Held::BY_MAX && longest.reason.len() == Held::REASON_MAX);
    commit(&core, call).await.unwrap();
    // A page of them fits into an answer.
    for _ in 1..200 {
        let mut call = mail(&core, "", &["jane@example.org"], Right::Incoming);
        call.held = Some(longest.clone());
        commit(&core, call).await.unwrap();
    }
    let listed = core.list(&QueueFilter::default(), None, 200).await.unwrap();
    assert!(listed.iter().all(|entry| entry.hold.is_some()));
    let octets = postcard::to_stdvec(&listed).unwrap().len();
    assert!(listed.len() == 200 && octets < 100 * 1024, "{octets}");
    assert_eq!(
        core.show(listed[0].id).await.unwrap().entry.hold,
        Some(longest)
    );
}
