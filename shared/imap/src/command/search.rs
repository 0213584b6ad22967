//! SEARCH (RFC 9051 6.4.4, RFC 3501 6.4.4, RFC 7162 3.1.5, RFC 5032, RFC 8514 4.3, RFC 9394 3.1,
//! RFC 6203, RFC 5267 4), and ESEARCH (RFC 7377).

use super::fetch::Page;
use super::notify::{self, MailboxFilter};
use crate::cursor::{Cursor, Parse, upper};
use crate::{Refusal, RefusalKind, SequenceNumber, SequenceSet, date, flag};

/// Parentheses, NOT and OR inside each other.
const DEPTH_MAX: usize = 64;

/// SEARCH or UID SEARCH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Search {
    /// The answer holds UIDs.
    pub uid: bool,
    /// RETURN: the answer is ESEARCH. An empty list means ALL.
    pub returns: Option<ReturnOptions>,
    /// The criterion; several are one [`SearchKey::And`].
    pub key: SearchKey,
}

/// ESEARCH: a search of several mailboxes (RFC 7377).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MultiSearch {
    /// In which; without IN the selected one.
    pub sources: Vec<MailboxFilter>,
    /// RETURN; without it ALL.
    pub returns: ReturnOptions,
    /// The criterion.
    pub key: SearchKey,
}

impl MultiSearch {
    /// Whether it is about the selected mailbox and no other one.
    pub fn only_selected(&self) -> bool {
        let selected = |source: &MailboxFilter| *source == MailboxFilter::Selected;
        self.sources.iter().all(selected)
    }
}

/// RETURN options (RFC 9051 6.4.4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReturnOptions {
    /// MIN
    pub min: bool,
    /// MAX
    pub max: bool,
    /// ALL
    pub all: bool,
    /// COUNT
    pub count: bool,
    /// SAVE (RFC 9051 6.4.4.1)
    pub save: bool,
    /// PARTIAL (RFC 9394 3.1); never together with ALL.
    pub partial: Option<Page>,
    /// RELEVANCY: how well each result fits (RFC 6203 4).
    pub relevancy: bool,
    /// UPDATE: changes of the result are told (RFC 5267 4.3).
    pub update: bool,
}

impl ReturnOptions {
    /// Whether there is an answer at all: SAVE and UPDATE have none of their own.
    pub fn has_answer(&self) -> bool {
        let silent = Self {
            save: self.save,
            update: self.update,
            ..Self::default()
        };
        *self != silent
    }

    /// Whether the answer names some of the results only: MIN, MAX and PARTIAL without ALL and COUNT. Then what is saved
    /// (RFC 9394 3.2) and the MODSEQ of the answer (RFC 4731 3.2) are those of the named ones.
    pub fn names_some(&self) -> bool {
        (self.min || self.max || self.partial.is_some()) && !self.all && !self.count
    }

    /// Those of `results`, in their order, that MIN, MAX and PARTIAL name.
    pub fn named<'a, T>(&self, results: &'a [T]) -> impl Iterator<Item = &'a T> + use<'a, T> {
        let min = results.first().filter(|_| self.min);
        let max = results.last().filter(|_| self.max);
        let page = self.partial.map_or(&[][..], |page| page.of(results));
        min.into_iter().chain(page).chain(max)
    }
}

/// A criterion. Days are since 1970-01-01.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SearchKey {
    /// ALL
    All,
    /// All of them.
    And(Vec<SearchKey>),
    /// One of them.
    Or(Box<SearchKey>, Box<SearchKey>),
    /// NOT
    Not(Box<SearchKey>),
    /// FUZZY: text that is nearly the same counts, too (RFC 6203 3).
    Fuzzy(Box<SearchKey>),
    /// A set of sequence numbers; `$` too.
    Sequence(SequenceSet),
    /// UID and a set of UIDs.
    Uid(SequenceSet),
    /// ANSWERED, DELETED, DRAFT, FLAGGED, SEEN, KEYWORD; their opposites are inside a NOT.
    Flag(String),
    /// RECENT (RFC 3501). NEW is RECENT and not \Seen, OLD is not RECENT.
    Recent,
    /// BEFORE: INTERNALDATE is earlier than that day.
    Before(i32),
    /// ON
    On(i32),
    /// SINCE: that day or later.
    Since(i32),
    /// SAVEDBEFORE: it came into this mailbox earlier than that day (RFC 8514 4.3).
    SavedBefore(i32),
    /// SAVEDON
    SavedOn(i32),
    /// SAVEDSINCE: that day or later.
    SavedSince(i32),
    /// SAVEDATESUPPORTED: everything where the mailbox keeps save dates.
    SaveDateSupported,
    /// SENTBEFORE: the Date field.
    SentBefore(i32),
    /// SENTON
    SentOn(i32),
    /// SENTSINCE
    SentSince(i32),
    /// LARGER, in octets.
    Larger(u64),
    /// SMALLER
    Smaller(u64),
    /// OLDER: by at least that many seconds (RFC 5032).
    Older(u32),
    /// YOUNGER: by at most that many seconds.
    Younger(u32),
    /// MODSEQ: that or above. With an entry it is the same, since flags have no modseqs of their own.
    ModSeq(u64),
    /// BCC, CC, FROM, SUBJECT, TO, HEADER: the field's name and what it contains; anything if that is empty.
    Header(String, String),
    /// BODY
    Body(String),
    /// TEXT
    Text(String),
    /// EMAILID (RFC 8474)
    EmailId(String),
    /// THREADID (RFC 8474)
    ThreadId(String),
}

