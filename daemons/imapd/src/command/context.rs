//! Searches and sorts whose changes are told (RFC 5267 4.3).
//!
//! The client must hear that a message leaves a result before its sequence number is gone, and that one comes to it after it
//! has a number. So the changes of the results are worked out first, up to a certain state of the mailbox, and the client is
//! told the news of the mailbox up to that state and no further.

use super::Pace;
use super::indexed::Indexed;
use super::search::Place;
use super::sort::{Sortable, compare};
use crate::session::{Done, Refused, Selected, Session, done};
use crate::view::Snapshot;
use imap::put::{self, Condition};
use imap::{SearchKey, SequenceNumber, SequenceSet, SortBy, SortKey};
use roaring::RoaringBitmap;
use std::cmp::Ordering;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use types::AccountId;

/// Positions with their messages in one response, lest a line becomes endless.
const PAIRS: usize = 500;

/// A search or sort that goes on.
#[derive(Debug)]
struct Context {
    /// Of its command.
    tag: String,
    /// The client knows the messages by their UIDs.
    uid: bool,
    /// What is looked for, without sequence numbers.
    key: SearchKey,
    members: Members,
    /// The state of the mailbox that the result is of.
    at: Arc<Snapshot>,
}

#[derive(Debug)]
enum Members {
    /// UIDs, in the mailbox's order.
    Found(RoaringBitmap),
    /// In the order of a SORT.
    Sorted(Vec<SortKey>, Vec<Sortable>),
}

/// What has changed in one result: positions in it, from 1 (0 in a search), and UIDs.
#[derive(Debug, Default)]
struct Change {
    tag: String,
    uid: bool,
    sorted: bool,
    /// To be taken away one after the other.
    removed: Vec<(usize, u32)>,
    /// To be put in one after the other, after that.
    added: Vec<(usize, u32)>,
}

/// What comes to a result and what leaves it.
struct Turn {
    gone: RoaringBitmap,
    come: RoaringBitmap,
    /// For a sort, what comes, as it is compared.
    fresh: Vec<Sortable>,
}

/// Changes that the client is about to be told, with the news up to a state of the mailbox.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) snapshot: Arc<Snapshot>,
    changes: Vec<Change>,
}

/// The results that a client keeps, in the mailbox that is selected.
#[derive(Debug, Default)]
pub(crate) struct Contexts {
    live: Vec<Context>,
    ready: Option<Ready>,
}

impl Contexts {
    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// What is to be told next; none: the news of the mailbox wait, too.
    pub(crate) fn take_ready(&mut self) -> Option<Ready> {
        self.ready.take()
    }
}

impl Ready {
    /// REMOVEFROM, while the messages still have the numbers that they have in `shown` (RFC 5267 4.3.4).
    pub(crate) fn put_removed(&self, out: &mut Vec<u8>, shown: &Snapshot) {
        for change in &self.changes {
            change.put(out, "REMOVEFROM", &change.removed, shown);
        }
    }

    /// ADDTO, when the messages have the numbers that they have in `shown` (RFC 5267 4.3.3).
    pub(crate) fn put_added(&self, out: &mut Vec<u8>, shown: &Snapshot) {
        for change in &self.changes {
            change.put(out, "ADDTO", &change.added, shown);
        }
    }
}

impl Change {
    fn number(&self, uid: u32, shown: &Snapshot) -> Option<u32> {
        if self.uid {
            return Some(uid);
        }
        let position = shown.position(uid)?;
        u32::try_from(position).ok()?.checked_add(1)
    }

