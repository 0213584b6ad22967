//! The words that all daemons share: identifiers, addresses, envelopes, grants, delivery states.
//!
//! Pure: no I/O, no clock, no randomness. What travels between daemons is made of these types, so a change here changes
//! the hash that ipc's hello compares, and a stale daemon is refused instead of misread.
#![forbid(unsafe_code)]

mod address;
mod base32;
mod body;
mod envelope;
mod grant;
mod id;
pub mod moment;
mod network;
mod pattern;
mod role;
mod status;
mod suspicion;
pub mod xml;

pub use address::{Address, AddressError};
pub use body::{Body, Octets};
pub use envelope::{
    BodyType, ByMode, DeliverBy, Envelope, Held, Notify, Recipient, Release, Ret, Route, Terms,
};
pub use grant::{Grant, Membership, Rights};
pub use id::{
    AccountId, BlobId, ContentId, EmailId, MailboxId, ModSeq, QueueId, RequestId, ThreadId,
    TraceId, Uid,
};
pub use network::{Network, NetworkError};
pub use pattern::{AddressPattern, REPORT_ADDRESSES, ReportAddresses, ReportsSent};
pub use role::Role;
pub use status::{Enhanced, Outcome, Status};
pub use suspicion::{Suspicion, Treatment};
