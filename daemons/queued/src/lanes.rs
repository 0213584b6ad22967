//! Who may begin next: a lane for each destination, and a limit for all. No clock, no I/O.
//!
//! Lanes take turns. Connections are shared so that no destination, nor all slow ones together, can keep the others waiting:
//! once there is not room for all, those that are known to be slow get half of the connections at most, together with those
//! of which nothing is known yet three quarters; what is left is always there for the quick ones. Where nothing is known,
//! one connection must do then.

use crate::by_priority::ByPriority;
use crate::destination::Destination;
use crate::message::Job;
use crate::pace::{Pace, Rate};
use std::collections::{HashMap, VecDeque};
use types::Status;

/// How quick the host of a lane is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Speed {
    /// Nothing is known.
    #[default]
    New,
    Quick,
    Slow,
}

impl Speed {
    const ALL: [Self; 3] = [Self::Quick, Self::New, Self::Slow];

    fn place(self) -> usize {
        match self {
            Self::Quick => 0,
            Self::New => 1,
            Self::Slow => 2,
        }
    }
}

/// Numbers that nothing may exceed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Most {
    /// Attempts at once, in all.
    pub(crate) all: usize,
    /// At one destination in the beginning.
    pub(crate) start: usize,
    /// At one destination.
    pub(crate) each: usize,
    /// Jobs that wait at one destination.
    pub(crate) backlog: usize,
    /// Milliseconds: a destination whose attempts take longer is slow.
    pub(crate) slow_after: u64,
}

/// How a rule limits a lane.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LaneLimits {
    pub(crate) concurrency: Option<usize>,
    pub(crate) rate: Option<Rate>,
}

#[derive(Debug)]
struct Lane {
    destination: Destination,
    waiting: ByPriority,
    last: Option<Status>,
    pace: Option<Pace>,
    speed: Speed,
    /// Milliseconds that an attempt takes, about.
    takes: u64,
    /// The line in which it stands. In others it may have stood before: that counts no more.
    line: Option<usize>,
}

/// A job that begins.
#[derive(Debug)]
pub(crate) struct Begun {
    pub(crate) name: String,
    pub(crate) job: Job,
    /// As what it is counted until it ends.
    pub(crate) speed: Speed,
}

/// What an attempt says about its destination.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    Up,
    Down(Status),
    Unknown,
}

/// What an attempt's end changes for its destination.
#[derive(Debug)]
pub(crate) enum Turn {
    None,
    Alive,
    Dead {
        waiting: Vec<Job>,
        /// Milliseconds since 1970.
        until: u64,
        failures: u32,
    },
}

/// A job that cannot wait here, and until when (milliseconds since 1970) it must wait elsewhere.
#[derive(Debug)]
pub(crate) struct NoRoom {
    pub(crate) job: Job,
    pub(crate) until: u64,
    pub(crate) last: Option<Status>,
}

/// Lanes without work beyond which those that say nothing any more are forgotten.
const REMEMBERED: usize = 10_000;

/// All lanes. Times are in milliseconds since 1970.
#[derive(Debug)]
pub(crate) struct Lanes {
    most: Most,
    /// Attempts under way, by [`Speed::place`].
    active: [usize; 3],
    by_name: HashMap<String, Lane>,
    /// Lanes that have something to begin, in their turn, by [`Speed::place`].
    lines: [VecDeque<String>; 3],
    /// Which line is looked at first.
    turn: usize,
    /// When a lane that keeps a rate may go on: the earliest.
    alarm: Option<u64>,
}

impl Lanes {
    pub(crate) fn new(most: Most) -> Self {
        Self {
            most,
            active: [0; 3],
            by_name: HashMap::new(),
            lines: Default::default(),
            turn: 0,
            alarm: None,
        }
    }

    /// Attempts under way.
    pub(crate) fn active(&self) -> usize {
        self.active.iter().sum()
    }

    /// Attempts under way at each destination.
    pub(crate) fn connections(&self) -> HashMap<String, u32> {
        let active = |lane: &Lane| u32::try_from(lane.destination.active()).unwrap_or(u32::MAX);
        self.by_name
            .iter()
            .map(|(name, lane)| (name.clone(), active(lane)))
            .collect()
    }

