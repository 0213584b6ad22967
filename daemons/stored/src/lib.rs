//! stored: the only writer of the mail store.
//!
//! It takes finished messages from deliverd and changes from imapd, and does them: rows, bodies, UIDs, modseqs, quotas.
//! Whatever waits when the last transaction is done goes into the next one together; each answer is given when its
//! transaction is durable. Then `Changed` tells the subscribers which accounts to look at.
//!
//! - A large body is hashed, compressed and synced in the storage of `[blob]` before the row that names it is written; a
//!   small one lies in the row.
//! - A delivery is done once for each (queue id, recipient, account), a change once for each request id, however often they are
//!   sent.
//! - A change needs a grant: sealed by keyd, for this account, with the right, not expired.
//! - In the background: bodies that no message has any more are removed, records that were kept long enough are forgotten.
//!
//! SECURITY: user `posthouse-store`. Network: the database and the object storage where the configuration names servers;
//! otherwise none. Writes its state directory, in which its group (imapd, deliverd) reads. Calls keyd (MacVerify). Who may call it
//! stands in ipc/topology.toml. Content never stands in a log.
//!
//! STANDARDS: RFC 9051 (mailboxes, flags, UIDs), RFC 7162 (modseqs), RFC 4315 (UIDPLUS), RFC 6851 (MOVE), RFC 6154 (special use),
//! RFC 8474 (ids), RFC 9208 (quota).
//!
//! RECOVERY: killed at any time, it has lost nothing that it acknowledged; callers send again what they have no answer to, and
//! get the first one's answer. While the database is away, changes fail as temporary, and it goes on when the database is
//! back. A schema of an earlier version is changed once a backup point of the database is complete (docs/upgrade.md); killed
//! meanwhile, it goes on. A body that was written for a change that then failed is removed later. Uploads under way are lost.
#![forbid(unsafe_code)]

mod committer;
mod config;
mod feed;
mod grants;
mod housekeeping;
mod incoming;
mod maildrops;
mod mutation;
mod rights;
mod service;
mod uploads;

pub use config::Config;
pub use service::Service;

use runtime::{Failure, Needs, Setting, Start};
use std::path::PathBuf;
use types::Role;

/// What it needs beyond its state directory: a database file or a blob directory elsewhere, or servers.
///
/// # Errors
/// `[store]` or `[blob]` that make no sense.
pub fn needs(_config: &Config, setting: &Setting) -> Result<Needs, Failure> {
    let store: store::Config = setting.document.section("store")?;
    let blobs: blob::Config = setting.document.section("blob")?;
    let url = store.url(&setting.state_dir);
    let file = sql::sqlite_file(&url);
    let directory = file.and_then(|file| file.parent());
    let elsewhere = directory.filter(|directory| *directory != setting.state_dir);
    Ok(Needs {
        write: elsewhere
            .map(PathBuf::from)
            .into_iter()
            .chain(blobs.root.clone())
            .collect(),
        read: blobs.secret_key_file.clone().into_iter().collect(),
        servers: file.is_none() || blobs.kind == blob::Kind::S3,
        ..Needs::default()
    })
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// What keeps it from starting: a database file that cannot be opened, a schema of a later version, the configuration.
pub async fn run(start: Start<Config>) -> Result<(), Failure> {
    let config = start.config().clone();
    let store: store::Config = start.section("store")?;
    let blobs: blob::Config = start.section("blob")?;
    let state = start.state_dir();
    let keyd = start.client(Role::Keyd);
    let service = Service::open(config, &store, &blobs, &state, keyd).await?;
    start.fact("database", {
        let service = service.clone();
        move || service.database().to_owned()
    });
    start.fact("writable", {
        let service = service.clone();
        move || match service.trouble() {
            trouble if trouble.is_empty() => "yes".to_owned(),
            trouble => format!("no: {trouble}"),
        }
    });
    let router = service.router();
    let served = start.serve(router).await;
    service.finish().await;
    served.map_err(|error| Failure::new(format!("serving ended: {error}")))
}
