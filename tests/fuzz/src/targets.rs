//! What is fuzzed: the entry points that the pure crates offer, the frames and payloads of ipc, the journal's recovery.

use crate::seeds;
use ipc::Operation;
use ipc::frame::Header;

/// A parser under attack.
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// Panics if a promise is broken.
    pub run: fn(&[u8]),
    /// Where mutation starts.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// What is thrown in.
    pub words: &'static [&'static [u8]],
}

const REPORTS: &[&[u8]] = &[
    b"<record>",
    b"</record>",
    b"<record><row><count>1</count></row></record>",
    b"<!DOCTYPE f [<!ENTITY a \"b\">]>",
    b"&a;",
    b"&#x41;",
    b"<![CDATA[",
    b"]]>",
    b"<domain>example.org</domain>",
    b"<policy_published>",
    b"<auth_results><dkim>",
    b"PK\x01\x02",
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"\x1f\x8b\x08",
    b"{\"policies\":[",
    b"\"failure-details\":[",
    b"{},",
    b"[[[[",
    b"Content-Type: message/feedback-report\r\n",
    b"Content-Type: application/zip\r\n",
    b"Feedback-Type: abuse\r\n",
    b"\r\n--b\r\n",
];
const SMTP: &[&[u8]] = &[
    b"\r\n",
    b"\r",
    b"\n",
    b".\r\n",
    b"\r\n.\r\n",
    b"EHLO ",
    b"MAIL FROM:<",
    b"RCPT TO:<",
    b"BDAT ",
    b" LAST",
    b"AUTH PLAIN ",
    b" SIZE=",
    b" BODY=8BITMIME",
    b" SMTPUTF8",
    b" ORCPT=rfc822;",
    b" NOTIFY=SUCCESS,DELAY",
    b" ENVID=",
    b"+41",
    b"PROXY TCP4 ",
    b"\r\n\r\n\0\r\nQUIT\n",
    b"250-",
    b"250 ",
    b"@[127.0.0.1]",
    b"\"a b\"@",
    b"xn--",
];
const MILTER: &[&[u8]] = &[
    b"\0\0\0\x01c",
    b"\0\0\0\x01a",
    b"\0\0\0\x0d",
    b"O\0\0\0\x06",
    b"\0\0\x01\xff",
    b"h",
    b"m\0\0\0\x01",
    b"y550 5.7.1 ",
    b"\r\n550-",
    b"%%",
    b"\0",
];
const IMAP: &[&[u8]] = &[
    b"\r\n",
    b"NOTIFY SET STATUS (",
    b"SELECTED (MessageNew",
    b"(QRESYNC (1 2 ",
    b"(PARTIAL -1:-2)",
    b"PREVIEW (LAZY)",
    b"{5}\r\n",
    b"{5+}\r\n",
    b"~{3}\r\n",
    b"a1 ",
    b"UID ",
    b"APPEND x ",
    b"CATENATE (",
    b"URL /x/;UID=1 ",
    b"TEXT ~{1}\r\n",
    b"UTF8 (~{2+}\r\n",
    b"REPLACE 1 x ",
    b"FETCH ",
    b"SEARCH ",
    b"OR ",
    b"NOT ",
    b"(",
    b")",
    b"(((((((((((((",
    b"BODY.PEEK[",
    b"HEADER.FIELDS (",
    b"]<0.100>",
    b"1:*",
    b"*",
    b"$",
    b"1,2,3:4",
    b"NIL",
    b"\\Seen",
    b"\"",
    b"\\\"",
    b"&Jjo-",
    b"&",
    b"%",
    b"LIST ",
    b"RETURN (",
    b"STATUS (",
    b"APPEND ",
    b"MODSEQ ",
    b"CHANGEDSINCE ",
    b"UNCHANGEDSINCE ",
    b"1-Jan-2026",
    b"CHARSET UTF-8",
    b"STORE ",
    b"IDLE\r\nDONE\r\n",
    b"AUTHENTICATE PLAIN ",
];
const MANAGESIEVE: &[&[u8]] = &[
    b"\r\n",
    b"{5+}\r\n",
    b"{0}\r\n",
    b"{99999999999999999999+}\r\n",
    b"\"",
    b"\\\"",
    b"\"\"",
    b"PUTSCRIPT ",
    b"CHECKSCRIPT ",
    b"HAVESPACE ",
    b"AUTHENTICATE ",
    b"SETACTIVE \"\"",
    b"4294967295",
    b"\xe2\x80\xa8",
];
const MIME: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r\n\r\n",
    b"--b\r\n",
    b"--b--\r\n",
    b"Content-Type: multipart/mixed; boundary=b\r\n",
    b"Content-Type: message/rfc822\r\n",
    b"Content-Transfer-Encoding: base64\r\n",
    b"Content-Transfer-Encoding: quoted-printable\r\n",
    b"=?utf-8?Q?",
    b"=?iso-2022-jp?B?",
    b"?=",
    b"=3D",
    b"=\r\n",
    b"filename*0*=utf-8''",
    b"boundary=\"",
    b"(((",
    b"\"<>\" <a@b>, ",
    b"References: ",
    b"<a@b>",
    b": ;",
    b" \t",
    b"charset=utf-7",
];

