//! One message to its local recipients: who they are, their copies, what the sender hears.

use crate::config::{Config, OverQuota};
use crate::copies::{Copy, groups};
use crate::lists::{Answered, ListMail, Notices};
use crate::script::{Flight, Scripts};
use ipc::api::authd::{
    ForwardSender, ListAnswer, ListBounced, ListCommand, ListCopies, ListCopiesPage, ListDecide,
    ListHold, ListPoster, ListRecipients, ListStanding, ListSuspended, Resolution, Target,
};
use ipc::api::deliverd::{Deliver, Delivered, FollowUp, LocalRecipient};
use ipc::api::stored;
use ipc::{Fault, FaultKind};
use std::collections::BTreeMap;
use std::fs::File;
use std::future::Future;
use std::sync::Arc;
use tokio::sync::Semaphore;
use types::{AccountId, Address, Body, Enhanced, Octets, Outcome, Status, TraceId};

/// Octets of a message's description at most: it travels in one frame with the body.
pub(crate) const PARSED_MAX: usize = 40 * 1024;

/// Octets of a call to the store at most: frames end at 128 KiB.
const CALL_MAX: usize = 120 * 1024;

/// Characters of a folder's name taken from a subaddress.
const FOLDER_MAX: usize = 100;

/// authd, as far as delivery needs it.
pub(crate) trait Directory: Send + Sync {
    fn resolve(
        &self,
        trace: TraceId,
        address: &Address,
    ) -> impl Future<Output = Result<Resolution, Fault>> + Send;

    /// The reverse-path of what is forwarded.
    fn forward_sender(
        &self,
        trace: TraceId,
        request: ForwardSender,
    ) -> impl Future<Output = Result<Option<Address>, Fault>> + Send;

    /// A list, and what the authors of a post are there.
    fn list_poster(
        &self,
        trace: TraceId,
        request: ListPoster,
    ) -> impl Future<Output = Result<Option<ListStanding>, Fault>> + Send;

    /// A page of its members.
    fn list_recipients(
        &self,
        trace: TraceId,
        request: ListRecipients,
    ) -> impl Future<Output = Result<Vec<Address>, Fault>> + Send;

    /// The next personal copies of a post.
    fn list_copies(
        &self,
        trace: TraceId,
        request: ListCopies,
    ) -> impl Future<Output = Result<Option<ListCopiesPage>, Fault>> + Send;

    /// Notes bounces.
    fn list_bounced(
        &self,
        trace: TraceId,
        request: ListBounced,
    ) -> impl Future<Output = Result<ListSuspended, Fault>> + Send;

    /// A command by mail.
    fn list_command(
        &self,
        trace: TraceId,
        request: ListCommand,
    ) -> impl Future<Output = Result<ListAnswer, Fault>> + Send;

    /// The addresses by which owners decide on a post.
    fn list_hold(
        &self,
        trace: TraceId,
        request: ListHold,
    ) -> impl Future<Output = Result<Option<ListDecide>, Fault>> + Send;
}

/// What the store makes of each target of a call.
pub(crate) type StoreResults = Vec<Result<stored::Stored, Fault>>;

/// stored, as far as delivery needs it. `file` goes with [`Body::Attached`].
pub(crate) trait Store: Send + Sync {
    fn deliver(
        &self,
        trace: TraceId,
        call: stored::Deliver,
        file: Option<Arc<File>>,
    ) -> impl Future<Output = Result<StoreResults, Fault>> + Send;

    /// Notes what scripts must not do again.
    fn remember(
        &self,
        trace: TraceId,
        call: stored::Remember,
    ) -> impl Future<Output = Result<(), Fault>> + Send;
}

/// What delivery needs.
pub(crate) struct Delivery<D, S> {
    pub(crate) directory: D,
    pub(crate) store: S,
    pub(crate) config: Config,
    pub(crate) large: Semaphore,
    pub(crate) answered: Answered,
    pub(crate) notices: Notices,
    /// None in tests without a store.
    pub(crate) scripts: Option<Scripts>,
    /// `None` if it does not run.
    pub(crate) reportd: Option<ipc::Client>,
    /// The host where members can leave lists; `None` without httpd.
    pub(crate) web: Option<String>,
}

/// The message in hand.
pub(crate) struct Message {
    /// What the store keeps beside the body.
    parsed: Octets,
    pub(crate) file: Option<Arc<File>>,
    /// Delivered-To of the header, in lower case.
    delivered_to: Vec<String>,
}

/// Where one recipient's mail goes, or that it goes nowhere.
enum Ends {
    Targets(Vec<Target>),
    Decided(Outcome),
}

