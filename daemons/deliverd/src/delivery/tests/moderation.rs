//! Posts that wait for the owners of a list, and what the owners answer.

use super::lists::settings;
use super::*;
use ipc::api::authd::{ListPart, Moderation};
use std::os::unix::fs::FileExt as _;

const POST: QueueId = QueueId(77);

/// A list by its name: `closed@` is not moderated.
pub(super) fn standing(request: &ListPoster) -> Option<ListStanding> {
    let author = |name: &str| request.authors.iter().any(|one| one.to_string() == name);
    let mut list = settings(&request.list);
    list.moderation = match request.list.local() {
        "others" | "a-list-with-a-name-too-long" => Moderation::Others,
        "everything" => Moderation::All,
        _ => return None,
    };
    Some(ListStanding {
        list,
        owner: author("boss@x.example"),
        member: author("member@a.example"),
        ours: author("boss@x.example") || author("own@x.example"),
    })
}

pub(super) fn addresses(request: &ListHold) -> Option<ListDecide> {
    let address = |kind: &str| {
        let local = format!("{}-confirm+{kind}{}", request.list.local(), request.post);
        Address::new(&local, request.list.domain()).unwrap()
    };
    (request.list.local().len() < 20).then(|| ListDecide {
        accept: address("a"),
        reject: address("r"),
    })
}

pub(super) fn answer(request: &ListCommand) -> ListAnswer {
    match &request.command {
        ListPart::Confirm(token) if token == "accept" || token == "reject" => {
            ListAnswer::Decision {
                post: POST,
                accept: token == "accept",
            }
        }
        ListPart::Confirm(_) => ListAnswer::Nothing,
        _ => ListAnswer::Closed,
    }
}

fn delivery() -> Delivery<super::Table, Arc<Kept>> {
    let lists = ["others", "everything", "a-list-with-a-name-too-long"];
    let posts = lists.map(|name| (format!("{name}@x.example"), name, ListPart::Post));
    let confirm = ["accept", "reject", "wrong"].map(|token| {
        let part = ListPart::Confirm(token.to_owned());
        (format!("others-confirm+{token}@x.example"), "others", part)
    });
    let target = |(address, name, part): (String, &str, ListPart)| {
        let list = format!("{name}@x.example").parse().unwrap();
        let target = Target::List {
            address: list,
            part,
        };
        (address, Resolution::Local(vec![target]))
    };
    let all = posts.into_iter().chain(confirm).map(target);
    Delivery::new(
        super::Table(all.collect()),
        Arc::default(),
        Config::default(),
        None,
    )
}

const GOOD: &str = "spf=pass smtp.mailfrom=x; dmarc=none";
const PROVEN: &str = "spf=pass smtp.mailfrom=x; dmarc=pass policy.dmarc=none";
const FORGED: &str = "spf=pass smtp.mailfrom=x; dmarc=fail policy.dmarc=none";
const SOFT: &str = "spf=softfail smtp.mailfrom=x; dmarc=none";

fn mail(to: &str, from: &str, results: &str) -> Deliver {
    let body = format!("From: {from}\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\nText\r\n");
    let mut call = call(&[to], &body);
    call.prefix = format!("Authentication-Results: us; {results}\r\n")
        .into_bytes()
        .into();
    call
}

