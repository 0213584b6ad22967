//! STARTTLS, LOGIN and AUTHENTICATE. authd decides; here are the lines.

use super::{Account, Arrived, Done, End, Refused, Session};
use access::{Guest, Refusal, Talk};
use imap::Limits;
use imap::put::{self, Condition};
use ipc::api::authd::{AuthFailure, Login};
use ipc::api::stored::Provision;
use tokio::io::{AsyncRead, AsyncWrite};
use types::{Octets, Rights};

/// Before the login nobody needs more than a name and a password, or an access token.
pub(super) const LIMITS: Limits = Limits {
    line: 16_384,
    literals: 4096,
    non_synchronising: u64::MAX,
    skip: 65_536,
};

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Talk for Session<S> {
    /// The tagged response, or the session's end.
    type End = Refused;

    fn guest(&mut self) -> &mut Guest {
        &mut self.guest
    }

    async fn challenge(&mut self, data: &[u8]) -> Result<Vec<u8>, Refusal<Refused>> {
        put::challenge(&mut self.out, data);
        self.codec.expect_response();
        let arrived = self.arrival().await;
        let Arrived::Response(mut line) = arrived.map_err(|end| Refusal::Ended(end.into()))? else {
            return Err(Refusal::Ended(Refused::Bad("The response is malformed")));
        };
        if line == b"*" {
            return Err(Refusal::Cancelled);
        }
        let decoded = put::response(&line);
        // What was typed may be a password.
        line.fill(0);
        decoded.ok_or(Refusal::Ended(Refused::Bad(
            "The response is not valid base64",
        )))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    pub(super) fn may_start_tls(&self) -> bool {
        // RFC 4978 3: compression lies above TLS, so it cannot come first
        self.deflate.is_none() && self.guest.may_start_tls()
    }

    /// The handshake. What was read before it is forgotten (RFC 9051 6.2.1).
    pub(super) async fn handshake(&mut self) -> Result<(), End> {
        self.input.clear();
        self.used = 0;
        Ok(self.guest.handshake(&mut self.wire).await?)
    }

    pub(super) async fn starttls(&mut self, tag: &str) -> Done {
        if self.account.is_some() {
            return Err(Refused::Bad("Not after the login"));
        }
        if !self.may_start_tls() {
            return Err(Refused::Bad("STARTTLS is not offered"));
        }
        put::status(&mut self.out, tag, Condition::Ok, "", "Begin TLS now");
        self.flush().await?;
        self.handshake().await?;
        // The tagged response was sent in the clear; nothing more belongs to this command.
        self.codec = imap::Reader::new(LIMITS);
        Err(Refused::Answered)
    }

    pub(super) async fn login(&mut self, name: &[u8], password: &[u8]) -> Done {
        self.may_log_in()?;
        let mut initial = Vec::with_capacity(name.len() + password.len() + 2);
        initial.push(0);
        initial.extend_from_slice(name);
        initial.push(0);
        initial.extend_from_slice(password);
        if name.contains(&0) || password.contains(&0) {
            return Err(Refused::Bad("NUL is not allowed"));
        }
        self.exchange("PLAIN", Some(initial)).await
    }

    pub(super) async fn authenticate(
        &mut self,
        mechanism: String,
        initial: Option<Octets>,
    ) -> Done {
        self.may_log_in()?;
        self.exchange(&mechanism, initial.map(|octets| octets.0))
            .await
    }

    fn may_log_in(&self) -> Result<(), Refused> {
        if self.account.is_some() {
            return Err(Refused::Bad("You are logged in already"));
        }
        if self.guest.mechanisms().is_empty() {
            return Err(Refused::No(
                "PRIVACYREQUIRED",
                "Logins need TLS: say STARTTLS first".to_owned(),
            ));
        }
        Ok(())
    }

    async fn exchange(&mut self, mechanism: &str, initial: Option<Vec<u8>>) -> Done {
        match access::log_in(self, mechanism, initial).await {
            Ok((login, _)) => self.logged_in(login).await,
            Err(Refusal::Failed(reason)) => self.failed(reason),
            Err(Refusal::Ended(refused)) => Err(refused),
            Err(Refusal::NotOffered) => Err(not_offered()),
            Err(Refusal::Malformed) => Err(Refused::Bad("An empty response was expected")),
            Err(Refusal::Cancelled) => Err(Refused::Bad("Login cancelled")),
            Err(Refusal::Unavailable) => Err(Refused::No(
                "UNAVAILABLE",
                "Not possible at the moment, try again later".to_owned(),
            )),
            Err(Refusal::TooMany) => Err(too_many()),
        }
    }

    async fn logged_in(&mut self, login: Login) -> Done {
        if !login.grant.rights.contains(Rights::READ) {
            return Err(Refused::No(
                "AUTHORIZATIONFAILED",
                "This login may not read mail".to_owned(),
            ));
        }
        let account = login.grant.account;
        if self.guest.take_place(&mut self.seat, &login).is_err() {
            return Err(too_many());
        }
        if self
            .service
            .reader
            .mailbox_named(account, "INBOX")
            .await?
            .is_none()
        {
            let request = Provision {
                grant: login.grant.clone(),
            };
            self.service.stored.call(self.trace, &request).await?;
        }
        self.account = Some(Account { id: account, login });
        let config = &self.service.config;
        self.codec.set_limits(Limits {
            line: config.line.max(1024),
            literals: config.literals.max(1024),
            skip: config.append_bytes.saturating_mul(2).max(1 << 20),
            ..Limits::default()
        });
        Ok((
            format!("CAPABILITY {}", self.capability()),
            "completed, welcome",
        ))
    }

    /// UNAUTHENTICATE (RFC 8437 2): as after the greeting, but for TLS and compression.
    pub(super) fn unauthenticate(&mut self) -> Done {
        if self.account.take().is_none() {
            return Err(Refused::Bad("Nobody is logged in"));
        }
        // Nothing is expunged.
        self.selected = None;
        self.notify = None;
        self.condstore = false;
        self.qresync = false;
        self.uid_only = false;
        self.rev2 = false;
        self.utf8 = false;
        self.names = imap::Names::default();
        self.seat.log_out(self.guest.door.address);
        self.guest.estrange();
        self.codec.set_limits(LIMITS);
        Ok((
            format!("CAPABILITY {}", self.capability()),
            "completed, log in again",
        ))
    }

    fn failed(&mut self, reason: AuthFailure) -> Done {
        let (code, text) = match reason {
            AuthFailure::Credentials => ("AUTHENTICATIONFAILED", "Wrong name or password"),
            AuthFailure::Blocked => {
                put::text(
                    &mut self.out,
                    "* BYE Too many failed logins, try again later\r\n",
                );
                return Err(Refused::End(End::Said("blocked")));
            }
            AuthFailure::Mechanism => return Err(not_offered()),
            AuthFailure::NeedsTls => ("PRIVACYREQUIRED", "Logins need TLS: say STARTTLS first"),
            AuthFailure::Malformed => return Err(Refused::Bad("The exchange is malformed")),
            AuthFailure::Disabled => (
                "AUTHORIZATIONFAILED",
                "This account or password is not for reading mail",
            ),
        };
        if self.guest.failed_too_often() {
            put::status(&mut self.out, &self.tag, Condition::No, code, text);
            put::text(&mut self.out, "* BYE Too many failed logins\r\n");
            return Err(Refused::End(End::Said("too many failed logins")));
        }
        Err(Refused::No(code, text.to_owned()))
    }
}

fn not_offered() -> Refused {
    Refused::No("CANNOT", "That mechanism is not offered".to_owned())
}

fn too_many() -> Refused {
    Refused::No("LIMIT", "Too many connections of this account".to_owned())
}
