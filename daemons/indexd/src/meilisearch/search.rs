//! Searches on the server.
//!
//! It finds phrases of whole words, and the beginning of a last word, but not both in one; and it reads ten words of what is looked
//! for. Where that is not enough, what it finds is more than is wanted, and is compared here with the words of the documents.

use super::document::{FORMS, SUBJECT_FORMS, spelt};
use super::shelf::Shelf;
use crate::query::{looked_for, places, rank};
use crate::schema::Place;
use crate::words::{self, Word};
use ipc::api::indexd::{Found, Match, Mode, Search};
use reqwest::Method;
use roaring::RoaringTreemap;
use serde_json::{Value, json};
use std::collections::HashMap;
use types::AccountId;

/// Words of a query that the server reads.
const QUERY_WORDS: usize = 10;
/// Documents compared at one time, and in all; beyond that the caller looks itself.
const COMPARED: (usize, u64) = (50, 1_000);

/// Contents, and how well they match: 0 to 1.
type Hits = HashMap<u64, f32>;

fn quoted(words: &[String]) -> String {
    format!("\"{}\"", words.join(" "))
}

/// Whether a piece of text has the words one after the other; if `open`, the last one may go on.
pub(super) fn has_phrase(piece: &str, words: &[String], open: bool) -> bool {
    let there: Vec<&str> = piece.split(' ').collect();
    there.windows(words.len()).any(|window| {
        let last = words.len() - 1;
        window
            .iter()
            .zip(words)
            .enumerate()
            .all(|(at, (is, word))| {
                is == word || (open && at == last && is.starts_with(word.as_str()))
            })
    })
}

fn hits(answer: &Value, limit: u64) -> Result<Hits, String> {
    let Some(list) = answer.get("hits").and_then(Value::as_array) else {
        return Err("Meilisearch: an answer without hits".to_owned());
    };
    if list.len() as u64 >= limit {
        return Err(format!(
            "{limit} messages and more match: searched without the index (indexd.meilisearch.results)"
        ));
    }
    let score = |hit: &Value| hit.get("_rankingScore").and_then(Value::as_f64);
    let one = |hit: &Value| {
        Some((
            hit.get("content")?.as_u64()?,
            score(hit).unwrap_or(1.0) as f32,
        ))
    };
    Ok(list.iter().filter_map(one).collect())
}

impl Shelf {
    /// Answers a search.
    ///
    /// # Errors
    /// The server does not answer, or too much matches: the caller looks itself.
    pub(crate) async fn search(&self, call: &Search) -> Result<Found, String> {
        if !self.is_ready() {
            return Err("Meilisearch is away".to_owned());
        }
        // First how far it is, then what there is: it can only have become more.
        let covered = self.reached.covered(call.account).0;
        let forgotten = self.reached.forgotten();
        let mut all = Vec::with_capacity(call.matches.len());
        let mut scores: Hits = HashMap::new();
        for one in &call.matches {
            let (found, weights) = self.answer(call.account, one).await?;
            if call.scores {
                for id in &found {
                    *scores.entry(id).or_insert(0.0) += weights.get(&id).copied().unwrap_or(1.0);
                }
            }
            let mut octets = Vec::with_capacity(found.serialized_size());
            found
                .serialize_into(&mut octets)
                .map_err(|error| error.to_string())?;
            all.push(octets.into());
        }
        if self.reached.forgotten() != forgotten {
            return Err("the index changed meanwhile".to_owned());
        }
        Ok(Found {
            covered,
            hits: all,
            scores: rank(scores),
        })
    }

    async fn answer(
        &self,
        account: AccountId,
        one: &Match,
    ) -> Result<(RoaringTreemap, Hits), String> {
        let (looked, open) = looked_for(one, self.config.word_length);
        let places = places(one.field);
        if looked.is_empty() {
            // Nothing but signs: they are in no index, so they exclude nothing.
            let all = self.contents(account).await?;
            return Ok((all.into_iter().map(|id| id.0).collect(), Hits::new()));
        }
        match one.mode {
            Mode::Words => Ok((
                self.words(account, places, &looked, open).await?,
                Hits::new(),
            )),
            Mode::Fuzzy => self.fuzzy(account, places, &looked).await,
        }
    }

    fn query(&self, account: AccountId, words: &str, attributes: &[&str]) -> Value {
        json!({
            "indexUid": self.uid, "q": words, "filter": format!("account = {}", account.0),
            "attributesToSearchOn": attributes, "attributesToRetrieve": ["content"],
            "matchingStrategy": "all", "limit": self.config.meilisearch.results, "showRankingScore": true,
        })
    }

