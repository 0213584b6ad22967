//! Reports on DMARC and TLS that reportd has due: fetched, committed, settled.
//!
//! A report is given under the queue id that it was first claimed with. If we end between the commit and the settling, it comes again
//! with that id, and the commit finds that it was made.

use crate::core::Core;
use ipc::api::queued::{Commit, Origin, Right};
use ipc::api::reportd::{ClaimReport, DueReport, SettleReport};
use ipc::{Client, Fault, FaultKind};
use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;
use types::{
    Body, BodyType, Envelope, Notify, Octets, Recipient, Ret, Role, Route, Terms, TraceId,
};

/// How often reportd is asked.
const EVERY: Duration = Duration::from_secs(5);
/// The longest pause while it is away.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How long it has to write a report out.
const DEADLINE: Duration = Duration::from_secs(60);
/// Of the spool's slots: no connection has this number.
const CONNECTION: u64 = u64::MAX;

/// Asks until the queue ends.
pub(crate) async fn run(core: Arc<Core>, reportd: Client) {
    // An id of an earlier run must be known before it can come again.
    core.whole().await;
    let mut pause = EVERY;
    loop {
        pause = match round(&core, &reportd).await {
            // There may be more.
            Ok(true) => continue,
            Ok(false) => EVERY,
            Err(fault) => {
                if pause == EVERY {
                    tracing::warn!(%fault, "no reports are fetched from reportd for now");
                }
                (pause * 2).min(PAUSE_MAX)
            }
        };
        tokio::select! {
            () = core.stopped() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Takes one report over; whether there was one.
async fn round(core: &Arc<Core>, reportd: &Client) -> Result<bool, Fault> {
    if core.is_stopping() {
        return Ok(false);
    }
    core.check_room()?;
    let claim = ClaimReport {
        queue_id: core.reserve(1)?,
    };
    let trace = TraceId::default();
    let (due, descriptors) = reportd
        .call_with(trace, &claim, Vec::new(), DEADLINE)
        .await?;
    let Some(due) = due else {
        return Ok(false);
    };
    let file = descriptors.into_iter().next().map(File::from);
    let (id, trace) = (due.id, due.trace);
    let refused = match commit(core, due, file).await {
        Ok(()) => None,
        Err(fault) if fault.is_temporary() => return Err(fault),
        Err(fault) => Some(fault.text),
    };
    Ok(reportd
        .call(trace, &SettleReport { id, refused })
        .await
        .map(|()| true)?)
}

async fn commit(core: &Arc<Core>, due: DueReport, file: Option<File>) -> Result<(), Fault> {
    let body = match (due.message, file) {
        (Body::Inline(octets), None) => Body::Inline(octets),
        (Body::Attached { len }, Some(file)) => spool(core, file, len).await?,
        _ => {
            return Err(Fault::new(
                FaultKind::Invalid,
                "a report without its message",
            ));
        }
    };
    let recipient = |address| Recipient {
        address,
        orcpt: None,
        // Who refuses it is to be known; nobody wants to hear of the rest.
        notify: Notify {
            success: false,
            failure: true,
            delay: false,
            explicit: true,
        },
        // deliverd says if it is not.
        route: Route::Local,
    };
    let call = Commit {
        id: due.queue_id,
        trace: due.trace,
        origin: Origin {
            right: Right::Operator,
            listener: String::new(),
            client: "reportd".to_owned(),
        },
        envelope: Envelope {
            sender: due.sender,
            ret: Some(Ret::Headers),
            envid: None,
            body: BodyType::EightBit,
            smtputf8: false,
            require_tls: false,
            recipients: due.to.into_iter().map(recipient).collect(),
            terms: Terms::default(),
        },
        prefix: Octets::default(),
        body,
        held: None,
    };
    // Our own message has the right of the operator: other hosts, and our signature.
    core.commit(Role::Posthouse, CONNECTION, call).await
}

/// Copies a large report into the spool.
async fn spool(core: &Arc<Core>, file: File, len: u64) -> Result<Body, Fault> {
    let (slot, into) = core.open_spool(CONNECTION, len)?;
    let copy = move || -> std::io::Result<u64> {
        let (mut into, mut at, mut buffer) = (into, 0, [0_u8; 16 * 1024]);
        let mut from = At { file, at: 0 }.take(len);
        loop {
            let count = from.read(&mut buffer)?;
            if count == 0 {
                return Ok(at);
            }
            into.write_all(buffer.get(..count).unwrap_or_default())?;
            at += count as u64;
        }
    };
    let copied = tokio::task::spawn_blocking(copy).await;
    match copied.map_err(std::io::Error::other).flatten() {
        Ok(copied) if copied == len => Ok(Body::Slot { slot, len }),
        other => {
            core.spool.close_slot(slot, CONNECTION);
            let text = format!("a report cannot be copied: {other:?}");
            Err(Fault::new(FaultKind::Temporary, text))
        }
    }
}

/// Reads from the beginning, wherever the writer's place in the file is.
struct At {
    file: File,
    at: u64,
}

impl Read for At {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        use std::os::unix::fs::FileExt;
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}