const COMMAND: &[&[u8]] = &[
    b" ",
    b"UID ",
    b"REVERSE ",
    b"(SUBJECT DATE)",
    b"DISPLAYFROM",
    b" UTF-8 ",
    b"RETURN (COUNT PARTIAL 1:9)",
    b"REFERENCES",
    b"(SELECTED (MessageNew (UID) MessageExpunge))",
    b"(SELECTED-DELAYED NONE)",
    b"(SUBTREE (a b) (MessageNew MessageExpunge FlagChange))",
    b"MailboxName",
    b"SETACL ",
    b"\"-user\"",
    b"+lrs",
    b"{3+}\r\n",
    b"&Jjo-",
];
const POP3: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b".",
    b".\r\n",
    b"\r\n.\r\n",
    b"USER ",
    b"PASS ",
    b"AUTH PLAIN ",
    b"=",
    b"LANG ",
    b"*",
    b"i-default",
    b"TOP 1 ",
    b"4294967295",
    b"  ",
    b"\xc2\xa0",
];
const SUBJECT: &[&[u8]] = &[
    b"Re:",
    b"Fwd: ",
    b"fw",
    b"(fwd)",
    b"[fwd: ",
    b"]",
    b"[",
    b"[a]",
    b" ",
    b":",
    b"\xc4\xb0",
    b"\xc3\x9f",
    b"\xe3\x80\x80",
];
const MBOX: &[&[u8]] = &[
    b"\n",
    b"\r\n",
    b"\n\n",
    b"From a@b Thu Jan  1 00:00:01 1970\n",
    b"From - Mon Sep 21 14:13:20 2026 +0200\n",
    b">From ",
    b">>From x\n",
    b"Status: RO\n",
    b"X-Status: AFT\n",
    b"X-Keywords: a\n b\n",
    b"X-IMAP: 1 2\n",
    b"Subject: x\n\n",
];
const MAILDIR: &[&[u8]] = &[
    b":2,",
    b";2,FRSTab",
    b",S=12",
    b",W=13",
    b".",
    b"/",
    b"&APw-",
    b"INBOX",
    b"\n",
    b"\xe2\x80\xa8",
];

const ANSWERS: &[&[u8]] = &[
    b"v=spf1 ",
    b"v=DMARC1; p=",
    b"; sp=none",
    b"v=STSv1; id=",
    b"ip4:",
    b"/33",
    b" -all",
    b"\n",
];

