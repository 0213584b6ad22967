//! indexd: full-text search.

use crate::operation;
use serde::{Deserialize, Serialize};
use types::{AccountId, Octets};

/// Which contents of an account have certain words.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Search {
    /// Whose.
    pub account: AccountId,
    /// What is looked for: 1 to 64, each answered by itself.
    pub matches: Vec<Match>,
    /// Give scores, too (RFC 6203 4).
    pub scores: bool,
}
operation!(Search = 1, idempotent -> Found);

/// One thing to look for. Its words must stand one after the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match {
    /// Where.
    pub field: Field,
    /// What, as the user typed it.
    pub text: String,
    /// How near it must come.
    pub mode: Mode,
}

/// Where a [`Match`] looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Field {
    /// Header and body (SEARCH TEXT).
    Text,
    /// The body's text parts, and attachments that are text or HTML (SEARCH BODY).
    Body,
    /// Subject.
    Subject,
    /// From.
    From,
    /// To.
    To,
    /// Cc.
    Cc,
    /// Bcc.
    Bcc,
}

/// How near a [`Match`] must come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Whole words, without regard to case and accents; the last one may be the beginning of a word.
    Words,
    /// Other forms of the words, and small mistakes, count too (RFC 6203).
    Fuzzy,
}

/// The answer to [`Search`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// All contents of the account with ids up to this one are in the index. Newer ones must be looked through by the caller.
    pub covered: u64,
    /// For each match: the ids of the contents that have it, as a serialised `roaring::RoaringTreemap`. It may have ids that
    /// are no longer in the store.
    pub hits: Vec<Octets>,
    /// If scores were asked for: content ids and 1 to 100 for each, of all matches together, best first, 10,000 at most.
    pub scores: Vec<(u64, u8)>,
}

/// How far the index is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IndexStatus;
operation!(IndexStatus = 2, idempotent -> IndexFigures);

/// The answer to [`IndexStatus`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexFigures {
    /// `embedded`, `meilisearch`.
    pub backend: String,
    /// Contents in the index.
    pub documents: u64,
    /// Contents known to be missing in it.
    pub missing: u64,
    /// Octets on disk.
    pub bytes: u64,
    /// Why it does not go on; empty if it does.
    pub trouble: String,
    /// A rebuild under way: contents done, and all of them.
    pub rebuild: Option<(u64, u64)>,
}

/// Makes the index anew beside the present one, which serves until the new one is complete. Survives a restart.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IndexRebuild {
    /// Only this account, in place; `None`: all.
    pub account: Option<AccountId>,
}
operation!(IndexRebuild = 3, idempotent -> ());
