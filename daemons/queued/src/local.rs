//! Delivery here, by deliverd: so many calls at once, one for each message.

use crate::by_priority::ByPriority;
use crate::copies;
use crate::core::{Core, now};
use crate::distribute::{self, Post};
use crate::message::{End, Fresh, Job};
use crate::moderation::{self, Hold};
use crate::record::{Head, Moderated};
use crate::report::Event;
use ipc::api::deliverd::{Deliver, Delivered, FollowUp, LocalRecipient, RedirectOptions};
use ipc::api::queued::Decision;
use ipc::{Fault, FaultKind};
use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use types::{
    Body, BodyType, Enhanced, Envelope, Notify, Octets, Outcome, Recipient, Route, Status, Terms,
};

/// How often a call is tried again before the message waits for its next attempt, and how long between, in milliseconds.
const PAUSES: [u64; 3] = [200, 1000, 3000];

#[derive(Debug, Default)]
struct Line {
    active: usize,
    waiting: ByPriority,
}

/// The jobs for deliverd.
#[derive(Debug)]
pub(crate) struct Locals {
    most: usize,
    line: Mutex<Line>,
}

impl Locals {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            line: Mutex::default(),
        }
    }

    /// Jobs that wait or are under way.
    pub(crate) fn backlog(&self) -> usize {
        let line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        line.active + line.waiting.len()
    }

    /// How many are under way.
    pub(crate) fn active(&self) -> usize {
        self.line
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .active
    }

    pub(crate) fn submit(&self, core: &Arc<Core>, job: Job) {
        {
            let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
            if line.active >= self.most {
                line.waiting.push(job);
                return;
            }
            line.active += 1;
        }
        let core = Arc::clone(core);
        tokio::spawn(async move {
            let mut next = Some(job);
            while let Some(job) = next {
                attempt(&core, job).await;
                next = core.locals.next(&core);
            }
        });
    }

    /// The next job for a worker, which ends if there is none.
    fn next(&self, core: &Core) -> Option<Job> {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        let next = if core.is_stopping() {
            None
        } else {
            line.waiting.pop()
        };
        if next.is_none() {
            line.active = line.active.saturating_sub(1);
        }
        next
    }
}

async fn attempt(core: &Arc<Core>, job: Job) {
    let _busy = core.busy();
    if core.is_stale(&job.message) {
        core.let_go(&job, false);
        return;
    }
    if let Some(ends) = core.steered(&job) {
        core.settle(job, ends, Vec::new()).await;
        return;
    }
    match deliver(core, &job).await {
        Ok((delivered, files)) => {
            let (ends, fresh) = ends(core, &job, delivered, files).await;
            core.settle(job, ends, fresh).await;
        }
        Err(fault) => {
            tracing::warn!(id = %job.message.id, trace = %job.message.head.trace, %fault, "not delivered");
            let status = Status {
                code: 451,
                enhanced: Enhanced(4, 3, 0),
                text: fault.text,
                host: None,
            };
            let ends = vec![core.again(&job, status); job.recipients.len()];
            core.settle(job, ends, Vec::new()).await;
        }
    }
}

async fn deliver(core: &Arc<Core>, job: &Job) -> Result<(Delivered, Vec<File>), Fault> {
    let message = &job.message;
    let content = core.content(message).await?;
    let recipients = job.recipients.iter().filter_map(|waiting| {
        let recipient = message
            .head
            .envelope
            .recipients
            .get(usize::from(waiting.index))?;
        Some(LocalRecipient {
            index: waiting.index,
            address: recipient.address.clone(),
            orcpt: recipient.orcpt.clone(),
            notify: recipient.notify,
        })
    });
    let call = Deliver {
        id: message.id,
        trace: message.head.trace,
        arrived: message.head.arrived,
        sender: message.head.envelope.sender.clone(),
        ret: message.head.envelope.ret,
        envid: message.head.envelope.envid.clone(),
        recipients: recipients.collect(),
        prefix: Octets(content.prefix.clone()),
        body: match &content.body {
            Some(body) => Body::Inline(Octets(body.clone())),
            None => Body::Attached {
                len: message.head.body_len,
            },
        },
        ours: message.head.sign,
        by: message.head.envelope.terms.by,
        let_in: message.head.moderated == Some(Moderated::LetIn),
    };
    drop(content);
    let mut pauses = PAUSES.iter();
    loop {
        let file = core.open_body(message).await?;
        match core.peers.deliver_posts(&call, file).await {
            Err(fault) if fault.is_temporary() => {
                let Some(pause) = pauses.next() else {
                    return Err(fault);
                };
                tracing::debug!(id = %message.id, %fault, "once more");
                tokio::time::sleep(Duration::from_millis(*pause)).await;
            }
            other => return other,
        }
    }
}

