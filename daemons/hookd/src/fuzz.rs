//! Entry points for fuzzers: each takes any octets, and panics only if a promise is broken.

use crate::filter::{Mail, View, Word};
use crate::http;
use crate::letter::{Author, Letter};
use ipc::api::hookd::{HookClient, HookFacts};

/// What a filter answers over HTTP: whatever it wants changed, the header stays one, and a refusal is one in SMTP.
pub fn answer(octets: &[u8]) {
    let Ok(reply) = http::reply(octets) else {
        return;
    };
    let (client, facts, mail) = (HookClient::default(), HookFacts::default(), Mail::default());
    let view = View {
        client: &client,
        name: None,
        facts: &facts,
        mail: Some(&mail),
    };
    let by = Author {
        filter: "fuzz",
        may_relay: false,
        quarantine: crate::config::Quarantine::default(),
    };
    let message = b"From: a@a.example\r\nSubject: one\r\n two\r\nX-A: 1\r\n\r\ntext\r\n".to_vec();
    let mut letter = Letter::inline(b"Authentication-Results: us; none\r\n", message);
    if let Ok(Word::Refuse(answer)) = http::heed(reply, &view, &mut letter, by) {
        assert!((400..600).contains(&answer.code));
        assert_eq!(u16::from(answer.enhanced.0), answer.code / 100);
    }
    let header = letter.header();
    let mut fields = message::Fields::new(&header);
    assert_eq!(fields.by_ref().count(), letter.fields.len());
    assert!(fields.rest().is_empty());
    let mut lines = header.split_inclusive(|octet| *octet == b'\n');
    assert!(lines.all(|line| line.ends_with(b"\r\n") && !line.trim_ascii().is_empty()));
    let parts = letter.parts();
    let all = [parts.before, parts.own, parts.rest].concat();
    assert_eq!(all.len(), header.len());
}
