//! The database, opened when it is first needed, and what is common to all that use it.

use crate::schema::{COMPONENT, MIGRATIONS};
use ipc::{Fault, FaultKind};
use sql::{Db, Error, Options, args};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}

/// The tables. One process writes them.
#[derive(Debug)]
pub(crate) struct Store {
    url: String,
    db: OnceCell<Db>,
    next_out: AtomicU64,
    next_in: AtomicU64,
    /// Held by whoever writes: rows are looked for, then changed.
    writing: Mutex<()>,
}

impl Store {
    pub(crate) fn new(url: String) -> Self {
        Self {
            url,
            db: OnceCell::new(),
            next_out: AtomicU64::new(1),
            next_in: AtomicU64::new(1),
            writing: Mutex::new(()),
        }
    }

    /// The database, opened and migrated.
    pub(crate) async fn db(&self) -> Result<&Db, Error> {
        self.db
            .get_or_try_init(|| async {
                let options = Options {
                    max_connections: 3,
                    mmap_mib: 0,
                    cache_kib: 2048,
                    ..Options::writer()
                };
                let db = Db::open(&self.url, &options).await?;
                sql::migrate(&db, COMPONENT, MIGRATIONS).await?;
                for (table, next) in [("report_out", &self.next_out), ("report_in", &self.next_in)]
                {
                    let text = format!("SELECT COALESCE(MAX(id), 0) FROM {table}");
                    let highest = db.fetch_optional(&text, args![]).await?;
                    let highest = highest.map_or(Ok(0), |row| row.u64(0))?;
                    next.fetch_max(highest + 1, Ordering::Relaxed);
                }
                Ok(db)
            })
            .await
    }

    /// Waits until nobody else writes.
    pub(crate) async fn write(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().await
    }

    /// A number for a report of ours.
    pub(crate) fn next_out(&self) -> u64 {
        self.next_out.fetch_add(1, Ordering::Relaxed)
    }

    /// A number for a report of others.
    pub(crate) fn next_in(&self) -> u64 {
        self.next_in.fetch_add(1, Ordering::Relaxed)
    }
}

/// What a caller is told of the database.
pub(crate) fn fault(error: Error) -> Fault {
    let kind = if error.is_temporary() {
        FaultKind::Temporary
    } else {
        FaultKind::Internal
    };
    Fault::new(kind, format!("the reports' database: {error}"))
}

/// What strangers wrote, made fit for a column and for a terminal: no control characters, and not too long.
pub(crate) fn clean(text: &str, most: usize) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(most)
        .collect::<String>()
        .trim()
        .to_owned()
}

/// A column of blobs: a version and postcard.
pub(crate) fn pack<T: serde::Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![1]).unwrap_or_default()
}

/// The inverse of [`pack`].
pub(crate) fn unpack<T: serde::de::DeserializeOwned>(octets: &[u8]) -> Option<T> {
    match octets.split_first() {
        Some((1, rest)) => postcard::from_bytes(rest).ok(),
        _ => None,
    }
}
