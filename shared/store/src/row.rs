//! What the reader gives.

use crate::flags::{Flags, SystemFlags};
use sql::Row;
use types::{AccountId, BlobId, ContentId, EmailId, MailboxId, ModSeq, ThreadId, Uid};

/// An account's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccountState {
    /// The last change.
    pub modseq: ModSeq,
    /// Octets of its messages as clients see them, copies counted each.
    pub bytes: u64,
    /// Its messages, copies counted each.
    pub messages: u64,
}

/// A mailbox with its counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailbox {
    /// Its id: RFC 8474 MAILBOXID.
    pub id: MailboxId,
    /// Its account.
    pub account: AccountId,
    /// The full name: UTF-8, `/` between levels, INBOX in capitals.
    pub name: String,
    /// UIDVALIDITY.
    pub uidvalidity: u32,
    /// UIDNEXT.
    pub uidnext: u32,
    /// HIGHESTMODSEQ.
    pub modseq: ModSeq,
    /// Expunged messages are known from this modseq on: whoever knows an older state must compare UIDs.
    pub floor: ModSeq,
    /// RFC 6154: `\Sent` ... .
    pub special_use: Option<String>,
    /// Whether its name is subscribed.
    pub subscribed: bool,
    /// Messages.
    pub total: u32,
    /// Those without `\Seen`.
    pub unseen: u32,
    /// Those with `\Deleted`.
    pub deleted: u32,
    /// Octets of all.
    pub bytes: u64,
}

impl Mailbox {
    pub(crate) const COLUMNS: &'static str = "m.id, m.account, m.name, m.uidvalidity, s.uidnext, \
        s.modseq, s.floor, m.special_use, s.total, s.unseen, s.deleted, s.bytes";

    pub(crate) fn read(row: &Row) -> Result<Self, sql::Error> {
        Ok(Self {
            id: MailboxId(row.u64(0)?),
            account: AccountId(row.u64(1)?),
            name: row.text(2)?.to_owned(),
            uidvalidity: row.u32(3)?,
            uidnext: row.u32(4)?,
            modseq: ModSeq(row.u64(5)?),
            floor: ModSeq(row.u64(6)?),
            special_use: row.text_opt(7)?.map(str::to_owned),
            subscribed: false,
            total: row.u32(8)?,
            unseen: row.u32(9)?,
            deleted: row.u32(10)?,
            bytes: row.u64(11)?,
        })
    }
}

/// A message in a mailbox: all that a view of the mailbox needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageRow {
    /// Its UID.
    pub uid: Uid,
    /// Its flags and keywords.
    pub flags: Flags,
    /// When it was changed last.
    pub modseq: ModSeq,
    /// RFC822.SIZE: prefix and body.
    pub size: u64,
    /// INTERNALDATE, seconds since 1970.
    pub date: i64,
    /// SAVEDATE (RFC 8514), seconds since 1970.
    pub saved: i64,
    /// EMAILID (RFC 8474).
    pub email: EmailId,
    /// THREADID (RFC 8474).
    pub thread: ThreadId,
    /// What it is: [`crate::Reader::contents`].
    pub content: ContentId,
}

impl MessageRow {
    pub(crate) const COLUMNS: &'static str =
        "uid, flags, keywords, modseq, size, date, saved, email, thread, content";

    pub(crate) fn read(row: &Row) -> Result<Self, sql::Error> {
        Ok(Self {
            uid: Uid(row.u32(0)?),
            flags: Flags {
                system: SystemFlags(u8::try_from(row.int(1)?).unwrap_or_default()),
                keywords: row.text(2)?.to_owned(),
            },
            modseq: ModSeq(row.u64(3)?),
            size: row.u64(4)?,
            date: row.int(5)?,
            saved: row.int(6)?,
            email: EmailId(row.u64(7)?),
            thread: ThreadId(row.u64(8)?),
            content: ContentId(row.u64(9)?),
        })
    }
}

/// What a message is; only what was asked for is filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// Which.
    pub id: ContentId,
    /// Trace header fields before the body.
    pub prefix: Vec<u8>,
    /// The stored form of [`message::Parsed`] of the body alone: see [`message::stored`].
    pub parsed: Vec<u8>,
    /// The body.
    pub body: ContentBody,
}

/// The body of a [`Content`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ContentBody {
    /// Not asked for.
    #[default]
    None,
    /// Its octets.
    Octets(Vec<u8>),
    /// It lies outside of the database: [`crate::Reader::body`] or [`crate::Reader::body_range`].
    Outside {
        /// Its id.
        blob: BlobId,
        /// Its length.
        len: u64,
    },
}
