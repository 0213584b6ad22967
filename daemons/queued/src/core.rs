//! The queue itself: what it holds.

mod commit;

use crate::config::Config;
use crate::counters::Counters;
use crate::ids::Ids;
use crate::local::Locals;
use crate::message::{Content, Home, Job, Message};
use crate::node::Node;
use crate::peers::Peers;
use crate::policies::Policies;
use crate::record::{self, Head, Note};
use crate::relays::Relays;
use crate::report::Reporter;
use crate::rights::Gate;
use crate::rule::Rules;
use crate::seen::Seen;
use crate::spool::Spool;
use crate::table::{LOCAL, Table, Waiting};
use crate::table_writer::TableWriter;
use crate::writer::{Caps, Writer};
use ipc::api::relayd::Relay;
use ipc::{Fault, FaultKind};
use journal::{Journal, Reader};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, Semaphore, SemaphorePermit, watch};
use types::{Address, QueueId};

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    now_ms() / 1000
}

/// Free room as it was looked at last.
#[derive(Debug, Default)]
struct Room {
    looked: AtomicU64,
    low: AtomicBool,
}

/// The queue.
pub struct Core {
    pub(crate) config: Config,
    pub(crate) peers: Arc<dyn Peers>,
    pub(crate) ids: Ids,
    pub(crate) writer: Writer,
    pub(crate) reader: Reader,
    pub(crate) spool: Spool,
    pub(crate) table: Table,
    pub(crate) table_writer: TableWriter,
    pub(crate) reporter: Reporter,
    pub(crate) double_bounces_to: Option<Address>,
    pub(crate) rules: Rules,
    pub(crate) locals: Locals,
    pub(crate) relays: Relays,
    pub(crate) policies: Policies,
    pub(crate) counters: Counters,
    /// Wakes the loader: something in the table may be due earlier than it thinks.
    pub(crate) due: Notify,
    /// Messages of the table that are in memory.
    pub(crate) loaded: AtomicU64,
    pub(crate) stopping: watch::Sender<bool>,
    /// Whether all that an earlier run left is begun.
    pub(crate) replayed: watch::Sender<bool>,
    gate: Gate,
    directory: PathBuf,
    room: Room,
    /// Messages of the journal.
    fresh: Mutex<BTreeMap<QueueId, Arc<Message>>>,
    seen: Mutex<Seen>,
    memory: AtomicU64,
    /// Whether the table could not take a message in the last time.
    table_away: AtomicBool,
    /// Attempts under way.
    attempts: AtomicU64,
    /// Messages that are on their way into the table, until it may go on with them.
    parks: Semaphore,
    /// Wakes who waits for room: a message of the journal was forgotten.
    less_fresh: Notify,
    /// What an earlier run left.
    left: Mutex<Left>,
}

/// Messages on their way into the table at once; the others wait for that in the journal, where they are counted.
pub(crate) const PARKS: usize = 1024;

/// What an earlier run left.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// The messages of the journal.
    pub(crate) messages: Vec<(QueueId, journal::Entry)>,
    /// Bodies in the spool of none of these messages, and whether their messages are known to be done.
    pub(crate) bodies: Vec<(QueueId, bool)>,
}

/// See [`Core::busy`].
pub(crate) struct Busy(Arc<Core>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.attempts.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How long attempts under way may take at the end; the supervisor is less patient.
const DRAIN: Duration = Duration::from_secs(60);

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "queue in {}", self.directory.display())
    }
}