    fn put(&self, out: &mut Vec<u8>, what: &str, pairs: &[(usize, u32)], shown: &Snapshot) {
        let numbered: Vec<(usize, u32)> = pairs
            .iter()
            .filter_map(|(at, uid)| Some((*at, self.number(*uid, shown)?)))
            .collect();
        let sets = match self.sorted {
            true => runs(&numbered, what == "ADDTO"),
            false => {
                let set = imap::from_numbers(numbered.iter().map(|(_, number)| *number));
                set.chunks(PAIRS).map(|part| (0, part.to_vec())).collect()
            }
        };
        let together = if self.sorted { PAIRS } else { 1 };
        for part in sets.chunks(together) {
            put::text(out, "* ESEARCH (TAG ");
            put::string(out, self.tag.as_bytes());
            put::text(out, if self.uid { ") UID " } else { ") " });
            put::text(out, what);
            for (index, (at, set)) in part.iter().enumerate() {
                put::text(out, if index == 0 { " (" } else { " " });
                put::number(out, *at as u64);
                out.push(b' ');
                put::set(out, set);
            }
            put::text(out, ")\r\n");
        }
    }
}

/// Neighbours that are put in one behind the other, with numbers that follow each other, are one set (RFC 5267 4.3.3).
fn runs(pairs: &[(usize, u32)], join: bool) -> Vec<(usize, Vec<(u32, u32)>)> {
    let mut runs: Vec<(usize, Vec<(u32, u32)>)> = Vec::new();
    let mut last = None;
    for (at, number) in pairs {
        let follows = join && last == at.checked_sub(1).zip(number.checked_sub(1));
        match runs.last_mut().and_then(|(_, set)| set.last_mut()) {
            Some((_, high)) if follows => *high = *number,
            _ => runs.push((*at, vec![(*number, *number)])),
        }
        last = Some((*at, *number));
    }
    runs
}

/// Sequence numbers and `$` are what they meant when the search was made: nothing that comes later has them.
fn frozen(key: &SearchKey, shown: &Snapshot, saved: &[u32]) -> SearchKey {
    let inside = |key: &SearchKey| Box::new(frozen(key, shown, saved));
    match key {
        SearchKey::And(keys) => {
            SearchKey::And(keys.iter().map(|key| frozen(key, shown, saved)).collect())
        }
        SearchKey::Or(one, other) => SearchKey::Or(inside(one), inside(other)),
        SearchKey::Not(key) => SearchKey::Not(inside(key)),
        SearchKey::Fuzzy(key) => SearchKey::Fuzzy(inside(key)),
        SearchKey::Sequence(set) => {
            let largest = u32::try_from(shown.rows.len()).unwrap_or(u32::MAX);
            let uid = |at: u32| shown.rows.get(at as usize - 1).map(|row| row.uid);
            let uids = match set.resolve(largest) {
                Some(ranges) => imap::from_numbers(
                    ranges
                        .into_iter()
                        .flat_map(|(low, high)| low..=high.min(largest))
                        .filter_map(uid),
                ),
                None => imap::from_numbers(saved.iter().copied()),
            };
            SearchKey::Uid(named(&uids))
        }
        SearchKey::Uid(SequenceSet::Saved) => {
            SearchKey::Uid(named(&imap::from_numbers(saved.iter().copied())))
        }
        other => other.clone(),
    }
}

fn named(ranges: &[(u32, u32)]) -> SequenceSet {
    let number =
        |(low, high): &(u32, u32)| (SequenceNumber::Number(*low), SequenceNumber::Number(*high));
    SequenceSet::Ranges(ranges.iter().map(number).collect())
}

impl Members {
    fn uids(&self) -> RoaringBitmap {
        match self {
            Self::Found(uids) => uids.clone(),
            Self::Sorted(_, all) => all.iter().map(|one| one.uid).collect(),
        }
    }

    fn remove(&mut self, uids: &RoaringBitmap) -> Vec<(usize, u32)> {
        match self {
            Self::Found(all) => {
                *all -= uids;
                uids.iter().map(|uid| (0, uid)).collect()
            }
            Self::Sorted(_, all) => {
                // From the last to the first: each leaves the positions before it alone.
                let gone = (1..)
                    .zip(all.iter())
                    .filter(|(_, one)| uids.contains(one.uid))
                    .map(|(at, one)| (at, one.uid));
                let mut gone: Vec<(usize, u32)> = gone.collect();
                gone.reverse();
                all.retain(|one| !uids.contains(one.uid));
                gone
            }
        }
    }

