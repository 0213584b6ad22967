//! The one task that writes: it takes what has gathered, does it in one transaction, and answers all.

use crate::feed::Feed;
use crate::mutation::{self, Change, refused};
use ipc::api::stored::{Mutated, MutationResult, Stored};
use ipc::{Fault, FaultKind};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use store::writer::{
    Batch, Collected, Incoming, Placed, Quota, Refusal, Retention, Target, Touched, Writer,
};
use tokio::sync::{mpsc, oneshot};
use types::{AccountId, MailboxId, QueueId, RequestId, Uid};

/// What is to be written, and who waits for it.
pub(crate) struct Work {
    pub(crate) task: Task,
    /// Octets, for the limit of a transaction.
    pub(crate) weight: u64,
    pub(crate) done: oneshot::Sender<Result<Done, Fault>>,
}

/// A piece of work; kept until it is committed, so that it can be tried again.
pub(crate) enum Task {
    /// A message for some mailboxes.
    Deliver(Vec<Incoming>),
    /// APPEND, and what it replaces: all or none.
    Append(RequestId, Box<Appending>),
    /// Any other change.
    Change(RequestId, Box<Change>),
    /// The standard mailboxes.
    Provision(AccountId),
    /// An account's name and limits.
    Owner(AccountId, String, Quota),
    /// What a script must not do again.
    Note(AccountId, QueueId, Vec<(u64, i64)>),
    /// All of an account.
    Erase(AccountId),
    /// A step of the collector; alone in its transaction.
    Collect,
    /// A step of forgetting; alone in its transaction.
    Trim(Retention),
}

/// APPEND: 1 to 1000 messages for one mailbox.
pub(crate) struct Appending {
    /// Who asks.
    pub(crate) by: AccountId,
    pub(crate) messages: Vec<Incoming>,
    /// REPLACE (RFC 8508): what goes when they have come.
    pub(crate) replaces: Option<(MailboxId, Uid)>,
}

/// The answers.
#[derive(Clone, Debug)]
pub(crate) enum Done {
    Delivered(Vec<Result<Stored, Fault>>),
    Mutated(Box<Mutated>),
    Provisioned,
    Collected(Collected),
}

pub(crate) fn now() -> i64 {
    std::time::UNIX_EPOCH
        .elapsed()
        .map_or(0, |time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
}

/// What a broken store is to a caller.
pub(crate) fn store_fault(error: &store::Error) -> Fault {
    let full = match error {
        store::Error::Sql(error) => error.kind() == sql::Kind::Full,
        store::Error::Blob(error) => matches!(error, blob::BlobError::Full(_)),
        store::Error::Damaged(_) => false,
    };
    let kind = if full {
        FaultKind::Busy
    } else if error.is_temporary() {
        FaultKind::Temporary
    } else {
        FaultKind::Internal
    };
    Fault::new(kind, error.to_string())
}

/// How often a transaction is tried again when somebody else was in its way.
const TRIES: usize = 4;
/// Between two tries to reach a database that is away.
const PAUSE: Duration = Duration::from_millis(500);

pub(crate) struct Committer {
    pub(crate) writer: Writer,
    pub(crate) feed: Arc<Feed>,
    pub(crate) trouble: Arc<Mutex<String>>,
    pub(crate) batch: usize,
    pub(crate) batch_bytes: u64,
    /// The schema is known to be right.
    pub(crate) migrated: bool,
    /// What is made before it is changed.
    pub(crate) points: sql::Points,
    /// When the database was last seen to be away.
    pub(crate) away: Option<Instant>,
    pub(crate) sizes: runtime::metrics::Counter,
    pub(crate) commits: runtime::metrics::Counter,
    pub(crate) took: runtime::metrics::Histogram,
}

type Answers = Vec<Result<Done, Fault>>;

impl Committer {
    /// Works until all senders are gone and all is done.
    pub(crate) async fn run(mut self, mut queue: mpsc::Receiver<Work>) {
        let mut next: Vec<Work> = Vec::new();
        loop {
            if next.is_empty() {
                match queue.recv().await {
                    Some(work) => next.push(work),
                    None => return,
                }
            }
            let mut weight: u64 = next.iter().map(|work| work.weight).sum();
            while next.len() < self.batch
                && weight < self.batch_bytes
                && let Ok(work) = queue.try_recv()
            {
                weight += work.weight;
                next.push(work);
            }
            let (together, later) = compatible(std::mem::take(&mut next));
            next = later;
            self.settle(together).await;
        }
    }

    /// Does these works, together if that can be, and answers them.
    async fn settle(&mut self, works: Vec<Work>) {
        let began = Instant::now();
        match self.attempt(&works).await {
            Ok((answers, touched)) => {
                self.commits.add_one();
                self.sizes.add(works.len() as u64);
                self.took.observe(began.elapsed());
                for (work, answer) in works.into_iter().zip(answers) {
                    // A caller that is gone asks again, and gets the same answer.
                    let _ = work.done.send(answer);
                }
                self.feed.publish(touched);
            }
            Err(error) if error.is_temporary() || works.len() == 1 => {
                let fault = store_fault(&error);
                tracing::error!(%error, works = works.len(), "a transaction failed");
                for work in works {
                    let _ = work.done.send(Err(fault.clone()));
                }
            }
            Err(error) => {
                tracing::warn!(%error, works = works.len(), "a transaction failed; its changes are tried one by one");
                for work in works {
                    Box::pin(self.settle(vec![work])).await;
                }
            }
        }
    }

    async fn attempt(&mut self, works: &[Work]) -> Result<(Answers, Touched), store::Error> {
        // While the database is away each try costs a timeout: those that wait meanwhile fail with the first one.
        if self.away.is_some_and(|since| since.elapsed() < PAUSE) {
            let text = self
                .trouble
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            return Err(sql::Error::new(sql::Kind::Unavailable, text).into());
        }
        let mut tries = 0;
        loop {
            tries += 1;
            let result = self.transaction(works).await;
            self.note(result.as_ref().err());
            match result {
                Err(store::Error::Sql(error))
                    if error.kind() == sql::Kind::Busy && tries < TRIES =>
                {
                    tracing::debug!(%error, tries, "a transaction is tried again");
                }
                other => return other,
            }
        }
    }

    /// Remembers whether the store can be written, and says it once.
    fn note(&mut self, error: Option<&store::Error>) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match error {
            None => {
                if !trouble.is_empty() {
                    tracing::info!("the store can be written again");
                    trouble.clear();
                }
                self.away = None;
            }
            Some(error) if error.is_temporary() => {
                *trouble = error.to_string();
                self.away = Some(Instant::now());
            }
            Some(_) => {}
        }
    }

    async fn transaction(&mut self, works: &[Work]) -> Result<(Answers, Touched), store::Error> {
        if !self.migrated {
            self.writer.migrate_with_point(&self.points).await?;
            self.migrated = true;
        }
        let mut batch = self.writer.begin(now()).await?;
        let answers = fill(&mut batch, works).await;
        match answers {
            Ok(answers) => Ok((answers, batch.commit().await?)),
            Err(error) => {
                if let Err(error) = batch.rollback().await {
                    tracing::debug!(%error, "a rollback failed");
                }
                Err(error)
            }
        }
    }
}

