//! stored: every change of the mail store.

use crate::{Fault, event, operation};
use serde::{Deserialize, Serialize};
use types::{AccountId, Body, Grant, MailboxId, ModSeq, Octets, QueueId, RequestId, Uid};

/// A parsed message on its way into the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewMessage {
    /// What `message::parse` found, in its own serialised form; offsets count from the body's first octet, so that any
    /// prefix of trace header fields can stand before it.
    pub parsed: Octets,
    /// Inline, attached, or a slot of [`OpenUpload`]. stored computes its BLAKE3 itself.
    pub body: Body,
    /// INTERNALDATE in seconds since 1970.
    pub date: i64,
}

/// Puts a message into mailboxes. Idempotent by (id, recipient, account). The reply has one result for each target, in
/// their order; a full account is [`crate::FaultKind::OverQuota`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Deliver {
    /// The message's id in the queue.
    pub id: QueueId,
    /// The message.
    pub message: NewMessage,
    /// Where to: 1 to 1000.
    pub targets: Vec<DeliverTarget>,
}
operation!(Deliver = 1, idempotent -> Vec<Result<Stored, Fault>>);

/// One mailbox for [`Deliver`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliverTarget {
    /// The recipient's index in the envelope.
    pub recipient: u16,
    /// The account, with its limits as authd gave them.
    pub account: AccountId,
    /// Octets it may hold; 0 is unlimited.
    pub quota_bytes: u64,
    /// Messages it may hold; 0 is unlimited.
    pub quota_messages: u64,
    /// The mailbox's full name; INBOX when it is empty or not there.
    pub mailbox: String,
    /// Make the mailbox, and subscribe to it, if it is not there (RFC 5490 3.2 `:create`).
    pub create: bool,
    /// Flags to set, as IMAP names them.
    pub flags: Vec<String>,
    /// Trace header fields before the body, kept apart from it: the message that clients see is prefix + body.
    pub prefix: Octets,
}

/// A message that [`Deliver`] put somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Where it is.
    pub mailbox: MailboxId,
    /// Its UID there.
    pub uid: Uid,
    /// The account's modseq with it.
    pub modseq: ModSeq,
    /// It was there already.
    pub duplicate: bool,
}

/// Makes the account's standard mailboxes if it has none: INBOX, Drafts, Sent, Junk, Trash, Archive.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Provision {
    /// A grant with the right to read.
    pub grant: Grant,
}
operation!(Provision = 2, idempotent -> ());

/// Opens a file for a large body; its descriptor, open for writing and for reading what was written, comes with the reply.
/// Faults: Denied (grant), Invalid (too large), OverQuota, Busy (too many are open, in all or for the grant's account).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OpenUpload {
    /// A grant with the right to write.
    pub grant: Grant,
    /// To whom the message goes.
    pub account: AccountId,
    /// The size to come; OverQuota if it goes to the grant's own account, and that has no room for it.
    pub expected: u64,
}
operation!(OpenUpload = 3, once -> u64);

/// Changes an account's mail. Idempotent by the request id. Faults: Denied (grant), NotFound, Conflict, Invalid, OverQuota.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mutate {
    /// Random; the same when it is sent again.
    pub request: RequestId,
    /// Who asks.
    pub grant: Grant,
    /// Whose mail is changed. Another than the grant's own needs the rights that the mailboxes' access control lists
    /// give to the grant's name and groups (RFC 4314 4), or membership in the group that the account belongs to.
    pub account: AccountId,
    /// The change.
    pub mutation: Mutation,
}
operation!(Mutate = 4, idempotent -> Mutated);

/// Ascending, disjoint ranges of UIDs, both ends included.
pub type UidRanges = Vec<(u32, u32)>;

