//! Delivery to other hosts, by relayd: what [`crate::lanes`] lets begin.

use crate::config::Config;
use crate::core::{Core, now, now_ms};
use crate::lanes::{Begun, LaneLimits, Lanes, Most, NoRoom, Turn, Verdict};
use crate::message::{End, Job};
use crate::report::Event;
use crate::rule::{Rules, domain_of};
use ipc::Fault;
use ipc::api::relayd::{Manner, Relay, RelayRecipient, Relayed};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use types::{Body, Enhanced, Octets, Outcome, Status, Terms};

/// Seconds until another attempt when relayd itself was away: that says nothing about the destination.
const SOON: u64 = 10;
/// Lanes that keep a rate are looked at no more often, in milliseconds.
const TICK: u64 = 50;

/// All lanes.
#[derive(Debug)]
pub(crate) struct Relays {
    lanes: Mutex<Lanes>,
    /// Attempts that are not settled yet: under way, or over and not written down. That many may be made again after a crash.
    unsettled: Arc<Semaphore>,
    /// When somebody looks after lanes that keep a rate, in milliseconds since 1970; `u64::MAX` if nobody does.
    alarm: AtomicU64,
}

/// A lane's name: destinations that an operator sent another way are apart.
fn lane(job: &Job) -> String {
    match &job.route {
        Some(route) => format!("{} via {route}", job.destination),
        None => job.destination.clone(),
    }
}

fn limits(rules: &Rules, destination: &str) -> LaneLimits {
    rules
        .of_destination(destination)
        .map(|rule| LaneLimits {
            concurrency: rule.concurrency,
            rate: rule.rate,
        })
        .unwrap_or_default()
}

impl Relays {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            lanes: Mutex::new(Lanes::new(Most {
                all: config.remote_concurrency.max(1),
                start: config.destination_start.max(1),
                each: config.destination_max.max(1),
                backlog: config.destination_backlog.max(1),
                slow_after: config.slow_after.saturating_mul(1000),
            })),
            unsettled: Arc::new(Semaphore::new(
                config
                    .remote_concurrency
                    .clamp(1, Semaphore::MAX_PERMITS / 2)
                    * 2,
            )),
            alarm: AtomicU64::new(u64::MAX),
        }
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Attempts under way.
    pub(crate) fn active(&self) -> usize {
        self.lanes().active()
    }

    /// How many more messages of a destination may be loaded; if none, when to look again, in seconds since 1970.
    pub(crate) fn room(&self, core: &Core, destination: &str) -> Result<usize, u64> {
        let limits = limits(&core.rules, destination);
        let room = self.lanes().room(destination, limits, now_ms());
        room.map_err(|next| next.div_ceil(1000))
    }

    /// Whether a destination is known to be quick.
    pub(crate) fn is_quick(&self, destination: &str) -> bool {
        self.lanes().is_quick(destination)
    }

    /// Attempts under way at each destination.
    pub(crate) fn connections(&self) -> HashMap<String, u32> {
        self.lanes().connections()
    }

    /// Tries dead destinations again, at an operator's word.
    pub(crate) fn reopen(&self) {
        self.lanes().reopen();
    }

    pub(crate) fn submit(&self, core: &Arc<Core>, job: Job) {
        let name = lane(&job);
        let limits = limits(&core.rules, &job.destination);
        let submitted = self.lanes().submit(&name, limits, job, now_ms());
        if let Err(refused) = submitted {
            let NoRoom { job, until, last } = *refused;
            let end = End::Again {
                status: last,
                due: until.div_ceil(1000),
                counted: false,
            };
            let ends = vec![end; job.recipients.len()];
            let core = Arc::clone(core);
            tokio::spawn(async move { core.settle(job, ends, Vec::new()).await });
            return;
        }
        self.pump(core);
    }

    /// Begins as many attempts as may be.
    fn pump(&self, core: &Arc<Core>) {
        let mut lanes = self.lanes();
        while !core.is_stopping()
            && let Some(begun) = lanes.next(now_ms())
        {
            tokio::spawn(attempt(Arc::clone(core), begun));
        }
        let alarm = lanes.alarm();
        drop(lanes);
        if let Some(alarm) = alarm {
            self.set_alarm(core, alarm);
        }
    }

    /// Sees to it that lanes that keep a rate go on when they may.
    fn set_alarm(&self, core: &Arc<Core>, at: u64) {
        if self.alarm.fetch_min(at, Ordering::Relaxed) <= at {
            return;
        }
        let pause = at.saturating_sub(now_ms()).max(TICK);
        let core = Arc::clone(core);
        tokio::spawn(async move {
            let slept = tokio::time::timeout(Duration::from_millis(pause), core.stopped()).await;
            if slept.is_err() {
                core.relays.alarm.store(u64::MAX, Ordering::Relaxed);
                core.relays.lanes().ring(now_ms());
                core.relays.pump(&core);
            }
        });
    }

    /// An attempt ended. Gives what that changes for its destination.
    fn ended(&self, core: &Arc<Core>, begun: &Place, verdict: &Verdict, took: u64) -> Turn {
        let pause = |failures| {
            core.pause_of(&begun.destination, failures)
                .saturating_mul(1000)
        };
        let mut lanes = self.lanes();
        let turn = lanes.ended(&begun.lane, begun.speed, verdict, took, now_ms(), pause);
        drop(lanes);
        self.pump(core);
        turn
    }
}

