//! The file of a large body: queued opened it, we write into it.

use ipc::api::queued::SpoolSlot;
use std::fs::File;
use std::io::{self, Write as _};
use tokio::task::JoinHandle;

/// Writes of that size go to the file.
pub(crate) const PIECE: usize = 256 * 1024;

type Writing = JoinHandle<io::Result<(File, Vec<u8>)>>;

/// One write is under way while the next piece is read; the reactor never waits for the disk.
#[derive(Debug)]
pub(crate) struct Spool {
    pub(crate) slot: SpoolSlot,
    file: Option<File>,
    writing: Option<Writing>,
    failed: bool,
}

impl Spool {
    pub(crate) fn new(slot: SpoolSlot, file: File) -> Self {
        Self {
            slot,
            file: Some(file),
            writing: None,
            failed: false,
        }
    }

    /// Writes a piece behind the last one. Returns an empty buffer for the next.
    ///
    /// # Errors
    /// Those of the previous write; the file is of no use then.
    pub(crate) async fn write(&mut self, piece: Vec<u8>) -> io::Result<Vec<u8>> {
        let spare = self.finish().await?;
        let mut file = self.file.take().ok_or(io::ErrorKind::BrokenPipe)?;
        self.writing = Some(tokio::task::spawn_blocking(move || {
            let mut piece = piece;
            file.write_all(&piece)?;
            piece.clear();
            Ok((file, piece))
        }));
        Ok(spare)
    }

    /// Waits for what is under way.
    ///
    /// # Errors
    /// Those of the write; the file is of no use then.
    pub(crate) async fn finish(&mut self) -> io::Result<Vec<u8>> {
        if self.failed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let Some(writing) = self.writing.take() else {
            return Ok(Vec::new());
        };
        match writing.await {
            Ok(Ok((file, spare))) => {
                self.file = Some(file);
                Ok(spare)
            }
            Ok(Err(error)) => {
                self.failed = true;
                Err(error)
            }
            Err(_) => {
                self.failed = true;
                Err(io::ErrorKind::Other.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn pieces_come_in_order() {
        let path = std::env::temp_dir().join(format!("smtpd-spool-{}", std::process::id()));
        let mut spool = Spool::new(SpoolSlot { slot: 1 }, File::create(&path).unwrap());
        for number in 0..20_u8 {
            spool.write(vec![number; 1000]).await.unwrap();
        }
        spool.finish().await.unwrap();
        let written = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(written.len(), 20_000);
        assert!(
            written
                .chunks(1000)
                .zip(0..)
                .all(|(piece, n)| piece == [n; 1000])
        );
    }

    #[tokio::test]
    async fn a_full_disk_is_reported() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut spool = Spool::new(SpoolSlot { slot: 1 }, full);
        spool.write(vec![0; 10]).await.unwrap();
        assert_eq!(
            spool.finish().await.unwrap_err().kind(),
            io::ErrorKind::StorageFull
        );
        assert!(spool.finish().await.is_err());
    }
}
