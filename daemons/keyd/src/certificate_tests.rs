#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256};
use rustls::DigitallySignedStruct;
use rustls::client::danger::ServerCertVerifier;
use std::fs;

const NOW: u64 = 1_800_000_000;
const DAY: u64 = 86_400;

/// Checks a signature as a TLS 1.3 client does. `DigitallySignedStruct` is only made by decoding.
fn verify(certificate: &Certificate, scheme: u16, message: &[u8], signature: &[u8]) -> bool {
    use rustls::internal::msgs::codec::{Codec, Reader};
    let mut octets = scheme.to_be_bytes().to_vec();
    octets.extend((signature.len() as u16).to_be_bytes());
    octets.extend(signature);
    let signed = DigitallySignedStruct::read(&mut Reader::init(&octets)).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    let leaf = CertificateDer::from(certificate.chain[0].to_vec());
    roots.add(leaf.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .unwrap()
        .verify_tls13_signature(message, &leaf, &signed)
        .is_ok()
}

fn files(directory: &Path, name: &str, key: &KeyPair) -> CertificateFiles {
    let params = CertificateParams::new(vec![format!("{name}.example"), "*.Wild.example".into()]);
    let certificate = params.unwrap().self_signed(key).unwrap();
    let files = CertificateFiles {
        cert: directory.join(format!("{name}.crt")),
        key: directory.join(format!("{name}.key")),
    };
    fs::write(&files.cert, certificate.pem()).unwrap();
    fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}

#[test]
fn a_certificate_is_made_once_and_renewed_in_time() {
    let state = tempfile::tempdir().unwrap();
    let config = Config::default();
    let open = |host: &str, now| {
        CertificateStore::open(state.path(), host, &config, now)
            .unwrap()
            .list()
    };
    let first = open("mx.Example.org", NOW);
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].names, ["mx.example.org", "localhost"]);
    assert_eq!(first[0].expires, NOW + 365 * DAY);
    assert!(first[0].self_signed);
    assert_eq!(open("mx.example.org", NOW + 334 * DAY), first);

    let mut store = CertificateStore::open(state.path(), "mx.example.org", &config, NOW).unwrap();
    assert!(!store.reload(&config, NOW + 334 * DAY).unwrap());
    assert!(store.reload(&config, NOW + 336 * DAY).unwrap());
    let renewed = store.list();
    assert_ne!(renewed, first);
    // A handshake that began with the old one still ends.
    assert!(store.key(first[0].key).is_some() && store.key(renewed[0].key).is_some());
    assert_eq!(open("localhost", NOW)[0].names, ["localhost"]);
    fs::write(state.path().join("self-signed.pem"), "broken").unwrap();
    assert_eq!(open("mx.example.org", NOW).len(), 1);
}

#[test]
fn every_kind_of_key_signs_all_its_schemes_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    let algorithms = [&PKCS_RSA_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519];
    for (n, algorithm) in algorithms.into_iter().enumerate() {
        let key = KeyPair::generate_for(algorithm).unwrap();
        config
            .certificate
            .push(files(directory.path(), &format!("host{n}"), &key));
    }
    let store = CertificateStore::open(directory.path(), "mx.example", &config, NOW).unwrap();
    let list = store.list();
    assert_eq!(list[0].names, ["host0.example", "*.wild.example"]);
    assert!(!directory.path().join("self-signed.pem").exists());
    let counts: Vec<usize> = list.iter().map(|c| c.schemes.len()).collect();
    assert_eq!(counts, [6, 1, 1]);
    for certificate in &list {
        let key = store.key(certificate.key).unwrap();
        for scheme in &certificate.schemes {
            let signature = sign(key.as_ref(), *scheme, b"transcript").unwrap();
            // PKCS#1 is of TLS 1.2 only.
            if ![0x0401, 0x0501, 0x0601].contains(scheme) {
                assert!(verify(certificate, *scheme, b"transcript", &signature));
                assert!(!verify(certificate, *scheme, b"another", &signature));
            }
        }
        for scheme in [0x0201, 0x0203, 0xfefe] {
            assert!(matches!(
                sign(key.as_ref(), scheme, b"transcript"),
                Err(KeyError::Scheme(_))
            ));
        }
    }
}

#[test]
fn a_broken_file_keeps_the_old_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let config = Config {
        certificate: vec![files(directory.path(), "a", &key)],
        ..Config::default()
    };
    let mut store = CertificateStore::open(directory.path(), "mx.example", &config, NOW).unwrap();
    let first = store.list();
    let path = &config.certificate[0].cert;
    let good = fs::read(path).unwrap();
    for broken in [b"broken".as_slice(), b"", &good[..good.len() / 2]] {
        fs::write(path, broken).unwrap();
        assert!(!store.reload(&config, NOW).unwrap());
        assert_eq!(store.list(), first);
    }
    fs::remove_file(path).unwrap();
    assert!(!store.reload(&config, NOW).unwrap());
    // A key that belongs to another certificate.
    let other = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    files(directory.path(), "b", &other);
    fs::copy(directory.path().join("b.crt"), path).unwrap();
    assert!(matches!(
        load(&config.certificate[0]),
        Err(KeyError::Mismatch)
    ));
    assert!(!store.reload(&config, NOW).unwrap());
    assert_eq!(store.list(), first);
    // After a restart there is no old one: a self-made one serves until the file is right again.
    let mut store = CertificateStore::open(directory.path(), "mx.example", &config, NOW).unwrap();
    assert!(store.list()[0].self_signed);
    fs::write(path, good).unwrap();
    assert!(store.reload(&config, NOW).unwrap());
    assert_eq!(store.list(), first);
}
