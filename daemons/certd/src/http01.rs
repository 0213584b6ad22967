//! HTTP-01 (RFC 8555 8.3): a server that knows one path.

use crate::answers::Answers;
use crate::door::Visitor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A request's line and fields; authorities send some hundred octets.
pub(crate) const HEAD_MAX: usize = 8 * 1024;
/// RFC 8555 8.3
const PATH: &str = "/.well-known/acme-challenge/";

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Reply {
    /// The key authorization; without it for HEAD.
    Found { text: String, head: bool },
    /// Status and its words.
    Refused(&'static str),
}

/// Answers one request.
pub(crate) async fn answer(mut visitor: Box<dyn Visitor>, answers: Answers) {
    let mut head = Vec::with_capacity(1024);
    let reply = loop {
        if let Some(end) = head.windows(4).position(|part| part == b"\r\n\r\n") {
            break reply(head.get(..end).unwrap_or_default(), &answers);
        }
        if head.len() > HEAD_MAX {
            break Reply::Refused("431 Request Header Fields Too Large");
        }
        match visitor.read_buf(&mut head).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    };
    let _ = visitor.write_all(&octets(&reply)).await;
    let _ = visitor.shutdown().await;
}

/// The octets that answer a request.
pub(crate) fn respond(head: &[u8], answers: &Answers) -> Vec<u8> {
    octets(&reply(head, answers))
}

/// The answer to a request (RFC 9112 3).
fn reply(head: &[u8], answers: &Answers) -> Reply {
    const BAD: Reply = Reply::Refused("400 Bad Request");
    let line = head
        .split(|octet| *octet == b'\r')
        .next()
        .unwrap_or_default();
    let Ok(line) = std::str::from_utf8(line) else {
        return BAD;
    };
    let mut parts = line.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return BAD;
    };
    if !version.starts_with("HTTP/1.") {
        return Reply::Refused("505 HTTP Version Not Supported");
    }
    if !matches!(method, "GET" | "HEAD") {
        return Reply::Refused("405 Method Not Allowed");
    }
    // RFC 9112 3.2.2: also the form for proxies.
    let path = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/"),
        None => target,
    };
    let found = path
        .strip_prefix(PATH)
        .and_then(|token| answers.token(token));
    match found {
        Some(text) => Reply::Found {
            text,
            head: method == "HEAD",
        },
        None => Reply::Refused("404 Not Found"),
    }
}

fn octets(reply: &Reply) -> Vec<u8> {
    let (status, kind, text, head) = match reply {
        Reply::Found { text, head } => ("200 OK", "application/octet-stream", text.as_str(), *head),
        Reply::Refused(status) => (*status, "text/plain", "", false),
    };
    let length = text.len();
    let body = if head { "" } else { text };
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_the_challenge_is_answered() {
        let answers = Answers::default();
        let _one = answers.say_token("tok-_1", "a.example", "tok-_1.thumb".to_owned());
        let found = |head| Reply::Found {
            text: "tok-_1.thumb".to_owned(),
            head,
        };
        let status = |text: &str| match reply(text.as_bytes(), &answers) {
            Reply::Refused(status) => status.get(..3).unwrap().to_owned(),
            Reply::Found { .. } => "200".to_owned(),
        };
        let path = "/.well-known/acme-challenge/tok-_1";
        for (line, head) in [
            (format!("GET {path} HTTP/1.1\r\nHost: a"), false),
            (format!("GET http://a.example{path} HTTP/1.1"), false),
            (format!("HEAD {path} HTTP/1.0"), true),
        ] {
            assert_eq!(reply(line.as_bytes(), &answers), found(head), "{line}");
        }
        for (line, expected) in [
            ("GET / HTTP/1.1", "404"),
            ("GET /.well-known/acme-challenge/ HTTP/1.1", "404"),
            ("GET /.well-known/acme-challenge/tok-_1/ HTTP/1.1", "404"),
            ("GET /.well-known/acme-challenge/../tok-_1 HTTP/1.1", "404"),
            ("GET http://a HTTP/1.1", "404"),
            ("POST /.well-known/acme-challenge/tok-_1 HTTP/1.1", "405"),
            ("GET / HTTP/2.0", "505"),
            ("GET /", "400"),
            ("GET  / HTTP/1.1", "400"),
            ("", "400"),
        ] {
            assert_eq!(status(line), expected, "{line}");
        }
        assert_eq!(
            reply(b"GET /\xff HTTP/1.1", &answers),
            Reply::Refused("400 Bad Request")
        );
    }

    #[tokio::test]
    async fn a_request_in_pieces_is_answered_and_one_without_end_refused() {
        let answers = Answers::default();
        let _one = answers.say_token("t", "a.example", "t.thumb".to_owned());
        let (mut client, server) = tokio::io::duplex(HEAD_MAX * 2);
        let task = tokio::spawn(answer(Box::new(server), answers.clone()));
        for piece in [
            "GET /.well-known/acme-",
            "challenge/t HTTP/1.1\r",
            "\nHost: a\r\n\r\n",
        ] {
            client.write_all(piece.as_bytes()).await.unwrap();
        }
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\nt.thumb"));
        task.await.unwrap();
        let (mut client, server) = tokio::io::duplex(HEAD_MAX * 4);
        client.write_all(&vec![b'a'; HEAD_MAX + 1]).await.unwrap();
        answer(Box::new(server), answers).await;
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 431 "), "{text}");
    }
}
