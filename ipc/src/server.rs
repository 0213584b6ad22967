//! The serving side: who may connect, which operations there are, and how calls are answered.

use crate::client::first;
use crate::frame::{HEADER, Kind};
use crate::hello::{Hello, VERSION, api_hash};
use crate::operation::DROPPED;
use crate::socket::{self, Assembler, Incoming, Outgoing};
use crate::{Event, Fault, FaultKind, Operation, topology};
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::time::{Instant, timeout};
use types::{Role, TraceId};

/// Settings of a server.
#[derive(Clone, Copy, Debug)]
pub struct ServerOptions {
    /// Calls of one connection that are worked on at once; more are left in the socket.
    pub window: usize,
    /// Connections at once.
    pub connections: usize,
    /// Events that may wait for a slow reader; more are dropped, as events are hints.
    pub events: usize,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            window: 512,
            connections: 256,
            events: 4096,
        }
    }
}

/// Who may claim which role.
#[derive(Clone, Debug)]
pub enum Users {
    /// All daemons run as one user: a peer must have our own uid; the tool may also be root.
    Single,
    /// Each role has a uid of its own, by topology; the tool is root.
    Separate(HashMap<Role, u32>),
}

impl Users {
    fn allow(&self, role: Role, uid: u32) -> bool {
        match self {
            Self::Single => {
                uid == rustix::process::geteuid().as_raw() || role == Role::Posthouse && uid == 0
            }
            Self::Separate(_) if role == Role::Posthouse => uid == 0,
            Self::Separate(uids) => uids.get(&role) == Some(&uid),
        }
    }
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The role it has proved.
    pub role: Role,
    /// Its uid, from the kernel.
    pub uid: u32,
    /// Its process id, from the kernel.
    pub pid: i32,
    /// Unique among the server's connections; what a connection owns is filed under it.
    pub connection: u64,
}

/// What a handler knows of its call.
#[derive(Debug)]
pub struct Context {
    /// Who calls.
    pub peer: Peer,
    /// For logs.
    pub trace: TraceId,
    /// The caller does not wait beyond this.
    pub deadline: Instant,
    /// Descriptors that came with the call.
    pub descriptors: Vec<OwnedFd>,
    /// The connection, for events.
    pub connection: Connection,
    reply: Arc<Mutex<Vec<OwnedFd>>>,
}

impl Context {
    /// Sends a descriptor along with the reply.
    pub fn attach(&self, descriptor: OwnedFd) {
        self.reply
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(descriptor);
    }
}

/// A way to send events to one peer.
#[derive(Clone, Debug)]
pub struct Connection {
    id: u64,
    out: mpsc::Sender<Outgoing>,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    open: AtomicBool,
    /// Events were dropped, and the peer does not know it yet.
    dropped: AtomicBool,
}

impl Connection {
    /// As [`Peer::connection`].
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Whether the peer is still there.
    pub fn is_open(&self) -> bool {
        self.state.open.load(Ordering::Relaxed)
    }

    /// Sends an event if there is room; `false` when the peer is gone. One that does not fit is dropped: it is a hint.
    /// The peer then hears [`crate::Heard::Resync`] as soon as it reads again.
    pub fn notify<E: Event>(&self, event: &E) -> bool {
        let sent = socket::frame(Kind::Event, E::CODE, 0, TraceId(0), 0, event)
            .is_ok_and(|octets| self.out.try_send(Outgoing::plain(octets)).is_ok());
        if !sent {
            self.state.dropped.store(true, Ordering::Release);
        }
        self.is_open()
    }
}

type Answer = Result<Vec<u8>, Fault>;
type Handler =
    Arc<dyn Fn(Context, Vec<u8>) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync>;
type Closed = Arc<dyn Fn(Peer) + Send + Sync>;

/// The operations of a daemon, and what answers them.
pub struct Router {
    role: Role,
    handlers: HashMap<u16, (&'static str, Handler)>,
    closed: Vec<Closed>,
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "router of {}", self.role)
    }
}

