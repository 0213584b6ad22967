//! keyd.
#![forbid(unsafe_code)]
