//! Which listeners have filters, and what is done when hookd is away: the part of `[hookd]` that smtpd has to know.

use ipc::api::hookd::Away;
use runtime::{Document, Failure};
use serde::Deserialize;
use std::time::Duration;
use types::Role;

/// As hookd has it by itself.
const STAGE_S: u64 = 60;
/// As hookd has it by itself.
const MESSAGE_S: u64 = 300;
/// hookd answers in its time; this is for the way.
const GRACE: Duration = Duration::from_secs(10);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Section {
    stage_timeout_s: Option<u64>,
    message_timeout_s: Option<u64>,
    milter: Vec<Filter>,
    http: Vec<Filter>,
    sieve: Vec<Filter>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Filter {
    listeners: Vec<String>,
    away: Option<Away>,
}

/// The filters, as far as they matter here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooks {
    filters: Vec<(Vec<String>, Away)>,
    /// How long hookd may take for a stage.
    pub stage: Duration,
    /// How long it may take for a message.
    pub message: Duration,
}

impl Hooks {
    /// `None` if hookd does not run, or has no filters.
    ///
    /// # Errors
    /// Values of the wrong type.
    pub fn new(document: &Document) -> Result<Option<Self>, Failure> {
        if !document.enabled(Role::Hookd) {
            return Ok(None);
        }
        let section: Section = document.section(Role::Hookd.name())?;
        let with = |default: Away| move |one: Filter| (one.listeners, one.away.unwrap_or(default));
        let filters: Vec<_> = (section.milter.into_iter().map(with(Away::Later)))
            .chain(section.http.into_iter().map(with(Away::Later)))
            .chain(section.sieve.into_iter().map(with(Away::Accept)))
            .collect();
        let time = |own: Option<u64>, default: u64| {
            Duration::from_secs(own.unwrap_or(default).max(1)) + GRACE
        };
        Ok((!filters.is_empty()).then(|| Self {
            filters,
            stage: time(section.stage_timeout_s, STAGE_S),
            message: time(section.message_timeout_s, MESSAGE_S),
        }))
    }

    /// Whether a filter is for a listener: what is done when hookd is away, which is what the strictest of them says.
    pub fn of(&self, listener: &str) -> Option<Away> {
        (self.filters.iter())
            .filter(|(listeners, _)| {
                listeners.is_empty() || listeners.iter().any(|one| one == listener)
            })
            .map(|(_, away)| *away)
            .max()
    }
}
