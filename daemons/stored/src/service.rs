//! The operations.

use crate::Config;
use crate::committer::{self, Committer, Done, Task, Work, store_fault};
use crate::feed::Feed;
use crate::grants::Grants;
use crate::housekeeping::Housekeeper;
use crate::incoming::{Intake, Prepared};
use crate::mutation::{self, Change};
use crate::uploads::Uploads;
use blob::Blobs;
use ipc::api::stored::{
    Deliver, DeliverTarget, Mutate, Mutated, Mutation, NewMessage, OpenUpload, Provision,
    StoreFigures, StoreStatus, Stored, Subscribe,
};
use ipc::{Client, Context, Fault, FaultKind, Router};
use runtime::Failure;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use store::writer::{Incoming, Once, Quota, Target, Writer, thread_keys};
use tokio::sync::{RwLock, mpsc, oneshot};
use types::{Grant, Rights, Role};

/// Everything behind the operations. Cheap to clone.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

struct Inner {
    config: Config,
    writer: Writer,
    reader: store::Reader,
    intake: Intake,
    uploads: Uploads,
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
        let migrated = match writer.migrate().await {
            Ok(_) => true,
            Err(error) if error.is_temporary() => {
                tracing::error!(%error, "the database is away; changes fail until it is there");
                false
            }
            Err(error) => return Err(failed(&error)),
        };
        let blobs =
            Arc::new(Blobs::open_writer(blob_config, state).map_err(|error| failed(&error))?);
        let keep = Duration::from_secs(config.upload_seconds.max(1));
        let uploads = Uploads::open(&state.join("uploads"), config.uploads, keep)?;
        let outside = Arc::new(RwLock::new(()));
        let feed = Arc::new(Feed::default());
        let trouble = Arc::new(Mutex::new(String::new()));
        let (queue, works) = mpsc::channel(config.waiting.max(1));
        let committer = Committer {
            writer: writer.clone(),
            feed: Arc::clone(&feed),
            trouble: Arc::clone(&trouble),
            batch: config.batch.max(1),
            batch_bytes: config.batch_bytes.max(1),
            migrated,
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
        let (subscribe, status, closed) = (service(), service(), service());
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
            .on(move |context, call: Mutate| {
                let inner = Arc::clone(&mutate);
                async move { inner.mutate(context, call).await }
            })
            .on(move |context: Context, _: Subscribe| {
                subscribe.feed.subscribe(context.connection.clone());
                std::future::ready(Ok(()))
            })
            .on(move |_, _: StoreStatus| {
                let inner = Arc::clone(&status);
                async move { Ok(inner.status().await) }
            })
            .on_closed(move |peer| closed.uploads.close_connection(peer.connection))
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
        if limit != 0 && used.bytes.saturating_add(call.expected) > limit {
            return Err(Fault::new(
                FaultKind::OverQuota,
                "the account has no room for it",
            ));
        }
        match self.uploads.create(context.connection.id()) {
            Ok(Some((slot, file))) => {
                context.attach(file.into());
                Ok(slot)
            }
            Ok(None) => Err(Fault::new(FaultKind::Busy, "too many uploads")),
            Err(error) => Err(Fault::new(FaultKind::Busy, error.to_string())),
        }
    }

    async fn mutate(&self, context: Context, call: Mutate) -> Result<Mutated, Fault> {
        self.check(&context, &call.grant, Rights::WRITE).await?;
        mutation::check(&call.mutation)?;
        let account = call.grant.account;
        let done = match call.mutation {
            Mutation::Append {
                mailbox,
                flags,
                message,
            } => {
                // Sent again over a new connection, it has no upload any more, but perhaps an answer.
                if matches!(message.body, types::Body::Slot { .. }) {
                    let reply = self.writer.reply(account, call.request).await;
                    if let Some(reply) = reply.map_err(|error| store_fault(&error))? {
                        return mutated(committer::repeated(&reply)?);
                    }
                }
                let flags = mutation::flags(&flags)?;
                let prepared = self
                    .intake
                    .prepare(
                        &message.parsed,
                        message.body,
                        context.descriptors,
                        &self.uploads,
                        context.connection.id(),
                    )
                    .await?;
                let incoming = Incoming {
                    account,
                    quota: quota(&call.grant),
                    target: Target::Mailbox(mailbox),
                    once: Once::Request,
                    flags,
                    date: message.date,
                    prefix: Vec::new(),
                    parsed: Arc::clone(&prepared.parsed),
                    threads: thread_keys(account, &prepared.structure),
                    body: Arc::clone(&prepared.body),
                };
                let weight = prepared.body.len + message.parsed.len() as u64;
                let task = Task::Append(call.request, Box::new(incoming));
                let done = self.commit(task, weight).await;
                if done.is_err() {
                    self.abandon(&prepared).await;
                }
                done?
            }
            other => {
                let change = Change {
                    account,
                    quota: quota(&call.grant),
                    mutation: other,
                };
                self.commit(Task::Change(call.request, Box::new(change)), 256)
                    .await?
            }
        };
        mutated(done)
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
        target: Target::Named(target.mailbox),
        once: Once::Delivery(id, target.recipient),
        flags: mutation::flags(&target.flags)?,
        date,
        prefix: target.prefix.0,
        parsed: Arc::clone(&prepared.parsed),
        threads: thread_keys(target.account, &prepared.structure),
        body: Arc::clone(&prepared.body),
    })
}
