//! house.
#![forbid(unsafe_code)]
