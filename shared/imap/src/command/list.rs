//! LIST with its extensions, LSUB and STATUS.

use super::{Command, metadata};
use crate::Refusal;
use crate::cursor::{Cursor, Parse};

/// LIST has at most so many patterns.
const PATTERNS_MAX: usize = 32;

/// LIST (RFC 9051 6.3.9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// Which mailboxes.
    pub selection: ListSelection,
    /// Stands before the patterns.
    pub reference: String,
    /// With wildcards: 1 to 32.
    pub patterns: Vec<String>,
    /// What to tell of them.
    pub returns: ListReturn,
    /// In the extended syntax: selection options, several patterns, or return options.
    pub extended: bool,
}

/// Selection options of LIST.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListSelection {
    /// Those subscribed to, also where there is no mailbox.
    pub subscribed: bool,
    /// Remote ones too.
    pub remote: bool,
    /// Those with something selected below, too (CHILDINFO).
    pub recursive_match: bool,
    /// Those with a special use.
    pub special_use: bool,
}

/// Return options of LIST.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListReturn {
    /// \Subscribed
    pub subscribed: bool,
    /// \HasChildren, \HasNoChildren
    pub children: bool,
    /// \Sent ...
    pub special_use: bool,
    /// A MYRIGHTS response for each (RFC 8440).
    pub my_rights: bool,
    /// A METADATA response for each, of these entries (RFC 9590).
    pub metadata: Option<Vec<String>>,
    /// A STATUS response for each (RFC 5819).
    pub status: Option<Vec<StatusItem>>,
}

/// What STATUS tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusItem {
    /// MESSAGES
    Messages,
    /// UIDNEXT
    UidNext,
    /// UIDVALIDITY
    UidValidity,
    /// UNSEEN: how many.
    Unseen,
    /// DELETED: how many.
    Deleted,
    /// DELETED-STORAGE: octets of those (RFC 9208).
    DeletedStorage,
    /// SIZE: octets.
    Size,
    /// RECENT (RFC 3501)
    Recent,
    /// HIGHESTMODSEQ (RFC 7162)
    HighestModSeq,
    /// APPENDLIMIT (RFC 7889)
    AppendLimit,
    /// MAILBOXID (RFC 8474)
    MailboxId,
}

impl StatusItem {
    /// As it is asked for and answered.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Messages => "MESSAGES",
            Self::UidNext => "UIDNEXT",
            Self::UidValidity => "UIDVALIDITY",
            Self::Unseen => "UNSEEN",
            Self::Deleted => "DELETED",
            Self::DeletedStorage => "DELETED-STORAGE",
            Self::Size => "SIZE",
            Self::Recent => "RECENT",
            Self::HighestModSeq => "HIGHESTMODSEQ",
            Self::AppendLimit => "APPENDLIMIT",
            Self::MailboxId => "MAILBOXID",
        }
    }

    const ALL: [Self; 11] = [
        Self::Messages,
        Self::UidNext,
        Self::UidValidity,
        Self::Unseen,
        Self::Deleted,
        Self::DeletedStorage,
        Self::Size,
        Self::Recent,
        Self::HighestModSeq,
        Self::AppendLimit,
        Self::MailboxId,
    ];
}

fn status_items(cursor: &mut Cursor<'_>) -> Parse<Vec<StatusItem>> {
    let mut items: Vec<StatusItem> = Vec::new();
    cursor.list(|cursor| {
        let name = cursor.word()?;
        let item = StatusItem::ALL.into_iter().find(|item| item.name() == name);
        let item = item.ok_or(Refusal::bad("There is no such item of STATUS"))?;
        if !items.contains(&item) {
            items.push(item);
        }
        Ok(())
    })?;
    match items.is_empty() {
        true => Err(Refusal::bad("STATUS needs an item")),
        false => Ok(items),
    }
}

pub(super) fn status(cursor: &mut Cursor<'_>) -> Parse<Command> {
    cursor.space()?;
    // Answered under the name that was asked for.
    let mailbox = cursor.supplied_mailbox()?;
    cursor.space()?;
    let items = status_items(cursor)?;
    Ok(Command::Status { mailbox, items })
}

pub(super) fn lsub(cursor: &mut Cursor<'_>) -> Parse<Command> {
    cursor.space()?;
    let reference = reference(cursor)?;
    cursor.space()?;
    let pattern = cursor.pattern()?;
    Ok(Command::Lsub { reference, pattern })
}

/// A name without INBOX's special case: it is joined with a pattern.
fn reference(cursor: &mut Cursor<'_>) -> Parse<String> {
    match cursor.peek() {
        Some(b'"' | b'{') => cursor.pattern(),
        _ => cursor.mailbox(),
    }
}

pub(super) fn parse(cursor: &mut Cursor<'_>) -> Parse<List> {
    cursor.space()?;
    let mut selection = ListSelection::default();
    let mut extended = false;
    if cursor.peek() == Some(b'(') {
        extended = true;
        cursor.list(|cursor| {
            match cursor.word()?.as_str() {
                "SUBSCRIBED" => selection.subscribed = true,
                "REMOTE" => selection.remote = true,
                "RECURSIVEMATCH" => selection.recursive_match = true,
                "SPECIAL-USE" => selection.special_use = true,
                _ => return Err(Refusal::bad("There is no such selection option of LIST")),
            }
            Ok(())
        })?;
        cursor.space()?;
    }
    // RFC 9051 6.3.9: RECURSIVEMATCH needs another option than REMOTE
    if selection.recursive_match && !selection.subscribed && !selection.special_use {
        return Err(Refusal::bad(
            "RECURSIVEMATCH needs another selection option",
        ));
    }
    let reference = reference(cursor)?;
    cursor.space()?;
    let patterns = match cursor.peek() {
        Some(b'(') => {
            extended = true;
            cursor.list(Cursor::pattern)?
        }
        _ => vec![cursor.pattern()?],
    };
    if patterns.is_empty() || patterns.len() > PATTERNS_MAX {
        return Err(Refusal::bad("LIST has no pattern, or too many"));
    }
    let mut returns = ListReturn::default();
    if !cursor.at_end() {
        extended = true;
        cursor.space()?;
        if !cursor.eat_word("RETURN") {
            return Err(Refusal::bad("LIST has an unknown argument"));
        }
        cursor.space()?;
        cursor.list(|cursor| return_option(cursor, &mut returns))?;
    }
    Ok(List {
        selection,
        reference,
        patterns,
        returns,
        extended,
    })
}

fn return_option(cursor: &mut Cursor<'_>, returns: &mut ListReturn) -> Parse<()> {
    match cursor.word()?.as_str() {
        "SUBSCRIBED" => returns.subscribed = true,
        "CHILDREN" => returns.children = true,
        "SPECIAL-USE" => returns.special_use = true,
        "MYRIGHTS" => returns.my_rights = true,
        "METADATA" => {
            cursor.space()?;
            returns.metadata = Some(metadata::entries(cursor)?);
        }
        "STATUS" => {
            cursor.space()?;
            returns.status = Some(status_items(cursor)?);
        }
        _ => return Err(Refusal::bad("There is no such return option of LIST")),
    }
    Ok(())
}
