//! One session (RFC 5804 1.4).

use crate::config::Config;
use access::{Channel, Ended, Patience, Refusal, SaslText, Seat};
use ipc::Client;
use ipc::api::authd::{AuthFailure, Login};
use sieve::protocol::put::{self, Code, Condition};
use sieve::protocol::{Assembly, Command, Fault, Limits, Response, Step, Word, parse, response};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use store::Reader;
use tokio::sync::watch;
use types::Rights;

/// Octets of a line, and of all that a client says before its login: a token of 16 KiB in base64, or a script in a string.
const LINE: usize = 24 * 1024;
/// Octets of names and words beside a script.
const BESIDE: u64 = 4096;

/// What all sessions share.
pub(crate) struct Service {
    pub(crate) reader: Reader,
    pub(crate) stored: Client,
    /// As it is now.
    pub(crate) config: watch::Receiver<Arc<Config>>,
    /// What a script may cost where it runs.
    pub(crate) limits: sieve::Limits,
}

pub(crate) struct Session {
    pub(crate) config: Arc<Config>,
    pub(crate) service: Arc<Service>,
    pub(crate) channel: Channel,
    seat: Seat,
    assembly: Assembly,
    pub(crate) login: Option<Login>,
    bad: u32,
}

/// Why a session ends.
pub(crate) enum End {
    /// The last response is written.
    Said,
    Ended(Ended),
}

impl From<Ended> for End {
    fn from(ended: Ended) -> Self {
        Self::Ended(ended)
    }
}

/// How a command ended.
pub(crate) struct Answer {
    pub(crate) condition: Condition,
    pub(crate) code: Option<Code>,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn ok(text: &str) -> Self {
        Self {
            condition: Condition::Ok,
            code: None,
            text: text.to_owned(),
        }
    }

    pub(crate) fn no(code: impl Into<Option<Code>>, text: impl Into<String>) -> Self {
        Self {
            condition: Condition::No,
            code: code.into(),
            text: text.into(),
        }
    }
}

/// The words of the next command. The outer error ends the session; a `None` in it says that the client cannot be followed.
async fn words(
    channel: &mut Channel,
    assembly: &mut Assembly,
    patience: Patience,
) -> Result<Result<Vec<Word>, Fault>, Option<Ended>> {
    loop {
        // A line that is too long may have announced a literal: what follows it could be anything.
        let line = channel.line(LINE, patience).await?.ok_or(None)?;
        match assembly.line(&line) {
            Step::Done(words) => return Ok(words),
            Step::Hopeless => return Err(None),
            Step::Skip(count) => channel.skip(count, patience).await?,
            Step::Literal(count) => {
                let count = usize::try_from(count).map_err(|_| None)?;
                let octets = channel.octets(count, patience).await?;
                assembly.literal(octets);
            }
        }
    }
}

/// SASL's text in ManageSieve (RFC 5804 2.1).
struct Sasl<'a>(&'a mut Assembly);

impl SaslText for Sasl<'_> {
    async fn challenge(&mut self, channel: &mut Channel, data: &[u8]) -> Result<Vec<u8>, Refusal> {
        put::challenge(&mut channel.out, data);
        let words = match words(channel, self.0, Patience::Stranger).await {
            Ok(words) => words.map_err(|_| Refusal::Malformed)?,
            Err(ended) => {
                return Err(Refusal::Ended(
                    ended.unwrap_or(Ended::Gone("a response that is too long")),
                ));
            }
        };
        match response(words) {
            Ok(Response::Data(data)) => Ok(data),
            Ok(Response::Cancelled) => Err(Refusal::Cancelled),
            Err(_) => Err(Refusal::Malformed),
        }
    }

    fn takes_data(&self) -> bool {
        true
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}

/// Until the login.
const STRANGER: Limits = Limits {
    octets: LINE as u64,
    skip: 64 * 1024,
};

impl Session {
    pub(crate) fn new(service: Arc<Service>, channel: Channel, seat: Seat) -> Self {
        let config = Arc::clone(&service.config.borrow());
        Self {
            config,
            service,
            channel,
            seat,
            assembly: Assembly::new(STRANGER),
            login: None,
            bad: 0,
        }
    }

