//! `posthouse up`: all daemons in the foreground, from one folder, without root.
//!
//! Each daemon is a child process of its own (`posthouse run ROLE`) in a process group of its own, so that Ctrl-C
//! reaches the supervisor alone, which then stops them from the listeners inwards. A child that ends is started again,
//! after a pause that doubles while it keeps ending. Children die with the supervisor (PR_SET_PDEATHSIG in `run`).

use crate::connect::{Place, Suite};
use crate::demo;
use crate::failure::Failure;
use crate::output;
use ipc::api::control;
use std::io::IsTerminal;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::Instant;
use types::Role;

/// A daemon that is not ready by then did not come up.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// The first pause before a daemon is started again, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// A daemon that ran that long starts with the first pause again.
const STEADY: Duration = Duration::from_secs(30);

pub(crate) async fn run(place: &Place, options: &crate::cli::Up) -> Result<(), Failure> {
    let began = Instant::now();
    let suite = Suite::open(place, false)?;
    let (stop, stopping) = watch::channel(None::<usize>);
    let all = suite.daemons.clone();
    let mut keepers = Vec::with_capacity(all.len());
    let config = Arc::new(place.config.clone());
    let mut signals = Signals::new()?;
    for (rank, role) in all.iter().copied().enumerate() {
        let keeper = Keeper {
            role,
            rank,
            config: Arc::clone(&config),
            colour: std::io::stderr().is_terminal(),
        };
        keepers.push(tokio::spawn(keeper.keep(stopping.clone())));
        tokio::select! {
            ready = until_ready(&suite, role) => if let Err(failure) = ready {
                drain(&stop, keepers).await;
                return Err(failure);
            },
            () = signals.any() => {
                drain(&stop, keepers).await;
                return Ok(());
            }
        }
    }
    output::say(&format!(
        "Posthouse is up: {} daemons in {} ms, state in {}.",
        all.len(),
        began.elapsed().as_millis(),
        suite.state_dir.display(),
    ));
    let told = if options.demo {
        demo::prepare(&suite, place).await
    } else {
        demo::addresses(&suite).await
    };
    if let Err(failure) = told {
        drain(&stop, keepers).await;
        return Err(failure);
    }
    output::say("Ctrl-C ends it.");
    signals.any().await;
    output::say("Stopping: sessions are drained.");
    drain(&stop, keepers).await;
    Ok(())
}

/// Stops the daemons from the last to the first, each after the one before it has ended.
async fn drain(stop: &watch::Sender<Option<usize>>, mut keepers: Vec<tokio::task::JoinHandle<()>>) {
    while let Some(keeper) = keepers.pop() {
        let _ = stop.send(Some(keepers.len()));
        let _ = keeper.await;
    }
}

