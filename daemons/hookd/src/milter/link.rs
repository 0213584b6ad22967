//! A connection to a milter.

use super::seconds;
use crate::address::Address;
use crate::config::MilterConfig;
use crate::filter::Trouble;
use ::milter::{Reader, Reply, Terms, put};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};

/// Octets that wait to be sent before they are.
const FULL: usize = 64 * 1024;
/// Octets of one packet. Pieces of a new body are no larger than ours; fields may be.
const PACKET: u32 = 1 << 20;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Sync {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync> Stream for T {}

/// A connection, and what was agreed on it.
pub(super) struct Link {
    stream: Box<dyn Stream>,
    reader: Reader,
    /// What is to be sent.
    pub(super) out: Vec<u8>,
    pub(super) terms: Terms,
    /// How long an answer may take.
    pub(super) patience: Duration,
    /// Octets of answers to this message, and how many there may be.
    received: usize,
    most: usize,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "version {}", self.terms.version)
    }
}

impl Link {
    /// Connects and agrees.
    pub(super) async fn open(config: &MilterConfig, until: Instant) -> Result<Self, Trouble> {
        let patience = seconds(config.connect_timeout_s);
        let until = until.min(Instant::now() + patience);
        let late = |_| Trouble::new("no connection in time");
        let stream = timeout_at(until, dial(&config.address))
            .await
            .map_err(late)?
            .map_err(|error| Trouble::new(format!("no connection: {error}")))?;
        let mut link = Self {
            stream,
            reader: Reader::new(PACKET),
            out: Vec::new(),
            terms: Terms::default(),
            patience,
            received: 0,
            most: config.max_response_bytes,
        };
        put::negotiate(&mut link.out, config.version);
        match link.answer(until).await? {
            Reply::Negotiate(asked) => {
                link.terms = Terms::agreed(config.version, &asked)
                    .map_err(|error| Trouble::new(error.to_string()))?;
            }
            _ => return Err(Trouble::new("it does not answer to an offer")),
        }
        link.patience = seconds(config.command_timeout_s);
        Ok(link)
    }

    /// Macros for the command that follows.
    pub(super) fn symbols(&mut self, of: u8, values: Vec<(&'static str, String)>) {
        if !values.is_empty() {
            put::macros(&mut self.out, of, &values);
        }
    }

    /// A new message: what it may answer is counted anew.
    pub(super) fn begin_response(&mut self) {
        self.received = 0;
    }

    pub(super) async fn flush(&mut self, until: Instant) -> Result<(), Trouble> {
        if self.out.is_empty() {
            return Ok(());
        }
        let until = until.min(Instant::now() + self.patience);
        let sent = timeout_at(until, self.stream.write_all(&self.out)).await;
        self.out.clear();
        self.out.shrink_to(FULL * 2);
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Trouble::new(format!("the connection was lost: {error}"))),
            Err(_) => Err(Trouble::new("it does not read in time")),
        }
    }

    pub(super) async fn flush_if_full(&mut self, until: Instant) -> Result<(), Trouble> {
        if self.out.len() < FULL {
            return Ok(());
        }
        self.flush(until).await
    }

    /// Sends what waits, and reads the next reply that is no sign of life.
    pub(super) async fn answer(&mut self, until: Instant) -> Result<Reply, Trouble> {
        self.flush(until).await?;
        let mut limit = until.min(Instant::now() + self.patience);
        loop {
            let packet = self
                .reader
                .packet()
                .map_err(|error| Trouble::new(format!("it sends what is no answer: {error}")))?;
            if let Some(packet) = packet {
                self.received = self.received.saturating_add(packet.data.len() + 5);
                if self.received > self.most {
                    return Err(Trouble::new("it answers more than is allowed"));
                }
                let reply = Reply::read(packet).map_err(|error| {
                    Trouble::new(format!("it sends what is no answer: {error}"))
                })?;
                if reply != Reply::Progress {
                    return Ok(reply);
                }
                limit = until.min(Instant::now() + self.patience);
                continue;
            }
            let mut piece = [0; 8192];
            let count = match timeout_at(limit, self.stream.read(&mut piece)).await {
                Ok(Ok(0)) => return Err(Trouble::new("it closed the connection")),
                Ok(Ok(count)) => count,
                Ok(Err(error)) => {
                    return Err(Trouble::new(format!("the connection was lost: {error}")));
                }
                Err(_) => return Err(Trouble::new("it does not answer in time")),
            };
            self.reader.feed(piece.get(..count).unwrap_or_default());
        }
    }

    /// Says that this is the end.
    pub(super) async fn quit(&mut self) {
        put::quit(&mut self.out);
        let until = Instant::now() + Duration::from_secs(1);
        if self.flush(until).await.is_ok() {
            let _ = timeout_at(until, self.stream.shutdown()).await;
        }
    }
}

async fn dial(address: &str) -> io::Result<Box<dyn Stream>> {
    match Address::read(address).map_err(io::Error::other)? {
        Address::Tcp(host, port) => {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream))
        }
        Address::Local(path) => Ok(Box::new(UnixStream::connect(path).await?)),
    }
}
