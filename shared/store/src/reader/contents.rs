//! What messages are: parsed structure, trace header, body.

use super::Reader;
use crate::Error;
use crate::row::{Content, ContentBody};
use sql::{Row, args};
use std::collections::HashSet;
use std::ops::Range;
use types::{AccountId, BlobId, ContentId};

/// Which pieces of contents are wanted; what is not asked for is not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// [`Content::prefix`]
    pub prefix: bool,
    /// [`Content::parsed`]
    pub parsed: bool,
    /// [`Content::body`], where it lies in the database.
    pub body: bool,
}

/// Contents at most that are read by one statement and without a transaction: its beginning and end would cost more than they.
const FEW: usize = 8;
/// Contents in a row at least, to be read as one range.
const RUN_MIN: usize = 32;
/// Octets of a body at most: what IMAP can tell of. Also guards the decompression of a damaged row.
const BODY_MAX: usize = u32::MAX as usize;

impl Reader {
    /// Gives the contents with these ids to `take`, in no certain order, as they come. Those that are gone are passed over.
    /// Reads in sets: a thousand cost two or three queries.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn contents(
        &self,
        account: AccountId,
        ids: &[ContentId],
        wanted: Wanted,
        mut take: impl FnMut(Content) + Send,
    ) -> Result<(), Error> {
        let mut sorted: Vec<u64> = ids.iter().map(|id| id.0).collect();
        sorted.sort_unstable();
        sorted.dedup();
        let columns = columns(wanted);
        if sorted.len() <= FEW {
            let (text, args) = listed(&columns, account, &sorted);
            for row in self.db.fetch_all(&text, args).await? {
                take(read(&row, wanted)?);
            }
            return Ok(());
        }
        // Not straight from the pool: only a snapshot looks again when a reader comes between two steps of the writer.
        let mut snapshot = self.db.snapshot().await?;
        let (runs, scattered) = runs(&sorted);
        for run in runs {
            let (Some(low), Some(high)) = (run.first(), run.last()) else {
                continue;
            };
            let wanted_ids: HashSet<u64> = run.iter().copied().collect();
            let text = format!("{columns} WHERE c.account = ? AND c.id BETWEEN ? AND ?");
            let mut rows = snapshot.fetch(&text, args![account.0, *low, *high])?;
            while let Some(row) = rows.next().await? {
                if wanted_ids.contains(&row.u64(0)?) {
                    take(read(&row, wanted)?);
                }
            }
        }
        for part in scattered.chunks(256) {
            let (text, args) = listed(&columns, account, part);
            let mut rows = snapshot.fetch(&text, args)?;
            while let Some(row) = rows.next().await? {
                take(read(&row, wanted)?);
            }
        }
        snapshot.commit().await?;
        Ok(())
    }

    /// One content with all its pieces, the body complete wherever it lies; `None` if it is gone.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn whole(&self, account: AccountId, id: ContentId) -> Result<Option<Content>, Error> {
        let mut found = None;
        let all = Wanted {
            prefix: true,
            parsed: true,
            body: true,
        };
        self.contents(account, &[id], all, |content| found = Some(content))
            .await?;
        let Some(mut content) = found else {
            return Ok(None);
        };
        if let ContentBody::Outside { blob, .. } = content.body {
            content.body = ContentBody::Octets(self.body(blob).await?);
        }
        Ok(Some(content))
    }

    /// A body that lies outside of the database. Get its id from [`Reader::contents`]: that is where the account is checked.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn body(&self, blob: BlobId) -> Result<Vec<u8>, Error> {
        Ok(self.blobs.get(blob).await?)
    }

    /// A piece of a body that lies outside of the database; shorter if the body ends before.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn body_range(&self, blob: BlobId, range: Range<u64>) -> Result<Vec<u8>, Error> {
        Ok(self.blobs.get_range(blob, range).await?)
    }
}

fn columns(wanted: Wanted) -> String {
    let mut text = "SELECT c.id".to_owned();
    if wanted.prefix {
        text.push_str(", c.prefix");
    }
    if wanted.parsed {
        text.push_str(", c.parsed");
    }
    if wanted.body {
        text.push_str(", b.data, b.hash, b.size");
    }
    text.push_str(" FROM content c");
    if wanted.body {
        text.push_str(" JOIN body b ON b.id = c.blob_id");
    }
    text
}

/// The statement for these ids.
fn listed(columns: &str, account: AccountId, ids: &[u64]) -> (String, Vec<sql::Value>) {
    let mut args = args![account.0];
    let mut list: Vec<sql::Value> = ids.iter().map(|id| (*id).into()).collect();
    let count = sql::pad(&mut list);
    args.append(&mut list);
    let text = format!(
        "{columns} WHERE c.account = ? AND c.id IN ({})",
        sql::placeholders(count)
    );
    (text, args)
}

fn read(row: &Row, wanted: Wanted) -> Result<Content, Error> {
    let mut content = Content {
        id: ContentId(row.u64(0)?),
        ..Content::default()
    };
    let mut column = 1;
    if wanted.prefix {
        content.prefix = row.blob(column)?.to_vec();
        column += 1;
    }
    if wanted.parsed {
        content.parsed = unpacked(row.blob(column)?)?;
        column += 1;
    }
    if wanted.body {
        content.body = match row.blob_opt(column)? {
            Some(data) => ContentBody::Octets(unpacked(data)?),
            None => ContentBody::Outside {
                blob: reader_hash(row.blob(column + 1)?)?,
                len: row.u64(column + 2)?,
            },
        };
    }
    Ok(content)
}

fn unpacked(stored: &[u8]) -> Result<Vec<u8>, Error> {
    blob::decode(stored, BODY_MAX).map_err(|error| Error::Damaged(error.to_string()))
}

pub(crate) fn reader_hash(octets: &[u8]) -> Result<BlobId, Error> {
    octets
        .try_into()
        .map(BlobId)
        .map_err(|_| Error::Damaged("a blob's hash has the wrong length".to_owned()))
}

/// Splits ascending ids into runs that are nearly without gaps, and the rest.
fn runs(sorted: &[u64]) -> (Vec<&[u64]>, Vec<u64>) {
    let mut runs = Vec::new();
    let mut scattered = Vec::new();
    for run in sorted.chunk_by(|a, b| b - a <= 4) {
        if run.len() >= RUN_MIN {
            runs.push(run);
        } else {
            scattered.extend_from_slice(run);
        }
    }
    (runs, scattered)
}
