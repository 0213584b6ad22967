//! What an earlier run left in the journal and in the spool.

use crate::core::{Core, Left};
use crate::message::{Content, Home};
use crate::record::{Head, Note};
use crate::writer::Entry;
use journal::Entry as Records;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use types::QueueId;

/// So many at a time are asked of the table, and begun.
const BATCH: usize = 500;

/// Begins to deliver what the journal holds and the table does not, and removes orphans from the spool.
pub(crate) async fn run(core: Arc<Core>) {
    let Left {
        messages: left,
        bodies,
    } = core.take_left();
    if !left.is_empty() {
        tracing::info!(messages = left.len(), "the journal is replayed");
    }
    for batch in left.chunks(BATCH) {
        let ids: Vec<QueueId> = batch.iter().map(|(id, _)| *id).collect();
        // What was moved to the table may still be in the journal: the table's word counts.
        let Some(tabled) = known(&core, &ids).await else {
            return;
        };
        let mut freed = Vec::new();
        for (id, records) in batch {
            if tabled.contains(id) {
                freed.push(Entry::free(id.0));
            } else if let Err(error) = begin(&core, *id, records) {
                tracing::error!(%id, error, "a message of the journal cannot be read: it stays there");
            }
        }
        if !freed.is_empty() && !core.free_surely(freed).await {
            return;
        }
        while core.locals.backlog() > BATCH && !*core.stopping.borrow() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    core.replayed.send_replace(true);
    // The journal knows by now that the table has these.
    if known(&core, &[]).await.is_none() {
        return;
    }
    for id in core.table.take_unconfirmed() {
        core.confirm_known(id).await;
    }
    remove_orphans(&core, &bodies).await;
}

async fn known(core: &Core, ids: &[QueueId]) -> Option<BTreeSet<QueueId>> {
    let mut pause = Duration::from_millis(100);
    loop {
        match core.table.known(ids).await {
            Ok(known) => return Some(known),
            Err(error) => {
                tracing::warn!(%error, "the queue table is away: what the journal holds waits for it")
            }
        }
        if tokio::time::timeout(pause, core.stopped()).await.is_ok() {
            return None;
        }
        pause = (pause * 2).min(Duration::from_secs(10));
    }
}

fn begin(core: &Arc<Core>, id: QueueId, records: &Records) -> Result<(), String> {
    let read = |position| {
        core.reader
            .read(position)
            .map_err(|error| error.to_string())
    };
    let put = read(records.put)?;
    let (head, prefix, body) =
        Head::of_record(put.version, &put.payload).map_err(|error| error.to_string())?;
    let mut note = Note::default();
    for position in &records.notes {
        let record = read(*position)?;
        let one =
            Note::of_record(record.version, &record.payload).map_err(|error| error.to_string())?;
        note.done.extend(one.done);
        note.remote.extend(one.remote);
    }
    if head.spooled
        && let Err(error) = core.spool.read(id)
    {
        return Err(format!("its body in the spool: {error}"));
    }
    let content = Content {
        prefix: prefix.to_vec(),
        body: (!head.spooled).then(|| body.to_vec()),
    };
    core.begin(id, head, Home::Journal(records.put), Some(content), &note);
    Ok(())
}

/// Removes bodies of messages that are neither in the journal nor in the table.
async fn remove_orphans(core: &Arc<Core>, bodies: &[(QueueId, bool)]) {
    for batch in bodies.chunks(BATCH) {
        let ids: Vec<QueueId> = batch.iter().map(|(id, _)| *id).collect();
        let Some(tabled) = known(core, &ids).await else {
            return;
        };
        for (id, done) in batch.iter().filter(|(id, _)| !tabled.contains(id)) {
            core.remove_orphan(*id, *done);
        }
    }
}
