//! AUTH (RFC 4954). authd decides; here are the lines.

use super::{End, LineRead, Session};
use crate::backend::Backend;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ipc::Fault;
use ipc::api::authd::{
    AuthClient, AuthContinue, AuthFailure, AuthReply, AuthStart, Login, Service,
};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use types::{Enhanced, Octets, Rights};

impl<S: AsyncRead + AsyncWrite + Unpin + Send, B: Backend> Session<S, B> {
    /// The mechanisms offered at this moment.
    pub(super) fn mechanisms(&self) -> Vec<&str> {
        let policy = &self.service.policy;
        if !self.door.auth || (self.secured.is_none() && !policy.auth_without_tls) {
            return Vec::new();
        }
        let bound = self
            .secured
            .as_ref()
            .is_some_and(|tls| !tls.bindings.is_empty());
        policy
            .mechanisms
            .iter()
            .map(String::as_str)
            // RFC 5802 6: -PLUS needs a channel binding
            .filter(|mechanism| bound || !mechanism.ends_with("-PLUS"))
            .collect()
    }

    pub(super) async fn auth(
        &mut self,
        mechanism: &str,
        initial: Option<Vec<u8>>,
    ) -> Result<(), End> {
        self.hooks_mechanism(mechanism);
        let refusal = if !self.door.auth {
            Some((
                502,
                Enhanced(5, 5, 1),
                "AUTH is not offered here; use the submission port",
            ))
        } else if !self.hello.as_ref().is_some_and(|hello| hello.extended) {
            Some((503, Enhanced(5, 5, 1), "Say EHLO first"))
        } else if self.login.is_some() {
            Some((503, Enhanced(5, 5, 1), "You are logged in already"))
        } else if self.transaction.is_some() {
            Some((503, Enhanced(5, 5, 1), "Not during a mail transaction"))
        } else if self.secured.is_none() && !self.service.policy.auth_without_tls {
            // RFC 4954 6
            Some((
                538,
                Enhanced(5, 7, 11),
                "Say STARTTLS first: logins need TLS",
            ))
        } else {
            None
        };
        if let Some((code, enhanced, text)) = refusal {
            self.reply(code, Some(enhanced), text);
            return Ok(());
        }
        let mechanism = mechanism.to_ascii_uppercase();
        if !self.mechanisms().contains(&mechanism.as_str()) {
            let text = "That mechanism is not offered";
            self.reply(504, Some(Enhanced(5, 5, 4)), text);
            return Ok(());
        }
        let start = AuthStart {
            mechanism,
            initial: initial.map(Octets::from),
            client: AuthClient {
                address: self.peer.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
                service: Service::Submission,
                tls: self.secured.is_some(),
                bindings: self
                    .secured
                    .as_ref()
                    .map(|tls| tls.bindings.clone())
                    .unwrap_or_default(),
            },
        };
        let first = self.service.backend.auth_start(self.trace, start).await;
        self.lines.set_sasl(true);
        let done = self.exchange(first).await;
        self.lines.set_sasl(false);
        done
    }

    async fn exchange(&mut self, mut reply: Result<AuthReply, Fault>) -> Result<(), End> {
        loop {
            match reply {
                Ok(AuthReply::Challenge { exchange, data }) => {
                    let Some(response) = self.challenge(&data).await? else {
                        return Ok(());
                    };
                    let next = AuthContinue {
                        exchange,
                        response: response.into(),
                    };
                    reply = self.service.backend.auth_continue(self.trace, next).await;
                }
                Ok(AuthReply::Success { login, data }) => {
                    // RFC 4954 4: SMTP has no room for data beside success
                    if let Some(data) = data {
                        match self.challenge(&data).await? {
                            None => return Ok(()),
                            Some(response) if response.is_empty() => {}
                            Some(_) => {
                                let text = "An empty response was expected";
                                self.reply(501, Some(Enhanced(5, 5, 2)), text);
                                return Ok(());
                            }
                        }
                    }
                    self.logged_in(login);
                    return Ok(());
                }
                Ok(AuthReply::Failure { reason, delay_ms }) => {
                    return self.login_failed(reason, delay_ms).await;
                }
                Err(fault) => {
                    tracing::warn!(trace = %self.trace, %fault, "login not possible");
                    let text = "Logins are not possible at the moment, try again later";
                    self.reply(454, Some(Enhanced(4, 7, 0)), text);
                    return Ok(());
                }
            }
        }
    }

    /// Sends a challenge; `None` if there is no proper response, which is answered then.
    async fn challenge(&mut self, data: &[u8]) -> Result<Option<Vec<u8>>, End> {
        self.reply(334, None, &STANDARD.encode(data));
        match self.read_line().await? {
            LineRead::TooLong => {
                // RFC 4954 4
                let text = "The response is too long";
                self.reply(500, Some(Enhanced(5, 5, 6)), text);
                Ok(None)
            }
            LineRead::Whole if self.line == b"*" => {
                self.reply(501, Some(Enhanced(5, 7, 0)), "Login cancelled");
                Ok(None)
            }
            LineRead::Whole => {
                let decoded = STANDARD.decode(&self.line);
                // What was typed may be a password.
                self.line.fill(0);
                if decoded.is_err() {
                    let text = "The response is not valid base64";
                    self.malformed(501, Enhanced(5, 5, 2), text)?;
                }
                Ok(decoded.ok())
            }
        }
    }

    fn logged_in(&mut self, login: Login) {
        if !login.grant.rights.contains(Rights::SUBMIT) {
            let text = "This login may not send mail";
            self.reply(535, Some(Enhanced(5, 7, 8)), text);
            return;
        }
        tracing::info!(trace = %self.trace, client = %self.client(), login = login.name, "logged in");
        self.counters.idle = 0;
        self.service.figures.logins.add_one();
        self.login = Some(login);
        self.reply(235, Some(Enhanced(2, 7, 0)), "Welcome");
    }

    async fn login_failed(&mut self, reason: AuthFailure, delay_ms: u32) -> Result<(), End> {
        self.service.figures.failed_logins.add_one();
        tracing::info!(trace = %self.trace, client = %self.client(), ?reason, "login failed");
        tokio::time::sleep(Duration::from_millis(u64::from(delay_ms.min(30_000)))).await;
        let (code, enhanced, text) = match reason {
            AuthFailure::Credentials => (535, Enhanced(5, 7, 8), "Wrong name or password"),
            AuthFailure::Blocked => {
                return self.abuse(Enhanced(4, 7, 0), "Too many failed logins, try again later");
            }
            AuthFailure::Mechanism => (504, Enhanced(5, 5, 4), "That mechanism is not offered"),
            AuthFailure::NeedsTls => (538, Enhanced(5, 7, 11), "Say STARTTLS first"),
            AuthFailure::Malformed => (501, Enhanced(5, 5, 2), "The exchange is malformed"),
            AuthFailure::Disabled => (
                535,
                Enhanced(5, 7, 8),
                "This account or password is not for sending mail",
            ),
        };
        self.reply(code, Some(enhanced), text);
        self.counters.failed_logins += 1;
        if self.counters.failed_logins >= self.service.policy.limits.failed_logins.max(1) {
            return self.abuse(Enhanced(4, 7, 0), "Too many failed logins");
        }
        Ok(())
    }
}
