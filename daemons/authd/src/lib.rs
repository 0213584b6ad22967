//! authd.
#![forbid(unsafe_code)]
