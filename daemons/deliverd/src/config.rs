//! The section `[deliverd]`.

use serde::{Deserialize, Serialize};

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
