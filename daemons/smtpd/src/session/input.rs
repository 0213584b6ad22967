//! The octets that were read and not yet used.

use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Read at once while commands are expected: an idle session stays small.
pub(crate) const COMMANDS: usize = 4 * 1024;
/// Read at once while a message comes.
pub(crate) const MESSAGE: usize = 32 * 1024;

/// A read buffer that is consumed from its front.
#[derive(Debug, Default)]
pub(crate) struct Input {
    buffer: Vec<u8>,
    start: usize,
}

impl Input {
    /// What is there.
    pub(crate) fn unread(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    /// Done with `count` octets.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.buffer.len());
        if self.start == self.buffer.len() {
            self.clear();
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.buffer.clear();
        self.start = 0;
    }

    /// Reads up to `size` octets more; 0 is the end. Safe to drop halfway: nothing is lost.
    pub(crate) async fn fill(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        size: usize,
    ) -> io::Result<usize> {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        if self.buffer.capacity() - self.buffer.len() < size {
            self.buffer.reserve_exact(size);
        }
        from.read_buf(&mut self.buffer).await
    }

    /// Gives the room of a large message back.
    pub(crate) fn shrink(&mut self) {
        if self.buffer.is_empty() && self.buffer.capacity() > 2 * COMMANDS {
            self.buffer = Vec::new();
        }
    }
}
