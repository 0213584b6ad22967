//! STARTTLS, LOGIN and AUTHENTICATE. authd decides; here are the lines.

use super::{Account, Arrived, Done, End, Refused, Session, done};
use crate::config::TlsMode;
use imap::Limits;
use imap::put::{self, Condition};
use ipc::api::authd::{
    AuthClient, AuthContinue, AuthFailure, AuthReply, AuthStart, Login, Service,
};
use ipc::api::stored::Provision;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use tls::Wire;
use tokio::io::{AsyncRead, AsyncWrite};
use types::{Octets, Rights};

/// A login may wait for others' hashing.
const PATIENCE: Duration = Duration::from_secs(60);

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    pub(super) fn may_start_tls(&self) -> bool {
        self.door.tls == TlsMode::Starttls && !self.secured && self.service.tls.is_some()
    }

    /// The mechanisms offered now.
    pub(super) fn mechanisms(&self) -> Vec<&str> {
        if !self.secured && !self.door.plain {
            return Vec::new();
        }
        let bound = !self.bindings.is_empty();
        // RFC 5802 6: -PLUS needs a channel binding
        let offered = |mechanism: &&str| bound || !mechanism.ends_with("-PLUS");
        self.service
            .config
            .mechanisms
            .iter()
            .map(String::as_str)
            .filter(offered)
            .collect()
    }

    /// The handshake. What was read before it is forgotten (RFC 9051 6.2.1).
    pub(super) async fn handshake(&mut self) -> Result<(), End> {
        self.input.clear();
        self.used = 0;
        let Wire::Plain(stream) = std::mem::replace(&mut self.wire, Wire::Gone) else {
            return Err(End::Gone("TLS twice"));
        };
        let Some(acceptor) = self.service.tls.clone() else {
            return Err(End::Gone("no certificate for TLS"));
        };
        let limit = Duration::from_secs(self.service.config.login_s.max(1));
        match tokio::time::timeout(limit, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => {
                // RFC 9266 2
                let exported = stream.get_ref().1.export_keying_material(
                    vec![0_u8; 32],
                    b"EXPORTER-Channel-Binding",
                    Some(b""),
                );
                self.bindings = exported
                    .map(|octets| ("tls-exporter".to_owned(), Octets(octets)))
                    .into_iter()
                    .collect();
                self.secured = true;
                self.wire = Wire::Tls(Box::new(stream));
                Ok(())
            }
            Ok(Err(error)) => {
                tracing::info!(trace = %self.trace, client = ?self.door.address, %error, "TLS handshake failed");
                Err(End::Gone("TLS handshake failed"))
            }
            Err(_) => Err(End::Gone("TLS handshake timed out")),
        }
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
        self.codec = imap::Reader::new(Limits {
            line: 8192,
            literals: 4096,
            ..Limits::default()
        });
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
        self.exchange("PLAIN".to_owned(), Some(Octets(initial)))
            .await
    }

    pub(super) async fn authenticate(
        &mut self,
        mechanism: String,
        initial: Option<Octets>,
    ) -> Done {
        self.may_log_in()?;
        if !self.mechanisms().contains(&mechanism.as_str()) {
            return Err(Refused::No(
                "CANNOT",
                "That mechanism is not offered".to_owned(),
            ));
        }
        self.exchange(mechanism, initial).await
    }

    fn may_log_in(&self) -> Result<(), Refused> {
        if self.account.is_some() {
            return Err(Refused::Bad("You are logged in already"));
        }
        if self.mechanisms().is_empty() {
            return Err(Refused::No(
                "PRIVACYREQUIRED",
                "Logins need TLS: say STARTTLS first".to_owned(),
            ));
        }
        Ok(())
    }

    async fn exchange(&mut self, mechanism: String, initial: Option<Octets>) -> Done {
        let start = AuthStart {
            mechanism,
            initial,
            client: AuthClient {
                address: self.door.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
                service: Service::Imap,
                // A network that the configuration trusts in the clear counts as protected.
                tls: self.secured || self.door.plain,
                bindings: self.bindings.clone(),
            },
        };
        let authd = self.service.authd.clone();
        let mut reply = authd
            .call_with(self.trace, &start, Vec::new(), PATIENCE)
            .await?
            .0;
        loop {
            match reply {
                AuthReply::Challenge { exchange, data } => {
                    let response = self.challenge(&data).await?;
                    let next = AuthContinue { exchange, response };
                    reply = authd
                        .call_with(self.trace, &next, Vec::new(), PATIENCE)
                        .await?
                        .0;
                }
                AuthReply::Success { login, data } => {
                    if let Some(data) = data
                        && !self.challenge(&data).await?.is_empty()
                    {
                        return Err(Refused::Bad("An empty response was expected"));
                    }
                    return self.logged_in(login).await;
                }
                AuthReply::Failure { reason, delay_ms } => {
                    return self.failed(reason, delay_ms).await;
                }
            }
        }
    }

    async fn challenge(&mut self, data: &[u8]) -> Result<Octets, Refused> {
        put::challenge(&mut self.out, data);
        self.codec.expect_response();
        let Arrived::Response(mut line) = self.arrival().await? else {
            return Err(Refused::Bad("The response is malformed"));
        };
        if line == b"*" {
            return Err(Refused::Bad("Login cancelled"));
        }
        let decoded = put::response(&line);
        // What was typed may be a password.
        line.fill(0);
        decoded
            .map(Octets)
            .ok_or(Refused::Bad("The response is not valid base64"))
    }

    async fn logged_in(&mut self, login: Login) -> Done {
        if !login.grant.rights.contains(Rights::READ) {
            return Err(Refused::No(
                "AUTHORIZATIONFAILED",
                "This login may not read mail".to_owned(),
            ));
        }
        let account = login.grant.account;
        if !self
            .seat
            .log_in(account, self.service.config.connections_per_account)
        {
            return Err(Refused::No(
                "LIMIT",
                "Too many connections of this account".to_owned(),
            ));
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
        tracing::info!(trace = %self.trace, client = ?self.door.address, login = login.name, "logged in");
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

    async fn failed(&mut self, reason: AuthFailure, delay_ms: u32) -> Done {
        tracing::info!(trace = %self.trace, client = ?self.door.address, ?reason, "login failed");
        tokio::time::sleep(Duration::from_millis(u64::from(delay_ms.min(30_000)))).await;
        self.failed_logins += 1;
        let (code, text) = match reason {
            AuthFailure::Credentials => ("AUTHENTICATIONFAILED", "Wrong name or password"),
            AuthFailure::Blocked => {
                put::text(
                    &mut self.out,
                    "* BYE Too many failed logins, try again later\r\n",
                );
                return Err(Refused::End(End::Said("blocked")));
            }
            AuthFailure::Mechanism => ("CANNOT", "That mechanism is not offered"),
            AuthFailure::NeedsTls => ("PRIVACYREQUIRED", "Logins need TLS: say STARTTLS first"),
            AuthFailure::Malformed => return Err(Refused::Bad("The exchange is malformed")),
            AuthFailure::Disabled => (
                "AUTHORIZATIONFAILED",
                "This account or password is not for reading mail",
            ),
        };
        if self.failed_logins > self.service.config.failed_logins.max(1) {
            put::text(&mut self.out, "* BYE Too many failed logins\r\n");
            return Err(Refused::End(End::Said("too many failed logins")));
        }
        Err(Refused::No(code, text.to_owned()))
    }

    /// ENABLE (RFC 5161)
    pub(crate) fn enable(&mut self, names: &[String]) -> Done {
        let mut enabled = Vec::new();
        for name in names {
            match name.as_str() {
                "CONDSTORE" => {
                    self.condstore = true;
                    enabled.push("CONDSTORE");
                }
                "IMAP4REV2" => {
                    self.rev2 = true;
                    self.names = imap::Names::Utf8;
                    enabled.push("IMAP4rev2");
                }
                _ => {}
            }
        }
        put::text(&mut self.out, "* ENABLED");
        for name in enabled {
            put::text(&mut self.out, " ");
            put::text(&mut self.out, name);
        }
        put::text(&mut self.out, "\r\n");
        done("completed")
    }
}
