//! The real [`Backend`]: authd and queued over their sockets.

use crate::backend::Backend;
use crate::checks::Evidence;
use crate::dnslist::{Asking, DnsLists, Standing, Stranger};
use crate::limitd::Limitd;
use ipc::api::authd::{AuthContinue, AuthReply, AuthStart, MaySend, Resolution, ResolveRecipient};
use ipc::api::limitd::{Identity, Weigh, Weighed};
use ipc::api::queued::{
    CloseSpool, Commit, OpenSpool, ReadSpool, ReserveIds, ReservedIds, SpoolSlot,
};
use ipc::{Client, Fault, FaultKind, Operation};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::sync::Mutex;
use types::{AccountId, Address, QueueId, TraceId};

/// Ids asked for at once.
const BLOCK: u32 = 1024;
/// A login may wait for others' hashing.
const LOGIN: Duration = Duration::from_secs(60);
/// How long hookd may be away before it counts as away: it is started again within a second.
const HOOKD_AWAY: Duration = Duration::from_secs(5);

/// authd, queued and DNS.
#[derive(Debug)]
pub struct Peers {
    authd: Client,
    queued: Client,
    /// `None` if there are no filters.
    hookd: Option<Client>,
    /// `None` if nothing is checked.
    judge: Option<mailauth::Judge>,
    /// `None` if there are none.
    lists: Option<DnsLists>,
    /// `None` if nothing is weighed.
    limitd: Option<Limitd>,
    ids: Mutex<Option<(u64, u64)>>,
}

impl Peers {
    /// Calls through these connections.
    pub fn new(
        authd: Client,
        queued: Client,
        hookd: Option<Client>,
        judge: Option<mailauth::Judge>,
        lists: Option<DnsLists>,
        limitd: Option<Limitd>,
    ) -> Self {
        Self {
            authd,
            queued,
            hookd,
            judge,
            lists,
            limitd,
            ids: Mutex::default(),
        }
    }
}

impl Backend for Peers {
    async fn resolve(&self, trace: TraceId, address: &Address) -> Result<Resolution, Fault> {
        let request = ResolveRecipient {
            address: address.clone(),
        };
        Ok(self.authd.call(trace, &request).await?)
    }

    async fn may_send(
        &self,
        trace: TraceId,
        account: AccountId,
        address: &Address,
    ) -> Result<bool, Fault> {
        let request = MaySend {
            account,
            address: address.clone(),
        };
        Ok(self.authd.call(trace, &request).await?)
    }

    async fn auth_start(&self, trace: TraceId, start: AuthStart) -> Result<AuthReply, Fault> {
        Ok(self
            .authd
            .call_with(trace, &start, Vec::new(), LOGIN)
            .await?
            .0)
    }

    async fn auth_continue(&self, trace: TraceId, next: AuthContinue) -> Result<AuthReply, Fault> {
        Ok(self
            .authd
            .call_with(trace, &next, Vec::new(), LOGIN)
            .await?
            .0)
    }

    async fn queue_id(&self, trace: TraceId) -> Result<QueueId, Fault> {
        let mut ids = self.ids.lock().await;
        let (next, end) = match *ids {
            Some((next, end)) if next < end => (next, end),
            _ => {
                let ReservedIds { first, count } = self
                    .queued
                    .call(trace, &ReserveIds { count: BLOCK })
                    .await?;
                (first.0, first.0 + u64::from(count))
            }
        };
        *ids = Some((next + 1, end));
        Ok(QueueId(next))
    }

    async fn open_spool(&self, trace: TraceId, expected: u64) -> Result<(SpoolSlot, File), Fault> {
        let request = OpenSpool { expected };
        let (slot, descriptors) = self
            .queued
            .call_with(trace, &request, Vec::new(), Duration::from_secs(30))
            .await?;
        let missing = || Fault::new(FaultKind::Internal, "queued gave no descriptor");
        let descriptor: OwnedFd = descriptors.into_iter().next().ok_or_else(missing)?;
        Ok((slot, File::from(descriptor)))
    }

    async fn read_spool(&self, trace: TraceId, slot: u64) -> Result<File, Fault> {
        let request = ReadSpool { slot };
        let limit = Duration::from_secs(30);
        let call = self.queued.call_with(trace, &request, Vec::new(), limit);
        let ((), descriptors) = call.await?;
        let missing = || Fault::new(FaultKind::Internal, "queued gave no descriptor");
        let descriptor = descriptors.into_iter().next().ok_or_else(missing)?;
        Ok(File::from(descriptor))
    }

    async fn hook<O: Operation>(
        &self,
        trace: TraceId,
        request: &O,
        descriptors: Vec<OwnedFd>,
        limit: Duration,
    ) -> Result<(O::Reply, Vec<OwnedFd>), Fault> {
        let away = || Fault::new(FaultKind::Temporary, "hookd is away");
        let hookd = self.hookd.as_ref().ok_or_else(away)?;
        if !hookd.is_connected() && !hookd.ready(HOOKD_AWAY).await {
            return Err(away());
        }
        Ok(hookd.call_with(trace, request, descriptors, limit).await?)
    }

    async fn close_spool(&self, trace: TraceId, slot: SpoolSlot) {
        // If it does not come through, queued removes the file when it sees that we are gone.
        if let Err(error) = self
            .queued
            .call(trace, &CloseSpool { slot: slot.slot })
            .await
        {
            tracing::debug!(%trace, %error, "a spool file was not given back");
        }
    }

    async fn judge(&self, client: &mailauth::Client<'_>, evidence: Evidence) -> mailauth::Report {
        match &self.judge {
            Some(judge) => judge.judge(client, &evidence.header, evidence.hashes).await,
            None => mailauth::Report::default(),
        }
    }

    async fn identify(&self, client: &mailauth::Client<'_>) -> Identity {
        let Some(judge) = &self.judge else {
            return Identity::default();
        };
        let (name, spf) = judge.identify(client).await;
        Identity { name, spf }
    }

    async fn standing(&self, of: Stranger, at: Asking) -> Standing {
        match &self.lists {
            Some(lists) => lists.standing(of, at).await,
            None => Standing::default(),
        }
    }

    async fn weigh(&self, trace: TraceId, weigh: &Weigh) -> Result<Weighed, Fault> {
        match &self.limitd {
            Some(limitd) => limitd.weigh(trace, weigh).await,
            None => Err(Fault::new(FaultKind::Temporary, "limitd is not asked")),
        }
    }

    async fn give_back(&self, trace: TraceId, weigh: Weigh) {
        if let Some(limitd) = &self.limitd {
            limitd.give_back(trace, weigh).await;
        }
    }

    async fn commit(&self, commit: Commit) -> Result<(), Fault> {
        let call =
            self.queued
                .call_with(commit.trace, &commit, Vec::new(), Duration::from_secs(120));
        let fault = match call.await {
            Ok(((), _)) => return Ok(()),
            Err(error) => Fault::from(error),
        };
        if fault.kind == FaultKind::Invalid {
            // Perhaps queued's state was replaced, and it does not know our ids: the next message asks for new ones.
            *self.ids.lock().await = None;
        }
        Err(fault)
    }
}
