//! Any octets are taken, in linear time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use message::{Limits, Parsed, PartKind, SectionText, body_of, locate};
use proptest::prelude::*;
use std::time::{Duration, Instant};

/// What must hold for every message.
fn check(prefix: &[u8], body: &[u8], limits: &Limits) -> Parsed {
    let mut parsed = message::parse(prefix, body, limits);
    assert_eq!(parsed.size, body.len() as u64);
    assert_eq!(
        (parsed.parts[0].header, parsed.parts[0].end),
        (0, parsed.size)
    );
    assert_eq!(Parsed::decode(&parsed.encode()).unwrap(), parsed);
    parsed.prepend(prefix);
    let size = (prefix.len() + body.len()) as u64;
    assert_eq!(parsed.size, size);
    let root = &parsed.parts[0];
    assert_eq!(
        (root.header, root.end, root.below as usize),
        (0, size, parsed.parts.len() - 1)
    );
    for (at, part) in parsed.parts.iter().enumerate() {
        assert!(
            part.header <= part.body && part.body <= part.end && part.end <= size,
            "{part:?}"
        );
        for child in &parsed.parts[at + 1..=at + part.below as usize] {
            assert!(
                child.header >= part.body && child.end <= part.end,
                "{child:?} in {part:?}"
            );
        }
        assert!(part.kind != PartKind::Single || part.below == 0);
    }
    assert!(parsed.parts.len() <= limits.parts.max(1));
    assert!(
        body_of(&parsed.structure).is_some(),
        "{}",
        String::from_utf8_lossy(&parsed.structure)
    );
    assert_eq!(Parsed::decode(&parsed.encode()).unwrap(), parsed);
    assert_eq!(
        locate(&parsed.parts, &[], SectionText::Content),
        Some(0..size)
    );
    let mut whole = prefix.to_vec();
    whole.extend_from_slice(body);
    message::for_each_text(&parsed, &whole, 1 << 16, |_| true);
    parsed
}

fn lines() -> impl Strategy<Value = Vec<u8>> {
    const LINES: &[&[u8]] = &[
        b"--b",
        b"--b--",
        b"--bb",
        b"--bb--",
        b"",
        b" folded",
        b"text",
        b"Content-Type: multipart/mixed; boundary=b",
        b"Content-Type: multipart/digest; boundary=\"bb\"",
        b"Content-Type: message/rfc822",
        b"Content-Type: text/html; charset=utf-7",
        b"Content-Transfer-Encoding: base64",
        b"Content-Transfer-Encoding: quoted-printable",
        b"From: a <b@c>, (x",
        b"To: G: a@b, <@x:y@z>;",
        b"Subject: =?utf-8?q?=41?= =?x",
        b"Date: Mon, 31 Feb 99999 99:99:99 +9999",
        b"Date: 1",
        b"Message-ID: <a",
        b"Content-Disposition: attachment; filename*0*=x''%4; filename*7=b",
        b"=\xff\x00=4",
    ];
    const ENDS: &[&[u8]] = &[b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b""];
    let (line, end) = (
        proptest::sample::select(LINES),
        proptest::sample::select(ENDS),
    );
    proptest::collection::vec((line, end), 0..60).prop_map(|lines| {
        lines
            .into_iter()
            .flat_map(|(line, end)| [line, end].concat())
            .collect()
    })
}

#[test]
fn a_message_may_be_the_last_part_allowed() {
    let limits = Limits {
        parts: 3,
        ..Limits::default()
    };
    let body = b"Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\n--b\r\n\r\n--b\r\n";
    assert_eq!(check(b"", body, &limits).parts.len(), 3);
}

proptest! {
    #[test]
    fn any_octets(body in proptest::collection::vec(any::<u8>(), 0..600)) {
        check(b"", &body, &Limits::default());
        check(b"Received: x\r\n", &body, &Limits::default());
    }

    #[test]
    fn any_structure(body in lines(), depth in 1_usize..8, parts in 1_usize..12) {
        check(b"", &body, &Limits::default());
        let limits = Limits { depth, parts, header_bytes: 60, addresses: 1, listing_bytes: 20, fields: 3, references: 1, preview: 5 };
        check(b"Received: x\r\n", &body, &limits);
    }

    #[test]
    fn the_fuzzers_promises_hold(octets in proptest::collection::vec(any::<u8>(), 0..300), text in lines()) {
        message::fuzz::message(&octets);
        message::fuzz::message(&text);
        message::fuzz::message(&[&octets[..octets.len().min(2)], &text].concat());
        message::fuzz::header(&octets);
        message::fuzz::header(&text);
        message::fuzz::stored(&octets);
    }

    #[test]
    fn any_stored_form(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Parsed::decode(&bytes);
        let _ = message::stored::select_listed(&bytes, b"", &["a"]);
        let mut versioned = vec![message::stored::VERSION];
        versioned.extend_from_slice(&bytes);
        let _ = Parsed::decode(&versioned);
        let _ = body_of(&bytes);
    }
}

/// Doubling the input must not quadruple the time. Tried several times: the machine may be busy.
fn assert_linear(name: &str, make: impl Fn(usize) -> Vec<u8>, n: usize) {
    let time = |n| {
        let mail = make(n);
        let start = Instant::now();
        check(b"", &mail, &Limits::default());
        start.elapsed()
    };
    let mut seen = Vec::new();
    for _ in 0..5 {
        let (short, long) = (time(n), time(4 * n));
        if long < short * 9 + Duration::from_millis(30) {
            return;
        }
        seen.push((short, long));
    }
    panic!("{name}: four times the input took {seen:?}");
}

#[test]
fn hostile_mail_takes_linear_time() {
    let nested = |n: usize| {
        (0..n)
            .flat_map(|i| {
                format!("Content-Type: multipart/mixed; boundary=b{i}\r\n\r\n--b{i}\r\n")
                    .into_bytes()
            })
            .collect()
    };
    assert_linear("nested multiparts", nested, 25_000);
    assert_linear(
        "nested messages",
        |n| b"Content-Type: message/rfc822\r\n\r\n".repeat(n),
        25_000,
    );
    let same = |n: usize| b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n".repeat(n);
    assert_linear("one boundary", same, 25_000);
    let many = |n: usize| {
        [
            &b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"[..],
            &b"--b\r\n\r\nx\r\n".repeat(n),
        ]
        .concat()
    };
    assert_linear("many parts", many, 25_000);
    assert_linear(
        "one long field",
        |n| [&b"Subject: "[..], &b"x".repeat(n)].concat(),
        500_000,
    );
    assert_linear("many fields", |n| b"X: y\r\n".repeat(n), 100_000);
    assert_linear(
        "many recipients",
        |n| [&b"To: "[..], &b"a@b,".repeat(n)].concat(),
        20_000,
    );
    assert_linear(
        "open comments",
        |n| [&b"To: "[..], &b"(a".repeat(n)].concat(),
        20_000,
    );
    assert_linear(
        "open words",
        |n| [&b"Subject: "[..], &b"=?u?q?".repeat(n)].concat(),
        8_000,
    );
    assert_linear(
        "blobs",
        |n| [&b"Subject: "[..], &b"[a]".repeat(n)].concat(),
        20_000,
    );
    assert_linear(
        "references",
        |n| [&b"References: "[..], &b"<a@b>".repeat(n)].concat(),
        10_000,
    );
    assert_linear(
        "parameters",
        |n| [&b"Content-Type: a/b"[..], &b";a*1=b".repeat(n)].concat(),
        10_000,
    );
}
