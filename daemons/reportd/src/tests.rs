#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
use super::*;
use crate::service::Service;
use ipc::api::reportd::{
    ClaimReport, Evaluation, FailedMail, Judged, Published, ReportFilter, ReportList,
    ReportPending, ReportPreview, ReportShow, ReportSummary, SettleReport, TakeReport, TlsCount,
    TlsFailure, TlsPolicy, TlsResults,
};
use types::{Body, Octets, QueueId, TraceId};

fn open(url: String, change: impl Fn(&mut Config)) -> (Service, Arc<Store>) {
    let mut config = Config {
        from: "reports@ours.example".to_owned(),
        ..Config::default()
    };
    change(&mut config);
    config.validate().unwrap();
    let store = Arc::new(Store::new(url));
    (
        service(Arc::new(config), &store, "mail.ours.example").unwrap(),
        store,
    )
}

fn evaluation(domain: &str, count: u32, source: &str) -> Evaluation {
    Evaluation {
        at: store::now(),
        count,
        published: Published {
            domain: domain.to_owned(),
            policy: "reject".to_owned(),
            subdomains: "reject".to_owned(),
            ..Published::default()
        },
        rua: vec![
            (format!("dmarc@{domain}"), 0),
            (format!("small@{domain}"), 10),
        ],
        source: Some(source.parse().unwrap()),
        disposition: "reject".to_owned(),
        header_from: domain.to_owned(),
        ..Evaluation::default()
    }
}

fn judged(evaluations: Vec<Evaluation>) -> Judged {
    Judged {
        evaluations,
        failures: Vec::new(),
    }
}

fn claim(id: u64) -> ClaimReport {
    ClaimReport {
        queue_id: QueueId(id),
        posts: true,
    }
}

/// It is in the queue, or was posted.
fn settled(id: u64) -> SettleReport {
    SettleReport {
        id,
        refused: None,
        again: None,
    }
}

async fn all_pending(service: &Service) -> Vec<(String, String, u64, u64, String)> {
    let call = ReportPending {
        after: 0,
        limit: 100,
    };
    let found = service.outgoing.pending(&call).await.unwrap();
    let row = |one: ipc::api::reportd::PendingReport| {
        (one.kind, one.domain, one.rows, one.count, one.state)
    };
    found.into_iter().map(row).collect()
}

fn text(message: &Body) -> String {
    let Body::Inline(octets) = message else {
        panic!()
    };
    String::from_utf8(octets.0.clone()).unwrap()
}

