//! SEARCH (RFC 9051 6.4.4): messages of a mailbox that fit, found in steps that read no more than they need.

use super::Pace;
use super::criteria::{Ground, Plan, ask_chunk, ask_content, ask_row};
use super::esearch::{Answer, put_modseq, saves, shown_modseq};
use super::indexed::Indexed;
use super::limit::Within;
use crate::session::{Done, Refused, Session, done};
use crate::view::{Row, Snapshot};
use imap::put;
use imap::{ReturnOptions, Search, SearchKey};
use std::collections::HashMap;
use std::sync::Arc;
use store::{Content, ContentBody, Reader, Wanted};
use tokio::io::{AsyncRead, AsyncWrite};
use types::{AccountId, ContentId};

/// Messages whose description is read at once.
const DESCRIBED: usize = 512;
/// Messages whose text is read at once, and their octets.
const READ: usize = 64;
const READ_OCTETS: u64 = 8 << 20;

/// A search under way.
struct Finder<'a> {
    account: AccountId,
    shown: &'a Snapshot,
    plan: &'a Plan,
    /// Positions of those that fit.
    found: Vec<usize>,
    /// Positions of those that the view cannot tell, and how many of them are described.
    open: Vec<usize>,
    described: usize,
    /// Positions of those whose description does not tell, and how many of them are read.
    unread: Vec<usize>,
    read: usize,
}

impl<'a> Finder<'a> {
    /// With what the view knows; of all messages, or only those at some positions.
    fn new(
        account: AccountId,
        shown: &'a Snapshot,
        plan: &'a Plan,
        among: Option<&[usize]>,
    ) -> Self {
        let mut finder = Self {
            account,
            shown,
            plan,
            found: Vec::new(),
            open: Vec::new(),
            described: 0,
            unread: Vec::new(),
            read: 0,
        };
        if let Some(among) = among {
            for (position, row) in shown.rows.pick(among) {
                finder.ask(position, row);
            }
            return finder;
        }
        for (start, chunk) in shown.rows.chunks() {
            match plan.holds(&mut |test| ask_chunk(test, start, chunk)) {
                Some(true) => finder.found.extend(start..start + chunk.rows().len()),
                Some(false) => {}
                None => {
                    for (position, row) in (start..).zip(chunk.rows()) {
                        finder.ask(position, row);
                    }
                }
            }
        }
        finder
    }

    fn ask(&mut self, position: usize, row: &Row) {
        match self.plan.holds(&mut |test| ask_row(test, position, row)) {
            Some(true) => self.found.push(position),
            Some(false) => {}
            None => self.open.push(position),
        }
    }

    /// How many messages are done of those that had to be read: both grow to the same.
    fn progress(&self) -> (u64, u64) {
        let done = self.described - self.unread.len() + self.read;
        (done as u64, self.open.len() as u64)
    }

    /// The next messages. `false`: there are none left.
    async fn step(&mut self, reader: &Reader) -> Result<bool, store::Error> {
        if self.described < self.open.len() {
            self.describe(reader).await?;
        } else if self.read < self.unread.len() {
            self.read_text(reader).await?;
        } else {
            self.found.sort_unstable();
            return Ok(false);
        }
        tokio::task::yield_now().await;
        Ok(true)
    }

    async fn describe(&mut self, reader: &Reader) -> Result<(), store::Error> {
        let shown = self.shown;
        let some = self.open.get(self.described..).unwrap_or_default();
        let some = some.get(..DESCRIBED).unwrap_or(some);
        self.described += some.len();
        let rows: Vec<(usize, &Row)> = shown.rows.pick(some).collect();
        let contents = contents(reader, self.account, &rows, false).await?;
        for (position, row) in rows {
            let Some(content) = contents.get(&row.content) else {
                continue;
            };
            let held = self.plan.holds(&mut |test| {
                ask_row(test, position, row).or_else(|| ask_content(test, content, None))
            });
            match held {
                Some(true) => self.found.push(position),
                Some(false) => {}
                None => self.unread.push(position),
            }
        }
        Ok(())
    }

