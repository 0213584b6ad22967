//! FETCH. What the view knows is answered from memory; what messages are is read in sets and copied as it was stored.

use super::section;
use crate::session::{Done, Refused, Session, done, put_flags};
use crate::view::Row;
use imap::{Fetch, FetchItem, put};
use ipc::api::stored::{FlagChange, Mutation};
use std::collections::HashMap;
use store::{Content, ContentBody, SystemFlags, Wanted};
use tokio::io::{AsyncRead, AsyncWrite};
use types::ContentId;

/// Messages read from the store at once, without and with their bodies.
const SET: (usize, usize) = (512, 32);

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
        if !read_only && items.iter().any(section::sets_seen) {
            let changed = self.set_seen(&positions).await?;
            if changed && !items.contains(&FetchItem::Flags) {
                // RFC 9051 6.4.5: the change is told with the rest
                items.push(FetchItem::Flags);
            }
        }
        let wanted = section::wanted(&items);
        if wanted == Wanted::default() {
            self.from_view(&positions, &items).await?;
        } else {
            self.from_store(&positions, &items, wanted).await?;
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

    async fn from_view(&mut self, positions: &[usize], items: &[FetchItem]) -> Result<(), Refused> {
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

    async fn from_store(
        &mut self,
        positions: &[usize],
        items: &[FetchItem],
        wanted: Wanted,
    ) -> Result<(), Refused> {
        let shown = self.chosen()?.shown.clone();
        let account = self.account_id();
        let mut missing = 0;
        for part in positions.chunks(if wanted.body { SET.1 } else { SET.0 }) {
            let rows: Vec<(usize, &Row)> = part
                .iter()
                .filter_map(|position| shown.rows.get(*position).map(|row| (*position, row)))
                .collect();
            let ids: Vec<ContentId> = rows.iter().map(|(_, row)| row.content).collect();
            let mut contents: HashMap<ContentId, Content> = HashMap::with_capacity(ids.len());
            let reader = self.service.reader.clone();
            reader
                .contents(account, &ids, wanted, |content| {
                    drop(contents.insert(content.id, content))
                })
                .await?;
            for (position, row) in rows {
                let Some(content) = contents.get_mut(&row.content) else {
                    // Expunged by another session, and the client does not know yet (RFC 2180 4.1).
                    missing += 1;
                    continue;
                };
                if let ContentBody::Outside { blob, .. } = content.body {
                    content.body = ContentBody::Octets(reader.body(blob).await?);
                }
                let start = self.out.len();
                put_head(&mut self.out, position);
                let mut first = true;
                for item in items {
                    put_known(&mut self.out, &mut first, item, row);
                }
                if section::put_items(&mut self.out, &mut first, items, content).is_err() {
                    self.out.truncate(start);
                    tracing::error!(trace = %self.trace, content = %row.content, "a stored message is damaged");
                    self.warn("A message is damaged and cannot be shown; posthouse fsck says more");
                    continue;
                }
                put::text(&mut self.out, ")\r\n");
                self.flush_if_full().await?;
            }
        }
        if missing > 0 {
            // RFC 5530 3
            return Err(Refused::No(
                "EXPUNGEISSUED",
                "Some messages are gone; say NOOP to see which".to_owned(),
            ));
        }
        Ok(())
    }
}

/// Which of the items need a message's text are told by [`section::wanted`]; the part of the answer that comes first.
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
