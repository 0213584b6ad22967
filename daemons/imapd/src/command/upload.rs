//! A large message on its way into a file of stored's: written as it comes, read back once, to be described.

use crate::session::Refused;
use ipc::api::stored::{CloseUpload, OpenUpload};
use ipc::{CallError, Client, FaultKind};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;
use types::{AccountId, Body, Grant, TraceId};

/// Octets that wait in memory at most before they are written.
pub(crate) const PIECE: usize = 64 * 1024;

const PATIENCE: Duration = Duration::from_secs(30);

/// A file of stored's. Given back when it is dropped, unless stored has [taken](Upload::taken) it.
#[derive(Debug)]
pub(crate) struct Upload {
    stored: Client,
    trace: TraceId,
    slot: u64,
    pieces: Pieces,
    taken: bool,
}

impl Upload {
    /// Opens one for a message of `expected` octets that goes to `account`.
    ///
    /// # Errors
    /// NO \[OVERQUOTA\], and NO \[LIMIT\] while too many are open.
    pub(crate) async fn open(
        stored: &Client,
        trace: TraceId,
        grant: Grant,
        account: AccountId,
        expected: u64,
    ) -> Result<Self, Refused> {
        let request = OpenUpload {
            grant,
            account,
            expected,
        };
        let opened = stored
            .call_with(trace, &request, Vec::new(), PATIENCE)
            .await;
        let (slot, descriptors) = opened.map_err(|error| match &error {
            CallError::Fault(fault) if fault.kind == FaultKind::Busy => super::append::busy(),
            _ => error.into(),
        })?;
        let Some(descriptor) = descriptors.into_iter().next() else {
            return Err(unwritten(trace, &io::ErrorKind::NotFound.into()));
        };
        Ok(Self {
            stored: stored.clone(),
            trace,
            slot,
            pieces: Pieces::new(descriptor.into()),
            taken: false,
        })
    }

    /// Octets that were written.
    pub(crate) fn len(&self) -> u64 {
        self.pieces.len
    }

    /// Writes `piece` behind the rest, and empties it. What cannot be written is forgotten, and told by [`Upload::check`]
    /// and [`Upload::read`]: a message that is on its way cannot be stopped.
    pub(crate) async fn write(&mut self, piece: &mut Vec<u8>) {
        self.pieces.write(piece).await;
    }

    /// Whether all could be written.
    ///
    /// # Errors
    /// NO \[UNAVAILABLE\]
    pub(crate) fn check(&self) -> Result<(), Refused> {
        self.pieces
            .check()
            .map_err(|error| unwritten(self.trace, &error))
    }

    /// All of it.
    ///
    /// # Errors
    /// NO \[UNAVAILABLE\]: it could not be written, or not be read.
    pub(crate) async fn read(&self) -> Result<Vec<u8>, Refused> {
        let read = self.pieces.read().await;
        read.map_err(|error| unwritten(self.trace, &error))
    }

    /// As stored is told of it.
    pub(crate) fn body(&self) -> Body {
        Body::Slot {
            slot: self.slot,
            len: self.len(),
        }
    }

    /// stored has it now.
    pub(crate) fn taken(mut self) {
        self.taken = true;
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        if self.taken {
            return;
        }
        let (stored, trace) = (self.stored.clone(), self.trace);
        let close = CloseUpload { slot: self.slot };
        // If the call is lost, so is the connection, and with it the slot.
        runtime.spawn(async move { stored.call(trace, &close).await });
    }
}

fn unwritten(trace: TraceId, error: &io::Error) -> Refused {
    tracing::error!(%trace, %error, "an upload failed");
    let text = "The message could not be written, try again later".to_owned();
    Refused::No("UNAVAILABLE", text)
}

/// A file that grows at its end.
#[derive(Debug)]
struct Pieces {
    file: Arc<File>,
    len: u64,
    /// Why what was written is not all that came.
    failed: Option<io::ErrorKind>,
}

impl Pieces {
    fn new(file: File) -> Self {
        Self {
            file: Arc::new(file),
            len: 0,
            failed: None,
        }
    }

    async fn write(&mut self, piece: &mut Vec<u8>) {
        let mut octets = std::mem::take(piece);
        if self.failed.is_none() && !octets.is_empty() {
            let (file, at) = (Arc::clone(&self.file), self.len);
            self.len += octets.len() as u64;
            let writing = tokio::task::spawn_blocking(move || {
                let written = file.write_all_at(&octets, at);
                (written, octets)
            });
            let Ok((written, back)) = writing.await else {
                self.failed = Some(io::ErrorKind::Other);
                return;
            };
            self.failed = written.err().map(|error| error.kind());
            octets = back;
        }
        octets.clear();
        *piece = octets;
    }

    fn check(&self) -> io::Result<()> {
        self.failed.map_or(Ok(()), |failed| Err(failed.into()))
    }

    async fn read(&self) -> io::Result<Vec<u8>> {
        self.check()?;
        let len = usize::try_from(self.len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let file = Arc::clone(&self.file);
        let reading = tokio::task::spawn_blocking(move || {
            let mut octets = vec![0; len];
            file.read_exact_at(&mut octets, 0).map(|()| octets)
        });
        reading.await.map_err(io::Error::other)?
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn pieces_come_back_in_order() {
        let mut pieces = Pieces::new(tempfile::tempfile().unwrap());
        for number in 0..20_u8 {
            let mut piece = vec![number; 1000];
            pieces.write(&mut piece).await;
            assert!(piece.is_empty() && piece.capacity() >= 1000);
        }
        pieces.write(&mut Vec::new()).await;
        assert_eq!(pieces.len, 20_000);
        let whole = pieces.read().await.unwrap();
        let mut expected = whole.chunks(1000).zip(0..);
        assert!(expected.all(|(piece, number)| piece == [number; 1000]));
        assert_eq!(whole.len(), 20_000);
    }

    #[tokio::test]
    async fn a_full_disk_is_told_at_the_end() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut pieces = Pieces::new(full);
        for _ in 0..3 {
            let mut piece = vec![1; 10];
            pieces.write(&mut piece).await;
            assert!(piece.is_empty());
        }
        let error = pieces.read().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
