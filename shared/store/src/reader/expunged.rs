//! Tombstones alone.

use super::{Error, Ranges, Reader, mailbox_by_id};
use crate::row::Mailbox;
use sql::{Statement, args};
use types::{AccountId, MailboxId, ModSeq};

impl Reader {
    /// UIDs of a mailbox that are gone after `since`, in no order. `None` if that is not known any more
    /// ([`Mailbox::floor`]), or there is no such mailbox.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn expunged(
        &self,
        account: AccountId,
        mailbox: MailboxId,
        since: ModSeq,
    ) -> Result<Option<Ranges>, Error> {
        let text = "SELECT low, high FROM expunged WHERE mailbox = ? AND modseq > ?";
        let mut snapshot = self.db.snapshot().await?;
        let results = snapshot
            .fetch_each(vec![
                vec![Statement {
                    text: mailbox_by_id(),
                    args: args![mailbox.0, account.0],
                }],
                vec![Statement {
                    text: text.to_owned(),
                    args: args![mailbox.0, since.0],
                }],
            ])
            .await?;
        snapshot.commit().await?;
        let [found, gone] = results.as_slice() else {
            return Err(Error::Damaged("a query has no result".to_owned()));
        };
        let Some(found) = found.first() else {
            return Ok(None);
        };
        if since < Mailbox::read(found)?.floor {
            return Ok(None);
        }
        let mut expunged = Vec::with_capacity(gone.len());
        for row in gone {
            expunged.push((row.u32(0)?, row.u32(1)?));
        }
        Ok(Some(expunged))
    }
}
