//! CREATE, DELETE, RENAME, SUBSCRIBE, NAMESPACE.

use super::target::{GROUPS, OTHERS};
use crate::session::{Done, Refused, Session, done};
use imap::{Names, put};
use ipc::api::stored::{Mutation, MutationResult};
use tokio::io::{AsyncRead, AsyncWrite};

/// RFC 9051 6.3.9.7
fn put_old_name(out: &mut Vec<u8>, names: Names, old: &str) {
    put::text(out, " (\"OLDNAME\" (");
    names.put(out, old);
    put::text(out, "))\r\n");
}

/// The end of a LIST: the name as it is kept, and, if that is another form, as the client gave it.
pub(super) fn put_supplied(out: &mut Vec<u8>, names: Names, supplied: &str) {
    let kept = store::canonical(supplied);
    names.put(out, &kept);
    match kept == supplied {
        true => put::text(out, "\r\n"),
        false => put_old_name(out, names, supplied),
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    /// RFC 9051 6.3.9.7: a name that is kept in another form than it was given. Clients of IMAP4rev1 do not know of this.
    fn tell_kept(&mut self, attribute: &str, supplied: &str) {
        if self.rev2 && store::canonical(supplied) != supplied {
            put::text(&mut self.out, &format!("* LIST ({attribute}) \"/\" "));
            put_supplied(&mut self.out, self.names, supplied);
        }
    }

    pub(super) async fn create(&mut self, name: String, special_use: Vec<String>) -> Done {
        if special_use.len() > 1 {
            // RFC 6154 3
            return Err(Refused::No(
                "USEATTR",
                "A mailbox has one special use".to_owned(),
            ));
        }
        if special_use
            .iter()
            .any(|one| store::known_special_use(one).is_none())
        {
            let text = "There is no such special use here".to_owned();
            return Err(Refused::No("USEATTR", text));
        }
        let place = self.place(&name, "CANNOT").await?;
        let mutation = Mutation::MailboxCreate {
            name: place.name,
            special_use: special_use.into_iter().next(),
        };
        let created = self.mutate_in(place.account, mutation).await?.result;
        self.tell_kept("", &name);
        match created {
            // RFC 8474 4.2
            MutationResult::Created { mailbox } => {
                Ok((format!("MAILBOXID (F{mailbox})"), "completed"))
            }
            _ => done("completed"),
        }
    }

    pub(super) async fn delete(&mut self, name: &str) -> Done {
        let found = self.named(name, "NONEXISTENT").await?;
        let result = self
            .mutate_in(found.account, Mutation::MailboxDelete { mailbox: found.id })
            .await;
        if let Err(Refused::No("ALREADYEXISTS", text)) = result {
            // RFC 9051 6.3.5
            return Err(Refused::No("HASCHILDREN", text));
        }
        result?;
        if self
            .selected
            .as_ref()
            .is_some_and(|selected| selected.shown.mailbox.id == found.id)
        {
            self.selected = None;
        }
        self.tell_kept("\\NonExistent", name);
        done("completed")
    }

    pub(super) async fn rename(&mut self, from: &str, to: String) -> Done {
        let found = self.named(from, "NONEXISTENT").await?;
        let place = self.place(&to, "CANNOT").await?;
        if place.account != found.account {
            return Err(Refused::No(
                "CANNOT",
                "A mailbox stays with its owner".to_owned(),
            ));
        }
        let mutation = Mutation::MailboxRename {
            mailbox: found.id,
            name: place.name,
        };
        self.mutate_in(found.account, mutation).await?;
        // RFC 9051 6.3.6: INBOX stays, without its messages
        if self.rev2 && self.place(from, "CANNOT").await?.name != "INBOX" {
            put::text(&mut self.out, "* LIST () \"/\" ");
            self.names.put(&mut self.out, &store::canonical(&to));
            put_old_name(&mut self.out, self.names, &store::canonical(from));
        }
        self.tell_kept("", &to);
        done("completed")
    }

    pub(super) async fn subscribe(&mut self, name: String, subscribed: bool) -> Done {
        self.mutate(Mutation::Subscribe { name, subscribed })
            .await?;
        done("completed")
    }

    /// RFC 2342
    pub(super) async fn namespace(&mut self) -> Done {
        let shared = self.service.reader.shared_with(self.grant()?).await?;
        let namespace = |group: bool, prefix: &str| {
            if shared.iter().any(|one| one.group == group) {
                format!("((\"{prefix}\" \"/\"))")
            } else {
                "NIL".to_owned()
            }
        };
        let (others, groups) = (namespace(false, OTHERS), namespace(true, GROUPS));
        put::text(
            &mut self.out,
            &format!("* NAMESPACE ((\"\" \"/\")) {others} {groups}\r\n"),
        );
        done("completed")
    }
}
