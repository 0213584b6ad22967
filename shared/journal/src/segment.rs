//! The segment that is being written.

use crate::disk::Disk;
use crate::error::Error;
use crate::format::{self, Header, Key, Kind, RECORD_HEADER, RECORDS_AT};
use std::fs::{File, OpenOptions};
use std::io::IoSlice;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Room that a batch needs behind itself: for the mark of its end, or for the seal.
pub(crate) const TRAILER: u64 = RECORD_HEADER as u64;

#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) key: Key,
    pub(crate) file: File,
    /// Where the next record goes.
    pub(crate) end: u64,
    /// How far it may grow.
    pub(crate) capacity: u64,
    /// Whether something was written that is not synced.
    pub(crate) dirty: bool,
}

pub(crate) fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{number:016x}.segment"))
}

/// The number in a segment's file name.
pub(crate) fn number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".segment")?;
    (digits.len() == 16)
        .then(|| u64::from_str_radix(digits, 16).ok())
        .flatten()
}

pub(crate) fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

impl Segment {
    /// Creates segment `number` durably, from the file at `spare` if there is one.
    pub(crate) fn create(
        disk: &Disk,
        directory: (&Path, &File),
        number: u64,
        capacity: u64,
        spare: Option<&Path>,
    ) -> Result<Self, Error> {
        let (directory, handle) = directory;
        let fresh = directory.join("new");
        let source = spare.unwrap_or(&fresh);
        let made = Self::prepare(disk, source, number, capacity).and_then(|segment| {
            std::fs::rename(source, path(directory, number))?;
            disk.sync_directory(handle)?;
            Ok(segment)
        });
        made.map_err(|error| {
            // What is left of it would only take room.
            let _ = std::fs::remove_file(source);
            Error::new(format!("creating segment {number}"), error)
        })
    }

    fn prepare(disk: &Disk, source: &Path, number: u64, capacity: u64) -> std::io::Result<Self> {
        let file = open(source)?;
        disk.allocate(&file, capacity)?;
        let key = Key(rand::random());
        let header = format::segment_header(number, &key);
        disk.write_all(&file, &mut [IoSlice::new(&header)], 0)?;
        disk.sync(&file)?;
        Ok(Self {
            number,
            key,
            file,
            end: RECORDS_AT,
            capacity,
            dirty: false,
        })
    }

    pub(crate) fn has_room(&self, len: u64) -> bool {
        self.end + len + TRAILER <= self.capacity
    }

    /// Marks that nothing follows. A hint for the next scan, not needed.
    pub(crate) fn seal(&mut self, disk: &Disk) {
        let mut mark = Vec::with_capacity(RECORD_HEADER);
        let header = Header {
            kind: Kind::End,
            version: 0,
            id: 0,
            len: 0,
        };
        format::write_header(&mut mark, &self.key, self.end, header, []);
        if let Err(error) = disk.write_all(&self.file, &mut [IoSlice::new(&mark)], self.end) {
            tracing::debug!(segment = self.number, %error, "not sealed");
        }
    }
}
