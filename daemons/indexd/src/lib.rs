//! indexd: keeps a full-text index of all mail, and answers what has certain words.
//!
//! It reads new contents from the store as they come and writes them into one index below its own directory. stored's notices are
//! hints to look; what the store has is the truth. imapd asks it what has certain words, and hears how far the index is.
//!
//! The index is its own, or one on a Meilisearch server (`indexd.backend`).
//!
//! SECURITY: user `posthouse-index`. No network, but for the store's SQL and S3 servers where it is on some, and the search server if that
//! keeps the index. Reads the store, writes its index.
//! Calls stored (Subscribe). Serves imapd (Search) and `posthouse` (IndexStatus, IndexRebuild). It parses hostile mail.
//! Every term, or every search of the server, carries its account, so that an answer has contents of the account asked for only.
//!
//! STANDARDS: RFC 9051 6.4.4 (SEARCH), RFC 6203 (FUZZY).
//!
//! RECOVERY: reads the store again from where the index ends: what is committed in the index says how far it is. An index
//! that cannot be opened is moved aside and made anew. A rebuild that was under way is gone on with. A search server that is away is tried
//! again, later and later; meanwhile imapd looks itself.
#![forbid(unsafe_code)]

mod backend;
mod config;
mod entry;
mod follow;
mod index;
mod library;
mod meilisearch;
mod query;
mod reached;
mod schema;
#[cfg(test)]
mod tests;
mod words;

pub use config::{Backend, Config, Meilisearch};

use backend::Library;
use follow::Follower;
use ipc::api::indexd::{IndexFigures, IndexRebuild, IndexStatus, Search};
use ipc::api::stored::{Changed, Subscribe};
use ipc::{Fault, FaultKind, Heard, Router};
use runtime::{Failure, Needs, Setting, Start};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use store::Reader;
use tokio::sync::{Notify, Semaphore};
use types::{Role, TraceId};

/// Matches in one search.
const MATCHES_MAX: usize = 64;
/// Octets of what is looked for in one match.
const TEXT_MAX: usize = 8192;

/// The store if it lies elsewhere, the files of the search server's settings, and whether there are servers to connect to.
///
/// # Errors
/// A store, or a search server, that makes no sense.
pub fn needs(config: &Config, setting: &Setting) -> Result<Needs, Failure> {
    let store: store::Config = setting.document.section("store")?;
    let blob: blob::Config = setting.document.section("blob")?;
    let sql = store
        .url
        .as_deref()
        .is_some_and(|url| !url.starts_with("sqlite:"));
    let meilisearch = config.backend == Backend::Meilisearch;
    let mut read: Vec<_> = blob
        .root
        .iter()
        .chain(&blob.secret_key_file)
        .cloned()
        .collect();
    if meilisearch {
        config.meilisearch.check().map_err(Failure::new)?;
        read.extend(config.meilisearch.secret_key_file.clone());
        read.extend(config.meilisearch.ca_file.clone());
    }
    Ok(Needs {
        read,
        servers: meilisearch || sql || blob.kind == blob::Kind::S3,
        ..Needs::default()
    })
}

/// The index and what keeps it.
#[derive(Clone)]
pub struct Service {
    follower: Arc<Follower>,
    places: Arc<Semaphore>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "index of {} messages",
            self.follower.library.serving().documents()
        )
    }
}

fn temporary(error: impl ToString) -> Fault {
    Fault::new(FaultKind::Temporary, error.to_string())
}