/// What became of each recipient, and what follows from it.
async fn ends(
    core: &Arc<Core>,
    job: &Job,
    delivered: Delivered,
    files: Vec<File>,
) -> (Vec<End>, Vec<Fresh>) {
    let mut files = files.into_iter();
    let mut outcomes: HashMap<u16, Outcome> = delivered.outcomes.into_iter().collect();
    let mut fresh = Vec::new();
    // Recipients whose success another host reports, and those that go round in circles.
    let mut redirected: HashMap<u16, Option<Status>> = HashMap::new();
    for follow_up in delivered.follow_ups {
        let index = follow_up.index();
        let file = match &follow_up {
            FollowUp::Distribute { .. } | FollowUp::Copies { .. } | FollowUp::Hold { .. } => {
                files.next()
            }
            _ => None,
        };
        // What is tried again redirects and answers again.
        if !matches!(
            outcomes.get(&index),
            Some(Outcome::Done(_) | Outcome::Permanent(_))
        ) {
            continue;
        }
        let (to, prefix, content, options) = match follow_up {
            FollowUp::Message {
                sender,
                to,
                content,
                ..
            } => {
                match answer(core, job, sender, to, content) {
                    Ok(message) => fresh.extend(message),
                    Err(status) => {
                        tracing::warn!(id = %job.message.id, text = status.text, "an answer of a script is lost")
                    }
                }
                continue;
            }
            FollowUp::Distribute {
                sender,
                prefix,
                recipients,
                content,
                ..
            } => {
                let post = file.map(|file| Post {
                    sender,
                    prefix: prefix.0,
                    recipients,
                    content,
                    file,
                });
                match distribute(core, job, post).await {
                    Ok(messages) => fresh.extend(messages),
                    Err(status) => drop(redirected.insert(index, Some(status))),
                }
                continue;
            }
            FollowUp::Copies { prefix, octets, .. } => {
                let made = match file {
                    Some(file) => copies::messages(core, job, prefix.0, (file, octets)).await,
                    None => Err(missing()),
                };
                match made {
                    Ok(messages) => fresh.extend(messages),
                    Err(status) => drop(redirected.insert(index, Some(status))),
                }
                continue;
            }
            FollowUp::Hold {
                list,
                why,
                seconds,
                quiet,
                recipients,
                content,
                ..
            } => {
                let notice = file.map(|file| Post {
                    sender: list.clone(),
                    prefix: Vec::new(),
                    recipients,
                    content,
                    file,
                });
                let hold = Hold {
                    index,
                    list,
                    why,
                    seconds,
                    quiet,
                };
                match moderation::hold(core, job, hold, notice).await {
                    Ok(messages) => {
                        fresh.extend(messages);
                        // It is not delivered, and nobody is told that it were.
                        redirected.entry(index).or_insert(None);
                    }
                    Err(status) => drop(redirected.insert(index, Some(status))),
                }
                continue;
            }
            FollowUp::Decide { .. } => {
                match decided(core, job, follow_up).await {
                    Ok(message) => fresh.extend(message),
                    Err(status) => drop(redirected.insert(index, Some(status))),
                }
                continue;
            }
            FollowUp::Redirect {
                to,
                prefix,
                content,
                options,
                ..
            } => (to, prefix, content, options),
        };
        let redirection = Redirection {
            to,
            first: prefix,
            content,
            options,
        };
        match redirect(core, job, index, redirection).await {
            Ok(message) => {
                fresh.extend(message);
                redirected.entry(index).or_insert(None);
            }
            Err(status) => drop(redirected.insert(index, Some(status))),
        }
    }
    let ends = job
        .recipients
        .iter()
        .map(|waiting| match outcomes.remove(&waiting.index) {
            Some(Outcome::Done(status)) => match redirected.remove(&waiting.index) {
                Some(Some(failure)) if failure.code >= 500 => End::Failed(failure),
                Some(Some(failure)) => core.again_for(&job.message.head, waiting, failure),
                Some(None) => End::Done(status, None),
                None => {
                    core.counters.delivered.add_one();
                    End::Done(status, Some(Event::Delivered))
                }
            },
            Some(Outcome::Temporary(status)) => core.again_for(&job.message.head, waiting, status),
            // The domain is no longer ours (RFC 3463 X.1.2). Only what had the right to go elsewhere from the start does.
            Some(Outcome::Permanent(Status {
                enhanced: Enhanced(_, 1, 2),
                host: None,
                ..
            })) if job.message.head.may_relay => End::Remote,
            Some(Outcome::Permanent(status)) => End::Failed(status),
            None => core.again_for(
                &job.message.head,
                waiting,
                Status {
                    code: 451,
                    enhanced: Enhanced(4, 3, 5),
                    text: "deliverd said nothing of this recipient".to_owned(),
                    host: None,
                },
            ),
        })
        .collect();
    (ends, fresh)
}

