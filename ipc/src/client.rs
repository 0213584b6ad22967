//! Calls to one daemon over one connection that is kept open, and opened again when it is lost.

use crate::frame::{HEADER, Kind};
use crate::hello::{Hello, VERSION, api_hash};
use crate::operation::DROPPED;
use crate::socket::{self, Assembler, Incoming, Outgoing};
use crate::{Event, Fault, FaultKind, Operation};
use bytes::Bytes;
use std::collections::HashMap;
use std::io;
use std::marker::PhantomData;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};
use types::{Role, TraceId};

/// Settings of a [`Client`].
#[derive(Clone, Copy, Debug)]
pub struct ClientOptions {
    /// Calls under way at once; more wait.
    pub window: usize,
    /// How long a call may take, waiting included.
    pub deadline: Duration,
    /// The first pause before connecting again, and the longest; it doubles, with jitter.
    pub backoff: (Duration, Duration),
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            window: 512,
            deadline: Duration::from_secs(30),
            backoff: (Duration::from_millis(5), Duration::from_millis(250)),
        }
    }
}

/// Why a call has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The server refused it.
    #[error("{0}")]
    Fault(Fault),
    /// The deadline passed. Whether it was done is not known.
    #[error("{0} did not answer in time")]
    Timeout(Role),
    /// The connection broke after it was sent, and it must not be sent twice. Whether it was done is not known.
    #[error("the connection to {0} was lost")]
    Lost(Role),
    /// What came back, or what was to be sent, is malformed or too long.
    #[error("{0}: {1}")]
    Protocol(Role, String),
}

impl CallError {
    /// Whether the same call may succeed later.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Fault(fault) => fault.is_temporary(),
            Self::Timeout(_) | Self::Lost(_) => true,
            Self::Protocol(..) => false,
        }
    }

    /// The server's word, if it gave one.
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            Self::Fault(fault) => Some(fault),
            _ => None,
        }
    }
}

impl From<CallError> for Fault {
    /// What a server answers when a server behind it failed.
    fn from(error: CallError) -> Self {
        match error {
            CallError::Fault(fault) => fault,
            other if other.is_temporary() => Self::new(FaultKind::Temporary, other.to_string()),
            other => Self::new(FaultKind::Internal, other.to_string()),
        }
    }
}

/// A call that waits for its answer.
struct Pending {
    frame: Bytes,
    descriptors: Arc<Vec<OwnedFd>>,
    idempotent: bool,
    /// The connection on which it was sent, 0 for none yet.
    sent: u64,
    /// How many connections have broken with it under way.
    losses: u32,
    reply: oneshot::Sender<Result<Incoming, CallError>>,
}

struct Shared {
    caller: Role,
    server: Role,
    path: PathBuf,
    options: ClientOptions,
    next: AtomicU64,
    window: Semaphore,
    pending: Mutex<HashMap<u64, Pending>>,
    /// Bounded by the window: a call holds a permit before it is queued.
    queue: mpsc::UnboundedSender<u64>,
    connected: watch::Sender<bool>,
    events: broadcast::Sender<Notice>,
}

/// A call that was under way on so many broken connections is not sent again: it may be what breaks them.
const LOSSES: u32 = 8;
/// A connection that stood this long was a good one: the next is tried without a longer pause.
const STEADY: Duration = Duration::from_secs(1);

/// What an event stream is made of, before it has a type.
#[derive(Clone, Debug)]
enum Notice {
    Resync,
    Event(u16, Bytes),
}

struct Guard(tokio::task::AbortHandle);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connection to one daemon. Cheap to clone; the connection ends with the last clone.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    _guard: Arc<Guard>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "client of {}", self.shared.server)
    }
}

