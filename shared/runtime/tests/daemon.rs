//! Whole daemons: this test program runs itself again as one, from the start of its configuration to its end.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use ipc::api::control::{Metrics, Ping, Probe, Reload, Shutdown, Status, StatusReply};
use ipc::{Client, ClientOptions, Router};
use runtime::{Failure, Listen, Needs, Setting, Start};
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use types::{Role, TraceId};

#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    listen: Vec<String>,
    word: String,
}

fn needs(config: &Config, _: &Setting) -> Result<Needs, Failure> {
    let listen = config.listen.iter().map(|address| Listen {
        name: "test".into(),
        address: address.clone(),
    });
    Ok(Needs {
        listen: listen.collect(),
        ..Needs::default()
    })
}

async fn run(mut start: Start<Config>) -> Result<(), Failure> {
    let documents = start.documents();
    start.fact("word", move || {
        let document = documents.borrow();
        let config: Config = document.section("relayd").unwrap_or_default();
        config.word
    });
    let _listeners = start.take_listeners();
    runtime::metrics::counter("test_starts_total", "Starts.").add_one();
    let role: Role = std::env::var("TEST_ROLE").unwrap().parse().unwrap();
    let served = start.serve(Router::new(role));
    served
        .await
        .map_err(|error| Failure::new(error.to_string()))
}

/// Not a test: the daemon that the others start.
#[test]
#[ignore = "started by the other tests"]
fn child() {
    let role: Role = std::env::var("TEST_ROLE").unwrap().parse().unwrap();
    let config = PathBuf::from(std::env::var("TEST_CONFIG").unwrap());
    let code = runtime::run_role(role, &config, needs, run);
    assert_eq!(code, std::process::ExitCode::SUCCESS);
}

struct Daemon {
    role: Role,
    folder: tempfile::TempDir,
    child: Child,
    client: Client,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn folder(section: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("etc")).unwrap();
    configure(folder.path(), section);
    folder
}

