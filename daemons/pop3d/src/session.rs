//! One session: AUTHORIZATION, TRANSACTION, UPDATE (RFC 1939 3).

use crate::config::Config;
use crate::language;
use crate::letter::{self, Writer};
use crate::maildrop::{Maildrop, Message};
use access::{Channel, Ended, Patience, Refusal, SaslText, Seat};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ipc::api::authd::{AuthFailure, Login};
use ipc::api::stored::{FlagChange, HoldMaildrop, Mutate, Mutation, Provision, ReleaseMaildrop};
use ipc::{Client, FaultKind};
use pop3::Command;
use std::sync::Arc;
use std::time::Duration;
use store::{ContentBody, Reader, Wanted};
use tokio::sync::watch;
use types::{Grant, RequestId, Rights};

/// Octets of AUTH's line with its initial response.
const LINE: usize = 24 * 1024;
/// Octets of a large message that are read at once.
const PIECE: u64 = 256 * 1024;
/// Removing many messages on a slow disk.
const PATIENCE: Duration = Duration::from_secs(120);

/// What all sessions share.
pub(crate) struct Service {
    pub(crate) reader: Reader,
    pub(crate) stored: Client,
    /// As it is now.
    pub(crate) config: watch::Receiver<Arc<Config>>,
}

/// After the login.
struct Open {
    grant: Grant,
    maildrop: Maildrop,
    holder: u64,
}

pub(crate) struct Session {
    pub(crate) config: Arc<Config>,
    service: Arc<Service>,
    channel: Channel,
    seat: Seat,
    user: Option<String>,
    open: Option<Open>,
    /// The client said UTF8 (RFC 6856 2.1).
    utf8: bool,
    bad: u32,
}

/// SASL's text in POP3 (RFC 5034 4).
struct Sasl;

impl SaslText for Sasl {
    async fn challenge(&mut self, channel: &mut Channel, data: &[u8]) -> Result<Vec<u8>, Refusal> {
        let line = format!("+ {}\r\n", BASE64.encode(data));
        channel.out.extend_from_slice(line.as_bytes());
        channel.base64_response().await
    }
}

/// Why a session ends.
enum End {
    /// The last reply is written.
    Said,
    Ended(Ended),
}

impl From<Ended> for End {
    fn from(ended: Ended) -> Self {
        Self::Ended(ended)
    }
}

type Done = Result<(), End>;

impl Session {
    pub(crate) fn new(service: Arc<Service>, channel: Channel, seat: Seat) -> Self {
        let config = Arc::clone(&service.config.borrow());
        Self {
            config,
            service,
            channel,
            seat,
            user: None,
            open: None,
            utf8: false,
            bad: 0,
        }
    }

    /// Serves the client until one of both has enough.
    pub(crate) async fn run(mut self) {
        let Err(end) = self.serve().await;
        let reason = match end {
            End::Said => "quit",
            End::Ended(Ended::Gone(reason)) => reason,
            End::Ended(Ended::Silent) => {
                // RFC 1939 3: no UPDATE, and no reply either; but a word helps whoever looks.
                self.reply("-ERR [SYS/TEMP] Too long without a word");
                "time-out"
            }
            End::Ended(Ended::Stopping) => {
                self.reply("-ERR [SYS/TEMP] Shutting down, come again in a moment");
                "shutdown"
            }
        };
        self.channel.close().await;
        if let Some(open) = self.open.take() {
            self.release(&open).await;
        }
        tracing::debug!(trace = %self.channel.guest.trace, listener = self.channel.guest.door.name, reason, "disconnected");
    }

    async fn release(&self, open: &Open) {
        let call = ReleaseMaildrop {
            account: open.grant.account,
            holder: open.holder,
        };
        if let Err(error) = self
            .service
            .stored
            .call(self.channel.guest.trace, &call)
            .await
        {
            tracing::warn!(%error, "a maildrop is held until stored notices");
        }
    }

    fn reply(&mut self, line: &str) {
        self.channel.out.extend_from_slice(line.as_bytes());
        self.channel.out.extend_from_slice(b"\r\n");
    }

