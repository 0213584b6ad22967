//! The way to the authority: HTTPS with bounds, requests signed by keyd, refused nonces made good.

use crate::config::Config;
use crate::jws::{Binding, Jws};
use crate::persist::{self, Offer};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use ipc::Client;
use ipc::api::keyd::{AcmePublicKey, AcmeSign};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use types::TraceId;

/// Chains of certificates are some kilobytes.
const BODY_MAX: usize = 512 * 1024;
/// A nonce may be refused for no fault of ours (RFC 8555 6.5), though hardly so often in a row.
const NONCES_MAX: usize = 10;
/// Challenges that are kept in mind; an order has a hundred names at most.
const NOTICED_MAX: usize = 1000;
/// The file with the key of a binding.
const BINDING_MAX: u64 = 4096;

/// A client of one authority, for its one account. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Authority(Arc<Inner>);

struct Inner {
    http: reqwest::Client,
    keyd: Client,
    directory: String,
    key: AcmePublicKey,
    binding: Option<Binding>,
    /// Seconds since 1970 before which it does not want to hear of us.
    patience: Arc<AtomicU64>,
    /// What challenges say that the library leaves out, by their addresses.
    noticed: Mutex<BTreeMap<String, Result<Offer, String>>>,
}

impl Authority {
    /// # Errors
    /// Files of the configuration that cannot be read.
    pub(crate) fn new(
        config: &Config,
        keyd: Client,
        key: AcmePublicKey,
        patience: Arc<AtomicU64>,
    ) -> Result<Self, String> {
        let limit = Duration::from_secs(config.timeout);
        let mut builder = reqwest::Client::builder()
            .https_only(true)
            .timeout(limit)
            .connect_timeout(limit)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            // RFC 8555 6.1
            .user_agent(concat!("Posthouse/", env!("CARGO_PKG_VERSION")));
        if let Some(file) = &config.directory_ca_file {
            let wrong =
                |error: String| format!("certd.directory_ca_file {}: {error}", file.display());
            let pem = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
            let roots = reqwest::Certificate::from_pem_bundle(&pem)
                .map_err(|error| wrong(error.to_string()))?;
            builder = builder.tls_certs_merge(roots);
        }
        Ok(Self(Arc::new(Inner {
            http: builder.build().map_err(|error| error.to_string())?,
            keyd,
            directory: config.directory.clone(),
            key,
            binding: binding(config)?,
            patience,
            noticed: Mutex::default(),
        })))
    }

    /// The public half of the account key.
    pub(crate) fn key(&self) -> &AcmePublicKey {
        &self.0.key
    }

