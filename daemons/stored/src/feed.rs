//! Who wants to know of changes.

use ipc::Connection;
use ipc::api::stored::Changed;
use std::sync::{Mutex, PoisonError};
use store::writer::Touched;

/// Mailboxes named in one event at most; more are told as "any".
const MAILBOXES_MAX: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Feed {
    subscribers: Mutex<Vec<Connection>>,
}

impl Feed {
    pub(crate) fn subscribe(&self, connection: Connection) {
        let mut subscribers = self
            .subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        subscribers.retain(|known| known.is_open() && known.id() != connection.id());
        subscribers.push(connection);
    }

    pub(crate) fn publish(&self, touched: Touched) {
        let mut subscribers = self
            .subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if subscribers.is_empty() {
            return;
        }
        for (account, modseq, mut mailboxes) in touched {
            if mailboxes.len() > MAILBOXES_MAX {
                mailboxes.clear();
            }
            let changed = Changed {
                account,
                modseq,
                mailboxes,
            };
            subscribers.retain(|subscriber| subscriber.notify(&changed));
        }
    }
}
