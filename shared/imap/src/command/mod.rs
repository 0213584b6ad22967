//! Commands: what they are, and how they are read.

mod append;
mod charset;
mod fetch;
mod list;
mod metadata;
mod notify;
mod search;
mod simple;
mod sort;

pub use append::{Append, AppendHead, AppendParser, AppendPiece, Replaced};
pub(crate) use append::{Place, awaits_message};
pub use charset::searches_in_charset;
pub use fetch::{Fetch, FetchItem, Page, Partial, Section, SectionText};
pub use list::{List, ListReturn, ListSelection, StatusItem};
pub use metadata::{Depth, GetMetadata, SetMetadata};
pub use notify::{MailboxFilter, Notify, NotifyEvents, NotifyGroup};
pub use search::{MultiSearch, ReturnOptions, Search, SearchKey};
pub use simple::{FlagAction, QuickResync, Select, Store};
pub use sort::{Sort, SortBy, SortKey, Thread, Threading};

use crate::cursor::{Cursor, Parse};
use crate::reader::tag_of;
use crate::{Names, Refusal, Refused, SequenceSet};
use types::Octets;

/// A command with its tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tagged {
    /// Sent back with the answer.
    pub tag: String,
    /// What is to be done.
    pub command: Command,
}

/// A command (RFC 9051 6). Mailbox names are in Unicode, INBOX in upper case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// CAPABILITY
    Capability,
    /// NOOP
    Noop,
    /// LOGOUT
    Logout,
    /// STARTTLS
    StartTls,
    /// AUTHENTICATE
    Authenticate {
        /// In upper case.
        mechanism: String,
        /// The initial response (SASL-IR), decoded; `=` is an empty one.
        initial: Option<Octets>,
    },
    /// LOGIN
    Login {
        /// The name.
        name: Octets,
        /// The password.
        password: Octets,
    },
    /// ENABLE, in upper case.
    Enable(Vec<String>),
    /// SELECT, EXAMINE
    Select(Select),
    /// CREATE
    Create {
        /// The new mailbox. A delimiter at the end, which announces children, is taken off.
        mailbox: String,
        /// USE (RFC 6154 3): attributes with their backslash.
        special_use: Vec<String>,
    },
    /// DELETE
    Delete {
        /// Which.
        mailbox: String,
    },
    /// RENAME
    Rename {
        /// Which.
        from: String,
        /// Its new name.
        to: String,
    },
    /// SUBSCRIBE
    Subscribe {
        /// Which.
        mailbox: String,
    },
    /// UNSUBSCRIBE
    Unsubscribe {
        /// Which.
        mailbox: String,
    },
    /// LIST
    List(List),
    /// LSUB (RFC 3501 6.3.9)
    Lsub {
        /// Stands before the pattern.
        reference: String,
        /// With wildcards.
        pattern: String,
    },
    /// NAMESPACE
    Namespace,
    /// STATUS
    Status {
        /// Of which.
        mailbox: String,
        /// What is asked.
        items: Vec<StatusItem>,
    },
    /// COMPRESS DEFLATE (RFC 4978)
    Compress,
    /// UNAUTHENTICATE (RFC 8437)
    Unauthenticate,
    /// NOTIFY (RFC 5465)
    Notify(Notify),
    /// IDLE
    Idle,
    /// CHECK (RFC 3501 6.4.1)
    Check,
    /// CLOSE
    Close,
    /// UNSELECT
    Unselect,
    /// APPEND, REPLACE, UID REPLACE of messages made of URLs alone; the others come as [`crate::Event::Message`].
    Append {
        /// Where to.
        append: Append,
        /// The messages.
        pieces: Vec<AppendPiece>,
    },
    /// EXPUNGE
    Expunge,
    /// UID EXPUNGE
    UidExpunge(SequenceSet),
    /// SEARCH, UID SEARCH
    Search(Search),
    /// ESEARCH (RFC 7377)
    MultiSearch(MultiSearch),
    /// CANCELUPDATE (RFC 5267 4.3.5): the tags of searches.
    CancelUpdate(Vec<String>),
    /// SORT, UID SORT
    Sort(Sort),
    /// THREAD, UID THREAD
    Thread(Thread),
    /// FETCH, UID FETCH
    Fetch(Fetch),
    /// STORE, UID STORE
    Store(Store),
    /// COPY, UID COPY
    Copy {
        /// The set holds UIDs.
        uid: bool,
        /// Which.
        set: SequenceSet,
        /// To.
        mailbox: String,
    },
    /// MOVE, UID MOVE
    Move {
        /// The set holds UIDs.
        uid: bool,
        /// Which.
        set: SequenceSet,
        /// To.
        mailbox: String,
    },
    /// ID (RFC 2971): fields and values.
    Id(Vec<(String, Option<String>)>),
    /// GETACL (RFC 4314)
    GetAcl {
        /// Of which.
        mailbox: String,
    },
    /// SETACL (RFC 4314)
    SetAcl {
        /// Of which.
        mailbox: String,
        /// Whose rights.
        identifier: String,
        /// Letters, perhaps with `+` or `-` before them.
        rights: String,
    },
    /// DELETEACL (RFC 4314)
    DeleteAcl {
        /// Of which.
        mailbox: String,
        /// Whose rights.
        identifier: String,
    },
    /// LISTRIGHTS (RFC 4314)
    ListRights {
        /// Of which.
        mailbox: String,
        /// Whose rights.
        identifier: String,
    },
    /// MYRIGHTS (RFC 4314)
    MyRights {
        /// Of which.
        mailbox: String,
    },
    /// GETMETADATA (RFC 5464)
    GetMetadata(GetMetadata),
    /// SETMETADATA (RFC 5464)
    SetMetadata(SetMetadata),
    /// GETQUOTA (RFC 9208)
    GetQuota {
        /// The quota root.
        root: String,
    },
    /// GETQUOTAROOT (RFC 9208)
    GetQuotaRoot {
        /// Of which.
        mailbox: String,
    },
}

