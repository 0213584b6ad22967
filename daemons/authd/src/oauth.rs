//! Access tokens of a provider elsewhere: signed ones are checked with the provider's published keys, others by asking it.

use crate::config::OAuth;
use crate::{now, secret};
use ipc::{Fault, FaultKind};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{AlgorithmFamily, DecodingKey, Validation};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Octets of an answer of the provider at most.
const ANSWER_MAX: usize = 512 * 1024;
/// Octets of a token at most.
pub(crate) const TOKEN_MAX: usize = 16 * 1024;
/// Tokens remembered at once.
const REMEMBERED: usize = 20_000;
/// The provider's keys are asked for again at most this often, however many unknown ones are named.
const KEYS_AGAIN: Duration = Duration::from_secs(30);
/// Keys are read anew after this time, so that withdrawn ones end.
const KEYS_FRESH: Duration = Duration::from_secs(3600);

struct Keys {
    set: Arc<JwkSet>,
    read: Instant,
}

/// Checks tokens.
pub(crate) struct Tokens {
    config: OAuth,
    client: reqwest::Client,
    secret: Option<String>,
    keys: tokio::sync::Mutex<Option<Keys>>,
    /// Names by token fingerprint, and the second at which they are forgotten.
    known: Mutex<HashMap<[u8; 32], (String, u64)>>,
    fingerprint: [u8; 32],
}

fn away(what: &str, error: impl std::fmt::Display) -> Fault {
    tracing::warn!(%error, "the token provider: {what}");
    Fault::new(
        FaultKind::Temporary,
        "the token provider cannot be asked now",
    )
}

/// What is wrong with the settings.
pub(crate) fn check(config: &OAuth) -> Result<(), String> {
    if !config.enabled() {
        return Ok(());
    }
    for url in [&config.issuer, &config.introspection_url] {
        let local = ["http://127.0.0.1", "http://[::1]", "http://localhost"];
        let safe = url.starts_with("https://") || local.iter().any(|start| url.starts_with(start));
        if !url.is_empty() && !safe {
            return Err(format!("authd.oauth: {url} is not https"));
        }
    }
    if !config.issuer.is_empty() && config.audiences.is_empty() {
        return Err(
            "authd.oauth.audiences is empty: a token that was issued for any other service would be a login here"
                .to_owned(),
        );
    }
    if config.claim.is_empty() {
        return Err("authd.oauth.claim is empty: no token would have a name".to_owned());
    }
    Ok(())
}

