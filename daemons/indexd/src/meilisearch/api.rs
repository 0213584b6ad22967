//! Meilisearch's HTTP interface: requests, and waiting for tasks.
//!
//! What it writes, it writes later: the answer to a request is the number of a task. Only a task that has succeeded counts.

use crate::Meilisearch;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::time::{Duration, Instant};

/// Octets of an answer.
const ANSWER_MAX: usize = 128 << 20;
/// How long to wait before asking for a task again, at first and at most.
const POLL: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Why the server did not do it.
#[derive(Debug)]
pub(crate) struct Trouble {
    /// The server's name for it; empty if it did not answer.
    code: String,
    text: String,
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Meilisearch: {}", self.text)
    }
}

impl From<Trouble> for String {
    fn from(trouble: Trouble) -> Self {
        trouble.to_string()
    }
}

impl Trouble {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self {
            code: String::new(),
            text: text.into(),
        }
    }

    /// An error object as the server gives it.
    fn of(error: &Value, otherwise: &str) -> Self {
        let part = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default();
        let (code, message) = (part("code"), part("message"));
        let text = match (code, message) {
            ("", "") => otherwise.to_owned(),
            ("invalid_api_key" | "missing_authorization_header", _) => {
                format!("{message} ({code}): look at indexd.meilisearch.secret_key_file")
            }
            _ => format!("{message} ({code})"),
        };
        Self {
            code: code.to_owned(),
            text,
        }
    }

    pub(crate) fn is(&self, code: &str) -> bool {
        self.code == code
    }

    /// There is no such index, or no such document in it.
    pub(crate) fn is_missing(&self) -> bool {
        self.is("index_not_found") || self.is("document_not_found")
    }
}

/// The server.
pub(crate) struct Api {
    client: reqwest::Client,
    url: String,
    key: Option<String>,
    patience: Duration,
}

fn key(config: &Meilisearch) -> Result<Option<String>, String> {
    let key = match &config.secret_key_file {
        None => config.secret_key.0.clone(),
        Some(file) => std::fs::read_to_string(file).map_err(|error| {
            format!(
                "indexd.meilisearch.secret_key_file {}: {error}",
                file.display()
            )
        })?,
    };
    let key = key.trim();
    Ok((!key.is_empty()).then(|| key.to_owned()))
}

impl Api {
    pub(crate) fn new(config: &Meilisearch) -> Result<Self, String> {
        config.check()?;
        let limit = Duration::from_millis(config.timeout_ms.max(1));
        let mut builder = reqwest::Client::builder()
            .timeout(limit)
            .connect_timeout(limit)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("Posthouse/", env!("CARGO_PKG_VERSION")));
        if let Some(file) = &config.ca_file {
            let wrong =
                |error: String| format!("indexd.meilisearch.ca_file {}: {error}", file.display());
            let pem = std::fs::read(file).map_err(|error| wrong(error.to_string()))?;
            let authorities = reqwest::Certificate::from_pem_bundle(&pem)
                .map_err(|error| wrong(error.to_string()))?;
            builder = builder.tls_certs_merge(authorities);
        }
        Ok(Self {
            client: builder.build().map_err(|error| error.to_string())?,
            url: config.url.trim_end_matches('/').to_owned(),
            key: key(config)?,
            patience: Duration::from_secs(config.task_timeout_s.max(1)),
        })
    }

    /// Asks, and gives the answer.
    pub(crate) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Trouble> {
        let away = |error: reqwest::Error| {
            let mut text = error.without_url().to_string();
            text.insert_str(0, "no answer: ");
            Trouble::new(text)
        };
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let mut response = request.send().await.map_err(away)?;
        let status = response.status();
        let mut octets = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(away)? {
            if octets.len() + chunk.len() > ANSWER_MAX {
                return Err(Trouble::new("the answer is too large"));
            }
            octets.extend_from_slice(&chunk);
        }
        if status == StatusCode::NO_CONTENT {
            return Ok(Value::Null);
        }
        let value = serde_json::from_slice(&octets);
        if !status.is_success() {
            let value = value.unwrap_or(Value::Null);
            return Err(Trouble::of(&value, &format!("it answers {status}")));
        }
        value.map_err(|error| Trouble::new(format!("an answer that is no JSON: {error}")))
    }

    /// Asks for something to be written, and waits until it is.
    pub(crate) async fn write(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(), Trouble> {
        let begun = Instant::now();
        let answer = self.ask(method, path, body).await?;
        let Some(task) = answer.get("taskUid").and_then(Value::as_u64) else {
            return Err(Trouble::new("an answer without a task"));
        };
        let mut pause = POLL.0;
        loop {
            let state = self
                .ask(Method::GET, &format!("/tasks/{task}"), None)
                .await?;
            match state.get("status").and_then(Value::as_str) {
                Some("succeeded") => return Ok(()),
                Some("failed") => {
                    let error = state.get("error").unwrap_or(&Value::Null);
                    return Err(Trouble::of(error, "a task failed"));
                }
                Some("canceled") => {
                    return Err(Trouble::new(format!("task {task} was cancelled there")));
                }
                _ if begun.elapsed() >= self.patience => {
                    return Err(Trouble::new(format!(
                        "task {task} is not done after indexd.meilisearch.task_timeout_s"
                    )));
                }
                _ => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(POLL.1);
        }
    }
}
