//! Accepting connections.

use crate::config::{ListenerConfig, TlsMode};
use crate::session::{Door, Service, Session};
use runtime::{Listener, Socket};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Accepts until the daemon stops, then waits for the sessions to end.
pub async fn accept(
    listener: Listener,
    settings: ListenerConfig,
    serving: watch::Receiver<Arc<Service>>,
    stopping: watch::Receiver<bool>,
) {
    let mut sessions = JoinSet::new();
    let mut stop = stopping.clone();
    loop {
        tokio::select! {
            biased;
            () = told(&mut stop) => break,
            Some(_) = sessions.join_next() => {}
            accepted = next(&listener.socket) => match accepted {
                Ok(Accepted::Tcp(stream, address)) => {
                    let _ = stream.set_nodelay(true);
                    let service = Arc::clone(&serving.borrow());
                    serve(&mut sessions, stream, Some(address), &settings, &service, &stopping);
                }
                Ok(Accepted::Unix(stream)) => {
                    let service = Arc::clone(&serving.borrow());
                    serve(&mut sessions, stream, None, &settings, &service, &stopping);
                }
                Err(error) => {
                    tracing::error!(listener = listener.name, %error, "cannot accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    while sessions.join_next().await.is_some() {}
}

/// Waits until the daemon stops.
async fn told(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

enum Accepted {
    Tcp(tokio::net::TcpStream, IpAddr),
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

fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static>(
    sessions: &mut JoinSet<()>,
    mut stream: S,
    address: Option<IpAddr>,
    settings: &ListenerConfig,
    service: &Arc<Service>,
    stopping: &watch::Receiver<bool>,
) {
    let config = &service.config;
    let plain = address.is_none_or(|address| {
        config
            .plain_login_networks
            .iter()
            .any(|n| n.contains(address))
    });
    let strangers = config.connections_per_address;
    let Some(seat) = service
        .connections
        .admit(address, config.connections, strangers)
    else {
        tracing::info!(listener = settings.name, client = ?address, "connection refused: too many");
        if settings.tls != TlsMode::Implicit {
            sessions.spawn(async move {
                let line = b"* BYE Too many connections, try again later\r\n";
                let _ = tokio::time::timeout(Duration::from_secs(1), stream.write_all(line)).await;
            });
        }
        return;
    };
    let door = Door {
        name: settings.name.clone(),
        tls: settings.tls,
        address,
        plain,
    };
    let session = Session::new(Arc::clone(service), door, seat, stream, stopping.clone());
    // On the heap in a piece of its own: a command's state is large, and most sessions idle.
    sessions.spawn(Box::pin(session.run()));
}
