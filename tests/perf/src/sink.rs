//! A host that takes everything at once: where the queue is drained to. The same for every side.
//!
//! It has a thread of its own, offers PIPELINING and 8BITMIME, and counts what arrives by the number in each message's subject, so
//! that a message that comes twice counts once.

use crate::Outcome;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

#[derive(Default)]
struct Taken {
    numbers: Mutex<HashSet<u64>>,
    different: AtomicUsize,
    all: AtomicUsize,
}

/// A sink; dropping it closes it.
pub struct Sink {
    taken: Arc<Taken>,
    _end: oneshot::Sender<()>,
}

impl Sink {
    /// Opens it at these addresses.
    pub fn open(addresses: &[SocketAddr]) -> Outcome<Self> {
        let taken = Arc::new(Taken::default());
        let (end, ended) = oneshot::channel();
        let mine = Arc::clone(&taken);
        let mut listeners = Vec::new();
        for address in addresses {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            listeners.push(listener);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::spawn(move || {
            runtime.block_on(async move {
                for listener in listeners.into_iter().flat_map(TcpListener::from_std) {
                    tokio::spawn(accept(listener, Arc::clone(&mine)));
                }
                // Until it is dropped.
                let _ = ended.await;
            });
        });
        Ok(Self { taken, _end: end })
    }

    /// Different messages that arrived.
    pub fn different(&self) -> usize {
        self.taken.different.load(Ordering::Relaxed)
    }

    /// Messages that arrived, those that came again included.
    pub fn all(&self) -> usize {
        self.taken.all.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, taken: Arc<Taken>) {
    while let Ok((stream, _)) = listener.accept().await {
        let taken = Arc::clone(&taken);
        tokio::spawn(async move {
            // A client that goes away is no concern of the sink.
            let _ = session(stream, &taken).await;
        });
    }
}

async fn session(stream: TcpStream, taken: &Taken) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufReader::with_capacity(16 * 1024, stream);
    let mut line = Vec::new();
    let mut answers = b"220 sink.example ESMTP\r\n".to_vec();
    loop {
        // Answers to what came together go together.
        if stream.buffer().is_empty() && !answers.is_empty() {
            stream.write_all(&answers).await?;
            answers.clear();
        }
        line.clear();
        if stream.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
        match verb.as_slice() {
            b"EHLO" => answers.extend_from_slice(
                b"250-sink.example\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n",
            ),
            b"DATA" => {
                answers.extend_from_slice(b"354 go on\r\n");
                stream.write_all(&answers).await?;
                answers.clear();
                message(&mut stream, &mut line, taken).await?;
                answers.extend_from_slice(b"250 2.0.0 taken\r\n");
            }
            b"QUIT" => {
                stream.write_all(b"221 2.0.0 bye\r\n").await?;
                return Ok(());
            }
            _ => answers.extend_from_slice(b"250 2.0.0 ok\r\n"),
        }
    }
}

async fn message(
    stream: &mut BufReader<TcpStream>,
    line: &mut Vec<u8>,
    taken: &Taken,
) -> std::io::Result<()> {
    let mut number = None;
    loop {
        line.clear();
        if stream.read_until(b'\n', line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if line == b".\r\n" {
            break;
        }
        if number.is_none()
            && let Some(text) = line.strip_prefix(HEADER)
        {
            number = std::str::from_utf8(text)
                .ok()
                .and_then(|text| text.trim().parse().ok());
        }
    }
    taken.all.fetch_add(1, Ordering::Relaxed);
    if let Some(number) = number {
        let mut numbers = taken.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        if numbers.insert(number) {
            taken.different.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Before the number of a message.
const HEADER: &[u8] = b"X-Number: ";

/// A message with its number.
pub fn numbered(number: usize, message: &[u8]) -> Vec<u8> {
    let mut octets = HEADER.to_vec();
    octets.extend_from_slice(format!("{number}\r\n").as_bytes());
    octets.extend_from_slice(message);
    octets
}
