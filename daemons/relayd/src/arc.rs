//! ARC sets (RFC 8617) for mail that is forwarded: what our checks of its arrival found, under our seal, so that the next host can
//! believe them although the forwarding may have broken SPF.
//!
//! The checks are smtpd's. They stand in the Authentication-Results field that it put before the message; nothing is verified
//! here, and no such field but ours is believed. The signatures are keyd's.

use crate::content::each_chunk;
use crate::dkim::{CrlfLines, Signer, read_header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ipc::api::keyd::{DkimAlgorithm, DkimKey};
use mail_auth::common::crypto::{HashContext as _, HashImpl as _, Sha256};
use mail_auth::dkim::Canonicalization;
use mail_auth::dkim::canonicalize::BodyHasher;
use message::Field;
use runtime::Source;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Sets of a chain at most (RFC 8617 4.2.1).
const SETS: usize = 50;

/// What keyd signs at once.
const SIGNED_MAX: usize = 96 * 1024;

/// Fields that ARC-Message-Signature covers where they are there (RFC 8617 4.1.2: no ARC fields and no Authentication-Results).
const COVERED: &[&str] = &[
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Subject",
    "Date",
    "Message-ID",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "List-Id",
    "List-Post",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "DKIM-Signature",
];

/// The section `[relayd.arc]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sealing {
    /// Whether mail that is forwarded gets a seal. It needs an RSA key for DKIM. true.
    pub enabled: bool,
    /// The domain whose key seals; empty: the one that forwards.
    pub domain: String,
    /// By which name our own Authentication-Results fields are known; empty: `suite.hostname`.
    pub authserv_id: String,
}

impl Default for Sealing {
    fn default() -> Self {
        Self {
            enabled: true,
            domain: String::new(),
            authserv_id: String::new(),
        }
    }
}

/// Makes the sets.
pub(crate) struct Sealer {
    config: Sealing,
    authserv_id: String,
}

/// The three fields of one hop, each as it stands in the header.
#[derive(Default)]
struct Set<'a> {
    results: Vec<Field<'a>>,
    signature: Vec<Field<'a>>,
    seal: Vec<Field<'a>>,
}

/// What is known of the chain so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Validation {
    None,
    Pass,
    Fail,
}

impl Validation {
    fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pass => "pass",
            Self::Fail => "fail",
        }
    }
}

impl Sealer {
    pub(crate) fn new(config: Sealing, hostname: &str) -> Self {
        let authserv_id = match config.authserv_id.as_str() {
            "" => hostname.to_ascii_lowercase(),
            own => own.to_ascii_lowercase(),
        };
        Self {
            config,
            authserv_id,
        }
    }

    /// The set for this message, topmost field first; empty where there can be none: no key, a chain that nobody checked, one
    /// that failed before, or one that is full. `now` is in seconds since 1970. Blocks.
    ///
    /// # Errors
    /// keyd is away, or the message cannot be read: a later attempt may do better.
    pub(crate) fn seal(
        &self,
        signer: &Signer,
        sender_domain: Option<&str>,
        prefix: &[u8],
        body: &Source,
        now: u64,
    ) -> Result<Vec<u8>, String> {
        let Some(key) = self.key(signer, sender_domain, prefix)? else {
            return Ok(Vec::new());
        };
        // As it will be sent: what looks like one line here could be two there.
        let mut header = Vec::new();
        CrlfLines::default().push(&read_header(prefix, body)?, &mut header);
        let mut fields = message::Fields::new(&header);
        let all: Vec<Field<'_>> = fields.by_ref().collect();
        let rest = fields.rest();
        let length = header.len() - rest.len() + if rest.starts_with(b"\r\n") { 2 } else { 0 };
        let results = self.results(prefix);
        let found = results
            .as_deref()
            .map_or("none", |value| method(value, "arc").unwrap_or("none"));
        let Some((sets, validation)) = chain(&all, found) else {
            return Ok(Vec::new());
        };
        let instance = sets.len() + 1;
        let body_hash = BASE64.encode(hash_body(prefix, body, length)?);
        let results = results.unwrap_or_else(|| format!("{}; none", self.authserv_id));
        let results = format!("ARC-Authentication-Results: i={instance}; {results}\r\n");

        let (names, mut data) = covered(&all);
        let (domain, selector) = (&key.domain, &key.selector);
        let signature = format!(
            "ARC-Message-Signature: i={instance}; a=rsa-sha256; c=relaxed/relaxed; d={domain};\r\n\t\
             s={selector}; t={now};\r\n\th={};\r\n\tbh={body_hash};\r\n\tb=",
            names.join(":\r\n\t ")
        );
        data.extend(unended(&signature));
        let Some(signed) = sign(signer, &key, data)? else {
            return Ok(Vec::new());
        };
        let signature = signature + &signed;

        let seal = format!(
            "ARC-Seal: i={instance}; a=rsa-sha256; cv={}; d={domain};\r\n\ts={selector}; t={now};\r\n\tb=",
            validation.word()
        );
        let mut data = Vec::new();
        // RFC 8617 5.1.2: of a failed chain, the newest set alone is sealed.
        if validation != Validation::Fail {
            for set in &sets {
                for field in [&set.results, &set.signature, &set.seal]
                    .into_iter()
                    .flatten()
                {
                    data.extend(canonical(field.name, field.value));
                }
            }
        }
        data.extend(ended(&results));
        data.extend(ended(&signature));
        data.extend(unended(&seal));
        let Some(signed) = sign(signer, &key, data)? else {
            return Ok(Vec::new());
        };
        Ok([seal + &signed, signature, results].concat().into_bytes())
    }