impl Core {
    /// Opens the queue in a directory. Call [`Core::start`] then. `hostname` is used where the configuration names none.
    ///
    /// # Errors
    /// A text for the operator: the configuration or the disk.
    pub fn open(
        config: Config,
        directory: &Path,
        hostname: &str,
        peers: Arc<dyn Peers>,
    ) -> Result<Arc<Self>, String> {
        let hostname = if config.hostname.is_empty() {
            hostname
        } else {
            &config.hostname
        };
        let options = journal::Options {
            segment_size: config.segment_size,
            ..journal::Options::default()
        };
        let mut journal = Journal::open(&directory.join("journal"), options)
            .map_err(|error| error.to_string())?;
        let disk = |what: &str| {
            let what = what.to_owned();
            move |error: std::io::Error| format!("{what}: {error}")
        };
        let mut seen = Seen::default();
        let freed = journal.take_freed();
        let mut replay: Vec<_> = journal
            .live()
            .map(|(id, entry)| (QueueId(id), entry.clone()))
            .collect();
        replay.sort_by_key(|(id, _)| *id);
        freed
            .iter()
            .copied()
            .chain(replay.iter().map(|(id, _)| id.0))
            .for_each(|id| seen.insert(id));
        let highest = seen.ids.iter().max().copied().unwrap_or(0);
        let networks = config.relay_networks.clone();
        let double_bounces_to = match config.double_bounces_to.as_str() {
            "" => None,
            text => Some(
                text.parse()
                    .map_err(|error| format!("queued.double_bounces_to: {error}"))?,
            ),
        };
        let from = match config.report_from.as_str() {
            "" => format!("MAILER-DAEMON@{hostname}"),
            text => text.to_owned(),
        };
        let url = match config.database.as_str() {
            "sqlite" => format!("sqlite://{}", directory.join("queue.db").display()),
            url => url.to_owned(),
        };
        let caps = Caps {
            records: config.batch_messages.max(1),
            bytes: config.batch_bytes.max(1),
            backlog: config.commit_backlog.max(1),
        };
        let shared = !url.starts_with("sqlite:");
        let node = Node::open(
            &config.node,
            Some(&directory.join("node")),
            config.lease,
            shared,
        )
        .map_err(disk("the node's file"))?;
        let (table_writer, changes) = TableWriter::new();
        let ids =
            Ids::open(&directory.join("ids"), highest).map_err(disk("the mark of queue ids"))?;
        let spool =
            Spool::open(&directory.join("spool"), config.spool_slots).map_err(disk("the spool"))?;
        let mut bodies = spool.ids().map_err(disk("the spool"))?;
        bodies.retain(|id| replay.binary_search_by_key(id, |(id, _)| *id).is_err());
        let bodies = bodies
            .into_iter()
            .map(|id| (id, seen.ids.contains(&id.0)))
            .collect();
        let core = Arc::new(Self {
            ids,
            reader: journal.reader(),
            spool,
            table: Table::new(url, node),
            table_writer,
            reporter: Reporter {
                hostname: hostname.to_owned(),
                from,
                return_full_max: config.return_full_max,
            },
            double_bounces_to,
            locals: Locals::new(config.local_concurrency),
            relays: Relays::new(&config),
            policies: Policies::new(config.sts_policies),
            rules: Rules::new(&config.rule)?,
            counters: Counters::new(),
            due: Notify::new(),
            loaded: AtomicU64::new(0),
            stopping: watch::Sender::new(false),
            replayed: watch::Sender::new(false),
            gate: Gate::new(networks),
            directory: directory.to_owned(),
            room: Room::default(),
            fresh: Mutex::default(),
            seen: Mutex::new(seen),
            memory: AtomicU64::new(0),
            table_away: AtomicBool::new(false),
            attempts: AtomicU64::new(0),
            parks: Semaphore::new(PARKS),
            less_fresh: Notify::new(),
            left: Mutex::new(Left {
                messages: replay,
                bodies,
            }),
            writer: Writer::start(journal, caps).map_err(disk("the journal's thread"))?,
            peers,
            config,
        });
        tokio::spawn(crate::table_writer::run(Arc::downgrade(&core), changes));
        Ok(core)
    }

    /// Begins to deliver: first what an earlier run left.
    pub fn start(self: &Arc<Self>) {
        tokio::spawn(crate::pulse::run(Arc::clone(self)));
        tokio::spawn(crate::replay::run(Arc::clone(self)));
        tokio::spawn(crate::loader::run(Arc::clone(self)));
    }

