//! Delivery to other hosts, by relayd: a lane for each destination, and a limit for all.

use crate::config::Config;
use crate::core::{Core, now, now_ms};
use crate::destination::Destination;
use crate::message::{End, Job};
use crate::report::Event;
use ipc::Fault;
use ipc::api::relayd::{Relay, RelayRecipient, Relayed};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use types::{Body, Enhanced, Octets, Outcome, Status};

/// Seconds until another attempt when relayd itself was away: that says nothing about the destination.
const SOON: u64 = 10;

#[derive(Debug)]
struct Lane {
    destination: Destination,
    waiting: VecDeque<Job>,
    last: Option<Status>,
}

#[derive(Debug, Default)]
struct Lanes {
    active: usize,
    by_name: HashMap<String, Lane>,
}

/// All lanes.
#[derive(Debug)]
pub(crate) struct Relays {
    most: usize,
    start: usize,
    most_each: usize,
    backlog: usize,
    lanes: Mutex<Lanes>,
}

/// A lane's name: destinations that an operator sent another way are apart.
fn lane(job: &Job) -> String {
    match &job.route {
        Some(route) => format!("{} via {route}", job.destination),
        None => job.destination.clone(),
    }
}

impl Relays {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            most: config.remote_concurrency.max(1),
            start: config.destination_start,
            most_each: config.destination_max,
            backlog: config.destination_backlog.max(1),
            lanes: Mutex::default(),
        }
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Attempts under way.
    pub(crate) fn active(&self) -> usize {
        self.lanes().active
    }

    /// How many more messages of a destination may be loaded.
    pub(crate) fn room(&self, name: &str) -> usize {
        let waiting = self
            .lanes()
            .by_name
            .get(name)
            .map_or(0, |lane| lane.waiting.len());
        (self.backlog / 2).saturating_sub(waiting)
    }

    /// Attempts under way at each destination.
    pub(crate) fn connections(&self) -> HashMap<String, u32> {
        let lanes = self.lanes();
        let active = |lane: &Lane| u32::try_from(lane.destination.active()).unwrap_or(u32::MAX);
        lanes
            .by_name
            .iter()
            .map(|(name, lane)| (name.clone(), active(lane)))
            .collect()
    }

    /// Tries dead destinations again, at an operator's word.
    pub(crate) fn reopen(&self) {
        for lane in self.lanes().by_name.values_mut() {
            lane.destination.reopen();
        }
    }

    pub(crate) fn submit(&self, core: &Arc<Core>, job: Job) {
        let now = now_ms();
        let name = lane(&job);
        let mut lanes = self.lanes();
        let lane = lanes.by_name.entry(name.clone()).or_insert_with(|| Lane {
            destination: Destination::new(self.start, self.most_each),
            waiting: VecDeque::new(),
            last: None,
        });
        if job.probe > 0 {
            lane.destination.remember(job.probe);
        }
        let refused = match lane.destination.closed_until(now) {
            Some(until) => Some((until.div_ceil(1000), lane.last.clone())),
            // It has its time in the table.
            None if lane.waiting.len() >= self.backlog => Some((now / 1000 + 1, None)),
            None => None,
        };
        if let Some((due, status)) = refused {
            drop(lanes);
            let ends = vec![
                End::Again {
                    status,
                    due,
                    counted: false
                };
                job.recipients.len()
            ];
            let core = Arc::clone(core);
            tokio::spawn(async move { core.settle(job, ends, Vec::new()).await });
            return;
        }
        lane.waiting.push_back(job);
        self.pump(core, &mut lanes, &name);
    }

    /// Begins as many attempts of a lane as may be.
    fn pump(&self, core: &Arc<Core>, lanes: &mut Lanes, name: &str) {
        let now = now_ms();
        while !core.is_stopping()
            && lanes.active < self.most
            && let Some(lane) = lanes.by_name.get_mut(name)
            && lane.destination.has_room(now)
            && let Some(job) = lane.waiting.pop_front()
        {
            lane.destination.begin();
            lanes.active += 1;
            let core = Arc::clone(core);
            let name = name.to_owned();
            tokio::spawn(async move { attempt(core, name, job).await });
        }
    }

    /// An attempt ended. Gives what must wait because the destination is dead now, with its time and failures; and whether it
    /// came back to life.
    fn ended(&self, core: &Arc<Core>, name: &str, verdict: &Verdict) -> Turn {
        let mut lanes = self.lanes();
        lanes.active = lanes.active.saturating_sub(1);
        let full = lanes.active + 1 >= self.most;
        let mut turn = Turn::None;
        if let Some(lane) = lanes.by_name.get_mut(name) {
            match verdict {
                Verdict::Up => {
                    if lane.destination.failures() > 0 {
                        turn = Turn::Alive;
                    }
                    lane.destination.succeeded();
                    lane.last = None;
                }
                Verdict::Down(status) => {
                    let config = &core.config;
                    let pause = |failures| {
                        config
                            .pause(false, failures, rand::random())
                            .saturating_mul(1000)
                    };
                    lane.last = Some(status.clone());
                    if lane.destination.failed(now_ms(), pause) {
                        let until = lane
                            .destination
                            .closed_until(now_ms())
                            .unwrap_or_else(now_ms)
                            .div_ceil(1000);
                        let failures = lane.destination.failures();
                        turn = Turn::Dead {
                            waiting: lane.waiting.drain(..).collect(),
                            until,
                            failures,
                        };
                    }
                }
                Verdict::Unknown => lane.destination.ended(),
            }
            let idle = lane.waiting.is_empty()
                && lane.destination.active() == 0
                && lane.destination.failures() == 0;
            if idle {
                lanes.by_name.remove(name);
            }
        }
        self.pump(core, &mut lanes, name);
        if full {
            // Others may have waited for this place.
            let names: Vec<String> = lanes
                .by_name
                .iter()
                .filter(|(_, lane)| !lane.waiting.is_empty())
                .map(|(name, _)| name.clone())
                .collect();
            for name in names {
                self.pump(core, &mut lanes, &name);
            }
        }
        turn
    }
}

