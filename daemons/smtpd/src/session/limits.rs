//! Rates, quotas and greylisting: limitd is asked whether the client may go on, at the stages that its rules need.

use super::transaction::Transaction;
use super::{End, Session};
use crate::backend::Backend;
use crate::config::TlsMode;
use crate::limitd::Asked;
use ipc::api::limitd::{Facts, Stage, Weigh};
use smtp::Rcpt;
use tokio::io::{AsyncRead, AsyncWrite};
use types::{Address, Enhanced, Route, Status, TraceId};

/// Recipients in one question: a frame has 128 KiB.
const RECIPIENTS: usize = 300;

/// What was counted for a message.
pub(super) type Weighed = Vec<Weigh>;

impl<S: AsyncRead + AsyncWrite + Unpin + Send, B: Backend> Session<S, B> {
    /// Where limitd is asked for this client. Those of `trusted_networks` have no limits but those of their accounts.
    fn asked(&self) -> Option<Asked> {
        let weighed = self.login.is_some() || !self.peer.trusted;
        self.service.policy.asked.filter(|_| weighed)
    }

    fn weighing(&self, stage: Stage, sender: Option<&Address>) -> Weigh {
        Weigh {
            stage,
            facts: Facts {
                client: self.peer.address,
                listener: self.door.name.clone(),
                helo: self
                    .hello
                    .as_ref()
                    .map_or_else(String::new, |hello| hello.name.clone()),
                account: self.login.as_ref().map(|login| login.name.clone()),
                sender: sender.cloned(),
                vouched: self.peer.may_relay || self.is_vouched(),
            },
        }
    }

    /// Asks; what stops the client, if anything does.
    async fn weigh(&self, trace: TraceId, asked: Asked, weigh: &Weigh) -> Option<Status> {
        // In a place of its own: a session that waits for commands has no room for it.
        match Box::pin(self.service.backend.weigh(trace, weigh)).await {
            Ok(weighed) => {
                let status = weighed.status?;
                self.service.figures.limited.add_one();
                tracing::info!(%trace, client = %self.client(), rule = weighed.rule, %status, "over a limit");
                Some(status)
            }
            Err(_) if asked.later => Some(Status {
                code: 451,
                enhanced: Enhanced(4, 3, 0),
                text: "Not possible at the moment, try again later".to_owned(),
                host: None,
            }),
            Err(_) => None,
        }
    }

    pub(super) fn tell(&mut self, status: &Status) {
        self.reply(status.code, Some(status.enhanced), &status.text);
    }

    /// Before the greeting.
    pub(super) async fn weigh_connection(&mut self) -> Result<(), End> {
        let Some(asked) = self.asked().filter(|asked| asked.connect) else {
            return Ok(());
        };
        let weigh = self.weighing(Stage::Connect, None);
        let Some(status) = self.weigh(self.trace, asked, &weigh).await else {
            return Ok(());
        };
        if self.door.tls == TlsMode::Implicit && self.secured.is_none() {
            // Not worth a handshake.
            return Err(End::Gone("over a limit"));
        }
        // RFC 5321 3.1: a server that does not serve greets with 554; 3.8: 421 if it may later
        let (code, enhanced) = match status.code {
            500.. => (554, status.enhanced),
            _ => (421, Enhanced(4, 7, 0)),
        };
        self.reply(code, Some(enhanced), &status.text);
        Err(End::Said("over a limit"))
    }

    /// At MAIL, when its sender is known to be allowed; whether it was answered.
    pub(super) async fn weigh_mail(&mut self, transaction: &Transaction) -> bool {
        let Some(asked) = self.asked().filter(|asked| asked.mail) else {
            return false;
        };
        let declared = transaction.declared.unwrap_or(0);
        let weigh = self.weighing(Stage::Mail { declared }, transaction.sender.as_ref());
        let status = self.weigh(transaction.trace, asked, &weigh).await;
        if let Some(status) = &status {
            self.tell(status);
        }
        status.is_some()
    }

    /// Takes a recipient, if lists and limits let it; then filters are asked.
    pub(super) async fn admit(
        &mut self,
        address: Address,
        rcpt: Rcpt,
        route: Route,
    ) -> Result<(), End> {
        if let Some(status) = self.look_up(&address).await {
            self.tell(&status);
            return Ok(());
        }
        if let Some(asked) = self.asked().filter(|asked| asked.recipient)
            && let Some(transaction) = self.transaction.as_deref()
        {
            let there = transaction
                .recipients
                .iter()
                .filter(|known| known.address.domain() == address.domain());
            let stage = Stage::Recipient {
                taken_there: u32::try_from(there.count()).unwrap_or(u32::MAX),
                taken: u32::try_from(transaction.recipients.len()).unwrap_or(u32::MAX),
                declared: transaction.declared.unwrap_or(0),
                recipient: address.clone(),
            };
            let weigh = self.weighing(stage, transaction.sender.as_ref());
            if let Some(status) = self.weigh(transaction.trace, asked, &weigh).await {
                self.tell(&status);
                return Ok(());
            }
        }
        self.accept(address, rcpt, route).await
    }

    /// Counts a recipient that is not here; an error closes the session.
    pub(super) async fn weigh_unknown(
        &mut self,
        trace: TraceId,
        address: &Address,
    ) -> Result<(), End> {
        let Some(asked) = self.asked().filter(|asked| asked.unknown) else {
            return Ok(());
        };
        let sender = self
            .transaction
            .as_ref()
            .and_then(|transaction| transaction.sender.as_ref());
        let recipient = address.clone();
        let weigh = self.weighing(Stage::Unknown { recipient }, sender);
        match self.weigh(trace, asked, &weigh).await {
            Some(status) if status.code != 451 => {
                self.reply(421, Some(Enhanced(4, 7, 0)), &status.text);
                Err(End::Said("over a limit"))
            }
            _ => Ok(()),
        }
    }

    /// Counts a message; what was counted, or what to answer.
    pub(super) async fn weigh_message(
        &self,
        transaction: &Transaction,
        octets: u64,
    ) -> Result<Weighed, (u16, Enhanced, String)> {
        let Some(asked) = self.asked().filter(|asked| asked.message) else {
            return Ok(Vec::new());
        };
        let trace = transaction.trace;
        let mut weighed = Vec::new();
        for (at, part) in transaction.recipients.chunks(RECIPIENTS).enumerate() {
            let stage = Stage::Message {
                recipients: part
                    .iter()
                    .map(|recipient| recipient.address.clone())
                    .collect(),
                octets,
                rest: at > 0,
            };
            let weigh = self.weighing(stage, transaction.sender.as_ref());
            if let Some(status) = self.weigh(trace, asked, &weigh).await {
                self.give_back(trace, weighed).await;
                return Err((status.code, status.enhanced, status.text));
            }
            weighed.push(weigh);
        }
        Ok(weighed)
    }

    /// The message was not taken after all.
    pub(super) async fn give_back(&self, trace: TraceId, weighed: Weighed) {
        for weigh in weighed {
            self.service.backend.give_back(trace, weigh).await;
        }
    }
}
