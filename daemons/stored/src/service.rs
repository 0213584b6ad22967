//! The operations.

use crate::Config;
use crate::committer::{self, Appending, Committer, Done, Task, Work, store_fault};
use crate::feed::Feed;
use crate::grants::Grants;
use crate::housekeeping::Housekeeper;
use crate::incoming::{Intake, Prepared};
use crate::maildrops::Maildrops;
use crate::mutation::{self, Change};
use crate::rights::Asked;
use crate::uploads::Uploads;
use blob::Blobs;
use ipc::api::stored::{
    AccountErase, AppendMessage, CloseUpload, Deliver, DeliverTarget, Examine, ExamineObjects,
    Examined, ExaminedObjects, Finding, HoldMaildrop, Mutate, Mutated, Mutation, NewMessage,
    OpenUpload, Provision, ReleaseMaildrop, Remember, StoreFigures, StoreStatus, Stored, Subscribe,
};
use ipc::{Client, Context, Fault, FaultKind, Router};
use runtime::Failure;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use store::writer::{Incoming, Once, Quota, Target, Writer, thread_keys};
use tokio::sync::{RwLock, mpsc, oneshot};
use types::{AccountId, Grant, MailboxId, RequestId, Rights, Role};

/// Everything behind the operations. Cheap to clone.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

