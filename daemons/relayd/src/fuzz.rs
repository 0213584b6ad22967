//! Entry points for fuzzers: each takes any octets, and panics only if a promise is broken.

use crate::arc::{Sealer, Sealing};
use crate::dkim::{KeyService, Signer};
use crate::signing::Signing;
use crate::sts;
use ipc::api::keyd::{DkimAlgorithm, DkimKey, DkimState};
use runtime::Source;
use std::sync::Arc;
use std::time::Duration;

/// keyd with a key for every domain.
struct Keys;

impl KeyService for Keys {
    fn keys(&self, domain: &str) -> Result<Vec<DkimKey>, String> {
        Ok(vec![DkimKey {
            domain: domain.to_owned(),
            selector: "s".to_owned(),
            algorithm: DkimAlgorithm::Rsa2048,
            record: String::new(),
            state: DkimState::Active,
        }])
    }

    fn sign(&self, _: &str, _: &str, _: Vec<u8>) -> Result<Vec<u8>, String> {
        Ok(vec![7; 256])
    }
}

/// Messages as they come, with chains of seals that somebody made: what is put on top is one set, and no line of it is one of
/// the message's.
pub fn sealing(octets: &[u8]) {
    let signer = Signer::new(Arc::new(Keys), Duration::from_secs(60), Signing::default());
    let sealer = Sealer::new(Sealing::default(), "mx.example.org");
    let body = Source::from(octets.to_vec());
    for found in ["pass", "fail", "none"] {
        let prefix = format!(
            "Delivered-To: a@example.org\r\nAuthentication-Results: mx.example.org; arc={found}\r\n"
        );
        let sealed = sealer.seal(&signer, None, prefix.as_bytes(), &body, 1);
        let set = String::from_utf8(sealed.unwrap_or_default()).unwrap_or_default();
        let fields: Vec<&str> = set
            .split_inclusive("\r\n")
            .filter(|line| !line.starts_with(['\t', ' ']))
            .collect();
        assert!(set.is_empty() || fields.len() == 3, "{set}");
        assert!(fields.iter().all(|line| line.starts_with("ARC-")), "{set}");
        assert!(set.lines().all(|line| line.len() <= 998), "{set}");
    }
    let _ = signer.sign(Some("example.org"), b"", &body, true);
}

/// Policies of MTA-STS: what is taken names hosts that could be, and no host that it does not name passes.
pub fn sts_policy(octets: &[u8]) {
    let Ok(policy) = sts::Policy::parse(octets) else {
        return;
    };
    assert!(policy.mode == sts::Mode::None || !policy.mx.is_empty());
    assert!(!policy.names("") && !policy.names("."));
    for pattern in &policy.mx {
        let name = pattern.strip_prefix("*.").unwrap_or(pattern);
        assert!(pattern != name || policy.names(name), "{name}");
        assert!(policy.names(&pattern.replacen('*', "x", 1)), "{pattern}");
    }
}

/// TXT records at `_mta-sts`, one a line: an id is what may stand in a log.
pub fn sts_record(octets: &[u8]) {
    if let Some(id) = sts::id(octets.split(|octet| *octet == b'\n')) {
        assert!((1..=32).contains(&id.len()) && id.bytes().all(|c| c.is_ascii_alphanumeric()));
    }
}
