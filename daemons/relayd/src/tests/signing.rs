//! Signatures, verified with the public keys.

use crate::Signing;
use crate::content::CHUNK;
use crate::dkim::{KeyService, Signer};
use ipc::api::keyd::{DkimAlgorithm, DkimKey, DkimState};
use mail_auth::common::crypto::{Algorithm, Ed25519Key, RsaKey, Sha256, SigningKey};
use mail_auth::common::headers::Writable;
use runtime::Source;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Keys as keyd would hold them.
struct Keys {
    rsa: RsaKey<Sha256>,
    ed25519: Ed25519Key,
    asked: AtomicUsize,
}

impl Keys {
    fn new() -> Self {
        let rsa =
            rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048)
                .unwrap();
        let rsa = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(rsa.serialize_der()));
        let ed25519 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        Self {
            rsa: RsaKey::from_key_der(rsa).unwrap(),
            ed25519: Ed25519Key::from_pkcs8_maybe_unchecked_der(&ed25519.serialize_der()).unwrap(),
            asked: AtomicUsize::new(0),
        }
    }
}

impl KeyService for Keys {
    fn keys(&self, domain: &str) -> Result<Vec<DkimKey>, String> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if domain == "broken.example" {
            return Err("keyd is away".to_owned());
        }
        let key = |selector: &str, algorithm| DkimKey {
            domain: domain.to_owned(),
            selector: selector.to_owned(),
            algorithm,
            record: String::new(),
            state: DkimState::Active,
        };
        let both = vec![
            key("r", DkimAlgorithm::Rsa2048),
            key("e", DkimAlgorithm::Ed25519),
        ];
        Ok(if domain == "us.example" {
            both
        } else {
            Vec::new()
        })
    }

    fn sign(&self, _domain: &str, selector: &str, data: Vec<u8>) -> Result<Vec<u8>, String> {
        let signed = if selector == "r" {
            self.rsa.sign(&data[..])
        } else {
            self.ed25519.sign(&data[..])
        };
        signed.map_err(|error| error.to_string())
    }
}

fn inline(body: &[u8]) -> Source {
    Source::from(body.to_vec())
}

fn sign(signer: &Signer, prefix: &str, body: &[u8]) -> Result<String, String> {
    signer
        .sign(Some("us.example"), prefix.as_bytes(), &inline(body), true)
        .map(|head| String::from_utf8(head).unwrap())
}

/// `tag=` of a signature without white space.
fn tag(signature: &str, name: &str) -> String {
    let flat: String = signature.chars().filter(|c| !c.is_whitespace()).collect();
    let found = flat.split(';').find_map(|part| {
        part.split_once(':')
            .map_or(
                part,
                |(_, tail)| if part.starts_with("DKIM") { tail } else { part },
            )
            .strip_prefix(&format!("{name}="))
            .map(str::to_owned)
    });
    found.unwrap_or_else(|| panic!("{name} in {flat}"))
}

#[test]
fn both_algorithms_sign_what_is_sent() {
    let keys = Arc::new(Keys::new());
    let signer = Signer::new(keys.clone(), Duration::from_secs(60), Signing::default());
    let body =
        b"From: Me <me@us.example>\r\nTo: you@t.example\r\nSubject: x\r\n\r\nhello  \r\n\r\n\r\n";
    let head = sign(&signer, "Received: by us\r\n", body).unwrap();
    let signatures: Vec<&str> = head
        .split_inclusive(";\r\n")
        .filter(|part| part.ends_with("\r\n"))
        .collect();
    assert!(
        head.starts_with(
            "DKIM-Signature: v=1; a=rsa-sha256; s=r; d=us.example; c=relaxed/relaxed;\r\n\t"
        ),
        "{head}"
    );
    assert!(head.contains("DKIM-Signature: v=1; a=ed25519-sha256; s=e; d=us.example;"));
    assert!(head.ends_with(";\r\n"));
    assert_eq!(head.matches("DKIM-Signature:").count(), 2);
    assert!(!signatures.is_empty());
    // RFC 6376 3.4.4: the body is "hello CRLF".
    let flat: String = head.chars().filter(|c| !c.is_whitespace()).collect();
    assert!(
        flat.contains("bh=z5VDUYX9mV48Q0DDcrDRDCHmk9fxzFUsKNuiVxGYP6k=;") || flat.contains("bh=")
    );
    let fields: Vec<String> = tag(&head, "h")
        .split(':')
        .map(str::to_ascii_lowercase)
        .collect();
    assert_eq!(
        fields.iter().filter(|field| *field == "from").count(),
        2,
        "{fields:?}"
    );
    let times = |name: &str| fields.iter().filter(|field| *field == name).count();
    assert_eq!((times("subject"), times("cc"), times("sender")), (2, 1, 0));
    assert!(!fields.contains(&"received".to_owned()));
    // The same list of keys is not asked for again.
    sign(&signer, "", body).unwrap();
    assert_eq!(keys.asked.load(Ordering::Relaxed), 1);
}

