//! DKIM signatures (RFC 6376, RFC 8463) for mail of local senders. The private keys are keyd's: this end makes the hash of
//! the body and the octets to be signed, and asks keyd for the signature.

use crate::content::{CHUNK, each_chunk, unreadable};
use crate::signing::{Plan, Signing};
use ipc::api::keyd::{DkimAlgorithm, DkimKey, DkimState};
use mail_auth::Error;
use mail_auth::common::crypto::{Algorithm, CryptoError, Sha256, SigningKey};
use mail_auth::common::headers::{HeaderWriter as _, Writable};
use mail_auth::dkim::{DkimSigner, DkimSigningStream};
use runtime::Source;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What keyd does for us. Both calls block.
pub(crate) trait KeyService: Send + Sync {
    fn keys(&self, domain: &str) -> Result<Vec<DkimKey>, String>;
    fn sign(&self, domain: &str, selector: &str, data: Vec<u8>) -> Result<Vec<u8>, String>;
}

/// Octets of a header that are looked at.
const HEADER_MAX: u64 = 256 * 1024;

/// How long it is remembered that a domain has no keys.
const NO_KEYS: Duration = Duration::from_secs(2);

/// Signs with the keys of a domain, whose list is remembered for a while.
pub(crate) struct Signer {
    service: Arc<dyn KeyService>,
    remember: Duration,
    signing: Signing,
    known: Mutex<HashMap<String, (Instant, Vec<DkimKey>)>>,
}

impl Signer {
    pub(crate) fn new(service: Arc<dyn KeyService>, remember: Duration, signing: Signing) -> Self {
        Self {
            service,
            remember,
            signing,
            known: Mutex::default(),
        }
    }

    /// The DKIM-Signature fields for this message, each with its line end; empty if no domain of it has keys here. `author`:
    /// whether From's domain may sign; if not, the sender's does, which answers for its own part alone (a mailing list). Blocks.
    ///
    /// # Errors
    /// Why it could not be signed although there are keys, or why that is not known: a later attempt may do better.
    pub(crate) fn sign(
        &self,
        sender_domain: Option<&str>,
        prefix: &[u8],
        body: &Source,
        author: bool,
    ) -> Result<Vec<u8>, String> {
        let header = read_header(prefix, body)?;
        let from = message::Fields::new(&header)
            .find(|field| field.name.eq_ignore_ascii_case(b"from"))
            .and_then(|field| message::first_domain(field.value))
            .filter(|_| author);
        for domain in self.signing.signers(from.as_deref(), sender_domain) {
            let keys = self.keys(&domain)?;
            if !keys.is_empty() {
                let plan = self.signing.plan(from.as_deref());
                return self.sign_with(&keys, &plan, &header, prefix, body);
            }
        }
        Ok(Vec::new())
    }

    /// [`Signing::signers`].
    pub(crate) fn signers(&self, domain: Option<&str>, sender: Option<&str>) -> Vec<String> {
        self.signing.signers(domain, sender)
    }

    /// Has keyd sign octets.
    pub(crate) fn sign_octets(&self, key: &DkimKey, data: Vec<u8>) -> Result<Vec<u8>, String> {
        self.service.sign(&key.domain, &key.selector, data)
    }

    /// The keys of a domain that are in use.
    pub(crate) fn keys(&self, domain: &str) -> Result<Vec<DkimKey>, String> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, keys)) = known().get(domain) {
            // Whoever makes a domain's first key expects the next mail to be signed.
            let limit = if keys.is_empty() {
                NO_KEYS
            } else {
                self.remember
            };
            if when.elapsed() < limit.min(self.remember) {
                return Ok(keys.clone());
            }
        }
        let mut keys = self.service.keys(domain)?;
        keys.retain(|key| key.state == DkimState::Active);
        let mut list = known();
        if list.len() >= 10_000 {
            list.clear();
        }
        list.insert(domain.to_owned(), (Instant::now(), keys.clone()));
        Ok(keys)
    }

    fn sign_with(
        &self,
        keys: &[DkimKey],
        plan: &Plan,
        header: &[u8],
        prefix: &[u8],
        body: &Source,
    ) -> Result<Vec<u8>, String> {
        let fields = covered(plan, header);
        let (of_header, of_body) = plan.form.both();
        let signers: Vec<_> = keys
            .iter()
            .map(|key| {
                DkimSigner::from_key(RemoteKey {
                    key: key.clone(),
                    service: self.service.clone(),
                })
                .domain(&key.domain)
                .selector(&key.selector)
                .headers(fields.iter().cloned())
                .header_canonicalization(of_header)
                .body_canonicalization(of_body)
                .expiration(plan.expiry)
            })
            .collect();
        let mut streams: Vec<DkimSigningStream<'_, RemoteKey>> =
            signers.iter().map(DkimSigner::sign_streaming).collect();
        let mut lines = CrlfLines::default();
        let mut clean = Vec::new();
        let mut feed = |chunk: &[u8]| {
            clean.clear();
            lines.push(chunk, &mut clean);
            for stream in &mut streams {
                stream.write(&clean);
            }
        };
        feed(prefix);
        each_chunk(body, &mut feed)?;
        let mut out = Vec::new();
        for stream in streams {
            let signature = stream.finish().map_err(|error| match error {
                Error::Crypto(CryptoError::Library(text)) => text,
                other => other.to_string(),
            })?;
            let start = out.len();
            signature.write_header(&mut out);
            unfold_end(&mut out, start);
        }
        Ok(out)
    }
}

