//! stored.
#![forbid(unsafe_code)]
