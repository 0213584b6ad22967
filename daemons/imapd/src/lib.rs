//! imapd.
#![forbid(unsafe_code)]
