//! The changes of the API, done on a batch.

use ipc::api::stored::{self as api, Mutation, MutationResult};
use ipc::{Fault, FaultKind};
use store::AclRights;
use store::writer::{Batch, FlagChange, Limits, Quota, Refusal};
use store::{FlagError, Flags};
use types::AccountId;

/// The most ranges of UIDs in one change.
const RANGES_MAX: usize = 100_000;

/// Any change but Append.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// Who asks: its requests are known by it.
    pub(crate) by: AccountId,
    /// Whose mail is changed.
    pub(crate) account: AccountId,
    /// Whose the target of a copy or move is.
    pub(crate) target: AccountId,
    pub(crate) limits: Limits,
    pub(crate) quota: Quota,
    pub(crate) mutation: Mutation,
}

pub(crate) fn flags(names: &[String]) -> Result<Flags, Fault> {
    Flags::parse(names)
        .map_err(|error: FlagError| Fault::new(FaultKind::Invalid, error.to_string()))
}

pub(crate) fn refused(refusal: &Refusal) -> Fault {
    let kind = match refusal {
        Refusal::NotFound => FaultKind::NotFound,
        Refusal::Conflict(_) => FaultKind::Conflict,
        Refusal::Invalid(_) => FaultKind::Invalid,
        Refusal::OverQuota | Refusal::TooLarge | Refusal::TooMany => FaultKind::OverQuota,
    };
    Fault::new(kind, refusal.to_string())
}

/// Ranges must be what they are said to be, as conditions and COPYUID are made from them.
fn sound(ranges: &[(u32, u32)]) -> bool {
    ranges.len() <= RANGES_MAX
        && ranges.iter().all(|(low, high)| *low >= 1 && low <= high)
        && ranges.is_sorted_by(|a, b| a.1 < b.0)
}

/// What can be found wrong with a change before anything is read.
pub(crate) fn check(mutation: &Mutation) -> Result<(), Fault> {
    let uids = match mutation {
        Mutation::Flags {
            uids, flags: names, ..
        } => {
            flags(names)?;
            Some(uids)
        }
        Mutation::Copy { uids, .. } | Mutation::Move { uids, .. } => Some(uids),
        Mutation::Expunge { uids, .. } => uids.as_ref(),
        _ => None,
    };
    if uids.is_some_and(|uids| !sound(uids)) {
        return Err(Fault::new(
            FaultKind::Invalid,
            "ranges of UIDs are ascending and disjoint",
        ));
    }
    Ok(())
}

/// Does a change. The outer error spoils the batch.
pub(crate) async fn apply(
    batch: &mut Batch,
    change: &Change,
) -> Result<Result<MutationResult, Fault>, store::Error> {
    let account = change.account;
    let done = match &change.mutation {
        Mutation::Append { .. } => {
            return Ok(Err(Fault::new(
                FaultKind::Internal,
                "Append is put, not applied",
            )));
        }
        Mutation::Flags {
            mailbox,
            uids,
            change,
            flags: names,
            unchanged_since,
        } => {
            let flags = match flags(names) {
                Ok(flags) => flags,
                Err(fault) => return Ok(Err(fault)),
            };
            let change = match change {
                api::FlagChange::Replace => FlagChange::Replace,
                api::FlagChange::Add => FlagChange::Add,
                api::FlagChange::Remove => FlagChange::Remove,
            };
            batch
                .change_flags(account, *mailbox, uids, change, &flags, *unchanged_since)
                .await?
                .map(MutationResult::Modified)
        }
        Mutation::Copy {
            mailbox,
            uids,
            target,
        } if change.target == account => batch
            .copy(account, change.quota, *mailbox, uids, *target)
            .await?
            .map(copied),
        Mutation::Move {
            mailbox,
            uids,
            target,
        } if change.target == account => batch
            .move_to(account, *mailbox, uids, *target)
            .await?
            .map(copied),
        Mutation::Copy {
            mailbox,
            uids,
            target,
        }
        | Mutation::Move {
            mailbox,
            uids,
            target,
        } => {
            let moving = matches!(change.mutation, Mutation::Move { .. });
            batch
                .transfer_across(
                    (account, *mailbox),
                    uids,
                    (change.target, *target),
                    change.quota,
                    moving,
                )
                .await?
                .map(copied)
        }
        Mutation::Expunge { mailbox, uids } => batch
            .expunge(account, *mailbox, uids.as_deref())
            .await?
            .map(MutationResult::Expunged),
        Mutation::MailboxCreate { name, special_use } => batch
            .create(account, name, special_use.as_deref())
            .await?
            .map(|mailbox| MutationResult::Created { mailbox }),
        Mutation::MailboxDelete { mailbox } => batch
            .delete(account, *mailbox)
            .await?
            .map(|()| MutationResult::Done),
        Mutation::MailboxRename { mailbox, name } => batch
            .rename(account, *mailbox, name)
            .await?
            .map(|()| MutationResult::Done),
        Mutation::Subscribe { name, subscribed } => batch
            .subscribe(account, name, *subscribed)
            .await?
            .map(|()| MutationResult::Done),
        Mutation::SetAcl {
            mailbox,
            identifier,
            rights,
        } => {
            let Some(rights) = AclRights::parse(rights) else {
                return Ok(Err(Fault::new(FaultKind::Invalid, "no such rights")));
            };
            batch
                .set_acl(account, *mailbox, identifier, rights, change.limits)
                .await?
                .map(|()| MutationResult::Done)
        }
        Mutation::SetMetadata { mailbox, entries } => {
            let entries: Vec<(String, Option<Vec<u8>>)> = entries
                .iter()
                .map(|(name, value)| (name.clone(), value.as_ref().map(|value| value.0.clone())))
                .collect();
            let set = batch.set_metadata(account, change.by, *mailbox, &entries, change.limits);
            match set.await? {
                // RFC 5464 4.3: the client is told which limit it was
                Err(Refusal::TooLarge) => Ok(MutationResult::MetadataTooLong(
                    change.limits.metadata_bytes,
                )),
                Err(Refusal::TooMany) => Ok(MutationResult::MetadataTooMany),
                other => other.map(|()| MutationResult::Done),
            }
        }
        Mutation::ScriptPut { name, content } => batch
            .put_script(account, name, content, change.limits)
            .await?
            .map(|()| MutationResult::Done),
        Mutation::ScriptDelete { name } => batch
            .delete_script(account, name)
            .await?
            .map(|()| MutationResult::Done),
        Mutation::ScriptRename { from, to } => batch
            .rename_script(account, from, to)
            .await?
            .map(|()| MutationResult::Done),
        Mutation::ScriptActivate { name } => batch
            .activate_script(account, name.as_deref())
            .await?
            .map(|()| MutationResult::Done),
    };
    Ok(done.map_err(|refusal| refused(&refusal)))
}

fn copied(done: store::writer::Transferred) -> MutationResult {
    MutationResult::Copied {
        uidvalidity: done.uidvalidity,
        source: done.source,
        target: done.target,
    }
}
