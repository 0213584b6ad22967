//! GETACL, SETACL, DELETEACL, LISTRIGHTS and MYRIGHTS (RFC 4314).

use super::target::Target;
use crate::session::{Done, Refused, Session, done};
use imap::put;
use ipc::api::authd::ResolveIdentifier;
use ipc::api::stored::Mutation;
use store::AclRights;
use tokio::io::{AsyncRead, AsyncWrite};

/// With the letters of RFC 2086 that clients from before look for (RFC 4314 2.1.1).
fn letters(rights: AclRights) -> String {
    let mut text = rights.to_string();
    if rights.has_any("kx") {
        text.push('c');
    }
    if rights.has_any("te") {
        text.push('d');
    }
    text
}

/// What a SETACL leaves: the rights given, or those there were with some more or less (RFC 4314 3.1).
fn modified(before: AclRights, text: &str) -> Result<AclRights, Refused> {
    let wrong = Refused::Bad("There is no such right");
    let (sign, text) = match text.as_bytes().first() {
        Some(sign @ (b'+' | b'-')) => (Some(*sign), text.get(1..).unwrap_or_default()),
        _ => (None, text),
    };
    let named = AclRights::parse(text).ok_or(wrong)?;
    Ok(match sign {
        Some(b'+') => before.with(named),
        Some(_) => before.without(named),
        None => named,
    })
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    pub(super) async fn get_acl(&mut self, name: &str) -> Done {
        let target = self.target(name, "NONEXISTENT", "a").await?;
        let (account, mailbox) = (target.mailbox.account, target.mailbox.id);
        let entries = self.service.reader.acl(account, mailbox).await?;
        put::text(&mut self.out, "* ACL ");
        self.names.put(&mut self.out, name);
        let owner = (target.owner, letters(AclRights::ALL));
        let entries = entries
            .into_iter()
            .map(|entry| (entry.identifier, letters(entry.rights)));
        for (identifier, rights) in std::iter::once(owner).chain(entries) {
            self.out.push(b' ');
            put::string(&mut self.out, identifier.as_bytes());
            put::text(&mut self.out, &format!(" {rights}"));
        }
        put::text(&mut self.out, "\r\n");
        done("completed")
    }

    /// The identifier as it is written in lists. One that is not known is refused, lest a slip gives rights to whoever gets
    /// that name one day.
    async fn identifier(&self, text: &str) -> Result<String, Refused> {
        let (sign, name) = match text.strip_prefix('-') {
            Some(name) => ("-", name),
            None => ("", text),
        };
        if name.eq_ignore_ascii_case("anyone") {
            return Ok(format!("{sign}anyone"));
        }
        let identifier = name.to_owned();
        let resolved = self
            .service
            .authd
            .call(self.trace, &ResolveIdentifier { identifier })
            .await?;
        let unknown = || Refused::No("", "There is no such account or group".to_owned());
        Ok(format!(
            "{sign}{}",
            resolved.ok_or_else(unknown)?.to_lowercase()
        ))
    }

    async fn change_acl(
        &mut self,
        target: &Target,
        identifier: String,
        rights: AclRights,
    ) -> Result<(), Refused> {
        if identifier.trim_start_matches('-') == target.owner {
            return Err(Refused::No(
                "CANNOT",
                "The owner always has all rights".to_owned(),
            ));
        }
        let mutation = Mutation::SetAcl {
            mailbox: target.mailbox.id,
            identifier,
            rights: rights.to_string(),
        };
        self.mutate_in(target.mailbox.account, mutation).await?;
        Ok(())
    }

    pub(super) async fn set_acl(&mut self, name: &str, identifier: &str, text: &str) -> Done {
        let target = self.target(name, "NONEXISTENT", "a").await?;
        let identifier = self.identifier(identifier).await?;
        let (account, mailbox) = (target.mailbox.account, target.mailbox.id);
        let entries = self.service.reader.acl(account, mailbox).await?;
        let mut entries = entries.into_iter();
        let before = entries
            .find(|entry| entry.identifier == identifier)
            .map_or(AclRights::NONE, |entry| entry.rights);
        let rights = modified(before, text)?;
        self.change_acl(&target, identifier, rights).await?;
        done("completed")
    }

    pub(super) async fn delete_acl(&mut self, name: &str, identifier: &str) -> Done {
        let target = self.target(name, "NONEXISTENT", "a").await?;
        // What stands there can be removed, also when the account is gone.
        let identifier = identifier.to_lowercase();
        self.change_acl(&target, identifier, AclRights::NONE)
            .await?;
        done("completed")
    }

    pub(super) async fn list_rights(&mut self, name: &str, identifier: &str) -> Done {
        let target = self.target(name, "NONEXISTENT", "a").await?;
        let resolved = self.identifier(identifier).await?;
        put::text(&mut self.out, "* LISTRIGHTS ");
        self.names.put(&mut self.out, name);
        self.out.push(b' ');
        put::string(&mut self.out, identifier.as_bytes());
        if resolved == target.owner {
            // RFC 4314 3.7: the first are always there
            let all = letters(AclRights::ALL);
            put::text(&mut self.out, &format!(" {all}\r\n"));
        } else {
            put::text(&mut self.out, " \"\" l r s w i p k x t e a c d\r\n");
        }
        done("completed")
    }

    pub(super) async fn my_rights(&mut self, name: &str) -> Done {
        let target = self.target(name, "NONEXISTENT", "").await?;
        // RFC 4314 4: one of these rights is needed
        if !target.rights.has_any("lrikxta") {
            return Err(Refused::No(
                "NONEXISTENT",
                "There is no such mailbox".to_owned(),
            ));
        }
        self.put_my_rights(name, target.rights);
        done("completed")
    }

    pub(super) fn put_my_rights(&mut self, name: &str, rights: AclRights) {
        put::text(&mut self.out, "* MYRIGHTS ");
        self.names.put(&mut self.out, name);
        put::text(&mut self.out, &format!(" {}\r\n", letters(rights)));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{letters, modified};
    use store::AclRights;

    #[test]
    fn rights_are_set_added_and_taken() {
        let before = AclRights::parse("lrs").unwrap();
        assert_eq!(modified(before, "lr").unwrap().to_string(), "lr");
        assert_eq!(modified(before, "+ik").unwrap().to_string(), "lrsik");
        assert_eq!(modified(before, "-s").unwrap().to_string(), "lr");
        assert_eq!(modified(before, "+d").unwrap().to_string(), "lrste");
        assert!(modified(before, "").unwrap().is_empty());
        assert!(modified(before, "lrq").is_err());
        assert!(modified(before, "lr+s").is_err());
    }

    #[test]
    fn old_letters_are_shown_beside_the_new() {
        assert_eq!(letters(AclRights::parse("lrx").unwrap()), "lrxc");
        assert_eq!(letters(AclRights::parse("lre").unwrap()), "lred");
        assert_eq!(letters(AclRights::ALL), "lrswipkxteacd");
    }
}