/// Splits off what must not be in one transaction with the others: a request that is in it already, and the collector.
fn compatible(works: Vec<Work>) -> (Vec<Work>, Vec<Work>) {
    let mut requests: HashSet<(AccountId, RequestId)> = HashSet::new();
    let mut together = Vec::with_capacity(works.len());
    let mut later = Vec::new();
    for work in works {
        let fits = match &work.task {
            Task::Append(request, appending) => requests.insert((appending.by, *request)),
            Task::Change(request, change) => requests.insert((change.by, *request)),
            Task::Deliver(_) | Task::Provision(_) | Task::Owner(..) | Task::Note(..) => true,
            Task::Collect | Task::Trim(_) | Task::Erase(_) => together.is_empty(),
        };
        let alone = together.first().is_some_and(|first: &Work| {
            matches!(first.task, Task::Collect | Task::Trim(_) | Task::Erase(_))
        });
        if fits && !alone {
            together.push(work);
        } else {
            later.push(work);
        }
    }
    (together, later)
}

type Replies = HashMap<(AccountId, RequestId), Vec<u8>>;

/// Does all works in the batch; the answers in their order.
async fn fill(batch: &mut Batch, works: &[Work]) -> Result<Answers, store::Error> {
    let requests: Vec<(AccountId, RequestId)> = works
        .iter()
        .filter_map(|work| match &work.task {
            Task::Append(request, appending) => Some((appending.by, *request)),
            Task::Change(request, change) => Some((change.by, *request)),
            _ => None,
        })
        .collect();
    let replies = batch.repeated(&requests).await?;
    let mut remember = Vec::new();
    let mut placed = put(batch, works, &replies).await?.into_iter();
    let mut answers = Vec::with_capacity(works.len());
    for work in works {
        let answer = match &work.task {
            Task::Deliver(incoming) => {
                let results = placed.by_ref().take(incoming.len());
                Ok(Done::Delivered(
                    results
                        .map(|result| result.map(stored).map_err(|refusal| refused(&refusal)))
                        .collect(),
                ))
            }
            Task::Append(request, appending) => {
                let key = (appending.by, *request);
                if let Some(reply) = replies.get(&key) {
                    answers.push(repeated(reply));
                    continue;
                }
                let results: Vec<_> = placed.by_ref().take(appending.messages.len()).collect();
                match append(batch, appending, results, works.len() == 1).await? {
                    Ok(mutated) => note(&mut remember, key, mutated),
                    Err(fault) => Err(fault),
                }
            }
            Task::Change(request, change) => {
                let key = (change.by, *request);
                if let Some(reply) = replies.get(&key) {
                    answers.push(repeated(reply));
                    continue;
                }
                match mutation::apply(batch, change).await? {
                    Ok(result) => {
                        let modseq = batch.modseq(change.account);
                        note(&mut remember, key, Mutated { modseq, result })
                    }
                    Err(fault) => Err(fault),
                }
            }
            Task::Provision(account) => {
                batch.provision(&[*account]).await?;
                Ok(Done::Provisioned)
            }
            Task::Owner(account, name, quota) => {
                batch.note_owner(*account, name, *quota).await?;
                Ok(Done::Provisioned)
            }
            Task::Note(account, id, notes) => {
                batch.note(*account, *id, notes).await?;
                Ok(Done::Provisioned)
            }
            Task::Erase(account) => {
                batch.erase(*account).await?;
                Ok(Done::Provisioned)
            }
            Task::Collect => Ok(Done::Collected(batch.collect().await?)),
            Task::Trim(keep) => Ok(Done::Collected(batch.trim(*keep).await?)),
        };
        answers.push(answer);
    }
    batch.remember(remember);
    Ok(answers)
}

