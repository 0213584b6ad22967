//! The mail store: its schema and every statement that reads or writes it.
//!
//! | table | a row is | key |
//! |---|---|---|
//! | `account` | an account's counters: modseq, ids, quota used | account |
//! | `mailbox` | a folder | id; (account, name) unique |
//! | `mailbox_state` | its counters, so that STATUS and SELECT never scan | id |
//! | `message` | a message in a folder, with its flags | (mailbox, uid) |
//! | `content` | what a message is: parsed structure, trace header; shared by copies | (account, id) |
//! | `body` | a body, stored once for all accounts; `data` is NULL if it lies outside | id; hash unique |
//! | `expunged` | UIDs that are gone, as ranges, with their modseq | (mailbox, modseq, low) |
//! | `subscription` | a subscribed name | (account, name) |
//! | `thread_ref` | to which conversation a Message-ID belongs | hash of account and id |
//! | `request`, `delivered` | what was done already: makes changes idempotent | request id; queue id, recipient, account |
//! | `owner` | an account's name and limits, as its last grant told them | account |
//! | `script` | a user's Sieve script | (account, name) |
//! | `acl` | rights on a mailbox | (mailbox, identifier) |
//! | `metadata` | an annotation | (account, mailbox, reader, entry) |
//! | `noted` | what a script must not do again before a time | (account, hash, queue id) |
//! | `orphan`, `blob_gone` | work for the collector | |
//!
//! [`Reader`] is for everybody, on connections that cannot write. [`writer`] is for stored alone (feature `writer`).
//!
//! SECURITY: every statement on mail names the account; ids of one account mean nothing in another. Errors show no content.
//!
//! RECOVERY: whatever a crash leaves is consistent, as each change is one transaction with its counters. Bodies are durable
//! before the rows that name them.
#![forbid(unsafe_code)]

mod acl;
mod config;
mod error;
mod flags;
mod name;
mod range;
mod reader;
mod row;
mod schema;
#[cfg(feature = "writer")]
pub mod writer;

pub use acl::{AclEntry, AclRights, owns};
pub use config::Config;
pub use error::Error;
pub use flags::{FlagError, Flags, SystemFlags};
pub use name::{canonical, known_special_use};
pub use range::{Ranges, to_ranges};
#[cfg(feature = "writer")]
pub(crate) use reader::reader_hash;
pub use reader::{AccountRow, Changes, Reader, Script, SharedMailbox, Wanted};
pub use row::{AccountState, Content, ContentBody, Mailbox, MessageRow};
pub use schema::{COMPONENT, MIGRATIONS};

/// The annotation that is a mailbox's special use (RFC 6154 5.4): it is kept with the mailbox, not among the others.
pub const SPECIAL_USE_ENTRY: &str = "/private/specialuse";