/// What a call comes to, while it is worked on.
#[derive(Default)]
pub(crate) struct Plan {
    pub(crate) copies: Vec<Copy>,
    pub(crate) follow_ups: Vec<FollowUp>,
    /// The lists that recipients lead to.
    pub(crate) lists: Vec<ListMail>,
    /// Posts to lists, each with its file.
    pub(crate) distributions: Vec<(FollowUp, File)>,
    outcomes: BTreeMap<u16, Vec<Outcome>>,
    /// For [`Store::remember`], when all is stored.
    pub(crate) notes: Vec<(AccountId, Vec<(u64, i64)>)>,
    /// Until the notes are in the store.
    pub(crate) flights: Vec<Flight>,
    /// Recipients whose mail reportd takes.
    pub(crate) reports: Vec<u16>,
}

impl Plan {
    pub(crate) fn add(&mut self, index: u16, outcome: Outcome) {
        self.outcomes.entry(index).or_default().push(outcome);
    }
}

impl<D: Directory, S: Store> Delivery<D, S> {
    pub(crate) fn new(directory: D, store: S, config: Config, scripts: Option<Scripts>) -> Self {
        let large = Semaphore::new(config.large_concurrency.max(1));
        Self {
            directory,
            store,
            config,
            large,
            answered: Answered::default(),
            notices: Notices::default(),
            scripts,
            reportd: None,
            web: None,
        }
    }

    /// Members of lists can leave by a link to this host.
    pub(crate) fn with_web(mut self, host: Option<String>) -> Self {
        self.web = host;
        self
    }

    /// Mail for `reportd.addresses` goes to reportd.
    pub(crate) fn with_reportd(mut self, reportd: Option<ipc::Client>) -> Self {
        self.reportd = reportd;
        self
    }

    /// Delivers to all recipients, as far as that goes now. `file` comes with [`Body::Attached`]. The files go with the answer.
    ///
    /// # Errors
    /// If the message itself cannot be read: a fault of the call.
    pub(crate) async fn deliver_posts(
        &self,
        call: Deliver,
        file: Option<File>,
    ) -> Result<(Delivered, Vec<File>), Fault> {
        let message = self.read(&call, file).await?;
        let mut plan = Plan::default();
        let width = self.config.recipients_at_once;
        let ends = in_parallel(width, call.recipients.iter(), |recipient| {
            self.ends(call.trace, recipient, &message)
        });
        for (recipient, ends) in call.recipients.iter().zip(ends.await) {
            match ends {
                Ends::Decided(outcome) => plan.add(recipient.index, outcome),
                Ends::Targets(targets) => {
                    self.divide(&call, recipient, targets, &message, &mut plan)
                }
            }
        }
        self.hand_to_reportd(&call, &message, &mut plan).await;
        self.serve_lists(&call, &message, &mut plan).await;
        self.file_as_junk(&call, &mut plan).await;
        self.run_scripts(&call, &message, &mut plan).await;
        let (copies, changed): (Vec<Copy>, Vec<Copy>) = std::mem::take(&mut plan.copies)
            .into_iter()
            .partition(|copy| copy.content.is_none());
        let room = CALL_MAX.saturating_sub(inline_len(&call.body) + message.parsed.len());
        let stored = in_parallel(width, groups(&copies, room), |group| {
            self.store_copies(&call, group, &message)
        });
        for (copy, outcome) in copies.iter().zip(stored.await.into_iter().flatten()) {
            for index in &copy.for_recipients {
                plan.add(*index, outcome.clone());
            }
        }
        for copy in &changed {
            let outcome = self.store_changed(&call, copy).await;
            for index in &copy.for_recipients {
                plan.add(*index, outcome.clone());
            }
        }
        self.note(&call, &mut plan).await;
        let outcomes: BTreeMap<u16, Outcome> = plan
            .outcomes
            .into_iter()
            .filter_map(|(index, all)| Some((index, weightiest(all)?)))
            .collect();
        // A recipient that is tried again redirects then, not twice.
        plan.follow_ups.retain(|follow_up| {
            !matches!(
                outcomes.get(&follow_up.index()),
                Some(Outcome::Temporary(_))
            )
        });
        self.readdress(&call, &mut plan.follow_ups).await;
        let mut files = Vec::new();
        for (follow_up, file) in plan.distributions {
            // The same holds for posts.
            if !matches!(
                outcomes.get(&follow_up.index()),
                Some(Outcome::Temporary(_))
            ) {
                plan.follow_ups.push(follow_up);
                files.push(file);
            }
        }
        let delivered = Delivered {
            outcomes: outcomes.into_iter().collect(),
            follow_ups: plan.follow_ups,
        };
        Ok((delivered, files))
    }

