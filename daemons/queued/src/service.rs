//! The operations that queued serves.

use crate::core::Core;
use crate::table_control::Action;
use ipc::api::queued::{
    CloseSpool, Commit, OpenSpool, QueueDecide, QueueExplain, QueueForget, QueueHold, QueueList,
    QueueNodes, QueueRelease, QueueRemove, QueueReroute, QueueRetry, QueueShow, QueueStats,
    ReadSpool, ReserveIds, ReservedIds, SpoolSlot,
};
use ipc::{Context, Fault, FaultKind, Router};
use std::sync::Arc;
use types::Role;

/// Ids that may be reserved at once.
const RESERVED_MAX: u32 = 4096;

/// Answers for the queue.
pub(crate) fn router(core: &Arc<Core>) -> Router {
    control(core, listeners(core, Router::new(Role::Queued)))
}

/// For the listeners.
fn listeners(core: &Arc<Core>, router: Router) -> Router {
    let [reserve, open, read, close, commit, closed] = std::array::from_fn(|_| Arc::clone(core));
    router
        .on(move |_, call: ReserveIds| {
            let core = Arc::clone(&reserve);
            async move {
                if call.count == 0 || call.count > RESERVED_MAX {
                    return Err(Fault::new(
                        FaultKind::Invalid,
                        format!("1 to {RESERVED_MAX} ids"),
                    ));
                }
                let first = core.reserve(call.count)?;
                Ok(ReservedIds {
                    first,
                    count: call.count,
                })
            }
        })
        .on(move |context: Context, call: OpenSpool| {
            let core = Arc::clone(&open);
            async move { open_spool(&core, &context, &call) }
        })
        .on(move |context: Context, call: ReadSpool| {
            std::future::ready(read_spool(&read, &context, &call))
        })
        .on(move |context: Context, call: CloseSpool| {
            close.spool.close_slot(call.slot, context.peer.connection);
            std::future::ready(Ok(()))
        })
        .on(move |context: Context, call: Commit| {
            let core = Arc::clone(&commit);
            async move {
                core.commit(context.peer.role, context.peer.connection, call)
                    .await
            }
        })
        .on_closed(move |peer| closed.spool.close_connection(peer.connection))
}

fn open_spool(core: &Core, context: &Context, call: &OpenSpool) -> Result<SpoolSlot, Fault> {
    let (slot, file) = core.open_spool(context.peer.connection, call.expected)?;
    context.attach(file.into());
    Ok(SpoolSlot { slot })
}

fn read_spool(core: &Core, context: &Context, call: &ReadSpool) -> Result<(), Fault> {
    let file = core
        .spool
        .read_slot(call.slot, context.peer.connection)
        .map_err(|error| Fault::new(FaultKind::NotFound, format!("no such slot: {error}")))?;
    context.attach(file.into());
    Ok(())
}

/// For the operator.
fn control(core: &Arc<Core>, router: Router) -> Router {
    let [
        list,
        show,
        retry,
        hold,
        release,
        remove,
        reroute,
        stats,
        explain,
        nodes,
        forget,
        decide,
    ] = std::array::from_fn(|_| Arc::clone(core));
    router
        .on(move |_, call: QueueList| {
            let core = Arc::clone(&list);
            async move { core.list(&call.filter, call.after, call.limit).await }
        })
        .on(move |_, call: QueueShow| {
            let core = Arc::clone(&show);
            async move { core.show(call.id).await }
        })
        .on(move |_, call: QueueRetry| {
            let core = Arc::clone(&retry);
            async move { core.act(&call.filter, Action::Retry).await }
        })
        .on(move |_, call: QueueHold| {
            let core = Arc::clone(&hold);
            async move { core.act(&call.filter, Action::Hold).await }
        })
        .on(move |_, call: QueueRelease| {
            let core = Arc::clone(&release);
            async move {
                core.act(&call.filter, Action::Release { early: call.early })
                    .await
            }
        })
        .on(move |_, call: QueueRemove| {
            let core = Arc::clone(&remove);
            async move { core.remove(&call.filter, call.bounce).await }
        })
        .on(move |_, call: QueueReroute| {
            let core = Arc::clone(&reroute);
            async move { core.act(&call.filter, Action::Reroute(call.route)).await }
        })
        .on(move |_, call: QueueExplain| {
            let core = Arc::clone(&explain);
            async move { core.explain(call.id).await }
        })
        .on(move |_, _: QueueNodes| {
            let core = Arc::clone(&nodes);
            async move { core.nodes().await }
        })
        .on(move |_, call: QueueForget| {
            let core = Arc::clone(&forget);
            async move { core.forget_node(&call.name).await }
        })
        .on(move |_, call: QueueDecide| {
            let core = Arc::clone(&decide);
            async move { core.decide(&call.list, call.post, call.decision).await }
        })
        .on(move |_, _: QueueStats| {
            let core = Arc::clone(&stats);
            async move { core.figures().await }
        })
}
