//! SORT and THREAD (RFC 5256, RFC 5957, RFC 5267 2).

use super::search::{self, ReturnOptions, SearchKey};
use crate::Refusal;
use crate::cursor::{Cursor, Parse};

/// SORT or UID SORT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sort {
    /// The answer holds UIDs.
    pub uid: bool,
    /// RETURN (ESORT): the answer is ESEARCH.
    pub returns: Option<ReturnOptions>,
    /// By what, the weightiest first; never empty.
    pub by: Vec<SortKey>,
    /// Which messages.
    pub key: SearchKey,
}

/// By what is sorted, and whether downwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SortKey {
    /// REVERSE
    pub reverse: bool,
    /// The criterion.
    pub by: SortBy,
}

/// What is compared (RFC 5256 3, RFC 5957 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortBy {
    /// INTERNALDATE
    Arrival,
    /// Local part of the first Cc.
    Cc,
    /// The date it was sent.
    Date,
    /// Local part of the first From.
    From,
    /// RFC822.SIZE
    Size,
    /// Base subject.
    Subject,
    /// Local part of the first To.
    To,
    /// What is shown of the first From.
    DisplayFrom,
    /// What is shown of the first To.
    DisplayTo,
    /// RELEVANCY: what fits best comes first (RFC 6203 6).
    Relevancy,
}

/// THREAD or UID THREAD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thread {
    /// The answer holds UIDs.
    pub uid: bool,
    /// How.
    pub algorithm: Threading,
    /// Which messages.
    pub key: SearchKey,
}

/// Threading algorithms (RFC 5256 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threading {
    /// ORDEREDSUBJECT
    OrderedSubject,
    /// REFERENCES
    References,
}

/// Criteria in one SORT.
const KEYS_MAX: usize = 20;

pub(super) fn sort(cursor: &mut Cursor<'_>, uid: bool) -> Parse<Sort> {
    cursor.space()?;
    let returns = search::returns(cursor)?;
    let mut words = Vec::new();
    cursor.list(|cursor| {
        words.push(cursor.word()?);
        Ok(())
    })?;
    let mut by = Vec::new();
    let mut reverse = false;
    for word in words {
        let one = match word.as_str() {
            "REVERSE" if !reverse => {
                reverse = true;
                continue;
            }
            "ARRIVAL" => SortBy::Arrival,
            "CC" => SortBy::Cc,
            "DATE" => SortBy::Date,
            "FROM" => SortBy::From,
            "SIZE" => SortBy::Size,
            "SUBJECT" => SortBy::Subject,
            "TO" => SortBy::To,
            "DISPLAYFROM" => SortBy::DisplayFrom,
            "DISPLAYTO" => SortBy::DisplayTo,
            "RELEVANCY" => SortBy::Relevancy,
            _ => return Err(Refusal::bad("There is no such sort criterion")),
        };
        by.push(SortKey { reverse, by: one });
        reverse = false;
    }
    if by.is_empty() || by.len() > KEYS_MAX || reverse {
        return Err(Refusal::bad("SORT needs criteria"));
    }
    cursor.space()?;
    search::charset(cursor, returns)?;
    cursor.space()?;
    let key = search::keys(cursor)?;
    let scored = by.iter().any(|key| key.by == SortBy::Relevancy);
    let returned = returns.is_some_and(|returns| returns.relevancy);
    search::fuzzy_enough(scored || returned, &key)?;
    Ok(Sort {
        uid,
        returns,
        by,
        key,
    })
}

pub(super) fn thread(cursor: &mut Cursor<'_>, uid: bool) -> Parse<Thread> {
    cursor.space()?;
    let algorithm = match cursor.word()?.as_str() {
        "ORDEREDSUBJECT" => Threading::OrderedSubject,
        "REFERENCES" => Threading::References,
        _ => return Err(Refusal::bad("There is no such threading algorithm")),
    };
    cursor.space()?;
    search::charset(cursor, None)?;
    cursor.space()?;
    let key = search::keys(cursor)?;
    Ok(Thread {
        uid,
        algorithm,
        key,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::{Command, Names, parse};

    fn command(line: &str) -> Command {
        parse(line.as_bytes(), Names::Utf8).unwrap().command
    }

    #[test]
    fn the_rfcs_own_lines_are_read() {
        let Command::Sort(sort) = command("A282 SORT (SUBJECT REVERSE DATE) UTF-8 ALL") else {
            panic!("no SORT")
        };
        assert_eq!(sort.by.len(), 2);
        assert!(
            sort.by
                .iter()
                .any(|key| key.reverse && key.by == SortBy::Date)
        );
        let line = "A285 UID THREAD REFERENCES UTF-8 SINCE 5-MAR-2000 TEXT \"gewp\"";
        let Command::Thread(thread) = command(line) else {
            panic!("no THREAD")
        };
        assert!(thread.uid && thread.algorithm == Threading::References);
        let Command::Sort(sort) = command("C01 UID SORT RETURN (COUNT ALL) (DATE) UTF-8 UNSEEN")
        else {
            panic!("no SORT")
        };
        assert!(sort.uid && sort.returns.unwrap().count);
        for bad in [
            "a SORT () UTF-8 ALL",
            "a SORT (REVERSE) UTF-8 ALL",
            "a SORT (DATE) ALL",
            "a SORT (DATE) KOI8-R ALL",
            "a THREAD BETTER UTF-8 ALL",
        ] {
            assert!(parse(bad.as_bytes(), Names::Utf8).is_err(), "{bad}");
        }
    }
}