    /// What a challenge says of the record for DNS-PERSIST-01.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn offer(&self, challenge: &str) -> Result<Offer, String> {
        let noticed = self.0.noticed.lock();
        let noticed = noticed.unwrap_or_else(PoisonError::into_inner);
        let offer = noticed.get(challenge).cloned();
        offer.unwrap_or_else(|| Err("its challenge was not seen".to_owned()))
    }

    fn notice(&self, body: &[u8]) {
        let offers = persist::offers(body);
        if offers.is_empty() {
            return;
        }
        let noticed = self.0.noticed.lock();
        let mut noticed = noticed.unwrap_or_else(PoisonError::into_inner);
        if noticed.len() + offers.len() > NOTICED_MAX {
            noticed.clear();
        }
        noticed.extend(offers);
    }

    async fn send(&self, parts: http::request::Parts, body: Bytes) -> Result<BytesResponse, Error> {
        let url = reqwest::Url::parse(&parts.uri.to_string()).map_err(other)?;
        let mut nonce: Option<String> = None;
        let mut refusals = 0;
        loop {
            let mut request = reqwest::Request::new(parts.method.clone(), url.clone());
            *request.headers_mut() = parts.headers.clone();
            request.headers_mut().remove(http::header::USER_AGENT);
            if !body.is_empty() {
                *request.body_mut() = Some(self.sign(&body, nonce.as_deref()).await?.into());
            }
            let response = self.0.http.execute(request).await.map_err(plain)?;
            let (parts, body) = bounded(response).await?;
            self.heed(&parts);
            let fresh = fresh_nonce(&parts, &body);
            if fresh.is_some() && refusals < NONCES_MAX {
                refusals += 1;
                tracing::debug!(
                    refusals,
                    "the authority refuses a nonce: the request goes out again"
                );
                nonce = fresh;
                continue;
            }
            self.notice(&body);
            return Ok(BytesResponse {
                parts,
                body: Box::new(body),
            });
        }
    }

    async fn sign(&self, body: &[u8], nonce: Option<&str>) -> Result<Vec<u8>, Error> {
        let mut jws = Jws::parse(body).map_err(|error| Error::Other(error.into()))?;
        jws.put_key(&self.0.key);
        if let Some(nonce) = nonce {
            jws.put_nonce(nonce);
        }
        if let Some(binding) = self.0.binding.as_ref().filter(|_| jws.is_new_account()) {
            jws.bind(binding, &self.0.key)
                .map_err(|error| Error::Other(error.into()))?;
        }
        let input = jws.signing_input();
        let request = AcmeSign {
            directory: self.0.directory.clone(),
            data: input.as_bytes().into(),
        };
        let signature = self
            .0
            .keyd
            .call(TraceId(0), &request)
            .await
            .map_err(other)?;
        Ok(jws.signed(&input, &signature))
    }

    /// RFC 8555 6.6: when too much was asked, the authority says from when on it will answer again.
    fn heed(&self, parts: &http::response::Parts) {
        if !matches!(parts.status.as_u16(), 429 | 503) {
            return;
        }
        let wait = parts.headers.get(http::header::RETRY_AFTER);
        let seconds = wait.and_then(|value| value.to_str().ok()?.trim().parse::<u64>().ok());
        if let Some(seconds) = seconds {
            let until = crate::now().saturating_add(seconds.min(7 * 86_400));
            self.0.patience.fetch_max(until, Relaxed);
        }
    }
}

impl HttpClient for Authority {
    fn request(
        &self,
        request: http::Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let authority = self.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let Ok(body) = body.collect().await;
            let body = body.to_bytes();
            authority.send(parts, body).await
        })
    }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Other(Box::new(error))
}

/// What is behind reqwest's own words.
fn plain(error: reqwest::Error) -> Error {
    let mut text = error.to_string();
    let mut inner = std::error::Error::source(&error);
    while let Some(cause) = inner {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        inner = cause.source();
    }
    Error::Other(text.into())
}

async fn bounded(response: reqwest::Response) -> Result<(http::response::Parts, Bytes), Error> {
    let (parts, body) = http::Response::<reqwest::Body>::from(response).into_parts();
    let mut response = reqwest::Response::from(http::Response::new(body));
    let mut all = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(plain)? {
        if all.len() + piece.len() > BODY_MAX {
            return Err(Error::Other("an answer of more than 512 KiB".into()));
        }
        all.extend_from_slice(&piece);
    }
    Ok((parts, all.into()))
}

/// The nonce to go on with, if the last was refused.
fn fresh_nonce(parts: &http::response::Parts, body: &[u8]) -> Option<String> {
    if parts.status != http::StatusCode::BAD_REQUEST {
        return None;
    }
    let problem: instant_acme::Problem = serde_json::from_slice(body).ok()?;
    let refused = problem.r#type.as_deref() == Some("urn:ietf:params:acme:error:badNonce");
    let nonce = parts.headers.get("replay-nonce").filter(|_| refused)?;
    nonce.to_str().ok().map(str::to_owned)
}

fn binding(config: &Config) -> Result<Option<Binding>, String> {
    let Some(file) = &config.eab_key_file else {
        return Ok(None);
    };
    let wrong = |error: String| format!("certd.eab_key_file {}: {error}", file.display());
    let length = std::fs::metadata(file).map_err(|error| wrong(error.to_string()))?;
    if length.len() > BINDING_MAX {
        return Err(wrong("this is no key".to_owned()));
    }
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    let key = BASE64URL
        .decode(text.trim().trim_end_matches('='))
        .map_err(|_| wrong("the key is not base64url".to_owned()))?;
    Ok(Some(Binding {
        id: config.eab_key_id.clone(),
        key,
    }))
}
