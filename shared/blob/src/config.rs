//! The section `[blob]`.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// Where large bodies are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `fs` (default) or `s3`.
    pub kind: Kind,
    /// Bodies up to this many octets lie in the database itself. 32 KiB; 0 to 65,536.
    pub inline_max: usize,
    /// zstd level, 1 to 19; 0 stores everything as it is. 3.
    pub zstd_level: i32,
    /// `fs`: the directory; `blobs` in the store's state directory if it is not given.
    pub root: Option<PathBuf>,
    /// `s3`: the bucket; it must exist.
    pub bucket: String,
    /// `s3`: the server, `https://s3.example.org`; AWS if it is not given.
    pub endpoint: Option<String>,
    /// `s3`: the region.
    pub region: String,
    /// `s3`: put before each object's name, `mail/` for example.
    pub prefix: String,
    /// `s3`: the key's id.
    pub access_key: String,
    /// `s3`: the secret key. Better kept in a file of its own: [`Config::secret_key_file`].
    pub secret_key: Secret,
    /// `s3`: a file that holds the secret key in its first line.
    pub secret_key_file: Option<PathBuf>,
    /// `s3`: `bucket.server/object` instead of `server/bucket/object`.
    pub virtual_host_style: bool,
    /// `s3`: seconds that one request may take before it is tried again (up to three times). 30.
    pub timeout_seconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kind: Kind::Fs,
            inline_max: 32 * 1024,
            zstd_level: 3,
            root: None,
            bucket: String::new(),
            endpoint: None,
            region: "us-east-1".to_owned(),
            prefix: String::new(),
            access_key: String::new(),
            secret_key: Secret::default(),
            secret_key_file: None,
            virtual_host_style: false,
            timeout_seconds: 30,
        }
    }
}

/// The kinds of storage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A local directory.
    #[default]
    Fs,
    /// A bucket of a server that speaks S3.
    S3,
}

/// A value that no log and no error shows.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { "***" })
    }
}
