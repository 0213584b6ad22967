//! relayd: delivery to other hosts.

use crate::operation;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use types::{Address, Body, BodyType, Notify, Octets, Outcome, QueueId, Ret, Terms, TraceId};

/// Makes one attempt at one destination. Not idempotent by nature: SMTP itself may double a message whose final reply is
/// lost (RFC 1047), so queued repeats it only by its schedule.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Relay {
    /// The message's id in the queue.
    pub id: QueueId,
    /// For logs.
    pub trace: TraceId,
    /// The domain of all recipients.
    pub domain: String,
    /// A route by name or `host:port`, given by an operator; `None`: as configured.
    pub route: Option<String>,
    /// The reverse-path.
    pub sender: Option<Address>,
    /// MAIL's RET.
    pub ret: Option<Ret>,
    /// MAIL's ENVID.
    pub envid: Option<String>,
    /// MAIL's BODY.
    pub body_type: BodyType,
    /// MAIL's SMTPUTF8.
    pub smtputf8: bool,
    /// MAIL's REQUIRETLS.
    pub require_tls: bool,
    /// At most [`Relay::MAX_RECIPIENTS`].
    pub recipients: Vec<RelayRecipient>,
    /// Sign with the keys of the sender's (or From's) domain.
    pub sign: bool,
    /// Trace header fields before the body.
    pub prefix: Octets,
    /// Inline or attached.
    pub body: Body,
    /// MAIL's MT-PRIORITY and BY.
    pub terms: Terms,
    /// What a rule of the queue wants.
    pub manner: Manner,
    /// What is remembered of the domain's MTA-STS policy.
    pub policy: Option<StsPolicy>,
}
operation!(Relay = 1, once -> Relayed);

/// How a message leaves, where a rule of the queue wants it otherwise than relayd's configuration has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Manner {
    /// The source address, for targets of its family.
    pub source: Option<IpAddr>,
    /// The name in EHLO.
    pub hello: Option<String>,
    /// How TLS is used.
    pub tls: Option<TlsDemand>,
}

/// How TLS is used towards the next host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsDemand {
    /// Not at all.
    None,
    /// Where it is offered; in the clear otherwise.
    Opportunistic,
    /// TLS or nothing.
    Required,
    /// TLS with a valid certificate or nothing.
    Verified,
}

impl std::fmt::Display for TlsDemand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Opportunistic => "opportunistic",
            Self::Required => "required",
            Self::Verified => "verified",
        })
    }
}

impl Relay {
    /// RFC 5321 4.5.3.1.8: a server takes at least 100.
    pub const MAX_RECIPIENTS: usize = 100;
}

/// One recipient of [`Relay`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayRecipient {
    /// Its index in the envelope.
    pub index: u16,
    /// RCPT.
    pub address: Address,
    /// RCPT's ORCPT.
    pub orcpt: Option<String>,
    /// RCPT's NOTIFY.
    pub notify: Notify,
}

/// The answer to [`Relay`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relayed {
    /// One for each recipient.
    pub outcomes: Vec<(u16, Outcome)>,
    /// Whether the host took over NOTIFY (it offered DSN): then the success report is its task (RFC 3461 5.2.2).
    pub dsn_passed: bool,
    /// The host spoken to, with its address and the TLS version, for logs and operators.
    pub host: Option<String>,
    /// Whether the destination as a whole failed (no connection, no DNS answer, 421): its concurrency shrinks.
    pub destination_down: bool,
    /// Whether the host took over the time limit (it offered DELIVERBY, RFC 2852).
    pub by_passed: bool,
    /// The domain's MTA-STS policy, if it is to be remembered instead of [`Relay::policy`].
    pub policy: Option<StsPolicy>,
}

/// A policy of MTA-STS, kept by queued so that it outlives relayd: what is remembered is what protects (RFC 8461 10.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StsPolicy {
    /// The id in the TXT record when it was fetched.
    pub id: String,
    /// The fields of its file that mean something (RFC 8461 3.2), at most [`StsPolicy::TEXT_MAX`] octets.
    pub text: String,
    /// Seconds since 1970 at which it was fetched.
    pub fetched: u64,
    /// Seconds since 1970 until which it counts.
    pub expires: u64,
}

impl StsPolicy {
    /// Octets of a text; a policy of some hundred exchangers has no more. Larger ones are in relayd's memory alone.
    pub const TEXT_MAX: usize = 8 * 1024;
}

/// Posts a report on TLS (RFC 8460 5.4), once. Not idempotent by nature, as [`Relay`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PostReport {
    /// reportd's number of the report, for logs.
    pub id: u64,
    /// For logs.
    pub trace: TraceId,
    /// An `https:` address.
    pub url: String,
    /// The report in gzip, inline or attached, at most [`PostReport::MAX`] octets.
    pub body: Body,
}
operation!(PostReport = 2, once -> PostedReport);

impl PostReport {
    /// Octets of a report at most: they are held in memory.
    pub const MAX: u64 = 32 * 1024 * 1024;
}

/// The answer to [`PostReport`], each time with the server's own words or what was wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PostedReport {
    /// The server has it: its answer was 2xx.
    Accepted(String),
    /// It may go another time.
    Again(String),
    /// It never will: the server said so (4xx), or the address is none that we post to.
    Refused(String),
}
