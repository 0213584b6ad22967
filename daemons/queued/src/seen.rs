//! Which ids were committed, so that a commit that comes again is known (RFC 5321 4.2.5).

use ipc::{Fault, FaultKind};
use std::collections::{HashMap, HashSet, VecDeque};
use tokio::sync::watch;
use types::QueueId;

/// Ids that are remembered after their messages are done, so that a repeated commit is known.
const REMEMBERED: usize = 65_536;

/// Ids that were committed, also those that are done.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) ids: HashSet<u64>,
    order: VecDeque<u64>,
    /// Those being committed, and who waits for the same.
    pub(crate) under_way: HashMap<u64, Awaited>,
}

/// What is known of an id that is to be committed.
pub(crate) enum Look {
    Done,
    UnderWay(Awaited),
    New(watch::Sender<Option<Result<(), Fault>>>),
}

pub(crate) type Awaited = watch::Receiver<Option<Result<(), Fault>>>;

/// How the same commit, made by another call, ended.
pub(crate) async fn outcome_of(mut same: Awaited) -> Result<(), Fault> {
    let end = same
        .wait_for(Option::is_some)
        .await
        .ok()
        .and_then(|end| end.clone());
    end.unwrap_or_else(|| {
        Err(Fault::new(
            FaultKind::Temporary,
            "the same commit broke off",
        ))
    })
}

impl Seen {
    pub(crate) fn look(&mut self, id: QueueId) -> Look {
        if let Some(same) = self.under_way.get(&id.0) {
            return Look::UnderWay(same.clone());
        }
        if self.ids.contains(&id.0) {
            return Look::Done;
        }
        let (sender, receiver) = watch::channel(None);
        self.under_way.insert(id.0, receiver);
        Look::New(sender)
    }

    pub(crate) fn insert(&mut self, id: u64) {
        if self.ids.insert(id) {
            self.order.push_back(id);
        }
        while self.order.len() > REMEMBERED {
            if let Some(old) = self.order.pop_front() {
                self.ids.remove(&old);
            }
        }
    }
}