    async fn serve(&mut self) -> Result<std::convert::Infallible, End> {
        self.channel.open().await?;
        self.reply("+OK Posthouse ready");
        loop {
            let patience = match self.open {
                Some(_) => Patience::Known,
                None => Patience::Stranger,
            };
            let Some(line) = self.channel.line(LINE, patience).await? else {
                self.malformed("The line is too long")?;
                continue;
            };
            match pop3::parse(&line) {
                // Only AUTH's initial response may be longer (RFC 5034 4).
                Ok(command)
                    if line.len() + 2 > pop3::LINE && !matches!(command, Command::Auth { .. }) =>
                {
                    self.malformed("The line is too long")?;
                }
                Ok(command) => self.command(command).await?,
                Err(error) => self.malformed(&error.to_string())?,
            }
        }
    }

    fn malformed(&mut self, text: &str) -> Done {
        self.bad += 1;
        self.reply(&format!("-ERR {text}"));
        if self.bad > self.config.bad_commands.max(1) {
            return Err(End::Said);
        }
        Ok(())
    }

    async fn command(&mut self, command: Command) -> Done {
        match command {
            Command::Capa => {
                self.capabilities();
                Ok(())
            }
            // RFC 6856 3: before the login and after it
            Command::Lang(range) => {
                self.language(range.as_deref());
                Ok(())
            }
            Command::Quit => self.quit().await,
            command if self.open.is_some() => self.transaction(command).await,
            command => self.authorization(command).await,
        }
    }

    /// RFC 2449 5
    fn capabilities(&mut self) {
        let mut lines = vec!["+OK What this server can do".to_owned()];
        for name in [
            "TOP",
            "UIDL",
            "RESP-CODES",
            "AUTH-RESP-CODE",
            "PIPELINING",
            // Nothing goes but by DELE (RFC 2449 6.7).
            "EXPIRE NEVER",
            // USER and PASS take UTF-8; authd prepares it (RFC 6856 2.2).
            "UTF8 USER",
            "LANG",
        ] {
            lines.push(name.to_owned());
        }
        let mechanisms = self.channel.guest.mechanisms();
        if mechanisms.contains(&"PLAIN") {
            lines.push("USER".to_owned());
        }
        if !mechanisms.is_empty() {
            lines.push(format!("SASL {}", mechanisms.join(" ")));
        }
        // In both states, although it is taken in one (RFC 2595 4, RFC 2449 5).
        if self.channel.guest.may_start_tls() {
            lines.push("STLS".to_owned());
        }
        lines.push("IMPLEMENTATION Posthouse".to_owned());
        lines.push(".".to_owned());
        for line in lines {
            self.reply(&line);
        }
    }

    fn language(&mut self, range: Option<&str>) {
        let Some(range) = range else {
            self.reply("+OK These are the languages:");
            for line in language::listing() {
                self.reply(&line);
            }
            return self.reply(".");
        };
        match language::tag(range) {
            Some(tag) => self.reply(&format!("+OK {tag} English it is")),
            None => self.reply("-ERR That language is not spoken here; LANG tells which are"),
        }
    }

    async fn authorization(&mut self, command: Command) -> Done {
        match command {
            Command::Stls => {
                if !self.channel.guest.may_start_tls() {
                    self.reply("-ERR STLS is not offered");
                    return Ok(());
                }
                // RFC 6856 2.1
                if self.utf8 {
                    self.reply("-ERR STLS comes before UTF8");
                    return Ok(());
                }
                self.reply("+OK Begin TLS now");
                self.channel.handshake().await?;
                // RFC 2595 4: what was said before counts no more.
                self.user = None;
                Ok(())
            }
            Command::Utf8 => {
                self.utf8 = true;
                self.reply("+OK UTF-8 it is");
                Ok(())
            }
            Command::User(name) => {
                if !self.channel.guest.mechanisms().contains(&"PLAIN") {
                    self.reply("-ERR [AUTH] Logins need TLS: say STLS first");
                    return Ok(());
                }
                self.user = Some(name);
                self.reply("+OK The password, please");
                Ok(())
            }
            Command::Pass(password) => {
                let Some(name) = self.user.take() else {
                    self.reply("-ERR Say USER first");
                    return Ok(());
                };
                let initial = format!("\0{name}\0{password}").into_bytes();
                self.log_in("PLAIN", Some(initial)).await
            }
            Command::Auth {
                mechanism: None, ..
            } => {
                self.reply("+OK");
                let offered: Vec<String> = self
                    .channel
                    .guest
                    .mechanisms()
                    .iter()
                    .map(ToString::to_string)
                    .collect();
                for mechanism in offered {
                    self.reply(&mechanism);
                }
                self.reply(".");
                Ok(())
            }
            Command::Auth {
                mechanism: Some(mechanism),
                initial,
            } => {
                let initial = match initial.as_deref() {
                    None => None,
                    Some("=") => Some(Vec::new()),
                    Some(text) => match BASE64.decode(text) {
                        Ok(octets) => Some(octets),
                        Err(_) => {
                            self.reply("-ERR The response is not base64");
                            return Ok(());
                        }
                    },
                };
                self.log_in(&mechanism, initial).await
            }
            Command::Apop => {
                self.reply("-ERR APOP is not offered");
                Ok(())
            }
            _ => self.malformed("Log in first"),
        }
    }

