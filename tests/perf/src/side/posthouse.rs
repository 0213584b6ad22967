//! The suite itself: `posthouse up` in a directory of its own, SQLite or PostgreSQL, and files.

use super::postgresql::Server;
use super::{DOMAIN, PASSWORD, Side, Software, USERS, free_address, user};
use crate::Outcome;
use crate::measure::drain::{DESTINATIONS, ELSEWHERE, host};
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const FILE: &str = "posthouse.toml";
const SUBSTRING: &str = "search = \"substring\"";
const WORDS: &str = "search = \"words\"";

/// A suite that runs.
#[derive(Clone)]
pub struct Suite {
    program: PathBuf,
    dir: PathBuf,
}

/// Starts the suite with the load's domain and accounts in it; on PostgreSQL if a server is given.
pub async fn start(program: &Path, dir: &Path, server: Option<Server>) -> Outcome<Side> {
    let program = std::path::absolute(program)?;
    if !program.exists() {
        return Err(format!("{} is not there (make bench builds it)", program.display()).into());
    }
    let (smtp, imap, imaps) = (free_address()?, free_address()?, free_address()?);
    let port = free_address()?.port();
    let mut text = configuration(dir, smtp, imap, imaps);
    let queue = server.as_ref().map_or("sqlite", |server| &server.url);
    text.push_str(&elsewhere(port, queue));
    if let Some(server) = &server {
        text.push_str(&format!("\n[store]\nurl = \"{}\"\n", server.url));
    }
    fs::write(dir.join(FILE), text)?;
    let child = Command::new(&program)
        .arg("--dir")
        .arg(dir)
        .arg("up")
        .stdin(Stdio::null())
        .stdout(fs::File::create(dir.join("posthouse.out"))?)
        .stderr(fs::File::create(dir.join("posthouse.err"))?)
        .spawn()?;
    let suite = Suite {
        program,
        dir: dir.to_owned(),
    };
    let mut side = Side {
        smtp,
        imap,
        imaps,
        elsewhere: port,
        data: dir.to_owned(),
        software: Software::Posthouse(suite.clone()),
        children: vec![child],
    };
    suite.wait_up(&mut side).await?;
    suite.administer(&["domain", "add", DOMAIN], "")?;
    for number in 0..USERS {
        let arguments = ["account", "add", &user(number), "--password-stdin"];
        suite.administer(&arguments, PASSWORD)?;
    }
    side.children.extend(server.map(|server| server.child));
    side.ready().await?;
    Ok(side)
}

/// Everything as it ships, but for the places and ports, and how many connections one account may have.
fn configuration(dir: &Path, smtp: SocketAddr, imap: SocketAddr, imaps: SocketAddr) -> String {
    format!(
        r#"[suite]
hostname = "perf.example.org"
state_dir = "{dir}/state"
run_dir = "{dir}/run"
users = "single"
log_format = "json"

[[smtpd.listener]]
name = "mx"
address = "{smtp}"
role = "mx"
tls = "none"

[imapd]
connections_per_account = 1000
{SUBSTRING}

[[imapd.listener]]
name = "imap"
address = "{imap}"
tls = "none"

[[imapd.listener]]
name = "imaps"
address = "{imaps}"
tls = "implicit"
"#,
        dir = dir.display(),
    )
}

/// Mail for hosts elsewhere: as many connections as Postfix makes, 20 to each and 100 in all.
fn elsewhere(port: u16, database: &str) -> String {
    let mut text = format!(
        r#"
[smtpd]
relay_networks = ["127.0.0.0/8"]

[queued]
database = "{database}"
relay_networks = ["127.0.0.0/8"]
remote_concurrency = 100
destination_max = 20
retry_min = 10
retry_max = 10
"#
    );
    for number in 0..DESTINATIONS {
        let host = host(number, port).ip();
        text.push_str(&format!(
            "\n[[relayd.route]]\nmatch = \"d{number}.{ELSEWHERE}\"\nhost = \"{host}\"\nport = {port}\ntls = \"none\"\n"
        ));
    }
    text
}

impl Suite {
    /// Messages that wait in the queue table.
    pub fn deferred(&self) -> Outcome<usize> {
        let output = Command::new(&self.program)
            .arg("--dir")
            .arg(&self.dir)
            .args(["--json", "queue", "stats"])
            .stdin(Stdio::null())
            .output()?;
        let figures: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let deferred = figures.get("deferred").and_then(serde_json::Value::as_u64);
        Ok(usize::try_from(deferred.unwrap_or(0))?)
    }

    /// Asks the tool something that may take a while, and goes on with other things meanwhile.
    pub async fn administer_at_length(&self, arguments: &[&str]) -> Outcome<()> {
        let suite = self.clone();
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        tokio::task::spawn_blocking(move || {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            suite.administer(&arguments, "")
        })
        .await?
    }

    async fn wait_up(&self, side: &mut Side) -> Outcome<()> {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let Err(error) = self.administer(&["status"], "") else {
                return Ok(());
            };
            if let Some(child) = side.children.first_mut()
                && let Some(status) = child.try_wait()?
            {
                return Err(format!("posthouse up ended: {status}").into());
            }
            if Instant::now() > end {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Makes the index of an account anew and has searches ask it.
    pub async fn index(&self, user: &str) -> Outcome<Duration> {
        let file = self.dir.join(FILE);
        let text = fs::read_to_string(&file)?;
        fs::write(&file, text.replace(SUBSTRING, WORDS))?;
        self.administer(&["reload"], "")?;
        let start = Instant::now();
        self.administer(&["index", "rebuild", "--wait", "--account", user], "")?;
        let took = start.elapsed();
        // The sessions that follow have the new configuration.
        tokio::time::sleep(Duration::from_millis(500)).await;
        Ok(took)
    }

    fn administer(&self, arguments: &[&str], input: &str) -> Outcome<()> {
        let mut child = Command::new(&self.program)
            .arg("--dir")
            .arg(&self.dir)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            writeln!(stdin, "{input}")?;
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("posthouse {}: {text}", arguments.join(" ")).into());
        }
        Ok(())
    }
}
