//! Bodies that are too large for a frame: files of their own, opened here, written by the listener.
//!
//! A file is `slot-N` until its message is committed, and has the message's id as its name from then on. What is neither when
//! queued starts is an orphan, and removed.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use types::QueueId;

#[derive(Debug)]
struct Slot {
    /// The connection that opened it, the only one that may commit it.
    connection: u64,
    file: File,
}

/// The spool directory.
#[derive(Debug)]
pub(crate) struct Spool {
    directory: PathBuf,
    handle: File,
    slots: Mutex<HashMap<u64, Slot>>,
    most: usize,
    next: AtomicU64,
    bytes: AtomicU64,
}

impl Spool {
    /// Opens the directory, makes it if it is missing, and removes slots of earlier runs.
    pub(crate) fn open(directory: &Path, most: usize) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            if entry
                .file_name()
                .to_str()
                .is_some_and(|name| name.starts_with("slot-"))
            {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(Self {
            directory: directory.to_owned(),
            handle: File::open(directory)?,
            slots: Mutex::default(),
            most,
            // A commit that an earlier process was sent, and that is sent again, must never find another message's slot.
            next: AtomicU64::new(rand::random::<u64>() >> 1),
            bytes: AtomicU64::new(0),
        })
    }

    fn path(&self, id: QueueId) -> PathBuf {
        self.directory.join(id.to_string())
    }

    fn slot_path(&self, slot: u64) -> PathBuf {
        self.directory.join(format!("slot-{slot}"))
    }

    /// Opens a slot for a connection; `None` if there are too many.
    pub(crate) fn open_slot(&self, connection: u64) -> io::Result<Option<(u64, File)>> {
        let slot = self.next.fetch_add(1, Ordering::Relaxed);
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= self.most {
            return Ok(None);
        }
        let path = self.slot_path(slot);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        let given = file.try_clone()?;
        slots.insert(slot, Slot { connection, file });
        Ok(Some((slot, given)))
    }

    fn take(&self, slot: u64, connection: u64) -> Option<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.get(&slot)?.connection != connection {
            return None;
        }
        slots.remove(&slot)
    }

    /// A slot of this connection, for reading only.
    ///
    /// # Errors
    /// `NotFound`: no such slot of this connection. Others of the file system.
    pub(crate) fn read_slot(&self, slot: u64, connection: u64) -> io::Result<File> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        match slots.get(&slot) {
            Some(known) if known.connection == connection => File::open(self.slot_path(slot)),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Removes a slot.
    pub(crate) fn close_slot(&self, slot: u64, connection: u64) {
        if self.take(slot, connection).is_some() {
            let _ = std::fs::remove_file(self.slot_path(slot));
        }
    }

    /// Removes what a connection left.
    pub(crate) fn close_connection(&self, connection: u64) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = slots.extract_if(|_, slot| slot.connection == connection);
        for (slot, _) in gone.collect::<Vec<_>>() {
            let _ = std::fs::remove_file(self.slot_path(slot));
        }
    }

    /// Makes a slot the durable body of a message: blocks for the disk. The file is cut to `len`.
    ///
    /// # Errors
    /// `NotFound`: no such slot of this connection. `InvalidInput`: the file is shorter than `len`. Others of the file system.
    pub(crate) fn commit(
        &self,
        slot: u64,
        connection: u64,
        id: QueueId,
        len: u64,
    ) -> io::Result<()> {
        let gone = || io::Error::new(io::ErrorKind::NotFound, "no such slot of this connection");
        let taken = self.take(slot, connection).ok_or_else(gone)?;
        let settled = self.settle(&taken.file, slot, id, len);
        if settled.is_err() {
            let _ = std::fs::remove_file(self.slot_path(slot));
        }
        settled
    }

    fn settle(&self, file: &File, slot: u64, id: QueueId, len: u64) -> io::Result<()> {
        let size = file.metadata()?.size();
        if size < len {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the body is not all there",
            ));
        }
        if size > len {
            file.set_len(len)?;
        }
        file.sync_data()?;
        std::fs::rename(self.slot_path(slot), self.path(id))?;
        self.handle.sync_all()?;
        self.bytes.fetch_add(len, Ordering::Relaxed);
        Ok(())
    }

    /// Makes the durable body of a message of the next `len` octets of a file; whether they are ASCII. Blocks for the disk.
    ///
    /// # Errors
    /// `UnexpectedEof`: there are fewer. Others of the file system.
    pub(crate) fn put(&self, id: QueueId, from: &mut impl Read, len: u64) -> io::Result<bool> {
        let path = self.slot_path(self.next.fetch_add(1, Ordering::Relaxed));
        let copied = (|| {
            let mut to = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?;
            let (mut left, mut ascii) = (len, true);
            let mut piece = vec![0; 64 * 1024];
            while left > 0 {
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
                let count = from.read(piece.get_mut(..most).unwrap_or_default())?;
                let octets = piece.get(..count).unwrap_or_default();
                if octets.is_empty() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                ascii &= octets.is_ascii();
                to.write_all(octets)?;
                left -= count as u64;
            }
            to.sync_data()?;
            std::fs::rename(&path, self.path(id))?;
            self.handle.sync_all()?;
            Ok(ascii)
        })();
        match &copied {
            Ok(_) => drop(self.bytes.fetch_add(len, Ordering::Relaxed)),
            Err(_) => drop(std::fs::remove_file(&path)),
        }
        copied
    }

    /// The body of a message, for reading.
    pub(crate) fn read(&self, id: QueueId) -> io::Result<File> {
        File::open(self.path(id))
    }

    /// Begins a file for a body that comes from elsewhere.
    pub(crate) fn fetch(&self) -> io::Result<Fetched<'_>> {
        let path = self.slot_path(self.next.fetch_add(1, Ordering::Relaxed));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        Ok(Fetched {
            spool: self,
            file,
            path: Some(path),
        })
    }

    /// Copies the body of a message for another one, by a second name of the same file.
    pub(crate) fn link(&self, from: QueueId, to: QueueId) -> io::Result<()> {
        self.link_all(from, &[to])
    }

    /// The same for many, which cost one sync.
    pub(crate) fn link_all(&self, from: QueueId, to: &[QueueId]) -> io::Result<()> {
        let path = self.path(from);
        for id in to {
            match std::fs::hard_link(&path, self.path(*id)) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other?,
            }
        }
        self.handle.sync_all()
    }

    /// Removes the body of a message that is done.
    pub(crate) fn remove(&self, id: QueueId) {
        let path = self.path(id);
        let size = std::fs::metadata(&path).map_or(0, |meta| meta.size());
        if let Err(error) = std::fs::remove_file(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%id, %error, "removing a spool file");
        }
        let _ = self
            .bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bytes| {
                Some(bytes.saturating_sub(size))
            });
    }

    /// The messages that have a body here.
    pub(crate) fn ids(&self) -> io::Result<Vec<QueueId>> {
        let mut ids = Vec::new();
        let mut bytes = 0;
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            let id = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            if let Some(id) = id {
                bytes += entry.metadata().map_or(0, |meta| meta.size());
                ids.push(id);
            }
        }
        self.bytes.store(bytes, Ordering::Relaxed);
        Ok(ids)
    }

    /// Octets of all bodies, about.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// A body that is being fetched: a slot of nobody, removed unless it is kept. It need not survive the machine.
