//! Bodies by their content: one immutable object a BLAKE3 hash, compressed where that pays.
//!
//! Small bodies lie inline in the store's tables, larger ones ([`Config::inline_max`]) in [`Blobs`], over OpenDAL: a
//! directory or an S3 bucket. Both hold the same form, made by [`encode`] and read by [`decode`]: one octet that names the
//! codec, then the octets.
//!
//! DURABILITY: when [`Blobs::put`] returns, the object survives power loss. In a directory it is written under another
//! name, synced, renamed, and then the directory is synced too, which OpenDAL's fs service does not do.
//!
//! RECOVERY: putting twice is the same as putting once. What a crash leaves is in `tmp` below the root and is removed by
//! the next [`Blobs::open_writer`].
#![forbid(unsafe_code)]

mod blobs;
mod codec;
mod config;
mod listing;

pub use blobs::{BlobError, Blobs};
pub use codec::{CodecError, decode, encode};
pub use config::{Config, Kind, Secret};
pub use listing::{Listing, Object};

/// The id of these octets: their BLAKE3 hash.
pub fn id_of(octets: &[u8]) -> types::BlobId {
    types::BlobId(*blake3::hash(octets).as_bytes())
}
