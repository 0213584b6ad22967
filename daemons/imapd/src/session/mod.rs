//! One connection of a client.

mod capability;
mod deflate;
mod enable;
mod login;
mod selected;

pub use selected::{Selected, put_fetch, put_fetch_flags, put_flags, put_vanished, within};

use crate::brief::Briefs;
use crate::command::{IndexRest, Notifying, PIECE, Upload};
use crate::config::Config;
use crate::view::Views;
use access::{Caller, Ended, Guest, Io, Seat, TlsMode};
use imap::put::{self, Condition};
use imap::{Command, Event, Literal, Names, Overrun, Reader as Codec, Tagged};
use ipc::api::authd::Login;
use ipc::{CallError, Client, FaultKind};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tls::Wire;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use types::{AccountId, TraceId};

/// What every session of this daemon shares.
pub struct Service {
    /// The store, read-only.
    pub reader: store::Reader,
    /// Makes every change.
    pub stored: Client,
    /// Checks logins.
    pub authd: Client,
    /// The full-text index.
    pub indexd: Client,
    /// Until when the index is not asked.
    pub index_rest: Arc<IndexRest>,
    /// Mailboxes in memory.
    pub views: Arc<Views>,
    /// What is compared of messages.
    pub briefs: Arc<Briefs>,
    /// `[imapd]`
    pub config: Config,
    /// KiB of large messages that may be in memory.
    pub large: Arc<tokio::sync::Semaphore>,
}

impl Service {
    /// The same service under another configuration, for new sessions.
    pub fn with_config(&self, config: Config) -> Self {
        Self {
            reader: self.reader.clone(),
            stored: self.stored.clone(),
            authd: self.authd.clone(),
            indexd: self.indexd.clone(),
            index_rest: Arc::clone(&self.index_rest),
            views: Arc::clone(&self.views),
            briefs: Arc::clone(&self.briefs),
            config,
            large: Arc::clone(&self.large),
        }
    }
}

/// Why a session is over.
#[derive(Debug)]
pub enum End {
    /// The last response is in the buffer: send it and close.
    Said(&'static str),
    /// The client is gone, or cannot be reached.
    Gone(&'static str),
    /// A message cannot be read, and a part of the response is on its way.
    Damaged,
}

impl From<Ended> for End {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Gone(reason) => Self::Gone(reason),
            Ended::Silent => Self::Said("time-out"),
            Ended::Stopping => Self::Said("shutdown"),
        }
    }
}

