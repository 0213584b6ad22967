//! The operations that hookd serves.

use crate::config::{Config, Stage};
use crate::figures::Figures;
use crate::filter::Filter;
use crate::letter::Letter;
use crate::names::Names;
use crate::session::{Limits, Session};
use ipc::api::hookd::{
    HookAbort, HookClient, HookClose, HookHello, HookList, HookMail, HookMessage, HookOpen,
    HookOpened, HookOutcome, HookRcpt, HookRow, HookTest, HookTested, NewHeader, Verdict,
};
use ipc::{Context, Fault, FaultKind, Router};
use runtime::Source;
use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use types::{Body, Octets, Role};

/// New fields that go before all others within the answer.
const BEFORE_MAX: usize = 32 * 1024;
/// Sessions that are being closed at a time. Each lasts until its last question is answered, and then a second for each filter.
const FAREWELLS: usize = 256;
/// A permit of memory is for so many octets.
const UNIT: usize = 1024;

/// What the configuration says.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) filters: Vec<Arc<Filter>>,
    pub(crate) names: Option<Names>,
    limits: Limits,
    sessions: usize,
}

impl Rules {
    /// # Errors
    /// What is wrong with them, for people.
    pub(crate) fn new(config: &Config, hostname: &str) -> Result<Self, String> {
        if let Some(fault) = config.fault() {
            return Err(fault);
        }
        Ok(Self {
            filters: Filter::all(config, hostname)?,
            names: Names::new(config)?,
            limits: Limits {
                stage: Duration::from_secs(config.stage_timeout_s.max(1)),
                message: Duration::from_secs(config.message_timeout_s.max(1)),
            },
            sessions: config.sessions,
        })
    }

    /// The filters that may see sessions of a client.
    fn of(&self, client: &HookClient) -> Vec<Arc<Filter>> {
        let concerned = self.filters.iter().filter(|filter| filter.concerns(client));
        concerned.cloned().collect()
    }
}

type Known = Arc<tokio::sync::Mutex<Session>>;

/// All sessions.
#[derive(Debug)]
pub(crate) struct Hooks {
    rules: RwLock<Arc<Rules>>,
    /// By the connection that they came on, and their number.
    sessions: Mutex<HashMap<(u64, u64), Known>>,
    next: AtomicU64,
    memory: Semaphore,
    memory_units: usize,
    farewells: Arc<Semaphore>,
    figures: Figures,
}

impl Hooks {
    pub(crate) fn new(rules: Rules, memory_bytes: usize) -> Self {
        let memory_units = (memory_bytes / UNIT).clamp(1, Semaphore::MAX_PERMITS);
        Self {
            rules: RwLock::new(Arc::new(rules)),
            sessions: Mutex::default(),
            next: AtomicU64::new(1),
            memory: Semaphore::new(memory_units),
            memory_units,
            farewells: Arc::new(Semaphore::new(FAREWELLS)),
            figures: Figures::default(),
        }
    }