    /// Parses the message once for all recipients.
    async fn read(&self, call: &Deliver, file: Option<File>) -> Result<Message, Fault> {
        let invalid = |text: &str| Fault::new(FaultKind::Invalid, text);
        match (&call.body, file) {
            (Body::Inline(body), None) => {
                let (_, parsed) =
                    message::parse_within(&call.prefix, body, &self.config.parse, PARSED_MAX);
                let delivered_to = delivered_to(&call.prefix, body);
                Ok(Message {
                    parsed: parsed.into(),
                    file: None,
                    delivered_to,
                })
            }
            (Body::Attached { len }, Some(file)) => {
                let closed = |_| Fault::new(FaultKind::Temporary, "shutting down");
                let permit = self.large.acquire().await.map_err(closed)?;
                let (prefix, limits, len) = (call.prefix.clone(), self.config.parse.clone(), *len);
                let parsed =
                    tokio::task::spawn_blocking(move || parse_file(&prefix, file, len, &limits))
                        .await;
                drop(permit);
                parsed
                    .map_err(|error| Fault::new(FaultKind::Internal, error.to_string()))?
                    .map_err(|error| {
                        Fault::new(
                            FaultKind::Temporary,
                            format!("the body cannot be read: {error}"),
                        )
                    })
            }
            (Body::Attached { .. }, None) => Err(invalid("the body's descriptor is missing")),
            (Body::Inline(_), Some(_)) => Err(invalid("an inline body comes without a descriptor")),
            (Body::Slot { .. }, _) => Err(invalid("a slot is no body of a delivery")),
        }
    }

    async fn ends(&self, trace: TraceId, recipient: &LocalRecipient, message: &Message) -> Ends {
        let address = &recipient.address;
        // What has come by here before, sent on by somebody, would come by here for ever.
        if message.has_been_at(address) {
            // A list says nothing of that: its posts run in circles where lists are members of each other.
            return match self.directory.resolve(trace, address).await {
                Ok(Resolution::Local(targets)) if targets.iter().all(is_list) => {
                    Ends::Targets(targets)
                }
                _ => Ends::Decided(looped(address)),
            };
        }
        let permanent = |code, enhanced, text: String| {
            Ends::Decided(Outcome::Permanent(status(code, enhanced, text)))
        };
        match self.directory.resolve(trace, address).await {
            Ok(Resolution::Local(targets)) => Ends::Targets(targets),
            Ok(Resolution::Unknown) => permanent(
                550,
                Enhanced(5, 1, 1),
                format!("<{address}>: there is no such address"),
            ),
            Ok(Resolution::Disabled) => permanent(
                550,
                Enhanced(5, 2, 1),
                format!("<{address}>: this address is disabled"),
            ),
            Ok(Resolution::Refused(status)) => Ends::Decided(Outcome::Permanent(status)),
            // It was ours when the message was accepted.
            Ok(Resolution::Remote) => permanent(
                550,
                Enhanced(5, 1, 2),
                format!("<{address}>: this domain is not served here any more"),
            ),
            Err(fault) => {
                tracing::warn!(%trace, %address, %fault, "cannot resolve a recipient");
                let text = "the directory is not available now".to_owned();
                Ends::Decided(Outcome::Temporary(status(451, Enhanced(4, 3, 0), text)))
            }
        }
    }

