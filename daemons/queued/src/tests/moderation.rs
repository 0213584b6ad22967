//! Posts that wait for the owners of a list.

use super::*;
use crate::table_control::Action;
use ipc::api::queued::{Decision, QueueEntry};

const LIST: &str = "list@example.org";

fn fakes() -> Arc<Fakes> {
    let fakes = Fakes::default();
    let lists = [LIST, "other@example.org", "quiet@example.org"];
    *fakes.lists.lock().unwrap() = lists.map(str::to_owned).to_vec();
    Arc::new(fakes)
}

fn list(text: &str) -> Address {
    text.parse().unwrap()
}

async fn held(core: &Core) -> Vec<QueueEntry> {
    let all = core.list(&QueueFilter::default(), None, 200).await.unwrap();
    all.into_iter().filter(|one| one.post.is_some()).collect()
}

/// Posts that are held and in the table, where they can be decided on.
async fn in_table(core: &Core, count: usize) -> Vec<QueueEntry> {
    until("held posts", async || {
        let on_its_way = core.fresh().len();
        let held = held(core).await;
        // The journal has let go of them.
        on_its_way == 0 && held.len() == count && held.iter().all(|one| one.node.is_empty())
    })
    .await;
    held(core).await
}

/// What came to an address, by its first line.
fn came(fakes: &Fakes, to: &str) -> Vec<String> {
    let local = fakes.local().into_iter().filter(|one| one.to == to);
    local
        .map(|one| one.text.lines().next().unwrap_or_default().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_post_is_held_and_let_in_once() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = fakes();
    let core = open(&config(), dir.path(), &fakes);
    let to = [LIST, "jane@example.org"];
    let id = send(&core, "who@example.org", &to).await;
    let waiting = in_table(&core, 1).await;
    let (post, shown) = (&waiting[0], &waiting[0].recipients[0]);
    assert!(post.held && post.post == Some(id) && post.pending == 1);
    let last = shown.last.as_ref().unwrap();
    assert!(
        last.text.contains("owners of the list: says the test"),
        "{last}"
    );
    assert!(shown.expires.abs_diff(post.arrived + 1000) < 5);
    until("the notice", async || {
        came(&fakes, "owner@example.org").len() == 1
    })
    .await;
    assert_eq!(came(&fakes, "jane@example.org").len(), 1);
    // Neither time nor an operator's other words let it in.
    let all = QueueFilter::default();
    for action in [Action::Retry, Action::Release { early: true }, Action::Hold] {
        assert_eq!(core.act(&all, action).await.unwrap(), 0);
    }
    let decide = |address: &str, id, what| {
        let (core, address) = (Arc::clone(&core), list(address));
        async move { core.decide(&address, id, what).await.unwrap() }
    };
    assert!(!decide("other@example.org", id, Decision::Accept).await);
    assert!(!decide(LIST, QueueId(1), Decision::Accept).await);
    assert_eq!(held(&core).await.len(), 1);
    let both = tokio::join!(
        decide("LIST@example.org", id, Decision::Accept),
        decide(LIST, post.id, Decision::Accept)
    );
    assert!(both.0 != both.1, "{both:?}");
    assert!(!decide(LIST, id, Decision::Reject).await);
    until("the post", async || came(&fakes, LIST).len() == 1).await;
    empty(&core).await;
    let posts = fakes.local();
    let posted = posts.iter().find(|one| one.to == LIST).unwrap();
    assert!(posted.text.ends_with("Subject: Hello\r\n\r\nText.\r\n"));
    assert_eq!(posted.sender, "who@example.org");
    assert_eq!(came(&fakes, "who@example.org").len(), 0, "no report");
    close(core).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusing_tells_the_sender_and_discarding_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = fakes();
    let core = open(&config(), dir.path(), &fakes);
    let mut ids = Vec::new();
    for to in [LIST, LIST, "quiet@example.org"] {
        ids.push(send(&core, "who@example.org", &[to]).await);
    }
    in_table(&core, 3).await;
    for (to, id, decision) in [
        (LIST, ids[0], Decision::Discard),
        ("quiet@example.org", ids[2], Decision::Reject),
        (LIST, ids[1], Decision::Reject),
    ] {
        assert!(core.decide(&list(to), id, decision).await.unwrap());
    }
    empty(&core).await;
    let reports: Vec<Taken> = fakes.local();
    let reports: Vec<&Taken> = reports
        .iter()
        .filter(|one| one.to == "who@example.org")
        .collect();
    assert_eq!(reports.len(), 1);
    assert!(
        reports[0]
            .text
            .contains("550 5.7.2 <list@example.org>: an owner of the list has refused")
    );
    assert!(came(&fakes, LIST).is_empty());
    close(core).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_decides_on_is_given_up_with_a_report() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = fakes();
    let core = open(&config(), dir.path(), &fakes);
    send(&core, "who@example.org", &[LIST]).await;
    let end = in_table(&core, 1).await[0].recipients[0].expires;
    assert!(!core.give_up_posts(end - 1).await.unwrap());
    assert_eq!(held(&core).await.len(), 1);
    core.give_up_posts(end).await.unwrap();
    empty(&core).await;
    let report = fakes
        .local()
        .into_iter()
        .find(|one| one.to == "who@example.org")
        .unwrap();
    assert!(
        report.text.contains("have not let the post in in time"),
        "{}",
        report.text
    );
    close(core).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_post_lasts_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = fakes();
    let core = open(&config(), dir.path(), &fakes);
    let mut call = mail(&core, "who@example.org", &[LIST], Right::Operator);
    let (slot, mut file) = core.open_spool(1, 0).unwrap();
    let large = [b"Subject: x\r\n\r\n".as_slice(), &vec![b'x'; 300_000]].concat();
    file.write_all(&large).unwrap();
    call.body = Body::Slot {
        slot,
        len: large.len() as u64,
    };
    let id = call.id;
    commit(&core, call).await.unwrap();
    in_table(&core, 1).await;
    close(core).await;
    let core = open(&config(), dir.path(), &fakes);
    in_table(&core, 1).await;
    assert!(
        core.decide(&list(LIST), id, Decision::Accept)
            .await
            .unwrap()
    );
    close(core).await;
    let core = open(&config(), dir.path(), &fakes);
    until("the post", async || came(&fakes, LIST).len() == 1).await;
    empty(&core).await;
    let posted = fakes
        .local()
        .into_iter()
        .find(|one| one.to == LIST)
        .unwrap();
    assert!(posted.text.len() > 300_000);
    assert_eq!(core.spool.ids().unwrap(), [], "no body stays");
    close(core).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_decide_by_mail_and_hear_what_came_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = fakes();
    let core = open(&config(), dir.path(), &fakes);
    let id = send(&core, "who@example.org", &[LIST]).await;
    in_table(&core, 1).await;
    let decision = (LIST.to_owned(), id, true);
    fakes
        .decisions
        .lock()
        .unwrap()
        .insert("confirm@example.org".to_owned(), decision);
    for answers in [1, 2] {
        send(&core, "owner@example.org", &["confirm@example.org"]).await;
        until("an answer", async || {
            came(&fakes, "owner@example.org").len() == 1 + answers
        })
        .await;
    }
    let mut answers = came(&fakes, "owner@example.org");
    answers.sort();
    assert_eq!(
        answers,
        ["Subject: a post waits", "Subject: done", "Subject: gone"]
    );
    empty(&core).await;
    assert_eq!(came(&fakes, LIST).len(), 1);
    close(core).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_so_many_wait() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = fakes();
    let core = open(&config(), dir.path(), &fakes);
    let most = usize::try_from(crate::moderation::WAITING).unwrap();
    // One after the other: what comes at once is counted when it is too late.
    for count in 1..=most {
        send(&core, "who@example.org", &[LIST]).await;
        in_table(&core, count).await;
    }
    assert!(came(&fakes, "who@example.org").is_empty());
    send(&core, "who@example.org", &[LIST]).await;
    until("a report", async || {
        came(&fakes, "who@example.org").len() == 1
    })
    .await;
    assert_eq!(held(&core).await.len(), most);
    // Another list has its own.
    send(&core, "who@example.org", &["other@example.org"]).await;
    in_table(&core, most + 1).await;
    let filter = QueueFilter {
        recipient: Some(LIST.to_owned()),
        ..QueueFilter::default()
    };
    assert_eq!(core.remove(&filter, false).await.unwrap(), most as u64);
    in_table(&core, 1).await;
    close(core).await;
}
