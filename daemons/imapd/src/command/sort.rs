//! SORT and THREAD: from what is stored beside the messages.

use super::Pace;
use super::esearch::{Answer, put_modseq};
use super::thread::{Forest, Threaded};
use crate::brief::Brief;
use crate::session::{Done, Refused, Session, done};
use crate::view::{Row, Snapshot};
use imap::{Sort, SortBy, SortKey, Thread, Threading, put};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;
use store::{Content, Reader, Wanted};
use tokio::io::{AsyncRead, AsyncWrite};
use types::{AccountId, ContentId};

/// Descriptions read at once.
const DESCRIBED: usize = 1000;

/// What is compared of one message.
#[derive(Clone, Debug, Default)]
pub(super) struct Sortable {
    pub(super) uid: u32,
    pub(super) modseq: u64,
    pub(super) arrival: i64,
    pub(super) size: u64,
    pub(super) sent: i64,
    /// How well it fits.
    pub(super) score: u8,
    /// What is compared of its header; none if nothing is.
    pub(super) brief: Option<Arc<Brief>>,
}

/// Whether the store must be asked.
fn described(by: &[SortKey]) -> bool {
    by.iter()
        .any(|key| !matches!(key.by, SortBy::Arrival | SortBy::Size | SortBy::Relevancy))
}

impl Sortable {
    fn word(&self, by: SortBy) -> &str {
        self.brief.as_deref().map_or("", |brief| brief.word(by))
    }
}

/// RFC 5256 3
pub(super) fn compare(by: &[SortKey], one: &Sortable, other: &Sortable) -> Ordering {
    for key in by {
        let order = match key.by {
            SortBy::Arrival => one.arrival.cmp(&other.arrival),
            SortBy::Size => one.size.cmp(&other.size),
            SortBy::Date => one.sent.cmp(&other.sent),
            // RFC 6203 6: the best comes first
            SortBy::Relevancy => other.score.cmp(&one.score),
            by => one.word(by).cmp(other.word(by)),
        };
        let order = if key.reverse { order.reverse() } else { order };
        if order != Ordering::Equal {
            return order;
        }
    }
    // The last criterion is the sequence number, which ascends as the UID does.
    one.uid.cmp(&other.uid)
}

