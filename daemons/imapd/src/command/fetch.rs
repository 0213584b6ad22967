//! FETCH. What the view knows is answered from memory; what messages are is read in sets and copied as it was stored.

use super::section::{self, Need};
use crate::session::{Done, End, Refused, Session, done, put_flags};
use crate::view::Row;
use imap::{Fetch, FetchItem, put};
use ipc::api::stored::{FlagChange, Mutation};
use std::collections::HashMap;
use store::{Content, SystemFlags, Wanted};
use tokio::io::{AsyncRead, AsyncWrite};
use types::ContentId;

/// Messages read from the store at once: their descriptions; with their bodies.
const DESCRIBED: usize = 512;
const WHOLE: usize = 64;
/// Octets of bodies read at once; larger ones do not lie in the database.
const WHOLE_OCTETS: u64 = 2 << 20;

type Positioned<'r> = (usize, &'r Row);

/// As many of the first as may be read with their bodies at once: at least one.
fn readable(rows: &[Positioned<'_>]) -> usize {
    let mut octets = 0;
    let fits = |(_, row): &&Positioned<'_>| {
        octets += row.size.min(types::Body::INLINE_MAX as u64);
        octets <= WHOLE_OCTETS
    };
    rows.iter()
        .take(WHOLE)
        .take_while(fits)
        .count()
        .max(1)
        .min(rows.len())
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    pub(super) async fn fetch(&mut self, fetch: Fetch) -> Done {
        let selected = self.chosen()?;
        let read_only = selected.read_only;
        let mut positions = selected.positions(&fetch.set, fetch.uid)?;
        let mut items = fetch.items;
        if let Some(since) = fetch.changed_since {
            let rows = &selected.shown.rows;
            positions.retain(|at| rows.get(*at).is_some_and(|row| row.modseq > since));
        }
        let asks_modseq = items.contains(&FetchItem::ModSeq);
        if fetch.changed_since.is_some() || asks_modseq {
            // RFC 7162 3.1.4.1
            self.condstore = true;
            if !asks_modseq {
                items.push(FetchItem::ModSeq);
            }
        }
        if fetch.uid && !items.contains(&FetchItem::Uid) {
            items.insert(0, FetchItem::Uid);
        }
        if !read_only && items.iter().any(FetchItem::sets_seen) {
            let changed = self.set_seen(&positions).await?;
            if changed && !items.contains(&FetchItem::Flags) {
                // RFC 9051 6.4.5: the change is told with the rest
                items.push(FetchItem::Flags);
            }
        }
        match section::need(&items) {
            Need::View => self.answer_from_view(&positions, &items).await?,
            need => self.answer_from_store(&positions, &items, need).await?,
        }
        self.tell(fetch.uid, &[]);
        done("completed")
    }

    /// Sets \Seen where it is missing, in one change for all. Whether there was any.
    async fn set_seen(&mut self, positions: &[usize]) -> Result<bool, Refused> {
        let selected = self.chosen()?;
        let rows = &selected.shown.rows;
        let unseen: Vec<usize> = positions
            .iter()
            .copied()
            .filter(|at| {
                rows.get(*at)
                    .is_some_and(|row| !row.system.contains(SystemFlags::SEEN))
            })
            .collect();
        if unseen.is_empty() {
            return Ok(false);
        }
        let (mailbox, uids) = (selected.shown.mailbox.id, selected.uids(&unseen));
        let mutation = Mutation::Flags {
            mailbox,
            uids: uids.clone(),
            change: FlagChange::Add,
            flags: vec!["\\Seen".to_owned()],
            unchanged_since: None,
        };
        match self.mutate(mutation).await {
            Ok(_) => {
                self.refresh().await?;
                self.tell(false, &uids);
                Ok(true)
            }
            // A full or read-only store does not keep anybody from reading.
            Err(Refused::No(..)) => Ok(false),
            Err(other) => Err(other),
        }
    }

    async fn answer_from_view(
        &mut self,
        positions: &[usize],
        items: &[FetchItem],
    ) -> Result<(), Refused> {
        let shown = self.chosen()?.shown.clone();
        for part in positions.chunks(1024) {
            for position in part {
                let Some(row) = shown.rows.get(*position) else {
                    continue;
                };
                put_head(&mut self.out, *position);
                let mut first = true;
                for item in items {
                    put_known(&mut self.out, &mut first, item, row);
                }
                put::text(&mut self.out, ")\r\n");
            }
            self.flush_if_full().await?;
        }
        Ok(())
    }

    async fn answer_from_store(
        &mut self,
        positions: &[usize],
        items: &[FetchItem],
        need: Need,
    ) -> Result<(), Refused> {
        let shown = self.chosen()?.shown.clone();
        let rows: Vec<Positioned<'_>> = positions
            .iter()
            .filter_map(|position| shown.rows.get(*position).map(|row| (*position, row)))
            .collect();
        let mut tally = Tally::default();
        if need == Need::Text {
            self.put_whole(&rows, items, &mut tally).await?;
        } else {
            for part in rows.chunks(DESCRIBED) {
                let rest = self.put_described(part, items, need, &mut tally).await?;
                self.put_whole(&rest, items, &mut tally).await?;
            }
        }
        if tally.unknown_encoding {
            // RFC 9051 6.4.5
            return Err(Refused::No(
                "UNKNOWN-CTE",
                "A part has an unknown encoding".to_owned(),
            ));
        }
        if tally.gone {
            // RFC 5530 3
            return Err(Refused::No(
                "EXPUNGEISSUED",
                "Some messages are gone; say NOOP to see which".to_owned(),
            ));
        }
        Ok(())
    }

    async fn contents(
        &self,
        rows: &[Positioned<'_>],
        wanted: Wanted,
    ) -> Result<HashMap<ContentId, Content>, store::Error> {
        let ids: Vec<ContentId> = rows.iter().map(|(_, row)| row.content).collect();
        let mut contents = HashMap::with_capacity(ids.len());
        let take = |content: Content| drop(contents.insert(content.id, content));
        self.service
            .reader
            .contents(self.account_id(), &ids, wanted, take)
            .await?;
        Ok(contents)
    }

    /// Answers from the descriptions; gives back those messages for which they do not suffice.
    async fn put_described<'r>(
        &mut self,
        rows: &[Positioned<'r>],
        items: &[FetchItem],
        need: Need,
        tally: &mut Tally,
    ) -> Result<Vec<Positioned<'r>>, Refused> {
        let wanted = Wanted {
            prefix: need == Need::Listed,
            parsed: true,
            body: false,
        };
        let contents = self.contents(rows, wanted).await?;
        let mut rest = Vec::new();
        for (position, row) in rows {
            let Some(content) = contents.get(&row.content) else {
                tally.gone = true;
                continue;
            };
            match section::listed(items, content) {
                Some(lines) => {
                    self.put_one(*position, row, items, content, Some(lines), tally)
                        .await?
                }
                None => rest.push((*position, *row)),
            }
        }
        Ok(rest)
    }

    /// Answers from the messages themselves.
    async fn put_whole(
        &mut self,
        rows: &[Positioned<'_>],
        items: &[FetchItem],
        tally: &mut Tally,
    ) -> Result<(), Refused> {
        let mut rest = rows;
        while !rest.is_empty() {
            let (part, behind) = rest.split_at_checked(readable(rest)).unwrap_or_default();
            rest = behind;
            let contents = self
                .contents(
                    part,
                    Wanted {
                        prefix: true,
                        parsed: true,
                        body: true,
                    },
                )
                .await?;
            for (position, row) in part {
                match contents.get(&row.content) {
                    Some(content) => {
                        self.put_one(*position, row, items, content, None, tally)
                            .await?
                    }
                    // Expunged by another session, and the client does not know yet (RFC 2180 4.1).
                    None => tally.gone = true,
                }
            }
        }
        Ok(())
    }

    async fn put_one(
        &mut self,
        position: usize,
        row: &Row,
        items: &[FetchItem],
        content: &Content,
        listed: Option<Vec<Vec<u8>>>,
        tally: &mut Tally,
    ) -> Result<(), Refused> {
        let (start, sent) = (self.out.len(), self.sent);
        put_head(&mut self.out, position);
        let mut first = true;
        for item in items {
            put_known(&mut self.out, &mut first, item, row);
        }
        match self.put_message(&mut first, items, content, listed).await {
            Ok(known) => tally.unknown_encoding |= !known,
            // As long as nothing of it is on its way, the other messages can be shown.
            Err(Refused::End(End::Damaged)) if self.sent == sent => {
                self.out.truncate(start);
                self.warn("A message is damaged and cannot be shown");
                return Ok(());
            }
            Err(refused) => return Err(refused),
        }
        put::text(&mut self.out, ")\r\n");
        self.flush_if_full().await?;
        Ok(())
    }
}

/// What went wrong with single messages.
#[derive(Default)]
struct Tally {
    gone: bool,
    unknown_encoding: bool,
}

/// The beginning of an answer.
fn put_head(out: &mut Vec<u8>, position: usize) {
    put::text(out, "* ");
    put::number(out, position as u64 + 1);
    put::text(out, " FETCH (");
}

pub(super) fn separate(out: &mut Vec<u8>, first: &mut bool) {
    if !std::mem::take(first) {
        out.push(b' ');
    }
}

/// An item that the view knows; others are passed over.
fn put_known(out: &mut Vec<u8>, first: &mut bool, item: &FetchItem, row: &Row) {
    match item {
        FetchItem::Uid => {
            separate(out, first);
            put::text(out, "UID ");
            put::number(out, u64::from(row.uid));
        }
        FetchItem::Flags => {
            separate(out, first);
            put_flags(out, row);
        }
        FetchItem::InternalDate => {
            separate(out, first);
            put::text(out, "INTERNALDATE ");
            imap::date::write(out, row.date);
        }
        FetchItem::Size => {
            separate(out, first);
            put::text(out, "RFC822.SIZE ");
            put::number(out, row.size);
        }
        FetchItem::ModSeq => {
            separate(out, first);
            put::text(out, "MODSEQ (");
            put::number(out, row.modseq);
            out.push(b')');
        }
        FetchItem::EmailId => {
            separate(out, first);
            put::text(out, &format!("EMAILID (M{})", row.content));
        }
        FetchItem::ThreadId => {
            separate(out, first);
            put::text(out, &format!("THREADID (T{})", row.thread));
        }
        _ => {}
    }
}