    /// How many more jobs of a lane may be loaded from the table; if none, from when on.
    pub(crate) fn room(&mut self, name: &str, limits: LaneLimits, now: u64) -> Result<usize, u64> {
        let most = self.most;
        let Some(lane) = self.by_name.get_mut(name) else {
            let most = limits
                .rate
                .map_or(usize::MAX, |rate| rate.messages as usize);
            return Ok((most.min(4 * self.most.start)).max(1));
        };
        if let Some(until) = lane.destination.closed_until(now) {
            return Err(until);
        }
        let waiting = lane.waiting.len();
        let mut room = lane.backlog(&most).div_ceil(2).saturating_sub(waiting);
        if let Some(pace) = &mut lane.pace {
            room = room.min(pace.left(now).saturating_sub(waiting));
            if room == 0 {
                return Err(pace.next(now).max(now + 1000));
            }
        }
        if room == 0 { Err(now + 2000) } else { Ok(room) }
    }

    /// Whether a lane is known to be quick.
    pub(crate) fn is_quick(&self, name: &str) -> bool {
        self.by_name
            .get(name)
            .is_some_and(|lane| lane.speed == Speed::Quick)
    }

    /// Tries dead destinations again, at an operator's word.
    pub(crate) fn reopen(&mut self) {
        for lane in self.by_name.values_mut() {
            lane.destination.reopen();
        }
    }

    /// A job comes. What cannot wait here is given back.
    pub(crate) fn submit(
        &mut self,
        name: &str,
        limits: LaneLimits,
        job: Job,
        now: u64,
    ) -> Result<(), Box<NoRoom>> {
        let most = self.most;
        if self.by_name.len() >= REMEMBERED && !self.by_name.contains_key(name) {
            self.by_name.retain(|_, lane| !lane.is_forgettable(now));
        }
        let lane = self
            .by_name
            .entry(name.to_owned())
            .or_insert_with(|| Lane::new(&most, limits));
        if job.probe > 0 {
            lane.destination.remember(job.probe);
        }
        if let Some(until) = lane.destination.closed_until(now) {
            let last = lane.last.clone();
            return Err(Box::new(NoRoom { job, until, last }));
        }
        let waits = lane.waiting.len();
        let paced = lane
            .pace
            .as_mut()
            .is_some_and(|pace| waits >= pace.left(now).max(1));
        if paced || waits >= lane.backlog(&most) {
            // It has its time in the table.
            let next = lane.pace.as_mut().map_or(0, |pace| pace.next(now));
            return Err(Box::new(NoRoom {
                job,
                until: next.max(now + 1000),
                last: None,
            }));
        }
        lane.waiting.push(job);
        self.stand_in_line(name);
        Ok(())
    }

    /// Puts a lane that has work into its line; to the front if the work is urgent (RFC 6710 4.2).
    fn stand_in_line(&mut self, name: &str) {
        let Some(lane) = self.by_name.get_mut(name) else {
            return;
        };
        let place = lane.speed.place();
        if lane.line == Some(place) || lane.waiting.is_empty() {
            return;
        }
        lane.line = Some(place);
        let urgent = lane.waiting.first_priority() > 0;
        if let Some(line) = self.lines.get_mut(place) {
            if urgent {
                line.push_front(name.to_owned());
            } else {
                line.push_back(name.to_owned());
            }
        }
    }

    /// Whether one more of this speed may begin.
    fn has_place(&self, speed: Speed) -> bool {
        let [_, new, slow] = self.active;
        let all = self.most.all;
        let others = (all - all / 4).max(1);
        self.active() < all
            && match speed {
                Speed::Quick => true,
                Speed::New => new + slow < others,
                Speed::Slow => slow < (all / 2).max(1) && new + slow < others,
            }
    }

    /// The next job to begin now, if there is one and room for it.
    pub(crate) fn next(&mut self, now: u64) -> Option<Begun> {
        for step in 0..Speed::ALL.len() {
            let place = (self.turn + step) % Speed::ALL.len();
            let speed = *Speed::ALL.get(place)?;
            while self.has_place(speed) {
                let Some(name) = self.lines.get_mut(place).and_then(VecDeque::pop_front) else {
                    break;
                };
                if let Some(job) = self.begin(&name, speed, now) {
                    self.turn = place + 1;
                    return Some(Begun { name, job, speed });
                }
            }
        }
        None
    }

