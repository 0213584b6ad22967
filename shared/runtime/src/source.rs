//! A message body, or a part of one, wherever it is.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

/// Octets in memory or in a file, which are read in pieces.
#[derive(Clone, Debug)]
pub enum Source {
    /// In memory.
    Octets(Arc<Vec<u8>>),
    /// In a file, read by offset, as the descriptor may be shared.
    File {
        /// The file.
        file: Arc<File>,
        /// Where it begins in it.
        start: u64,
        /// Octets of it.
        len: u64,
    },
}

impl From<Vec<u8>> for Source {
    fn from(octets: Vec<u8>) -> Self {
        Self::Octets(Arc::new(octets))
    }
}

impl Source {
    /// Octets that are read at once where there is no reason for more or fewer.
    pub const PIECE: usize = 256 * 1024;

    /// Octets of it.
    pub fn len(&self) -> u64 {
        match self {
            Self::Octets(octets) => octets.len() as u64,
            Self::File { len, .. } => *len,
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The octets from `at` on, at most `most`; empty at the end. Blocks.
    ///
    /// # Errors
    /// If the file is shorter than it should be, or cannot be read.
    pub fn read(&self, at: u64, most: usize) -> io::Result<Vec<u8>> {
        let left = usize::try_from(self.len().saturating_sub(at)).unwrap_or(most);
        let count = left.min(most);
        match self {
            Self::Octets(octets) => {
                let at = usize::try_from(at).unwrap_or(usize::MAX);
                let piece = octets.get(at..at.saturating_add(count));
                Ok(piece.unwrap_or_default().to_vec())
            }
            Self::File { file, start, .. } => {
                let mut piece = vec![0; count];
                file.read_exact_at(&mut piece, start.saturating_add(at))?;
                Ok(piece)
            }
        }
    }

    /// The same without blocking.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn piece(&self, at: u64, most: usize) -> io::Result<Vec<u8>> {
        if matches!(self, Self::Octets(_)) {
            return self.read(at, most);
        }
        let source = self.clone();
        let read = tokio::task::spawn_blocking(move || source.read(at, most));
        read.await.map_err(io::Error::other)?
    }

    /// All of it. Memory is taken as it is read, not as its length says.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn whole(&self) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        loop {
            let piece = self.piece(all.len() as u64, Self::PIECE).await?;
            if piece.is_empty() {
                return Ok(all);
            }
            all.extend_from_slice(&piece);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Write as _;

    #[tokio::test]
    async fn pieces_are_the_same_from_memory_and_from_a_file() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"before0123456789behind").unwrap();
        let file = |len| Source::File {
            file: Arc::new(file.try_clone().unwrap()),
            start: 6,
            len,
        };
        for source in [Source::from(b"0123456789".to_vec()), file(10)] {
            assert_eq!(source.len(), 10);
            assert_eq!(source.piece(0, 4).await.unwrap(), b"0123");
            assert_eq!(source.piece(8, 4).await.unwrap(), b"89");
            assert_eq!(source.whole().await.unwrap(), b"0123456789");
            for past in [10, 11, u64::MAX] {
                assert!(source.piece(past, 4).await.unwrap().is_empty());
            }
        }
        let short = file(17).piece(10, 7).await.unwrap_err();
        assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
    }
}
