//! The commands of a client that is logged in, a file each.

mod append;
mod change;
mod fetch;
mod idle;
mod list;
mod mailbox;
mod quota;
mod search;
mod section;
mod select;

use crate::session::{Done, Refused, Session, done};
use imap::Command;
use ipc::api::stored::{Mutate, Mutated, Mutation};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use types::RequestId;

/// A change of many messages on a slow disk.
const PATIENCE: Duration = Duration::from_secs(120);

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    pub(crate) async fn authenticated(&mut self, command: Command) -> Done {
        match command {
            Command::Noop | Command::Check => {
                self.refresh().await?;
                self.tell(true, &[]);
                done("completed")
            }
            Command::Enable(names) => self.enable(&names),
            Command::Select(select) => self.select(select).await,
            Command::Create {
                mailbox,
                special_use,
            } => self.create(mailbox, special_use).await,
            Command::Delete { mailbox } => self.delete(&mailbox).await,
            Command::Rename { from, to } => self.rename(&from, to).await,
            Command::Subscribe { mailbox } => self.subscribe(mailbox, true).await,
            Command::Unsubscribe { mailbox } => self.subscribe(mailbox, false).await,
            Command::List(list) => self.list(list).await,
            Command::Lsub { reference, pattern } => self.lsub(&reference, &pattern).await,
            Command::Namespace => self.namespace(),
            Command::Status { mailbox, items } => self.status(&mailbox, &items).await,
            Command::Idle => self.idle().await,
            Command::Close => self.close_mailbox().await,
            Command::Unselect => {
                self.chosen()?;
                self.selected = None;
                done("completed")
            }
            Command::Expunge => self.expunge(None).await,
            Command::UidExpunge(set) => self.expunge(Some(&set)).await,
            Command::Search(search) => self.search(&search).await,
            Command::Fetch(fetch) => self.fetch(fetch).await,
            Command::Store(store) => self.store_flags(store).await,
            Command::Copy { uid, set, mailbox } => self.copy(uid, &set, &mailbox).await,
            Command::Move { uid, set, mailbox } => self.move_to(uid, &set, &mailbox).await,
            Command::GetQuota { root } => self.get_quota(&root).await,
            Command::GetQuotaRoot { mailbox } => self.get_quota_root(&mailbox).await,
            Command::Capability
            | Command::Logout
            | Command::StartTls
            | Command::Authenticate { .. }
            | Command::Login { .. }
            | Command::Id(_) => Err(Refused::Bad("Not now")),
        }
    }

    /// Has stored change something. Sent again under the same id if the connection breaks.
    pub(crate) async fn mutate(&self, mutation: Mutation) -> Result<Mutated, Refused> {
        let Some(account) = &self.account else {
            return Err(Refused::Bad("Log in first"));
        };
        let request = RequestId(rand::random());
        let call = Mutate {
            request,
            grant: account.login.grant.clone(),
            mutation,
        };
        Ok(self
            .service
            .stored
            .call_with(self.trace, &call, Vec::new(), PATIENCE)
            .await?
            .0)
    }

    pub(crate) fn account_id(&self) -> types::AccountId {
        self.account
            .as_ref()
            .map_or(types::AccountId(0), |account| account.id)
    }

    /// A mailbox by name; NO with the given code if it is not there.
    pub(crate) async fn named(
        &self,
        name: &str,
        code: &'static str,
    ) -> Result<store::Mailbox, Refused> {
        let found = self
            .service
            .reader
            .mailbox_named(self.account_id(), name)
            .await?;
        found.ok_or_else(|| Refused::No(code, "There is no such mailbox".to_owned()))
    }
}
