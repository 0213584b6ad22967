//! The systemd units, the accounts and the compose file agree with the topology.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use house::{Daemon, ini, root, topology};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

fn unit(name: &str) -> BTreeMap<String, Vec<String>> {
    ini(&root().join("contrib/systemd").join(name)).unwrap()
}

fn one<'a>(unit: &'a BTreeMap<String, Vec<String>>, key: &str) -> &'a str {
    match unit.get(key).map(Vec::as_slice) {
        Some([value]) => value,
        other => panic!("{key}: {other:?}"),
    }
}

fn owner<'a>(daemons: &'a BTreeMap<String, Daemon>, state: &str) -> &'a Daemon {
    daemons
        .values()
        .find(|daemon| daemon.state == state)
        .unwrap()
}

#[test]
fn services_run_as_their_user_with_their_state() {
    let daemons = topology().unwrap();
    for (name, daemon) in &daemons {
        let unit = unit(&format!("posthouse-{name}.service"));
        assert_eq!(
            unit["Service.ExecStart"],
            ["/usr/bin/posthouse", "run", name]
        );
        assert_eq!(one(&unit, "Service.User"), daemon.user);
        let state = unit
            .get("Service.StateDirectory")
            .cloned()
            .unwrap_or_default();
        let expected: Vec<String> = match daemon.state.as_str() {
            "" => vec![],
            state => vec![format!("posthouse/{state}")],
        };
        assert_eq!(state, expected, "{name}");
        let mut groups = vec!["posthouse".to_owned()];
        groups.extend(
            daemon
                .group_reads
                .iter()
                .map(|state| owner(&daemons, state).user.clone()),
        );
        assert_eq!(unit["Service.SupplementaryGroups"], groups, "{name}");
        for key in ["MemoryMax", "WatchdogSec", "TasksMax"] {
            assert!(
                unit.contains_key(&format!("Service.{key}")),
                "{name} has no {key}"
            );
        }
    }
}

#[test]
fn services_are_locked_in_and_have_the_network_of_the_topology() {
    for (name, daemon) in topology().unwrap() {
        let unit = unit(&format!("posthouse-{name}.service"));
        for (key, value) in [
            ("NoNewPrivileges", "yes"),
            ("ProtectSystem", "strict"),
            ("ProtectHome", "yes"),
            ("PrivateDevices", "yes"),
            ("RestrictNamespaces", "yes"),
            ("MemoryDenyWriteExecute", "yes"),
        ] {
            assert_eq!(one(&unit, &format!("Service.{key}")), value, "{name}");
        }
        assert!(
            unit["Service.CapabilityBoundingSet"].is_empty(),
            "{name} keeps no capability"
        );
        let families = &unit["Service.RestrictAddressFamilies"];
        let private = unit
            .get("Service.PrivateNetwork")
            .is_some_and(|value| value == &["yes"]);
        match daemon.network.as_str() {
            // Who only listens gets its sockets passed, and needs to open none.
            "none" | "listen" => assert!(private && families == &["AF_UNIX"], "{name}"),
            "sql" => {
                assert!(
                    !private && families.contains(&"AF_INET".to_owned()),
                    "{name}"
                );
                assert_eq!(one(&unit, "Service.IPAddressDeny"), "any", "{name}");
            }
            _ => assert!(
                !private && families.contains(&"AF_INET6".to_owned()),
                "{name}"
            ),
        }
    }
}

#[test]
fn sockets_belong_to_services_and_services_ask_for_them() {
    let daemons = topology().unwrap();
    let mut seen = BTreeSet::new();
    for entry in fs::read_dir(root().join("contrib/systemd")).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let Some(stem) = file.strip_suffix(".socket") else {
            continue;
        };
        let role = stem
            .strip_prefix("posthouse-")
            .unwrap()
            .split('-')
            .next()
            .unwrap()
            .to_owned();
        let socket = unit(&file);
        assert_eq!(
            one(&socket, "Socket.Service"),
            format!("posthouse-{role}.service")
        );
        let service = unit(&format!("posthouse-{role}.service"));
        // Ports of a daemon that also connects are the operator's to open: no service asks for them.
        let optional = stem != format!("posthouse-{role}") && daemons[&role].network == "both";
        assert_eq!(
            service["Service.Sockets"].contains(&file),
            !optional,
            "{file} is not passed to its service"
        );
        let name = one(&socket, "Socket.FileDescriptorName");
        if stem == format!("posthouse-{role}") {
            assert_eq!(name, "control");
            assert_eq!(
                one(&socket, "Socket.ListenStream"),
                format!("/run/posthouse/{role}.sock")
            );
            assert_eq!(one(&socket, "Socket.SocketUser"), daemons[&role].user);
        } else {
            assert_eq!(stem, format!("posthouse-{role}-{name}"));
            let network = daemons[&role].network.as_str();
            assert!(network.starts_with("listen") || network == "both", "{file}");
        }
        seen.insert(role);
    }
    assert_eq!(seen, daemons.into_keys().collect());
}

