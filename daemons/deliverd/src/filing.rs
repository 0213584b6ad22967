//! Scripts and copies: what the scripts of an account say becomes its copies, redirects and answers.

use crate::copies::Copy;
use crate::delivery::{Delivery, Directory, Message, PARSED_MAX, Plan, Store, status};
use crate::script::{Filed, Outcome as Ran, Run, Scripts, Sent};
use ipc::api::deliverd::{Deliver, FollowUp, LocalRecipient};
use ipc::api::stored;
use ipc::{Fault, FaultKind};
use sieve::engine::Envelope;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::UNIX_EPOCH;
use types::{Address, Body, ByMode, DeliverBy, Enhanced, Octets, Outcome, Ret};

/// Octets that a message of a script may have to travel to queued.
const SENT_MAX: usize = 64 * 1024;

/// What the envelope asks of reports, in the words of the SMTP parameters (RFC 6009 4): what was not given is not there, and
/// each condition of NOTIFY stands for itself.
fn dsn(call: &Deliver, recipient: Option<&LocalRecipient>) -> Vec<(Envelope, String)> {
    let mut all = Vec::new();
    if let Some(ret) = call.ret {
        let ret = match ret {
            Ret::Full => "FULL",
            Ret::Headers => "HDRS",
        };
        all.push((Envelope::Ret, ret.to_owned()));
    }
    if let Some(envid) = &call.envid {
        all.push((Envelope::Envid, envid.clone()));
    }
    if let Some(by) = call.by {
        all.extend(time_limit(by, now()));
    }
    let Some(recipient) = recipient else {
        return all;
    };
    if let Some(orcpt) = &recipient.orcpt {
        all.push((Envelope::Orcpt, orcpt.clone()));
    }
    let notify = recipient.notify;
    if notify.explicit {
        let never = !(notify.success || notify.failure || notify.delay);
        let conditions = [
            (never, "NEVER"),
            (notify.success, "SUCCESS"),
            (notify.failure, "FAILURE"),
            (notify.delay, "DELAY"),
        ];
        let given = conditions.iter().filter(|(given, _)| *given);
        all.extend(given.map(|(_, word)| (Envelope::Notify, (*word).to_owned())));
    }
    all
}

/// The time limit of the envelope (RFC 6009 5).
fn time_limit(by: DeliverBy, now: i64) -> [(Envelope, String); 4] {
    let left = by.deadline.cast_signed().saturating_sub(now);
    let mode = match by.mode {
        ByMode::Notify => "notify",
        ByMode::Return => "return",
    };
    [
        (
            Envelope::ByTimeAbsolute,
            types::moment::date_time(by.deadline),
        ),
        (Envelope::ByTimeRelative, left.to_string()),
        (Envelope::ByMode, mode.to_owned()),
        (Envelope::ByTrace, by.trace.to_string()),
    ]
}

impl<D: Directory, S: Store> Delivery<D, S> {
    /// Has each copy's scripts decide on it.
    pub(crate) async fn run_scripts(&self, call: &Deliver, message: &Message, plan: &mut Plan) {
        let Some(scripts) = &self.scripts else {
            return;
        };
        let mut body = None;
        for copy in std::mem::take(&mut plan.copies) {
            match self.run_for(scripts, call, message, &copy, &mut body).await {
                Ok(None) => plan.copies.push(copy),
                Ok(Some(ran)) => file(call, copy, ran, plan),
                Err(fault) => {
                    tracing::warn!(id = %call.id, account = %copy.target.account, %fault, "scripts cannot run now");
                    let text = "the rules of the mailbox are not available now".to_owned();
                    let outcome = Outcome::Temporary(status(451, Enhanced(4, 3, 0), text));
                    for index in &copy.for_recipients {
                        plan.add(*index, outcome.clone());
                    }
                }
            }
        }
    }