/// The list of all changes of state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mutation {
    /// APPEND; with several messages all or none (RFC 3502).
    Append {
        /// Into which.
        mailbox: MailboxId,
        /// The messages: 1 to 1000. All that is inline fits in the frame; larger ones come as slots.
        messages: Vec<AppendMessage>,
        /// REPLACE (RFC 8508): the message of the same account that is removed in the same change.
        replaces: Option<(MailboxId, Uid)>,
    },
    /// STORE.
    Flags {
        /// In which.
        mailbox: MailboxId,
        /// Which; those not there are passed over.
        uids: UidRanges,
        /// What to do with the flags.
        change: FlagChange,
        /// As IMAP names them.
        flags: Vec<String>,
        /// RFC 7162 UNCHANGEDSINCE: those changed later are not touched, but listed in the answer.
        unchanged_since: Option<ModSeq>,
    },
    /// COPY: new messages that share the content.
    Copy {
        /// From.
        mailbox: MailboxId,
        /// Which.
        uids: UidRanges,
        /// To; it may be another account's.
        target: MailboxId,
    },
    /// MOVE (RFC 6851): all or none.
    Move {
        /// From.
        mailbox: MailboxId,
        /// Which.
        uids: UidRanges,
        /// To; it may be another account's.
        target: MailboxId,
    },
    /// EXPUNGE, UID EXPUNGE: those with \Deleted.
    Expunge {
        /// In which.
        mailbox: MailboxId,
        /// Only these; `None` is all.
        uids: Option<UidRanges>,
    },
    /// CREATE, with its parents.
    MailboxCreate {
        /// The full name in Unicode, `/` between levels.
        name: String,
        /// RFC 6154: `\Sent` ... .
        special_use: Option<String>,
    },
    /// DELETE. With children: Conflict (RFC 9051 6.3.5). INBOX: Invalid.
    MailboxDelete {
        /// Which.
        mailbox: MailboxId,
    },
    /// RENAME with all below it; of INBOX: its messages move to the new mailbox (RFC 9051 6.3.6).
    MailboxRename {
        /// Which.
        mailbox: MailboxId,
        /// The new full name.
        name: String,
    },
    /// SUBSCRIBE and UNSUBSCRIBE. A name without a mailbox may be subscribed too (RFC 9051 6.3.7).
    Subscribe {
        /// The full name.
        name: String,
        /// Subscribed or not.
        subscribed: bool,
    },
    /// SETACL, DELETEACL (RFC 4314).
    SetAcl {
        /// Of which.
        mailbox: MailboxId,
        /// `anyone`, an account's name, or `group=` and a group's address, each perhaps with `-` before it; lower case.
        identifier: String,
        /// The rights' letters, of `lrswipkxtea`; empty removes the entry.
        rights: String,
    },
    /// SETMETADATA (RFC 5464): all entries or none.
    SetMetadata {
        /// Of which; `None` is the account itself (the server annotations).
        mailbox: Option<MailboxId>,
        /// Entry names in lower case, `/private/...` or `/shared/...`, each with its value; `None` removes it.
        entries: Vec<(String, Option<Octets>)>,
    },
    /// PUTSCRIPT (RFC 5804 2.6). stored does not compile it.
    ScriptPut {
        /// Its name.
        name: String,
        /// Sieve, UTF-8.
        content: Octets,
    },
    /// DELETESCRIPT. The active one: Conflict.
    ScriptDelete {
        /// Its name.
        name: String,
    },
    /// RENAMESCRIPT. The new name is taken: Conflict.
    ScriptRename {
        /// Which.
        from: String,
        /// Its new name.
        to: String,
    },
    /// SETACTIVE.
    ScriptActivate {
        /// Which; `None`: no script is active.
        name: Option<String>,
    },
}

/// One message of [`Mutation::Append`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppendMessage {
    /// As IMAP names them.
    pub flags: Vec<String>,
    /// The message.
    pub message: NewMessage,
}

/// What STORE does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FlagChange {
    /// FLAGS
    Replace,
    /// +FLAGS
    Add,
    /// -FLAGS
    Remove,
}

/// The answer to [`Mutate`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mutated {
    /// The account's modseq with the change (unchanged when nothing had to be done).
    pub modseq: ModSeq,
    /// More, by kind.
    pub result: MutationResult,
}

/// What the kinds of [`Mutation`] tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MutationResult {
    /// Done: nothing to tell.
    Done,
    /// Append: APPENDUID.
    Appended {
        /// UIDVALIDITY of the mailbox.
        uidvalidity: u32,
        /// The messages' UIDs, ascending, in the order of the messages.
        uids: Vec<Uid>,
    },
    /// Copy, Move: COPYUID. Both sets are ascending and pair by position.
    Copied {
        /// UIDVALIDITY of the target.
        uidvalidity: u32,
        /// UIDs in the source.
        source: UidRanges,
        /// UIDs in the target.
        target: UidRanges,
    },
    /// Flags: those changed since `unchanged_since`, not touched.
    Modified(UidRanges),
    /// Expunge: those removed.
    Expunged(UidRanges),
    /// MailboxCreate.
    Created {
        /// The mailbox.
        mailbox: MailboxId,
    },
    /// SetMetadata: a value is longer than this, in octets; nothing was set.
    MetadataTooLong(u64),
    /// SetMetadata: there would be too many entries; nothing was set.
    MetadataTooMany,
}

