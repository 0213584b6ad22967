//! hookd: asks filters about mail while it arrives: milters, HTTP hooks, the administrator's Sieve scripts.
//!
//! A session of SMTP is opened here ([`HookOpen`]), asked about at each of its stages, and closed. What filters want changed comes
//! with the answer to [`HookMessage`], as one result of all of them.

use crate::operation;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use types::{Body, Enhanced, Held, Octets};

/// The session begins: the stage `connect`. Faults: Busy (too many sessions).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HookOpen {
    /// Who came, and where.
    pub client: HookClient,
}
operation!(HookOpen = 1, once -> HookOpened);

/// The client, and the door that it came through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookClient {
    /// The listener's name.
    pub listener: String,
    /// `mx`, `submission` or `lmtp`.
    pub role: String,
    /// Our name.
    pub hostname: String,
    /// The client's address; `None` on a local socket.
    pub address: Option<IpAddr>,
    /// Its port; 0 if that is not known.
    pub port: u16,
    /// Where it came to.
    pub server: Option<SocketAddr>,
}

/// The answer to [`HookOpen`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookOpened {
    /// For all that follows; valid on this connection only.
    pub session: u64,
    /// What the filters say.
    pub verdict: Verdict,
    /// A filter asks at EHLO.
    pub wants_hello: bool,
    /// A filter asks at RCPT: tell each as it comes. Else they are told before the message, many at a time.
    pub wants_rcpt: bool,
}

/// What is known of the session by now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookFacts {
    /// The name that the client gave.
    pub hello: String,
    /// By EHLO or LHLO.
    pub extended: bool,
    /// The version of TLS, and its cipher suite.
    pub tls: Option<(String, String)>,
    /// The account's name, and the mechanism.
    pub login: Option<(String, String)>,
}

/// The stage `ehlo`. Faults of this and what follows: NotFound (no such session: hookd was started again).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HookHello {
    /// From [`HookOpened`].
    pub session: u64,
    /// What is known.
    pub facts: HookFacts,
}
operation!(HookHello = 2, once -> Verdict);

/// The stage `mail`: a transaction begins, and the one before is over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HookMail {
    /// From [`HookOpened`].
    pub session: u64,
    /// What is known.
    pub facts: HookFacts,
    /// The id that the message will have in the queue.
    pub id: String,
    /// The reverse-path.
    pub sender: HookAddress,
}
operation!(HookMail = 3, once -> Verdict);

/// A path, and the parameters behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookAddress {
    /// Without angle brackets; empty for `<>`.
    pub address: String,
    /// `SIZE=1`, as on the wire.
    pub parameters: Vec<String>,
    /// It is a recipient on another host.
    pub remote: bool,
}

/// The stage `rcpt`: recipients that are accepted but for what filters say; one, or many if none is asked about them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HookRcpt {
    /// From [`HookOpened`].
    pub session: u64,
    /// At most [`HookRcpt::MAX`].
    pub recipients: Vec<HookAddress>,
}
operation!(HookRcpt = 4, once -> Verdict);

impl HookRcpt {
    /// Recipients in one call.
    pub const MAX: usize = 100;
}

/// The stage `data`: the message is there.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HookMessage {
    /// From [`HookOpened`].
    pub session: u64,
    /// Fields that we put before the message and that filters see (Authentication-Results, and what a submission lacked).
    pub own: Octets,
    /// The message: inline or attached.
    pub body: Body,
    /// The largest message, in octets: what filters make of it is no larger.
    pub most: u64,
}
operation!(HookMessage = 5, once -> HookOutcome);

/// The transaction is over without a message.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HookAbort {
    /// From [`HookOpened`].
    pub session: u64,
}
operation!(HookAbort = 6, idempotent -> ());

/// The session is over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HookClose {
    /// From [`HookOpened`].
    pub session: u64,
}
operation!(HookClose = 7, idempotent -> ());

