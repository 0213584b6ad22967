//! One connection of a client.

mod arrival;
mod auth;
mod command;
mod data;
mod dnslist;
mod early;
mod envelope;
mod hooked;
mod hooks;
mod input;
mod limits;
mod pace;
mod reports;
mod rewrite;
mod spool;
mod terms;
#[cfg(test)]
mod tests;
mod transaction;

use crate::backend::Backend;
use crate::checks::Checks;
use crate::clients::{Clients, Seat};
use crate::config::{
    EarlyConfig, Limits, LineEndingPolicy, ListenerRole, TermsConfig, Timeouts, TlsMode,
};
use crate::dnslist::{Standing, When};
use crate::figures::Figures;
use crate::hooks::Hooks;
use crate::limitd::Asked;
use crate::recipients::ConfirmedRecipients;
use crate::rewriting::Rewriting;
use input::Input;
use ipc::api::authd::Login;
use smtp::{Line, LineLimits, LineReader};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tls::Wire;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use transaction::Transaction;
use types::{Address, Enhanced, TraceId};

/// What every session of this daemon shares.
pub struct Service<B> {
    /// authd and queued.
    pub backend: B,
    /// The policy.
    pub policy: Policy,
    /// Connections and guesses.
    pub clients: Arc<Clients>,
    /// Recipients confirmed lately.
    pub confirmed: ConfirmedRecipients,
    /// What is counted.
    pub figures: Figures,
    /// Present if there are filters.
    pub hooks: Option<Hooks>,
    /// Present if there are certificates.
    pub tls: Option<TlsAcceptor>,
}

/// The part of the configuration that sessions look at.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Our name in the greeting and in Received.
    pub hostname: String,
    /// `<Postmaster>` without a domain.
    pub postmaster: Address,
    /// What nothing may exceed.
    pub limits: Limits,
    /// How long to wait.
    pub timeouts: Timeouts,
    /// Lone CR and LF.
    pub line_endings: LineEndingPolicy,
    /// The From field of submissions must belong to the login too.
    pub check_from: bool,
    /// Logins without TLS are allowed.
    pub auth_without_tls: bool,
    /// The SASL mechanisms offered.
    pub mechanisms: Vec<String>,
    /// By which name our own Authentication-Results fields are known (RFC 8601 2.5).
    pub authserv_id: Arc<str>,
    /// What is done about senders that are not who they say; `None` if nothing is checked.
    pub checks: Option<Checks>,
    /// What senders may ask for besides delivery.
    pub terms: TermsConfig,
    /// Where limitd is asked; `None` if nowhere.
    pub asked: Option<Asked>,
    /// How lists in DNS are used; `None` if there are none.
    pub lists: Option<ListPolicy>,
    /// Clients that do not wait for their turn.
    pub early: EarlyConfig,
    /// Addresses that become others, and silent recipients; `None` if there are no such rules.
    pub(crate) rewriting: Option<Arc<Rewriting>>,
}

/// How lists in DNS are used.
#[derive(Clone, Debug)]
pub struct ListPolicy {
    /// When a client is told.
    pub when: When,
    /// A list is asked at MAIL.
    pub at_mail: bool,
    /// Local parts that everybody reaches.
    pub reachable: Vec<String>,
}

/// The listener through which the client came.
#[derive(Clone, Debug)]
pub struct Door {
    /// Its name, for logs and the queue.
    pub name: String,
    /// What it is for.
    pub role: ListenerRole,
    /// How it does TLS.
    pub tls: TlsMode,
    /// Whether AUTH is offered.
    pub auth: bool,
}

/// Who the client is.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Its address; `None` on a Unix socket.
    pub address: Option<IpAddr>,
    /// Its address is in `relay_networks`.
    pub may_relay: bool,
    /// Its address is in `trusted_networks`, or it has none.
    pub trusted: bool,
    /// It spoke before it was greeted.
    pub early: bool,
}

