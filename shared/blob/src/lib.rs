//! blob.
#![forbid(unsafe_code)]
