//! Searches in an index.

use crate::index::Shelf;
use crate::schema::{Place, prefix};
use crate::words::{self, Word};
use ipc::api::indexd::{Field, Found, Match, Mode, Search};
use roaring::RoaringTreemap;
use std::collections::HashMap;
use tantivy::fastfield::AliveBitSet;
use tantivy::query::EnableScoring;
use tantivy::query::{PhrasePrefixQuery, PhraseQuery, Query, Scorer};
use tantivy::schema::IndexRecordOption;
use tantivy::{DocId, DocSet, Searcher, SegmentReader, TERMINATED, Term};
use types::AccountId;

/// Words of one match that are looked at.
const WORDS_MAX: usize = 64;
/// Scores in an answer.
const SCORES_MAX: usize = 10_000;
/// Letters from which on a word may be misspelt.
const MISSPELT_FROM: usize = 5;

/// Calls `each` with the documents that are still there.
pub(crate) fn each_doc(
    mut docs: impl DocSet,
    alive: Option<&AliveBitSet>,
    mut each: impl FnMut(DocId),
) {
    let mut doc = docs.doc();
    while doc != TERMINATED {
        if alive.is_none_or(|alive| alive.is_alive(doc)) {
            each(doc);
        }
        doc = docs.advance();
    }
}

/// The words of a match, and whether the last one may go on.
pub(crate) fn looked_for(one: &Match, length: usize) -> (Vec<Word>, bool) {
    let mut looked = Vec::new();
    words::each(&one.text, length, false, |word| {
        looked.push(word);
        looked.len() < WORDS_MAX
    });
    let open = one
        .text
        .chars()
        .next_back()
        .is_some_and(char::is_alphanumeric);
    (looked, open)
}

/// Where a match looks.
pub(crate) fn places(field: Field) -> &'static [Place] {
    match field {
        Field::Text => &[Place::Head, Place::Body],
        Field::Body => &[Place::Body],
        Field::Subject => &[Place::Subject],
        Field::From => &[Place::From],
        Field::To => &[Place::To],
        Field::Cc => &[Place::Cc],
        Field::Bcc => &[Place::Bcc],
    }
}

/// Answers a search.
pub(crate) fn search(shelf: &Shelf, call: &Search) -> tantivy::Result<Found> {
    // First how far it is, then what there is: it can only have become more.
    let covered = shelf.reached.covered(call.account).0;
    let asked = Asked {
        shelf,
        searcher: shelf.searcher(),
        account: call.account,
        prefix: prefix(call.account),
    };
    let mut hits = Vec::with_capacity(call.matches.len());
    let mut scores = HashMap::new();
    for one in &call.matches {
        let found = asked.answer(one, call.scores.then_some(&mut scores))?;
        let mut octets = Vec::with_capacity(found.serialized_size());
        found.serialize_into(&mut octets)?;
        hits.push(octets.into());
    }
    Ok(Found {
        covered,
        hits,
        scores: rank(scores),
    })
}

/// The best first, as parts of a hundred of the best.
pub(crate) fn rank(scores: HashMap<u64, f32>) -> Vec<(u64, u8)> {
    let mut all: Vec<(u64, f32)> = scores.into_iter().collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    all.truncate(SCORES_MAX);
    let best = all
        .first()
        .map_or(1.0, |best| best.1.max(f32::MIN_POSITIVE));
    all.into_iter()
        .map(|(id, score)| (id, (score / best * 100.0).round().clamp(1.0, 100.0) as u8))
        .collect()
}

struct Asked<'a> {
    shelf: &'a Shelf,
    searcher: Searcher,
    account: AccountId,
    prefix: String,
}

