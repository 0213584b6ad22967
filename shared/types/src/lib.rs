//! types.
#![forbid(unsafe_code)]
