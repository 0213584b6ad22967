//! Accepting connections, and what a daemon needs for that.

use crate::config::{ListenerConfig, Logins, TlsMode};
use crate::seats::{Connections, Seat};
use crate::{Guest, Io};
use runtime::{Failure, Listen, Listener, Needs, Setting, Socket};
use std::future::Future;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// The listener through which a client came, and who it is.
#[derive(Clone, Debug)]
pub struct Door {
    /// The listener's name.
    pub name: String,
    /// How it does TLS.
    pub tls: TlsMode,
    /// The client; `None` on a local socket.
    pub address: Option<IpAddr>,
    /// It may log in without TLS.
    pub plain: bool,
}

/// What all sessions of a daemon share at its front.
#[derive(Clone)]
pub struct Front {
    /// Settings.
    pub logins: Arc<Logins>,
    /// Present if a listener wants TLS.
    pub tls: Option<TlsAcceptor>,
    /// Checks logins.
    pub authd: ipc::Client,
    /// What the login is for.
    pub service: ipc::api::authd::Service,
    /// Who is connected.
    pub connections: Arc<Connections>,
    /// Sent, with a line end, to those for whom there is no place.
    pub full: &'static str,
}

/// Somebody who has just connected.
pub struct Caller {
    /// Who it is.
    pub guest: Guest,
    /// Nothing was read from it, nothing written.
    pub stream: Box<dyn Io>,
    /// Turns true when the daemon stops.
    pub stopping: watch::Receiver<bool>,
}

/// The listeners of a configuration section, for `needs`.
///
/// # Errors
/// Two of one name.
pub fn listens(section: &str, listeners: &[ListenerConfig]) -> Result<Vec<Listen>, Failure> {
    for (at, listener) in listeners.iter().enumerate() {
        if listeners
            .iter()
            .take(at)
            .any(|other| other.name == listener.name)
        {
            return Err(Failure::new(format!(
                "{section}.listener: there are two named {:?}",
                listener.name
            )));
        }
    }
    Ok(listeners
        .iter()
        .map(|listener| Listen {
            name: listener.name.clone(),
            address: listener.address.clone(),
        })
        .collect())
}

/// What a reader of the store needs: the blobs' directory or secret, and whether there are servers to connect to.
///
/// # Errors
/// Sections that make no sense.
pub fn store_needs(setting: &Setting) -> Result<Needs, Failure> {
    let store: store::Config = setting.document.section("store")?;
    let blob: blob::Config = setting.document.section("blob")?;
    let sql = store
        .url
        .as_deref()
        .is_some_and(|url| !url.starts_with("sqlite:"));
    let read = blob.root.iter().chain(&blob.secret_key_file).cloned();
    Ok(Needs {
        read: read.collect(),
        servers: sql || blob.kind == blob::Kind::S3,
        ..Needs::default()
    })
}

/// Waits for stored to have made the store.
///
/// # Errors
/// The daemon was told to stop meanwhile.
pub async fn open_store(
    store: &store::Config,
    blobs: &blob::Config,
    state: &Path,
    mut stopping: watch::Receiver<bool>,
) -> Result<store::Reader, Failure> {
    let mut told = false;
    loop {
        match store::Reader::open(store, blobs, state).await {
            Ok(reader) => return Ok(reader),
            Err(error) if !told => {
                told = true;
                tracing::info!(%error, "waiting for the store");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
            _ = stopping.wait_for(|stop| *stop) => return Err(Failure::new("stopped before there was a store")),
        }
    }
}

/// Accepts until the daemon stops, then waits for the sessions to end. `session` runs one.
pub(crate) async fn serve<S, F>(
    listener: Listener,
    settings: ListenerConfig,
    front: watch::Receiver<Front>,
    stopping: watch::Receiver<bool>,
    session: S,
) where
    S: Fn(Caller, Seat) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let mut sessions = JoinSet::new();
    let mut stop = stopping.clone();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = sessions.join_next() => continue,
            accepted = next(&listener.socket) => accepted,
        };
        let (mut stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::error!(listener = listener.name, %error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let front = front.borrow().clone();
        let Logins {
            connections,
            per_address,
            plain_networks,
            ..
        } = front.logins.as_ref();
        let Some(seat) = front.connections.admit(address, *connections, *per_address) else {
            tracing::info!(listener = settings.name, client = ?address, "connection refused: too many");
            if settings.tls != TlsMode::Implicit {
                let line = front.full;
                sessions.spawn(async move {
                    let said = stream.write_all(line.as_bytes());
                    let _ = tokio::time::timeout(Duration::from_secs(1), said).await;
                });
            }
            continue;
        };
        let door = Door {
            name: settings.name.clone(),
            tls: settings.tls,
            address,
            plain: address.is_none_or(|address| {
                plain_networks
                    .iter()
                    .any(|network| network.contains(address))
            }),
        };
        let caller = Caller {
            guest: Guest::new(front, door),
            stream,
            stopping: stopping.clone(),
        };
        sessions.spawn(session(caller, seat));
    }
    drop(listener);
    while sessions.join_next().await.is_some() {}
}

async fn next(socket: &Socket) -> std::io::Result<(Box<dyn Io>, Option<IpAddr>)> {
    match socket {
        Socket::Tcp(listener) => {
            let (stream, from) = listener.accept().await?;
            let _ = stream.set_nodelay(true);
            Ok((Box::new(stream), Some(from.ip().to_canonical())))
        }
        Socket::Unix(listener) => {
            let (stream, _) = listener.accept().await?;
            Ok((Box::new(stream), None))
        }
    }
}