/// From now on, [`Changed`] for all accounts is sent on this connection.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Subscribe;
operation!(Subscribe = 5, idempotent -> ());

/// An account has changed. A hint: the change log is the truth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The account.
    pub account: AccountId,
    /// Its modseq now.
    pub modseq: ModSeq,
    /// The mailboxes concerned; empty: any.
    pub mailboxes: Vec<MailboxId>,
}
event!(Changed = 1);

/// Figures of the store, and whether it can be written now.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StoreStatus;
operation!(StoreStatus = 6, idempotent -> StoreFigures);

/// The answer to [`StoreStatus`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreFigures {
    /// `SQLite`, `PostgreSQL`, `MySQL`.
    pub database: String,
    /// Version of the schema.
    pub schema: u32,
    /// `fs`, `s3`.
    pub blobs: String,
    /// Why it cannot be written now; empty if it can.
    pub trouble: String,
    /// Accounts that have mailboxes.
    pub accounts: u64,
    /// Messages.
    pub messages: u64,
    /// Octets of all messages as clients see them.
    pub bytes: u64,
}

/// Notes what a script of the account must not do again before a time (RFC 5230 4.2, RFC 7352). Called by deliverd when
/// all copies of the message are stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Remember {
    /// Whose script.
    pub account: AccountId,
    /// The message for which it was noted: to it, and only to it, the note does not count.
    pub id: QueueId,
    /// Keys (hashes made by deliverd) and the seconds since 1970 until which each counts.
    pub notes: Vec<(u64, i64)>,
}
operation!(Remember = 7, idempotent -> ());

/// Holds an account's maildrop for one POP3 session (RFC 1939 3) until the connection ends or [`ReleaseMaildrop`]. False if
/// somebody else holds it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HoldMaildrop {
    /// A grant with the right to read.
    pub grant: Grant,
    /// Random, of the session; the same holder may ask again.
    pub holder: u64,
}
operation!(HoldMaildrop = 8, idempotent -> bool);

/// Lets go of a maildrop.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReleaseMaildrop {
    /// The account.
    pub account: AccountId,
    /// As in [`HoldMaildrop`].
    pub holder: u64,
}
operation!(ReleaseMaildrop = 9, idempotent -> ());

/// Examines an account's rows, and mends them if told to. Never deletes what it cannot explain.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Examine {
    /// The first account with at least this number is examined. At the end (no such account) whatever belongs to none.
    pub from: AccountId,
    /// Mend what can be mended.
    pub repair: bool,
    /// Read every body and compare its hash, instead of looking whether it is there.
    pub bodies: bool,
}
operation!(Examine = 10, idempotent -> Examined);

/// The answer to [`Examine`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Examined {
    /// Which one; `None`: what belongs to no account was looked at, and all is done.
    pub account: Option<AccountId>,
    /// Messages looked at.
    pub messages: u64,
    /// What is wrong: at most 1,000 findings.
    pub findings: Vec<Finding>,
}

/// Something wrong in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What and where, for the operator.
    pub text: String,
    /// It was mended (or, without `repair`, could be).
    pub mendable: bool,
}

/// Removes all mail, scripts and lists of an account that the directory no longer has.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AccountErase {
    /// Which.
    pub account: AccountId,
}
operation!(AccountErase = 11, idempotent -> ());

/// Gives an upload back that will not be used: the client went away, or its message was refused.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CloseUpload {
    /// From [`OpenUpload`], over the same connection. One that is not there (any more) is closed already.
    pub slot: u64,
}
operation!(CloseUpload = 12, idempotent -> ());

/// Examines the storage of large bodies: whether a row names each. Never removes what it cannot explain.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExamineObjects {
    /// Bodies whose ids begin with this octet.
    pub first: u8,
    /// Have those removed that have been there for more than a day and that no row names.
    pub repair: bool,
}
operation!(ExamineObjects = 13, idempotent -> ExaminedObjects);

/// The answer to [`ExamineObjects`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExaminedObjects {
    /// Bodies looked at.
    pub objects: u64,
    /// Of these, how many no row names.
    pub orphans: u64,
    /// Octets of these.
    pub bytes: u64,
    /// What is wrong: at most 1,000 findings of each kind.
    pub findings: Vec<Finding>,
}