#[test]
fn services_want_the_daemons_they_call() {
    let daemons = topology().unwrap();
    for name in daemons.keys() {
        let unit = unit(&format!("posthouse-{name}.service"));
        let wanted: BTreeSet<String> = unit
            .get("Unit.Wants")
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        let called = daemons
            .iter()
            .filter(|(_, server)| server.serves.contains_key(name));
        let called: BTreeSet<String> = called
            .map(|(server, _)| format!("posthouse-{server}.socket"))
            .collect();
        assert_eq!(wanted, called, "{name}");
    }
}

#[test]
fn every_user_is_made() {
    let text =
        fs::read_to_string(root().join("contrib/systemd/sysusers.d/posthouse.conf")).unwrap();
    let image = fs::read_to_string(root().join("contrib/docker/Dockerfile")).unwrap();
    for (name, daemon) in topology().unwrap() {
        assert!(
            text.contains(&format!("u {} ", daemon.user)),
            "sysusers: {name}"
        );
        assert!(
            text.contains(&format!("m {} posthouse\n", daemon.user)),
            "sysusers: {name}"
        );
        assert!(
            image.contains(&format!(" {} ", daemon.user)),
            "Dockerfile: {name}"
        );
        if !daemon.state.is_empty() {
            let line = format!(
                "-o {user} -g {user} /var/lib/posthouse/{}",
                daemon.state,
                user = daemon.user
            );
            assert!(image.contains(&line), "Dockerfile: {line}");
        }
    }
}

/// The services of docker-compose.yml: their own keys with the text behind them. The file is YAML as everybody writes it,
/// two blanks a level; tests/e2e reads it with a YAML parser as well.
fn compose() -> BTreeMap<String, BTreeMap<String, String>> {
    let text = fs::read_to_string(root().join("docker-compose.yml")).unwrap();
    let mut services: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut inside = false;
    let mut current = String::new();
    for line in text.lines() {
        if !line.starts_with(' ') && !line.is_empty() {
            inside = line == "services:";
        } else if let Some(rest) = line
            .strip_prefix("    ")
            .filter(|rest| inside && !rest.starts_with(' '))
        {
            let (key, value) = rest.split_once(':').unwrap();
            let service = services.get_mut(&current).unwrap();
            service.insert(key.to_owned(), value.trim().to_owned());
        } else if let Some(rest) = line
            .strip_prefix("  ")
            .filter(|rest| inside && !rest.starts_with(' '))
        {
            current = rest.trim_end_matches(':').to_owned();
            services.insert(current.clone(), BTreeMap::new());
        }
    }
    services
}

#[test]
fn compose_has_a_service_for_each_daemon() {
    let daemons = topology().unwrap();
    let services = compose();
    assert_eq!(
        services.keys().collect::<Vec<_>>(),
        daemons.keys().collect::<Vec<_>>()
    );
    for (name, daemon) in &daemons {
        let service = &services[name];
        assert_eq!(service["command"], format!("[run, {name}]"));
        assert_eq!(service["user"], format!("{}:posthouse", daemon.user));
        let network = match daemon.network.as_str() {
            "none" => ("network_mode", "none"),
            "sql" => ("networks", "[sql]"),
            "listen" | "listen+dns" => ("networks", "[front]"),
            _ => ("networks", "[out]"),
        };
        assert_eq!(
            service.get(network.0).map(String::as_str),
            Some(network.1),
            "{name}"
        );
        assert_eq!(
            service.contains_key("ports"),
            daemon.network.starts_with("listen") || daemon.network == "both",
            "{name}"
        );
    }
}

#[test]
fn systemd_finds_nothing_to_complain_about() {
    if !Path::new("/usr/bin/systemd-analyze").exists() {
        eprintln!("skipped: systemd-analyze is not installed");
        return;
    }
    // The program is not installed here: verify looks for it, so the copies name one that is.
    let copies = std::env::temp_dir().join(format!("posthouse-units-{}", std::process::id()));
    fs::create_dir_all(&copies).unwrap();
    let mut services = Vec::new();
    for entry in fs::read_dir(root().join("contrib/systemd")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let name = path.file_name().unwrap().to_owned();
        let text = fs::read_to_string(&path)
            .unwrap()
            .replace("/usr/bin/posthouse", "/bin/true");
        fs::write(copies.join(&name), text).unwrap();
        if path
            .extension()
            .is_some_and(|extension| extension == "service")
        {
            services.push(copies.join(name));
        }
    }
    let output = Command::new("/usr/bin/systemd-analyze")
        .args(["verify", "--man=no"])
        .args(&services)
        .env("SYSTEMD_UNIT_PATH", format!("{}:", copies.display()))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let complaints: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("posthouse"))
        .collect();
    fs::remove_dir_all(&copies).unwrap();
    assert!(complaints.is_empty() && output.status.success(), "{text}");
}