#[derive(Debug)]
pub(crate) struct Fetched<'a> {
    spool: &'a Spool,
    file: File,
    path: Option<PathBuf>,
}

impl Fetched<'_> {
    pub(crate) fn write_all(&mut self, octets: &[u8]) -> io::Result<()> {
        io::Write::write_all(&mut self.file, octets)
    }

    /// Makes it the body of a message.
    pub(crate) fn keep(mut self, id: QueueId) -> io::Result<()> {
        let Some(path) = self.path.take() else {
            return Ok(());
        };
        let kept = std::fs::rename(&path, self.spool.path(id));
        if kept.is_err() {
            self.path = Some(path);
        } else {
            let size = self.file.metadata().map_or(0, |meta| meta.size());
            self.spool.bytes.fetch_add(size, Ordering::Relaxed);
        }
        kept
    }
}

impl Drop for Fetched<'_> {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_slot_becomes_a_body_or_goes() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path(), 2).unwrap();
        let (one, mut file) = spool.open_slot(1).unwrap().unwrap();
        file.write_all(b"0123456789").unwrap();
        let (two, _file) = spool.open_slot(2).unwrap().unwrap();
        assert!(spool.open_slot(3).unwrap().is_none());
        // Somebody else's.
        assert!(spool.commit(one, 2, QueueId(5), 3).is_err());
        assert!(
            spool.commit(two, 2, QueueId(6), 3).is_err(),
            "shorter than said"
        );
        spool.commit(one, 1, QueueId(5), 8).unwrap();
        assert_eq!(
            spool.commit(one, 1, QueueId(5), 8).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        let mut text = String::new();
        spool
            .read(QueueId(5))
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "01234567");
        spool.open_slot(3).unwrap().unwrap();
        spool.close_connection(3);
        assert_eq!(spool.ids().unwrap(), [QueueId(5)]);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        spool.remove(QueueId(5));
        assert!(spool.read(QueueId(5)).is_err());
    }

    #[test]
    fn slots_of_an_earlier_run_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        Spool::open(dir.path(), 2)
            .unwrap()
            .open_slot(1)
            .unwrap()
            .unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        Spool::open(dir.path(), 2).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