    /// Begins a job of a lane that was taken out of a line.
    fn begin(&mut self, name: &str, speed: Speed, now: u64) -> Option<Job> {
        let scarce = self.active() * 2 >= self.most.all;
        let lane = self.by_name.get_mut(name)?;
        if lane.line != Some(speed.place()) {
            return None;
        }
        lane.line = None;
        let alone = speed == Speed::New && scarce && lane.destination.active() > 0;
        // The end of an attempt puts it into its line again.
        if alone || !lane.destination.has_room(now) {
            return None;
        }
        if let Some(pace) = &mut lane.pace {
            if pace.left(now) == 0 {
                let next = pace.next(now);
                self.alarm = Some(self.alarm.map_or(next, |alarm| alarm.min(next)));
                return None;
            }
            if !lane.waiting.is_empty() {
                pace.begin(now);
            }
        }
        let job = lane.waiting.pop()?;
        lane.destination.begin();
        if let Some(active) = self.active.get_mut(speed.place()) {
            *active += 1;
        }
        self.stand_in_line(name);
        Some(job)
    }

    /// When lanes that keep a rate are to be looked at again.
    pub(crate) fn alarm(&self) -> Option<u64> {
        self.alarm
    }

    /// It is that time: lanes that had to wait for it stand in line again.
    pub(crate) fn ring(&mut self, now: u64) {
        if self.alarm.is_none_or(|alarm| alarm > now) {
            return;
        }
        self.alarm = None;
        let paced: Vec<String> = self
            .by_name
            .iter()
            .filter(|(_, lane)| lane.pace.is_some() && !lane.waiting.is_empty())
            .map(|(name, _)| name.clone())
            .collect();
        for name in paced {
            self.stand_in_line(&name);
        }
    }

    /// An attempt ended that took so many milliseconds. `pause` gives those to wait after so many failures.
    pub(crate) fn ended(
        &mut self,
        name: &str,
        speed: Speed,
        verdict: &Verdict,
        took: u64,
        now: u64,
        pause: impl FnOnce(u32) -> u64,
    ) -> Turn {
        if let Some(active) = self.active.get_mut(speed.place()) {
            *active = active.saturating_sub(1);
        }
        let slow_after = self.most.slow_after;
        let mut turn = Turn::None;
        let Some(lane) = self.by_name.get_mut(name) else {
            return turn;
        };
        match verdict {
            Verdict::Up => {
                if lane.destination.failures() > 0 {
                    turn = Turn::Alive;
                }
                lane.destination.succeeded();
                lane.last = None;
                lane.learn(took, slow_after);
            }
            Verdict::Down(status) => {
                lane.last = Some(status.clone());
                if lane.destination.failed(now, pause) {
                    turn = Turn::Dead {
                        waiting: lane.waiting.take(),
                        until: lane.destination.closed_until(now).unwrap_or(now),
                        failures: lane.destination.failures(),
                    };
                }
            }
            Verdict::Unknown => lane.destination.ended(),
        }
        if lane.is_idle(now) {
            self.by_name.remove(name);
        } else {
            self.stand_in_line(name);
        }
        turn
    }
}

impl Lane {
    fn new(most: &Most, limits: LaneLimits) -> Self {
        let each = limits.concurrency.map_or(most.each, |most| most.max(1));
        Self {
            destination: Destination::new(most.start.min(each), each),
            waiting: ByPriority::default(),
            last: None,
            pace: limits.rate.map(Pace::new),
            speed: Speed::New,
            takes: 0,
            line: None,
        }
    }

    /// Jobs that may wait: few of a slow one, for they would wait long, and the table has room.
    fn backlog(&self, most: &Most) -> usize {
        match self.speed {
            Speed::Slow => (8 * self.destination.limit()).min(most.backlog),
            _ => most.backlog,
        }
        .max(1)
    }