fn missing() -> Status {
    let text = "the file of a post is missing";
    unavailable(Fault::new(FaultKind::Temporary, text))
}

/// The messages of a post to a list.
async fn distribute(core: &Arc<Core>, job: &Job, post: Option<Post>) -> Result<Vec<Fresh>, Status> {
    distribute::messages(core, job, post.ok_or_else(missing)?).await
}

/// Does what an owner of a list has decided, and makes the answer. A kill between the two leads to another answer.
async fn decided(
    core: &Arc<Core>,
    job: &Job,
    follow_up: FollowUp,
) -> Result<Option<Fresh>, Status> {
    let FollowUp::Decide {
        list,
        post,
        accept,
        owner,
        done,
        gone,
        ..
    } = follow_up
    else {
        return Ok(None);
    };
    let decision = if accept {
        Decision::Accept
    } else {
        Decision::Reject
    };
    let decided = core.decide(&list, post, decision).await;
    let text = if decided.map_err(unavailable)? {
        done
    } else {
        gone
    };
    answer(core, job, None, vec![owner], text)
}

/// Where a message goes on to, and as what.
struct Redirection {
    to: Vec<types::Address>,
    /// Before the prefix that it has.
    first: Octets,
    /// What it became, if a script changed it: all of it.
    content: Option<Octets>,
    options: RedirectOptions,
}

/// A message that a script made: a message of the queue like any other, that nobody hears of if it fails.
fn answer(
    core: &Arc<Core>,
    job: &Job,
    sender: Option<types::Address>,
    to: Vec<types::Address>,
    content: Octets,
) -> Result<Option<Fresh>, Status> {
    if to.is_empty() {
        return Ok(None);
    }
    let id = core.reserve(1).map_err(unavailable)?;
    let wide = to.iter().any(|address| !address.to_string().is_ascii());
    let notify = Notify {
        success: false,
        failure: false,
        delay: false,
        explicit: true,
    };
    let head = Head {
        trace: job.message.head.trace,
        arrived: now(),
        origin: format!("written by the rules of a recipient of {}", job.message.id),
        may_relay: true,
        sign: true,
        envelope: Envelope {
            sender,
            recipients: to
                .into_iter()
                .map(|address| Recipient {
                    address,
                    orcpt: None,
                    notify,
                    // deliverd finds out whether it is one of ours.
                    route: Route::Local,
                })
                .collect(),
            ret: None,
            envid: None,
            body: if content.is_ascii() {
                BodyType::SevenBit
            } else {
                BodyType::EightBit
            },
            smtputf8: wide,
            require_tls: false,
            terms: Terms::default(),
        },
        prefix_len: 0,
        body_len: content.len() as u64,
        spooled: false,
        listener: String::new(),
        held: None,
        moderated: None,
    };
    Ok(Some(Fresh {
        id,
        head,
        prefix: Vec::new(),
        body: content.0,
    }))
}

fn unavailable(fault: Fault) -> Status {
    Status {
        code: 451,
        enhanced: Enhanced(4, 3, 0),
        text: fault.text,
        host: None,
    }
}

