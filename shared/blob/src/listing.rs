//! What lies in the storage, whoever knows of it.

use crate::{BlobError, Blobs};
use opendal::ErrorKind;
use std::time::{SystemTime, UNIX_EPOCH};
use types::BlobId;

/// An object whose name is that of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object {
    /// The body's id.
    pub id: BlobId,
    /// Octets that it takes.
    pub size: u64,
    /// When it was written, in seconds since 1970; `None` if the storage does not say.
    pub written: Option<u64>,
}

/// One of the 256 directories.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Its bodies, in no certain order.
    pub objects: Vec<Object>,
    /// Paths of whatever else is there.
    pub others: Vec<String>,
}

impl Blobs {
    /// Everything in the directory of the bodies whose ids begin with this octet.
    ///
    /// # Errors
    /// [`BlobError::Storage`]
    pub async fn list(&self, first: u8) -> Result<Listing, BlobError> {
        let failed = |error: opendal::Error| BlobError::Storage(error.to_string());
        let directory = format!("{first:02x}/");
        let entries = match self.operator.list(&directory).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            other => other.map_err(failed)?,
        };
        let mut listing = Listing::default();
        for entry in entries {
            // Listings name the directory itself, too.
            if entry.path() == directory {
                continue;
            }
            let id = if entry.metadata().is_file() {
                id_of_path(entry.path())
            } else {
                None
            };
            let Some(id) = id else {
                listing.others.push(entry.path().to_owned());
                continue;
            };
            let mut metadata = entry.metadata().clone();
            if metadata.last_modified().is_none() {
                metadata = match self.operator.stat(entry.path()).await {
                    // Collected meanwhile.
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    other => other.map_err(failed)?,
                };
            }
            let written = metadata.last_modified().and_then(|time| {
                let since = SystemTime::from(time).duration_since(UNIX_EPOCH);
                since.ok().map(|since| since.as_secs())
            });
            listing.objects.push(Object {
                id,
                size: metadata.content_length(),
                written,
            });
        }
        Ok(listing)
    }
}

/// `ab/cdef...`, and nothing that only looks like it.
fn id_of_path(path: &str) -> Option<BlobId> {
    let hex = path.replacen('/', "", 1);
    let mut octets = [0; 32];
    if hex.len() != 64 || path.find('/') != Some(2) {
        return None;
    }
    for (octet, pair) in octets.iter_mut().zip(hex.as_bytes().as_chunks::<2>().0) {
        let digits = std::str::from_utf8(pair).ok()?;
        *octet = u8::from_str_radix(digits, 16).ok()?;
    }
    let id = BlobId(octets);
    (id.to_string() == hex).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_bodies_are_ids() {
        let hex = "ab".repeat(32);
        let path = format!("ab/{}", hex.get(2..).unwrap_or_default());
        assert_eq!(id_of_path(&path), Some(BlobId([0xab; 32])));
        for other in [
            path.to_uppercase(),
            format!("{path}0"),
            path.replace('/', ""),
            path.replacen("ab/", "a/b", 1),
            path.replacen("ab/ab", "ab/+b", 1),
            "tmp/x".to_owned(),
        ] {
            assert_eq!(id_of_path(&other), None, "{other}");
        }
    }
}