impl Router {
    /// Serves nothing yet.
    pub fn new(role: Role) -> Self {
        Self {
            role,
            handlers: HashMap::new(),
            closed: Vec::new(),
        }
    }

    /// Answers an operation by a function of the context and the request.
    #[must_use]
    pub fn on<O, H, F>(mut self, handler: H) -> Self
    where
        O: Operation,
        H: Fn(Context, O) -> F + Send + Sync + 'static,
        F: Future<Output = Result<O::Reply, Fault>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let erased: Handler = Arc::new(move |context, payload| {
            let handler = Arc::clone(&handler);
            Box::pin(async move {
                let request = postcard::from_bytes(&payload).map_err(|error| {
                    Fault::new(FaultKind::Invalid, format!("{}: {error}", O::NAME))
                })?;
                drop(payload);
                let reply = handler(context, request).await?;
                postcard::to_extend(&reply, vec![0; HEADER]).map_err(|error| {
                    Fault::new(FaultKind::Internal, format!("{}: {error}", O::NAME))
                })
            })
        });
        self.handlers.insert(O::CODE, (O::NAME, erased));
        self
    }

    /// Is told when a connection has ended: what it owned can go.
    #[must_use]
    pub fn on_closed(mut self, closed: impl Fn(Peer) + Send + Sync + 'static) -> Self {
        self.closed.push(Arc::new(closed));
        self
    }

    /// Accepts and answers until `stop` becomes true; then takes no more calls, and ends when those under way are
    /// answered.
    pub async fn serve(
        self,
        listener: UnixListener,
        users: Users,
        options: ServerOptions,
        stop: watch::Receiver<bool>,
    ) {
        let server = Arc::new(Server {
            router: self,
            users,
            options,
            stop: stop.clone(),
        });
        let places = Arc::new(Semaphore::new(options.connections));
        let next = AtomicU64::new(1);
        let mut stopping = stop;
        let mut conversations = tokio::task::JoinSet::new();
        loop {
            let accepted = tokio::select! {
                _ = stopping.wait_for(|stop| *stop) => break,
                Some(_) = conversations.join_next() => continue,
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::error!(%error, "cannot accept a local connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                tracing::warn!(limit = options.connections, "too many local connections");
                continue;
            };
            let server = Arc::clone(&server);
            let connection = next.fetch_add(1, Ordering::Relaxed);
            conversations.spawn(async move {
                let _place = place;
                server.converse(stream, connection).await;
            });
        }
        drop(listener);
        while conversations.join_next().await.is_some() {}
    }
}

struct Server {
    router: Router,
    users: Users,
    options: ServerOptions,
    stop: watch::Receiver<bool>,
}

