//! What SORT and THREAD compare of messages, kept in memory for the next time: contents never change.

use crate::view::Row;
use imap::SortBy;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use types::{AccountId, ContentId};

/// What is compared of a message; about 400 octets.
#[derive(Debug, Default)]
pub(crate) struct Brief {
    /// The Date field, seconds since 1970.
    sent: Option<i64>,
    /// Base subject, in upper case.
    pub(crate) subject: Box<str>,
    /// The subject has the sign of a reply or forward.
    pub(crate) is_reply: bool,
    from: Box<str>,
    to: Box<str>,
    cc: Box<str>,
    from_display: Box<str>,
    to_display: Box<str>,
    pub(crate) message_id: Option<Box<str>>,
    /// The messages it answers, oldest first.
    pub(crate) references: Box<[Box<str>]>,
}

impl Brief {
    /// Of a description.
    pub(crate) fn of(parsed: message::Parsed) -> Self {
        // RFC 5256 3: In-Reply-To only where there are no References, and of it the first
        let references = match parsed.references.is_empty() {
            true => parsed.in_reply_to.into_iter().take(1).collect(),
            false => parsed.references,
        };
        Self {
            sent: parsed.sent.map(|sent| sent.unix),
            subject: parsed.base_subject.into(),
            is_reply: parsed.is_reply,
            from: parsed.from.into(),
            to: parsed.to.into(),
            cc: parsed.cc.into(),
            from_display: parsed.from_display.to_uppercase().into(),
            to_display: parsed.to_display.to_uppercase().into(),
            message_id: parsed.message_id.map(String::into_boxed_str),
            references: references.into_iter().map(String::into_boxed_str).collect(),
        }
    }

    /// When it was sent; without a usable Date, when it came (RFC 5256 2.2).
    pub(crate) fn sent(&self, row: &Row) -> i64 {
        self.sent.unwrap_or(row.date)
    }

    /// What a criterion compares, if that is text.
    pub(crate) fn word(&self, by: SortBy) -> &str {
        match by {
            SortBy::Cc => &self.cc,
            SortBy::From => &self.from,
            SortBy::To => &self.to,
            SortBy::Subject => &self.subject,
            SortBy::DisplayFrom => &self.from_display,
            SortBy::DisplayTo => &self.to_display,
            SortBy::Arrival | SortBy::Date | SortBy::Size | SortBy::Relevancy => "",
        }
    }
}

type Key = (AccountId, ContentId);

/// Two generations: what is asked for comes into the young one, and what is in the old one alone when the young one is full goes.
#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Key, Arc<Brief>>,
    old: HashMap<Key, Arc<Brief>>,
}

/// The briefs of this process.
#[derive(Debug)]
pub struct Briefs {
    kept: Mutex<Generations>,
    most: usize,
}

impl Briefs {
    /// Keeps so many.
    pub fn new(most: usize) -> Self {
        Self {
            kept: Mutex::default(),
            most,
        }
    }

    fn kept(&self) -> MutexGuard<'_, Generations> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those of these contents that are known, in their order.
    pub(crate) fn get(
        &self,
        account: AccountId,
        ids: impl Iterator<Item = ContentId>,
    ) -> Vec<Option<Arc<Brief>>> {
        let mut kept = self.kept();
        ids.map(|id| {
            let key = (account, id);
            if let Some(brief) = kept.young.get(&key) {
                return Some(Arc::clone(brief));
            }
            let brief = kept.old.remove(&key)?;
            kept.young.insert(key, Arc::clone(&brief));
            Some(brief)
        })
        .collect()
    }

    /// Keeps these.
    pub(crate) fn keep(&self, account: AccountId, briefs: &HashMap<ContentId, Arc<Brief>>) {
        let mut kept = self.kept();
        for (id, brief) in briefs {
            if kept.young.len() >= (self.most / 2).max(1) {
                kept.old = std::mem::take(&mut kept.young);
            }
            kept.young.insert((account, *id), Arc::clone(brief));
        }
        if self.most == 0 {
            *kept = Generations::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brief(number: u64) -> HashMap<ContentId, Arc<Brief>> {
        HashMap::from([(ContentId(number), Arc::default())])
    }

    #[test]
    fn what_is_asked_for_stays_and_the_number_is_bounded() {
        let briefs = Briefs::new(10);
        let account = AccountId(1);
        let known = |number: u64| {
            let found = briefs.get(account, std::iter::once(ContentId(number)));
            found.iter().flatten().count() == 1
        };
        for number in 1..=100 {
            briefs.keep(account, &brief(number));
            assert!(known(number) && known(1), "{number}");
        }
        assert!(!known(50) && known(99));
        let kept = briefs.kept();
        assert!(kept.young.len() + kept.old.len() <= 10);
        drop(kept);
        assert!(
            briefs
                .get(AccountId(2), std::iter::once(ContentId(1)))
                .iter()
                .all(Option::is_none)
        );
    }

    #[test]
    fn none_are_kept_if_none_shall_be() {
        let briefs = Briefs::new(0);
        briefs.keep(AccountId(1), &brief(1));
        assert!(
            briefs
                .get(AccountId(1), std::iter::once(ContentId(1)))
                .iter()
                .all(Option::is_none)
        );
    }
}