/// Where an attempt is made.
struct Place {
    lane: String,
    destination: String,
    speed: crate::lanes::Speed,
}

async fn attempt(core: Arc<Core>, begun: Begun) {
    let _busy = core.busy();
    let unsettled = Arc::clone(&core.relays.unsettled);
    // It is never closed.
    let unsettled = unsettled.acquire_owned().await.ok();
    let Begun { name, job, speed } = begun;
    let (destination, plain) = (job.destination.clone(), job.route.is_none());
    let place = Place {
        lane: name,
        destination: destination.clone(),
        speed,
    };
    let probe = job.probe;
    let began = Instant::now();
    if core.is_stale(&job.message) {
        core.relays.ended(&core, &place, &Verdict::Unknown, 0);
        core.let_go(&job, false);
        return;
    }
    let steered = core.steered(&job);
    let (verdict, ends) = match steered {
        Some(ends) => (Verdict::Unknown, ends),
        None => match relay(&core, &job).await {
            Ok(relayed) => judge(&core, &job, relayed),
            Err(fault) => {
                tracing::warn!(id = %job.message.id, trace = %job.message.head.trace, %fault, "not relayed");
                let status = Status {
                    code: 451,
                    enhanced: Enhanced(4, 3, 0),
                    text: fault.text,
                    host: None,
                };
                let soon = End::Again {
                    status: Some(status),
                    due: now() + SOON,
                    counted: true,
                };
                (Verdict::Unknown, vec![soon; job.recipients.len()])
            }
        },
    };
    let took = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let turn = core.relays.ended(&core, &place, &verdict, took);
    core.settle(job, ends, Vec::new()).await;
    drop(unsettled);
    let mark = match turn {
        Turn::Dead {
            waiting,
            until,
            failures,
        } => {
            let until = until.div_ceil(1000);
            tracing::info!(
                destination,
                failures,
                until,
                waiting = waiting.len(),
                "the destination is down"
            );
            give_back(&core, waiting, until, &verdict).await;
            Some((until, failures))
        }
        Turn::Alive => Some((now(), 0)),
        // A probe that said nothing: another one soon.
        Turn::None if probe > 0 => match verdict {
            Verdict::Up => Some((now(), 0)),
            _ => Some((now() + SOON, probe)),
        },
        Turn::None => None,
    };
    if let Some((next, failures)) = mark.filter(|_| plain) {
        if let Err(error) = core
            .table
            .mark_destination(&destination, next, failures)
            .await
        {
            tracing::warn!(destination, %error, "the queue table cannot be written");
        }
        core.due.notify_one();
    }
}

/// What waited for a destination that is down goes to the table.
async fn give_back(core: &Arc<Core>, waiting: Vec<Job>, until: u64, verdict: &Verdict) {
    let status = match verdict {
        Verdict::Down(status) => Some(status.clone()),
        _ => None,
    };
    for job in waiting {
        let end = End::Again {
            status: status.clone(),
            due: until,
            counted: false,
        };
        let ends = vec![end; job.recipients.len()];
        core.settle(job, ends, Vec::new()).await;
    }
}

