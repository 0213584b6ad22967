//! Connections kept for the next message to the same host.

use crate::config::Config;
use crate::connection::{Connection, Endpoint, Policy};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

type Key = (Endpoint, Policy);

struct Idle {
    connection: Connection,
    since: Instant,
}

/// Idle connections by host and by how they are secured: mail that needs more never goes over one that has less.
#[derive(Default)]
pub(crate) struct Pool {
    idle: Mutex<HashMap<Key, Vec<Idle>>>,
}

impl Pool {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Vec<Idle>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one used last, if it is young enough.
    pub(crate) fn take(
        &self,
        endpoint: &Endpoint,
        policy: &Policy,
        config: &Config,
    ) -> Option<Connection> {
        let limit = Duration::from_secs(config.idle_timeout);
        let key = (endpoint.clone(), policy.clone());
        let mut idle = self.lock();
        let list = idle.get_mut(&key)?;
        let found = list.pop();
        if list.is_empty() {
            idle.remove(&key);
        }
        found
            .filter(|found| found.since.elapsed() < limit)
            .map(|found| found.connection)
    }

    /// Keeps it, or gives it back to be closed.
    pub(crate) fn keep(
        &self,
        endpoint: &Endpoint,
        policy: &Policy,
        connection: Connection,
        config: &Config,
    ) -> Option<Connection> {
        if config.idle_timeout == 0 || !connection.is_fresh(config) {
            return Some(connection);
        }
        let mut idle = self.lock();
        if idle.values().map(Vec::len).sum::<usize>() >= config.max_idle {
            return Some(connection);
        }
        let list = idle.entry((endpoint.clone(), policy.clone())).or_default();
        list.push(Idle {
            connection,
            since: Instant::now(),
        });
        None
    }

    /// Takes out those that have waited too long; with a limit of zero, all.
    pub(crate) fn expired(&self, limit: Duration) -> Vec<Connection> {
        let mut idle = self.lock();
        let mut expired = Vec::new();
        idle.retain(|_, list| {
            let (old, young) = std::mem::take(list)
                .into_iter()
                .partition(|idle| idle.since.elapsed() >= limit);
            let old: Vec<Idle> = old;
            expired.extend(old.into_iter().map(|idle| idle.connection));
            *list = young;
            !list.is_empty()
        });
        expired
    }
}
