//! message.
#![forbid(unsafe_code)]
