//! New messages: deliveries and APPEND, many at a time.

use super::provision::STANDARD;
use super::{Batch, Quota, Refusal};
use crate::Error;
use crate::flags::{Flags, SystemFlags};
use crate::reader_hash;
use sql::{Row, Statement, Value, args};
use std::collections::HashMap;
use std::sync::Arc;
use types::{AccountId, BlobId, ContentId, MailboxId, ModSeq, QueueId, Uid};

/// A message on its way into a mailbox.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// Whose.
    pub account: AccountId,
    /// What the account may hold.
    pub quota: Quota,
    /// Where to.
    pub target: Target,
    /// Make the mailbox of [`Target::Named`] if it is not there: see [`Batch::ensure`].
    pub create: bool,
    /// What makes it happen once.
    pub once: Once,
    /// Its flags.
    pub flags: Flags,
    /// INTERNALDATE, seconds since 1970.
    pub date: i64,
    /// Trace header fields before the body.
    pub prefix: Vec<u8>,
    /// [`pack`]ed [`message::Parsed`].
    pub parsed: Arc<Vec<u8>>,
    /// [`thread_keys`] of this account.
    pub threads: Vec<u64>,
    /// The body.
    pub body: Arc<Body>,
}

/// A body that is durable already or comes with the row.
#[derive(Debug)]
pub struct Body {
    /// Its hash.
    pub id: BlobId,
    /// Its octets.
    pub len: u64,
    /// What the database keeps: [`blob::encode`]d; `None` if it lies outside and is synced there.
    pub data: Option<Vec<u8>>,
}

/// Where a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The mailbox of that name; INBOX if there is none. The account is provisioned if it is new.
    Named(String),
    /// That mailbox or none.
    Mailbox(MailboxId),
}

/// What makes it happen once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Once {
    /// A delivery: of this message of the queue for this recipient's index.
    Delivery(QueueId, u16),
    /// The caller sees to it ([`Batch::remember`]).
    Request,
}

/// A message that is in a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Which mailbox.
    pub mailbox: MailboxId,
    /// Its UIDVALIDITY; 0 for a duplicate.
    pub uidvalidity: u32,
    /// The UID.
    pub uid: Uid,
    /// The modseq with it.
    pub modseq: ModSeq,
    /// It was there already.
    pub duplicate: bool,
}

/// Parsed structures longer than this are compressed.
const PACK_MIN: usize = 16 * 1024;

/// The stored form of a parsed message: compressed if it is long.
pub fn pack(parsed: &[u8]) -> Vec<u8> {
    blob::encode(parsed, if parsed.len() > PACK_MIN { 3 } else { 0 })
}

/// The keys by which messages of one conversation find each other: the newest reference first, its own id last.
pub fn thread_keys(account: AccountId, parsed: &message::Parsed) -> Vec<u64> {
    let ids = parsed
        .references
        .iter()
        .rev()
        .chain(&parsed.in_reply_to)
        .chain(&parsed.message_id);
    let mut keys: Vec<u64> = Vec::new();
    for id in ids {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&account.0.to_le_bytes());
        hasher.update(id.as_bytes());
        let mut key = [0; 8];
        hasher.finalize_xof().fill(&mut key);
        let key = u64::from_le_bytes(key);
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
    keys
}

type Mark = (QueueId, u16, AccountId);

/// What was read for a set of messages.
#[derive(Default)]
struct Known {
    marks: HashMap<Mark, Placed>,
    /// Conversations by key.
    threads: HashMap<u64, u64>,
    bodies: Bodies,
}

/// The numbers of bodies, and the last one given.
#[derive(Default)]
struct Bodies {
    numbers: HashMap<BlobId, u64>,
    last: u64,
}

/// Rows to insert.
#[derive(Default)]
struct Rows {
    content: Vec<Value>,
    message: Vec<Value>,
    thread: Vec<Value>,
    delivered: Vec<Value>,
}

impl Batch {
    /// Makes a mailbox and subscribes to it, if it is not there (RFC 5490 3.2 `:create`). One of the standard names gets its use
    /// back, unless another has it now. What cannot be made is left: the message goes to INBOX.
    ///
    /// # Errors
    /// [`Error`]: the batch is spoiled.
    pub async fn ensure(&mut self, account: AccountId, name: &str) -> Result<(), Error> {
        self.provision(&[account]).await?;
        let rows = self
            .tx
            .fetch_each(vec![Self::named_query(&[account], &[name])])
            .await?;
        self.know(rows.first().map_or(&[], Vec::as_slice))?;
        if self.named(account, name).is_some() {
            return Ok(());
        }
        let special_use = self.free_use(account, name).await?;
        if let Ok(_made) = self.create(account, name, special_use).await? {
            let _ = self.subscribe(account, name, true).await?;
        }
        Ok(())
    }

