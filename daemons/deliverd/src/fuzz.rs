//! Entry points for fuzzers: each takes any octets, and panics only if a promise is broken.

pub use crate::lists::fuzz as lists;
