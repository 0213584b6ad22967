//! Queue ids: milliseconds since 1970 in the upper 42 bits, the number of the node in 10, a counter in 12. No two nodes of one
//! queue table hand out the same.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use types::QueueId;

/// The bits below the time.
const SHIFT: u32 = 22;
/// The counter's bits.
const COUNTER: u32 = 12;
/// The highest number that a node can have.
pub(crate) const NODE_MAX: u16 = (1 << (SHIFT - COUNTER)) - 1;
/// How far ahead of what is handed out the mark on the disk is, so that it is rarely written: a minute.
const AHEAD: u64 = 60_000 << SHIFT;

/// Hands out ids.
#[derive(Debug)]
pub(crate) struct Ids {
    path: PathBuf,
    /// The lowest of this run: those below were handed out by an earlier one.
    begin: u64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The lowest that was not handed out.
    next: u64,
    /// No id from here on was handed out before it stood on the disk.
    mark: u64,
}

impl Ids {
    /// Continues behind the mark in the file at `path` and behind `highest`, whichever is more.
    pub(crate) fn open(path: &Path, highest: u64) -> io::Result<Self> {
        let mut mark = 0;
        match File::open(path) {
            Ok(mut file) => {
                let mut text = String::new();
                file.read_to_string(&mut text)?;
                mark = text
                    .trim()
                    .parse()
                    .map_err(|_| io::Error::other("the mark of the queue ids is damaged"))?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let next = mark.max(highest.saturating_add(1));
        Ok(Self {
            path: path.to_owned(),
            begin: next,
            state: Mutex::new(State { next, mark }),
        })
    }

    /// Hands out `count` ids in a row, 4096 at most; gives the first. `now` is in milliseconds since 1970, `node` this node's number.
    pub(crate) fn reserve(&self, count: u32, now: u64, node: u16) -> io::Result<QueueId> {
        let node = u64::from(node.min(NODE_MAX)) << COUNTER;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut first = state.next.max(now << SHIFT | node);
        let counter = (1 << COUNTER) - 1;
        // What is used up goes on in the next millisecond, and so does what another number began.
        if first & ((1 << SHIFT) - 1) & !counter != node
            || (first & counter) + u64::from(count) > counter + 1
        {
            first = ((first >> SHIFT) + 1) << SHIFT | node;
        }
        let next = first + u64::from(count);
        if next > state.mark {
            let mark = next + AHEAD;
            write(&self.path, mark)?;
            state.mark = mark;
        }
        state.next = next;
        Ok(QueueId(first))
    }

    /// Whether the id was handed out by an earlier run.
    pub(crate) fn is_earlier(&self, id: QueueId) -> bool {
        id.0 < self.begin
    }

    /// Whether the id was ever handed out, as far as its number says.
    pub(crate) fn is_known(&self, id: QueueId) -> bool {
        id.0 < self
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .next
    }

    /// Puts the mark where it belongs, so that the next start wastes none.
    pub(crate) fn close(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        write(&self.path, state.next)?;
        state.mark = state.next;
        Ok(())
    }
}

fn write(path: &Path, mark: u64) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)?;
    writeln!(file, "{mark}")?;
    file.sync_data()?;
    std::fs::rename(&fresh, path)?;
    path.parent()
        .map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn ids_ascend_over_restarts_and_clocks_that_go_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ids");
        let now = 1_800_000_000_000;
        let ids = Ids::open(&path, 0).unwrap();
        let first = ids.reserve(10, now, 0).unwrap();
        assert_eq!(first.0 >> SHIFT, now);
        assert_eq!(ids.reserve(1, now, 0).unwrap().0, first.0 + 10);
        assert_eq!(ids.reserve(1, now - 5000, 0).unwrap().0, first.0 + 11);
        assert!(ids.is_known(first) && !ids.is_known(QueueId(first.0 + 12)));
        // Killed.
        let ids = Ids::open(&path, 0).unwrap();
        assert!(ids.reserve(1, now - 1_000_000, 0).unwrap().0 > first.0 + 11);
        ids.close().unwrap();
        let later = (now + 90_000_000) << SHIFT;
        let ids = Ids::open(&path, later).unwrap();
        assert_eq!(ids.reserve(1, now, 0).unwrap().0, later + 1);
    }

    #[test]
    fn nodes_have_ids_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let now = 1_800_000_000_000;
        let mut all = std::collections::HashSet::new();
        for node in [0, 1, 2, NODE_MAX] {
            let ids = Ids::open(&dir.path().join(node.to_string()), 0).unwrap();
            for (count, step) in [(4096, 0), (1, 0), (100, 1), (4000, 1), (200, 1)] {
                let first = ids.reserve(count, now + step, node).unwrap().0;
                for id in first..first + u64::from(count) {
                    assert_eq!(id >> COUNTER & u64::from(NODE_MAX), u64::from(node));
                    assert!(all.insert(id), "{id} twice");
                }
            }
        }
        // A node that is given another number goes on above what it handed out.
        let ids = Ids::open(&dir.path().join("2"), 0).unwrap();
        let first = ids.reserve(10, now, 1).unwrap().0;
        assert!(
            all.iter()
                .all(|id| *id < first || id >> COUNTER & 1023 != 1)
        );
    }
}
