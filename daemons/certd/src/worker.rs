//! The one task that orders: certificates one after the other, each when its time has come or the operator says so.

use crate::answers::Answers;
use crate::board::Board;
use crate::config::{Config, Target};
use crate::order::Known;
use crate::plan;
use crate::served::Served;
use crate::state::{Progress, State};
use crate::trouble::Trouble;
use crate::{hosts, now};
use instant_acme::{CertificateIdentifier, Error, RevocationRequest};
use ipc::api::certd::{
    DkimRotationRow, DnsChange, DnsPublishedReply, OrderedCertificate, RevocationReason,
};
use ipc::api::keyd::{CertificateRemove, IssuedCertificate, IssuedCertificates};
use ipc::{Client, Fault, FaultKind};
use rand::Rng as _;
use runtime::Document;
use rustls_pki_types::CertificateDer;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use types::{Role, TraceId};

/// When keyd is away.
const KEYD_PAUSE: u64 = 5;
/// When an authority that makes suggestions could not be asked.
const WINDOW_PAUSE: u64 = 6 * 3600;
/// Between two questions at most: what an authority suggests may change on short notice (RFC 9773 4.3.2).
const WINDOW_MAX: u64 = 86_400;
/// And at least.
const WINDOW_MIN: u64 = 60;

/// A window in the past renews at once, but not what came just now.
const SUGGESTED_PAUSE: u64 = 3600;

/// What the operator wants.
#[derive(Debug)]
pub(crate) enum Command {
    Order {
        id: String,
        renew: bool,
    },
    Revoke {
        id: String,
        reason: RevocationReason,
    },
}

/// A command, and where its end is told.
#[derive(Debug)]
pub(crate) enum Request {
    Certificate(Command, Done<OrderedCertificate>),
    /// Other DKIM keys for a domain.
    Rotate(String, Done<Vec<DkimRotationRow>>),
    Published(Done<DnsPublishedReply>),
    Change(DnsChange, Done<()>),
}

type Done<T> = oneshot::Sender<Result<T, Fault>>;

/// All that it works with.
pub(crate) struct Worker {
    pub(crate) config: Config,
    /// Of the configuration.
    pub(crate) configured: Vec<Target>,
    /// All: those, and what follows from the domains.
    pub(crate) targets: Vec<Target>,
    /// What httpd has taken over.
    pub(crate) served: Served,
    /// As authd told last, if it was asked.
    pub(crate) domains: Option<Vec<String>>,
    pub(crate) authd: Client,
    pub(crate) keyd: Client,
    pub(crate) state: State,
    pub(crate) answers: Answers,
    pub(crate) board: Board,
    pub(crate) known: Option<Known>,
    /// Seconds since 1970 before which the authority does not want to hear of us.
    pub(crate) patience: Arc<AtomicU64>,
}

