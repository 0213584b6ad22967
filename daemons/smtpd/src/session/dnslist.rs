//! Lists in DNS, asked about strangers who bring mail from elsewhere.

use super::transaction::Transaction;
use super::{End, Session};
use crate::backend::Backend;
use crate::config::ListenerRole;
use crate::dnslist::{Asking, ListAction, Standing, Stranger, When};
use tokio::io::{AsyncRead, AsyncWrite};
use types::{Address, Enhanced, Status, Suspicion, Treatment};

impl<S: AsyncRead + AsyncWrite + Unpin + Send, B: Backend> Session<S, B> {
    /// Whether lists are asked about this client. Our users log in from wherever they are.
    fn is_looked_up(&self) -> bool {
        self.service.policy.lists.is_some()
            && self.door.role == ListenerRole::Mx
            && !self.peer.trusted
            && !self.peer.may_relay
    }

    /// An allow list has the client.
    pub(super) fn is_vouched(&self) -> bool {
        self.standing
            .as_ref()
            .is_some_and(|standing| standing.vouched)
    }

    /// Before the greeting, if the configuration wants it so.
    pub(super) async fn look_up_connection(&mut self) -> Result<(), End> {
        let wanted = |lists: &crate::session::ListPolicy| lists.when == When::Connect;
        if !self.is_looked_up() || !self.service.policy.lists.as_ref().is_some_and(wanted) {
            return Ok(());
        }
        let of = Stranger {
            client: self.peer.address,
            ..Stranger::default()
        };
        let standing = self.service.backend.standing(of, Asking::Connect).await;
        let Some((action, status)) = standing.refused() else {
            return Ok(());
        };
        self.service.figures.listed.add_one();
        tracing::info!(trace = %self.trace, client = %self.client(), %status, "listed");
        // RFC 5321 3.1, 3.8
        let (code, enhanced) = match action {
            ListAction::Later => (421, Enhanced(4, 7, 0)),
            _ => (554, status.enhanced),
        };
        self.reply(code, Some(enhanced), &status.text);
        Err(End::Said("listed"))
    }

    fn stranger(&self, transaction: &Transaction) -> Stranger {
        let sender = transaction.sender.as_ref();
        Stranger {
            client: self.peer.address,
            helo: self
                .hello
                .as_ref()
                .map_or_else(String::new, |hello| hello.name.clone()),
            sender: sender.map_or_else(String::new, |sender| sender.domain().to_owned()),
        }
    }

    /// At MAIL, if the configuration wants that of a list; whether it was answered.
    pub(super) async fn look_up_mail(&mut self, transaction: &Transaction) -> bool {
        let lists = self.service.policy.lists.as_ref();
        if !self.is_looked_up() || !lists.is_some_and(|lists| lists.at_mail) {
            return false;
        }
        let of = self.stranger(transaction);
        let standing = Box::pin(self.service.backend.standing(of, Asking::Mail)).await;
        let Some((_, status)) = standing.refused() else {
            return false;
        };
        self.service.figures.listed.add_one();
        tracing::info!(trace = %transaction.trace, client = %self.client(), %status, "listed");
        self.tell(status);
        true
    }

    /// Whether lists stop a recipient: what to answer.
    pub(super) async fn look_up(&mut self, recipient: &Address) -> Option<Status> {
        if !self.is_looked_up() {
            return None;
        }
        let lists = self.service.policy.lists.as_ref()?;
        let local = recipient.local();
        let reachable = lists
            .reachable
            .iter()
            .any(|name| name.eq_ignore_ascii_case(local));
        let of = self.stranger(self.transaction.as_deref()?);
        if self
            .standing
            .as_ref()
            .is_none_or(|standing| standing.of != of)
        {
            // In a place of its own: a session that waits for commands has no room for it.
            let standing: Standing =
                Box::pin(self.service.backend.standing(of, Asking::Rcpt)).await;
            self.standing = Some(Box::new(standing));
        }
        // RFC 5321 4.5.1: who is listed must be able to ask why
        let (action, status) = self
            .standing
            .as_ref()?
            .stopped
            .as_ref()
            .filter(|_| !reachable)?;
        let (action, status) = (*action, status.clone());
        let treatment = match action {
            ListAction::Tag => Treatment::Tag,
            ListAction::Junk => Treatment::Junk,
            ListAction::Later | ListAction::Refuse => {
                self.service.figures.listed.add_one();
                let trace = self
                    .transaction
                    .as_ref()
                    .map_or(self.trace, |transaction| transaction.trace);
                tracing::info!(%trace, client = %self.client(), %recipient, %status, "listed");
                return Some(status);
            }
        };
        if let Some(transaction) = &mut self.transaction {
            transaction.suspicion = Some(Suspicion {
                treatment,
                checks: "dnslist".to_owned(),
                recipients: None,
            });
        }
        None
    }
}