const HTTP: &[&[u8]] = &[
    b"\n",
    b"*",
    b"/",
    b"//",
    b"?",
    b"@",
    b":8443",
    b"https://",
    b".well-known/mta-sts.txt",
    b".well-known/acme-challenge/",
    b"mail/config-v1.1.xml",
    b"mta-sts.",
    b"autoconfig.",
    b"mail.example",
    b"[::1]",
    b"%2f",
    b"<EMailAddress>",
    b"</EMailAddress>",
    b"\"",
    b"&",
    b"@a.example",
];
const HOOKS: &[&[u8]] = &[
    b"{\"type\":\"addHeader\",\"name\":\"X-A\",\"value\":\"b\"},",
    b"{\"type\":\"insertHeader\",\"index\":1,\"name\":\"X-A\",\"value\":\"b\"},",
    b"{\"type\":\"changeHeader\",\"name\":\"subject\",\"value\":\"b\"},",
    b"{\"type\":\"deleteHeader\",\"name\":\"From\"},",
    b"\\r\\n",
    b"\\n",
    b"\\n\\n",
    b"\\u0000",
    b"\\t",
    b" ",
    b":",
    b"\"index\":0",
    b"\"index\":18446744073709551615",
    b"\"status\":4",
    b"\"enhancedStatus\":\"5.1.1\"",
    b"\"encoding\":\"base64\"",
    b"null",
];
const KEYS: &[&[u8]] = &[
    b"\n",
    b"@",
    b" ",
    b"\0",
    b"2001:db8::1",
    b"192.0.2.1",
    b"\xc4\xb0",
    b"\xc3\x9f",
    b"\xe1\xba\x9e",
    b"\"a b\"@",
    b"xn--",
    b"/1h",
    b"20M/",
    b", ",
    b"18446744073709551615 ",
    b" 0",
];
const SCRIPTS: &[&[u8]] = &[
    b";",
    b"{",
    b"}",
    b"\"",
    b"[\"",
    b"if ",
    b"elsif ",
    b"else {",
    b"not ",
    b"anyof(",
    b"allof(",
    b"require [\"",
    b"text:\n",
    b"\n.\n",
    b"/*",
    b"*/",
    b"# ",
    b"${1}",
    b"${hex:",
    b":matches",
    b":regex \"(a*)*\"",
    b":comparator \"i;ascii-numeric\"",
    b"redirect \"a@b.example\";",
    b"4294967296K",
    b"foreverypart {",
    b"set \"a\" \"${a}${a}\";",
];