impl SearchKey {
    /// Whether it, or one inside it, is `wanted`.
    pub fn any(&self, wanted: &impl Fn(&Self) -> bool) -> bool {
        wanted(self)
            || match self {
                Self::And(keys) => keys.iter().any(|key| key.any(wanted)),
                Self::Or(one, other) => one.any(wanted) || other.any(wanted),
                Self::Not(key) | Self::Fuzzy(key) => key.any(wanted),
                _ => false,
            }
    }
}

pub(super) fn parse(cursor: &mut Cursor<'_>, uid: bool) -> Parse<Search> {
    cursor.space()?;
    let returns = returns(cursor)?;
    let key = program(cursor, returns)?;
    Ok(Search { uid, returns, key })
}

/// RFC 7377 2: ESEARCH.
pub(super) fn multi(cursor: &mut Cursor<'_>) -> Parse<MultiSearch> {
    cursor.space()?;
    let mut sources = vec![MailboxFilter::Selected];
    if cursor.eat_word("IN") {
        cursor.space()?;
        sources = cursor.list(|cursor| match cursor.peek() {
            Some(b'(') => Err(Refusal::bad("There are no scope options")),
            _ => notify::filter(cursor),
        })?;
        cursor.space()?;
    }
    // RFC 7377 2.2
    if sources.is_empty() || sources.contains(&MailboxFilter::SelectedDelayed) {
        return Err(Refusal::bad(
            "ESEARCH searches in some mailboxes, not SELECTED-DELAYED",
        ));
    }
    let returns = returns(cursor)?;
    let key = program(cursor, returns)?;
    let all = ReturnOptions {
        all: true,
        ..ReturnOptions::default()
    };
    let search = MultiSearch {
        sources,
        returns: returns.unwrap_or(all),
        key,
    };
    let of_selected = |key: &SearchKey| matches!(key, SearchKey::Sequence(_));
    match search.only_selected() {
        // RFC 7377 2.1, 2.2: both mean something in the selected mailbox only
        false if search.returns.save || search.key.any(&of_selected) => Err(Refusal::bad(
            "SAVE, $ and sequence numbers are for the selected mailbox only",
        )),
        _ => Ok(search),
    }
}

/// What is looked for, perhaps with a character set before it.
fn program(cursor: &mut Cursor<'_>, returns: Option<ReturnOptions>) -> Parse<SearchKey> {
    if cursor.eat_word("CHARSET") {
        cursor.space()?;
        charset(cursor, returns)?;
        cursor.space()?;
    }
    let key = keys(cursor)?;
    fuzzy_enough(returns.is_some_and(|returns| returns.relevancy), &key)?;
    Ok(key)
}

/// RFC 6203 4, 6: without FUZZY nothing has a relevancy.
pub(super) fn fuzzy_enough(asked: bool, key: &SearchKey) -> Parse<()> {
    let fuzzy = |key: &SearchKey| matches!(key, SearchKey::Fuzzy(_));
    match asked && !key.any(&fuzzy) {
        true => Err(Refusal::bad("RELEVANCY needs a FUZZY search key")),
        false => Ok(()),
    }
}

