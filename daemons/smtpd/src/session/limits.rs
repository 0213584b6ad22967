//! Rates, quotas and greylisting: limitd is asked whether the client may go on, at the stages that its rules need.

use super::transaction::Transaction;
use super::{End, Session};
use crate::backend::Backend;
use crate::config::TlsMode;
use crate::limitd::Asked;
use ipc::api::limitd::{Facts, Identity, Stage, Weigh};
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

    fn weighing(&self, stage: Stage, transaction: Option<&Transaction>) -> Weigh {
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
                sender: transaction.and_then(|transaction| transaction.sender.clone()),
                vouched: self.peer.may_relay || self.is_vouched(),
                identity: transaction.and_then(|transaction| transaction.identity.get().cloned()),
            },
        }
    }

    /// Asks DNS who the client is, once in a transaction.
    async fn identify(&self, transaction: &Transaction) -> Option<Identity> {
        if let Some(known) = transaction.identity.get() {
            return Some(known.clone());
        }
        let client = mailauth::Client {
            address: self.peer.address?,
            helo: self.hello.as_ref().map_or("", |hello| hello.name.as_str()),
            sender: transaction.claimed_sender(),
        };
        let identity = self.service.backend.identify(&client).await;
        Some(transaction.identity.get_or_init(|| identity).clone())
    }

    /// Asks; what stops the client, if anything does.
    async fn weigh(
        &self,
        asked: Asked,
        weigh: &Weigh,
        transaction: Option<&Transaction>,
    ) -> Option<Status> {
        let trace = transaction.map_or(self.trace, |transaction| transaction.trace);
        // In a place of its own: a session that waits for commands has no room for it.
        let mut answer = Box::pin(self.service.backend.weigh(trace, weigh)).await;
        if let (Ok(weighed), Some(transaction)) = (&answer, transaction)
            && weighed.unidentified
            && weigh.facts.identity.is_none()
        {
            let mut again = weigh.clone();
            again.facts.identity = Box::pin(self.identify(transaction)).await;
            // Who has no address has no name either.
            again.facts.identity.get_or_insert_default();
            answer = Box::pin(self.service.backend.weigh(trace, &again)).await;
        }
        match answer {
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
        let Some(status) = self.weigh(asked, &weigh, None).await else {
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
        let weigh = self.weighing(Stage::Mail { declared }, Some(transaction));
        let status = self.weigh(asked, &weigh, Some(transaction)).await;
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
            let weigh = self.weighing(stage, Some(transaction));
            if let Some(status) = self.weigh(asked, &weigh, Some(transaction)).await {
                self.tell(&status);
                return Ok(());
            }
        }
        self.accept(address, rcpt, route).await
    }

    /// Counts a recipient that is not here; an error closes the session.
    pub(super) async fn weigh_unknown(&mut self, address: &Address) -> Result<(), End> {
        let Some(asked) = self.asked().filter(|asked| asked.unknown) else {
            return Ok(());
        };
        let transaction = self.transaction.as_deref();
        let recipient = address.clone();
        let weigh = self.weighing(Stage::Unknown { recipient }, transaction);
        match self.weigh(asked, &weigh, transaction).await {
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
            let weigh = self.weighing(stage, Some(transaction));
            if let Some(status) = self.weigh(asked, &weigh, Some(transaction)).await {
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
