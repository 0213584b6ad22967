//! Reading records back, from any thread.

use crate::error::{Error, Fault};
use crate::format::{self, Key, Position, RECORD_HEADER};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, PoisonError, RwLock};

/// A segment open for reading.
#[derive(Debug)]
pub(crate) struct Volume {
    pub(crate) file: File,
    pub(crate) key: Key,
}

/// The segments that there are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shelf(Arc<RwLock<BTreeMap<u64, Arc<Volume>>>>);

impl Shelf {
    pub(crate) fn insert(&self, number: u64, volume: Volume) {
        let mut volumes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        volumes.insert(number, Arc::new(volume));
    }

    pub(crate) fn remove(&self, number: u64) {
        let mut volumes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        volumes.remove(&number);
    }

    fn get(&self, number: u64) -> Option<Arc<Volume>> {
        let volumes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        volumes.get(&number).cloned()
    }
}

/// A record as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// The version that its writer gave the payload.
    pub version: u8,
    /// The id of its message.
    pub id: u64,
    /// The payload.
    pub payload: Vec<u8>,
}

/// Reads records. Cheap to clone; works beside the writer.
#[derive(Clone, Debug)]
pub struct Reader(pub(crate) Shelf);

impl Reader {
    /// Reads a live record, and checks it.
    ///
    /// # Errors
    /// [`Fault::Gone`] if its segment was removed, [`Fault::Damaged`] if it is not what was written.
    pub fn read(&self, at: Position) -> Result<Content, Error> {
        let what = || format!("segment {} at {}", at.segment, at.offset);
        let volume = self
            .0
            .get(at.segment)
            .ok_or_else(|| Error::new(what(), Fault::Gone))?;
        let mut octets = vec![0; RECORD_HEADER + at.len as usize];
        volume
            .file
            .read_exact_at(&mut octets, u64::from(at.offset))
            .map_err(|error| Error::new(what(), error))?;
        let (header, payload) = format::read_record(&volume.key, u64::from(at.offset), &octets)
            .filter(|(header, _)| header.len == at.len)
            .ok_or_else(|| Error::new(what(), Fault::Damaged))?;
        let start = octets.len() - payload.len();
        octets.drain(..start);
        Ok(Content {
            version: header.version,
            id: header.id,
            payload: octets,
        })
    }
}
