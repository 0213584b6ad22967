//! The maildrop: INBOX as it was at the login.

use store::{MessageRow, Reader};
use types::{AccountId, ContentId, MailboxId, Uid};

/// A message, by its number from 1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Message {
    pub(crate) uid: Uid,
    pub(crate) size: u64,
    pub(crate) email: u64,
    pub(crate) content: ContentId,
    /// DELE was said.
    pub(crate) deleted: bool,
}

/// All messages.
#[derive(Debug)]
pub(crate) struct Maildrop {
    pub(crate) account: AccountId,
    pub(crate) mailbox: MailboxId,
    messages: Vec<Message>,
}

impl Maildrop {
    /// Reads INBOX; `None` if there is none yet. Messages beyond `limit` are left out.
    pub(crate) async fn read(
        reader: &Reader,
        account: AccountId,
        limit: usize,
    ) -> Result<Option<Self>, store::Error> {
        let Some(inbox) = reader.mailbox_named(account, "INBOX").await? else {
            return Ok(None);
        };
        let mut messages = Vec::new();
        let take = |row: MessageRow| {
            if messages.len() < limit {
                messages.push(Message {
                    uid: row.uid,
                    size: row.size,
                    email: row.email.0,
                    content: row.content,
                    deleted: false,
                });
            }
        };
        let found = reader.messages(account, inbox.id, Uid(1), take).await?;
        Ok(found.map(|inbox| Self {
            account,
            mailbox: inbox.id,
            messages,
        }))
    }

    /// The message of that number, unless it is marked as deleted.
    pub(crate) fn message(&self, number: u32) -> Option<Message> {
        let message = self.messages.get((number as usize).checked_sub(1)?)?;
        (!message.deleted).then_some(*message)
    }

    /// Those that are not marked as deleted, with their numbers.
    pub(crate) fn present(&self) -> impl Iterator<Item = (usize, &Message)> {
        let numbered = self.messages.iter().enumerate();
        numbered
            .filter(|(_, message)| !message.deleted)
            .map(|(at, message)| (at + 1, message))
    }

    /// Count and octets of these (RFC 1939 5, STAT).
    pub(crate) fn sum(&self) -> (usize, u64) {
        self.present()
            .fold((0, 0), |(count, octets), (_, message)| {
                (count + 1, octets + message.size)
            })
    }

    pub(crate) fn mark(&mut self, number: u32) {
        let at = (number as usize).checked_sub(1);
        if let Some(message) = at.and_then(|at| self.messages.get_mut(at)) {
            message.deleted = true;
        }
    }

    pub(crate) fn unmark(&mut self) {
        for message in &mut self.messages {
            message.deleted = false;
        }
    }

    /// UIDs of what is to go, as ascending ranges.
    pub(crate) fn going(&self) -> Vec<(u32, u32)> {
        let uids = self.messages.iter().filter(|message| message.deleted);
        store::to_ranges(uids.map(|message| message.uid.0))
    }

    /// A message's unique id (RFC 1939 7): 1 to 70 printable characters.
    pub(crate) fn unique(&self, message: &Message) -> String {
        format!("{:x}.{:x}", self.account.0, message.email)
    }
}
