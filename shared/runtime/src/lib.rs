//! The one start sequence of all daemons.
//!
//! 1. configuration ([`config`]), 2. logs, 3. sockets, passed by the service manager or bound, 4. the own account,
//! 5. the sandbox (Landlock, seccomp, no new privileges), 6. the reactor and the connections to other daemons,
//! 7. the daemon's `run`, 8. READY. TERM drains, a second TERM ends at once, HUP reads the configuration again.
//!
//! Without root the same path runs, minus the change of account.
//!
//! The only crate with unsafe code: taking over the service manager's descriptors, and two settings of the C library.
#![deny(unsafe_code)]

pub mod config;
mod failure;
mod logs;
mod memory;
pub mod metrics;
mod notify;
mod probe;
mod sandbox;
mod sockets;
mod source;
mod start;
pub mod tally;
mod users;

pub use config::{Document, Suite, UsersMode};
pub use failure::Failure;
pub use sockets::{Listen, Listener, Socket, socket_path};
pub use source::Source;
pub use start::Start;

use ipc::topology::{self, Network};
use serde::de::DeserializeOwned;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use types::{Role, TraceId};

/// What a daemon needs beyond its own state directory and what topology gives it.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// Its listeners.
    pub listen: Vec<Listen>,
    /// Files and directories that it reads (certificates, password files).
    pub read: Vec<PathBuf>,
    /// Directories that it writes besides its state (a store elsewhere).
    pub write: Vec<PathBuf>,
    /// For daemons whose network is `sql`: whether the configuration names servers to connect to.
    pub servers: bool,
    /// For daemons whose network is `listen+dns`: the ports of the name servers that they ask; none if they ask nobody.
    pub dns_ports: Vec<u16>,
}

/// What [`Needs`] are made from.
#[derive(Clone, Debug)]
pub struct Setting {
    /// `[suite]`.
    pub suite: Suite,
    /// All sections.
    pub document: Document,
    /// The daemon's own directory.
    pub state_dir: PathBuf,
}

/// The configuration file when none is named.
pub const DEFAULT_CONFIG: &str = "/etc/posthouse/posthouse.toml";

/// The main function of a daemon's own binary: `NAME [--config FILE]`, else POSTHOUSE_CONFIG, else
/// [`DEFAULT_CONFIG`].
pub fn main<C, R, F>(
    role: Role,
    needs: fn(&C, &Setting) -> Result<Needs, Failure>,
    run: R,
) -> ExitCode
where
    C: DeserializeOwned + Default,
    R: FnOnce(Start<C>) -> F,
    F: Future<Output = Result<(), Failure>>,
{
    let mut arguments = std::env::args_os().skip(1);
    let path = match (arguments.next(), arguments.next()) {
        (Some(option), Some(path)) if option == "--config" => path.into(),
        (None, _) => std::env::var_os("POSTHOUSE_CONFIG")
            .map_or_else(|| DEFAULT_CONFIG.into(), PathBuf::from),
        _ => {
            eprintln!("usage: {role} [--config FILE]\nEvery setting: `posthouse config example`.");
            return ExitCode::from(2);
        }
    };
    run_role(role, &path, needs, run)
}

/// Runs a daemon from the start of its configuration to its end.
pub fn run_role<C, R, F>(
    role: Role,
    path: &Path,
    needs: fn(&C, &Setting) -> Result<Needs, Failure>,
    run: R,
) -> ExitCode
where
    C: DeserializeOwned + Default,
    R: FnOnce(Start<C>) -> F,
    F: Future<Output = Result<(), Failure>>,
{
    match attempt(role, path, needs, run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tracing::error!("{failure}");
            if !tracing::event_enabled!(tracing::Level::ERROR) {
                eprintln!("{role}: {failure}");
            }
            ExitCode::FAILURE
        }
    }
}

