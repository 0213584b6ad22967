//! Bodies in the storage outside of the database that no row names: whoever was killed between body and row has left them.

use super::Writer;
use crate::{Error, reader_hash};
use blob::{Blobs, Object};
use sql::{Value, args};
use std::collections::HashSet;
use types::BlobId;

/// What is younger may be on its way into its row, in seconds: a day.
const YOUNG: u64 = 86_400;
/// Findings of one directory that are told at most.
const FINDINGS_MAX: usize = 1000;

/// What was found in one of the 256 directories of the storage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    /// Bodies.
    pub objects: u64,
    /// Of these, how many no row names, and have been there for more than a day.
    pub orphans: u64,
    /// Octets of these.
    pub bytes: u64,
    /// What is wrong, and whether it was mended (or could be).
    pub findings: Vec<(String, bool)>,
}

impl Writer {
    /// Looks for bodies in the storage that nobody will ever remove: no row names them, the collector does not know of them, and
    /// they are older than a day at `now` (seconds since 1970). With `repair` the collector is told of them; it looks again
    /// before it removes anything. Whatever is no body is told, and left.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn examine_objects(
        &self,
        blobs: &Blobs,
        first: u8,
        repair: bool,
        now: u64,
    ) -> Result<Objects, Error> {
        let listing = blobs.list(first).await?;
        let mut found = Objects {
            objects: listing.objects.len() as u64,
            ..Objects::default()
        };
        let old = |object: &&Object| {
            object
                .written
                .is_some_and(|written| written.saturating_add(YOUNG) < now)
        };
        let old: Vec<Object> = listing.objects.iter().filter(old).copied().collect();
        let known = self.known(&old).await?;
        for object in old.iter().filter(|object| !known.contains(&object.id)) {
            found.orphans += 1;
            found.bytes += object.size;
            if found.findings.len() < FINDINGS_MAX {
                let text = format!(
                    "the body {} in the storage ({} octets) is named by no row",
                    object.id, object.size
                );
                found.findings.push((text, true));
            }
            if repair {
                self.abandon(object.id).await?;
            }
        }
        for path in listing.others.iter().take(FINDINGS_MAX) {
            let text = format!("{path} in the storage is no body; nobody of us has put it there");
            found.findings.push((text, false));
        }
        Ok(found)
    }

    /// Of these objects, those that a row or the collector knows.
    async fn known(&self, objects: &[Object]) -> Result<HashSet<BlobId>, Error> {
        let mut known = HashSet::new();
        if objects.is_empty() {
            return Ok(known);
        }
        for text in [
            "SELECT hash FROM body WHERE hash IN ({list})",
            "SELECT hash FROM blob_gone WHERE hash IN ({list})",
        ] {
            let list = objects.iter().map(|one| Value::from(one.id.0)).collect();
            for row in self.db.fetch_in(text, &args![], list).await? {
                known.insert(reader_hash(row.blob(0)?)?);
            }
        }
        Ok(known)
    }
}