    /// What some queries find, one beside the other.
    async fn ask_all(&self, queries: &[Value]) -> Result<Vec<Hits>, String> {
        let asked = json!({ "queries": queries });
        let answer = self
            .api
            .ask(Method::POST, "/multi-search", Some(&asked))
            .await;
        let answer = self.noted(answer)?;
        let results = answer.get("results").and_then(Value::as_array);
        let limit = self.config.meilisearch.results;
        let found = results
            .into_iter()
            .flatten()
            .map(|result| hits(result, limit))
            .collect::<Result<Vec<_>, _>>()?;
        if found.len() == queries.len() {
            Ok(found)
        } else {
            Err("Meilisearch: an answer with results missing".to_owned())
        }
    }

    /// The words one after the other; if `open`, the last one may go on.
    async fn words(
        &self,
        account: AccountId,
        places: &[Place],
        looked: &[Word],
        open: bool,
    ) -> Result<RoaringTreemap, String> {
        let names: Vec<&str> = places.iter().map(|place| place.name()).collect();
        let words: Vec<String> = looked
            .iter()
            .map(|word| spelt(&word.text, word.paired))
            .collect();
        let query = |text: String| self.query(account, &text, &names);
        let begin = words.get(..QUERY_WORDS.min(words.len())).unwrap_or(&words);
        let (queries, sure) = match begin.split_last() {
            Some((last, [])) if open => (vec![query(last.clone())], true),
            Some((last, first)) if open && begin.len() == words.len() => {
                let may = format!("{} {last}", quoted(first));
                (vec![query(quoted(begin)), query(may)], false)
            }
            _ => (vec![query(quoted(begin))], begin.len() == words.len()),
        };
        let mut found = self.ask_all(&queries).await?;
        let last: RoaringTreemap = found.pop().unwrap_or_default().into_keys().collect();
        if sure {
            return Ok(last);
        }
        let whole: RoaringTreemap = found.pop().unwrap_or_default().into_keys().collect();
        let compared = self
            .compare(account, &names, &words, open, last - &whole)
            .await?;
        Ok(whole | compared)
    }

    /// Those that have the words one after the other.
    async fn compare(
        &self,
        account: AccountId,
        names: &[&str],
        words: &[String],
        open: bool,
        may: RoaringTreemap,
    ) -> Result<RoaringTreemap, String> {
        if may.len() > COMPARED.1 {
            return Err("too much to compare: searched without the index".to_owned());
        }
        let may: Vec<String> = may.iter().map(|id| id.to_string()).collect();
        let mut fields = names.to_vec();
        fields.push("content");
        let mut found = RoaringTreemap::new();
        for part in may.chunks(COMPARED.0) {
            let filter = format!(
                "account = {} AND content IN [{}]",
                account.0,
                part.join(", ")
            );
            let body = json!({ "filter": filter, "fields": fields, "limit": part.len() });
            let answer = self.fetch(&body).await?;
            let documents = answer.get("results").and_then(Value::as_array);
            for document in documents.into_iter().flatten() {
                let pieces = names
                    .iter()
                    .filter_map(|name| document.get(name)?.as_array());
                let has = pieces
                    .flatten()
                    .filter_map(Value::as_str)
                    .any(|piece| has_phrase(piece, words, open));
                if has {
                    found.extend(document.get("content").and_then(Value::as_u64));
                }
            }
        }
        Ok(found)
    }

    /// Contents that have each word in some form, in whatever order (RFC 6203 3).
    async fn fuzzy(
        &self,
        account: AccountId,
        places: &[Place],
        looked: &[Word],
    ) -> Result<(RoaringTreemap, Hits), String> {
        let names: Vec<&str> = places.iter().map(|place| place.name()).collect();
        let mut forms = Vec::new();
        if places.contains(&Place::Body) {
            forms.push(FORMS);
        }
        if places
            .iter()
            .any(|place| matches!(place, Place::Head | Place::Subject))
        {
            forms.push(SUBJECT_FORMS);
        }
        let mut all: Option<RoaringTreemap> = None;
        let mut weights = Hits::new();
        for word in looked {
            let own = spelt(&word.text, word.paired);
            let mut queries =
                vec![self.query(account, &quoted(std::slice::from_ref(&own)), &names)];
            if !forms.is_empty() && !word.paired {
                // The space ends the word: it is not the beginning of one. Without quotes a slip in it is forgiven.
                queries.push(self.query(account, &format!("{own} "), &forms));
                let stems = words::stems(word).into_iter();
                queries.extend(stems.map(|stem| self.query(account, &quoted(&[stem]), &forms)));
            }
            let mut ids = RoaringTreemap::new();
            let mut best = Hits::new();
            for found in self.ask_all(&queries).await? {
                for (id, score) in found {
                    ids.insert(id);
                    let known = best.entry(id).or_insert(0.0);
                    *known = known.max(score);
                }
            }
            for (id, score) in best {
                *weights.entry(id).or_insert(0.0) += score;
            }
            all = Some(match all {
                Some(all) => all & ids,
                None => ids,
            });
        }
        Ok((all.unwrap_or_default(), weights))
    }
}