fn attempt<C, R, F>(
    role: Role,
    path: &Path,
    needs: fn(&C, &Setting) -> Result<Needs, Failure>,
    run: R,
) -> Result<(), Failure>
where
    C: DeserializeOwned + Default,
    R: FnOnce(Start<C>) -> F,
    F: Future<Output = Result<(), Failure>>,
{
    let passed = sockets::Passed::take();
    tune();
    let document = Document::load(path)?;
    let suite = document.suite()?;
    logs::start(&suite)?;
    let config: C = document.section(role.name())?;
    let setting = Setting {
        state_dir: start::state_dir(&suite, role),
        suite: suite.clone(),
        document: document.clone(),
    };
    let needs = needs(&config, &setting)?;
    let identity = users::identity(role, &suite)?;
    let (control, listeners) = bind(role, &suite, &identity, passed, &needs.listen)?;
    let allowed = prepare(role, path, &setting, &identity, &needs)?;
    let notifier = notify::Notifier::new();
    identity.drop_privileges()?;
    if matches!(role, Role::Keyd | Role::Authd) {
        // Keys and hashes are in memory: no process of the same account may look.
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
            .map_err(|error| Failure::new(error.to_string()))?;
    }
    follow_supervisor()?;
    let sandbox = sandbox::apply(&allowed)?;
    let sound = |document: &Document| {
        document.suite()?;
        document.section::<C>(role.name()).map(drop)
    };
    let reactor = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(suite.threads)
        .max_blocking_threads(64)
        .thread_stack_size(1 << 20)
        .thread_name(role.name())
        .enable_all()
        .build()?;
    let ended = reactor.block_on(async {
        let listeners = listeners
            .into_iter()
            .zip(&needs.listen)
            .map(|(bound, listen)| bound.ready(listen.name.clone()))
            .collect::<Result<Vec<_>, _>>()?;
        control.set_nonblocking(true)?;
        let inner = Arc::new(start::Inner {
            role,
            suite,
            sandbox,
            listeners: listeners
                .iter()
                .map(|one| (one.name.clone(), one.address.clone()))
                .collect(),
            began: Instant::now(),
            facts: Mutex::default(),
            clients: Mutex::default(),
            stop: watch::Sender::new(false),
            reload: Notify::new(),
            document: watch::Sender::new(Arc::new(document)),
            ready: watch::Sender::new(false),
        });
        let control = tokio::net::UnixListener::from_std(control)?;
        let start = Start {
            inner: Arc::clone(&inner),
            config,
            listeners,
            control,
            users: identity.users,
        };
        tokio::spawn(memory::tend());
        tokio::select! {
            ended = run(start) => ended,
            ended = watch_over(&inner, &notifier, path, sound) => ended,
        }
    });
    // What blocks now (a file system that hangs) is not waited for: the drain is over.
    reactor.shutdown_timeout(Duration::from_secs(1));
    ended
}

type Sockets = (std::os::unix::net::UnixListener, Vec<sockets::Bound>);

fn bind(
    role: Role,
    suite: &Suite,
    identity: &users::Identity,
    mut passed: sockets::Passed,
    listen: &[Listen],
) -> Result<Sockets, Failure> {
    let path = socket_path(&suite.run_dir, role);
    let control = passed.control(&path)?;
    if path.exists() {
        identity.share_socket(&path)?;
    }
    let bound = listen
        .iter()
        .map(|listen| passed.listen(listen))
        .collect::<Result<Vec<_>, _>>()?;
    if !passed.left().is_empty() {
        tracing::warn!(names = ?passed.left(), "sockets were passed that no setting asks for");
    }
    Ok((control, bound))
}

/// Makes the state directory, and lists what the sandbox leaves open.
fn prepare(
    role: Role,
    path: &Path,
    setting: &Setting,
    identity: &users::Identity,
    needs: &Needs,
) -> Result<sandbox::Allowed, Failure> {
    let daemon = topology::daemon(role).cloned().unwrap_or_default();
    let mut read = vec![
        PathBuf::from("/dev/urandom"),
        "/dev/null".into(),
        "/etc/localtime".into(),
    ];
    read.extend([path.to_owned(), path.with_file_name("conf.d")]);
    // Editors put a new file in the old one's place, and the sandbox knows files, not names: what is to be read again on
    // HUP needs its directory, unless that holds the state of daemons too.
    if let Some(parent) = path.canonicalize().ok().as_deref().and_then(Path::parent)
        && ![&setting.suite.state_dir, &setting.suite.run_dir]
            .iter()
            .any(|dir| std::path::absolute(dir).is_ok_and(|dir| dir.starts_with(parent)))
    {
        read.push(parent.to_owned());
    }
    let mut write = needs.write.clone();
    if !daemon.state.is_empty() {
        let shared = Role::ALL
            .iter()
            .filter_map(|role| topology::daemon(*role))
            .any(|other| other.group_reads.contains(&daemon.state));
        identity.own_directory(&setting.state_dir, if shared { 0o750 } else { 0o700 })?;
        write.push(setting.state_dir.clone());
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(if shared {
            0o027
        } else {
            0o077
        }));
    }
    read.extend(
        daemon
            .group_reads
            .iter()
            .map(|state| setting.suite.state_dir.join(state)),
    );
    read.extend(needs.read.iter().cloned());
    let connects = match daemon.network {
        Network::Connect | Network::Both => true,
        Network::Sql | Network::Listen => needs.servers,
        Network::ListenDns | Network::None => false,
    };
    if daemon.network == Network::ListenDns && !needs.dns_ports.is_empty() {
        // Which name servers there are.
        read.extend(["/etc/resolv.conf", "/etc/hosts"].map(PathBuf::from));
    }
    if connects {
        // Name resolution and the certificates of others.
        let system = [
            "/etc/resolv.conf",
            "/etc/hosts",
            "/etc/ssl",
            "/usr/share/ca-certificates",
            "/usr/lib/ssl",
        ];
        read.extend(system.map(PathBuf::from));
    }
    Ok(sandbox::Allowed {
        read,
        write,
        network: daemon.network,
        servers: needs.servers,
        dns_ports: needs.dns_ports.clone(),
    })
}