impl Service {
    /// Opens the index below `home`.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn open(config: Config, home: &Path, reader: Reader) -> Result<Self, String> {
        let library = Library::open(home, &config)?;
        let places = Arc::new(Semaphore::new(config.searches.max(1)));
        let follower = Follower {
            library,
            reader,
            config,
            hint: Notify::new(),
            trouble: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            missing: AtomicU64::new(0),
        };
        Ok(Self {
            follower: Arc::new(follower),
            places,
        })
    }

    /// Follows the store until it is dropped.
    pub async fn follow(self, stored: ipc::Client) {
        let follower = Arc::clone(&self.follower);
        tokio::join!(follower.run(), self.hear(stored));
    }

    async fn hear(&self, stored: ipc::Client) {
        let mut events = stored.events::<Changed>();
        if stored.is_connected() {
            let _ = stored.call(TraceId(0), &Subscribe).await;
        }
        while let Some(heard) = events.next().await {
            if matches!(heard, Heard::Resync)
                && let Err(error) = stored.call(TraceId(0), &Subscribe).await
            {
                tracing::warn!(%error, "stored does not tell of changes now");
            }
            self.follower.hint.notify_one();
        }
    }

    /// The operations.
    pub fn router(&self) -> Router {
        let (searches, status, rebuilds) = (self.clone(), self.clone(), self.clone());
        Router::new(Role::Indexd)
            .on(move |_, call: Search| searches.clone().search(call))
            .on(move |_, _: IndexStatus| std::future::ready(Ok(status.figures())))
            .on(move |_, call: IndexRebuild| rebuilds.clone().rebuild(call))
    }

    async fn search(self, call: Search) -> Result<ipc::api::indexd::Found, Fault> {
        if call.matches.is_empty()
            || call.matches.len() > MATCHES_MAX
            || call.matches.iter().any(|one| one.text.len() > TEXT_MAX)
        {
            return Err(Fault::new(
                FaultKind::Invalid,
                "1 to 64 matches of 8192 octets at most",
            ));
        }
        let _place = self.places.acquire().await.map_err(temporary)?;
        let serving = self.follower.library.serving();
        serving.search(call).await.map_err(temporary)
    }

    fn figures(&self) -> IndexFigures {
        let library = &self.follower.library;
        let shelf = library.serving();
        let trouble = &self.follower.trouble;
        IndexFigures {
            backend: library.name().to_owned(),
            documents: shelf.documents(),
            missing: self.follower.missing.load(Ordering::Relaxed),
            bytes: library.all().iter().map(|shelf| shelf.bytes()).sum(),
            trouble: trouble
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            rebuild: library.building().map(|new| {
                let done = new.documents();
                (done, shelf.documents().max(done))
            }),
        }
    }

    async fn rebuild(self, call: IndexRebuild) -> Result<(), Fault> {
        let follower = Arc::clone(&self.follower);
        match call.account {
            Some(account) => {
                follower.forget(account).await.map_err(temporary)?;
                // Until it has been looked at, something is known to be missing.
                follower.missing.fetch_add(1, Ordering::Relaxed);
            }
            None => follower.rebuild().await.map_err(temporary)?,
        }
        follower.hint.notify_one();
        Ok(())
    }
}

/// Opens the store, which stored may still be making.
async fn open_store(start: &Start<Config>) -> Result<Reader, Failure> {
    let config: store::Config = start.section("store")?;
    let blobs: blob::Config = start.section("blob")?;
    let state = start.state_of(Role::Stored);
    let mut stopping = start.stopping();
    let mut told = false;
    loop {
        match Reader::open(&config, &blobs, &state).await {
            Ok(reader) => return Ok(reader),
            Err(error) if !told => {
                told = true;
                tracing::info!(%error, "waiting for the store");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
            _ = stopping.wait_for(|stop| *stop) => return Err(Failure::new("stopped before there was a store")),
        }
    }
}

/// Runs until it is told to stop.
///
/// # Errors
/// What keeps it from starting.
pub async fn run(start: Start<Config>) -> Result<(), Failure> {
    let reader = open_store(&start).await?;
    let service =
        Service::open(start.config().clone(), &start.state_dir(), reader).map_err(Failure::new)?;
    let told = service.clone();
    start.fact("messages", move || told.figures().documents.to_string());
    let told = service.clone();
    start.fact("trouble", move || told.figures().trouble);
    let following = tokio::spawn(service.clone().follow(start.client(Role::Stored)));
    let served = start.serve(service.router()).await;
    following.abort();
    served.map_err(|error| Failure::new(error.to_string()))
}
