//! SEARCH (RFC 9051 6.4.4, RFC 3501 6.4.4, RFC 7162 3.1.5, RFC 5032).

use crate::cursor::{Cursor, Parse, upper};
use crate::{Refusal, RefusalKind, SequenceSet, date, flag};

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
                Self::Not(key) => key.any(wanted),
                _ => false,
            }
    }
}

pub(super) fn parse(cursor: &mut Cursor<'_>, uid: bool) -> Parse<Search> {
    cursor.space()?;
    let mut returns = None;
    if cursor.eat_word("RETURN") {
        cursor.space()?;
        returns = Some(return_options(cursor)?);
        cursor.space()?;
    }
    if cursor.eat_word("CHARSET") {
        cursor.space()?;
        let charset = cursor.astring()?;
        // RFC 9051 6.4.4: both are UTF-8
        if !["UTF-8", "UTF8", "US-ASCII"]
            .iter()
            .any(|known| charset.eq_ignore_ascii_case(known.as_bytes()))
        {
            return Err(Refusal {
                kind: RefusalKind::Charset,
                text: "The character set is not supported",
            });
        }
        cursor.space()?;
    }
    let mut keys = vec![key(cursor, 0)?];
    while !cursor.at_end() {
        cursor.space()?;
        keys.push(key(cursor, 0)?);
    }
    let key = match keys.pop() {
        Some(only) if keys.is_empty() => only,
        last => SearchKey::And(keys.into_iter().chain(last).collect()),
    };
    Ok(Search { uid, returns, key })
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
            _ => return Err(Refusal::bad("There is no such return option of SEARCH")),
        }
        Ok(())
    })?;
    // RFC 9051 6.4.4: no options mean ALL
    if options == ReturnOptions::default() {
        options.all = true;
    }
    Ok(options)
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
        "BEFORE" => SearchKey::Before(date::parse_day(cursor)?),
        "ON" => SearchKey::On(date::parse_day(cursor)?),
        "SINCE" => SearchKey::Since(date::parse_day(cursor)?),
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
