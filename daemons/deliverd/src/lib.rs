//! deliverd: turns a queued message into finished rows of the store.
//!
//! queued gives it a message with its local recipients. deliverd asks authd what is behind each address (accounts, aliases,
//! groups, a catch-all, a subaddress), parses the message once, adds Return-Path and Delivered-To for each copy, and gives
//! stored all copies together. Addresses elsewhere go back to queued as redirects, which it journals as new messages; under a
//! reverse-path of ours that authd makes (SRS), so that failures find their way back. The answer has one outcome a recipient: done when every mailbox behind it has the message, temporary as long as one may get it
//! later.
//!
//! An account gets one copy of a message however many of its addresses were written to. A message that has been at an address
//! before, which its Delivered-To fields tell, is not taken there again: that ends loops of aliases between hosts.
//!
//! Before a copy is stored, the Sieve scripts of its account run: the administrator's, the user's active one, the administrator's
//! again. They file, flag, change, redirect, answer or refuse; what they send goes back to queued as a message of its own. A
//! script that fails, or no longer compiles, keeps the message. What a script must not do twice (vacation, duplicate) is noted by
//! stored under the message's id in the queue, so that a repeated delivery does not count against itself.
//!
//! Mail for `reportd.addresses` goes to reportd as it is, whoever else gets it.
//!
//! Mail to a mailing list is judged by who its author is, given the list's fields, tag and footer, and handed to queued with all
//! members as recipients: one file, which comes with the answer; or, where each member has a copy of their own, a page of members
//! at a time. What waits for a list's owners goes back to queued, which holds it, with what they are told. Bounces count against
//! members, and commands are answered; authd
//! keeps members and makes the tokens of questions.
//!
//! SECURITY: user `posthouse-deliver`. No network, writes nothing. Reads the message in its call or through a descriptor, and the
//! store, for scripts and mailboxes. Calls authd (ResolveRecipient, ForwardSender, and what
//! lists need), stored (Deliver, Remember) and reportd (TakeReport). Serves queued alone. It is the
//! parser of hostile input on this side of the queue and runs the users' scripts: it holds no secret and no right but to deliver.
//!
//! STANDARDS: RFC 5321 4.4 (Return-Path), RFC 5233 (subaddresses, as folders), RFC 9228 (Delivered-To), RFC 5322 and RFC 2045
//! to 2047 (parsing, see the crate `message`), RFC 2369 and RFC 2919 (lists), RFC 3464 (bounces), RFC 3834 (answers), RFC 5228 and its extensions (Sieve, see the crate `sieve`).
//!
//! RECOVERY: keeps no state. Killed in the middle, it is asked again by queued; stored knows the copies that it has, by the
//! message's id in the queue, and takes none twice.
#![forbid(unsafe_code)]

mod config;
mod copies;
mod delivery;
mod filing;
pub mod fuzz;
mod junk;
mod lists;
mod reports;
mod script;

pub use config::{Config, OverQuota, SieveConfig};

use delivery::{Delivery, Directory, Store, StoreResults};
use ipc::api::authd::{
    ForwardSender, ListAnswer, ListBounced, ListCommand, ListCopies, ListCopiesPage, ListDecide,
    ListHold, ListPoster, ListRecipients, ListStanding, ListSuspended, Resolution,
    ResolveRecipient,
};
use ipc::api::deliverd::Deliver;
use ipc::api::stored;
use ipc::{Client, Fault, FaultKind, Router};
use runtime::{Failure, Needs, Setting, Start};
use script::Scripts;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use types::{Address, Role, TraceId};

/// The store if it lies elsewhere, and the administrator's scripts and lists.
///
/// # Errors
/// A store that makes no sense.
pub fn needs(config: &Config, setting: &Setting) -> Result<Needs, Failure> {
    let mut needs = access::store_needs(setting)?;
    let scripts = &config.sieve;
    needs.read.extend(scripts.before.iter().cloned());
    needs.read.extend(scripts.after.iter().cloned());
    needs.read.extend(scripts.global_dir.clone());
    needs.read.extend(scripts.lists.values().cloned());
    Ok(needs)
}

/// How long the store has for a call: a large message to many accounts, on a slow disk.
const STORE_DEADLINE: Duration = Duration::from_secs(120);

impl Directory for Client {
    async fn resolve(&self, trace: TraceId, address: &Address) -> Result<Resolution, Fault> {
        let request = ResolveRecipient {
            address: address.clone(),
        };
        self.call(trace, &request).await.map_err(Fault::from)
    }

