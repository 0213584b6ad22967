//! The messages of a mailbox in memory: chunks that are shared between one state of it and the next, so that a change copies
//! what it touches and comparing two states skips what they share.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use store::{MessageRow, SystemFlags};

/// Rows of a chunk at most: 64 KiB are copied for a change.
const CHUNK: usize = 1024;

/// A message; small, since there may be a million.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// UID.
    pub uid: u32,
    /// SAVEDATE (RFC 8514), seconds since 1970.
    pub saved: u32,
    /// Keywords, with spaces between; most messages have none. Shared by messages with the same ones.
    pub keywords: Option<Arc<String>>,
    /// MODSEQ.
    pub modseq: u64,
    /// RFC822.SIZE.
    pub size: u64,
    /// INTERNALDATE, seconds since 1970.
    pub date: i64,
    /// What it is; also EMAILID.
    pub content: types::ContentId,
    /// THREADID.
    pub thread: types::ThreadId,
    /// System flags.
    pub system: SystemFlags,
}

/// Makes rows whose keywords are shared.
#[derive(Debug, Default)]
pub struct RowReader {
    keywords: HashMap<String, Arc<String>>,
}

impl RowReader {
    /// The row of a stored message.
    pub fn row(&mut self, row: MessageRow) -> Row {
        let keywords = (!row.flags.keywords.is_empty()).then(|| self.shared(row.flags.keywords));
        Row {
            uid: row.uid.0,
            saved: u32::try_from(row.saved).unwrap_or_default(),
            keywords,
            modseq: row.modseq.0,
            size: row.size,
            date: row.date,
            content: row.content,
            thread: row.thread,
            system: row.flags.system,
        }
    }

    fn shared(&mut self, keywords: String) -> Arc<String> {
        if let Some(known) = self.keywords.get(&keywords) {
            return Arc::clone(known);
        }
        let fresh = Arc::new(keywords.clone());
        self.keywords.insert(keywords, Arc::clone(&fresh));
        fresh
    }
}

/// Neighbouring rows, never changed, and what SELECT and SEARCH ask of them all.
#[derive(Debug)]
pub struct Chunk {
    rows: Box<[Row]>,
    /// The first without `\Seen`.
    unseen: Option<usize>,
    /// The largest MODSEQ.
    pub modseq: u64,
    /// Flags that one of them has.
    pub any: SystemFlags,
    /// Flags that each of them has.
    pub all: SystemFlags,
    keywords: Vec<Arc<String>>,
}

impl Chunk {
    fn new(rows: Vec<Row>) -> Self {
        let unseen = rows
            .iter()
            .position(|row| !row.system.contains(SystemFlags::SEEN));
        let modseq = rows.iter().map(|row| row.modseq).max().unwrap_or_default();
        let keywords: HashSet<&Arc<String>> = rows
            .iter()
            .filter_map(|row| row.keywords.as_ref())
            .collect();
        let keywords = keywords.into_iter().cloned().collect();
        let flags = || rows.iter().map(|row| row.system);
        let any = flags().fold(SystemFlags(0), SystemFlags::with);
        let all = flags().fold(SystemFlags(u8::MAX), |all, one| SystemFlags(all.0 & one.0));
        Self {
            rows: rows.into_boxed_slice(),
            unseen,
            modseq,
            any,
            all,
            keywords,
        }
    }

    /// Its rows, by UID.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Whether one of them has a keyword.
    pub fn has_keywords(&self) -> bool {
        !self.keywords.is_empty()
    }
}

/// A chunk in its place; it is never empty.
#[derive(Clone, Debug)]
struct Slot {
    /// Rows before it.
    start: usize,
    low: u32,
    high: u32,
    chunk: Arc<Chunk>,
}

/// Rows by ascending UID.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    slots: Vec<Slot>,
    len: usize,
}

impl FromIterator<Row> for Rows {
    /// The UIDs must ascend.
    fn from_iter<T: IntoIterator<Item = Row>>(rows: T) -> Self {
        let mut builder = Builder::default();
        for row in rows {
            builder.push(row);
        }
        builder.finish()
    }
}

