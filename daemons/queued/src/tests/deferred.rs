//! What does not go at once.

use super::*;
use std::sync::atomic::Ordering::Relaxed;

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_for_now_waits_in_the_table_and_arrives() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = Arc::new(Fakes::default());
    let core = open(&config(), dir.path(), &fakes);
    fakes.answer("late@example.org", &[later(), later(), later(), done()]);
    fakes.answer("late@example.net", &[later(), later(), done()]);
    send(
        &core,
        "a@example.com",
        &["late@example.org", "now@example.org", "late@example.net"],
    )
    .await;
    until("all", async || {
        fakes.local().len() == 2 && fakes.relayed().len() == 1
    })
    .await;
    assert_eq!(
        fakes
            .local()
            .iter()
            .filter(|taken| taken.to == "now@example.org")
            .count(),
        1
    );
    empty(&core).await;
    assert_eq!(core.loaded.load(Relaxed), 0);
    assert_eq!(core.table.count.load(Relaxed), 0);
    assert_eq!(core.memory(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_waits_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = Arc::new(Fakes::default());
    let patient = Config {
        retry_min: 1000,
        retry_max: 1000,
        local_retry_min: 1000,
        ..config()
    };
    let core = open(&patient, dir.path(), &fakes);
    fakes.answer("late@example.net", &[later()]);
    let id = send(
        &core,
        "a@example.com",
        &["now@example.org", "late@example.net"],
    )
    .await;
    until("the table", async || core.table.count.load(Relaxed) == 1).await;
    let listed = core.list(&QueueFilter::default(), None, 10).await.unwrap();
    assert_eq!((listed.len(), listed[0].id, listed[0].pending), (1, id, 1));
    let waiting = &listed[0].recipients[0];
    assert_eq!(
        (
            waiting.recipient.address.to_string().as_str(),
            waiting.attempts
        ),
        ("late@example.net", 1)
    );
    assert_eq!(waiting.last.as_ref().unwrap().code, 451);
    close(core).await;
    let core = open(&patient, dir.path(), &fakes);
    fakes.answer("late@example.net", &[done()]);
    assert_eq!(
        core.act(&QueueFilter::default(), crate::table_control::Action::Retry)
            .await
            .unwrap(),
        1
    );
    until("delivery", async || fakes.relayed().len() == 1).await;
    empty(&core).await;
    assert_eq!(fakes.local().len(), 1, "the other one has it only once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_destination_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = Arc::new(Fakes::default());
    let core = open(
        &Config {
            retry_min: 1,
            retry_max: 1,
            ..config()
        },
        dir.path(),
        &fakes,
    );
    fakes.down.store(true, SeqCst);
    for count in 0..40 {
        send(&core, "a@example.com", &[&format!("x{count}@example.net")]).await;
    }
    until("the table", async || {
        core.table.count.load(Relaxed) == 40 && core.fresh().is_empty()
    })
    .await;
    let before = fakes.attempts.load(SeqCst);
    assert!(before <= 8, "{before} attempts at a dead host");
    let figures = core.figures().await.unwrap();
    assert_eq!(
        (figures.messages, figures.destinations[0].clone()),
        (40, ("example.net".to_owned(), 40, 0))
    );
    // One probe at a time, and only when its time has come.
    until("two probes", async || {
        fakes.attempts.load(SeqCst) >= before + 2
    })
    .await;
    assert_eq!(fakes.relayed().len(), 0);
    fakes.down.store(false, SeqCst);
    until("all", async || fakes.relayed().len() == 40).await;
    empty(&core).await;
    let mut to: Vec<String> = fakes
        .relayed()
        .iter()
        .map(|taken| taken.to.clone())
        .collect();
    to.sort();
    to.dedup();
    assert_eq!(to.len(), 40, "none twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_is_given_up_with_a_report() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = Arc::new(Fakes::default());
    let core = open(
        &Config {
            expire: 0,
            ..config()
        },
        dir.path(),
        &fakes,
    );
    fakes.answer("late@example.net", &[later()]);
    send(&core, "jane@example.org", &["late@example.net"]).await;
    until("a report", async || fakes.local().len() == 1).await;
    assert!(fakes.local()[0].text.contains("Status: 5.4.7"));
    empty(&core).await;
    // Also what nobody tries: its destination is dead.
    close(core).await;
    let slow = Config {
        expire: 1,
        retry_min: 1000,
        retry_max: 1000,
        ..config()
    };
    let core = open(&slow, dir.path(), &fakes);
    fakes.down.store(true, SeqCst);
    send(&core, "jane@example.org", &["one@example.net"]).await;
    send(&core, "jane@example.org", &["two@example.net"]).await;
    until("two reports", async || fakes.local().len() == 3).await;
    empty(&core).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delay_is_reported_once() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = Arc::new(Fakes::default());
    let config = Config {
        delay_warning: 1,
        retry_min: 1,
        retry_max: 1,
        ..config()
    };
    let core = open(&config, dir.path(), &fakes);
    fakes.answer("late@example.net", &[later()]);
    send(&core, "jane@example.org", &["late@example.net"]).await;
    until("a report", async || fakes.local().len() == 1).await;
    let text = fakes.local()[0].text.clone();
    assert!(
        text.contains("Action: delayed") && text.contains("Will-Retry-Until: "),
        "{text}"
    );
    let before = fakes.attempts.load(SeqCst);
    until("more attempts", async || {
        fakes.attempts.load(SeqCst) > before + 1
    })
    .await;
    assert_eq!(fakes.local().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn deliverd_may_be_away() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = Arc::new(Fakes::default());
    fakes.away.store(true, SeqCst);
    let core = open(&config(), dir.path(), &fakes);
    send(&core, "a@example.com", &["jane@example.org"]).await;
    until("attempts", async || fakes.attempts.load(SeqCst) > 1).await;
    fakes.away.store(false, SeqCst);
    until("delivery", async || fakes.local().len() == 1).await;
    empty(&core).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_before_their_first_attempt_go_to_the_table() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = Arc::new(Fakes::default());
    fakes.away.store(true, SeqCst);
    let config = Config {
        max_fresh: 5,
        local_concurrency: 2,
        ..config()
    };
    let core = open(&config, dir.path(), &fakes);
    for _ in 0..9 {
        send(&core, "a@example.com", &["jane@example.org"]).await;
    }
    until("the table", async || core.table.count.load(Relaxed) >= 3).await;
    fakes.away.store(false, SeqCst);
    until("all", async || fakes.local().len() == 9).await;
    empty(&core).await;
}
