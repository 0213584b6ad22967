//! COPY and MOVE from one account to another: contents are made anew there, bodies are shared.

use super::put::{Body, Incoming, Once, Target};
use super::transfer::Transferred;
use super::{Batch, Quota, Refusal, thread_keys};
use crate::flags::{Flags, SystemFlags};
use crate::range::conditions;
use crate::{Error, reader_hash, to_ranges};
use sql::args;
use std::sync::Arc;
use types::{AccountId, MailboxId};

/// Messages that may be copied to another account at once: their descriptions lie in memory together.
const MESSAGES_MAX: usize = 10_000;

impl Batch {
    /// Copies messages to a mailbox of another account, or moves them there: all or none.
    ///
    /// # Errors
    /// [`Error`]: the batch is spoiled.
    pub async fn transfer_across(
        &mut self,
        from: (AccountId, MailboxId),
        uids: &[(u32, u32)],
        to: (AccountId, MailboxId),
        quota: Quota,
        moving: bool,
    ) -> Result<Result<Transferred, Refusal>, Error> {
        let ((account, source), (owner, target)) = (from, to);
        if !self.owns(account, source).await? || !self.owns(owner, target).await? {
            return Ok(Err(Refusal::NotFound));
        }
        let (incoming, sources) = match self.read_across(source, uids, to, quota).await? {
            Ok(read) => read,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let mut done = Transferred {
            uidvalidity: self.mailboxes.get(&target).map_or(0, |to| to.uidvalidity),
            ..Transferred::default()
        };
        if incoming.is_empty() {
            return Ok(Ok(done));
        }
        // Looked at together, before anything is written: all or none.
        let bytes = incoming
            .iter()
            .map(|message| message.prefix.len() as u64 + message.body.len);
        let room = self
            .accounts
            .get(&owner)
            .is_some_and(|row| quota.allows(row, bytes.sum(), incoming.len() as u64));
        if !room {
            return Ok(Err(Refusal::OverQuota));
        }
        let all: Vec<&Incoming> = incoming.iter().collect();
        let mut made = Vec::with_capacity(all.len());
        for result in self.put(&all).await? {
            match result {
                Ok(placed) => made.push(placed.uid.0),
                Err(_) => return Err(Error::Damaged("a part of a copy was refused".to_owned())),
            }
        }
        done.source = to_ranges(sources.iter().copied());
        done.target = to_ranges(made);
        if moving {
            self.write_pending().await?;
            self.take_away(account, source, &done.source.clone())
                .await?;
        }
        Ok(Ok(done))
    }

    #[allow(clippy::type_complexity, reason = "messages and their UIDs, used once")]
    async fn read_across(
        &mut self,
        source: MailboxId,
        uids: &[(u32, u32)],
        to: (AccountId, MailboxId),
        quota: Quota,
    ) -> Result<Result<(Vec<Incoming>, Vec<u32>), Refusal>, Error> {
        let mut incoming = Vec::new();
        let mut sources = Vec::new();
        for (condition, values) in conditions(uids) {
            let text = format!(
                "SELECT m.uid, m.flags, m.keywords, m.date, c.prefix, c.parsed, b.hash, b.size
                    FROM message m JOIN content c ON c.account = m.account AND c.id = m.content
                    JOIN body b ON b.id = c.blob_id WHERE m.mailbox = ? AND {} ORDER BY m.uid",
                condition.replace("uid", "m.uid")
            );
            let mut all = args![source.0];
            all.extend(values);
            for row in self.tx.fetch_all(&text, all).await? {
                if incoming.len() >= MESSAGES_MAX {
                    return Ok(Err(Refusal::Invalid("too many messages at once")));
                }
                let packed = row.blob(5)?.to_vec();
                let parsed = blob::decode(&packed, 64 << 20)
                    .ok()
                    .and_then(|octets| message::Parsed::decode(&octets).ok())
                    .ok_or_else(|| Error::Damaged("a message's description".to_owned()))?;
                sources.push(row.u32(0)?);
                incoming.push(Incoming {
                    account: to.0,
                    quota,
                    target: Target::Mailbox(to.1),
                    create: false,
                    once: Once::Request,
                    flags: Flags {
                        system: SystemFlags(u8::try_from(row.int(1)?).unwrap_or_default()),
                        keywords: row.text(2)?.to_owned(),
                    },
                    date: row.int(3)?,
                    prefix: row.blob(4)?.to_vec(),
                    threads: thread_keys(to.0, &parsed),
                    parsed: Arc::new(packed),
                    body: Arc::new(Body {
                        id: reader_hash(row.blob(6)?)?,
                        len: row.u64(7)?,
                        data: None,
                    }),
                });
            }
        }
        Ok(Ok((incoming, sources)))
    }
}
