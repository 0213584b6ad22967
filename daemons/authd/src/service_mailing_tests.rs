//! Mailing lists on each database.

use super::*;
use crate::mailing::Lists;
use ipc::api::authd::{
    FromHandling, ListAnswer, ListCommand, ListMember, ListPart, MailingList, Moderation, Posting,
    ReplyTo, Subscription,
};

const DAY: u64 = 86_400;
const LIST: &str = "Team@example.org";

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

fn settings_of(subscription: Subscription) -> MailingList {
    MailingList {
        address: LIST.to_owned(),
        description: "The team".to_owned(),
        owners: vec!["jane@example.org".to_owned()],
        posting: Posting::Members,
        subscription,
        tag: "team".to_owned(),
        footer: "a\r\nb".to_owned(),
        from: FromHandling::Auto,
        reply_to: ReplyTo::Author,
        archive: None,
        archive_url: None,
        max_bytes: 0,
        max_bounces: 2,
        members: 0,
        personal: false,
        moderation: Moderation::None,
        held_days: 7,
    }
}

fn member(text: &str) -> ListMember {
    ListMember {
        address: text.to_owned(),
        name: String::new(),
        nomail: false,
        can_post: true,
        joined: 0,
        bounces: 0,
        suspended: false,
    }
}

async fn with_list(test: &TestDb) -> House {
    let house = House::furnished(test, settings()).await;
    let directory = &house.service.directory;
    let list = settings_of(Subscription::Confirm);
    directory.mailing_put(PutMode::Create, &list).await.unwrap();
    house
}

