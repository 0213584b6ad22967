//! The queue's append-only journal: what makes a 250 a promise.
//!
//! A journal is a directory of numbered segments. A segment is a header and records, one behind the other; a record is
//! a length, a checksum, a kind, the id of the message that it is about, and a payload of which the journal knows nothing but
//! its version. A batch of records is written by vectored writes and made durable by **one** fdatasync.
//!
//! | kind | means | lives |
//! |---|---|---|
//! | [`Kind::Put`] | a message | until its id is freed |
//! | [`Kind::Note`] | something happened to that message | as long as the message |
//! | [`Kind::Free`] | the message is done | as long as a segment remains with records that it frees |
//!
//! A segment without live records is removed, or kept as a spare: overwriting blocks that are allocated already costs a
//! sync about half of what new ones cost.
//!
//! RECOVERY: [`Journal::open`] reads all segments. A torn tail (a batch that was being written when the power went) fails its
//! checksum and is cut off. A bad record before good ones is reported as [`Damage`] and skipped; the search for the next
//! good one cannot be fooled by what a message contains, since the checksum is keyed with a secret of the segment. A damaged
//! segment is never removed, but renamed when nothing in it is live any more, so that an operator can look at it.
//!
//! A FULL DISK fails the batch and leaves the journal as it was. A small file is kept in reserve so that records which free
//! messages can still be written. A FAILED SYNC says nothing about what is on the disk, and a second one on the same file would
//! succeed without having written it: so the segment is never written to again, and the next batch goes to a new one,
//! beginning with marks that void the failed one.
//!
//! Synchronous: the caller gives it a thread. One process at a time, by a lock.
#![forbid(unsafe_code)]

mod disk;
mod error;
mod format;
mod journal;
mod ledger;
mod scan;
mod segment;
mod shelf;

pub use error::{Error, Fault};
pub use format::{Kind, Position};
pub use journal::{Journal, Options, Record};
pub use ledger::Entry;
pub use scan::Damage;
pub use shelf::{Content, Reader};

#[doc(hidden)]
pub mod fuzz {
    //! For the fuzz targets.

    /// Scans octets as a segment. Must not panic, whatever they are.
    pub fn scan(octets: &[u8]) -> usize {
        crate::scan::scan(octets, 1).map_or(0, |scanned| scanned.records.len())
    }
}