    /// `None`: there are no scripts.
    async fn run_for(
        &self,
        scripts: &Scripts,
        call: &Deliver,
        message: &Message,
        copy: &Copy,
        body: &mut Option<Arc<Vec<u8>>>,
    ) -> Result<Option<Ran>, Fault> {
        let account = copy.target.account;
        let all = scripts.of(account).await?;
        if all.is_empty() {
            return Ok(None);
        }
        let most = scripts.message_bytes();
        let _large = match &message.file {
            Some(_) => self.large.acquire().await.ok(),
            None => None,
        };
        let body = match body {
            Some(body) => Arc::clone(body),
            None => Arc::clone(body.insert(Arc::new(read(call, message, most)?))),
        };
        let mut octets = copy.target.prefix.0.clone();
        octets.extend_from_slice(&body);
        let first = copy.for_recipients.first();
        let recipient = call
            .recipients
            .iter()
            .find(|recipient| Some(&recipient.index) == first);
        let run = Run {
            id: call.id,
            account,
            name: &copy.name,
            sender: call.sender.as_ref(),
            recipient: recipient.map_or(&copy.name, |recipient| &recipient.address),
            dsn: dsn(call, recipient),
            octets: &octets,
            cut: (body.len() as u64) < call.body.len(),
            now: now(),
        };
        scripts.run(&all, &run).await.map(Some)
    }

    /// Stores a copy whose content a script has changed: a message of its own.
    pub(crate) async fn store_changed(&self, call: &Deliver, copy: &Copy) -> Outcome {
        let Some(content) = &copy.content else {
            return self.outcome(
                call,
                copy,
                Err(Fault::new(FaultKind::Internal, "no content")),
            );
        };
        let (_, parsed) = message::parse_within(b"", content, &self.config.parse, PARSED_MAX);
        let (body, file) = match attached(content) {
            Ok(both) => both,
            Err(error) => {
                let fault = Fault::new(FaultKind::Temporary, error.to_string());
                return self.outcome(call, copy, Err(fault));
            }
        };
        let mut target = copy.target.clone();
        // The trace fields were in what the script had.
        target.prefix = Octets::default();
        let deliver = stored::Deliver {
            id: call.id,
            message: stored::NewMessage {
                parsed: parsed.into(),
                body,
                date: i64::try_from(call.arrived).unwrap_or(i64::MAX),
            },
            targets: vec![target],
        };
        let result = match self.store.deliver(call.trace, deliver, file).await {
            Ok(results) => results.into_iter().next().unwrap_or_else(|| {
                Err(Fault::new(FaultKind::Internal, "the store gave no result"))
            }),
            Err(fault) => Err(fault),
        };
        self.outcome(call, copy, result)
    }

    /// Notes what scripts must not do again. If that fails, they may do it once more: better than to deliver twice.
    pub(crate) async fn note(&self, call: &Deliver, plan: &mut Plan) {
        for (account, notes) in std::mem::take(&mut plan.notes) {
            let remember = stored::Remember {
                account,
                id: call.id,
                notes,
            };
            if let Err(fault) = self.store.remember(call.trace, remember).await {
                tracing::warn!(id = %call.id, %account, %fault, "what a script did is not noted");
            }
        }
    }
}