async fn relay(core: &Arc<Core>, job: &Job) -> Result<Relayed, Fault> {
    let message = &job.message;
    let content = core.content(message).await?;
    let envelope = &message.head.envelope;
    let recipients = job.recipients.iter().filter_map(|waiting| {
        let recipient = envelope.recipients.get(usize::from(waiting.index))?;
        Some(RelayRecipient {
            index: waiting.index,
            address: recipient.address.clone(),
            orcpt: recipient.orcpt.clone(),
            notify: recipient.notify,
        })
    });
    let rule = core.rules.of_destination(&job.destination);
    // An operator's word goes before a rule.
    let route = match &message.steer().route {
        Some(route) => route.clone(),
        None => job.route.clone(),
    }
    .or_else(|| rule.and_then(|rule| rule.route.clone()));
    let manner = rule.map_or_else(Manner::default, |rule| rule.manner(message.id));
    let domain = domain_of(&job.destination);
    let policy = core.policies.of(&core.table, domain).await;
    let call = Relay {
        id: message.id,
        trace: message.head.trace,
        domain: domain.to_owned(),
        route,
        sender: envelope.sender.clone(),
        ret: envelope.ret,
        envid: envelope.envid.clone(),
        body_type: envelope.body,
        smtputf8: envelope.smtputf8,
        require_tls: envelope.require_tls,
        recipients: recipients.collect(),
        sign: message.head.sign,
        prefix: Octets(content.prefix.clone()),
        body: match &content.body {
            Some(body) => Body::Inline(Octets(body.clone())),
            None => Body::Attached {
                len: message.head.body_len,
            },
        },
        terms: envelope.terms,
        manner,
        policy,
    };
    drop(content);
    let file = core.open_body(message).await?;
    let mut relayed = core.peers.relay(&call, file).await?;
    if let Some(policy) = relayed.policy.take() {
        core.policies.learn(&core.table, domain, policy).await;
    }
    Ok(relayed)
}

/// What the sender may want to know of a hand-over.
fn handed_over(terms: &Terms, by_passed: bool, dsn_passed: bool, now: u64) -> Option<Event> {
    // RFC 2852 4.1.4: with by-trace each hand-over is reported, and in time also one to a host that knows nothing of the limit
    let reported = terms
        .by
        .is_some_and(|by| by.trace || (!by_passed && now < by.deadline));
    if reported {
        return Some(Event::HandedOver);
    }
    // RFC 3461 5.2.2
    (!dsn_passed).then_some(Event::Relayed)
}

fn judge(core: &Core, job: &Job, relayed: Relayed) -> (Verdict, Vec<End>) {
    let Relayed {
        outcomes,
        dsn_passed,
        destination_down,
        by_passed,
        ..
    } = relayed;
    let handed_over = handed_over(
        &job.message.head.envelope.terms,
        by_passed,
        dsn_passed,
        now(),
    );
    let mut outcomes: HashMap<u16, Outcome> = outcomes.into_iter().collect();
    let mut down = None;
    let ends = job
        .recipients
        .iter()
        .map(|waiting| match outcomes.remove(&waiting.index) {
            Some(Outcome::Done(status)) => {
                core.counters.relayed.add_one();
                End::Done(status, handed_over)
            }
            Some(Outcome::Temporary(status)) => {
                down.get_or_insert_with(|| status.clone());
                core.again_for(&job.message.head, waiting, status)
            }
            Some(Outcome::Permanent(status)) => {
                down.get_or_insert_with(|| status.clone());
                End::Failed(status)
            }
            None => core.again_for(
                &job.message.head,
                waiting,
                Status {
                    code: 451,
                    enhanced: Enhanced(4, 3, 5),
                    text: "relayd said nothing of this recipient".to_owned(),
                    host: None,
                },
            ),
        })
        .collect();
    let verdict = match down {
        Some(status) if destination_down => Verdict::Down(status),
        _ => Verdict::Up,
    };
    (verdict, ends)
}
