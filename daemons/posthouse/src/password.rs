//! Passwords come from the terminal or standard input, never from the command line, where everybody can read them.

use crate::failure::Failure;
use std::io::{BufRead, IsTerminal, Write};

/// Asks twice on a terminal; otherwise takes the first line of standard input.
pub(crate) fn ask(account: &str) -> Result<String, Failure> {
    if !std::io::stdin().is_terminal() {
        return first_line();
    }
    let first = hidden(&format!("Password for {account}: "))?;
    if hidden("The same again: ")? == first {
        accept(first)
    } else {
        Err(Failure::new("the two were not the same"))
    }
}

/// Asks once, for a password that somebody else knows already.
pub(crate) fn once(prompt: &str) -> Result<String, Failure> {
    if !std::io::stdin().is_terminal() {
        return first_line();
    }
    accept(hidden(prompt)?)
}

/// The first line of standard input.
pub(crate) fn first_line() -> Result<String, Failure> {
    let mut line = String::new();
    let unreadable = |error| Failure::new(format!("standard input cannot be read: {error}"));
    std::io::stdin()
        .lock()
        .read_line(&mut line)
        .map_err(unreadable)?;
    accept(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn accept(password: String) -> Result<String, Failure> {
    if password.is_empty() {
        return Err(Failure::new(
            "the password is empty: type one, or give it on standard input",
        ));
    }
    Ok(password)
}

/// Reads a line from the terminal with its echo off.
fn hidden(prompt: &str) -> Result<String, Failure> {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let failed =
        |error: rustix::io::Errno| Failure::new(format!("the terminal cannot be set: {error}"));
    let stdin = std::io::stdin();
    let before = tcgetattr(&stdin).map_err(failed)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    eprint!("{prompt}");
    let _ = std::io::stderr().flush();
    tcsetattr(&stdin, OptionalActions::Now, &silent).map_err(failed)?;
    let mut line = String::new();
    let read = stdin.lock().read_line(&mut line);
    let restored = tcsetattr(&stdin, OptionalActions::Now, &before);
    eprintln!();
    read.map_err(|error| Failure::new(format!("the terminal cannot be read: {error}")))?;
    restored.map_err(failed)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
