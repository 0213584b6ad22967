//! The dependency law.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use house::{Package, packages, stands_on};
use std::collections::{BTreeMap, BTreeSet};

/// Crates that take bytes and give events, and know no runtime, no database and no clock.
const PURE: [&str; 6] = ["types", "message", "milter", "smtp", "imap", "zone"];

fn workspace() -> BTreeMap<String, Package> {
    let all = packages().unwrap();
    assert!(all.len() > 15, "cargo metadata names the crates");
    all.into_iter()
        .map(|package| (package.name.clone(), package))
        .collect()
}

/// The workspace crates that one depends on, tests included.
fn own<'a>(
    package: &'a Package,
    all: &'a BTreeMap<String, Package>,
) -> impl Iterator<Item = &'a Package> {
    let both = package
        .dependencies
        .keys()
        .chain(package.dev_dependencies.keys());
    both.filter_map(|name| all.get(name))
}

#[test]
fn daemons_depend_on_shared_crates_and_ipc_only() {
    let all = workspace();
    let daemons: Vec<&Package> = all
        .values()
        .filter(|package| package.folder.starts_with("daemons/"))
        .collect();
    assert!(daemons.len() >= 9);
    // posthouse contains all roles.
    for daemon in daemons.iter().filter(|daemon| daemon.name != "posthouse") {
        for dependency in own(daemon, &all) {
            let allowed = dependency.folder.starts_with("shared/") || dependency.name == "ipc";
            assert!(allowed, "{} depends on {}", daemon.name, dependency.folder);
        }
    }
}

#[test]
fn ipc_depends_on_types_only_and_shared_crates_on_no_daemon() {
    let all = workspace();
    let ipc: Vec<&str> = own(&all["ipc"], &all)
        .map(|package| package.name.as_str())
        .collect();
    assert_eq!(ipc, ["types"]);
    for package in all
        .values()
        .filter(|package| package.folder.starts_with("shared/"))
    {
        for dependency in own(package, &all) {
            let allowed = dependency.folder.starts_with("shared/") || dependency.name == "ipc";
            assert!(allowed, "{} depends on {}", package.name, dependency.folder);
        }
    }
}

#[test]
fn pure_crates_know_neither_runtime_nor_database() {
    for name in PURE {
        let below: BTreeSet<String> = stands_on(name).unwrap();
        assert!(below.contains(name), "cargo tree names the crate itself");
        for banned in [
            "tokio",
            "sqlx",
            "sqlx-core",
            "ipc",
            "runtime",
            "opendal",
            "rustls",
        ] {
            assert!(!below.contains(banned), "{name} stands on {banned}");
        }
    }
}

#[test]
fn only_stored_can_write_the_store() {
    let all = workspace();
    let mut writers = Vec::new();
    for package in all.values() {
        if let Some(features) = package.dependencies.get("store")
            && features.iter().any(|feature| feature == "writer")
        {
            writers.push(package.name.as_str());
        }
    }
    assert_eq!(writers, ["stored"]);
    let manifest = std::fs::read_to_string(house::root().join("Cargo.toml")).unwrap();
    let line = manifest
        .lines()
        .find(|line| line.starts_with("store "))
        .unwrap();
    assert!(
        !line.contains("writer"),
        "the workspace gives the feature to nobody"
    );
}

#[test]
fn every_crate_takes_part_in_the_lints() {
    for package in packages().unwrap() {
        let manifest = house::root().join(&package.folder).join("Cargo.toml");
        let table: toml::Table = std::fs::read_to_string(manifest).unwrap().parse().unwrap();
        let lints = table.get("lints").and_then(|lints| lints.get("workspace"));
        assert_eq!(
            lints.and_then(toml::Value::as_bool),
            Some(true),
            "{}",
            package.name
        );
    }
}
