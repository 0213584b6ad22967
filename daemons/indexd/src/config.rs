//! The section `[indexd]`.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where the index is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// Below indexd's own directory.
    #[default]
    Embedded,
    /// On a Meilisearch server.
    Meilisearch,
}

/// The full-text index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the index is: `embedded` (below the state directory) or `meilisearch`. A change needs a restart; the other index is
    /// then made from the store.
    pub backend: Backend,
    /// The Meilisearch server, where that keeps the index.
    pub meilisearch: Meilisearch,
    /// Octets of a message's body that are looked at. 4 MiB.
    pub body_bytes: u64,
    /// Words of a message that are kept. 100,000.
    pub words: usize,
    /// Characters of a word; what is longer is cut, in the index and when searching. 64.
    pub word_length: usize,
    /// Memory for writing, in MiB, while there is something to write; 15 at least. 32.
    pub memory_mib: usize,
    /// Messages read from the store at one time. 256.
    pub batch_messages: u32,
    /// Octets of bodies read from the store at one time, about. 8 MiB.
    pub batch_bytes: u64,
    /// How long new mail is gathered before it is made searchable, in milliseconds. 300.
    pub delay_ms: u64,
    /// Messages that are written together when there is much to do. 5,000.
    pub commit_messages: u64,
    /// After this time without anything to write, the memory for writing is given back, in seconds. 10.
    pub idle_s: u64,
    /// How often messages that are gone are removed from the index, in seconds. 3600.
    pub purge_s: u64,
    /// Words that the beginning of a word, or a misspelt one, may stand for. 2,000.
    pub expansions: usize,
    /// Searches at one time; more wait. 4.
    pub searches: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            backend: Backend::Embedded,
            meilisearch: Meilisearch::default(),
            body_bytes: 4 << 20,
            words: 100_000,
            word_length: 64,
            memory_mib: 32,
            batch_messages: 256,
            batch_bytes: 8 << 20,
            delay_ms: 300,
            commit_messages: 5_000,
            idle_s: 10,
            purge_s: 3600,
            expansions: 2_000,
            searches: 4,
        }
    }
}

/// A Meilisearch server, of version 1.10 or newer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Meilisearch {
    /// Its address: `https://search.example.org`, or `http://127.0.0.1:7700`. Without TLS only to this host, or with `plain`.
    pub url: String,
    /// Allow http to another host. The mail's text and the key are then in the clear on the way: only for a network of its own.
    pub plain: bool,
    /// An API key that may do `indexes.*`, `documents.*`, `settings.*`, `tasks.get`, `stats.get` and `search` on the indexes named
    /// below. Better kept in a file of its own: `secret_key_file`.
    pub secret_key: blob::Secret,
    /// A file with the key. It wins over `secret_key`.
    pub secret_key_file: Option<PathBuf>,
    /// A file with certificates of authorities (PEM) that sign the server's, besides those of the system.
    pub ca_file: Option<PathBuf>,
    /// What the names of its indexes begin with: letters, digits, `-` and `_`. `posthouse`.
    pub index: String,
    /// Milliseconds that one request may take. 10,000.
    pub timeout_ms: u64,
    /// Seconds that the server may take to have written what it was given. 600.
    pub task_timeout_s: u64,
    /// Messages in one answer; what more have is searched without the index. 200,000.
    pub results: u64,
}

impl Default for Meilisearch {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:7700".to_owned(),
            plain: false,
            secret_key: blob::Secret::default(),
            secret_key_file: None,
            ca_file: None,
            index: "posthouse".to_owned(),
            timeout_ms: 10_000,
            task_timeout_s: 600,
            results: 200_000,
        }
    }
}

impl Meilisearch {
    /// # Errors
    /// What is wrong with the settings.
    pub(crate) fn check(&self) -> Result<(), String> {
        let address = "indexd.meilisearch.url";
        let url = self.url.as_str();
        let host = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
            (Some(host), _) => host,
            (_, Some(host)) => {
                let name = host.split('/').next().unwrap_or_default();
                let name = name.strip_prefix('[').map_or_else(
                    || name.split(':').next().unwrap_or_default(),
                    |inner| inner.split(']').next().unwrap_or_default(),
                );
                if !self.plain && !["127.0.0.1", "::1", "localhost"].contains(&name) {
                    return Err(format!(
                        "{address} is not https and not on this host: the mail's text would be in the clear; set plain = true if the network is your own"
                    ));
                }
                host
            }
            _ => {
                return Err(format!(
                    "{address} begins with neither https:// nor http://"
                ));
            }
        };
        if host.is_empty() || host.contains(['@', '?', '#']) {
            return Err(format!(
                "{address} is a scheme, a host, a port and perhaps a path; the key goes into indexd.meilisearch.secret_key_file"
            ));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if self.index.is_empty() || self.index.len() > 200 || !self.index.chars().all(allowed) {
            return Err(
                "indexd.meilisearch.index: letters, digits, - and _, 200 at most".to_owned(),
            );
        }
        if self.results == 0 {
            return Err("indexd.meilisearch.results is 0: nothing would be found".to_owned());
        }
        Ok(())
    }
}