impl Command {
    /// Whether it names messages by their sequence numbers, which UIDONLY forbids (RFC 9586 3).
    pub fn uses_sequence_numbers(&self) -> bool {
        match self {
            Self::Fetch(fetch) => !fetch.uid,
            Self::Store(store) => !store.uid,
            Self::Copy { uid, .. } | Self::Move { uid, .. } => !uid,
            Self::Append { append, .. } => append.uses_sequence_number(),
            Self::Search(search) => !search.uid || names_numbers(&search.key),
            Self::MultiSearch(search) => names_numbers(&search.key),
            Self::Sort(sort) => !sort.uid || names_numbers(&sort.key),
            Self::Thread(thread) => !thread.uid || names_numbers(&thread.key),
            Self::Select(select) => {
                let resync = select.resync.as_ref();
                resync.is_some_and(|resync| resync.pairs.is_some())
            }
            _ => false,
        }
    }

    /// Its name, for logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Capability => "CAPABILITY",
            Self::Noop => "NOOP",
            Self::Logout => "LOGOUT",
            Self::StartTls => "STARTTLS",
            Self::Authenticate { .. } => "AUTHENTICATE",
            Self::Login { .. } => "LOGIN",
            Self::Enable(_) => "ENABLE",
            Self::Select(select) if select.read_only => "EXAMINE",
            Self::Select(_) => "SELECT",
            Self::Create { .. } => "CREATE",
            Self::Delete { .. } => "DELETE",
            Self::Rename { .. } => "RENAME",
            Self::Subscribe { .. } => "SUBSCRIBE",
            Self::Unsubscribe { .. } => "UNSUBSCRIBE",
            Self::List(_) => "LIST",
            Self::Lsub { .. } => "LSUB",
            Self::Namespace => "NAMESPACE",
            Self::Status { .. } => "STATUS",
            Self::Compress => "COMPRESS",
            Self::Unauthenticate => "UNAUTHENTICATE",
            Self::Notify(_) => "NOTIFY",
            Self::Idle => "IDLE",
            Self::Check => "CHECK",
            Self::Close => "CLOSE",
            Self::Unselect => "UNSELECT",
            Self::Append { append, .. } => append.name(),
            Self::Expunge => "EXPUNGE",
            Self::UidExpunge(_) => "UID EXPUNGE",
            Self::Search(_) => "SEARCH",
            Self::MultiSearch(_) => "ESEARCH",
            Self::CancelUpdate(_) => "CANCELUPDATE",
            Self::Sort(_) => "SORT",
            Self::Thread(_) => "THREAD",
            Self::Fetch(_) => "FETCH",
            Self::Store(_) => "STORE",
            Self::Copy { .. } => "COPY",
            Self::Move { .. } => "MOVE",
            Self::Id(_) => "ID",
            Self::GetAcl { .. } => "GETACL",
            Self::SetAcl { .. } => "SETACL",
            Self::DeleteAcl { .. } => "DELETEACL",
            Self::ListRights { .. } => "LISTRIGHTS",
            Self::MyRights { .. } => "MYRIGHTS",
            Self::GetMetadata(_) => "GETMETADATA",
            Self::SetMetadata(_) => "SETMETADATA",
            Self::GetQuota { .. } => "GETQUOTA",
            Self::GetQuotaRoot { .. } => "GETQUOTAROOT",
        }
    }
}

