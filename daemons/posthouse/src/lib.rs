//! posthouse.
#![forbid(unsafe_code)]
