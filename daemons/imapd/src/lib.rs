//! imapd: shows the store to IMAP clients, and asks stored for every change.
//!
//! A mailbox that is selected is kept in memory, shared by all sessions that have it open, and brought up to date from the
//! change log; stored's notices only say when to look. Lists of flags, UIDs, sizes and dates never touch the database;
//! envelopes and structures are copied as they were made at delivery.
//!
//! SECURITY: user `posthouse-imap`. Listens and cannot connect, writes nothing, reads the store's directory. Every change goes to
//! stored with the grant of the login, which stored has keyd verify. It sees the passwords of LOGIN and PLAIN for as long as authd
//! takes to check them.
//!
//! STANDARDS: RFC 9051 (IMAP4rev2), 3501 (IMAP4rev1), 2177 (IDLE), 2342 (NAMESPACE), 2971 (ID), 3516 (BINARY), 3691
//! (UNSELECT), 4315 (UIDPLUS), 4731 (ESEARCH), 4959 (SASL-IR), 5032 (WITHIN), 5161 (ENABLE), 5182 (SEARCHRES), 5258 (LIST-EXTENDED),
//! 5819 (LIST-STATUS), 6154 (SPECIAL-USE), 6851 (MOVE), 7162 (CONDSTORE), 7888 (LITERAL+), 7889 (APPENDLIMIT), 8438
//! (STATUS=SIZE), 8474 (OBJECTID), 9208 (QUOTA).
//!
//! RECOVERY: sessions end with the process; clients connect again. A change whose answer was lost is made again under the same
//! request id, and stored does it once.
#![forbid(unsafe_code)]

mod command;
mod config;
mod limits;
mod listener;
mod session;
mod view;

pub use config::{Config, ListenerConfig, TlsMode};

use ipc::Heard;
use ipc::api::stored::{Changed, Subscribe};
use runtime::{Failure, Listen, Needs, Setting, Start};
use session::Service;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use types::{Role, TraceId};

pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}

/// Its listeners, the store if it lies elsewhere, and whether there are servers to connect to.
///
/// # Errors
/// A listener or a store that makes no sense.
pub fn needs(config: &Config, setting: &Setting) -> Result<Needs, Failure> {
    let mut names: Vec<&str> = Vec::new();
    for listener in &config.listener {
        if names.contains(&listener.name.as_str()) {
            return Err(Failure::new(format!(
                "imapd.listener: there are two named {:?}",
                listener.name
            )));
        }
        names.push(&listener.name);
    }
    let listen = config.listener.iter().map(|listener| Listen {
        name: listener.name.clone(),
        address: listener.address.clone(),
    });
    let listen = listen.collect();
    let store: store::Config = setting.document.section("store")?;
    let blob: blob::Config = setting.document.section("blob")?;
    let sql = store
        .url
        .as_deref()
        .is_some_and(|url| !url.starts_with("sqlite:"));
    let servers = sql || blob.kind == blob::Kind::S3;
    let read = blob
        .root
        .iter()
        .chain(&blob.secret_key_file)
        .cloned()
        .collect();
    Ok(Needs {
        listen,
        read,
        servers,
        ..Needs::default()
    })
}

/// Waits for stored to have made the store.
async fn open_store(start: &Start<Config>) -> Result<store::Reader, Failure> {
    let config: store::Config = start.section("store")?;
    let blobs: blob::Config = start.section("blob")?;
    let state = start.state_of(Role::Stored);
    let mut stopping = start.stopping();
    let mut told = false;
    loop {
        match store::Reader::open(&config, &blobs, &state).await {
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

/// Runs until it is told to stop and the sessions have ended.
///
/// # Errors
/// What keeps it from starting.
pub async fn run(mut start: Start<Config>) -> Result<(), Failure> {
    let config = start.config().clone();
    let listeners = start.take_listeners();
    let reader = open_store(&start).await?;
    let tls = if config
        .listener
        .iter()
        .any(|listener| listener.tls != TlsMode::None)
    {
        let signer = ipc::blocking::Client::new(Role::Imapd, Role::Keyd, start.socket(Role::Keyd));
        let certificates = tls::Certificates::from_keyd(start.client(Role::Keyd), signer).await;
        Some(
            certificates
                .acceptor()
                .map_err(|error| Failure::new(format!("TLS: {error}")))?,
        )
    } else {
        None
    };
    let stored = start.client(Role::Stored);
    let views = Arc::new(view::Views::new(reader.clone(), config.warm_views));
    let service = Arc::new(Service {
        reader,
        stored: stored.clone(),
        authd: start.client(Role::Authd),
        views: Arc::clone(&views),
        config: config.clone(),
        tls,
        connections: Arc::default(),
        large: Arc::new(tokio::sync::Semaphore::new(config.large_kib.max(1) as usize)),
    });
    tokio::spawn(follow(stored, Arc::clone(&views)));
    let mut documents = start.documents();
    let (change, serving) = tokio::sync::watch::channel(Arc::clone(&service));
    let first = Arc::clone(&service);
    tokio::spawn(async move {
        while documents.changed().await.is_ok() {
            let document = Arc::clone(&documents.borrow_and_update());
            match document.section(Role::Imapd.name()) {
                // Sessions under way keep what they began with; listeners stay as they are.
                Ok(config) => drop(change.send_replace(Arc::new(first.with_config(config)))),
                Err(error) => tracing::error!(%error, "the section [imapd] stays as it was"),
            }
        }
    });
    let connections = Arc::clone(&service.connections);
    start.fact("connections", move || connections.count().0.to_string());
    let connections = Arc::clone(&service.connections);
    start.fact("accounts", move || connections.count().1.to_string());
    start.fact("views", move || views.count().to_string());
    let stopping = start.stopping();
    let served = start.serve(ipc::Router::new(Role::Imapd));
    let mut doors = tokio::task::JoinSet::new();
    for (listener, settings) in listeners.into_iter().zip(config.listener) {
        doors.spawn(listener::accept(
            listener,
            settings,
            serving.clone(),
            stopping.clone(),
        ));
    }
    while doors.join_next().await.is_some() {}
    let _ = served.await;
    Ok(())
}

/// Hears stored's notices. After a new connection anything may have happened: all open mailboxes are looked at.
async fn follow(stored: ipc::Client, views: Arc<view::Views>) {
    let mut events = stored.events::<Changed>();
    if stored.is_connected() {
        let _ = stored.call(TraceId(0), &Subscribe).await;
    }
    while let Some(heard) = events.next().await {
        match heard {
            Heard::Event(changed) => {
                views.changed(Some(changed.account), changed.modseq, &changed.mailboxes)
            }
            Heard::Resync => {
                if let Err(error) = stored.call(TraceId(0), &Subscribe).await {
                    tracing::warn!(%error, "stored does not tell of changes now");
                }
                views.changed(None, types::ModSeq(0), &[]);
            }
        }
    }
}