async fn until_ready(suite: &Suite, role: Role) -> Result<(), Failure> {
    let deadline = Instant::now() + READY_WITHIN;
    loop {
        match suite.call(role, &control::Ping).await {
            Ok(()) => return Ok(()),
            Err(failure) if Instant::now() > deadline => {
                return Err(Failure::new(format!(
                    "{role} is not ready after {} s (its log above says why): {failure}",
                    READY_WITHIN.as_secs()
                )));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// INT and TERM.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        use tokio::signal::unix::{SignalKind, signal};
        let failed =
            |error: std::io::Error| Failure::new(format!("signals cannot be watched: {error}"));
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => (),
            _ = self.terminate.recv() => (),
        }
    }
}

/// Keeps one daemon running.
struct Keeper {
    role: Role,
    rank: usize,
    config: Arc<std::path::PathBuf>,
    colour: bool,
}

impl Keeper {
    /// Until the supervisor stops ranks from this one on.
    async fn keep(self, mut stopping: watch::Receiver<Option<usize>>) {
        let mine = |limit: &Option<usize>| limit.is_some_and(|limit| self.rank >= limit);
        let mut pause = PAUSE.0;
        loop {
            let began = Instant::now();
            match self.start() {
                Ok(mut child) => {
                    let logs = self.follow(&mut child);
                    let ended = tokio::select! {
                        ended = child.wait() => Some(ended),
                        _ = stopping.wait_for(mine) => None,
                    };
                    let Some(ended) = ended else {
                        self.end(child).await;
                        logs.await;
                        return;
                    };
                    logs.await;
                    let how =
                        ended.map_or_else(|error| error.to_string(), |status| status.to_string());
                    self.say(&format!(
                        "ended ({how}); starting it again in {} ms",
                        pause.as_millis()
                    ));
                }
                Err(error) => self.say(&format!("cannot be started: {error}")),
            }
            if began.elapsed() > STEADY {
                pause = PAUSE.0;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => (),
                _ = stopping.wait_for(mine) => return,
            }
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    fn start(&self) -> std::io::Result<Child> {
        Command::new("/proc/self/exe")
            .arg0(format!("posthouse-{}", self.role))
            .arg("--config")
            .arg(self.config.as_path())
            .args(["run", self.role.name()])
            .env("POSTHOUSE_SUPERVISOR", std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }

    /// TERM, and KILL when it does not drain in time.
    async fn end(&self, mut child: Child) {
        if let Some(pid) = child
            .id()
            .and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()))
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        // The daemon bounds its drain itself (suite.drain_seconds, at most 60).
        if tokio::time::timeout(Duration::from_secs(65), child.wait())
            .await
            .is_err()
        {
            self.say("did not end; it is killed");
            let _ = child.kill().await;
        }
    }

    /// Copies the child's lines to our standard error, with its name before them.
    fn follow(&self, child: &mut Child) -> impl Future<Output = ()> + use<> {
        let prefix = self.prefix();
        let out = child
            .stdout
            .take()
            .map(|pipe| tokio::spawn(copy(pipe, prefix.clone())));
        let err = child
            .stderr
            .take()
            .map(|pipe| tokio::spawn(copy(pipe, prefix)));
        async move {
            for task in [out, err].into_iter().flatten() {
                let _ = task.await;
            }
        }
    }

    fn prefix(&self) -> String {
        let name = self.role.name();
        if self.colour {
            let colour = 31 + self.rank % 6;
            format!("\u{1b}[{colour}m{name:8}\u{1b}[0m ")
        } else {
            format!("{name:8} ")
        }
    }

    fn say(&self, text: &str) {
        print(&self.prefix(), text);
    }
}

/// A log that cannot be written (the disk is full) must not end the suite, as `eprintln!` would.
fn print(prefix: &str, line: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr().lock(), "{prefix}{line}");
}

async fn copy(pipe: impl tokio::io::AsyncRead + Unpin, prefix: String) {
    let mut lines = BufReader::new(pipe).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        print(&prefix, &line);
    }
}

/// Writes a configuration for a suite without root, if the folder has none: high ports on loopback, all state in the
/// folder.
pub(crate) fn write_config(place: &Place) -> Result<(), Failure> {
    if place.config.exists() {
        return Ok(());
    }
    let failed =
        |error: std::io::Error| Failure::new(format!("{}: {error}", place.config.display()));
    std::fs::create_dir_all(&place.dir).map_err(failed)?;
    let text = format!(
        "# Written by `posthouse up`. Every setting: `posthouse config example`.\n\n\
         [suite]\nhostname = \"mail.demo.test\"\nstate_dir = {state:?}\nrun_dir = {run:?}\nusers = \"single\"\n\n{LISTENERS}",
        state = place.dir.join("state"),
        run = run_dir(&place.dir),
    );
    std::fs::write(&place.config, text).map_err(failed)
}

/// The name of a local socket has 107 octets at most (unix(7)).
fn run_dir(dir: &std::path::Path) -> std::path::PathBuf {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let near = dir.join("run");
    if near.as_os_str().len() + "/deliverd.sock".len() < 107 {
        return near;
    }
    let mut hash = DefaultHasher::new();
    dir.hash(&mut hash);
    std::env::temp_dir().join(format!("posthouse-{:016x}", hash.finish()))
}

const LISTENERS: &str = include_str!("../up-listeners.toml");