    /// `fresh`: for a sort, the messages as it compares them.
    fn add(&mut self, uids: &RoaringBitmap, mut fresh: Vec<Sortable>) -> Vec<(usize, u32)> {
        match self {
            Self::Found(all) => {
                *all |= uids;
                uids.iter().map(|uid| (0, uid)).collect()
            }
            Self::Sorted(by, all) => {
                fresh.sort_by(|one, other| compare(by, one, other));
                let mut added = Vec::with_capacity(fresh.len());
                for one in fresh {
                    let at = all.partition_point(|old| compare(by, old, &one) == Ordering::Less);
                    added.push((at + 1, one.uid));
                    all.insert(at, one);
                }
                added
            }
        }
    }
}

impl Context {
    /// Members that are not in the mailbox any more, and positions of the messages that may come or go.
    fn candidates(&self, new: &Snapshot) -> (RoaringBitmap, Vec<usize>) {
        let mut gone = RoaringBitmap::new();
        for (_, row) in self.at.rows.unshared(&new.rows) {
            if new.position(row.uid).is_none() {
                gone.insert(row.uid);
            }
        }
        let changed = |uid: u32, modseq: u64| {
            let before = self.at.position(uid).and_then(|at| self.at.rows.get(at));
            before.is_none_or(|before| before.modseq != modseq)
        };
        let candidates = new
            .rows
            .unshared(&self.at.rows)
            .filter(|(_, row)| changed(row.uid, row.modseq))
            .map(|(at, _)| at)
            .collect();
        (gone, candidates)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    /// RFC 5267 4.3: the tag names the result, so it cannot name two.
    pub(super) fn fresh_tag(&self, returns: Option<imap::ReturnOptions>) -> Result<(), Refused> {
        let updates = returns.is_some_and(|returns| returns.update);
        let live = self.selected.iter().flat_map(|one| &one.contexts.live);
        match updates && live.into_iter().any(|context| context.tag == self.tag) {
            true => Err(Refused::Bad(
                "That tag names a search whose changes are told",
            )),
            false => Ok(()),
        }
    }

    /// UPDATE of a search.
    pub(super) fn keep_search(
        &mut self,
        uid: bool,
        key: &SearchKey,
        shown: &Arc<Snapshot>,
        uids: impl Iterator<Item = u32>,
    ) {
        self.keep_context(uid, key, shown, Members::Found(uids.collect()));
    }

    /// UPDATE of a sort.
    pub(super) fn keep_sort(
        &mut self,
        sort: &imap::Sort,
        shown: &Arc<Snapshot>,
        all: Vec<Sortable>,
    ) {
        // How well a message fits changes with what else there is.
        let relative = sort.by.iter().any(|key| key.by == SortBy::Relevancy);
        if relative || all.len() > self.service.config.context_messages {
            self.no_update("The order of so many messages, or by relevancy, is not followed");
            return;
        }
        let members = Members::Sorted(sort.by.clone(), all);
        self.keep_context(sort.uid, &sort.key, shown, members);
    }

    fn keep_context(
        &mut self,
        uid: bool,
        key: &SearchKey,
        shown: &Arc<Snapshot>,
        members: Members,
    ) {
        let (tag, most) = (self.tag.clone(), self.service.config.contexts.max(1));
        let Some(selected) = &mut self.selected else {
            return;
        };
        if selected.contexts.live.len() >= most {
            self.no_update("Too many contexts");
            return;
        }
        let key = frozen(key, shown, &selected.saved);
        selected.contexts.live.push(Context {
            tag,
            uid,
            key,
            members,
            at: Arc::clone(shown),
        });
    }

    /// RFC 5267 4.3.1
    pub(super) fn no_update(&mut self, text: &str) {
        let mut code = b"NOUPDATE ".to_vec();
        put::string(&mut code, self.tag.as_bytes());
        let code = String::from_utf8_lossy(&code);
        put::status(&mut self.out, "*", Condition::No, &code, text);
    }

    /// RFC 5267 4.3.5
    pub(super) fn cancel_update(&mut self, tags: &[String]) -> Done {
        self.chosen()?;
        if let Some(selected) = &mut self.selected {
            let contexts = &mut selected.contexts;
            contexts.live.retain(|one| !tags.contains(&one.tag));
            if let Some(ready) = &mut contexts.ready {
                ready.changes.retain(|one| !tags.contains(&one.tag));
            }
        }
        done("completed")
    }

    /// Works out what the results become with the news of the mailbox.
    pub(crate) async fn prepare_contexts(&mut self) -> Result<(), Refused> {
        let account = self.selected_account();
        let Some(selected) = &mut self.selected else {
            return Ok(());
        };
        let new = selected.view.current();
        let told = Arc::ptr_eq(&new, &selected.shown);
        if selected.contexts.live.is_empty() || selected.contexts.ready.is_some() || told {
            return Ok(());
        }
        let live = std::mem::take(&mut selected.contexts.live);
        let changes = self.changes_of(account, &live, &new).await;
        let Some(selected) = &mut self.selected else {
            return Ok(());
        };
        selected.contexts.live = live;
        selected.accept(new, changes?);
        Ok(())
    }

    async fn changes_of(
        &mut self,
        account: AccountId,
        live: &[Context],
        new: &Arc<Snapshot>,
    ) -> Result<Vec<Turn>, Refused> {
        let mut changes = Vec::with_capacity(live.len());
        for context in live {
            changes.push(self.change_of(account, context, new).await?);
        }
        Ok(changes)
    }

    async fn change_of(
        &mut self,
        account: AccountId,
        context: &Context,
        new: &Arc<Snapshot>,
    ) -> Result<Turn, Refused> {
        let (mut gone, candidates) = context.candidates(new);
        let mut fit = Vec::new();
        if !candidates.is_empty() {
            let indexed = match candidates.len() {
                // A few new ones are not in the index yet.
                0..=8 => Indexed::default(),
                _ => self.ask_index(account, &context.key).await,
            };
            let place = Place {
                account,
                shown: new,
                saved: &[],
                among: Some(&candidates),
            };
            let mut pace = Pace::new(0);
            fit = self.find(place, &context.key, &indexed, &mut pace).await?;
        }
        let uids = |positions: &[usize]| -> RoaringBitmap {
            new.rows.pick(positions).map(|(_, row)| row.uid).collect()
        };
        let (fitting, asked) = (uids(&fit), uids(&candidates));
        gone |= &asked - &fitting;
        let members = context.members.uids();
        gone &= &members;
        let come = fitting - members;
        let fresh = match &context.members {
            Members::Sorted(by, _) => {
                let comes = |at: &usize| {
                    let row = new.rows.get(*at);
                    row.is_some_and(|row| come.contains(row.uid))
                };
                fit.retain(comes);
                self.sortables(account, new, &fit, by).await?
            }
            Members::Found(_) => Vec::new(),
        };
        Ok(Turn { gone, come, fresh })
    }
}

impl Selected {
    fn accept(&mut self, snapshot: Arc<Snapshot>, turns: Vec<Turn>) {
        let mut changes = Vec::with_capacity(turns.len());
        for (context, turn) in self.contexts.live.iter_mut().zip(turns) {
            context.at = Arc::clone(&snapshot);
            let removed = context.members.remove(&turn.gone);
            let added = context.members.add(&turn.come, turn.fresh);
            changes.push(Change {
                tag: context.tag.clone(),
                uid: context.uid,
                sorted: matches!(context.members, Members::Sorted(..)),
                removed,
                added,
            });
        }
        self.contexts.ready = Some(Ready { snapshot, changes });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::tests::snapshot;

    fn put(change: &Change, what: &str, pairs: &[(usize, u32)], shown: &Snapshot) -> String {
        let mut out = Vec::new();
        change.put(&mut out, what, pairs, shown);
        String::from_utf8_lossy(&out).into_owned()
    }

    /// RFC 5267 4.3.3, 4.3.4
    #[test]
    fn changes_are_written_as_the_rfc_has_them() {
        let shown = snapshot([7, 9, 2731, 2732, 2733]);
        let mut change = Change {
            tag: "C01".to_owned(),
            uid: true,
            sorted: true,
            ..Change::default()
        };
        let added = [(1, 2731), (2, 2732), (3, 2733), (5, 9)];
        assert_eq!(
            put(&change, "ADDTO", &added, &shown),
            "* ESEARCH (TAG \"C01\") UID ADDTO (1 2731:2733 5 9)\r\n"
        );
        assert_eq!(
            put(&change, "REMOVEFROM", &[(3, 2733), (2, 2732)], &shown),
            "* ESEARCH (TAG \"C01\") UID REMOVEFROM (3 2733 2 2732)\r\n"
        );
        change.sorted = false;
        change.uid = false;
        assert_eq!(
            put(&change, "ADDTO", &[(0, 7), (0, 9), (0, 2733)], &shown),
            "* ESEARCH (TAG \"C01\") ADDTO (0 1:2,5)\r\n"
        );
        assert_eq!(put(&change, "ADDTO", &[], &shown), "");
    }

    #[test]
    fn sequence_numbers_stay_what_they_were() {
        let shown = snapshot([7, 9, 2731]);
        let keys = |line: &str| {
            let line = format!("a SEARCH {line}");
            let parsed = imap::parse(line.as_bytes(), imap::Names::Utf8);
            match parsed.map(|tagged| tagged.command) {
                Ok(imap::Command::Search(search)) => Some(search.key),
                _ => None,
            }
        };
        let frozen = |line: &str| keys(line).map(|key| frozen(&key, &shown, &[9, 10]));
        assert_eq!(frozen("2:*"), keys("UID 9,2731"));
        assert_eq!(frozen("NOT $"), keys("NOT UID 9:10"));
        assert_eq!(frozen("OR FUZZY 1 UID 2:*"), keys("OR FUZZY UID 7 UID 2:*"));
    }

    fn sortable(uid: u32, size: u64) -> Sortable {
        Sortable {
            uid,
            size,
            ..Sortable::default()
        }
    }

    /// Each change is applied as a client does it.
    #[test]
    fn a_client_that_follows_has_the_order() {
        let by = vec![SortKey {
            reverse: false,
            by: SortBy::Size,
        }];
        let old = vec![
            sortable(5, 1),
            sortable(3, 2),
            sortable(9, 2),
            sortable(1, 8),
        ];
        let mut mirror: Vec<u32> = old.iter().map(|one| one.uid).collect();
        let mut members = Members::Sorted(by, old);
        let gone: RoaringBitmap = [5, 9].into_iter().collect();
        for (at, uid) in members.remove(&gone) {
            assert_eq!(mirror.remove(at - 1), uid);
        }
        let come: RoaringBitmap = [10, 11, 12].into_iter().collect();
        let fresh = vec![sortable(12, 9), sortable(11, 2), sortable(10, 1)];
        for (at, uid) in members.add(&come, fresh) {
            mirror.insert(at - 1, uid);
        }
        assert_eq!(mirror, [10, 3, 11, 1, 12]);
        let Members::Sorted(_, all) = &members else {
            unreachable!("a sort")
        };
        assert!(all.iter().map(|one| one.uid).eq(mirror));
    }
}
