//! sieved: ManageSieve, with which users put, check and choose their Sieve scripts.
//!
//! A script is compiled before it is kept; one that does not compile is refused with the line and column that the
//! compiler gives. The extensions that are announced are those that it takes.
//!
//! SECURITY: user `posthouse-sieve`. Listens and cannot connect, writes nothing, reads the store. Changes go to stored with the grant
//! of the login.
//!
//! STANDARDS: RFC 5804.
//!
//! RECOVERY: sessions end with the process. A change whose answer was lost may have been made: clients list the scripts again.
#![forbid(unsafe_code)]

mod config;
mod scripts;
mod session;

pub use config::Config;
use config::Delivery;

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
        listen: access::listens("sieved", &config.listener)?,
        ..access::store_needs(setting)?
    })
}

/// Runs until it is told to stop and the sessions have ended.
///
/// # Errors
/// What keeps it from starting.
pub async fn run(mut start: Start<Config>) -> Result<(), Failure> {
    let full = "BYE (TRYLATER) \"Too many connections, try again later\"\r\n";
    let house = House::open(&mut start, Role::Sieved, Purpose::Sieve, full).await?;
    let service = Arc::new(Service {
        reader: house.reader.clone(),
        stored: start.client(Role::Stored),
        config: house.config.clone(),
        limits: start.section::<Delivery>("deliverd")?.sieve.limits,
    });
    let session = move |caller: Caller, seat: Seat| {
        Session::new(Arc::clone(&service), Channel::new(caller), seat).run()
    };
    house.serve(start, session).await;
    Ok(())
}
