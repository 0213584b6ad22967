//! deliverd.
#![forbid(unsafe_code)]
