//! IMAP on the wire (RFC 9051, RFC 3501): bytes in, events and commands out; responses appended to a buffer.
//!
//! - [`Reader`] cuts what arrives into commands, literals included, streams the message of APPEND past itself, and keeps
//!   in step with the client through lines and literals that are too long.
//! - [`parse`] makes a typed [`Command`] of one command's octets, or says how to refuse it.
//! - [`put`] writes the pieces of responses.
//! - [`SequenceSet`], [`Flag`](flag), [`date`], [`Names`] and [`Pattern`] are the small languages inside.
//!
//! Pure: no I/O, no clock. Nothing panics on any octets, the work is linear in them and nesting is bounded.
//!
//! STANDARDS: RFC 9051 and RFC 3501 (base), 2087 and 9208 (QUOTA), 2177 (IDLE), 2342 (NAMESPACE), 2971 (ID), 3516
//! (BINARY), 3691 (UNSELECT), 4315 (UIDPLUS), 4731 and 5182 (ESEARCH, SEARCHRES), 4959 (SASL-IR), 5032 (WITHIN), 5161
//! (ENABLE), 5258 and 5819 (LIST-EXTENDED, LIST-STATUS), 6154 (SPECIAL-USE), 6851 (MOVE), 7162 (CONDSTORE, QRESYNC), 7888
//! (LITERAL+), 8438 (STATUS=SIZE), 8474 (OBJECTID), 7889 (APPENDLIMIT), 3502 (MULTIAPPEND), 4469 (CATENATE), 5092 (URLs),
//! 8508 (REPLACE), 6855 and 9755 (UTF8=ACCEPT), 5256, 5957 and 5267 (SORT, THREAD, ESORT).
#![forbid(unsafe_code)]

mod command;
mod cursor;
pub mod date;
pub mod flag;
pub mod fuzz;
mod mailbox;
mod number;
pub mod put;
mod reader;
mod refusal;
mod set;
mod url;
pub mod utf7;

pub use command::{
    Append, AppendHead, AppendParser, AppendPiece, Command, Depth, Fetch, FetchItem, FlagAction,
    GetMetadata, List, ListReturn, ListSelection, MailboxFilter, MultiSearch, Notify, NotifyEvents,
    NotifyGroup, Page, Partial, QuickResync, Replaced, ReturnOptions, Search, SearchKey, Section,
    SectionText, Select, SetMetadata, Sort, SortBy, SortKey, StatusItem, Store, Tagged, Thread,
    Threading, parse, searches_in_charset,
};
pub use mailbox::{DELIMITER, Names, Pattern, canonical_name};
pub use reader::{Event, Limits, Literal, Overrun, Reader};
pub use refusal::{Refusal, RefusalKind, Refused};
pub use set::{SequenceNumber, SequenceSet, from_numbers, merge};
pub use url::MessageUrl;