async fn read_briefs(
    reader: &Reader,
    account: AccountId,
    ids: &[ContentId],
) -> Result<HashMap<ContentId, Arc<Brief>>, store::Error> {
    let mut briefs = HashMap::with_capacity(ids.len());
    let wanted = Wanted {
        parsed: true,
        ..Wanted::default()
    };
    let keep = |content: Content| {
        if let Ok(parsed) = message::Parsed::decode(&content.parsed) {
            briefs.insert(content.id, Arc::new(Brief::of(parsed)));
        }
    };
    reader.contents(account, ids, wanted, keep).await?;
    Ok(briefs)
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    /// What is compared of the messages at these positions, each given to `take`. A client that waits long is told so.
    async fn describe(
        &mut self,
        account: AccountId,
        shown: &Snapshot,
        positions: &[usize],
        mut take: impl FnMut(usize, &Row, Option<&Arc<Brief>>) + Send,
    ) -> Result<(), Refused> {
        let service = Arc::clone(&self.service);
        let mut pace = Pace::new(service.config.progress_s);
        let mut described = 0;
        for some in positions.chunks(DESCRIBED) {
            let rows: Vec<(usize, &Row)> = shown.rows.pick(some).collect();
            let ids = rows.iter().map(|(_, row)| row.content);
            let known = service.briefs.get(account, ids);
            let missing: Vec<ContentId> = rows
                .iter()
                .zip(&known)
                .filter(|(_, brief)| brief.is_none())
                .map(|((_, row), _)| row.content)
                .collect();
            let read = match missing.is_empty() {
                true => HashMap::new(),
                false => read_briefs(&service.reader, account, &missing).await?,
            };
            service.briefs.keep(account, &read);
            for ((position, row), brief) in rows.iter().zip(&known) {
                take(
                    *position,
                    row,
                    brief.as_ref().or_else(|| read.get(&row.content)),
                );
            }
            described += some.len();
            if pace.due() {
                let progress = (described as u64, positions.len() as u64);
                self.in_progress(Some(progress)).await?;
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// What a sort by these criteria compares of the messages at these positions.
    pub(super) async fn sortables(
        &mut self,
        account: AccountId,
        shown: &Snapshot,
        positions: &[usize],
        by: &[SortKey],
    ) -> Result<Vec<Sortable>, Refused> {
        let mut all: Vec<Sortable> = Vec::with_capacity(positions.len());
        let mut take = |_: usize, row: &Row, brief: Option<&Arc<Brief>>| {
            all.push(Sortable {
                uid: row.uid,
                modseq: row.modseq,
                arrival: row.date,
                size: row.size,
                sent: brief.map_or(row.date, |brief| brief.sent(row)),
                score: 0,
                brief: brief.map(Arc::clone),
            });
        };
        if described(by) {
            self.describe(account, shown, positions, take).await?;
        } else {
            for (position, row) in shown.rows.pick(positions) {
                take(position, row, None);
            }
        }
        Ok(all)
    }

    /// SORT, UID SORT.
    pub(super) async fn sort(&mut self, sort: &Sort) -> Done {
        let result = self.sorted(sort).await;
        self.forget_saved(sort.returns, result)
    }

    async fn sorted(&mut self, sort: &Sort) -> Done {
        self.fresh_tag(sort.returns)?;
        self.may_search_all(&sort.key)?;
        let found = self.found(&sort.key).await?;
        let account = self.selected_account();
        let shown = Arc::clone(&found.shown);
        let mut all = self
            .sortables(account, &shown, found.positions(), &sort.by)
            .await?;
        for (one, (_, row)) in all.iter_mut().zip(found.rows()) {
            one.score = found.score(row);
        }
        all.sort_by(|one, other| compare(&sort.by, one, other));
        let number = |one: &Sortable| match sort.uid {
            true => one.uid,
            false => shown
                .position(one.uid)
                .and_then(|at| u32::try_from(at + 1).ok())
                .unwrap_or(u32::MAX),
        };
        let numbers: Vec<u32> = all.iter().map(number).collect();
        let modseq = found.modseq(sort.returns, all.iter().map(|one| one.modseq));
        match sort.returns {
            Some(returns) => {
                let scores: Vec<u8> = all.iter().map(|one| one.score).collect();
                let answer = Answer {
                    tag: &self.tag,
                    place: None,
                    uid: sort.uid,
                    returns,
                    numbers: &numbers,
                    scores: &scores,
                    modseq,
                    ordered: true,
                };
                answer.put(&mut self.out, self.names);
                if returns.save {
                    let uids = all.iter().map(|one| one.uid);
                    self.save_result(returns, uids);
                }
                if returns.update {
                    self.keep_sort(sort, &shown, all);
                }
            }
            None => {
                put::text(&mut self.out, "* SORT");
                for number in &numbers {
                    self.out.push(b' ');
                    put::number(&mut self.out, u64::from(*number));
                }
                put_modseq(&mut self.out, modseq);
                put::text(&mut self.out, "\r\n");
            }
        }
        self.tell(sort.uid, &[]);
        self.flush_if_full().await?;
        done("completed")
    }

    /// THREAD, UID THREAD.
    pub(super) async fn thread(&mut self, thread: Thread) -> Done {
        self.may_search_all(&thread.key)?;
        let found = self.found(&thread.key).await?;
        let mut all: Vec<Threaded> = Vec::with_capacity(found.len());
        let uid = thread.uid;
        let (account, shown) = (self.selected_account(), Arc::clone(&found.shown));
        let take = |position: usize, row: &Row, brief: Option<&Arc<Brief>>| {
            let number = match uid {
                true => row.uid,
                false => u32::try_from(position + 1).unwrap_or(u32::MAX),
            };
            let mut one = Threaded {
                number,
                sent: row.date,
                ..Threaded::default()
            };
            if let Some(brief) = brief {
                one.sent = brief.sent(row);
                one.subject = brief.subject.to_string();
                one.is_reply = brief.is_reply;
                one.id = brief.message_id.as_deref().map(str::to_owned);
                one.references = brief.references.iter().map(|id| id.to_string()).collect();
            }
            all.push(one);
        };
        self.describe(account, &shown, found.positions(), take)
            .await?;
        let algorithm = thread.algorithm;
        let work = move || {
            let forest = match algorithm {
                Threading::OrderedSubject => Forest::by_subject(&all),
                Threading::References => Forest::by_references(&all),
            };
            forest.written(&all)
        };
        let failed = |_| Refused::No("SERVERBUG", "The messages could not be threaded".to_owned());
        let written = tokio::task::spawn_blocking(work).await.map_err(failed)?;
        put::text(&mut self.out, "* THREAD");
        if !written.is_empty() {
            put::text(&mut self.out, " ");
            put::text(&mut self.out, &written);
        }
        put::text(&mut self.out, "\r\n");
        self.tell(thread.uid, &[]);
        self.flush_if_full().await?;
        done("completed")
    }
}
