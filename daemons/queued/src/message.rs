//! A message in memory, and the work that it makes.

use crate::record::Head;
use crate::report::Event;
use crate::table::Waiting;
use journal::Position;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use types::{QueueId, Status};

/// The octets of a message.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) prefix: Vec<u8>,
    /// `None` if it is in the spool.
    pub(crate) body: Option<Vec<u8>>,
}

impl Content {
    pub(crate) fn weight(&self) -> u64 {
        (self.prefix.len() + self.body.as_ref().map_or(0, Vec::len)) as u64
    }
}

/// Where a message is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    /// In the journal: before its first attempts are over.
    Journal(Position),
    /// In the queue table, worked on under this lease; 0: not leased, somebody looks at it.
    Table(u64),
}

/// What an operator wants of a message that is under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Steer {
    pub(crate) held: bool,
    /// Removed, with or without a report.
    pub(crate) removed: Option<bool>,
    pub(crate) route: Option<Option<String>>,
}

/// How far a message of the journal is.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Jobs that are not over.
    pub(crate) jobs: usize,
    /// Recipients that are done.
    pub(crate) done: Vec<u16>,
    /// Recipients for the queue table.
    pub(crate) waiting: Vec<Waiting>,
}

/// A message that is not done.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) id: QueueId,
    pub(crate) head: Head,
    pub(crate) home: Home,
    content: Mutex<Option<Arc<Content>>>,
    progress: Mutex<Progress>,
    steer: Mutex<Steer>,
}

impl Message {
    pub(crate) fn new(id: QueueId, head: Head, home: Home, content: Option<Content>) -> Self {
        Self {
            id,
            head,
            home,
            content: Mutex::new(content.map(Arc::new)),
            progress: Mutex::default(),
            steer: Mutex::default(),
        }
    }

    /// Whether it is not to be tried.
    pub(crate) fn is_held(&self) -> bool {
        self.head.waits() || self.steer().held
    }

    /// Its octets, if they are in memory.
    pub(crate) fn content(&self) -> Option<Arc<Content>> {
        self.content
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Drops its octets from memory; gives how many that were.
    pub(crate) fn forget_content(&self) -> u64 {
        let content = self
            .content
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        content.map_or(0, |content| content.weight())
    }

    pub(crate) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn steer(&self) -> MutexGuard<'_, Steer> {
        self.steer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Recipients of one message that go the same way, to be tried once.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) message: Arc<Message>,
    /// [`crate::table::LOCAL`] or a domain.
    pub(crate) destination: String,
    pub(crate) route: Option<String>,
    pub(crate) recipients: Vec<Waiting>,
    /// How often the destination has failed in a row, as the table knows: more than 0 makes this a probe.
    pub(crate) probe: u32,
}

/// What became of a recipient.
#[derive(Clone, Debug)]
pub(crate) enum End {
    /// It has it. The event is what the sender may want to know.
    Done(Status, Option<Event>),
    /// Given up.
    Failed(Status),
    /// To be tried again at that time, in seconds since 1970; `counted` if this was an attempt.
    Again {
        status: Option<Status>,
        due: u64,
        counted: bool,
    },
    /// It is not here: to another host.
    Remote,
    /// Removed by an operator, without a report.
    Dropped,
}

/// A message of our own making.
#[derive(Debug)]
pub(crate) struct Fresh {
    pub(crate) id: QueueId,
    pub(crate) head: Head,
    pub(crate) prefix: Vec<u8>,
    /// Empty if it is in the spool.
    pub(crate) body: Vec<u8>,
}