/// What the client called itself, and how.
#[derive(Clone, Debug)]
struct Hello {
    name: String,
    extended: bool,
}

/// What is known of the TLS connection.
#[derive(Clone, Debug)]
struct Secured {
    version: &'static str,
    cipher: String,
    bindings: Vec<(String, types::Octets)>,
}

/// Why a session is over.
#[derive(Debug)]
enum End {
    /// The last reply is written or in the buffer: send it and close.
    Said(&'static str),
    /// The client is gone, or cannot be reached.
    Gone(&'static str),
}

#[derive(Debug, Default)]
struct Counters {
    commands: u32,
    idle: u32,
    bad: u32,
    unknown: u32,
    messages: u32,
    failed_logins: u32,
}

/// A session. Make one with [`Session::new`], and [`Session::run`] it to its end.
pub struct Session<S, B> {
    service: Arc<Service<B>>,
    door: Arc<Door>,
    peer: Peer,
    seat: Option<Seat>,
    wire: Wire<S>,
    input: Input,
    out: Vec<u8>,
    lines: LineReader,
    line: Vec<u8>,
    hello: Option<Hello>,
    secured: Option<Secured>,
    login: Option<Login>,
    transaction: Option<Box<Transaction>>,
    hooks: Option<Box<hooks::Hooking>>,
    /// What lists in DNS say, once they were asked.
    standing: Option<Box<Standing>>,
    counters: Counters,
    trace: TraceId,
    ends: Option<Instant>,
    drain: watch::Receiver<bool>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send, B: Backend> Session<S, B> {
    /// A session over a stream of which nothing but a PROXY header was read.
    pub fn new(
        service: Arc<Service<B>>,
        door: Arc<Door>,
        peer: Peer,
        seat: Option<Seat>,
        stream: S,
        drain: watch::Receiver<bool>,
    ) -> Self {
        let limits = &service.policy.limits;
        let lines = LineReader::new(LineLimits {
            command: limits.command_line.max(512),
            envelope: limits.envelope_line.max(512),
            sasl: limits.auth_line.max(512),
        });
        let session = service.policy.timeouts.session_s;
        let ends = (session > 0).then(|| Instant::now() + Duration::from_secs(session));
        Self {
            service,
            door,
            peer,
            seat,
            wire: Wire::Plain(stream),
            input: Input::default(),
            out: Vec::new(),
            lines,
            line: Vec::new(),
            hello: None,
            secured: None,
            login: None,
            transaction: None,
            hooks: None,
            standing: None,
            counters: Counters::default(),
            trace: TraceId(rand::random()),
            ends,
            drain,
        }
    }

    /// Serves the client until one of both has enough. Everything that goes wrong ends here: there is nobody to tell.
    pub async fn run(mut self) {
        let started = Instant::now();
        tracing::debug!(trace = %self.trace, listener = self.door.name, client = %self.client(), "connected");
        self.service.figures.sessions.add_one();
        self.service.figures.open.change(1);
        let end = match self.serve().await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        self.hooks_close();
        self.drop_transaction().await;
        self.service.figures.open.change(-1);
        let reason = match end {
            End::Said(reason) => {
                self.close().await;
                reason
            }
            End::Gone(reason) => reason,
        };
        tracing::debug!(
            trace = %self.trace, listener = self.door.name, client = %self.client(), reason,
            messages = self.counters.messages, seconds = started.elapsed().as_secs(), "disconnected"
        );
    }

    async fn serve(&mut self) -> Result<std::convert::Infallible, End> {
        self.greet_early_talker()?;
        self.weigh_connection().await?;
        self.look_up_connection().await?;
        if self.door.tls == TlsMode::Implicit {
            self.handshake().await?;
        }
        self.hooks_connect().await?;
        let name = if self.door.role == ListenerRole::Lmtp {
            "LMTP"
        } else {
            "ESMTP"
        };
        let greeting = format!("{} {name} Posthouse", self.service.policy.hostname);
        self.reply(220, None, &greeting);
        loop {
            match self.read_line().await? {
                LineRead::Whole => {
                    let line = std::mem::take(&mut self.line);
                    let done = self.command(&line).await;
                    self.line = line;
                    done?;
                }
                LineRead::TooLong => {
                    self.malformed(500, Enhanced(5, 5, 2), "Line too long")?;
                }
            }
        }
    }

    /// Reads the next line into `self.line`. What was answered so far is sent only when there is nothing left to read, so
    /// that a pipelined group is answered in one packet (RFC 2920 3.2).
    async fn read_line(&mut self) -> Result<LineRead, End> {
        let mut until: Option<Instant> = None;
        loop {
            match self.lines.next(self.input.unread()) {
                Line::Complete { line, consumed } => {
                    self.line.clear();
                    self.line.extend_from_slice(line);
                    self.input.consume(consumed);
                    return Ok(LineRead::Whole);
                }
                Line::TooLong { consumed } => {
                    self.input.consume(consumed);
                    return Ok(LineRead::TooLong);
                }
                Line::Stray { consumed } => {
                    self.input.consume(consumed);
                    // RFC 5321 2.3.8: from here on, two readers could disagree on what is a command
                    let text =
                        "Lines must end in CRLF; found a lone CR or LF, closing the connection";
                    self.reply(521, Some(Enhanced(5, 5, 2)), text);
                    return Err(End::Said("stray line ending"));
                }
                Line::Incomplete { consumed } => self.input.consume(consumed),
            }
            self.flush().await?;
            self.input.shrink();
            // RFC 5321 4.5.3.2: for the whole line, however it comes
            let limit = Timeouts::of(self.service.policy.timeouts.command_s);
            let until = *until.get_or_insert_with(|| Instant::now() + limit);
            let left = until.saturating_duration_since(Instant::now());
            self.fill(left, input::COMMANDS, true).await?;
        }
    }

    /// Reads more octets. `drains`: this is a moment at which the session may end because the daemon does.
    async fn fill(&mut self, limit: Duration, size: usize, drains: bool) -> Result<usize, End> {
        let left = self
            .ends
            .map(|ends| ends.saturating_duration_since(Instant::now()));
        let limit = left.map_or(limit, |left| left.min(limit));
        let filled = tokio::select! {
            biased;
            filled = self.input.fill(&mut self.wire, size) => Some(filled),
            () = drained(&mut self.drain), if drains => None,
            () = tokio::time::sleep(limit) => {
                self.reply(421, Some(Enhanced(4, 4, 2)), "Time-out, closing the connection");
                return Err(End::Said("time-out"));
            }
        };
        match filled {
            Some(Ok(0)) => Err(End::Gone("the client closed the connection")),
            Some(Ok(count)) => Ok(count),
            Some(Err(_)) => Err(End::Gone("the connection was lost")),
            None => {
                let text = "Shutting down, try again in a moment";
                self.reply(421, Some(Enhanced(4, 3, 2)), text);
                Err(End::Said("shutdown"))
            }
        }
    }

    /// Sends what was answered.
    async fn flush(&mut self) -> Result<(), End> {
        if self.out.is_empty() {
            return Ok(());
        }
        let limit = Timeouts::of(self.service.policy.timeouts.write_s);
        let sent = tokio::time::timeout(limit, async {
            self.wire.write_all(&self.out).await?;
            self.wire.flush().await
        });
        let sent = sent.await;
        self.out.clear();
        if self.out.capacity() > 16 * 1024 {
            self.out = Vec::new();
        }
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Gone("the connection was lost")),
            Err(_) => Err(End::Gone("the client does not read")),
        }
    }

    /// Sends the last reply and closes. If the client still sends, its octets are read for a moment: otherwise the kernel
    /// would reset the connection, and the reply would be lost.
    async fn close(&mut self) {
        if self.flush().await.is_err() {
            return;
        }
        let lingering = async {
            self.wire.shutdown().await?;
            let mut rest = [0_u8; 1024];
            for _ in 0..1024 {
                if self.wire.read(&mut rest).await? == 0 {
                    break;
                }
            }
            std::io::Result::Ok(())
        };
        let _ = tokio::time::timeout(Duration::from_secs(2), lingering).await;
    }

    /// The TLS handshake. What was read before is forgotten: nobody knows who wrote it (RFC 3207 4.2, CVE-2011-0411).
    async fn handshake(&mut self) -> Result<(), End> {
        self.input.clear();
        let Wire::Plain(stream) = std::mem::replace(&mut self.wire, Wire::Gone) else {
            return Err(End::Gone("TLS twice"));
        };
        let Some(acceptor) = self.service.tls.clone() else {
            return Err(End::Gone("no certificate for TLS"));
        };
        let limit = Timeouts::of(self.service.policy.timeouts.handshake_s);
        match tokio::time::timeout(limit, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => {
                self.secured = Some(Secured::of(stream.get_ref().1));
                self.wire = Wire::Tls(Box::new(stream));
                Ok(())
            }
            Ok(Err(error)) => {
                tracing::info!(trace = %self.trace, client = %self.client(), %error, "TLS handshake failed");
                Err(End::Gone("TLS handshake failed"))
            }
            Err(_) => Err(End::Gone("TLS handshake timed out")),
        }
    }

    fn reply(&mut self, code: u16, enhanced: Option<Enhanced>, text: &str) {
        smtp::reply::write(&mut self.out, code, enhanced, text);
    }

    /// Answers a line that is no proper command, and counts it.
    fn malformed(&mut self, code: u16, enhanced: Enhanced, text: &str) -> Result<(), End> {
        self.reply(code, Some(enhanced), text);
        self.counters.bad += 1;
        self.counters.idle += 1;
        if code == 521 {
            return Err(End::Said("protocol error"));
        }
        if self.counters.bad >= self.service.policy.limits.bad_commands.max(1) {
            return self.abuse(Enhanced(4, 7, 0), "Too many errors, closing the connection");
        }
        Ok(())
    }

    fn abuse<T>(&mut self, enhanced: Enhanced, text: &'static str) -> Result<T, End> {
        self.reply(421, Some(enhanced), text);
        tracing::info!(trace = %self.trace, client = %self.client(), reason = text, "closing");
        Err(End::Said(text))
    }

    /// The client for logs and the queue: address and name.
    fn client(&self) -> String {
        let address = match self.peer.address {
            Some(address) => address.to_canonical().to_string(),
            None => "local".to_owned(),
        };
        match &self.hello {
            Some(hello) => format!("{address} ({})", hello.name),
            None => address,
        }
    }
}

enum LineRead {
    Whole,
    TooLong,
}

/// Waits until the daemon drains.
async fn drained(drain: &mut watch::Receiver<bool>) {
    // An error means that nobody is left to say so: then it never happens.
    if drain.wait_for(|drains| *drains).await.is_err() {
        std::future::pending::<()>().await;
    }
}

impl Secured {
    fn of(connection: &tokio_rustls::rustls::ServerConnection) -> Self {
        use tokio_rustls::rustls::ProtocolVersion;
        let version = match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLS",
        };
        let cipher = connection.negotiated_cipher_suite().map_or_else(
            || "unknown".to_owned(),
            |suite| {
                let name = suite.suite().as_str().unwrap_or("unknown");
                // rustls says TLS13_ where the registry says TLS_
                name.replace("TLS13_", "TLS_")
            },
        );
        let mut bindings = Vec::new();
        // RFC 9266 2: tls-exporter; with TLS 1.2 only under extended master secret, which rustls demands for exporters
        let exported = connection.export_keying_material(
            vec![0_u8; 32],
            b"EXPORTER-Channel-Binding",
            Some(b""),
        );
        if let Ok(octets) = exported {
            bindings.push(("tls-exporter".to_owned(), octets.into()));
        }
        Self {
            version,
            cipher,
            bindings,
        }
    }
}
