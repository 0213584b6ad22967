//! Messages on their way into the store: several in each append, noted in the state file before and after.

use super::source::Item;
use super::state::{Plan, State};
use crate::failure::Failure;
use ipc::api::authd::OperatorGrant;
use ipc::api::stored::{AppendMessage, Mutate, Mutation, MutationResult, NewMessage, OpenUpload};
use ipc::{CallError, Client, FaultKind};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io::Write as _;
use std::time::{Duration, Instant};
use store::{ContentBody, Wanted};
use types::{AccountId, Body, ContentId, Grant, MailboxId, Octets, RequestId, TraceId, Uid};

/// Octets of a message's description at most: it travels in a frame with a body of up to 64 KiB.
const PARSED_MAX: usize = 96 * 1024;
/// Octets of one append's frame, below what a frame takes.
const FRAME_MAX: usize = 150 * 1024;
/// Messages of one append.
const MESSAGES_MAX: usize = 256;
/// Octets of one append that go as files.
const LARGE_MAX: usize = 32 << 20;
/// How long a daemon may be away before the import gives up; it is gone on with later.
const AWAY_MAX: Duration = Duration::from_secs(120);
/// How long one append may take.
const ANSWER: Duration = Duration::from_secs(120);
/// A grant that ends sooner is replaced.
const GRANT_LEFT: u64 = 120;

/// A message that is ready to be appended.
pub(crate) struct Prepared {
    /// What it is.
    pub(crate) item: Item,
    /// Its BLAKE3.
    pub(crate) hash: [u8; 32],
    parsed: Vec<u8>,
}

impl Prepared {
    /// Parses and hashes: for a thread of its own.
    pub(crate) fn new(item: Item) -> Self {
        let limits = message::Limits::default();
        let parsed = message::parse_within(b"", &item.octets, &limits, PARSED_MAX).1;
        Self {
            hash: *blake3::hash(&item.octets).as_bytes(),
            parsed,
            item,
        }
    }

    /// Its hash in hex.
    pub(crate) fn hex(&self) -> String {
        blake3::Hash::from(self.hash).to_hex().to_string()
    }

    fn is_large(&self) -> bool {
        self.item.octets.len() > Body::INLINE_MAX
    }

    fn frame(&self) -> usize {
        let body = if self.is_large() {
            16
        } else {
            self.item.octets.len()
        };
        let flags: usize = self.item.flags.iter().map(|flag| flag.len() + 4).sum();
        self.parsed.len() + body + flags + 64
    }
}

/// Messages of one append.
#[derive(Default)]
pub(crate) struct Batch {
    /// In their order.
    pub(crate) messages: Vec<Prepared>,
    frame: usize,
    large: usize,
}

impl Batch {
    /// Whether one more goes into the same append.
    pub(crate) fn fits(&self, more: &Prepared) -> bool {
        self.messages.is_empty()
            || self.messages.len() < MESSAGES_MAX
                && self.frame + more.frame() <= FRAME_MAX
                && (!more.is_large() || self.large + more.item.octets.len() <= LARGE_MAX)
    }

    /// Adds one.
    pub(crate) fn push(&mut self, more: Prepared) {
        self.frame += more.frame();
        if more.is_large() {
            self.large += more.item.octets.len();
        }
        self.messages.push(more);
    }
}

/// Why an append was not done.
enum Trouble {
    /// The store refuses it, and always will.
    Refused(String),
    /// The import cannot go on now.
    Away(Failure),
}

/// Appends for one account.
pub(crate) struct Appender {
    /// stored.
    pub(crate) stored: Client,
    /// authd.
    pub(crate) authd: Client,
    /// Reads the store.
    pub(crate) reader: store::Reader,
    /// Of this command.
    pub(crate) trace: TraceId,
    /// The account's name.
    pub(crate) name: String,
    /// Its number.
    pub(crate) account: AccountId,
    /// The one in use.
    pub(crate) grant: RefCell<Grant>,
    /// The state file.
    pub(crate) state: RefCell<State>,
}

/// What became of an append.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Messages that are in the store.
    pub(crate) stored: u64,
    /// Keys of those that are not, and why.
    pub(crate) refused: Vec<(String, String)>,
}

impl Appender {
    async fn fresh_grant(&self) -> Result<Grant, CallError> {
        let current = self.grant.borrow().clone();
        if current.expires > crate::time::now() + GRANT_LEFT {
            return Ok(current);
        }
        let request = OperatorGrant {
            account: self.name.clone(),
        };
        let grant = self.authd.call(self.trace, &request).await?;
        *self.grant.borrow_mut() = grant.clone();
        Ok(grant)
    }

