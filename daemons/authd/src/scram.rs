//! SCRAM-SHA-256 and SCRAM-SHA-256-PLUS, the server's side (RFC 5802, RFC 7677). Pure: salt and nonce are parameters.

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::num::NonZeroU32;
use types::Octets;

/// What is stored of a password (RFC 5802 3). Whoever has it can try passwords, and pose as the server, but not log in.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Keys {
    pub(crate) salt: Vec<u8>,
    pub(crate) iterations: u32,
    pub(crate) stored: [u8; 32],
    pub(crate) server: [u8; 32],
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SCRAM keys")
    }
}

fn hmac_sha256(key: &[u8], data: &[u8]) -> [u8; 32] {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data);
    let mut out = [0; 32];
    out.iter_mut()
        .zip(tag.as_ref())
        .for_each(|(to, from)| *to = *from);
    out
}

fn sha256(data: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    let hash = digest::digest(&digest::SHA256, data);
    out.iter_mut()
        .zip(hash.as_ref())
        .for_each(|(to, from)| *to = *from);
    out
}

impl Keys {
    /// Makes the keys of a prepared password. Takes as long as the iterations want.
    pub(crate) fn derive(password: &str, salt: &[u8], iterations: u32) -> Self {
        let mut salted = zeroize::Zeroizing::new([0; 32]);
        let rounds = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            rounds,
            salt,
            password.as_bytes(),
            salted.as_mut(),
        );
        Self {
            salt: salt.to_vec(),
            iterations: rounds.get(),
            stored: sha256(&hmac_sha256(salted.as_ref(), b"Client Key")),
            server: hmac_sha256(salted.as_ref(), b"Server Key"),
        }
    }
}

/// Why an exchange ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScramError {
    /// Not what RFC 5802 7 allows.
    #[error("malformed")]
    Malformed,
    /// The client demands an extension.
    #[error("an extension that is not known")]
    Extension,
    /// Somebody took -PLUS away between client and server (RFC 5802 6), or the bindings differ.
    #[error("the channel bindings do not fit: somebody may be in between")]
    Binding,
    /// The proof is wrong.
    #[error("the proof is wrong")]
    Proof,
}

/// The client's first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClientFirst {
    /// What is expected in `c=`: the GS2 header and, with a binding, its data.
    binding: Vec<u8>,
    pub(crate) authzid: Option<String>,
    pub(crate) user: String,
    bare: String,
    nonce: String,
}

/// Names and nonces beyond this are nobody's.
const FIELD_MAX: usize = 512;

impl ClientFirst {
    /// Reads it. `plus` says which mechanism was chosen, `bindings` what the connection has; -PLUS counts as offered if there
    /// are any.
    ///
    /// # Errors
    /// See [`ScramError`].
    pub(crate) fn parse(
        octets: &[u8],
        plus: bool,
        bindings: &[(String, Octets)],
    ) -> Result<Self, ScramError> {
        let text = std::str::from_utf8(octets).map_err(|_| ScramError::Malformed)?;
        let mut fields = text.splitn(3, ',');
        let (Some(flag), Some(authzid), Some(bare)) = (fields.next(), fields.next(), fields.next())
        else {
            return Err(ScramError::Malformed);
        };
        let mut binding = format!("{flag},{authzid},").into_bytes();
        match (flag, plus) {
            ("n", false) => {}
            // RFC 5802 6: the client could do it and believes that we cannot, although we said so.
            ("y", false) if !bindings.is_empty() => return Err(ScramError::Binding),
            ("y", false) => {}
            (_, true) => {
                let name = flag.strip_prefix("p=").ok_or(ScramError::Malformed)?;
                let data = bindings.iter().find(|(known, _)| known == name);
                binding.extend_from_slice(&data.ok_or(ScramError::Binding)?.1);
            }
            _ => return Err(ScramError::Malformed),
        }
        let authzid = match authzid.strip_prefix("a=") {
            Some(name) => Some(unescape(name)?),
            None if authzid.is_empty() => None,
            None => return Err(ScramError::Malformed),
        };
        let mut fields = bare.split(',');
        let user = fields.next().ok_or(ScramError::Malformed)?;
        if user.starts_with("m=") {
            return Err(ScramError::Extension);
        }
        let user = unescape(user.strip_prefix("n=").ok_or(ScramError::Malformed)?)?;
        let nonce = fields
            .next()
            .and_then(|field| field.strip_prefix("r="))
            .filter(|nonce| is_nonce(nonce))
            .ok_or(ScramError::Malformed)?;
        Ok(Self {
            binding,
            authzid,
            user,
            bare: bare.to_owned(),
            nonce: nonce.to_owned(),
        })
    }
}

