//! ipc/topology.toml, as the code asks it.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use types::Role;

/// The text of the page.
pub const TOPOLOGY: &str = include_str!("../topology.toml");

/// Which network a daemon may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Local sockets only.
    #[default]
    None,
    /// Connects to the configured SQL and object servers, if any.
    Sql,
    /// Accepts.
    Listen,
    /// Accepts, and asks name servers: UDP, and TCP to their ports.
    #[serde(rename = "listen+dns")]
    ListenDns,
    /// Connects.
    Connect,
    /// Both.
    Both,
}

/// One section of the page.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Daemon {
    /// What it does, in a line.
    pub about: String,
    /// Its system account.
    pub user: String,
    /// Its network.
    pub network: Network,
    /// Its directory below the state directory; empty if it writes nothing.
    pub state: String,
    /// Other daemons' state directories that it reads.
    pub group_reads: Vec<String>,
    /// What is gone after kill -9.
    pub restart_loses: String,
    /// It runs only if its section says `enabled = true`.
    #[serde(default)]
    pub optional: bool,
    /// Operations by caller.
    #[serde(default)]
    pub serves: BTreeMap<String, Vec<String>>,
}

fn page() -> &'static BTreeMap<String, Daemon> {
    static PAGE: OnceLock<BTreeMap<String, Daemon>> = OnceLock::new();
    // A page that cannot be read allows nobody anything; a test holds that it can be read.
    PAGE.get_or_init(|| toml::from_str(TOPOLOGY).unwrap_or_default())
}

/// The section of a daemon; `None` for the command line tool.
pub fn daemon(role: Role) -> Option<&'static Daemon> {
    page().get(role.name())
}

/// The daemons that a role may call, in the order in which they start. The control operations are the tool's.
pub fn callees(caller: Role) -> Vec<Role> {
    let serves = |server: &&Role| {
        caller == Role::Posthouse && **server != Role::Posthouse
            || daemon(**server).is_some_and(|daemon| daemon.serves.contains_key(caller.name()))
    };
    Role::ALL.iter().filter(serves).copied().collect()
}

/// Whether a role may call an operation. Codes from 0xF000 on are the control operations, which are the tool's alone.
pub fn allows(server: Role, caller: Role, operation: &str, code: u16) -> bool {
    if code >= 0xF000 {
        return caller == Role::Posthouse;
    }
    daemon(server)
        .and_then(|daemon| daemon.serves.get(caller.name()))
        .is_some_and(|operations| operations.iter().any(|name| name == operation))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_page_can_be_read_and_names_every_daemon() {
        let page: BTreeMap<String, Daemon> = toml::from_str(TOPOLOGY).unwrap();
        for role in Role::ALL.iter().filter(|role| **role != Role::Posthouse) {
            assert!(page.contains_key(role.name()), "{role}");
        }
        assert_eq!(page.len(), Role::ALL.len() - 1);
    }

    #[test]
    fn calls_go_one_way() {
        // A daemon may call only those that start before it: no cycle, no deadlock.
        for (at, caller) in Role::ALL.iter().enumerate() {
            for callee in callees(*caller) {
                let below = Role::ALL.iter().position(|role| *role == callee).unwrap();
                assert!(below < at, "{caller} calls {callee}");
            }
        }
        assert!(allows(Role::Queued, Role::Smtpd, "Commit", 3));
        assert!(!allows(Role::Queued, Role::Smtpd, "QueueRemove", 15));
        assert!(!allows(Role::Queued, Role::Smtpd, "Shutdown", 0xF004));
    }
}
