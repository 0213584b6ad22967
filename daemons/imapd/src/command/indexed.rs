//! Searches through indexd: which contents have certain words. What the index does not cover yet is looked through as ever.

use crate::config::SearchMode;
use crate::session::Session;
use imap::SearchKey;
use ipc::api::indexd::{self, Field, Match, Mode};
use roaring::RoaringTreemap;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use types::AccountId;

/// A search that takes longer than this is made without the index.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long an index that did not answer is not asked again.
const REST: Duration = Duration::from_secs(15);
/// Criteria that indexd takes in one call.
const MATCHES_MAX: usize = 64;

/// Until when the index is left alone: one search waits for an index that hangs, not each of them.
#[derive(Debug, Default)]
pub struct IndexRest(Mutex<Option<Instant>>);

impl IndexRest {
    fn until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resting(&self) -> bool {
        self.until().is_some_and(|until| Instant::now() < until)
    }

    fn rest(&self) {
        *self.until() = Instant::now().checked_add(REST);
    }
}

/// What the index said to some criteria.
#[derive(Clone, Debug, Default)]
pub(super) struct Indexed {
    /// Each with whether it was asked for under FUZZY.
    answers: Vec<(SearchKey, bool, Arc<RoaringTreemap>)>,
    /// Contents up to this one are in the index.
    covered: u64,
    /// How well the best contents fit.
    scores: HashMap<u64, u8>,
}

impl Indexed {
    /// Whether one of these contents is a certain one; `None`: the index does not know that one.
    pub(super) fn holds(covered: u64, hits: &RoaringTreemap, content: u64) -> Option<bool> {
        (content <= covered).then(|| hits.contains(content))
    }

    /// The contents that a criterion was answered with.
    pub(super) fn hits(&self, key: &SearchKey, fuzzy: bool) -> Option<Arc<RoaringTreemap>> {
        let mut answers = self.answers.iter();
        let found = answers.find(|(known, how, _)| known == key && *how == fuzzy);
        found.map(|(_, _, hits)| Arc::clone(hits))
    }

    /// How well a message that was found fits, 1 to 100 (RFC 6203 4). What was compared itself has just what was looked for;
    /// what the index found and did not count among the best fits least.
    pub(super) fn score(&self, content: u64) -> u8 {
        match self.scores.get(&content) {
            Some(score) => *score,
            None if self.scores.is_empty() || content > self.covered => 100,
            None => 1,
        }
    }

    pub(super) fn covered(&self) -> u64 {
        self.covered
    }
}

/// What the index is asked for a criterion, if it can answer it.
fn asked(key: &SearchKey, fuzzy: bool) -> Option<Match> {
    let (field, text) = match key {
        SearchKey::Text(text) => (Field::Text, text),
        SearchKey::Body(text) => (Field::Body, text),
        SearchKey::Header(name, text) => {
            let field = match name.to_ascii_lowercase().as_str() {
                "subject" => Field::Subject,
                "from" => Field::From,
                "to" => Field::To,
                "cc" => Field::Cc,
                "bcc" => Field::Bcc,
                _ => return None,
            };
            (field, text)
        }
        _ => return None,
    };
    // Without a letter or digit there is no word in it.
    text.chars().any(char::is_alphanumeric).then(|| Match {
        field,
        text: text.clone(),
        mode: if fuzzy { Mode::Fuzzy } else { Mode::Words },
    })
}

/// A criterion that the index is asked for.
struct Asked {
    key: SearchKey,
    fuzzy: bool,
    what: Match,
}

