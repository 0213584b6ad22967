//! The tree, sections, keys and texts of messages.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use message::{Limits, Parsed, SectionText, binary, for_each_text, locate, select_fields};

const PREFIX: &str = "Return-Path: <s@example.org>\r\nReceived: from x\r\n";
const MAIL: &str = "Date: Sat, 30 Oct 2004 17:43:30 -0700\nFrom: =?utf-8?q?J=C3=B6rg?= <Joerg@example.org>\n\
    To: list: a@example.net, b@example.net;\nCc: Zoe <zoe@example.net>\nSubject: Re: [dev] Gru=?utf-8?q?=C3=9F?=\n\
    Message-ID: <m@x>\nIn-Reply-To: <p@x>\nReferences: <r@x>\n\t<p@x>\nX-Own: 1\nContent-Type: multipart/mixed; boundary=b\n\n\
    --b\nContent-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable\n\nSch=F6n,=\n dass du\nda bist.\n\
    --b\nContent-Type: message/rfc822\n\nSubject: inner\nX-In: 1\n\ninner text\n\
    --b\nContent-Type: application/pdf; name=\"=?utf-8?b?w6Q=?=.pdf\"\nContent-Transfer-Encoding: base64\n\naGFs\nbG8=\n--b--\n";

fn mail() -> (Parsed, Vec<u8>) {
    let body = MAIL.replace('\n', "\r\n");
    let mut parsed = message::parse(PREFIX.as_bytes(), body.as_bytes(), &Limits::default());
    parsed.prepend(PREFIX.as_bytes());
    (parsed, [PREFIX.as_bytes(), body.as_bytes()].concat())
}

fn cut(path: &[u32], text: SectionText) -> Option<String> {
    let (parsed, raw) = mail();
    let range = locate(&parsed.parts, path, text)?;
    let bytes = &raw[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];
    Some(String::from_utf8(bytes.to_vec()).unwrap())
}

#[test]
fn keys() {
    let (parsed, raw) = mail();
    assert_eq!(parsed.size, raw.len() as u64);
    let header_end = raw.windows(4).position(|w| w == b"\r\n\r\n").unwrap() as u64 + 4;
    assert_eq!(parsed.header_len, header_end);
    let sent = parsed.sent.unwrap();
    assert_eq!((sent.unix, sent.zone), (1_099_183_410, -420));
    assert_eq!(
        (parsed.base_subject.as_str(), parsed.is_reply),
        ("GRUSS", true)
    );
    assert_eq!(
        (parsed.from.as_str(), parsed.from_display.as_str()),
        ("JOERG", "Jörg")
    );
    assert_eq!(
        (parsed.to.as_str(), parsed.to_display.as_str()),
        ("LIST", "a@example.net")
    );
    assert_eq!(parsed.cc, "ZOE");
    assert_eq!(parsed.message_id.as_deref(), Some("m@x"));
    assert_eq!(parsed.in_reply_to, ["p@x"]);
    assert_eq!(parsed.references, ["r@x", "p@x"]);
    assert!(parsed.has_attachment);
    assert_eq!(parsed.preview, "Schön, dass du da bist.");
    assert_eq!(parsed.parts[4].name, "ä.pdf");
    assert_eq!(parsed.parts.len(), 5);
}

#[test]
fn sections() {
    use SectionText::{Content, Header, Mime, Text};
    let (_, raw) = mail();
    assert_eq!(cut(&[], Content).unwrap().as_bytes(), raw);
    assert!(cut(&[], Header).unwrap().starts_with("Return-Path: "));
    assert!(cut(&[], Header).unwrap().ends_with("boundary=b\r\n\r\n"));
    assert!(cut(&[], Text).unwrap().starts_with("--b\r\n"));
    assert_eq!(
        cut(&[1], Content).unwrap(),
        "Sch=F6n,=\r\n dass du\r\nda bist."
    );
    assert!(
        cut(&[1], Mime)
            .unwrap()
            .starts_with("Content-Type: text/plain")
    );
    assert_eq!(
        cut(&[2], Header).unwrap(),
        "Subject: inner\r\nX-In: 1\r\n\r\n"
    );
    assert_eq!(cut(&[2], Text).unwrap(), "inner text");
    assert_eq!(cut(&[2, 1], Content).unwrap(), "inner text");
    assert_eq!(cut(&[1, 1], Content), cut(&[1], Content));
    for (path, text) in [
        (&[][..], Mime),
        (&[1], Header),
        (&[4], Content),
        (&[0], Content),
        (&[1, 2], Content),
        (&[1, 1, 1], Content),
        (&[2, 1, 1], Content),
        (&[2, 2], Content),
    ] {
        assert_eq!(cut(path, text), None, "{path:?} {text:?}");
    }
    let (parsed, _) = mail();
    assert_eq!(
        binary(&parsed.parts, &[3], &raw).unwrap().unwrap(),
        b"hallo"
    );
    assert_eq!(binary(&parsed.parts, &[7], &raw), None);
    let plain = message::parse(b"", b"Subject: x\r\n\r\nbody", &Limits::default());
    assert_eq!(locate(&plain.parts, &[1], Content), Some(14..18));
    assert_eq!(locate(&plain.parts, &[1, 1], Content), None);
}

#[test]
fn fields_are_selected_in_their_order() {
    let header = b"B: 1\r\nA: 2\r\n folded\r\nb : 3\r\nno field\r\n\r\nA: body\r\n";
    assert_eq!(
        select_fields(header, &["b"], false),
        b"B: 1\r\nb : 3\r\n\r\n"
    );
    assert_eq!(
        select_fields(header, &["B"], true),
        b"A: 2\r\n folded\r\nno field\r\n\r\n"
    );
    assert_eq!(select_fields(b"A: cut", &["a"], false), b"A: cut\r\n\r\n");
}