impl Server {
    async fn converse(self: Arc<Self>, stream: UnixStream, connection: u64) {
        let mut assembler = Assembler::default();
        let mut stop = self.stop.clone();
        let greeted = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            greeted = timeout(
                Duration::from_secs(5),
                self.greet(&stream, &mut assembler, connection),
            ) => greeted,
        };
        let peer = match greeted {
            Ok(Ok(peer)) => peer,
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return,
            Ok(Err(error)) => {
                tracing::warn!(%error, "a local peer was refused");
                return;
            }
            Err(_) => {
                tracing::warn!("a local peer said nothing");
                return;
            }
        };
        let (out, mut outgoing) =
            mpsc::channel::<Outgoing>(self.options.events + self.options.window);
        let state = Arc::new(State {
            open: AtomicBool::new(true),
            dropped: AtomicBool::new(false),
        });
        let link = Connection {
            id: connection,
            out,
            state: Arc::clone(&state),
        };
        let last = Notify::new();
        let read = async {
            self.read(&stream, assembler, peer, link).await?;
            // All calls are answered; the writer ends when it has written the answers.
            last.notify_one();
            std::future::pending::<io::Result<()>>().await
        };
        let ended = tokio::select! {
            ended = read => ended,
            ended = write(&stream, &mut outgoing, &state, &last) => ended,
        };
        state.open.store(false, Ordering::Relaxed);
        for closed in &self.router.closed {
            closed(peer);
        }
        if let Err(error) = ended
            && !matches!(
                error.kind(),
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
            )
        {
            tracing::warn!(peer = %peer.role, %error, "a local connection broke");
        }
    }

    /// Hello from the peer, checked against the kernel's word and the topology; then ours.
    async fn greet(
        &self,
        stream: &UnixStream,
        assembler: &mut Assembler,
        connection: u64,
    ) -> io::Result<Peer> {
        let incoming = first(stream, assembler).await?;
        let credentials = stream.peer_cred()?;
        let role = self.router.role;
        // The version stands first, so that it can be read whatever follows.
        let hello: Hello = postcard::from_bytes(&incoming.payload).unwrap_or(Hello {
            version: postcard::take_from_bytes(&incoming.payload).map_or(0, |(version, _)| version),
            api: 0,
            role: Role::Posthouse,
        });
        let refusal = if incoming.header.kind != Kind::Hello || hello.version != VERSION {
            Some(format!(
                "speaks version {} of the protocol, not {VERSION}",
                hello.version
            ))
        } else if hello.api != api_hash(role) {
            Some(format!(
                "was built with another API of {role}: install one version of all daemons and restart both"
            ))
        } else if !self.users.allow(hello.role, credentials.uid()) {
            Some(format!(
                "runs as uid {}, which is not the user of {}",
                credentials.uid(),
                hello.role
            ))
        } else if !topology::callees(hello.role).contains(&role) {
            Some(format!(
                "{} may not call {role} (topology.toml)",
                hello.role
            ))
        } else {
            None
        };
        if let Some(text) = refusal {
            let text = format!("process {}: {text}", credentials.pid().unwrap_or(0));
            let fault = Fault::new(FaultKind::Denied, text.clone());
            let octets = socket::frame(Kind::Fault, 0, 0, TraceId(0), 0, &fault)?;
            send(stream, octets).await?;
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        let answer = Hello {
            version: VERSION,
            api: api_hash(role),
            role,
        };
        send(
            stream,
            socket::frame(Kind::Hello, 0, 0, TraceId(0), 0, &answer)?,
        )
        .await?;
        Ok(Peer {
            role: hello.role,
            uid: credentials.uid(),
            pid: credentials.pid().unwrap_or(0),
            connection,
        })
    }

    /// Reads calls and has them answered, as many at once as the window allows.
    async fn read(
        self: &Arc<Self>,
        stream: &UnixStream,
        mut assembler: Assembler,
        peer: Peer,
        link: Connection,
    ) -> io::Result<()> {
        let window = Arc::new(Semaphore::new(self.options.window));
        let mut stop = self.stop.clone();
        loop {
            while let Some(incoming) = assembler.next().map_err(io::Error::other)? {
                if incoming.header.kind != Kind::Call {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "a frame that is no call",
                    ));
                }
                let Ok(permit) = Arc::clone(&window).acquire_owned().await else {
                    return Ok(());
                };
                let (server, link) = (Arc::clone(self), link.clone());
                tokio::spawn(async move {
                    server.answer(incoming, peer, link).await;
                    drop(permit);
                });
            }
            let more = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => false,
                more = socket::read(stream, &mut assembler) => more?,
            };
            if !more {
                break;
            }
        }
        // Calls under way are answered before the connection ends.
        let all = u32::try_from(self.options.window).unwrap_or(u32::MAX);
        let _ = window.acquire_many(all).await;
        Ok(())
    }

    async fn answer(&self, incoming: Incoming, peer: Peer, link: Connection) {
        let header = incoming.header;
        let reply = Arc::new(Mutex::new(Vec::new()));
        let wait = Duration::from_millis(u64::from(header.deadline_ms.max(1)));
        let context = Context {
            peer,
            trace: header.trace,
            deadline: Instant::now() + wait,
            descriptors: incoming.descriptors,
            connection: link.clone(),
            reply: Arc::clone(&reply),
        };
        let answer = match self.router.handlers.get(&header.operation) {
            None => Err(Fault::new(
                FaultKind::Invalid,
                format!("there is no operation {}", header.operation),
            )),
            Some((name, _))
                if !topology::allows(self.router.role, peer.role, name, header.operation) =>
            {
                tracing::warn!(peer = %peer.role, operation = name, "denied: not in topology.toml");
                Err(Fault::new(
                    FaultKind::Denied,
                    format!("{} may not call {name}", peer.role),
                ))
            }
            Some((name, handler)) => match settle(handler(context, incoming.payload)).await {
                Ok(answer) => answer,
                Err(defect) => {
                    tracing::error!(operation = name, defect, trace = %header.trace, "a handler failed");
                    Err(Fault::new(
                        FaultKind::Internal,
                        format!("{name} failed; the log says more"),
                    ))
                }
            },
        };
        let descriptors =
            std::mem::take(&mut *reply.lock().unwrap_or_else(PoisonError::into_inner));
        let frame = match answer {
            Ok(octets) => {
                let count = u8::try_from(descriptors.len()).unwrap_or(u8::MAX);
                socket::seal(
                    octets,
                    Kind::Reply,
                    header.operation,
                    header.id,
                    header.trace,
                    0,
                    count,
                )
            }
            Err(fault) => socket::frame(
                Kind::Fault,
                header.operation,
                header.id,
                header.trace,
                0,
                &fault,
            ),
        };
        let frame = frame.or_else(|error| {
            let fault = Fault::new(FaultKind::Internal, error.to_string());
            socket::frame(
                Kind::Fault,
                header.operation,
                header.id,
                header.trace,
                0,
                &fault,
            )
        });
        if let Ok(octets) = frame {
            let _ = link
                .out
                .send(Outgoing {
                    octets: octets.into(),
                    descriptors: Arc::new(descriptors),
                })
                .await;
        }
    }
}