    async fn read_text(&mut self, reader: &Reader) -> Result<(), store::Error> {
        let shown = self.shown;
        let some = self.unread.get(self.read..).unwrap_or_default();
        let some = some.get(..READ).unwrap_or(some);
        let mut octets = 0;
        let mut rows: Vec<(usize, &Row)> = Vec::with_capacity(some.len());
        for (position, row) in shown.rows.pick(some) {
            octets += row.size;
            if octets > READ_OCTETS && !rows.is_empty() {
                break;
            }
            rows.push((position, row));
        }
        self.read += rows.len().max(1);
        let contents = contents(reader, self.account, &rows, true).await?;
        for (position, row) in rows {
            let Some(content) = contents.get(&row.content) else {
                continue;
            };
            let outside;
            let body = match &content.body {
                ContentBody::Octets(octets) => octets.as_slice(),
                ContentBody::Outside { blob, .. } => {
                    outside = reader.body(*blob).await?;
                    outside.as_slice()
                }
                ContentBody::None => continue,
            };
            let held = self.plan.holds(&mut |test| {
                ask_row(test, position, row).or_else(|| ask_content(test, content, Some(body)))
            });
            if held == Some(true) {
                self.found.push(position);
            }
        }
        Ok(())
    }
}

async fn contents(
    reader: &Reader,
    account: AccountId,
    some: &[(usize, &Row)],
    body: bool,
) -> Result<HashMap<ContentId, Content>, store::Error> {
    let ids: Vec<ContentId> = some.iter().map(|(_, row)| row.content).collect();
    let mut contents = HashMap::with_capacity(ids.len());
    let take = |content: Content| drop(contents.insert(content.id, content));
    let wanted = Wanted {
        prefix: true,
        parsed: true,
        body,
    };
    reader.contents(account, &ids, wanted, take).await?;
    Ok(contents)
}

/// What a search found.
pub(super) struct Found {
    pub(super) shown: Arc<Snapshot>,
    positions: Vec<usize>,
    /// The search was for modseqs (RFC 7162 3.1.5).
    with_modseq: bool,
    indexed: Indexed,
    /// Where it looked, if not everywhere (RFC 9738).
    limited: Option<Within>,
}

impl Found {
    /// Where the messages are, ascending.
    pub(super) fn positions(&self) -> &[usize] {
        &self.positions
    }

    pub(super) fn len(&self) -> usize {
        self.positions.len()
    }

    /// The modseq that the answer shows, if the search was for modseqs; those of the messages are given in its order.
    pub(super) fn modseq(
        &self,
        returns: Option<ReturnOptions>,
        modseqs: impl Iterator<Item = u64>,
    ) -> Option<u64> {
        let modseqs: Vec<u64> = modseqs.filter(|_| self.with_modseq).collect();
        shown_modseq(returns, &modseqs)
    }

    /// The messages with their positions, ascending.
    pub(super) fn rows(&self) -> impl Iterator<Item = (usize, &Row)> {
        self.shown.rows.pick(&self.positions)
    }

    /// OK, with how far it looked if that was not everywhere.
    pub(super) fn done(self) -> Done {
        match self.limited {
            Some(within) => within.done("completed"),
            None => done("completed"),
        }
    }

    /// How well a message fits (RFC 6203 4).
    pub(super) fn score(&self, row: &Row) -> u8 {
        self.indexed.score(row.content.0)
    }
}

