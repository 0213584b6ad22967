//! Files into which callers write large messages.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

#[derive(Debug)]
struct Slot {
    connection: u64,
    opened: Instant,
    file: File,
}

/// The directory of uploads. A file has no name once it is handed out: whatever happens, the kernel removes it.
#[derive(Debug)]
pub(crate) struct Uploads {
    directory: PathBuf,
    slots: Mutex<HashMap<u64, Slot>>,
    next: AtomicU64,
    most: usize,
    keep: Duration,
}

impl Uploads {
    /// Makes the directory; removes what an earlier run has left between making a file and unlinking it.
    pub(crate) fn open(directory: &Path, most: usize, keep: Duration) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        for entry in std::fs::read_dir(directory)? {
            std::fs::remove_file(entry?.path())?;
        }
        Ok(Self {
            directory: directory.to_owned(),
            slots: Mutex::default(),
            next: AtomicU64::new(1),
            most: most.max(1),
            keep,
        })
    }

    /// Opens a slot for a connection: its number, and the file for writing. `None` if there are too many.
    pub(crate) fn create(&self, connection: u64) -> io::Result<Option<(u64, File)>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, slot| slot.opened.elapsed() < self.keep);
        if slots.len() >= self.most {
            return Ok(None);
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.join(format!("upload-{number}"));
        let write = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        let read = File::open(&path);
        std::fs::remove_file(&path)?;
        let slot = Slot {
            connection,
            opened: Instant::now(),
            file: read?,
        };
        slots.insert(number, slot);
        Ok(Some((number, write)))
    }

    /// Takes a slot's file for reading, if it is this connection's. It can be taken once.
    pub(crate) fn take(&self, slot: u64, connection: u64) -> Option<File> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.get(&slot)?.connection != connection {
            return None;
        }
        slots.remove(&slot).map(|slot| slot.file)
    }

    /// Removes what a connection has left.
    pub(crate) fn close_connection(&self, connection: u64) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, slot| slot.connection != connection);
    }
}
