//! limitd: counts what each address, sender, recipient and account has used: rates, quotas, greylisting.

use crate::operation;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use types::{Address, Status};

/// Weighs what a client is about to do. What is counted at this stage is counted by this call, if the answer lets the client go
/// on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weigh {
    /// How far the client is.
    pub stage: Stage,
    /// What is known of it.
    pub facts: Facts,
}
operation!(Weigh = 1, once -> Weighed);

/// How far a client is. What has been known at an earlier stage is known at all later ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// It is connected; counts a connection.
    Connect,
    /// It said MAIL, with this SIZE or 0. Nothing is counted.
    Mail {
        /// Octets.
        declared: u64,
    },
    /// It said RCPT with an address that would be taken. Nothing is counted; greylisting happens here.
    Recipient {
        /// To whom.
        recipient: Address,
        /// Recipients of this message that were taken already.
        taken: u32,
        /// Of these, the ones in the same domain.
        taken_there: u32,
        /// Octets as MAIL declared them, or 0.
        declared: u64,
    },
    /// It said RCPT with an address that is not here; counts an unknown recipient in any case.
    Unknown {
        /// To whom.
        recipient: Address,
    },
    /// The message is here and acceptable otherwise; counts a message, its recipients and its octets.
    Message {
        /// To whom, each once.
        recipients: Vec<Address>,
        /// Octets.
        octets: u64,
        /// More recipients of a message that was counted already, since they do not fit into one question.
        rest: bool,
    },
}

/// What is known of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// From where; `None` on a Unix socket.
    pub client: Option<IpAddr>,
    /// Through which listener.
    pub listener: String,
    /// What it calls itself; empty before EHLO.
    pub helo: String,
    /// The account's name, if it is logged in.
    pub account: Option<String>,
    /// MAIL FROM; `None` before MAIL, and for the null reverse-path.
    pub sender: Option<Address>,
    /// It is known to be good (an allow list has it): no greylisting.
    pub vouched: bool,
    /// Who it is in DNS; `None`: nobody has asked.
    pub identity: Option<Identity>,
}

/// Who a client is in DNS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its name, which leads back to its address (iprev, RFC 8601 3).
    pub name: Option<String>,
    /// The domain of MAIL FROM (of EHLO, for the null reverse-path), if its SPF passes.
    pub spf: Option<String>,
}

/// What to answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weighed {
    /// `None`: go on. 4xx: later. 5xx: never. Before the greeting, 421 and 554 take its place.
    pub status: Option<Status>,
    /// Which rule says so; `greylist` is none of the rules. Empty if the client may go on.
    pub rule: String,
    /// It could be another answer with [`Facts::identity`]: nothing was counted or noted. Ask again.
    pub unidentified: bool,
}

/// Takes back what [`Stage::Message`] counted: the message was not taken after all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GiveBack {
    /// What was weighed.
    pub weigh: Weigh,
}
operation!(GiveBack = 2, once -> ());

/// What was used most, of its limit.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LimitList {
    /// Only of this rule.
    pub rule: Option<String>,
    /// So many at most, and never more than 300.
    pub limit: u32,
}
operation!(LimitList = 3, idempotent -> Vec<Used>);

/// What has been used under one key: `192.0.2.1`, `jane@example.org`, or the several parts of a key with blanks between.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LimitShow {
    /// The key, or a part of it.
    pub key: String,
}
operation!(LimitShow = 4, idempotent -> Vec<Used>);

/// Forgets what was used under a key; gives how many counts that were.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LimitReset {
    /// The key, or a part of it.
    pub key: String,
    /// Only of this rule.
    pub rule: Option<String>,
}
operation!(LimitReset = 5, once -> u64);

/// What has been used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// By which rule it is counted.
    pub rule: String,
    /// What is counted: `messages`, `recipients` ...
    pub count: String,
    /// Whose it is.
    pub key: String,
    /// So much, in the last `period` seconds.
    pub used: u64,
    /// Of so much.
    pub limit: u64,
    /// Seconds.
    pub period: u64,
    /// Seconds until one more is allowed; 0 if it is now.
    pub wait: u64,
}

/// What greylisting knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GreyList {
    /// Only what has exactly this network, sender or recipient; all if it is empty.
    pub part: String,
    /// So many at most, and never more than 150.
    pub limit: u32,
}
operation!(GreyList = 6, idempotent -> Greys);

/// What greylisting knows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Greys {
    /// Who was asked to come again, and who came; the latest first.
    pub waiting: Vec<Grey>,
    /// Networks that need not wait any more.
    pub networks: Vec<GreyNetwork>,
}

/// A sender that was asked to come again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Grey {
    /// `192.0.2.0/24`
    pub network: String,
    /// `<>` for reports.
    pub sender: String,
    /// To whom.
    pub recipient: String,
    /// When it first came, seconds since 1970.
    pub first: u64,
    /// When it came again in time; 0 if it has not.
    pub passed: u64,
    /// When it is forgotten.
    pub expires: u64,
}

/// A network that greylisting has an opinion of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GreyNetwork {
    /// `192.0.2.0/24`
    pub network: String,
    /// Messages that came from it after waiting.
    pub good: u64,
    /// It need not wait.
    pub allowed: bool,
    /// When that is forgotten, seconds since 1970.
    pub expires: u64,
}

/// Lets the network of an address pass without waiting; gives the network.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GreyAllow {
    /// An address in it.
    pub address: IpAddr,
    /// For so many seconds; `greylist.lifetime` if it is not given.
    pub seconds: Option<u64>,
}
operation!(GreyAllow = 7, idempotent -> String);

/// Forgets what greylisting knows of a network, sender or recipient; gives how many rows that were.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GreyForget {
    /// Exactly as [`GreyList`] shows it.
    pub item: String,
}
operation!(GreyForget = 8, once -> u64);
