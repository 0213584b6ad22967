//! Brings what is due from the queue table, destination by destination, and sees to warnings and expiry.

use crate::core::{Core, now};
use crate::message::{End, Home, Job, Message};
use crate::report::{Event, Subject};
use crate::settle::expired;
use crate::table::{Due, LOCAL, Leased, Waiting};
use crate::table_change::Settled;
use crate::waiting::next_attention;
use sql::Error;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use types::{Enhanced, Status};

/// Destinations looked at in one round.
const DESTINATIONS: u32 = 64;
/// Messages of one destination in one round.
const MESSAGES: usize = 100;
/// Destinations at which messages are leased in one transaction: few, as what is over waits meanwhile to be written down.
const TOGETHER: usize = 4;
/// Recipients that need attention in one round.
const ATTENTION: u32 = 200;
/// Seconds until a dead destination is looked at again whose probe said nothing, beyond the time of one attempt.
const SILENT: u64 = 3600;
/// Seconds until a destination is looked at again for which there is no room now.
const LATER: u64 = 2;
/// The longest sleep: another node may have put something into the table.
const NAP: u64 = 30;

/// Works until the queue ends.
pub(crate) async fn run(core: Arc<Core>) {
    let mut known = true;
    loop {
        let nap = match round(&core).await {
            Ok(nap) => {
                known = true;
                nap
            }
            Err(error) => {
                if std::mem::take(&mut known) {
                    tracing::warn!(%error, "the queue table is away");
                }
                Duration::from_secs(1)
            }
        };
        tokio::select! {
            () = core.stopped() => return,
            () = core.due.notified() => {
                // Let what belongs together arrive together.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            () = tokio::time::sleep(nap) => {}
        }
    }
}

/// Loads what is due; gives how long to sleep.
async fn round(core: &Arc<Core>) -> Result<Duration, Error> {
    let time = now();
    let dues = core.table.due(time, DESTINATIONS).await?;
    let more = dues.len() == DESTINATIONS as usize;
    load(core, dues, time).await?;
    let attention = attend(core, time).await?;
    let posts = core.give_up_posts(time).await?;
    if more || attention || posts {
        return Ok(Duration::from_millis(50));
    }
    let next = core.table.next().await?;
    Ok(Duration::from_secs(
        next.saturating_sub(now()).clamp(1, NAP),
    ))
}

/// A destination, and how many of its messages there is room for.
type Wanted = (Due, usize);
/// A destination, and when it is looked at again.
type Later = (String, u64);

/// What there is room for of each destination; those of which there is none are for later.
fn rooms(core: &Core, dues: Vec<Due>, time: u64) -> (Vec<Wanted>, Vec<Later>) {
    let mut loaded = usize::try_from(core.loaded.load(Ordering::Relaxed)).unwrap_or(usize::MAX);
    let (mut wanted, mut later) = (Vec::new(), Vec::new());
    for due in dues {
        let (lane, next) = if due.name == LOCAL {
            let lane = MESSAGES.saturating_sub(core.locals.backlog() / 2);
            (lane, time + LATER)
        } else {
            match core.relays.room(core, &due.name) {
                Ok(lane) => (lane, time + LATER),
                Err(next) => (0, next.max(time + 1)),
            }
        };
        // The slow ones must not take all the room.
        let most = core.config.loaded;
        let quick = due.name == LOCAL || core.relays.is_quick(&due.name);
        let most = if quick { most } else { most - most / 2 };
        let room = most.saturating_sub(loaded).min(lane).min(MESSAGES);
        if room == 0 {
            // Where only memory is short, it is a matter of moments.
            let next = if lane > 0 { time } else { next };
            later.push((due.name, next));
        } else {
            loaded += if due.failures > 0 { 1 } else { room };
            wanted.push((due, room));
        }
    }
    (wanted, later)
}

async fn load(core: &Arc<Core>, dues: Vec<Due>, time: u64) -> Result<(), Error> {
    let until = time + SILENT + core.config.relay_timeout;
    let (wanted, later) = rooms(core, dues, time);
    core.table.postpone(&later).await?;
    for wanted in wanted.chunks(TOGETHER) {
        let (lease, leased) = core.table.lease(wanted, time, until).await?;
        for ((due, _), leased) in wanted.iter().zip(leased) {
            begin(core, due, lease, leased, time).await?;
        }
    }
    Ok(())
}

/// Begins to deliver what is leased at a destination.
async fn begin(
    core: &Arc<Core>,
    due: &Due,
    lease: u64,
    leased: Vec<Leased>,
    time: u64,
) -> Result<(), Error> {
    let mut moved = false;
    for one in leased {
        let Leased {
            id,
            head,
            mut waiting,
            content,
        } = one;
        if due.name != LOCAL {
            // The rules may be others than when it was put there.
            for one in &mut waiting {
                let recipient = head.envelope.recipients.get(usize::from(one.index));
                if let Some(recipient) = recipient {
                    one.destination = core.rules.destination(&head, recipient.address.domain());
                    moved |= one.destination != due.name;
                }
            }
        }
        let content = core.keep(content);
        let message = Arc::new(Message::new(id, head, Home::Table(lease), content));
        for mut job in crate::core::jobs(&message, waiting) {
            job.probe = due.failures;
            core.loaded.fetch_add(1, Ordering::Relaxed);
            core.dispatch(job);
        }
    }
    if moved {
        // Nobody learns under this name any more whether it works.
        core.table.mark_destination(&due.name, time, 0).await?;
    }
    Ok(())
}

/// Warns and gives up; whether there may be more to do.
async fn attend(core: &Arc<Core>, time: u64) -> Result<bool, Error> {
    let (lease, leased) = core.table.lease_attention(time, ATTENTION).await?;
    let any = !leased.is_empty();
    for one in leased {
        let message = Arc::new(Message::new(one.id, one.head, Home::Table(lease), None));
        let waiting = one.waiting;
        let (over, late): (Vec<Waiting>, Vec<Waiting>) = waiting
            .into_iter()
            .partition(|waiting| waiting.expires <= time);
        if !late.is_empty() {
            warn(core, &message, lease, &late).await;
        }
        if !over.is_empty() {
            let ends = over
                .iter()
                .map(|waiting| End::Failed(expired(waiting.last.clone())))
                .collect();
            let destination = over
                .first()
                .map(|waiting| waiting.destination.clone())
                .unwrap_or_default();
            let job = Job {
                message,
                destination,
                route: None,
                recipients: over,
                probe: 0,
            };
            core.loaded.fetch_add(1, Ordering::Relaxed);
            core.settle(job, ends, Vec::new()).await;
        }
    }
    Ok(any)
}

/// RFC 5321 4.5.4.1, RFC 3461 4.1: tells the sender of a delay, once.
async fn warn(core: &Arc<Core>, message: &Arc<Message>, lease: u64, late: &[Waiting]) {
    let subjects: Vec<Subject> = late
        .iter()
        .map(|waiting| Subject {
            index: waiting.index,
            event: Event::Delayed,
            status: waiting.last.clone().unwrap_or_else(|| Status {
                code: 451,
                // RFC 3463 X.4.7
                enhanced: Enhanced(4, 4, 7),
                text: "the message waits".to_owned(),
                host: None,
            }),
            until: Some(waiting.expires),
        })
        .collect();
    let reports = core.reports(message, &subjects).await;
    // All recipients of a message have the same times.
    let time = now();
    let attention = late
        .first()
        .map_or(0, |waiting| next_attention(&message.head, waiting, time));
    let settled = Settled {
        id: message.id,
        lease,
        warned: late.iter().map(|waiting| waiting.index).collect(),
        attention,
        ..Settled::default()
    };
    // The report is in the table when it is known there that the sender was told; nobody tells twice.
    core.settle_surely(settled, reports).await;
}
