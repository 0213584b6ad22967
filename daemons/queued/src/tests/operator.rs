//! What the operator can do, and that it lasts.

use super::*;
use crate::table_control::Action;
use std::sync::atomic::Ordering::Relaxed;

async fn with_two_waiting(directory: &Path, fakes: &Arc<Fakes>) -> (Arc<Core>, QueueId, QueueId) {
    let patient = Config {
        retry_min: 1000,
        retry_max: 1000,
        local_retry_min: 1000,
        ..config()
    };
    let core = open(&patient, directory, fakes);
    fakes.answer("one@example.net", &[later(), done()]);
    fakes.answer("two@example.com", &[later(), done()]);
    let one = send(&core, "jane@example.org", &["one@example.net"]).await;
    let two = send(&core, "joe@example.org", &["two@example.com"]).await;
    until("the table", async || core.table.count.load(Relaxed) == 2).await;
    (core, one, two)
}

fn ids(ids: &[QueueId]) -> QueueFilter {
    QueueFilter {
        ids: ids.to_vec(),
        ..QueueFilter::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn holding_lasts_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = Arc::new(Fakes::default());
    let (core, one, two) = with_two_waiting(dir.path(), &fakes).await;
    assert_eq!(core.act(&ids(&[one]), Action::Hold).await.unwrap(), 1);
    close(core).await;
    let core = open(&config(), dir.path(), &fakes);
    assert_eq!(
        core.act(&QueueFilter::default(), Action::Retry)
            .await
            .unwrap(),
        2
    );
    until("the other one", async || fakes.relayed().len() == 1).await;
    assert_eq!(fakes.relayed()[0].id, two);
    let held = QueueFilter {
        held: Some(true),
        ..QueueFilter::default()
    };
    let listed = core.list(&held, None, 10).await.unwrap();
    assert_eq!((listed.len(), listed[0].id, listed[0].held), (1, one, true));
    assert_eq!(core.figures().await.unwrap().held, 1);
    assert_eq!(
        core.act(&held, Action::Release { early: false })
            .await
            .unwrap(),
        1
    );
    until("the held one", async || fakes.relayed().len() == 2).await;
    empty(&core).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_find_by_sender_and_recipient() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = Arc::new(Fakes::default());
    let (core, one, two) = with_two_waiting(dir.path(), &fakes).await;
    let find = async |sender: Option<&str>, recipient: Option<&str>| {
        let filter = QueueFilter {
            sender: sender.map(str::to_owned),
            recipient: recipient.map(str::to_owned),
            ..QueueFilter::default()
        };
        let found = core.list(&filter, None, 10).await.unwrap();
        found.into_iter().map(|entry| entry.id).collect::<Vec<_>>()
    };
    assert_eq!(find(None, None).await, [one, two]);
    assert_eq!(find(Some("Jane@example.org"), None).await, [one]);
    assert_eq!(find(Some("@EXAMPLE.org"), None).await, [one, two]);
    assert_eq!(find(Some("<>"), None).await, []);
    assert_eq!(find(None, Some("@example.com")).await, [two]);
    assert_eq!(find(None, Some("one@example.net")).await, [one]);
    assert_eq!(
        core.list(&QueueFilter::default(), Some(one), 10)
            .await
            .unwrap()
            .len(),
        1
    );
    let detail = core.show(one).await.unwrap();
    assert_eq!(
        detail.header.as_slice(),
        b"Received: by the test\r\nSubject: Hello\r\n"
    );
    assert!(detail.origin.contains("192.0.2.1"));
    assert_eq!(
        core.show(QueueId(1)).await.unwrap_err().kind,
        FaultKind::NotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn removing_with_and_without_a_report() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = Arc::new(Fakes::default());
    let (core, one, two) = with_two_waiting(dir.path(), &fakes).await;
    assert_eq!(core.remove(&ids(&[one]), false).await.unwrap(), 1);
    assert_eq!(core.remove(&ids(&[two]), true).await.unwrap(), 1);
    until("a report", async || fakes.local().len() == 1).await;
    assert_eq!(fakes.local()[0].to, "joe@example.org");
    assert!(
        fakes.local()[0]
            .text
            .contains("removed from the queue by the operator")
    );
    empty(&core).await;
    assert_eq!(core.table.count.load(Relaxed), 0);
    assert!(fakes.relayed().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn another_way() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = Arc::new(Fakes::default());
    let (core, one, _) = with_two_waiting(dir.path(), &fakes).await;
    let route = Some("smarthost.example:587".to_owned());
    assert_eq!(
        core.act(&ids(&[one]), Action::Reroute(route.clone()))
            .await
            .unwrap(),
        1
    );
    until("delivery", async || fakes.relayed().len() == 1).await;
    assert_eq!(
        (fakes.relayed()[0].id, fakes.relayed()[0].route.clone()),
        (one, route)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_can_be_held() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = Arc::new(Fakes::default());
    fakes.away.store(true, SeqCst);
    let core = open(&config(), dir.path(), &fakes);
    let id = send(&core, "jane@example.org", &["joe@example.org"]).await;
    assert_eq!(core.act(&ids(&[id]), Action::Hold).await.unwrap(), 1);
    until("the table", async || {
        core.table.count.load(Relaxed) == 1 && core.fresh().is_empty()
    })
    .await;
    fakes.away.store(false, SeqCst);
    let listed = core.list(&QueueFilter::default(), None, 10).await.unwrap();
    assert!(listed[0].held);
    assert_eq!(
        core.act(&ids(&[id]), Action::Release { early: false })
            .await
            .unwrap(),
        1
    );
    until("delivery", async || fakes.local().len() == 1).await;
}