/// What the index can answer of a search; all of it, or with `words` false only what is inside FUZZY.
fn collect(key: &SearchKey, words: bool, fuzzy: bool, found: &mut Vec<Asked>) {
    match key {
        SearchKey::And(keys) => {
            for key in keys {
                collect(key, words, fuzzy, found);
            }
        }
        SearchKey::Or(one, other) => {
            collect(one, words, fuzzy, found);
            collect(other, words, fuzzy, found);
        }
        SearchKey::Not(key) => collect(key, words, fuzzy, found),
        SearchKey::Fuzzy(key) => collect(key, words, true, found),
        key => {
            let known = |one: &Asked| one.key == *key && one.fuzzy == fuzzy;
            if (words || fuzzy)
                && found.len() < MATCHES_MAX
                && !found.iter().any(known)
                && let Some(what) = asked(key, fuzzy)
            {
                let key = key.clone();
                found.push(Asked { key, fuzzy, what });
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    /// Asks the index about an account's mail, if the configuration or FUZZY wants it and there is something to ask. An index
    /// that is away costs nothing but time, and that once in a while.
    pub(super) async fn ask_index(&self, account: AccountId, key: &SearchKey) -> Indexed {
        let mut asked = Vec::new();
        let words = self.service.config.search == SearchMode::Words;
        collect(key, words, false, &mut asked);
        if asked.is_empty() || self.service.index_rest.resting() {
            return Indexed::default();
        }
        let call = indexd::Search {
            account,
            matches: asked.iter().map(|one| one.what.clone()).collect(),
            scores: asked.iter().any(|one| one.fuzzy),
        };
        let indexd = &self.service.indexd;
        let began = Instant::now();
        let found = match indexd
            .call_with(self.trace, &call, Vec::new(), PATIENCE)
            .await
        {
            Ok((found, _)) => found,
            Err(error) => {
                if began.elapsed() >= PATIENCE {
                    self.service.index_rest.rest();
                }
                tracing::debug!(%error, "searched without the index");
                return Indexed::default();
            }
        };
        let mut answers = Vec::with_capacity(asked.len());
        for (one, hits) in asked.into_iter().zip(found.hits) {
            match RoaringTreemap::deserialize_from(hits.as_slice()) {
                Ok(hits) => answers.push((one.key, one.fuzzy, Arc::new(hits))),
                Err(error) => tracing::warn!(%error, "an answer of the index cannot be read"),
            }
        }
        Indexed {
            answers,
            covered: found.covered,
            scores: found.scores.into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_words_in_known_fields_are_asked_for() {
        let text = |text: &str| SearchKey::Text(text.to_owned());
        let header = |name: &str, text: &str| SearchKey::Header(name.to_owned(), text.to_owned());
        let key = SearchKey::And(vec![
            text("plan"),
            SearchKey::Not(Box::new(header("SUBJECT", "x"))),
            SearchKey::Or(Box::new(header("X-Other", "y")), Box::new(text("..."))),
            text("plan"),
            SearchKey::All,
        ]);
        let fields = |key: &SearchKey, words: bool| -> Vec<(Field, Mode)> {
            let mut found = Vec::new();
            collect(key, words, false, &mut found);
            let what = |one: &Asked| (one.what.field, one.what.mode);
            found.iter().map(what).collect()
        };
        let exact = [Field::Text, Field::Subject].map(|field| (field, Mode::Words));
        assert_eq!(fields(&key, true), exact);
        assert_eq!(fields(&key, false), []);
        // RFC 6203 3: only what is inside is fuzzy
        let mixed = SearchKey::And(vec![SearchKey::Fuzzy(Box::new(text("plan"))), text("plan")]);
        assert_eq!(fields(&mixed, false), [(Field::Text, Mode::Fuzzy)]);
        let both = [Mode::Fuzzy, Mode::Words].map(|mode| (Field::Text, mode));
        assert_eq!(fields(&mixed, true), both);
    }

    #[test]
    fn what_is_not_covered_is_not_known() {
        let hits: RoaringTreemap = [3_u64, 9].into_iter().collect();
        let indexed = Indexed {
            answers: vec![(SearchKey::All, false, Arc::new(hits.clone()))],
            covered: 5,
            scores: HashMap::from([(3, 40)]),
        };
        assert_eq!(
            [3, 4, 9].map(|content| indexed.score(content)),
            [40, 1, 100]
        );
        assert_eq!(Indexed::holds(5, &hits, 3), Some(true));
        assert_eq!(Indexed::holds(5, &hits, 4), Some(false));
        assert_eq!(Indexed::holds(5, &hits, 9), None);
        assert!(
            indexed.hits(&SearchKey::All, false).is_some()
                && indexed.hits(&SearchKey::All, true).is_none()
                && indexed.hits(&SearchKey::Recent, false).is_none()
        );
    }
}
