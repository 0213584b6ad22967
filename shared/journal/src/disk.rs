//! The few things that are asked of the file system, in one place so that tests can make each of them fail.

use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, IoSlice};

/// The most slices of one call: IOV_MAX of Linux.
const SLICES_MAX: usize = 1024;

/// The disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    #[cfg(test)]
    pub(crate) faults: std::sync::Arc<faults::Faults>,
}

impl Disk {
    /// Writes all slices at `offset`.
    pub(crate) fn write_all(
        &self,
        file: &File,
        mut slices: &mut [IoSlice<'_>],
        mut offset: u64,
    ) -> io::Result<()> {
        while !slices.is_empty() {
            let count = slices.len().min(SLICES_MAX);
            let written = match self.write(file, slices.get(..count).unwrap_or_default(), offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            offset += written as u64;
            IoSlice::advance_slices(&mut slices, written);
        }
        Ok(())
    }

    fn write(&self, file: &File, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        #[cfg(test)]
        if let Some(room) = self.faults.room(slices) {
            let mut slices = slices.iter();
            let Some(first) = slices.find(|slice| !slice.is_empty()) else {
                return Ok(0);
            };
            if room == 0 {
                return Err(Errno::NOSPC.into());
            }
            let part = first.get(..room.min(first.len())).unwrap_or_default();
            return self.faults.take(rustix::io::pwrite(file, part, offset)?);
        }
        Ok(rustix::io::pwritev(file, slices, offset)?)
    }

    /// Makes the file's content durable.
    pub(crate) fn sync(&self, file: &File) -> io::Result<()> {
        #[cfg(test)]
        self.faults.sync()?;
        Ok(rustix::fs::fdatasync(file)?)
    }

    /// Makes a directory's entries durable.
    pub(crate) fn sync_directory(&self, directory: &File) -> io::Result<()> {
        Ok(rustix::fs::fsync(directory)?)
    }

    /// Allocates the blocks of the first `len` octets. Where the file system cannot, nothing happens.
    pub(crate) fn allocate(&self, file: &File, len: u64) -> io::Result<()> {
        #[cfg(test)]
        self.faults.allocate(len)?;
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, len) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Cuts the file.
    pub(crate) fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        #[cfg(test)]
        self.faults.truncate()?;
        Ok(rustix::fs::ftruncate(file, len)?)
    }
}

#[cfg(test)]
pub(crate) mod faults {
    //! A disk that fails on demand.

    use rustix::io::Errno;
    use std::io::{self, IoSlice};
    use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};

    #[derive(Debug)]
    pub(crate) struct Faults {
        /// Octets that can still be written; negative: any number.
        pub(crate) room: AtomicI64,
        pub(crate) sync_fails: AtomicBool,
        pub(crate) truncate_fails: AtomicBool,
        pub(crate) syncs: AtomicI64,
    }

    impl Default for Faults {
        fn default() -> Self {
            Self {
                room: AtomicI64::new(-1),
                sync_fails: AtomicBool::new(false),
                truncate_fails: AtomicBool::new(false),
                syncs: AtomicI64::new(0),
            }
        }
    }

    impl Faults {
        pub(super) fn room(&self, slices: &[IoSlice<'_>]) -> Option<usize> {
            let room = usize::try_from(self.room.load(SeqCst)).ok()?;
            (slices.iter().map(|slice| slice.len()).sum::<usize>() > room).then_some(room)
        }

        pub(super) fn take(&self, written: usize) -> io::Result<usize> {
            self.room.fetch_sub(written as i64, SeqCst);
            Ok(written)
        }

        pub(super) fn allocate(&self, len: u64) -> io::Result<()> {
            match u64::try_from(self.room.load(SeqCst)) {
                Ok(room) if len > room => Err(Errno::NOSPC.into()),
                _ => Ok(()),
            }
        }

        pub(super) fn sync(&self) -> io::Result<()> {
            self.syncs.fetch_add(1, SeqCst);
            if self.sync_fails.load(SeqCst) {
                return Err(Errno::IO.into());
            }
            Ok(())
        }

        pub(super) fn truncate(&self) -> io::Result<()> {
            if self.truncate_fails.load(SeqCst) {
                return Err(Errno::IO.into());
            }
            Ok(())
        }
    }
}
