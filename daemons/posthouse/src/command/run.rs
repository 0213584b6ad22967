//! `posthouse run`: this program contains every role.

use crate::connect::Place;
use crate::failure::Failure;
use std::process::ExitCode;
use types::Role;

pub(crate) fn run(place: &Place, role: &str) -> Result<ExitCode, Failure> {
    let path = &place.config;
    let role: Role = role.parse().map_err(|_| {
        let names: Vec<&str> = super::status::daemons().map(Role::name).collect();
        Failure::new(format!(
            "there is no daemon {role}; there are {}",
            names.join(", ")
        ))
    })?;
    Ok(match role {
        Role::Keyd => runtime::run_role(role, path, keyd::needs, keyd::run),
        Role::Authd => runtime::run_role(role, path, authd::needs, authd::run),
        Role::Stored => runtime::run_role(role, path, stored::needs, stored::run),
        Role::Deliverd => runtime::run_role(role, path, deliverd::needs, deliverd::run),
        Role::Relayd => runtime::run_role(role, path, relayd::needs, relayd::run),
        Role::Queued => runtime::run_role(role, path, queued::needs, queued::run),
        Role::Smtpd => runtime::run_role(role, path, smtpd::needs, smtpd::run),
        Role::Indexd => runtime::run_role(role, path, indexd::needs, indexd::run),
        Role::Pop3d => runtime::run_role(role, path, pop3d::needs, pop3d::run),
        Role::Sieved => runtime::run_role(role, path, sieved::needs, sieved::run),
        Role::Imapd => runtime::run_role(role, path, imapd::needs, imapd::run),
        Role::Certd => runtime::run_role(role, path, certd::needs, certd::run),
        Role::Limitd => runtime::run_role(role, path, limitd::needs, limitd::run),
        Role::Reportd => runtime::run_role(role, path, reportd::needs, reportd::run),
        Role::Hookd => runtime::run_role(role, path, hookd::needs, hookd::run),
        Role::Httpd => runtime::run_role(role, path, httpd::needs, httpd::run),
        Role::Posthouse => return Err(Failure::new("posthouse is the tool itself; name a daemon")),
    })
}
