//! The token key: seals and verifies octets, for each purpose apart.

use crate::state_file;
use aws_lc_rs::{constant_time, hmac, rand};
use std::io;
use std::path::Path;
use zeroize::Zeroizing;

/// Makes and checks seals (HMAC-SHA256, RFC 2104).
pub(crate) struct TokenKey(hmac::Key);

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the token key")
    }
}

const LEN: usize = 32;

impl TokenKey {
    /// Reads `token.key` in the state directory, or makes it.
    ///
    /// # Errors
    /// The file cannot be read or written, or has another length.
    pub(crate) fn open(state: &Path) -> io::Result<Self> {
        let path = state.join("token.key");
        if let Some(content) = state_file::read(&path)? {
            if content.len() != LEN {
                return Err(io::Error::other(format!(
                    "{} is damaged: remove it, and all logins must be made anew",
                    path.display()
                )));
            }
            return Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &content)));
        }
        let mut fresh = Zeroizing::new([0; LEN]);
        rand::fill(fresh.as_mut()).map_err(|_| io::Error::other("no random octets"))?;
        state_file::write(&path, fresh.as_ref())?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, fresh.as_ref())))
    }

    /// The seal: 32 octets.
    pub(crate) fn seal(&self, purpose: &str, data: &[u8]) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.0);
        // The length in front keeps ("ab", "c") and ("a", "bc") apart.
        context.update(&(purpose.len() as u64).to_le_bytes());
        context.update(purpose.as_bytes());
        context.update(data);
        context.sign().as_ref().to_vec()
    }

    /// Whether a seal is genuine; takes the same time either way.
    pub(crate) fn verify(&self, purpose: &str, data: &[u8], seal: &[u8]) -> bool {
        constant_time::verify_slices_are_equal(&self.seal(purpose, data), seal).is_ok()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn seals_hold_over_restarts_and_for_their_purpose_only() {
        let state = tempfile::tempdir().unwrap();
        let seal = TokenKey::open(state.path()).unwrap().seal("a", b"data");
        let again = TokenKey::open(state.path()).unwrap();
        assert_eq!(seal.len(), 32);
        assert!(again.verify("a", b"data", &seal));
        assert!(!again.verify("b", b"data", &seal));
        assert!(!again.verify("ad", b"ata", &seal));
        assert!(!again.verify("a", b"datA", &seal));
        assert!(!again.verify("a", b"data", &seal[..31]));
        let other = tempfile::tempdir().unwrap();
        let other = TokenKey::open(other.path()).unwrap();
        assert!(!other.verify("a", b"data", &seal));
        std::fs::write(state.path().join("token.key"), b"short").unwrap();
        assert!(TokenKey::open(state.path()).is_err());
    }
}
