#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;
use crate::{Config, Keys};
use ipc::api::keyd::{CertificateInstall, CertificateRemove, CertificateRequest, TlsSign};
use rcgen::{BasicConstraints, DnType, IsCa, Issuer};
use std::time::Duration;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};

const NOW: u64 = 1_800_000_000;
const DAY: u64 = 86_400;

/// An authority that signs what it is asked for.
struct Authority {
    certificate: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        Self {
            certificate,
            issuer,
        }
    }

    /// For the names and the key of a request, whose signature is good.
    fn sign(&self, csr: &[u8], from: u64, to: u64) -> String {
        let (_, request) = X509CertificationRequest::from_der(csr).unwrap();
        let spki = &request.certification_request_info.subject_pki;
        let names = request
            .requested_extensions()
            .unwrap()
            .find_map(|extension| match extension {
                ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
                _ => None,
            });
        let names = names.unwrap().iter().map(|name| match name {
            GeneralName::DNSName(name) => (*name).to_owned(),
            other => panic!("{other:?}"),
        });
        let mut params = CertificateParams::new(names.collect::<Vec<_>>()).unwrap();
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(from);
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(to);
        let algorithms = [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_RSA_SHA256,
        ];
        let key = algorithms
            .map(|algorithm| Public(spki.subject_public_key.data.to_vec(), algorithm))
            .into_iter()
            .find(|key| key.subject_public_key_info() == spki.raw)
            .unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        format!("{}{}", leaf.pem(), self.certificate.pem())
    }
}

/// A public key of a request.
struct Public(Vec<u8>, &'static rcgen::SignatureAlgorithm);

impl PublicKeyData for Public {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.1
    }
}

fn request(id: &str, names: &[&str]) -> CertificateRequest {
    CertificateRequest {
        id: id.to_owned(),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        algorithm: CertificateAlgorithm::EcdsaP256,
    }
}

fn install(id: &str, chain: &str) -> CertificateInstall {
    CertificateInstall {
        id: id.to_owned(),
        chain: chain.to_owned(),
    }
}

fn open(state: &Path) -> Keys {
    Keys::open(state, "mx.example.org", Config::default(), NOW).unwrap()
}

#[test]
fn a_certificate_is_asked_for_taken_used_and_removed() {
    let state = tempfile::tempdir().unwrap();
    let keys = open(state.path());
    let authority = Authority::new("Test CA");
    assert!(keys.certificates()[0].self_signed);
    let wanted = request("mx.example.org", &["MX.example.org", "*.example.org"]);
    let first = keys.certificate_request(&wanted).unwrap();
    // The same key while none has come, also after a restart.
    let keys = open(state.path());
    let again = keys.certificate_request(&wanted).unwrap();
    assert_eq!(again.key_digest, first.key_digest);
    let chain = authority.sign(&again.csr, NOW - 60, NOW + 90 * DAY);
    let taken = keys
        .certificate_install(&install("mx.example.org", &chain), NOW)
        .unwrap();
    assert_eq!(taken.names, ["mx.example.org", "*.example.org"]);
    assert_eq!((taken.begins, taken.expires), (NOW - 60, NOW + 90 * DAY));
    // An answer that was lost does no harm.
    let twice = keys.certificate_install(&install("mx.example.org", &chain), NOW);
    assert_eq!(twice.unwrap(), taken);
    let keys = open(state.path());
    let list = keys.certificates();
    assert_eq!(list.len(), 1);
    assert!(!list[0].self_signed);
    assert_eq!(list[0].chain.len(), 2);
    assert_eq!(keys.issued_certificates(), [taken]);
    let signing = TlsSign {
        key: list[0].key,
        scheme: list[0].schemes[0],
        message: b"transcript".as_slice().into(),
    };
    keys.tls_sign(&signing).unwrap();
    // A renewal has another key, and the old one still ends its handshakes.
    let second = keys.certificate_request(&wanted).unwrap();
    assert_ne!(second.key_digest, first.key_digest);
    let chain = authority.sign(&second.csr, NOW, NOW + 90 * DAY);
    keys.certificate_install(&install("mx.example.org", &chain), NOW)
        .unwrap();
    assert_ne!(keys.certificates()[0].key, signing.key);
    keys.tls_sign(&signing).unwrap();
    keys.certificate_remove(
        &CertificateRemove {
            id: "mx.example.org".to_owned(),
        },
        NOW,
    )
    .unwrap();
    assert!(keys.certificates()[0].self_signed);
    assert!(!state.path().join("issued/mx.example.org").exists());
}

