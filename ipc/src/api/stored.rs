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
    /// The mailbox's full name; INBOX when it is empty or not there. Never created by delivery.
    pub mailbox: String,
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

/// Opens a file for a large body; its descriptor, open for writing, comes with the reply.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OpenUpload {
    /// A grant with the right to write.
    pub grant: Grant,
    /// The size to come; OverQuota if the account has no room for it.
    pub expected: u64,
}
operation!(OpenUpload = 3, once -> u64);

/// Changes an account's mail. Idempotent by the request id. Faults: Denied (grant), NotFound, Conflict, Invalid, OverQuota.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mutate {
    /// Random; the same when it is sent again.
    pub request: RequestId,
    /// The right to change the account.
    pub grant: Grant,
    /// The change.
    pub mutation: Mutation,
}
operation!(Mutate = 4, idempotent -> Mutated);

/// Ascending, disjoint ranges of UIDs, both ends included.
pub type UidRanges = Vec<(u32, u32)>;

/// The list of all changes of state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mutation {
    /// APPEND.
    Append {
        /// Into which.
        mailbox: MailboxId,
        /// As IMAP names them.
        flags: Vec<String>,
        /// The message.
        message: NewMessage,
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
        /// To.
        target: MailboxId,
    },
    /// MOVE (RFC 6851): all or none.
    Move {
        /// From.
        mailbox: MailboxId,
        /// Which.
        uids: UidRanges,
        /// To.
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
        /// The message's UID.
        uid: Uid,
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
