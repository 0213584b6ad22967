//! The section `[stored]`.

use serde::{Deserialize, Serialize};

/// Settings of the store's writer. Where the store is stands in `[store]` and `[blob]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Changes in one transaction at most; what waits meanwhile goes into the next one. 256.
    pub batch: usize,
    /// Octets of bodies in one transaction at most. 16 MiB.
    pub batch_bytes: u64,
    /// Changes that may wait for the database; more are refused as busy. 4,096.
    pub waiting: usize,
    /// Octets of one message at most. 256 MiB.
    pub message_bytes: u64,
    /// Files for large messages that are open at once; one account has a quarter of them at most. 256.
    pub uploads: usize,
    /// Seconds after which an upload that was not used is removed; a message of that size must have arrived by then. 3,600.
    pub upload_seconds: u64,
    /// Verified grants that are remembered until they expire. 16,384.
    pub grants: usize,
    /// Seconds between two looks for what nobody needs any more. 30.
    pub collect_seconds: u64,
    /// Days for which expunged UIDs are remembered, for clients that come back (QRESYNC). 60.
    pub expunged_days: u32,
    /// Days for which replies to changes are remembered. 2.
    pub request_days: u32,
    /// Days for which deliveries are remembered; longer than a message may stay in the queue. 30.
    pub delivered_days: u32,
    /// Sieve scripts of one account. 100.
    pub scripts: u64,
    /// Octets of one script. 102,400.
    pub script_bytes: u64,
    /// Entries of a mailbox's access control list. 100.
    pub acl_entries: u64,
    /// Annotations of one mailbox, or of an account itself. 100.
    pub metadata_entries: u64,
    /// Octets of one annotation. 65,536.
    pub metadata_bytes: u64,
    /// Backup points of the database that are kept: one is made before its schema is changed. 0: none is made. 2.
    pub backup_points: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            batch: 256,
            batch_bytes: 16 << 20,
            waiting: 4096,
            message_bytes: 256 << 20,
            uploads: 256,
            upload_seconds: 3600,
            grants: 16_384,
            collect_seconds: 30,
            expunged_days: 60,
            request_days: 2,
            delivered_days: 30,
            scripts: 100,
            script_bytes: 102_400,
            acl_entries: 100,
            metadata_entries: 100,
            metadata_bytes: 65_536,
            backup_points: 2,
        }
    }
}

impl Config {
    pub(crate) fn limits(&self) -> store::writer::Limits {
        store::writer::Limits {
            scripts: self.scripts,
            script_bytes: self.script_bytes.min(128 * 1024),
            acl_entries: self.acl_entries,
            metadata_entries: self.metadata_entries,
            metadata_bytes: self.metadata_bytes.min(128 * 1024),
        }
    }

    pub(crate) fn retention(&self) -> store::writer::Retention {
        let seconds = |days: u32| i64::from(days.max(1)) * 86_400;
        store::writer::Retention {
            expunged: seconds(self.expunged_days),
            requests: seconds(self.request_days),
            delivered: seconds(self.delivered_days),
        }
    }
}