    /// Turns a recipient's targets into copies and redirects.
    fn divide(
        &self,
        call: &Deliver,
        recipient: &LocalRecipient,
        targets: Vec<Target>,
        message: &Message,
        plan: &mut Plan,
    ) {
        let mut forwards = Vec::new();
        for target in targets {
            match target {
                Target::Forward(address) => forwards.push(address),
                Target::Reports => plan.reports.push(recipient.index),
                Target::List { address, part } => plan.lists.push(ListMail {
                    index: recipient.index,
                    address,
                    part,
                }),
                Target::Account {
                    account,
                    name,
                    detail,
                    quota_bytes,
                    quota_messages,
                } => {
                    if message.has_been_at(&name) {
                        plan.add(recipient.index, looped(&name));
                        continue;
                    }
                    let mailbox = self.folder(detail.as_deref());
                    let same = |copy: &&mut Copy| {
                        copy.target.account == account && copy.target.mailbox == mailbox
                    };
                    if let Some(copy) = plan.copies.iter_mut().find(same) {
                        copy.for_recipients.push(recipient.index);
                        continue;
                    }
                    let target = stored::DeliverTarget {
                        recipient: copy_number(recipient, &mailbox),
                        account,
                        quota_bytes,
                        quota_messages,
                        mailbox,
                        create: false,
                        flags: Vec::new(),
                        prefix: trace_fields(call, &name).into(),
                    };
                    plan.copies.push(Copy {
                        target,
                        name,
                        content: None,
                        for_recipients: vec![recipient.index],
                    });
                }
            }
        }
        if forwards.is_empty() {
            return;
        }
        let list = forwards
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ");
        tracing::info!(id = %call.id, trace = %call.trace, address = %recipient.address, to = list, "redirected");
        let done = status(250, Enhanced(2, 1, 5), format!("redirected to {list}"));
        plan.add(recipient.index, Outcome::Done(done));
        let prefix = format!("Delivered-To: {}\r\n", recipient.address).into_bytes();
        plan.follow_ups.push(FollowUp::Redirect {
            content: None,
            options: Default::default(),
            index: recipient.index,
            to: forwards,
            prefix: prefix.into(),
        });
    }

    /// What goes elsewhere goes under an address of ours, if authd has one for it.
    async fn readdress(&self, call: &Deliver, follow_ups: &mut [FollowUp]) {
        let Some(sender) = &call.sender else { return };
        for follow_up in follow_ups {
            let FollowUp::Redirect {
                index, to, options, ..
            } = follow_up
            else {
                continue;
            };
            let owner = call.recipients.iter().find(|one| one.index == *index);
            let Some(owner) = owner else { continue };
            let request = ForwardSender {
                sender: sender.clone(),
                owner: owner.address.clone(),
                to: to.clone(),
            };
            match self.directory.forward_sender(call.trace, request).await {
                Ok(address) => options.sender = address,
                // Better under the sender's own address than not at all.
                Err(fault) => {
                    tracing::warn!(id = %call.id, trace = %call.trace, %fault, "forwarded under the sender's own address");
                }
            }
        }
    }

    fn folder(&self, detail: Option<&str>) -> String {
        let detail = detail
            .filter(|_| self.config.subaddress_folders)
            .unwrap_or_default();
        let fine = detail.chars().count() <= FOLDER_MAX
            && !detail.chars().any(|c| c.is_control() || "*%".contains(c));
        if fine {
            detail.to_owned()
        } else {
            String::new()
        }
    }

    /// Gives the store copies in one call; their outcomes in the copies' order.
    async fn store_copies(
        &self,
        call: &Deliver,
        copies: &[Copy],
        message: &Message,
    ) -> Vec<Outcome> {
        let deliver = stored::Deliver {
            id: call.id,
            message: stored::NewMessage {
                parsed: message.parsed.clone(),
                body: call.body.clone(),
                date: i64::try_from(call.arrived).unwrap_or(i64::MAX),
            },
            targets: copies.iter().map(|copy| copy.target.clone()).collect(),
        };
        let results = match self
            .store
            .deliver(call.trace, deliver, message.file.clone())
            .await
        {
            Ok(results) => results,
            Err(fault) => copies.iter().map(|_| Err(fault.clone())).collect(),
        };
        let missing = || Err(Fault::new(FaultKind::Internal, "the store gave no result"));
        let results = results.into_iter().chain(std::iter::repeat_with(missing));
        copies
            .iter()
            .zip(results)
            .map(|(copy, result)| self.outcome(call, copy, result))
            .collect()
    }

    pub(crate) fn outcome(
        &self,
        call: &Deliver,
        copy: &Copy,
        result: Result<stored::Stored, Fault>,
    ) -> Outcome {
        let (name, account) = (&copy.name, copy.target.account);
        match result {
            Ok(stored) => {
                tracing::info!(
                    id = %call.id, trace = %call.trace, %account, mailbox = stored.mailbox.0, uid = stored.uid.0,
                    duplicate = stored.duplicate, "delivered"
                );
                Outcome::Done(status(
                    250,
                    Enhanced(2, 1, 5),
                    format!("delivered to {name}"),
                ))
            }
            Err(fault) => {
                tracing::warn!(id = %call.id, trace = %call.trace, %account, %fault, "not delivered");
                self.refused(name, &fault)
            }
        }
    }

