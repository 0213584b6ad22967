//! One connection to another host: octets, replies, TLS, and the commands that come before a message.

use crate::config::{Config, Protocol};
use crate::result::{Problem, ResultType};
use crate::tls::{Handshake, TlsClient};
use crate::tlsa::Tlsa;
use crate::transport::MinVersion;
use crate::verdict::with_host;
use crate::verify::Check;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipc::api::relayd::Manner;
use smtp::client::{self, Capabilities, Reply, ReplyError, ReplyParser};
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::client::TlsStream;
use types::{Enhanced, Status, TraceId};

/// Why a connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lost {
    #[error("timed out while {0}")]
    Timeout(&'static str),
    #[error("the connection was closed while {0}")]
    Closed(&'static str),
    #[error("{1} while {0}")]
    Io(&'static str, std::io::Error),
    #[error("{1} while {0}")]
    Garbage(&'static str, ReplyError),
    /// RFC 5321 3.8: the server says goodbye.
    #[error("{0}")]
    Goodbye(Status),
}

impl Lost {
    /// As a status of the recipients that wait for it.
    pub(crate) fn status(&self, host: &str) -> Status {
        match self {
            Self::Goodbye(status) => status.clone(),
            other => with_host(
                host,
                421,
                Enhanced(4, 4, 2),
                format!("{other}, talking to {host}"),
            ),
        }
    }
}

/// How well a connection is protected.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Security {
    /// In the clear.
    None,
    /// TLS if it can be had. Whether the certificate has one of the names of `watch` is found out and told, if there are any.
    May { watch: Vec<String> },
    /// TLS, with whomever.
    Encrypt,
    /// TLS with a certificate of an authority for one of these names; `.example.org` is any below that.
    Names(Vec<String>),
    /// TLS with certificates that fit these records (RFC 7672); where they are of an authority, for one of the names. `base` is
    /// the name that the records stand at.
    Dane {
        records: Vec<Tlsa>,
        names: Vec<String>,
        base: String,
    },
}

impl Security {
    /// For logs: how the host at the other end is known to be the right one.
    fn proof(&self) -> &'static str {
        match self {
            Self::None | Self::May { .. } | Self::Encrypt => "",
            Self::Names(_) => " verified",
            Self::Dane { .. } => " DANE",
        }
    }

    fn is_required(&self) -> bool {
        !matches!(self, Self::None | Self::May { .. })
    }

    fn check(&self) -> Check {
        match self {
            Self::May { watch } if !watch.is_empty() => Check::Names(watch.clone()),
            Self::None | Self::May { .. } | Self::Encrypt => Check::Nothing,
            Self::Names(names) => Check::Names(names.clone()),
            Self::Dane { records, names, .. } => Check::Dane {
                records: records.clone(),
                names: names.clone(),
            },
        }
    }
}

/// How to speak with a host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Policy {
    pub(crate) security: Security,
    /// TLS from the first octet (RFC 8314).
    pub(crate) implicit: bool,
    pub(crate) min_version: MinVersion,
    pub(crate) protocol: Protocol,
    pub(crate) login: Option<Login>,
    /// RFC 5321 5.1: a host that greets with our own name is ourselves. Not asked of configured routes.
    pub(crate) watch_loops: bool,
    /// What a rule of the queue wants. What is sent under one name or address never goes over a connection of another.
    pub(crate) manner: Manner,
}

impl Policy {
    /// The name in EHLO.
    fn hello<'a>(&'a self, own: &'a str) -> &'a str {
        self.manner.hello.as_deref().unwrap_or(own)
    }
}

/// What to log in with.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Login {
    pub(crate) username: String,
    pub(crate) password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({})", self.username)
    }
}

/// Where a host is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Endpoint {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
}