/// Puts the new messages of all works, in their order.
async fn put(
    batch: &mut Batch,
    works: &[Work],
    replies: &Replies,
) -> Result<Vec<Result<Placed, Refusal>>, store::Error> {
    let mut incoming: Vec<&Incoming> = Vec::new();
    for work in works {
        match &work.task {
            Task::Deliver(messages) => incoming.extend(messages),
            Task::Append(request, appending)
                if !replies.contains_key(&(appending.by, *request)) =>
            {
                incoming.extend(&appending.messages);
            }
            _ => {}
        }
    }
    for message in &incoming {
        if let (true, Target::Named(name)) = (message.create, &message.target) {
            batch.ensure(message.account, name).await?;
        }
    }
    batch.put(&incoming).await
}

/// The results of an APPEND's messages as one. If some were taken and others not, the transaction is given up: alone in one,
/// the change is then refused.
async fn append(
    batch: &mut Batch,
    appending: &Appending,
    results: Vec<Result<Placed, Refusal>>,
    alone: bool,
) -> Result<Result<Mutated, Fault>, store::Error> {
    let mut placed = Vec::with_capacity(results.len());
    let mut refusal = None;
    for result in results {
        match result {
            Ok(done) => placed.push(done),
            Err(reason) => refusal = Some(reason),
        }
    }
    if let Some(refusal) = refusal {
        if placed.is_empty() {
            return Ok(Err(refused(&refusal)));
        }
        if !alone {
            return Err(store::Error::Damaged(
                "a part of an APPEND was refused".to_owned(),
            ));
        }
        batch.give_up();
        return Ok(Err(refused(&refusal)));
    }
    let Some(first) = placed.first() else {
        return Ok(Err(Fault::new(FaultKind::Invalid, "there is no message")));
    };
    let mut modseq = placed
        .iter()
        .map(|one| one.modseq)
        .max()
        .unwrap_or_default();
    if let (Some((mailbox, uid)), Some(message)) = (appending.replaces, appending.messages.first())
    {
        let gone = [(uid.0, uid.0)];
        batch.replace(message.account, mailbox, &gone).await?;
        modseq = batch.modseq(message.account);
    }
    Ok(Ok(Mutated {
        modseq,
        result: MutationResult::Appended {
            uidvalidity: first.uidvalidity,
            uids: placed.iter().map(|one| one.uid).collect(),
        },
    }))
}

fn note(
    remember: &mut Vec<(AccountId, RequestId, Vec<u8>)>,
    key: (AccountId, RequestId),
    mutated: Mutated,
) -> Result<Done, Fault> {
    let reply = postcard::to_allocvec(&mutated)
        .map_err(|error| Fault::new(FaultKind::Internal, error.to_string()))?;
    remember.push((key.0, key.1, reply));
    Ok(Done::Mutated(Box::new(mutated)))
}

pub(crate) fn repeated(reply: &[u8]) -> Result<Done, Fault> {
    postcard::from_bytes(reply)
        .map(|mutated| Done::Mutated(Box::new(mutated)))
        .map_err(|_| {
            Fault::new(
                FaultKind::Internal,
                "the first answer to this request cannot be read",
            )
        })
}

fn stored(placed: Placed) -> Stored {
    Stored {
        mailbox: placed.mailbox,
        uid: placed.uid,
        modseq: placed.modseq,
        duplicate: placed.duplicate,
    }
}
