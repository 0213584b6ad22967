//! A PostgreSQL server of its own for the suite, as Debian ships it, synced at every commit (the default).

use super::free_address;
use crate::Outcome;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The account that PostgreSQL starts as: it refuses to be root.
const ACCOUNT: &str = "postgres";

/// A running server.
pub struct Server {
    /// Where the suite's store is.
    pub url: String,
    /// Its first process.
    pub child: Child,
}

fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let mut found: Vec<PathBuf> = versions
        .flatten()
        .map(|version| version.path().join("bin"))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    found.sort();
    found.pop()
}

/// Why it cannot be started here, if so.
pub fn why_not() -> Option<String> {
    if programs().is_none() {
        return Some("postgresql is not installed (tests/setup --bench)".to_owned());
    }
    (!rustix::process::geteuid().is_root())
        .then(|| "it is started under its own account, which takes root".to_owned())
}

/// Starts a server with its data in a directory below `dir`, and waits until it takes connections.
pub async fn start(dir: &Path) -> Outcome<Server> {
    let bin = match (why_not(), programs()) {
        (None, Some(bin)) => bin,
        (why, _) => return Err(why.unwrap_or_default().into()),
    };
    let (uid, gid) = super::peers::account(ACCOUNT)?;
    let address = free_address()?;
    let home = dir.join("postgresql");
    fs::create_dir_all(&home)?;
    std::os::unix::fs::chown(&home, Some(uid), Some(gid))?;
    let data = home.join("data");
    let log = fs::File::create(dir.join("postgresql.log"))?;
    let made = Command::new(bin.join("initdb"))
        .arg("-D")
        .arg(&data)
        .args([
            "-A",
            "trust",
            "-U",
            "posthouse",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
        ])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?)
        .current_dir(&home)
        .uid(uid)
        .gid(gid)
        .status()?;
    if !made.success() {
        return Err(format!("initdb: {made}").into());
    }
    let child = Command::new(bin.join("postgres"))
        .arg("-D")
        .arg(&data)
        .arg("-k")
        .arg(&home)
        .args(["-h", "127.0.0.1", "-p", &address.port().to_string()])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .current_dir(&home)
        .uid(uid)
        .gid(gid)
        .spawn()?;
    let server = Server {
        url: format!("postgres://posthouse@{address}/postgres"),
        child,
    };
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let ready = Command::new(bin.join("pg_isready"))
            .args(["-q", "-h", "127.0.0.1", "-p", &address.port().to_string()])
            .status()?;
        if ready.success() {
            return Ok(server);
        }
        if Instant::now() > end {
            return Err("PostgreSQL does not take connections after a minute".into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
