//! Accepting connections: PROXY headers, crowds, and a session for each client.

use crate::backend::Backend;
use crate::clients::{Allowance, Crowded};
use crate::early;
use crate::session::{Door, Peer, Service, Session};
use runtime::{Listener, Socket};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use types::Network;

/// The networks of the configuration.
#[derive(Clone, Debug)]
pub struct Networks {
    /// Begin with a PROXY header.
    pub proxy: Vec<Network>,
    /// No limits of connections and guesses.
    pub trusted: Vec<Network>,
    /// May relay without a login.
    pub relay: Vec<Network>,
}

/// A header may take that many octets.
const PROXY_MAX: usize = 4096 + 16;

/// What new sessions are served by; those under way keep what they began with.
pub struct Serving<B> {
    /// Back ends, policy and certificates.
    pub service: Arc<Service<B>>,
    /// The networks of the same configuration.
    pub networks: Arc<Networks>,
}

/// Accepts until the daemon stops, then waits for the sessions to end.
pub async fn accept<B: Backend>(
    listener: Listener,
    door: Arc<Door>,
    serving: watch::Receiver<Arc<Serving<B>>>,
    stopping: watch::Receiver<bool>,
) {
    let mut sessions = JoinSet::new();
    let mut stop = stopping.clone();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = sessions.join_next() => continue,
            accepted = next(&listener.socket) => accepted,
        };
        let now = Arc::clone(&serving.borrow());
        let (service, networks) = (&now.service, &now.networks);
        match accepted {
            Ok(Accepted::Tcp(stream, address)) => {
                let (service, door) = (Arc::clone(service), Arc::clone(&door));
                let (networks, stopping) = (Arc::clone(networks), stopping.clone());
                sessions.spawn(Box::pin(tcp(
                    stream, address, service, door, networks, stopping,
                )));
            }
            Ok(Accepted::Unix(stream)) => {
                let (service, door) = (Arc::clone(service), Arc::clone(&door));
                let seat = service
                    .clients
                    .admit(None, allowance(&service, true), Instant::now());
                // On a local socket, closing is answer enough.
                let Ok(seat) = seat else { continue };
                let peer = Peer {
                    address: None,
                    may_relay: false,
                    trusted: true,
                    early: false,
                };
                sessions.spawn(Box::pin(
                    Session::new(service, door, peer, Some(seat), stream, stopping.clone())
                        .with_hooks(0, None)
                        .run(),
                ));
            }
            Err(error) => {
                // Out of descriptors, mostly: those under way must end first.
                tracing::error!(listener = listener.name, %error, "cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    while sessions.join_next().await.is_some() {}
}

enum Accepted {
    Tcp(TcpStream, IpAddr),
    Unix(tokio::net::UnixStream),
}

async fn next(socket: &Socket) -> std::io::Result<Accepted> {
    match socket {
        Socket::Tcp(listener) => {
            let (stream, from) = listener.accept().await?;
            Ok(Accepted::Tcp(stream, from.ip().to_canonical()))
        }
        Socket::Unix(listener) => listener
            .accept()
            .await
            .map(|(stream, _)| Accepted::Unix(stream)),
    }
}

fn allowance<B>(service: &Service<B>, trusted: bool) -> Allowance {
    let limits = &service.policy.limits;
    Allowance {
        total: limits.connections,
        per_address: if trusted {
            0
        } else {
            limits.connections_per_address
        },
        unknown: if trusted {
            0
        } else {
            limits.unknown_per_address
        },
        window: Duration::from_secs(limits.unknown_window_s.max(1)),
    }
}

async fn tcp<B: Backend>(
    mut stream: TcpStream,
    mut address: IpAddr,
    service: Arc<Service<B>>,
    door: Arc<Door>,
    networks: Arc<Networks>,
    stopping: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let within =
        |list: &[Network], address: IpAddr| list.iter().any(|network| network.contains(address));
    if within(&networks.proxy, address) {
        let limit = Duration::from_secs(service.policy.timeouts.handshake_s.max(1));
        match tokio::time::timeout(limit, proxied(&mut stream)).await {
            Ok(Ok(Some(client))) => address = client,
            Ok(Ok(None)) => {}
            Ok(Err(error)) => {
                tracing::warn!(listener = door.name, proxy = %address, %error, "connection refused");
                return;
            }
            Err(_) => {
                tracing::warn!(listener = door.name, proxy = %address, "no PROXY header came");
                return;
            }
        }
    }
    let trusted = within(&networks.trusted, address);
    let seat = service
        .clients
        .admit(Some(address), allowance(&service, trusted), Instant::now());
    let seat = match seat {
        Ok(seat) => seat,
        Err(crowded) => {
            let text = match crowded {
                Crowded::Total => "Too many connections, try again later",
                Crowded::Address => "Too many connections from your address, try again later",
                Crowded::Guesses => {
                    "Too many unknown recipients from your address, try again later"
                }
            };
            tracing::info!(listener = door.name, client = %address, ?crowded, "connection refused");
            if door.tls != crate::config::TlsMode::Implicit {
                let line = format!("421 4.7.0 {text}\r\n");
                let _ =
                    tokio::time::timeout(Duration::from_secs(1), stream.write_all(line.as_bytes()))
                        .await;
            }
            return;
        }
    };
    let may_relay = within(&networks.relay, address);
    let stranger = !trusted && !may_relay;
    let peer = Peer {
        address: Some(address),
        may_relay,
        trusted,
        early: stranger && early::talks(&stream, door.tls, &service.policy.early).await,
    };
    // Behind a proxy the port is the proxy's.
    let port = stream
        .peer_addr()
        .ok()
        .filter(|from| from.ip().to_canonical() == address);
    let server = stream.local_addr().ok();
    Session::new(service, door, peer, Some(seat), stream, stopping)
        .with_hooks(port.map_or(0, |from| from.port()), server)
        .run()
        .await;
}

/// Reads exactly the PROXY header; what is behind it stays in the socket, for it may be a TLS handshake.
async fn proxied(stream: &mut TcpStream) -> std::io::Result<Option<IpAddr>> {
    let mut seen = vec![0; PROXY_MAX];
    let mut before = 0;
    loop {
        let count = stream.peek(&mut seen).await?;
        let there = seen.get(..count).unwrap_or_default();
        match smtp::proxy::read(there).map_err(std::io::Error::other)? {
            Some((header, len)) => {
                let mut header_octets = vec![0; len];
                stream.read_exact(&mut header_octets).await?;
                return Ok(match header {
                    smtp::proxy::Header::Local => None,
                    smtp::proxy::Header::Proxied { source, .. } => Some(source.ip().to_canonical()),
                });
            }
            None if count == 0 || count >= PROXY_MAX => {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            // Peeking is ready at once again while the rest is on its way.
            None if count == before => tokio::time::sleep(Duration::from_millis(5)).await,
            None => before = count,
        }
    }
}
