//! One connection: lines in, octets out, TLS from the start or in between.

use crate::config::TlsMode;
use crate::guest::Guest;
use crate::listener::Caller;
use std::time::Duration;
use tls::Wire;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;

/// A stream in both directions.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send + Sync {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync> Io for T {}

/// Why a session is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The client is gone, or cannot be reached.
    Gone(&'static str),
    /// The client was silent for too long.
    Silent,
    /// The daemon stops.
    Stopping,
}

/// How long the client may take for its next line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// All it does until it is logged in has one limit together.
    Stranger,
    /// From one command to the next.
    Known,
}

/// A line of the client.
const READ: usize = 4096;

/// The connection of one client, line by line.
pub struct Channel {
    /// Who it is.
    pub guest: Guest,
    wire: Wire<Box<dyn Io>>,
    input: Vec<u8>,
    used: usize,
    /// What goes out with the next [`Channel::flush`].
    pub out: Vec<u8>,
    stopping: watch::Receiver<bool>,
}

impl Channel {
    /// A connection of which nothing was read.
    pub fn new(caller: Caller) -> Self {
        Self {
            guest: caller.guest,
            wire: Wire::Plain(caller.stream),
            input: Vec::new(),
            used: 0,
            out: Vec::new(),
            stopping: caller.stopping,
        }
    }

    /// Does the handshake of a listener with implicit TLS; nothing on others.
    ///
    /// # Errors
    /// The handshake failed.
    pub async fn open(&mut self) -> Result<(), Ended> {
        match self.guest.door.tls {
            TlsMode::Implicit => self.handshake().await,
            TlsMode::Starttls | TlsMode::None => Ok(()),
        }
    }

    /// The handshake. What was read before it is forgotten (RFC 2595 4, RFC 5804 2.2).
    ///
    /// # Errors
    /// It failed.
    pub async fn handshake(&mut self) -> Result<(), Ended> {
        self.flush().await?;
        self.input.clear();
        self.used = 0;
        self.guest.handshake(&mut self.wire).await
    }

    fn left(&self, patience: Patience) -> Duration {
        match patience {
            Patience::Known => Duration::from_secs(self.guest.front.logins.idle_s.max(1)),
            Patience::Stranger => self.guest.left(),
        }
    }

    /// Sends what waits, then gives the next line without its end (LF, or CR LF). `None`: it is longer than `limit`, and was
    /// passed over.
    ///
    /// # Errors
    /// [`Ended`]
    pub async fn line(
        &mut self,
        limit: usize,
        patience: Patience,
    ) -> Result<Option<Vec<u8>>, Ended> {
        let mut over = false;
        loop {
            let rest = self.input.get(self.used..).unwrap_or_default();
            if let Some(at) = memchr::memchr(b'\n', rest) {
                let line = rest.get(..at).unwrap_or_default();
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                let line = (!over && line.len() <= limit).then(|| line.to_vec());
                self.used += at + 1;
                return Ok(line);
            }
            if rest.len() > limit {
                over = true;
                self.used = self.input.len();
            }
            self.flush().await?;
            self.fill(patience).await?;
        }
    }

    /// The next octets, as many as asked for.
    ///
    /// # Errors
    /// [`Ended`]
    pub async fn octets(&mut self, count: usize, patience: Patience) -> Result<Vec<u8>, Ended> {
        self.flush().await?;
        let mut octets = Vec::with_capacity(count.min(64 * 1024));
        loop {
            let rest = self.input.get(self.used..).unwrap_or_default();
            let piece = rest.get(..count - octets.len()).unwrap_or(rest);
            octets.extend_from_slice(piece);
            self.used += piece.len();
            if octets.len() == count {
                return Ok(octets);
            }
            self.fill(patience).await?;
        }
    }

    /// Passes over octets that are not wanted.
    ///
    /// # Errors
    /// [`Ended`]
    pub async fn skip(&mut self, mut count: u64, patience: Patience) -> Result<(), Ended> {
        while count > 0 {
            let there = (self.input.len() - self.used) as u64;
            let now = there.min(count);
            self.used += usize::try_from(now).unwrap_or_default();
            count -= now;
            if count > 0 {
                self.fill(patience).await?;
            }
        }
        Ok(())
    }

    async fn fill(&mut self, patience: Patience) -> Result<(), Ended> {
        self.input.drain(..self.used.min(self.input.len()));
        self.used = 0;
        if self.input.is_empty() && self.input.capacity() > 2 * READ {
            self.input = Vec::new();
        }
        self.input.reserve(READ);
        let left = self.left(patience);
        let read = tokio::select! {
            biased;
            read = self.wire.read_buf(&mut self.input) => read,
            _ = self.stopping.wait_for(|stop| *stop) => return Err(Ended::Stopping),
            () = tokio::time::sleep(left) => return Err(Ended::Silent),
        };
        match read {
            Ok(0) => Err(Ended::Gone("the client closed the connection")),
            Ok(_) => Ok(()),
            Err(_) => Err(Ended::Gone("the connection was lost")),
        }
    }

    /// Sends what waits.
    ///
    /// # Errors
    /// The client is gone, or does not read.
    pub async fn flush(&mut self) -> Result<(), Ended> {
        if self.out.is_empty() {
            return Ok(());
        }
        let limit = Duration::from_secs(self.guest.front.logins.write_s.max(1));
        let sent = tokio::time::timeout(limit, async {
            self.wire.write_all(&self.out).await?;
            self.wire.flush().await
        })
        .await;
        self.out.clear();
        if self.out.capacity() > 64 * 1024 {
            self.out = Vec::new();
        }
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Ended::Gone("the connection was lost")),
            Err(_) => Err(Ended::Gone("the client does not read")),
        }
    }

    /// Sends when there is much: a slow client slows the answer down, not the memory up.
    ///
    /// # Errors
    /// As for [`Channel::flush`].
    pub async fn flush_if_full(&mut self) -> Result<(), Ended> {
        if self.out.len() < 64 * 1024 {
            return Ok(());
        }
        self.flush().await
    }

    /// Sends what waits and ends the connection.
    pub async fn close(&mut self) {
        if self.flush().await.is_ok() {
            let _ = tokio::time::timeout(Duration::from_secs(2), self.wire.shutdown()).await;
        }
    }
}