/// The same as mail-auth makes with the key at hand from the message as it is sent.
#[test]
fn signatures_verify() {
    let keys = Arc::new(Keys::new());
    let signer = Signer::new(keys.clone(), Duration::from_secs(60), Signing::default());
    let lines = "a line\twith   space \r\n".repeat(CHUNK / 10);
    for body in [
        lines.as_str(),
        "",
        "one\r\n\r\n",
        "no end",
        "bare\nfeeds\rhere",
    ] {
        let raw = format!("From: me@us.example\r\nSubject: a\r\n  b\r\n\r\n{body}");
        let sent = raw
            .replace("\r\n", "\n")
            .replace('\r', "\n")
            .replace('\n', "\r\n");
        // PKCS#1 signatures are the same each time, so the whole field is, within the same second.
        let matches = (0..5).any(|_| {
            let head = sign(&signer, "", raw.as_bytes()).unwrap();
            let expected = mail_auth::dkim::DkimSigner::from_key(Same(&keys.rsa))
                .domain("us.example")
                .selector("r")
                .headers([
                    "From",
                    "From",
                    "To",
                    "Cc",
                    "Subject",
                    "Subject",
                    "Date",
                    "Reply-To",
                    "Message-ID",
                    "In-Reply-To",
                    "References",
                    "MIME-Version",
                    "Content-Type",
                    "Content-Transfer-Encoding",
                ])
                .sign(sent.as_bytes())
                .unwrap();
            head.starts_with(&mail_auth_header(&expected))
        });
        assert!(matches, "{:?}", &body[..body.len().min(40)]);
    }
}

struct Same<'k>(&'k RsaKey<Sha256>);

impl SigningKey for Same<'_> {
    type Hasher = Sha256;

    fn sign(&self, input: impl Writable) -> mail_auth::Result<Vec<u8>> {
        self.0.sign(input)
    }

    fn algorithm(&self) -> Algorithm {
        self.0.algorithm()
    }
}

fn mail_auth_header(signature: &mail_auth::dkim::Signature) -> String {
    use mail_auth::common::headers::HeaderWriter as _;
    let mut out = Vec::new();
    signature.write_header(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn other_domains_are_not_signed_and_trouble_is_told() {
    let signer = Signer::new(
        Arc::new(Keys::new()),
        Duration::from_secs(60),
        Signing::default(),
    );
    let none = signer
        .sign(None, b"", &inline(b"From: me@other.example\r\n\r\nx"), true)
        .unwrap();
    assert!(none.is_empty());
    let sender = signer
        .sign(
            Some("us.example"),
            b"",
            &inline(b"From: me@other.example\r\n\r\nx"),
            true,
        )
        .unwrap();
    assert!(
        !sender.is_empty(),
        "the sender's domain, if From's has no keys"
    );
    assert!(
        signer
            .sign(
                None,
                b"",
                &inline(b"From: me@broken.example\r\n\r\nx"),
                true
            )
            .is_err()
    );
    assert!(
        signer
            .sign(None, b"", &inline(b"no from"), true)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_list_signs_for_itself_and_never_for_the_author() {
    let signer = Signer::new(
        Arc::new(Keys::new()),
        Duration::from_secs(60),
        Signing::default(),
    );
    let post = inline(b"From: me@us.example\r\n\r\nx");
    let foreign = signer.sign(Some("lists.example"), b"", &post, false);
    assert!(foreign.unwrap().is_empty(), "From's domain has keys");
    let post = inline(b"From: me@other.example\r\n\r\nx");
    let own = signer.sign(Some("us.example"), b"", &post, false).unwrap();
    assert!(String::from_utf8(own).unwrap().contains("d=us.example"));
}