impl Rows {
    /// How many.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The row at a position, from 0.
    pub fn get(&self, at: usize) -> Option<&Row> {
        let slot = self.slots.partition_point(|slot| slot.start <= at);
        let slot = self.slots.get(slot.checked_sub(1)?)?;
        slot.chunk.rows.get(at - slot.start)
    }

    /// The one with the largest UID.
    pub fn last(&self) -> Option<&Row> {
        self.slots.last()?.chunk.rows.last()
    }

    /// All, by UID.
    #[cfg(test)]
    pub fn iter(&self) -> impl Iterator<Item = &Row> {
        self.slots.iter().flat_map(|slot| slot.chunk.rows.iter())
    }

    /// All in chunks, each with the position of its first row.
    pub fn chunks(&self) -> impl Iterator<Item = (usize, &Chunk)> {
        self.slots.iter().map(|slot| (slot.start, &*slot.chunk))
    }

    /// Those at these positions, with the positions. Quick when they ascend.
    pub fn pick<'a>(
        &'a self,
        positions: &'a [usize],
    ) -> impl Iterator<Item = (usize, &'a Row)> + 'a {
        let mut start = 0;
        let mut rows: &[Row] = &[];
        positions.iter().filter_map(move |at| {
            if *at < start || *at - start >= rows.len() {
                let slot = self.slots.partition_point(|slot| slot.start <= *at);
                let slot = self.slots.get(slot.checked_sub(1)?)?;
                start = slot.start;
                rows = &slot.chunk.rows;
            }
            rows.get(*at - start).map(|row| (*at, row))
        })
    }

    /// How many have a smaller UID: the position of that UID, or of the next one.
    pub fn before(&self, uid: u32) -> usize {
        let slot = self.slots.partition_point(|slot| slot.high < uid);
        self.slots.get(slot).map_or(self.len, |slot| {
            slot.start + slot.chunk.rows.partition_point(|row| row.uid < uid)
        })
    }

    /// The position of a UID.
    pub fn position(&self, uid: u32) -> Option<usize> {
        let at = self.before(uid);
        self.get(at).filter(|row| row.uid == uid).map(|_| at)
    }

    /// The position of the first one without `\Seen`.
    pub fn first_unseen(&self) -> Option<usize> {
        self.slots
            .iter()
            .find_map(|slot| slot.chunk.unseen.map(|at| slot.start + at))
    }

    /// Those with a larger MODSEQ, with their positions.
    pub fn changed_since(&self, modseq: u64) -> impl Iterator<Item = (usize, &Row)> {
        let slots = self
            .slots
            .iter()
            .filter(move |slot| slot.chunk.modseq > modseq);
        slots
            .flat_map(|slot| (slot.start..).zip(slot.chunk.rows.iter()))
            .filter(move |(_, row)| row.modseq > modseq)
    }

    /// All keywords that messages have.
    pub fn keywords(&self) -> BTreeSet<&str> {
        let words = self
            .slots
            .iter()
            .flat_map(|slot| slot.chunk.keywords.iter());
        words.flat_map(|words| words.split(' ')).collect()
    }

    /// With changed ones (ascending) in their place, new ones among them, and without those whose UIDs are in these
    /// ascending ranges.
    pub fn merged(&self, changed: Vec<Row>, gone: &[(u32, u32)]) -> Self {
        let mut builder = Builder::default();
        let mut changed = changed.into_iter().peekable();
        for slot in &self.slots {
            let from = gone.partition_point(|(_, high)| *high < slot.low);
            let gone = gone.get(from..).unwrap_or_default();
            let hit = gone.first().is_some_and(|(low, _)| *low <= slot.high);
            let news = changed.peek().is_some_and(|row| row.uid <= slot.high);
            if !hit && !news {
                builder.share(slot);
                continue;
            }
            let mut gone = gone.iter().peekable();
            for row in &slot.chunk.rows {
                while let Some(before) = changed.next_if(|new| new.uid < row.uid) {
                    builder.push(before);
                }
                while gone.next_if(|(_, high)| *high < row.uid).is_some() {}
                match changed.next_if(|new| new.uid == row.uid) {
                    Some(new) => builder.push(new),
                    None if gone.peek().is_some_and(|(low, _)| *low <= row.uid) => {}
                    None => builder.push(row.clone()),
                }
            }
        }
        if changed.peek().is_some() {
            builder.reopen();
        }
        for row in changed {
            builder.push(row);
        }
        builder.finish()
    }

    /// Those in chunks that `other` does not share, with their positions.
    pub fn unshared<'a>(&'a self, other: &Self) -> impl Iterator<Item = (usize, &'a Row)> {
        let address = |slot: &Slot| Arc::as_ptr(&slot.chunk).addr();
        let shared: HashSet<usize> = other.slots.iter().map(address).collect();
        let alone = self
            .slots
            .iter()
            .filter(move |slot| !shared.contains(&address(slot)));
        alone.flat_map(|slot| (slot.start..).zip(slot.chunk.rows.iter()))
    }
}

