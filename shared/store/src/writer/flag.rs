//! STORE.

use super::{Batch, Refusal};
use crate::flags::{Flags, SystemFlags};
use crate::range::conditions;
use crate::{Error, Ranges, to_ranges};
use sql::{Value, args};
use types::{AccountId, MailboxId, ModSeq};

/// What to do with the flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagChange {
    /// These and no others.
    Replace,
    /// These too.
    Add,
    /// Without these.
    Remove,
}

impl FlagChange {
    fn apply(self, old: &Flags, flags: &Flags) -> Result<Flags, Refusal> {
        match self {
            Self::Replace => Ok(flags.clone()),
            Self::Add => old
                .with(flags)
                .map_err(|_| Refusal::Invalid("too many keywords on a message")),
            Self::Remove => Ok(old.without(flags)),
        }
    }
}

/// One kind of messages among those concerned: alike in flags.
struct Kin {
    old: Flags,
    new: Flags,
    count: u64,
    condition: usize,
}

impl Batch {
    /// Changes flags. Only messages that really change get a new modseq. Gives the UIDs that `unchanged_since` (RFC 7162
    /// 3.1.3) held back.
    ///
    /// # Errors
    /// [`Error`]: the batch is spoiled.
    #[allow(clippy::too_many_arguments)]
    pub async fn change_flags(
        &mut self,
        account: AccountId,
        mailbox: MailboxId,
        uids: &[(u32, u32)],
        change: FlagChange,
        flags: &Flags,
        unchanged_since: Option<ModSeq>,
    ) -> Result<Result<Ranges, Refusal>, Error> {
        if !self.owns(account, mailbox).await? {
            return Ok(Err(Refusal::NotFound));
        }
        let conditions = conditions(uids);
        let mut held = Vec::new();
        if let Some(since) = unchanged_since {
            for (condition, values) in &conditions {
                let text = format!(
                    "SELECT uid FROM message WHERE mailbox = ? AND {condition} AND modseq > ? ORDER BY uid"
                );
                let rows = self
                    .tx
                    .fetch_all(&text, bound(mailbox, values, [since.0.into()]))
                    .await?;
                for row in rows {
                    held.push(row.u32(0)?);
                }
            }
        }
        let limit = unchanged_since.map_or(i64::MAX.cast_unsigned(), |since| since.0);
        let mut kin = Vec::new();
        for (number, (condition, values)) in conditions.iter().enumerate() {
            let text = format!(
                "SELECT flags, keywords, COUNT(*) FROM message WHERE mailbox = ? AND {condition} AND modseq <= ?
                    GROUP BY flags, keywords"
            );
            let rows = self
                .tx
                .fetch_all(&text, bound(mailbox, values, [limit.into()]))
                .await?;
            for row in rows {
                let old = Flags {
                    system: SystemFlags(u8::try_from(row.int(0)?).unwrap_or_default()),
                    keywords: row.text(1)?.to_owned(),
                };
                let new = match change.apply(&old, flags) {
                    Ok(new) => new,
                    Err(refusal) => return Ok(Err(refusal)),
                };
                if new != old {
                    kin.push(Kin {
                        old,
                        new,
                        count: row.u64(2)?,
                        condition: number,
                    });
                }
            }
        }
        let held = to_ranges(held);
        let Some(row) = self.accounts.get_mut(&account).filter(|_| !kin.is_empty()) else {
            return Ok(Ok(held));
        };
        let modseq = row.advance();
        for kin in kin {
            let Some((condition, values)) = conditions.get(kin.condition) else {
                continue;
            };
            // A changed row is never of a kin that comes later: doing it twice changes nothing more.
            let text = format!(
                "UPDATE message SET flags = ?, keywords = ?, modseq = ?
                    WHERE mailbox = ? AND {condition} AND modseq <= ? AND flags = ? AND keywords = ?"
            );
            let mut all = args![
                u32::from(kin.new.system.0),
                kin.new.keywords.as_str(),
                modseq
            ];
            let behind = args![
                limit,
                u32::from(kin.old.system.0),
                kin.old.keywords.as_str()
            ];
            all.extend(bound(mailbox, values, behind));
            self.tx.execute(&text, all).await?;
            if let Some(state) = self.mailboxes.get_mut(&mailbox) {
                state.count(kin.old.system, kin.count, 0, false);
                state.count(kin.new.system, kin.count, 0, true);
            }
        }
        self.touch(mailbox, modseq);
        Ok(Ok(held))
    }

    /// Reads the mailbox and its account; whether they belong together.
    pub(super) async fn owns(
        &mut self,
        account: AccountId,
        mailbox: MailboxId,
    ) -> Result<bool, Error> {
        self.write_pending().await?;
        self.load_accounts(&[account]).await?;
        self.load_mailboxes(&[mailbox]).await?;
        Ok(self.accounts.contains_key(&account)
            && self
                .mailboxes
                .get(&mailbox)
                .is_some_and(|state| state.account == account))
    }
}

/// The parameters of `mailbox = ? AND condition ...`.
pub(super) fn bound(
    mailbox: MailboxId,
    values: &[Value],
    behind: impl IntoIterator<Item = Value>,
) -> Vec<Value> {
    let mut all = args![mailbox.0];
    all.extend_from_slice(values);
    all.extend(behind);
    all
}