    async fn log_in(&mut self, mechanism: &str, initial: Option<Vec<u8>>) -> Done {
        match self.channel.login(mechanism, initial, &mut Sasl).await {
            Ok((login, _)) => self.enter(login).await,
            Err(refusal) => {
                let text = match refusal {
                    Refusal::Ended(ended) => return Err(ended.into()),
                    Refusal::Failed(AuthFailure::Credentials) => "[AUTH] Wrong name or password",
                    Refusal::Failed(AuthFailure::Blocked) => {
                        self.reply("-ERR [SYS/TEMP] Too many failed logins, try again later");
                        return Err(End::Said);
                    }
                    Refusal::Failed(AuthFailure::NeedsTls) => {
                        "[AUTH] Logins need TLS: say STLS first"
                    }
                    Refusal::Failed(AuthFailure::Disabled) => {
                        "[AUTH] This account or password is not for reading mail"
                    }
                    Refusal::NotOffered if self.channel.guest.mechanisms().is_empty() => {
                        "[AUTH] Logins need TLS: say STLS first"
                    }
                    Refusal::NotOffered | Refusal::Failed(AuthFailure::Mechanism) => {
                        "That mechanism is not offered"
                    }
                    Refusal::Malformed | Refusal::Failed(AuthFailure::Malformed) => {
                        "The exchange is malformed"
                    }
                    Refusal::Cancelled => "Login cancelled",
                    Refusal::Unavailable | Refusal::TooMany => {
                        "[SYS/TEMP] Not possible at the moment, try again later"
                    }
                };
                self.reply(&format!("-ERR {text}"));
                if self.channel.guest.failed_too_often() {
                    return Err(End::Said);
                }
                Ok(())
            }
        }
    }

    /// Holds the maildrop and reads it.
    async fn enter(&mut self, login: Login) -> Done {
        if !login.grant.rights.contains(Rights::READ) {
            self.reply("-ERR [AUTH] This login may not read mail");
            return Ok(());
        }
        if self
            .channel
            .guest
            .take_place(&mut self.seat, &login)
            .is_err()
        {
            self.reply("-ERR [IN-USE] Too many connections of this account");
            return Err(End::Said);
        }
        match self.hold(login).await {
            Ok(Some(open)) => {
                let (count, octets) = open.maildrop.sum();
                self.open = Some(open);
                self.reply(&format!("+OK {count} messages ({octets} octets)"));
                Ok(())
            }
            Ok(None) => {
                // RFC 2449 8.1.1
                self.reply("-ERR [IN-USE] Another session has this maildrop open");
                Err(End::Said)
            }
            Err(()) => {
                self.reply(
                    "-ERR [SYS/TEMP] The maildrop cannot be read at the moment, try again later",
                );
                Err(End::Said)
            }
        }
    }

