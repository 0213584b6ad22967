#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;
use aws_lc_rs::signature::{ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

impl DkimStore {
    fn create(
        &mut self,
        domain: &str,
        selector: &str,
        algorithm: DkimAlgorithm,
    ) -> Result<DkimKey, KeyError> {
        let (domain, selector) = self.vacancy(domain, selector)?;
        self.keep(
            Fresh::generate(&domain, &selector, algorithm)?,
            DkimState::Active,
        )
    }
}

fn published(key: &DkimKey) -> Vec<u8> {
    let text = key.record.rsplit_once("p=").unwrap().1;
    BASE64.decode(text).unwrap()
}

#[test]
fn keys_sign_what_their_record_verifies_also_after_a_restart() {
    let state = tempfile::tempdir().unwrap();
    let mut store = DkimStore::open(state.path(), 10).unwrap();
    let rsa = store
        .create("Bücher.example", "R1", DkimAlgorithm::Rsa2048)
        .unwrap();
    let ed = store
        .create("xn--bcher-kva.example", "e1", DkimAlgorithm::Ed25519)
        .unwrap();
    assert_eq!(
        (rsa.domain.as_str(), rsa.selector.as_str()),
        ("xn--bcher-kva.example", "r1")
    );
    let store = DkimStore::open(state.path(), 10).unwrap();
    assert_eq!(
        store.list("xn--bcher-kva.example"),
        [ed.clone(), rsa.clone()]
    );
    assert_eq!(store.list("").len(), 2);
    assert!(store.list("bcher-kva.example").is_empty());

    let data = b"from:a@b.example\r\ndkim-signature:v=1";
    let signature = store.get(&rsa.domain, "r1").unwrap().sign(data).unwrap();
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, published(&rsa))
        .verify(data, &signature)
        .unwrap();
    let signature = store.get(&ed.domain, "e1").unwrap().sign(data).unwrap();
    let hash = digest::digest(&digest::SHA256, data);
    UnparsedPublicKey::new(&ED25519, published(&ed))
        .verify(hash.as_ref(), &signature)
        .unwrap();
}

// RFC 8463 A.2
#[test]
fn the_key_of_rfc_8463_has_its_published_record() {
    let seed = BASE64
        .decode("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
        .unwrap();
    let key = Secret::Ed25519(Ed25519KeyPair::from_seed_unchecked(&seed).unwrap());
    let key = Key::new("football.example.com", "brisbane", key).unwrap();
    assert_eq!(
        key.public.record,
        "v=DKIM1; k=ed25519; h=sha256; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
    );
    assert!(!format!("{key:?}").contains("nWGx"));
}

#[test]
fn names_are_checked_and_limits_hold() {
    let state = tempfile::tempdir().unwrap();
    let mut store = DkimStore::open(state.path(), 1).unwrap();
    for (domain, selector) in [
        ("../x", "a"),
        ("example.org/..", "a"),
        ("[127.0.0.1]", "a"),
        ("example.org", "../a"),
        ("example.org", ""),
        ("example.org", "a.b"),
        ("", "a"),
    ] {
        let made = store.create(domain, selector, DkimAlgorithm::Ed25519);
        assert!(
            matches!(made, Err(KeyError::Invalid(_))),
            "{domain} {selector}"
        );
    }
    store
        .create("example.org", "a", DkimAlgorithm::Ed25519)
        .unwrap();
    assert!(matches!(
        store.create("example.org", "b", DkimAlgorithm::Ed25519),
        Err(KeyError::TooMany(1))
    ));
    store.limit = 2;
    assert!(matches!(
        store.create("EXAMPLE.org", "A", DkimAlgorithm::Ed25519),
        Err(KeyError::Taken)
    ));
    store.remove("example.org", "a").unwrap();
    store.remove("example.org", "a").unwrap();
    assert!(store.get("example.org", "a").is_none());
    assert_eq!(
        std::fs::read_dir(state.path().join("dkim"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn a_broken_file_keeps_the_key_and_a_foreign_one_is_found() {
    let state = tempfile::tempdir().unwrap();
    let mut store = DkimStore::open(state.path(), 10).unwrap();
    let made = store
        .create("example.org", "a", DkimAlgorithm::Ed25519)
        .unwrap();
    let path = state.path().join("dkim/example.org/a.pem");
    let pem = std::fs::read(&path).unwrap();
    std::fs::write(&path, "broken").unwrap();
    std::fs::write(state.path().join("dkim/example.org/b.pem"), pem).unwrap();
    store.reload().unwrap();
    let list = store.list("example.org");
    assert_eq!(list.len(), 2);
    assert_eq!(list[0], made);
    assert_eq!(list[1].record, made.record);
}

#[test]
fn states_are_kept_and_a_key_without_one_is_active() {
    let state = tempfile::tempdir().unwrap();
    let mut store = DkimStore::open(state.path(), 10).unwrap();
    for selector in ["a", "b"] {
        store
            .create("d.example", selector, DkimAlgorithm::Ed25519)
            .unwrap();
    }
    let fresh = Fresh::generate("d.example", "c", DkimAlgorithm::Ed25519).unwrap();
    store.keep(fresh, DkimState::Prepared).unwrap();
    let marked = store.mark("D.example", "A", DkimState::Retired).unwrap();
    assert_eq!(marked.state, DkimState::Retired);
    assert!(matches!(
        store.mark("d.example", "z", DkimState::Active),
        Err(KeyError::NotFound)
    ));
    // As an older version, or an operator, leaves it.
    std::fs::remove_file(state.path().join("dkim/d.example/b.state")).unwrap();
    let states = |store: &DkimStore| -> Vec<DkimState> {
        store
            .list("d.example")
            .into_iter()
            .map(|key| key.state)
            .collect()
    };
    let wanted = [DkimState::Retired, DkimState::Active, DkimState::Prepared];
    let mut again = DkimStore::open(state.path(), 10).unwrap();
    assert_eq!(states(&again), wanted);
    // What is not understood keeps what was known.
    std::fs::write(state.path().join("dkim/d.example/c.state"), "later\n").unwrap();
    again.reload().unwrap();
    assert_eq!(states(&again), wanted);
    again.remove("d.example", "c").unwrap();
    assert!(!state.path().join("dkim/d.example/c.state").exists());
}
