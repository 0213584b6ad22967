//! Commands of one or two arguments, SELECT and STORE.

use super::{Command, list, metadata, notify, search};
use crate::cursor::{Cursor, Parse, upper};
use crate::{DELIMITER, Refusal, SequenceSet, flag};
use base64::Engine as _;
use types::Octets;

/// RFC 2971 3.3: at most 30 fields.
const ID_FIELDS_MAX: usize = 30;

/// SELECT or EXAMINE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Select {
    /// Which.
    pub mailbox: String,
    /// EXAMINE.
    pub read_only: bool,
    /// CONDSTORE (RFC 7162 3.1.8).
    pub condstore: bool,
    /// QRESYNC (RFC 7162 3.2.5).
    pub resync: Option<QuickResync>,
}

/// What a client knows of a mailbox from before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuickResync {
    /// The UIDVALIDITY.
    pub uidvalidity: u32,
    /// The HIGHESTMODSEQ.
    pub modseq: u64,
    /// The UIDs; all if `None`.
    pub known: Option<SequenceSet>,
    /// Some sequence numbers and their UIDs.
    pub pairs: Option<(SequenceSet, SequenceSet)>,
}

/// What STORE does with the flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagAction {
    /// FLAGS
    Replace,
    /// +FLAGS
    Add,
    /// -FLAGS
    Remove,
}

/// STORE or UID STORE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    /// The set holds UIDs.
    pub uid: bool,
    /// Which.
    pub set: SequenceSet,
    /// UNCHANGEDSINCE (RFC 7162 3.1.3).
    pub unchanged_since: Option<u64>,
    /// What to do with the flags.
    pub action: FlagAction,
    /// .SILENT
    pub silent: bool,
    /// Which flags, without \Recent.
    pub flags: Vec<String>,
}

/// `None`: another command.
pub(super) fn parse(name: &str, cursor: &mut Cursor<'_>) -> Parse<Option<Command>> {
    Ok(Some(match name {
        "CAPABILITY" => Command::Capability,
        "NOOP" => Command::Noop,
        "LOGOUT" => Command::Logout,
        "STARTTLS" => Command::StartTls,
        "NAMESPACE" => Command::Namespace,
        "COMPRESS" => {
            cursor.space()?;
            match cursor.word()?.as_str() {
                "DEFLATE" => Command::Compress,
                _ => return Err(Refusal::bad("DEFLATE is the only compression")),
            }
        }
        "NOTIFY" => Command::Notify(notify::parse(cursor)?),
        "UNAUTHENTICATE" => Command::Unauthenticate,
        "IDLE" => Command::Idle,
        "CHECK" => Command::Check,
        "CLOSE" => Command::Close,
        "UNSELECT" => Command::Unselect,
        "EXPUNGE" => Command::Expunge,
        "SELECT" => Command::Select(select(cursor, false)?),
        "EXAMINE" => Command::Select(select(cursor, true)?),
        "CREATE" => create(cursor)?,
        "DELETE" => Command::Delete {
            mailbox: supplied(cursor)?,
        },
        "SUBSCRIBE" => Command::Subscribe {
            mailbox: mailbox(cursor)?,
        },
        "UNSUBSCRIBE" => Command::Unsubscribe {
            mailbox: mailbox(cursor)?,
        },
        "RENAME" => Command::Rename {
            from: supplied(cursor)?,
            to: supplied(cursor).map(without_delimiter)?,
        },
        "GETQUOTAROOT" => Command::GetQuotaRoot {
            mailbox: mailbox(cursor)?,
        },
        "GETQUOTA" => {
            cursor.space()?;
            Command::GetQuota {
                root: cursor.text()?,
            }
        }
        "GETACL" => Command::GetAcl {
            mailbox: mailbox(cursor)?,
        },
        "SETACL" => Command::SetAcl {
            mailbox: mailbox(cursor)?,
            identifier: word_or_string(cursor)?,
            rights: word_or_string(cursor)?,
        },
        "DELETEACL" => Command::DeleteAcl {
            mailbox: mailbox(cursor)?,
            identifier: word_or_string(cursor)?,
        },
        "LISTRIGHTS" => Command::ListRights {
            mailbox: mailbox(cursor)?,
            identifier: word_or_string(cursor)?,
        },
        "MYRIGHTS" => Command::MyRights {
            mailbox: mailbox(cursor)?,
        },
        "GETMETADATA" => Command::GetMetadata(metadata::get(cursor)?),
        "SETMETADATA" => Command::SetMetadata(metadata::set(cursor)?),
        "LIST" => Command::List(list::parse(cursor)?),
        "LSUB" => list::lsub(cursor)?,
        "ESEARCH" => Command::MultiSearch(search::multi(cursor)?),
        "CANCELUPDATE" => cancel_update(cursor)?,
        "STATUS" => list::status(cursor)?,
        "LOGIN" => login(cursor)?,
        "AUTHENTICATE" => authenticate(cursor)?,
        "ENABLE" => enable(cursor)?,
        "ID" => id(cursor)?,
        "DONE" => return Err(Refusal::bad("There is no IDLE to end")),
        _ => return Ok(None),
    }))
}

