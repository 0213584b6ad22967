//! In and out, with what follows.

use super::*;
use types::{AccountId, Octets, Ret, Rights};

#[tokio::test(flavor = "multi_thread")]
async fn a_local_message_is_delivered_and_freed() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = Arc::new(Fakes::default());
    let core = open(&config(), dir.path(), &fakes);
    let call = mail(
        &core,
        "a@example.net",
        &["jane@example.org", "joe@example.org"],
        Right::Incoming,
    );
    commit(&core, call.clone()).await.unwrap();
    until("delivery", async || fakes.local().len() == 2).await;
    assert_eq!(
        fakes.local()[0].text,
        "Received: by the test\r\nSubject: Hello\r\n\r\nText.\r\n"
    );
    assert_eq!(fakes.attempts.load(SeqCst), 1, "one call for both");
    empty(&core).await;
    // The same id again is answered alike and does nothing, here and after a restart.
    commit(&core, call.clone()).await.unwrap();
    close(core).await;
    let core = open(&config(), dir.path(), &fakes);
    commit(&core, call).await.unwrap();
    empty(&core).await;
    assert_eq!(fakes.local().len(), 2);
    assert_eq!(core.memory(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_commit_at_the_same_time_is_taken_once() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = Arc::new(Fakes::default());
    let core = open(&config(), dir.path(), &fakes);
    let call = mail(
        &core,
        "a@example.net",
        &["jane@example.org"],
        Right::Incoming,
    );
    let calls: Vec<_> = (0..20)
        .map(|_| {
            tokio::spawn({
                let (core, call) = (Arc::clone(&core), call.clone());
                async move { commit(&core, call).await }
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    empty(&core).await;
    assert_eq!(fakes.local().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_share_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = Arc::new(Fakes::default());
    let core = open(&config(), dir.path(), &fakes);
    let calls: Vec<_> = (0..500)
        .map(|_| {
            tokio::spawn({
                let core = Arc::clone(&core);
                async move { send(&core, "a@example.net", &["jane@example.org"]).await }
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    until("delivery", async || fakes.local().len() == 500).await;
    empty(&core).await;
    let (syncs, records) = core.writer.counts();
    assert!(syncs < 250, "{syncs} syncs for {records} records");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_hosts_need_a_right() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = Arc::new(Fakes::default());
    let config = Config {
        relay_networks: vec!["192.0.2.0/24".parse().unwrap()],
        ..config()
    };
    let core = open(&config, dir.path(), &fakes);
    let try_with = async |caller: Role, right: Right| {
        let call = mail(&core, "jane@example.org", &["x@example.net"], right);
        core.commit(caller, 1, call)
            .await
            .map_err(|fault| fault.kind)
    };
    let grant = |mac: &[u8], rights: Rights, expires: u64| Grant {
        account: AccountId(5),
        name: "five@example.org".to_owned(),
        groups: Vec::new(),
        rights,
        expires,
        quota_bytes: 0,
        quota_messages: 0,
        mac: Octets(mac.to_vec()),
    };
    let far = crate::core::now() + 1000;
    let denied = Err(FaultKind::Denied);
    assert_eq!(try_with(Role::Smtpd, Right::Incoming).await, denied);
    assert_eq!(try_with(Role::Smtpd, Right::Operator).await, denied);
    assert_eq!(
        try_with(Role::Smtpd, Right::Network("198.51.100.1".parse().unwrap())).await,
        denied
    );
    assert_eq!(
        try_with(
            Role::Smtpd,
            Right::Submission(grant(b"forged", Rights::ALL, far))
        )
        .await,
        denied
    );
    assert_eq!(
        try_with(
            Role::Smtpd,
            Right::Submission(grant(b"genuine", Rights::READ, far))
        )
        .await,
        denied
    );
    assert_eq!(
        try_with(
            Role::Smtpd,
            Right::Submission(grant(b"genuine", Rights::ALL, 1))
        )
        .await,
        denied
    );
    let before = fakes.verified.load(SeqCst);
    for _ in 0..3 {
        assert_eq!(
            try_with(
                Role::Smtpd,
                Right::Submission(grant(b"genuine", Rights::ALL, far))
            )
            .await,
            Ok(())
        );
    }
    assert_eq!(fakes.verified.load(SeqCst), before + 1, "remembered");
    assert_eq!(
        try_with(Role::Smtpd, Right::Network("192.0.2.9".parse().unwrap())).await,
        Ok(())
    );
    until("delivery", async || fakes.relayed().len() == 4).await;
    assert!(fakes.relayed().iter().all(|taken| taken.signed));
    // An id that nobody reserved.
    let mut call = mail(
        &core,
        "a@example.net",
        &["jane@example.org"],
        Right::Incoming,
    );
    call.id = QueueId(call.id.0 + (1 << 40));
    assert_eq!(
        commit(&core, call).await.unwrap_err().kind,
        FaultKind::Invalid
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_is_reported_to_a_sender_here_and_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = Arc::new(Fakes::default());
    let core = open(&config(), dir.path(), &fakes);
    fakes.answer("nobody@example.net", &[never()]);
    fakes.answer("nobody@example.org", &[never()]);
    let id = send(
        &core,
        "jane@example.org",
        &["nobody@example.net", "bob@example.net"],
    )
    .await;
    until("a report here", async || fakes.local().len() == 1).await;
    let report = &fakes.local()[0];
    assert_eq!(
        (report.sender.as_str(), report.to.as_str()),
        ("", "jane@example.org")
    );
    assert!(
        report
            .text
            .contains("Final-Recipient: rfc822; nobody@example.net")
    );
    assert!(report.text.contains("multipart/report") && report.text.contains("Text.\r\n"));
    assert!(!report.text.contains("bob@example.net"));
    assert_ne!(report.id, id);
    assert_eq!(fakes.relayed().len(), 1);
    // A sender elsewhere: deliverd says that the domain is not ours.
    fakes.answer(
        "far@example.com",
        &[Outcome::Permanent(status(550, Enhanced(5, 1, 2)))],
    );
    fakes.local.lock().unwrap().clear();
    let call = mail(
        &core,
        "far@example.com",
        &["nobody@example.org"],
        Right::Incoming,
    );
    fakes.relayed.lock().unwrap().clear();
    commit(&core, call).await.unwrap();
    until("an attempt elsewhere", async || {
        core.counters.failed.get() == 3
    })
    .await;
    empty(&core).await;
    fakes.answers.lock().unwrap().clear();
    assert!(fakes.local().is_empty(), "a report on a report");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_goes_to_another_host_when_the_domain_is_not_ours() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = Arc::new(Fakes::default());
    let core = open(&config(), dir.path(), &fakes);
    fakes.answer("nobody@example.org", &[never()]);
    // First deliverd, which does not know the domain; then relayd.
    fakes.answer(
        "far@example.com",
        &[Outcome::Permanent(status(550, Enhanced(5, 1, 2))), done()],
    );
    let call = mail(
        &core,
        "far@example.com",
        &["nobody@example.org"],
        Right::Incoming,
    );
    commit(&core, call).await.unwrap();
    until("a report elsewhere", async || fakes.relayed().len() == 1).await;
    assert!(fakes.relayed()[0].text.contains("Action: failed"));
    empty(&core).await;
    // But what had no right to go elsewhere does not go there.
    fakes.answer(
        "gone@example.org",
        &[Outcome::Permanent(status(550, Enhanced(5, 1, 2))), done()],
    );
    let call = mail(&core, "", &["gone@example.org"], Right::Incoming);
    commit(&core, call).await.unwrap();
    empty(&core).await;
    assert_eq!(fakes.relayed().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn success_is_reported_on_request_where_nobody_else_does() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = Arc::new(Fakes::default());
    let core = open(&config(), dir.path(), &fakes);
    let ask = async |to: &str, words: &str| {
        let mut call = mail(&core, "jane@example.org", &[to], Right::Operator);
        call.envelope.recipients[0].notify = notify(words);
        call.envelope.ret = Some(Ret::Full);
        call.envelope.envid = Some("E1".to_owned());
        commit(&core, call).await.unwrap();
        empty(&core).await;
        let reports: Vec<Taken> = fakes
            .local()
            .into_iter()
            .filter(|taken| taken.sender.is_empty())
            .collect();
        fakes.local.lock().unwrap().clear();
        reports
    };
    let reports = ask("joe@example.org", "SUCCESS").await;
    assert!(
        reports[0].text.contains("Action: delivered")
            && reports[0].text.contains("Original-Envelope-Id: E1")
    );
    assert!(
        reports[0].text.contains("rfc822-headers"),
        "RET is for failures"
    );
    let reports = ask("x@example.net", "SUCCESS").await;
    assert!(reports[0].text.contains("Action: relayed"));
    fakes.dsn_passed.store(true, SeqCst);
    assert!(
        ask("x@example.net", "SUCCESS").await.is_empty(),
        "the next host does"
    );
    fakes.answer("nobody@example.net", &[never()]);
    assert!(ask("nobody@example.net", "NEVER").await.is_empty());
    assert!(ask("nobody@example.net", "SUCCESS").await.is_empty());
    assert_eq!(ask("nobody@example.net", "FAILURE").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_to_elsewhere_becomes_a_message_and_circles_end() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = Arc::new(Fakes::default());
    let core = open(&config(), dir.path(), &fakes);
    let to = vec!["far@example.net".parse().unwrap()];
    fakes
        .redirects
        .lock()
        .unwrap()
        .insert("alias@example.org".to_owned(), to);
    let call = mail(
        &core,
        "a@example.com",
        &["alias@example.org"],
        Right::Incoming,
    );
    commit(&core, call).await.unwrap();
    until("the redirect", async || fakes.relayed().len() == 1).await;
    let taken = &fakes.relayed()[0];
    assert_eq!(
        (taken.sender.as_str(), taken.to.as_str()),
        ("a@example.com", "far@example.net")
    );
    assert!(
        taken
            .text
            .starts_with("Delivered-To: alias@example.org\r\nReceived: by the test\r\nSubject")
    );
    empty(&core).await;
    // It comes back.
    let mut call = mail(
        &core,
        "a@example.org",
        &["alias@example.org"],
        Right::Incoming,
    );
    call.body = Body::Inline(
        b"Delivered-To: Alias@example.org\r\nSubject: x\r\n\r\n"
            .to_vec()
            .into(),
    );
    commit(&core, call).await.unwrap();
    until("a report", async || fakes.local().len() == 1).await;
    assert!(fakes.local()[0].text.contains("Status: 5.4.6"));
    assert_eq!(fakes.relayed().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_body_is_in_the_spool() {
    use std::io::Write;
    let dir = tempfile::tempdir().unwrap();
    let fakes = Arc::new(Fakes::default());
    let core = open(&config(), dir.path(), &fakes);
    let to = vec!["far@example.net".parse().unwrap()];
    fakes
        .redirects
        .lock()
        .unwrap()
        .insert("alias@example.org".to_owned(), to);
    fakes.answer("joe@example.org", &[later(), later(), done()]);
    let (slot, mut file) = core.spool.open_slot(1).unwrap().unwrap();
    let body = format!(
        "Subject: Large\r\n\r\n{}",
        "0123456789abcde\n".repeat(20_000)
    );
    file.write_all(body.as_bytes()).unwrap();
    let mut call = mail(
        &core,
        "a@example.com",
        &["jane@example.org", "alias@example.org", "joe@example.org"],
        Right::Incoming,
    );
    call.body = Body::Slot {
        slot,
        len: body.len() as u64,
    };
    commit(&core, call).await.unwrap();
    until("all three", async || {
        fakes.local().len() == 2 && fakes.relayed().len() == 1
    })
    .await;
    for taken in fakes.local().iter().chain(&fakes.relayed()) {
        assert!(taken.text.ends_with(&body));
    }
    empty(&core).await;
    until("an empty spool", async || {
        core.spool.ids().unwrap().is_empty()
    })
    .await;
    // A slot of a queued that was killed meanwhile: smtpd says 451.
    let mut call = mail(
        &core,
        "a@example.com",
        &["jane@example.org"],
        Right::Incoming,
    );
    call.body = Body::Slot { slot: 99, len: 5 };
    assert_eq!(
        commit(&core, call).await.unwrap_err().kind,
        FaultKind::Temporary
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_it_is_busy_before_anything_breaks() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = Arc::new(Fakes::default());
    let core = open(
        &Config {
            min_free: u64::MAX,
            ..config()
        },
        dir.path(),
        &fakes,
    );
    let call = mail(
        &core,
        "a@example.com",
        &["jane@example.org"],
        Right::Incoming,
    );
    assert_eq!(commit(&core, call).await.unwrap_err().kind, FaultKind::Busy);
    assert_eq!(core.check_free(0).unwrap_err().kind, FaultKind::Busy);
    close(core).await;
    let core = open(
        &Config {
            max_messages: 0,
            ..config()
        },
        dir.path(),
        &fakes,
    );
    let call = mail(
        &core,
        "a@example.com",
        &["jane@example.org"],
        Right::Incoming,
    );
    assert_eq!(commit(&core, call).await.unwrap_err().kind, FaultKind::Busy);
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_budget_bodies_are_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let fakes = Arc::new(Fakes::default());
    let core = open(
        &Config {
            memory: 10,
            ..config()
        },
        dir.path(),
        &fakes,
    );
    for _ in 0..20 {
        send(&core, "a@example.net", &["jane@example.org"]).await;
        assert!(core.memory() <= 10);
    }
    until("delivery", async || fakes.local().len() == 20).await;
    assert!(
        fakes
            .local()
            .iter()
            .all(|taken| taken.text.ends_with("Text.\r\n"))
    );
}