impl Endpoint {
    /// `mx.example.org[192.0.2.1]:25`
    pub(crate) fn label(&self) -> String {
        let Endpoint { name, address } = self;
        if address.port() == 25 {
            format!("{name}[{}]", address.ip())
        } else {
            format!("{name}[{}]:{}", address.ip(), address.port())
        }
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection that is ready for a message.
pub(crate) struct Connection {
    stream: Option<Stream>,
    parser: ReplyParser,
    input: Vec<u8>,
    taken: usize,
    /// Commands not yet sent.
    pub(crate) out: Vec<u8>,
    pub(crate) offered: Capabilities,
    pub(crate) label: String,
    /// `TLSv1.3`; `None` in the clear.
    pub(crate) tls: Option<String>,
    /// What is known of the host at the other end.
    proof: &'static str,
    /// What was not as it should be, and did not matter.
    pub(crate) problem: Option<Problem>,
    pub(crate) messages: u32,
    /// It is kept from a message before: RSET goes first, and nothing was heard from it since.
    pub(crate) unproved: bool,
    pub(crate) opened: Instant,
    /// Of the message that it carries now, for logs.
    pub(crate) trace: TraceId,
    command_timeout: Duration,
}

/// Why there is no connection that could take a message. The next host may do better.
#[derive(Debug)]
pub(crate) struct OpenError {
    pub(crate) status: Status,
    /// What was wrong with TLS, if that was it.
    pub(crate) problem: Option<Problem>,
}

impl OpenError {
    fn of(status: Status) -> Self {
        Self {
            status,
            problem: None,
        }
    }
}

async fn within<T>(
    limit: Duration,
    stage: &'static str,
    work: impl Future<Output = std::io::Result<T>>,
) -> Result<T, Lost> {
    match tokio::time::timeout(limit, work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Lost::Io(stage, error)),
        Err(_) => Err(Lost::Timeout(stage)),
    }
}

/// What a connection is opened with, whatever the host.
#[derive(Clone, Copy)]
pub(crate) struct Site<'a> {
    /// Our name.
    pub(crate) own: &'a str,
    pub(crate) config: &'a Config,
    pub(crate) tls: &'a TlsClient,
    pub(crate) trace: TraceId,
}

/// Opens a connection up to where MAIL may be said. With opportunistic TLS, a handshake that fails is followed by a second
/// connection in the clear (RFC 7435).
pub(crate) async fn open(
    endpoint: &Endpoint,
    policy: &Policy,
    site: Site<'_>,
) -> Result<Connection, OpenError> {
    match open_once(endpoint, policy, site).await {
        Err(OpenError {
            status,
            problem: Some(problem),
        }) if matches!(policy.security, Security::May { .. }) => {
            tracing::warn!(trace = %site.trace, host = endpoint.label(), reason = %status.text, "TLS failed, going on in the clear");
            let plain = Policy {
                security: Security::None,
                ..policy.clone()
            };
            let mut connection = open_once(endpoint, &plain, site).await?;
            connection.problem = Some(problem);
            Ok(connection)
        }
        result => result,
    }
}

