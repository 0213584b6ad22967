//! Listening sockets: passed by the service manager, or bound by ourselves while we still may.

use crate::Failure;
use std::net::TcpListener;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The listener's name: in logs, in `posthouse status`, and as FileDescriptorName of a systemd socket.
    pub name: String,
    /// `address:port`, `[v6]:port`, or `unix:/path`.
    pub address: String,
}

/// A socket that listens.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(tokio::net::TcpListener),
    /// A local one.
    Unix(tokio::net::UnixListener),
}

/// A named socket that listens.
#[derive(Debug)]
pub struct Listener {
    /// As in [`Listen::name`].
    pub name: String,
    /// Where it really listens: with the port that the kernel chose if 0 was asked for.
    pub address: String,
    /// The socket.
    pub socket: Socket,
}

/// Before there is a reactor.
#[derive(Debug)]
pub(crate) enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Connections that the kernel completes before we accept them; it takes less where net.core.somaxconn is less.
const BACKLOG: i32 = 4096;

/// Sockets that the service manager opened for us (sd_listen_fds(3)): name and socket, in its order. A name may come
/// several times.
#[derive(Debug, Default)]
pub(crate) struct Passed(Vec<(String, OwnedFd)>);

impl Passed {
    pub(crate) fn take() -> Self {
        let number = |name: &str| {
            std::env::var(name)
                .ok()
                .and_then(|text| text.parse::<u32>().ok())
        };
        if number("LISTEN_PID") != Some(std::process::id()) {
            return Self::default();
        }
        let count = number("LISTEN_FDS").unwrap_or(0).min(64);
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names = names
            .split(':')
            .map(str::to_owned)
            .chain(std::iter::repeat("unknown".to_owned()));
        let passed = (3_i32..)
            .take(count as usize)
            .zip(names)
            .map(|(raw, name)| {
                // SAFETY: LISTEN_PID names us, so the descriptors 3..3+LISTEN_FDS are open, ours, and used by nothing else:
                // this runs once, at the start of main, before anything opens a descriptor by that number.
                #[allow(unsafe_code)]
                let descriptor = unsafe { OwnedFd::from_raw_fd(raw) };
                let _ = rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::CLOEXEC);
                (name, descriptor)
            });
        Self(passed.collect())
    }

    /// The socket of that name, passed or newly bound.
    pub(crate) fn listen(&mut self, listen: &Listen) -> Result<Bound, Failure> {
        let passed = self.named(&listen.name);
        if let Some(path) = listen.address.strip_prefix("unix:") {
            return match passed {
                Some(descriptor) => Ok(Bound::Unix(descriptor.into())),
                None => bind_unix(Path::new(path)).map(Bound::Unix),
            };
        }
        if let Some(descriptor) = passed {
            return Ok(Bound::Tcp(descriptor.into()));
        }
        let failed = |error: std::io::Error| {
            let advice = match error.kind() {
                std::io::ErrorKind::AddrInUse => {
                    ": another program listens there (`ss -ltnp` shows which)"
                }
                std::io::ErrorKind::PermissionDenied => {
                    ": ports below 1024 need root or a systemd socket"
                }
                _ => "",
            };
            Failure::new(format!(
                "cannot listen on {} ({}): {error}{advice}",
                listen.address, listen.name
            ))
        };
        let listener = TcpListener::bind(&listen.address).map_err(failed)?;
        deepen(&listener);
        Ok(Bound::Tcp(listener))
    }

    fn named(&mut self, name: &str) -> Option<OwnedFd> {
        let at = self.0.iter().position(|(passed, _)| passed == name)?;
        Some(self.0.remove(at).1)
    }

    /// Names of sockets that nobody asked for.
    pub(crate) fn left(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// The control socket.
    pub(crate) fn control(&mut self, path: &Path) -> Result<UnixListener, Failure> {
        match self.named("control") {
            Some(descriptor) => Ok(descriptor.into()),
            None => bind_unix(path),
        }
    }
}

fn bind_unix(path: &Path) -> Result<UnixListener, Failure> {
    let failed = |error: std::io::Error| {
        Failure::new(format!("cannot listen on {}: {error}", path.display()))
    };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    // A name left by an earlier process is no obstacle, one with a living listener is.
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(Failure::new(format!(
            "{}: another process listens there already",
            path.display()
        )));
    }
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    deepen(&listener);
    Ok(listener)
}

/// A listener of the standard library has room for 128; a burst of connections beyond it would wait a second (TCP) or
/// fail (local).
fn deepen(listener: impl AsFd) {
    if let Err(error) = rustix::net::listen(listener, BACKLOG) {
        tracing::debug!(%error, "the backlog stays as it was");
    }
}

/// The name of a role's socket.
pub fn socket_path(run_dir: &Path, role: types::Role) -> PathBuf {
    run_dir.join(format!("{role}.sock"))
}

impl Bound {
    /// Needs a reactor.
    pub(crate) fn ready(self, name: String) -> Result<Listener, Failure> {
        let failed = |error: std::io::Error| Failure::new(format!("listener {name}: {error}"));
        let (address, socket) = match self {
            Self::Tcp(listener) => {
                listener.set_nonblocking(true).map_err(failed)?;
                let address = listener.local_addr().map_err(failed)?.to_string();
                (
                    address,
                    Socket::Tcp(tokio::net::TcpListener::from_std(listener).map_err(failed)?),
                )
            }
            Self::Unix(listener) => {
                listener.set_nonblocking(true).map_err(failed)?;
                let address = listener.local_addr().map_err(failed)?;
                let address = address
                    .as_pathname()
                    .map_or_else(String::new, |path| format!("unix:{}", path.display()));
                (
                    address,
                    Socket::Unix(tokio::net::UnixListener::from_std(listener).map_err(failed)?),
                )
            }
        };
        Ok(Listener {
            name,
            address,
            socket,
        })
    }
}
