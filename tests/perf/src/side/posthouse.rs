//! The suite itself: `posthouse up` in a directory of its own, SQLite and files.

use super::{DOMAIN, PASSWORD, Side, USERS, free_address, user};
use crate::Outcome;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Starts the suite with the load's domain and accounts in it.
pub async fn start(program: &Path, dir: &Path) -> Outcome<Side> {
    let program = std::path::absolute(program)?;
    if !program.exists() {
        return Err(format!("{} is not there (make bench builds it)", program.display()).into());
    }
    let (smtp, imap, imaps) = (free_address()?, free_address()?, free_address()?);
    fs::write(
        dir.join("posthouse.toml"),
        format!("# TO BE FILLED {smtp} {imap} {imaps}\n"),
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
    administer(&program, dir, &["domain", "add", DOMAIN])?;
    for number in 0..USERS {
        administer(
            &program,
            dir,
            &["account", "add", &user(number), "--password", PASSWORD],
        )?;
    }
    side.ready().await?;
    Ok(side)
}

fn administer(program: &Path, dir: &Path, arguments: &[&str]) -> Outcome<()> {
    let output = Command::new(program)
        .arg("--dir")
        .arg(dir)
        .args(arguments)
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("posthouse {}: {text}", arguments.join(" ")).into());
    }
    Ok(())
}
