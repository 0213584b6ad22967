//! Entry points for fuzzers: each takes any octets, and panics only if the codec breaks a promise.

use crate::client::{Capabilities, ReplyParser, Stuffer};
use crate::{Command, DataDecoder, Line, LineEndings, LineReader, Newlines, proxy, xtext};

/// Command lines, delivered whole and in pieces whose lengths the first octet chooses.
pub fn commands(octets: &[u8]) {
    let step = usize::from(octets.first().copied().unwrap_or(1)) % 17 + 1;
    let whole = lines(octets, octets.len().max(1));
    let pieces = lines(octets, step);
    // A stray CR in an endless line may be seen sooner or later; up to there they agree.
    let both = whole.len().min(pieces.len());
    assert!(whole.iter().take(both).eq(pieces.iter().take(both)));
}

fn lines(octets: &[u8], step: usize) -> Vec<Option<Vec<u8>>> {
    let mut reader = LineReader::default();
    let mut held: Vec<u8> = Vec::new();
    let mut seen = Vec::new();
    for piece in octets.chunks(step) {
        held.extend_from_slice(piece);
        loop {
            let consumed = match reader.next(&held) {
                Line::Complete { line, consumed } => {
                    let _ = Command::parse(line);
                    seen.push(Some(line.to_vec()));
                    consumed
                }
                Line::TooLong { consumed } => {
                    seen.push(None);
                    consumed
                }
                Line::Stray { .. } => return seen,
                Line::Incomplete { consumed } => {
                    held.drain(..consumed);
                    break;
                }
            };
            held.drain(..consumed);
        }
    }
    seen
}

/// A message: what is stuffed comes out again with repaired line endings and nothing behind it; any split decodes alike.
pub fn message(octets: &[u8]) {
    let mut sent = Vec::new();
    let mut stuffer = Stuffer::default();
    for piece in octets.chunks(13) {
        stuffer.encode_into(piece, &mut sent);
    }
    stuffer.finish_into(&mut sent);
    let mut received = Vec::new();
    let mut decoder = DataDecoder::new(Newlines::Refuse);
    let progress = decoder.decode(&sent, &mut |slice| received.extend_from_slice(slice));
    assert!(progress.done && progress.consumed == sent.len() && !decoder.stray());
    let mut endings = LineEndings::default();
    endings.feed(&received);
    assert!(!endings.stray());

    let mut whole = Vec::new();
    let mut split = Vec::new();
    let mut one = DataDecoder::new(Newlines::Repair);
    let mut two = DataDecoder::new(Newlines::Repair);
    let first = one.decode(octets, &mut |slice| whole.extend_from_slice(slice));
    for piece in octets.chunks(3) {
        let next = two.decode(piece, &mut |slice| split.extend_from_slice(slice));
        if next.done {
            assert!(first.done);
            break;
        }
    }
    assert!(whole == split);
}

/// What a server might send to a client.
pub fn replies(octets: &[u8]) {
    let mut parser = ReplyParser::default();
    let mut rest = octets;
    while !rest.is_empty() {
        let Ok((taken, reply)) = parser.feed(rest) else {
            return;
        };
        assert!(taken > 0);
        rest = rest.get(taken..).unwrap_or_default();
        if let Some(reply) = reply {
            let _ = Capabilities::from_reply(&reply);
            assert!(reply.text().len() <= 1000);
        }
    }
}

/// What a load balancer might send, and DSN parameters.
pub fn small(octets: &[u8]) {
    if let Ok(Some((_, len))) = proxy::read(octets) {
        assert!(len <= octets.len());
    }
    if let Ok(text) = std::str::from_utf8(octets) {
        if let Ok(plain) = xtext::decode(text) {
            assert!(xtext::decode(&xtext::encode(&plain)).as_deref() == Ok(&plain));
        }
        let _ = xtext::decode_orcpt(text);
    }
}
