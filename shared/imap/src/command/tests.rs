//! Examples from the RFCs and from real clients.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::{RefusalKind, SequenceNumber};
use proptest::prelude::*;

fn command(line: &str) -> Command {
    let tagged = parse(line.as_bytes(), Names::ModifiedUtf7);
    let tagged = tagged.unwrap_or_else(|error| panic!("{line}: {error}"));
    tagged.command
}

fn refused(line: &str) -> Refused {
    match parse(line.as_bytes(), Names::ModifiedUtf7) {
        Ok(tagged) => panic!("{line}: {tagged:?}"),
        Err(refused) => refused,
    }
}

fn search(keys: &str) -> SearchKey {
    match command(&format!("a SEARCH {keys}")) {
        Command::Search(search) => search.key,
        other => panic!("{other:?}"),
    }
}

fn fetch(items: &str) -> Fetch {
    match command(&format!("a FETCH 1 {items}")) {
        Command::Fetch(fetch) => fetch,
        other => panic!("{other:?}"),
    }
}

fn label(item: &str) -> String {
    match fetch(item).items.pop() {
        Some(
            FetchItem::Section { label, .. }
            | FetchItem::Binary { label, .. }
            | FetchItem::BinarySize { label, .. },
        ) => String::from_utf8(label).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn commands_without_arguments() {
    assert_eq!(command("abcd CAPABILITY"), Command::Capability);
    assert_eq!(command("a noop "), Command::Noop);
    assert_eq!(command("a Logout"), Command::Logout);
    assert_eq!(command("a UNSELECT"), Command::Unselect);
    assert_eq!(command("a IDLE"), Command::Idle);
    assert_eq!(refused("a NOOP 1").tag.as_deref(), Some("a"));
    assert_eq!(refused("").tag, None);
    assert_eq!(refused("a+ NOOP").tag, None);
    assert_eq!(refused("a").tag.as_deref(), Some("a"));
    assert_eq!(refused("a FROBNICATE").refusal.kind, RefusalKind::Bad);
    assert_eq!(refused("a UID NOOP").refusal.kind, RefusalKind::Bad);
}

#[test]
fn login_and_authenticate() {
    let login = |name: &str, password: &str| Command::Login {
        name: name.as_bytes().into(),
        password: password.as_bytes().into(),
    };
    assert_eq!(command("a001 LOGIN SMITH SESAME"), login("SMITH", "SESAME"));
    assert_eq!(
        command("a LOGIN \"a \\\"b\\\\\" {4}\r\n\r\n\"x"),
        login("a \"b\\", "\r\n\"x")
    );
    assert_eq!(
        command("a AUTHENTICATE plain AGEAYg=="),
        Command::Authenticate {
            mechanism: "PLAIN".into(),
            initial: Some(b"\0a\0b".as_slice().into())
        }
    );
    assert_eq!(
        command("a AUTHENTICATE EXTERNAL ="),
        Command::Authenticate {
            mechanism: "EXTERNAL".into(),
            initial: Some(Octets::default())
        }
    );
    assert_eq!(
        command("a AUTHENTICATE SCRAM-SHA-256-PLUS"),
        Command::Authenticate {
            mechanism: "SCRAM-SHA-256-PLUS".into(),
            initial: None
        }
    );
    refused("a AUTHENTICATE PLAIN ***");
    refused("a LOGIN me");
    refused("a LOGIN me \"open");
    // No secret in what may be logged.
    assert!(!format!("{:?}", command("a LOGIN me sesame")).contains("sesame"));
}

#[test]
fn mailbox_commands() {
    assert_eq!(
        command("a CREATE owatagusiam/"),
        Command::Create {
            mailbox: "owatagusiam".into(),
            special_use: vec![]
        }
    );
    assert_eq!(
        command("t1 CREATE Everything (USE (\\All \\Archive))"),
        Command::Create {
            mailbox: "Everything".into(),
            special_use: vec!["\\All".into(), "\\Archive".into()]
        }
    );
    assert_eq!(
        command("a RENAME inbox \"Old mail\""),
        Command::Rename {
            from: "INBOX".into(),
            to: "Old mail".into()
        }
    );
    assert_eq!(
        command("a DELETE Entw&APw-rfe"),
        Command::Delete {
            mailbox: "Entwürfe".into()
        }
    );
    assert_eq!(refused("a DELETE &bad").refusal.kind, RefusalKind::Name);
    assert_eq!(
        command("a SELECT InBox (CONDSTORE)"),
        Command::Select(Select {
            mailbox: "INBOX".into(),
            read_only: false,
            condstore: true,
            resync: None
        })
    );
    let Command::Select(select) = command(
        "A03 EXAMINE INBOX (QRESYNC (67890007 90060115194045000 41:211,214:541 (1,3 5,9)))",
    ) else {
        panic!()
    };
    assert!(select.read_only);
    let resync = select.resync.unwrap();
    assert_eq!(
        (resync.uidvalidity, resync.modseq),
        (67_890_007, 90_060_115_194_045_000)
    );
    assert!(resync.known.is_some() && resync.pairs.is_some());
    refused("a SELECT INBOX (FOO)");
    refused("a SELECT");
}

#[test]
fn list_and_status() {
    let list = |line: &str| match command(line) {
        Command::List(list) => list,
        other => panic!("{other:?}"),
    };
    let plain = list("a LIST \"\" *");
    assert_eq!(
        (plain.patterns, plain.extended),
        (vec!["*".to_owned()], false)
    );
    assert_eq!(list("a LIST ~/Mail/ %").reference, "~/Mail/");
    assert_eq!(list("a LIST \"\" \"\"").patterns, [""]);
    let extended = list(
        "A01 LIST (SUBSCRIBED RECURSIVEMATCH) \"\" (INBOX \"Drafts\" Sent/%) RETURN (CHILDREN SPECIAL-USE STATUS (MESSAGES UNSEEN))",
    );
    assert!(
        extended.extended && extended.selection.subscribed && extended.selection.recursive_match
    );
    assert_eq!(extended.patterns, ["INBOX", "Drafts", "Sent/%"]);
    assert!(
        extended.returns.children && extended.returns.special_use && !extended.returns.subscribed
    );
    assert_eq!(
        extended.returns.status,
        Some(vec![StatusItem::Messages, StatusItem::Unseen])
    );
    refused("a LIST (RECURSIVEMATCH) \"\" *");
    refused("a LIST \"\" ()");
    refused("a LIST \"\" * RETURN (FOO)");
    assert_eq!(
        command("A042 STATUS blurdybloop (UIDNEXT MESSAGES SIZE HIGHESTMODSEQ)"),
        Command::Status {
            mailbox: "blurdybloop".into(),
            items: vec![
                StatusItem::UidNext,
                StatusItem::Messages,
                StatusItem::Size,
                StatusItem::HighestModSeq
            ]
        }
    );
    refused("a STATUS x ()");
    assert_eq!(
        command("a LSUB \"#news.\" \"comp.mail.*\""),
        Command::Lsub {
            reference: "#news.".into(),
            pattern: "comp.mail.*".into()
        }
    );
}

#[test]
fn fetch_items() {
    assert_eq!(
        fetch("ALL").items,
        [
            FetchItem::Flags,
            FetchItem::InternalDate,
            FetchItem::Size,
            FetchItem::Envelope
        ]
    );
    assert_eq!(fetch("FULL").items.last(), Some(&FetchItem::Body));
    assert_eq!(
        fetch("(UID FLAGS uid)").items,
        [FetchItem::Uid, FetchItem::Flags]
    );
    assert_eq!(
        fetch("FLAGS (CHANGEDSINCE 12345)").changed_since,
        Some(12345)
    );
    assert!(fetch("(FLAGS) (CHANGEDSINCE 1 VANISHED)").vanished);
    assert_eq!(label("BODY[]"), "BODY[]");
    assert_eq!(label("BODY.PEEK[1.2.mime]<0.2048>"), "BODY[1.2.MIME]<0>");
    assert_eq!(
        label("body.peek[header.fields (DATE From)]"),
        "BODY[HEADER.FIELDS (DATE From)]"
    );
    assert_eq!(
        label("BODY[4.1.HEADER.FIELDS.NOT (\"x-(y\")]"),
        "BODY[4.1.HEADER.FIELDS.NOT (\"x-(y\")]"
    );
    assert_eq!(label("BINARY[1.2]<4.9>"), "BINARY[1.2]<4>");
    assert_eq!(label("BINARY.SIZE[1]"), "BINARY.SIZE[1]");
    assert_eq!(label("RFC822.HEADER"), "RFC822.HEADER");
    assert!(fetch("RFC822").items.iter().all(FetchItem::sets_seen));
    assert!(
        !fetch("RFC822.HEADER")
            .items
            .iter()
            .any(FetchItem::sets_seen)
    );
    assert!(fetch("BODY[TEXT]").items.iter().all(FetchItem::sets_seen));
    for bad in [
        "",
        "()",
        "(ALL)",
        "BODY[0]",
        "BODY[MIME]",
        "BODY[1.]",
        "BODY[",
        "BODY[HEADER.FIELDS ()]x",
        "BODY[]<1>",
        "BODY[]<0.0>",
        "BINARY[HEADER]",
        "FOO",
        "(FLAGS",
        "FLAGS UID",
        "BODY[HEADER.FIELDS (a:b)]",
    ] {
        refused(&format!("a FETCH 1 {bad}"));
    }
    refused("a FETCH 0 FLAGS");
}

#[test]
fn a_partial_stays_inside() {
    let partial = |first, count| Partial { first, count };
    assert_eq!(partial(0, 5).of(10..20), 10..15);
    assert_eq!(partial(8, 5).of(10..20), 18..20);
    assert_eq!(partial(30, 5).of(10..20), 20..20);
    assert_eq!(partial(u64::MAX, u64::MAX).of(10..20), 20..20);
}

#[test]
fn store_copy_move_expunge() {
    let Command::Store(store) =
        command("a UID STORE 2:4,7 (UNCHANGEDSINCE 320162338) +FLAGS.SILENT (\\Deleted)")
    else {
        panic!()
    };
    assert!(store.uid && store.silent);
    assert_eq!(store.unchanged_since, Some(320_162_338));
    assert_eq!(
        (store.action, store.flags),
        (FlagAction::Add, vec!["\\Deleted".to_owned()])
    );
    let Command::Store(store) = command("a STORE $ FLAGS \\Seen Work") else {
        panic!()
    };
    assert_eq!(store.set, SequenceSet::Saved);
    assert_eq!(store.flags, ["\\Seen", "Work"]);
    let set = SequenceSet::Ranges(vec![(SequenceNumber::Number(2), SequenceNumber::Largest)]);
    assert_eq!(
        command("a COPY 2:* MEETING"),
        Command::Copy {
            uid: false,
            set: set.clone(),
            mailbox: "MEETING".into()
        }
    );
    assert_eq!(
        command("a UID MOVE 2:* INBOX"),
        Command::Move {
            uid: true,
            set: set.clone(),
            mailbox: "INBOX".into()
        }
    );
    assert_eq!(command("a UID EXPUNGE 2:*"), Command::UidExpunge(set));
    assert_eq!(command("a EXPUNGE"), Command::Expunge);
    refused("a EXPUNGE 1");
    refused("a STORE 1 FLAGS");
    refused("a STORE 1 FLAGS ()x");
}

#[test]
fn uids_after_and_before_are_ranges() {
    // RFC 9738 3.2
    let key = search;
    assert_eq!(key("UIDAFTER 9"), key("UID 10:4294967295"));
    assert_eq!(key("UIDBEFORE 9"), key("UID 1:8"));
    assert_eq!(key("UIDBEFORE 1"), key("NOT ALL"));
    assert_eq!(key("UIDAFTER 4294967295"), key("NOT ALL"));
    assert!(parse(b"a SEARCH UIDBEFORE 0", Names::Utf8).is_err());
}

#[test]
fn search_keys() {
    let flag = |name: &str| SearchKey::Flag(name.into());
    let header = |name: &str, text: &str| SearchKey::Header(name.into(), text.into());
    assert_eq!(
        search("FLAGGED SINCE 1-Feb-1994 NOT FROM \"Smith\""),
        SearchKey::And(vec![
            flag("\\Flagged"),
            SearchKey::Since(8797),
            SearchKey::Not(Box::new(header("from", "Smith")))
        ])
    );
    assert_eq!(search("UNSEEN"), SearchKey::Not(Box::new(flag("\\Seen"))));
    assert_eq!(
        search("CHARSET UTF-8 OR TEXT {4+}\r\nüü (KEYWORD $junk UID 1:5)"),
        SearchKey::Or(
            Box::new(SearchKey::Text("üü".into())),
            Box::new(SearchKey::And(vec![
                flag("$Junk"),
                SearchKey::Uid(SequenceSet::Ranges(vec![(
                    SequenceNumber::Number(1),
                    SequenceNumber::Number(5)
                )]))
            ]))
        )
    );
    assert_eq!(search("HEADER Message-ID \"\""), header("message-id", ""));
    assert_eq!(
        search("MODSEQ \"/flags/\\\\draft\" all 620162338"),
        SearchKey::ModSeq(620_162_338)
    );
    assert_eq!(search("LARGER 1000"), SearchKey::Larger(1000));
    assert_eq!(search("((ALL))"), SearchKey::All);
    assert!(matches!(search("$ SMALLER 1"), SearchKey::And(_)));
    assert_eq!(
        refused("a SEARCH CHARSET KOI8-R ALL").refusal.kind,
        RefusalKind::Charset { saves: false }
    );
    assert_eq!(
        refused("a UID SEARCH RETURN (COUNT SAVE) CHARSET KOI8-R ALL")
            .refusal
            .kind,
        RefusalKind::Charset { saves: true }
    );
    for bad in [
        "", "()", "FOO", "NOT", "OR ALL", "FROM", "SINCE x", "ALL  ALL", "UID x",
    ] {
        refused(&format!("a SEARCH {bad}"));
    }
    refused(&format!("a SEARCH {}ALL", "NOT ".repeat(10_000)));
    refused(&format!("a SEARCH {}", "(".repeat(60_000)));
}

#[test]
fn search_returns() {
    let returns = |line: &str| match command(line) {
        Command::Search(search) => search.returns,
        other => panic!("{other:?}"),
    };
    assert_eq!(returns("a SEARCH ALL"), None);
    let all = ReturnOptions {
        all: true,
        ..ReturnOptions::default()
    };
    assert_eq!(returns("a UID SEARCH RETURN () ALL"), Some(all));
    let options = returns("A1 SEARCH RETURN (MIN COUNT SAVE) FLAGGED").unwrap();
    assert!(options.min && options.count && options.save && !options.all);
    assert!(options.partial.is_none() && !options.names_some());
    refused("a SEARCH RETURN (FOO) ALL");
    // RFC 9394 3.1
    let options = returns("A01 UID SEARCH RETURN (PARTIAL -1:-100) UNDELETED").unwrap();
    let page = options.partial.unwrap();
    assert!(page.from_end && page.low == 1 && page.high == 100 && !options.all);
    let options = returns("A02 UID SEARCH RETURN (PARTIAL 500:400 MIN) UNDELETED").unwrap();
    let page = options.partial.unwrap();
    assert!(!page.from_end && page.low == 400 && page.high == 500 && options.min);
    assert!(options.names_some());
    for bad in [
        "PARTIAL",
        "PARTIAL 1",
        "PARTIAL 0:5",
        "PARTIAL 1:*",
        "PARTIAL -1:5",
        "PARTIAL 1:-5",
        "PARTIAL 1:4294967296",
        "PARTIAL 1:5 ALL",
        "ALL PARTIAL 1:5",
        "PARTIAL 1:5 PARTIAL 6:9",
    ] {
        refused(&format!("a SEARCH RETURN ({bad}) ALL"));
        refused(&format!("a SORT RETURN ({bad}) (DATE) UTF-8 ALL"));
    }
}

#[test]
fn search_save_dates() {
    let key = |line: &str| match command(line) {
        Command::Search(search) => search.key,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        key("a SEARCH SAVEDATESUPPORTED"),
        SearchKey::SaveDateSupported
    );
    assert_eq!(
        key("a SEARCH SAVEDBEFORE 2-Jan-1970"),
        SearchKey::SavedBefore(1)
    );
    assert_eq!(key("a SEARCH SAVEDON 2-Jan-1970"), SearchKey::SavedOn(1));
    assert_eq!(
        key("a SEARCH SAVEDSINCE 1-Jan-1970"),
        SearchKey::SavedSince(0)
    );
    refused("a SEARCH SAVEDON");
    refused("a SEARCH SAVEDON yesterday");
}

#[test]
fn id_enable_quota() {
    assert_eq!(command("a ID NIL"), Command::Id(vec![]));
    assert_eq!(
        command("a ID (\"name\" \"sodr\" \"version\" NIL)"),
        Command::Id(vec![
            ("name".into(), Some("sodr".into())),
            ("version".into(), None)
        ])
    );
    assert_eq!(
        command("a ENABLE condstore IMAP4rev2"),
        Command::Enable(vec!["CONDSTORE".into(), "IMAP4REV2".into()])
    );
    refused("a ENABLE");
    assert_eq!(
        command("a GETQUOTA \"\""),
        Command::GetQuota {
            root: String::new()
        }
    );
    assert_eq!(
        command("a GETQUOTAROOT inbox"),
        Command::GetQuotaRoot {
            mailbox: "INBOX".into()
        }
    );
}

#[test]
fn notify() {
    // RFC 5465 3, 4, 5.2, 6: its examples
    for line in [
        "b NOTIFY NONE",
        "a NOTIFY SET (selected (MessageNew (uid body.peek[header.fields (from to subject)]) MessageExpunge)) \
         (personal (MailboxName SubscriptionChange))",
        "c NOTIFY SET (INBOXES NONE)",
        "d NOTIFY SET STATUS (selected-delayed (MessageNew MessageExpunge FlagChange)) (inboxes (MessageNew MessageExpunge)) \
         (subtree (Lists Work) (MessageNew MessageExpunge)) (mailboxes misc NONE)",
    ] {
        let Command::Notify(notify) = command(line) else {
            panic!("{line}");
        };
        assert!(!notify.unknown);
        assert_eq!(notify.status, line.starts_with('d'));
    }
    let Command::Notify(unknown) = command("a NOTIFY SET (personal (AnnotationChange))") else {
        panic!();
    };
    assert!(unknown.unknown);
    refused("a NOTIFY");
    refused("a NOTIFY SET");
    refused("a NOTIFY SET STATUS");
    refused("a NOTIFY SET (personal (MessageNew))");
    refused("a NOTIFY SET (personal (FlagChange))");
    refused("a NOTIFY SET (personal (MessageNew (UID) MessageExpunge))");
    refused("a NOTIFY SET (selected NONE) (selected-delayed NONE)");
    refused("a NOTIFY SET (selected (MailboxName))");
    refused("a NOTIFY SET (nowhere NONE)");
}

#[test]
fn pages() {
    let page = |text: &str| {
        let line = format!("a UID FETCH 1:* UID (PARTIAL {text})");
        match command(&line) {
            Command::Fetch(fetch) => fetch.page.unwrap(),
            other => panic!("{other:?}"),
        }
    };
    let results: Vec<u32> = (1..=10).collect();
    assert_eq!(page("1:3").of(&results), [1, 2, 3]);
    assert_eq!(page("9:12").of(&results), [9, 10]);
    assert_eq!(page("11:12").of(&results), []);
    assert_eq!(page("-1:-3").of(&results), [8, 9, 10]);
    assert_eq!(page("-9:-4000000000").of(&results), [1, 2]);
    assert_eq!(page("-11:-12").of(&results), []);
    refused("a UID FETCH 1:* UID (PARTIAL 1:-1)");
    refused("a UID FETCH 1:* UID (PARTIAL 0:1)");
}

#[test]
fn append_heads() {
    let append = |head: &str| {
        AppendParser::begin(head.as_bytes(), Names::ModifiedUtf7).map(|(_, head)| head)
    };
    let full =
        append("A003 APPEND saved-messages (\\Seen) \" 7-Feb-1994 21:52:25 -0800\" ").unwrap();
    assert_eq!(full.append.mailbox, "saved-messages");
    assert!(full.pieces.contains(&AppendPiece::Message {
        flags: vec!["\\Seen".to_owned()],
        date: Some(760_686_745),
    }));
    assert_eq!(
        append("a APPEND {5}\r\ninbox ").unwrap().append.mailbox,
        "INBOX"
    );
    assert!(append("a APPEND x (\\Foo) ").is_err());
    assert!(append("a APPEND x \"yesterday\" ").is_err());
    assert_eq!(
        append("a APPEND &x () ").unwrap_err().refusal.kind,
        RefusalKind::Name
    );
}

// RFC 4314 3: the examples
#[test]
fn access_control_lists_are_read() {
    let command = |text: &str| parse(text.as_bytes(), Names::ModifiedUtf7).map(|read| read.command);
    assert_eq!(
        command("A035 SETACL INBOX/Drafts John lrQswicda").unwrap(),
        Command::SetAcl {
            mailbox: "INBOX/Drafts".to_owned(),
            identifier: "John".to_owned(),
            rights: "lrQswicda".to_owned(),
        }
    );
    assert_eq!(
        command("B001 DELETEACL INBOX -Fred").unwrap(),
        Command::DeleteAcl {
            mailbox: "INBOX".to_owned(),
            identifier: "-Fred".to_owned(),
        }
    );
    assert_eq!(
        command("a LISTRIGHTS \"~/Mail/saved\" {5+}\r\nsmith").unwrap(),
        Command::ListRights {
            mailbox: "~/Mail/saved".to_owned(),
            identifier: "smith".to_owned(),
        }
    );
    assert!(command("a SETACL INBOX Fred").is_err());
    assert!(command("a MYRIGHTS").is_err());
    assert!(command("a GETACL INBOX more").is_err());
}

proptest! {
    #[test]
    fn any_octets_are_read_or_refused(octets: Vec<u8>) {
        let _ = parse(&octets, Names::ModifiedUtf7);
        let _ = AppendParser::begin(&octets, Names::Utf8);
        crate::fuzz::fuzz(&octets);
    }

    #[test]
    fn likely_commands_are_read_or_refused(
        words in proptest::collection::vec(
            proptest::sample::select(vec![
                "UID", "FETCH", "STORE", "SEARCH", "LIST", "SELECT", "APPEND", "CATENATE (", "URL", "TEXT", "UTF8 (", "REPLACE 1", "(", ")", "1:*", "*", "\"", "\\Seen", "BODY[",
                "]<0.", "HEADER.FIELDS", "{3+}\r\n", "{2}\r\n", "OR", "NOT", "ALL", "RETURN", "CHARSET UTF-8", "$", "x", "\r\n",
                "NOTIFY SET (", "SELECTED (MessageNew", "SUBTREE", "(PARTIAL -1:", "(QRESYNC (1 2", "PREVIEW (LAZY)", "COMPRESS DEFLATE",
                "AUTHENTICATE", "LOGIN", "FLAGS", "+FLAGS.SILENT", "STATUS", "&-", "1-Jan-2000", "HEADER", "FULL", "BINARY.SIZE[1.",
            ]),
            0..14,
        ),
        spaces: bool,
    ) {
        let line = format!("a {}", words.join(if spaces { " " } else { "" }));
        let _ = parse(line.as_bytes(), Names::ModifiedUtf7);
        crate::fuzz::fuzz(line.as_bytes());
    }
}
