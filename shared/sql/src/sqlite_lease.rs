//! Connections of SQLite between queries.
//!
//! sqlx's pool tries each connection in a task of its own when it comes back, which costs more than a small query. A
//! connection of SQLite cannot break like one to a server, and its thread takes one command after the other, so that here it simply
//! waits for the next one.

use crate::Error;
use sqlx::Sqlite;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnection, SqlitePool};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Mutex as Turns, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

/// The connections of one database.
pub(crate) struct Leases {
    /// Makes connections, and closes them. It may have twice as many as we lease: streams take theirs from it directly.
    pub(crate) pool: SqlitePool,
    idle: Mutex<Vec<(Instant, PoolConnection<Sqlite>)>>,
    places: Arc<Semaphore>,
    writers: Arc<Turns<()>>,
    timeout: Duration,
    keep: Duration,
}

/// The right to write, until it is dropped.
pub(crate) type Turn = OwnedMutexGuard<()>;

impl Leases {
    pub(crate) fn new(pool: SqlitePool, most: u32, timeout: Duration, keep: Duration) -> Self {
        Self {
            pool,
            idle: Mutex::default(),
            places: Arc::new(Semaphore::new(usize::try_from(most).unwrap_or(1).max(1))),
            writers: Arc::default(),
            timeout,
            keep,
        }
    }

    /// Waits until no one else of this process writes. SQLite lets one write at a time, and has the others sleep and try again,
    /// for up to a tenth of a second each time; here the next one goes on at once, in the order in which they came.
    pub(crate) async fn turn(&self) -> Result<Turn, Error> {
        let turn = Arc::clone(&self.writers).lock_owned();
        tokio::time::timeout(self.timeout, turn)
            .await
            .map_err(|_| sqlx::Error::PoolTimedOut.into())
    }

    /// As [`Leases::turn`], if this statement writes.
    pub(crate) async fn turn_for(&self, statement: &str) -> Result<Option<Turn>, Error> {
        let verb = statement
            .split_ascii_whitespace()
            .next()
            .unwrap_or_default();
        if ["SELECT", "EXPLAIN", "PRAGMA"].contains(&verb) {
            return Ok(None);
        }
        self.turn().await.map(Some)
    }

    /// The connection used last, whose cache is warm, or a new one.
    pub(crate) async fn acquire(self: &Arc<Self>) -> Result<Lease, Error> {
        let place = Arc::clone(&self.places).acquire_owned();
        let Ok(Ok(place)) = tokio::time::timeout(self.timeout, place).await else {
            return Err(sqlx::Error::PoolTimedOut.into());
        };
        let known = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let known = idle.pop();
            // The oldest stand first.
            if idle
                .first()
                .is_some_and(|(since, _)| since.elapsed() > self.keep)
            {
                close(idle.remove(0).1);
            }
            known
        };
        let connection = match known {
            Some((_, connection)) => connection,
            None => self.pool.acquire().await?,
        };
        Ok(Lease {
            connection: Some(connection),
            home: Arc::clone(self),
            _place: place,
        })
    }

    pub(crate) async fn close(&self) {
        self.places.close();
        self.close_idle();
        self.pool.close().await;
    }

    fn close_idle(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, connection) in idle.drain(..) {
            close(connection);
        }
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        self.close_idle();
    }
}

/// Ends a connection's thread, which rolls back and closes. sqlx's own way needs a runtime, which may be gone.
fn close(connection: PoolConnection<Sqlite>) {
    drop(connection.detach());
}

/// A connection for one query or transaction; it goes back when dropped.
pub(crate) struct Lease {
    connection: Option<PoolConnection<Sqlite>>,
    home: Arc<Leases>,
    _place: OwnedSemaphorePermit,
}

impl Lease {
    /// It will be closed instead: nobody knows what state it is in.
    pub(crate) fn spoil(&mut self) {
        if let Some(connection) = self.connection.take() {
            close(connection);
        }
    }

    /// The connection, if it is not spoiled.
    pub(crate) fn get(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
        match &mut self.connection {
            Some(connection) => Ok(&mut *connection),
            None => Err(sqlx::Error::PoolClosed),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(connection) = self.connection.take() else {
            return;
        };
        let mut idle = self
            .home
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if self.home.pool.is_closed() {
            close(connection);
        } else {
            idle.push((Instant::now(), connection));
        }
    }
}
