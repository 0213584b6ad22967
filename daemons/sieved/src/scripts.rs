//! The commands about scripts (RFC 5804 2.4 to 2.12).

use crate::session::{Answer, Session};
use ipc::api::stored::{Mutate, Mutation};
use ipc::{CallError, FaultKind};
use sieve::protocol::Command;
use sieve::protocol::put::{self, Code};
use std::time::Duration;
use types::{AccountId, Octets, RequestId};

/// A slow disk.
const PATIENCE: Duration = Duration::from_secs(60);

fn later() -> Answer {
    Answer::no(
        Code::TryLater,
        "Not possible at the moment, try again later",
    )
}

fn unread(error: &store::Error) -> Answer {
    tracing::warn!(%error, "the store cannot be read");
    later()
}

impl Session {
    fn account(&self) -> AccountId {
        self.login
            .as_ref()
            .map_or(AccountId(0), |login| login.grant.account)
    }

    pub(crate) async fn scripts(&mut self, command: Command) -> Answer {
        let done = match command {
            Command::ListScripts => self.list().await,
            Command::GetScript(name) => self.get(&name).await,
            Command::HaveSpace { name, size } => self.room(&name, u64::from(size)).await,
            Command::CheckScript(content) => self.check(content).await.map(drop),
            Command::PutScript { name, content } => self.put(name, content).await,
            Command::SetActive(name) => {
                self.mutate(Mutation::ScriptActivate { name }, Code::NonExistent)
                    .await
            }
            Command::DeleteScript(name) => {
                self.mutate(Mutation::ScriptDelete { name }, Code::Active)
                    .await
            }
            Command::RenameScript { from, to } => {
                self.mutate(Mutation::ScriptRename { from, to }, Code::AlreadyExists)
                    .await
            }
            _ => Err(Answer::no(None, "Not now")),
        };
        done.map_or_else(|answer| answer, |()| Answer::ok("Done"))
    }

    async fn list(&mut self) -> Result<(), Answer> {
        let scripts = self.service.reader.scripts(self.account()).await;
        for script in scripts.map_err(|error| unread(&error))? {
            put::script(&mut self.channel.out, &script.name, script.active);
        }
        Ok(())
    }

    async fn get(&mut self, name: &str) -> Result<(), Answer> {
        let content = self.service.reader.script(self.account(), name).await;
        let content = content.map_err(|error| unread(&error))?;
        let content =
            content.ok_or_else(|| Answer::no(Code::NonExistent, "There is no such script"))?;
        put::content(&mut self.channel.out, &content);
        Ok(())
    }

    /// RFC 5804 2.5
    async fn room(&self, name: &str, size: u64) -> Result<(), Answer> {
        let config = &self.config;
        if size > u64::from(config.script_bytes) {
            let text = format!("A script has {} octets at most", config.script_bytes);
            return Err(Answer::no(Code::QuotaMaxSize, text));
        }
        let scripts = self.service.reader.scripts(self.account()).await;
        let scripts = scripts.map_err(|error| unread(&error))?;
        let others = scripts.iter().filter(|script| script.name != name).count();
        if others >= config.scripts {
            let text = format!("There are {} scripts at most", config.scripts);
            return Err(Answer::no(Code::QuotaMaxScripts, text));
        }
        Ok(())
    }

    /// Gives the script back if it compiles.
    async fn check(&self, content: Vec<u8>) -> Result<Vec<u8>, Answer> {
        // What is larger than deliverd takes would never run.
        let limits = self.service.limits.clone();
        let limits = sieve::Limits {
            script_bytes: limits.script_bytes.min(self.config.script_bytes as usize),
            ..limits
        };
        // Off the threads that serve everybody: a script is as bad as its author.
        let compiled =
            tokio::task::spawn_blocking(move || sieve::compile(&content, &limits).map(|_| content));
        match compiled.await {
            Ok(Ok(content)) => Ok(content),
            Ok(Err(problem)) => Err(Answer::no(None, problem.to_string())),
            Err(error) => {
                tracing::error!(%error, "a script could not be compiled");
                Err(later())
            }
        }
    }

    async fn put(&self, name: String, content: Vec<u8>) -> Result<(), Answer> {
        self.room(&name, content.len() as u64).await?;
        let content = Octets(self.check(content).await?);
        self.mutate(Mutation::ScriptPut { name, content }, Code::TryLater)
            .await
    }

    /// Has stored change something. `conflict` says what a conflict means.
    async fn mutate(&self, mutation: Mutation, conflict: Code) -> Result<(), Answer> {
        let Some(login) = &self.login else {
            return Err(Answer::no(None, "Log in first"));
        };
        let call = Mutate {
            request: RequestId(rand::random()),
            grant: login.grant.clone(),
            account: login.grant.account,
            mutation,
        };
        let stored = &self.service.stored;
        match stored
            .call_with(self.channel.guest.trace, &call, Vec::new(), PATIENCE)
            .await
        {
            Ok(_) => Ok(()),
            Err(error) => Err(failed(&error, conflict)),
        }
    }
}

fn failed(error: &CallError, conflict: Code) -> Answer {
    let Some(fault) = error.fault() else {
        tracing::warn!(%error, "a call failed");
        return later();
    };
    match fault.kind {
        FaultKind::NotFound => Answer::no(Code::NonExistent, "There is no such script"),
        FaultKind::Conflict if conflict == Code::Active => {
            Answer::no(conflict, "The script is active")
        }
        FaultKind::Conflict => Answer::no(conflict, "There is a script of that name"),
        FaultKind::OverQuota => Answer::no(Code::Quota, "A limit of the account is reached"),
        FaultKind::Denied => Answer::no(None, "This login may not change scripts"),
        FaultKind::Invalid => Answer::no(None, fault.text.clone()),
        FaultKind::Temporary | FaultKind::Busy | FaultKind::Internal => {
            tracing::warn!(%fault, "a call failed");
            later()
        }
    }
}