impl Worker {
    /// Until it is told to stop: an order under way is left, and taken up again by the next process.
    pub(crate) async fn run(
        mut self,
        mut requests: mpsc::Receiver<Request>,
        mut documents: watch::Receiver<Arc<Document>>,
        mut stopping: watch::Receiver<bool>,
    ) {
        let work = async {
            loop {
                let next = self.pass().await.min(self.rotate().await);
                let pause = Duration::from_secs(next.saturating_sub(now()));
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    request = requests.recv() => match request {
                        Some(Request::Certificate(command, done)) => {
                            let _ = done.send(self.command(command).await);
                        }
                        Some(Request::Published(done)) => {
                            let _ = done.send(Ok(self.published()));
                        }
                        Some(Request::Change(change, done)) => {
                            let _ = done.send(self.change(change).await);
                        }
                        Some(Request::Rotate(domain, done)) => {
                            let _ = done.send(self.rotate_now(&domain).await);
                        }
                        None => return,
                    },
                    changed = documents.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        let document = Arc::clone(&documents.borrow_and_update());
                        self.reconfigure(&document);
                    }
                }
            }
        };
        tokio::select! {
            () = work => {}
            _ = stopping.wait_for(|stop| *stop) => {}
        }
    }

    fn reconfigure(&mut self, document: &Document) {
        let read = || -> Result<(Config, Vec<Target>, Served), String> {
            let told = |error: runtime::Failure| error.to_string();
            let config: Config = document.section(Role::Certd.name()).map_err(told)?;
            let targets = config.targets(&hosts(document)?)?;
            config.sound_rotation()?;
            let served = Served::of(document, &config)?;
            Ok((config, targets, served))
        };
        match read() {
            Ok((config, targets, served)) => {
                // Files that the configuration names may be others now, too.
                self.known = None;
                (self.config, self.configured, self.served) = (config, targets, served);
                self.targets.clear();
                self.board.begin(&self.config, &self.targets);
                self.join_targets();
            }
            Err(error) => tracing::error!(error, "the section [certd] stays as it was"),
        }
    }

    /// Does what is due; when to look again.
    async fn pass(&mut self) -> u64 {
        self.follow_domains().await;
        self.board.persistent(self.persistent_records());
        if self.targets.is_empty() {
            return now() + plan::LOOK;
        }
        let issued = match self.keyd.call(TraceId(0), &IssuedCertificates).await {
            Ok(issued) => issued,
            Err(error) => {
                tracing::warn!(%error, "certificates wait for keyd");
                return now() + KEYD_PAUSE;
            }
        };
        if self.knows_all() {
            self.remove_expired(&issued).await;
        }
        let mut next = now() + plan::LOOK;
        for target in self.targets.clone() {
            let current = issued.iter().find(|one| one.id == target.id);
            let mut progress = self.state.progress(&target.id);
            if let Some(current) = current {
                self.schedule(&target, current, &mut progress).await;
            }
            let due = plan::due(&target, current, &progress);
            let at = due.at.max(self.patience.load(Relaxed));
            self.board.show(&target, current, &progress);
            if at > now() {
                let ask_at = if current.is_some() {
                    progress.ask_at
                } else {
                    u64::MAX
                };
                next = next.min(at).min(ask_at.max(now() + 1));
                continue;
            }
            if progress.announced.is_empty() {
                tracing::info!(id = target.id, why = due.why, "a certificate is due");
            }
            let _ = self.attempt(&target, current, progress).await;
            next = now();
        }
        next
    }

    /// One attempt, with what is to be remembered of it.
    async fn attempt(
        &mut self,
        target: &Target,
        current: Option<&IssuedCertificate>,
        mut progress: Progress,
    ) -> Result<OrderedCertificate, Trouble> {
        self.board.ordering(&target.id);
        let mut done = self.obtain(target, current, &mut progress).await;
        if done.as_ref().is_err_and(Trouble::is_unknown_account) {
            tracing::warn!("the authority does not know our account: another one is made");
            self.known = None;
            progress.order = None;
            let forgotten = self.state.keep_account(&crate::state::Account::default());
            done = match forgotten {
                Ok(()) => self.obtain(target, current, &mut progress).await,
                Err(error) => Err(error.into()),
            };
        }
        match &done {
            Ok(issued) => {
                tracing::info!(
                    id = target.id,
                    expires = issued.expires,
                    "certificate in use"
                );
                progress = Progress {
                    published: progress.published,
                    got: now(),
                    ..Progress::default()
                };
                self.schedule(target, issued, &mut progress).await;
                self.withdraw(target, issued).await;
                self.board.count(true);
            }
            Err(Trouble::Later(at)) => progress.retry_at = *at,
            Err(trouble @ Trouble::Unpublished(_)) => {
                self.unpublished(target, current, &mut progress, trouble);
            }
            Err(trouble) => {
                self.failed(target, current, &mut progress, trouble);
                self.board.count(false);
            }
        }
        if let Err(error) = self.state.keep(&target.id, &progress) {
            tracing::error!(id = target.id, %error, "the state directory cannot be written");
        }
        self.board.persistent(self.persistent_records());
        let issued = done.as_ref().ok().or(current);
        let row = self.board.show(target, issued, &progress);
        done.map(|_| row)
    }

    fn failed(
        &self,
        target: &Target,
        current: Option<&IssuedCertificate>,
        progress: &mut Progress,
        trouble: &Trouble,
    ) {
        if trouble.ends_order() {
            progress.order = None;
        }
        progress.waits = 0;
        progress.failures = progress.failures.saturating_add(1);
        progress.trouble = trouble.to_string();
        progress.retry_at =
            plan::retry_at(now(), progress.failures, &self.config).max(self.patience.load(Relaxed));
        let seconds = progress.retry_at.saturating_sub(now());
        let (id, failures) = (&target.id, progress.failures);
        let text = "no certificate this time: it is tried again";
        match current {
            Some(current) if ends_soon(current) => {
                let left = current.expires.saturating_sub(now());
                tracing::error!(id, failures, seconds, left, %trouble, "{text}, and the one in use expires soon");
            }
            _ => tracing::warn!(id, failures, seconds, %trouble, "{text}"),
        }
    }

    /// The operator is to publish something: DNS is looked at again soon, and the authority is not asked.
    fn unpublished(
        &self,
        target: &Target,
        current: Option<&IssuedCertificate>,
        progress: &mut Progress,
        trouble: &Trouble,
    ) {
        let text = trouble.to_string();
        let known = progress.waits > 0 && progress.trouble == text;
        progress.failures = 0;
        progress.waits = progress.waits.saturating_add(1);
        progress.retry_at =
            plan::retry_at(now(), progress.waits, &self.config).min(now() + plan::LOOK);
        progress.trouble = text;
        let id = &target.id;
        let text = "no certificate before that is published";
        if current.is_some_and(ends_soon) {
            tracing::error!(id, %trouble, "{text}, and the one in use expires soon");
        } else if known {
            tracing::debug!(id, %trouble, "{text}");
        } else {
            tracing::warn!(id, %trouble, "{text}");
        }
    }

    /// Decides when the certificate in use is renewed, and keeps that.
    async fn schedule(
        &mut self,
        target: &Target,
        current: &IssuedCertificate,
        progress: &mut Progress,
    ) {
        let before = progress.clone();
        let of = digest(&current.leaf);
        if progress.of != of {
            progress.of = of;
            progress.window = None;
            progress.ask_at = 0;
        }
        if !self.config.renewal_info {
            progress.window = None;
        } else if progress.ask_at <= now() {
            self.ask_window(target, current, progress).await;
        }
        if progress.window.is_none() {
            progress.renew_at = plan::by_age(current, &self.config);
        }
        if *progress != before
            && let Err(error) = self.state.keep(&target.id, progress)
        {
            tracing::error!(id = target.id, %error, "the state directory cannot be written");
        }
    }

    /// Asks when the authority would like to see us again (RFC 9773 4.2).
    async fn ask_window(
        &mut self,
        target: &Target,
        current: &IssuedCertificate,
        progress: &mut Progress,
    ) {
        let leaf = CertificateDer::from(current.leaf.as_slice());
        let Ok(id) = CertificateIdentifier::try_from(&leaf) else {
            progress.ask_at = u64::MAX;
            return;
        };
        let known = match self.account().await {
            Ok(known) => known,
            Err(trouble) => {
                tracing::warn!(id = target.id, %trouble, "the authority could not be asked when to renew");
                progress.ask_at = now() + WINDOW_PAUSE.min(self.config.retry_max);
                return;
            }
        };
        match known.account.renewal_info(&id).await {
            Ok((info, pause)) => {
                let suggested = &info.suggested_window;
                let seconds = |time: i64| u64::try_from(time).unwrap_or(0);
                let window = (
                    seconds(suggested.start.unix_timestamp()),
                    seconds(suggested.end.unix_timestamp()),
                );
                if progress.window != Some(window) {
                    let share = rand::rng().random::<f64>();
                    progress.renew_at =
                        plan::within(window, share).max(progress.got + SUGGESTED_PAUSE);
                    progress.window = Some(window);
                    let why = info.explanation_url.unwrap_or_default();
                    tracing::info!(
                        id = target.id,
                        from = window.0,
                        to = window.1,
                        chosen = progress.renew_at,
                        why,
                        "the authority suggests when to renew"
                    );
                }
                let pause = pause.as_secs().clamp(WINDOW_MIN, WINDOW_MAX);
                progress.ask_at = now() + pause;
            }
            Err(Error::Unsupported(_)) => {
                progress.window = None;
                progress.ask_at = now() + WINDOW_MAX;
            }
            Err(error) => {
                // RFC 9773 4.3.3: what was suggested before holds.
                tracing::warn!(id = target.id, %error, "the authority does not say when to renew");
                progress.ask_at = now() + WINDOW_PAUSE;
            }
        }
    }

    /// What the operator wants.
    async fn command(&mut self, command: Command) -> Result<OrderedCertificate, Fault> {
        let (Command::Order { id, .. } | Command::Revoke { id, .. }) = &command;
        if !self.targets.iter().any(|target| target.id == *id) {
            self.follow_domains().await;
        }
        let target = self.targets.iter().find(|target| target.id == *id).cloned();
        let Some(target) = target else {
            return Err(self.nothing_such(id));
        };
        let issued = self
            .keyd
            .call(TraceId(0), &IssuedCertificates)
            .await
            .map_err(|error| Fault::new(FaultKind::Temporary, format!("keyd: {error}")))?;
        let current = issued.iter().find(|one| one.id == target.id);
        let mut progress = self.state.progress(&target.id);
        match command {
            Command::Order { renew, .. } => {
                progress.retry_at = 0;
                let due = plan::due(&target, current, &progress);
                if !renew && due.at > now() {
                    return Ok(self.board.show(&target, current, &progress));
                }
                tracing::info!(
                    id = target.id,
                    why = "the operator says so",
                    "a certificate is ordered"
                );
            }
            Command::Revoke { reason, .. } => {
                let current = current.ok_or_else(|| {
                    let text = format!("there is no certificate of an authority for {}", target.id);
                    Fault::new(FaultKind::NotFound, text)
                })?;
                self.revoke(current, reason).await.map_err(told)?;
                tracing::warn!(id = target.id, ?reason, "certificate revoked");
                // Also after a kill: what is revoked is replaced.
                progress.forced = true;
                progress.order = None;
                progress.retry_at = 0;
                self.state
                    .keep(&target.id, &progress)
                    .map_err(|error| told(error.into()))?;
            }
        }
        self.attempt(&target, current, progress).await.map_err(told)
    }

    async fn revoke(
        &mut self,
        current: &IssuedCertificate,
        reason: RevocationReason,
    ) -> Result<(), Trouble> {
        use instant_acme::RevocationReason as Said;
        let known = self.account().await?;
        let leaf = CertificateDer::from(current.leaf.as_slice());
        let request = RevocationRequest {
            certificate: &leaf,
            reason: Some(match reason {
                RevocationReason::Unspecified => Said::Unspecified,
                RevocationReason::KeyCompromise => Said::KeyCompromise,
                RevocationReason::CessationOfOperation => Said::CessationOfOperation,
                RevocationReason::Superseded => Said::Superseded,
            }),
        };
        match known.account.revoke(&request).await.map_err(Trouble::from) {
            Err(trouble) if trouble.is_revoked() => Ok(()),
            other => other,
        }
    }

    fn nothing_such(&self, id: &str) -> Fault {
        let ids: Vec<&str> = self.targets.iter().map(|one| one.id.as_str()).collect();
        let text = match (self.config.enabled, ids.is_empty()) {
            (false, _) => "certd is not enabled: set certd.enabled".to_owned(),
            (true, true) => "the configuration names no certificates".to_owned(),
            (true, false) => format!(
                "the configuration has no certificate {id}; there are {}",
                ids.join(", ")
            ),
        };
        Fault::new(FaultKind::NotFound, text)
    }

    /// Certificates that the configuration does not name any more are used until they expire.
    async fn remove_expired(&self, issued: &[IssuedCertificate]) {
        let wanted = |id: &str| self.targets.iter().any(|target| target.id == id);
        for old in issued
            .iter()
            .filter(|one| !wanted(&one.id) && one.expires <= now())
        {
            let request = CertificateRemove { id: old.id.clone() };
            match self.keyd.call(TraceId(0), &request).await {
                Ok(()) => tracing::info!(
                    id = old.id,
                    "an expired certificate that is not configured any more was removed"
                ),
                Err(error) => tracing::warn!(id = old.id, %error, "an expired certificate stays"),
            }
        }
        for id in self.state.known() {
            if !wanted(&id) && !issued.iter().any(|one| one.id == id) {
                let _ = self.state.forget(&id);
            }
        }
    }
}

fn told(trouble: Trouble) -> Fault {
    let kind = match trouble {
        Trouble::Setting(_) => FaultKind::Invalid,
        _ => FaultKind::Temporary,
    };
    Fault::new(kind, trouble.to_string())
}

/// A tenth of its life is left: somebody must look.
fn ends_soon(current: &IssuedCertificate) -> bool {
    let life = current.expires.saturating_sub(current.begins);
    current.expires.saturating_sub(now()) < life / 10
}

/// A certificate by the hash of its leaf.
fn digest(leaf: &[u8]) -> String {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, leaf);
    hash.as_ref()
        .iter()
        .map(|octet| format!("{octet:02x}"))
        .collect()
}