    async fn forward_sender(
        &self,
        trace: TraceId,
        request: ForwardSender,
    ) -> Result<Option<Address>, Fault> {
        self.call(trace, &request).await.map_err(Fault::from)
    }

    async fn list_poster(
        &self,
        trace: TraceId,
        request: ListPoster,
    ) -> Result<Option<ListStanding>, Fault> {
        self.call(trace, &request).await.map_err(Fault::from)
    }

    async fn list_recipients(
        &self,
        trace: TraceId,
        request: ListRecipients,
    ) -> Result<Vec<Address>, Fault> {
        self.call(trace, &request).await.map_err(Fault::from)
    }

    async fn list_copies(
        &self,
        trace: TraceId,
        request: ListCopies,
    ) -> Result<Option<ListCopiesPage>, Fault> {
        self.call(trace, &request).await.map_err(Fault::from)
    }

    async fn list_bounced(
        &self,
        trace: TraceId,
        request: ListBounced,
    ) -> Result<ListSuspended, Fault> {
        self.call(trace, &request).await.map_err(Fault::from)
    }

    async fn list_command(
        &self,
        trace: TraceId,
        request: ListCommand,
    ) -> Result<ListAnswer, Fault> {
        self.call(trace, &request).await.map_err(Fault::from)
    }

    async fn list_hold(
        &self,
        trace: TraceId,
        request: ListHold,
    ) -> Result<Option<ListDecide>, Fault> {
        self.call(trace, &request).await.map_err(Fault::from)
    }
}

/// stored behind its socket. A type of its own, as authd is behind one too.
struct Stored(Client);

impl Store for Stored {
    async fn deliver(
        &self,
        trace: TraceId,
        call: stored::Deliver,
        file: Option<Arc<File>>,
    ) -> Result<StoreResults, Fault> {
        let descriptors = match file {
            Some(file) => {
                let again = file
                    .try_clone()
                    .map_err(|error| Fault::new(FaultKind::Temporary, error.to_string()))?;
                vec![OwnedFd::from(again)]
            }
            None => Vec::new(),
        };
        let called = self
            .0
            .call_with(trace, &call, descriptors, STORE_DEADLINE)
            .await;
        called.map(|(results, _)| results).map_err(Fault::from)
    }

    async fn remember(&self, trace: TraceId, call: stored::Remember) -> Result<(), Fault> {
        self.0.call(trace, &call).await.map_err(Fault::from)
    }
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// What keeps it from starting.
pub async fn run(start: Start<Config>) -> Result<(), Failure> {
    let config = start.config().clone();
    let places = Arc::new(Semaphore::new(config.concurrency.max(1)));
    let (authd, stored) = (
        start.client(Role::Authd),
        Stored(start.client(Role::Stored)),
    );
    let reader = access::open_store(
        &start.section("store")?,
        &start.section("blob")?,
        &start.state_of(Role::Stored),
        start.stopping(),
    )
    .await?;
    let hostname = start.suite().hostname.clone();
    let scripts = Scripts::new(reader, config.sieve.clone(), &hostname)
        .map_err(|problem| Failure::new(format!("deliverd.sieve: {problem}")))?;
    let reportd = start
        .enabled(Role::Reportd)
        .then(|| start.client(Role::Reportd));
    let delivery = Delivery::new(authd, stored, config, Some(scripts))
        .with_reportd(reportd)
        .with_web(
            start
                .enabled(Role::Httpd)
                .then(|| hostname.to_ascii_lowercase()),
        );
    let delivery = Arc::new(delivery);
    let router = Router::new(Role::Deliverd).on(move |mut context: ipc::Context, call: Deliver| {
        let (delivery, places) = (delivery.clone(), places.clone());
        async move {
            let closing = |_| Fault::new(FaultKind::Temporary, "shutting down");
            let _place = places.acquire_owned().await.map_err(closing)?;
            let mut descriptors = std::mem::take(&mut context.descriptors);
            let file = descriptors.pop().map(File::from);
            if !descriptors.is_empty() {
                return Err(Fault::new(
                    FaultKind::Invalid,
                    "a call has one descriptor at most",
                ));
            }
            let (delivered, files) = delivery.deliver_posts(call, file).await?;
            for file in files {
                context.attach(file.into());
            }
            Ok(delivered)
        }
    });
    start
        .serve(router)
        .await
        .map_err(|error| Failure::new(error.to_string()))
}