#[test]
fn chains_that_do_not_fit_change_nothing() {
    let state = tempfile::tempdir().unwrap();
    let keys = open(state.path());
    let (authority, other) = (Authority::new("Test CA"), Authority::new("Other CA"));
    let wanted = request("a.example.org", &["a.example.org", "b.example.org"]);
    let asked = keys.certificate_request(&wanted).unwrap();
    let sign = |from, to| authority.sign(&asked.csr, from, to);
    let good = sign(NOW, NOW + DAY);
    let leaf = good.split_inclusive("-----END CERTIFICATE-----\n").next();
    let leaf = leaf.unwrap();
    let foreign = {
        let elsewhere = tempfile::tempdir().unwrap();
        let csr = open(elsewhere.path()).certificate_request(&wanted).unwrap();
        authority.sign(&csr.csr, NOW, NOW + DAY)
    };
    let fewer = {
        let pending = Pending::from_file(
            "a.example.org",
            &fs::read(state.path().join("issued/a.example.org/pending.pem")).unwrap(),
        );
        let mut pending = pending.unwrap();
        pending.names.pop();
        authority.sign(&pending.request().unwrap().csr, NOW, NOW + DAY)
    };
    for (chain, why) in [
        ("nonsense".to_owned(), "no PEM certificate"),
        (foreign, "does not belong"),
        (fewer, "not for b.example.org"),
        (sign(NOW + 2 * DAY, NOW + 3 * DAY), "not valid yet"),
        (sign(NOW - 2 * DAY, NOW - DAY), "expired"),
        (
            format!("{leaf}{}", other.certificate.pem()),
            "does not certify",
        ),
        (format!("{leaf}{leaf}"), "not in their order"),
    ] {
        let error = keys
            .certificate_install(&install("a.example.org", &chain), NOW)
            .unwrap_err();
        assert!(error.to_string().contains(why), "{error} instead of {why}");
        assert!(keys.certificates()[0].self_signed);
    }
    keys.certificate_install(&install("a.example.org", leaf), NOW)
        .unwrap();
    let error = keys.certificate_install(&install("c.example.org", &good), NOW);
    assert!(matches!(error, Err(KeyError::NotFound)));
}

#[test]
fn names_are_checked_and_the_number_is_bounded() {
    let state = tempfile::tempdir().unwrap();
    let config = Config {
        issued_certificates: 2,
        ..Config::default()
    };
    let keys = Keys::open(state.path(), "mx.example.org", config, NOW).unwrap();
    for (id, names) in [
        ("../x", &["a.example.org"][..]),
        ("", &["a.example.org"]),
        ("a/b", &["a.example.org"]),
        ("a", &[]),
        ("a", &["not a name"]),
        ("a", &["[192.0.2.1]"]),
        ("a", &["*.*.example.org"]),
    ] {
        let made = keys.certificate_request(&request(id, names));
        assert!(matches!(made, Err(KeyError::Invalid(_))), "{id} {names:?}");
    }
    for id in ["a.example.org", "b.example.org", "a.example.org"] {
        keys.certificate_request(&request(id, &[id])).unwrap();
    }
    let made = keys.certificate_request(&request("c.example.org", &["c.example.org"]));
    assert!(matches!(made, Err(KeyError::TooManyIssued(2))));
}

#[test]
fn every_algorithm_gives_a_request_and_another_key_when_it_changes() {
    let state = tempfile::tempdir().unwrap();
    let keys = open(state.path());
    let authority = Authority::new("Test CA");
    let mut digests = Vec::new();
    for algorithm in [
        CertificateAlgorithm::EcdsaP256,
        CertificateAlgorithm::EcdsaP384,
        CertificateAlgorithm::Rsa2048,
    ] {
        let mut wanted = request("a.example.org", &["a.example.org"]);
        wanted.algorithm = algorithm;
        let asked = keys.certificate_request(&wanted).unwrap();
        assert!(!digests.contains(&asked.key_digest));
        digests.push(asked.key_digest);
        let again = keys.certificate_request(&wanted).unwrap();
        assert_eq!(digests.last(), Some(&again.key_digest));
        authority.sign(&again.csr, NOW, NOW + DAY);
    }
    let chain = {
        let mut wanted = request("a.example.org", &["a.example.org"]);
        wanted.algorithm = CertificateAlgorithm::Rsa2048;
        let asked = keys.certificate_request(&wanted).unwrap();
        authority.sign(&asked.csr, NOW, NOW + DAY)
    };
    keys.certificate_install(&install("a.example.org", &chain), NOW)
        .unwrap();
    assert_eq!(keys.certificates()[0].schemes.len(), 6);
}
