//! fuzz.
#![forbid(unsafe_code)]