/// Counts, claims, ends between claim and settle, and settles, on each database.
async fn out(url: String) {
    let (service, store) = open(url.clone(), |_| {});
    let a = || evaluation("a.example", 2, "192.0.2.1");
    service
        .gatherer
        .judged(judged(vec![
            a(),
            a(),
            evaluation("a.example", 1, "192.0.2.2"),
            evaluation("b.example", 1, "192.0.2.1"),
        ]))
        .await
        .unwrap();
    let failure = TlsFailure {
        kind: "certificate-expired".to_owned(),
        mx: "mx.t.example".to_owned(),
        ..TlsFailure::default()
    };
    let count = |failure| TlsCount {
        at: store::now(),
        count: 3,
        domain: "t.example".to_owned(),
        rua: vec!["tls@t.example".to_owned()],
        policy: TlsPolicy {
            kind: "sts".to_owned(),
            domain: "t.example".to_owned(),
            ..TlsPolicy::default()
        },
        failure,
    };
    let results = vec![count(None), count(Some(failure))];
    service.gatherer.tls(TlsResults { results }).await.unwrap();
    let row = |kind: &str, domain: &str, rows, count, state: &str| {
        (
            kind.to_owned(),
            domain.to_owned(),
            rows,
            count,
            state.to_owned(),
        )
    };
    assert_eq!(
        all_pending(&service).await,
        [
            row("dmarc", "a.example", 2, 5, "gathering"),
            row("dmarc", "b.example", 1, 1, "gathering"),
            row("tls", "t.example", 2, 6, "gathering"),
        ]
    );
    // Nothing is due before its time.
    assert!(
        service
            .outgoing
            .claim(7, &claim(1))
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(service.outgoing.cancel(&[], "b.example").await.unwrap(), 1);
    assert_eq!(service.outgoing.send(&[], "a.example").await.unwrap(), 1);
    let preview = service
        .outgoing
        .preview(&ReportPreview { id: 1 })
        .await
        .unwrap();
    assert!(String::from_utf8_lossy(&preview).contains("<count>4</count>"));
    let (due, _) = service
        .outgoing
        .claim(7, &claim(77))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        due.to.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["dmarc@a.example"],
        "size! counts"
    );
    // What comes now belongs to the next report.
    service.gatherer.judged(judged(vec![a()])).await.unwrap();
    // It is leased; and after an end in the middle it is the same again.
    assert!(
        service
            .outgoing
            .claim(7, &claim(78))
            .await
            .unwrap()
            .is_none()
    );
    drop((service, store));
    let (service, store) = open(url, |_| {});
    let db = store.db().await.unwrap();
    let (again, _) = service
        .outgoing
        .claim(7, &claim(79))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (again.id, again.queue_id, &again.to),
        (due.id, QueueId(77), &due.to)
    );
    assert_eq!(text(&again.message), text(&due.message));
    let settle = settled(again.id);
    for _ in 0..2 {
        service
            .outgoing
            .settle(TraceId::default(), &settle)
            .await
            .unwrap();
    }
    assert!(
        service
            .outgoing
            .claim(7, &claim(80))
            .await
            .unwrap()
            .is_none()
    );
    service.outgoing.send(&[], "*").await.unwrap();
    let mut kinds = Vec::new();
    while let Some((due, _)) = service
        .outgoing
        .claim(7, &claim(90 + kinds.len() as u64))
        .await
        .unwrap()
    {
        let message = text(&due.message);
        kinds.push(message.contains("TLS-Report-Domain: t.example\r\nTLS-Report-Submitter: ours.example\r\nTLS-Required: No\r\n"));
        service
            .outgoing
            .settle(TraceId::default(), &settled(due.id))
            .await
            .unwrap();
    }
    kinds.sort_unstable();
    assert_eq!(kinds, [false, true]);
    let states: Vec<_> = all_pending(&service)
        .await
        .into_iter()
        .map(|row| row.4)
        .collect();
    assert_eq!(states, ["sent", "dropped", "sent", "sent"]);
    let rows = db
        .fetch_optional("SELECT COUNT(*) FROM report_out_row", sql::args![])
        .await
        .unwrap()
        .unwrap();
    assert_eq!(rows.u64(0).unwrap(), 0);
    housekeeping::once(&store, &Config::default())
        .await
        .unwrap();
    assert_eq!(all_pending(&service).await.len(), 4);
    db.execute("UPDATE report_out SET due = 5", sql::args![])
        .await
        .unwrap();
    housekeeping::once(&store, &Config::default())
        .await
        .unwrap();
    assert!(all_pending(&service).await.is_empty());
}

fn take(id: u64, body: &[u8]) -> TakeReport {
    TakeReport {
        id: QueueId(id),
        index: 0,
        trace: TraceId::default(),
        arrived: 1,
        sender: Some("r@p.example".parse().unwrap()),
        recipient: "dmarc-reports@ours.example".parse().unwrap(),
        prefix: Octets::default(),
        body: Body::Inline(Octets(body.to_vec())),
    }
}

const REPORT: &str = "Content-Type: text/xml\r\n\r\n<feedback><report_metadata><org_name>P</org_name><report_id>1</report_id></report_metadata>\
    <policy_published><domain>ours.example</domain></policy_published><record><row><source_ip>192.0.2.9</source_ip><count>3</count>\
    <policy_evaluated><disposition>reject</disposition><dkim>fail</dkim><spf>fail</spf></policy_evaluated></row>\
    <identifiers><header_from>ours.example</header_from></identifiers></record></feedback>";

