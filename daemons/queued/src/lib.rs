//! queued.
#![forbid(unsafe_code)]
