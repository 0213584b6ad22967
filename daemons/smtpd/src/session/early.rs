//! Clients that do not wait for their turn, and clients of other protocols.

use super::{End, Session};
use crate::backend::Backend;
use crate::config::EarlyAction;
use crate::early;
use smtp::Command;
use tokio::io::{AsyncRead, AsyncWrite};
use types::Enhanced;

impl<S: AsyncRead + AsyncWrite + Unpin + Send, B: Backend> Session<S, B> {
    /// Who spoke before the greeting does not hear it.
    pub(super) fn greet_early_talker(&mut self) -> Result<(), End> {
        if !self.peer.early {
            return Ok(());
        }
        self.service.figures.early.add_one();
        tracing::info!(trace = %self.trace, client = %self.client(), "spoke before the greeting");
        if self.service.policy.early.before_greeting != EarlyAction::Refuse {
            return Ok(());
        }
        // RFC 5321 4.3.1: the client waits for the greeting
        let text = "You spoke before the greeting; wait for your turn";
        self.reply(554, Some(Enhanced(5, 5, 1)), text);
        Err(End::Said("spoke before the greeting"))
    }

    /// A line of another protocol ends the session: somebody makes a browser or a proxy speak to us.
    pub(super) fn is_no_smtp(&mut self, line: &[u8]) -> Result<(), End> {
        if !early::is_foreign(line) {
            return Ok(());
        }
        self.service.figures.foreign.add_one();
        tracing::info!(trace = %self.trace, client = %self.client(), "speaks another protocol");
        self.reply(
            554,
            Some(Enhanced(5, 5, 1)),
            "This is SMTP, closing the connection",
        );
        Err(End::Said("another protocol"))
    }

    /// RFC 2920 3.1: some commands are the last of their group, and nobody may send groups before EHLO has offered it.
    pub(super) fn in_turn(&mut self, command: &Command<'_>) -> Result<(), End> {
        let action = self.service.policy.early.pipelining;
        if action == EarlyAction::Allow
            || self.peer.trusted
            || self.peer.may_relay
            || self.login.is_some()
            || self.input.unread().is_empty()
        {
            return Ok(());
        }
        let offered = self.hello.as_ref().is_some_and(|hello| hello.extended);
        let out_of_turn = match command {
            Command::Ehlo(_) | Command::Helo(_) | Command::Lhlo(_) | Command::Data => true,
            Command::Mail(_) | Command::Rcpt(_) => !offered,
            _ => false,
        };
        if !out_of_turn {
            return Ok(());
        }
        self.service.figures.early.add_one();
        tracing::info!(trace = %self.trace, client = %self.client(), "did not wait for an answer");
        if action != EarlyAction::Refuse {
            return Ok(());
        }
        let text = "You did not wait for an answer where you have to, closing the connection";
        self.reply(554, Some(Enhanced(5, 5, 1)), text);
        Err(End::Said("did not wait for an answer"))
    }
}
