//! Attempts to break out, made from inside the daemon, to show that they fail.

use ipc::api::control::{Probe, Probed};
use std::fs::File;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

pub(crate) async fn attempt(attempt: Probe) -> Probed {
    let outcome = match attempt {
        Probe::Read(path) => read(&path),
        Probe::Write(path) => write(&path),
        Probe::Connect(to) => {
            match tokio::time::timeout(Duration::from_secs(3), TcpStream::connect(to)).await {
                Ok(Ok(_)) => Ok("connected".to_owned()),
                // The network answered, so we were let out to it.
                Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                    Ok(format!("tried: {error}"))
                }
                Ok(Err(error)) => Err(error),
                Err(_) => Ok("tried: no answer in 3 s".to_owned()),
            }
        }
        Probe::Listen(on) => TcpListener::bind(on).await.map(|_| "listened".to_owned()),
        Probe::Execute(path) => std::process::Command::new(&path)
            .stdin(std::process::Stdio::null())
            .output()
            .map(|output| format!("ran: {}", output.status)),
    };
    match outcome {
        Ok(detail) => Probed {
            possible: true,
            detail,
        },
        Err(error) => Probed {
            possible: false,
            detail: error.to_string(),
        },
    }
}

fn read(path: &str) -> std::io::Result<String> {
    if std::fs::metadata(path)?.is_dir() {
        return std::fs::read_dir(path).map(|entries| format!("{} entries", entries.count()));
    }
    File::open(path).map(|_| "opened for reading".to_owned())
}

/// A file is opened and not written; in a directory one is made and removed.
fn write(path: &str) -> std::io::Result<String> {
    if !std::fs::metadata(path)?.is_dir() {
        return File::options()
            .append(true)
            .open(path)
            .map(|_| "opened for writing".to_owned());
    }
    let name = std::path::Path::new(path).join(format!(".posthouse-probe-{}", std::process::id()));
    File::options().write(true).create_new(true).open(&name)?;
    std::fs::remove_file(&name)?;
    Ok("created a file".to_owned())
}
