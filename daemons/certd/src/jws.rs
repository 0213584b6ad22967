//! Requests to the authority, signed by keyd.
//!
//! instant-acme signs with a key that it holds itself. It is given one that is thrown away, and what it has made is signed again on its
//! way out with the account key, which keyd holds: header and payload stay, `jwk` and nonce are put in their place.

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use ipc::api::keyd::AcmePublicKey;
use serde_json::{Map, Value, json};

/// What is signed (RFC 7515 7.2.2), in parts that can be changed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Jws {
    header: Map<String, Value>,
    payload: String,
}

/// A key of the authority's that ties the account to a customer (RFC 8555 7.3.4).
#[derive(Clone)]
pub(crate) struct Binding {
    pub(crate) id: String,
    pub(crate) key: Vec<u8>,
}

impl std::fmt::Debug for Binding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "binding {}", self.id)
    }
}

impl Jws {
    /// Takes a request apart.
    ///
    /// # Errors
    /// It is no flattened JWS; what is wrong.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, String> {
        let mut whole: Map<String, Value> =
            serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let mut text = |name: &str| match whole.remove(name) {
            Some(Value::String(text)) => Ok(text),
            _ => Err(format!("a request without {name}")),
        };
        let header = BASE64URL
            .decode(text("protected")?)
            .map_err(|error| error.to_string())?;
        Ok(Self {
            header: serde_json::from_slice(&header).map_err(|error| error.to_string())?,
            payload: text("payload")?,
        })
    }

    /// Puts the account key in the place of the one that is thrown away, where it is named (RFC 8555 6.2).
    pub(crate) fn put_key(&mut self, key: &AcmePublicKey) {
        self.header.insert("alg".to_owned(), json!("ES256"));
        if let Some(jwk) = self.header.get_mut("jwk") {
            *jwk = self::jwk(key);
        }
    }

    /// RFC 8555 6.5
    pub(crate) fn put_nonce(&mut self, nonce: &str) {
        self.header.insert("nonce".to_owned(), json!(nonce));
    }

    /// Whether it asks for a new account: those requests alone name the key itself, and have contacts.
    pub(crate) fn is_new_account(&self) -> bool {
        self.header.contains_key("jwk")
    }

    /// Adds the customer's binding to a request for an account.
    ///
    /// # Errors
    /// The payload is no object.
    pub(crate) fn bind(&mut self, binding: &Binding, key: &AcmePublicKey) -> Result<(), String> {
        let payload = BASE64URL
            .decode(&self.payload)
            .map_err(|error| error.to_string())?;
        let mut payload: Map<String, Value> =
            serde_json::from_slice(&payload).map_err(|error| error.to_string())?;
        let url = self.header.get("url").cloned().unwrap_or_default();
        let header = json!({ "alg": "HS256", "kid": binding.id, "url": url });
        let header = BASE64URL.encode(header.to_string());
        let inner = BASE64URL.encode(jwk(key).to_string());
        let secret = hmac::Key::new(hmac::HMAC_SHA256, &binding.key);
        let seal = hmac::sign(&secret, format!("{header}.{inner}").as_bytes());
        payload.insert(
            "externalAccountBinding".to_owned(),
            json!({ "protected": header, "payload": inner, "signature": BASE64URL.encode(seal.as_ref()) }),
        );
        self.payload = BASE64URL.encode(Value::Object(payload).to_string());
        Ok(())
    }

    /// RFC 7515 5.1
    pub(crate) fn signing_input(&self) -> String {
        let header = Value::Object(self.header.clone()).to_string();
        format!("{}.{}", BASE64URL.encode(header), self.payload)
    }

    /// The request with its signature over [`Jws::signing_input`].
    pub(crate) fn signed(&self, input: &str, signature: &[u8]) -> Vec<u8> {
        let protected = input.split('.').next().unwrap_or_default();
        json!({ "protected": protected, "payload": self.payload, "signature": BASE64URL.encode(signature) })
            .to_string()
            .into_bytes()
    }
}

/// RFC 7518 6.2
fn jwk(key: &AcmePublicKey) -> Value {
    json!({ "crv": "P-256", "kty": "EC", "x": BASE64URL.encode(&key.x.0), "y": BASE64URL.encode(&key.y.0) })
}

/// What ties a challenge to the account: token, dot, thumbprint (RFC 8555 8.1, RFC 7638 3).
pub(crate) fn key_authorization(token: &str, key: &AcmePublicKey) -> String {
    let (x, y) = (BASE64URL.encode(&key.x.0), BASE64URL.encode(&key.y.0));
    // RFC 7638 3.2: these members in this order, nothing between.
    let text = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    let thumb = digest::digest(&digest::SHA256, text.as_bytes());
    format!("{token}.{}", BASE64URL.encode(thumb.as_ref()))
}

/// SHA-256 of a key authorization, for TLS-ALPN-01.
pub(crate) fn authorization_digest(authorization: &str) -> [u8; 32] {
    let hash = digest::digest(&digest::SHA256, authorization.as_bytes());
    let mut octets = [0; 32];
    octets.copy_from_slice(hash.as_ref());
    octets
}

