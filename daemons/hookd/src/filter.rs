//! What all filters have in common: whom they see, and what is done when they are away.

use crate::config::{Clients, Config, HttpConfig, MilterConfig, Quarantine, SieveConfig, Stage};
use crate::letter::Author;
use crate::{http, milter, script};
use ipc::api::hookd::{Away, HookAddress, HookClient, HookFacts, HookRow, Refusal};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use types::{Enhanced, Network};

/// A filter of the configuration.
#[derive(Debug)]
pub(crate) struct Filter {
    pub(crate) name: String,
    pub(crate) away: Away,
    pub(crate) may_relay: bool,
    pub(crate) quarantine: Quarantine,
    pub(crate) kind: Kind,
    listeners: Vec<String>,
    clients: Clients,
    exempt: Vec<Network>,
    order: i32,
    asked: AtomicU64,
    failed: AtomicU64,
}

/// How it is asked.
#[derive(Debug)]
pub(crate) enum Kind {
    Milter(Arc<MilterConfig>),
    Http(Box<http::Hook>),
    Sieve(Box<script::Script>),
}

/// What is known when a filter is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    /// Who came, and where.
    pub(crate) client: &'a HookClient,
    /// The client's name, if it is confirmed.
    pub(crate) name: Option<&'a str>,
    /// What it said since.
    pub(crate) facts: &'a HookFacts,
    /// The transaction.
    pub(crate) mail: Option<&'a Mail>,
}

/// A transaction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mail {
    /// The message's id in the queue.
    pub(crate) id: String,
    /// The reverse-path.
    pub(crate) sender: HookAddress,
    /// Those accepted so far; at the stage `rcpt` the last is asked about.
    pub(crate) recipients: Vec<HookAddress>,
}

/// What a filter says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// Go on, and ask again.
    Go,
    /// Fine; of this message (or, at `connect` and `ehlo`, of this session) nothing more is asked.
    Accept,
    /// Take it and throw it away.
    Discard,
    /// Answer so.
    Refuse(Answer),
}

/// An answer that refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) enhanced: Enhanced,
    pub(crate) text: String,
    pub(crate) close: bool,
}

/// Octets of an answer's text.
const TEXT_MAX: usize = 4000;

impl Answer {
    pub(crate) fn new(code: u16, enhanced: Enhanced, text: &str) -> Self {
        Self {
            code,
            enhanced,
            text: text.to_owned(),
            close: false,
        }
    }

    /// As a filter is answered that says no more than that.
    pub(crate) fn rejected() -> Self {
        Self::new(550, Enhanced(5, 7, 1), "Refused by a filter")
    }

    /// As above, for now.
    pub(crate) fn later() -> Self {
        Self::new(451, Enhanced(4, 7, 1), "Not now, try again later")
    }

    /// As a filter's answer, with its name.
    pub(crate) fn of(self, filter: &str) -> Refusal {
        let mut text = self.text;
        let end = (0..=TEXT_MAX.min(text.len()))
            .rev()
            .find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        Refusal {
            filter: filter.to_owned(),
            code: self.code,
            enhanced: self.enhanced,
            text,
            close: self.close,
        }
    }
}

/// A filter is away, too slow, or not understood: why, for logs.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Trouble(pub(crate) String);

impl Trouble {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

impl Filter {
    /// All filters, in the order in which they are asked.
    ///
    /// # Errors
    /// What is wrong with one, for people.
    pub(crate) fn all(config: &Config, hostname: &str) -> Result<Vec<Arc<Self>>, String> {
        let mut all = Vec::new();
        for one in &config.sieve {
            all.push(Self::sieve(one, config, hostname)?);
        }
        all.extend(config.milter.iter().map(Self::milter));
        for one in &config.http {
            all.push(Self::http(one)?);
        }
        all.sort_by_key(|one| one.order);
        Ok(all.into_iter().map(Arc::new).collect())
    }

