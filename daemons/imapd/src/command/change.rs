//! STORE, COPY, MOVE, EXPUNGE.

use crate::session::{Done, Session, done, put_fetch, put_fetch_flags, within};
use imap::put::{self, Condition};
use imap::{FlagAction, SequenceSet, Store};
use ipc::api::stored::{FlagChange, Mutation, MutationResult};
use tokio::io::{AsyncRead, AsyncWrite};
use types::ModSeq;

pub(super) fn set_text(ranges: &[(u32, u32)]) -> String {
    let mut text = Vec::new();
    put::set(&mut text, ranges);
    String::from_utf8_lossy(&text).into_owned()
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    pub(super) async fn store_flags(&mut self, store: Store) -> Done {
        let selected = self.writable()?;
        let limited = self.within_limit(selected.positions(&store.set, store.uid)?)?;
        let positions = &limited.positions;
        let uids = selected.uids(positions);
        let mailbox = selected.shown.mailbox.id;
        // RFC 7162 3.1.3: UNCHANGEDSINCE is a CONDSTORE-enabling command
        self.condstore |= store.unchanged_since.is_some();
        if uids.is_empty() {
            return done("completed");
        }
        let change = match store.action {
            FlagAction::Replace => FlagChange::Replace,
            FlagAction::Add => FlagChange::Add,
            FlagAction::Remove => FlagChange::Remove,
        };
        let mutated = self
            .mutate_selected(Mutation::Flags {
                mailbox,
                uids: uids.clone(),
                change,
                flags: store.flags,
                unchanged_since: store.unchanged_since.map(ModSeq),
            })
            .await?;
        self.refresh().await?;
        let modified = match mutated.result {
            MutationResult::Modified(ranges) => ranges,
            _ => Vec::new(),
        };
        let shape = self.shape();
        // Under CONDSTORE the new MODSEQ is told even with .SILENT (RFC 7162 3.1.3).
        if let Some(selected) = self
            .selected
            .as_ref()
            .filter(|_| !store.silent || shape.modseq)
        {
            let fresh = selected.view.current();
            for position in positions {
                let Some(shown) = selected.shown.rows.get(*position) else {
                    continue;
                };
                let row = fresh.position(shown.uid).and_then(|at| fresh.rows.get(at));
                let Some(row) = row.filter(|row| !within(&modified, row.uid)) else {
                    continue;
                };
                if store.silent {
                    put_fetch(&mut self.out, *position, row, shape);
                    let (uid, modseq) = (row.uid, row.modseq);
                    let text = format!("UID {uid} MODSEQ ({modseq}))\r\n");
                    put::text(&mut self.out, &text);
                } else {
                    put_fetch_flags(&mut self.out, *position, row, shape);
                }
            }
        }
        // What was not touched was changed by others: that is news.
        let touched = self.chosen()?.shown.positions(&uids);
        let rows = &self.chosen()?.shown.rows;
        let touched = touched
            .into_iter()
            .filter_map(|at| rows.get(at))
            .map(|row| row.uid);
        let silent = imap::from_numbers(touched.filter(|uid| !within(&modified, *uid)));
        self.tell(store.uid, &silent);
        self.flush_if_full().await?;
        if modified.is_empty() {
            return limited.done("completed");
        }
        self.put_limit(&limited);
        // RFC 7162 3.1.3: in the numbers of the command
        let ranges = if store.uid {
            modified
        } else {
            self.numbers(&modified)
        };
        Ok((
            format!("MODIFIED {}", set_text(&ranges)),
            "conditional store failed for some",
        ))
    }

    /// Sequence numbers of UIDs.
    fn numbers(&self, uids: &[(u32, u32)]) -> Vec<(u32, u32)> {
        let positions = self
            .selected
            .as_ref()
            .map(|selected| selected.shown.positions(uids))
            .unwrap_or_default();
        imap::from_numbers(
            positions
                .into_iter()
                .filter_map(|at| u32::try_from(at + 1).ok()),
        )
    }

    pub(super) async fn copy(&mut self, uid: bool, set: &SequenceSet, target: &str) -> Done {
        let selected = self.chosen()?;
        let positions = selected.positions(set, uid)?;
        let (mailbox, uids) = (selected.shown.mailbox.id, selected.uids(&positions));
        self.may_save(positions.len())?;
        let target = self.named(target, "TRYCREATE").await?.id;
        if uids.is_empty() {
            return done("completed, nothing to copy");
        }
        let mutated = self
            .mutate_selected(Mutation::Copy {
                mailbox,
                uids,
                target,
            })
            .await?;
        if target == mailbox {
            self.refresh().await?;
        }
        self.tell(uid, &[]);
        match copied(&mutated.result) {
            Some(code) => Ok((code, "completed")),
            None => done("completed"),
        }
    }

    /// RFC 6851
    pub(super) async fn move_to(&mut self, uid: bool, set: &SequenceSet, target: &str) -> Done {
        let selected = self.writable()?;
        let within = self.within_limit(selected.positions(set, uid)?)?;
        let uids = selected.uids(&within.positions);
        let mailbox = selected.shown.mailbox.id;
        let target = self.named(target, "TRYCREATE").await?.id;
        if uids.is_empty() {
            return done("completed, nothing to move");
        }
        let mutated = self
            .mutate_selected(Mutation::Move {
                mailbox,
                uids,
                target,
            })
            .await?;
        if let Some(code) = copied(&mutated.result) {
            put::status(&mut self.out, "*", Condition::Ok, &code, "Moved");
        }
        self.refresh().await?;
        self.tell(true, &[]);
        self.expunged_within(within)
    }

    pub(super) async fn expunge(&mut self, set: Option<&SequenceSet>) -> Done {
        let selected = self.writable()?;
        let mailbox = selected.shown.mailbox.id;
        let within = match set {
            // RFC 9738 3.1: without UIDs there is no limit
            None => None,
            Some(set) => Some(self.within_limit(selected.positions(set, true)?)?),
        };
        let uids = within
            .as_ref()
            .map(|within| selected.uids(&within.positions));
        if uids.as_ref().is_none_or(|uids| !uids.is_empty()) {
            let mutated = self
                .mutate_selected(Mutation::Expunge { mailbox, uids })
                .await?;
            self.refresh().await?;
            self.tell(true, &[]);
            if matches!(&mutated.result, MutationResult::Expunged(ranges) if !ranges.is_empty()) {
                return match within {
                    Some(within) => self.expunged_within(within),
                    None => self.expunged("completed"),
                };
            }
        }
        within.map_or_else(|| done("completed"), |within| within.done("completed"))
    }
}

/// COPYUID (RFC 4315 3)
fn copied(result: &MutationResult) -> Option<String> {
    match result {
        MutationResult::Copied {
            uidvalidity,
            source,
            target,
        } if !source.is_empty() => Some(format!(
            "COPYUID {uidvalidity} {} {}",
            set_text(source),
            set_text(target)
        )),
        _ => None,
    }
}
