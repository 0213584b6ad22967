//! The thread that owns the journal: calls gather while it syncs, and the next sync takes them all.

use ipc::{Fault, FaultKind};
use journal::{Journal, Kind, Position, Record};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// How long marks that nobody waits for may lie around.
const IDLE_FLUSH: Duration = Duration::from_millis(200);
/// So many of them are written at once.
const FLUSH_AT: usize = 256;

/// A record that owns its payload.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) version: u8,
    pub(crate) id: u64,
    pub(crate) parts: [Vec<u8>; 3],
}

impl Entry {
    /// A mark that a message is done.
    pub(crate) fn free(id: u64) -> Self {
        Self {
            kind: Kind::Free,
            version: 0,
            id,
            parts: Default::default(),
        }
    }

    fn record(&self) -> Record<'_> {
        let [a, b, c] = &self.parts;
        Record {
            kind: self.kind,
            version: self.version,
            id: self.id,
            parts: [a, b, c],
        }
    }

    fn len(&self) -> usize {
        self.parts.iter().map(Vec::len).sum::<usize>() + 32
    }
}

/// Entries that are written, and given back with where they stand.
pub(crate) type Written = Result<(Vec<Entry>, Vec<Position>), Fault>;

#[derive(Debug)]
struct Job {
    entries: Vec<Entry>,
    sync: bool,
    /// Whether it is to be written at once.
    urgent: bool,
    reply: Option<oneshot::Sender<Written>>,
}

impl Job {
    fn has_put(&self) -> bool {
        self.entries.iter().any(|entry| entry.kind == Kind::Put)
    }
}

#[derive(Debug, Default)]
struct Inbox {
    jobs: VecDeque<Job>,
    /// Jobs that somebody waits for.
    urgent: usize,
    closing: bool,
}

#[derive(Debug)]
struct Shared {
    inbox: Mutex<Inbox>,
    wake: Condvar,
    bytes: AtomicU64,
    syncs: AtomicU64,
    records: AtomicU64,
}

/// Caps of one batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caps {
    pub(crate) records: usize,
    pub(crate) bytes: usize,
    /// Jobs that wait for a batch at most.
    pub(crate) backlog: usize,
}

/// The journal, from the other side of its thread.
#[derive(Debug)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
    backlog: usize,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

