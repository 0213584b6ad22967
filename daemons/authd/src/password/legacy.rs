//! Recognising stored hashes.

use super::{BCRYPT_COST_MAX, CRYPT_ROUNDS_MAX, Hash, HashError, PBKDF2_ROUNDS_MAX};
use crate::scram;
use aws_lc_rs::{digest, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use std::num::NonZeroU32;

/// Understands a hash of any format.
pub(super) fn parse(text: &str) -> Result<Hash<'_>, HashError> {
    let Some((scheme, rest)) = text.strip_prefix('{').and_then(|t| t.split_once('}')) else {
        return modular(text);
    };
    let scheme = scheme.to_ascii_uppercase();
    let (scheme, encoding) = scheme
        .split_once('.')
        .map_or((scheme.as_str(), None), |(s, e)| (s, Some(e)));
    match scheme {
        "CRYPT" | "BLF-CRYPT" | "SHA256-CRYPT" | "SHA512-CRYPT" | "ARGON2I" | "ARGON2ID" => {
            modular(rest)
        }
        "SHA" | "SHA1" => salted(&digest::SHA1_FOR_LEGACY_USE_ONLY, rest, encoding, false),
        "SHA256" => salted(&digest::SHA256, rest, encoding, false),
        "SHA512" => salted(&digest::SHA512, rest, encoding, false),
        "SSHA" => salted(&digest::SHA1_FOR_LEGACY_USE_ONLY, rest, encoding, true),
        "SSHA256" => salted(&digest::SHA256, rest, encoding, true),
        "SSHA512" => salted(&digest::SHA512, rest, encoding, true),
        "PBKDF2" => dovecot_pbkdf2(rest),
        "SCRAM-SHA-256" => dovecot_scram(rest),
        "PLAIN" | "CLEARTEXT" if encoding.is_none() && !rest.is_empty() => Ok(Hash::Plain(rest)),
        _ => Err(HashError::Unknown),
    }
}

/// `$id$...`, as crypt(3) and passlib write it.
fn modular(text: &str) -> Result<Hash<'_>, HashError> {
    let mut fields = text.strip_prefix('$').ok_or(HashError::Unknown)?.split('$');
    match fields.next().unwrap_or_default() {
        "argon2id" | "argon2i" | "argon2d" => Hash::argon2(text),
        "2a" | "2b" | "2x" | "2y" => {
            let cost: u32 = number(fields.next())?;
            let rest = fields.next().unwrap_or_default();
            if rest.len() != 53 || fields.next().is_some() {
                return Err(HashError::Malformed);
            }
            bounded(cost, BCRYPT_COST_MAX).map(|()| Hash::Bcrypt(text))
        }
        "5" => crypt_rounds(text).map(|()| Hash::Sha256Crypt(text)),
        "6" => crypt_rounds(text).map(|()| Hash::Sha512Crypt(text)),
        "pbkdf2" => passlib_pbkdf2(pbkdf2::PBKDF2_HMAC_SHA1, fields),
        "pbkdf2-sha256" => passlib_pbkdf2(pbkdf2::PBKDF2_HMAC_SHA256, fields),
        "pbkdf2-sha512" => passlib_pbkdf2(pbkdf2::PBKDF2_HMAC_SHA512, fields),
        _ => Err(HashError::Unknown),
    }
}

fn bounded(cost: u32, limit: u32) -> Result<(), HashError> {
    if cost <= limit {
        Ok(())
    } else {
        Err(HashError::Costly)
    }
}

fn number(field: Option<&str>) -> Result<u32, HashError> {
    field
        .and_then(|text| text.parse().ok())
        .ok_or(HashError::Malformed)
}

/// `$5$[rounds=N$]salt$hash`
fn crypt_rounds(text: &str) -> Result<(), HashError> {
    let fields: Vec<&str> = text.split('$').skip(2).collect();
    let (salt, hash) = match fields.as_slice() {
        [rounds, salt, hash] => {
            let rounds = rounds.strip_prefix("rounds=");
            bounded(number(rounds)?, CRYPT_ROUNDS_MAX)?;
            (salt, hash)
        }
        [salt, hash] => (salt, hash),
        _ => return Err(HashError::Malformed),
    };
    let wanted = if text.starts_with("$5") { 43 } else { 86 };
    if salt.len() > 16 || hash.len() != wanted {
        return Err(HashError::Malformed);
    }
    Ok(())
}

