//! What others may do with a mailbox (RFC 4314 4). The owner, and the members of a shared group with its mailboxes, may do
//! everything.

use ipc::api::stored::{FlagChange, Mutation};
use ipc::{Fault, FaultKind};
use store::{AclRights, Reader};
use types::{AccountId, Grant, MailboxId};

fn fault(error: &store::Error) -> Fault {
    crate::committer::store_fault(error)
}

/// Without the right to look it up, a mailbox is not there (RFC 4314 4).
fn need(rights: AclRights, letters: &str) -> Result<(), Fault> {
    if rights.has(letters) {
        return Ok(());
    }
    Err(if rights.has_any("lr") {
        Fault::new(
            FaultKind::Denied,
            "the mailbox's owner has not given you that right",
        )
    } else {
        Fault::new(FaultKind::NotFound, "no such mailbox")
    })
}

/// The right that a flag needs: `s` for \\Seen, `t` for \\Deleted, `w` for others.
fn letter(flag: &str) -> &'static str {
    if flag.eq_ignore_ascii_case("\\Seen") {
        "s"
    } else if flag.eq_ignore_ascii_case("\\Deleted") {
        "t"
    } else {
        "w"
    }
}

/// Leaves the flags that somebody may set.
pub(crate) fn permitted(rights: AclRights, flags: &mut Vec<String>) {
    flags.retain(|flag| rights.has(letter(flag)));
}

/// Who asks, and whose mail it is about.
pub(crate) struct Asked<'a> {
    pub(crate) reader: &'a Reader,
    pub(crate) grant: &'a Grant,
    pub(crate) account: AccountId,
}

impl Asked<'_> {
    async fn on(&self, account: AccountId, mailbox: MailboxId) -> Result<AclRights, Fault> {
        self.reader
            .rights(self.grant, account, mailbox)
            .await
            .map_err(|error| fault(&error))
    }

    async fn needs(&self, mailbox: MailboxId, letters: &str) -> Result<AclRights, Fault> {
        let rights = self.on(self.account, mailbox).await?;
        need(rights, letters)?;
        Ok(rights)
    }

    /// `k` on the nearest mailbox above a name.
    async fn may_create(&self, name: &str) -> Result<(), Fault> {
        let mut above = name;
        while let Some((parent, _)) = above.rsplit_once('/') {
            let found = self.reader.mailbox_named(self.account, parent).await;
            if let Some(mailbox) = found.map_err(|error| fault(&error))? {
                return self.needs(mailbox.id, "k").await.map(drop);
            }
            above = parent;
        }
        Err(Fault::new(
            FaultKind::Denied,
            "only its owner can make a mailbox at the top",
        ))
    }

    /// Whose the target of a copy or move is, if it may be one.
    pub(crate) async fn target(&self, target: MailboxId) -> Result<AccountId, Fault> {
        let owner = self
            .reader
            .owner(target)
            .await
            .map_err(|error| fault(&error))?
            .ok_or_else(|| Fault::new(FaultKind::NotFound, "no such mailbox"))?;
        if owner != self.account || !store::owns(self.grant, owner) {
            need(self.on(owner, target).await?, "i")?;
        }
        Ok(owner)
    }

    /// Passes what may be done, with the flags cut down to what may be set; else Denied or NotFound.
    pub(crate) async fn allow(&self, mutation: &mut Mutation) -> Result<(), Fault> {
        if store::owns(self.grant, self.account) {
            return Ok(());
        }
        let denied = |text: &str| Err(Fault::new(FaultKind::Denied, text));
        match mutation {
            Mutation::Append {
                mailbox,
                messages,
                replaces,
            } => {
                let rights = self.needs(*mailbox, "i").await?;
                for message in messages {
                    permitted(rights, &mut message.flags);
                }
                if let Some((mailbox, _)) = replaces {
                    self.needs(*mailbox, "te").await?;
                }
            }
            Mutation::Flags {
                mailbox,
                change,
                flags,
                ..
            } => {
                let rights = self.needs(*mailbox, "r").await?;
                if *change == FlagChange::Replace {
                    // It takes away whatever is not named.
                    need(rights, "stw")?;
                }
                let asked = flags.len();
                permitted(rights, flags);
                if asked > 0 && flags.is_empty() {
                    return denied("you may set none of these flags");
                }
            }
            Mutation::Copy { mailbox, .. } => drop(self.needs(*mailbox, "r").await?),
            Mutation::Move { mailbox, .. } => drop(self.needs(*mailbox, "rte").await?),
            Mutation::Expunge { mailbox, .. } => drop(self.needs(*mailbox, "e").await?),
            Mutation::MailboxCreate { name, .. } => self.may_create(name).await?,
            Mutation::MailboxDelete { mailbox } => drop(self.needs(*mailbox, "x").await?),
            Mutation::MailboxRename { mailbox, name } => {
                self.needs(*mailbox, "x").await?;
                self.may_create(name).await?;
            }
            Mutation::SetAcl { mailbox, .. } => drop(self.needs(*mailbox, "a").await?),
            Mutation::SetMetadata {
                mailbox: Some(mailbox),
                entries,
            } => {
                // RFC 5464 3.3
                let rights = self.needs(*mailbox, "l").await?;
                if !rights.has_any("rswip") {
                    return denied("the mailbox's owner has not given you that right");
                }
                if entries.iter().any(|(name, _)| name.starts_with("/shared/")) {
                    need(rights, "w")?;
                }
            }
            Mutation::SetMetadata { mailbox: None, .. }
            | Mutation::Subscribe { .. }
            | Mutation::ScriptPut { .. }
            | Mutation::ScriptDelete { .. }
            | Mutation::ScriptRename { .. }
            | Mutation::ScriptActivate { .. } => {
                return denied("that belongs to the account's owner alone");
            }
        }
        Ok(())
    }
}