impl Writer {
    /// Gives the journal a thread.
    pub(crate) fn start(journal: Journal, caps: Caps) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            inbox: Mutex::default(),
            wake: Condvar::new(),
            bytes: AtomicU64::new(journal.bytes()),
            syncs: AtomicU64::new(0),
            records: AtomicU64::new(0),
        });
        let mine = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .stack_size(256 * 1024)
            .spawn(move || work(journal, &mine, caps))?;
        Ok(Self {
            shared,
            backlog: caps.backlog,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Writes the entries together, synced, and waits. Busy if too many wait already or the disk is full.
    pub(crate) async fn commit(&self, entries: Vec<Entry>) -> Written {
        self.write(entries, true).await
    }

    /// Writes the entries together, and waits, but not for the disk: they survive this process, and not the machine.
    pub(crate) async fn note(&self, entries: Vec<Entry>) -> Written {
        self.write(entries, false).await
    }

    async fn write(&self, entries: Vec<Entry>, sync: bool) -> Written {
        let (reply, written) = oneshot::channel();
        let job = Job {
            entries,
            sync,
            urgent: true,
            reply: Some(reply),
        };
        {
            let mut inbox = self.shared.inbox();
            if inbox.closing {
                return Err(Fault::new(
                    FaultKind::Temporary,
                    "the queue is shutting down",
                ));
            }
            if inbox.urgent >= self.backlog {
                return Err(Fault::new(
                    FaultKind::Busy,
                    "too many messages wait for the disk",
                ));
            }
            inbox.jobs.push_back(job);
            inbox.urgent += 1;
        }
        self.shared.wake.notify_one();
        written.await.unwrap_or_else(|_| {
            Err(Fault::new(
                FaultKind::Temporary,
                "the queue is shutting down",
            ))
        })
    }

    /// Has the entries written soon; nobody waits. With `sync`, they are synced then, otherwise with a later batch.
    pub(crate) fn later(&self, entries: Vec<Entry>, sync: bool) {
        let mut inbox = self.shared.inbox();
        inbox.jobs.push_back(Job {
            entries,
            sync,
            urgent: sync,
            reply: None,
        });
        inbox.urgent += usize::from(sync);
        let wake = sync || inbox.jobs.len() == 1 || inbox.jobs.len() == FLUSH_AT;
        drop(inbox);
        if wake {
            self.shared.wake.notify_one();
        }
    }

    /// Octets of all segments.
    pub(crate) fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Batches that were synced, and records that were written.
    pub(crate) fn counts(&self) -> (u64, u64) {
        (
            self.shared.syncs.load(Ordering::Relaxed),
            self.shared.records.load(Ordering::Relaxed),
        )
    }

    /// Writes what waits, and ends the thread. Blocks.
    pub(crate) fn close(&self) {
        self.shared.inbox().closing = true;
        self.shared.wake.notify_one();
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the journal's thread panicked");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for work; takes a batch of it. `None` at the end.
    fn take(&self, caps: Caps) -> Option<Vec<Job>> {
        let mut inbox = self.inbox();
        loop {
            if inbox.urgent > 0
                || inbox.jobs.len() >= FLUSH_AT
                || (inbox.closing && !inbox.jobs.is_empty())
            {
                break;
            }
            if inbox.closing {
                return None;
            }
            if inbox.jobs.is_empty() {
                inbox = self
                    .wake
                    .wait(inbox)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let (back, waited) = self
                .wake
                .wait_timeout(inbox, IDLE_FLUSH)
                .unwrap_or_else(PoisonError::into_inner);
            inbox = back;
            if waited.timed_out() {
                break;
            }
        }
        let (mut records, mut bytes) = (0, 0);
        let mut batch = Vec::new();
        while let Some(job) = inbox.jobs.front() {
            records += job.entries.len();
            bytes += job.entries.iter().map(Entry::len).sum::<usize>();
            if !batch.is_empty() && (records > caps.records || bytes > caps.bytes) {
                break;
            }
            if job.urgent {
                inbox.urgent = inbox.urgent.saturating_sub(1);
            }
            batch.extend(inbox.jobs.pop_front());
        }
        Some(batch)
    }
}

fn work(mut journal: Journal, shared: &Shared, caps: Caps) {
    // Marks that could not be written: the disk was full, and the next batch takes them along.
    let mut carried: Vec<Job> = Vec::new();
    while let Some(mut batch) = shared.take(caps) {
        if !carried.is_empty() {
            carried.append(&mut batch);
            batch = std::mem::take(&mut carried);
        }
        let failed = match write(&mut journal, shared, &batch) {
            Ok(positions) => {
                reply(batch, positions);
                Vec::new()
            }
            Err(error) => fail(&mut journal, shared, batch, &error),
        };
        carried.extend(failed);
        shared.bytes.store(journal.bytes(), Ordering::Relaxed);
    }
    if !carried.is_empty() && write(&mut journal, shared, &carried).is_err() {
        tracing::error!(
            marks = carried.len(),
            "could not be written: messages will be delivered again"
        );
    }
    journal.close();
}

fn write(
    journal: &mut Journal,
    shared: &Shared,
    batch: &[Job],
) -> Result<Vec<Position>, journal::Error> {
    let records: Vec<Record<'_>> = batch
        .iter()
        .flat_map(|job| &job.entries)
        .map(Entry::record)
        .collect();
    let sync = batch.iter().any(|job| job.sync);
    let positions = journal.append(&records, sync)?;
    shared
        .records
        .fetch_add(records.len() as u64, Ordering::Relaxed);
    shared.syncs.fetch_add(u64::from(sync), Ordering::Relaxed);
    Ok(positions)
}

fn reply(batch: Vec<Job>, positions: Vec<Position>) {
    let mut positions = positions.into_iter();
    for job in batch {
        let mine = positions.by_ref().take(job.entries.len()).collect();
        if let Some(reply) = job.reply {
            let _ = reply.send(Ok((job.entries, mine)));
        }
    }
}

/// A batch failed: what takes messages in has failed, what lets them go is tried alone. Gives back what is still to be written.
fn fail(
    journal: &mut Journal,
    shared: &Shared,
    batch: Vec<Job>,
    error: &journal::Error,
) -> Vec<Job> {
    tracing::error!(%error, "a batch was not written");
    let kind = if error.is_full() {
        FaultKind::Busy
    } else {
        FaultKind::Temporary
    };
    let (puts, marks): (Vec<Job>, Vec<Job>) = batch.into_iter().partition(Job::has_put);
    for reply in puts.into_iter().filter_map(|job| job.reply) {
        let _ = reply.send(Err(Fault::new(
            kind,
            "the message could not be written to the journal",
        )));
    }
    if marks.is_empty() {
        return marks;
    }
    match write(journal, shared, &marks) {
        Ok(positions) => {
            reply(marks, positions);
            Vec::new()
        }
        Err(error) => {
            tracing::error!(%error, marks = marks.len(), "not written either");
            let (waiting, silent): (Vec<Job>, Vec<Job>) =
                marks.into_iter().partition(|job| job.reply.is_some());
            for reply in waiting.into_iter().filter_map(|job| job.reply) {
                let _ = reply.send(Err(Fault::new(kind, "the journal could not be written")));
            }
            silent
        }
    }
}
