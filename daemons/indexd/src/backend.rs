//! What keeps the index: indexd itself, or a Meilisearch server. The loop that follows the store knows only this.

use crate::config;
use crate::meilisearch;
use crate::reached::Reached;
use crate::{Config, index, library, query};
use ipc::api::indexd::{Found, Search};
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use store::{AccountRow, Content};
use types::{AccountId, ContentId};

/// Runs what waits for the disk where it holds nobody up.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> tantivy::Result<T> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// All indexes: the one that serves, and one that may be made beside it.
pub(crate) enum Library {
    /// Below indexd's directory.
    Embedded(Box<library::Library>),
    /// On a server.
    Meilisearch(meilisearch::Library),
}

/// One index.
#[derive(Clone)]
pub(crate) enum Shelf {
    /// Below indexd's directory.
    Embedded(Arc<index::Shelf>),
    /// On a server.
    Meilisearch(Arc<meilisearch::Shelf>),
}

impl Library {
    /// Opens what is there; a server is not asked yet.
    pub(crate) fn open(home: &Path, config: &Config) -> Result<Self, String> {
        Ok(match config.backend {
            config::Backend::Embedded => {
                Self::Embedded(Box::new(library::Library::open(home, config)?))
            }
            config::Backend::Meilisearch => Self::Meilisearch(meilisearch::Library::open(config)?),
        })
    }

    /// As `posthouse index status` calls it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Embedded(_) => "embedded",
            Self::Meilisearch(_) => "meilisearch",
        }
    }

    /// Makes sure that there is something to write to. Called before each round.
    pub(crate) async fn prepare(&self) -> Result<(), String> {
        match self {
            Self::Embedded(_) => Ok(()),
            Self::Meilisearch(library) => library.prepare().await,
        }
    }

    /// The one that answers.
    pub(crate) fn serving(&self) -> Shelf {
        match self {
            Self::Embedded(library) => Shelf::Embedded(library.serving()),
            Self::Meilisearch(library) => Shelf::Meilisearch(library.serving()),
        }
    }

    /// The one that is being made.
    pub(crate) fn building(&self) -> Option<Shelf> {
        match self {
            Self::Embedded(library) => library.building().map(Shelf::Embedded),
            Self::Meilisearch(library) => library.building().map(Shelf::Meilisearch),
        }
    }

    /// All that follow the store.
    pub(crate) fn all(&self) -> Vec<Shelf> {
        std::iter::once(self.serving())
            .chain(self.building())
            .collect()
    }

    /// Begins a new index beside the present one, or goes on with one that was begun.
    pub(crate) async fn rebuild(&self) -> Result<(), String> {
        match self {
            Self::Embedded(library) => library.rebuild(),
            Self::Meilisearch(library) => library.rebuild().await,
        }
    }

    /// The new index has all: it serves from now on.
    pub(crate) async fn switch(&self, ready: &Shelf) -> Result<(), String> {
        match (self, ready) {
            (Self::Embedded(library), Shelf::Embedded(ready)) => library.switch(ready),
            (Self::Meilisearch(library), Shelf::Meilisearch(ready)) => library.switch(ready).await,
            _ => Err("an index of another kind".to_owned()),
        }
    }
}

impl Shelf {
    /// How far it is.
    pub(crate) fn reached(&self) -> &Reached {
        match self {
            Self::Embedded(shelf) => &shelf.reached,
            Self::Meilisearch(shelf) => &shelf.reached,
        }
    }

    /// Learns how far it is with these accounts.
    pub(crate) async fn learn(&self, rows: &[AccountRow]) -> Result<(), String> {
        match self {
            Self::Embedded(_) => Ok(()),
            Self::Meilisearch(shelf) => shelf.learn(rows).await,
        }
    }

    /// Takes contents in, each once however often it is given. They can be found after [`Self::commit`]. Returns how many
    /// wait for that.
    pub(crate) async fn add(
        &self,
        account: AccountId,
        contents: Vec<Content>,
    ) -> Result<u64, String> {
        match self.clone() {
            Self::Embedded(shelf) => aside(move || shelf.add(account, &contents)).await,
            Self::Meilisearch(shelf) => shelf.add(account, contents).await,
        }
    }

    /// Writes what has gathered, and notes what each account is covered to.
    pub(crate) async fn commit(&self, reached: Vec<(AccountId, ContentId)>) -> Result<(), String> {
        match self.clone() {
            Self::Embedded(shelf) => aside(move || shelf.commit(&reached)).await,
            Self::Meilisearch(shelf) => shelf.commit(reached).await,
        }
    }

    /// Removes contents, for good.
    pub(crate) async fn remove(
        &self,
        account: AccountId,
        contents: Vec<ContentId>,
    ) -> Result<(), String> {
        match self.clone() {
            Self::Embedded(shelf) => {
                aside(move || {
                    shelf.remove(account, &contents)?;
                    shelf.commit(&[])
                })
                .await
            }
            Self::Meilisearch(shelf) => shelf.remove(account, &contents).await,
        }
    }

    /// Removes an account, at once and for good.
    pub(crate) async fn forget(&self, account: AccountId) -> Result<(), String> {
        match self.clone() {
            Self::Embedded(shelf) => aside(move || shelf.forget(account)).await,
            Self::Meilisearch(shelf) => shelf.forget(account).await,
        }
    }

    /// Accounts that it has, but are not among these; not always all of them.
    pub(crate) async fn strangers(
        &self,
        known: &HashSet<AccountId>,
    ) -> Result<Vec<AccountId>, String> {
        match self {
            Self::Embedded(shelf) => {
                let mut all = shelf.reached.accounts();
                all.retain(|account| !known.contains(account));
                Ok(all)
            }
            Self::Meilisearch(shelf) => shelf.strangers(known).await,
        }
    }

    /// How much it has of an account.
    pub(crate) async fn count(&self, account: AccountId) -> Result<u64, String> {
        match self.clone() {
            Self::Embedded(shelf) => {
                aside(move || shelf.contents(account).map(|all| all.len() as u64)).await
            }
            Self::Meilisearch(shelf) => shelf.count(account).await,
        }
    }

    /// What it has of an account.
    pub(crate) async fn contents(&self, account: AccountId) -> Result<Vec<ContentId>, String> {
        match self.clone() {
            Self::Embedded(shelf) => aside(move || shelf.contents(account)).await,
            Self::Meilisearch(shelf) => shelf.contents(account).await,
        }
    }

    /// Gives the memory for writing back if nothing was written for a while.
    pub(crate) async fn rest(&self, idle: Duration) {
        if let Self::Embedded(shelf) = self.clone() {
            let _ = aside(move || shelf.rest(idle)).await;
        }
    }

    /// Contents that can be found.
    pub(crate) fn documents(&self) -> u64 {
        match self {
            Self::Embedded(shelf) => shelf.documents(),
            Self::Meilisearch(shelf) => shelf.documents(),
        }
    }

    /// Octets on disk.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Embedded(shelf) => shelf.bytes(),
            Self::Meilisearch(shelf) => shelf.bytes(),
        }
    }

    /// Answers a search.
    pub(crate) async fn search(&self, call: Search) -> Result<Found, String> {
        match self.clone() {
            Self::Embedded(shelf) => aside(move || query::search(&shelf, &call)).await,
            Self::Meilisearch(shelf) => shelf.search(&call).await,
        }
    }
}
