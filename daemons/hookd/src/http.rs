//! A filter that is asked over HTTP: a POST of JSON, and JSON for an answer. docs/hooks.md has the form.

use crate::config::{HttpConfig, Quarantine, Stage};
use crate::filter::{Answer, Trouble, View, Word};
use crate::letter::{Author, Change, Letter};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipc::api::hookd::HookAddress;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::error::Error;
use std::path::Path;
use std::time::Duration;
use types::Enhanced;

/// Octets of a file with a secret.
const SECRET_MAX: u64 = 64 * 1024;

/// The filter.
pub(crate) struct Hook {
    pub(crate) stages: Vec<Stage>,
    client: reqwest::Client,
    url: reqwest::Url,
    fields: HeaderMap,
    most: u64,
    most_back: usize,
}

impl std::fmt::Debug for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Fields may be secrets.
        write!(f, "hook {}", self.shown())
    }
}

/// What is answered.
#[derive(Debug, Deserialize)]
pub(crate) struct Reply {
    action: Action,
    #[serde(default)]
    response: Option<Response>,
    #[serde(default)]
    modifications: Vec<Modification>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Accept,
    Discard,
    Reject,
    /// As the filter's setting says.
    Quarantine,
    Junk,
    Hold,
}

impl Action {
    /// Where it is kept apart, if the answer says so.
    fn quarantine(self) -> Option<Option<Quarantine>> {
        match self {
            Self::Quarantine => Some(None),
            Self::Junk => Some(Some(Quarantine::Junk)),
            Self::Hold => Some(Some(Quarantine::Hold)),
            Self::Accept | Self::Discard | Self::Reject => None,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Response {
    status: Option<u16>,
    enhanced_status: Option<String>,
    message: Option<String>,
    disconnect: bool,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase")]
enum Modification {
    ChangeFrom {
        value: String,
        #[serde(default)]
        parameters: Map<String, Value>,
    },
    AddRecipient {
        value: String,
        #[serde(default)]
        parameters: Map<String, Value>,
    },
    DeleteRecipient {
        value: String,
    },
    ReplaceContents {
        value: String,
        #[serde(default)]
        encoding: Option<String>,
    },
    AddHeader {
        name: String,
        value: String,
    },
    InsertHeader {
        index: usize,
        name: String,
        value: String,
    },
    ChangeHeader {
        #[serde(default = "first")]
        index: usize,
        name: String,
        value: String,
    },
    DeleteHeader {
        #[serde(default = "first")]
        index: usize,
        name: String,
    },
}

fn first() -> usize {
    1
}

impl Hook {
    /// # Errors
    /// A URL, a field or a file that is none.
    pub(crate) fn new(config: &HttpConfig) -> Result<Self, String> {
        let limit = Duration::from_secs(config.timeout_s.max(1));
        let mut builder = reqwest::Client::builder()
            .timeout(limit)
            .connect_timeout(limit)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("Posthouse/", env!("CARGO_PKG_VERSION")));
        if let Some(file) = &config.ca_file {
            let wrong =
                |error: &dyn std::fmt::Display| format!("ca_file {}: {error}", file.display());
            let pem = std::fs::read(file).map_err(|error| wrong(&error))?;
            let roots =
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| wrong(&error))?;
            builder = builder.tls_certs_only(roots);
        }
        let mut fields = HeaderMap::new();
        for (name, value) in &config.headers {
            put(&mut fields, name, value.as_bytes(), false)?;
        }
        for (name, file) in &config.secret_headers {
            put(&mut fields, name, &secret(file)?, true)?;
        }
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(Self {
            stages: config.stages.clone(),
            client: builder.build().map_err(|error| error.to_string())?,
            url: reqwest::Url::parse(&config.url).map_err(|error| format!("url: {error}"))?,
            fields,
            most: config.max_message_bytes,
            most_back: config.max_response_bytes,
        })
    }

    /// The URL without what may be a secret in it.
    pub(crate) fn shown(&self) -> String {
        let mut url = self.url.clone();
        let _ = url.set_password(None);
        url.set_query(None);
        url.to_string()
    }

    /// Whether somebody answers: anything at all.
    pub(crate) async fn probe(&self) -> Result<String, Trouble> {
        let request = self.client.get(self.url.clone());
        let answer = request.send().await.map_err(|error| explain(&error))?;
        Ok(format!("answers {} to GET", answer.status().as_u16()))
    }

    /// Asks before the message is there.
    pub(crate) async fn ask(&self, stage: Stage, view: &View<'_>) -> Result<Word, Trouble> {
        let mut request = Map::new();
        request.insert("context".to_owned(), context(stage, view));
        if let Some(mail) = view.mail {
            let envelope = envelope(&mail.sender, &mail.recipients);
            request.insert("envelope".to_owned(), envelope);
        }
        let reply = self.post(&Value::Object(request)).await?;
        Ok(match word(&reply, view)? {
            Word::Go | Word::Accept => Word::Go,
            other => other,
        })
    }

    /// Asks about a message.
    pub(crate) async fn message(
        &self,
        view: &View<'_>,
        letter: &mut Letter,
        by: Author<'_>,
    ) -> Result<Word, Trouble> {
        let request = json!({
            "context": context(Stage::Data, view),
            "envelope": envelope(&letter.sender, &letter.recipients),
            "message": self.contents(letter).await?,
        });
        heed(self.post(&request).await?, view, letter, by)
    }

    async fn contents(&self, letter: &Letter) -> Result<Value, Trouble> {
        let fields: Vec<[String; 2]> = (letter.fields.iter())
            .filter(|field| !field.name().is_empty())
            .map(|field| {
                [field.name(), field.value()].map(|one| String::from_utf8_lossy(one).into_owned())
            })
            .collect();
        let size = letter.size();
        let mut message = json!({ "headers": fields, "size": size });
        if let Some(map) = message.as_object_mut() {
            if size > self.most {
                map.insert("truncated".to_owned(), Value::Bool(true));
                map.insert("contents".to_owned(), Value::String(String::new()));
            } else {
                let text = letter.text.whole().await?;
                let (encoding, contents) = match String::from_utf8(text) {
                    Ok(text) => ("utf-8", text),
                    Err(error) => ("base64", STANDARD.encode(error.as_bytes())),
                };
                map.insert("encoding".to_owned(), encoding.into());
                map.insert("contents".to_owned(), Value::String(contents));
            }
        }
        Ok(message)
    }

    async fn post(&self, request: &Value) -> Result<Reply, Trouble> {
        let octets =
            serde_json::to_vec(request).map_err(|error| Trouble::new(error.to_string()))?;
        let mut answer = self
            .client
            .post(self.url.clone())
            .headers(self.fields.clone())
            .body(octets)
            .send()
            .await
            .map_err(|error| explain(&error))?;
        if !answer.status().is_success() {
            let status = answer.status().as_u16();
            return Err(Trouble::new(format!("it answers {status}")));
        }
        let mut all = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(|error| explain(&error))? {
            if all.len() + piece.len() > self.most_back {
                return Err(Trouble::new("it answers more than is allowed"));
            }
            all.extend_from_slice(&piece);
        }
        reply(&all)
    }
}

/// Reads an answer.
pub(crate) fn reply(octets: &[u8]) -> Result<Reply, Trouble> {
    serde_json::from_slice(octets)
        .map_err(|error| Trouble::new(format!("its answer is not understood: {error}")))
}

/// Does to a message what is answered; all of it or nothing.
pub(crate) fn heed(
    reply: Reply,
    view: &View<'_>,
    letter: &mut Letter,
    by: Author<'_>,
) -> Result<Word, Trouble> {
    let word = word(&reply, view)?;
    if word != Word::Go {
        return Ok(word);
    }
    let changes: Result<Vec<Change>, Trouble> =
        reply.modifications.into_iter().map(change).collect();
    for change in changes? {
        letter.apply(change, by);
    }
    if let Some(place) = reply.action.quarantine() {
        let reason = reply.response.and_then(|response| response.message);
        letter.apply(Change::Quarantine(reason.unwrap_or_default(), place), by);
    }
    Ok(Word::Go)
}

/// Of the errors that wrap each other, the innermost says what was wrong; without the URL.
fn explain(error: &reqwest::Error) -> Trouble {
    if error.is_timeout() {
        return Trouble::new("it does not answer in time");
    }
    let mut text = "no answer".to_owned();
    let mut inner: Option<&(dyn Error + 'static)> = error.source();
    while let Some(cause) = inner {
        text = cause.to_string();
        inner = cause.source();
    }
    Trouble::new(text)
}

fn put(fields: &mut HeaderMap, name: &str, value: &[u8], secret: bool) -> Result<(), String> {
    let wrong = || format!("{name:?} cannot be a field of a request with that value");
    let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
    let mut value = HeaderValue::from_bytes(value).map_err(|_| wrong())?;
    value.set_sensitive(secret);
    fields.insert(key, value);
    Ok(())
}

fn secret(file: &Path) -> Result<Vec<u8>, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let length = std::fs::metadata(file)
        .map_err(|error| wrong(&error))?
        .len();
    if length > SECRET_MAX {
        return Err(wrong(&"is too large for a secret"));
    }
    let octets = std::fs::read(file).map_err(|error| wrong(&error))?;
    Ok(octets.trim_ascii().to_vec())
}

fn context(stage: Stage, view: &View<'_>) -> Value {
    let client = view.client;
    let mut context = json!({
        "stage": stage.name().to_uppercase(),
        "client": {
            "ip": client.address.map(|address| address.to_canonical().to_string()),
            "port": client.port,
            "ptr": view.name,
            "helo": (!view.facts.hello.is_empty()).then_some(&view.facts.hello),
        },
        "server": {
            "name": client.hostname,
            "listener": client.listener,
            "ip": client.server.map(|server| server.ip().to_canonical().to_string()),
            "port": client.server.map(|server| server.port()),
        },
        "protocol": { "version": 1 },
    });
    if let Some(map) = context.as_object_mut() {
        if let Some((login, method)) = &view.facts.login {
            map.insert(
                "sasl".to_owned(),
                json!({ "login": login, "method": method }),
            );
        }
        if let Some((version, cipher)) = &view.facts.tls {
            let bits = crate::milter::bits(cipher);
            let tls = json!({ "version": version, "cipher": cipher, "bits": bits });
            map.insert("tls".to_owned(), tls);
        }
        if let Some(mail) = view.mail {
            map.insert("queue".to_owned(), json!({ "id": mail.id }));
        }
    }
    context
}

fn envelope(sender: &HookAddress, recipients: &[HookAddress]) -> Value {
    let to: Vec<Value> = recipients.iter().map(path).collect();
    json!({ "from": path(sender), "to": to })
}

fn path(path: &HookAddress) -> Value {
    let parameters: Map<String, Value> = (path.parameters.iter())
        .map(|parameter| match parameter.split_once('=') {
            Some((name, value)) => (name.to_ascii_lowercase(), value.into()),
            None => (parameter.to_ascii_lowercase(), Value::Null),
        })
        .collect();
    json!({ "address": path.address, "parameters": parameters })
}

/// Parameters as they stand behind a path.
fn written(parameters: Map<String, Value>) -> Vec<String> {
    let one = |(name, value): (String, Value)| {
        let name = name.to_ascii_uppercase();
        match value {
            Value::Null => name,
            Value::String(text) => format!("{name}={text}"),
            other => format!("{name}={other}"),
        }
    };
    parameters.into_iter().map(one).collect()
}

/// Its action as a word; changes are not looked at.
fn word(reply: &Reply, view: &View<'_>) -> Result<Word, Trouble> {
    let response = reply.response.as_ref();
    match reply.action {
        // Before there is a message, there is nothing to keep apart.
        action if action.quarantine().is_some() && view.mail.is_none() => {
            Err(Trouble::new("it quarantines nothing"))
        }
        Action::Accept | Action::Quarantine | Action::Junk | Action::Hold => Ok(Word::Go),
        Action::Discard => Ok(Word::Discard),
        Action::Reject => {
            let status = response.and_then(|response| response.status).unwrap_or(550);
            if !(400..600).contains(&status) {
                return Err(Trouble::new(format!("it rejects with {status}")));
            }
            let class = u8::try_from(status / 100).unwrap_or(5);
            let enhanced = response
                .and_then(|response| response.enhanced_status.as_deref())
                .and_then(enhanced)
                .filter(|enhanced| enhanced.0 == class)
                .unwrap_or(Enhanced(class, 7, 1));
            let text = response.and_then(|response| response.message.as_deref());
            let mut answer = Answer::new(status, enhanced, text.unwrap_or("Refused by a filter"));
            answer.close = response.is_some_and(|response| response.disconnect);
            Ok(Word::Refuse(answer))
        }
    }
}

fn enhanced(text: &str) -> Option<Enhanced> {
    let mut parts = text.split('.');
    let found = Enhanced(
        parts.next()?.parse().ok()?,
        parts.next()?.parse().ok()?,
        parts.next()?.parse().ok()?,
    );
    parts.next().is_none().then_some(found)
}

fn change(modification: Modification) -> Result<Change, Trouble> {
    Ok(match modification {
        Modification::ChangeFrom { value, parameters } => {
            Change::Sender(bare(&value), written(parameters))
        }
        Modification::AddRecipient { value, parameters } => {
            Change::AddRecipient(bare(&value), written(parameters).join(" "))
        }
        Modification::DeleteRecipient { value } => Change::DeleteRecipient(bare(&value)),
        Modification::ReplaceContents { value, encoding } => match encoding.as_deref() {
            Some("base64") => Change::Text(
                STANDARD
                    .decode(value)
                    .map_err(|error| Trouble::new(format!("its contents: {error}")))?,
            ),
            _ => Change::Text(value.into_bytes()),
        },
        Modification::AddHeader { name, value } => {
            Change::Add(name.into_bytes(), value.into_bytes())
        }
        Modification::InsertHeader { index, name, value } => {
            Change::Insert(index, name.into_bytes(), value.into_bytes())
        }
        Modification::ChangeHeader { index, name, value } => {
            Change::Replace(index, name.into_bytes(), value.into_bytes())
        }
        Modification::DeleteHeader { index, name } => {
            Change::Replace(index, name.into_bytes(), Vec::new())
        }
    })
}

fn bare(address: &str) -> String {
    let address = address.trim();
    let inner = address
        .strip_prefix('<')
        .and_then(|text| text.strip_suffix('>'));
    inner.unwrap_or(address).to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn answers_are_read() {
        let reply: Reply = serde_json::from_str(
            r#"{"action": "accept", "modifications": [
                {"type": "addHeader", "name": "X-A", "value": "b"},
                {"type": "insertHeader", "index": 0, "name": "X-B", "value": "c"},
                {"type": "deleteHeader", "name": "X-C"},
                {"type": "changeFrom", "value": "<a@b.example>", "parameters": {"size": 5, "smtputf8": null}},
                {"type": "replaceContents", "value": "aGk=", "encoding": "base64"}]}"#,
        )
        .unwrap();
        let changes: Vec<Change> = reply
            .modifications
            .into_iter()
            .map(|one| change(one).unwrap())
            .collect();
        assert_eq!(
            changes,
            [
                Change::Add(b"X-A".to_vec(), b"b".to_vec()),
                Change::Insert(0, b"X-B".to_vec(), b"c".to_vec()),
                Change::Replace(1, b"X-C".to_vec(), Vec::new()),
                Change::Sender(
                    "a@b.example".to_owned(),
                    vec!["SIZE=5".to_owned(), "SMTPUTF8".to_owned()]
                ),
                Change::Text(b"hi".to_vec()),
            ]
        );
        for (action, place) in [
            ("accept", None),
            ("quarantine", Some(None)),
            ("junk", Some(Some(Quarantine::Junk))),
            ("hold", Some(Some(Quarantine::Hold))),
        ] {
            let reply: Reply = serde_json::from_value(json!({ "action": action })).unwrap();
            assert_eq!(reply.action.quarantine(), place, "{action}");
        }
        for wrong in [
            "{}",
            r#"{"action": "perhaps"}"#,
            "[]",
            r#"{"action": "accept", "modifications": [{"type": "x"}]}"#,
        ] {
            assert!(serde_json::from_str::<Reply>(wrong).is_err(), "{wrong}");
        }
    }
}
