//! The DNS records that a mail domain needs, as text for its zone, and how what is published differs from them.
//!
//! Plain values in, plain values out: no resolver, no clock, no keys. [`needed()`] makes the records of a [`Site`];
//! [`zone_file`] writes them as RFC 1035 5 has it; [`questions`] says what a resolver is to be asked, and [`compare()`] judges
//! the answers.
//!
//! STANDARDS: RFC 1035 (zone files), RFC 7208 (SPF), RFC 6376 and RFC 8463 (DKIM), RFC 7489 (DMARC), RFC 8461 (MTA-STS),
//! RFC 8460 (TLS-RPT), RFC 7672 (TLSA), RFC 6186, RFC 8314, RFC 8620, RFC 6764 and RFC 5804 (SRV), RFC 8659 and RFC 8657 (CAA),
//! draft-ietf-acme-dns-persist-01 (for authorities).
#![forbid(unsafe_code)]

mod compare;
mod config;
pub mod fuzz;
mod mta_sts;
mod needed;
mod persist;
mod policy;
mod record;
mod tlsa;

pub use compare::{Finding, Published, Verdict, compare, questions};
pub use config::{Config, DomainConfig, MtaStsMode};
pub use mta_sts::{policy as mta_sts_policy, policy_id as mta_sts_id};
pub use needed::{CertificateKey, DkimText, Protocol, Service, Site, needed};
pub use persist::Persistent;
pub use record::{Data, Kind, Record, caa_value, zone_file};
pub use tlsa::{key_digest, rsa_bits};
