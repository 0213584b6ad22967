//! Calls for code that cannot wait in the asynchronous way: the signers of rustls and of DKIM.
//!
//! A few connections, one call at a time on each. Only for idempotent operations: a call whose connection breaks is
//! made once more on a new one.

use crate::frame::{HEADER, Kind};
use crate::hello::{Hello, VERSION, api_hash};
use crate::socket::{self, Assembler, Incoming};
use crate::{CallError, Fault, Operation};
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use types::{Role, TraceId};

/// Idle connections that are kept.
const KEEP: usize = 4;
/// How long a call may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// A blocking client of one daemon.
#[derive(Debug)]
pub struct Client {
    caller: Role,
    server: Role,
    path: PathBuf,
    idle: Mutex<Vec<Link>>,
}

#[derive(Debug)]
struct Link {
    stream: UnixStream,
    assembler: Assembler,
    next: u64,
}

impl Client {
    /// Connects when it is first used.
    pub fn new(caller: Role, server: Role, path: impl AsRef<Path>) -> Self {
        Self {
            caller,
            server,
            path: path.as_ref().to_owned(),
            idle: Mutex::default(),
        }
    }

    /// Calls an operation; blocks the thread for 5 seconds at most.
    ///
    /// # Errors
    /// See [`CallError`]; an operation that is not idempotent is a [`CallError::Protocol`].
    pub fn call<O: Operation>(&self, trace: TraceId, request: &O) -> Result<O::Reply, CallError> {
        if !O::IDEMPOTENT {
            return Err(CallError::Protocol(
                self.server,
                format!("{} may not be called blocking", O::NAME),
            ));
        }
        let kept = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        let first = kept.map(|link| self.attempt(link, trace, request));
        let answered = match first {
            Some(Ok(answered)) => Ok(answered),
            // A daemon that is there and slow is not asked twice.
            Some(Err(error)) if is_late(&error) => Err(error),
            // The kept connection may have been closed long ago.
            Some(Err(_)) | None => self
                .connect()
                .and_then(|link| self.attempt(link, trace, request)),
        };
        let (link, answer) = answered.map_err(|error| match error.kind() {
            _ if is_late(&error) => CallError::Timeout(self.server),
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                CallError::Protocol(self.server, error.to_string())
            }
            _ => CallError::Lost(self.server),
        })?;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEEP {
            idle.push(link);
        }
        drop(idle);
        let malformed =
            |error: postcard::Error| CallError::Protocol(self.server, error.to_string());
        if answer.header.kind == Kind::Fault {
            return Err(CallError::Fault(
                postcard::from_bytes::<Fault>(&answer.payload).map_err(malformed)?,
            ));
        }
        postcard::from_bytes(&answer.payload).map_err(malformed)
    }

    fn connect(&self) -> io::Result<Link> {
        let stream = UnixStream::connect(&self.path)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        let hello = Hello {
            version: VERSION,
            api: api_hash(self.server),
            role: self.caller,
        };
        let mut link = Link {
            stream,
            assembler: Assembler::default(),
            next: 1,
        };
        link.stream
            .write_all(&socket::frame(Kind::Hello, 0, 0, TraceId(0), 0, &hello)?)?;
        let answer = link.receive()?;
        if answer.header.kind == Kind::Hello {
            return Ok(link);
        }
        let fault: Fault = postcard::from_bytes(&answer.payload).map_err(io::Error::other)?;
        tracing::warn!(peer = %self.server, error = %fault, "cannot connect");
        Err(io::Error::new(io::ErrorKind::PermissionDenied, fault))
    }

    fn attempt<O: Operation>(
        &self,
        mut link: Link,
        trace: TraceId,
        request: &O,
    ) -> io::Result<(Link, Incoming)> {
        let octets = postcard::to_extend(request, vec![0; HEADER])
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let id = link.next;
        link.next += 1;
        let wait = u32::try_from(DEADLINE.as_millis()).unwrap_or(u32::MAX);
        link.stream.write_all(&socket::seal(
            octets,
            Kind::Call,
            O::CODE,
            id,
            trace,
            wait,
            0,
        )?)?;
        loop {
            let answer = link.receive()?;
            if matches!(answer.header.kind, Kind::Reply | Kind::Fault) && answer.header.id == id {
                return Ok((link, answer));
            }
        }
    }
}

fn is_late(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

impl Link {
    fn receive(&mut self) -> io::Result<Incoming> {
        loop {
            let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
            if let Some(incoming) = self.assembler.next().map_err(invalid)? {
                return Ok(incoming);
            }
            if self.assembler.receive(&self.stream)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