    fn milter(one: &MilterConfig) -> Self {
        Self {
            name: one.name.clone(),
            away: one.away,
            may_relay: one.may_relay,
            quarantine: one.quarantine,
            kind: Kind::Milter(Arc::new(one.clone())),
            listeners: one.listeners.clone(),
            clients: one.clients,
            exempt: one.exempt_networks.clone(),
            order: one.order,
            asked: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    fn http(one: &HttpConfig) -> Result<Self, String> {
        let hook =
            http::Hook::new(one).map_err(|fault| format!("hookd.http {:?}: {fault}", one.name))?;
        Ok(Self {
            name: one.name.clone(),
            away: one.away,
            may_relay: one.may_relay,
            quarantine: one.quarantine,
            kind: Kind::Http(Box::new(hook)),
            listeners: one.listeners.clone(),
            clients: one.clients,
            exempt: one.exempt_networks.clone(),
            order: one.order,
            asked: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        })
    }

    fn sieve(one: &SieveConfig, config: &Config, hostname: &str) -> Result<Self, String> {
        let script = script::Script::new(one, &config.limits, hostname)
            .map_err(|fault| format!("hookd.sieve {:?}: {fault}", one.name))?;
        Ok(Self {
            name: one.name.clone(),
            away: one.away,
            may_relay: one.may_relay,
            quarantine: one.quarantine,
            kind: Kind::Sieve(Box::new(script)),
            listeners: one.listeners.clone(),
            clients: one.clients,
            exempt: one.exempt_networks.clone(),
            order: one.order,
            asked: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        })
    }

    /// Whether it may ever see a session of this client.
    pub(crate) fn concerns(&self, client: &HookClient) -> bool {
        let listener = self.listeners.is_empty() || self.listeners.contains(&client.listener);
        let exempt = client
            .address
            .is_some_and(|address| self.exempt.iter().any(|network| network.contains(address)));
        listener && !exempt
    }

    /// Whether it sees mail of a client that is logged in, or not.
    pub(crate) fn sees(&self, login: bool) -> bool {
        match self.clients {
            Clients::All => true,
            Clients::Unauthenticated => !login,
            Clients::Authenticated => login,
        }
    }

    /// Whether it is asked at a stage.
    pub(crate) fn asks_at(&self, stage: Stage) -> bool {
        match &self.kind {
            Kind::Milter(_) => true,
            Kind::Http(hook) => hook.stages.contains(&stage),
            Kind::Sieve(script) => script.stages.contains(&stage),
        }
    }

    /// As an author of changes.
    pub(crate) fn author(&self) -> Author<'_> {
        Author {
            filter: &self.name,
            may_relay: self.may_relay,
            quarantine: self.quarantine,
        }
    }

    pub(crate) fn count(&self, failed: bool) {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if failed {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What is answered when it is away; `None`: nothing, it goes on without.
    pub(crate) fn away(&self) -> Option<Answer> {
        match self.away {
            Away::Accept => None,
            Away::Later => Some(Answer::later()),
            Away::Refuse => Some(Answer::new(
                554,
                Enhanced(5, 3, 0),
                "This mail cannot be checked here at present",
            )),
        }
    }

    /// For the operator; with `probe` it is asked whether it answers.
    pub(crate) async fn row(&self, probe: bool) -> HookRow {
        let (kind, place) = match &self.kind {
            Kind::Milter(config) => ("milter", config.address.clone()),
            Kind::Http(hook) => ("http", hook.shown()),
            Kind::Sieve(script) => ("sieve", script.file.display().to_string()),
        };
        let answers = match (&self.kind, probe) {
            (_, false) => None,
            (Kind::Milter(config), true) => Some(milter::probe(config).await),
            (Kind::Http(hook), true) => Some(hook.probe().await),
            (Kind::Sieve(_), true) => Some(Ok("compiled".to_owned())),
        };
        HookRow {
            name: self.name.clone(),
            kind: kind.to_owned(),
            place,
            listeners: self.listeners.clone(),
            asked: self.asked.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            answers: answers.map(|answer| answer.map_err(|trouble| trouble.0)),
        }
    }
}
