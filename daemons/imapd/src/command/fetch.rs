//! FETCH. What the view knows is answered from memory; what messages are is read in sets and copied as it was stored.

use super::section::{self, Need};
use crate::session::{Done, End, Refused, Session, put_fetch, put_flags};
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
        // RFC 7162 3.2.6
        if fetch.vanished && !(self.qresync && fetch.uid && fetch.changed_since.is_some()) {
            return Err(Refused::Bad(
                "VANISHED needs ENABLE QRESYNC, UID FETCH and CHANGEDSINCE",
            ));
        }
        let mut positions = selected.positions(&fetch.set, fetch.uid)?;
        let mut items = fetch.items;
        if let Some(since) = fetch.changed_since {
            let rows = selected.shown.rows.pick(&positions);
            let changed = rows.filter(|(_, row)| row.modseq > since);
            positions = changed.map(|(at, _)| at).collect();
        }
        if let Some(page) = fetch.page {
            // RFC 9394 3.3
            if !fetch.uid {
                return Err(Refused::Bad("PARTIAL needs UID FETCH"));
            }
            positions = page.of(&positions).to_vec();
        }
        let within = self.within_limit(positions)?;
        let asks_modseq = items.contains(&FetchItem::ModSeq);
        if fetch.changed_since.is_some() || asks_modseq {
            // RFC 7162 3.1.4.1
            self.condstore = true;
            if !asks_modseq {
                items.push(FetchItem::ModSeq);
            }
        }
        // RFC 9586 3.3: UIDFETCH has it already
        if fetch.uid && !self.uid_only && !items.contains(&FetchItem::Uid) {
            items.insert(0, FetchItem::Uid);
        }
        if let Some(since) = fetch.changed_since.filter(|_| fetch.vanished) {
            self.tell_vanished(&fetch.set, since).await?;
        }
        if !read_only && items.iter().any(FetchItem::sets_seen) {
            let changed = self.set_seen(&within.positions).await?;
            if changed && !items.contains(&FetchItem::Flags) {
                // RFC 9051 6.4.5: the change is told with the rest
                items.push(FetchItem::Flags);
            }
        }
        self.show(&within.positions, &items).await?;
        self.tell(fetch.uid, &[]);
        within.done("completed")
    }

    /// Answers for these messages.
    pub(super) async fn show(
        &mut self,
        positions: &[usize],
        items: &[FetchItem],
    ) -> Result<(), Refused> {
        match section::need(items) {
            Need::View => self.answer_from_view(positions, items).await,
            need => self.answer_from_store(positions, items, need).await,
        }
    }

    /// Sets \Seen where it is missing, in one change for all. Whether there was any.
    async fn set_seen(&mut self, positions: &[usize]) -> Result<bool, Refused> {
        let selected = self.chosen()?;
        let rows = selected.shown.rows.pick(positions);
        let unseen: Vec<usize> = rows
            .filter(|(_, row)| !row.system.contains(SystemFlags::SEEN))
            .map(|(at, _)| at)
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
        match self.mutate_selected(mutation).await {
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
        let shape = self.shape();
        for part in positions.chunks(1024) {
            for (position, row) in shown.rows.pick(part) {
                put_fetch(&mut self.out, position, row, shape);
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
        let rows: Vec<Positioned<'_>> = shown.rows.pick(positions).collect();
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
            .contents(self.selected_account(), &ids, wanted, take)
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
        let shape = self.shape();
        put_fetch(&mut self.out, position, row, shape);
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
        FetchItem::SaveDate => {
            separate(out, first);
            put::text(out, "SAVEDATE ");
            // RFC 8514 4.3
            match row.saved {
                0 => put::text(out, "NIL"),
                saved => imap::date::write(out, i64::from(saved)),
            }
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