    /// The use that a standard name stands for, if no mailbox of the account has it (RFC 6154).
    async fn free_use(
        &mut self,
        account: AccountId,
        name: &str,
    ) -> Result<Option<&'static str>, Error> {
        let standard = STANDARD.iter().find(|(known, _)| *known == name);
        let Some((_, Some(special_use))) = standard else {
            return Ok(None);
        };
        self.write_pending().await?;
        let taken = self
            .tx
            .fetch_optional(
                "SELECT id FROM mailbox WHERE account = ? AND special_use = ?",
                args![account.0, *special_use],
            )
            .await?;
        Ok(taken.is_none().then_some(*special_use))
    }

    /// Puts messages into mailboxes: a dozen statements for all of them. One result for each, in their order.
    ///
    /// # Errors
    /// [`Error`]: the batch is spoiled.
    pub async fn put(
        &mut self,
        incoming: &[&Incoming],
    ) -> Result<Vec<Result<Placed, Refusal>>, Error> {
        if incoming.is_empty() {
            return Ok(Vec::new());
        }
        let Known {
            mut marks,
            mut threads,
            bodies,
        } = self.read(incoming).await?;
        let mut rows = Rows::default();
        let mut results = Vec::with_capacity(incoming.len());
        let mut placed: Vec<(usize, Arc<Body>)> = Vec::with_capacity(incoming.len());
        // A content row needs the blob's number, which is known once all refusals are: 5 values a row, the third is left open.
        for message in incoming {
            let mark = match message.once {
                Once::Delivery(queue, recipient) => Some((queue, recipient, message.account)),
                Once::Request => None,
            };
            if let Some(known) = mark.and_then(|mark| marks.get(&mark)) {
                results.push(Ok(Placed {
                    duplicate: true,
                    ..*known
                }));
                continue;
            }
            let body = Arc::clone(&message.body);
            let at = rows.content.len() + 2;
            let result = self.place(message, &mut threads, &mut rows);
            if let Ok(done) = result {
                placed.push((at, body));
                if let Some(mark) = mark {
                    marks.insert(mark, done);
                    rows.delivered.extend(args![
                        mark.0.0,
                        u32::from(mark.1),
                        mark.2.0,
                        done.mailbox.0,
                        done.uid.0,
                        done.modseq.0,
                        self.now
                    ]);
                }
            }
            results.push(result);
        }
        let numbers = self.bodies(&placed, bodies);
        for (at, body) in &placed {
            if let (Some(value), Some(number)) = (rows.content.get_mut(*at), numbers.get(&body.id))
            {
                *value = (*number).into();
            }
        }
        self.insert(rows);
        Ok(results)
    }

    /// Reads all that is needed, and makes accounts that are new.
    async fn read(&mut self, incoming: &[&Incoming]) -> Result<Known, Error> {
        self.write_pending().await?;
        let mut named: Vec<AccountId> = Vec::new();
        let mut names: Vec<&str> = vec!["INBOX"];
        let mut ids: Vec<MailboxId> = Vec::new();
        for message in incoming {
            match &message.target {
                Target::Named(name) => {
                    named.push(message.account);
                    if !name.is_empty() && !names.contains(&name.as_str()) {
                        names.push(name);
                    }
                }
                Target::Mailbox(id) => ids.push(*id),
            }
        }
        let owners: Vec<AccountId> = incoming.iter().map(|message| message.account).collect();
        let last_body = Statement {
            text: "SELECT COALESCE(MAX(id), 0) FROM body".to_owned(),
            args: Vec::new(),
        };
        let results = self
            .tx
            .fetch_each(vec![
                self.accounts_query(&owners),
                Self::named_query(&named, &names),
                self.mailboxes_query(&ids),
                marks_query(incoming),
                threads_query(incoming),
                bodies_query(incoming),
                vec![last_body],
            ])
            .await?;
        let Ok([accounts, by_name, by_id, marks, threads, bodies, last]) =
            <[Vec<Row>; 7]>::try_from(results)
        else {
            return Err(Error::Damaged("a query has no result".to_owned()));
        };
        self.know_accounts(&accounts)?;
        self.know(&by_name)?;
        self.know(&by_id)?;
        if named
            .iter()
            .any(|account| !self.accounts.contains_key(account))
        {
            self.provision(&named).await?;
        }
        let mut known = Known {
            bodies: Bodies {
                last: last.first().map_or(Ok(0), |row| row.u64(0))?,
                ..Bodies::default()
            },
            ..Known::default()
        };
        for row in &marks {
            let recipient = u16::try_from(row.int(1)?).unwrap_or(u16::MAX);
            let mark = (QueueId(row.u64(0)?), recipient, AccountId(row.u64(2)?));
            let placed = Placed {
                mailbox: MailboxId(row.u64(3)?),
                uidvalidity: 0,
                uid: Uid(row.u32(4)?),
                modseq: ModSeq(row.u64(5)?),
                duplicate: true,
            };
            known.marks.insert(mark, placed);
        }
        for row in &threads {
            known.threads.insert(row.u64(0)?, row.u64(1)?);
        }
        for row in &bodies {
            let id = reader_hash(row.blob(1)?)?;
            known.bodies.numbers.insert(id, row.u64(0)?);
        }
        Ok(known)
    }

    /// Decides on one message, and writes its rows down.
    fn place(
        &mut self,
        message: &Incoming,
        threads: &mut HashMap<u64, u64>,
        rows: &mut Rows,
    ) -> Result<Placed, Refusal> {
        let account = message.account;
        let id = match &message.target {
            Target::Mailbox(id) => Some(*id),
            Target::Named(name) => self
                .named(account, name)
                .or_else(|| self.named(account, "INBOX")),
        };
        let (Some(id), Some(row)) = (id, self.accounts.get_mut(&account)) else {
            return Err(Refusal::NotFound);
        };
        let Some(mailbox) = self
            .mailboxes
            .get_mut(&id)
            .filter(|state| state.account == account)
        else {
            return Err(Refusal::NotFound);
        };
        let size = message.prefix.len() as u64 + message.body.len;
        if !message.quota.allows(row, size, 1) {
            return Err(Refusal::OverQuota);
        }
        if mailbox.uidnext == u32::MAX {
            return Err(Refusal::Invalid("the mailbox has used up its UIDs"));
        }
        let uid = mailbox.uidnext;
        mailbox.uidnext += 1;
        mailbox.count(message.flags.system, 1, size, true);
        row.bytes = row.bytes.saturating_add(size);
        row.messages += 1;
        let modseq = row.advance();
        let content = ContentId(row.take_id());
        let email = row.take_id();
        let known = message.threads.iter().find_map(|key| threads.get(key));
        let thread = match known {
            Some(thread) => *thread,
            None => row.take_id(),
        };
        for key in &message.threads {
            if threads.insert(*key, thread).is_none() {
                rows.thread.extend(args![*key, account.0, thread]);
            }
        }
        let uidvalidity = mailbox.uidvalidity;
        let SystemFlags(flags) = message.flags.system;
        rows.content.extend(args![
            account.0,
            content.0,
            None::<i64>,
            message.prefix.as_slice(),
            message.parsed.as_slice()
        ]);
        rows.message.extend(args![
            id.0,
            uid,
            account.0,
            content.0,
            email,
            thread,
            u32::from(flags),
            message.flags.keywords.as_str(),
            message.date,
            self.now,
            modseq,
            size
        ]);
        self.touch(id, modseq);
        Ok(Placed {
            mailbox: id,
            uidvalidity,
            uid: Uid(uid),
            modseq: ModSeq(modseq),
            duplicate: false,
        })
    }

    /// The numbers of these bodies; those that are new are inserted.
    fn bodies(&mut self, placed: &[(usize, Arc<Body>)], known: Bodies) -> HashMap<BlobId, u64> {
        let Bodies {
            mut numbers,
            mut last,
        } = known;
        let mut values = Vec::new();
        for (_, body) in placed {
            if let std::collections::hash_map::Entry::Vacant(entry) = numbers.entry(body.id) {
                last += 1;
                entry.insert(last);
                values.extend(args![last, body.id.0, body.len, body.data.as_deref()]);
            }
        }
        self.defer("INSERT INTO body (id, hash, size, data)", 4, values, "");
        numbers
    }

    fn insert(&mut self, rows: Rows) {
        self.defer(
            "INSERT INTO content (account, id, blob_id, prefix, parsed)",
            5,
            rows.content,
            "",
        );
        self.defer(
            "INSERT INTO message (mailbox, uid, account, content, email, thread, flags, keywords, date, saved, modseq, size)",
            12,
            rows.message,
            "",
        );
        self.defer(
            "INSERT {ignore} INTO thread_ref (hash, account, thread)",
            3,
            rows.thread,
            "{do_nothing}",
        );
        self.defer(
            "INSERT INTO delivered (queue_id, recipient, account, mailbox, uid, modseq, at)",
            7,
            rows.delivered,
            "",
        );
    }
}