impl Client {
    /// Begins to connect, in the background, to the socket of `server`. Needs a tokio runtime.
    pub fn new(caller: Role, server: Role, path: impl AsRef<Path>, options: ClientOptions) -> Self {
        #[allow(
            clippy::disallowed_methods,
            reason = "the window bounds what is queued"
        )]
        let (queue, queued) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            caller,
            server,
            path: path.as_ref().to_owned(),
            options,
            next: AtomicU64::new(1),
            window: Semaphore::new(options.window),
            pending: Mutex::default(),
            queue,
            connected: watch::Sender::new(false),
            events: broadcast::Sender::new(1024),
        });
        let task = tokio::spawn(keep(Arc::clone(&shared), queued));
        Self {
            shared,
            _guard: Arc::new(Guard(task.abort_handle())),
        }
    }

    /// The daemon it calls.
    pub fn server(&self) -> Role {
        self.shared.server
    }

    /// Whether the connection stands now.
    pub fn is_connected(&self) -> bool {
        *self.shared.connected.borrow()
    }

    /// Waits until the connection stands, at most for `limit`; whether it does.
    pub async fn ready(&self, limit: Duration) -> bool {
        let mut connected = self.shared.connected.subscribe();
        timeout(limit, connected.wait_for(|up| *up))
            .await
            .is_ok_and(|up| up.is_ok())
    }

    /// Calls an operation and waits for its reply, within the default deadline.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call<O: Operation>(
        &self,
        trace: TraceId,
        request: &O,
    ) -> Result<O::Reply, CallError> {
        let deadline = self.shared.options.deadline;
        self.call_with(trace, request, Vec::new(), deadline)
            .await
            .map(|(reply, _)| reply)
    }

    /// Calls an operation with descriptors and a deadline of its own; descriptors may come back.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn call_with<O: Operation>(
        &self,
        trace: TraceId,
        request: &O,
        descriptors: Vec<OwnedFd>,
        deadline: Duration,
    ) -> Result<(O::Reply, Vec<OwnedFd>), CallError> {
        let shared = &*self.shared;
        let server = shared.server;
        let until = Instant::now() + deadline;
        let permit = timeout_at(until, shared.window.acquire()).await;
        let Ok(Ok(_permit)) = permit else {
            return Err(CallError::Timeout(server));
        };
        let id = shared.next.fetch_add(1, Ordering::Relaxed);
        let malformed =
            |error: &dyn std::fmt::Display| CallError::Protocol(server, error.to_string());
        let octets =
            postcard::to_extend(request, vec![0; HEADER]).map_err(|error| malformed(&error))?;
        let count = u8::try_from(descriptors.len()).unwrap_or(u8::MAX);
        let wait = u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX);
        let frame = socket::seal(octets, Kind::Call, O::CODE, id, trace, wait, count)
            .map_err(|error| malformed(&error))?;
        let (reply, answered) = oneshot::channel();
        let call = Pending {
            frame: frame.into(),
            descriptors: Arc::new(descriptors),
            idempotent: O::IDEMPOTENT,
            sent: 0,
            losses: 0,
            reply,
        };
        shared.pending().insert(id, call);
        let _forget = Forget { shared, id };
        let _ = shared.queue.send(id);
        let answer = match timeout_at(until, answered).await {
            Ok(Ok(answer)) => answer?,
            Ok(Err(_)) => return Err(CallError::Lost(server)),
            Err(_) => return Err(CallError::Timeout(server)),
        };
        if answer.header.kind == Kind::Fault {
            let fault = postcard::from_bytes(&answer.payload).map_err(|error| malformed(&error))?;
            return Err(CallError::Fault(fault));
        }
        let reply = postcard::from_bytes(&answer.payload).map_err(|error| malformed(&error))?;
        Ok((reply, answer.descriptors))
    }

    /// The server's events of one kind, from now on.
    pub fn events<E: Event>(&self) -> Events<E> {
        Events {
            notices: self.shared.events.subscribe(),
            kind: PhantomData,
        }
    }
}

/// Takes a call back whose caller does not wait any more.
struct Forget<'a> {
    shared: &'a Shared,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.shared.pending().remove(&self.id);
    }
}

/// Events of one kind.
pub struct Events<E> {
    notices: broadcast::Receiver<Notice>,
    kind: PhantomData<fn() -> E>,
}

/// What comes out of [`Events`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard<E> {
    /// Events may have been missed: the connection is new (subscribe again), or this end was slow. Compare states.
    Resync,
    /// An event.
    Event(E),
}

