//! pop3d: gives INBOX to clients that fetch their mail with POP3.
//!
//! A session reads the mailbox once, at the login: message numbers, sizes and unique ids stay what they are until QUIT. What comes
//! meanwhile is seen by the next session; what somebody else expunges meanwhile can no longer be fetched, and does not keep QUIT
//! from removing the rest. stored holds the maildrop for one session at a time, over all processes.
//!
//! Unique ids are made of the account's and the message's own numbers (RFC 8474 EMAILID), which a message keeps when it is moved
//! away and back. A copy within INBOX has the unique id of the original, as RFC 1939 7 allows: who has fetched one has both.
//! Messages stay on the server until the client deletes them.
//!
//! A client that does not say UTF8 gets headers in ASCII (RFC 6858), with those sizes in STAT and LIST that UTF8 would show.
//!
//! SECURITY: user `posthouse-pop3`. Listens and cannot connect, writes nothing, reads the store. Removals go to stored with the grant
//! of the login.
//!
//! STANDARDS: RFC 1939 (but for APOP, which needs passwords in clear), 2449 (CAPA), 3206 (response codes), 2595 (STLS), 5034
//! (SASL), 6856 (UTF8, LANG), 6858.
//!
//! RECOVERY: sessions end with the process; what was not committed with QUIT stays. stored frees the maildrops of a process that is
//! gone. If stored itself starts again it has forgotten who holds what, so that a second session may begin beside the first; both
//! remove by UIDs, and what one has removed is no mistake for the other.
#![forbid(unsafe_code)]

mod config;
mod language;
mod letter;
mod maildrop;
mod session;

pub use config::Config;

use access::{Caller, Channel, House, Seat};
use ipc::api::authd::Service as Purpose;
use runtime::{Failure, Needs, Setting, Start};
use session::{Service, Session};
use std::sync::Arc;
use types::Role;

/// Its listeners, the store if it lies elsewhere, and whether there are servers to connect to.
///
/// # Errors
/// A listener or a store that makes no sense.
pub fn needs(config: &Config, setting: &Setting) -> Result<Needs, Failure> {
    Ok(Needs {
        listen: access::listens("pop3d", &config.listener)?,
        ..access::store_needs(setting)?
    })
}

/// Runs until it is told to stop and the sessions have ended.
///
/// # Errors
/// What keeps it from starting.
pub async fn run(mut start: Start<Config>) -> Result<(), Failure> {
    let full = "-ERR [SYS/TEMP] Too many connections, try again later\r\n";
    let house = House::open(&mut start, Role::Pop3d, Purpose::Pop3, full).await?;
    let service = Arc::new(Service {
        reader: house.reader.clone(),
        stored: start.client(Role::Stored),
        config: house.config.clone(),
    });
    let session = move |caller: Caller, seat: Seat| {
        Session::new(Arc::clone(&service), Channel::new(caller), seat).run()
    };
    house.serve(start, session).await;
    Ok(())
}