struct Inner {
    config: Config,
    writer: Writer,
    reader: store::Reader,
    intake: Intake,
    uploads: Uploads,
    maildrops: Maildrops,
    /// Names and limits that were noted already.
    owners: Mutex<HashMap<AccountId, (String, Quota)>>,
    grants: Grants,
    feed: Arc<Feed>,
    trouble: Arc<Mutex<String>>,
    blob_kind: &'static str,
    queue: Mutex<Option<mpsc::Sender<Work>>>,
    committer: Mutex<Option<tokio::task::JoinHandle<()>>>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "store on {}", self.database())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Service {
    /// Opens the store below `state` and starts the tasks. A database server may be away: then changes fail as temporary until
    /// it is there.
    ///
    /// # Errors
    /// A database file that cannot be opened, a schema of a later version, directories that cannot be made.
    pub async fn open(
        config: Config,
        store: &store::Config,
        blob_config: &blob::Config,
        state: &Path,
        keyd: Client,
    ) -> Result<Self, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::new(format!("the store: {error}"));
        let writer = Writer::open(store, state)
            .await
            .map_err(|error| failed(&error))?;
        let points = sql::Points {
            folder: state.to_owned(),
            keep: config.backup_points,
        };
        let (migrated, trouble) = match writer.migrate_with_point(&points).await {
            Ok(_) => (true, String::new()),
            Err(error) if error.is_temporary() => {
                tracing::error!(%error, "the database is not ready; changes fail until it is");
                (false, error.to_string())
            }
            Err(error) => return Err(failed(&error)),
        };
        let blobs =
            Arc::new(Blobs::open_writer(blob_config, state).map_err(|error| failed(&error))?);
        let keep = Duration::from_secs(config.upload_seconds.max(1));
        let uploads = Uploads::open(&state.join("uploads"), config.uploads, keep)?;
        let outside = Arc::new(RwLock::new(()));
        let feed = Arc::new(Feed::default());
        let trouble = Arc::new(Mutex::new(trouble));
        let (queue, works) = mpsc::channel(config.waiting.max(1));
        let committer = Committer {
            writer: writer.clone(),
            feed: Arc::clone(&feed),
            trouble: Arc::clone(&trouble),
            batch: config.batch.max(1),
            batch_bytes: config.batch_bytes.max(1),
            migrated,
            points,
            away: None,
            sizes: runtime::metrics::counter("stored_changes_total", "Changes that were committed"),
            commits: runtime::metrics::counter(
                "stored_commits_total",
                "Transactions that were committed",
            ),
            took: runtime::metrics::histogram("stored_commit_seconds", "Time of a transaction"),
        };
        let housekeeper = Housekeeper {
            writer: writer.clone(),
            blobs: Arc::clone(&blobs),
            outside: Arc::clone(&outside),
            queue: queue.downgrade(),
        };
        tokio::spawn(housekeeper.run(config.clone()));
        let committer = tokio::spawn(committer.run(works));
        Ok(Self(Arc::new(Inner {
            intake: Intake {
                blobs: Arc::clone(&blobs),
                inline_max: blob_config.inline_max,
                level: blob_config.zstd_level,
                message_bytes: config.message_bytes,
                outside,
            },
            reader: writer.reader(blobs),
            writer,
            uploads,
            maildrops: Maildrops::default(),
            owners: Mutex::default(),
            grants: Grants::new(keyd, config.grants),
            feed,
            trouble,
            blob_kind: match blob_config.kind {
                blob::Kind::Fs => "fs",
                blob::Kind::S3 => "s3",
            },
            queue: Mutex::new(Some(queue)),
            committer: Mutex::new(Some(committer)),
            config,
        })))
    }

    /// Which database.
    pub fn database(&self) -> &'static str {
        self.0.writer.database()
    }

    /// Why the store cannot be written now; empty if it can.
    pub fn trouble(&self) -> String {
        lock(&self.0.trouble).clone()
    }

    /// Finishes what was accepted, and ends the tasks. Nothing is accepted any more.
    pub async fn finish(&self) {
        lock(&self.0.queue).take();
        let committer = lock(&self.0.committer).take();
        if let Some(committer) = committer
            && let Err(error) = committer.await
        {
            tracing::error!(%error, "the committer failed");
        }
    }

    /// The operations.
    pub fn router(&self) -> Router {
        let service = || Arc::clone(&self.0);
        let (deliver, provision, upload, mutate) = (service(), service(), service(), service());
        let (subscribe, status, closed, close) = (service(), service(), service(), service());
        let (hold, release, remember, erase) = (service(), service(), service(), service());
        let (examine, objects) = (service(), service());
        Router::new(Role::Stored)
            .on(move |context, call: Deliver| {
                let inner = Arc::clone(&deliver);
                async move { inner.deliver(context, call).await }
            })
            .on(move |context, call: Provision| {
                let inner = Arc::clone(&provision);
                async move { inner.provision(context, call).await }
            })
            .on(move |context, call: OpenUpload| {
                let inner = Arc::clone(&upload);
                async move { inner.open_upload(context, call).await }
            })
            .on(move |context: Context, call: CloseUpload| {
                close.uploads.close(call.slot, context.connection.id());
                std::future::ready(Ok(()))
            })
            .on(move |context, call: Mutate| {
                let inner = Arc::clone(&mutate);
                async move { inner.mutate(context, call).await }
            })
            .on(move |context: Context, _: Subscribe| {
                subscribe.feed.subscribe(context.connection.clone());
                std::future::ready(Ok(()))
            })
            .on(move |context, call: HoldMaildrop| {
                let inner = Arc::clone(&hold);
                async move { inner.hold(context, call).await }
            })
            .on(move |_, call: ReleaseMaildrop| {
                release.maildrops.release(call.account, call.holder);
                std::future::ready(Ok(()))
            })
            .on(move |_, call: Remember| {
                let inner = Arc::clone(&remember);
                async move { inner.remember(call).await }
            })
            .on(move |_, call: AccountErase| {
                let inner = Arc::clone(&erase);
                async move { inner.commit(Task::Erase(call.account), 0).await.map(drop) }
            })
            .on(move |_, call: Examine| {
                let inner = Arc::clone(&examine);
                async move { inner.examine(call).await }
            })
            .on(move |_, call: ExamineObjects| {
                let inner = Arc::clone(&objects);
                async move { inner.examine_objects(call).await }
            })
            .on(move |_, _: StoreStatus| {
                let inner = Arc::clone(&status);
                async move { Ok(inner.status().await) }
            })
            .on_closed(move |peer| {
                closed.uploads.close_connection(peer.connection);
                closed.maildrops.closed(peer.connection);
            })
    }
}

fn quota(grant: &Grant) -> Quota {
    Quota {
        bytes: grant.quota_bytes,
        messages: grant.quota_messages,
    }
}

fn unexpected() -> Fault {
    Fault::new(FaultKind::Internal, "an answer of another kind")
}

