//! relayd.
#![forbid(unsafe_code)]
