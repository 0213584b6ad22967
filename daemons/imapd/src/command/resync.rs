//! Quick resynchronisation (RFC 7162 3.2): what is gone and what has changed since the client was here last.

use crate::session::{Done, Refused, Session, put_fetch_flags, put_vanished, within};
use crate::view::Snapshot;
use imap::{QuickResync, SequenceSet, put};
use tokio::io::{AsyncRead, AsyncWrite};
use types::ModSeq;

/// UIDs in ascending ranges, both ends included.
type Ranges = Vec<(u32, u32)>;

/// What is in both.
fn common(one: &[(u32, u32)], other: &[(u32, u32)]) -> Ranges {
    let mut found = Vec::new();
    let (mut left, mut right) = (one.iter().peekable(), other.iter().peekable());
    while let (Some((a, b)), Some((c, d))) = (left.peek(), right.peek()) {
        let (low, high) = (*a.max(c), *b.min(d));
        if low <= high {
            found.push((low, high));
        }
        if b < d {
            left.next()
        } else {
            right.next()
        };
    }
    found
}

/// Those of ascending ranges that are no message's UID.
fn absent(shown: &Snapshot, ranges: &[(u32, u32)]) -> Ranges {
    let mut found = Vec::new();
    for (low, high) in ranges {
        let mut next = *low;
        for at in shown.positions(&[(*low, *high)]) {
            let Some(uid) = shown.rows.get(at).map(|row| row.uid) else {
                continue;
            };
            if uid > next {
                found.push((next, uid - 1));
            }
            next = uid.saturating_add(1);
        }
        if next <= *high {
            found.push((next, *high));
        }
    }
    found
}

