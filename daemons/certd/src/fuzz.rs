//! Entry points for fuzzers: each takes any octets, and panics only if a promise is broken.

use crate::answers::Answers;
use crate::http01;

/// A request at the port for HTTP-01: whatever it is, it gets one whole answer, and the key authorization only who asks for it.
pub fn http(octets: &[u8]) {
    let answers = Answers::default();
    let _answer = answers.say_token("tok", "a.example", "tok.thumb".to_owned());
    let head = octets
        .get(..octets.len().min(http01::HEAD_MAX))
        .unwrap_or_default();
    let said = String::from_utf8_lossy(&http01::respond(head, &answers)).into_owned();
    assert!(said.starts_with("HTTP/1.1 ") && said.contains("\r\n\r\n"));
    let asked = String::from_utf8_lossy(octets).contains("/.well-known/acme-challenge/tok");
    assert!(asked || !said.contains("tok.thumb"));
}
