//! runtime.
#![deny(unsafe_code)]
