//! What a search answers with (RFC 9051 7.3.4).

use imap::{Names, Page, ReturnOptions, put};

/// What was found, as it is told.
pub(super) struct Answer<'a> {
    /// Of the command.
    pub(super) tag: &'a str,
    /// The mailbox and its UIDVALIDITY, where it is not the selected one (RFC 7377 2.1).
    pub(super) place: Option<(&'a str, u32)>,
    /// The numbers are UIDs.
    pub(super) uid: bool,
    /// What was asked for.
    pub(super) returns: ReturnOptions,
    /// The messages.
    pub(super) numbers: &'a [u32],
    /// How well each fits, 1 to 100 (RFC 6203 4); none if that was not asked for.
    pub(super) scores: &'a [u8],
    /// Where the search was for modseqs.
    pub(super) modseq: Option<u64>,
    /// The numbers stand in the order of a SORT, and stay so (RFC 5267 3.2).
    pub(super) ordered: bool,
}

impl Answer<'_> {
    /// Writes the response; nothing if nothing is to be answered.
    pub(super) fn put(&self, out: &mut Vec<u8>, names: Names) {
        let (returns, numbers) = (self.returns, self.numbers);
        if !returns.has_answer() {
            return;
        }
        self.put_head(out, names);
        let ends = [
            (returns.min, " MIN ", numbers.first()),
            (returns.max, " MAX ", numbers.last()),
        ];
        for (wanted, name, number) in ends {
            if let Some(number) = number.filter(|_| wanted) {
                put::text(out, name);
                put::number(out, u64::from(*number));
            }
        }
        if returns.all && !numbers.is_empty() {
            put::text(out, " ALL ");
            put_numbers(out, numbers, self.ordered);
        }
        if let Some(page) = returns.partial {
            put_partial(out, page, page.of(numbers), self.ordered);
        }
        if returns.count {
            put::text(out, " COUNT ");
            put::number(out, numbers.len() as u64);
        }
        if returns.relevancy {
            // RFC 6203 6: of a page, its own
            let scores = returns
                .partial
                .map_or(self.scores, |page| page.of(self.scores));
            put_scores(out, scores);
        }
        if let Some(modseq) = self.modseq {
            put::text(out, " MODSEQ ");
            put::number(out, modseq);
        }
        put::text(out, "\r\n");
    }

    fn put_head(&self, out: &mut Vec<u8>, names: Names) {
        put::text(out, "* ESEARCH (TAG ");
        put::string(out, self.tag.as_bytes());
        if let Some((mailbox, uidvalidity)) = self.place {
            put::text(out, " MAILBOX ");
            names.put(out, mailbox);
            put::text(out, " UIDVALIDITY ");
            put::number(out, u64::from(uidvalidity));
        }
        put::text(out, ")");
        if self.uid {
            put::text(out, " UID");
        }
    }
}

/// RFC 4731 3.2: the highest MODSEQ of those found; of the messages that are named, where only some are. `modseqs` are in the
/// order of what was found.
pub(super) fn shown_modseq(returns: Option<ReturnOptions>, modseqs: &[u64]) -> Option<u64> {
    match returns.filter(ReturnOptions::names_some) {
        Some(returns) => returns.named(modseqs).max().copied(),
        None => modseqs.iter().max().copied(),
    }
}

/// The UIDs that `$` is to mean, ascending; `uids` are in the order of the result. RFC 9394 3.2 has the table.
pub(super) fn saves(returns: ReturnOptions, uids: Vec<u32>) -> Vec<u32> {
    let mut saved = match returns.names_some() {
        true => returns.named(&uids).copied().collect(),
        false => uids,
    };
    saved.sort_unstable();
    saved.dedup();
    saved
}

fn put_numbers(out: &mut Vec<u8>, numbers: &[u32], ordered: bool) {
    if ordered {
        let single: Vec<(u32, u32)> = numbers.iter().map(|number| (*number, *number)).collect();
        put::set(out, &single);
    } else {
        put::set(out, &imap::from_numbers(numbers.iter().copied()));
    }
}

fn put_scores(out: &mut Vec<u8>, scores: &[u8]) {
    put::text(out, " RELEVANCY (");
    for (at, score) in scores.iter().enumerate() {
        if at > 0 {
            out.push(b' ');
        }
        put::number(out, u64::from(*score));
    }
    put::text(out, ")");
}

/// RFC 9394 3.1: the range, and what is in it; NIL if nothing is.
fn put_partial(out: &mut Vec<u8>, page: Page, numbers: &[u32], ordered: bool) {
    let sign = if page.from_end { "-" } else { "" };
    let range = format!(" PARTIAL ({sign}{}:{sign}{} ", page.low, page.high);
    put::text(out, &range);
    match numbers {
        [] => put::text(out, "NIL"),
        numbers => put_numbers(out, numbers, ordered),
    }
    put::text(out, ")");
}

