//! hookd: asks filters about mail while it arrives: milters, HTTP hooks, the administrator's Sieve scripts.
//!
//! smtpd opens a session here for each session of SMTP on a listener that a filter is for, and asks at its stages: connect, EHLO,
//! MAIL, RCPT, and when the message is there. hookd asks the filters in their order, one after the other. Each sees what those
//! before it have changed. The first that refuses decides; one that accepts is not asked about that message again. What they
//! changed goes back to smtpd as one result, which smtpd puts into effect before it commits the message.
//!
//! A filter that is away, too slow, or not understood is treated as its `away` says: the mail goes on without it, is put off
//! (451), or refused (554).
//!
//! SECURITY: user `posthouse-hook`. Connects to the filters of the configuration and, for clients' names, to name servers; listens
//! on no network, writes nothing, keeps nothing. Reads the scripts, the authorities and the secrets of HTTP fields that the
//! configuration names, and the messages that smtpd passes as read-only descriptors. Serves smtpd (HookOpen, HookHello,
//! HookMail, HookRcpt, HookMessage, HookAbort, HookClose) and posthouse (HookList, HookTest). Calls nobody: whatever a filter
//! answers, it comes to no more than what smtpd makes of it. Recipients that filters add are resolved by smtpd as others are.
//!
//! STANDARDS: Sendmail's milter protocol, versions 2 and 6 (it has no RFC); RFC 9110 (HTTP), RFC 8259 (JSON); RFC 5228 with
//! 5183 (environment), 5229 (variables), 5293 (editheader), 5429 (reject); RFC 8601 3 (names of clients).
//!
//! RECOVERY: filters' sessions end with the process. smtpd does for these what the configuration says of a filter that is away, and
//! opens new ones with the next message.
#![forbid(unsafe_code)]

mod address;
mod config;
mod figures;
mod filter;
pub mod fuzz;
mod http;
mod letter;
mod milter;
mod names;
mod script;
mod service;
mod session;

pub use config::{Clients, Config, HttpConfig, MilterConfig, Quarantine, SieveConfig, Stage};

use runtime::{Failure, Needs, Setting, Start};
use serde::Deserialize;
use service::{Hooks, Rules};
use std::sync::Arc;
use types::Role;

/// What it needs of its surroundings: the files of the configuration.
///
/// # Errors
/// A filter that makes no sense, or of a listener that smtpd does not have.
pub fn needs(config: &Config, setting: &Setting) -> Result<Needs, Failure> {
    if let Some(fault) = config.fault() {
        return Err(Failure::new(fault));
    }
    known_listeners(config, setting)?;
    Ok(Needs {
        read: config.files(),
        ..Needs::default()
    })
}

/// A filter for a listener that is not there would never be asked.
fn known_listeners(config: &Config, setting: &Setting) -> Result<(), Failure> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Smtpd {
        listener: Option<Vec<Listener>>,
    }
    #[derive(Deserialize)]
    struct Listener {
        name: String,
    }
    let smtpd: Smtpd = setting.document.section(Role::Smtpd.name())?;
    let known: Vec<String> = match smtpd.listener {
        Some(all) => all.into_iter().map(|one| one.name).collect(),
        // As smtpd has them by itself.
        None => ["mx", "submission", "submissions"]
            .map(str::to_owned)
            .to_vec(),
    };
    let named = (config.milter.iter().map(|one| (&one.name, &one.listeners)))
        .chain(config.http.iter().map(|one| (&one.name, &one.listeners)))
        .chain(config.sieve.iter().map(|one| (&one.name, &one.listeners)));
    for (filter, listeners) in named {
        if let Some(listener) = listeners.iter().find(|listener| !known.contains(listener)) {
            return Err(Failure::new(format!(
                "hookd: the filter {filter:?} is for a listener {listener:?}, which smtpd does not have"
            )));
        }
    }
    Ok(())
}

/// Runs until it is told to stop.
///
/// # Errors
/// A script that does not compile, a file that cannot be read.
pub async fn run(start: Start<Config>) -> Result<(), Failure> {
    let config = start.config().clone();
    let rules = Rules::new(&config, &start.suite().hostname).map_err(Failure::new)?;
    let hooks = Arc::new(Hooks::new(rules, config.memory_bytes));
    let shown = Arc::clone(&hooks);
    start.fact("filters", move || shown.rules().filters.len().to_string());
    let mut documents = start.documents();
    let changing = Arc::clone(&hooks);
    let follow = tokio::spawn(async move {
        while documents.changed().await.is_ok() {
            let document = Arc::clone(&documents.borrow_and_update());
            let new = document
                .section(Role::Hookd.name())
                .and_then(|config: Config| {
                    let hostname = document.suite()?.hostname;
                    Rules::new(&config, &hostname).map_err(Failure::new)
                });
            match new {
                Ok(rules) => changing.change(rules),
                Err(error) => tracing::error!(%error, "the section [hookd] stays as it was"),
            }
        }
    });
    let served = start.serve(service::router(&hooks)).await;
    follow.abort();
    served.map_err(|error| Failure::new(error.to_string()))
}