/// Writes answers and events as they come, until `last` says that there will be no more answers.
async fn write(
    stream: &UnixStream,
    outgoing: &mut mpsc::Receiver<Outgoing>,
    state: &State,
    last: &Notify,
) -> io::Result<()> {
    let mut frames = Vec::new();
    loop {
        let more = tokio::select! {
            biased;
            more = outgoing.recv_many(&mut frames, 64) => more,
            () = last.notified() => {
                outgoing.close();
                while outgoing.recv_many(&mut frames, 64).await > 0 {
                    socket::write(stream, &mut frames).await?;
                }
                return Ok(());
            }
        };
        if more == 0 {
            return Ok(());
        }
        socket::write(stream, &mut frames).await?;
        if outgoing.is_empty() && state.dropped.swap(false, Ordering::Acquire) {
            frames.push(Outgoing::plain(socket::frame(
                Kind::Event,
                DROPPED,
                0,
                TraceId(0),
                0,
                &(),
            )?));
            socket::write(stream, &mut frames).await?;
        }
    }
}

/// Runs a handler to its end. A defect in it ends its call, not the connection with all the others.
async fn settle(
    mut handler: Pin<Box<dyn Future<Output = Answer> + Send>>,
) -> Result<Answer, String> {
    std::future::poll_fn(
        |cx| match catch_unwind(AssertUnwindSafe(|| handler.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                std::task::Poll::Ready(Err(text.unwrap_or("panic").to_owned()))
            }
        },
    )
    .await
}

async fn send(stream: &UnixStream, octets: Vec<u8>) -> io::Result<()> {
    socket::write(stream, &mut vec![Outgoing::plain(octets)]).await
}