impl Tokens {
    /// # Errors
    /// The secret's file cannot be read; the settings are impossible.
    pub(crate) fn new(config: OAuth) -> Result<Option<Self>, Fault> {
        if !config.enabled() {
            return Ok(None);
        }
        let secret = match &config.client_secret_file {
            None => None,
            Some(file) => {
                let read = std::fs::read_to_string(file).map_err(|error| {
                    Fault::new(
                        FaultKind::Invalid,
                        format!("authd.oauth.client_secret_file {}: {error}", file.display()),
                    )
                })?;
                Some(read.trim_end().to_owned())
            }
        };
        let limit = Duration::from_secs(config.timeout_seconds.max(1));
        let client = reqwest::Client::builder()
            .timeout(limit)
            .connect_timeout(limit)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("Posthouse/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Fault::new(FaultKind::Internal, error.to_string()))?;
        Ok(Some(Self {
            config,
            client,
            secret,
            keys: tokio::sync::Mutex::default(),
            known: Mutex::default(),
            fingerprint: secret::random()?,
        }))
    }

    /// What a refused client is told (RFC 7628 3.2.2).
    pub(crate) fn refusal(&self) -> String {
        serde_json::json!({
            "status": "invalid_token",
            "schemes": "bearer",
            "scope": self.config.scope,
        })
        .to_string()
    }

    /// The account's name that a token stands for; `None` if it is not good.
    ///
    /// # Errors
    /// The provider cannot be asked.
    pub(crate) async fn name(&self, token: &str) -> Result<Option<String>, Fault> {
        if token.is_empty() || token.len() > TOKEN_MAX {
            return Ok(None);
        }
        let mark = secret::keyed(&self.fingerprint, &[token.as_bytes()]);
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let remembered = known().get(&mark).cloned();
        if let Some((name, until)) = remembered
            && now() < until
        {
            return Ok(Some(name));
        }
        let signed = !self.config.issuer.is_empty() && token.split('.').count() == 3;
        let claims = if signed {
            self.signed(token).await?
        } else if self.config.introspection_url.is_empty() {
            None
        } else {
            self.asked(token).await?
        };
        let Some((name, ends)) = claims.and_then(|claims| self.read(&claims)) else {
            return Ok(None);
        };
        let until = ends.min(now().saturating_add(self.config.cached_seconds));
        let mut known = known();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(mark, (name.clone(), until));
        Ok(Some(name))
    }

    /// Name and end of a token whose claims can be trusted.
    fn read(&self, claims: &Value) -> Option<(String, u64)> {
        let OAuth { claim, scope, .. } = &self.config;
        let ends = claims.get("exp").and_then(Value::as_u64);
        if ends.is_some_and(|ends| ends <= now()) {
            return None;
        }
        let scopes = claims.get("scope").and_then(Value::as_str).unwrap_or("");
        if !scope.is_empty() && !scopes.split(' ').any(|one| one == scope) {
            tracing::info!("a token lacks the scope");
            return None;
        }
        let name = claims.get(claim).and_then(Value::as_str);
        if name.is_none() {
            tracing::info!(claim, "a token lacks the claim that names the account");
        }
        // Whoever may choose their own address at the provider must not become somebody else here.
        if claim == "email" && claims.get("email_verified") == Some(&Value::Bool(false)) {
            tracing::info!("a token's address is not verified");
            return None;
        }
        Some((name?.to_owned(), ends.unwrap_or(u64::MAX)))
    }

    /// RFC 9068 4
    async fn signed(&self, token: &str) -> Result<Option<Value>, Fault> {
        let Ok(header) = jsonwebtoken::decode_header(token) else {
            return Ok(None);
        };
        // A key that everybody knows signs nothing.
        if header.alg.family() == AlgorithmFamily::Hmac {
            return Ok(None);
        }
        let kid = header.kid.clone().unwrap_or_default();
        let mut set = self.keys(false).await?;
        if find(&set, &kid).is_none() {
            set = self.keys(true).await?;
        }
        let Some(key) = find(&set, &kid) else {
            tracing::info!(
                kid,
                "a token is signed with a key that the provider does not have"
            );
            return Ok(None);
        };
        let Ok(decoding) = DecodingKey::from_jwk(key) else {
            return Ok(None);
        };
        let mut validation = Validation::new(header.alg);
        validation.leeway = 30;
        validation.validate_nbf = true;
        validation.set_issuer(&[self.config.issuer.as_str()]);
        validation.set_audience(&self.config.audiences);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        match jsonwebtoken::decode::<Value>(token, &decoding, &validation) {
            Ok(token) => Ok(Some(token.claims)),
            Err(error) => {
                tracing::info!(%error, "a token is not good");
                Ok(None)
            }
        }
    }

    /// The provider's keys (RFC 7517).
    async fn keys(&self, again: bool) -> Result<Arc<JwkSet>, Fault> {
        let mut keys = self.keys.lock().await;
        if let Some(known) = &*keys {
            let limit = if again { KEYS_AGAIN } else { KEYS_FRESH };
            if known.read.elapsed() < limit {
                return Ok(Arc::clone(&known.set));
            }
        }
        match self.fetch_keys().await {
            Ok(set) => {
                let set = Arc::new(set);
                *keys = Some(Keys {
                    set: Arc::clone(&set),
                    read: Instant::now(),
                });
                Ok(set)
            }
            // Known keys are better than none while the provider is away.
            Err(fault) => match &*keys {
                Some(known) => Ok(Arc::clone(&known.set)),
                None => Err(fault),
            },
        }
    }

    async fn fetch_keys(&self) -> Result<JwkSet, Fault> {
        let issuer = self.config.issuer.trim_end_matches('/');
        let url = format!("{issuer}/.well-known/openid-configuration");
        let found = self.json(self.client.get(url)).await?;
        // OpenID Connect Discovery 4.3
        if found.get("issuer").and_then(Value::as_str) != Some(&self.config.issuer) {
            return Err(away("discovery", "it names another issuer"));
        }
        let Some(url) = found.get("jwks_uri").and_then(Value::as_str) else {
            return Err(away("discovery", "it names no keys"));
        };
        let set = self.json(self.client.get(url)).await?;
        serde_json::from_value(set).map_err(|error| away("keys", error))
    }

    /// RFC 7662 2
    async fn asked(&self, token: &str) -> Result<Option<Value>, Fault> {
        let form = [("token", token), ("token_type_hint", "access_token")];
        let mut request = self.client.post(&self.config.introspection_url).form(&form);
        if !self.config.client_id.is_empty() {
            request = request.basic_auth(&self.config.client_id, self.secret.as_ref());
        }
        let claims = self.json(request).await?;
        if claims.get("active") != Some(&Value::Bool(true)) {
            return Ok(None);
        }
        let wanted = &self.config.audiences;
        let given = match claims.get("aud") {
            Some(Value::String(one)) => vec![one.as_str()],
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let ours = wanted.is_empty() || given.iter().any(|one| wanted.iter().any(|w| w == one));
        if !ours {
            tracing::info!("a token is for another service");
        }
        Ok(ours.then_some(claims))
    }

    async fn json(&self, request: reqwest::RequestBuilder) -> Result<Value, Fault> {
        let sent = request.header("accept", "application/json").send().await;
        let mut answer = sent
            .and_then(reqwest::Response::error_for_status)
            .map_err(|error| away("asking", error.without_url()))?;
        let mut octets = Vec::new();
        while let Some(chunk) = answer
            .chunk()
            .await
            .map_err(|error| away("reading", error))?
        {
            octets.extend_from_slice(&chunk);
            if octets.len() > ANSWER_MAX {
                return Err(away("reading", "the answer is too long"));
            }
        }
        serde_json::from_slice(&octets).map_err(|error| away("reading", error))
    }
}

/// The key of that name; without a name the only one.
fn find<'s>(set: &'s JwkSet, kid: &str) -> Option<&'s jsonwebtoken::jwk::Jwk> {
    if !kid.is_empty() {
        return set.find(kid);
    }
    match set.keys.as_slice() {
        [one] => Some(one),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn tokens(config: OAuth) -> Tokens {
        Tokens::new(config).unwrap().unwrap()
    }

    #[test]
    fn claims_name_the_account_or_not() {
        let config = OAuth {
            introspection_url: "https://id.example/introspect".to_owned(),
            scope: "mail".to_owned(),
            ..OAuth::default()
        };
        let tokens = tokens(config);
        let far = now() + 100;
        let good =
            serde_json::json!({"email": "jane@example.org", "scope": "openid mail", "exp": far});
        assert_eq!(
            tokens.read(&good),
            Some(("jane@example.org".to_owned(), far))
        );
        for bad in [
            serde_json::json!({"email": "jane@example.org", "scope": "openid", "exp": far}),
            serde_json::json!({"email": "jane@example.org", "scope": "mail", "exp": 5}),
            serde_json::json!({"sub": "jane", "scope": "mail", "exp": far}),
            serde_json::json!({"email": "jane@example.org", "email_verified": false, "scope": "mail"}),
        ] {
            assert_eq!(tokens.read(&bad), None, "{bad}");
        }
        assert_eq!(
            tokens.refusal(),
            r#"{"schemes":"bearer","scope":"mail","status":"invalid_token"}"#
        );
    }

    #[test]
    fn careless_settings_are_refused() {
        let issuer = |issuer: &str, audiences: &[&str]| OAuth {
            issuer: issuer.to_owned(),
            audiences: audiences.iter().map(|&one| one.to_owned()).collect(),
            ..OAuth::default()
        };
        check(&OAuth::default()).unwrap();
        check(&issuer("https://id.example", &["imap"])).unwrap();
        check(&issuer("http://127.0.0.1:8080", &["imap"])).unwrap();
        check(&issuer("https://id.example", &[])).unwrap_err();
        check(&issuer("http://id.example", &["imap"])).unwrap_err();
    }

    #[tokio::test]
    async fn a_token_with_a_shared_key_or_none_is_refused_unasked() {
        let config = OAuth {
            issuer: "http://127.0.0.1:1".to_owned(),
            audiences: vec!["imap".to_owned()],
            ..OAuth::default()
        };
        let tokens = tokens(config);
        let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
        let claims = serde_json::json!({"email": "jane@example.org", "exp": now() + 100});
        let key = jsonwebtoken::EncodingKey::from_secret(b"x");
        let token = jsonwebtoken::encode(&header, &claims, &key).unwrap();
        assert_eq!(tokens.name(&token).await.unwrap(), None);
        for bad in ["", "x", "a.b.c", &"x".repeat(TOKEN_MAX + 1)] {
            assert_eq!(tokens.name(bad).await.unwrap(), None);
        }
        // With a real algorithm the provider would have to be asked, who is not there.
        let rsa = "eyJhbGciOiJSUzI1NiJ9.e30.AA";
        assert_eq!(
            tokens.name(rsa).await.unwrap_err().kind,
            FaultKind::Temporary
        );
    }
}