/// Takes, lists, sums and forgets, on each database.
async fn kept(url: String) {
    let (service, store) = open(url, |config| {
        config.intake.forward_unreadable = "pm@ours.example".to_owned()
    });
    let keeper = &service.keeper;
    let taken = keeper.take(take(1, REPORT.as_bytes()), None).await.unwrap();
    assert_eq!((taken.kind.as_str(), taken.forward), ("dmarc", None));
    // The same delivery again, and the same report in another message.
    keeper.take(take(1, REPORT.as_bytes()), None).await.unwrap();
    keeper.take(take(2, REPORT.as_bytes()), None).await.unwrap();
    let unreadable = keeper.take(take(3, b"\r\nhello\r\n"), None).await.unwrap();
    assert_eq!(unreadable.forward, Some("pm@ours.example".parse().unwrap()));
    let list = |filter| ReportList {
        filter,
        before: 0,
        limit: 100,
    };
    let found = keeper.list(&list(ReportFilter::default())).await.unwrap();
    let kinds: Vec<_> = found
        .iter()
        .map(|one| (one.kind.as_str(), one.failed))
        .collect();
    assert_eq!(kinds, [("unreadable", 0), ("dmarc", 0), ("dmarc", 3)]);
    let failing = ReportFilter {
        failing: true,
        domain: "OURS.example".to_owned(),
        ..ReportFilter::default()
    };
    let found = keeper.list(&list(failing)).await.unwrap();
    assert_eq!(found.len(), 1);
    let shown = keeper.show(&ReportShow { id: found[0].id }).await.unwrap();
    assert_eq!(
        (shown.all_rows, shown.rows[0].source.as_str()),
        (1, "192.0.2.9")
    );
    let summary = ReportSummary {
        domain: "ours.example".to_owned(),
        since: 0,
    };
    let summary = keeper.summary(&summary).await.unwrap();
    assert_eq!(summary.messages, (0, 3));
    assert_eq!(
        (summary.sources[0].failed, summary.sources[0].stopped),
        (3, 3)
    );
    let few = Config {
        intake: Intake {
            max_reports: 1,
            ..Intake::default()
        },
        ..Config::default()
    };
    housekeeping::once(&store, &few).await.unwrap();
    let left = keeper.list(&list(ReportFilter::default())).await.unwrap();
    assert_eq!(
        left.iter().map(|one| one.kind.as_str()).collect::<Vec<_>>(),
        ["unreadable"]
    );
}

fn sqlite(directory: &tempfile::TempDir) -> String {
    url("sqlite", directory.path())
}

#[tokio::test]
async fn what_is_too_much_is_left_out() {
    let directory = tempfile::tempdir().unwrap();
    let (service, _) = open(sqlite(&directory), |config| {
        config.send.max_rows = 1;
        config.send.max_reports = 1;
        config.send.exclude = vec!["c.example".to_owned()];
    });
    let of = |domain, source| evaluation(domain, 1, source);
    let all = vec![
        of("a.example", "192.0.2.1"),
        of("a.example", "192.0.2.2"),
        of("b.example", "192.0.2.1"),
        of("c.example", "192.0.2.1"),
    ];
    service.gatherer.judged(judged(all)).await.unwrap();
    assert_eq!(
        all_pending(&service).await,
        [(
            "dmarc".to_owned(),
            "a.example".to_owned(),
            1,
            1,
            "gathering".to_owned()
        )]
    );
    let preview = service
        .outgoing
        .preview(&ReportPreview { id: 1 })
        .await
        .unwrap();
    assert!(String::from_utf8_lossy(&preview).contains("<error>1 messages found no row"));
    // Too large to be sent at all.
    let (small, _) = open(sqlite(&directory), |config| config.send.max_bytes = 100);
    small.outgoing.send(&[], "*").await.unwrap();
    assert!(small.outgoing.claim(7, &claim(1)).await.unwrap().is_none());
    assert_eq!(all_pending(&small).await[0].4, "dropped");
}

