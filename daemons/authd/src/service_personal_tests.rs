//! Personal posts on each database: handles, places, tokens, bounces, one click.

use super::*;
use crate::mailing::Lists;
use ipc::api::authd::{
    FromHandling, ListBounced, ListCopies, ListLeft, ListMember, ListPart, ListUnsubscribe,
    MailingList, Moderation, PersonalCopy, Posting, ReplyTo, Subscription,
};
use std::collections::BTreeSet;

const LIST: &str = "Team@example.org";
const MEMBERS: usize = 450;

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

fn list(name: &str, personal: bool) -> MailingList {
    MailingList {
        address: name.to_owned(),
        description: String::new(),
        owners: vec!["jane@example.org".to_owned()],
        posting: Posting::Members,
        subscription: Subscription::Closed,
        tag: String::new(),
        footer: String::new(),
        from: FromHandling::Auto,
        reply_to: ReplyTo::Author,
        archive: None,
        archive_url: None,
        max_bytes: 0,
        max_bounces: 1,
        members: 0,
        personal,
        moderation: Moderation::None,
        held_days: 7,
    }
}

fn member(text: String) -> ListMember {
    ListMember {
        address: text,
        name: String::new(),
        nomail: false,
        can_post: true,
        joined: 0,
        bounces: 0,
        suspended: false,
    }
}

async fn with_lists(test: &TestDb, most: u64) -> (House, Lists) {
    let config = Config {
        personal_members: most,
        ..settings()
    };
    let house = House::furnished(test, config).await;
    let lists = Lists {
        directory: house.service.directory.clone(),
        resolver: Arc::clone(&house.service.resolver),
        seal: seal(),
    };
    (house, lists)
}

/// A list that was there before its posts became personal.
async fn with_members(lists: &Lists) {
    let directory = &lists.directory;
    let plain = list(LIST, false);
    directory
        .mailing_put(PutMode::Create, &plain)
        .await
        .unwrap();
    let mut many: Vec<ListMember> = (0..MEMBERS)
        .map(|n| member(format!("m{n}@far.example")))
        .collect();
    many[3].nomail = true;
    many[4].suspended = true;
    many.push(member("jane@example.org".to_owned()));
    for some in many.chunks(200) {
        directory.member_put(LIST, some, 1).await.unwrap();
    }
    // As rows of the version before.
    directory.forget_handles().await;
    let personal = list(LIST, true);
    directory
        .mailing_put(PutMode::Update, &personal)
        .await
        .unwrap();
}

async fn all_copies(lists: &Lists) -> Vec<PersonalCopy> {
    let mut all = Vec::new();
    let mut token = None;
    loop {
        let request = ListCopies {
            list: address(LIST),
            token: token.take(),
        };
        let page = lists.copies(TraceId(1), request).await.unwrap().unwrap();
        assert!(page.copies.len() <= 200);
        all.extend(page.copies);
        let Some(next) = page.next else { return all };
        let found = lists.resolver.resolve(&next).await.unwrap();
        let Resolution::Local(targets) = found else {
            panic!("{found:?}")
        };
        let [
            Target::List {
                part: ListPart::Copies(place),
                ..
            },
        ] = targets.as_slice()
        else {
            panic!("{targets:?}")
        };
        token = Some(place.clone());
    }
}

#[tokio::test]
async fn each_member_gets_one_copy_with_tokens_of_their_own() {
    for test in sql::testing::databases().await.unwrap() {
        let (_house, lists) = with_lists(&test, 1000).await;
        with_members(&lists).await;
        let copies = all_copies(&lists).await;
        let members: BTreeSet<String> = copies.iter().map(|one| one.member.to_string()).collect();
        assert_eq!((copies.len(), members.len()), (MEMBERS - 1, MEMBERS - 1));
        assert!(!members.contains("m3@far.example") && !members.contains("m4@far.example"));
        let senders: BTreeSet<String> = copies.iter().map(|one| one.sender.to_string()).collect();
        let links: BTreeSet<&str> = copies.iter().map(|one| one.unsubscribe.as_str()).collect();
        assert_eq!((senders.len(), links.len()), (MEMBERS - 1, MEMBERS - 1));
        assert!(
            copies
                .iter()
                .all(|one| one.remote != (one.member.domain() == "example.org"))
        );
        assert!(
            senders
                .iter()
                .all(|sender| sender.starts_with("Team-bounces+"))
        );
        // A place that was not made here.
        let forged = "a".repeat(22);
        for place in ["", "x", forged.as_str()] {
            let request = ListCopies {
                list: address(LIST),
                token: Some(place.to_owned()),
            };
            assert_eq!(lists.copies(TraceId(1), request).await.unwrap(), None);
        }
        // Who comes back is the same for old links.
        let gone = ["m7@far.example".to_owned()];
        lists.directory.member_remove(LIST, &gone).await.unwrap();
        let again = [member("M7@far.example".to_owned())];
        lists.directory.member_put(LIST, &again, 9).await.unwrap();
        let after = all_copies(&lists).await;
        let link = |copies: &[PersonalCopy]| {
            let of = |one: &&PersonalCopy| one.member.key() == "m7@far.example";
            copies.iter().find(of).unwrap().unsubscribe.clone()
        };
        assert_eq!(link(&after), link(&copies));
    }
}

