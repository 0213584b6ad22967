//! queued: takes responsibility for messages, and lets operators see and steer the queue.

use crate::operation;
use serde::{Deserialize, Serialize};
use types::{
    Address, Body, Envelope, Grant, Held, Octets, QueueId, Recipient, Status, Terms, TraceId,
};

/// Reserves queue ids, so that a listener can write one into Received before it commits. Unused ones are just gaps.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReserveIds {
    /// How many: 1 to 4096.
    pub count: u32,
}
operation!(ReserveIds = 1, idempotent -> ReservedIds);

/// The answer to [`ReserveIds`]: `first`, `first + 1` ... .
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservedIds {
    /// The first.
    pub first: QueueId,
    /// How many: as asked for.
    pub count: u32,
}

/// Opens a spool file for a large body; its descriptor, open for writing, comes with the reply. A slot that is not
/// committed before the connection ends is removed. Busy when the disk is near full.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OpenSpool {
    /// The size that the client declared; 0 if none.
    pub expected: u64,
}
operation!(OpenSpool = 2, once -> SpoolSlot);

/// The answer to [`OpenSpool`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolSlot {
    /// For [`Body::Slot`].
    pub slot: u64,
}

/// Gives a slot back that will not be committed: the client went away, or its message was refused.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CloseSpool {
    /// From [`SpoolSlot`].
    pub slot: u64,
}
operation!(CloseSpool = 4, idempotent -> ());

/// A descriptor for reading comes with the reply: for filters that look at a large body before it is committed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReadSpool {
    /// From [`SpoolSlot`], of the same connection.
    pub slot: u64,
}
operation!(ReadSpool = 5, idempotent -> ());

/// Accepts a message. After the reply it survives power loss (RFC 5321 4.2.5). Committing the same id again is answered
/// alike and does nothing. Faults: Busy (no room: 452), Denied (a remote recipient without the right: 550), Temporary (451).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Commit {
    /// One of [`ReservedIds`].
    pub id: QueueId,
    /// Follows the message through all logs.
    pub trace: TraceId,
    /// From where, and by what right.
    pub origin: Origin,
    /// MAIL and RCPT.
    pub envelope: Envelope,
    /// Trace header fields that we put before the body (Received, and on submission Date and Message-ID), CRLF lines.
    pub prefix: Octets,
    /// The message as it came: inline, or a slot of [`OpenSpool`].
    pub body: Body,
    /// No attempt is made before an operator releases it; `Invalid` if it does not fit.
    pub held: Option<Held>,
}
operation!(Commit = 3, idempotent -> ());

/// Where a message came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// By what right.
    pub right: Right,
    /// The listener's name, or `local`.
    pub listener: String,
    /// The client's address and EHLO name, for logs and operators.
    pub client: String,
}

/// What allows a message's recipients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Right {
    /// Nothing: local recipients only, and any remote one is Denied.
    Incoming,
    /// A login with the right to submit; queued verifies the seal. Gets DKIM signatures.
    Submission(Grant),
    /// A network which the configuration of queued lists (`queued.relay_networks`); the client's address.
    Network(std::net::IpAddr),
    /// The operator's own tool; only from the role `posthouse`. Gets DKIM signatures.
    Operator,
}

/// Which messages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueFilter {
    /// Only these; empty is all.
    pub ids: Vec<QueueId>,
    /// Only with this sender (`<>` for the null sender), or of this domain (`@example.org`).
    pub sender: Option<String>,
    /// Only with a recipient of this address or domain (`@example.org`).
    pub recipient: Option<String>,
    /// Only held ones (`Some(true)`), only others (`Some(false)`).
    pub held: Option<bool>,
}

/// The messages in the queue, oldest first, in pages.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QueueList {
    /// Which.
    pub filter: QueueFilter,
    /// Ids behind this one.
    pub after: Option<QueueId>,
    /// At most so many, up to 200.
    pub limit: u32,
}
operation!(QueueList = 10, idempotent -> Vec<QueueEntry>);

/// A message in the queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueEntry {
    /// Its id.
    pub id: QueueId,
    /// Its trace.
    pub trace: TraceId,
    /// Seconds since 1970.
    pub arrived: u64,
    /// Octets, prefix included.
    pub size: u64,
    /// The reverse-path.
    pub sender: Option<Address>,
    /// Not tried until released.
    pub held: bool,
    /// Those not yet done; the first 50.
    pub recipients: Vec<QueueRecipient>,
    /// How many are not yet done.
    pub pending: u32,
    /// When, how urgently and how long it is to be tried.
    pub terms: Terms,
    /// The node that works on it, or has it in its journal; empty: none does.
    pub node: String,
    /// Who wanted it held when it came, and why, while it is held. In lists, the reason may be cut.
    pub hold: Option<Held>,
    /// A post to a mailing list that waits for its owners: under which id it came. Its recipient is the list.
    pub post: Option<QueueId>,
}

