//! Private servers: their directories, their command lines, their beginning and end.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The databases that run as servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerKind {
    /// PostgreSQL.
    Postgres,
    /// MariaDB or MySQL.
    MySql,
}

impl ServerKind {
    /// As people write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL",
            Self::MySql => "MySQL",
        }
    }

    /// The variable that names a running server.
    pub const fn variable(self) -> &'static str {
        match self {
            Self::Postgres => "POSTHOUSE_TEST_POSTGRES",
            Self::MySql => "POSTHOUSE_TEST_MYSQL",
        }
    }

    const fn program(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::MySql => "mariadbd",
        }
    }

    /// Whom a server runs as when the tests run as root.
    const fn user(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::MySql => "mysql",
        }
    }

    fn url(self, directory: &Path) -> String {
        let directory = directory.display().to_string().replace('/', "%2F");
        match self {
            Self::Postgres => format!("postgres://posthouse@localhost/postgres?host={directory}"),
            Self::MySql => format!("mysql://root@localhost/mysql?socket={directory}%2Fsql.sock"),
        }
    }
}

/// A server that one test starts, stops and starts again as it likes. Stopped when dropped.
#[derive(Debug)]
pub struct Server {
    kind: ServerKind,
    directory: PathBuf,
    child: Option<Child>,
}

impl Server {
    /// Makes the data directory `directory`, which must be empty, and starts the server. `None` if it is not installed.
    ///
    /// # Errors
    /// It is installed and does not start.
    pub fn start(kind: ServerKind, directory: &Path) -> io::Result<Option<Self>> {
        let Some(program) = find(kind.program()) else {
            return Ok(None);
        };
        make_data(kind, &program, directory)?;
        let mut server = Self {
            kind,
            directory: directory.to_owned(),
            child: None,
        };
        server.resume()?;
        Ok(Some(server))
    }

    /// For [`crate::Db::open`]: an administrator's access.
    pub fn url(&self) -> String {
        self.kind.url(&self.directory)
    }

    /// Starts it again, and waits until it takes connections.
    ///
    /// # Errors
    /// It does not start within half a minute.
    pub fn resume(&mut self) -> io::Result<()> {
        let program = find(self.kind.program()).ok_or(io::ErrorKind::NotFound)?;
        let line = command_line(self.kind, &program, &self.directory, true);
        let mut command = Command::new(line.first().ok_or(io::ErrorKind::NotFound)?);
        command.args(line.iter().skip(1));
        quiet(&mut command, &self.directory)?;
        self.child = Some(command.spawn()?);
        wait_ready(self.kind, &self.directory)
    }

    /// Kills it and waits for its end.
    ///
    /// # Errors
    /// It does not run.
    pub fn stop(&mut self) -> io::Result<()> {
        if let Some(mut child) = self.child.take() {
            // As after a power cut: both databases recover when they start again. PostgreSQL's "immediate shutdown" takes
            // its backends along, which would keep it from starting otherwise.
            match self.kind {
                ServerKind::Postgres => {
                    run(Command::new("kill").args(["-QUIT", &child.id().to_string()]))?;
                }
                ServerKind::MySql => child.kill()?,
            }
            child.wait()?;
            forget_socket(self.kind, &self.directory);
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("a test server does not end: {error}");
        }
    }
}

fn forget_socket(kind: ServerKind, directory: &Path) {
    let path = socket(kind, directory);
    if path.exists()
        && let Err(error) = std::fs::remove_file(path)
    {
        eprintln!("a test server's socket stays: {error}");
    }
}

/// The server that all test processes of this user share, and a lock that keeps it alive.
pub(super) fn shared(kind: ServerKind) -> io::Result<Option<(String, File)>> {
    let Some(program) = find(kind.program()) else {
        return Ok(None);
    };
    let home = std::env::temp_dir().join(format!(
        "posthouse-test-{}-{}",
        kind.program(),
        output("id", &["-u"])?
    ));
    std::fs::create_dir_all(&home)?;
    let open = |name: &str| {
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .read(true)
            .open(home.join(name))
    };
    let starting = open("starting")?;
    starting.lock()?;
    let in_use = open("in-use")?;
    in_use.lock_shared()?;
    let directory = home.join("server");
    if !reachable(kind, &directory) {
        if directory.exists() {
            std::fs::remove_dir_all(&directory)?;
        }
        make_data(kind, &program, &directory)?;
        supervise(kind, &program, &home, &directory)?;
        wait_ready(kind, &directory)?;
    }
    Ok(Some((kind.url(&directory), in_use)))
}

/// Runs the server until nobody holds `in-use` any more.
fn supervise(kind: ServerKind, program: &Path, home: &Path, directory: &Path) -> io::Result<()> {
    const SCRIPT: &str = r#"
        home=$1; shift
        "$@" & server=$!
        trap 'kill -INT $server 2>/dev/null; kill -TERM $server' TERM INT
        while kill -0 $server 2>/dev/null; do
            sleep 20
            if flock -n -x "$home/starting" flock -n -x "$home/in-use" kill -KILL $server; then
                wait $server
                rm -rf "$home/server"
                exit 0
            fi
        done
    "#;
    let mut command = Command::new("setsid");
    command.args(["sh", "-c", SCRIPT, "sh"]).arg(home);
    command.args(command_line(kind, program, directory, false));
    quiet(&mut command, directory)?;
    // Its end is its own business: it outlives this process by design.
    drop(command.spawn()?);
    Ok(())
}