#[tokio::test]
async fn bounces_count_by_the_reverse_path_alone() {
    for test in sql::testing::databases().await.unwrap() {
        let (_house, lists) = with_lists(&test, 1000).await;
        with_members(&lists).await;
        let other = list("other@example.org", true);
        lists
            .directory
            .mailing_put(PutMode::Create, &other)
            .await
            .unwrap();
        let copies = all_copies(&lists).await;
        let victim = copies[0].member.clone();
        let token = copies[0]
            .sender
            .local()
            .rsplit_once('+')
            .unwrap()
            .1
            .to_owned();
        let thief = copies[1]
            .sender
            .local()
            .rsplit_once('+')
            .unwrap()
            .1
            .to_owned();
        let bounce = async |of: &str, token: Option<String>, names: &[&Address]| {
            let request = ListBounced {
                list: address(of),
                members: names.iter().map(|one| (*one).clone()).collect(),
                token,
            };
            lists.bounced(TraceId(1), request).await.unwrap().members
        };
        // By name; with the seal of somebody else; with a letter changed; at another list.
        assert!(bounce(LIST, None, &[&victim]).await.is_empty());
        let mixed = format!("{}{}", &token[..12], &thief[12..]);
        let last = if token.ends_with('a') { "b" } else { "a" };
        let changed = format!("{}{last}", &token[..21]);
        for wrong in [
            mixed,
            changed,
            String::new(),
            "é".repeat(11),
            copies[0].unsubscribe.clone(),
        ] {
            assert!(bounce(LIST, Some(wrong), &[&victim]).await.is_empty());
        }
        assert!(
            bounce("other@example.org", Some(token.clone()), &[])
                .await
                .is_empty()
        );
        let suspended = bounce(LIST, Some(token.to_uppercase()), &[&copies[1].member]).await;
        assert_eq!(suspended, [victim]);
    }
}

#[tokio::test]
async fn one_click_ends_a_membership_and_can_be_repeated() {
    for test in sql::testing::databases().await.unwrap() {
        let (_house, lists) = with_lists(&test, 1000).await;
        with_members(&lists).await;
        let copies = all_copies(&lists).await;
        let click = async |token: &str, leave: bool| {
            let token = token.to_owned();
            let request = ListUnsubscribe { token, leave };
            lists.unsubscribe(TraceId(1), &request).await.unwrap()
        };
        let is_member = async |one: &PersonalCopy| {
            let authors = [one.member.clone()];
            let standing = lists.directory.standing(&address(LIST), &authors).await;
            standing.unwrap().is_some_and(|standing| standing.member)
        };
        let (one, two) = (&copies[0], &copies[1]);
        let link = one.unsubscribe.as_str();
        let known = Some(ListLeft {
            list: Some(LIST.to_owned()),
        });
        assert_eq!(click(link, false).await, known);
        assert!(is_member(one).await);
        let mixed = format!("{}{}", &link[..12], &two.unsubscribe[12..]);
        let token = one.sender.local().rsplit_once('+').unwrap().1;
        for wrong in [mixed.as_str(), "", "x", token, &link[1..]] {
            assert_eq!(click(wrong, true).await, None, "{wrong}");
        }
        assert!(is_member(one).await && is_member(two).await);
        assert_eq!(click(&link.to_uppercase(), true).await, known);
        assert!(!is_member(one).await && is_member(two).await);
        let gone = Some(ListLeft { list: None });
        assert_eq!(click(link, true).await, gone);
        lists.directory.mailing_remove(LIST).await.unwrap();
        assert_eq!(click(&two.unsubscribe, true).await, gone);
        assert_eq!(click(&mixed, true).await, None);
    }
}

#[tokio::test]
async fn personal_lists_have_limits_of_their_own() {
    for test in sql::testing::databases().await.unwrap() {
        let (_house, lists) = with_lists(&test, 3).await;
        let directory = &lists.directory;
        let long = format!("{}@example.org", "l".repeat(34));
        assert!(
            directory
                .mailing_put(PutMode::Create, &list(&long, true))
                .await
                .is_err()
        );
        directory
            .mailing_put(PutMode::Create, &list(&long, false))
            .await
            .unwrap();
        let fits = format!("{}@example.org", "l".repeat(33));
        directory
            .mailing_put(PutMode::Create, &list(&fits, true))
            .await
            .unwrap();
        let some = |count: usize| -> Vec<ListMember> {
            (0..count)
                .map(|n| member(format!("m{n}@far.example")))
                .collect()
        };
        directory.member_put(&fits, &some(3), 1).await.unwrap();
        let more = directory
            .member_put(&fits, &[member("x@far.example".into())], 1)
            .await;
        assert!(more.unwrap_err().to_string().contains("up to 3 members"));
        let plain = list("plain@example.org", false);
        directory
            .mailing_put(PutMode::Create, &plain)
            .await
            .unwrap();
        directory
            .member_put("plain@example.org", &some(4), 1)
            .await
            .unwrap();
        let personal = list("plain@example.org", true);
        assert!(
            directory
                .mailing_put(PutMode::Update, &personal)
                .await
                .is_err()
        );
    }
}