/// All targets.
pub fn all() -> Vec<Target> {
    let target = |name, run, seeds, words| Target {
        name,
        run,
        seeds,
        words,
    };
    vec![
        target(
            "answers",
            zone::fuzz::answers as fn(&[u8]),
            seeds::answers as fn() -> Vec<Vec<u8>>,
            ANSWERS,
        ),
        target(
            "signed",
            mailauth::fuzz::signed,
            seeds::sealing,
            &[
                b"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/simple; d=a.example; s=s; h=from; bh=MA==; b=MA==\r\n",
                b"ARC-Seal: i=1; a=rsa-sha256; cv=none; d=a.example; s=s; b=MA==\r\n",
                b"ARC-Message-Signature: i=1;",
                b"From: a@a.example\r\n",
                b"; l=1",
                b"\r\n\r\n",
            ],
        ),
        target(
            "results",
            mailauth::fuzz::results,
            || vec![b"a.example\nb.example\ns\nreason\n".to_vec()],
            &[b"; dmarc=pass", b"(", b")", b"\"", b"\\", b"\r\n", b"header.from=example.org"],
        ),
        target(
            "spf",
            mailauth::fuzz::spf,
            || vec![b"v=spf1 a:%{d2r}.example/24//64 mx ip4:192.0.2.0/24 exists:%{ir}.%{v}.example -all exp=%{p}.example".to_vec()],
            &[b"%{", b"}", b"redirect=", b"include:", b"%%", b"//", b"%{l1r-}", b" "],
        ),
        target(
            "forwarding",
            authd::fuzz::forwarding,
            seeds::forwarding,
            &[b"SRS0=", b"SRS1=", b"==", b"\n", b"\xc3\xa9"],
        ),
        target(
            "list-tokens",
            authd::fuzz::personal,
            seeds::list_tokens,
            &[b"-bounces+", b"-copies+", b"-", b"+", b"\n", b"a2b3c4d5e6f7", b"\xc3\xa9"],
        ),
        target(
            "lists",
            deliverd::fuzz::lists,
            seeds::mime,
            &[
                b"From: ",
                b"Subject: [all] ",
                b"Content-Type: multipart/mixed; boundary=\"x\"\r\n",
                b"Content-Transfer-Encoding: base64\r\n",
                b"Content-Type: message/delivery-status\r\n\r\n",
                b"Final-Recipient: rfc822;a@b.example\r\nAction: failed\r\n",
                b"\r\n--x--\r\n",
                b"List-Id: ",
            ],
        ),
        target(
            "sealing",
            relayd::fuzz::sealing,
            seeds::sealing,
            &[
                b"ARC-Seal: i=2; cv=pass; b=\r\n",
                b"ARC-Message-Signature: i=2;\r\n",
                b"ARC-Authentication-Results: i=2; x\r\n",
                b"cv=fail",
                b"i=50;",
                b"\r\n",
                b"\r",
                b"\n",
                b"From: ",
                b"\r\n\r\n",
            ],
        ),
        target(
            "sts-policy",
            relayd::fuzz::sts_policy,
            seeds::sts_policies,
            &[
                b"version: STSv1\r\n",
                b"mode: enforce\n",
                b"mode: none\n",
                b"max_age: 604800\r\n",
                b"mx: *.example.net\r\n",
                b"*.",
                b":",
                b"\r\n",
                b"\xc3\xa4",
            ],
        ),
        target(
            "sts-record",
            relayd::fuzz::sts_record,
            seeds::sts_records,
            &[b"v=STSv1", b";", b"id=", b"=", b"\n", b"\t", b"x-y.z=1"],
        ),
        target(
            "challenge",
            certd::fuzz::http,
            seeds::challenges,
            &[
                b"GET ",
                b"HEAD ",
                b" HTTP/1.1",
                b"\r\n",
                b"http://",
                b"/.well-known/acme-challenge/",
                b"tok",
            ],
        ),
        target("http-request", httpd::fuzz::request, seeds::requests, HTTP),
        target("http-question", httpd::fuzz::question, seeds::questions, HTTP),
        target("hook-answer", hookd::fuzz::answer, seeds::hooks, HOOKS),
        target("limit-keys", limitd::fuzz::keys, seeds::keys, KEYS),
        target("limit-rates", limitd::fuzz::rates, seeds::rates, KEYS),
        target("sieve-script", sieve::fuzz::script, seeds::scripts, SCRIPTS),
        target("smtp-commands", smtp::fuzz::commands, seeds::smtp, SMTP),
        target("smtp-message", smtp::fuzz::message, seeds::mime, SMTP),
        target("smtp-replies", smtp::fuzz::replies, seeds::replies, SMTP),
        target("smtp-small", smtp::fuzz::small, seeds::proxy, SMTP),
        target("imap", imap::fuzz::fuzz, seeds::imap, IMAP),
        target(
            "imap-command",
            imap::fuzz::command,
            seeds::commands,
            COMMAND,
        ),
        target("acl-rights", acl_rights, seeds::rights, COMMAND),
        target("threading", imapd::fuzz::threading, seeds::threads, &[]),
        target("pop3", pop3::fuzz::commands, seeds::pop3, POP3),
        target("pop3-response", pop3::fuzz::response, seeds::mime, POP3),
        target(
            "managesieve",
            sieve::fuzz::managesieve,
            seeds::managesieve,
            MANAGESIEVE,
        ),
        target(
            "milter",
            milter::fuzz::replies,
            seeds::milters,
            MILTER,
        ),
        target("mime", message::fuzz::message, seeds::mime, MIME),
        target("header", message::fuzz::header, seeds::mime, MIME),
        target("subject", message::fuzz::subject, seeds::subjects, SUBJECT),
        target(
            "report-message",
            reportd::fuzz::message,
            seeds::report_messages,
            REPORTS,
        ),
        target(
            "report-attachment",
            reportd::fuzz::attachment,
            seeds::report_files,
            REPORTS,
        ),
        target("mbox", posthouse::fuzz::mbox, seeds::mboxes, MBOX),
        target("maildir", posthouse::fuzz::maildir, seeds::maildir, MAILDIR),
        target("sql-dump", sql::fuzz::dump, seeds::dumps, &[]),
        target("stored", message::fuzz::stored, seeds::stored, &[]),
        target("ipc-frame", ipc_frame, seeds::frames, &[]),
        target("ipc-stream", ipc::fuzz::frames, seeds::frames, &[]),
        target("ipc-payload", ipc_payload, seeds::payloads, &[]),
        target("journal-scan", journal_scan, seeds::journal, &[]),
        target("journal-recovery", journal_recovery, seeds::journal, &[]),
    ]
}