fn salted<'a>(
    algorithm: &'static digest::Algorithm,
    text: &str,
    encoding: Option<&str>,
    with_salt: bool,
) -> Result<Hash<'a>, HashError> {
    let mut digest = match encoding {
        // Dovecot takes hexadecimal without being told when the length fits.
        None if text.len() == 2 * algorithm.output_len() && !with_salt => hex(text)?,
        Some("HEX") => hex(text)?,
        None | Some("B64" | "BASE64") => base64(text)?,
        Some(_) => return Err(HashError::Unknown),
    };
    if digest.len() < algorithm.output_len() {
        return Err(HashError::Malformed);
    }
    let salt = digest.split_off(algorithm.output_len());
    if salt.is_empty() == with_salt || salt.len() > 256 {
        return Err(HashError::Malformed);
    }
    Ok(Hash::Digest {
        algorithm,
        digest,
        salt,
    })
}

/// `$1$salt$rounds$hex`: PBKDF2-SHA1, the salt as it is written.
fn dovecot_pbkdf2<'a>(text: &str) -> Result<Hash<'a>, HashError> {
    let fields: Vec<&str> = text.split('$').collect();
    let ["", "1", salt, rounds, key] = fields.as_slice() else {
        return Err(HashError::Malformed);
    };
    pbkdf2_hash(
        pbkdf2::PBKDF2_HMAC_SHA1,
        number(Some(rounds))?,
        salt.as_bytes().to_vec(),
        hex(key)?,
    )
}

/// `$pbkdf2-sha256$rounds$salt$key` in base64 with `.` for `+` and without padding.
fn passlib_pbkdf2<'a, 'b>(
    algorithm: pbkdf2::Algorithm,
    fields: impl Iterator<Item = &'b str>,
) -> Result<Hash<'a>, HashError> {
    let fields: Vec<&str> = fields.collect();
    let [rounds, salt, key] = fields.as_slice() else {
        return Err(HashError::Malformed);
    };
    let base64 = |text: &str| base64(&text.replace('.', "+"));
    pbkdf2_hash(
        algorithm,
        number(Some(rounds))?,
        base64(salt)?,
        base64(key)?,
    )
}

fn pbkdf2_hash<'a>(
    algorithm: pbkdf2::Algorithm,
    rounds: u32,
    salt: Vec<u8>,
    key: Vec<u8>,
) -> Result<Hash<'a>, HashError> {
    bounded(rounds, PBKDF2_ROUNDS_MAX)?;
    if key.len() < 16 || key.len() > 64 {
        return Err(HashError::Malformed);
    }
    Ok(Hash::Pbkdf2 {
        algorithm,
        rounds: NonZeroU32::new(rounds).ok_or(HashError::Malformed)?,
        salt,
        key,
    })
}

/// `iterations,salt,stored key,server key`
fn dovecot_scram<'a>(text: &str) -> Result<Hash<'a>, HashError> {
    let fields: Vec<&str> = text.split(',').collect();
    let [iterations, salt, stored, server] = fields.as_slice() else {
        return Err(HashError::Malformed);
    };
    let iterations = number(Some(iterations))?;
    bounded(iterations, PBKDF2_ROUNDS_MAX)?;
    let key = |text: &str| base64(text)?.try_into().map_err(|_| HashError::Malformed);
    if iterations == 0 {
        return Err(HashError::Malformed);
    }
    Ok(Hash::Scram(scram::Keys {
        salt: base64(salt)?,
        iterations,
        stored: key(stored)?,
        server: key(server)?,
    }))
}

fn base64(text: &str) -> Result<Vec<u8>, HashError> {
    STANDARD
        .decode(text)
        .or_else(|_| STANDARD_NO_PAD.decode(text))
        .map_err(|_| HashError::Malformed)
}

fn hex(text: &str) -> Result<Vec<u8>, HashError> {
    let digit = |octet: u8| {
        (octet as char)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    text.as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect::<Option<_>>()
        .ok_or(HashError::Malformed)
}