/// RFC 7162 3.1.6, and sort-data in its section 7.
pub(super) fn put_modseq(out: &mut Vec<u8>, modseq: Option<u64>) {
    if let Some(modseq) = modseq {
        put::text(out, " (MODSEQ ");
        put::number(out, modseq);
        put::text(out, ")");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(
        returns: ReturnOptions,
        numbers: &[u32],
        modseq: Option<u64>,
        ordered: bool,
    ) -> Answer<'_> {
        Answer {
            tag: "a",
            place: None,
            uid: true,
            returns,
            numbers,
            scores: &[],
            modseq,
            ordered,
        }
    }

    /// RFC 6203 4, RFC 7377 2.1
    #[test]
    fn scores_and_the_mailbox_are_told() {
        let mut out = Vec::new();
        let returns = ReturnOptions {
            all: true,
            relevancy: true,
            ..ReturnOptions::default()
        };
        let mut one = answer(returns, &[1, 5, 10], None, false);
        one.scores = &[4, 99, 42];
        one.uid = false;
        one.put(&mut out, Names::Utf8);
        one.place = Some(("folder2/banana", 503));
        one.uid = true;
        one.put(&mut out, Names::Utf8);
        assert_eq!(
            String::from_utf8_lossy(&out),
            "* ESEARCH (TAG \"a\") ALL 1,5,10 RELEVANCY (4 99 42)\r\n\
             * ESEARCH (TAG \"a\" MAILBOX \"folder2/banana\" UIDVALIDITY 503) UID ALL 1,5,10 RELEVANCY (4 99 42)\r\n"
        );
    }

    #[test]
    fn modseq_is_of_the_messages_that_are_named() {
        let shown = |min, max, all, count| {
            let returns = ReturnOptions {
                min,
                max,
                all,
                count,
                save: true,
                ..ReturnOptions::default()
            };
            shown_modseq(Some(returns), &[5, 9, 7])
        };
        assert_eq!(shown(true, false, false, false), Some(5));
        assert_eq!(shown(false, true, false, false), Some(7));
        assert_eq!(shown(true, true, false, false), Some(7));
        assert_eq!(shown(true, false, false, true), Some(9));
        assert_eq!(shown(true, true, true, false), Some(9));
        assert_eq!(shown(false, false, false, false), Some(9));
        assert_eq!(shown_modseq(None, &[5, 9, 7]), Some(9));
        assert_eq!(shown_modseq(None, &[]), None);
    }

    #[test]
    fn esearch_tells_what_was_asked() {
        let written = |returns, numbers: &[u32], modseq| {
            let mut out = Vec::new();
            answer(returns, numbers, modseq, false).put(&mut out, Names::Utf8);
            String::from_utf8_lossy(&out).into_owned()
        };
        let all = ReturnOptions {
            min: true,
            max: true,
            all: true,
            count: true,
            ..ReturnOptions::default()
        };
        assert_eq!(
            written(all, &[2, 3, 4, 9], Some(7)),
            "* ESEARCH (TAG \"a\") UID MIN 2 MAX 9 ALL 2:4,9 COUNT 4 MODSEQ 7\r\n"
        );
        assert_eq!(
            written(all, &[], None),
            "* ESEARCH (TAG \"a\") UID COUNT 0\r\n"
        );
        assert_eq!(
            written(
                ReturnOptions {
                    save: true,
                    ..ReturnOptions::default()
                },
                &[1],
                None
            ),
            ""
        );
    }

    fn paged(low: u32, high: u32, from_end: bool) -> ReturnOptions {
        ReturnOptions {
            partial: Some(Page {
                from_end,
                low,
                high,
            }),
            ..ReturnOptions::default()
        }
    }

    #[test]
    fn a_page_is_told_with_its_range() {
        let written = |returns, ordered| {
            let mut out = Vec::new();
            answer(returns, &[9, 3, 4, 5], None, ordered).put(&mut out, Names::Utf8);
            String::from_utf8_lossy(&out).into_owned()
        };
        let begin = "* ESEARCH (TAG \"a\") UID PARTIAL";
        assert_eq!(
            written(paged(2, 4, false), false),
            format!("{begin} (2:4 3:5)\r\n")
        );
        assert_eq!(
            written(paged(1, 2, true), true),
            format!("{begin} (-1:-2 4,5)\r\n")
        );
        assert_eq!(
            written(paged(5, 9, false), false),
            format!("{begin} (5:9 NIL)\r\n")
        );
    }

    #[test]
    fn what_is_named_is_saved() {
        let found = || vec![9, 3, 4, 5, 8];
        let page = paged(2, 3, false);
        assert_eq!(saves(page, found()), [3, 4]);
        let with = |min, max, count| ReturnOptions {
            min,
            max,
            count,
            ..page
        };
        assert_eq!(saves(with(true, false, false), found()), [3, 4, 9]);
        assert_eq!(saves(with(true, true, false), found()), [3, 4, 8, 9]);
        assert_eq!(saves(with(true, true, true), found()), [3, 4, 5, 8, 9]);
        assert_eq!(shown_modseq(Some(page), &[9, 3, 4, 5, 8]), Some(4));
        assert_eq!(shown_modseq(Some(paged(9, 9, false)), &[9, 3]), None);
    }
}
