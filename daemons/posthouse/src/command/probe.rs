//! `posthouse probe`

use crate::cli::Probe;
use crate::connect::Suite;
use crate::failure::Failure;
use crate::output;
use ipc::api::control;
use serde_json::json;
use types::Role;

/// Exit status 0: it could not do it; 3: it could.
pub(crate) async fn run(suite: &Suite, role: &str, attempt: Probe) -> Result<(), Failure> {
    let role: Role = role
        .parse()
        .map_err(|_| Failure::new(format!("there is no daemon {role}")))?;
    let attempt = match attempt {
        Probe::Read { path } => control::Probe::Read(path),
        Probe::Write { path } => control::Probe::Write(path),
        Probe::Connect { to } => control::Probe::Connect(to),
        Probe::Listen { on } => control::Probe::Listen(on),
        Probe::Execute { path } => control::Probe::Execute(path),
    };
    let probed = suite.call(role, &attempt).await?;
    let verdict = if probed.possible {
        "possible"
    } else {
        "refused"
    };
    let value =
        json!({ "role": role.name(), "possible": probed.possible, "detail": probed.detail });
    output::done(
        suite.json,
        &format!("{role}: {verdict}: {}", probed.detail),
        &value,
    );
    if probed.possible {
        return Err(Failure::check(format!("{role} could do it")));
    }
    Ok(())
}
