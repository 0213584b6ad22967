//! Gathers changes of the queue table, and makes those that came meanwhile in one transaction.

use crate::core::Core;
use crate::table_change::{Change, Made, NotMade};
use crate::writer::Entry;
use sql::{Error, Kind};
use std::sync::Weak;
use tokio::sync::{mpsc, oneshot};

/// Changes in one transaction at most.
const BATCH: usize = 128;

/// A change, and who waits for what it comes to.
type Asked = (Change, oneshot::Sender<Result<Made, NotMade>>);

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

    /// Makes a change; what it came to.
    pub(crate) async fn change(&self, change: Change) -> Result<Made, NotMade> {
        let gone = || NotMade::from(Error::new(Kind::Unavailable, "the queue is shutting down"));
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
            Ok(made) => {
                note(&core, &batch).await;
                for (made, reply) in made.into_iter().zip(replies) {
                    let _ = reply.send(Ok(made));
                }
            }
            Err(NotMade { error, in_doubt }) => {
                // One change that the database does not like must not hold up the others.
                let alone = batch.len() > 1 && !in_doubt && !error.is_temporary();
                let text = error.to_string();
                for (change, reply) in batch.into_iter().zip(replies) {
                    let change = [change];
                    let answer = if alone {
                        core.table.change(&change).await
                    } else {
                        Err(NotMade {
                            error: Error::new(error.kind(), text.clone()),
                            in_doubt,
                        })
                    };
                    if answer.is_ok() {
                        note(&core, &change).await;
                    }
                    let answer = answer.map(|made| made.first().copied().unwrap_or(Made::Done));
                    let _ = reply.send(answer);
                }
            }
        }
    }
}

/// Has the journal remember what was accepted into the table, so that a commit that comes again after a restart is known. It need
/// not be synced: with the power, those who could ask again go too.
async fn note(core: &Core, changes: &[Change]) {
    let marks: Vec<Entry> = changes
        .iter()
        .filter_map(|change| match change {
            Change::Accept(parked) => Some(Entry::free(parked.id.0)),
            _ => None,
        })
        .collect();
    if !marks.is_empty()
        && let Err(fault) = core.writer.note(marks).await
    {
        tracing::debug!(%fault, "ids that were accepted are not remembered");
    }
}
