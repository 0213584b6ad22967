//! Files into which callers write large messages.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use types::AccountId;

/// An account has this part of the slots at most: slow clients of one are no trouble to others.
const SHARE: usize = 4;

#[derive(Debug)]
struct Slot {
    connection: u64,
    account: AccountId,
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
            // A change that an earlier process was sent, and that is sent again, must never find another message's slot.
            next: AtomicU64::new(rand::random::<u64>() >> 1),
            most: most.max(1),
            keep,
        })
    }

    /// Opens a slot for a connection: its number, and the file. `None` if there are too many, in all or of the account.
    pub(crate) fn create(
        &self,
        connection: u64,
        account: AccountId,
    ) -> io::Result<Option<(u64, File)>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, slot| slot.opened.elapsed() < self.keep);
        let own = slots.values().filter(|slot| slot.account == account);
        if slots.len() >= self.most || own.count() >= self.most.div_ceil(SHARE) {
            return Ok(None);
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.directory.join(format!("upload-{number}"));
        let write = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        let read = File::open(&path);
        std::fs::remove_file(&path)?;
        let slot = Slot {
            connection,
            account,
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

    /// Removes a slot that will not be taken, if it is this connection's.
    pub(crate) fn close(&self, slot: u64, connection: u64) {
        drop(self.take(slot, connection));
    }

    /// Removes what a connection has left.
    pub(crate) fn close_connection(&self, connection: u64) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, slot| slot.connection != connection);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::{Read as _, Seek as _, Write as _};

    fn uploads(name: &str, most: usize) -> Uploads {
        let directory = std::env::temp_dir().join(format!("stored-{name}-{}", std::process::id()));
        Uploads::open(&directory, most, Duration::from_secs(60)).unwrap()
    }

    #[test]
    fn what_was_written_is_read_back_by_both() {
        let uploads = uploads("both", 8);
        let (slot, mut file) = uploads.create(1, AccountId(1)).unwrap().unwrap();
        file.write_all(b"body").unwrap();
        file.rewind().unwrap();
        let mut back = String::new();
        file.read_to_string(&mut back).unwrap();
        assert_eq!(back, "body");
        assert!(uploads.take(slot, 2).is_none());
        back.clear();
        let mut taken = uploads.take(slot, 1).unwrap();
        taken.read_to_string(&mut back).unwrap();
        assert_eq!(back, "body");
        assert!(uploads.take(slot, 1).is_none());
        assert_eq!(std::fs::read_dir(&uploads.directory).unwrap().count(), 0);
        std::fs::remove_dir(&uploads.directory).unwrap();
    }

    #[test]
    fn an_account_has_a_part_of_the_slots() {
        let uploads = uploads("part", 8);
        let open = |account| uploads.create(1, AccountId(account)).unwrap();
        let first = open(1).unwrap().0;
        open(1).unwrap();
        assert!(open(1).is_none());
        // Somebody else's connection closes nothing.
        uploads.close(first, 2);
        assert!(open(1).is_none());
        uploads.close(first, 1);
        assert!(open(1).is_some());
        for account in 2..5 {
            open(account).unwrap();
            open(account).unwrap();
        }
        assert!(open(9).is_none());
        uploads.close_connection(1);
        assert!(open(9).is_some());
        std::fs::remove_dir(&uploads.directory).unwrap();
    }
}
