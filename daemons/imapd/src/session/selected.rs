//! The selected mailbox, and what the client has been told of it.

use super::{End, Refused, Session};
use crate::command::Contexts;
use crate::rows::Rows;
use crate::view::{Row, Snapshot, View};
use imap::SequenceSet;
use imap::put;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

/// A selected mailbox.
pub struct Selected {
    /// Shared with other sessions.
    pub view: Arc<View>,
    /// What the client knows: sequence numbers are positions in it, from 1.
    pub shown: Arc<Snapshot>,
    /// NOTIFY has shown all messages below this UID.
    pub announced: u32,
    /// EXAMINE.
    pub read_only: bool,
    /// What the last SEARCH with SAVE found: UIDs (RFC 9051 6.4.4.1).
    pub saved: Vec<u32>,
    /// Searches and sorts whose changes the client hears of (RFC 5267).
    pub(crate) contexts: Contexts,
}

/// Whether ascending ranges have that number.
pub fn within(ranges: &[(u32, u32)], number: u32) -> bool {
    let at = ranges.partition_point(|(_, high)| *high < number);
    ranges.get(at).is_some_and(|(low, _)| *low <= number)
}

/// How the client wants to be told of changes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Shape {
    /// With MODSEQ (RFC 7162 3.1).
    pub modseq: bool,
    /// VANISHED instead of EXPUNGE (RFC 7162 3.2.10).
    pub vanished: bool,
    /// UIDFETCH instead of FETCH (RFC 9586 3.3).
    pub uid_only: bool,
}

/// `FLAGS (...)`
pub fn put_flags(out: &mut Vec<u8>, row: &Row) {
    put::text(out, "FLAGS (");
    let mut first = true;
    for (flag, name) in store::SystemFlags::NAMES {
        if row.system.contains(flag) {
            if !first {
                out.push(b' ');
            }
            first = false;
            put::text(out, name);
        }
    }
    if let Some(keywords) = &row.keywords {
        if !first {
            out.push(b' ');
        }
        put::text(out, keywords);
    }
    out.push(b')');
}

/// The beginning of an answer: `* 5 FETCH (`, or `* 7 UIDFETCH (` (RFC 9586 3.3).
pub fn put_fetch(out: &mut Vec<u8>, position: usize, row: &Row, shape: Shape) {
    put::text(out, "* ");
    if shape.uid_only {
        put::number(out, u64::from(row.uid));
        put::text(out, " UIDFETCH (");
    } else {
        put::number(out, position as u64 + 1);
        put::text(out, " FETCH (");
    }
}

/// `* 5 FETCH (UID 7 FLAGS (...) MODSEQ (9))`
pub fn put_fetch_flags(out: &mut Vec<u8>, position: usize, row: &Row, shape: Shape) {
    put_fetch(out, position, row, shape);
    if !shape.uid_only {
        put::text(out, "UID ");
        put::number(out, u64::from(row.uid));
        out.push(b' ');
    }
    put_flags(out, row);
    if shape.modseq {
        put::text(out, " MODSEQ (");
        put::number(out, row.modseq);
        out.push(b')');
    }
    put::text(out, ")\r\n");
}

/// `* VANISHED 1:3,7`, or with `earlier` `* VANISHED (EARLIER) 1:3,7` (RFC 7162 3.2.10). Nothing for no UIDs.
pub fn put_vanished(out: &mut Vec<u8>, uids: &[(u32, u32)], earlier: bool) {
    // A client need not take a line of any length.
    for part in uids.chunks(1000) {
        put::text(out, "* VANISHED ");
        put::text(out, if earlier { "(EARLIER) " } else { "" });
        put::set(out, part);
        put::text(out, "\r\n");
    }
}

