//! Topology, API files and manual pages say the same.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use house::{Daemon, root, topology};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

/// `operation!(Commit = 3, ...` in a file: names and codes.
fn operations(file: &str) -> BTreeMap<String, String> {
    let text = fs::read_to_string(root().join(file)).unwrap();
    let mut found = BTreeMap::new();
    for rest in text.split("operation!(").skip(1) {
        let (name, rest) = rest.split_once('=').unwrap();
        let (code, _) = rest.split_once(',').unwrap();
        let double = found.insert(name.trim().to_owned(), code.trim().to_owned());
        assert!(double.is_none(), "{file}: {name} twice");
    }
    let codes: BTreeSet<&String> = found.values().collect();
    assert_eq!(codes.len(), found.len(), "{file}: a code is used twice");
    found
}

fn offered(daemon: &Daemon) -> BTreeSet<String> {
    daemon.serves.values().flatten().cloned().collect()
}

#[test]
fn every_operation_stands_in_the_topology_and_the_other_way_round() {
    for (name, daemon) in topology().unwrap() {
        let offered = offered(&daemon);
        let file = format!("ipc/src/api/{name}.rs");
        if !root().join(&file).exists() {
            assert!(offered.is_empty(), "{name} serves, but there is no {file}");
            continue;
        }
        let written: BTreeSet<String> = operations(&file).into_keys().collect();
        assert_eq!(written, offered, "{name}: {file} and ipc/topology.toml");
    }
}

#[test]
fn every_api_file_belongs_to_a_daemon() {
    let daemons = topology().unwrap();
    for entry in fs::read_dir(root().join("ipc/src/api")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let name = name.trim_end_matches(".rs");
        assert!(
            ["mod", "control"].contains(&name) || daemons.contains_key(name),
            "{name}"
        );
    }
}

#[test]
fn callers_are_daemons_and_calls_form_a_dag() {
    let daemons = topology().unwrap();
    for (name, daemon) in &daemons {
        for caller in daemon.serves.keys() {
            assert!(
                caller == "posthouse" || daemons.contains_key(caller),
                "{name} serves {caller}"
            );
        }
    }
    // Take away who is called by nobody that is left, until nothing is left.
    let mut left: BTreeSet<&String> = daemons.keys().collect();
    while !left.is_empty() {
        let free: Vec<&String> = left
            .iter()
            .filter(|name| {
                !daemons[**name]
                    .serves
                    .keys()
                    .any(|caller| left.contains(caller))
            })
            .copied()
            .collect();
        assert!(
            !free.is_empty(),
            "these call each other in a circle: {left:?}"
        );
        left.retain(|name| !free.contains(name));
    }
}

#[test]
fn who_faces_the_network_holds_no_state_and_users_are_distinct() {
    let daemons = topology().unwrap();
    let users: BTreeSet<&String> = daemons.values().map(|daemon| &daemon.user).collect();
    assert_eq!(users.len(), daemons.len());
    for (name, daemon) in &daemons {
        match daemon.network.as_str() {
            // Its notes on orders are no secret and nobody's mail, and keys are keyd's: docs/decisions/015-certd.md.
            "both" if name == "certd" => assert!(daemon.group_reads.is_empty()),
            "listen" | "listen+dns" | "connect" | "both" => {
                assert_eq!(daemon.state, "", "{name} faces the network")
            }
            "none" | "sql" => (),
            other => panic!("{name}: network = {other:?}"),
        }
        for state in &daemon.group_reads {
            assert!(
                daemons.values().any(|owner| owner.state == *state),
                "{name} reads {state}, which nobody owns"
            );
        }
    }
}

#[test]
fn every_daemon_opens_as_its_manual_page() {
    for (name, daemon) in topology().unwrap() {
        let text = fs::read_to_string(root().join(format!("daemons/{name}/src/lib.rs"))).unwrap();
        let page: String = text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .map(|line| format!("{}\n", line.trim_start_matches("//!").trim()))
            .collect();
        for section in ["SECURITY", "STANDARDS", "RECOVERY"] {
            assert!(
                page.contains(section),
                "{name}: the manual page has no {section}"
            );
        }
        assert!(
            page.contains(&daemon.user),
            "{name}: the manual page does not name its user {}",
            daemon.user
        );
        for other in topology()
            .unwrap()
            .into_values()
            .filter(|other| other.user != daemon.user)
        {
            assert!(
                !page.contains(&format!("user {}", other.user)),
                "{name}: the manual page names {}",
                other.user
            );
        }
    }
}