impl<E: Event> Events<E> {
    /// The next one; `None` when the client is gone.
    pub async fn next(&mut self) -> Option<Heard<E>> {
        loop {
            match self.notices.recv().await {
                Ok(Notice::Resync) | Err(broadcast::error::RecvError::Lagged(_)) => {
                    return Some(Heard::Resync);
                }
                Ok(Notice::Event(code, payload)) if code == E::CODE => {
                    match postcard::from_bytes(&payload) {
                        Ok(event) => return Some(Heard::Event(event)),
                        Err(_) => return Some(Heard::Resync),
                    }
                }
                Ok(Notice::Event(..)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, HashMap<u64, Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frames for the calls that were not yet sent on this connection.
    fn take(&self, ids: &[u64], connection: u64, frames: &mut Vec<Outgoing>) {
        let mut pending = self.pending();
        for id in ids {
            if let Some(call) = pending.get_mut(id)
                && call.sent != connection
            {
                call.sent = connection;
                frames.push(Outgoing {
                    octets: call.frame.clone(),
                    descriptors: Arc::clone(&call.descriptors),
                });
            }
        }
    }

    /// After a connection broke: what was sent and may not be sent twice has failed.
    fn fail_lost(&self) {
        let mut pending = self.pending();
        let mut lost = Vec::new();
        for (id, call) in pending.iter_mut().filter(|(_, call)| call.sent != 0) {
            call.losses += 1;
            if !call.idempotent || call.losses >= LOSSES {
                lost.push(*id);
            }
        }
        for call in lost.iter().filter_map(|id| pending.remove(id)) {
            let _ = call.reply.send(Err(CallError::Lost(self.server)));
        }
    }

    fn dispatch(&self, incoming: Incoming) {
        match incoming.header.kind {
            Kind::Reply | Kind::Fault => {
                // Nobody waits when the deadline passed; then the answer is dropped, with its descriptors.
                if let Some(call) = self.pending().remove(&incoming.header.id) {
                    let _ = call.reply.send(Ok(incoming));
                }
            }
            Kind::Event if incoming.header.operation == DROPPED => {
                let _ = self.events.send(Notice::Resync);
            }
            Kind::Event => {
                let _ = self.events.send(Notice::Event(
                    incoming.header.operation,
                    incoming.payload.into(),
                ));
            }
            Kind::Hello | Kind::Call => {}
        }
    }
}

/// Keeps a connection, for as long as there is a client.
async fn keep(shared: Arc<Shared>, mut queued: mpsc::UnboundedReceiver<u64>) {
    let (least, most) = shared.options.backoff;
    let mut pause = least;
    let mut told = false;
    for connection in 1_u64.. {
        match connect(&shared).await {
            Ok((stream, assembler)) => {
                tracing::debug!(peer = %shared.server, "connected");
                let began = Instant::now();
                told = false;
                shared.connected.send_replace(true);
                let _ = shared.events.send(Notice::Resync);
                let ended = converse(&shared, &stream, assembler, &mut queued, connection).await;
                shared.connected.send_replace(false);
                shared.fail_lost();
                if began.elapsed() > STEADY {
                    pause = least;
                }
                if let Err(error) = ended {
                    tracing::warn!(peer = %shared.server, %error, "the connection broke");
                }
            }
            Err(error) => {
                // Once for each time of absence; a server that starts later is no trouble at first.
                if !told && pause >= most / 4 {
                    tracing::warn!(peer = %shared.server, socket = %shared.path.display(), %error, "cannot connect");
                    told = true;
                }
            }
        }
        let jitter = pause.mul_f64(
            f64::from(connection.wrapping_mul(2_654_435_761) as u32) / f64::from(u32::MAX),
        );
        tokio::time::sleep(pause / 2 + jitter / 2).await;
        pause = (pause * 2).min(most);
    }
}

async fn connect(shared: &Shared) -> io::Result<(UnixStream, Assembler)> {
    let stream = UnixStream::connect(&shared.path).await?;
    let hello = Hello {
        version: VERSION,
        api: api_hash(shared.server),
        role: shared.caller,
    };
    let octets = socket::frame(Kind::Hello, 0, 0, TraceId(0), 0, &hello)?;
    socket::write(&stream, &mut vec![Outgoing::plain(octets)]).await?;
    let mut assembler = Assembler::default();
    let answer = timeout(Duration::from_secs(5), first(&stream, &mut assembler)).await??;
    match answer.header.kind {
        Kind::Hello => Ok((stream, assembler)),
        Kind::Fault => {
            let fault: Fault = postcard::from_bytes(&answer.payload).map_err(io::Error::other)?;
            Err(io::Error::new(io::ErrorKind::PermissionDenied, fault))
        }
        _ => Err(io::Error::other("the server did not say hello")),
    }
}

/// The first frame of a connection.
pub(crate) async fn first(stream: &UnixStream, assembler: &mut Assembler) -> io::Result<Incoming> {
    loop {
        if let Some(incoming) = assembler.next().map_err(io::Error::other)? {
            return Ok(incoming);
        }
        if !socket::read(stream, assembler).await? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Writes calls and reads answers until the connection ends.
async fn converse(
    shared: &Shared,
    stream: &UnixStream,
    mut assembler: Assembler,
    queued: &mut mpsc::UnboundedReceiver<u64>,
    connection: u64,
) -> io::Result<()> {
    let write = async {
        let mut frames = Vec::new();
        // What an earlier connection left unanswered goes first, in its order.
        let mut ids: Vec<u64> = shared.pending().keys().copied().collect();
        ids.sort_unstable();
        loop {
            shared.take(&ids, connection, &mut frames);
            socket::write(stream, &mut frames).await?;
            ids.clear();
            if queued.recv_many(&mut ids, 64).await == 0 {
                return io::Result::Ok(());
            }
        }
    };
    let read = async {
        while socket::read(stream, &mut assembler).await? {
            while let Some(incoming) = assembler.next().map_err(io::Error::other)? {
                shared.dispatch(incoming);
            }
        }
        io::Result::Ok(())
    };
    tokio::select! {
        ended = write => ended,
        ended = read => ended,
    }
}