    /// Serves the client until one of both has enough.
    pub(crate) async fn run(mut self) {
        let Err(end) = self.serve().await;
        let reason = match end {
            End::Said => "logout",
            End::Ended(Ended::Gone(reason)) => reason,
            End::Ended(Ended::Silent) => {
                self.bye(None, "Too long without a command");
                "time-out"
            }
            End::Ended(Ended::Stopping) => {
                self.bye(
                    Some(Code::TryLater),
                    "Shutting down, come again in a moment",
                );
                "shutdown"
            }
        };
        self.channel.close().await;
        tracing::debug!(trace = %self.channel.guest.trace, listener = self.channel.guest.door.name, reason, "disconnected");
    }

    fn bye(&mut self, code: Option<Code>, text: &str) {
        put::status(&mut self.channel.out, Condition::Bye, code.as_ref(), text);
    }

    async fn serve(&mut self) -> Result<std::convert::Infallible, End> {
        self.channel.open().await?;
        self.capabilities();
        self.answer(Answer::ok("Posthouse ready"));
        loop {
            let patience = match self.login {
                Some(_) => Patience::Known,
                None => Patience::Stranger,
            };
            let words = match words(&mut self.channel, &mut self.assembly, patience).await {
                Ok(words) => words,
                Err(Some(ended)) => return Err(ended.into()),
                Err(None) => {
                    self.bye(None, "The command is too long");
                    return Err(End::Said);
                }
            };
            let command = match words {
                // An empty line is nobody's command; some clients send one behind a literal.
                Ok(words) if words.is_empty() => Err("A command is expected".to_owned()),
                Ok(words) => parse(words).map_err(str::to_owned),
                Err(fault) => Err(fault.to_string()),
            };
            let answer = match command {
                Ok(command) => self.command(command).await?,
                Err(text) => Some(self.malformed(text)?),
            };
            if let Some(answer) = answer {
                self.answer(answer);
            }
            self.channel.flush_if_full().await?;
        }
    }

    fn answer(&mut self, answer: Answer) {
        let Answer {
            condition,
            code,
            text,
        } = answer;
        put::status(&mut self.channel.out, condition, code.as_ref(), &text);
    }

    fn malformed(&mut self, text: String) -> Result<Answer, End> {
        self.bad += 1;
        if self.bad > self.config.bad_commands.max(1) {
            self.bye(None, "Too many malformed commands");
            return Err(End::Said);
        }
        Ok(Answer::no(None, text))
    }

    /// `None`: it was answered.
    async fn command(&mut self, command: Command) -> Result<Option<Answer>, End> {
        let answer = match command {
            Command::Capability => {
                self.capabilities();
                Answer::ok("")
            }
            Command::Logout => {
                self.answer(Answer::ok("Come again"));
                return Err(End::Said);
            }
            // RFC 5804 2.13
            Command::Noop(tag) => Answer {
                code: tag.map(Code::Tag),
                ..Answer::ok("Done")
            },
            Command::StartTls => return self.start_tls().await,
            Command::Authenticate { mechanism, initial } => {
                self.authenticate(&mechanism, initial).await?
            }
            Command::Unauthenticate => self.unauthenticate(),
            command => {
                let Some(login) = &self.login else {
                    return Ok(Some(Answer::no(None, "Log in first")));
                };
                if login.grant.expires <= now() {
                    self.bye(None, "The login has expired, log in again");
                    return Err(End::Said);
                }
                self.scripts(command).await
            }
        };
        Ok(Some(answer))
    }

    /// RFC 5804 1.7
    fn capabilities(&mut self) {
        let mechanisms = self.channel.guest.mechanisms().join(" ");
        let extensions = sieve::capabilities();
        let redirects = self.service.limits.redirects.to_string();
        let may_start_tls = self.login.is_none() && self.channel.guest.may_start_tls();
        let out = &mut self.channel.out;
        put::capability(out, "IMPLEMENTATION", Some("Posthouse"));
        put::capability(out, "SASL", Some(&mechanisms));
        put::capability(out, "SIEVE", Some(&extensions.join(" ")));
        if extensions.iter().any(|name| *name == "enotify") {
            put::capability(out, "NOTIFY", Some("mailto"));
        }
        // RFC 6134 3: how lists are named
        put::capability(out, "EXTLISTS", Some("tag"));
        put::capability(out, "MAXREDIRECTS", Some(&redirects));
        if may_start_tls {
            put::capability(out, "STARTTLS", None);
        }
        if let Some(login) = &self.login {
            put::capability(out, "OWNER", Some(&login.name));
        }
        put::capability(out, "UNAUTHENTICATE", None);
        put::capability(out, "VERSION", Some("1.0"));
    }