/// The same message to other addresses.
async fn redirect(
    core: &Arc<Core>,
    job: &Job,
    index: u16,
    redirection: Redirection,
) -> Result<Option<Fresh>, Status> {
    let Redirection {
        to,
        first,
        content: changed,
        options,
    } = redirection;
    let message = &job.message;
    let Some(original) = message.head.envelope.recipients.get(usize::from(index)) else {
        return Ok(None);
    };
    if to.is_empty() {
        return Ok(None);
    }
    let content = core.content(message).await.map_err(unavailable)?;
    let header = match &content.body {
        Some(body) => body.clone(),
        None => core
            .read_body(message, 64 * 1024)
            .await
            .map_err(unavailable)?,
    };
    if is_loop(
        &content.prefix,
        &header,
        &original.address.key(),
        core.config.max_hops,
    ) {
        return Err(Status {
            code: 554,
            // RFC 3463 X.4.6
            enhanced: Enhanced(5, 4, 6),
            text: "the message goes round in a circle".to_owned(),
            host: None,
        });
    }
    let id = core.reserve(1).map_err(unavailable)?;
    let mut prefix = first.0;
    let spooled = message.head.spooled && changed.is_none();
    if changed.is_none() {
        prefix.extend_from_slice(&content.prefix);
    }
    if spooled {
        core.spool
            .link(message.id, id)
            .map_err(|error| unavailable(Fault::new(FaultKind::Temporary, error.to_string())))?;
    }
    let orcpt = original
        .orcpt
        .clone()
        .or_else(|| Some(format!("rfc822;{}", original.address)));
    let head = Head {
        trace: message.head.trace,
        arrived: now(),
        origin: format!("redirected from {} for {}", message.id, original.address),
        // The alias is the site's own will.
        may_relay: true,
        // What our own users sent stays theirs on this way; what came from elsewhere is not for us to sign.
        sign: message.head.sign,
        envelope: Envelope {
            recipients: to
                .into_iter()
                .map(|address| Recipient {
                    address,
                    orcpt: orcpt.clone(),
                    notify: options.notify.unwrap_or(original.notify),
                    route: if options.anywhere {
                        Route::Local
                    } else {
                        Route::Remote
                    },
                })
                .collect(),
            sender: options
                .sender
                .or_else(|| message.head.envelope.sender.clone()),
            ret: options.ret.or(message.head.envelope.ret),
            terms: Terms {
                by: options.by.or(message.head.envelope.terms.by),
                ..message.head.envelope.terms
            },
            ..message.head.envelope.clone()
        },
        prefix_len: u32::try_from(prefix.len()).unwrap_or(u32::MAX),
        body_len: changed
            .as_ref()
            .map_or(message.head.body_len, |changed| changed.len() as u64),
        spooled,
        listener: message.head.listener.clone(),
        held: None,
        moderated: None,
    };
    let body = match changed {
        Some(changed) => changed.0,
        None => content.body.clone().unwrap_or_default(),
    };
    Ok(Some(Fresh {
        id,
        head,
        prefix,
        body,
    }))
}

/// Whether a message that is to be redirected was at this address before (RFC 9228), or too often at any host (RFC 5321 6.3).
fn is_loop(prefix: &[u8], body: &[u8], address: &str, max_hops: usize) -> bool {
    let end = memchr::memmem::find(body, b"\r\n\r\n").unwrap_or(body.len());
    let mut received = 0;
    for line in prefix
        .split(|octet| *octet == b'\n')
        .chain(body.get(..end).unwrap_or(body).split(|o| *o == b'\n'))
    {
        let Some(colon) = line.iter().position(|octet| *octet == b':') else {
            continue;
        };
        let (name, value) = line.split_at(colon);
        if name.eq_ignore_ascii_case(b"received") {
            received += 1;
        } else if name.eq_ignore_ascii_case(b"delivered-to") {
            let value = String::from_utf8_lossy(value.get(1..).unwrap_or_default())
                .trim()
                .to_lowercase();
            if value.trim_matches(['<', '>']) == address {
                return true;
            }
        }
    }
    received > max_hops
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn circles_are_seen() {
        let body = b"Received: a\r\nDelivered-To: Jane@example.org\r\nSubject: x\r\n\r\nDelivered-To: bob@example.org\r\n";
        assert!(is_loop(b"", body, "jane@example.org", 50));
        assert!(
            !is_loop(b"", body, "bob@example.org", 50),
            "only the header counts"
        );
        assert!(is_loop(
            b"Delivered-To: bob@example.org\r\n",
            body,
            "bob@example.org",
            50
        ));
        assert!(!is_loop(b"Received: b\r\n", body, "x@example.org", 2));
        assert!(is_loop(b"Received: b\r\n", body, "x@example.org", 1));
    }
}