/// In a word: posted, held, held without a report, refused, dropped.
async fn fate(list: &str, from: &str, results: &str) -> &'static str {
    let call = mail(&format!("{list}@x.example"), from, results);
    let (delivered, files) = delivery().deliver_posts(call, None).await.unwrap();
    assert_eq!(delivered.follow_ups.len(), files.len());
    match (delivered.follow_ups.first(), &delivered.outcomes[0].1) {
        (Some(FollowUp::Distribute { .. }), _) => "posted",
        (Some(FollowUp::Hold { quiet: false, .. }), Outcome::Done(_)) => "held",
        (Some(FollowUp::Hold { quiet: true, .. }), Outcome::Done(_)) => "held quietly",
        (None, Outcome::Permanent(_)) => "refused",
        (None, Outcome::Done(_)) => "dropped",
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn which_posts_wait() {
    for (list, from, results, wanted) in [
        ("others", "member@a.example", GOOD, "posted"),
        ("others", "who@a.example", GOOD, "held"),
        // What is forged is refused as without moderation.
        ("others", "member@a.example", FORGED, "dropped"),
        ("others", "who@a.example", FORGED, "dropped"),
        ("others", "who@a.example", SOFT, "dropped"),
        ("others", "own@x.example", GOOD, "refused"),
        ("others", "boss@x.example", PROVEN, "posted"),
        ("everything", "boss@x.example", PROVEN, "posted"),
        ("everything", "boss@x.example", GOOD, "refused"),
        ("everything", "member@a.example", GOOD, "held"),
        ("everything", "member@a.example", SOFT, "held quietly"),
        ("everything", "member@a.example", FORGED, "dropped"),
        ("everything", "who@a.example", GOOD, "held"),
    ] {
        assert_eq!(
            fate(list, from, results).await,
            wanted,
            "{list} {from} {results}"
        );
    }
    // Reports, answers of programs and what is too large are never held.
    let mut report = mail("others@x.example", "who@a.example", GOOD);
    report.sender = None;
    let machine = "Auto-Submitted: auto-replied\r\nFrom: who@a.example\r\n\r\n";
    let large = format!("From: who@a.example\r\n\r\n{}", "x".repeat(1 << 20));
    for one in [
        report,
        call(&["others@x.example"], machine),
        call(&["others@x.example"], &large),
    ] {
        let (delivered, _) = delivery().deliver_posts(one, None).await.unwrap();
        assert!(delivered.follow_ups.is_empty());
    }
}

#[tokio::test]
async fn what_an_owner_let_in_is_posted() {
    let mut call = mail("everything@x.example", "who@a.example", GOOD);
    call.let_in = true;
    let (delivered, _) = delivery().deliver_posts(call, None).await.unwrap();
    assert!(matches!(
        delivered.follow_ups[..],
        [FollowUp::Distribute { .. }]
    ));
}

async fn notice(list: &str) -> (Vec<Address>, String) {
    let call = mail(&format!("{list}@x.example"), "Who <who@a.example>", GOOD);
    let (delivered, files) = delivery().deliver_posts(call, None).await.unwrap();
    let [
        FollowUp::Hold {
            seconds,
            recipients,
            content,
            ..
        },
    ] = delivered.follow_ups.as_slice()
    else {
        panic!("{delivered:?}");
    };
    assert_eq!(*seconds, 7 * 86_400);
    let mut octets = vec![0; usize::try_from(recipients + content).unwrap()];
    files[0].read_exact_at(&mut octets, 0).unwrap();
    let (owners, notice) = octets.split_at(usize::try_from(*recipients).unwrap());
    (
        postcard::from_bytes(owners).unwrap(),
        String::from_utf8(notice.to_vec()).unwrap(),
    )
}

#[tokio::test]
async fn owners_get_the_post_and_two_addresses() {
    let (owners, text) = notice("others").await;
    assert_eq!(owners, ["boss@x.example".parse::<Address>().unwrap()]);
    for part in [
        "From: <others-confirm+a",
        "To: <boss@x.example>\r\n",
        "Auto-Submitted: auto-generated\r\n",
        "    From: Who <who@a.example>\r\n    Subject: Grüße\r\n",
        "    others-confirm+r",
        "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 7bit\r\n\r\nAuthentication-Results: us;",
        "\r\n\r\nText\r\n\r\n--=_held-",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let (_, text) = notice("a-list-with-a-name-too-long").await;
    assert!(!text.contains("-confirm+") && text.contains("posthouse list held accept"));
}

fn decision(token: &str, from: &str, results: &str) -> Deliver {
    mail(&format!("others-confirm+{token}@x.example"), from, results)
}

async fn decided(call: Deliver) -> Option<FollowUp> {
    let (delivered, files) = delivery().deliver_posts(call, None).await.unwrap();
    assert!(files.is_empty() && delivered.follow_ups.len() < 2);
    assert!(matches!(delivered.outcomes[0].1, Outcome::Done(_)));
    delivered.follow_ups.into_iter().next()
}

#[tokio::test]
async fn owners_alone_decide() {
    for (token, accepts) in [("accept", true), ("reject", false)] {
        let decision = decided(decision(token, "boss@x.example", PROVEN)).await;
        let Some(FollowUp::Decide { post, accept, .. }) = decision else {
            panic!("{decision:?}");
        };
        assert_eq!((post, accept), (POST, accepts));
    }
    let mut own = decision("accept", "boss@x.example", GOOD);
    own.ours = true;
    let own = decided(own).await;
    assert!(matches!(own, Some(FollowUp::Decide { .. })));
    // Somebody else who can read the owner's mail is told.
    let other = decided(decision("accept", "member@a.example", PROVEN)).await;
    assert!(matches!(other, Some(FollowUp::Message { .. })), "{other:?}");
    let two = "boss@x.example, member@a.example";
    let two = decided(decision("accept", two, PROVEN)).await;
    assert!(matches!(two, Some(FollowUp::Message { .. })), "{two:?}");
    // Nothing comes of these.
    for results in [GOOD, SOFT, FORGED] {
        let forged = decided(decision("accept", "boss@x.example", results)).await;
        assert_eq!(forged, None, "{results}");
    }
    let wrong = decided(decision("wrong", "boss@x.example", PROVEN)).await;
    assert_eq!(wrong, None);
    let body = "From: boss@x.example\r\nAuto-Submitted: auto-replied\r\n\r\nAway.\r\n";
    let mut vacation = decision("accept", "boss@x.example", PROVEN);
    vacation.body = Body::Inline(body.as_bytes().to_vec().into());
    assert_eq!(decided(vacation).await, None);
}
