//! Addresses of the envelope become others, and silent recipients are added, as the rules say.

use super::Session;
use super::transaction::Transaction;
use crate::backend::Backend;
use crate::config::ListenerRole;
use crate::rewriting::{Circumstances, Place, Rewriting};
use ipc::api::authd::Resolution;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use types::{Address, Notify, Recipient, Route, TraceId};

/// Recipients of a message at most: their numbers have sixteen bits.
const RECIPIENTS: usize = 65_535;

/// What rewrites the header of the message that comes.
#[derive(Clone, Debug)]
pub(crate) struct Masquerade {
    rewriting: Arc<Rewriting>,
    listener: String,
}

impl Masquerade {
    /// Rewrites From, Sender and Reply-To of a message whose header is there.
    pub(super) fn apply(&self, octets: &mut Vec<u8>) {
        let session = Circumstances {
            listener: &self.listener,
            login: true,
        };
        if let Some(rewritten) = self.rewriting.header(octets, session) {
            *octets = rewritten;
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send, B: Backend> Session<S, B> {
    fn circumstances(&self) -> Circumstances<'_> {
        Circumstances {
            listener: &self.door.name,
            login: self.login.is_some(),
        }
    }

    /// Before anybody asks whether the client may send under it. The null sender has no address to change.
    pub(super) fn rewrite_sender(&self, transaction: &mut Transaction) {
        let (Some(rewriting), Some(sender)) = (&self.service.policy.rewriting, &transaction.sender)
        else {
            return;
        };
        let new = rewriting.rewrite(sender, Place::Sender, self.circumstances());
        if let Some(new) = new {
            tracing::info!(trace = %transaction.trace, client = %self.client(), from = %sender, to = %new, "sender rewritten");
            transaction.claimed = transaction.sender.replace(new).map(Box::new);
        }
    }

    /// Before anybody asks where its mail goes.
    pub(super) fn rewrite_recipient(&self, trace: TraceId, address: Address) -> Address {
        let Some(rewriting) = &self.service.policy.rewriting else {
            return address;
        };
        match rewriting.rewrite(&address, Place::Recipient, self.circumstances()) {
            Some(new) => {
                tracing::info!(%trace, client = %self.client(), from = %address, to = %new, "recipient rewritten");
                new
            }
            None => address,
        }
    }

    /// For the header of a submission; `None` if it stays as it comes.
    pub(super) fn masquerade(&self) -> Option<Masquerade> {
        let rewriting = self.service.policy.rewriting.as_ref()?;
        if self.door.role != ListenerRole::Submission
            || !rewriting.has_header_rules(self.circumstances())
        {
            return None;
        }
        Some(Masquerade {
            rewriting: Arc::clone(rewriting),
            listener: self.door.name.clone(),
        })
    }

    /// Adds those who get the message without anybody seeing it. Whatever goes wrong here, the message is taken.
    pub(super) async fn add_copies(&self, transaction: &mut Transaction) {
        let Some(rewriting) = &self.service.policy.rewriting else {
            return;
        };
        let trace = transaction.trace;
        let sender = transaction.sender.as_ref();
        let copies = rewriting.copies(sender, &transaction.recipients, self.circumstances());
        for address in copies {
            if transaction.recipients.len() >= RECIPIENTS {
                tracing::warn!(%trace, %address, "no copy: the message has too many recipients");
                continue;
            }
            let route = match self.service.backend.resolve(trace, &address).await {
                Ok(Resolution::Local(_)) => Route::Local,
                Ok(Resolution::Remote) if self.login.is_some() || self.may_relay() => {
                    transaction.remote = true;
                    Route::Remote
                }
                Ok(Resolution::Remote) => {
                    tracing::warn!(%trace, %address, "no copy: it is not an address of ours, and the message is a stranger's");
                    continue;
                }
                Ok(other) => {
                    tracing::warn!(%trace, %address, resolution = ?other, "no copy: the address takes no mail");
                    continue;
                }
                // deliverd asks again.
                Err(fault) => {
                    tracing::warn!(%trace, %address, %fault, "a copy's recipient is not checked");
                    Route::Local
                }
            };
            tracing::info!(%trace, %address, "a copy");
            // RFC 3461 4.1: nobody is to hear of it
            let notify = Notify {
                success: false,
                failure: false,
                delay: false,
                explicit: true,
            };
            transaction.recipients.push(Recipient {
                address,
                orcpt: None,
                notify,
                route,
            });
        }
    }
}
