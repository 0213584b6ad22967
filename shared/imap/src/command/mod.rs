//! Commands: what they are, and how they are read.

mod fetch;
mod list;
mod search;
mod simple;

pub use fetch::{Fetch, FetchItem, Partial, Section, SectionText};
pub use list::{List, ListReturn, ListSelection, StatusItem};
pub use search::{ReturnOptions, Search, SearchKey};
pub use simple::{Append, FlagAction, QuickResync, Select, Store};

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
    /// IDLE
    Idle,
    /// CHECK (RFC 3501 6.4.1)
    Check,
    /// CLOSE
    Close,
    /// UNSELECT
    Unselect,
    /// EXPUNGE
    Expunge,
    /// UID EXPUNGE
    UidExpunge(SequenceSet),
    /// SEARCH, UID SEARCH
    Search(Search),
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
            Self::Idle => "IDLE",
            Self::Check => "CHECK",
            Self::Close => "CLOSE",
            Self::Unselect => "UNSELECT",
            Self::Expunge => "EXPUNGE",
            Self::UidExpunge(_) => "UID EXPUNGE",
            Self::Search(_) => "SEARCH",
            Self::Fetch(_) => "FETCH",
            Self::Store(_) => "STORE",
            Self::Copy { .. } => "COPY",
            Self::Move { .. } => "MOVE",
            Self::Id(_) => "ID",
            Self::GetQuota { .. } => "GETQUOTA",
            Self::GetQuotaRoot { .. } => "GETQUOTAROOT",
        }
    }
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
        _ => return Err(Refusal::bad("There is no such command")),
    })
}

#[cfg(test)]
mod tests;