/// Where a search looks.
pub(super) struct Place<'a> {
    /// Whose mailbox.
    pub(super) account: AccountId,
    /// The mailbox.
    pub(super) shown: &'a Snapshot,
    /// What `$` means: UIDs.
    pub(super) saved: &'a [u32],
    /// Only the messages at these positions, ascending.
    pub(super) among: Option<&'a [usize]>,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    /// Positions of the messages that fit, ascending. A client that waits long is told how far it is.
    pub(super) async fn find(
        &mut self,
        place: Place<'_>,
        key: &SearchKey,
        indexed: &Indexed,
        pace: &mut Pace,
    ) -> Result<Vec<usize>, Refused> {
        let ground = Ground {
            shown: place.shown,
            saved: place.saved,
            now: i64::try_from(crate::now()).unwrap_or(i64::MAX),
            indexed,
        };
        let plan = ground.plan(key);
        let service = Arc::clone(&self.service);
        let mut finder = Finder::new(place.account, place.shown, &plan, place.among);
        while finder.step(&service.reader).await? {
            if pace.due() {
                let progress = pace.counted.then(|| finder.progress());
                self.in_progress(progress).await?;
            }
        }
        Ok(finder.found)
    }

    /// Looks for messages in the selected mailbox.
    pub(super) async fn found(&mut self, key: &SearchKey) -> Result<Found, Refused> {
        let selected = self.chosen()?;
        let (shown, saved) = (Arc::clone(&selected.shown), selected.saved.clone());
        let account = self.selected_account();
        let indexed = self.ask_index(account, key).await;
        let limited = self.searched_within(key)?;
        let place = Place {
            account,
            shown: &shown,
            saved: &saved,
            among: limited.as_ref().map(|within| within.positions.as_slice()),
        };
        let mut pace = Pace::new(self.service.config.progress_s);
        let positions = self.find(place, key, &indexed, &mut pace).await?;
        let with_modseq = key.any(&|key| matches!(key, SearchKey::ModSeq(_)));
        // RFC 7162 3.1: this search enables CONDSTORE
        self.condstore |= with_modseq;
        Ok(Found {
            shown,
            positions,
            with_modseq,
            indexed,
            limited,
        })
    }

    /// Keeps what was found for `$` (RFC 9051 6.4.4.1).
    pub(super) fn save_result(&mut self, returns: ReturnOptions, uids: impl Iterator<Item = u32>) {
        if let Some(selected) = &mut self.selected {
            let uids: Vec<u32> = uids.collect();
            selected.saved = saves(returns, uids);
        }
    }

    /// A search that fails leaves nothing saved (RFC 9051 6.4.4.4, RFC 5182 2.1); returns its result.
    pub(super) fn forget_saved(&mut self, returns: Option<ReturnOptions>, result: Done) -> Done {
        if result.is_err()
            && returns.is_some_and(|returns| returns.save)
            && let Some(selected) = &mut self.selected
        {
            selected.saved.clear();
        }
        result
    }

    /// SEARCH and UID SEARCH.
    pub(super) async fn search(&mut self, search: &Search) -> Done {
        let result = self.searched(search).await;
        self.forget_saved(search.returns, result)
    }

    async fn searched(&mut self, search: &Search) -> Done {
        self.fresh_tag(search.returns)?;
        if search.returns.is_some_and(|returns| returns.update) {
            self.may_search_all(&search.key)?;
        }
        let found = self.found(&search.key).await?;
        let rows: Vec<(usize, &Row)> = found.rows().collect();
        let number = |(at, row): &(usize, &Row)| match search.uid {
            true => row.uid,
            false => u32::try_from(*at).unwrap_or(u32::MAX).saturating_add(1),
        };
        let numbers: Vec<u32> = rows.iter().map(number).collect();
        let modseqs = rows.iter().map(|(_, row)| row.modseq);
        let modseq = found.modseq(search.returns, modseqs);
        // RFC 9051 6.4.4: IMAP4rev2 knows ESEARCH only
        let rev2 = self.rev2.then_some(ReturnOptions {
            all: true,
            ..ReturnOptions::default()
        });
        match search.returns.or(rev2) {
            Some(returns) => {
                let scores: Vec<u8> = match returns.relevancy {
                    true => rows.iter().map(|(_, row)| found.score(row)).collect(),
                    false => Vec::new(),
                };
                let answer = Answer {
                    tag: &self.tag,
                    place: None,
                    uid: search.uid,
                    returns,
                    numbers: &numbers,
                    scores: &scores,
                    modseq,
                    ordered: false,
                };
                answer.put(&mut self.out, self.names);
                let uids = || rows.iter().map(|(_, row)| row.uid);
                if returns.save {
                    self.save_result(returns, uids());
                }
                if returns.update {
                    self.keep_search(search.uid, &search.key, &found.shown, uids());
                }
            }
            None => {
                put::text(&mut self.out, "* SEARCH");
                for number in &numbers {
                    self.out.push(b' ');
                    put::number(&mut self.out, u64::from(*number));
                }
                put_modseq(&mut self.out, modseq);
                put::text(&mut self.out, "\r\n");
            }
        }
        self.tell(search.uid, &[]);
        self.flush_if_full().await?;
        found.done()
    }
}