/// A recipient that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueRecipient {
    /// RCPT.
    pub recipient: Recipient,
    /// Attempts so far.
    pub attempts: u32,
    /// Seconds since 1970 of the next one.
    pub next: u64,
    /// Seconds since 1970 when it is given up.
    pub expires: u64,
    /// How the last attempt ended.
    pub last: Option<Status>,
}

/// One message with its header.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QueueShow {
    /// Its id.
    pub id: QueueId,
}
operation!(QueueShow = 11, idempotent -> QueueDetail);

/// The answer to [`QueueShow`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueDetail {
    /// As in the list.
    pub entry: QueueEntry,
    /// From where.
    pub origin: String,
    /// The first 16 KiB of prefix and header.
    pub header: Octets,
}

/// Tries them now. The reply is how many it concerned, as for the next four.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QueueRetry {
    /// Which.
    pub filter: QueueFilter,
}
operation!(QueueRetry = 12, idempotent -> u64);

/// Holds them until released.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QueueHold {
    /// Which.
    pub filter: QueueFilter,
}
operation!(QueueHold = 13, idempotent -> u64);

/// Ends holding.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QueueRelease {
    /// Which.
    pub filter: QueueFilter,
    /// Also those that their senders wanted to be held until later (RFC 4865).
    pub early: bool,
}
operation!(QueueRelease = 14, idempotent -> u64);

/// Removes them for good; with a report to the sender if `bounce`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QueueRemove {
    /// Which.
    pub filter: QueueFilter,
    /// Report a failure to the senders.
    pub bounce: bool,
}
operation!(QueueRemove = 15, idempotent -> u64);

/// Sends them another way from now on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QueueReroute {
    /// Which.
    pub filter: QueueFilter,
    /// A route of relayd's configuration by name, or `host:port`; `None` back to the ordinary way.
    pub route: Option<String>,
}
operation!(QueueReroute = 16, idempotent -> u64);

/// Which rules decide what of a message. The first 50 domains of its recipients that are not done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QueueExplain {
    /// Its id.
    pub id: QueueId,
}
operation!(QueueExplain = 18, idempotent -> Vec<Explained>);

/// What holds for the recipients of a message in one domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// The domain.
    pub domain: String,
    /// How many of those that are shown.
    pub recipients: u32,
    /// The queue in which they stand: `local`, the domain, or the domain and the rule.
    pub destination: String,
    /// The rule that decides; `None`: none does.
    pub rule: Option<String>,
    /// The rules before it, and what of the message did not meet their conditions.
    pub passed_over: Vec<(String, String)>,
    /// Settings by name, as they hold.
    pub settings: Vec<(String, String)>,
}

/// Figures of the queue.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QueueStats;
operation!(QueueStats = 17, idempotent -> QueueFigures);

/// The answer to [`QueueStats`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueFigures {
    /// Messages not yet done.
    pub messages: u64,
    /// Of these, being delivered.
    pub active: u64,
    /// Of these, waiting for their time.
    pub deferred: u64,
    /// Of these, held.
    pub held: u64,
    /// Octets in journal and spool.
    pub bytes: u64,
    /// Seconds since the oldest arrived.
    pub oldest: u64,
    /// The destinations with the most messages: domain, messages, connections.
    pub destinations: Vec<(String, u64, u32)>,
}

/// The nodes that share the queue table. The reply says of each what it said last.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QueueNodes;
operation!(QueueNodes = 19, idempotent -> Vec<QueueNode>);

/// A node that shares the queue table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueNode {
    /// Its name.
    pub name: String,
    /// Its number, which stands in the ids that it hands out.
    pub number: u16,
    /// Whether its lease holds.
    pub alive: bool,
    /// Whether it is the one that answers.
    pub own: bool,
    /// Seconds since 1970 when it began, by the clock of the database.
    pub began: u64,
    /// Seconds since 1970 when it renewed its lease last.
    pub seen: u64,
    /// Messages in its journal, before their first attempts are over.
    pub in_journal: u64,
    /// Messages of the table that it works on.
    pub loaded: u64,
}

/// Forgets a node that does not come back: what it had in its hands is for the others. The reply is whether there was one; one
/// that is alive is not forgotten.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QueueForget {
    /// Its name.
    pub name: String,
}
operation!(QueueForget = 20, idempotent -> bool);

/// Decides on a post that is held for the owners of a mailing list. The reply is whether there was one: an earlier decision, its end
/// and its removal leave nothing to decide. Temporary: it is on its way into the queue table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct QueueDecide {
    /// The list.
    pub list: Address,
    /// Its id in the queue, or that under which it came.
    pub post: QueueId,
    /// What becomes of it.
    pub decision: Decision,
}
operation!(QueueDecide = 21, idempotent -> bool);

/// What becomes of a post that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decision {
    /// It goes to the members.
    Accept,
    /// Its sender hears that it was refused.
    Reject,
    /// It goes, and nobody hears of it.
    Discard,
}
