//! Accepting connections: places, the handshake, HTTP/1.1 or HTTP/2, and an end to all that takes too long.

use crate::pulse::Pulse;
use crate::seats::Seat;
use crate::service::{Caller, Front, Settings};
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use runtime::{Listener, Socket};
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use types::TraceId;

/// After an error of accept(2), such as no descriptors left.
const BREATH: Duration = Duration::from_millis(100);
/// For answers that are under way when a connection is to end.
const GRACE: Duration = Duration::from_secs(2);
/// What hyper reads ahead from an HTTP/2 client, for the bodies that nobody reads.
const WINDOW: u32 = 65_535;

/// Octets both ways.
trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Accepts until the daemon stops, then waits for the connections to end.
pub(crate) async fn keep(
    listener: Listener,
    tls: Option<TlsAcceptor>,
    front: Arc<Front>,
    stopping: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    let mut stop = stopping.clone();
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener.socket) => accepted,
        };
        let (wire, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(listener = listener.name, %error, "a connection could not be accepted");
                tokio::time::sleep(BREATH).await;
                continue;
            }
        };
        let settings = front.settings();
        let config = &settings.config;
        let seat = front
            .seats
            .take(address, config.connections, config.connections_per_address);
        let Some(seat) = seat else {
            front.figures.refused.add_one();
            tracing::debug!(listener = listener.name, client = ?address, "connection refused: too many");
            continue;
        };
        let caller = Caller {
            trace: TraceId(rand::random()),
            address,
            secure: tls.is_some(),
        };
        let visit = Visit {
            caller,
            settings,
            front: Arc::clone(&front),
            stopping: stopping.clone(),
            _seat: seat,
        };
        connections.spawn(visit.run(wire, tls.clone()));
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn accept(socket: &Socket) -> io::Result<(Box<dyn Wire>, Option<IpAddr>)> {
    match socket {
        Socket::Tcp(listener) => {
            let (stream, from) = listener.accept().await?;
            let _ = stream.set_nodelay(true);
            Ok((Box::new(stream), Some(from.ip().to_canonical())))
        }
        Socket::Unix(listener) => Ok((Box::new(listener.accept().await?.0), None)),
    }
}

/// One connection.
struct Visit {
    caller: Caller,
    settings: Arc<Settings>,
    front: Arc<Front>,
    stopping: watch::Receiver<bool>,
    _seat: Seat,
}

impl Visit {
    async fn run(self, wire: Box<dyn Wire>, tls: Option<TlsAcceptor>) {
        let Some(tls) = tls else {
            return self.http1(wire).await;
        };
        let limit = Duration::from_secs(self.settings.config.handshake_s);
        let mut stop = self.stopping.clone();
        let shaken = tokio::select! {
            shaken = tokio::time::timeout(limit, tls.accept(wire)) => shaken,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        let trace = self.caller.trace;
        match shaken {
            // RFC 9113 3.2
            Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(b"h2") => {
                self.http2(stream).await;
            }
            Ok(Ok(stream)) => self.http1(stream).await,
            Ok(Err(error)) => {
                self.front.figures.handshakes.add_one();
                tracing::debug!(%trace, client = ?self.caller.address, %error, "TLS handshake failed");
            }
            Err(_) => {
                self.front.figures.handshakes.add_one();
                tracing::debug!(%trace, client = ?self.caller.address, "TLS handshake took too long");
            }
        }
    }

    async fn http1(self, wire: impl Wire + 'static) {
        let config = &self.settings.config;
        let pulse = Arc::new(Pulse::new(config.requests));
        let service = service_fn(self.service(&pulse));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(Duration::from_secs(config.header_s))
            .max_buf_size(usize::try_from(config.header_octets).unwrap_or(usize::MAX))
            .half_close(false)
            .serve_connection(TokioIo::new(wire), service);
        self.drive(connection, &pulse).await;
    }

    async fn http2(self, wire: impl Wire + 'static) {
        let config = &self.settings.config;
        let pulse = Arc::new(Pulse::new(config.requests));
        let service = service_fn(self.service(&pulse));
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(config.streams)
            .max_header_list_size(config.header_octets)
            // Opened and taken back at once, again and again: CVE-2023-44487.
            .max_pending_accept_reset_streams(config.resets)
            .max_local_error_reset_streams(config.resets)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_send_buf_size(WINDOW as usize)
            .keep_alive_interval(Duration::from_secs(config.idle_s))
            .keep_alive_timeout(Duration::from_secs(config.header_s))
            .serve_connection(TokioIo::new(wire), service);
        self.drive(connection, &pulse).await;
    }

    /// What answers the requests of this connection.
    #[allow(clippy::type_complexity)]
    fn service(
        &self,
        pulse: &Arc<Pulse>,
    ) -> impl Fn(
        Request<Incoming>,
    ) -> Pin<
        Box<dyn Future<Output = Result<http::Response<crate::answer::Body>, io::Error>> + Send>,
    > + use<> {
        let (front, pulse) = (Arc::clone(&self.front), Arc::clone(pulse));
        let (settings, caller) = (Arc::clone(&self.settings), self.caller);
        move |request| {
            let (front, pulse) = (Arc::clone(&front), Arc::clone(&pulse));
            let settings = Arc::clone(&settings);
            Box::pin(async move {
                // Dropped by whoever gives up on the answer, too.
                let _under_way = pulse.begin();
                Ok(front.answer(&settings, caller, request).await)
            })
        }
    }

    /// Lets the connection go on until one of its limits, and then come to an end.
    async fn drive<C: Connection>(&self, connection: C, pulse: &Pulse) {
        let config = &self.settings.config;
        let mut connection = pin!(connection);
        let mut stop = self.stopping.clone();
        let why = tokio::select! {
            ended = connection.as_mut() => {
                match ended {
                    Ok(()) => self.ended(pulse, "the client is gone"),
                    Err(error) => self.ended(pulse, &error.to_string()),
                }
                return;
            }
            _ = stop.wait_for(|stop| *stop) => "the daemon stops",
            () = pulse.full() => "it has had its requests",
            () = pulse.idle(Duration::from_secs(config.idle_s)) => "it was idle",
            () = tokio::time::sleep(Duration::from_secs(config.connection_s)) => "it lasted too long",
        };
        connection.as_mut().finish();
        let _ = tokio::time::timeout(GRACE, connection).await;
        self.ended(pulse, why);
    }

    fn ended(&self, pulse: &Pulse, why: &str) {
        let (trace, requests) = (self.caller.trace, pulse.begun());
        tracing::debug!(%trace, client = ?self.caller.address, requests, why, "connection closed");
    }
}

/// A connection of either version.
trait Connection: Future<Output = hyper::Result<()>> {
    /// Answers what is under way, and takes nothing new.
    fn finish(self: Pin<&mut Self>);
}

impl<I, S> Connection for http1::Connection<I, S>
where
    S: hyper::service::HttpService<Incoming, ResBody = crate::answer::Body>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I, S, E> Connection for http2::Connection<I, S, E>
where
    S: hyper::service::HttpService<Incoming, ResBody = crate::answer::Body>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    E: hyper::rt::bounds::Http2ServerConnExec<S::Future, crate::answer::Body>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}