#[tokio::test]
async fn failures_are_told_at_once_and_not_too_often() {
    let directory = tempfile::tempdir().unwrap();
    let failed = || FailedMail {
        evaluation: evaluation("a.example", 1, "192.0.2.1"),
        ruf: vec!["ruf@a.example".to_owned()],
        mail_from: "jane@x.example".to_owned(),
        header: b"From: x <jane@a.example>\r\nSubject: secret\r\n\r\n"
            .to_vec()
            .into(),
        ..FailedMail::default()
    };
    let (off, _) = open(sqlite(&directory), |_| {});
    off.outgoing.failed(failed()).await.unwrap();
    assert!(all_pending(&off).await.is_empty());
    let (on, _) = open(sqlite(&directory), |config| {
        config.send.failure = true;
        config.send.failures_per_hour = 2;
    });
    for _ in 0..3 {
        on.outgoing.failed(failed()).await.unwrap();
    }
    let (due, _) = on.outgoing.claim(7, &claim(1)).await.unwrap().unwrap();
    let message = text(&due.message);
    assert!(
        message.contains("Feedback-Type: auth-failure") && message.contains("<redacted@a.example>")
    );
    assert!(!message.contains("secret") && !message.contains("jane"));
    assert_eq!(all_pending(&on).await.len(), 2);
}

#[tokio::test]
async fn who_refused_a_report_gets_none() {
    let directory = tempfile::tempdir().unwrap();
    let (service, _) = open(sqlite(&directory), |_| {});
    service
        .gatherer
        .judged(judged(vec![evaluation("a.example", 1, "192.0.2.1")]))
        .await
        .unwrap();
    service.outgoing.send(&[], "*").await.unwrap();
    let (due, _) = service.outgoing.claim(7, &claim(1)).await.unwrap().unwrap();
    service
        .outgoing
        .settle(TraceId::default(), &settled(due.id))
        .await
        .unwrap();
    let message = text(&due.message);
    let id = message
        .split("Message-ID: <")
        .nth(1)
        .unwrap()
        .split('>')
        .next()
        .unwrap()
        .to_owned();
    let bounce = |id: &str| {
        format!(
            "Content-Type: multipart/report; boundary=b\r\n\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n\
             Final-Recipient: rfc822; DMARC@a.example\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n--b\r\nContent-Type: text/rfc822-headers\r\n\r\n\
             Message-ID: <{id}>\r\n\r\n--b--\r\n"
        )
    };
    // Of a report that was never sent, from somebody who wants others to get none.
    service
        .keeper
        .take(take(1, bounce("dmarc.1.99@ours.example").as_bytes()), None)
        .await
        .unwrap();
    let again = |source: &str| {
        judged(vec![Evaluation {
            rua: vec![("dmarc@a.example".to_owned(), 0)],
            ..evaluation("a.example", 1, source)
        }])
    };
    service.gatherer.judged(again("192.0.2.3")).await.unwrap();
    service.outgoing.send(&[], "*").await.unwrap();
    let (due, _) = service.outgoing.claim(7, &claim(2)).await.unwrap().unwrap();
    service
        .outgoing
        .settle(TraceId::default(), &settled(due.id))
        .await
        .unwrap();
    service
        .keeper
        .take(take(2, bounce(&id).as_bytes()), None)
        .await
        .unwrap();
    service.gatherer.judged(again("192.0.2.4")).await.unwrap();
    service.outgoing.send(&[], "*").await.unwrap();
    assert!(
        service
            .outgoing
            .claim(7, &claim(3))
            .await
            .unwrap()
            .is_none()
    );
}

fn sessions(rua: &[&str]) -> TlsResults {
    let count = TlsCount {
        at: store::now(),
        count: 3,
        domain: "p.example".to_owned(),
        rua: rua.iter().map(|uri| (*uri).to_owned()).collect(),
        policy: TlsPolicy {
            kind: "no-policy-found".to_owned(),
            domain: "p.example".to_owned(),
            ..TlsPolicy::default()
        },
        failure: None,
    };
    TlsResults {
        results: vec![count],
    }
}

async fn rows(service: &Service) -> Vec<ipc::api::reportd::PendingReport> {
    let call = ReportPending {
        after: 0,
        limit: 100,
    };
    let mut rows = service.outgoing.pending(&call).await.unwrap();
    rows.retain(|row| row.domain == "p.example");
    rows
}

fn again(id: u64, why: &str) -> SettleReport {
    SettleReport {
        again: Some(why.to_owned()),
        ..settled(id)
    }
}

async fn next(service: &Service, id: u64) -> Option<ipc::api::reportd::DueReport> {
    let claimed = service.outgoing.claim(9, &claim(id)).await.unwrap();
    claimed.map(|(due, _)| due)
}

async fn settle(service: &Service, call: &SettleReport) {
    let settled = service.outgoing.settle(TraceId::default(), call).await;
    settled.unwrap();
}