    async fn hold(&mut self, login: Login) -> Result<Option<Open>, ()> {
        let grant = login.grant;
        let account = grant.account;
        let trace = self.channel.guest.trace;
        let stored = &self.service.stored;
        let failed = |error: &dyn std::fmt::Display| {
            tracing::warn!(%trace, %error, "a maildrop cannot be opened");
        };
        let holder = rand::random();
        let call = HoldMaildrop {
            grant: grant.clone(),
            holder,
        };
        let held = stored
            .call(trace, &call)
            .await
            .map_err(|error| failed(&error))?;
        if !held {
            return Ok(None);
        }
        let limit = self.config.messages.max(1);
        let mut read = Maildrop::read(&self.service.reader, account, limit).await;
        if matches!(read, Ok(None)) {
            let call = Provision {
                grant: grant.clone(),
            };
            stored
                .call(trace, &call)
                .await
                .map_err(|error| failed(&error))?;
            read = Maildrop::read(&self.service.reader, account, limit).await;
        }
        let opened = match read {
            Ok(Some(maildrop)) => {
                return Ok(Some(Open {
                    grant,
                    maildrop,
                    holder,
                }));
            }
            Ok(None) => Err(()),
            Err(error) => {
                failed(&error);
                Err(())
            }
        };
        let call = ReleaseMaildrop { account, holder };
        let _ = stored.call(trace, &call).await;
        opened
    }

    async fn transaction(&mut self, command: Command) -> Done {
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        let maildrop = &mut open.maildrop;
        let line = match command {
            Command::Stat => {
                let (count, octets) = maildrop.sum();
                format!("+OK {count} {octets}")
            }
            Command::Noop => "+OK".to_owned(),
            Command::Rset => {
                maildrop.unmark();
                let (count, octets) = maildrop.sum();
                format!("+OK {count} messages ({octets} octets)")
            }
            Command::Dele(number) => match maildrop.message(number) {
                None => "-ERR There is no such message".to_owned(),
                Some(_) => {
                    maildrop.mark(number);
                    format!("+OK Message {number} is deleted")
                }
            },
            Command::List(Some(number)) => match maildrop.message(number) {
                None => "-ERR There is no such message".to_owned(),
                Some(message) => format!("+OK {number} {}", message.size),
            },
            Command::Uidl(Some(number)) => match maildrop.message(number) {
                None => "-ERR There is no such message".to_owned(),
                Some(message) => format!("+OK {number} {}", maildrop.unique(&message)),
            },
            Command::List(None) => {
                return self.listing(|_, message| message.size.to_string()).await;
            }
            Command::Uidl(None) => return self.listing(Maildrop::unique).await,
            Command::Retr(number) => return self.retrieve(number, None).await,
            Command::Top(number, lines) => return self.retrieve(number, Some(lines)).await,
            _ => return self.malformed("Not after the login"),
        };
        self.reply(&line);
        Ok(())
    }

    /// LIST and UIDL of everything.
    async fn listing(&mut self, show: impl Fn(&Maildrop, &Message) -> String) -> Done {
        let Some(open) = &self.open else {
            return Ok(());
        };
        let (count, octets) = open.maildrop.sum();
        let lines: Vec<String> = open
            .maildrop
            .present()
            .map(|(number, message)| format!("{number} {}\r\n", show(&open.maildrop, message)))
            .collect();
        self.reply(&format!("+OK {count} messages ({octets} octets)"));
        for line in lines {
            self.channel.out.extend_from_slice(line.as_bytes());
            self.channel.flush_if_full().await?;
        }
        self.reply(".");
        Ok(())
    }

    /// RETR, and TOP with its lines.
    async fn retrieve(&mut self, number: u32, lines: Option<u32>) -> Done {
        let Some(open) = &self.open else {
            return Ok(());
        };
        let account = open.maildrop.account;
        let Some(message) = open.maildrop.message(number) else {
            self.reply("-ERR There is no such message");
            return Ok(());
        };
        let wanted = Wanted {
            prefix: true,
            parsed: false,
            body: true,
        };
        let mut found = None;
        let read = self
            .service
            .reader
            .contents(account, &[message.content], wanted, |content| {
                found = Some(content)
            })
            .await;
        if let Err(error) = read {
            tracing::warn!(trace = %self.channel.guest.trace, %error, "a message cannot be read");
            self.reply("-ERR [SYS/TEMP] The message cannot be read at the moment");
            return Ok(());
        }
        let Some(content) = found else {
            self.reply("-ERR The message was removed meanwhile");
            return Ok(());
        };
        let mut writer = Writer::new(lines);
        match content.body {
            ContentBody::Octets(body) => {
                self.begin(&mut writer, message.size, &content.prefix, &body, true)
                    .await?;
            }
            ContentBody::Outside { blob, len } => {
                let content = (content.prefix, blob, len);
                if !self.outside(&mut writer, message.size, content).await? {
                    self.reply("-ERR [SYS/TEMP] The message cannot be read at the moment");
                    return Ok(());
                }
            }
            ContentBody::None => {
                self.begin(&mut writer, message.size, &content.prefix, &[], true)
                    .await?;
            }
        }
        writer.end(&mut self.channel);
        Ok(())
    }