/// The text of the record for DNS-01 (RFC 8555 8.4).
pub(crate) fn dns_value(authorization: &str) -> String {
    BASE64URL.encode(authorization_digest(authorization))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
        UnparsedPublicKey,
    };

    fn key() -> (EcdsaKeyPair, AcmePublicKey) {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = pair.public_key().as_ref().to_vec();
        let public = AcmePublicKey {
            x: point[1..33].into(),
            y: point[33..].into(),
        };
        (pair, public)
    }

    fn request(header: &Value, payload: &str) -> Vec<u8> {
        json!({
            "protected": BASE64URL.encode(header.to_string()),
            "payload": BASE64URL.encode(payload),
            "signature": "thrown-away",
        })
        .to_string()
        .into_bytes()
    }

    fn decoded(part: &Value) -> Value {
        serde_json::from_slice(&BASE64URL.decode(part.as_str().unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn a_request_is_signed_again_with_the_account_key() {
        let (pair, public) = key();
        let header = json!({ "alg": "ES256", "jwk": { "x": "other" }, "nonce": "old", "url": "https://ca/new" });
        let mut jws = Jws::parse(&request(&header, r#"{"contact":[]}"#)).unwrap();
        jws.put_key(&public);
        jws.put_nonce("new");
        assert!(jws.is_new_account());
        let input = jws.signing_input();
        let signature = pair.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
        let sent: Value = serde_json::from_slice(&jws.signed(&input, signature.as_ref())).unwrap();
        let header = decoded(&sent["protected"]);
        assert_eq!(header["nonce"], "new");
        assert_eq!(header["url"], "https://ca/new");
        assert_eq!(header["jwk"]["x"], BASE64URL.encode(&public.x.0));
        let point = [&[4], public.x.as_slice(), public.y.as_slice()].concat();
        let input = format!(
            "{}.{}",
            sent["protected"].as_str().unwrap(),
            sent["payload"].as_str().unwrap()
        );
        let signature = BASE64URL
            .decode(sent["signature"].as_str().unwrap())
            .unwrap();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
            .verify(input.as_bytes(), &signature)
            .unwrap();
    }

    #[test]
    fn one_that_names_its_account_keeps_the_name() {
        let (_, public) = key();
        let header =
            json!({ "alg": "ES256", "kid": "https://ca/acct/1", "nonce": "n", "url": "u" });
        let mut jws = Jws::parse(&request(&header, "")).unwrap();
        jws.put_key(&public);
        assert!(!jws.is_new_account());
        assert_eq!(jws.header["kid"], "https://ca/acct/1");
        assert!(!jws.header.contains_key("jwk"));
    }

    #[test]
    fn a_binding_is_sealed_over_the_account_key() {
        let (_, public) = key();
        let header = json!({ "alg": "ES256", "jwk": {}, "nonce": "n", "url": "https://ca/new" });
        let mut jws = Jws::parse(&request(&header, r#"{"contact":["mailto:a@b"]}"#)).unwrap();
        let binding = Binding {
            id: "kid-1".to_owned(),
            key: b"0123456789abcdef".to_vec(),
        };
        jws.bind(&binding, &public).unwrap();
        let payload = decoded(&Value::String(jws.payload.clone()));
        let inner = &payload["externalAccountBinding"];
        assert_eq!(payload["contact"][0], "mailto:a@b");
        let header = decoded(&inner["protected"]);
        assert_eq!(
            header,
            json!({ "alg": "HS256", "kid": "kid-1", "url": "https://ca/new" })
        );
        assert_eq!(decoded(&inner["payload"]), jwk(&public));
        let secret = hmac::Key::new(hmac::HMAC_SHA256, &binding.key);
        let input = format!(
            "{}.{}",
            inner["protected"].as_str().unwrap(),
            inner["payload"].as_str().unwrap()
        );
        let seal = BASE64URL
            .decode(inner["signature"].as_str().unwrap())
            .unwrap();
        hmac::verify(&secret, input.as_bytes(), &seal).unwrap();
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for body in [
            "",
            "[]",
            "{}",
            r#"{"protected":"!","payload":""}"#,
            r#"{"protected":"e30"}"#,
        ] {
            assert!(Jws::parse(body.as_bytes()).is_err(), "{body}");
        }
    }

    /// RFC 7638 3.2 and 3.3.
    #[test]
    fn the_thumbprint_is_of_the_canonical_text() {
        let public = AcmePublicKey {
            x: vec![1; 32].into(),
            y: vec![2; 32].into(),
        };
        let text = format!(
            r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#,
            BASE64URL.encode([1; 32]),
            BASE64URL.encode([2; 32])
        );
        let hash = digest::digest(&digest::SHA256, text.as_bytes());
        let expected = format!("tok.{}", BASE64URL.encode(hash.as_ref()));
        assert_eq!(key_authorization("tok", &public), expected);
        // serde_json sorts members: the key in requests has the same text.
        assert_eq!(jwk(&public).to_string(), text);
    }
}
