//! Reports on DMARC and TLS that reportd has due: fetched, committed, settled.
//!
//! A report is given under the queue id that it was first claimed with. If we end between the commit and the settling, it comes again
//! with that id, and the commit finds that it was made.
//!
//! Reports that are to be posted are no mail: relayd posts them, some at a time, and reportd is told what came of it and decides when
//! they are given again. If we end in between, a report is posted twice.

use crate::core::Core;
use ipc::api::queued::{Commit, Origin, Right};
use ipc::api::relayd::{PostReport, PostedReport};
use ipc::api::reportd::{ClaimReport, DueReport, SettleReport};
use ipc::{Client, Fault, FaultKind};
use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
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
/// Reports that are being posted at one time. A server that does not answer keeps a place for `relayd.post.timeout`.
const POSTS: usize = 8;
/// How long posting one may take: longer than `relayd.post.timeout` can be, and not as long as its lease at reportd.
const POST_DEADLINE: Duration = Duration::from_secs(90);

/// Asks until the queue ends.
pub(crate) async fn run(core: Arc<Core>, reportd: Client, relayd: Client) {
    // An id of an earlier run must be known before it can come again.
    core.whole().await;
    let posts = Posts {
        relayd,
        places: Arc::new(Semaphore::new(POSTS)),
    };
    let mut pause = EVERY;
    loop {
        pause = match round(&core, &reportd, &posts).await {
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
            // Others may wait for a place.
            _ = posts.places.acquire(), if posts.places.available_permits() == 0 => {}
        }
    }
}

/// Where reports are posted, and how many at once.
struct Posts {
    relayd: Client,
    places: Arc<Semaphore>,
}

/// Takes one report over; whether there was one.
async fn round(core: &Arc<Core>, reportd: &Client, posts: &Posts) -> Result<bool, Fault> {
    if core.is_stopping() {
        return Ok(false);
    }
    core.check_room()?;
    let place = Arc::clone(&posts.places).try_acquire_owned().ok();
    let claim = ClaimReport {
        queue_id: core.reserve(1)?,
        posts: place.is_some(),
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
    if let (Some(url), Some(place)) = (&due.post, place) {
        let call = PostReport {
            id,
            trace,
            url: url.clone(),
            body: due.message,
        };
        let (relayd, reportd) = (posts.relayd.clone(), reportd.clone());
        tokio::spawn(post(relayd, reportd, call, file, place));
        return Ok(true);
    }
    let refused = match commit(core, due, file).await {
        Ok(()) => None,
        Err(fault) if fault.is_temporary() => return Err(fault),
        Err(fault) => Some(fault.text),
    };
    Ok(reportd
        .call(
            trace,
            &SettleReport {
                id,
                refused,
                again: None,
            },
        )
        .await
        .map(|()| true)?)
}

/// Has a report posted, and says what became of it.
async fn post(
    relayd: Client,
    reportd: Client,
    call: PostReport,
    file: Option<File>,
    _place: OwnedSemaphorePermit,
) {
    let PostReport { id, trace, .. } = call;
    let descriptors = file.into_iter().map(Into::into).collect();
    let posted = relayd.call_with(trace, &call, descriptors, POST_DEADLINE);
    let (refused, again) = match posted.await.map(|(reply, _)| reply) {
        Ok(PostedReport::Accepted(_)) => (None, None),
        Ok(PostedReport::Again(why)) => (None, Some(why)),
        Ok(PostedReport::Refused(why)) => (Some(why), None),
        // That says nothing about the server: reportd gives the report again when its lease is over.
        Err(error) if error.is_temporary() => {
            tracing::warn!(report = id, %trace, url = call.url, %error, "report not posted: relayd did not answer");
            return;
        }
        Err(error) => (Some(error.to_string()), None),
    };
    let settle = SettleReport { id, refused, again };
    if let Err(error) = reportd.call(trace, &settle).await {
        tracing::warn!(report = id, %trace, url = call.url, %error, "what became of a posted report is not settled: it may be posted again");
    }
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
