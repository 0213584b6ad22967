//! Mail for `reportd.addresses`: reports of others, which reportd takes.

use crate::delivery::{Delivery, Directory, Message, Plan, Store, status};
use ipc::api::deliverd::{Deliver, FollowUp, RedirectOptions};
use ipc::api::reportd::{TakeReport, TakenReport};
use ipc::{Fault, FaultKind};
use std::os::fd::OwnedFd;
use std::time::Duration;
use types::{Enhanced, Outcome};

/// How long reportd has: it looks at one message at a time.
const DEADLINE: Duration = Duration::from_secs(100);

impl<D: Directory, S: Store> Delivery<D, S> {
    /// Gives reportd what is for it. It knows what it has had, so that nothing counts twice.
    pub(crate) async fn hand_to_reportd(&self, call: &Deliver, message: &Message, plan: &mut Plan) {
        for index in std::mem::take(&mut plan.reports) {
            match self.take_report(call, message, index).await {
                Ok(taken) => {
                    let TakenReport {
                        kind,
                        about,
                        forward,
                    } = taken;
                    tracing::info!(id = %call.id, trace = %call.trace, kind, about, "report taken");
                    let text = format!("taken as a report ({kind})");
                    plan.add(index, Outcome::Done(status(250, Enhanced(2, 1, 5), text)));
                    plan.follow_ups.extend(forward.map(|to| {
                        FollowUp::Redirect {
                            index,
                            to: vec![to],
                            // Should it lead back here, that ends it.
                            prefix: format!("Delivered-To: {}\r\n", recipient(call, index))
                                .into_bytes()
                                .into(),
                            content: None,
                            options: RedirectOptions {
                                anywhere: true,
                                ..RedirectOptions::default()
                            },
                        }
                    }));
                }
                Err(fault) => {
                    tracing::warn!(id = %call.id, trace = %call.trace, %fault, "report not taken");
                    let text = "reports cannot be taken now".to_owned();
                    plan.add(
                        index,
                        Outcome::Temporary(status(451, Enhanced(4, 3, 0), text)),
                    );
                }
            }
        }
    }

    async fn take_report(
        &self,
        call: &Deliver,
        message: &Message,
        index: u16,
    ) -> Result<TakenReport, Fault> {
        let away = || Fault::new(FaultKind::Temporary, "reportd is not enabled");
        let reportd = self.reportd.as_ref().ok_or_else(away)?;
        let recipient = call.recipients.iter().find(|one| one.index == index);
        let unknown = || Fault::new(FaultKind::Internal, "a recipient is not in the call");
        let request = TakeReport {
            id: call.id,
            index,
            trace: call.trace,
            arrived: call.arrived,
            sender: call.sender.clone(),
            recipient: recipient.ok_or_else(unknown)?.address.clone(),
            prefix: call.prefix.clone(),
            body: call.body.clone(),
        };
        let descriptors = match &message.file {
            Some(file) => {
                let again = file.try_clone();
                let again =
                    again.map_err(|error| Fault::new(FaultKind::Temporary, error.to_string()))?;
                vec![OwnedFd::from(again)]
            }
            None => Vec::new(),
        };
        let taken = reportd
            .call_with(call.trace, &request, descriptors, DEADLINE)
            .await?;
        Ok(taken.0)
    }
}

fn recipient(call: &Deliver, index: u16) -> String {
    let found = call.recipients.iter().find(|one| one.index == index);
    found.map(|one| one.address.to_string()).unwrap_or_default()
}
