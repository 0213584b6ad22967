//! System accounts: who a daemon runs as, and dropping to it.

use crate::Failure;
use crate::config::{Suite, UsersMode};
use ipc::{Users, topology};
use rustix::process::{Gid, Uid, geteuid};
use std::collections::HashMap;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use types::Role;

/// The group of all daemons: their sockets belong to it.
const GROUP: &str = "posthouse";

/// An account of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// The accounts of /etc/passwd that topology names. (The daemons' accounts are local by nature.)
fn accounts() -> HashMap<Role, Account> {
    let text = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let find = |user: &str| {
        text.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next().filter(|name| *name == user)?.to_owned();
            let mut numbers = fields.skip(1).map(str::parse);
            Some(Account {
                name,
                uid: numbers.next()?.ok()?,
                gid: numbers.next()?.ok()?,
            })
        })
    };
    let all = Role::ALL
        .iter()
        .filter_map(|role| Some((*role, find(&topology::daemon(*role)?.user)?)));
    all.collect()
}

fn group(name: &str) -> Option<u32> {
    let text = std::fs::read_to_string("/etc/group").ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        fields.next().filter(|found| *found == name)?;
        fields.nth(1)?.parse().ok()
    })
}

/// How the daemons know each other, and the account to become (none: stay who we are).
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) users: Users,
    pub(crate) become_account: Option<Account>,
    supplementary: Vec<u32>,
    group: Option<u32>,
}

/// Decides it from the configuration and from who we are.
pub(crate) fn identity(role: Role, suite: &Suite) -> Result<Identity, Failure> {
    let single = Identity {
        users: Users::Single,
        become_account: None,
        supplementary: Vec::new(),
        group: None,
    };
    let accounts = accounts();
    let (me, own) = (geteuid().as_raw(), accounts.get(&role));
    let separate = match suite.users {
        UsersMode::Single => false,
        UsersMode::Separate => true,
        UsersMode::Auto => own.is_some_and(|own| me == 0 || me == own.uid),
    };
    if !separate {
        if me == 0 && suite.users == UsersMode::Auto {
            tracing::warn!(
                "running as root: create the accounts of contrib/systemd/sysusers.d, or start as another user"
            );
        }
        return Ok(single);
    }
    let user = topology::daemon(role).map_or("", |daemon| daemon.user.as_str());
    let Some(own) = own else {
        return Err(Failure::new(format!(
            "there is no account {user}: create it (contrib/systemd/sysusers.d), or set suite.users = \"single\""
        )));
    };
    if me != 0 && me != own.uid {
        return Err(Failure::new(format!(
            "started as uid {me}: start {role} as root or {user}, or set suite.users = \"single\""
        )));
    }
    let reads = topology::daemon(role)
        .map(|daemon| daemon.group_reads.clone())
        .unwrap_or_default();
    let group_of = |state: &String| {
        Role::ALL
            .iter()
            .find(|role| topology::daemon(**role).is_some_and(|daemon| daemon.state == *state))
    };
    let readers = reads
        .iter()
        .filter_map(group_of)
        .filter_map(|role| accounts.get(role))
        .map(|account| account.gid);
    let group = group(GROUP);
    Ok(Identity {
        users: Users::Separate(
            accounts
                .iter()
                .map(|(role, account)| (*role, account.uid))
                .collect(),
        ),
        become_account: (me == 0).then(|| own.clone()),
        supplementary: readers.chain(group).collect(),
        group,
    })
}

impl Identity {
    /// Makes a directory that only its daemon (and, with mode 0o750, its readers) may enter.
    pub(crate) fn own_directory(&self, path: &Path, mode: u32) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", path.display()));
        std::fs::create_dir_all(path).map_err(failed)?;
        if let Some(account) = &self.become_account {
            chown(path, Some(account.uid), Some(account.gid)).map_err(failed)?;
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).map_err(failed)?;
        } else if std::fs::metadata(path)
            .is_ok_and(|metadata| metadata.permissions().mode() & 0o7777 != mode)
        {
            // Not ours to change when a unit made it; check says so if it is too open.
            let _ = std::fs::set_permissions(path, PermissionsExt::from_mode(mode));
        }
        Ok(())
    }

    /// Opens a socket's file to the daemons' group, or to ourselves alone.
    pub(crate) fn share_socket(&self, path: &Path) -> Result<(), Failure> {
        let failed = |error: std::io::Error| Failure::new(format!("{}: {error}", path.display()));
        let mode = if self.group.is_some() { 0o660 } else { 0o600 };
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).map_err(failed)?;
        match (self.group, &self.become_account) {
            (Some(group), Some(account)) => {
                chown(path, Some(account.uid), Some(group)).map_err(failed)
            }
            // Started as our own account: a member may give its file to the group.
            (Some(group), None) => {
                if let Err(error) = chown(path, None, Some(group)) {
                    tracing::warn!(path = %path.display(), %error, "other daemons cannot reach this socket: the account is not in the group {GROUP}");
                }
                Ok(())
            }
            (None, _) => Ok(()),
        }
    }

    /// Becomes the account, for good. One thread only: the kernel's call concerns one.
    pub(crate) fn drop_privileges(&self) -> Result<(), Failure> {
        let Some(account) = &self.become_account else {
            return Ok(());
        };
        let failed = |error: rustix::io::Errno| {
            Failure::new(format!("cannot become {}: {error}", account.name))
        };
        let (uid, gid) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
        let groups: Vec<Gid> = self
            .supplementary
            .iter()
            .map(|gid| Gid::from_raw(*gid))
            .collect();
        rustix::thread::set_thread_groups(&groups).map_err(failed)?;
        rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(failed)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(failed)?;
        if geteuid() != uid || rustix::thread::set_thread_uid(Uid::ROOT).is_ok() {
            return Err(Failure::new("privileges were not dropped"));
        }
        Ok(())
    }
}