impl Asked<'_> {
    fn answer(
        &self,
        one: &Match,
        scores: Option<&mut HashMap<u64, f32>>,
    ) -> tantivy::Result<RoaringTreemap> {
        let (looked, open) = looked_for(one, self.shelf.config.word_length);
        let places = places(one.field);
        let mut found = RoaringTreemap::new();
        let mut weights = HashMap::new();
        match one.mode {
            // Nothing but signs: they are in no index, so they exclude nothing.
            _ if looked.is_empty() => {
                found.extend(
                    self.shelf
                        .contents(self.account)?
                        .into_iter()
                        .map(|id| id.0),
                );
            }
            Mode::Words => {
                for place in places {
                    self.phrase(*place, &looked, open, &mut found)?;
                }
            }
            Mode::Fuzzy => found = self.fuzzy(places, &looked, &mut weights)?,
        }
        if let Some(scores) = scores {
            for id in &found {
                *scores.entry(id).or_insert(0.0) += weights.get(&id).copied().unwrap_or(1.0);
            }
        }
        Ok(found)
    }

    fn term(&self, place: Place, word: &str) -> Term {
        Term::from_field_text(
            self.shelf.places.of(place),
            &format!("{}{word}", self.prefix),
        )
    }

    /// The words one after the other; if `open`, the last one may go on.
    fn phrase(
        &self,
        place: Place,
        looked: &[Word],
        open: bool,
        found: &mut RoaringTreemap,
    ) -> tantivy::Result<()> {
        if let [word] = looked {
            return self.single(place, &word.text, open, found);
        }
        let terms: Vec<Term> = looked
            .iter()
            .map(|word| self.term(place, &word.text))
            .collect();
        let query: Box<dyn Query> = if open {
            let mut query = PhrasePrefixQuery::new(terms);
            query.set_max_expansions(
                u32::try_from(self.shelf.config.expansions).unwrap_or(u32::MAX),
            );
            Box::new(query)
        } else {
            Box::new(PhraseQuery::new(terms))
        };
        let weight = query.weight(EnableScoring::disabled_from_searcher(&self.searcher))?;
        for segment in self.searcher.segment_readers() {
            let contents = segment.fast_fields().u64("content")?;
            let scorer: Box<dyn Scorer> = weight.scorer(segment, 1.0)?;
            each_doc(scorer, segment.alive_bitset(), |doc| {
                found.extend(contents.first(doc));
            });
        }
        Ok(())
    }

    fn single(
        &self,
        place: Place,
        word: &str,
        open: bool,
        found: &mut RoaringTreemap,
    ) -> tantivy::Result<()> {
        let mut left = self.shelf.config.expansions;
        for segment in self.searcher.segment_readers() {
            let terms = self.terms(
                segment,
                place,
                word,
                |rest| open || rest.is_empty(),
                !open,
                &mut left,
            )?;
            for (_, docs) in terms {
                for (content, _) in docs {
                    found.insert(content);
                }
            }
        }
        Ok(())
    }

    /// The terms that begin with `word` and are wanted, with the contents that have them and how often.
    #[allow(clippy::type_complexity)]
    fn terms(
        &self,
        segment: &SegmentReader,
        place: Place,
        word: &str,
        wanted: impl Fn(&str) -> bool,
        exact: bool,
        left: &mut usize,
    ) -> tantivy::Result<Vec<(String, Vec<(u64, u32)>)>> {
        let inverted = segment.inverted_index(self.shelf.places.of(place))?;
        let contents = segment.fast_fields().u64("content")?;
        let begin = format!("{}{word}", self.prefix).into_bytes();
        let mut end = begin.clone();
        // No UTF-8 has this octet: behind all that begin so. For one term alone, the next possible one.
        end.push(if exact { 0 } else { 0xff });
        let mut stream = inverted.terms().range().ge(&begin).lt(&end).into_stream()?;
        let mut all = Vec::new();
        while stream.advance() {
            let rest = stream.key().get(begin.len()..).unwrap_or_default();
            let rest = String::from_utf8_lossy(rest);
            if !wanted(&rest) {
                continue;
            }
            if *left == 0 {
                break;
            }
            *left -= 1;
            let postings = inverted
                .read_postings_from_terminfo(stream.value(), IndexRecordOption::WithFreqs)?;
            let mut docs = Vec::new();
            let mut postings = postings;
            let mut doc = postings.doc();
            while doc != TERMINATED {
                if segment
                    .alive_bitset()
                    .is_none_or(|alive| alive.is_alive(doc))
                {
                    let often = tantivy::postings::Postings::term_freq(&postings);
                    docs.extend(contents.first(doc).map(|content| (content, often)));
                }
                doc = postings.advance();
            }
            all.push((format!("{word}{rest}"), docs));
        }
        Ok(all)
    }

    /// Contents that have each word in some form, in whatever order (RFC 6203 3).
    fn fuzzy(
        &self,
        places: &[Place],
        looked: &[Word],
        weights: &mut HashMap<u64, f32>,
    ) -> tantivy::Result<RoaringTreemap> {
        let mut all: Option<RoaringTreemap> = None;
        for word in looked {
            let mut found: HashMap<u64, f32> = HashMap::new();
            for place in places {
                self.similar(*place, word, &mut found)?;
            }
            if places.contains(&Place::Body) {
                self.stemmed(Place::Stems, word, &mut found)?;
            }
            if places
                .iter()
                .any(|place| matches!(place, Place::Head | Place::Subject))
            {
                self.stemmed(Place::SubjectStems, word, &mut found)?;
            }
            // Rare words say more.
            let rarity = 1.0
                + (self.searcher.num_docs() as f32 / (1.0 + found.len() as f32))
                    .ln()
                    .max(0.0);
            let ids: RoaringTreemap = found.keys().copied().collect();
            for (id, often) in found {
                *weights.entry(id).or_insert(0.0) += rarity * often / (often + 1.2);
            }
            all = Some(match all {
                Some(all) => all & ids,
                None => ids,
            });
        }
        Ok(all.unwrap_or_default())
    }

    fn stemmed(
        &self,
        place: Place,
        word: &Word,
        found: &mut HashMap<u64, f32>,
    ) -> tantivy::Result<()> {
        for stem in words::stems(word) {
            let mut left = usize::MAX;
            for segment in self.searcher.segment_readers() {
                for (_, docs) in
                    self.terms(segment, place, &stem, str::is_empty, true, &mut left)?
                {
                    for (content, often) in docs {
                        *found.entry(content).or_insert(0.0) += often as f32;
                    }
                }
            }
        }
        Ok(())
    }

    /// The word itself, and those that one slip makes of it; the first letter is taken to be right.
    fn similar(
        &self,
        place: Place,
        word: &Word,
        found: &mut HashMap<u64, f32>,
    ) -> tantivy::Result<()> {
        let letters = word.text.chars().count();
        let slips = letters >= MISSPELT_FROM && !word.paired;
        let end = word.text.chars().next().map_or(0, char::len_utf8);
        let begin = if slips {
            word.text.get(..end).unwrap_or_default()
        } else {
            word.text.as_str()
        };
        let near = |rest: &str| {
            if !slips {
                return rest.is_empty();
            }
            let other = format!("{begin}{rest}");
            other.chars().count().abs_diff(letters) <= 1
                && strsim::osa_distance(&other, &word.text) <= 1
        };
        let mut left = self.shelf.config.expansions;
        for segment in self.searcher.segment_readers() {
            for (other, docs) in self.terms(segment, place, begin, near, !slips, &mut left)? {
                let worth = if other == word.text { 2.0 } else { 0.5 };
                for (content, often) in docs {
                    *found.entry(content).or_insert(0.0) += worth * often as f32;
                }
            }
        }
        Ok(())
    }
}
