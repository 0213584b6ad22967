//! The index on a Meilisearch server.
//!
//! One index holds all accounts, and each search is limited to one of them: thousands of indexes are not what the server is made
//! for. How far it is stands nowhere, as with the embedded index: contents of an account are written in ascending order, each part
//! when the one before has succeeded, so that the highest one there says it. A rebuild is a second index, exchanged with the first
//! when it has all. A document `version` says that an index was made by these rules; one without it is made anew.

mod api;
mod document;
mod search;
mod shelf;
#[cfg(test)]
mod tests;

pub(crate) use shelf::Shelf;

use crate::{Config, words};
use api::{Api, Trouble};
use reqwest::Method;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Changes whenever a content gives another document.
const LAYOUT: u32 = 1;
/// The key of the document that says which rules an index follows.
const VERSION: &str = "version";

#[derive(Clone)]
struct Shelves {
    serving: Arc<Shelf>,
    building: Option<Arc<Shelf>>,
}

/// All indexes on the server.
pub(crate) struct Library {
    api: Arc<Api>,
    config: Arc<Config>,
    shelves: Mutex<Shelves>,
}

fn version() -> String {
    format!("{LAYOUT}.{}", words::VERSION)
}

impl Library {
    /// Reads the settings; the server is asked later.
    pub(crate) fn open(config: &Config) -> Result<Self, String> {
        let api = Arc::new(Api::new(&config.meilisearch)?);
        let config = Arc::new(config.clone());
        let uid = format!("{}_mail", config.meilisearch.index);
        let serving = Shelf::new(Arc::clone(&api), Arc::clone(&config), uid);
        Ok(Self {
            api,
            config,
            shelves: Mutex::new(Shelves {
                serving: Arc::new(serving),
                building: None,
            }),
        })
    }

    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn uid(&self) -> String {
        format!("{}_mail", self.config.meilisearch.index)
    }

    fn uid_new(&self) -> String {
        format!("{}_mail_new", self.config.meilisearch.index)
    }

    fn shelf(&self, uid: String) -> Arc<Shelf> {
        Arc::new(Shelf::new(
            Arc::clone(&self.api),
            Arc::clone(&self.config),
            uid,
        ))
    }

    /// The one that answers.
    pub(crate) fn serving(&self) -> Arc<Shelf> {
        Arc::clone(&self.shelves().serving)
    }

    /// The one that is being made.
    pub(crate) fn building(&self) -> Option<Arc<Shelf>> {
        self.shelves().building.clone()
    }

    /// Makes sure that the index is there and is the one that was known, and goes on with a rebuild that was begun.
    pub(crate) async fn prepare(&self) -> Result<(), String> {
        let serving = self.serving();
        if serving.still_there().await? {
            return match self.building() {
                Some(new) if !new.still_there().await? => self.begin(true).await,
                _ => Ok(()),
            };
        }
        // The server is new, was away, or has lost what it had.
        let known = self.version(&self.uid()).await?;
        if known.is_none() {
            self.create(&self.uid()).await?;
        }
        self.lay_out(&self.uid()).await?;
        let outdated = known.is_some_and(|known| known != version());
        let new = self.version(&self.uid_new()).await?;
        if outdated || new.as_ref() == Some(&version()) {
            self.begin(outdated).await?;
        } else if new.is_some() {
            // What was exchanged and then not removed.
            self.remove(&self.uid_new()).await?;
        }
        serving.opened().await
    }

    /// Begins a new index beside the present one, or goes on with one that was begun.
    pub(crate) async fn rebuild(&self) -> Result<(), String> {
        if self.building().is_some() {
            return Ok(());
        }
        self.begin(true).await
    }

    /// `make`: the second index need not be there yet.
    async fn begin(&self, make: bool) -> Result<(), String> {
        let uid = self.uid_new();
        if make && self.version(&uid).await?.is_none_or(|is| is != version()) {
            self.remove(&uid).await?;
            self.create(&uid).await?;
        }
        self.lay_out(&uid).await?;
        let new = self.shelf(uid);
        new.opened().await?;
        self.shelves().building = Some(new);
        Ok(())
    }

    /// The new index has all: it serves from now on.
    pub(crate) async fn switch(&self, ready: &Arc<Shelf>) -> Result<(), String> {
        if !self.building().is_some_and(|new| Arc::ptr_eq(&new, ready)) {
            return Ok(());
        }
        let (old, new) = (self.uid(), self.uid_new());
        // If this ends before the old one is removed, it is not taken for a rebuild.
        let path = format!("/indexes/{old}/documents/{VERSION}");
        self.api.write(Method::DELETE, &path, None).await?;
        let swap = json!([{ "indexes": [old, new] }]);
        self.api
            .write(Method::POST, "/swap-indexes", Some(&swap))
            .await?;
        let serving = self.shelf(old);
        serving.take_over(ready);
        serving.opened().await?;
        {
            let mut shelves = self.shelves();
            shelves.serving = serving;
            shelves.building = None;
        }
        tracing::info!("the new index serves");
        if let Err(error) = self.remove(&new).await {
            tracing::warn!(%error, "the old index stays until the next start");
        }
        Ok(())
    }

    /// Which rules an index was made by: empty if by others, `None` if there is no such index.
    async fn version(&self, uid: &str) -> Result<Option<String>, Trouble> {
        let path = format!("/indexes/{uid}/documents/{VERSION}");
        match self.api.ask(Method::GET, &path, None).await {
            Ok(document) => {
                let rules = document.get("rules").and_then(Value::as_str);
                Ok(Some(rules.unwrap_or_default().to_owned()))
            }
            Err(error) if error.is("index_not_found") => Ok(None),
            Err(error) if error.is_missing() => Ok(Some(String::new())),
            Err(error) => Err(error),
        }
    }

    async fn create(&self, uid: &str) -> Result<(), Trouble> {
        let index = json!({ "uid": uid, "primaryKey": "key" });
        match self.api.write(Method::POST, "/indexes", Some(&index)).await {
            Err(error) if !error.is("index_already_exists") => return Err(error),
            _ => {}
        }
        let path = format!("/indexes/{uid}/documents");
        let rules = json!([{ "key": VERSION, "rules": version() }]);
        self.api.write(Method::POST, &path, Some(&rules)).await
    }

    async fn lay_out(&self, uid: &str) -> Result<(), Trouble> {
        let path = format!("/indexes/{uid}/settings");
        let settings = document::settings(&self.config);
        self.api.write(Method::PATCH, &path, Some(&settings)).await
    }

    async fn remove(&self, uid: &str) -> Result<(), Trouble> {
        let path = format!("/indexes/{uid}");
        match self.api.write(Method::DELETE, &path, None).await {
            Err(error) if !error.is_missing() => Err(error),
            _ => Ok(()),
        }
    }
}