/// What differs between two states of a mailbox.
struct Difference<'a> {
    /// Positions in the old one, and UIDs.
    gone: Vec<(usize, &'a Row)>,
    /// Positions in the old one.
    changed: Vec<(usize, &'a Row)>,
}

/// Compares chunks that are not shared; a message is in one chunk only, so what is shared need not be looked at.
fn difference<'a>(old: &'a Rows, new: &'a Rows, shape: Shape) -> Difference<'a> {
    let mut fresh = new.unshared(old).map(|(_, row)| row).peekable();
    let (mut gone, mut changed) = (Vec::new(), Vec::new());
    for (position, row) in old.unshared(new) {
        while fresh.next_if(|candidate| candidate.uid < row.uid).is_some() {}
        match fresh.next_if(|candidate| candidate.uid == row.uid) {
            Some(fresh) => {
                if fresh.system != row.system
                    || fresh.keywords != row.keywords
                    || shape.modseq && fresh.modseq != row.modseq
                {
                    changed.push((position, fresh));
                }
            }
            None => gone.push((position, row)),
        }
    }
    Difference { gone, changed }
}

impl Selected {
    /// Positions of the messages in a set of UIDs or sequence numbers.
    pub fn positions(&self, set: &SequenceSet, uid: bool) -> Result<Vec<usize>, Refused> {
        let rows = &self.shown.rows;
        if uid {
            let largest = rows.last().map_or(0, |row| row.uid);
            let ranges = set
                .resolve(largest)
                .unwrap_or_else(|| imap::from_numbers(self.saved.iter().copied()));
            return Ok(self.shown.positions(&ranges));
        }
        let Some(ranges) = set.resolve(u32::try_from(rows.len()).unwrap_or(u32::MAX)) else {
            return Ok(self
                .shown
                .positions(&imap::from_numbers(self.saved.iter().copied())));
        };
        // RFC 9051 9: a sequence number above EXISTS is an error
        if set
            .largest_named()
            .is_some_and(|largest| largest as usize > rows.len())
        {
            return Err(Refused::Bad("There is no message with such a number"));
        }
        Ok(ranges
            .iter()
            .flat_map(|(low, high)| *low as usize - 1..*high as usize)
            .collect())
    }

    /// The UIDs at these positions, as ranges.
    pub fn uids(&self, positions: &[usize]) -> Vec<(u32, u32)> {
        imap::from_numbers(
            positions
                .iter()
                .filter_map(|at| self.shown.rows.get(*at))
                .map(|row| row.uid),
        )
    }

    /// Tells the client what is new. Without `expunge` those that are gone keep their numbers for now (RFC 9051 7.5.1).
    /// `silent` are ascending UIDs whose changes need no words.
    pub fn tell(
        &mut self,
        out: &mut Vec<u8>,
        expunge: bool,
        shape: Shape,
        silent: &[(u32, u32)],
        rev2: bool,
    ) {
        let ready = match self.contexts.take_ready() {
            None if !self.contexts.is_empty() => return,
            ready => ready,
        };
        let current = || self.view.current();
        let new = ready
            .as_ref()
            .map_or_else(current, |ready| Arc::clone(&ready.snapshot));
        if Arc::ptr_eq(&new, &self.shown) {
            return;
        }
        let old = Arc::clone(&self.shown);
        if let Some(ready) = &ready {
            ready.put_removed(out, &old);
        }
        let Difference { gone, changed } = difference(&old.rows, &new.rows, shape);
        let mut rows: Option<Rows> = None;
        let mut kept = old.rows.len();
        if expunge {
            put_gone(out, &gone, shape);
            kept -= gone.len();
        } else if !gone.is_empty() {
            let missing = gone.iter().map(|(_, row)| (*row).clone()).collect();
            rows = Some(new.rows.merged(missing, &[]));
        }
        let total = rows.as_ref().map_or(new.rows.len(), Rows::len);
        if total > kept {
            put::text(out, "* ");
            put::number(out, total as u64);
            put::text(out, " EXISTS\r\n");
            if !rev2 {
                // RFC 3501 7.3.2: nobody is promised \Recent
                put::text(out, "* 0 RECENT\r\n");
            }
        }
        for (position, row) in changed {
            if within(silent, row.uid) {
                continue;
            }
            let before = if expunge {
                gone.partition_point(|(one, _)| *one < position)
            } else {
                0
            };
            put_fetch_flags(out, position - before, row, shape);
        }
        self.shown = match rows {
            Some(rows) => Arc::new(Snapshot {
                mailbox: new.mailbox.clone(),
                rows,
            }),
            None => new,
        };
        if let Some(ready) = &ready {
            ready.put_added(out, &self.shown);
        }
    }
}

fn put_gone(out: &mut Vec<u8>, gone: &[(usize, &Row)], shape: Shape) {
    if shape.vanished {
        let uids = imap::from_numbers(gone.iter().map(|(_, row)| row.uid));
        put_vanished(out, &uids, false);
        return;
    }
    // From the last to the first: each leaves the numbers before it alone.
    for (position, _) in gone.iter().rev() {
        put::text(out, "* ");
        put::number(out, *position as u64 + 1);
        put::text(out, " EXPUNGE\r\n");
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    pub(crate) fn shape(&self) -> Shape {
        Shape {
            modseq: self.condstore,
            vanished: self.qresync || self.uid_only,
            uid_only: self.uid_only,
        }
    }

    /// The selected mailbox; BAD without one.
    pub(crate) fn chosen(&self) -> Result<&Selected, Refused> {
        self.selected
            .as_ref()
            .ok_or(Refused::Bad("Select a mailbox first"))
    }

    /// The selected mailbox for a command that changes it.
    pub(crate) fn writable(&self) -> Result<&Selected, Refused> {
        let selected = self.chosen()?;
        if selected.read_only {
            return Err(Refused::No(
                "NOPERM",
                "The mailbox is selected read-only".to_owned(),
            ));
        }
        Ok(selected)
    }

    /// Reads what has changed in the selected mailbox.
    pub(crate) async fn refresh(&mut self) -> Result<(), Refused> {
        self.keep_right().await?;
        let Some(selected) = &self.selected else {
            return Ok(());
        };
        let view = Arc::clone(&selected.view);
        if view.refresh(&self.service.reader).await? {
            return self.prepare_contexts().await;
        }
        // RFC 2683 3.3.2 leaves the choice; a client that is cut off selects again and sees.
        put::text(&mut self.out, "* BYE The selected mailbox was deleted\r\n");
        Err(Refused::End(End::Said("mailbox deleted")))
    }

    /// Tells the client what is known to be new.
    pub(crate) fn tell(&mut self, expunge: bool, silent: &[(u32, u32)]) {
        let (shape, rev2) = (self.shape(), self.rev2);
        let quiet = self
            .notify
            .as_ref()
            .is_some_and(|notify| notify.without_flags());
        let silent = if quiet { &[(1, u32::MAX)] } else { silent };
        if let Some(selected) = &mut self.selected {
            selected.tell(&mut self.out, expunge, shape, silent, rev2);
        }
    }
}