/// What of this was delivered before.
fn marks_query(incoming: &[&Incoming]) -> Vec<Statement> {
    let queue = incoming.iter().filter_map(|message| match message.once {
        Once::Delivery(queue, _) => Some(queue.0),
        Once::Request => None,
    });
    Statement::listed(
        "SELECT queue_id, recipient, account, mailbox, uid, modseq FROM delivered
            WHERE queue_id IN ({list})",
        &[],
        &distinct(queue.collect()),
    )
}

/// The conversations that are known by these messages' keys.
fn threads_query(incoming: &[&Incoming]) -> Vec<Statement> {
    let keys = incoming
        .iter()
        .flat_map(|message| message.threads.iter().copied());
    Statement::listed(
        "SELECT hash, thread FROM thread_ref WHERE hash IN ({list})",
        &[],
        &distinct(keys.collect()),
    )
}

/// The bodies that are there.
fn bodies_query(incoming: &[&Incoming]) -> Vec<Statement> {
    let mut ids: Vec<BlobId> = incoming.iter().map(|message| message.body.id).collect();
    ids.sort_unstable();
    ids.dedup();
    let list: Vec<Value> = ids.into_iter().map(|id| id.0.into()).collect();
    Statement::listed(
        "SELECT id, hash FROM body WHERE hash IN ({list})",
        &[],
        &list,
    )
}

fn distinct(mut numbers: Vec<u64>) -> Vec<Value> {
    numbers.sort_unstable();
    numbers.dedup();
    numbers.into_iter().map(Value::from).collect()
}