#[tokio::test]
async fn lists_and_members_are_kept() {
    for test in sql::testing::databases().await.unwrap() {
        eprintln!("on {}", test.name);
        let house = with_list(&test).await;
        let directory = &house.service.directory;
        let list = settings_of(Subscription::Closed);
        let again = directory.mailing_put(PutMode::Create, &list).await;
        assert!(
            again
                .unwrap_err()
                .to_string()
                .contains("a mailing list already")
        );
        directory.mailing_put(PutMode::Update, &list).await.unwrap();
        let mut many: Vec<ListMember> = (0..150)
            .map(|n| member(&format!("m{n:03}@far.example")))
            .collect();
        many[3].nomail = true;
        many[4].suspended = true;
        many[5].can_post = false;
        directory.member_put(LIST, &many, 77).await.unwrap();
        // A change keeps the day of joining, and forgets bounces.
        directory
            .member_put(LIST, &[member("M000@far.example")], 99)
            .await
            .unwrap();
        let shown = directory
            .member_list("team@example.org", None)
            .await
            .unwrap();
        assert_eq!(shown.len(), 150);
        assert_eq!(
            (shown[0].address.as_str(), shown[0].joined),
            ("M000@far.example", 77)
        );
        let rest = directory
            .member_list(LIST, Some("m147@far.example"))
            .await
            .unwrap();
        assert_eq!(rest.len(), 2);
        let getting = directory
            .list_recipients(&address(LIST), None)
            .await
            .unwrap();
        assert_eq!(getting.len(), 148);
        let found = directory.mailing_list(Some(LIST), None).await.unwrap();
        assert_eq!((found[0].members, found[0].footer.as_str()), (150, "a\nb"));
        let authors = |text: &str| vec![address(text)];
        let standing = directory
            .standing(&address(LIST), &authors("m005@far.example"))
            .await;
        assert!(!standing.unwrap().unwrap().member);
        let standing = directory
            .standing(&address(LIST), &authors("m006@far.example"))
            .await;
        assert!(standing.unwrap().unwrap().member);
        let standing = directory
            .standing(&address(LIST), &authors("JANE@example.org"))
            .await;
        assert!(standing.unwrap().unwrap().owner);
        let gone = ["m001@far.example".to_owned(), "x@far.example".to_owned()];
        assert_eq!(directory.member_remove(LIST, &gone).await.unwrap(), 1);
        assert!(
            directory
                .member_put(LIST, &[member("team@example.org")], 1)
                .await
                .is_err()
        );
        directory.mailing_remove(LIST).await.unwrap();
        assert!(directory.member_list(LIST, None).await.is_err());
        directory.mailing_put(PutMode::Create, &list).await.unwrap();
        assert!(directory.member_list(LIST, None).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn what_cannot_be_a_list_is_refused() {
    for test in sql::testing::databases().await.unwrap() {
        let house = House::furnished(&test, settings()).await;
        let directory = &house.service.directory;
        let change = |change: fn(&mut MailingList)| {
            let mut list = settings_of(Subscription::Closed);
            change(&mut list);
            list
        };
        for list in [
            change(|list| list.address = "jane@example.org".into()),
            change(|list| list.address = "x@foreign.example".into()),
            change(|list| list.description = "a\r\nBcc: b".into()),
            change(|list| list.tag = "a]".into()),
            change(|list| list.footer = "x".repeat(4001)),
            change(|list| list.owners = vec!["nobody".into()]),
            change(|list| list.owners = vec!["jane@example.org".into(); 21]),
            change(|list| list.archive_url = Some("https://a> b".into())),
        ] {
            assert!(
                directory.mailing_put(PutMode::Create, &list).await.is_err(),
                "{list:?}"
            );
        }
    }
}

#[tokio::test]
async fn each_address_of_a_list_is_known() {
    for test in sql::testing::databases().await.unwrap() {
        let house = with_list(&test).await;
        let list = |part: &str| vec![format!("list {LIST} {part}")];
        for (local, wanted) in [
            ("team", list("Post")),
            ("TEAM-Bounces", list("Bounces")),
            ("team-request", list("Request")),
            ("team-subscribe", list("Subscribe")),
            ("team-unsubscribe", list("Unsubscribe")),
            ("team-confirm+j1-00", list("Confirm(\"j1-00\")")),
            ("team-owner", vec!["Jane@example.org".to_owned()]),
            ("team-else", vec!["Unknown".to_owned()]),
            ("jane-bounces", vec!["Unknown".to_owned()]),
        ] {
            let asked = address(&format!("{local}@example.org"));
            let found = house.service.resolver.resolve(&asked).await.unwrap();
            assert_eq!(accounts(&found), wanted, "{local}");
        }
        let list = address(LIST);
        let may = house.service.resolver.may_send(AccountId(1), &list);
        assert!(!may.await.unwrap());
    }
}

#[tokio::test]
async fn bounces_count_by_day_and_are_forgotten() {
    for test in sql::testing::databases().await.unwrap() {
        let house = with_list(&test).await;
        let directory = &house.service.directory;
        directory
            .member_put(LIST, &[member("a@far.example")], 1)
            .await
            .unwrap();
        let list = address(LIST);
        let both = [address("A@far.example"), address("stranger@far.example")];
        let at = |day: u64| directory.list_bounced(&list, &both, day * DAY);
        assert!(at(100).await.unwrap().members.is_empty());
        assert!(at(100).await.unwrap().members.is_empty());
        // More than a week later it begins anew.
        assert!(at(110).await.unwrap().members.is_empty());
        let out = at(112).await.unwrap();
        assert_eq!(out.members, [address("A@far.example")]);
        assert_eq!(out.owners, [address("jane@example.org")]);
        assert!(at(113).await.unwrap().members.is_empty(), "told once");
        assert!(
            directory
                .list_recipients(&list, None)
                .await
                .unwrap()
                .is_empty()
        );
        directory
            .member_put(LIST, &[member("a@far.example")], 1)
            .await
            .unwrap();
        assert_eq!(
            directory.list_recipients(&list, None).await.unwrap().len(),
            1
        );
    }
}

#[tokio::test]
async fn joining_needs_an_answer_to_the_question() {
    for test in sql::testing::databases().await.unwrap() {
        let house = with_list(&test).await;
        let directory = house.service.directory.clone();
        let lists = Lists {
            directory: directory.clone(),
            resolver: Arc::clone(&house.service.resolver),
            seal: seal(),
        };
        let ask = |sender: &str, about: &[&str], command| ListCommand {
            list: address(LIST),
            sender: address(sender),
            about: about.iter().map(|one| address(one)).collect(),
            command,
        };
        let new = "new@far.example";
        let question = lists
            .command(TraceId(1), ask(new, &[new], ListPart::Subscribe))
            .await
            .unwrap();
        let ListAnswer::Ask {
            to,
            confirm,
            joins: true,
            ..
        } = question
        else {
            panic!("{question:?}")
        };
        assert_eq!(to, [address(new)]);
        let token = confirm.local().rsplit_once('+').unwrap().1.to_owned();
        let confirm = |about: &[&str], token: &str| {
            let command = ListPart::Confirm(token.to_owned());
            lists.command(TraceId(1), ask("x@far.example", about, command))
        };
        let last = if token.ends_with('0') { "1" } else { "0" };
        let other = format!("{}{last}", &token[..token.len() - 1]);
        let old = format!("j1-{}", token.split_once('-').unwrap().1);
        let leave = token.replacen('j', "l", 1);
        for (about, token) in [
            ("x@far.example", token.as_str()),
            (new, &other),
            (new, &old),
            (new, &leave),
            (new, "j"),
            (new, ""),
        ] {
            let done = confirm(&[about], token).await.unwrap();
            assert_eq!(done, ListAnswer::Nothing, "{about} {token}");
        }
        let done = confirm(&["x@far.example", new], &token.to_uppercase())
            .await
            .unwrap();
        assert_eq!(
            done,
            ListAnswer::Done {
                member: address(new),
                joined: true
            }
        );
        assert_eq!(directory.member_list(LIST, None).await.unwrap().len(), 1);
        let list = settings_of(Subscription::Owner);
        directory.mailing_put(PutMode::Update, &list).await.unwrap();
        let question = lists
            .command(TraceId(1), ask(new, &[new], ListPart::Subscribe))
            .await
            .unwrap();
        assert!(
            matches!(question, ListAnswer::Ask { to, .. } if to == [address("jane@example.org")])
        );
        let list = settings_of(Subscription::Closed);
        directory.mailing_put(PutMode::Update, &list).await.unwrap();
        let answer = lists
            .command(TraceId(1), ask(new, &[new], ListPart::Subscribe))
            .await
            .unwrap();
        assert_eq!(answer, ListAnswer::Closed);
    }
}

#[tokio::test]
async fn decisions_need_the_seal_of_the_list_the_post_and_the_kind() {
    for test in sql::testing::databases().await.unwrap() {
        let house = with_list(&test).await;
        let lists = Lists {
            directory: house.service.directory.clone(),
            resolver: Arc::clone(&house.service.resolver),
            seal: seal(),
        };
        let (one, two) = (types::QueueId(1), types::QueueId(1 << 60));
        let both = lists.decide(TraceId(1), &address(LIST), one).await.unwrap();
        let both = both.unwrap();
        let token = |address: &Address| address.local().rsplit_once('+').unwrap().1.to_owned();
        let (accept, reject) = (token(&both.accept), token(&both.reject));
        let decide = |list: &str, token: &str| {
            let (list, token) = (address(list), token.to_owned());
            let lists = &lists;
            async move {
                let found = lists.decision(TraceId(1), &list, &token).await;
                found.unwrap()
            }
        };
        let decided = |accept| Some(ListAnswer::Decision { post: one, accept });
        assert_eq!(decide(LIST, &accept).await, decided(true));
        assert_eq!(decide(LIST, &accept.to_uppercase()).await, decided(true));
        assert_eq!(decide(LIST, &reject).await, decided(false));
        let nothing = Some(ListAnswer::Nothing);
        assert_eq!(decide("other@example.org", &accept).await, nothing);
        let kind = accept.replacen('a', "r", 1);
        assert_eq!(decide(LIST, &kind).await, nothing);
        let other = format!("a{two}{}", &accept[14..]);
        assert_eq!(decide(LIST, &other).await, nothing);
        for none in ["", "a", "j20786-00112233445566778899", &accept[1..], "aé"] {
            assert_eq!(decide(LIST, none).await, None, "{none}");
        }
        let long = "a-list-whose-name-is-too-long-here@example.org";
        let long = lists.decide(TraceId(1), &address(long), one).await;
        assert_eq!(long.unwrap(), None);
        // A list that is moderated has somebody who decides, and time for it.
        let mut list = settings_of(Subscription::Closed);
        list.moderation = Moderation::Others;
        let put = |list: &MailingList| {
            let (directory, list) = (&house.service.directory, list.clone());
            async move { directory.mailing_put(PutMode::Update, &list).await.is_ok() }
        };
        assert!(put(&list).await);
        list.held_days = 31;
        assert!(!put(&list).await);
        list.held_days = 1;
        list.owners.clear();
        assert!(!put(&list).await);
    }
}

#[tokio::test]
async fn a_domain_can_have_the_addresses_of_another() {
    for test in sql::testing::databases().await.unwrap() {
        let house = with_list(&test).await;
        let directory = &house.service.directory;
        let mut domain = ipc::api::authd::Domain {
            name: "also.example".into(),
            enabled: true,
            catch_all: Some("jane@example.org".into()),
            subaddressing: true,
            quota_bytes: 0,
            alias_of: Some("nowhere.example".into()),
        };
        assert!(
            directory
                .domain_put(PutMode::Create, &domain)
                .await
                .is_err()
        );
        domain.alias_of = Some("Example.org".into());
        directory
            .domain_put(PutMode::Create, &domain)
            .await
            .unwrap();
        house.account("own@also.example", None).await.unwrap();
        for (local, wanted) in [
            ("john", "john@example.org"),
            ("jane+x", "Jane@example.org [x]"),
            ("own", "own@also.example"),
            ("nobody", "Unknown"),
            ("team", "list Team@example.org Post"),
            ("team-bounces", "list Team@example.org Bounces"),
        ] {
            let asked = address(&format!("{local}@also.example"));
            let found = house.service.resolver.resolve(&asked).await.unwrap();
            assert_eq!(accounts(&found), [wanted], "{local}");
        }
        let jane = house
            .service
            .directory
            .account_list(Some("jane@example.org"), None, None, 1)
            .await
            .unwrap()
            .remove(0);
        let resolver = &house.service.resolver;
        assert!(
            resolver
                .may_send(jane.id, &address("jane@also.example"))
                .await
                .unwrap()
        );
        assert!(
            !resolver
                .may_send(jane.id, &address("john@also.example"))
                .await
                .unwrap()
        );
        assert!(directory.domain_remove("example.org").await.is_err());
        // Two that are each other end.
        let mut other = directory.domain("example.org").await.unwrap().unwrap();
        other.alias_of = Some("also.example".into());
        directory.domain_put(PutMode::Update, &other).await.unwrap();
        let found = resolver
            .resolve(&address("nobody@example.org"))
            .await
            .unwrap();
        assert_eq!(accounts(&found), ["Unknown"]);
    }
}
