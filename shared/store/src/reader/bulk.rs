//! Many rows at a time: SQLite puts columns together, so that there is one row to fetch for thousands. A row by itself
//! costs more on its way from SQLite's thread than in the database.

use crate::Error;
use crate::flags::{Flags, SystemFlags};
use crate::row::MessageRow;
use sql::{Row, Tx, args};
use std::str::FromStr;
use types::{ContentId, EmailId, MailboxId, ModSeq, ThreadId, Uid};

/// Messages in one result.
const MANY: u32 = 4096;

fn damaged(what: &str) -> Error {
    Error::Damaged(format!("the messages of a mailbox: {what}"))
}

/// One column of many messages.
struct Numbers<'a>(std::str::Split<'a, char>);

impl<'a> Numbers<'a> {
    fn new(row: &'a Row, column: usize) -> Result<Self, Error> {
        Ok(Self(row.text(column)?.split(',')))
    }

    fn next<T: FromStr>(&mut self) -> Result<T, Error> {
        let text = self.0.next().ok_or_else(|| damaged("a column is short"))?;
        text.parse().map_err(|_| damaged("no number"))
    }

    /// An integer as it was bound from a `u64`.
    fn next_u64(&mut self) -> Result<u64, Error> {
        self.next().map(i64::cast_unsigned)
    }
}

/// As `SELECT ... WHERE mailbox = ? AND uid >= ? ORDER BY uid`, on SQLite only.
pub(super) async fn messages(
    snapshot: &mut Tx,
    mailbox: MailboxId,
    from: Uid,
    mut take: impl FnMut(MessageRow) + Send,
) -> Result<(), Error> {
    // Keywords are atoms: they have no control characters, but commas they may have.
    let text = format!(
        "SELECT COUNT(*), group_concat(uid), group_concat(flags), group_concat(keywords, char(10)), group_concat(modseq), \
            group_concat(size), group_concat(date), group_concat(saved), group_concat(email), group_concat(thread), \
            group_concat(content)
         FROM (SELECT {} FROM message WHERE mailbox = ? AND uid >= ? ORDER BY uid LIMIT {MANY})",
        MessageRow::COLUMNS
    );
    let mut next = from.0;
    loop {
        let Some(row) = snapshot
            .fetch_optional(&text, args![mailbox.0, next])
            .await?
        else {
            return Ok(());
        };
        let count = row.u32(0)?;
        let Some(last) = each(&row, count, &mut take)?.and_then(|last| last.checked_add(1)) else {
            return Ok(());
        };
        if count < MANY {
            return Ok(());
        }
        next = last;
    }
}

/// Gives the messages to `take`; the last UID.
fn each(row: &Row, count: u32, take: &mut impl FnMut(MessageRow)) -> Result<Option<u32>, Error> {
    if count == 0 {
        return Ok(None);
    }
    let mut uids = Numbers::new(row, 1)?;
    let mut flags = Numbers::new(row, 2)?;
    let mut keywords = row.text(3)?.split('\n');
    let mut modseqs = Numbers::new(row, 4)?;
    let mut sizes = Numbers::new(row, 5)?;
    let mut dates = Numbers::new(row, 6)?;
    let mut saved = Numbers::new(row, 7)?;
    let mut emails = Numbers::new(row, 8)?;
    let mut threads = Numbers::new(row, 9)?;
    let mut contents = Numbers::new(row, 10)?;
    let mut last = 0;
    for _ in 0..count {
        let uid: u32 = uids.next()?;
        if uid <= last {
            return Err(damaged("UIDs out of order"));
        }
        last = uid;
        let keywords = keywords.next().ok_or_else(|| damaged("keywords"))?;
        take(MessageRow {
            uid: Uid(uid),
            flags: Flags {
                system: SystemFlags(flags.next()?),
                keywords: keywords.to_owned(),
            },
            modseq: ModSeq(modseqs.next_u64()?),
            size: sizes.next_u64()?,
            date: dates.next()?,
            saved: saved.next()?,
            email: EmailId(emails.next_u64()?),
            thread: ThreadId(threads.next_u64()?),
            content: ContentId(contents.next_u64()?),
        });
    }
    Ok(Some(last))
}
