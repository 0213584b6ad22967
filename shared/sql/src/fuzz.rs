//! Entry points for fuzzers: each takes any octets, and panics only if the crate breaks a promise.

use crate::dump::{Digest, decode, encode};

/// A dump; its first octet chooses how many columns a row has. What is taken as a row is written to the same octets.
pub fn dump(octets: &[u8]) {
    let Some((columns, mut left)) = octets.split_first() else {
        return;
    };
    let columns = usize::from(*columns % 9) + 1;
    let mut digest = Digest::default();
    while !left.is_empty() {
        let before = left;
        let Ok(row) = decode(&mut left, columns) else {
            return;
        };
        assert_eq!(row.len(), columns);
        let taken = before.len() - left.len();
        let mut written = Vec::new();
        encode(&row, &mut written);
        assert_eq!(before.get(..taken), Some(written.as_slice()));
        digest.add(&row);
        assert_eq!(digest.hex().len(), 64);
    }
}
