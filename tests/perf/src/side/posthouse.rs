//! The suite itself: `posthouse up` in a directory of its own, SQLite and files.

use super::{DOMAIN, PASSWORD, Side, USERS, free_address, user};
use crate::Outcome;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Starts the suite with the load's domain and accounts in it.
pub async fn start(program: &Path, dir: &Path) -> Outcome<Side> {
    let program = std::path::absolute(program)?;
    if !program.exists() {
        return Err(format!("{} is not there (make bench builds it)", program.display()).into());
    }
    let (smtp, imap, imaps) = (free_address()?, free_address()?, free_address()?);
    fs::write(
        dir.join("posthouse.toml"),
        configuration(dir, smtp, imap, imaps),
    )?;
    let child = Command::new(&program)
        .arg("--dir")
        .arg(dir)
        .arg("up")
        .stdin(Stdio::null())
        .stdout(fs::File::create(dir.join("posthouse.out"))?)
        .stderr(fs::File::create(dir.join("posthouse.err"))?)
        .spawn()?;
    let mut side = Side {
        smtp,
        imap,
        imaps,
        data: dir.to_owned(),
        children: vec![child],
    };
    wait_up(&program, dir, &mut side).await?;
    administer(&program, dir, &["domain", "add", DOMAIN], "")?;
    for number in 0..USERS {
        let arguments = ["account", "add", &user(number), "--password-stdin"];
        administer(&program, dir, &arguments, PASSWORD)?;
    }
    side.ready().await?;
    Ok(side)
}

/// Everything as it ships, but for the places and ports.
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

async fn wait_up(program: &Path, dir: &Path, side: &mut Side) -> Outcome<()> {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let Err(error) = administer(program, dir, &["status"], "") else {
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

fn administer(program: &Path, dir: &Path, arguments: &[&str], input: &str) -> Outcome<()> {
    let mut child = Command::new(program)
        .arg("--dir")
        .arg(dir)
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