    /// What a fault of the store means to the sender. Its text is for the log alone.
    fn refused(&self, name: &Address, fault: &Fault) -> Outcome {
        match (fault.kind, self.config.over_quota) {
            (FaultKind::OverQuota, OverQuota::Bounce) => Outcome::Permanent(status(
                552,
                Enhanced(5, 2, 2),
                format!("the mailbox of <{name}> is full"),
            )),
            (FaultKind::OverQuota, OverQuota::Defer) => Outcome::Temporary(status(
                452,
                Enhanced(4, 2, 2),
                format!("the mailbox of <{name}> is full"),
            )),
            (FaultKind::Busy, _) => Outcome::Temporary(status(
                452,
                Enhanced(4, 3, 1),
                "the mail store has no room now".to_owned(),
            )),
            _ => Outcome::Temporary(status(
                451,
                Enhanced(4, 3, 0),
                "the mail store is not available now".to_owned(),
            )),
        }
    }
}

impl Message {
    pub(crate) fn has_been_at(&self, address: &Address) -> bool {
        !self.delivered_to.is_empty() && self.delivered_to.contains(&address.key())
    }
}

fn is_list(target: &Target) -> bool {
    matches!(target, Target::List { .. })
}

/// The number under which the store remembers a copy. An account gets one copy of a message for its INBOX, by however many
/// of its addresses the message comes, also when these are tried at different times; folders get theirs by recipient.
fn copy_number(recipient: &LocalRecipient, mailbox: &str) -> u16 {
    if mailbox.is_empty() {
        u16::MAX
    } else {
        recipient.index
    }
}

/// What this copy has before the body (RFC 5321 4.4: final delivery adds Return-Path).
fn trace_fields(call: &Deliver, name: &Address) -> Vec<u8> {
    let sender = call
        .sender
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    let mut prefix = format!("Return-Path: <{sender}>\r\nDelivered-To: {name}\r\n").into_bytes();
    prefix.extend_from_slice(&call.prefix);
    prefix
}

/// Octets that the body takes in a frame.
fn inline_len(body: &Body) -> usize {
    match body {
        Body::Inline(octets) => octets.len(),
        Body::Attached { .. } | Body::Slot { .. } => 0,
    }
}

fn looped(address: &Address) -> Outcome {
    let text = format!("<{address}>: this message has been delivered there before: a mail loop");
    Outcome::Permanent(status(554, Enhanced(5, 4, 6), text))
}

pub(crate) fn status(code: u16, enhanced: Enhanced, text: String) -> Status {
    Status {
        code,
        enhanced,
        text,
        host: None,
    }
}

/// Temporary before permanent before done: nothing is reported as failed that is tried again, nothing as done that failed.
fn weightiest(outcomes: Vec<Outcome>) -> Option<Outcome> {
    outcomes.into_iter().max_by_key(|outcome| match outcome {
        Outcome::Done(_) => 0,
        Outcome::Permanent(_) => 1,
        Outcome::Temporary(_) => 2,
    })
}

fn parse_file(
    prefix: &[u8],
    file: File,
    len: u64,
    limits: &message::Limits,
) -> std::io::Result<Message> {
    use std::os::unix::fs::FileExt as _;
    let too_long = |_| std::io::Error::from(std::io::ErrorKind::FileTooLarge);
    // The length is checked before memory is taken for it.
    if file.metadata()?.len() < len {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    let mut body = vec![0; usize::try_from(len).map_err(too_long)?];
    file.read_exact_at(&mut body, 0)?;
    let (_, parsed) = message::parse_within(prefix, &body, limits, PARSED_MAX);
    let delivered_to = delivered_to(prefix, &body);
    Ok(Message {
        parsed: parsed.into(),
        file: Some(Arc::new(file)),
        delivered_to,
    })
}

fn delivered_to(prefix: &[u8], body: &[u8]) -> Vec<String> {
    message::Fields::new(prefix)
        .chain(message::Fields::new(body))
        .take(1000)
        .filter(|field| field.name.eq_ignore_ascii_case(b"delivered-to"))
        .filter_map(|field| {
            std::str::from_utf8(field.value)
                .ok()?
                .trim()
                .parse::<Address>()
                .ok()
        })
        .map(|address| address.key())
        .collect()
}

/// Runs `work` for all items, at most `width` at a time, and gives the results in the items' order.
async fn in_parallel<I, T, F>(
    width: usize,
    items: impl Iterator<Item = I>,
    work: impl Fn(I) -> F,
) -> Vec<T>
where
    F: Future<Output = T>,
{
    use futures_util::StreamExt as _;
    let tasks: Vec<F> = items.map(work).collect();
    futures_util::stream::iter(tasks)
        .buffered(width.max(1))
        .collect()
        .await
}

#[cfg(test)]
mod tests;