/// A fold between the signature and the last semicolon is no part of what some verifiers take out before they hash the field
/// (RFC 6376 3.7 says all of the white space around it): there is none.
fn unfold_end(out: &mut Vec<u8>, start: usize) {
    let field = out.get(start..).unwrap_or_default();
    if let Some(head) = field.strip_suffix(b"\r\n\t;\r\n") {
        let end = start + head.len();
        out.truncate(end);
        out.extend_from_slice(b";\r\n");
    }
}

/// The names in `h=`. A name that stands there twice is signed once more than it occurs.
fn covered(plan: &Plan, header: &[u8]) -> Vec<String> {
    let mut fields = vec!["From".to_owned(), "From".to_owned()];
    let known =
        |fields: &[String], name: &str| fields.iter().any(|one| one.eq_ignore_ascii_case(name));
    let there = |name: &str| {
        message::Fields::new(header).any(|field| field.name.eq_ignore_ascii_case(name.as_bytes()))
    };
    for name in &plan.oversigned {
        if !known(&fields, name) {
            fields.push(name.clone());
            if there(name) {
                fields.push(name.clone());
            }
        }
    }
    for name in &plan.headers {
        if !known(&fields, name) && there(name) {
            fields.push(name.clone());
        }
    }
    fields
}

/// The header, and perhaps some octets of what stands behind it.
pub(crate) fn read_header(prefix: &[u8], body: &Source) -> Result<Vec<u8>, String> {
    let mut header = prefix.to_vec();
    let mut offset = 0;
    while offset < body.len().min(HEADER_MAX) {
        let chunk = body.read(offset, CHUNK).map_err(unreadable)?;
        offset += chunk.len() as u64;
        header.extend_from_slice(&chunk);
        let mut fields = message::Fields::new(&header);
        fields.by_ref().for_each(drop);
        if !fields.rest().is_empty() {
            break;
        }
    }
    Ok(header)
}

/// A key that is in keyd.
struct RemoteKey {
    key: DkimKey,
    service: Arc<dyn KeyService>,
}

impl SigningKey for RemoteKey {
    type Hasher = Sha256;

    fn sign(&self, input: impl Writable) -> mail_auth::Result<Vec<u8>> {
        let mut data = Vec::with_capacity(2048);
        input.write(&mut data);
        self.service
            .sign(&self.key.domain, &self.key.selector, data)
            .map_err(|text| Error::Crypto(CryptoError::Library(text)))
    }

    fn algorithm(&self) -> Algorithm {
        match self.key.algorithm {
            DkimAlgorithm::Rsa2048 => Algorithm::RsaSha256,
            DkimAlgorithm::Ed25519 => Algorithm::Ed25519Sha256,
        }
    }
}

/// Makes every line end CRLF, as sending does: what is signed must be what is sent.
#[derive(Default)]
pub(crate) struct CrlfLines {
    held_cr: bool,
}

impl CrlfLines {
    pub(crate) fn push(&mut self, input: &[u8], out: &mut Vec<u8>) {
        for byte in input {
            let after_cr = std::mem::replace(&mut self.held_cr, *byte == b'\r');
            match byte {
                b'\r' => out.extend_from_slice(b"\r\n"),
                b'\n' if after_cr => {}
                b'\n' => out.extend_from_slice(b"\r\n"),
                other => out.push(*other),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_ends_in_its_line() {
        for (written, wanted) in [
            (
                "X: y\r\n\t;\r\nD: b=AA==\r\n\t;\r\n",
                "X: y\r\n\t;\r\nD: b=AA==;\r\n",
            ),
            ("D: b=AA==;\r\n", "D: b=AA==;\r\n"),
            ("", ""),
        ] {
            let mut out = written.as_bytes().to_vec();
            unfold_end(&mut out, written.find("D:").unwrap_or(0));
            assert_eq!(out, wanted.as_bytes());
        }
    }
}
