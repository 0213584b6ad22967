//! Entry points for fuzzers: each takes any octets, and panics only if a promise is broken.

pub use crate::personal::fuzz as personal;
pub use crate::srs::fuzz as forwarding;