    /// Sessions under way keep what they began with.
    pub(crate) fn change(&self, rules: Rules) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }

    pub(crate) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<(u64, u64), Known>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn session(&self, context: &Context, session: u64) -> Result<Known, Fault> {
        let key = (context.peer.connection, session);
        let found = self.sessions().get(&key).cloned();
        found.ok_or_else(|| Fault::new(FaultKind::NotFound, "no such session of filters"))
    }

    /// What a connection left.
    fn close_connection(&self, connection: u64) {
        let mut sessions = self.sessions();
        sessions.retain(|(of, _), _| *of != connection);
        self.count(sessions.len());
    }

    fn count(&self, sessions: usize) {
        let count = i64::try_from(sessions).unwrap_or(i64::MAX);
        self.figures.sessions.set(count);
    }

    async fn open(&self, context: &Context, call: HookOpen) -> Result<HookOpened, Fault> {
        let rules = self.rules();
        if self.sessions().len() >= rules.sessions {
            return Err(Fault::new(FaultKind::Busy, "too many sessions of filters"));
        }
        let filters = rules.of(&call.client);
        let name = match (&rules.names, call.client.address) {
            (Some(names), Some(address)) if !filters.is_empty() => names.of(address).await,
            _ => None,
        };
        let mut session = Session::new(call.client, name, filters, rules.limits);
        let verdict = session.connect(context.trace, &self.figures).await;
        let opened = HookOpened {
            session: self.next.fetch_add(1, Ordering::Relaxed),
            verdict,
            wants_hello: session.asks_at(Stage::Ehlo),
            wants_rcpt: session.asks_at(Stage::Rcpt),
        };
        let key = (context.peer.connection, opened.session);
        let mut sessions = self.sessions();
        sessions.insert(key, Arc::new(tokio::sync::Mutex::new(session)));
        self.count(sessions.len());
        Ok(opened)
    }

    async fn message(&self, context: &Context, call: HookMessage) -> Result<HookOutcome, Fault> {
        let session = self.session(context, call.session)?;
        let mut session = session.lock().await;
        let _room = self.room(call.body.len()).await?;
        let mut letter = self.letter(context, &call.own, call.body).await?;
        let verdict = session
            .message(&mut letter, call.most, context.trace, &self.figures)
            .await;
        outcome(verdict, letter, |descriptor| context.attach(descriptor))
    }

    /// Room for a message of that length.
    async fn room(&self, len: u64) -> Result<SemaphorePermit<'_>, Fault> {
        let units = usize::try_from(len).unwrap_or(usize::MAX) / UNIT + 1;
        let units = u32::try_from(units.min(self.memory_units)).unwrap_or(u32::MAX);
        let closed = |_| Fault::new(FaultKind::Internal, "no memory to be had");
        self.memory.acquire_many(units).await.map_err(closed)
    }

    async fn letter(&self, context: &Context, own: &[u8], body: Body) -> Result<Letter, Fault> {
        match body {
            Body::Inline(octets) => Ok(Letter::inline(own, octets.0)),
            Body::Attached { len } => {
                let missing =
                    || Fault::new(FaultKind::Invalid, "the message's descriptor is missing");
                let descriptor = context.descriptors.first().ok_or_else(missing)?;
                let own_descriptor = descriptor
                    .try_clone()
                    .map_err(|error| Fault::new(FaultKind::Internal, error.to_string()))?;
                Letter::attached(own, File::from(own_descriptor), len)
                    .await
                    .map_err(|error| Fault::new(FaultKind::Temporary, error.to_string()))
            }
            Body::Slot { .. } => Err(Fault::new(FaultKind::Invalid, "no slots here")),
        }
    }

    /// Ends a session. Nobody waits until its filters have heard of that: one may be slow, or still at the last question. If too many
    /// are that slow, the connections to them are closed without a word.
    fn close(&self, key: (u64, u64)) {
        let found = {
            let mut sessions = self.sessions();
            let found = sessions.remove(&key);
            self.count(sessions.len());
            found
        };
        let farewell = Arc::clone(&self.farewells).try_acquire_owned();
        if let (Some(session), Ok(farewell)) = (found, farewell) {
            tokio::spawn(async move {
                session.lock().await.close().await;
                drop(farewell);
            });
        }
    }

    async fn list(&self, call: HookList) -> Vec<HookRow> {
        let rules = self.rules();
        let mut rows = Vec::new();
        for filter in &rules.filters {
            rows.push(filter.row(call.probe).await);
        }
        rows
    }

    async fn test(&self, context: &Context, call: HookTest) -> Result<HookTested, Fault> {
        let rules = self.rules();
        let mut filters = rules.of(&call.client);
        if let Some(name) = &call.filter {
            filters.retain(|filter| filter.name == *name);
        }
        if filters.is_empty() {
            let text = "no filter is asked about such a message";
            return Err(Fault::new(FaultKind::NotFound, text));
        }
        let name = match (&rules.names, call.client.address) {
            (Some(names), Some(address)) => names.of(address).await,
            _ => None,
        };
        let mut session = Session::new(call.client.clone(), name, filters, rules.limits);
        let tested = self.walk(&mut session, context, call).await;
        session.close().await;
        tested
    }

    /// Stage by stage, to the first that refuses.
    async fn walk(
        &self,
        session: &mut Session,
        context: &Context,
        call: HookTest,
    ) -> Result<HookTested, Fault> {
        let (trace, figures) = (context.trace, &self.figures);
        let ended = |stage: Stage, verdict: Verdict| HookTested {
            stage: stage.name().to_owned(),
            outcome: HookOutcome {
                verdict,
                ..HookOutcome::default()
            },
        };
        let mut said = session.connect(trace, figures).await;
        if said != Verdict::Go {
            return Ok(ended(Stage::Connect, said));
        }
        said = session.hello(call.facts.clone(), trace, figures).await;
        if said != Verdict::Go {
            return Ok(ended(Stage::Ehlo, said));
        }
        let id = "test".to_owned();
        said = session
            .mail(call.facts, id, call.sender, trace, figures)
            .await;
        if said != Verdict::Go {
            return Ok(ended(Stage::Mail, said));
        }
        for recipient in call.recipients {
            said = session.rcpt(vec![recipient], trace, figures).await;
            if said != Verdict::Go {
                return Ok(ended(Stage::Rcpt, said));
            }
        }
        let _room = self.room(call.body.len()).await?;
        let mut letter = self.letter(context, b"", call.body).await?;
        let verdict = session.message(&mut letter, u64::MAX, trace, figures).await;
        Ok(HookTested {
            stage: Stage::Data.name().to_owned(),
            outcome: outcome(verdict, letter, |descriptor| context.attach(descriptor))?,
        })
    }
}