async fn open_once(
    endpoint: &Endpoint,
    policy: &Policy,
    site: Site<'_>,
) -> Result<Connection, OpenError> {
    let Site {
        own, config, tls, ..
    } = site;
    let label = endpoint.label();
    let lost = |lost: Lost| OpenError::of(lost.status(&label));
    let connect_timeout = Config::seconds(config.connect_timeout);
    let tcp = within(
        connect_timeout,
        "connecting",
        connect(endpoint.address, config, policy.manner.source),
    )
    .await
    .map_err(|error| {
        let text = format!("cannot connect to {label}: {error}");
        OpenError::of(with_host(&label, 421, Enhanced(4, 4, 1), text))
    })?;
    let mut connection = Connection {
        stream: Some(Stream::Plain(tcp)),
        parser: ReplyParser::default(),
        input: Vec::with_capacity(4096),
        taken: 0,
        out: Vec::with_capacity(1024),
        offered: Capabilities::default(),
        label: label.clone(),
        tls: None,
        proof: policy.security.proof(),
        problem: None,
        messages: 0,
        unproved: false,
        opened: Instant::now(),
        trace: site.trace,
        command_timeout: Config::seconds(config.command_timeout),
    };
    if policy.implicit {
        connection
            .start_tls(endpoint, policy, tls, connect_timeout)
            .await?;
    }
    let greeting = connection
        .reply(
            "waiting for the greeting",
            Config::seconds(config.greeting_timeout),
        )
        .await
        .map_err(lost)?;
    if !greeting.is_positive() {
        return Err(OpenError::of(greeting.status(Some(&label))));
    }
    connection.hello(policy.hello(own), policy).await?;
    if !policy.implicit && policy.security != Security::None {
        connection
            .upgrade(endpoint, policy, site, connect_timeout)
            .await?;
    }
    if policy.watch_loops && connection.offered.host.eq_ignore_ascii_case(own) {
        let text = format!("mail loops back to this host: {label} calls itself {own} too");
        return Err(OpenError::of(with_host(
            &label,
            554,
            Enhanced(5, 4, 6),
            text,
        )));
    }
    if let Some(login) = &policy.login {
        connection.login(login).await?;
    }
    Ok(connection)
}

