//! Gathers changes of the queue table, and makes those that came meanwhile in one transaction.

use crate::core::Core;
use crate::table::Change;
use sql::{Error, Kind};
use std::collections::HashSet;
use std::sync::Weak;
use tokio::sync::{mpsc, oneshot};

/// Changes in one transaction at most.
const BATCH: usize = 128;

/// A change, and who waits for it: whether nothing is left of its message.
type Asked = (Change, oneshot::Sender<Result<bool, Error>>);

/// What waits for the table.
pub(crate) type Changes = mpsc::Receiver<Asked>;

/// The other end of the queue table's task.
#[derive(Debug)]
pub(crate) struct TableWriter {
    changes: mpsc::Sender<Asked>,
}

impl TableWriter {
    pub(crate) fn new() -> (Self, Changes) {
        let (changes, receiver) = mpsc::channel(1024);
        (Self { changes }, receiver)
    }

    /// Makes a change; whether nothing is left of its message then.
    pub(crate) async fn change(&self, change: Change) -> Result<bool, Error> {
        let gone = || Error::new(Kind::Unavailable, "the queue is shutting down");
        let (reply, answer) = oneshot::channel();
        self.changes
            .send((change, reply))
            .await
            .map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// Works until the queue is gone.
pub(crate) async fn run(core: Weak<Core>, mut changes: Changes) {
    let mut asked = Vec::new();
    while changes.recv_many(&mut asked, BATCH).await > 0 {
        let Some(core) = core.upgrade() else { return };
        let (batch, replies): (Vec<Change>, Vec<_>) = asked.drain(..).unzip();
        match core.table.change(&batch).await {
            Ok(gone) => {
                let gone: HashSet<_> = gone.into_iter().collect();
                for (change, reply) in batch.iter().zip(replies) {
                    let id = match change {
                        Change::Park(parked) => parked.id,
                        Change::Settle(settled) => settled.id,
                    };
                    let _ = reply.send(Ok(gone.contains(&id)));
                }
            }
            Err(error) => {
                // One change that the database does not like must not hold up the others.
                let alone = batch.len() > 1 && !error.is_temporary();
                let text = error.to_string();
                for (change, reply) in batch.into_iter().zip(replies) {
                    let answer = if alone {
                        core.table
                            .change(std::slice::from_ref(&change))
                            .await
                            .map(|gone| !gone.is_empty())
                    } else {
                        Err(Error::new(error.kind(), text.clone()))
                    };
                    let _ = reply.send(answer);
                }
            }
        }
    }
}
