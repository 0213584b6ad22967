//! `posthouse status` and `posthouse metrics`

use crate::connect::Suite;
use crate::failure::Failure;
use crate::output::{self, span};
use ipc::api::control;
use serde_json::{Value, json};
use types::Role;

/// Every role that serves.
pub(crate) fn daemons() -> impl Iterator<Item = Role> {
    Role::ALL
        .iter()
        .copied()
        .filter(|role| *role != Role::Posthouse)
}

pub(crate) async fn run(suite: &Suite, security: bool) -> Result<(), Failure> {
    let mut rows = Vec::new();
    let mut away = 0;
    for role in daemons() {
        let row = match suite.call(role, &control::Status).await {
            Ok(status) => row(&status),
            Err(_) if !suite.daemons.contains(&role) => {
                let fact = format!("{role}.enabled=false");
                json!({ "role": role.name(), "state": "off", "facts": [fact] })
            }
            Err(failure) => {
                away += 1;
                json!({ "role": role.name(), "state": "away", "facts": [failure.text] })
            }
        };
        rows.push(row);
    }
    if security {
        show_security(suite, &rows).await?;
    } else {
        let columns = [
            ("role", "DAEMON"),
            ("state", "STATE"),
            ("pid", "PID"),
            ("uptime_text", "UP"),
            ("listeners", "LISTENS"),
            ("facts", "FACTS"),
        ];
        output::list(suite.json, &columns, &rows);
    }
    if away > 0 {
        return Err(Failure::unreachable(format!(
            "{away} of {} daemons are away",
            suite.daemons.len()
        )));
    }
    Ok(())
}

fn row(status: &control::StatusReply) -> Value {
    let missing: Vec<&str> = status
        .peers
        .iter()
        .filter(|(_, connected)| !connected)
        .map(|(role, _)| role.name())
        .collect();
    json!({
        "role": status.role.name(),
        "state": if missing.is_empty() { "up".to_owned() } else { format!("waits for {}", missing.join(", ")) },
        "version": status.version,
        "pid": status.pid,
        "uid": status.uid,
        "uptime": status.uptime,
        "uptime_text": span(status.uptime),
        "listeners": status.listeners.iter().map(|(name, at)| format!("{name}={at}")).collect::<Vec<_>>(),
        "facts": status.facts.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
        "sandbox": status.sandbox,
        "peers": status.peers.iter().map(|(role, up)| json!({ "role": role.name(), "connected": up })).collect::<Vec<_>>(),
    })
}

/// What each daemon is held to, and what it could do when it tried. The attempts are the ones that matter most: the
/// other daemons' state, the system's files, the network, other programs.
async fn show_security(suite: &Suite, rows: &[Value]) -> Result<(), Failure> {
    let mut shown = Vec::new();
    for role in suite.daemons.iter().copied() {
        let mut attempts: Vec<(String, control::Probe)> = vec![
            (
                "read /etc/shadow".to_owned(),
                control::Probe::Read("/etc/shadow".to_owned()),
            ),
            (
                "read /etc/passwd".to_owned(),
                control::Probe::Read("/etc/passwd".to_owned()),
            ),
            (
                "write /tmp".to_owned(),
                control::Probe::Write("/tmp".to_owned()),
            ),
            (
                "run /bin/true".to_owned(),
                control::Probe::Execute("/bin/true".to_owned()),
            ),
        ];
        for state in ["keys", "directory", "store", "queue"] {
            let path = suite.state_dir.join(state);
            let path = path.to_string_lossy().into_owned();
            attempts.push((format!("read {state}"), control::Probe::Read(path.clone())));
            attempts.push((format!("write {state}"), control::Probe::Write(path)));
        }
        if let Ok(nobody) = "127.0.0.1:9".parse() {
            attempts.push(("connect by TCP".to_owned(), control::Probe::Connect(nobody)));
        }
        let (mut can, mut cannot) = (Vec::new(), Vec::new());
        for (name, attempt) in attempts {
            let probed = suite.call(role, &attempt).await?;
            if probed.possible {
                can.push(name)
            } else {
                cannot.push(name)
            }
        }
        let sandbox = rows
            .iter()
            .find(|row| row.get("role").and_then(Value::as_str) == Some(role.name()))
            .and_then(|row| row.get("sandbox"));
        shown
            .push(json!({ "role": role.name(), "can": can, "cannot": cannot, "sandbox": sandbox }));
    }
    let columns = [("role", "DAEMON"), ("can", "CAN"), ("cannot", "CANNOT")];
    output::list(suite.json, &columns, &shown);
    Ok(())
}

/// The metrics of all daemons, one after the other; those that are away are named in a comment.
pub(crate) async fn metrics(suite: &Suite) -> Result<(), Failure> {
    for role in suite.daemons.iter().copied() {
        match suite.call(role, &control::Metrics).await {
            Ok(text) => output::say(text.trim_end()),
            Err(failure) => output::say(&format!("# {role} is away: {failure}")),
        }
    }
    Ok(())
}

/// Has every daemon read its configuration and certificates again.
pub(crate) async fn reload(suite: &Suite) -> Result<(), Failure> {
    for role in suite.daemons.iter().copied() {
        suite.call(role, &control::Reload).await?;
        output::done(
            suite.json,
            &format!("{role} has read its configuration again."),
            &json!({ "role": role.name() }),
        );
    }
    Ok(())
}
