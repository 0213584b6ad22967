//! Mail that is to be later, or not too late.

use super::*;
use crate::core::now;
use crate::table_control::Action;
use std::sync::atomic::Ordering::Relaxed;
use types::{ByMode, DeliverBy, Release, Terms};

async fn send_with(core: &Arc<Core>, to: &[&str], terms: Terms, wishes: Option<&str>) -> QueueId {
    let mut call = mail(core, "jane@example.org", to, Right::Operator);
    call.envelope.terms = terms;
    if let Some(wishes) = wishes {
        for recipient in &mut call.envelope.recipients {
            recipient.notify = notify(wishes);
        }
    }
    let id = call.id;
    commit(core, call).await.unwrap();
    id
}

fn released(at: u64) -> Terms {
    Terms {
        release: Some(Release { at, interval: None }),
        ..Terms::default()
    }
}

fn by(seconds: i64, mode: ByMode, trace: bool) -> Terms {
    Terms {
        by: Some(DeliverBy {
            deadline: now().saturating_add_signed(seconds),
            mode,
            trace,
        }),
        ..Terms::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_message_leaves_memory_and_waits_for_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = Arc::new(Fakes::default());
    let core = open(&config(), dir.path(), &fakes);
    let long = send_with(
        &core,
        &["jane@example.org", "one@example.net"],
        released(now() + 5000),
        None,
    )
    .await;
    until("the table", async || {
        core.table.count.load(Relaxed) == 1 && core.fresh().is_empty()
    })
    .await;
    // It survives, and is still not tried.
    close(core).await;
    let core = open(&config(), dir.path(), &fakes);
    send(&core, "jane@example.org", &["two@example.net"]).await;
    until("the other", async || fakes.relayed().len() == 1).await;
    let list = async || core.list(&QueueFilter::default(), None, 10).await.unwrap();
    until("only it", async || list().await.len() == 1).await;
    let listed = list().await;
    let release = listed[0].terms.release.unwrap();
    assert!(
        listed[0]
            .recipients
            .iter()
            .all(|one| one.next == release.at)
    );
    assert!(listed[0].recipients[0].expires >= release.at + core.config.expire);
    // An operator's word about all does not concern it; one about it does.
    core.act(&QueueFilter::default(), Action::Retry)
        .await
        .unwrap();
    send(&core, "jane@example.org", &["three@example.net"]).await;
    until("the next", async || fakes.relayed().len() == 2).await;
    assert!(fakes.local().is_empty());
    let filter = QueueFilter {
        ids: vec![long],
        ..QueueFilter::default()
    };
    core.act(&filter, Action::Release { early: true })
        .await
        .unwrap();
    until("it", async || {
        fakes.relayed().len() == 3 && fakes.local().len() == 1
    })
    .await;
    empty(&core).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_released_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = Arc::new(Fakes::default());
    let core = open(&config(), dir.path(), &fakes);
    let at = now() + 2;
    send_with(&core, &["jane@example.org"], released(at), None).await;
    until("delivery", async || fakes.local().len() == 1).await;
    assert!(now() >= at);
    // What is over already is not held at all.
    send_with(&core, &["jane@example.org"], released(now() - 10), None).await;
    until("delivery", async || fakes.local().len() == 2).await;
    empty(&core).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_delivered_in_time_is_returned() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = Arc::new(Fakes::default());
    let slow = Config {
        retry_min: 1000,
        retry_max: 1000,
        ..config()
    };
    let core = open(&slow, dir.path(), &fakes);
    fakes.answer("late@example.net", &[later()]);
    send_with(
        &core,
        &["late@example.net"],
        by(1, ByMode::Return, false),
        None,
    )
    .await;
    until("a report", async || fakes.local().len() == 1).await;
    let text = fakes.local()[0].text.clone();
    assert!(
        text.contains("Action: failed") && text.contains("Status: 5.4.7"),
        "{text}"
    );
    assert!(text.contains("Deliver-By-Date: "), "{text}");
    empty(&core).await;
    // Over before the first attempt: none is made.
    let before = fakes.attempts.load(SeqCst);
    send_with(
        &core,
        &["soon@example.net"],
        by(-1, ByMode::Return, false),
        Some("NEVER"),
    )
    .await;
    empty(&core).await;
    assert_eq!(fakes.attempts.load(SeqCst), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn or_its_sender_is_told_and_it_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = Arc::new(Fakes::default());
    let slow = Config {
        retry_min: 1000,
        retry_max: 1000,
        ..config()
    };
    let core = open(&slow, dir.path(), &fakes);
    fakes.answer("late@example.net", &[later()]);
    fakes.answer("mute@example.net", &[later()]);
    let limit = by(1, ByMode::Notify, false);
    send_with(&core, &["mute@example.net"], limit, Some("NEVER")).await;
    // RFC 2852 4.1.3: who named reports and not DELAY does not want to know.
    send_with(&core, &["mute@example.net"], limit, Some("SUCCESS")).await;
    send_with(&core, &["late@example.net"], limit, None).await;
    until("a report", async || fakes.local().len() == 1).await;
    let text = fakes.local()[0].text.clone();
    assert!(
        text.contains("Action: delayed") && text.contains("late@example.net"),
        "{text}"
    );
    // The report goes when it is known to be delivered.
    until("all three, which are still tried", async || {
        let waiting = core.list(&QueueFilter::default(), None, 10).await.unwrap();
        waiting.len() == 3
    })
    .await;
    assert_eq!(fakes.local().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn hand_overs_are_reported_as_the_time_limit_wants() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = Arc::new(Fakes::default());
    let core = open(&config(), dir.path(), &fakes);
    fakes.dsn_passed.store(true, SeqCst);
    // The next host does not know the extension.
    let limit = by(900, ByMode::Notify, false);
    send_with(&core, &["one@example.net"], limit, Some("FAILURE")).await;
    until("a report", async || fakes.local().len() == 1).await;
    let text = fakes.local()[0].text.clone();
    assert!(text.contains("Action: relayed"), "{text}");
    // It does: only with by-trace.
    fakes.by_passed.store(true, SeqCst);
    send_with(&core, &["two@example.net"], limit, None).await;
    let traced = by(900, ByMode::Return, true);
    send_with(&core, &["three@example.net"], traced, Some("NEVER")).await;
    send_with(&core, &["four@example.net"], traced, None).await;
    until("a report", async || fakes.local().len() == 2).await;
    assert!(fakes.local()[1].text.contains("four@example.net"));
    empty(&core).await;
    assert_eq!(fakes.local().len(), 2);
    assert!(
        fakes.relayed().iter().all(|taken| taken.by),
        "relayd is told of the limit"
    );
}