/// A report for a mail address and two to post to: mailed, posted, put off, refused and given up, on each database.
async fn posted(url: String) {
    let (service, _) = open(url.clone(), |config| config.send.max_destinations = 3);
    let (a, b) = ("https://rua.p.example/a", "https://rua.p.example/B");
    let rua = [
        b,
        "tls@p.example",
        "no address",
        a,
        a,
        "https://rua.p.example/c",
    ];
    service.gatherer.tls(sessions(&rua)).await.unwrap();
    service.outgoing.send(&[], "p.example").await.unwrap();
    // Who has no place for posts gets the mail.
    let mail_only = ClaimReport {
        posts: false,
        ..claim(501)
    };
    let (mail, _) = service
        .outgoing
        .claim(9, &mail_only)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((mail.post.as_deref(), mail.to.len()), (None, 1));
    assert!(
        service
            .outgoing
            .claim(9, &mail_only)
            .await
            .unwrap()
            .is_none()
    );
    let first = next(&service, 502).await.unwrap();
    assert_eq!((first.post.as_deref(), first.to.len()), (Some(b), 0));
    let second = next(&service, 503).await.unwrap();
    assert_eq!(second.post.as_deref(), Some(a));
    assert!(next(&service, 504).await.is_none(), "all are leased");
    assert_eq!(first.message, second.message);
    let Body::Inline(octets) = &first.message else {
        panic!()
    };
    let mut json = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&octets[..]), &mut json)
        .unwrap();
    assert!(
        json.contains(&format!(".{}@ours.example", mail.id)),
        "{json}"
    );
    // What comes now is the next report's.
    service.gatherer.tls(sessions(&[a])).await.unwrap();
    settle(&service, &settled(mail.id)).await;
    for _ in 0..2 {
        settle(&service, &again(first.id, "503 from\nhere")).await;
    }
    settle(&service, &settled(second.id)).await;
    let found = rows(&service).await;
    let states: Vec<_> = found.iter().map(|row| row.state.as_str()).collect();
    assert_eq!(states, ["sent", "deferred", "sent", "gathering"]);
    let due = found[1].due - store::now();
    assert!(
        (295..=300).contains(&due),
        "a call that is repeated counts once: {due}"
    );
    assert_eq!(
        (found[1].note.as_str(), found[1].count),
        ("503 from here", 3)
    );
    assert!(next(&service, 505).await.is_none());
    // An operator need not wait; and after an end in the middle it is given again.
    service.outgoing.send(&[found[1].id], "").await.unwrap();
    assert_eq!(next(&service, 506).await.unwrap().id, first.id);
    let claimed = service.outgoing.claim(10, &claim(507)).await.unwrap();
    assert_eq!(claimed.unwrap().0.message, first.message);
    let refused = SettleReport {
        refused: Some("410 Gone".to_owned()),
        ..settled(first.id)
    };
    settle(&service, &refused).await;
    assert_eq!(rows(&service).await[1].note, "410 Gone");
    // The one that refused gets none for a while, and one that is away is given up in the end.
    let (service, _) = open(url, |config| config.send.post_give_up = 0);
    service.gatherer.tls(sessions(&[a, b])).await.unwrap();
    service.outgoing.send(&[], "p.example").await.unwrap();
    let last = next(&service, 508).await.unwrap();
    assert_eq!(last.post.as_deref(), Some(a));
    assert!(next(&service, 509).await.is_none());
    settle(&service, &again(last.id, "no answer in time")).await;
    let notes: Vec<_> = rows(&service)
        .await
        .into_iter()
        .map(|row| (row.state, row.note))
        .collect();
    let dropped = |note: &str| ("dropped".to_owned(), note.to_owned());
    assert_eq!(
        notes[3..],
        [
            dropped("given up after 1 attempts: no answer in time"),
            dropped(&format!("{b} refused a report before")),
        ]
    );
}

/// On PostgreSQL and MariaDB, too, where they are installed.
#[tokio::test]
async fn all_databases() {
    for database in sql::testing::databases().await.unwrap() {
        out(database.url.clone()).await;
        kept(database.url.clone()).await;
        posted(database.url.clone()).await;
    }
}
