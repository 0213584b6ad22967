//! The section `[store]`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;

/// Where the mail store's tables are.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `sqlite:///path/file.db`, `postgres://user:password@host/database` or `mysql://user:password@host/database`. If it is not
    /// given: `mail.db` in the store's state directory, in SQLite.
    pub url: Option<String>,
    /// Connections of each daemon at most. 4.
    pub connections: u32,
    /// Seconds to wait for a connection before a call fails as temporary. 10.
    pub timeout_seconds: u64,
    /// SQLite: page cache of each connection in KiB. 4,096.
    pub cache_kib: u32,
    /// SQLite: how much of the file is mapped into memory, in MiB; shared by all daemons. 256.
    pub mmap_mib: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: None,
            connections: 4,
            timeout_seconds: 10,
            cache_kib: 4096,
            mmap_mib: 256,
        }
    }
}

/// Without the URL's password.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("url", &self.url.as_ref().map(|_| "***"))
            .field("connections", &self.connections)
            .field("timeout_seconds", &self.timeout_seconds)
            .field("cache_kib", &self.cache_kib)
            .field("mmap_mib", &self.mmap_mib)
            .finish()
    }
}

impl Config {
    /// The URL; `state` is stored's state directory.
    pub fn url(&self, state: &Path) -> String {
        self.url
            .clone()
            .unwrap_or_else(|| format!("sqlite://{}", state.join("mail.db").display()))
    }

    pub(crate) fn options(&self, read_only: bool) -> sql::Options {
        sql::Options {
            max_connections: self.connections,
            read_only,
            create: !read_only,
            timeout: std::time::Duration::from_secs(self.timeout_seconds.max(1)),
            cache_kib: self.cache_kib,
            mmap_mib: self.mmap_mib,
            ..sql::Options::default()
        }
    }
}