/// What an attempt says about its destination.
enum Verdict {
    Up,
    Down(Status),
    Unknown,
}

/// What an attempt's end changes for its destination.
enum Turn {
    None,
    Alive,
    Dead {
        waiting: Vec<Job>,
        until: u64,
        failures: u32,
    },
}

async fn attempt(core: Arc<Core>, name: String, job: Job) {
    let _busy = core.busy();
    let (destination, plain) = (job.destination.clone(), job.route.is_none());
    let probe = job.probe;
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
    let turn = core.relays.ended(&core, &name, &verdict);
    core.settle(job, ends, Vec::new()).await;
    let mark = match turn {
        Turn::Dead {
            waiting,
            until,
            failures,
        } => {
            tracing::info!(
                destination,
                failures,
                until,
                waiting = waiting.len(),
                "the destination is down"
            );
            let status = match &verdict {
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
    let route = match &message.steer().route {
        Some(route) => route.clone(),
        None => job.route.clone(),
    };
    let call = Relay {
        id: message.id,
        trace: message.head.trace,
        domain: job.destination.clone(),
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
    };
    drop(content);
    let file = core.open_body(message)?;
    core.peers.relay(&call, file).await
}

fn judge(core: &Core, job: &Job, relayed: Relayed) -> (Verdict, Vec<End>) {
    let Relayed {
        outcomes,
        dsn_passed,
        destination_down,
        ..
    } = relayed;
    let mut outcomes: HashMap<u16, Outcome> = outcomes.into_iter().collect();
    let mut down = None;
    let ends = job
        .recipients
        .iter()
        .map(|waiting| match outcomes.remove(&waiting.index) {
            Some(Outcome::Done(status)) => {
                core.counters.relayed.add_one();
                // RFC 3461 5.2.2
                End::Done(status, (!dsn_passed).then_some(Event::Relayed))
            }
            Some(Outcome::Temporary(status)) => {
                down.get_or_insert_with(|| status.clone());
                core.again_for(waiting, status)
            }
            Some(Outcome::Permanent(status)) => {
                down.get_or_insert_with(|| status.clone());
                End::Failed(status)
            }
            None => core.again_for(
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