/// The largest UID up to which the client has missed no expunge, by the pairs that it sent (RFC 7162 3.2.5.2).
fn matched(shown: &Snapshot, pairs: &(SequenceSet, SequenceSet)) -> u32 {
    let numbers = pairs.0.resolve(0).unwrap_or_default();
    let uids = pairs.1.resolve(0).unwrap_or_default();
    let numbers = numbers.iter().flat_map(|(low, high)| *low..=*high);
    let uids = uids.iter().flat_map(|(low, high)| *low..=*high);
    let holds = |(number, uid): &(u32, u32)| {
        let at = usize::try_from(*number).unwrap_or(usize::MAX);
        let row = at.checked_sub(1).and_then(|at| shown.rows.get(at));
        row.is_some_and(|row| row.uid == *uid)
    };
    let most = shown.rows.len();
    // An expunge shifts all numbers behind it, so after the first pair that fails none can hold.
    let held = numbers.zip(uids).take(most).take_while(holds).last();
    held.map_or(0, |(_, uid)| uid)
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    /// Which of the UIDs in `among` are gone since a modseq. When the store does not know that any more, those that are no
    /// message's UID and lie behind `matched`: more than the client needs, but never less (RFC 7162 3.2.5.1).
    async fn vanished(
        &self,
        shown: &Snapshot,
        since: u64,
        among: &[(u32, u32)],
        matched: u32,
    ) -> Result<Ranges, Refused> {
        let mailbox = &shown.mailbox;
        // What came later is not shown yet, and told when it is.
        let known = common(among, &[(1, mailbox.uidnext.saturating_sub(1))]);
        let expunged = if since >= mailbox.floor.0 {
            let reader = &self.service.reader;
            let gone = reader
                .expunged(mailbox.account, mailbox.id, ModSeq(since))
                .await?;
            gone.map(|gone| common(&imap::merge(gone), &known))
        } else {
            None
        };
        let candidates =
            expunged.unwrap_or_else(|| common(&known, &[(matched.saturating_add(1), u32::MAX)]));
        // A message that the view still has was expunged a moment ago: that is told as news.
        Ok(absent(shown, &candidates))
    }

    /// SELECT (QRESYNC (...)), RFC 7162 3.2.5.
    pub(super) async fn resynchronize(
        &mut self,
        shown: &Snapshot,
        resync: &QuickResync,
    ) -> Result<(), Refused> {
        // RFC 7162 3.2.5.1: of another mailbox the client knows nothing
        if resync.uidvalidity != shown.mailbox.uidvalidity {
            return Ok(());
        }
        let last = shown.mailbox.uidnext.saturating_sub(1);
        let known = resync
            .known
            .as_ref()
            .and_then(|set| set.resolve(last))
            .unwrap_or_else(|| vec![(1, last)]);
        let matched = resync
            .pairs
            .as_ref()
            .map_or(0, |pairs| matched(shown, pairs));
        let gone = self.vanished(shown, resync.modseq, &known, matched).await?;
        put_vanished(&mut self.out, &gone, true);
        let shape = self.shape();
        for (position, row) in shown.rows.changed_since(resync.modseq) {
            if within(&known, row.uid) {
                put_fetch_flags(&mut self.out, position, row, shape);
                self.flush_if_full().await?;
            }
        }
        Ok(())
    }

    /// UID FETCH (CHANGEDSINCE ... VANISHED), RFC 7162 3.2.6: what of the set is gone.
    pub(super) async fn tell_vanished(
        &mut self,
        set: &SequenceSet,
        since: u64,
    ) -> Result<(), Refused> {
        let selected = self.chosen()?;
        let shown = selected.shown.clone();
        let last = shown.mailbox.uidnext.saturating_sub(1);
        let saved = || imap::from_numbers(selected.saved.iter().copied());
        let among = set.resolve(last).unwrap_or_else(saved);
        let gone = self.vanished(&shown, since, &among, 0).await?;
        put_vanished(&mut self.out, &gone, true);
        Ok(())
    }

    /// The OK of a command that expunged: the client now knows all up to here (RFC 7162 3.2.7).
    pub(super) fn expunged(&self, text: &'static str) -> Done {
        let modseq = self
            .selected
            .as_ref()
            .filter(|_| self.condstore)
            .map(|selected| selected.shown.mailbox.modseq);
        let code = modseq.map_or_else(String::new, |modseq| format!("HIGHESTMODSEQ {modseq}"));
        Ok((code, text))
    }

    /// ENABLE CONDSTORE or QRESYNC with a mailbox selected (RFC 7162 3.1).
    pub(crate) fn put_highest_modseq(&mut self) {
        if let Some(selected) = &self.selected {
            let modseq = selected.shown.mailbox.modseq;
            let line = format!("* OK [HIGHESTMODSEQ {modseq}] Highest\r\n");
            put::text(&mut self.out, &line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::tests::snapshot;
    use imap::SequenceNumber::Number;

    fn set(ranges: &[(u32, u32)]) -> SequenceSet {
        let number = |(low, high): &(u32, u32)| (Number(*low), Number(*high));
        SequenceSet::Ranges(ranges.iter().map(number).collect())
    }

    #[test]
    fn ranges_in_common() {
        let found = common(&[(1, 5), (8, 8), (10, 20)], &[(2, 3), (5, 12), (19, 40)]);
        assert_eq!(found, [(2, 3), (5, 5), (8, 8), (10, 12), (19, 20)]);
        assert_eq!(common(&[], &[(1, 2)]), []);
    }

    #[test]
    fn uids_without_a_message() {
        let shown = snapshot([2, 3, 7, 10]);
        assert_eq!(
            absent(&shown, &[(1, 12)]),
            [(1, 1), (4, 6), (8, 9), (11, 12)]
        );
        assert_eq!(absent(&shown, &[(2, 3), (7, 8)]), [(8, 8)]);
        assert_eq!(
            absent(&shown, &[(1, u32::MAX)]).last(),
            Some(&(11, u32::MAX))
        );
    }

    /// The example of RFC 7162 3.2.5.2, in small.
    #[test]
    fn pairs_say_from_where_on_to_look() {
        let shown = snapshot([2, 3, 7, 10]);
        let pairs = (set(&[(1, 1), (3, 4)]), set(&[(2, 2), (7, 7), (11, 11)]));
        assert_eq!(matched(&shown, &pairs), 7);
        let pairs = (set(&[(1, 4_000_000_000)]), set(&[(1, 4_000_000_000)]));
        assert_eq!(matched(&shown, &pairs), 0);
    }
}
