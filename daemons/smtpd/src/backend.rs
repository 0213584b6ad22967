//! The daemons behind smtpd, as the session sees them.

use crate::checks::Evidence;
use crate::dnslist::{Asking, Standing, Stranger};
use ipc::api::authd::{AuthContinue, AuthReply, AuthStart, Resolution};
use ipc::api::limitd::{Identity, Weigh, Weighed};
use ipc::api::queued::{Commit, SpoolSlot};
use ipc::{Fault, FaultKind, Operation};
use std::fs::File;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::time::Duration;
use types::{AccountId, Address, QueueId, TraceId};

/// authd and queued, and DNS. One implementation calls them ([`crate::peers`]); the tests have one that answers itself.
pub trait Backend: Send + Sync + 'static {
    /// Where mail for an address goes.
    fn resolve(
        &self,
        trace: TraceId,
        address: &Address,
    ) -> impl Future<Output = Result<Resolution, Fault>> + Send;

    /// Whether an account may send under an address.
    fn may_send(
        &self,
        trace: TraceId,
        account: AccountId,
        address: &Address,
    ) -> impl Future<Output = Result<bool, Fault>> + Send;

    /// Begins a login.
    fn auth_start(
        &self,
        trace: TraceId,
        start: AuthStart,
    ) -> impl Future<Output = Result<AuthReply, Fault>> + Send;

    /// Goes on with a login.
    fn auth_continue(
        &self,
        trace: TraceId,
        next: AuthContinue,
    ) -> impl Future<Output = Result<AuthReply, Fault>> + Send;

    /// An id for the next message.
    fn queue_id(&self, trace: TraceId) -> impl Future<Output = Result<QueueId, Fault>> + Send;

    /// A file for a large body.
    fn open_spool(
        &self,
        trace: TraceId,
        expected: u64,
    ) -> impl Future<Output = Result<(SpoolSlot, File), Fault>> + Send;

    /// The file of a large body once more, for reading.
    fn read_spool(&self, _: TraceId, _: u64) -> impl Future<Output = Result<File, Fault>> + Send {
        async { Err(Fault::new(FaultKind::Internal, "nothing to read")) }
    }

    /// Asks hookd, for at most `limit`.
    fn hook<O: Operation>(
        &self,
        _: TraceId,
        _: &O,
        _: Vec<OwnedFd>,
        _: Duration,
    ) -> impl Future<Output = Result<(O::Reply, Vec<OwnedFd>), Fault>> + Send {
        async { Err(Fault::new(FaultKind::Temporary, "there is no hookd")) }
    }

    /// Gives a file back that is not committed.
    fn close_spool(&self, trace: TraceId, slot: SpoolSlot) -> impl Future<Output = ()> + Send;

    /// Who sent a message, as far as DNS tells. Takes no longer than `smtpd.checks.limits.timeout`.
    fn judge(
        &self,
        client: &mailauth::Client<'_>,
        evidence: Evidence,
    ) -> impl Future<Output = mailauth::Report> + Send;

    /// Who a client is in DNS. Takes no longer than `smtpd.checks.limits.timeout`.
    fn identify(&self, client: &mailauth::Client<'_>) -> impl Future<Output = Identity> + Send;

    /// What lists in DNS say of a stranger. Called only if there are any; takes no longer than `smtpd.dnslists.timeout`.
    fn standing(&self, of: Stranger, at: Asking) -> impl Future<Output = Standing> + Send;

    /// Whether a client may go on, as far as limitd tells. Called only if rules or greylisting need it.
    fn weigh(
        &self,
        trace: TraceId,
        weigh: &Weigh,
    ) -> impl Future<Output = Result<Weighed, Fault>> + Send;

    /// What was weighed did not come to be.
    fn give_back(&self, trace: TraceId, weigh: Weigh) -> impl Future<Output = ()> + Send;

    /// Hands the message over. `Ok` means that it survives.
    fn commit(&self, commit: Commit) -> impl Future<Output = Result<(), Fault>> + Send;
}