/// RFC 9051 6.4.4: both are UTF-8.
pub(super) fn charset(cursor: &mut Cursor<'_>, returns: Option<ReturnOptions>) -> Parse<()> {
    let charset = cursor.astring()?;
    if ["UTF-8", "UTF8", "US-ASCII"]
        .iter()
        .any(|known| charset.eq_ignore_ascii_case(known.as_bytes()))
    {
        return Ok(());
    }
    Err(Refusal {
        kind: RefusalKind::Charset {
            saves: returns.is_some_and(|returns| returns.save),
        },
        text: "The character set is not supported",
    })
}

/// All criteria up to the end.
pub(super) fn keys(cursor: &mut Cursor<'_>) -> Parse<SearchKey> {
    let mut keys = vec![key(cursor, 0)?];
    while !cursor.at_end() {
        cursor.space()?;
        keys.push(key(cursor, 0)?);
    }
    Ok(match keys.pop() {
        Some(only) if keys.is_empty() => only,
        last => SearchKey::And(keys.into_iter().chain(last).collect()),
    })
}

/// RETURN with its options, if it is there, and the space behind it.
pub(super) fn returns(cursor: &mut Cursor<'_>) -> Parse<Option<ReturnOptions>> {
    if !cursor.eat_word("RETURN") {
        return Ok(None);
    }
    cursor.space()?;
    let options = return_options(cursor)?;
    cursor.space()?;
    Ok(Some(options))
}

fn return_options(cursor: &mut Cursor<'_>) -> Parse<ReturnOptions> {
    let mut options = ReturnOptions::default();
    cursor.list(|cursor| {
        match cursor.word()?.as_str() {
            "MIN" => options.min = true,
            "MAX" => options.max = true,
            "ALL" => options.all = true,
            "COUNT" => options.count = true,
            "SAVE" => options.save = true,
            "RELEVANCY" => options.relevancy = true,
            "UPDATE" => options.update = true,
            // RFC 5267 4.2: that the search will come again; results are not kept
            "CONTEXT" => {}
            "PARTIAL" if options.partial.is_none() => {
                cursor.space()?;
                options.partial = Some(Page::parse(cursor)?);
            }
            _ => return Err(Refusal::bad("There is no such return option of SEARCH")),
        }
        Ok(())
    })?;
    // RFC 9394 3.1: one PARTIAL or one ALL
    if options.all && options.partial.is_some() {
        return Err(Refusal::bad("PARTIAL and ALL exclude each other"));
    }
    // RFC 9051 6.4.4: no options mean ALL
    if options == ReturnOptions::default() {
        options.all = true;
    }
    Ok(options)
}

/// UIDs from one to another; nothing if there can be none.
fn uids(from: Option<u32>, to: Option<u32>) -> SearchKey {
    match (from, to) {
        (Some(from), Some(to)) if from <= to => {
            let ends = (SequenceNumber::Number(from), SequenceNumber::Number(to));
            SearchKey::Uid(SequenceSet::Ranges(vec![ends]))
        }
        _ => not(SearchKey::All),
    }
}

fn not(key: SearchKey) -> SearchKey {
    SearchKey::Not(Box::new(key))
}

fn key(cursor: &mut Cursor<'_>, depth: usize) -> Parse<SearchKey> {
    if depth > DEPTH_MAX {
        return Err(Refusal::bad("The search is nested too deeply"));
    }
    match cursor.peek() {
        Some(b'(') => {
            let mut keys = cursor.list(|cursor| key(cursor, depth + 1))?;
            return match keys.pop() {
                None => Err(Refusal::bad("A search key is missing")),
                Some(only) if keys.is_empty() => Ok(only),
                Some(last) => {
                    keys.push(last);
                    Ok(SearchKey::And(keys))
                }
            };
        }
        Some(b'0'..=b'9' | b'*' | b'$') => {
            return Ok(SearchKey::Sequence(SequenceSet::parse(cursor)?));
        }
        _ => {}
    }
    let name = upper(cursor.atom()?);
    if let Some(key) = bare(&name) {
        return Ok(key);
    }
    match name.as_str() {
        "NOT" => {
            cursor.space()?;
            Ok(not(key(cursor, depth + 1)?))
        }
        "FUZZY" => {
            cursor.space()?;
            Ok(SearchKey::Fuzzy(Box::new(key(cursor, depth + 1)?)))
        }
        "OR" => {
            cursor.space()?;
            let one = key(cursor, depth + 1)?;
            cursor.space()?;
            let other = key(cursor, depth + 1)?;
            Ok(SearchKey::Or(Box::new(one), Box::new(other)))
        }
        _ => with_argument(&name, cursor),
    }
}

