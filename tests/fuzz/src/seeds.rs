//! Good inputs, and some that are bad on purpose: the corpus that mutation starts from.

use std::fs;
use std::path::Path;

/// All files of a folder under tests/fuzz/corpus.
fn corpus(folder: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(folder);
    let mut files: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.sort();
    files
        .iter()
        .filter_map(|file| fs::read(file).ok())
        .collect()
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Command lines.
pub fn smtp() -> Vec<Vec<u8>> {
    corpus("smtp")
}

/// Requests of authorities.
pub fn challenges() -> Vec<Vec<u8>> {
    texts(&[
        "GET /.well-known/acme-challenge/tok HTTP/1.1\r\nHost: mail.example.org\r\nConnection: close",
        "HEAD http://mail.example.org/.well-known/acme-challenge/tok HTTP/1.0",
        "GET / HTTP/1.1",
        "POST /.well-known/acme-challenge/other HTTP/1.1",
    ])
}

/// Targets, with what stands in `Host`.
pub fn requests() -> Vec<Vec<u8>> {
    corpus("http-request")
}

/// What mail programs ask.
pub fn questions() -> Vec<Vec<u8>> {
    corpus("http-question")
}

/// What hooks answer.
pub fn hooks() -> Vec<Vec<u8>> {
    corpus("hook-answer")
}

/// Whom limits are about.
pub fn keys() -> Vec<Vec<u8>> {
    corpus("limit-keys")
}

/// Rates, and counts.
pub fn rates() -> Vec<Vec<u8>> {
    corpus("limit-rates")
}

/// Scripts of users.
pub fn scripts() -> Vec<Vec<u8>> {
    corpus("sieve")
}

/// Replies of servers.
pub fn replies() -> Vec<Vec<u8>> {
    texts(&[
        "220 mx.example.org ESMTP\r\n250-mx.example.org\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n250-AUTH PLAIN LOGIN\r\n250 8BITMIME\r\n",
        "250 2.1.0 ok\r\n550-5.1.1 no such user\r\n550 5.1.1 here\r\n354 go on\r\n421 4.3.2 closing\r\n",
        "250\r\n250-\r\n250 \r\n",
    ])
}

/// Headers of load balancers, and DSN parameters.
pub fn proxy() -> Vec<Vec<u8>> {
    let mut seeds = texts(&[
        "PROXY TCP4 192.0.2.1 198.51.100.1 56324 25\r\n",
        "PROXY TCP6 2001:db8::1 2001:db8::2 56324 25\r\n",
        "PROXY UNKNOWN\r\n",
        "rfc822;bob+2Bx@example.org",
        "utf-8;b\\x{FC}b@example.org",
        "QQ314159+3D",
    ]);
    let mut binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c".to_vec();
    binary.extend_from_slice(&[192, 0, 2, 1, 198, 51, 100, 1, 0xdc, 0x04, 0, 25]);
    seeds.push(binary);
    seeds
}

/// IMAP commands.
pub fn imap() -> Vec<Vec<u8>> {
    corpus("imap")
}

/// Single commands: SORT, THREAD, NOTIFY and those about rights, from their RFCs.
pub fn commands() -> Vec<Vec<u8>> {
    texts(&[
        "A282 SORT (SUBJECT) UTF-8 SINCE 1-Feb-1994",
        "A284 UID SORT (REVERSE DATE ARRIVAL) US-ASCII TEXT \"not in mailbox\"",
        "C01 UID SORT RETURN (COUNT ALL) (DATE) UTF-8 UNDELETED UNKEYWORD $Junk",
        "A283 THREAD ORDEREDSUBJECT UTF-8 SINCE 5-MAR-2000",
        "A284 UID THREAD REFERENCES US-ASCII TEXT \"gewp\"",
        "a notify set status (selected (MessageNew (uid body.peek[header.fields (from to subject)]) MessageExpunge)) \
         (subtree Lists (MessageNew MessageExpunge)) (personal (MailboxName SubscriptionChange))",
        "b notify set (mailboxes (INBOX Misc) (MessageNew MessageExpunge FlagChange)) (inboxes none)",
        "c notify none",
        "A002 GETACL INBOX",
        "A003 SETACL INBOX/Drafts Byron lrswikda",
        "A035 SETACL INBOX/Drafts \"-John\" +lrQswicda",
        "A004 DELETEACL {5+}\r\nINBOX \"Fr d\"",
        "a001 LISTRIGHTS ~/Mail/saved smith",
        "A003 MYRIGHTS INBOX",
    ])
}

/// Rights (RFC 4314 2.1).
pub fn rights() -> Vec<Vec<u8>> {
    texts(&["lrswipkxtea", "lrs", "cd", "lrswikxtecda", "aaa"])
}

/// Messages that refer to each other, six octets each.
pub fn threads() -> Vec<Vec<u8>> {
    let chain: Vec<u8> = (1..60_u8).flat_map(|n| [0x41, n, n + 1, n, 0, 0]).collect();
    let ring: Vec<u8> = (1..60_u8)
        .flat_map(|n| [1, 9, n, n % 59 + 1, n, 7])
        .collect();
    let star: Vec<u8> = (1..60_u8).flat_map(|n| [n, n, n, 1, 2, 3]).collect();
    vec![chain, ring, star]
}

/// Lines of POP3 clients.
pub fn pop3() -> Vec<Vec<u8>> {
    texts(&[
        "USER mrose\nPASS  tan staaf \nSTAT\nLIST\nLIST 2\nRETR 1\nDELE 1\nNOOP\nRSET\nQUIT\n",
        "CAPA\nSTLS\nUTF8\nLANG\nLANG *\nLANG en-GB\nUIDL\nUIDL 2\nTOP 1 10\n",
        "AUTH\nAUTH PLAIN\nAUTH PLAIN dGVzdAB0ZXN0AHRlc3Q=\nAUTH EXTERNAL =\nAPOP mrose c4c9334bac560ecc979e58001b3e22fb\n",
    ])
}

/// Subjects.
pub fn subjects() -> Vec<Vec<u8>> {
    texts(&[
        "Re: [list] Fwd: hello (fwd)",
        "[fwd: Re: [a] b] (fwd)",
        "re[2] : [x] [y]",
        "AW: gr\u{fc}\u{df}e",
        "[a [b] c",
    ])
}

/// Mbox files.
pub fn mboxes() -> Vec<Vec<u8>> {
    texts(&[
        "From a@b Thu Jan  1 00:00:01 1970\nSubject: x\n\n>From me\n>>From you\n\nFrom the text\n\n\
         From a@b Thu Jan  1 00:00:02 1970\nStatus: RO\nX-Keywords: a b\n c\n\nlast\n",
        "From - Mon Sep 21 14:13:20 2026 +0200\r\nX-Mozilla-Status: 0001\r\n\r\nbody\r\n\r\n",
        "From x Thu Jan  1 00:00:01 1970\nX-IMAP: 1 2\nSubject: FOLDER INTERNAL DATA\n\nx\n\nFrom y Thu Jan  1 00:00:01 1970\n\n\n",
    ])
}

/// Names in a Maildir.
pub fn maildir() -> Vec<Vec<u8>> {
    texts(&[
        "1204680122.27c448.mx,S=1234,W=1250:2,FRSab\n.Sent.2024\nEntw&APw-rfe\n100.a;2,DTP\n$Junk\ninbox. x .\n",
        "work\n300.c,S=5:1,x\n...\n.a/b.c\u{2028}\n1:2,SSSS\n",
    ])
}

/// Rows of dumped tables, with the number of their columns before them.
pub fn dumps() -> Vec<Vec<u8>> {
    use sql::Value;
    let rows = [
        vec![
            Value::Int(-5),
            Value::Null,
            Value::Text("\u{e4}".to_owned()),
        ],
        vec![
            Value::Blob(vec![0, 1, 2]),
            Value::Int(i64::MAX),
            Value::Text(String::new()),
        ],
    ];
    let mut dump = vec![2];
    for row in &rows {
        sql::dump::encode(row, &mut dump);
    }
    vec![dump, vec![0, 0, 0, 0]]
}

/// What filters answer.
pub fn milters() -> Vec<Vec<u8>> {
    texts(&[
        "\0\0\0\rO\0\0\0\x06\0\0\0\x3f\0\0\0\0\0\0\0\x01c\0\0\0\x01a",
        "\0\0\0\x15O\0\0\0\x06\0\0\x01\0\0\0\0\0\0\0\0\x02i j\0\0\0\0\x01p\0\0\0\x01t",
        "\0\0\0\x07hX-A\0b\0\0\0\0\x0biX\0\0\0\x01A\0b\0\0\0\0\x01c",
        "\0\0\0\x0bm\0\0\0\x01X-A\0\0\0\0\0\x07e<a@b>\0\0\0\0\x07+<a@b>\0\0\0\0\x07-<a@b>\0",
        "\0\0\0\x06bbody\n\0\0\0\x06qspam\0\0\0\0\x0fy550 5.7.1 100%%",
        "550-5.7.1 no\r\n550 5.7.1 never",
    ])
}

/// ManageSieve commands.
pub fn managesieve() -> Vec<Vec<u8>> {
    texts(&[
        "AUTHENTICATE \"PLAIN\" \"AHRpbQB0YW5zdGFhZnRhbnN0YWFm\"\r\nCAPABILITY\r\nLOGOUT\r\n",
        "AUTHENTICATE \"SCRAM-SHA-256\" {4+}\r\nbiws\r\n\"cnNw\"\r\n\"*\"\r\n",
        "HAVESPACE \"main\" 999999\r\nPUTSCRIPT \"main\" {14+}\r\nif true {stop;}\r\nSETACTIVE \"main\"\r\n",
        "PUTSCRIPT {4+}\r\nmain {5+}\r\nkeep;\r\nRENAMESCRIPT \"a \\\"b\\\\\" \"c\"\r\nNOOP \"tag\"\r\n",
        "CHECKSCRIPT {400+}\r\nkeep;\r\n(GETSCRIPT {2}\r\nab\r\nLISTSCRIPTS\r\n",
    ])
}

/// Messages.
pub fn mime() -> Vec<Vec<u8>> {
    corpus("mime")
}

/// Messages that carry reports.
pub fn report_messages() -> Vec<Vec<u8>> {
    reports(|seed| seed.windows(4).any(|four| four == b"\r\n\r\n"))
}

/// Reports as they are attached.
pub fn report_files() -> Vec<Vec<u8>> {
    reports(|seed| !seed.windows(4).any(|four| four == b"\r\n\r\n"))
}

fn reports(wanted: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
    let mut seeds = corpus("reports");
    seeds.retain(|seed| wanted(seed));
    seeds
}

/// What the store keeps of messages.
pub fn stored() -> Vec<Vec<u8>> {
    mime()
        .iter()
        .map(|mail| message::parse(b"", mail, &message::Limits::default()).encode())
        .collect()
}

/// Frames of ipc.
pub fn frames() -> Vec<Vec<u8>> {
    use ipc::frame::{Header, Kind};
    [
        Kind::Hello,
        Kind::Call,
        Kind::Reply,
        Kind::Fault,
        Kind::Event,
    ]
    .into_iter()
    .map(|kind| {
        let header = Header {
            len: 4,
            operation: 3,
            kind,
            descriptors: 1,
            id: 77,
            trace: types::TraceId(99),
            deadline_ms: if kind == Kind::Call { 1000 } else { 0 },
        };
        let mut frame = header.encode().to_vec();
        frame.extend_from_slice(b"mail");
        frame
    })
    .collect()
}

/// Payloads of ipc.
pub fn payloads() -> Vec<Vec<u8>> {
    use ipc::api::authd::{AuthClient, AuthStart, Service};
    use std::net::{IpAddr, Ipv4Addr};
    let start = AuthStart {
        mechanism: "PLAIN".to_owned(),
        initial: Some(b"\0alice@example.org\0secret".to_vec().into()),
        client: AuthClient {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            service: Service::Imap,
            tls: true,
            bindings: vec![(
                "tls-exporter".to_owned(),
                b"0123456789abcdef".to_vec().into(),
            )],
        },
    };
    let mut seeds = vec![vec![0; 64], vec![1; 64], (0..=255).collect()];
    seeds.extend(postcard::to_stdvec(&start).ok());
    seeds.extend(mime());
    seeds
}

/// The name that the journal gives to its first segment.
pub fn journal_file_name() -> Option<String> {
    segments().into_iter().next().map(|(name, _)| name)
}

/// Segments of a journal.
pub fn journal() -> Vec<Vec<u8>> {
    segments().into_iter().map(|(_, octets)| octets).collect()
}

/// Writes a small journal, once, and reads its segments.
fn segments() -> Vec<(String, Vec<u8>)> {
    static MADE: std::sync::OnceLock<Vec<(String, Vec<u8>)>> = std::sync::OnceLock::new();
    MADE.get_or_init(|| write_journal().unwrap_or_default())
        .clone()
}

fn write_journal() -> Option<Vec<(String, Vec<u8>)>> {
    use journal::{Journal, Kind, Options, Record};
    let directory = tempfile::tempdir().ok()?;
    let options = Options {
        segment_size: 64 * 1024,
        reserve: 4096,
        ..Options::default()
    };
    let mut journal = Journal::open(directory.path(), options).ok()?;
    for id in 1..=8_u64 {
        let body = vec![b'x'; usize::try_from(id * 100).ok()?];
        let put = Record {
            kind: Kind::Put,
            version: 1,
            id,
            parts: [b"envelope", b"prefix", &body],
        };
        journal.append(&[put], false).ok()?;
        if id % 3 == 0 {
            journal.append(&[Record::free(id - 1)], false).ok()?;
        }
    }
    drop(journal);
    let mut segments: Vec<(String, Vec<u8>)> = Vec::new();
    for entry in fs::read_dir(directory.path()).ok()?.flatten() {
        let name = entry.file_name().into_string().ok()?;
        let mut octets = fs::read(entry.path()).ok()?;
        // The zeros behind the records are all alike.
        let used = octets
            .iter()
            .rposition(|octet| *octet != 0)
            .map_or(0, |last| last + 1);
        octets.truncate(used + 64);
        if used > 512 {
            segments.push((name, octets));
        }
    }
    segments.sort();
    Some(segments)
}

/// TXT records as name servers answer them.
pub fn answers() -> Vec<Vec<u8>> {
    texts(&[
        "v=spf1 mx ip4:192.0.2.0/24 ip6:2001:db8::/32 include:a.example redirect=b.example -all\nv=DMARC1; p=reject; rua=mailto:a@b.example",
        "v=DKIM1; k=rsa; h=sha256; s=email; t=y; p=AAAA\nv=STSv1; id=1;\nv=TLSRPTv1; rua=mailto:a@b.example",
    ])
}

/// Tokens of personal posts, and addresses with them.
pub fn list_tokens() -> Vec<Vec<u8>> {
    texts(&[
        "team-bounces+aaaaaaaaaaab7777777777\nTEAM-Bounces+AAAAAAAAAAAB7777777777",
        "aaaaaaaaaaab2222222222222222\na-b-copies+777777777777aaaaaaaaaa",
    ])
}

/// Forwarding addresses.
pub fn forwarding() -> Vec<Vec<u8>> {
    texts(&[
        "SRS0=W55BV6ZO=JN=elsewhere.example=jane\nSRS1=ABCDEFGH=one.example==HHHH=TT=two.example=a=b\nsrs0+a=b=c=d",
    ])
}

/// Messages with chains of seals.
pub fn sealing() -> Vec<Vec<u8>> {
    texts(&[
        "ARC-Seal: i=1; a=rsa-sha256; cv=none; d=x.example; s=s; b=AA\r\nARC-Message-Signature: i=1; a=rsa-sha256; d=x.example;\r\n\ts=s; h=From; bh=AA; b=AA\r\nARC-Authentication-Results: i=1; mx.x.example; spf=pass\r\nFrom: a@x.example\r\nSubject: b\r\n\r\nhello\r\n",
        "From: a@x.example\r\nTo: b@x.example\r\nSubject: b\r\n c\r\n\r\nhello  \r\n\r\n",
    ])
}

/// Policies of MTA-STS.
pub fn sts_policies() -> Vec<Vec<u8>> {
    [
        "version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmax_age: 604800\r\n",
        "max_age:1\nmx: a.example\n\nmode: testing\nversion: STSv1",
        "version: STSv1\nmode: none\nmax_age: 86400\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// Their TXT records, one a line.
pub fn sts_records() -> Vec<Vec<u8>> {
    [
        "v=STSv1; id=20160831085700Z;",
        "v=spf1 -all\nv=STSv1;id=a; x=1",
        "v=STSv1; id=a\nv=STSv1; id=b",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_corpus_is_there() {
        for seeds in [
            smtp(),
            replies(),
            proxy(),
            imap(),
            commands(),
            threads(),
            rights(),
            pop3(),
            subjects(),
            mboxes(),
            maildir(),
            dumps(),
            managesieve(),
            milters(),
            mime(),
            stored(),
            frames(),
            payloads(),
            journal(),
        ] {
            assert!(!seeds.is_empty() && seeds.iter().all(|seed| !seed.is_empty()));
        }
        assert!(journal_file_name().is_some());
    }

    #[test]
    fn good_seeds_are_good() {
        for seed in commands() {
            let parsed = imap::parse(&seed, imap::Names::Utf8);
            assert!(parsed.is_ok(), "{}", String::from_utf8_lossy(&seed));
        }
        for seed in pop3() {
            for line in seed.split(|octet| *octet == b'\n') {
                assert!(line.is_empty() || pop3::parse(line).is_ok());
            }
        }
        for seed in rights() {
            assert!(store::AclRights::parse(&String::from_utf8_lossy(&seed)).is_some());
        }
    }
}