fn cancel_update(cursor: &mut Cursor<'_>) -> Parse<Command> {
    let mut tags = Vec::new();
    while !cursor.at_end() {
        cursor.space()?;
        let tag = cursor.string()?;
        tags.push(String::from_utf8_lossy(&tag).into_owned());
    }
    match tags.is_empty() {
        true => Err(Refusal::bad("CANCELUPDATE needs the tag of a search")),
        false => Ok(Command::CancelUpdate(tags)),
    }
}

fn word_or_string(cursor: &mut Cursor<'_>) -> Parse<String> {
    cursor.space()?;
    cursor.text()
}

fn mailbox(cursor: &mut Cursor<'_>) -> Parse<String> {
    cursor.space()?;
    cursor.mailbox()
}

/// RFC 9051 6.3.9.7: these tell the client where a name is kept in another form than it was given.
fn supplied(cursor: &mut Cursor<'_>) -> Parse<String> {
    cursor.space()?;
    cursor.supplied_mailbox()
}

/// RFC 9051 6.3.4: a delimiter at the end says that names below will be created.
fn without_delimiter(mut name: String) -> String {
    if name.len() > 1 && name.ends_with(DELIMITER) {
        name.pop();
    }
    name
}

fn select(cursor: &mut Cursor<'_>, read_only: bool) -> Parse<Select> {
    let mut select = Select {
        mailbox: supplied(cursor)?,
        read_only,
        condstore: false,
        resync: None,
    };
    if cursor.at_end() {
        return Ok(select);
    }
    cursor.space()?;
    cursor.list(|cursor| {
        match cursor.word()?.as_str() {
            "CONDSTORE" => select.condstore = true,
            "QRESYNC" => {
                cursor.space()?;
                select.resync = Some(quick_resync(cursor)?);
            }
            _ => return Err(Refusal::bad("There is no such parameter of SELECT")),
        }
        Ok(())
    })?;
    Ok(select)
}

fn quick_resync(cursor: &mut Cursor<'_>) -> Parse<QuickResync> {
    cursor.expect(b'(', "QRESYNC needs parameters")?;
    let uidvalidity = cursor.positive()?;
    cursor.space()?;
    let modseq = cursor.number64()?;
    let mut resync = QuickResync {
        uidvalidity,
        modseq,
        known: None,
        pairs: None,
    };
    while cursor.eat(b' ') {
        if cursor.eat(b'(') {
            let numbers = SequenceSet::parse(cursor)?;
            cursor.space()?;
            let uids = SequenceSet::parse(cursor)?;
            cursor.expect(b')', "QRESYNC has a list that does not end")?;
            resync.pairs = Some((numbers, uids));
        } else {
            resync.known = Some(SequenceSet::parse(cursor)?);
        }
    }
    cursor.expect(b')', "QRESYNC has a list that does not end")?;
    Ok(resync)
}

