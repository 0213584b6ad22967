//! Entry point for fuzzers: takes any octets, and panics only if the codec breaks a promise.

use crate::{Reader, Reply, Terms, answer};

/// What a filter sends, whole and in pieces whose length the first octet chooses.
pub fn replies(octets: &[u8]) {
    let step = usize::from(octets.first().copied().unwrap_or(1)) % 13 + 1;
    let whole = read(octets, octets.len().max(1));
    let pieces = read(octets, step);
    assert_eq!(whole, pieces, "pieces make no difference");
    if let Some(found) = answer(octets) {
        assert!((400..600).contains(&found.code) && !found.lines.is_empty());
        let class = u8::try_from(found.code / 100).unwrap_or(0);
        assert!(found.enhanced.is_none_or(|(first, ..)| first == class));
        assert!(found.lines.iter().all(|line| !line.contains('\n')));
    }
}

fn read(octets: &[u8], step: usize) -> Vec<Option<Reply>> {
    let mut reader = Reader::new(1 << 16);
    let mut found = Vec::new();
    for piece in octets.chunks(step) {
        reader.feed(piece);
        loop {
            match reader.packet() {
                Ok(Some(packet)) => {
                    let reply = Reply::read(packet).ok();
                    if let Some(Reply::Negotiate(asked)) = &reply {
                        for version in [2, 6] {
                            if let Ok(terms) = Terms::agreed(version, asked) {
                                assert!((2..=version).contains(&terms.version));
                            }
                        }
                    }
                    found.push(reply);
                }
                Ok(None) => break,
                Err(_) => return found,
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn packets_of_any_kind_are_read_alike(
            packets in proptest::collection::vec(
                ("[Ocardtyspfhime+2bq4Z-]", proptest::collection::vec(0_u8..4, 0..40)),
                0..8,
            ),
            step in any::<u8>(),
        ) {
            let mut octets = Vec::new();
            for (letter, data) in packets {
                octets.extend_from_slice(&u32::try_from(data.len() + 1).unwrap_or(1).to_be_bytes());
                octets.extend_from_slice(letter.as_bytes());
                octets.extend_from_slice(&data);
            }
            replies(&octets);
            octets.insert(0, step);
            replies(&octets);
        }

        #[test]
        fn lines_of_replies_are_read(text in "[45][0-9]{2}[ -]?([245]\\.[0-9]\\.[0-9] )?[a-z%\r\n 0-9-]{0,40}") {
            replies(text.as_bytes());
        }
    }
}