/// Keys without an argument.
fn bare(name: &str) -> Option<SearchKey> {
    let flag = |name: &str| SearchKey::Flag(name.to_owned());
    Some(match name {
        "ALL" => SearchKey::All,
        "ANSWERED" => flag("\\Answered"),
        "DELETED" => flag("\\Deleted"),
        "DRAFT" => flag("\\Draft"),
        "FLAGGED" => flag("\\Flagged"),
        "SEEN" => flag("\\Seen"),
        "UNANSWERED" => not(flag("\\Answered")),
        "UNDELETED" => not(flag("\\Deleted")),
        "UNDRAFT" => not(flag("\\Draft")),
        "UNFLAGGED" => not(flag("\\Flagged")),
        "UNSEEN" => not(flag("\\Seen")),
        "RECENT" => SearchKey::Recent,
        "SAVEDATESUPPORTED" => SearchKey::SaveDateSupported,
        "OLD" => not(SearchKey::Recent),
        "NEW" => SearchKey::And(vec![SearchKey::Recent, not(flag("\\Seen"))]),
        _ => return None,
    })
}

fn with_argument(name: &str, cursor: &mut Cursor<'_>) -> Parse<SearchKey> {
    cursor
        .space()
        .map_err(|_| Refusal::bad("There is no such search key, or its argument is missing"))?;
    Ok(match name {
        "KEYWORD" => SearchKey::Flag(keyword(cursor)?),
        "UNKEYWORD" => not(SearchKey::Flag(keyword(cursor)?)),
        "UID" => SearchKey::Uid(SequenceSet::parse(cursor)?),
        // RFC 9738 3.2
        "UIDAFTER" => uids(cursor.positive()?.checked_add(1), Some(u32::MAX)),
        "UIDBEFORE" => uids(Some(1), cursor.positive()?.checked_sub(1)),
        "BEFORE" => SearchKey::Before(date::parse_day(cursor)?),
        "ON" => SearchKey::On(date::parse_day(cursor)?),
        "SINCE" => SearchKey::Since(date::parse_day(cursor)?),
        "SAVEDBEFORE" => SearchKey::SavedBefore(date::parse_day(cursor)?),
        "SAVEDON" => SearchKey::SavedOn(date::parse_day(cursor)?),
        "SAVEDSINCE" => SearchKey::SavedSince(date::parse_day(cursor)?),
        "SENTBEFORE" => SearchKey::SentBefore(date::parse_day(cursor)?),
        "SENTON" => SearchKey::SentOn(date::parse_day(cursor)?),
        "SENTSINCE" => SearchKey::SentSince(date::parse_day(cursor)?),
        "LARGER" => SearchKey::Larger(cursor.number64()?),
        "SMALLER" => SearchKey::Smaller(cursor.number64()?),
        "OLDER" => SearchKey::Older(cursor.positive()?),
        "YOUNGER" => SearchKey::Younger(cursor.positive()?),
        "MODSEQ" => mod_seq(cursor)?,
        "BCC" | "CC" | "FROM" | "SUBJECT" | "TO" => {
            SearchKey::Header(name.to_ascii_lowercase(), cursor.text()?)
        }
        "HEADER" => {
            let field = cursor.text()?;
            cursor.space()?;
            SearchKey::Header(field.to_ascii_lowercase(), cursor.text()?)
        }
        "BODY" => SearchKey::Body(cursor.text()?),
        "TEXT" => SearchKey::Text(cursor.text()?),
        "EMAILID" => SearchKey::EmailId(cursor.text()?),
        "THREADID" => SearchKey::ThreadId(cursor.text()?),
        _ => return Err(Refusal::bad("There is no such search key")),
    })
}

fn keyword(cursor: &mut Cursor<'_>) -> Parse<String> {
    Ok(flag::canonical(&String::from_utf8_lossy(cursor.atom()?)))
}

/// RFC 7162 3.1.5: an entry name and its type may stand before the number.
fn mod_seq(cursor: &mut Cursor<'_>) -> Parse<SearchKey> {
    if cursor.peek() == Some(b'"') {
        cursor.string()?;
        cursor.space()?;
        match cursor.word()?.as_str() {
            "PRIV" | "SHARED" | "ALL" => cursor.space()?,
            _ => return Err(Refusal::bad("MODSEQ has an entry of an unknown type")),
        }
    }
    Ok(SearchKey::ModSeq(cursor.number64()?))
}