fn create(cursor: &mut Cursor<'_>) -> Parse<Command> {
    let mailbox = without_delimiter(supplied(cursor)?);
    let mut special_use = Vec::new();
    if !cursor.at_end() {
        cursor.space()?;
        cursor.list(|cursor| match cursor.word()?.as_str() {
            "USE" => {
                cursor.space()?;
                special_use = cursor.list(|cursor| {
                    cursor.expect(b'\\', "A special use begins with a backslash")?;
                    let name = String::from_utf8_lossy(cursor.atom()?);
                    Ok(format!("\\{name}"))
                })?;
                Ok(())
            }
            _ => Err(Refusal::bad("There is no such parameter of CREATE")),
        })?;
    }
    Ok(Command::Create {
        mailbox,
        special_use,
    })
}

fn login(cursor: &mut Cursor<'_>) -> Parse<Command> {
    cursor.space()?;
    let name = Octets(cursor.astring()?.into_owned());
    cursor.space()?;
    let password = Octets(cursor.astring()?.into_owned());
    Ok(Command::Login { name, password })
}

fn authenticate(cursor: &mut Cursor<'_>) -> Parse<Command> {
    cursor.space()?;
    let mechanism = upper(cursor.atom()?);
    let mut initial = None;
    if !cursor.at_end() {
        cursor.space()?;
        let encoded = cursor.run(|byte| byte != b' ');
        initial = Some(match encoded {
            // RFC 4959 3
            b"=" => Octets::default(),
            encoded => base64::engine::general_purpose::STANDARD
                .decode(encoded)
                .map(Octets)
                .map_err(|_| Refusal::bad("The initial response is not valid base64"))?,
        });
    }
    Ok(Command::Authenticate { mechanism, initial })
}

fn enable(cursor: &mut Cursor<'_>) -> Parse<Command> {
    let mut extensions = Vec::new();
    while !cursor.at_end() {
        cursor.space()?;
        extensions.push(cursor.word()?);
    }
    match extensions.is_empty() {
        true => Err(Refusal::bad("ENABLE needs the name of an extension")),
        false => Ok(Command::Enable(extensions)),
    }
}

fn id(cursor: &mut Cursor<'_>) -> Parse<Command> {
    cursor.space()?;
    if cursor.eat_word("NIL") {
        return Ok(Command::Id(Vec::new()));
    }
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    let fields = cursor.list(|cursor| {
        let name = text(&cursor.string()?);
        cursor.space()?;
        Ok((name, cursor.nstring()?.map(|value| text(&value))))
    })?;
    match fields.len() > ID_FIELDS_MAX {
        true => Err(Refusal::bad("ID has too many fields")),
        false => Ok(Command::Id(fields)),
    }
}

pub(super) fn store(cursor: &mut Cursor<'_>, uid: bool) -> Parse<Store> {
    cursor.space()?;
    let set = SequenceSet::parse(cursor)?;
    cursor.space()?;
    let mut unchanged_since = None;
    if cursor.peek() == Some(b'(') {
        cursor.list(|cursor| match cursor.word()?.as_str() {
            "UNCHANGEDSINCE" => {
                cursor.space()?;
                unchanged_since = Some(cursor.number64()?);
                Ok(())
            }
            _ => Err(Refusal::bad("There is no such modifier of STORE")),
        })?;
        cursor.space()?;
    }
    let (action, silent) = match cursor.word()?.as_str() {
        "FLAGS" => (FlagAction::Replace, false),
        "FLAGS.SILENT" => (FlagAction::Replace, true),
        "+FLAGS" => (FlagAction::Add, false),
        "+FLAGS.SILENT" => (FlagAction::Add, true),
        "-FLAGS" => (FlagAction::Remove, false),
        "-FLAGS.SILENT" => (FlagAction::Remove, true),
        _ => return Err(Refusal::bad("STORE changes FLAGS, +FLAGS or -FLAGS")),
    };
    cursor.space()?;
    let flags = flag::parse_open(cursor)?;
    Ok(Store {
        uid,
        set,
        unchanged_since,
        action,
        silent,
        flags,
    })
}
