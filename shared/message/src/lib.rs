//! What is known of a message without opening it again.
//!
//! [`parse`] reads a message once, when it is delivered or appended, and gives all that IMAP's FETCH, SEARCH, SORT and
//! THREAD (and JMAP's Email/get) ask of it later: the wire forms of ENVELOPE and BODYSTRUCTURE, the tree of parts with
//! offsets, an index of the header, keys for sorting and threading, a preview. [`Parsed::encode`] makes it a row;
//! [`stored`] reads single pieces of such a row in place.
//!
//! The structure is found by a scanner of our own, not by mail-parser's: IMAP shows the header's values as the sender
//! encoded them and the parts by their octets, while mail-parser decodes everything at once. What mail-parser knows best,
//! dates, charsets and HTML, is its work here too.
//!
//! A stored message is a prefix of trace fields, which differs between copies, and a body, which is shared. Descriptions are
//! of the body; [`Parsed::prepend`] moves one to where a client sees it.
//!
//! Any octets are accepted. The work is linear in the message's length and bounded by [`Limits`]; nothing panics.
//!
//! STANDARDS: RFC 5322, RFC 2045 to 2047, RFC 2183, RFC 2231, RFC 5256 2.1, RFC 6532, RFC 6858, RFC 9051 7.5.2 and 6.4.5.1.
#![forbid(unsafe_code)]

mod address;
pub mod charset;
mod envelope;
pub mod fuzz;
mod header;
mod ids;
mod media;
mod parsed;
mod places;
mod section;
pub mod stored;
mod structure;
mod subject;
mod surrogate;
mod text;
mod tokens;
pub mod transfer;
mod tree;
mod wire;

pub use address::first_domain;
pub use charset::header_text;
pub use header::{Field, Fields, HeaderIndex, is_named, select_fields};
pub use parsed::{Parsed, Sent, parse, parse_within};
pub use places::address_places;
pub use section::{SectionText, binary, find_part, locate};
pub use structure::body_of;
pub use surrogate::surrogate;
pub use text::{for_each_text, part_text};
pub use transfer::Encoding;
pub use tree::{Part, PartKind};

use serde::{Deserialize, Serialize};

/// How much of a message is looked at. What is beyond is kept and shown, but not described.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Levels of parts inside parts, at most [`Limits::DEPTH_MAX`]; what is deeper is one opaque part. 100.
    pub depth: usize,
    /// Parts in all; the last one is opaque and holds the rest. 2,000.
    pub parts: usize,
    /// Octets of one header that are read for fields. 256 KiB.
    pub header_bytes: usize,
    /// Header fields in the index. 2,000.
    pub fields: usize,
    /// Addresses of one list in the envelope. 2,000.
    pub addresses: usize,
    /// Octets of those header lines that are kept beside the message for listing. 6 KiB.
    pub listing_bytes: usize,
    /// References kept for threading: the first and the last ones. 60.
    pub references: usize,
    /// Characters of the preview. 200.
    pub preview: usize,
}

impl Limits {
    /// No configuration goes deeper.
    pub const DEPTH_MAX: usize = 200;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            depth: 100,
            parts: 2000,
            header_bytes: 256 * 1024,
            fields: 2000,
            addresses: 2000,
            listing_bytes: 6 * 1024,
            references: 60,
            preview: 200,
        }
    }
}