/// How a command was answered, if it was not OK.
#[derive(Debug)]
pub enum Refused {
    /// Tagged NO, with a response code or none.
    No(&'static str, String),
    /// The same, with a code that tells a number.
    Limit(String, String),
    /// Tagged BAD.
    Bad(&'static str),
    /// Sequence numbers after ENABLE UIDONLY (RFC 9586 3).
    UidRequired,
    /// The tagged response was sent already.
    Answered,
    /// The session is over.
    End(End),
}

impl From<End> for Refused {
    fn from(end: End) -> Self {
        Self::End(end)
    }
}

impl From<store::Error> for Refused {
    fn from(error: store::Error) -> Self {
        tracing::warn!(%error, "the store cannot be read");
        Self::No(
            "UNAVAILABLE",
            "The store cannot be read at the moment, try again later".to_owned(),
        )
    }
}

impl From<CallError> for Refused {
    fn from(error: CallError) -> Self {
        let Some(fault) = error.fault() else {
            tracing::warn!(%error, "a call failed");
            return Self::No(
                "UNAVAILABLE",
                "Not possible at the moment, try again later".to_owned(),
            );
        };
        let code = match fault.kind {
            FaultKind::OverQuota => "OVERQUOTA",
            FaultKind::NotFound => "NONEXISTENT",
            FaultKind::Conflict => "ALREADYEXISTS",
            FaultKind::Denied => "NOPERM",
            FaultKind::Invalid => "CANNOT",
            FaultKind::Temporary | FaultKind::Busy | FaultKind::Internal => {
                tracing::warn!(%fault, "a call failed");
                return Self::No(
                    "UNAVAILABLE",
                    "Not possible at the moment, try again later".to_owned(),
                );
            }
        };
        let text = fault
            .text
            .chars()
            .map(|c| {
                if c.is_control() || !c.is_ascii() {
                    '?'
                } else {
                    c
                }
            })
            .collect();
        Self::No(code, text)
    }
}

/// What a command gives: the text of its OK, with a response code or none.
pub type Done = Result<(String, &'static str), Refused>;

/// OK without a code.
pub fn done(text: &'static str) -> Done {
    Ok((String::new(), text))
}

/// What comes from the client, in one piece.
pub enum Arrived {
    /// A command.
    Command(Vec<u8>),
    /// A message of an APPEND, or a part of one, is announced behind this text.
    Message(Vec<u8>, Literal),
    /// A line that is no command.
    Response(Vec<u8>),
    /// An APPEND is complete: what stands behind its last message.
    MessageEnd(Vec<u8>),
    /// Too long.
    Overrun(Option<String>, Overrun),
}

/// A login that is in force.
#[derive(Clone, Debug)]
pub struct Account {
    /// Whose.
    pub id: AccountId,
    /// The right to change.
    pub login: Login,
}

/// A session.
pub struct Session<S> {
    pub(crate) service: Arc<Service>,
    /// Who it is, as far as it is known without a login.
    guest: Guest,
    pub(crate) wire: Wire<S>,
    input: Vec<u8>,
    used: usize,
    pub(crate) out: Vec<u8>,
    /// Octets that were sent before those in `out`, in the middle of commands.
    pub(crate) sent: u64,
    pub(crate) codec: Codec,
    pub(crate) names: Names,
    pub(crate) condstore: bool,
    /// QRESYNC is enabled (RFC 7162 3.2.3).
    pub(crate) qresync: bool,
    /// UIDONLY is enabled (RFC 9586 3).
    pub(crate) uid_only: bool,
    pub(crate) rev2: bool,
    /// ENABLE UTF8=ACCEPT (RFC 9755 3).
    pub(crate) utf8: bool,
    pub(crate) account: Option<Account>,
    pub(crate) selected: Option<Selected>,
    pub(crate) notify: Option<Box<Notifying>>,
    pub(crate) trace: TraceId,
    /// Of the command under way.
    pub(crate) tag: String,
    /// The message of an APPEND, as far as it came.
    pub(crate) message: Vec<u8>,
    /// The file for what came before, if the message is large.
    pub(crate) upload: Option<Upload>,
    /// A message of an APPEND is on its way.
    pub(crate) arriving: bool,
    bad: u32,
    deflate: Option<Box<deflate::Deflate>>,
    seat: Seat,
    stopping: watch::Receiver<bool>,
}

impl Session<Box<dyn Io>> {
    /// A session with somebody of whom nothing was read.
    pub fn new(service: Arc<Service>, caller: Caller, seat: Seat) -> Self {
        Self {
            service,
            trace: caller.guest.trace,
            guest: caller.guest,
            wire: Wire::Plain(caller.stream),
            input: Vec::new(),
            used: 0,
            out: Vec::new(),
            sent: 0,
            codec: Codec::new(login::LIMITS),
            names: Names::ModifiedUtf7,
            condstore: false,
            qresync: false,
            uid_only: false,
            rev2: false,
            utf8: false,
            account: None,
            selected: None,
            notify: None,
            tag: String::new(),
            message: Vec::new(),
            upload: None,
            arriving: false,
            bad: 0,
            deflate: None,
            seat,
            stopping: caller.stopping,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    /// Serves the client until one of both has enough.
    pub async fn run(mut self) {
        let began = Instant::now();
        let Err(end) = self.serve().await;
        let reason = match end {
            End::Said(reason) => {
                self.close().await;
                reason
            }
            End::Gone(reason) => reason,
            End::Damaged => "a message is damaged",
        };
        let account = self
            .account
            .as_ref()
            .map_or("", |account| account.login.name.as_str());
        tracing::debug!(
            trace = %self.trace, listener = self.guest.door.name, account, reason,
            seconds = began.elapsed().as_secs(), "disconnected"
        );
    }

    async fn serve(&mut self) -> Result<std::convert::Infallible, End> {
        if self.guest.door.tls == TlsMode::Implicit {
            self.handshake().await?;
        }
        let greeting = self.capability();
        put::status(
            &mut self.out,
            "*",
            Condition::Ok,
            &format!("CAPABILITY {greeting}"),
            "Posthouse ready",
        );
        loop {
            if self.notify.is_some() {
                self.attend().await?;
            }
            match self.arrival().await? {
                Arrived::Command(octets) => self.command(&octets).await?,
                Arrived::Message(head, literal) => self.append(&head, literal).await?,
                Arrived::Response(_) | Arrived::MessageEnd(_) => {
                    self.malformed(None, "That was not expected")?
                }
                Arrived::Overrun(tag, what) => self.overrun(tag, what)?,
            }
        }
    }

    async fn command(&mut self, octets: &[u8]) -> Result<(), End> {
        match imap::parse(octets, self.names) {
            Err(refused) => self.refuse(&refused),
            Ok(Tagged { tag, command }) => {
                let name = command.name();
                self.tag.clone_from(&tag);
                if self.utf8 && imap::searches_in_charset(octets) {
                    // RFC 9755 3
                    let refused = Refused::Bad("After ENABLE UTF8=ACCEPT a search is in UTF-8");
                    return self.answer(&tag, name, Err(refused));
                }
                let result = self.execute(&tag, command).await;
                self.answer(&tag, name, result)
            }
        }
    }

    /// The tagged response.
    pub(crate) fn answer(&mut self, tag: &str, name: &str, result: Done) -> Result<(), End> {
        match result {
            Ok((code, text)) => {
                put::status(
                    &mut self.out,
                    tag,
                    Condition::Ok,
                    &code,
                    &format!("{name} {text}"),
                );
                Ok(())
            }
            Err(Refused::No(code, text)) => {
                put::status(&mut self.out, tag, Condition::No, code, &text);
                Ok(())
            }
            Err(Refused::Limit(code, text)) => {
                put::status(&mut self.out, tag, Condition::No, &code, &text);
                Ok(())
            }
            Err(Refused::Bad(text)) => self.malformed(Some(tag), text),
            Err(Refused::UidRequired) => {
                let text = "Sequence numbers are off: this needs UIDs";
                put::status(&mut self.out, tag, Condition::Bad, "UIDREQUIRED", text);
                Ok(())
            }
            Err(Refused::Answered) => Ok(()),
            Err(Refused::End(end)) => Err(end),
        }
    }

    pub(crate) fn refuse(&mut self, refused: &imap::Refused) -> Result<(), End> {
        let tag = refused.tag.as_deref();
        let code = match refused.refusal.kind {
            imap::RefusalKind::Bad => return self.malformed(tag, refused.refusal.text),
            imap::RefusalKind::Name => "CANNOT",
            imap::RefusalKind::Charset { saves } => {
                // RFC 5182 2.1: a search that was to save and is answered NO leaves nothing saved
                if saves && let Some(selected) = &mut self.selected {
                    selected.saved.clear();
                }
                "BADCHARSET (US-ASCII UTF-8)"
            }
        };
        put::status(
            &mut self.out,
            tag.unwrap_or("*"),
            Condition::No,
            code,
            refused.refusal.text,
        );
        Ok(())
    }

    fn malformed(&mut self, tag: Option<&str>, text: &str) -> Result<(), End> {
        self.bad += 1;
        put::status(&mut self.out, tag.unwrap_or("*"), Condition::Bad, "", text);
        if self.bad >= self.service.config.bad_commands.max(1) {
            put::text(&mut self.out, "* BYE Too many malformed commands\r\n");
            return Err(End::Said("too many malformed commands"));
        }
        Ok(())
    }

    fn overrun(&mut self, tag: Option<String>, what: Overrun) -> Result<(), End> {
        let text = match what {
            Overrun::Line => "The line is too long",
            Overrun::Literal => "The literal is too long",
        };
        self.malformed(tag.as_deref(), text)
    }

    /// Whether the command needs a login, and does it.
    async fn execute(&mut self, tag: &str, command: Command) -> Done {
        match command {
            Command::Capability => {
                let text = format!("* CAPABILITY {}\r\n", self.capability());
                put::text(&mut self.out, &text);
                return done("completed");
            }
            Command::Logout => {
                put::text(&mut self.out, "* BYE Come again\r\n");
                put::status(&mut self.out, tag, Condition::Ok, "", "LOGOUT completed");
                return Err(Refused::End(End::Said("logout")));
            }
            Command::Noop if self.account.is_none() => return done("completed"),
            Command::Id(fields) => return self.id(&fields),
            Command::Compress if self.account.is_some() => return self.compress(tag).await,
            Command::Unauthenticate => return self.unauthenticate(),
            Command::StartTls => return self.starttls(tag).await,
            Command::Login { name, password } => return self.login(&name, &password).await,
            Command::Authenticate { mechanism, initial } => {
                return self.authenticate(mechanism, initial).await;
            }
            _ => {}
        }
        if self.account.is_none() {
            return Err(Refused::Bad("Log in first"));
        }
        let expires = self
            .account
            .as_ref()
            .map_or(0, |account| account.login.grant.expires);
        if expires <= crate::now() {
            put::text(
                &mut self.out,
                "* BYE The login has expired, log in again\r\n",
            );
            return Err(Refused::End(End::Said("the login has expired")));
        }
        if self.uid_only && command.uses_sequence_numbers() {
            return Err(Refused::UidRequired);
        }
        self.authenticated(command).await
    }

    /// Everything that a response may need is read from the socket; the buffer is sent when there is nothing left to read.
    pub(crate) async fn arrival(&mut self) -> Result<Arrived, End> {
        loop {
            let start = self.used;
            let mut rest = self.input.get(start..).unwrap_or_default();
            let before = rest.len();
            let event = self.codec.next(&mut rest);
            let mut ready = None;
            let mut hopeless = false;
            let mut again = true;
            match event {
                None => again = false,
                Some(Event::Continue) => put::continuation(&mut self.out, "Go on"),
                Some(Event::Command(octets)) => ready = Some(Arrived::Command(octets.to_vec())),
                Some(Event::Response(octets)) => ready = Some(Arrived::Response(octets.to_vec())),
                Some(Event::Message { head, literal }) => {
                    ready = Some(Arrived::Message(head.to_vec(), literal))
                }
                Some(Event::Data(octets)) => self.message.extend_from_slice(octets),
                Some(Event::MessageEnd(text)) => ready = Some(Arrived::MessageEnd(text.to_vec())),
                Some(Event::Overrun { tag, what }) => ready = Some(Arrived::Overrun(tag, what)),
                Some(Event::Hopeless) => hopeless = true,
            }
            self.used = start + (before - rest.len());
            if self.message.len() >= PIECE
                && let Some(upload) = &mut self.upload
            {
                upload.write(&mut self.message).await;
            }
            if hopeless {
                put::text(&mut self.out, "* BYE Too much to skip\r\n");
                return Err(End::Said("hopeless"));
            }
            if let Some(ready) = ready {
                return Ok(ready);
            }
            if again {
                continue;
            }
            self.flush().await?;
            self.fill().await?;
        }
    }

    /// Whether there are octets that were read and not yet looked at.
    pub(crate) fn has_input(&self) -> bool {
        self.used < self.input.len()
    }

    fn patience(&self) -> Duration {
        let config = &self.service.config;
        if self.arriving {
            Duration::from_secs(config.write_s.max(1))
        } else if self.account.is_some() {
            Duration::from_secs(config.idle_s.max(1))
        } else {
            // In all: octets now and then are no login.
            self.guest.left()
        }
    }

    /// Reads more. Safe to drop halfway.
    pub(crate) async fn fill(&mut self) -> Result<(), End> {
        self.input.drain(..self.used.min(self.input.len()));
        self.used = 0;
        let room = if self.arriving { PIECE } else { 2048 };
        if self.input.is_empty() && self.input.capacity() > 8192 && !self.arriving {
            self.input = Vec::new();
        }
        self.input.reserve(room);
        let patience = self.patience();
        if patience.is_zero() {
            // Commands without end are no login either.
            put::text(&mut self.out, "* BYE Too long without a login\r\n");
            return Err(End::Said("time-out"));
        }
        let read = tokio::select! {
            biased;
            read = deflate::receive(&mut self.wire, self.deflate.as_deref_mut(), &mut self.input) => read?,
            _ = self.stopping.wait_for(|stop| *stop) => {
                put::text(&mut self.out, "* BYE Shutting down, come again in a moment\r\n");
                return Err(End::Said("shutdown"));
            }
            () = tokio::time::sleep(patience) => {
                put::text(&mut self.out, "* BYE Too long without a word\r\n");
                return Err(End::Said("time-out"));
            }
        };
        match read {
            0 => Err(End::Gone("the client closed the connection")),
            _ => Ok(()),
        }
    }

    /// Sends what is in the buffer, and all that was held back to be packed better.
    pub(crate) async fn flush(&mut self) -> Result<(), End> {
        let held = self.deflate.as_ref().is_some_and(|deflate| deflate.holds());
        if self.out.is_empty() && !held {
            return Ok(());
        }
        let limit = Duration::from_secs(self.service.config.write_s.max(1));
        let mut octets = self.packed(true);
        let sent = tokio::time::timeout(limit, async {
            self.wire.write_all(&octets).await?;
            self.wire.flush().await
        })
        .await;
        octets.clear();
        if octets.capacity() <= 8192 {
            self.out = octets;
        }
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Gone("the connection was lost")),
            Err(_) => Err(End::Gone("the client does not read")),
        }
    }

    /// Waits until a message of that many octets may be in memory; `None` if that takes too long.
    pub(crate) async fn room(&self, octets: u64) -> Option<tokio::sync::OwnedSemaphorePermit> {
        let most = u64::from(self.service.config.large_kib.max(1));
        let kib = u32::try_from(octets.div_ceil(1024).min(most)).unwrap_or(1);
        let permits = Arc::clone(&self.service.large).acquire_many_owned(kib);
        let limit = Duration::from_secs(30);
        tokio::time::timeout(limit, permits).await.ok()?.ok()
    }

    /// Sends when there is much: a slow client slows the command down, not the memory up.
    pub(crate) async fn flush_if_full(&mut self) -> Result<(), End> {
        if self.out.len() < 64 * 1024 {
            return Ok(());
        }
        let limit = Duration::from_secs(self.service.config.write_s.max(1));
        self.sent += self.out.len() as u64;
        let mut octets = self.packed(false);
        let sent = tokio::time::timeout(limit, self.wire.write_all(&octets)).await;
        octets.clear();
        self.out = octets;
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Gone("the connection was lost")),
            Err(_) => Err(End::Gone("the client does not read")),
        }
    }

    async fn close(&mut self) {
        if self.flush().await.is_ok() {
            let _ = tokio::time::timeout(Duration::from_secs(2), self.wire.shutdown()).await;
        }
    }

    /// RFC 2971
    fn id(&mut self, fields: &[(String, Option<String>)]) -> Done {
        let field = |name: &str| {
            let found = fields
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(name));
            found
                .and_then(|(_, value)| value.clone())
                .unwrap_or_default()
        };
        let (client, version) = (field("name"), field("version"));
        tracing::debug!(trace = %self.trace, client, version, "client");
        put::text(&mut self.out, "* ID (\"name\" \"Posthouse\" \"version\" \"");
        put::text(&mut self.out, env!("CARGO_PKG_VERSION"));
        put::text(&mut self.out, "\")\r\n");
        done("completed")
    }
}
