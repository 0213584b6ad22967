//! The hashes of a body, made while it passes by.

use mail_auth::AuthenticatedMessage;
use mail_auth::common::crypto::{HashAlgorithm, HashContext as _, HashImpl, Sha256};
use mail_auth::dkim::Canonicalization;
use mail_auth::dkim::canonicalize::BodyHasher;
use message::Fields;

type Hasher = BodyHasher<<Sha256 as HashImpl>::Context>;

/// The hashes that a message's signatures are compared with: SHA-256 of the body in either canonical form (RFC 6376 3.4.3,
/// 3.4.4), as far as a signature wants it.
pub struct BodyHashes {
    hashers: Vec<(Canonicalization, Hasher)>,
}

impl std::fmt::Debug for BodyHashes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} hashes", self.hashers.len())
    }
}

impl BodyHashes {
    /// Begins those that the signatures in a header want: none for most of what is not signed.
    pub fn wanted(header: &[u8]) -> Self {
        let signed = Fields::new(header).any(|field| {
            field.name.eq_ignore_ascii_case(b"dkim-signature")
                || field.name.eq_ignore_ascii_case(b"arc-message-signature")
        });
        let forms = [Canonicalization::Relaxed, Canonicalization::Simple];
        let hashers = forms
            .into_iter()
            .filter(|_| signed)
            .map(|form| (form, BodyHasher::new(Sha256::hasher(), form, 0)))
            .collect();
        Self { hashers }
    }

    /// The next octets of the body.
    pub fn update(&mut self, octets: &[u8]) {
        for (_, hasher) in &mut self.hashers {
            hasher.write(octets);
        }
    }

    /// Puts them in the place of those that the library made of a body that it was not given.
    pub(crate) fn put_into(self, message: &mut AuthenticatedMessage<'_>) {
        for (form, hasher) in self.hashers {
            let hash = hasher.finish().0.complete();
            for (wanted, algorithm, _, value) in &mut message.body_hashes {
                if *wanted == form && *algorithm == HashAlgorithm::Sha256 {
                    *value = hash.as_ref().to_vec();
                }
            }
        }
    }
}

/// Octets of the header at the start of a message, with the empty line behind it. `None` if it does not end there.
pub fn header_len(octets: &[u8]) -> Option<usize> {
    let mut fields = Fields::new(octets);
    while fields.next().is_some() {}
    let rest = fields.rest();
    let line = match rest {
        [b'\r', b'\n', ..] => 2,
        [b'\n', ..] => 1,
        _ => return None,
    };
    Some(octets.len() - rest.len() + line)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_header_ends_at_the_empty_line() {
        assert_eq!(header_len(b"A: b\r\n c\r\n\r\nbody"), Some(12));
        assert_eq!(header_len(b"A: b\r\nC: d\r\n"), None);
        assert_eq!(header_len(b"\r\nbody"), Some(2));
    }

    #[test]
    fn hashes_replace_those_of_the_empty_body() {
        let header = b"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/simple; d=a.example; s=s; h=from; bh=MA==; b=MA==\r\nFrom: a@a.example\r\n\r\n";
        let mut hashes = BodyHashes::wanted(header);
        // Twice the same in pieces.
        hashes.update(b"Hel");
        hashes.update(b"lo\r\n\r\n\r\n");
        let mut message = AuthenticatedMessage::parse_with_opts(header, None, true).unwrap();
        let empty = message.body_hashes[0].3.clone();
        hashes.put_into(&mut message);
        assert_ne!(message.body_hashes[0].3, empty);
        let whole = [header.as_slice(), b"Hello\r\n"].concat();
        let other = AuthenticatedMessage::parse(&whole).unwrap();
        assert_eq!(message.body_hashes[0].3, other.body_hashes[0].3);
        assert!(
            BodyHashes::wanted(b"From: a@a.example\r\n\r\n")
                .hashers
                .is_empty()
        );
    }
}
