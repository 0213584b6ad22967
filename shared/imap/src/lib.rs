//! imap.
#![forbid(unsafe_code)]
