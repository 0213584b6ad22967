//! Mailing lists behind a recipient.

use super::*;
use ipc::api::authd::{
    FromHandling, ListPart, MailingList, Moderation, Posting, ReplyTo, Subscription,
};
use std::os::unix::fs::FileExt as _;

const MEMBERS: usize = 2500;

pub(super) fn settings(address: &Address) -> MailingList {
    MailingList {
        address: address.to_string(),
        description: "All who care".to_owned(),
        owners: vec!["boss@x.example".to_owned()],
        posting: Posting::Members,
        subscription: Subscription::Closed,
        tag: "all".to_owned(),
        footer: "-- the list".to_owned(),
        from: FromHandling::Auto,
        reply_to: ReplyTo::Author,
        archive: Some("archive@x.example".to_owned()),
        archive_url: None,
        max_bytes: 1 << 20,
        max_bounces: 5,
        members: 7,
        personal: address.local() == "own",
        moderation: Moderation::None,
        held_days: 7,
    }
}

pub(super) fn standing(request: &ListPoster) -> Option<ListStanding> {
    let author = |name: &str| request.authors.iter().any(|one| one.to_string() == name);
    Some(ListStanding {
        list: settings(&request.list),
        owner: false,
        member: author("member@a.example") || author("own@x.example"),
        ours: author("own@x.example"),
    })
}

pub(super) fn page(request: &ListRecipients) -> Vec<Address> {
    let after = request.after.as_ref();
    let start = after.map_or(0, |after| after.local()[1..].parse::<usize>().unwrap() + 1);
    let member = |number: usize| format!("m{number}@b.example").parse().unwrap();
    (start..MEMBERS.min(start + 1000)).map(member).collect()
}

/// Seven members in pages of five.
pub(super) fn copies(request: &ListCopies) -> Option<ListCopiesPage> {
    let start = match request.token.as_deref() {
        None => 0,
        Some(token) => token.parse::<u32>().ok()?,
    };
    let address = |text: String| text.parse::<Address>().unwrap();
    let count = if request.token.is_none() { 0 } else { 5 };
    let copy = |number: u32| ipc::api::authd::PersonalCopy {
        member: address(format!("m{number}@b.example")),
        sender: address(format!("own-bounces+{number}@x.example")),
        unsubscribe: format!("u{number}"),
        remote: number.is_multiple_of(2),
    };
    let copies: Vec<_> = (start..(start + count).min(7)).map(copy).collect();
    let end = start + u32::try_from(copies.len()).unwrap();
    let more = request.token.is_none() || end > start;
    let next = more.then(|| address(format!("own-copies+{end}@x.example")));
    Some(ListCopiesPage { copies, next })
}

fn delivery() -> Delivery<Table, Arc<Kept>> {
    let list = Target::List {
        address: "all@x.example".parse().unwrap(),
        part: ListPart::Post,
    };
    let mut table = ["all@x.example", "alias@x.example"]
        .map(|name| (name.to_owned(), Resolution::Local(vec![list.clone()])))
        .to_vec();
    for (name, part) in [
        ("own", ListPart::Post),
        ("own-copies+0", ListPart::Copies("0".to_owned())),
        ("own-copies+5", ListPart::Copies("5".to_owned())),
        ("own-copies+7", ListPart::Copies("7".to_owned())),
        ("own-copies+x", ListPart::Copies("x".to_owned())),
    ] {
        let address = "own@x.example".parse().unwrap();
        let target = Target::List { address, part };
        table.push((format!("{name}@x.example"), Resolution::Local(vec![target])));
    }
    let directory = Table(table.into_iter().collect());
    Delivery::new(directory, Arc::default(), Config::default(), None)
}

/// What queued gets: prefix, recipients, message.
fn posted(delivered: &Delivered, files: &[File]) -> (String, Vec<Address>, String) {
    let [
        FollowUp::Distribute {
            sender,
            prefix,
            recipients,
            content,
            ..
        },
    ] = delivered.follow_ups.as_slice()
    else {
        panic!("{delivered:?}");
    };
    assert_eq!(sender.to_string(), "all-bounces@x.example");
    let mut octets = vec![0; usize::try_from(recipients + content).unwrap()];
    files[0].read_exact_at(&mut octets, 0).unwrap();
    let (list, message) = octets.split_at(usize::try_from(*recipients).unwrap());
    (
        String::from_utf8(prefix.to_vec()).unwrap(),
        postcard::from_bytes(list).unwrap(),
        String::from_utf8(message.to_vec()).unwrap(),
    )
}

