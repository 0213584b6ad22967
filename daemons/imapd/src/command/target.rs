//! Whose mailbox a name means, and what may be done there. Own mailboxes have no prefix; those of other accounts lie below
//! `Other Users/`, those of shared groups below `Groups/`, each below its owner's address.

use crate::session::{End, Refused, Session};
use imap::put;
use store::{AclRights, Mailbox};
use tokio::io::{AsyncRead, AsyncWrite};
use types::{AccountId, Grant};

/// Before the owner's name of other accounts' mailboxes (RFC 2342 5).
pub(super) const OTHERS: &str = "Other Users/";
/// Before the address of a shared group.
pub(super) const GROUPS: &str = "Groups/";

/// Where a name points, whether or not there is a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Whose.
    pub(crate) account: AccountId,
    /// The owner as access control lists name it.
    pub(crate) owner: String,
    /// The name in that account.
    pub(crate) name: String,
}

/// A mailbox with what the session's user may do in it.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// With its name as this user sees it.
    pub(crate) mailbox: Mailbox,
    /// The owner as access control lists name it.
    pub(crate) owner: String,
    /// What may be done.
    pub(crate) rights: AclRights,
}

/// A name below a prefix, as the owner's address and the name there. What has no address at its second level is a mailbox
/// of one's own that happens to be called so.
fn below<'n>(name: &'n str, prefix: &str) -> Option<(String, &'n str)> {
    let (owner, rest) = name.strip_prefix(prefix)?.split_once(imap::DELIMITER)?;
    (owner.contains('@') && !rest.is_empty()).then(|| (owner.to_lowercase(), rest))
}

fn missing(code: &'static str) -> Refused {
    Refused::No(code, "There is no such mailbox".to_owned())
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    pub(crate) fn grant(&self) -> Result<&Grant, Refused> {
        let account = self.account.as_ref();
        account
            .map(|account| &account.login.grant)
            .ok_or(Refused::Bad("Log in first"))
    }

    /// Where a name points; NO with the given code if there is no such owner.
    pub(crate) async fn place(&self, name: &str, code: &'static str) -> Result<Place, Refused> {
        let grant = self.grant()?;
        if let Some((group, rest)) = below(name, GROUPS) {
            let mut groups = grant.groups.iter();
            let found = groups
                .find(|one| one.account.0 != 0 && one.name.eq_ignore_ascii_case(&group))
                .ok_or_else(|| missing(code))?;
            return Ok(Place {
                account: found.account,
                owner: format!("group={group}"),
                name: imap::canonical_name(rest),
            });
        }
        if let Some((owner, rest)) = below(name, OTHERS) {
            let account = self.service.reader.account_named(&owner).await?;
            return Ok(Place {
                account: account.ok_or_else(|| missing(code))?,
                owner,
                name: imap::canonical_name(rest),
            });
        }
        Ok(Place {
            account: grant.account,
            owner: grant.name.to_lowercase(),
            name: name.to_owned(),
        })
    }

    /// The mailbox of that name, if the user has these rights there. Without any that would show it, it is answered as if it
    /// were not there (RFC 4314 6).
    pub(crate) async fn target(
        &self,
        name: &str,
        code: &'static str,
        letters: &str,
    ) -> Result<Target, Refused> {
        let place = self.place(name, code).await?;
        let reader = &self.service.reader;
        let found = reader.mailbox_named(place.account, &place.name).await?;
        let mut mailbox = found.ok_or_else(|| missing(code))?;
        let grant = self.grant()?;
        let rights = reader.rights(grant, place.account, mailbox.id).await?;
        if !rights.has(letters) {
            return Err(if rights.has_any("l") {
                Refused::No(
                    "NOPERM",
                    "The mailbox's owner has not given you that right".to_owned(),
                )
            } else {
                missing(code)
            });
        }
        if rights.is_empty() {
            return Err(missing(code));
        }
        mailbox.name = name.to_owned();
        Ok(Target {
            mailbox,
            owner: place.owner,
            rights,
        })
    }

    /// A mailbox on which the user has any right; NO with the given code if it is not there.
    pub(crate) async fn named(&self, name: &str, code: &'static str) -> Result<Mailbox, Refused> {
        Ok(self.target(name, code, "").await?.mailbox)
    }

    /// Ends a session that has somebody else's mailbox selected and may not read it any more: a right that was taken counts at
    /// once (RFC 4314 6).
    pub(crate) async fn keep_right(&mut self) -> Result<(), Refused> {
        let Some(selected) = &self.selected else {
            return Ok(());
        };
        let (account, mailbox) = (selected.shown.mailbox.account, selected.shown.mailbox.id);
        let grant = self.grant()?;
        if store::owns(grant, account) {
            return Ok(());
        }
        let rights = self.service.reader.rights(grant, account, mailbox).await?;
        if rights.has("r") {
            return Ok(());
        }
        let bye = "* BYE The selected mailbox may not be read any more\r\n";
        put::text(&mut self.out, bye);
        Err(Refused::End(End::Said("right taken")))
    }

    /// Whose messages are read: the selected mailbox's owner's.
    pub(crate) fn selected_account(&self) -> AccountId {
        self.selected
            .as_ref()
            .map_or(self.account_id(), |selected| selected.shown.mailbox.account)
    }
}

#[cfg(test)]
mod tests {
    use super::{GROUPS, OTHERS, below};

    #[test]
    fn only_an_address_at_the_second_level_is_an_owner() {
        let name = "Other Users/Bob@Example.net/Sent/2026";
        let found = Some(("bob@example.net".to_owned(), "Sent/2026"));
        assert_eq!(below(name, OTHERS), found);
        assert_eq!(below("Groups/Family/Photos", GROUPS), None);
        assert_eq!(below("Groups/sales@example.net", GROUPS), None);
        assert_eq!(below("Groups/sales@example.net/", GROUPS), None);
        assert_eq!(below("INBOX", OTHERS), None);
    }
}