impl Inner {
    /// Gives work to the committer and waits until it is durable.
    async fn commit(&self, task: Task, weight: u64) -> Result<Done, Fault> {
        let (done, answer) = oneshot::channel();
        let queue = lock(&self.queue).clone();
        let ending = || Fault::new(FaultKind::Temporary, "the store is ending");
        let queue = queue.ok_or_else(ending)?;
        let work = Work { task, weight, done };
        queue.try_send(work).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                Fault::new(FaultKind::Busy, "too many changes are waiting")
            }
            mpsc::error::TrySendError::Closed(_) => ending(),
        })?;
        drop(queue);
        answer.await.map_err(|_| ending())?
    }

    async fn deliver(
        &self,
        context: Context,
        call: Deliver,
    ) -> Result<Vec<Result<Stored, Fault>>, Fault> {
        if call.targets.is_empty() || call.targets.len() > 1000 {
            return Err(Fault::new(
                FaultKind::Invalid,
                "a delivery has 1 to 1000 targets",
            ));
        }
        let NewMessage { parsed, body, date } = call.message;
        let prepared = self
            .intake
            .prepare(
                &parsed,
                body,
                context.descriptors,
                &self.uploads,
                context.connection.id(),
            )
            .await?;
        let mut messages = Vec::with_capacity(call.targets.len());
        // A target with bad flags does not spoil the others.
        let mut bad = Vec::new();
        for (at, target) in call.targets.into_iter().enumerate() {
            match incoming(call.id, target, &prepared, date) {
                Ok(message) => messages.push(message),
                Err(fault) => bad.push((at, fault)),
            }
        }
        let weight = prepared.body.len + (parsed.len() as u64 + 512) * messages.len() as u64;
        let done = self.commit(Task::Deliver(messages), weight).await;
        let taken =
            matches!(&done, Ok(Done::Delivered(results)) if results.iter().any(Result::is_ok));
        if !taken {
            self.abandon(&prepared).await;
        }
        match done? {
            Done::Delivered(mut results) => {
                for (at, fault) in bad {
                    results.insert(at.min(results.len()), Err(fault));
                }
                Ok(results)
            }
            _ => Err(unexpected()),
        }
    }

    /// A body outside of the database for which no row was written: the collector looks whether anybody else has it.
    async fn abandon(&self, prepared: &Prepared) {
        if prepared.body.data.is_none()
            && let Err(error) = self.writer.abandon(prepared.body.id).await
        {
            tracing::warn!(%error, blob = %prepared.body.id, "a body that is not needed may stay in the storage");
        }
    }

    async fn check(&self, context: &Context, grant: &Grant, rights: Rights) -> Result<(), Fault> {
        let now = u64::try_from(committer::now()).unwrap_or_default();
        self.grants.check(context.trace, grant, rights, now).await
    }

    async fn provision(&self, context: Context, call: Provision) -> Result<(), Fault> {
        self.check(&context, &call.grant, Rights::READ).await?;
        // Once in an account's life there is something to do: look before the committer is asked.
        let known = self.reader.account(call.grant.account).await;
        if matches!(known, Ok(Some(_))) {
            return Ok(());
        }
        match self.commit(Task::Provision(call.grant.account), 0).await? {
            Done::Provisioned => Ok(()),
            _ => Err(unexpected()),
        }
    }

    async fn open_upload(&self, context: Context, call: OpenUpload) -> Result<u64, Fault> {
        self.check(&context, &call.grant, Rights::WRITE).await?;
        if call.expected > self.config.message_bytes {
            return Err(Fault::new(FaultKind::Invalid, "the message is too large"));
        }
        let used = self
            .reader
            .account(call.grant.account)
            .await
            .map_err(|error| store_fault(&error))?
            .unwrap_or_default();
        let limit = call.grant.quota_bytes;
        // What somebody else has room for is told to those only who may append there, by Mutate.
        let own = call.account == call.grant.account;
        if own && limit != 0 && used.bytes.saturating_add(call.expected) > limit {
            return Err(Fault::new(
                FaultKind::OverQuota,
                "the account has no room for it",
            ));
        }
        let connection = context.connection.id();
        match self.uploads.create(connection, call.grant.account) {
            Ok(Some((slot, file))) => {
                context.attach(file.into());
                Ok(slot)
            }
            Ok(None) => Err(Fault::new(FaultKind::Busy, "too many uploads")),
            Err(error) => Err(Fault::new(FaultKind::Busy, error.to_string())),
        }
    }

    async fn mutate(&self, context: Context, mut call: Mutate) -> Result<Mutated, Fault> {
        self.check(&context, &call.grant, Rights::WRITE).await?;
        mutation::check(&call.mutation)?;
        self.note_owner(&call.grant).await?;
        let asked = Asked {
            reader: &self.reader,
            grant: &call.grant,
            account: call.account,
        };
        asked.allow(&mut call.mutation).await?;
        let target = match &call.mutation {
            Mutation::Copy { target, .. } | Mutation::Move { target, .. } => {
                asked.target(*target).await?
            }
            _ => call.account,
        };
        let quota = self.quota(&call.grant, target).await?;
        let by = call.grant.account;
        let done = match call.mutation {
            Mutation::Append {
                mailbox,
                messages,
                replaces,
            } => {
                self.append(
                    context,
                    (by, call.request),
                    (call.account, mailbox, quota),
                    messages,
                    replaces,
                )
                .await?
            }
            mutation => {
                let change = Change {
                    by,
                    account: call.account,
                    target,
                    limits: self.config.limits(),
                    quota,
                    mutation,
                };
                self.commit(Task::Change(call.request, Box::new(change)), 256)
                    .await?
            }
        };
        mutated(done)
    }

    async fn append(
        &self,
        context: Context,
        (by, request): (AccountId, RequestId),
        (account, mailbox, quota): (AccountId, MailboxId, Quota),
        messages: Vec<AppendMessage>,
        replaces: Option<(MailboxId, types::Uid)>,
    ) -> Result<Done, Fault> {
        if messages.is_empty() || messages.len() > 1000 {
            return Err(Fault::new(
                FaultKind::Invalid,
                "an APPEND has 1 to 1000 messages",
            ));
        }
        // Sent again over a new connection, it has no upload any more, but perhaps an answer.
        let uploaded = |one: &AppendMessage| matches!(one.message.body, types::Body::Slot { .. });
        if messages.iter().any(uploaded) {
            let reply = self.writer.reply(by, request).await;
            if let Some(reply) = reply.map_err(|error| store_fault(&error))? {
                return committer::repeated(&reply);
            }
        }
        let mut weight = 0;
        let mut all = Vec::with_capacity(messages.len());
        let mut prepared = Vec::with_capacity(messages.len());
        let mut descriptors = context.descriptors;
        for AppendMessage { flags, message } in messages {
            let flags = mutation::flags(&flags)?;
            let attached = matches!(message.body, types::Body::Attached { .. });
            let mine = if attached && !descriptors.is_empty() {
                vec![descriptors.remove(0)]
            } else {
                Vec::new()
            };
            let connection = context.connection.id();
            let ready = self
                .intake
                .prepare(
                    &message.parsed,
                    message.body,
                    mine,
                    &self.uploads,
                    connection,
                )
                .await;
            let ready = match ready {
                Ok(ready) => ready,
                Err(fault) => {
                    for other in &prepared {
                        self.abandon(other).await;
                    }
                    return Err(fault);
                }
            };
            weight += ready.body.len + message.parsed.len() as u64;
            all.push(Incoming {
                account,
                quota,
                target: Target::Mailbox(mailbox),
                create: false,
                once: Once::Request,
                flags,
                date: message.date,
                prefix: Vec::new(),
                parsed: Arc::clone(&ready.parsed),
                threads: thread_keys(account, &ready.structure),
                body: Arc::clone(&ready.body),
            });
            prepared.push(ready);
        }
        let appending = Appending {
            by,
            messages: all,
            replaces,
        };
        let done = self
            .commit(Task::Append(request, Box::new(appending)), weight)
            .await;
        if done.is_err() {
            for ready in &prepared {
                self.abandon(ready).await;
            }
        }
        done
    }

    /// What an account may hold: its own grant says it, or for somebody else's the last one that was seen.
    async fn quota(&self, grant: &Grant, account: AccountId) -> Result<Quota, Fault> {
        if grant.account == account {
            return Ok(quota(grant));
        }
        let (bytes, messages) = self
            .reader
            .quota(account)
            .await
            .map_err(|error| store_fault(&error))?;
        Ok(Quota { bytes, messages })
    }

    /// Keeps the account's name and limits, for those it shares its mail with.
    async fn note_owner(&self, grant: &Grant) -> Result<(), Fault> {
        let mine = (grant.name.clone(), quota(grant));
        if lock(&self.owners).get(&grant.account) == Some(&mine) {
            return Ok(());
        }
        let task = Task::Owner(grant.account, mine.0.clone(), mine.1);
        self.commit(task, 0).await?;
        let mut owners = lock(&self.owners);
        if owners.len() >= self.config.grants.max(1) {
            owners.clear();
        }
        owners.insert(grant.account, mine);
        Ok(())
    }

    async fn hold(&self, context: Context, call: HoldMaildrop) -> Result<bool, Fault> {
        self.check(&context, &call.grant, Rights::READ).await?;
        let connection = context.connection.id();
        Ok(self
            .maildrops
            .hold(call.grant.account, connection, call.holder))
    }

    async fn remember(&self, call: Remember) -> Result<(), Fault> {
        if call.notes.len() > 1000 {
            return Err(Fault::new(FaultKind::Invalid, "too many notes"));
        }
        let task = Task::Note(call.account, call.id, call.notes);
        self.commit(task, 0).await.map(drop)
    }

    async fn examine(&self, call: Examine) -> Result<Examined, Fault> {
        let found = self
            .writer
            .examine(&self.intake.blobs, call.from, call.repair, call.bodies)
            .await
            .map_err(|error| store_fault(&error))?;
        let finding = |(text, mendable)| Finding { text, mendable };
        Ok(Examined {
            account: found.account,
            messages: found.messages,
            findings: found.findings.into_iter().map(finding).collect(),
        })
    }

    async fn examine_objects(&self, call: ExamineObjects) -> Result<ExaminedObjects, Fault> {
        let now = u64::try_from(committer::now()).unwrap_or_default();
        let found = self
            .writer
            .examine_objects(&self.intake.blobs, call.first, call.repair, now)
            .await
            .map_err(|error| store_fault(&error))?;
        let finding = |(text, mendable)| Finding { text, mendable };
        Ok(ExaminedObjects {
            objects: found.objects,
            orphans: found.orphans,
            bytes: found.bytes,
            findings: found.findings.into_iter().map(finding).collect(),
        })
    }

    async fn status(&self) -> StoreFigures {
        let mut figures = StoreFigures {
            database: self.writer.database().to_owned(),
            schema: store::MIGRATIONS.last().map_or(0, |last| last.version),
            blobs: self.blob_kind.to_owned(),
            trouble: lock(&self.trouble).clone(),
            ..StoreFigures::default()
        };
        match self.writer.figures().await {
            Ok(found) => {
                figures.accounts = found.accounts;
                figures.messages = found.messages;
                figures.bytes = found.bytes;
            }
            Err(error) => figures.trouble = error.to_string(),
        }
        figures
    }
}

fn mutated(done: Done) -> Result<Mutated, Fault> {
    match done {
        Done::Mutated(mutated) => Ok(*mutated),
        _ => Err(unexpected()),
    }
}

fn incoming(
    id: types::QueueId,
    target: DeliverTarget,
    prepared: &Prepared,
    date: i64,
) -> Result<Incoming, Fault> {
    Ok(Incoming {
        account: target.account,
        quota: Quota {
            bytes: target.quota_bytes,
            messages: target.quota_messages,
        },
        target: Target::Named(store::canonical(&target.mailbox).into_owned()),
        create: target.create,
        once: Once::Delivery(id, target.recipient),
        flags: mutation::flags(&target.flags)?,
        date,
        prefix: target.prefix.0,
        parsed: Arc::clone(&prepared.parsed),
        threads: thread_keys(target.account, &prepared.structure),
        body: Arc::clone(&prepared.body),
    })
}
