//! Passwords: preparing, hashing, and verifying against the formats that people bring along.
//!
//! New hashes are argon2id in PHC form. Read are, with or without Dovecot's `{SCHEME}` prefix:
//!
//! | | |
//! |---|---|
//! | `$argon2id$`, `$argon2i$`, `$argon2d$`, `{ARGON2ID}`, `{ARGON2I}` | RFC 9106 |
//! | `$2a$`, `$2b$`, `$2x$`, `$2y$`, `{BLF-CRYPT}` | bcrypt |
//! | `$5$`, `$6$`, `{SHA256-CRYPT}`, `{SHA512-CRYPT}`, `{CRYPT}` | crypt(3) |
//! | `{SHA}`, `{SHA1}`, `{SHA256}`, `{SHA512}`, `{SSHA}`, `{SSHA256}`, `{SSHA512}`, also `.HEX`, `.B64` | LDAP and Dovecot |
//! | `{PBKDF2}$1$salt$rounds$hex`, `$pbkdf2$`, `$pbkdf2-sha256$`, `$pbkdf2-sha512$` | Dovecot, passlib |
//! | `{SCRAM-SHA-256}iterations,salt,stored,server` | Dovecot |
//! | `{PLAIN}`, `{CLEARTEXT}` | only where the configuration allows it |
//!
//! Hashes whose verification would take more than a bounded time or memory are refused.

mod legacy;
mod prepare;

pub(crate) use prepare::{opaque, saslprep};

use crate::config::Hashing;
use crate::scram;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::{constant_time, digest, pbkdf2, rand};
use std::num::NonZeroU32;

/// Why a stored hash cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// None of the formats.
    #[error("the password hash has no known format")]
    Unknown,
    /// A known format, but damaged.
    #[error("the password hash is malformed")]
    Malformed,
    /// It would take too long, or too much memory.
    #[error("the password hash would take too long to verify: its cost is beyond what is sane")]
    Costly,
    /// `{PLAIN}`.
    #[error("passwords in clear are not accepted (authd.hashing.plain)")]
    Plain,
    /// The parameters of the configuration, or the random generator.
    #[error("the password cannot be hashed: check authd.hashing")]
    Hashing,
}

/// 256 MiB, 1 s or so.
const ARGON2_KIB_MAX: u32 = 262_144;
const ARGON2_PASSES_MAX: u32 = 32;
const BCRYPT_COST_MAX: u32 = 15;
const CRYPT_ROUNDS_MAX: u32 = 2_000_000;
const PBKDF2_ROUNDS_MAX: u32 = 5_000_000;

/// A stored hash, understood.
pub(crate) enum Hash<'a> {
    Argon2(PasswordHash<'a>),
    Bcrypt(&'a str),
    Sha256Crypt(&'a str),
    Sha512Crypt(&'a str),
    Digest {
        algorithm: &'static digest::Algorithm,
        digest: Vec<u8>,
        salt: Vec<u8>,
    },
    Pbkdf2 {
        algorithm: pbkdf2::Algorithm,
        rounds: NonZeroU32,
        salt: Vec<u8>,
        key: Vec<u8>,
    },
    Scram(scram::Keys),
    Plain(&'a str),
}

impl<'a> Hash<'a> {
    /// Understands a hash.
    ///
    /// # Errors
    /// See [`HashError`].
    pub(crate) fn parse(text: &'a str, plain: bool) -> Result<Self, HashError> {
        match legacy::parse(text)? {
            Hash::Plain(_) if !plain => Err(HashError::Plain),
            hash => Ok(hash),
        }
    }

    fn argon2(text: &'a str) -> Result<Self, HashError> {
        let hash = PasswordHash::new(text).map_err(|_| HashError::Malformed)?;
        let params = Params::try_from(&hash).map_err(|_| HashError::Malformed)?;
        if hash.hash.is_none() || hash.salt.is_none() {
            return Err(HashError::Malformed);
        }
        let costly = params.m_cost() > ARGON2_KIB_MAX || params.t_cost() > ARGON2_PASSES_MAX;
        if costly {
            return Err(HashError::Costly);
        }
        Ok(Self::Argon2(hash))
    }

    /// Whether the password is right. Takes as long as the format wants: up to seconds.
    pub(crate) fn verify(&self, password: &str) -> bool {
        match self {
            Self::Argon2(hash) => Argon2::default()
                .verify_password(password.as_bytes(), hash)
                .is_ok(),
            Self::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Self::Sha256Crypt(hash) => sha_crypt::sha256_check(password, hash).is_ok(),
            Self::Sha512Crypt(hash) => sha_crypt::sha512_check(password, hash).is_ok(),
            Self::Digest {
                algorithm,
                digest,
                salt,
            } => {
                let mut context = digest::Context::new(algorithm);
                context.update(password.as_bytes());
                context.update(salt);
                same(context.finish().as_ref(), digest)
            }
            Self::Pbkdf2 {
                algorithm,
                rounds,
                salt,
                key,
            } => pbkdf2::verify(*algorithm, *rounds, salt, password.as_bytes(), key).is_ok(),
            Self::Scram(keys) => {
                let made = scram::Keys::derive(&saslprep(password), &keys.salt, keys.iterations);
                same(&made.stored, &keys.stored)
            }
            Self::Plain(clear) => same(
                digest::digest(&digest::SHA256, password.as_bytes()).as_ref(),
                digest::digest(&digest::SHA256, clear.as_bytes()).as_ref(),
            ),
        }
    }
}

fn same(a: &[u8], b: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// Hashes a new password. Takes as long as the configuration wants: tens of milliseconds.
///
/// # Errors
/// [`HashError::Hashing`].
pub(crate) fn make(password: &str, config: &Hashing) -> Result<String, HashError> {
    let mut salt = [0; 16];
    rand::fill(&mut salt).map_err(|_| HashError::Hashing)?;
    let salt = SaltString::encode_b64(&salt).map_err(|_| HashError::Hashing)?;
    Ok(argon2id(config)?
        .hash_password(password.as_bytes(), &salt)
        .map_err(|_| HashError::Hashing)?
        .to_string())
}

fn argon2id(config: &Hashing) -> Result<Argon2<'static>, HashError> {
    if config.memory_kib > ARGON2_KIB_MAX || config.iterations > ARGON2_PASSES_MAX {
        return Err(HashError::Hashing);
    }
    let params = Params::new(config.memory_kib, config.iterations, 1, None)
        .map_err(|_| HashError::Hashing)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// Whether a hash is argon2id, at least as strong as the configuration asks for.
pub(crate) fn is_current(text: &str, config: &Hashing) -> bool {
    let Ok(hash) = PasswordHash::new(text) else {
        return false;
    };
    let Ok(params) = Params::try_from(&hash) else {
        return false;
    };
    hash.algorithm == argon2::ARGON2ID_IDENT
        && params.m_cost() >= config.memory_kib
        && params.t_cost() >= config.iterations
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
