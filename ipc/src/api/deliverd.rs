//! deliverd: local delivery.

use crate::operation;
use serde::{Deserialize, Serialize};
use types::{Address, Body, DeliverBy, Notify, Octets, Outcome, QueueId, Ret, TraceId};

/// Delivers a message to local recipients. Idempotent by (id, recipient index): what the store has, it does not take
/// twice.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Deliver {
    /// The message's id in the queue.
    pub id: QueueId,
    /// For logs.
    pub trace: TraceId,
    /// Seconds since 1970: IMAP's INTERNALDATE.
    pub arrived: u64,
    /// The reverse-path.
    pub sender: Option<Address>,
    /// MAIL's RET, for scripts.
    pub ret: Option<Ret>,
    /// MAIL's ENVID, for scripts.
    pub envid: Option<String>,
    /// Which recipients.
    pub recipients: Vec<LocalRecipient>,
    /// Trace header fields before the body. deliverd adds Return-Path and Delivered-To.
    pub prefix: Octets,
    /// Inline or attached.
    pub body: Body,
    /// One of our own users sent it, or a host of ours: lists believe its From.
    pub ours: bool,
    /// MAIL's BY, for scripts.
    pub by: Option<DeliverBy>,
    /// A post that an owner of the list has let in. queued alone knows: nothing in a message can say so.
    pub let_in: bool,
}
operation!(Deliver = 1, idempotent -> Delivered);

/// One recipient of [`Deliver`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalRecipient {
    /// Its index in the envelope.
    pub index: u16,
    /// RCPT.
    pub address: Address,
    /// RCPT's ORCPT, for redirects and scripts.
    pub orcpt: Option<String>,
    /// RCPT's NOTIFY, for redirects and scripts.
    pub notify: Notify,
}

/// The answer to [`Deliver`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    /// One for each recipient. Done when every mailbox behind the address has it and every redirect is in
    /// [`Delivered::follow_ups`].
    pub outcomes: Vec<(u16, Outcome)>,
    /// What queued must journal before it frees the recipients.
    pub follow_ups: Vec<FollowUp>,
}

/// Work that a delivery leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FollowUp {
    /// The same message to another address (an alias to elsewhere), as a new message of the queue.
    Redirect {
        /// The recipient that it comes from.
        index: u16,
        /// The new recipients.
        to: Vec<Address>,
        /// Trace header fields to put before the present prefix (Delivered-To, RFC 9228).
        prefix: Octets,
        /// The message as a script changed it (RFC 5293), instead of the prefix and body of the call; at most 64 KiB.
        content: Option<Octets>,
        /// RET, NOTIFY and a deadline that a script asked for (RFC 6009, RFC 2852).
        options: RedirectOptions,
    },
    /// A message that a script made: a vacation answer, a notification, a rejection.
    Message {
        /// The recipient that it comes from.
        index: u16,
        /// The reverse-path; `None` is the null one.
        sender: Option<Address>,
        /// Its recipients.
        to: Vec<Address>,
        /// All of it, header first; at most 64 KiB.
        content: Octets,
    },
    /// A post to the members of a mailing list. A descriptor comes with it, in the order of these: a file with `recipients`
    /// octets of postcard (`Vec<Address>`), and behind them `content` octets of the message as it is now.
    Distribute {
        /// The recipient that it comes from.
        index: u16,
        /// The reverse-path: where bounces go.
        sender: Address,
        /// Header fields to put before the present prefix.
        prefix: Octets,
        /// Octets of the recipients.
        recipients: u64,
        /// Octets of the message.
        content: u64,
    },
    /// Personal copies of a list's post, each a message with one recipient and the body of the call. A descriptor comes with it,
    /// as with [`FollowUp::Distribute`]: a file with `octets` of postcard (`Vec<Copy>`).
    Copies {
        /// The recipient that it comes from.
        index: u16,
        /// All header fields that stand before the body, behind those of each copy.
        prefix: Octets,
        /// Octets of the file.
        octets: u64,
    },
    /// A post that waits for the owners of a mailing list, as a message of its own in the queue. A descriptor comes with it as with
    /// [`FollowUp::Distribute`], and in one order with these: the owners, and what they are told.
    Hold {
        /// The recipient that it comes from.
        index: u16,
        /// The list.
        list: Address,
        /// For operators: one line.
        why: String,
        /// Seconds for which it waits at most.
        seconds: u64,
        /// Nobody hears of it if it is not posted: its sender is forged.
        quiet: bool,
        /// Octets of the owners; nobody is told if there are none.
        recipients: u64,
        /// Octets of what they are told.
        content: u64,
    },
    /// What an owner has decided on such a post.
    Decide {
        /// The recipient that it comes from.
        index: u16,
        /// The list.
        list: Address,
        /// Under which id the post came.
        post: QueueId,
        /// Whether it is let in; otherwise it is refused.
        accept: bool,
        /// The owner, who gets one of these answers.
        owner: Address,
        /// It is done. All of a message, header first; at most 16 KiB.
        done: Octets,
        /// There is no such post that waits: likewise.
        gone: Octets,
    },
}

/// One of [`FollowUp::Copies`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    /// Its recipient.
    pub to: Address,
    /// The reverse-path.
    pub sender: Address,
    /// Header fields of its own.
    pub first: Octets,
    /// Whether the recipient is known to be elsewhere.
    pub remote: bool,
}

impl FollowUp {
    /// The recipient that it comes from.
    pub fn index(&self) -> u16 {
        match self {
            Self::Redirect { index, .. }
            | Self::Message { index, .. }
            | Self::Distribute { index, .. }
            | Self::Copies { index, .. }
            | Self::Hold { index, .. }
            | Self::Decide { index, .. } => *index,
        }
    }
}

/// What a script asks of a redirected message's reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedirectOptions {
    /// NOTIFY (RFC 3461 4.1); `None` keeps the recipient's own.
    pub notify: Option<Notify>,
    /// RET (RFC 3461 4.3): full message or header only.
    pub ret: Option<types::Ret>,
    /// The address may be one of ours: a script names any, while aliases to our own are followed before.
    pub anywhere: bool,
    /// The reverse-path instead of the message's own (SRS).
    pub sender: Option<Address>,
    /// By when it is to be delivered (RFC 2852) instead of the message's own limit.
    pub by: Option<DeliverBy>,
}
