//! The sandbox: Landlock for files and TCP, seccomp for the rest. Applied before there are threads, so that all have it.
//!
//! What the kernel cannot do is said loudly, and shown by `posthouse status --security`.

use crate::Failure;
use ipc::topology::Network;
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
};
use seccompiler::{
    SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What a daemon may still do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Allowed {
    /// Files and directories it reads.
    pub(crate) read: Vec<PathBuf>,
    /// Directories it writes.
    pub(crate) write: Vec<PathBuf>,
    /// TCP and UDP: what the topology and, for `sql`, the configuration say.
    pub(crate) network: Network,
    /// Whether a `sql` daemon has servers to connect to.
    pub(crate) servers: bool,
}

/// Restricts the process. Returns what was done and what could not be, a fact a line.
pub(crate) fn apply(allowed: &Allowed) -> Result<Vec<String>, Failure> {
    let mut facts = Vec::new();
    rustix::thread::set_no_new_privs(true)
        .map_err(|error| Failure::new(format!("no_new_privs: {error}")))?;
    files(allowed, &mut facts)?;
    calls(allowed, &mut facts)?;
    Ok(facts)
}

fn connects(allowed: &Allowed) -> bool {
    match allowed.network {
        Network::Connect | Network::Both => true,
        Network::Sql => allowed.servers,
        Network::None | Network::Listen => false,
    }
}

fn files(allowed: &Allowed, facts: &mut Vec<String>) -> Result<(), Failure> {
    let failed = |error: landlock::RulesetError| Failure::new(format!("landlock: {error}"));
    let abi = ABI::V6;
    let all = AccessFs::from_all(abi);
    let mut tcp: landlock::BitFlags<AccessNet> = AccessNet::BindTcp.into();
    if !connects(allowed) {
        tcp |= AccessNet::ConnectTcp;
    }
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(all)
        .and_then(|ruleset| ruleset.handle_access(tcp))
        .and_then(|ruleset| ruleset.scope(Scope::Signal | Scope::AbstractUnixSocket))
        .and_then(Ruleset::create)
        .map_err(failed)?;
    let mut ruleset = ruleset;
    // Execution is nobody's right.
    let read = AccessFs::from_read(abi) & !AccessFs::Execute;
    let write = all & !AccessFs::Execute;
    let rules = allowed
        .read
        .iter()
        .map(|path| (path, read))
        .chain(allowed.write.iter().map(|path| (path, write)));
    for (path, access) in rules {
        // What is not there needs no rule.
        let Ok(descriptor) = PathFd::new(path) else {
            continue;
        };
        let access = if path.is_dir() {
            access
        } else {
            access & AccessFs::from_file(abi)
        };
        ruleset = ruleset
            .add_rule(PathBeneath::new(descriptor, access))
            .map_err(failed)?;
    }
    let status = ruleset.restrict_self().map_err(failed)?;
    let tcp = if connects(allowed) {
        "TCP: connect only"
    } else {
        "TCP: nothing new"
    };
    match status.ruleset {
        RulesetStatus::FullyEnforced => facts.push(format!("landlock: files, {tcp}")),
        RulesetStatus::PartiallyEnforced => {
            let fact = "landlock: not complete on this kernel (Linux 6.12 or newer has all of it)";
            tracing::warn!("{fact}");
            facts.push(fact.to_owned());
        }
        RulesetStatus::NotEnforced => {
            let fact =
                "landlock: not available on this kernel: files are protected by accounts only";
            tracing::warn!("{fact}");
            facts.push(fact.to_owned());
        }
    }
    let paths = |paths: &[PathBuf]| {
        paths
            .iter()
            .map(|path| path.display().to_string())
            .collect::<Vec<_>>()
            .join(" ")
    };
    facts.push(format!("writes: {}", paths(&allowed.write)));
    facts.push(format!("reads: {}", paths(&allowed.read)));
    Ok(())
}

/// Calls that no daemon needs: other programs, other processes, the kernel itself.
const FORBIDDEN: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_open_by_handle_at,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_io_uring_setup,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_personality,
];

fn calls(allowed: &Allowed, facts: &mut Vec<String>) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(format!("seccomp: {error}"));
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        FORBIDDEN.iter().map(|call| (*call, Vec::new())).collect();
    let mut families = vec![libc::AF_PACKET, libc::AF_ALG, libc::AF_VSOCK];
    let silent = matches!(allowed.network, Network::None)
        || allowed.network == Network::Sql && !allowed.servers;
    if silent {
        families.extend([libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK]);
    }
    for family in families {
        let family = u64::try_from(family).unwrap_or(u64::MAX);
        let condition = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, family)
            .map_err(|error| failed(&error))?;
        let rule = SeccompRule::new(vec![condition]).map_err(|error| failed(&error))?;
        rules.entry(libc::SYS_socket).or_default().push(rule);
    }
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| failed(&error))?;
    let denied = SeccompAction::Errno(u32::try_from(libc::EPERM).unwrap_or(1));
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, denied, arch)
        .map_err(|error| failed(&error))?;
    let program: seccompiler::BpfProgram = filter.try_into().map_err(|error| failed(&error))?;
    match seccompiler::apply_filter(&program) {
        Ok(()) => {
            let network = if silent { ", no network sockets" } else { "" };
            facts.push(format!(
                "seccomp: no programs, no other processes, no kernel{network}"
            ));
        }
        Err(error) => {
            tracing::warn!(%error, "seccomp is not available: system calls are not filtered");
            facts.push(format!("seccomp: not available ({error})"));
        }
    }
    Ok(())
}
