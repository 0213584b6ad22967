//! The sandbox: Landlock for files and TCP, seccomp for the rest. Applied before there are threads, so that all have it.
//!
//! What the kernel cannot do is said loudly, and shown by `posthouse status --security`.

use crate::Failure;
use ipc::topology::Network;
use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, NetPort, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
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
    /// The ports of the name servers that a `listen+dns` daemon asks.
    pub(crate) dns_ports: Vec<u16>,
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
        // imapd reads the store, and connects where that is on a server.
        Network::Sql | Network::Listen => allowed.servers,
        Network::ListenDns | Network::None => false,
    }
}

/// Whether it asks name servers, and connects to nobody else.
fn asks(allowed: &Allowed) -> bool {
    allowed.network == Network::ListenDns && !allowed.dns_ports.is_empty()
}

/// Who only connects may do so from an address of its choice: it binds without a port, and never listens (see [`denied`]).
fn only_connects(allowed: &Allowed) -> bool {
    matches!(allowed.network, Network::Connect)
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
    if asks(allowed) {
        for port in &allowed.dns_ports {
            // RFC 7766 5: an answer that is too long for UDP comes over TCP.
            ruleset = ruleset
                .add_rule(NetPort::new(*port, AccessNet::ConnectTcp))
                .map_err(failed)?;
        }
    }
    if only_connects(allowed) {
        ruleset = ruleset
            .add_rule(NetPort::new(0, AccessNet::BindTcp))
            .map_err(failed)?;
    }
    let status = ruleset.restrict_self().map_err(failed)?;
    let tcp = if connects(allowed) {
        "TCP: connect only".to_owned()
    } else if asks(allowed) {
        let ports: Vec<String> = allowed.dns_ports.iter().map(u16::to_string).collect();
        format!("TCP: connect to port {} only", ports.join(" "))
    } else {
        "TCP: nothing new".to_owned()
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
    libc::SYS_kcmp,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_syslog,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_fanotify_init,
    libc::SYS_open_by_handle_at,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_io_uring_setup,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    libc::SYS_personality,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// Namespaces of its own would give a process capabilities inside them.
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// Numbers of the x32 variants of x86-64 calls: a way around a list of numbers where the kernel has them.
#[cfg(target_arch = "x86_64")]
const X32: i64 = 0x4000_0000;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// A rule for calls one of whose arguments has this value, or all these bits.
fn when(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, Failure> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(|error| Failure::new(format!("seccomp: {error}")))
}

fn bits(flags: i32) -> u64 {
    u64::from(flags.cast_unsigned())
}

/// Which sockets may be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sockets {
    /// Local ones.
    Local,
    /// UDP and TCP, to name servers.
    Dns,
    /// All that the network knows.
    Network,
}

fn denied(sockets: Sockets, only_connects: bool) -> Result<Rules, Failure> {
    let mut rules: Rules = FORBIDDEN.iter().map(|call| (*call, Vec::new())).collect();
    if only_connects {
        // The socket of its calls listens already.
        rules.insert(libc::SYS_listen, Vec::new());
    }
    for namespace in NAMESPACES.map(bits) {
        let rule = when(0, SeccompCmpOp::MaskedEq(namespace), namespace)?;
        rules.entry(libc::SYS_clone).or_default().push(rule);
    }
    let mut families = vec![
        libc::AF_PACKET,
        libc::AF_ALG,
        libc::AF_VSOCK,
        libc::AF_XDP,
        libc::AF_BLUETOOTH,
        libc::AF_CAN,
        libc::AF_TIPC,
    ];
    match sockets {
        Sockets::Local => families.extend([libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK]),
        Sockets::Dns => {
            families.push(libc::AF_NETLINK);
            // What it accepts on was made before; also where Landlock does not know TCP.
            rules.insert(libc::SYS_listen, Vec::new());
        }
        Sockets::Network => {}
    }
    for family in families {
        let rule = when(0, SeccompCmpOp::Eq, bits(family))?;
        rules.entry(libc::SYS_socket).or_default().push(rule);
    }
    if sockets != Sockets::Network {
        // No code but what was loaded. (Where names are resolved, the C library may still load a module for it.)
        let code = bits(libc::PROT_EXEC);
        for call in [libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_pkey_mprotect] {
            let rule = when(2, SeccompCmpOp::MaskedEq(code), code)?;
            rules.entry(call).or_default().push(rule);
        }
    }
    #[cfg(target_arch = "x86_64")]
    {
        // 512 to 547 are numbers of x32 alone; none of them, and no other call in that form, is ours.
        let plain: Vec<i64> = rules.keys().copied().chain(512..=547).collect();
        rules.extend(plain.into_iter().map(|call| (call | X32, Vec::new())));
    }
    Ok(rules)
}

fn filter(rules: Rules, errno: i32) -> Result<BpfProgram, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::new(format!("seccomp: {error}"));
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| failed(&error))?;
    let answer = SeccompAction::Errno(errno.cast_unsigned());
    SeccompFilter::new(rules, SeccompAction::Allow, answer, arch)
        .and_then(BpfProgram::try_from)
        .map_err(|error| failed(&error))
}

fn calls(allowed: &Allowed, facts: &mut Vec<String>) -> Result<(), Failure> {
    // Who only accepts got its sockets before the sandbox; accept(2) makes the others.
    let sockets = match (connects(allowed), asks(allowed)) {
        (true, _) => Sockets::Network,
        (false, true) => Sockets::Dns,
        (false, false) => Sockets::Local,
    };
    // clone3 hides its flags from filters; told that there is none, the C library uses clone.
    let hidden = filter(Rules::from([(libc::SYS_clone3, Vec::new())]), libc::ENOSYS)?;
    let program = filter(denied(sockets, only_connects(allowed))?, libc::EPERM)?;
    match seccompiler::apply_filter(&hidden).and_then(|()| seccompiler::apply_filter(&program)) {
        Ok(()) => {
            let network = match sockets {
                Sockets::Local => ", no network sockets",
                Sockets::Dns => ", no sockets but UDP and TCP",
                Sockets::Network => "",
            };
            facts.push(format!(
                "seccomp: no programs, no other processes, no namespaces, no kernel{network}"
            ));
        }
        Err(error) => {
            tracing::warn!(%error, "seccomp is not available: system calls are not filtered");
            facts.push(format!("seccomp: not available ({error})"));
        }
    }
    Ok(())
}