/// Whether a criterion names sequence numbers.
fn names_numbers(key: &SearchKey) -> bool {
    key.any(&|key| matches!(key, SearchKey::Sequence(SequenceSet::Ranges(_))))
}

/// Reads a command as [`crate::Event::Command`] gives it.
///
/// # Errors
/// [`Refused`] says how to answer.
pub fn parse(octets: &[u8], names: Names) -> Result<Tagged, Refused> {
    let Some(tag) = tag_of(octets) else {
        return Err(Refused {
            tag: None,
            refusal: Refusal::bad("A tag is missing or invalid"),
        });
    };
    let rest = octets.get(tag.len()..).unwrap_or_default();
    let mut cursor = Cursor::new(rest, names);
    match command(&mut cursor) {
        Ok(command) => Ok(Tagged { tag, command }),
        Err(refusal) => Err(Refused {
            tag: Some(tag),
            refusal,
        }),
    }
}

fn command(cursor: &mut Cursor<'_>) -> Parse<Command> {
    cursor
        .space()
        .map_err(|_| Refusal::bad("A command is missing"))?;
    let name = cursor.word()?;
    let command = match name.as_str() {
        "UID" => {
            cursor.space()?;
            let name = cursor.word()?;
            message_command(&name, true, cursor)?
        }
        name => match simple::parse(name, cursor)? {
            Some(command) => command,
            None => message_command(name, false, cursor)?,
        },
    };
    cursor.end()?;
    Ok(command)
}

/// Those that name messages, by sequence number or (with UID) by UID.
fn message_command(name: &str, uid: bool, cursor: &mut Cursor<'_>) -> Parse<Command> {
    Ok(match name {
        "FETCH" => Command::Fetch(fetch::parse(cursor, uid)?),
        "STORE" => Command::Store(simple::store(cursor, uid)?),
        "SEARCH" => Command::Search(search::parse(cursor, uid)?),
        "SORT" => Command::Sort(sort::sort(cursor, uid)?),
        "THREAD" => Command::Thread(sort::thread(cursor, uid)?),
        "COPY" | "MOVE" => {
            cursor.space()?;
            let set = SequenceSet::parse(cursor)?;
            cursor.space()?;
            let mailbox = cursor.mailbox()?;
            match name {
                "COPY" => Command::Copy { uid, set, mailbox },
                _ => Command::Move { uid, set, mailbox },
            }
        }
        "EXPUNGE" if uid => {
            cursor.space()?;
            Command::UidExpunge(SequenceSet::parse(cursor)?)
        }
        name => {
            let append = append::whole(name, uid, cursor)?;
            append.ok_or(Refusal::bad("There is no such command"))?
        }
    })
}

#[cfg(test)]
mod tests;