/// A daemon that `posthouse up` started ends with it.
fn follow_supervisor() -> Result<(), Failure> {
    let Ok(supervisor) = std::env::var("POSTHOUSE_SUPERVISOR") else {
        return Ok(());
    };
    let signal = rustix::process::Signal::TERM;
    rustix::process::set_parent_process_death_signal(Some(signal))
        .map_err(|error| Failure::new(error.to_string()))?;
    let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    if supervisor.parse() == Ok(parent) {
        Ok(())
    } else {
        Err(Failure::new("the supervisor has ended"))
    }
}

/// Room for connections, and an allocator that gives memory back.
fn tune() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
    // Mail and keys do not belong into core files.
    let mut core = getrlimit(Resource::Core);
    core.current = Some(0);
    let _ = setrlimit(Resource::Core, core);
    // SAFETY: mallopt only sets numbers inside the allocator, and no other thread exists yet.
    #[allow(unsafe_code)]
    #[cfg(target_env = "gnu")]
    unsafe {
        // Each arena keeps its own free memory: two are enough for a few threads.
        libc::mallopt(libc::M_ARENA_MAX, 2);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 256 * 1024);
    }
}

/// Signals, readiness and the watchdog. Ends when a drain takes too long, or at a second TERM.
async fn watch_over(
    inner: &start::Inner,
    notifier: &notify::Notifier,
    path: &Path,
    sound: impl Fn(&Document) -> Result<(), Failure>,
) -> Result<(), Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let (mut stop, mut ready) = (inner.stop.subscribe(), inner.ready.subscribe());
    let watchdog = notify::Notifier::watchdog();
    let mut alive = tokio::time::interval(watchdog.unwrap_or(Duration::from_secs(3600)));
    let mut told = false;
    loop {
        tokio::select! {
            _ = terminate.recv() => drop(inner.stop.send_replace(true)),
            _ = interrupt.recv() => drop(inner.stop.send_replace(true)),
            _ = hangup.recv() => inner.reload.notify_one(),
            () = inner.reload.notified() => {
                notifier.send("RELOADING=1");
                inner.read_again(path, &sound);
                notifier.send("READY=1");
            }
            _ = alive.tick() => if watchdog.is_some() { notifier.send("WATCHDOG=1") },
            _ = ready.wait_for(|ready| *ready), if !told => {
                told = true;
                notifier.send("READY=1");
                tracing::info!(version = env!("CARGO_PKG_VERSION"), "ready");
            }
            _ = stop.wait_for(|stop| *stop) => break,
        }
    }
    notifier.send("STOPPING=1");
    tracing::info!("stopping");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = tokio::time::sleep(Duration::from_secs(inner.suite.drain_seconds)) => {
            tracing::warn!("not everything was drained in time");
        }
    }
    Ok(())
}

/// A new trace id: unique with high probability among all messages and sessions of a site, and no secret.
pub fn new_trace() -> TraceId {
    static SEED: OnceLock<u64> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let seed = SEED.get_or_init(|| {
        use std::hash::{BuildHasher, RandomState};
        RandomState::new().hash_one(std::process::id())
    });
    // splitmix64 of a counter: a bijection, so no id comes twice from one process.
    let step = NEXT
        .fetch_add(1, Ordering::Relaxed)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut mixed = seed.wrapping_add(step);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    TraceId(mixed ^ (mixed >> 31))
}
