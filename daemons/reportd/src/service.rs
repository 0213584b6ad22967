//! The operations that reportd serves.

use crate::gather::Gatherer;
use crate::keep::Keeper;
use crate::outgoing::Outgoing;
use ipc::api::reportd::{
    ClaimReport, Judged, ReportCancel, ReportList, ReportPending, ReportPreview, ReportSend,
    ReportShow, ReportSummary, SettleReport, TakeReport, TlsResults,
};
use ipc::{Context, Fault, FaultKind, Router};
use std::fs::File;
use std::sync::Arc;
use types::Role;

/// What answers.
pub(crate) struct Service {
    pub(crate) gatherer: Gatherer,
    pub(crate) outgoing: Arc<Outgoing>,
    pub(crate) keeper: Keeper,
}

/// All operations.
pub(crate) fn router(service: Service) -> Router {
    let service = Arc::new(service);
    operator(&service, mail(&service, Router::new(Role::Reportd)))
}

/// For the daemons that mail passes.
fn mail(service: &Arc<Service>, router: Router) -> Router {
    let [judged, tls, take, claim, settle] = std::array::from_fn(|_| Arc::clone(service));
    router
        .on(move |_, mut call: Judged| {
            let service = Arc::clone(&judged);
            async move {
                let failures = std::mem::take(&mut call.failures);
                service.gatherer.judged(call).await?;
                for failed in failures.into_iter().take(Judged::FAILURES_MAX) {
                    service.outgoing.failed(failed).await?;
                }
                Ok(())
            }
        })
        .on(move |_, call: TlsResults| {
            let service = Arc::clone(&tls);
            async move { service.gatherer.tls(call).await }
        })
        .on(move |context: Context, call: TakeReport| {
            let service = Arc::clone(&take);
            async move {
                let mut descriptors = context.descriptors;
                let file = descriptors.pop().map(File::from);
                if !descriptors.is_empty() {
                    let text = "a call has one descriptor at most";
                    return Err(Fault::new(FaultKind::Invalid, text));
                }
                service.keeper.take(call, file).await
            }
        })
        .on(move |context: Context, call: ClaimReport| {
            let service = Arc::clone(&claim);
            async move {
                let claimed = service
                    .outgoing
                    .claim(context.peer.connection, &call)
                    .await?;
                Ok(claimed.map(|(due, file)| {
                    if let Some(file) = file {
                        context.attach(file.into());
                    }
                    due
                }))
            }
        })
        .on(move |context: Context, call: SettleReport| {
            let service = Arc::clone(&settle);
            async move { service.outgoing.settle(context.trace, &call).await }
        })
}

/// For the operator.
fn operator(service: &Arc<Service>, router: Router) -> Router {
    let [list, show, summary, pending, preview, cancel, send] =
        std::array::from_fn(|_| Arc::clone(service));
    router
        .on(move |_, call: ReportList| {
            let service = Arc::clone(&list);
            async move { service.keeper.list(&call).await }
        })
        .on(move |_, call: ReportShow| {
            let service = Arc::clone(&show);
            async move { service.keeper.show(&call).await }
        })
        .on(move |_, call: ReportSummary| {
            let service = Arc::clone(&summary);
            async move { service.keeper.summary(&call).await }
        })
        .on(move |_, call: ReportPending| {
            let service = Arc::clone(&pending);
            async move { service.outgoing.pending(&call).await }
        })
        .on(move |_, call: ReportPreview| {
            let service = Arc::clone(&preview);
            async move { service.outgoing.preview(&call).await }
        })
        .on(move |_, call: ReportCancel| {
            let service = Arc::clone(&cancel);
            async move { service.outgoing.cancel(&call.ids, &call.domain).await }
        })
        .on(move |_, call: ReportSend| {
            let service = Arc::clone(&send);
            async move { service.outgoing.send(&call.ids, &call.domain).await }
        })
}