    /// Changes something else of the account.
    pub(crate) async fn change(&self, mutation: Mutation) -> Result<MutationResult, CallError> {
        let grant = self.fresh_grant().await?;
        let call = Mutate {
            request: RequestId(rand::random()),
            account: self.account,
            grant,
            mutation,
        };
        self.stored
            .call(self.trace, &call)
            .await
            .map(|mutated| mutated.result)
    }

    /// Appends all, or one by one if all at once is refused.
    pub(crate) async fn append(
        &self,
        folder: &str,
        mailbox: MailboxId,
        batch: Batch,
    ) -> Result<Outcome, Failure> {
        let mut outcome = Outcome::default();
        let mut left = batch.messages.as_slice();
        // After a refusal of several: which of them it is about.
        let mut singly = false;
        while !left.is_empty() {
            let (now, later) = left.split_at(if singly { 1 } else { left.len() });
            match self.attempt(folder, mailbox, now).await {
                Ok(()) => {
                    outcome.stored += now.len() as u64;
                    left = later;
                }
                Err(Trouble::Away(failure)) => return Err(failure),
                Err(Trouble::Refused(_)) if now.len() > 1 => singly = true,
                Err(Trouble::Refused(text)) => {
                    let keys = now.iter().map(|one| one.item.key.clone());
                    outcome.refused.extend(keys.map(|key| (key, text.clone())));
                    left = later;
                }
            }
        }
        Ok(outcome)
    }

    async fn attempt(
        &self,
        folder: &str,
        mailbox: MailboxId,
        messages: &[Prepared],
    ) -> Result<(), Trouble> {
        let found = self.reader.mailbox(self.account, mailbox).await;
        let found = found.map_err(|error| Trouble::Away(error.into()))?;
        let gone = || Trouble::Refused("the mailbox is gone".to_owned());
        let plan = Plan {
            folder: folder.to_owned(),
            mailbox,
            from: found.ok_or_else(gone)?.uidnext,
            items: messages
                .iter()
                .map(|one| (one.item.key.clone(), one.hex()))
                .collect(),
        };
        self.state.borrow_mut().plan(&plan).map_err(Trouble::Away)?;
        let request = RequestId(self.state.borrow().request(self.account.0, &plan));
        match self.send(mailbox, request, messages).await {
            Ok(uids) => {
                let uids: Vec<u32> = uids.iter().map(|uid| uid.0).collect();
                let mut state = self.state.borrow_mut();
                state.settled(folder, &uids).map_err(Trouble::Away)
            }
            Err(Trouble::Refused(text)) => {
                let dropped = self.state.borrow_mut().dropped(folder);
                dropped.map_err(Trouble::Away)?;
                Err(Trouble::Refused(text))
            }
            Err(away) => Err(away),
        }
    }

    /// Sends until there is an answer.
    async fn send(
        &self,
        mailbox: MailboxId,
        request: RequestId,
        messages: &[Prepared],
    ) -> Result<Vec<Uid>, Trouble> {
        let began = Instant::now();
        let mut pause = Duration::from_millis(50);
        loop {
            match self.send_once(mailbox, request, messages).await {
                Ok(uids) if uids.len() == messages.len() => return Ok(uids),
                Ok(uids) => {
                    let text = format!("stored took {} messages of {}", uids.len(), messages.len());
                    return Err(Trouble::Away(Failure::new(text)));
                }
                // An upload is gone with its connection: it is made anew, and the request id stays.
                Err(error) if error.is_temporary() && began.elapsed() < AWAY_MAX => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
                Err(error) => {
                    let refused = matches!(
                        error.fault().map(|fault| fault.kind),
                        Some(FaultKind::Invalid | FaultKind::OverQuota | FaultKind::NotFound)
                    );
                    return Err(if refused {
                        Trouble::Refused(error.to_string())
                    } else {
                        Trouble::Away(crate::connect::explain(types::Role::Stored, error))
                    });
                }
            }
        }
    }

    async fn send_once(
        &self,
        mailbox: MailboxId,
        request: RequestId,
        messages: &[Prepared],
    ) -> Result<Vec<Uid>, CallError> {
        let grant = self.fresh_grant().await?;
        let mut appended = Vec::with_capacity(messages.len());
        for one in messages {
            let body = if one.is_large() {
                self.upload(&grant, &one.item.octets).await?
            } else {
                Body::Inline(Octets(one.item.octets.clone()))
            };
            appended.push(AppendMessage {
                flags: one.item.flags.clone(),
                message: NewMessage {
                    parsed: Octets(one.parsed.clone()),
                    body,
                    date: one.item.date,
                },
            });
        }
        let call = Mutate {
            request,
            account: self.account,
            grant,
            mutation: Mutation::Append {
                mailbox,
                messages: appended,
                replaces: None,
            },
        };
        let (mutated, _) = self
            .stored
            .call_with(self.trace, &call, Vec::new(), ANSWER)
            .await?;
        Ok(match mutated.result {
            MutationResult::Appended { uids, .. } => uids,
            _ => Vec::new(),
        })
    }

