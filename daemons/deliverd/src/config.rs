//! The section `[deliverd]`.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// How mail is delivered to the accounts here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What a sender hears when a mailbox is full: `bounce` (552, default), or `defer` (452): tried again until it has room
    /// or the message expires.
    pub over_quota: OverQuota,
    /// Whether mail for `user+folder@domain` goes into that folder if the account has it. true.
    pub subaddress_folders: bool,
    /// Messages that are handled at one time; more wait. 128.
    pub concurrency: usize,
    /// Large messages (those that come as files) that are parsed at one time, as each is held in memory for that. 2.
    pub large_concurrency: usize,
    /// Copies of one message that are given to the store at one time. 64.
    pub recipients_at_once: usize,
    /// How much of a message is described in the store.
    pub parse: message::Limits,
    /// Sieve scripts.
    pub sieve: SieveConfig,
}

/// Sieve scripts: the users' own, and the administrator's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SieveConfig {
    /// Scripts that run before each user's own; a user's runs only if these keep the message.
    pub before: Vec<PathBuf>,
    /// Scripts that run after it, if it kept the message.
    pub after: Vec<PathBuf>,
    /// A folder with the scripts, `NAME.sieve`, that users can include as `:global`. None.
    pub global_dir: Option<PathBuf>,
    /// Octets of a message that scripts look at; of a longer one they see the beginning, and what they change in it is left
    /// out. 10 MiB.
    pub message_bytes: usize,
    /// Addresses of a list that `redirect :list` sends to. 100.
    pub list_recipients: usize,
    /// Lists that scripts can name (RFC 6134): a `tag:` with an address in it for each, and the file with its entries, one a line; `@domain` is
    /// all addresses there. Read when deliverd starts.
    pub lists: BTreeMap<String, PathBuf>,
    /// What a script may cost.
    pub limits: sieve::Limits,
}

impl Default for SieveConfig {
    fn default() -> Self {
        Self {
            before: Vec::new(),
            after: Vec::new(),
            global_dir: None,
            message_bytes: 10 << 20,
            list_recipients: 100,
            lists: BTreeMap::new(),
            limits: sieve::Limits::default(),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            over_quota: OverQuota::default(),
            subaddress_folders: true,
            concurrency: 128,
            large_concurrency: 2,
            recipients_at_once: 64,
            parse: message::Limits::default(),
            sieve: SieveConfig::default(),
        }
    }
}

/// What a full mailbox means to the sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OverQuota {
    /// Returned at once.
    #[default]
    Bounce,
    /// Tried again later.
    Defer,
}
