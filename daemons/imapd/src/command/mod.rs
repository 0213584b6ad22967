//! The commands of a client that is logged in, a file each.

mod acl;
mod append;
mod catenate;
mod change;
mod context;
mod criteria;
mod esearch;
mod fetch;
mod idle;
mod indexed;
mod limit;
mod list;
mod mailbox;
mod metadata;
mod multisearch;
mod notify;
mod pace;
mod quota;
mod resync;
mod search;
mod section;
mod select;
mod sort;
mod target;
pub(crate) mod thread;
mod upload;

pub(crate) use context::Contexts;
pub(crate) use indexed::IndexRest;
pub(crate) use limit::capability as limit_capability;
pub(crate) use notify::Notifying;
pub(crate) use upload::{PIECE, Upload};

use crate::session::{Done, Refused, Session, done};
use imap::{Command, put};
use ipc::api::stored::{Mutate, Mutated, Mutation};
use pace::Pace;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use types::RequestId;

/// A change of many messages on a slow disk.
const PATIENCE: Duration = Duration::from_secs(120);

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync> Session<S> {
    pub(crate) async fn authenticated(&mut self, command: Command) -> Done {
        self.keep_right().await?;
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
            Command::Namespace => self.namespace().await,
            Command::GetAcl { mailbox } => self.get_acl(&mailbox).await,
            Command::SetAcl {
                mailbox,
                identifier,
                rights,
            } => self.set_acl(&mailbox, &identifier, &rights).await,
            Command::DeleteAcl {
                mailbox,
                identifier,
            } => self.delete_acl(&mailbox, &identifier).await,
            Command::ListRights {
                mailbox,
                identifier,
            } => self.list_rights(&mailbox, &identifier).await,
            Command::MyRights { mailbox } => self.my_rights(&mailbox).await,
            Command::Status { mailbox, items } => self.status(&mailbox, &items).await,
            Command::Notify(notify) => self.notify(notify).await,
            Command::Idle => self.idle().await,
            Command::Close => self.close_mailbox().await,
            Command::Unselect => {
                self.chosen()?;
                self.selected = None;
                done("completed")
            }
            Command::Append { append, pieces } => self.append_parts(&append, pieces).await,
            Command::Expunge => self.expunge(None).await,
            Command::UidExpunge(set) => self.expunge(Some(&set)).await,
            Command::Search(search) => self.search(&search).await,
            Command::MultiSearch(search) => self.multi_search(&search).await,
            Command::CancelUpdate(tags) => self.cancel_update(&tags),
            Command::Sort(sort) => self.sort(&sort).await,
            Command::Thread(thread) => self.thread(thread).await,
            Command::Fetch(fetch) => self.fetch(fetch).await,
            Command::Store(store) => self.store_flags(store).await,
            Command::Copy { uid, set, mailbox } => self.copy(uid, &set, &mailbox).await,
            Command::Move { uid, set, mailbox } => self.move_to(uid, &set, &mailbox).await,
            Command::GetMetadata(get) => self.get_metadata(get).await,
            Command::SetMetadata(set) => self.set_metadata(set).await,
            Command::GetQuota { root } => self.get_quota(&root).await,
            Command::GetQuotaRoot { mailbox } => self.get_quota_root(&mailbox).await,
            Command::Capability
            | Command::Logout
            | Command::Unauthenticate
            | Command::Compress
            | Command::StartTls
            | Command::Authenticate { .. }
            | Command::Login { .. }
            | Command::Id(_) => Err(Refused::Bad("Not now")),
        }
    }

    /// Has stored change something. Sent again under the same id if the connection breaks. A client that waits long is told
    /// that it is not in vain.
    pub(crate) async fn mutate_in(
        &mut self,
        of: types::AccountId,
        mutation: Mutation,
    ) -> Result<Mutated, Refused> {
        let Some(account) = &self.account else {
            return Err(Refused::Bad("Log in first"));
        };
        let request = RequestId(rand::random());
        let call = Mutate {
            request,
            grant: account.login.grant.clone(),
            account: of,
            mutation,
        };
        let stored = self.service.stored.clone();
        let answer = stored.call_with(self.trace, &call, Vec::new(), PATIENCE);
        let mut answer = std::pin::pin!(answer);
        let pause = pace::pause(self.service.config.progress_s).unwrap_or(PATIENCE);
        loop {
            match tokio::time::timeout(pause, &mut answer).await {
                Ok(answered) => return Ok(answered?.0),
                Err(_) => self.in_progress(None).await?,
            }
        }
    }

    /// A change of the user's own account.
    pub(crate) async fn mutate(&mut self, mutation: Mutation) -> Result<Mutated, Refused> {
        self.mutate_in(self.account_id(), mutation).await
    }

    /// A change of the account whose mailbox is selected.
    pub(crate) async fn mutate_selected(&mut self, mutation: Mutation) -> Result<Mutated, Refused> {
        self.mutate_in(self.selected_account(), mutation).await
    }

    /// RFC 9585 4: the command goes on; how much is done, and of how much, if that is known.
    async fn in_progress(&mut self, progress: Option<(u64, u64)>) -> Result<(), Refused> {
        // A tag may have what would seem to end the code.
        let tag = &self.tag;
        let code = match progress {
            _ if tag.contains(']') => String::new(),
            None => format!(" (\"{tag}\" NIL NIL)"),
            Some((done, all)) => format!(" (\"{tag}\" {done} {all})"),
        };
        let line = format!("* OK [INPROGRESS{code}] Still at it\r\n");
        put::text(&mut self.out, &line);
        Ok(self.flush().await?)
    }

    pub(crate) fn account_id(&self) -> types::AccountId {
        self.account
            .as_ref()
            .map_or(types::AccountId(0), |account| account.id)
    }
}
