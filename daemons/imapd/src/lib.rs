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
//! STANDARDS: RFC 9051 (IMAP4rev2), 3501 (IMAP4rev1), 2177 (IDLE), 2342 (NAMESPACE), 2971 (ID), 3502 (MULTIAPPEND), 3516
//! (BINARY), 3691 (UNSELECT), 4314 (ACL), 4315 (UIDPLUS), 4469 (CATENATE), 4731 (ESEARCH), 4959 (SASL-IR), 4978
//! (COMPRESS=DEFLATE), 5032 (WITHIN), 5161 (ENABLE), 5182 (SEARCHRES), 5256 and 5957 (SORT, THREAD), 5258 (LIST-EXTENDED), 5267
//! (CONTEXT, ESORT), 5464 (METADATA), 5465 (NOTIFY), 5819 (LIST-STATUS), 6154 (SPECIAL-USE), 6203 (SEARCH=FUZZY), 6851 (MOVE),
//! 7162 (CONDSTORE, QRESYNC), 7377 (MULTISEARCH), 7888 (LITERAL+), 7889 (APPENDLIMIT), 8438 (STATUS=SIZE), 8437
//! (UNAUTHENTICATE), 8440 (LIST-MYRIGHTS), 8457 ($Important), 8474 (OBJECTID), 8508 (REPLACE), 8514 (SAVEDATE), 8970 (PREVIEW),
//! 9208 (QUOTA), 9394 (PARTIAL), 9585 (INPROGRESS), 9586 (UIDONLY), 9590 (LIST-METADATA), 9738 (MESSAGELIMIT), 9755
//! (UTF8=ACCEPT).
//!
//! RECOVERY: sessions end with the process; clients connect again. A change whose answer was lost is made again under the same
//! request id, and stored does it once.
#![forbid(unsafe_code)]

mod brief;
mod command;
mod config;
pub mod fuzz;
mod rows;
mod session;
mod view;

pub use access::{ListenerConfig, TlsMode};
pub use config::{Config, SearchMode};

use access::{Caller, House, Seat};
use ipc::Heard;
use ipc::api::authd::Service as Purpose;
use ipc::api::stored::{Changed, Subscribe};
use runtime::{Failure, Needs, Setting, Start};
use session::{Service, Session};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
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
    Ok(Needs {
        listen: access::listens("imapd", &config.listener)?,
        ..access::store_needs(setting)?
    })
}

/// Runs until it is told to stop and the sessions have ended.
///
/// # Errors
/// What keeps it from starting.
pub async fn run(mut start: Start<Config>) -> Result<(), Failure> {
    let full = "* BYE Too many connections, try again later\r\n";
    let house = House::open(&mut start, Role::Imapd, Purpose::Imap, full).await?;
    let config = Config::clone(&house.config.borrow());
    let stored = start.client(Role::Stored);
    let views = Arc::new(view::Views::new(house.reader.clone(), config.warm_views));
    let service = Arc::new(Service {
        reader: house.reader.clone(),
        stored: stored.clone(),
        authd: start.client(Role::Authd),
        indexd: start.client(Role::Indexd),
        index_rest: Arc::default(),
        views: Arc::clone(&views),
        briefs: Arc::new(brief::Briefs::new(config.warm_briefs)),
        large: Arc::new(tokio::sync::Semaphore::new(config.large_kib.max(1) as usize)),
        config,
    });
    tokio::spawn(follow(stored, Arc::clone(&views)));
    let mut configs = house.config.clone();
    let (change, serving) = tokio::sync::watch::channel(Arc::clone(&service));
    tokio::spawn(async move {
        while configs.changed().await.is_ok() {
            let config = Config::clone(&configs.borrow_and_update());
            change.send_replace(Arc::new(service.with_config(config)));
        }
    });
    let connections = Arc::clone(&house.connections);
    start.fact("accounts", move || connections.count().1.to_string());
    start.fact("views", move || views.count().to_string());
    let session = move |caller: Caller, seat: Seat| {
        let service = Arc::clone(&serving.borrow());
        // On the heap in a piece of its own: a command's state is large, and most sessions idle.
        Box::pin(Session::new(service, caller, seat).run())
    };
    house.serve(start, session).await;
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
