//! Entry points for fuzzers: each takes any octets, and panics only if a promise is broken.

use crate::command::thread::{Forest, Threaded};

/// Messages at most: what is promised holds for few, too.
const MESSAGES: usize = 3000;

/// Messages that refer to each other in any way, loops and doubles among them: each stands once in the threads, and what is
/// written is a thread-list (RFC 5256 4).
pub fn threading(octets: &[u8]) {
    let messages: Vec<Threaded> = octets
        .chunks(6)
        .take(MESSAGES)
        .zip(1..)
        .map(|(piece, number)| message(piece, number))
        .collect();
    for forest in [
        Forest::by_references(&messages),
        Forest::by_subject(&messages),
    ] {
        check(&forest.written(&messages), messages.len());
    }
}

fn message(piece: &[u8], number: u32) -> Threaded {
    let octet = |at: usize| piece.get(at).copied().unwrap_or_default();
    let id = |octet: u8| format!("{}@x", octet % 64);
    // 0 is no id, and no reference.
    let references = (3..6).map(octet).filter(|octet| *octet != 0).map(id);
    Threaded {
        number,
        sent: i64::from(octet(1)),
        subject: match octet(0) % 16 {
            0 => String::new(),
            other => format!("S{other}"),
        },
        is_reply: octet(0) & 0x40 != 0,
        id: (octet(2) != 0).then(|| id(octet(2))),
        references: references.collect(),
    }
}

fn check(written: &str, count: usize) {
    let mut depth = 0_i64;
    for octet in written.bytes() {
        match octet {
            b'(' => depth += 1,
            b')' => depth -= 1,
            b' ' | b'0'..=b'9' => assert!(depth > 0, "a number outside of a thread"),
            other => unreachable!("{other} in a thread"),
        }
        assert!(depth >= 0, "a thread ends twice");
    }
    assert_eq!(depth, 0, "a thread does not end");
    assert!(!written.contains("()") && !written.contains("( "));
    let mut numbers: Vec<u32> = written
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect();
    numbers.sort_unstable();
    assert!(
        numbers.into_iter().eq((1..).take(count)),
        "each message once"
    );
}