/// RFC 5802 5.1: `=2C` and `=3D` for comma and equals sign.
fn unescape(name: &str) -> Result<String, ScramError> {
    if name.is_empty() || name.len() > FIELD_MAX || name.contains('\0') {
        return Err(ScramError::Malformed);
    }
    let mut parts = name.split('=');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (c, rest) = if let Some(rest) = part.strip_prefix("2C") {
            (',', rest)
        } else if let Some(rest) = part.strip_prefix("3D") {
            ('=', rest)
        } else {
            return Err(ScramError::Malformed);
        };
        out.push(c);
        out.push_str(rest);
    }
    Ok(out)
}

fn is_nonce(text: &str) -> bool {
    !text.is_empty() && text.len() <= FIELD_MAX && text.bytes().all(|b| (0x21..=0x7e).contains(&b))
}

/// An exchange whose first half is done.
#[derive(Clone, Debug)]
pub(crate) struct Challenge {
    binding: Vec<u8>,
    nonce: String,
    /// Client-first-bare, comma, server-first.
    said: String,
}

impl Challenge {
    /// Answers the first message. Gives the state, and the server's first message.
    pub(crate) fn new(
        first: ClientFirst,
        salt: &[u8],
        iterations: u32,
        server_nonce: &str,
    ) -> (Self, Vec<u8>) {
        let nonce = format!("{}{server_nonce}", first.nonce);
        let message = format!("r={nonce},s={},i={iterations}", BASE64.encode(salt));
        let said = format!("{},{message}", first.bare);
        (
            Self {
                binding: first.binding,
                nonce,
                said,
            },
            message.into_bytes(),
        )
    }

    /// Checks the client's last message against several keys that share salt and iterations. Gives the place of the one that
    /// fits, and the server's final message.
    ///
    /// # Errors
    /// See [`ScramError`].
    pub(crate) fn finish<'k>(
        &self,
        octets: &[u8],
        keys: impl Iterator<Item = &'k Keys>,
    ) -> Result<(usize, Vec<u8>), ScramError> {
        let text = std::str::from_utf8(octets).map_err(|_| ScramError::Malformed)?;
        let (unproved, proof) = text.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let mut fields = unproved.split(',');
        let field = |field: Option<&str>, name| {
            field
                .and_then(|field| field.strip_prefix(name))
                .map(str::to_owned)
                .ok_or(ScramError::Malformed)
        };
        let binding = field(fields.next(), "c=")?;
        let nonce = field(fields.next(), "r=")?;
        let decode = |text: &str| BASE64.decode(text).map_err(|_| ScramError::Malformed);
        if decode(&binding)? != self.binding {
            return Err(ScramError::Binding);
        }
        if nonce != self.nonce {
            return Err(ScramError::Proof);
        }
        let proof = decode(proof)?;
        if proof.len() != 32 {
            return Err(ScramError::Malformed);
        }
        let said = format!("{},{unproved}", self.said);
        for (place, keys) in keys.enumerate() {
            let mut client_key = hmac_sha256(&keys.stored, said.as_bytes());
            client_key.iter_mut().zip(&proof).for_each(|(a, b)| *a ^= b);
            let fits = constant_time::verify_slices_are_equal(&sha256(&client_key), &keys.stored);
            if fits.is_ok() {
                let signature = hmac_sha256(&keys.server, said.as_bytes());
                let last = format!("v={}", BASE64.encode(signature));
                return Ok((place, last.into_bytes()));
            }
        }
        Err(ScramError::Proof)
    }
}

#[cfg(test)]
#[path = "scram_tests.rs"]
pub(crate) mod tests;
