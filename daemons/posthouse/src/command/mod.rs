//! The commands, a file each.

pub(crate) mod account;
pub(crate) mod alias;
pub(crate) mod app_password;
pub(crate) mod block;
pub(crate) mod check;
pub(crate) mod config;
pub(crate) mod dkim;
pub(crate) mod domain;
pub(crate) mod group;
pub(crate) mod man;
pub(crate) mod probe;
pub(crate) mod queue;
pub(crate) mod run;
pub(crate) mod send;
pub(crate) mod status;
pub(crate) mod up;
