//! Many rows at a time: SQLite puts columns together, so that there is one row to fetch for thousands. A row by itself
//! costs more on its way from SQLite's thread than in the database.

use super::contents::{Wanted, reader_hash, unpacked};
use crate::Error;
use crate::flags::{Flags, SystemFlags};
use crate::row::{Content, ContentBody, MessageRow};
use sql::{Db, Row, Tx, args};
use std::str::FromStr;
use types::{AccountId, ContentId, EmailId, MailboxId, ModSeq, ThreadId, Uid};

/// Messages in one result.
const MANY: u32 = 4096;
/// Contents in one result: their descriptions; with their bodies, of which those in the database have 64 KiB at most.
const DESCRIBED: usize = 512;
const WHOLE: usize = 256;

fn damaged(what: &str) -> Error {
    Error::Damaged(format!("the messages of a mailbox: {what}"))
}

/// One column of many rows, if it has numbers.
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

/// One column of many rows, if it has octets: all of them in a row, and how many there are of each.
struct Pieces<'a> {
    lengths: Numbers<'a>,
    octets: &'a [u8],
}

impl<'a> Pieces<'a> {
    /// What [`Pieces::text`] asked for, from this column on.
    fn new(row: &'a Row, column: usize) -> Result<Self, Error> {
        Ok(Self {
            lengths: Numbers::new(row, column)?,
            octets: row.blob_opt(column + 1)?.unwrap_or_default(),
        })
    }

    /// Two columns of a statement. SQLite takes octets for text as they are, whatever they are, and makes octets of it again.
    fn text(column: &str) -> String {
        format!(
            ", group_concat(ifnull(length({column}), -1)), CAST(group_concat(CAST({column} AS TEXT), '') AS BLOB)"
        )
    }

    /// `None`: there is NULL.
    fn next(&mut self) -> Result<Option<&'a [u8]>, Error> {
        let length: i64 = self.lengths.next()?;
        let Ok(length) = usize::try_from(length) else {
            return Ok(None);
        };
        let (piece, rest) = self
            .octets
            .split_at_checked(length)
            .ok_or_else(|| damaged("octets are missing"))?;
        self.octets = rest;
        Ok(Some(piece))
    }

    /// Of a column without NULL.
    fn some(&mut self) -> Result<&'a [u8], Error> {
        self.next()?.ok_or_else(|| damaged("NULL"))
    }
}

/// The contents with these ascending ids, on SQLite only.
pub(super) async fn contents(
    db: &Db,
    account: AccountId,
    ids: &[u64],
    wanted: Wanted,
    mut take: impl FnMut(Content) + Send,
) -> Result<(), Error> {
    let many = if wanted.body { WHOLE } else { DESCRIBED };
    let mut columns = "SELECT COUNT(*), group_concat(id)".to_owned();
    let mut inner = "SELECT c.id AS id".to_owned();
    if wanted.prefix {
        columns.push_str(&Pieces::text("prefix"));
        inner.push_str(", c.prefix AS prefix");
    }
    if wanted.parsed {
        columns.push_str(&Pieces::text("parsed"));
        inner.push_str(", c.parsed AS parsed");
    }
    let mut from = " FROM content c";
    if wanted.body {
        columns.push_str(&Pieces::text("data"));
        columns.push_str(&Pieces::text("hash"));
        columns.push_str(", group_concat(size)");
        inner.push_str(", b.data AS data, b.hash AS hash, b.size AS size");
        from = " FROM content c JOIN body b ON b.id = c.blob_id";
    }
    for part in ids.chunks(many) {
        let (Some(low), Some(high)) = (part.first(), part.last()) else {
            continue;
        };
        let mut args = args![account.0];
        // Where few would be read in vain, a range: one statement for all of them.
        let which = if high - low < (part.len() + part.len() / 8) as u64 {
            args.extend(args![*low, *high]);
            "BETWEEN ? AND ?".to_owned()
        } else {
            let mut list: Vec<sql::Value> = part.iter().map(|id| (*id).into()).collect();
            let count = sql::pad(&mut list);
            args.append(&mut list);
            format!("IN ({})", sql::placeholders(count))
        };
        let text = format!(
            "{columns} FROM ({inner}{from} WHERE c.account = ? AND c.id {which} ORDER BY c.id)"
        );
        if let Some(row) = db.fetch_optional(&text, args).await? {
            each_content(&row, wanted, part, &mut take)?;
        }
    }
    Ok(())
}

/// Gives those contents to `take` whose ids are among these ascending ones.
fn each_content(
    row: &Row,
    wanted: Wanted,
    ids: &[u64],
    take: &mut impl FnMut(Content),
) -> Result<(), Error> {
    let count = row.u32(0)?;
    if count == 0 {
        return Ok(());
    }
    let mut found = Numbers::new(row, 1)?;
    let mut column = 2;
    let mut pieces = |asked: bool| {
        let pieces = asked.then(|| Pieces::new(row, column)).transpose();
        column += if asked { 2 } else { 0 };
        pieces
    };
    let mut prefixes = pieces(wanted.prefix)?;
    let mut parsed = pieces(wanted.parsed)?;
    let mut data = pieces(wanted.body)?;
    let mut hashes = pieces(wanted.body)?;
    let mut sizes = match wanted.body {
        true => Some(Numbers::new(row, column)?),
        false => None,
    };
    for _ in 0..count {
        let id = found.next_u64()?;
        let prefix = prefixes.as_mut().map(Pieces::some).transpose()?;
        let described = parsed.as_mut().map(Pieces::some).transpose()?;
        let body = match (&mut data, &mut hashes, &mut sizes) {
            (Some(data), Some(hashes), Some(sizes)) => {
                Some((data.next()?, hashes.some()?, sizes.next_u64()?))
            }
            _ => None,
        };
        if ids.binary_search(&id).is_err() {
            continue;
        }
        take(Content {
            id: ContentId(id),
            prefix: prefix.unwrap_or_default().to_vec(),
            parsed: described.map(unpacked).transpose()?.unwrap_or_default(),
            body: match body {
                None => ContentBody::None,
                Some((Some(data), ..)) => ContentBody::Octets(unpacked(data)?),
                Some((None, hash, len)) => ContentBody::Outside {
                    blob: reader_hash(hash)?,
                    len,
                },
            },
        });
    }
    Ok(())
}