/// What came of a message; what is large goes along as a file in memory.
fn outcome(
    verdict: Verdict,
    letter: Letter,
    attach: impl Fn(OwnedFd),
) -> Result<HookOutcome, Fault> {
    if verdict != Verdict::Go {
        return Ok(HookOutcome {
            verdict,
            ..HookOutcome::default()
        });
    }
    let header = match letter.only_before() {
        Ok(before) if before.is_empty() => NewHeader::Same,
        Ok(before) if before.len() <= BEFORE_MAX => NewHeader::Before(Octets(before)),
        _ => {
            let mut parts = letter.parts();
            if parts.before.len() > BEFORE_MAX {
                parts.before.append(&mut parts.rest);
                parts.rest = std::mem::take(&mut parts.before);
            }
            NewHeader::Whole {
                before: Octets(parts.before),
                own: Octets(parts.own),
                rest: passed(parts.rest, &attach)?,
            }
        }
    };
    let body = match letter.text {
        Source::Octets(octets) if letter.new_text => {
            Some(passed(Arc::unwrap_or_clone(octets), &attach)?)
        }
        _ => None,
    };
    Ok(HookOutcome {
        verdict,
        sender: letter.new_sender.then_some(letter.sender.address),
        removed: letter.removed,
        added: letter.added,
        header,
        body_at: letter.body_at,
        body,
        quarantine: letter.quarantine,
        held: letter.held,
    })
}

fn passed(octets: Vec<u8>, attach: &impl Fn(OwnedFd)) -> Result<Body, Fault> {
    if octets.len() <= Body::INLINE_MAX {
        return Ok(Body::Inline(Octets(octets)));
    }
    let len = octets.len() as u64;
    let file = || {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::memfd_create("changed", flags)?);
        file.write_all(&octets)?;
        std::io::Result::Ok(file)
    };
    let file = file().map_err(|error| Fault::new(FaultKind::Temporary, error.to_string()))?;
    attach(file.into());
    Ok(Body::Attached { len })
}

/// Answers for filters.
pub(crate) fn router(hooks: &Arc<Hooks>) -> Router {
    let [open, hello, mail, rcpt, message, abort, close, closed] =
        std::array::from_fn(|_| Arc::clone(hooks));
    let [list, test] = std::array::from_fn(|_| Arc::clone(hooks));
    Router::new(Role::Hookd)
        .on(move |context: Context, call: HookOpen| {
            let hooks = Arc::clone(&open);
            async move { hooks.open(&context, call).await }
        })
        .on(move |context: Context, call: HookHello| {
            let hooks = Arc::clone(&hello);
            async move {
                let session = hooks.session(&context, call.session)?;
                let mut session = session.lock().await;
                Ok(session
                    .hello(call.facts, context.trace, &hooks.figures)
                    .await)
            }
        })
        .on(move |context: Context, call: HookMail| {
            let hooks = Arc::clone(&mail);
            async move {
                let session = hooks.session(&context, call.session)?;
                let mut session = session.lock().await;
                let HookMail {
                    facts, id, sender, ..
                } = call;
                Ok(session
                    .mail(facts, id, sender, context.trace, &hooks.figures)
                    .await)
            }
        })
        .on(move |context: Context, call: HookRcpt| {
            let hooks = Arc::clone(&rcpt);
            async move {
                let session = hooks.session(&context, call.session)?;
                let mut session = session.lock().await;
                Ok(session
                    .rcpt(call.recipients, context.trace, &hooks.figures)
                    .await)
            }
        })
        .on(move |context: Context, call: HookMessage| {
            let hooks = Arc::clone(&message);
            async move { hooks.message(&context, call).await }
        })
        .on(move |context: Context, call: HookAbort| {
            let hooks = Arc::clone(&abort);
            async move {
                let session = hooks.session(&context, call.session)?;
                session.lock().await.abort_now().await;
                Ok(())
            }
        })
        .on(move |context: Context, call: HookClose| {
            let hooks = Arc::clone(&close);
            async move {
                hooks.close((context.peer.connection, call.session));
                Ok(())
            }
        })
        .on(move |_, call: HookList| {
            let hooks = Arc::clone(&list);
            async move { Ok(hooks.list(call).await) }
        })
        .on(move |context: Context, call: HookTest| {
            let hooks = Arc::clone(&test);
            async move { hooks.test(&context, call).await }
        })
        .on_closed(move |peer| closed.close_connection(peer.connection))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn a_session_that_is_busy_is_closed_without_waiting() {
        let rules = Rules::new(&Config::default(), "mail.example").unwrap();
        let limits = rules.limits;
        let hooks = Hooks::new(rules, 1 << 20);
        let mut busy = Vec::new();
        for number in 0..=FAREWELLS as u64 {
            let session = Session::new(HookClient::default(), None, Vec::new(), limits);
            let session = Arc::new(tokio::sync::Mutex::new(session));
            hooks.sessions().insert((1, number), Arc::clone(&session));
            busy.push(session.lock_owned().await);
        }
        for number in 0..=FAREWELLS as u64 {
            hooks.close((1, number));
        }
        assert!(hooks.sessions().is_empty());
        assert_eq!(hooks.farewells.available_permits(), 0);
        drop(busy);
        let all = u32::try_from(FAREWELLS).unwrap();
        let ended = hooks.farewells.acquire_many(all);
        let ended = tokio::time::timeout(Duration::from_secs(10), ended).await;
        assert!(ended.unwrap().is_ok());
    }
}
