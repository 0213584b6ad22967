//! The commands, a file each.

pub(crate) mod account;
pub(crate) mod alias;
pub(crate) mod app_password;
pub(crate) mod backup;
pub(crate) mod block;
pub(crate) mod certificate;
pub(crate) mod check;
pub(crate) mod check_front;
pub(crate) mod check_keys;
pub(crate) mod check_parts;
pub(crate) mod config;
pub(crate) mod dkim;
pub(crate) mod dns;
pub(crate) mod dns_publish;
pub(crate) mod domain;
pub(crate) mod export;
pub(crate) mod fsck;
pub(crate) mod greylist;
pub(crate) mod group;
pub(crate) mod held;
pub(crate) mod hook;
pub(crate) mod import;
pub(crate) mod index;
pub(crate) mod judge;
pub(crate) mod limit;
pub(crate) mod list;
pub(crate) mod man;
pub(crate) mod probe;
pub(crate) mod queue;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod schema;
pub(crate) mod script;
pub(crate) mod send;
pub(crate) mod status;
pub(crate) mod tls;
pub(crate) mod up;

use crate::connect::Suite;
use crate::failure::Failure;
use ipc::api::authd::OperatorGrant;
use types::{AccountId, Grant, Role};

/// A grant to act in an account's, or a shared group's, name.
pub(crate) async fn operator(suite: &Suite, name: &str) -> Result<Grant, Failure> {
    let request = OperatorGrant {
        account: name.to_owned(),
    };
    suite.call(Role::Authd, &request).await
}

/// The number of an account or shared group.
pub(crate) async fn owner(suite: &Suite, name: &str) -> Result<AccountId, Failure> {
    operator(suite, name).await.map(|grant| grant.account)
}