/// A header that is taken says the same when it is written again, and announces no more than the limits allow.
fn ipc_frame(octets: &[u8]) {
    if let Ok(Some(header)) = Header::decode(octets) {
        assert!(header.len as usize <= ipc::frame::MAX_PAYLOAD);
        assert!(header.descriptors <= ipc::frame::MAX_DESCRIPTORS);
        assert!(octets.starts_with(&header.encode()));
    }
}

/// The requests that carry what strangers sent. What is taken can be written and read again.
fn ipc_payload(octets: &[u8]) {
    use ipc::api::{authd, deliverd, keyd, queued, relayd, stored};
    payload::<queued::Commit>(octets);
    payload::<relayd::Relay>(octets);
    payload::<deliverd::Deliver>(octets);
    payload::<stored::Deliver>(octets);
    payload::<stored::Mutate>(octets);
    payload::<authd::AuthStart>(octets);
    payload::<authd::ResolveRecipient>(octets);
    payload::<keyd::DkimSign>(octets);
}

fn payload<T: Operation>(octets: &[u8]) {
    if let Ok((request, _)) = postcard::take_from_bytes::<T>(octets) {
        let written = postcard::to_stdvec(&request);
        assert!(written.is_ok_and(|written| postcard::from_bytes::<T>(&written).is_ok()));
    }
}

/// Rights of access control lists: what is taken is written in a form that means the same, and taking away what was given leaves
/// nothing.
fn acl_rights(octets: &[u8]) {
    use store::AclRights;
    let Some(rights) = std::str::from_utf8(octets).ok().and_then(AclRights::parse) else {
        return;
    };
    assert_eq!(AclRights::parse(&rights.to_string()), Some(rights));
    assert!(rights.without(rights).is_empty());
    assert_eq!(AclRights::default().with(rights), rights);
}

fn journal_scan(octets: &[u8]) {
    journal::fuzz::scan(octets);
}

/// A journal opens on anything that lies in its directory, or says what is wrong; once open it takes records and finds
/// them again.
fn journal_recovery(octets: &[u8]) {
    use journal::{Journal, Kind, Options, Record};
    let Ok(directory) = tempfile::tempdir() else {
        return;
    };
    let Some(name) = seeds::journal_file_name() else {
        return;
    };
    if std::fs::write(directory.path().join(name), octets).is_err() {
        return;
    }
    let options = || Options {
        segment_size: 64 * 1024,
        reserve: 4096,
        ..Options::default()
    };
    let Ok(mut journal) = Journal::open(directory.path(), options()) else {
        return;
    };
    let before = journal.len();
    let id = u64::MAX - 7;
    let known = journal.entry(id).is_some();
    let record = Record {
        kind: Kind::Put,
        version: 1,
        id,
        parts: [b"after ", b"the ", b"flood"],
    };
    let appended = journal.append(&[record], false);
    assert!(
        appended.is_ok(),
        "an open journal takes records: {appended:?}"
    );
    journal.close();
    let again = Journal::open(directory.path(), options());
    assert!(
        again.is_ok_and(|again| known || (again.len() == before + 1 && again.entry(id).is_some()))
    );
}
