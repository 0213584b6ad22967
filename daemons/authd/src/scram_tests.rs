#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;
use proptest::prelude::*;

const FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
const NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const LAST: &[u8] = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

fn keys() -> Keys {
    let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
    Keys::derive("pencil", &salt, 4096)
}

fn bindings() -> Vec<(String, Octets)> {
    vec![
        ("tls-exporter".to_owned(), b"exported".as_slice().into()),
        ("tls-server-end-point".to_owned(), b"hash".as_slice().into()),
    ]
}

/// The client's side, for tests.
pub(crate) fn answer(password: &str, challenge: &[u8], bare: &str, binding: &[u8]) -> String {
    let challenge = std::str::from_utf8(challenge).unwrap();
    let field = |name: &str| {
        let mut fields = challenge.split(',');
        fields.find_map(|field| field.strip_prefix(name)).unwrap()
    };
    let salt = BASE64.decode(field("s=")).unwrap();
    let mut salted = [0; 32];
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        field("i=").parse().unwrap(),
        &salt,
        password.as_bytes(),
        &mut salted,
    );
    let client_key = hmac_sha256(&salted, b"Client Key");
    let unproved = format!("c={},r={}", BASE64.encode(binding), field("r="));
    let said = format!("{bare},{challenge},{unproved}");
    let mut proof = hmac_sha256(&sha256(&client_key), said.as_bytes());
    proof.iter_mut().zip(client_key).for_each(|(a, b)| *a ^= b);
    format!("{unproved},p={}", BASE64.encode(proof))
}

// RFC 7677 3
#[test]
fn the_example_of_rfc_7677() {
    let first = ClientFirst::parse(FIRST, false, &[]).unwrap();
    assert_eq!((first.user.as_str(), &first.authzid), ("user", &None));
    let keys = keys();
    let (challenge, message) = Challenge::new(first, &keys.salt, keys.iterations, NONCE);
    assert_eq!(
        message,
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    );
    let other = Keys::derive("pencils", &keys.salt, 4096);
    let (place, last) = challenge.finish(LAST, [&other, &keys].into_iter()).unwrap();
    assert_eq!(
        (place, last.as_slice()),
        (
            1,
            b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=".as_slice()
        )
    );
    assert_eq!(
        challenge.finish(LAST, [&other].into_iter()),
        Err(ScramError::Proof)
    );
    let replayed = String::from_utf8(LAST.to_vec())
        .unwrap()
        .replace("$k0", "$k1");
    assert_eq!(
        challenge.finish(replayed.as_bytes(), [&keys].into_iter()),
        Err(ScramError::Proof)
    );
}

#[test]
fn plus_binds_the_channel() {
    let keys = keys();
    for (name, data) in bindings() {
        let bare = "n=user,r=abc";
        let header = format!("p={name},,");
        let first =
            ClientFirst::parse(format!("{header}{bare}").as_bytes(), true, &bindings()).unwrap();
        let (challenge, message) = Challenge::new(first, &keys.salt, keys.iterations, "def");
        let bound = |data: &[u8]| [header.as_bytes(), data].concat();
        let good = answer("pencil", &message, bare, &bound(&data));
        assert!(
            challenge
                .finish(good.as_bytes(), [&keys].into_iter())
                .is_ok()
        );
        let between = answer("pencil", &message, bare, &bound(b"another connection"));
        assert_eq!(
            challenge.finish(between.as_bytes(), [&keys].into_iter()),
            Err(ScramError::Binding)
        );
    }
}

#[test]
fn a_downgrade_is_noticed() {
    let parse = |text: &str, plus, bound: bool| {
        let bindings = if bound { bindings() } else { Vec::new() };
        ClientFirst::parse(text.as_bytes(), plus, &bindings).map(|first| first.user)
    };
    assert_eq!(parse("y,,n=u,r=a", false, true), Err(ScramError::Binding));
    assert_eq!(parse("y,,n=u,r=a", false, false), Ok("u".to_owned()));
    assert_eq!(parse("n,,n=u,r=a", false, true), Ok("u".to_owned()));
    for flag in ["n", "y", "p=", "x", ""] {
        assert!(parse(&format!("{flag},,n=u,r=a"), true, true).is_err());
    }
    assert_eq!(
        parse("p=tls-unique,,n=u,r=a", true, true),
        Err(ScramError::Binding)
    );
    assert_eq!(
        parse("p=tls-exporter,,n=u,r=a", false, true),
        Err(ScramError::Malformed)
    );
}

#[test]
fn names_are_unescaped_and_nonsense_is_refused() {
    let first = ClientFirst::parse(b"n,a=o=2Cx,n=a=3Db=2Cc,r=n,x=ext", false, &[]).unwrap();
    assert_eq!(
        (first.user.as_str(), first.authzid.as_deref()),
        ("a=b,c", Some("o,x"))
    );
    for bad in [
        "n,,",
        "n,,n=,r=a",
        "n,,n=a=2x,r=a",
        "n,,n=a,r=",
        "n,,r=a,n=a",
        "n,x,n=a,r=a",
        "n,a=,n=a,r=a",
        "n,,n=a",
        "",
        "n",
        "n,,n=a,r=a\u{e4}",
    ] {
        assert_eq!(
            ClientFirst::parse(bad.as_bytes(), false, &[]),
            Err(ScramError::Malformed),
            "{bad}"
        );
    }
    assert_eq!(
        ClientFirst::parse(b"n,,m=x,n=a,r=a", false, &[]),
        Err(ScramError::Extension)
    );
}

proptest! {
    #[test]
    fn any_octets_are_answered(first in ".{0,80}", last in ".{0,120}", octets in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = ClientFirst::parse(first.as_bytes(), false, &[]);
        let _ = ClientFirst::parse(&octets, true, &bindings());
        let known = ClientFirst::parse(FIRST, false, &[]).unwrap();
        let (challenge, _) = Challenge::new(known, b"salt", 1, NONCE);
        let keys = Keys { salt: b"salt".to_vec(), iterations: 1, stored: [0; 32], server: [0; 32] };
        prop_assert!(challenge.finish(last.as_bytes(), [&keys].into_iter()).is_err());
        prop_assert!(challenge.finish(&octets, [&keys].into_iter()).is_err());
    }
}