async fn connect(
    address: SocketAddr,
    config: &Config,
    wanted: Option<IpAddr>,
) -> std::io::Result<TcpStream> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    let source = wanted
        .filter(|source| source.is_ipv4() == address.is_ipv4())
        .or_else(|| config.source(address.ip()));
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Connection {
    /// STARTTLS (RFC 3207), as far as the host has it and as it is demanded.
    async fn upgrade(
        &mut self,
        endpoint: &Endpoint,
        policy: &Policy,
        site: Site<'_>,
        limit: Duration,
    ) -> Result<(), OpenError> {
        let label = self.label.clone();
        let lost = |lost: Lost| OpenError::of(lost.status(&label));
        let missing = |text: &str| {
            let text = format!("{label} {text}");
            Problem::new(ResultType::StarttlsNotSupported, text)
        };
        if !self.offered.starttls {
            let problem = missing("offers no TLS, which is required");
            if !policy.security.is_required() {
                self.problem = Some(problem);
                return Ok(());
            }
            return Err(OpenError {
                status: with_host(&label, 451, Enhanced(4, 7, 4), problem.text.clone()),
                problem: Some(problem),
            });
        }
        let reply = self
            .command("saying STARTTLS", client::starttls)
            .await
            .map_err(lost)?;
        if reply.is_positive() {
            self.start_tls(endpoint, policy, site.tls, limit).await?;
            // RFC 3207 4.2: what was learned before counts no more.
            return self.hello(policy.hello(site.own), policy).await;
        }
        let mut problem = missing("refuses STARTTLS");
        if !reply.is_permanent() {
            // It has it, and not now.
            problem.kind = ResultType::ValidationFailure;
        }
        if policy.security.is_required() {
            let mut status = reply.status(Some(&label));
            if reply.is_permanent() {
                // It is the connection that is refused, not the message.
                status.code = 454;
                status.enhanced.0 = 4;
            }
            return Err(OpenError {
                status,
                problem: Some(problem),
            });
        }
        self.problem = Some(problem);
        Ok(())
    }

    async fn start_tls(
        &mut self,
        endpoint: &Endpoint,
        policy: &Policy,
        tls: &TlsClient,
        limit: Duration,
    ) -> Result<(), OpenError> {
        let label = self.label.clone();
        let failed = |problem: Problem| OpenError {
            status: with_host(
                &label,
                454,
                Enhanced(4, 7, 5),
                format!("TLS with {label}: {problem}"),
            ),
            problem: Some(problem),
        };
        let wrong =
            |text: &str| failed(Problem::new(ResultType::ValidationFailure, text.to_owned()));
        let Some(Stream::Plain(tcp)) = self.stream.take() else {
            return Err(wrong("it is started already"));
        };
        // RFC 3207 4.2: whatever was sent in the clear behind the reply is no part of the TLS session.
        if self.taken < self.input.len() || !self.parser.is_idle() {
            return Err(wrong("the host sent more behind its answer to STARTTLS"));
        }
        let how = Handshake {
            // RFC 7672 8.1: the name that the records stand at.
            name: match &policy.security {
                Security::Dane { base, .. } => base,
                _ => &endpoint.name,
            },
            check: policy.security.check(),
            lenient: !policy.security.is_required(),
            min_version: policy.min_version,
        };
        let (stream, problem) = match tokio::time::timeout(limit, tls.connect(tcp, &how)).await {
            Ok(shaken) => shaken.map_err(failed)?,
            Err(_) => return Err(wrong("timed out while shaking hands")),
        };
        self.problem = problem;
        self.tls = stream
            .get_ref()
            .1
            .protocol_version()
            .map(|version| format!("{version:?}").replace('_', "."));
        self.stream = Some(Stream::Tls(Box::new(stream)));
        Ok(())
    }

    /// EHLO, or HELO for those who do not know it (RFC 5321 3.2); LHLO for LMTP.
    async fn hello(&mut self, own: &str, policy: &Policy) -> Result<(), OpenError> {
        let label = self.label.clone();
        let lost = |lost: Lost| OpenError::of(lost.status(&label));
        let lmtp = policy.protocol == Protocol::Lmtp;
        let reply = self
            .command("saying EHLO", |out| {
                if lmtp {
                    client::lhlo(out, own)
                } else {
                    client::ehlo(out, own)
                }
            })
            .await
            .map_err(lost)?;
        if reply.is_positive() {
            self.offered = Capabilities::from_reply(&reply);
            return Ok(());
        }
        if lmtp || !reply.is_permanent() {
            return Err(OpenError::of(reply.status(Some(&label))));
        }
        let reply = self
            .command("saying HELO", |out| client::helo(out, own))
            .await
            .map_err(lost)?;
        if !reply.is_positive() {
            return Err(OpenError::of(reply.status(Some(&label))));
        }
        self.offered = Capabilities {
            host: reply
                .lines
                .first()
                .and_then(|line| line.split(' ').next())
                .unwrap_or_default()
                .to_owned(),
            ..Capabilities::default()
        };
        Ok(())
    }

    /// AUTH PLAIN or LOGIN (RFC 4954, RFC 4616). A refusal is temporary for the mail: the configuration is at fault.
    async fn login(&mut self, login: &Login) -> Result<(), OpenError> {
        let label = self.label.clone();
        let lost = |lost: Lost| OpenError::of(lost.status(&label));
        let offers = |mechanism: &str| self.offered.auth.iter().any(|offered| offered == mechanism);
        let reply = if offers("PLAIN") {
            let secret = format!("\0{}\0{}", login.username, login.password);
            self.command("logging in", |out| {
                client::auth(out, "PLAIN", Some(secret.as_bytes()))
            })
            .await
            .map_err(lost)?
        } else if offers("LOGIN") {
            let mut reply = self
                .command("logging in", |out| client::auth(out, "LOGIN", None))
                .await
                .map_err(lost)?;
            for answer in [&login.username, &login.password] {
                if !reply.is_intermediate() {
                    break;
                }
                let line = format!("{}\r\n", STANDARD.encode(answer));
                reply = self
                    .command("logging in", |out| out.extend_from_slice(line.as_bytes()))
                    .await
                    .map_err(lost)?;
            }
            reply
        } else {
            let text = format!("{label} offers neither AUTH PLAIN nor AUTH LOGIN");
            return Err(OpenError::of(with_host(
                &label,
                451,
                Enhanced(4, 7, 4),
                text,
            )));
        };
        if reply.is_positive() {
            return Ok(());
        }
        let text = format!(
            "{label} refuses the login of {}: {} {}",
            login.username,
            reply.code,
            reply.text()
        );
        Err(OpenError::of(with_host(
            &label,
            454,
            Enhanced(4, 7, 8),
            text,
        )))
    }

    /// Sends one command and waits for its reply.
    pub(crate) async fn command(
        &mut self,
        stage: &'static str,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Reply, Lost> {
        write(&mut self.out);
        self.flush(stage, self.command_timeout).await?;
        self.reply(stage, self.command_timeout).await
    }

    /// Sends what has been written to `out`.
    pub(crate) async fn flush(&mut self, stage: &'static str, limit: Duration) -> Result<(), Lost> {
        let out = std::mem::take(&mut self.out);
        let sent = match &mut self.stream {
            Some(Stream::Plain(stream)) => within(limit, stage, stream.write_all(&out)).await,
            Some(Stream::Tls(stream)) => {
                within(limit, stage, async {
                    stream.write_all(&out).await?;
                    stream.flush().await
                })
                .await
            }
            None => Err(Lost::Closed(stage)),
        };
        self.out = out;
        self.out.clear();
        sent
    }

    /// Sends commands that have been written to `out`, without waiting for replies.
    pub(crate) async fn send(&mut self, stage: &'static str) -> Result<(), Lost> {
        self.flush(stage, self.command_timeout).await
    }

    /// The reply to a command already sent, in its turn.
    pub(crate) async fn next_reply(&mut self, stage: &'static str) -> Result<Reply, Lost> {
        self.reply(stage, self.command_timeout).await
    }

    /// The next reply. 421 is an error: the host is about to close.
    pub(crate) async fn reply(
        &mut self,
        stage: &'static str,
        limit: Duration,
    ) -> Result<Reply, Lost> {
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            let rest = self.input.get(self.taken..).unwrap_or_default();
            if !rest.is_empty() {
                let (taken, reply) = self
                    .parser
                    .feed(rest)
                    .map_err(|error| Lost::Garbage(stage, error))?;
                self.taken += taken;
                if let Some(reply) = reply {
                    tracing::debug!(trace = %self.trace, host = self.label,
                        code = reply.code,
                        text = reply.text(),
                        stage,
                        "reply"
                    );
                    if reply.code == 421 {
                        return Err(Lost::Goodbye(reply.status(Some(&self.label))));
                    }
                    return Ok(reply);
                }
            }
            self.input.clear();
            self.taken = 0;
            let left = deadline.saturating_duration_since(tokio::time::Instant::now());
            let read = match &mut self.stream {
                Some(Stream::Plain(stream)) => {
                    within(left, stage, stream.read_buf(&mut self.input)).await?
                }
                Some(Stream::Tls(stream)) => {
                    within(left, stage, stream.read_buf(&mut self.input)).await?
                }
                None => 0,
            };
            if read == 0 {
                return Err(Lost::Closed(stage));
            }
        }
    }

    /// Whether the next message may go over it.
    pub(crate) fn is_fresh(&self, config: &Config) -> bool {
        let most = self
            .offered
            .limits
            .mail_max
            .unwrap_or(u32::MAX)
            .min(config.messages_per_connection);
        self.messages < most && self.opened.elapsed() < Duration::from_secs(config.connection_age)
    }

    /// `host[address] TLSv1.3`; and `verified` or `DANE` if that was demanded.
    pub(crate) fn description(&self) -> String {
        match &self.tls {
            Some(version) => format!("{} {version}{}", self.label, self.proof),
            None => self.label.clone(),
        }
    }

    /// Says QUIT and closes, without waiting long (RFC 5321 4.1.1.10).
    pub(crate) async fn quit(mut self) {
        let limit = Duration::from_secs(2);
        client::quit(&mut self.out);
        if self.flush("saying QUIT", limit).await.is_ok() {
            let _ = self.reply("saying QUIT", limit).await;
        }
    }
}
