//! smtp.
#![forbid(unsafe_code)]