    /// Writes a large message into stored's file.
    async fn upload(&self, grant: &Grant, octets: &[u8]) -> Result<Body, CallError> {
        let len = octets.len() as u64;
        let request = OpenUpload {
            grant: grant.clone(),
            account: grant.account,
            expected: len,
        };
        let (slot, descriptors) = self
            .stored
            .call_with(self.trace, &request, Vec::new(), ANSWER)
            .await?;
        let failed = |text: String| {
            CallError::Fault(ipc::Fault::new(
                FaultKind::Temporary,
                format!("an upload: {text}"),
            ))
        };
        let Some(descriptor) = descriptors.into_iter().next() else {
            return Err(failed("stored gave no descriptor".to_owned()));
        };
        let octets = octets.to_vec();
        let written =
            tokio::task::spawn_blocking(move || std::fs::File::from(descriptor).write_all(&octets));
        match written.await {
            Ok(Ok(())) => Ok(Body::Slot { slot, len }),
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// Finds out what became of an append that a kill cut off, by what is in the mailbox. Gives what is to be tried again
    /// in the same form: its request id then makes sure that it is not done twice.
    pub(crate) async fn recover(&self, plan: Plan) -> Result<Option<Plan>, Failure> {
        let folder = plan.folder.clone();
        let hashes = self.hashes(plan.mailbox, Uid(plan.from)).await?;
        let mut uids: HashMap<String, Vec<u32>> = HashMap::new();
        for (uid, hash) in hashes.into_iter().rev() {
            uids.entry(hash).or_default().push(uid);
        }
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for item in plan.items {
            match uids.get_mut(&item.1).and_then(Vec::pop) {
                Some(uid) => found.push((item, uid)),
                None => missing.push(item),
            }
        }
        let mut state = self.state.borrow_mut();
        let (items, uids): (Vec<_>, Vec<_>) = found.into_iter().unzip();
        let rest = |items| Plan {
            folder: folder.clone(),
            mailbox: plan.mailbox,
            from: plan.from,
            items,
        };
        if items.is_empty() {
            state.dropped(&folder)?;
        } else {
            state.plan(&rest(items))?;
            state.settled(&folder, &uids)?;
        }
        Ok((!missing.is_empty()).then(|| rest(missing)))
    }

    /// The BLAKE3 of every message of a mailbox from a UID on, by UID.
    pub(crate) async fn hashes(
        &self,
        mailbox: MailboxId,
        from: Uid,
    ) -> Result<Vec<(u32, String)>, Failure> {
        let mut rows = Vec::new();
        self.reader
            .messages(self.account, mailbox, from, |row| {
                rows.push((row.uid.0, row.content))
            })
            .await?;
        let mut all = Vec::with_capacity(rows.len());
        for part in rows.chunks(64) {
            let ids: Vec<ContentId> = part.iter().map(|(_, content)| *content).collect();
            let hashes = content_hashes(&self.reader, self.account, &ids).await?;
            for (uid, content) in part {
                if let Some(hash) = hashes.get(content) {
                    all.push((*uid, hash.clone()));
                }
            }
        }
        Ok(all)
    }
}

/// The BLAKE3 of contents as clients see them, trace header and body.
pub(crate) async fn content_hashes(
    reader: &store::Reader,
    account: AccountId,
    ids: &[ContentId],
) -> Result<HashMap<ContentId, String>, Failure> {
    let wanted = Wanted {
        prefix: true,
        parsed: false,
        body: true,
    };
    let mut contents = Vec::new();
    reader
        .contents(account, ids, wanted, |content| contents.push(content))
        .await?;
    let mut hashes = HashMap::with_capacity(contents.len());
    for content in contents {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&content.prefix);
        match content.body {
            ContentBody::Octets(octets) => hasher.update(&octets),
            ContentBody::Outside { blob, .. } => hasher.update(&reader.body(blob).await?),
            ContentBody::None => &mut hasher,
        };
        hashes.insert(content.id, hasher.finalize().to_hex().to_string());
    }
    Ok(hashes)
}