    /// The key of the domain that forwards, as the Delivered-To field on top tells it. ARC knows RSA only.
    fn key(
        &self,
        signer: &Signer,
        sender_domain: Option<&str>,
        prefix: &[u8],
    ) -> Result<Option<DkimKey>, String> {
        let forwarder = message::Fields::new(prefix)
            .find(|field| field.name.eq_ignore_ascii_case(b"delivered-to"))
            .and_then(|field| message::first_domain(field.value));
        let domains = match self.config.domain.as_str() {
            "" => signer.signers(forwarder.as_deref(), sender_domain),
            own => vec![own.to_ascii_lowercase()],
        };
        for domain in domains {
            let keys = signer.keys(&domain)?;
            let usable = |key: &DkimKey| key.algorithm == DkimAlgorithm::Rsa2048;
            if let Some(key) = keys.into_iter().find(usable) {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    /// The value of our own Authentication-Results field. Only in the prefix it is ours for certain.
    fn results(&self, prefix: &[u8]) -> Option<String> {
        message::Fields::new(prefix)
            .filter(|field| field.name.eq_ignore_ascii_case(b"authentication-results"))
            .map(|field| String::from_utf8_lossy(field.value).trim_end().to_owned())
            .find(|value| {
                let id = value
                    .split([';', ' ', '\t', '\r'])
                    .next()
                    .unwrap_or_default();
                id.eq_ignore_ascii_case(&self.authserv_id)
            })
    }
}

/// The sets from the first to the last, and whether they hold. `None` if there can be no further one.
fn chain<'a>(fields: &[Field<'a>], found: &str) -> Option<(Vec<Set<'a>>, Validation)> {
    let mut sets: BTreeMap<usize, Set<'a>> = BTreeMap::new();
    for field in fields {
        let lower = field.name.to_ascii_lowercase();
        let known = matches!(
            lower.as_slice(),
            b"arc-seal" | b"arc-message-signature" | b"arc-authentication-results"
        );
        if !known {
            continue;
        }
        // RFC 8617 5.2: what cannot be numbered cannot be sealed over either.
        let instance = instance(field.value)?;
        let set = sets.entry(instance).or_default();
        match lower.as_slice() {
            b"arc-seal" => set.seal.push(*field),
            b"arc-message-signature" => set.signature.push(*field),
            _ => set.results.push(*field),
        }
    }
    let Some((last, newest)) = sets.last_key_value() else {
        return Some((Vec::new(), Validation::None));
    };
    // RFC 8617 5.1.1: nothing is put on top of a chain that says itself that it failed.
    let given_up = newest
        .seal
        .iter()
        .any(|field| tag(field.value, "cv").is_none_or(|cv| cv.eq_ignore_ascii_case("fail")));
    if *last >= SETS || given_up {
        return None;
    }
    let whole = sets.len() == *last
        && sets
            .values()
            .all(|set| set.results.len() == 1 && set.signature.len() == 1 && set.seal.len() == 1);
    let last = *last;
    match found {
        "pass" if whole => Some((sets.into_values().collect(), Validation::Pass)),
        // The number goes on from the highest there is.
        "fail" => Some((
            (1..=last)
                .map(|at| sets.remove(&at).unwrap_or_default())
                .collect(),
            Validation::Fail,
        )),
        // Nobody has checked it.
        _ => None,
    }
}

/// `i=`, 1 to 50; also where it stands first without more, as in ARC-Authentication-Results.
fn instance(value: &[u8]) -> Option<usize> {
    let number = tag(value, "i")?.parse().ok()?;
    (1..=SETS).contains(&number).then_some(number)
}

/// A tag's value, without white space around it.
fn tag(value: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(value);
    text.split(';').find_map(|pair| {
        let (found, value) = pair.split_once('=')?;
        (found.trim() == name).then(|| value.trim().to_owned())
    })
}

/// What Authentication-Results says of a method (RFC 8601 2.2): `pass`, `fail`, `none`.
fn method<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    let mut depth = 0_u32;
    // Comments may hold anything.
    let bare = |c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && c == ';'
    };
    value.split(bare).skip(1).find_map(|part| {
        let (found, result) = part.split_once('=')?;
        let result = result.trim_start();
        let end = result
            .find(|c: char| !c.is_ascii_alphanumeric())
            .unwrap_or(result.len());
        (found.trim().eq_ignore_ascii_case(name)).then(|| result.get(..end).unwrap_or_default())
    })
}