/// Turns what the scripts said into copies, follow-ups and outcomes.
fn file(call: &Deliver, copy: Copy, ran: Ran, plan: &mut Plan) {
    let account = copy.target.account;
    let Ran {
        filed,
        sent,
        rejected,
        notes,
        flights,
    } = ran;
    plan.flights.extend(flights);
    if !notes.is_empty() {
        plan.notes.push((account, notes));
    }
    tracing::info!(
        id = %call.id, trace = %call.trace, %account, filed = filed.len(), sent = sent.len(), rejected = rejected.is_some(),
        "scripts ran"
    );
    let index = copy.for_recipients.first().copied().unwrap_or_default();
    for sent in sent {
        if let Some(follow_up) = follow_up(index, &copy.name, sent) {
            plan.follow_ups.push(follow_up);
        }
    }
    let outcome = match rejected {
        Some(reason) => {
            let line: String = reason
                .lines()
                .next()
                .unwrap_or_default()
                .chars()
                .filter(|c| !c.is_control())
                .take(400)
                .collect();
            let text = if line.is_empty() {
                "rejected by its recipient".to_owned()
            } else {
                line
            };
            Some(Outcome::Permanent(status(550, Enhanced(5, 7, 1), text)))
        }
        // Discarded, or sent on.
        None if filed.is_empty() => Some(Outcome::Done(status(
            250,
            Enhanced(2, 1, 5),
            format!("handled by the rules of {}", copy.name),
        ))),
        None => None,
    };
    if let Some(outcome) = outcome {
        for index in &copy.for_recipients {
            plan.add(*index, outcome.clone());
        }
    }
    for (place, filed) in filed.into_iter().enumerate() {
        plan.copies.push(placed(&copy, place, index, filed));
    }
}

/// A copy for one place. The store knows it by a number that is the same whenever this recipient is tried: for what goes where it
/// would go without scripts, the number that it would have then.
fn placed(copy: &Copy, place: usize, index: u16, filed: Filed) -> Copy {
    let mut target = copy.target.clone();
    target.flags = filed.flags;
    if !filed.mailbox.is_empty() {
        target.mailbox = filed.mailbox;
        target.create = filed.create;
        let place = u16::try_from(place).unwrap_or(14).min(14);
        target.recipient = 0x8000 + (index % 0x07ff) * 16 + place;
    }
    Copy {
        target,
        name: copy.name.clone(),
        content: filed.content,
        for_recipients: copy.for_recipients.clone(),
    }
}

fn follow_up(index: u16, name: &Address, sent: Sent) -> Option<FollowUp> {
    match sent {
        Sent::Redirect {
            to,
            content,
            options,
        } => {
            // A change that is too large to travel is left out, the message is not.
            let content = content.filter(|content| content.len() <= SENT_MAX);
            Some(FollowUp::Redirect {
                index,
                to: vec![to],
                prefix: format!("Delivered-To: {name}\r\n").into_bytes().into(),
                content: content.map(|content| Octets(content.to_vec())),
                options,
            })
        }
        Sent::Made { to, content } => {
            if content.len() > SENT_MAX {
                tracing::warn!(%to, "an answer of a script is too large");
                return None;
            }
            Some(FollowUp::Message {
                index,
                sender: None,
                to: vec![to],
                content: Octets(content.to_vec()),
            })
        }
    }
}

/// The beginning of the body.
pub(crate) fn read(call: &Deliver, message: &Message, most: usize) -> Result<Vec<u8>, Fault> {
    match (&call.body, &message.file) {
        (Body::Inline(body), _) => Ok(body.0.clone()),
        (body, Some(file)) => {
            let len = usize::try_from(body.len()).unwrap_or(most).min(most);
            let mut octets = vec![0; len];
            file.read_exact_at(&mut octets, 0)
                .map_err(|error| Fault::new(FaultKind::Temporary, error.to_string()))?;
            Ok(octets)
        }
        (_, None) => Err(Fault::new(
            FaultKind::Internal,
            "the body's descriptor is missing",
        )),
    }
}

/// A body for the store: in the frame, or in memory that is passed as a file.
fn attached(content: &[u8]) -> std::io::Result<(Body, Option<Arc<File>>)> {
    if content.len() <= SENT_MAX / 2 {
        return Ok((Body::Inline(Octets(content.to_vec())), None));
    }
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::memfd_create("changed", flags)?);
    file.write_all(content)?;
    let len = content.len() as u64;
    Ok((Body::Attached { len }, Some(Arc::new(file))))
}

fn now() -> i64 {
    UNIX_EPOCH
        .elapsed()
        .map_or(0, |time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
}