    /// The reply, the prefix, and the beginning of the body, or `all` of it.
    async fn begin(
        &mut self,
        writer: &mut Writer,
        size: u64,
        prefix: &[u8],
        start: &[u8],
        all: bool,
    ) -> Result<(), Ended> {
        let shown = match self.utf8 {
            true => None,
            false => letter::in_ascii(prefix, start, all),
        };
        let Some(shown) = shown else {
            self.reply(&format!("+OK {size} octets"));
            writer.write(&mut self.channel, prefix).await?;
            return writer.write(&mut self.channel, start).await;
        };
        let replaced = (prefix.len() + shown.behind) as u64;
        let size = size.saturating_sub(replaced) + shown.header.len() as u64;
        self.reply(&format!("+OK {size} octets"));
        writer.write(&mut self.channel, &shown.header).await?;
        let rest = start.get(shown.behind..).unwrap_or_default();
        writer.write(&mut self.channel, rest).await
    }

    /// A message whose body is read piece by piece; `false`, and nothing written, if it cannot be read.
    async fn outside(
        &mut self,
        writer: &mut Writer,
        size: u64,
        (prefix, blob, len): (Vec<u8>, types::BlobId, u64),
    ) -> Result<bool, Ended> {
        let mut at = 0;
        while at < len && !writer.is_done() {
            let range = at..len.min(at + PIECE);
            let piece = match self.service.reader.body_range(blob, range).await {
                Ok(piece) if !piece.is_empty() => piece,
                Err(error) if at == 0 => {
                    tracing::warn!(trace = %self.channel.guest.trace, %error, "a message cannot be read");
                    return Ok(false);
                }
                Ok(_) => return Err(Ended::Gone("a message is shorter than it was")),
                Err(error) => {
                    // A part of it is on its way: only the end of the connection tells that it is not all.
                    tracing::error!(trace = %self.channel.guest.trace, %error, "a message cannot be read to its end");
                    return Err(Ended::Gone("a message cannot be read"));
                }
            };
            let read = piece.len() as u64;
            if at == 0 {
                self.begin(writer, size, &prefix, &piece, read == len)
                    .await?;
            } else {
                writer.write(&mut self.channel, &piece).await?;
            }
            at += read;
        }
        Ok(at > 0)
    }

    /// UPDATE: what DELE named goes, whatever became of the others.
    async fn quit(&mut self) -> Done {
        let Some(open) = self.open.take() else {
            self.reply("+OK Bye");
            return Err(End::Said);
        };
        let going = open.maildrop.going();
        let removed = self.remove(&open, &going).await;
        self.release(&open).await;
        match removed {
            Ok(()) => self.reply("+OK Bye"),
            Err(()) => self.reply("-ERR [SYS/TEMP] Some deleted messages are not removed"),
        }
        Err(End::Said)
    }

    async fn remove(&self, open: &Open, uids: &[(u32, u32)]) -> Result<(), ()> {
        if uids.is_empty() {
            return Ok(());
        }
        let mailbox = open.maildrop.mailbox;
        let mark = Mutation::Flags {
            mailbox,
            uids: uids.to_vec(),
            change: FlagChange::Add,
            flags: vec!["\\Deleted".to_owned()],
            unchanged_since: None,
        };
        let expunge = Mutation::Expunge {
            mailbox,
            uids: Some(uids.to_vec()),
        };
        for mutation in [mark, expunge] {
            let call = Mutate {
                request: RequestId(rand::random()),
                grant: open.grant.clone(),
                account: open.grant.account,
                mutation,
            };
            let done = self
                .service
                .stored
                .call_with(self.channel.guest.trace, &call, Vec::new(), PATIENCE)
                .await;
            if let Err(error) = done {
                // A mailbox that is gone has no messages either.
                if error
                    .fault()
                    .is_some_and(|fault| fault.kind == FaultKind::NotFound)
                {
                    return Ok(());
                }
                tracing::warn!(trace = %self.channel.guest.trace, %error, "messages could not be removed");
                return Err(());
            }
        }
        Ok(())
    }
}
