//! One index on the server.

use super::api::{Api, Trouble};
use super::document::{self, key};
use crate::Config;
use crate::reached::Reached;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use store::{AccountRow, Content};
use types::{AccountId, ContentId};

/// Octets of documents in one request, about; the server takes 100 MiB unless told otherwise.
const REQUEST: usize = 16 << 20;
/// Accounts asked for in one request.
const ACCOUNTS: usize = 100;
/// Documents listed or removed in one request.
const PART: usize = 1_000;

#[derive(Default)]
struct Buffer {
    documents: Vec<Value>,
    octets: usize,
}

/// An index on the server.
pub(crate) struct Shelf {
    pub(super) api: Arc<Api>,
    pub(super) config: Arc<Config>,
    pub(super) uid: String,
    /// How far it is.
    pub reached: Reached,
    /// The server answered at the last time, and the index is ours.
    ready: AtomicBool,
    /// When the server made it: another time is another index.
    created: Mutex<String>,
    buffer: Mutex<Buffer>,
    documents: AtomicU64,
    bytes: AtomicU64,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The contents of an answer's `hits` or `results`.
fn ids<'a>(answer: &'a Value, list: &str) -> impl Iterator<Item = u64> + use<'a> {
    let all = answer.get(list).and_then(Value::as_array);
    all.into_iter()
        .flatten()
        .filter_map(|hit| hit.get("content")?.as_u64())
}

impl Shelf {
    pub(super) fn new(api: Arc<Api>, config: Arc<Config>, uid: String) -> Self {
        Self {
            api,
            config,
            uid,
            reached: Reached::default(),
            ready: AtomicBool::new(false),
            created: Mutex::default(),
            buffer: Mutex::default(),
            documents: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// A path below the index.
    pub(super) fn path(&self, rest: &str) -> String {
        format!("/indexes/{}{rest}", self.uid)
    }

    /// It is now what another one was.
    pub(super) fn take_over(&self, other: &Self) {
        for account in other.reached.accounts() {
            self.reached
                .extend([(account, other.reached.covered(account))]);
        }
    }

    /// Whether it can be asked.
    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::SeqCst)
    }

    /// Notes a failure: until the server has been looked at, nobody asks it in vain.
    pub(super) fn noted<T>(&self, done: Result<T, Trouble>) -> Result<T, String> {
        done.map_err(|error| {
            self.ready.store(false, Ordering::SeqCst);
            error.to_string()
        })
    }

