//! What can go wrong.

use std::io;

/// A failed operation on a journal.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct Error {
    /// What was being done.
    pub what: String,
    /// Whose fault, and what helps.
    #[source]
    pub source: Fault,
}

/// The class of an [`Error`].
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// No room on the disk. The batch is not in the journal; the next one may be when there is room again.
    #[error("no space left")]
    Full,
    /// A record larger than [`crate::Options::max_record`].
    #[error("the record is too large")]
    TooLarge,
    /// Another process has the journal open.
    #[error("in use by another process")]
    Locked,
    /// What is on the disk is not what was written.
    #[error("damaged")]
    Damaged,
    /// The position names a segment that is gone.
    #[error("not there any more")]
    Gone,
    /// The disk or the file system.
    #[error(transparent)]
    Io(io::Error),
}

impl Error {
    pub(crate) fn new(what: impl Into<String>, source: impl Into<Fault>) -> Self {
        Self {
            what: what.into(),
            source: source.into(),
        }
    }

    /// Whether the disk is full.
    pub fn is_full(&self) -> bool {
        matches!(self.source, Fault::Full)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        // A quota is as good as a full disk.
        if matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        ) {
            Self::Full
        } else {
            Self::Io(error)
        }
    }
}

impl From<rustix::io::Errno> for Fault {
    fn from(error: rustix::io::Errno) -> Self {
        Self::from(io::Error::from(error))
    }
}
