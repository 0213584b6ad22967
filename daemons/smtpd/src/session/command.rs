//! Commands that concern the session; those of a transaction are in `envelope` and `data`.

use super::{End, Hello, Session, transaction::Transaction};
use crate::backend::Backend;
use crate::config::{ListenerRole, TlsMode};
use crate::trace_header::now;
use smtp::{Command, CommandError};
use std::fmt::Write as _;
use tokio::io::{AsyncRead, AsyncWrite};
use types::Enhanced;

impl<S: AsyncRead + AsyncWrite + Unpin + Send, B: Backend> Session<S, B> {
    pub(super) async fn command(&mut self, line: &[u8]) -> Result<(), End> {
        self.counters.commands += 1;
        self.counters.idle += 1;
        let limits = &self.service.policy.limits;
        if self.counters.commands > limits.commands_per_session
            || self.counters.idle > limits.idle_commands.max(1)
        {
            return self.abuse(
                Enhanced(4, 7, 0),
                "Too many commands, closing the connection",
            );
        }
        let command = match Command::parse(line) {
            Ok(command) => command,
            Err(error) => {
                self.is_no_smtp(line)?;
                return self.not_a_command(&error);
            }
        };
        self.in_turn(&command)?;
        self.hooks_line(line);
        match command {
            Command::Mail(mail) => self.mail(*mail).await?,
            Command::Rcpt(rcpt) => self.rcpt(*rcpt).await?,
            Command::Data => self.data().await?,
            Command::Bdat { size, last } => self.bdat(size, last).await?,
            Command::Ehlo(name) => self.hello(name, true, false).await?,
            Command::Helo(name) => self.hello(name, false, false).await?,
            Command::Lhlo(name) => self.hello(name, true, true).await?,
            Command::Auth { mechanism, initial } => self.auth(mechanism, initial).await?,
            Command::StartTls => self.starttls().await?,
            Command::Rset => {
                self.drop_transaction().await;
                self.reply(250, Some(Enhanced(2, 0, 0)), "Reset");
            }
            Command::Noop => self.reply(250, Some(Enhanced(2, 0, 0)), "OK"),
            Command::Vrfy(_) => {
                // RFC 5321 7.3: verifying would tell spammers who is here
                let text = "Cannot verify; send the message and see";
                self.reply(252, Some(Enhanced(2, 5, 2)), text);
            }
            Command::Expn(_) => {
                self.reply(502, Some(Enhanced(5, 5, 1)), "EXPN is not offered");
            }
            Command::Help(_) => {
                let text =
                    "EHLO MAIL RCPT DATA BDAT RSET NOOP QUIT VRFY STARTTLS AUTH\nRFC 5321 says how";
                self.reply(214, Some(Enhanced(2, 0, 0)), text);
            }
            Command::Quit => {
                self.reply(221, Some(Enhanced(2, 0, 0)), "Bye");
                return Err(End::Said("quit"));
            }
        }
        Ok(())
    }

    fn not_a_command(&mut self, error: &CommandError) -> Result<(), End> {
        let (code, enhanced) = error.status();
        self.malformed(code, enhanced, &error.to_string())
    }

    /// Forgets the transaction, and gives back what it held.
    pub(super) async fn drop_transaction(&mut self) {
        self.hooks_abort().await;
        if let Some(mut transaction) = self.transaction.take()
            && let Some(arrival) = transaction.arrival.take()
        {
            self.discard(*arrival, transaction.trace).await;
        }
    }

    pub(super) fn begin(&mut self, transaction: Transaction) {
        self.transaction = Some(Box::new(transaction));
    }

    async fn hello(&mut self, name: &str, extended: bool, lmtp: bool) -> Result<(), End> {
        // RFC 2033 4.1: LHLO on LMTP, and only there
        if lmtp != (self.door.role == ListenerRole::Lmtp) {
            let text = if lmtp {
                "This is SMTP: say EHLO"
            } else {
                "This is LMTP: say LHLO"
            };
            self.reply(500, Some(Enhanced(5, 5, 1)), text);
            return Ok(());
        }
        // RFC 5321 4.1.4: EHLO is a RSET too
        self.drop_transaction().await;
        if !self.hooks_hello(name, extended).await? {
            return Ok(());
        }
        self.hello = Some(Hello {
            name: name.to_owned(),
            extended,
        });
        if !extended {
            let hostname = self.service.policy.hostname.clone();
            self.reply(250, None, &hostname);
            return Ok(());
        }
        let offer = self.offer();
        self.reply(250, None, &offer);
        Ok(())
    }

    /// The lines of the answer to EHLO.
    fn offer(&self) -> String {
        let policy = &self.service.policy;
        let mut text = String::with_capacity(256);
        let _ = write!(
            text,
            "{}\nPIPELINING\nSIZE {}",
            policy.hostname, policy.limits.message_bytes
        );
        if self.may_start_tls() {
            text.push_str("\nSTARTTLS");
        }
        let mechanisms = self.mechanisms();
        if !mechanisms.is_empty() {
            text.push_str("\nAUTH");
            for mechanism in mechanisms {
                text.push(' ');
                text.push_str(mechanism);
            }
        }
        text.push_str("\nENHANCEDSTATUSCODES\n8BITMIME\nDSN\nSMTPUTF8\nCHUNKING\nBINARYMIME");
        if self.secured.is_some() {
            // RFC 8689 2: only under TLS
            text.push_str("\nREQUIRETLS");
        }
        let _ = write!(text, "\nLIMITS RCPTMAX={}", policy.limits.recipients);
        self.offer_terms(&mut text, now());
        text
    }

    fn may_start_tls(&self) -> bool {
        self.door.tls == TlsMode::Starttls && self.secured.is_none() && self.service.tls.is_some()
    }

    async fn starttls(&mut self) -> Result<(), End> {
        if self.secured.is_some() {
            self.reply(503, Some(Enhanced(5, 5, 1)), "TLS is on already");
            return Ok(());
        }
        if self.door.tls != TlsMode::Starttls {
            self.reply(502, Some(Enhanced(5, 5, 1)), "STARTTLS is not offered here");
            return Ok(());
        }
        if self.service.tls.is_none() {
            // RFC 3207 4
            self.reply(454, Some(Enhanced(4, 7, 0)), "TLS is not available now");
            return Ok(());
        }
        self.reply(220, Some(Enhanced(2, 0, 0)), "Ready for TLS");
        self.flush().await?;
        self.drop_transaction().await;
        self.handshake().await?;
        // RFC 3207 4.2: what was said before counts no more
        self.hello = None;
        self.login = None;
        Ok(())
    }
}