fn post(from: &str, results: &str) -> Deliver {
    let body = format!("From: {from}\r\nSubject: Hi\r\nList-Id: <other.list>\r\n\r\nText\r\n");
    let mut call = call(&["all@x.example", "alias@x.example"], &body);
    if !results.is_empty() {
        let prefix = format!("Received: by us\r\nAuthentication-Results: us; {results}\r\n");
        call.prefix = prefix.into_bytes().into();
    }
    call
}

#[tokio::test]
async fn a_post_goes_to_all_members_once() {
    let results = "spf=pass smtp.mailfrom=me@there.example; dmarc=pass policy.dmarc=reject";
    let call = post("\"Jane D.\" <member@a.example>", results);
    let (delivered, files) = delivery().deliver_posts(call, None).await.unwrap();
    assert_eq!(summary(&delivered), "0:d250 1:d250");
    assert_eq!(files.len(), 1);
    let (prefix, to, message) = posted(&delivered, &files);
    assert_eq!(to.len(), MEMBERS + 1);
    assert_eq!(to[2499].to_string(), "m2499@b.example");
    assert_eq!(to[2500].to_string(), "archive@x.example");
    let id = "Delivered-To: all@x.example\r\nList-Id: \"All who care\"\r\n\t<all.x.example>\r\n";
    assert!(prefix.starts_with(id), "{prefix}");
    let traces = "Precedence: list\r\nReceived: by us\r\nAuthentication-Results: us; spf=pass";
    assert!(prefix.contains(traces), "{prefix}");
    assert_eq!(
        message,
        "From: \"Jane D. via all\" <all@x.example>\r\nSubject: [all] Hi\r\n\
         X-Original-From: \"Jane D.\" <member@a.example>\r\nReply-To: \"Jane D.\" <member@a.example>\r\n\r\nText\r\n-- the list\r\n"
    );
}

async fn outcome(call: Deliver) -> String {
    let (delivered, files) = delivery().deliver_posts(call, None).await.unwrap();
    assert_eq!(delivered.follow_ups.len(), files.len());
    format!("{} {}", summary(&delivered), files.len())
}

#[tokio::test]
async fn who_is_refused_and_who_hears_nothing() {
    let good = "spf=pass smtp.mailfrom=x; dmarc=none";
    let to = |from: &str| post(from, good);
    assert_eq!(outcome(to("member@a.example")).await, "0:d250 1:d250 1");
    assert_eq!(outcome(to("stranger@a.example")).await, "0:p550 1:p550 0");
    // A forged member: nobody is told, as nobody knows who it was.
    let forged = "spf=pass smtp.mailfrom=x; dmarc=fail policy.dmarc=none";
    let forged = post("member@a.example", forged);
    assert_eq!(outcome(forged).await, "0:d250 1:d250 0");
    // One of us must be proven.
    assert_eq!(outcome(to("own@x.example")).await, "0:p550 1:p550 0");
    let mut own = post("own@x.example", "");
    own.ours = true;
    assert_eq!(outcome(own).await, "0:d250 1:d250 1");
    let mut report = to("member@a.example");
    report.sender = None;
    assert_eq!(outcome(report).await, "0:d250 1:d250 0");
    let large = format!("From: member@a.example\r\n\r\n{}", "x".repeat(1 << 20));
    assert_eq!(outcome(call(&["all@x.example"], &large)).await, "0:p550 0");
}

#[tokio::test]
async fn circles_end_in_silence() {
    for line in [
        "Delivered-To: all@x.example",
        "List-Id: x <ALL.x.example>",
        "Auto-Submitted: auto-replied (vacation)",
    ] {
        let again = format!("{line}\r\nFrom: member@a.example\r\n\r\nx");
        for address in ["alias@x.example", "all@x.example"] {
            assert_eq!(
                outcome(call(&[address], &again)).await,
                "0:d250 0",
                "{line}"
            );
        }
    }
}