    /// One attempt took so long. A single one does not change what many have shown.
    fn learn(&mut self, took: u64, slow_after: u64) {
        self.takes = match self.speed {
            Speed::New => took,
            _ => (self.takes * 3 + took) / 4,
        };
        self.speed = if self.takes > slow_after {
            Speed::Slow
        } else {
            Speed::Quick
        };
    }

    /// Nothing waits, nothing is under way, and nothing is known that matters.
    fn is_idle(&mut self, now: u64) -> bool {
        self.waiting.is_empty()
            && self.destination.active() == 0
            && self.destination.failures() == 0
            && self.pace.as_mut().is_none_or(|pace| pace.is_idle(now))
    }

    /// As [`Lane::is_idle`], but also one that is dead: the table knows when it is tried again.
    fn is_forgettable(&mut self, now: u64) -> bool {
        self.waiting.is_empty()
            && self.destination.active() == 0
            && self.destination.closed_until(now).is_none()
            && self.pace.as_mut().is_none_or(|pace| pace.is_idle(now))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::message::{Home, Message};
    use crate::record::Head;
    use std::sync::Arc;
    use types::{Envelope, QueueId, Terms, TraceId};

    const MOST: Most = Most {
        all: 20,
        start: 4,
        each: 20,
        backlog: 500,
        slow_after: 2000,
    };

    fn job(id: u64, destination: &str, priority: i8) -> Job {
        let head = Head {
            trace: TraceId(1),
            arrived: 0,
            origin: String::new(),
            may_relay: true,
            sign: false,
            envelope: Envelope {
                sender: None,
                ret: None,
                envid: None,
                body: types::BodyType::SevenBit,
                smtputf8: false,
                require_tls: false,
                recipients: Vec::new(),
                terms: Terms {
                    priority: Some(priority),
                    ..Terms::default()
                },
            },
            prefix_len: 0,
            body_len: 0,
            spooled: false,
            listener: String::new(),
            held: None,
            moderated: None,
        };
        Job {
            message: Arc::new(Message::new(QueueId(id), head, Home::Table(0), None)),
            destination: destination.to_owned(),
            route: None,
            recipients: Vec::new(),
            probe: 0,
        }
    }

    fn fill(lanes: &mut Lanes, name: &str, count: u64) {
        for id in 0..count {
            lanes
                .submit(name, LaneLimits::default(), job(id, name, 0), 0)
                .unwrap();
        }
    }

    fn all(lanes: &mut Lanes, now: u64) -> Vec<Begun> {
        std::iter::from_fn(|| lanes.next(now)).collect()
    }

    fn end(lanes: &mut Lanes, begun: &Begun, took: u64, now: u64) {
        lanes.ended(&begun.name, begun.speed, &Verdict::Up, took, now, |_| 0);
    }

    #[test]
    fn the_slow_leave_room_for_the_quick() {
        let mut lanes = Lanes::new(MOST);
        for slow in 0..50 {
            fill(&mut lanes, &format!("slow{slow}.example"), 10);
        }
        let first = all(&mut lanes, 0);
        assert_eq!(
            first.len(),
            15,
            "those of which nothing is known get three quarters"
        );
        fill(&mut lanes, "quick.example", 100);
        let quick = |begun: &Begun| begun.name == "quick.example";
        // It gets its turn, although 35 others stand before it.
        let mut under_way: VecDeque<Begun> = first.into();
        let mut now = 0;
        let mut begun_at = None;
        let (mut done, mut most_slow) = (0, 0);
        while done < 100 {
            assert!(now < 2_000_000, "{done} are done");
            now += 10;
            // Quick ones end at once; slow ones one after the other, in ten seconds each.
            let mut still = VecDeque::new();
            let mut ended = 0;
            for begun in under_way.drain(..) {
                if quick(&begun) {
                    end(&mut lanes, &begun, 10, now);
                    done += 1;
                    begun_at.get_or_insert(now);
                } else if now % 1000 == 0 && ended < 2 {
                    ended += 1;
                    end(&mut lanes, &begun, 10_000, now);
                } else {
                    still.push_back(begun);
                }
            }
            under_way = still;
            under_way.extend(all(&mut lanes, now));
            assert!(under_way.len() <= 20);
            most_slow = under_way
                .iter()
                .filter(|begun| begun.speed == Speed::Slow)
                .count()
                .max(most_slow);
        }
        assert!(most_slow <= 10, "{most_slow} slow ones at once");
        let begun_at = begun_at.unwrap();
        assert!(now - begun_at < 1000, "it took {} ms", now - begun_at);
    }

    #[test]
    fn lanes_take_turns_and_urgent_mail_goes_first() {
        let mut lanes = Lanes::new(Most { all: 4, ..MOST });
        fill(&mut lanes, "a.example", 10);
        fill(&mut lanes, "b.example", 10);
        let begun = all(&mut lanes, 0);
        let of = |name: &str| begun.iter().filter(|one| one.name == name).count();
        assert_eq!(
            (of("a.example"), of("b.example")),
            (1, 1),
            "one is enough while nothing is known"
        );
        for (id, priority) in [(100, -2), (101, 3)] {
            let urgent = job(id, "c.example", priority);
            lanes
                .submit("c.example", LaneLimits::default(), urgent, 0)
                .unwrap();
        }
        lanes
            .submit(
                "b.example",
                LaneLimits::default(),
                job(102, "b.example", 5),
                0,
            )
            .unwrap();
        for one in begun.iter().filter(|one| one.name == "b.example") {
            end(&mut lanes, one, 1, 1);
        }
        let next = all(&mut lanes, 1);
        let ids: Vec<u64> = next.iter().map(|one| one.job.message.id.0).collect();
        assert!(ids.contains(&102) && !ids.contains(&100), "{ids:?}");
    }

    #[test]
    fn a_rule_limits_its_lane() {
        let mut lanes = Lanes::new(MOST);
        let limits = LaneLimits {
            concurrency: Some(2),
            rate: Some("5/10s".parse().unwrap()),
        };
        let name = "a.example/slowly";
        let mut sent = Vec::new();
        for id in 0..5 {
            lanes.submit(name, limits, job(id, name, 0), 0).unwrap();
        }
        let refused = lanes.submit(name, limits, job(5, name, 0), 0).unwrap_err();
        assert_eq!(refused.until, 1000);
        for now in (0..30_000).step_by(100) {
            lanes.ring(now);
            let begun = all(&mut lanes, now);
            assert!(begun.len() <= 2);
            for one in begun {
                sent.push(now);
                end(&mut lanes, &one, 1, now);
            }
            if let Ok(room) = lanes.room(name, limits, now) {
                for id in 0..room {
                    let more = job(id as u64, name, 0);
                    lanes.submit(name, limits, more, now).unwrap();
                }
            }
        }
        for window in sent.windows(6) {
            assert!(
                window.last().unwrap() - window.first().unwrap() >= 10_000,
                "{sent:?}"
            );
        }
        assert_eq!(sent.len(), 15, "{sent:?}");
    }

    #[test]
    fn what_is_dead_gives_its_mail_back() {
        let mut lanes = Lanes::new(MOST);
        fill(&mut lanes, "dead.example", 10);
        let begun = all(&mut lanes, 0);
        assert_eq!(begun.len(), 4);
        let status = Status {
            code: 421,
            enhanced: types::Enhanced(4, 4, 1),
            text: "refused".to_owned(),
            host: None,
        };
        let mut back = 0;
        for one in begun {
            let verdict = Verdict::Down(status.clone());
            match lanes.ended(&one.name, one.speed, &verdict, 1, 5, |_| 60_000) {
                Turn::Dead { waiting, until, .. } => {
                    back += waiting.len();
                    assert_eq!(until, 60_005);
                }
                _ => assert_eq!(back, 0),
            }
        }
        assert_eq!((back, lanes.active()), (6, 0));
        let refused = lanes
            .submit("dead.example", LaneLimits::default(), job(9, "d", 0), 100)
            .unwrap_err();
        assert_eq!((refused.until, refused.last.is_some()), (60_005, true));
        assert!(
            lanes
                .room("dead.example", LaneLimits::default(), 100)
                .is_err()
        );
    }
}