fn quiet(command: &mut Command, directory: &Path) -> io::Result<()> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(directory.with_extension("log"))?;
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .current_dir(directory);
    Ok(())
}

/// A durable server keeps what it has committed when it is killed.
fn command_line(kind: ServerKind, program: &Path, directory: &Path, durable: bool) -> Vec<String> {
    let program = program.display().to_string();
    let directory = directory.display().to_string();
    let mut line = Vec::new();
    match kind {
        ServerKind::Postgres => {
            if is_root() {
                line.extend(
                    [
                        "setpriv",
                        "--reuid=postgres",
                        "--regid=postgres",
                        "--clear-groups",
                        "--",
                    ]
                    .map(str::to_owned),
                );
            }
            line.extend([program, "-D".to_owned(), format!("{directory}/data")]);
            for setting in [
                format!("unix_socket_directories={directory}"),
                "listen_addresses=".to_owned(),
                format!("fsync={}", if durable { "on" } else { "off" }),
                format!("synchronous_commit={}", if durable { "on" } else { "off" }),
                format!("full_page_writes={}", if durable { "on" } else { "off" }),
                "max_connections=300".to_owned(),
                "shared_buffers=64MB".to_owned(),
            ] {
                line.extend(["-c".to_owned(), setting]);
            }
        }
        ServerKind::MySql => {
            line.extend([
                program,
                "--no-defaults".to_owned(),
                format!("--datadir={directory}/data"),
                format!("--socket={directory}/sql.sock"),
                format!("--pid-file={directory}/sql.pid"),
                "--skip-networking".to_owned(),
                "--skip-grant-tables".to_owned(),
                format!("--innodb-flush-log-at-trx-commit={}", u8::from(durable)),
                "--innodb-buffer-pool-size=64M".to_owned(),
                "--max-connections=300".to_owned(),
            ]);
            if is_root() {
                line.push("--user=mysql".to_owned());
            }
        }
    }
    line
}

fn make_data(kind: ServerKind, program: &Path, directory: &Path) -> io::Result<()> {
    let data = directory.join("data");
    std::fs::create_dir_all(&data)?;
    let root = is_root();
    if root {
        run(Command::new("chown")
            .arg("-R")
            .arg(kind.user())
            .arg(directory))?;
    }
    match kind {
        ServerKind::Postgres => {
            let program = std::fs::canonicalize(program)?;
            let initdb = find("initdb").unwrap_or_else(|| program.with_file_name("initdb"));
            let mut command = if root {
                let mut command = Command::new("setpriv");
                command
                    .args([
                        "--reuid=postgres",
                        "--regid=postgres",
                        "--clear-groups",
                        "--",
                    ])
                    .arg(initdb);
                command
            } else {
                Command::new(initdb)
            };
            command
                .args(["--no-sync", "-A", "trust", "-U", "posthouse", "-E", "UTF8"])
                .args(["--locale=C", "-D"])
                .arg(&data)
                .current_dir(directory);
            run(&mut command)
        }
        ServerKind::MySql => {
            let mut command = Command::new("mariadb-install-db");
            command
                .args(["--no-defaults", "--skip-test-db"])
                .arg("--auth-root-authentication-method=normal")
                .arg(format!("--datadir={}", data.display()))
                .current_dir(directory);
            if root {
                command.arg("--user=mysql");
            }
            run(&mut command)
        }
    }
}

fn socket(kind: ServerKind, directory: &Path) -> PathBuf {
    match kind {
        ServerKind::Postgres => directory.join(".s.PGSQL.5432"),
        ServerKind::MySql => directory.join("sql.sock"),
    }
}

fn reachable(kind: ServerKind, directory: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(socket(kind, directory)).is_ok()
}

fn wait_ready(kind: ServerKind, directory: &Path) -> io::Result<()> {
    let begun = Instant::now();
    while !reachable(kind, directory) {
        if begun.elapsed() > Duration::from_secs(60) {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!(
                    "the test server does not start; see {}",
                    directory.with_extension("log").display()
                ),
            ));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.push("/usr/sbin".into());
    if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
        let mut versions: Vec<_> = versions.flatten().map(|entry| entry.path()).collect();
        versions.sort();
        places.extend(versions.into_iter().rev().map(|path| path.join("bin")));
    }
    places
        .into_iter()
        .map(|place| place.join(program))
        .find(|file| file.is_file())
}

fn is_root() -> bool {
    output("id", &["-u"]).is_ok_and(|id| id == "0")
}

fn output(program: &str, args: &[&str]) -> io::Result<String> {
    let output = Command::new(program).args(args).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{}: {}",
        command.get_program().display(),
        String::from_utf8_lossy(&output.stderr)
    )))
}