/// What filters say at a stage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Nothing against it.
    #[default]
    Go,
    /// It is answered so.
    Refuse(Refusal),
    /// The message, or all of the session at `connect` and `ehlo`, is taken and thrown away: the name of the filter that says so.
    Discard(String),
}

/// An answer that refuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The filter's name, for logs.
    pub filter: String,
    /// 400 to 599.
    pub code: u16,
    /// Its enhanced code.
    pub enhanced: Enhanced,
    /// Lines are separated by `\n`; at most 4,000 octets.
    pub text: String,
    /// And the session is closed.
    pub close: bool,
}

/// The answer to [`HookMessage`]: what comes of the message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookOutcome {
    /// What the filters say. The rest is of interest only if it is [`Verdict::Go`].
    pub verdict: Verdict,
    /// Another sender; empty for `<>`.
    pub sender: Option<String>,
    /// Recipients that are none any more.
    pub removed: Vec<String>,
    /// More recipients; at most [`HookOutcome::MAX_ADDED`].
    pub added: Vec<AddedRecipient>,
    /// What becomes of the header.
    pub header: NewHeader,
    /// Where the text begins in the message as it came, behind the empty line.
    pub body_at: u64,
    /// A new body, without the empty line before it: inline or attached.
    pub body: Option<Body>,
    /// It is to be filed in Junk: the filter and its reason.
    pub quarantine: Option<(String, String)>,
    /// It is to be held in the queue: the filter and its reason.
    pub held: Option<Held>,
}

impl HookOutcome {
    /// Recipients that filters may add to one message.
    pub const MAX_ADDED: usize = 100;
}

/// What becomes of a header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum NewHeader {
    /// It stays.
    #[default]
    Same,
    /// These fields come before it, our own included.
    Before(Octets),
    /// This is the header now.
    Whole {
        /// Fields before our own.
        before: Octets,
        /// Those of our own that are as they were.
        own: Octets,
        /// What follows, without the empty line: inline or attached (before an attached body).
        rest: Body,
    },
}

/// A recipient that a filter added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedRecipient {
    /// The filter's name.
    pub filter: String,
    /// Without angle brackets.
    pub address: String,
    /// Parameters of RCPT.
    pub parameters: String,
    /// It may be on another host, if the client may send there.
    pub may_relay: bool,
}

/// What is done for a filter that is away, too slow, or not understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Away {
    /// The mail goes on without it.
    Accept,
    /// The client is told to come again.
    #[default]
    Later,
    /// The mail is refused.
    Refuse,
}

/// The filters, for the operator.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HookList {
    /// Asks each whether it answers.
    pub probe: bool,
}
operation!(HookList = 10, idempotent -> Vec<HookRow>);

/// A filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookRow {
    /// Its name.
    pub name: String,
    /// `milter`, `http` or `sieve`.
    pub kind: String,
    /// Its address, URL or file.
    pub place: String,
    /// Of these listeners; none is all.
    pub listeners: Vec<String>,
    /// How often it was asked since the start.
    pub asked: u64,
    /// How often it was away.
    pub failed: u64,
    /// Whether it answers, with its words; `None` if it was not asked now.
    pub answers: Option<Result<String, String>>,
}

/// Runs a message past the filters of a listener, as if it had come; nothing is queued.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HookTest {
    /// Who came.
    pub client: HookClient,
    /// What it said.
    pub facts: HookFacts,
    /// MAIL.
    pub sender: HookAddress,
    /// RCPT.
    pub recipients: Vec<HookAddress>,
    /// The message: inline or attached.
    pub body: Body,
    /// Only this filter.
    pub filter: Option<String>,
}
operation!(HookTest = 11, once -> HookTested);

/// The answer to [`HookTest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookTested {
    /// The stage at which it ended.
    pub stage: String,
    /// What comes of it; a new header or body is attached if it is large.
    pub outcome: HookOutcome,
}
