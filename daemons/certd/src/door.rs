//! The ports on which challenges are answered: bounded, and no connection stays long.

use runtime::{Listener, Socket};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};

/// A connection.
pub(crate) trait Visitor: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Visitor for T {}

/// After an error of accept(2), such as no descriptors left.
const BREATH: Duration = Duration::from_millis(100);

/// Bounds of a door.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Connections at one time.
    pub(crate) connections: usize,
    /// For one of them.
    pub(crate) time: Duration,
}

/// Lets visitors in until it is told to stop.
pub(crate) async fn keep<F>(
    listener: Listener,
    limits: Limits,
    mut stopping: watch::Receiver<bool>,
    answer: impl Fn(Box<dyn Visitor>) -> F + Send,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let seats = Arc::new(Semaphore::new(limits.connections));
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener.socket) => accepted,
            _ = stopping.wait_for(|stop| *stop) => return,
        };
        let visitor = match accepted {
            Ok(visitor) => visitor,
            Err(error) => {
                tracing::warn!(listener = listener.name, %error, "a connection could not be accepted");
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        let Ok(seat) = Arc::clone(&seats).try_acquire_owned() else {
            tracing::warn!(
                listener = listener.name,
                "more connections than certd.connections: one is closed"
            );
            continue;
        };
        let work = answer(visitor);
        tokio::spawn(async move {
            let _ = tokio::time::timeout(limits.time, work).await;
            drop(seat);
        });
    }
}

async fn accept(socket: &Socket) -> io::Result<Box<dyn Visitor>> {
    Ok(match socket {
        Socket::Tcp(listener) => Box::new(listener.accept().await?.0),
        Socket::Unix(listener) => Box::new(listener.accept().await?.0),
    })
}