#[tokio::test]
async fn what_smtpd_added_to_a_submission_belongs_to_the_message() {
    let mut own = call(&["all@x.example"], "Subject: [ALL] x\r\n\r\ny");
    own.ours = true;
    own.prefix = b"Received: x\r\nFrom: <own@x.example>\r\nDate: today\r\n"
        .to_vec()
        .into();
    let (delivered, files) = delivery().deliver_posts(own, None).await.unwrap();
    let (prefix, _, message) = posted(&delivered, &files);
    assert!(prefix.ends_with("Precedence: list\r\nReceived: x\r\n"));
    assert_eq!(
        message,
        "Subject: [ALL] x\r\nFrom: <own@x.example>\r\nDate: today\r\n\r\ny\r\n-- the list\r\n"
    );
}

/// The copies that queued gets, and what stands before the body of each.
fn copied(delivered: &Delivered, files: &[File]) -> (String, Vec<ipc::api::deliverd::Copy>) {
    let [FollowUp::Copies { prefix, octets, .. }] = delivered.follow_ups.as_slice() else {
        panic!("{delivered:?}");
    };
    let mut list = vec![0; usize::try_from(*octets).unwrap()];
    files[0].read_exact_at(&mut list, 0).unwrap();
    (
        String::from_utf8(prefix.to_vec()).unwrap(),
        postcard::from_bytes(&list).unwrap(),
    )
}

#[tokio::test]
async fn a_personal_post_is_copied_page_by_page() {
    let delivery = delivery().with_web(Some("mail.x.example".to_owned()));
    let mut first = call(&["own@x.example"], "From: member@a.example\r\n\r\nText\r\n");
    first.prefix = b"Received: by us\r\n".to_vec().into();
    let (delivered, files) = delivery.deliver_posts(first, None).await.unwrap();
    let [
        FollowUp::Distribute {
            prefix, recipients, ..
        },
    ] = delivered.follow_ups.as_slice()
    else {
        panic!("{delivered:?}");
    };
    let mut list = vec![0; usize::try_from(*recipients).unwrap()];
    files[0].read_exact_at(&mut list, 0).unwrap();
    let to: Vec<Address> = postcard::from_bytes(&list).unwrap();
    let to: Vec<String> = to.iter().map(ToString::to_string).collect();
    assert_eq!(to, ["own-copies+0@x.example", "archive@x.example"]);
    let mut got = Vec::new();
    let mut next = Some("own-copies+0@x.example".to_owned());
    let mut prefix = prefix.clone();
    while let Some(place) = next.take() {
        let mut more = call(&[&place], "From: member@a.example\r\n\r\nText\r\n");
        more.prefix = prefix.clone();
        let (delivered, files) = delivery.deliver_posts(more, None).await.unwrap();
        assert_eq!(summary(&delivered), "0:d250");
        if files.is_empty() {
            break;
        }
        let (rest, copies) = copied(&delivered, &files);
        assert!(!rest.contains("List-Unsubscribe") && rest.ends_with("Received: by us\r\n"));
        for copy in copies {
            if copy.to.local().starts_with("own-copies") {
                assert!(copy.first.is_empty());
                next = Some(copy.to.to_string());
            } else {
                let number = &copy.to.local()[1..];
                assert_eq!(
                    copy.sender.to_string(),
                    format!("own-bounces+{number}@x.example")
                );
                let fields = format!(
                    "List-Unsubscribe: <https://mail.x.example/unsubscribe/u{number}>,\r\n\t\
                     <mailto:own-unsubscribe@x.example>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
                );
                assert_eq!(String::from_utf8(copy.first.to_vec()).unwrap(), fields);
                got.push(copy.to.to_string());
            }
        }
        prefix = rest.into_bytes().into();
    }
    assert_eq!(
        got,
        (0..7)
            .map(|n| format!("m{n}@b.example"))
            .collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn nobody_else_has_copies_made() {
    let good = "Delivered-To: own@x.example\r\nList-Id: <own.x.example>\r\n";
    for (to, prefix, wanted) in [
        ("own-copies+0@x.example", good.to_owned(), "0:d250 1"),
        ("own-copies+x@x.example", good.to_owned(), "0:d250 0"),
        (
            "own-copies+0@x.example",
            format!("Received: x\r\n{good}"),
            "0:d250 0",
        ),
        ("own-copies+0@x.example", String::new(), "0:d250 0"),
    ] {
        let mut call = call(&[to], "Subject: x\r\n\r\nText\r\n");
        call.prefix = prefix.into_bytes().into();
        assert_eq!(outcome(call).await, wanted, "{to}");
    }
}
