//! ESEARCH: a search of several mailboxes (RFC 7377).

use super::Pace;
use super::esearch::{Answer, shown_modseq};
use super::indexed::Indexed;
use super::search::Place;
use crate::session::{Done, Refused, Session, done};
use imap::{MailboxFilter, MultiSearch, SearchKey};
use std::collections::HashMap;
use std::sync::Arc;
use store::Mailbox;
use tokio::io::{AsyncRead, AsyncWrite};
use types::AccountId;

/// A mailbox, as a choice of mailboxes looks at it.
pub(super) struct Chosen<'a> {
    /// As the user sees it.
    pub(super) name: &'a str,
    /// The user is subscribed to it.
    pub(super) subscribed: bool,
    /// It is the user's own.
    pub(super) own: bool,
}

impl Chosen<'_> {
    /// Whether a choice has this mailbox (RFC 5465 6, RFC 7377 2.2); the selected one is for the caller to know.
    pub(super) fn by(&self, filter: &MailboxFilter) -> bool {
        let below = |parent: &String| {
            let rest = self.name.strip_prefix(parent.as_str())?;
            match rest.strip_prefix(imap::DELIMITER) {
                Some(rest) => Some(rest.matches(imap::DELIMITER).count() + 1),
                None if parent.is_empty() => Some(rest.matches(imap::DELIMITER).count() + 1),
                None => rest.is_empty().then_some(0),
            }
        };
        match filter {
            MailboxFilter::Selected | MailboxFilter::SelectedDelayed => false,
            // RFC 5465 6.3: where mail may arrive is for the rules of its owner to say, so it is anywhere
            MailboxFilter::Inboxes | MailboxFilter::Personal => self.own,
            MailboxFilter::Subscribed => self.subscribed,
            MailboxFilter::Subtree(names) => names.iter().any(|name| below(name).is_some()),
            MailboxFilter::SubtreeOne(names) => names
                .iter()
                .any(|name| below(name).is_some_and(|levels| levels <= 1)),
            MailboxFilter::Mailboxes(names) => names.iter().any(|one| one == self.name),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    pub(super) async fn multi_search(&mut self, search: &MultiSearch) -> Done {
        let result = match search.only_selected() {
            true => self.selected_search(search).await,
            false => self.search_all(search).await,
        };
        self.forget_saved(Some(search.returns), result)
    }

    /// The selected mailbox alone: all that SEARCH can do, too.
    async fn selected_search(&mut self, search: &MultiSearch) -> Done {
        self.fresh_tag(Some(search.returns))?;
        if search.returns.update {
            self.may_search_all(&search.key)?;
        }
        let found = self.found(&search.key).await?;
        let uids: Vec<u32> = found.rows().map(|(_, row)| row.uid).collect();
        if !uids.is_empty() {
            let mailbox = &found.shown.mailbox;
            let modseqs = found.rows().map(|(_, row)| row.modseq);
            let scores: Vec<u8> = found.rows().map(|(_, row)| found.score(row)).collect();
            let name = self.selected_name(mailbox).await?;
            let answer = Answer {
                tag: &self.tag,
                place: Some((&name, mailbox.uidvalidity)),
                uid: true,
                returns: search.returns,
                numbers: &uids,
                scores: &scores,
                modseq: found.modseq(Some(search.returns), modseqs),
                ordered: false,
            };
            answer.put(&mut self.out, self.names);
        }
        if search.returns.save {
            self.save_result(search.returns, uids.iter().copied());
        }
        if search.returns.update {
            self.keep_search(true, &search.key, &found.shown, uids.into_iter());
        }
        self.tell(true, &[]);
        self.flush_if_full().await?;
        found.done()
    }

    /// The selected mailbox's name, as this user sees it.
    async fn selected_name(&self, mailbox: &Mailbox) -> Result<String, Refused> {
        if mailbox.account == self.account_id() {
            return Ok(mailbox.name.clone());
        }
        let entries = self.entries().await?;
        let same = |one: &Mailbox| one.id == mailbox.id;
        let found = entries
            .into_iter()
            .find(|(_, entry)| entry.mailbox.as_ref().is_some_and(same));
        Ok(found.map_or_else(|| mailbox.name.clone(), |(name, _)| name))
    }

    /// The mailboxes in which the user may search. Those that are not there, or are not for this user, are passed over.
    async fn sources(&self, search: &MultiSearch) -> Result<Vec<(String, Mailbox)>, Refused> {
        let with_selected = search.sources.contains(&MailboxFilter::Selected);
        let selected = match with_selected {
            true => Some(self.chosen()?.shown.mailbox.id),
            false => None,
        };
        let own = self.account_id();
        let mut found = Vec::new();
        for (name, entry) in self.entries().await? {
            let readable = entry.rights.has("r");
            let Some(mailbox) = entry.mailbox.filter(|_| readable) else {
                continue;
            };
            let chosen = Chosen {
                name: &name,
                subscribed: entry.subscribed,
                own: mailbox.account == own,
            };
            let wanted = search.sources.iter().any(|filter| chosen.by(filter));
            if wanted || selected == Some(mailbox.id) {
                found.push((name, mailbox));
            }
        }
        let most = self.service.config.search_mailboxes;
        match found.len() > most {
            true => Err(Refused::No(
                "LIMIT",
                format!("A search takes {most} mailboxes at most"),
            )),
            false => Ok(found),
        }
    }

    async fn search_all(&mut self, search: &MultiSearch) -> Done {
        let sources = self.sources(search).await?;
        let mut asked: HashMap<AccountId, Indexed> = HashMap::new();
        let mut pace = Pace::new(self.service.config.progress_s).uncounted();
        for (name, mailbox) in sources {
            let account = mailbox.account;
            let indexed = match asked.remove(&account) {
                Some(indexed) => indexed,
                None => self.ask_index(account, &search.key).await,
            };
            self.search_one(search, &name, &mailbox, &indexed, &mut pace)
                .await?;
            asked.insert(account, indexed);
            self.flush_if_full().await?;
        }
        if search.returns.update {
            self.no_update("Only the selected mailbox is followed");
        }
        self.tell(true, &[]);
        done("completed")
    }

    async fn search_one(
        &mut self,
        search: &MultiSearch,
        name: &str,
        mailbox: &Mailbox,
        indexed: &Indexed,
        pace: &mut Pace,
    ) -> Result<(), Refused> {
        let views = Arc::clone(&self.service.views);
        let Some(shown) = views.glance(mailbox.account, mailbox.id).await? else {
            return Ok(());
        };
        let place = Place {
            account: mailbox.account,
            shown: &shown,
            saved: &[],
            among: None,
        };
        let positions = self.find(place, &search.key, indexed, pace).await?;
        if positions.is_empty() {
            // RFC 7377 2.1: nothing is said of it
            return Ok(());
        }
        let rows = || shown.rows.pick(&positions).map(|(_, row)| row);
        let uids: Vec<u32> = rows().map(|row| row.uid).collect();
        let scores: Vec<u8> = rows().map(|row| indexed.score(row.content.0)).collect();
        let for_modseq = |key: &SearchKey| matches!(key, SearchKey::ModSeq(_));
        let modseqs: Vec<u64> = match search.key.any(&for_modseq) {
            true => rows().map(|row| row.modseq).collect(),
            false => Vec::new(),
        };
        let answer = Answer {
            tag: &self.tag,
            place: Some((name, shown.mailbox.uidvalidity)),
            uid: true,
            returns: search.returns,
            numbers: &uids,
            scores: &scores,
            modseq: shown_modseq(Some(search.returns), &modseqs),
            ordered: false,
        };
        answer.put(&mut self.out, self.names);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subtrees_have_levels() {
        let chosen = |name: &str, filter: &MailboxFilter| {
            let chosen = Chosen {
                name,
                subscribed: false,
                own: true,
            };
            chosen.by(filter)
        };
        let names = ["folder2", "folder2/banana", "folder2/a/b", "folder22", "x"];
        let by = |filter: MailboxFilter| names.map(|name| chosen(name, &filter));
        let folder = || vec!["folder2".to_owned()];
        assert_eq!(
            by(MailboxFilter::Subtree(folder())),
            [true, true, true, false, false]
        );
        assert_eq!(
            by(MailboxFilter::SubtreeOne(folder())),
            [true, true, false, false, false]
        );
        assert_eq!(
            by(MailboxFilter::Mailboxes(folder())),
            [true, false, false, false, false]
        );
        let top = || vec![String::new()];
        assert_eq!(
            by(MailboxFilter::SubtreeOne(top())),
            [true, false, false, true, true]
        );
        assert_eq!(by(MailboxFilter::Personal), [true; 5]);
        assert_eq!(by(MailboxFilter::Subscribed), [false; 5]);
    }
}