    /// Waits a bit for the replay, so that an operator sees the whole queue.
    pub(crate) async fn whole(&self) {
        let mut replayed = self.replayed.subscribe();
        let whole = tokio::time::timeout(Duration::from_secs(5), replayed.wait_for(|done| *done))
            .await
            .is_ok();
        tracing::trace!(whole, "replayed");
    }

    /// Counts an attempt until it is dropped.
    pub(crate) fn busy(self: &Arc<Self>) -> Busy {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    /// Whether the queue ends.
    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Ends: takes nothing more, writes what is to be written. What is under way is done again by the next run.
    pub async fn close(self: &Arc<Self>) {
        self.stopping.send_replace(true);
        // What another host has just taken should be known to have it.
        let begin = Instant::now();
        let mut renewed = begin;
        while self.attempts.load(Ordering::Relaxed) > 0 && begin.elapsed() < DRAIN {
            tokio::time::sleep(Duration::from_millis(10)).await;
            if renewed.elapsed() >= self.table.node.pulse() {
                renewed = Instant::now();
                self.renew().await;
            }
        }
        self.leave().await;
        let core = Arc::clone(self);
        let closed = tokio::task::spawn_blocking(move || {
            core.writer.close();
            core.ids.close()
        });
        if let Ok(Err(error)) = closed.await {
            tracing::warn!(%error, "the mark of queue ids");
        }
    }

    /// Keeps the lease while the last attempts are under way.
    async fn renew(&self) {
        let node = &self.table.node;
        if !node.is_shared() || node.lease().is_none() {
            return;
        }
        let renewed = async { node.renew(self.table.db().await?, 0, 0).await };
        if let Ok(Err(error)) = tokio::time::timeout(node.pulse(), renewed).await {
            tracing::warn!(%error, "this node's lease is not renewed");
        }
    }

    /// Gives back what this node has leased, so that others need not wait for the end of the lease.
    async fn leave(&self) {
        if self.table.node.lease().is_none() {
            return;
        }
        let left = async { self.table.node.leave(self.table.db().await?).await };
        match tokio::time::timeout(Duration::from_secs(5), left).await {
            Ok(Err(error)) => tracing::warn!(%error, "this node's lease is not given back"),
            Err(_) => {
                tracing::warn!("this node's lease is not given back: the queue table is away")
            }
            Ok(Ok(())) => {}
        }
    }

    /// Whether this node may not work on a message of the table any more.
    pub(crate) fn is_stale(&self, message: &Message) -> bool {
        matches!(message.home, Home::Table(lease) if lease != 0 && !self.table.node.holds(lease))
    }

    /// Waits until the queue ends.
    pub(crate) async fn stopped(&self) {
        let mut stopping = self.stopping.subscribe();
        let ended = stopping.wait_for(|stop| *stop).await.is_ok();
        tracing::trace!(ended, "stopping");
    }

    pub(crate) fn take_left(&self) -> Left {
        std::mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Removes a body that had no message when this run began, unless one is being committed under its id. `done`: its
    /// message is known to be done, so none ever is.
    pub(crate) fn remove_orphan(&self, id: QueueId, done: bool) {
        // A commit asks here first, so none begins meanwhile.
        let seen = self.seen();
        if done || !(seen.ids.contains(&id.0) || seen.under_way.contains_key(&id.0)) {
            tracing::info!(%id, "an orphan of the spool is removed");
            self.spool.remove(id);
        }
    }

    pub(crate) fn fresh(&self) -> MutexGuard<'_, BTreeMap<QueueId, Arc<Message>>> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves ids.
    ///
    /// # Errors
    /// Busy: the disk is full. Temporary: it fails.
    pub fn reserve(&self, count: u32) -> Result<QueueId, Fault> {
        let node = self
            .table
            .node
            .number()
            .map_err(|error| Fault::new(FaultKind::Temporary, error.to_string()))?;
        self.ids.reserve(count, now_ms(), node).map_err(|error| {
            tracing::error!(%error, "the mark of queue ids");
            Fault::new(kind_of(&error), format!("the mark of queue ids: {error}"))
        })
    }

    /// Whether there is room for more.
    pub(crate) fn check_room(&self) -> Result<(), Fault> {
        let now = now();
        if self.room.looked.swap(now, Ordering::Relaxed) != now {
            let low = match rustix::fs::statvfs(&self.directory) {
                Ok(stat) => {
                    let few_files = stat.f_files > 0 && stat.f_favail < 1000;
                    stat.f_bavail.saturating_mul(stat.f_frsize) < self.config.min_free || few_files
                }
                Err(error) => {
                    tracing::error!(%error, "looking at the free room");
                    true
                }
            };
            if low && !self.room.low.load(Ordering::Relaxed) {
                tracing::warn!(directory = %self.directory.display(), "the disk is nearly full: nothing is accepted");
            }
            self.room.low.store(low, Ordering::Relaxed);
        }
        if self.room.low.load(Ordering::Relaxed) {
            return Err(Fault::new(
                FaultKind::Busy,
                "the disk of the queue is nearly full",
            ));
        }
        let fresh = self.fresh().len();
        if fresh as u64 + self.table.count.load(Ordering::Relaxed) >= self.config.max_messages
            || fresh >= self.config.max_fresh.saturating_mul(2)
        {
            return Err(Fault::new(FaultKind::Busy, "too many messages are queued"));
        }
        Ok(())
    }

    /// Whether there is room for a body of so many octets.
    pub(crate) fn check_free(&self, expected: u64) -> Result<(), Fault> {
        let stat = rustix::fs::statvfs(&self.directory).map_err(|error| {
            Fault::new(FaultKind::Busy, format!("the disk of the queue: {error}"))
        })?;
        if stat.f_bavail.saturating_mul(stat.f_frsize)
            < self.config.min_free.saturating_add(expected)
        {
            return Err(Fault::new(
                FaultKind::Busy,
                "no room for a body of that size",
            ));
        }
        Ok(())
    }

    /// Opens a spool file for a body of about so many octets; the slot belongs to the connection.
    ///
    /// # Errors
    /// Busy: no room, or too many are open.
    pub fn open_spool(
        &self,
        connection: u64,
        expected: u64,
    ) -> Result<(u64, std::fs::File), Fault> {
        self.check_room()?;
        self.check_free(expected)?;
        match self.spool.open_slot(connection) {
            Ok(Some(opened)) => Ok(opened),
            Ok(None) => Err(Fault::new(FaultKind::Busy, "too many spool files are open")),
            Err(error) => {
                tracing::error!(%error, "opening a spool file");
                Err(Fault::new(
                    FaultKind::Busy,
                    format!("no spool file: {error}"),
                ))
            }
        }
    }

    /// What of a message's octets may stay in memory.
    pub(crate) fn keep(&self, content: Option<Content>) -> Option<Content> {
        let weight = content.as_ref().map_or(0, Content::weight);
        let held = self.memory.fetch_add(weight, Ordering::Relaxed) + weight;
        if held > self.config.memory {
            // It is read again from where it is kept.
            self.memory.fetch_sub(weight, Ordering::Relaxed);
            None
        } else {
            content
        }
    }

    /// Octets that are not in memory any more.
    pub(crate) fn memory_less(&self, octets: u64) {
        self.memory.fetch_sub(octets, Ordering::Relaxed);
    }

    /// Begins to deliver a message of the journal.
    pub(crate) fn begin(
        self: &Arc<Self>,
        id: QueueId,
        head: Head,
        home: Home,
        content: Option<Content>,
        note: &Note,
    ) {
        let content = self.keep(content);
        log_queued(id, &head);
        let recipients = self.waiting(&head, note);
        let message = Arc::new(Message::new(id, head, home, content));
        let many = {
            let mut fresh = self.fresh();
            fresh.insert(id, Arc::clone(&message));
            self.counters.in_journal.change(1);
            fresh.len() > self.config.max_fresh
        };
        let jobs = jobs(&message, recipients);
        if jobs.is_empty() {
            // All were done, and only the mark is missing.
            let core = Arc::clone(self);
            tokio::spawn(async move { core.finish(&message).await });
            return;
        }
        message.progress().jobs = jobs.len();
        message.steer().held = message.head.held.is_some();
        // One that is held for later (RFC 4865), or for an operator, needs no memory until then.
        let now = now();
        let later = jobs
            .iter()
            .flat_map(|job| &job.recipients)
            .all(|waiting| waiting.waits(now));
        if many || later {
            let core = Arc::clone(self);
            let waiting = jobs.into_iter().flat_map(|job| job.recipients).collect();
            tokio::spawn(async move { core.park(message, waiting).await });
            return;
        }
        for job in jobs {
            self.dispatch(job);
        }
    }

    /// Sends a job its way.
    pub(crate) fn dispatch(self: &Arc<Self>, job: Job) {
        if job.destination == LOCAL {
            self.locals.submit(self, job);
        } else {
            self.relays.submit(self, job);
        }
    }

    /// A message of the journal is done, or in the table now.
    pub(crate) fn forget(&self, message: &Message) {
        if self.fresh().remove(&message.id).is_some() {
            self.counters.in_journal.change(-1);
            self.less_fresh.notify_one();
        }
        self.memory_less(message.forget_content());
    }

    /// A place on the way into the table.
    pub(crate) async fn way_into_table(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.parks.acquire().await.ok()
    }

    /// Octets of accepted messages in memory.
    pub(crate) fn memory(&self) -> u64 {
        self.memory.load(Ordering::Relaxed)
    }

    /// The octets of a message, from memory, the journal or the table.
    pub(crate) async fn content(&self, message: &Message) -> Result<Arc<Content>, Fault> {
        if let Some(content) = message.content() {
            return Ok(content);
        }
        let fault = |text: String| Fault::new(FaultKind::Temporary, text);
        let content = match message.home {
            Home::Journal(position) => {
                let record = self
                    .reader
                    .read(position)
                    .map_err(|error| fault(error.to_string()))?;
                let (head, prefix, body) = Head::of_record(record.version, &record.payload)
                    .map_err(|error| fault(error.to_string()))?;
                Content {
                    prefix: prefix.to_vec(),
                    body: (!head.spooled).then(|| body.to_vec()),
                }
            }
            Home::Table(_) => {
                let found = self
                    .table
                    .content(message.id)
                    .await
                    .map_err(|error| fault(error.to_string()))?;
                let (prefix, body) =
                    found.ok_or_else(|| Fault::new(FaultKind::NotFound, "the message is gone"))?;
                Content { prefix, body }
            }
        };
        Ok(Arc::new(content))
    }
}

fn log_queued(id: QueueId, head: &Head) {
    tracing::info!(
        %id, trace = %head.trace, from = %record::reverse_path(head.envelope.sender.as_ref()),
        recipients = head.envelope.recipients.len(), size = head.size(), origin = %head.origin,
        held_by = head.held.as_ref().map(|held| held.by.as_str()), "queued"
    );
}

/// What a failure of the disk means to a caller.
fn kind_of(error: &std::io::Error) -> FaultKind {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => FaultKind::Busy,
        _ => FaultKind::Temporary,
    }
}

/// The jobs that recipients make: one for those here, and for each destination and way as many as it takes.
pub(crate) fn jobs(message: &Arc<Message>, recipients: Vec<Waiting>) -> Vec<Job> {
    let mut by_way: BTreeMap<(String, Option<String>), Vec<Waiting>> = BTreeMap::new();
    for waiting in recipients {
        by_way
            .entry((waiting.destination.clone(), waiting.route.clone()))
            .or_default()
            .push(waiting);
    }
    let mut jobs = Vec::with_capacity(by_way.len());
    for ((destination, route), mut recipients) in by_way {
        let most = if destination == LOCAL {
            1000
        } else {
            Relay::MAX_RECIPIENTS
        };
        while !recipients.is_empty() {
            let rest = recipients.split_off(recipients.len().min(most));
            jobs.push(Job {
                message: Arc::clone(message),
                destination: destination.clone(),
                route: route.clone(),
                recipients,
                probe: 0,
            });
            recipients = rest;
        }
    }
    jobs
}
