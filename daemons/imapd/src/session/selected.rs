//! The selected mailbox, and what the client has been told of it.

use super::{End, Refused, Session};
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
    /// EXAMINE.
    pub read_only: bool,
    /// What the last SEARCH with SAVE found: UIDs (RFC 9051 6.4.4.1).
    pub saved: Vec<u32>,
}

/// Whether ascending ranges have that number.
pub fn within(ranges: &[(u32, u32)], number: u32) -> bool {
    let at = ranges.partition_point(|(_, high)| *high < number);
    ranges.get(at).is_some_and(|(low, _)| *low <= number)
}

/// How one message is shown in an unsolicited FETCH.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// With MODSEQ.
    pub modseq: bool,
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

/// `* 5 FETCH (UID 7 FLAGS (...))`
pub fn put_fetch_flags(out: &mut Vec<u8>, position: usize, row: &Row, shape: Shape) {
    put::text(out, "* ");
    put::number(out, position as u64 + 1);
    put::text(out, " FETCH (UID ");
    put::number(out, u64::from(row.uid));
    out.push(b' ');
    put_flags(out, row);
    if shape.modseq {
        put::text(out, " MODSEQ (");
        put::number(out, row.modseq);
        out.push(b')');
    }
    put::text(out, ")\r\n");
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
        let new = self.view.current();
        if Arc::ptr_eq(&new, &self.shown) {
            return;
        }
        let old = Arc::clone(&self.shown);
        let mut rows: Option<Vec<Row>> = None;
        let mut gone: Vec<usize> = Vec::new();
        let mut changed: Vec<(usize, &Row)> = Vec::new();
        let mut at = 0;
        for (position, row) in old.rows.iter().enumerate() {
            while new
                .rows
                .get(at)
                .is_some_and(|candidate| candidate.uid < row.uid)
            {
                at += 1;
            }
            match new
                .rows
                .get(at)
                .filter(|candidate| candidate.uid == row.uid)
            {
                Some(fresh) => {
                    if fresh.system != row.system
                        || fresh.keywords != row.keywords
                        || shape.modseq && fresh.modseq != row.modseq
                    {
                        changed.push((position, fresh));
                    }
                }
                None => gone.push(position),
            }
        }
        let kept = if expunge {
            // From the last to the first: each leaves the numbers before it alone.
            for position in gone.iter().rev() {
                put::text(out, "* ");
                put::number(out, *position as u64 + 1);
                put::text(out, " EXPUNGE\r\n");
            }
            old.rows.len() - gone.len()
        } else {
            if !gone.is_empty() {
                let missing = gone
                    .iter()
                    .filter_map(|position| old.rows.get(*position))
                    .cloned();
                let mut all: Vec<Row> = new.rows.iter().cloned().chain(missing).collect();
                all.sort_unstable_by_key(|row| row.uid);
                rows = Some(all);
            }
            old.rows.len()
        };
        let total = rows.as_ref().map_or(new.rows.len(), Vec::len);
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
                gone.partition_point(|one| *one < position)
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
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    pub(crate) fn shape(&self) -> Shape {
        Shape {
            modseq: self.condstore,
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
        let Some(selected) = &self.selected else {
            return Ok(());
        };
        let view = Arc::clone(&selected.view);
        if view.refresh(&self.service.reader).await? {
            return Ok(());
        }
        // RFC 2683 3.3.2 leaves the choice; a client that is cut off selects again and sees.
        put::text(&mut self.out, "* BYE The selected mailbox was deleted\r\n");
        Err(Refused::End(End::Said("mailbox deleted")))
    }

    /// Tells the client what is known to be new.
    pub(crate) fn tell(&mut self, expunge: bool, silent: &[(u32, u32)]) {
        let (shape, rev2) = (self.shape(), self.rev2);
        if let Some(selected) = &mut self.selected {
            selected.tell(&mut self.out, expunge, shape, silent, rev2);
        }
    }
}