/// Makes [`Rows`] of rows with ascending UIDs.
#[derive(Debug, Default)]
pub struct Builder {
    rows: Rows,
    open: Vec<Row>,
}

impl Builder {
    /// The next one.
    pub fn push(&mut self, row: Row) {
        if self.open.len() >= CHUNK {
            self.seal();
        }
        self.open.push(row);
    }

    fn seal(&mut self) {
        let rows = std::mem::take(&mut self.open);
        if let (Some(first), Some(last)) = (rows.first(), rows.last()) {
            let (low, high) = (first.uid, last.uid);
            self.place(low, high, Arc::new(Chunk::new(rows)));
        }
    }

    fn place(&mut self, low: u32, high: u32, chunk: Arc<Chunk>) {
        let start = self.rows.len;
        self.rows.len += chunk.rows.len();
        self.rows.slots.push(Slot {
            start,
            low,
            high,
            chunk,
        });
    }

    /// A chunk that stays as it is, unless it and what is open make a small one.
    fn share(&mut self, slot: &Slot) {
        if !self.open.is_empty() && self.open.len() + slot.chunk.rows.len() <= CHUNK / 2 {
            self.open.extend_from_slice(&slot.chunk.rows);
            return;
        }
        self.seal();
        self.place(slot.low, slot.high, Arc::clone(&slot.chunk));
    }

    /// Goes on in the last chunk if it has room.
    fn reopen(&mut self) {
        if !self.open.is_empty() {
            return;
        }
        let room = |slot: &mut Slot| slot.chunk.rows.len() < CHUNK;
        if let Some(slot) = self.rows.slots.pop_if(room) {
            self.rows.len -= slot.chunk.rows.len();
            self.open.extend_from_slice(&slot.chunk.rows);
        }
    }

