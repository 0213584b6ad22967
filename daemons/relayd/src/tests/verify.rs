//! Certificates against what is demanded of them, without a connection.

use crate::result::ResultType;
use crate::tlsa::Tlsa;
use crate::verify::{Check, Verifier};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::RootCertStore;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use std::time::Duration;

/// Seconds of 2030, when all that is not made to be old is valid.
const NOW: u64 = 1_900_000_000;

struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, "an authority");
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().der().clone();
    Authority {
        certificate,
        issuer: Issuer::new(params, key),
    }
}

impl Authority {
    fn host(&self, name: &str, old: bool) -> CertificateDer<'static> {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        if old {
            params.not_before = rcgen::date_time_ymd(2019, 1, 1);
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let made = params.signed_by(&key, &self.issuer).unwrap();
        made.der().clone()
    }
}

fn key(certificate: &CertificateDer<'_>) -> Vec<u8> {
    webpki::EndEntityCert::try_from(certificate)
        .unwrap()
        .subject_public_key_info()
        .to_vec()
}

fn tlsa(usage: u8, selector: u8, matching: u8, certificate: &CertificateDer<'_>) -> Tlsa {
    let selected = if selector == 0 {
        certificate.to_vec()
    } else {
        key(certificate)
    };
    Tlsa {
        usage,
        selector,
        matching,
        data: match matching {
            0 => selected,
            _ => Sha256::digest(selected).to_vec(),
        },
    }
}

fn judged(
    check: Check,
    roots: &[&CertificateDer<'static>],
    shown: &[&CertificateDer<'static>],
) -> Option<ResultType> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add((*root).clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Verifier::new(provider, check, Arc::new(store), false);
    let above: Vec<_> = shown[1..].iter().map(|one| (*one).clone()).collect();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW));
    let name = ServerName::try_from("unused.example").unwrap();
    let passed = verifier
        .verify_server_cert(shown[0], &above, &name, &[], now)
        .is_ok();
    let found = verifier.found().map(|problem| problem.kind);
    assert_eq!(passed, found.is_none());
    found
}

fn dane(records: Vec<Tlsa>) -> Check {
    Check::Dane {
        records,
        names: vec!["mx.example".to_owned(), "t.example".to_owned()],
    }
}

#[test]
fn the_hosts_own_certificate_needs_neither_name_nor_date() {
    let (ca, other) = (authority(), authority());
    let old = ca.host("elsewhere.example", true);
    for (selector, matching) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let record = tlsa(3, selector, matching, &old);
        assert_eq!(judged(dane(vec![record.clone()]), &[], &[&old]), None);
        // RFC 7671 8.1: one of several is enough.
        let both = vec![tlsa(3, 1, 1, &other.certificate), record.clone()];
        assert_eq!(judged(dane(both), &[], &[&old]), None);
        let stranger = ca.host("mx.example", false);
        assert_eq!(
            judged(
                dane(vec![record]),
                &[&ca.certificate],
                &[&stranger, &ca.certificate]
            ),
            Some(ResultType::TlsaInvalid),
            "a well known authority is of no use here"
        );
    }
    // A record of an authority does not fit the host's own certificate.
    let own = dane(vec![tlsa(2, 1, 1, &old)]);
    assert_eq!(judged(own, &[], &[&old]), Some(ResultType::TlsaInvalid));
}

#[test]
fn an_authority_vouches_by_chain_name_and_date() {
    let (ca, other) = (authority(), authority());
    let host = ca.host("mx.example", false);
    let next_hop = ca.host("t.example", false);
    let (elsewhere, old) = (ca.host("x.example", false), ca.host("mx.example", true));
    for (selector, matching) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let check = || dane(vec![tlsa(2, selector, matching, &ca.certificate)]);
        let shown = |leaf| judged(check(), &[], &[leaf, &ca.certificate]);
        assert_eq!(shown(&host), None, "{selector} {matching}");
        assert_eq!(shown(&next_hop), None);
        assert_eq!(shown(&elsewhere), Some(ResultType::CertificateHostMismatch));
        assert_eq!(shown(&old), Some(ResultType::CertificateExpired));
        // RFC 7671 5.2.2, 5.2.3: the host may leave it out only if all of it is in DNS.
        let alone = judged(check(), &[], &[&host]);
        let expected = (matching != 0).then_some(ResultType::TlsaInvalid);
        assert_eq!(alone, expected, "{selector} {matching}");
        // Sent along, and not the one that issued it.
        let forged = other.host("mx.example", false);
        let forged = judged(check(), &[], &[&forged, &ca.certificate]);
        assert!(
            matches!(
                forged,
                Some(ResultType::CertificateNotTrusted | ResultType::TlsaInvalid)
            ),
            "{forged:?}"
        );
    }
}

#[test]
fn well_known_authorities_and_names() {
    let (ca, other) = (authority(), authority());
    let check = |names: &[&str]| Check::Names(names.iter().map(|n| (*n).to_owned()).collect());
    let host = ca.host("mx.t.example", false);
    let by = |root: &Authority, names: &[&str], leaf: &CertificateDer<'static>| {
        judged(check(names), &[&root.certificate], &[leaf, &ca.certificate])
    };
    assert_eq!(by(&ca, &["mx.t.example"], &host), None);
    assert_eq!(by(&ca, &["t.example", ".t.example"], &host), None);
    let mismatch = Some(ResultType::CertificateHostMismatch);
    assert_eq!(by(&ca, &["t.example"], &host), mismatch);
    assert_eq!(by(&ca, &[".mx.t.example"], &host), mismatch);
    let wild = ca.host("*.t.example", false);
    assert_eq!(by(&ca, &["mx.t.example"], &wild), None);
    assert_eq!(by(&ca, &["a.mx.t.example"], &wild), mismatch);
    assert_eq!(
        by(&other, &["mx.t.example"], &host),
        Some(ResultType::CertificateNotTrusted)
    );
    let old = ca.host("mx.t.example", true);
    assert_eq!(
        by(&ca, &["mx.t.example"], &old),
        Some(ResultType::CertificateExpired)
    );
    assert_eq!(judged(Check::Nothing, &[], &[&old]), None);
}