    async fn made(&self) -> Result<Option<String>, Trouble> {
        match self.api.ask(Method::GET, &self.path(""), None).await {
            Ok(index) => {
                let made = index.get("createdAt").and_then(Value::as_str);
                Ok(Some(made.unwrap_or_default().to_owned()))
            }
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether it is the one that was known, and nothing has failed since.
    pub(super) async fn still_there(&self) -> Result<bool, String> {
        let made = self.noted(self.made().await)?;
        let same = made.is_some_and(|made| made == *held(&self.created));
        if same && self.is_ready() {
            return Ok(true);
        }
        // The server may have been set back meanwhile: what it has is asked anew.
        self.ready.store(false, Ordering::SeqCst);
        self.reached.clear();
        Ok(false)
    }

    /// It is there and laid out.
    pub(super) async fn opened(&self) -> Result<(), String> {
        let made = self.noted(self.made().await)?;
        *held(&self.created) = made.unwrap_or_default();
        self.noted(self.weigh().await)?;
        self.ready.store(true, Ordering::SeqCst);
        Ok(())
    }

    async fn weigh(&self) -> Result<(), Trouble> {
        let stats = self
            .api
            .ask(Method::GET, &self.path("/stats"), None)
            .await?;
        let number = |name: &str| stats.get(name).and_then(Value::as_u64).unwrap_or(0);
        // One document is the version.
        let documents = number("numberOfDocuments").saturating_sub(1);
        self.documents.store(documents, Ordering::Relaxed);
        self.bytes
            .store(number("rawDocumentDbSize"), Ordering::Relaxed);
        Ok(())
    }

    /// Asks for the highest content of each account of which it is not known.
    pub(crate) async fn learn(&self, rows: &[AccountRow]) -> Result<(), String> {
        let unknown: Vec<AccountId> = rows
            .iter()
            .map(|row| row.id)
            .filter(|id| self.reached.known(*id).is_none())
            .collect();
        for part in unknown.chunks(ACCOUNTS) {
            let query = |account: &AccountId| {
                json!({
                    "indexUid": self.uid, "q": "", "filter": format!("account = {}", account.0),
                    "sort": ["content:desc"], "limit": 1, "attributesToRetrieve": ["content"],
                })
            };
            let asked = json!({ "queries": part.iter().map(query).collect::<Vec<_>>() });
            let answer = self
                .api
                .ask(Method::POST, "/multi-search", Some(&asked))
                .await;
            let answer = self.noted(answer)?;
            let results = answer.get("results").and_then(Value::as_array);
            let results = results.filter(|results| results.len() == part.len());
            let Some(results) = results else {
                return self.noted(Err(Trouble::new("an answer with results missing")));
            };
            for (account, result) in part.iter().zip(results) {
                let highest = ids(result, "hits").next().unwrap_or(0);
                self.reached.extend([(*account, ContentId(highest))]);
            }
        }
        Ok(())
    }

    async fn flush(&self) -> Result<(), String> {
        let documents = std::mem::take(&mut *held(&self.buffer)).documents;
        if documents.is_empty() {
            return Ok(());
        }
        let (path, body) = (self.path("/documents"), Value::Array(documents));
        self.noted(self.api.write(Method::POST, &path, Some(&body)).await)
    }

    /// Takes contents in; they can be found after [`Self::commit`]. Returns how many wait for that.
    pub(crate) async fn add(
        self: Arc<Self>,
        account: AccountId,
        contents: Vec<Content>,
    ) -> Result<u64, String> {
        let mut rest = contents;
        while !rest.is_empty() {
            let shelf = Arc::clone(&self);
            let (left, full) = tokio::task::spawn_blocking(move || shelf.gather(account, rest))
                .await
                .map_err(|error| error.to_string())?;
            rest = left;
            if full {
                self.flush().await?;
            }
        }
        Ok(held(&self.buffer).documents.len() as u64)
    }

    /// Puts contents into the buffer until it is full; returns those that are left.
    fn gather(&self, account: AccountId, mut contents: Vec<Content>) -> (Vec<Content>, bool) {
        let mut taken = 0;
        for content in &contents {
            let document = document::document(&self.config, account, content);
            let octets = document.to_string().len();
            let mut buffer = held(&self.buffer);
            buffer.octets += octets;
            buffer.documents.push(document);
            taken += 1;
            if buffer.octets >= REQUEST {
                return (contents.split_off(taken), true);
            }
        }
        (Vec::new(), false)
    }

    /// Writes what has gathered, and notes what each account is covered to.
    pub(crate) async fn commit(&self, reached: Vec<(AccountId, ContentId)>) -> Result<(), String> {
        self.flush().await?;
        if !reached.is_empty() {
            self.reached.extend(reached);
            self.noted(self.weigh().await)?;
        }
        Ok(())
    }

    /// Removes contents.
    pub(crate) async fn remove(
        &self,
        account: AccountId,
        contents: &[ContentId],
    ) -> Result<(), String> {
        let path = self.path("/documents/delete-batch");
        for part in contents.chunks(PART) {
            let keys: Vec<String> = part.iter().map(|id| key(account, *id)).collect();
            let keys = json!(keys);
            self.noted(self.api.write(Method::POST, &path, Some(&keys)).await)?;
        }
        self.noted(self.weigh().await)
    }

    /// Removes an account. What waits to be written is read again.
    pub(crate) async fn forget(&self, account: AccountId) -> Result<(), String> {
        self.reached.forget(account);
        *held(&self.buffer) = Buffer::default();
        let path = self.path("/documents/delete");
        let which = json!({ "filter": format!("account = {}", account.0) });
        self.noted(self.api.write(Method::POST, &path, Some(&which)).await)?;
        // It is known to be gone: it need not be asked for.
        self.reached.extend([(account, ContentId(0))]);
        self.noted(self.weigh().await)
    }

    pub(super) async fn fetch(&self, body: &Value) -> Result<Value, String> {
        let path = self.path("/documents/fetch");
        self.noted(self.api.ask(Method::POST, &path, Some(body)).await)
    }

    /// Accounts that it has, but are not among these; not always all of them.
    pub(crate) async fn strangers(
        &self,
        known: &HashSet<AccountId>,
    ) -> Result<Vec<AccountId>, String> {
        let known: Vec<String> = known.iter().map(|account| account.0.to_string()).collect();
        let filter = format!("account EXISTS AND account NOT IN [{}]", known.join(", "));
        let body = json!({ "filter": filter, "fields": ["account"], "limit": PART });
        let answer = self.fetch(&body).await?;
        let all = answer.get("results").and_then(Value::as_array);
        let found: HashSet<u64> = all
            .into_iter()
            .flatten()
            .filter_map(|document| document.get("account")?.as_u64())
            .collect();
        Ok(found.into_iter().map(AccountId).collect())
    }

    /// How much it has of an account.
    pub(crate) async fn count(&self, account: AccountId) -> Result<u64, String> {
        let filter = format!("account = {}", account.0);
        let body = json!({ "filter": filter, "fields": ["content"], "limit": 0 });
        let answer = self.fetch(&body).await?;
        let total = answer.get("total").and_then(Value::as_u64);
        match total {
            Some(total) => Ok(total),
            None => self.noted(Err(Trouble::new("an answer without a total"))),
        }
    }

    /// What it has of an account.
    pub(crate) async fn contents(&self, account: AccountId) -> Result<Vec<ContentId>, String> {
        let (mut all, mut offset) = (Vec::new(), 0);
        loop {
            let body = json!({
                "filter": format!("account = {}", account.0), "fields": ["content"],
                "limit": PART * 10, "offset": offset,
            });
            let answer = self.fetch(&body).await?;
            let before = all.len();
            all.extend(ids(&answer, "results").map(ContentId));
            if all.len() - before < PART * 10 {
                return Ok(all);
            }
            offset = all.len();
        }
    }

    /// Contents that can be found.
    pub(crate) fn documents(&self) -> u64 {
        self.documents.load(Ordering::Relaxed)
    }

    /// Octets of the documents on the server.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}