    async fn start_tls(&mut self) -> Result<Option<Answer>, End> {
        // RFC 5804 2.2: only before the login
        if self.login.is_some() || !self.channel.guest.may_start_tls() {
            return Ok(Some(Answer::no(None, "STARTTLS is not offered now")));
        }
        self.answer(Answer::ok("Begin TLS now"));
        self.channel.handshake().await?;
        self.assembly = Assembly::new(STRANGER);
        // RFC 5804 2.2: what was said in the clear may have been somebody else's
        self.capabilities();
        Ok(Some(Answer::ok("TLS it is")))
    }

    async fn authenticate(
        &mut self,
        mechanism: &str,
        initial: Option<Vec<u8>>,
    ) -> Result<Answer, End> {
        if self.login.is_some() {
            return Ok(Answer::no(None, "You are logged in already"));
        }
        let mut text = Sasl(&mut self.assembly);
        let refusal = match self.channel.login(mechanism, initial, &mut text).await {
            Ok((login, data)) => {
                let data = data.map(|data| data.0);
                return self.enter(login, data);
            }
            Err(refusal) => refusal,
        };
        if let Refusal::Ended(ended) = refusal {
            return Err(ended.into());
        }
        if refusal == Refusal::Failed(AuthFailure::Blocked) {
            self.bye(
                Some(Code::TryLater),
                "Too many failed logins, try again later",
            );
            return Err(End::Said);
        }
        if self.channel.guest.failed_too_often() {
            self.bye(None, "Too many failed logins");
            return Err(End::Said);
        }
        let clear = self.channel.guest.mechanisms().is_empty();
        Ok(refused(refusal, clear))
    }

    fn enter(&mut self, login: Login, data: Option<Vec<u8>>) -> Result<Answer, End> {
        if !login.grant.rights.contains(Rights::READ) {
            return Ok(Answer::no(None, "This login may not read scripts"));
        }
        if self
            .channel
            .guest
            .take_place(&mut self.seat, &login)
            .is_err()
        {
            self.bye(Some(Code::TryLater), "Too many connections of this account");
            return Err(End::Said);
        }
        self.login = Some(login);
        let script = u64::from(self.config.script_bytes);
        self.assembly.set_limits(Limits {
            octets: script.saturating_add(BESIDE).max(LINE as u64),
            skip: script.saturating_mul(16).max(1 << 20),
        });
        Ok(Answer {
            // RFC 5804 2.1
            code: data.map(Code::Sasl),
            ..Answer::ok("Welcome")
        })
    }

    /// RFC 5804 2.14.1
    fn unauthenticate(&mut self) -> Answer {
        if self.login.take().is_none() {
            return Answer::no(None, "Nobody is logged in");
        }
        self.seat.log_out(self.channel.guest.door.address);
        self.channel.guest.estrange();
        self.assembly.set_limits(STRANGER);
        Answer::ok("Log in again")
    }
}

fn refused(refusal: Refusal, clear: bool) -> Answer {
    let encrypt = || Answer::no(Code::EncryptNeeded, "Logins need TLS: say STARTTLS first");
    match refusal {
        Refusal::NotOffered if clear => encrypt(),
        Refusal::Failed(AuthFailure::NeedsTls) => encrypt(),
        Refusal::NotOffered | Refusal::Failed(AuthFailure::Mechanism) => {
            Answer::no(None, "That mechanism is not offered")
        }
        Refusal::Failed(AuthFailure::Credentials) => Answer::no(None, "Wrong name or password"),
        Refusal::Failed(AuthFailure::Disabled) => {
            Answer::no(None, "This account or password is not for scripts")
        }
        Refusal::Malformed | Refusal::Failed(AuthFailure::Malformed) => {
            Answer::no(None, "The exchange is malformed")
        }
        Refusal::Cancelled => Answer::no(None, "Login cancelled"),
        Refusal::Unavailable
        | Refusal::TooMany
        | Refusal::Ended(_)
        | Refusal::Failed(AuthFailure::Blocked) => Answer::no(
            Code::TryLater,
            "Not possible at the moment, try again later",
        ),
    }
}
