//! reportd: gathers what is reported of DMARC and TLS, writes the reports that are due, and keeps those of others.
//!
//! **Out.** smtpd tells it how mail fared whose domain wants to hear of that (DMARC's `rua`), relayd how sessions with hosts went
//! whose domain wants to hear of those (TLS-RPT). Both have looked up where reports go, and whether destinations elsewhere agreed.
//! Results are counted into one report for each domain and interval; after its end queued fetches what is due, has it in its
//! journal, and says so. Until then a report stays, and is given again under the same id. One that goes to an `https:` address is
//! posted for queued by relayd; what came of it is kept here, and when it is tried again is decided here.
//!
//! **In.** deliverd brings mail for `reportd.addresses`. Reports of DMARC (XML), TLS (JSON) and single messages (ARF) are
//! recognised, read within bounds, and kept for the operator: `posthouse report list`, `show` and `summary`. What cannot be read is
//! kept, too, with the reason.
//!
//! SECURITY: user `posthouse-report`; no network but that to a database elsewhere; writes its state directory `reports` only. Serves
//! smtpd (Judged), relayd (TlsResults), deliverd (TakeReport), queued (ClaimReport, SettleReport) and posthouse (ReportList,
//! ReportShow, ReportSummary, ReportPending, ReportPreview, ReportCancel, ReportSend). Calls nobody. It parses what strangers send:
//! one message at a time, unpacked while it is read, with bounds on octets, ratio, files, rows and depth; there are no entities and
//! no document types. What it knows is who wrote to us from where; it holds no mail but the headers of complaints, and no secret.
//!
//! STANDARDS: RFC 7489 (DMARC, aggregate reports) and its successors 9989 to 9991, 8460 (TLS-RPT), 5965 (ARF), 6591 (failure
//! reports), 6590 (redaction), 3464 (reports of ours that came back).
//!
//! RECOVERY: killed at any moment, it loses nothing that it took: each call is one transaction. A report that queued took just before
//! is given again under the id that queued knows it by, and is not sent twice. One that was just being posted may be posted twice, with
//! the same name.
#![forbid(unsafe_code)]

mod compose;
mod config;
pub mod fuzz;
mod gather;
mod housekeeping;
mod intake;
mod keep;
mod outgoing;
mod posts;
mod schema;
mod service;
mod store;

pub use config::{Config, Intake, Send};

use runtime::{Failure, Needs, Setting, Start};
use std::path::Path;
use std::sync::Arc;
use store::Store;
use tokio::sync::Semaphore;

/// What it needs of its surroundings: a way to the server of its database.
///
/// # Errors
/// A configuration that makes no sense.
pub fn needs(config: &Config, _: &Setting) -> Result<Needs, Failure> {
    config.validate().map_err(Failure::new)?;
    Ok(Needs {
        servers: config.database != "sqlite" && !config.database.starts_with("sqlite:"),
        ..Needs::default()
    })
}

/// The URL of its database.
fn url(database: &str, directory: &Path) -> String {
    match database {
        "sqlite" => format!("sqlite://{}", directory.join("reports.db").display()),
        other => other.to_owned(),
    }
}

/// Everything but the socket.
fn service(
    config: Arc<Config>,
    store: &Arc<Store>,
    hostname: &str,
) -> Result<service::Service, String> {
    let sender = config.sender(hostname)?;
    let outgoing = Arc::new(outgoing::Outgoing::new(
        Arc::clone(store),
        Arc::clone(&config),
        sender,
    ));
    Ok(service::Service {
        gatherer: gather::Gatherer {
            store: Arc::clone(store),
            config: Arc::clone(&config),
            figures: gather::Figures::new(),
        },
        keeper: keep::Keeper {
            store: Arc::clone(store),
            config,
            outgoing: Arc::clone(&outgoing),
            place: Semaphore::new(1),
        },
        outgoing,
    })
}

/// Runs until it is told to stop.
///
/// # Errors
/// What keeps it from starting.
pub async fn run(start: Start<Config>) -> Result<(), Failure> {
    let config = Arc::new(start.config().clone());
    let store = Arc::new(Store::new(url(&config.database, &start.state_dir())));
    let service =
        service(Arc::clone(&config), &store, &start.suite().hostname).map_err(Failure::new)?;
    tokio::spawn(housekeeping::run(store, config, start.stopping()));
    start
        .serve(service::router(service))
        .await
        .map_err(|error| Failure::new(error.to_string()))
}

#[cfg(test)]
mod tests;