/// Puts a new file in the place of the old one, as editors do.
fn configure(folder: &Path, section: &str) {
    let text = format!(
        "[suite]\nhostname = 'mx.test'\nusers = 'single'\nstate_dir = {:?}\nrun_dir = {:?}\ndrain_seconds = 2\n{section}\n",
        folder.join("state"),
        folder.join("run"),
    );
    let new = folder.join("etc/new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, folder.join("etc/posthouse.toml")).unwrap();
}

fn command(program: &str, role: Role, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env("TEST_ROLE", role.name())
        .env("TEST_CONFIG", folder.join("etc/posthouse.toml"))
        .env("POSTHOUSE_LOG", "error");
    command
}

fn client(role: Role, folder: &Path) -> Client {
    let socket = runtime::socket_path(&folder.join("run"), role);
    Client::new(Role::Posthouse, role, socket, ClientOptions::default())
}

const CHILD: [&str; 4] = ["--exact", "child", "--ignored", "--nocapture"];

impl Daemon {
    async fn start(role: Role, section: &str) -> Self {
        let folder = folder(section);
        let program = std::env::current_exe().unwrap();
        let child = command(program.to_str().unwrap(), role, folder.path())
            .args(CHILD)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let client = client(role, folder.path());
        let daemon = Self {
            role,
            folder,
            child,
            client,
        };
        daemon.client.call(TraceId(1), &Ping).await.unwrap();
        daemon
    }

    async fn status(&self) -> StatusReply {
        self.client.call(TraceId(1), &Status).await.unwrap()
    }

    async fn can(&self, attempt: Probe) -> bool {
        let probed = self.client.call(TraceId(1), &attempt).await.unwrap();
        println!("{} {attempt:?}: {}", self.role, probed.detail);
        probed.possible
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    async fn ended(mut self) -> bool {
        tokio::task::spawn_blocking(move || self.child.wait().unwrap().success())
            .await
            .unwrap()
    }
}

fn outside() -> (std::net::TcpListener, std::net::SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[tokio::test]
async fn a_daemon_without_network_has_none_and_runs_no_programs() {
    let daemon = Daemon::start(Role::Keyd, "").await;
    let (_listener, address) = outside();
    assert!(!daemon.can(Probe::Connect(address)).await);
    assert!(
        !daemon
            .can(Probe::Listen("127.0.0.1:0".parse().unwrap()))
            .await
    );
    assert!(!daemon.can(Probe::Listen("[::1]:0".parse().unwrap())).await);
    assert!(!daemon.can(Probe::Execute("/bin/true".into())).await);
    assert!(daemon.can(Probe::Write(daemon.path("state/keys"))).await);
    let facts = daemon.status().await.sandbox;
    let landlock = facts.iter().find(|fact| fact.starts_with("landlock"));
    if landlock.is_some_and(|fact| fact.starts_with("landlock: files")) {
        std::fs::create_dir_all(daemon.path("state/queue")).unwrap();
        assert!(!daemon.can(Probe::Read(daemon.path("state/queue"))).await);
        assert!(!daemon.can(Probe::Write(daemon.path("state/queue"))).await);
        assert!(!daemon.can(Probe::Read("/etc/passwd".into())).await);
        assert!(!daemon.can(Probe::Write("/tmp".into())).await);
    } else {
        println!("files are not tried: {landlock:?}");
        assert!(landlock.is_some_and(|fact| fact.contains("not ")));
    }
    // Keys stay in it: its memory is nobody's (unless by root, whom nothing stops).
    let mode = std::fs::metadata(format!("/proc/{}/mem", daemon.child.id())).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&mode), 0);
}

#[tokio::test]
async fn a_listener_accepts_and_can_open_nothing_else() {
    let section = "[smtpd]\nlisten = ['127.0.0.1:0', '127.0.0.1:0']";
    let daemon = Daemon::start(Role::Smtpd, section).await;
    let status = daemon.status().await;
    assert_eq!(status.listeners.len(), 2);
    for (name, address) in &status.listeners {
        assert_eq!(name, "test");
        std::net::TcpStream::connect(address).unwrap();
    }
    let (_listener, address) = outside();
    assert!(!daemon.can(Probe::Connect(address)).await);
    assert!(
        !daemon
            .can(Probe::Listen("127.0.0.1:0".parse().unwrap()))
            .await
    );
    assert!(!daemon.can(Probe::Execute("/bin/true".into())).await);
}

#[tokio::test]
async fn who_must_connect_can_and_no_more() {
    let daemon = Daemon::start(Role::Relayd, "").await;
    let (_listener, address) = outside();
    assert!(daemon.can(Probe::Connect(address)).await);
    assert!(!daemon.can(Probe::Execute("/bin/true".into())).await);
}

async fn until_word(daemon: &Daemon, word: &str) -> bool {
    let wanted = ("word".to_owned(), word.to_owned());
    for _ in 0..500 {
        if daemon.status().await.facts.contains(&wanted) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

#[tokio::test]
async fn a_new_file_is_read_again_and_a_bad_one_is_not_taken() {
    let mut daemon = Daemon::start(Role::Relayd, "[relayd]\nword = 'one'").await;
    assert!(until_word(&daemon, "one").await);
    configure(daemon.folder.path(), "[relayd]\nword = 'two'");
    daemon.client.call(TraceId(1), &Reload).await.unwrap();
    assert!(until_word(&daemon, "two").await);
    configure(daemon.folder.path(), "[relayd]\nwrod = 'three'");
    daemon.client.call(TraceId(1), &Reload).await.unwrap();
    let log = BufReader::new(daemon.child.stderr.take().unwrap());
    let refused = tokio::task::spawn_blocking(move || {
        let line = log.lines().map_while(Result::ok);
        line.into_iter().find(|line| line.contains("not sound"))
    });
    let refused = refused.await.unwrap().unwrap();
    assert!(
        refused.contains("unknown key relayd.wrod; did you mean word?"),
        "{refused}"
    );
    assert!(until_word(&daemon, "two").await);
    configure(daemon.folder.path(), "[relayd]\nword = 'four'");
    daemon.client.call(TraceId(1), &Reload).await.unwrap();
    assert!(until_word(&daemon, "four").await);
}

#[tokio::test]
async fn metrics_come_over_the_socket_and_shutdown_ends_it() {
    let daemon = Daemon::start(Role::Relayd, "").await;
    let text = daemon.client.call(TraceId(1), &Metrics).await.unwrap();
    assert!(text.contains("posthouse_test_starts_total 1\n"), "{text}");
    daemon.client.call(TraceId(1), &Shutdown).await.unwrap();
    assert!(daemon.ended().await);
}

#[tokio::test]
async fn term_ends_it_and_the_service_manager_hears_of_everything() {
    let folder = folder("");
    let socket = folder.path().join("control");
    let notices = folder.path().join("notify");
    let manager = UnixDatagram::bind(&notices).unwrap();
    manager
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let listener: OwnedFd = UnixListener::bind(&socket).unwrap().into();
    // As a service manager passes sockets: descriptor 3 and the process's own id.
    let script = "LISTEN_PID=$$ exec \"$0\" \"$@\" 3<&0 </dev/null";
    let program = std::env::current_exe().unwrap();
    let mut child = command("/bin/sh", Role::Relayd, folder.path())
        .args(["-c", script, program.to_str().unwrap()])
        .args(CHILD)
        .env("LISTEN_FDS", "1")
        .env("LISTEN_FDNAMES", "control")
        .env("NOTIFY_SOCKET", &notices)
        .stdin(Stdio::from(listener))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let told = |what: &str| {
        let mut text = [0; 100];
        let len = manager.recv(&mut text).unwrap();
        assert_eq!(std::str::from_utf8(&text[..len]).unwrap(), what);
    };
    told("READY=1");
    // It serves on the socket that it was given, and has made none.
    let client = Client::new(
        Role::Posthouse,
        Role::Relayd,
        &socket,
        ClientOptions::default(),
    );
    client.call(TraceId(1), &Ping).await.unwrap();
    assert!(!runtime::socket_path(&folder.path().join("run"), Role::Relayd).exists());
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
    let send = |signal| rustix::process::kill_process(pid, signal).unwrap();
    send(rustix::process::Signal::HUP);
    told("RELOADING=1");
    told("READY=1");
    send(rustix::process::Signal::TERM);
    told("STOPPING=1");
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_journal_is_told_the_priority() {
    let folder = folder("[relayd]\nlisten = ['192.0.2.1:25']");
    let program = std::env::current_exe().unwrap();
    let output = command(program.to_str().unwrap(), Role::Relayd, folder.path())
        .args(CHILD)
        .env("JOURNAL_STREAM", "1:1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find(|line| line.contains("cannot listen"));
    assert!(line.is_some_and(|line| line.starts_with("<3>{")), "{text}");
}

#[test]
fn what_cannot_start_says_why() {
    let folder = folder("[relayd]\nlisten = ['192.0.2.1:25']");
    let program = std::env::current_exe().unwrap();
    let output = command(program.to_str().unwrap(), Role::Relayd, folder.path())
        .args(CHILD)
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("cannot listen on 192.0.2.1:25 (test)"),
        "{text}"
    );
}