    /// All of them.
    pub fn finish(mut self) -> Rows {
        self.seal();
        self.rows
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn row(uid: u32, modseq: u64) -> Row {
        Row {
            uid,
            saved: 0,
            keywords: None,
            modseq,
            size: 1,
            date: 0,
            content: types::ContentId(1),
            thread: types::ThreadId(1),
            system: SystemFlags::default(),
        }
    }

    /// A mailbox of messages with these UIDs, all of MODSEQ 1.
    pub fn snapshot(uids: impl IntoIterator<Item = u32>) -> crate::view::Snapshot {
        let rows: Rows = uids.into_iter().map(|uid| row(uid, 1)).collect();
        let uidnext = rows.last().map_or(1, |row| row.uid + 1);
        crate::view::Snapshot {
            mailbox: store::Mailbox {
                id: types::MailboxId(1),
                account: types::AccountId(1),
                name: "INBOX".to_owned(),
                uidvalidity: 1,
                uidnext,
                modseq: types::ModSeq(1),
                floor: types::ModSeq(0),
                special_use: None,
                subscribed: true,
                total: rows.len() as u32,
                unseen: rows.len() as u32,
                deleted: 0,
                bytes: rows.len() as u64,
            },
            rows,
        }
    }

    fn seen(rows: &Rows) -> Vec<(u32, u64)> {
        rows.iter().map(|row| (row.uid, row.modseq)).collect()
    }

    #[test]
    fn a_row_is_a_cache_line() {
        assert!(size_of::<Row>() <= 64);
    }

    #[test]
    fn changes_are_merged_by_uid() {
        let old: Rows = [2, 4, 6, 8, 10]
            .map(|uid| row(uid, 1))
            .into_iter()
            .collect();
        let new = old.merged(vec![row(4, 2), row(11, 2), row(12, 2)], &[(1, 3), (8, 8)]);
        assert_eq!(seen(&new), [(4, 2), (6, 1), (10, 1), (11, 2), (12, 2)]);
        assert_eq!(new.position(10), Some(2));
        assert_eq!(new.position(8), None);
        assert_eq!((new.before(8), new.before(13)), (2, 5));
    }

    #[test]
    fn a_change_copies_the_touched_chunk_only() {
        let old: Rows = (1..=100_000).map(|uid| row(uid, 1)).collect();
        let new = old.merged(vec![row(50_000, 2)], &[]);
        let touched: Vec<usize> = new.unshared(&old).map(|(at, _)| at).collect();
        assert!(touched.len() <= CHUNK && touched.contains(&49_999));
        let more = new.merged(vec![row(100_001, 3)], &[(7, 9)]);
        assert!(more.unshared(&new).count() <= 2 * CHUNK);
        assert_eq!(more.len(), 99_998);
        assert_eq!(more.get(99_997).map(|row| row.uid), Some(100_001));
    }

    /// Against a map, over many changes, so that chunks shrink, vanish, join and grow.
    #[test]
    fn many_changes_agree_with_a_map() {
        let mut random: u64 = 42;
        let mut next = move |below: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33) % below
        };
        let mut map: BTreeMap<u32, u64> = (1..=5000).map(|uid| (uid, 0)).collect();
        let mut rows: Rows = map.keys().map(|uid| row(*uid, 0)).collect();
        let mut last = 5000;
        for step in 1..400_u64 {
            let mut changed = BTreeMap::new();
            for _ in 0..next(4) {
                let uid = next(u64::from(last)) as u32 + 1;
                if map.contains_key(&uid) {
                    changed.insert(uid, step);
                }
            }
            for _ in 0..next(3) * next(300) {
                last += 1;
                changed.insert(last, step);
            }
            let low = next(u64::from(last)) as u32 + 1;
            let high = low + next(120) as u32;
            let gone = [(low, high)];
            changed.retain(|uid, _| !(low..=high).contains(uid));
            map.retain(|uid, _| !(low..=high).contains(uid));
            map.extend(changed.clone());
            rows = rows.merged(changed.into_iter().map(|(u, m)| row(u, m)).collect(), &gone);
            assert_eq!(rows.len(), map.len());
        }
        assert_eq!(seen(&rows), map.clone().into_iter().collect::<Vec<_>>());
        for (at, uid) in map.keys().enumerate() {
            assert_eq!(rows.position(*uid), Some(at));
            assert_eq!(rows.get(at).map(|row| row.uid), Some(*uid));
        }
        assert!(rows.slots.len() < 5 + 2 * map.len() / CHUNK + 20);
    }

    #[test]
    fn what_select_asks() {
        let mut all: Vec<Row> = (1..=3000).map(|uid| row(uid, 1)).collect();
        for row in all.iter_mut().take(2500) {
            row.system = SystemFlags::SEEN;
        }
        if let Some(row) = all.get_mut(2999) {
            row.keywords = Some(Arc::new("$Junk work".to_owned()));
        }
        let rows: Rows = all.into_iter().collect();
        assert_eq!(rows.first_unseen(), Some(2500));
        assert_eq!(
            rows.keywords().into_iter().collect::<Vec<_>>(),
            ["$Junk", "work"]
        );
    }
}