#[test]
fn listing_answers_without_the_message() {
    let (moved, raw) = mail();
    let at = moved.index.find(b"x-own").unwrap();
    assert_eq!(
        &raw[at[0].start as usize..at[0].end as usize],
        b"X-Own: 1\r\n"
    );
    let body = MAIL.replace('\n', "\r\n");
    let parsed = message::parse(PREFIX.as_bytes(), body.as_bytes(), &Limits::default());
    let prefix = PREFIX.as_bytes();
    for names in [
        &["SUBJECT", "X-Not-There", "References"][..],
        &["Received", "To"],
        &["return-path"],
    ] {
        let listed = parsed.select_listed(prefix, names).unwrap();
        assert_eq!(listed, select_fields(&raw, names, false), "{names:?}");
    }
    assert_eq!(parsed.select_listed(prefix, &["X-Own"]), None);
    assert_eq!(
        parsed.listed_values(b"subject").unwrap(),
        ["Re: [dev] Gruß"]
    );
    assert_eq!(
        parsed.listed_values(b"x-none").unwrap(),
        Vec::<String>::new()
    );
    assert_eq!(parsed.listed_values(b"x-own"), None);
}

#[test]
fn what_the_prefix_says_counts() {
    let prefix =
        b"Return-Path: <a@b>\r\nMessage-ID: <given@us>\r\nDate: Thu, 1 Jan 1970 00:00:01 +0000\r\n";
    let body = b"From: a@b\r\nSubject: x\r\n\r\nbody";
    let parsed = message::parse(prefix, body, &Limits::default());
    assert_eq!(parsed.message_id.as_deref(), Some("given@us"));
    assert_eq!(parsed.sent.unwrap().unix, 1);
    assert!(
        parsed
            .envelope
            .starts_with(b"(\"Thu, 1 Jan 1970 00:00:01 +0000\" \"x\"")
    );
    assert_eq!((parsed.size, parsed.header_len), (body.len() as u64, 25));
    let names = ["date", "subject", "return-path"];
    let whole = [&prefix[..], body].concat();
    let mut listed = parsed.select_listed(prefix, &names).unwrap();
    let mut expected = select_fields(&whole, &names, false);
    listed.sort_unstable();
    expected.sort_unstable();
    assert_eq!(listed, expected);
}

#[test]
fn the_stored_form_survives() {
    let (parsed, _) = mail();
    let stored = parsed.encode();
    assert_eq!(Parsed::decode(&stored).unwrap(), parsed);
    assert_eq!(message::stored::envelope(&stored).unwrap(), parsed.envelope);
    assert_eq!(
        message::stored::structure(&stored).unwrap(),
        parsed.structure
    );
    assert_eq!(message::stored::listing(&stored).unwrap(), parsed.listing);
    for names in [&["subject", "to"][..], &["subject", "x-none"], &["x-own"]] {
        assert_eq!(
            message::stored::select_listed(&stored, b"X: y\r\n", names).unwrap(),
            parsed.select_listed(b"X: y\r\n", names)
        );
    }
    assert!(Parsed::decode(&stored[..stored.len() / 2]).is_err());
    assert!(Parsed::decode(b"\x02").is_err());
    assert!(Parsed::decode(b"").is_err());
}

#[test]
fn texts_for_search() {
    let (parsed, raw) = mail();
    let mut texts = Vec::new();
    for_each_text(&parsed, &raw, 1 << 20, |text| {
        texts.push(text.to_owned());
        true
    });
    assert_eq!(texts, ["Schön, dass du\r\nda bist.", "inner text"]);
    let html = message::parse(
        b"",
        b"Content-Type: text/html\r\n\r\n<style>p{}</style><p>a <b>bold</b> word</p>",
        &Limits::default(),
    );
    assert_eq!(html.preview, "a bold word");
}

#[test]
fn charsets_and_words() {
    for (value, text) in [
        ("=?iso-2022-jp?B?GyRCJSIbKEI=?=", "ア"),
        ("=?utf-8?B?w6Q=?= =?utf-8?Q?_x?=", "ä x"),
        ("=?utf-8?Q?=C3?= =?utf-8?Q?=A4?=", "ä"),
        ("a =?utf-8?Q?b?= c", "a b c"),
        ("=?utf-8*de?q?x?=y", "xy"),
        ("=?broken?x", "=?broken?x"),
        ("=?koi8-r?B?8NLJ18XU?=", "Привет"),
        ("raw ä", "raw ä"),
    ] {
        assert_eq!(message::header_text(value.as_bytes()), text, "{value}");
    }
    assert_eq!(message::header_text(b"raw \xe4"), "raw ä");
}

#[test]
fn a_wide_message_is_described_within_bounds() {
    let many = (0..5000)
        .map(|n| format!("user{n}@example.org"))
        .collect::<Vec<_>>()
        .join(",\r\n ");
    let mail = format!("Subject: x\r\nTo: {many}\r\n\r\nbody");
    let (parsed, encoded) =
        message::parse_within(b"", mail.as_bytes(), &Limits::default(), 48 * 1024);
    assert!(encoded.len() <= 48 * 1024, "{}", encoded.len());
    assert_eq!(parsed.size, mail.len() as u64);
    assert!(
        String::from_utf8(parsed.envelope)
            .unwrap()
            .contains("user50\"")
    );
}

#[test]
fn a_moved_description_fits_the_whole_message() {
    let body = MAIL.replace('\n', "\r\n");
    let whole = format!("{PREFIX}{body}");
    let (moved, _) = mail();
    assert_eq!(
        moved,
        message::parse(b"", whole.as_bytes(), &Limits::default())
    );
}
