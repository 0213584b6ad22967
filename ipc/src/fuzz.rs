//! What a fuzzer calls.

use crate::socket::Assembler;

/// Octets of a peer, read at once and read in pieces: both ways the same frames come, and the same error.
///
/// # Panics
/// When they differ: a defect.
pub fn frames(octets: &[u8]) {
    let piece = octets.first().map_or(1, |first| usize::from(*first) + 1);
    let cut = collect(octets.chunks(piece));
    assert_eq!(collect(std::iter::once(octets)), cut);
}

type Seen = (Vec<(u64, Vec<u8>)>, bool);

fn collect<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Seen {
    let mut assembler = Assembler::default();
    let mut seen = Vec::new();
    for piece in pieces {
        assembler.feed(piece);
        loop {
            match assembler.next() {
                Ok(Some(frame)) => seen.push((frame.header.id, frame.payload)),
                Ok(None) => break,
                Err(_) => return (seen, true),
            }
        }
    }
    (seen, false)
}
