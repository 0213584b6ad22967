//! Renews this node's lease while it lives, and takes over from nodes that do not.

use crate::core::Core;
use sql::{Db, Error};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How often the messages are counted and orphaned pieces removed, where others may put some there.
const COUNTED: Duration = Duration::from_secs(60);
/// How long until a table that is away is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Works until the queue ends. A table of one node only needs it to be opened again if it is away at first.
pub(crate) async fn run(core: Arc<Core>) {
    let mut counted = Instant::now();
    let mut known = None;
    loop {
        let pause = match beat(&core, &mut counted).await {
            Ok(()) => {
                known = None;
                core.table.node.pulse()
            }
            Err(error) => {
                let text = error.to_string();
                if known.as_ref() != Some(&text) {
                    tracing::warn!(error = text, "this node has no lease at the queue table");
                    known = Some(text);
                }
                AGAIN
            }
        };
        if tokio::time::timeout(pause, core.stopped()).await.is_ok() {
            return;
        }
    }
}

async fn beat(core: &Arc<Core>, counted: &mut Instant) -> Result<(), Error> {
    let db = core.table.db().await?;
    let node = &core.table.node;
    if !node.is_shared() {
        return Ok(());
    }
    let in_journal = core.fresh().len() as u64;
    let loaded = core.loaded.load(Ordering::Relaxed);
    if !node.renew(db, in_journal, loaded).await? {
        tracing::warn!(
            node = node.name,
            "this node was away for longer than its lease: others may have what it was working on"
        );
        node.join(db).await?;
        core.due.notify_one();
    }
    take_over(core, db).await;
    if counted.elapsed() >= COUNTED {
        *counted = Instant::now();
        housekeeping(core, db).await?;
    }
    Ok(())
}

/// The nodes that are gone. What is in the way is tried again with the next beat: the own lease comes first.
async fn take_over(core: &Arc<Core>, db: &Db) {
    match crate::node::take_over(db, &core.table.node.name).await {
        Ok(over) => {
            for (name, recipients) in over {
                tracing::warn!(
                    node = name,
                    recipients,
                    "a node is gone: what it was working on is free again"
                );
                core.due.notify_one();
            }
        }
        Err(error) if error.is_temporary() => tracing::debug!(%error, "taking over waits"),
        Err(error) => tracing::warn!(%error, "a node is gone, and cannot be taken over from"),
    }
}

async fn housekeeping(core: &Core, db: &Db) -> Result<(), Error> {
    core.table.recount(db).await?;
    let swept = core.table.sweep(db).await?;
    if swept > 0 {
        tracing::info!(pieces = swept, "orphaned pieces of bodies are removed");
    }
    Ok(())
}
