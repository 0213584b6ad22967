//! CREATE, DELETE, RENAME, SUBSCRIBE, NAMESPACE.

use crate::session::{Done, Refused, Session, done};
use imap::put;
use ipc::api::stored::{Mutation, MutationResult};
use tokio::io::{AsyncRead, AsyncWrite};

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    pub(super) async fn create(&mut self, name: String, special_use: Vec<String>) -> Done {
        if special_use.len() > 1 {
            // RFC 6154 3
            return Err(Refused::No(
                "USEATTR",
                "A mailbox has one special use".to_owned(),
            ));
        }
        let mutation = Mutation::MailboxCreate {
            name,
            special_use: special_use.into_iter().next(),
        };
        match self.mutate(mutation).await?.result {
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
            .mutate(Mutation::MailboxDelete { mailbox: found.id })
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
        done("completed")
    }

    pub(super) async fn rename(&mut self, from: &str, to: String) -> Done {
        let found = self.named(from, "NONEXISTENT").await?;
        self.mutate(Mutation::MailboxRename {
            mailbox: found.id,
            name: to,
        })
        .await?;
        done("completed")
    }

    pub(super) async fn subscribe(&mut self, name: String, subscribed: bool) -> Done {
        self.mutate(Mutation::Subscribe { name, subscribed })
            .await?;
        done("completed")
    }

    /// RFC 2342
    pub(super) fn namespace(&mut self) -> Done {
        put::text(&mut self.out, "* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n");
        done("completed")
    }
}