/// The names for `h=`, and their fields in canonical form: of a name, the last in the header comes first (RFC 6376 5.4.2). From
/// is there once more than it occurs.
fn covered(fields: &[Field<'_>]) -> (Vec<String>, Vec<u8>) {
    let mut names = Vec::new();
    let mut data = Vec::new();
    for name in COVERED {
        let same = |field: &&Field<'_>| field.name.eq_ignore_ascii_case(name.as_bytes());
        for field in fields.iter().rev().filter(same) {
            names.push((*name).to_owned());
            data.extend(canonical(field.name, field.value));
        }
    }
    names.push("From".to_owned());
    (names, data)
}

/// A field in the relaxed form (RFC 6376 3.4.2), with its CRLF.
fn canonical(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut out = name.to_ascii_lowercase();
    out.push(b':');
    let words = value
        .split(|octet| matches!(octet, b' ' | b'\t' | b'\r' | b'\n'))
        .filter(|word| !word.is_empty());
    for (number, word) in words.enumerate() {
        if number > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(word);
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// One of our own fields in canonical form.
fn ended(field: &str) -> Vec<u8> {
    let (name, value) = field.split_once(':').unwrap_or((field, ""));
    canonical(name.as_bytes(), value.as_bytes())
}

/// The same without the CRLF, as the last one is signed (RFC 6376 3.7).
fn unended(field: &str) -> Vec<u8> {
    let mut out = ended(field);
    out.truncate(out.len().saturating_sub(2));
    out
}

/// The signature in base64 lines with the field's end; `None` if it is too much to sign.
fn sign(signer: &Signer, key: &DkimKey, data: Vec<u8>) -> Result<Option<String>, String> {
    if data.len() > SIGNED_MAX {
        return Ok(None);
    }
    let text = BASE64.encode(signer.sign_octets(key, data)?);
    let mut lines = String::with_capacity(text.len() + text.len() / 16 + 2);
    for (number, letter) in text.chars().enumerate() {
        if number > 0 && number % 72 == 0 {
            lines.push_str("\r\n\t");
        }
        lines.push(letter);
    }
    lines.push_str("\r\n");
    Ok(Some(lines))
}

/// The hash of what stands behind the header, whose length is given as it is sent, in the relaxed form (RFC 6376 3.4.4).
fn hash_body(prefix: &[u8], body: &Source, header: usize) -> Result<Vec<u8>, String> {
    let mut hasher = BodyHasher::new(Sha256::hasher(), Canonicalization::Relaxed, 0);
    let mut lines = CrlfLines::default();
    let (mut clean, mut skip) = (Vec::new(), header);
    let mut feed = |chunk: &[u8]| {
        clean.clear();
        lines.push(chunk, &mut clean);
        let left_out = skip.min(clean.len());
        skip -= left_out;
        hasher.write(clean.get(left_out..).unwrap_or_default());
    };
    feed(prefix);
    each_chunk(body, &mut feed)?;
    Ok(hasher.finish().0.complete().as_ref().to_vec())
}

#[cfg(test)]
#[path = "tests/sealing.rs"]
mod tests;
