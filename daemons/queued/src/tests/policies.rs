//! MTA-STS policies between relayd and the next start.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_relayd_has_learnt_it_is_told_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = Arc::new(Fakes::default());
    let policy = StsPolicy {
        id: "1".to_owned(),
        text: "version: STSv1\r\nmode: enforce\r\nmx: mx.example.net\r\nmax_age: 86400\r\n"
            .to_owned(),
        fetched: crate::core::now(),
        expires: crate::core::now() + 86_400,
    };
    *fakes.policy.lock().unwrap() = Some(policy.clone());
    let core = open(&config(), dir.path(), &fakes);
    send(&core, "a@example.com", &["first@example.net"]).await;
    until("the first", async || fakes.relayed().len() == 1).await;
    empty(&core).await;
    close(core).await;
    *fakes.policy.lock().unwrap() = None;
    let core = open(&config(), dir.path(), &fakes);
    send(
        &core,
        "a@example.com",
        &["second@example.net", "third@example.edu"],
    )
    .await;
    until("the others", async || fakes.relayed().len() == 3).await;
    let mut carried = fakes.carried.lock().unwrap().clone();
    assert_eq!(carried.remove(0), None);
    carried.sort_by_key(Option::is_some);
    assert_eq!(carried, [None, Some(policy)]);
}
