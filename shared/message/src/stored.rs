//! The stored form of [`Parsed`]: one octet of version, then postcard (<https://postcard.jamesmunns.com/wire-format>).
//!
//! The pieces that FETCH asks for most stand first and are read in place, without decoding the rest.

use crate::Parsed;

/// The version this crate writes.
pub const VERSION: u8 = 1;

/// A stored form that cannot be read: damaged, or of a later version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoredError {
    /// Written by a later version of this crate, or not by it at all.
    #[error("a parsed message of version {0}, this program reads {VERSION}")]
    Version(u8),
    /// Its octets make no sense.
    #[error("the record of a parsed message is damaged")]
    Damaged,
}

impl Parsed {
    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let size = self.envelope.len() + self.structure.len() + self.listing.len() + 512;
        let mut out = Vec::with_capacity(size);
        out.push(VERSION);
        // Writing to memory cannot fail; were it to, the row would read as damaged and be parsed again.
        postcard::to_extend(self, out).unwrap_or_default()
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`StoredError`]: parse the message again.
    pub fn decode(stored: &[u8]) -> Result<Self, StoredError> {
        postcard::from_bytes(payload(stored)?).map_err(|_| StoredError::Damaged)
    }
}

fn payload(stored: &[u8]) -> Result<&[u8], StoredError> {
    match stored.split_first() {
        Some((&VERSION, payload)) => Ok(payload),
        Some((version, _)) => Err(StoredError::Version(*version)),
        None => Err(StoredError::Damaged),
    }
}

fn piece(stored: &[u8], number: usize) -> Result<&[u8], StoredError> {
    let mut rest = payload(stored)?;
    for _ in 0..number {
        let (_, after) =
            postcard::take_from_bytes::<&[u8]>(rest).map_err(|_| StoredError::Damaged)?;
        rest = after;
    }
    let (found, _) = postcard::take_from_bytes::<&[u8]>(rest).map_err(|_| StoredError::Damaged)?;
    Ok(found)
}

/// ENVELOPE.
///
/// # Errors
/// [`StoredError`]
pub fn envelope(stored: &[u8]) -> Result<&[u8], StoredError> {
    piece(stored, 0)
}

/// BODYSTRUCTURE.
///
/// # Errors
/// [`StoredError`]
pub fn structure(stored: &[u8]) -> Result<&[u8], StoredError> {
    piece(stored, 1)
}

/// [`Parsed::listing`].
///
/// # Errors
/// [`StoredError`]
pub fn listing(stored: &[u8]) -> Result<&[u8], StoredError> {
    piece(stored, 2)
}

/// [`Parsed::select_listed`] on the stored form, decoding no more than the header index.
///
/// # Errors
/// [`StoredError`]
pub fn select_listed(
    stored: &[u8],
    prefix: &[u8],
    names: &[impl AsRef<[u8]>],
) -> Result<Option<Vec<u8>>, StoredError> {
    let listing = piece(stored, 2)?;
    let behind = after_listing(stored)?;
    let damaged = |_| StoredError::Damaged;
    let all_listed = names
        .iter()
        .all(|name| crate::header::is_listing_field(name.as_ref()));
    if all_listed {
        let (complete, _) = postcard::take_from_bytes::<bool>(behind).map_err(damaged)?;
        return Ok(complete.then(|| crate::header::select_from(prefix, listing, names)));
    }
    type Head = (bool, crate::HeaderIndex);
    let ((listing_complete, index), _) =
        postcard::take_from_bytes::<Head>(behind).map_err(damaged)?;
    let parsed = Parsed {
        listing: listing.to_vec(),
        listing_complete,
        index,
        ..Parsed::default()
    };
    Ok(parsed.select_listed(prefix, names))
}

fn after_listing(stored: &[u8]) -> Result<&[u8], StoredError> {
    let mut rest = payload(stored)?;
    for _ in 0..3 {
        let (_, after) =
            postcard::take_from_bytes::<&[u8]>(rest).map_err(|_| StoredError::Damaged)?;
        rest = after;
    }
    Ok(rest)
}

/// Octets in one piece, borrowed from the input where they can be.
pub(crate) mod bytes {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        <&[u8]>::deserialize(deserializer).map(<[u8]>::to_vec)
    }
}
