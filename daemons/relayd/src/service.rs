//! The operations `Relay` and `PostReport`: from the call to an attempt and its log lines.

use crate::arc::Sealer;
use crate::attempt::Client;
use crate::content::{Content, Traits};
use crate::dkim::{KeyService, Signer};
use crate::transaction::Job;
use crate::verdict::status;
use ipc::api::keyd::{DkimKey, DkimKeys, DkimSign};
use ipc::api::relayd::{PostReport, PostedReport, Relay, Relayed};
use ipc::{Fault, FaultKind};
use runtime::Source;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::Semaphore;
use types::{Address, Body, BodyType, Enhanced, Outcome, TraceId};

/// keyd, asked in the blocking way: mail-auth signs synchronously.
impl KeyService for ipc::blocking::Client {
    fn keys(&self, domain: &str) -> Result<Vec<DkimKey>, String> {
        let request = DkimKeys {
            domain: domain.to_owned(),
        };
        self.call(TraceId::default(), &request)
            .map_err(|error| error.to_string())
    }

    fn sign(&self, domain: &str, selector: &str, data: Vec<u8>) -> Result<Vec<u8>, String> {
        let request = DkimSign {
            domain: domain.to_owned(),
            selector: selector.to_owned(),
            data: data.into(),
        };
        self.call(TraceId::default(), &request)
            .map(|signature| signature.0)
            .map_err(|error| error.to_string())
    }
}

/// What answers the calls.
pub(crate) struct Service {
    pub(crate) client: Client,
    signer: Option<Arc<Signer>>,
    sealer: Option<Arc<Sealer>>,
    places: Semaphore,
}

impl Service {
    pub(crate) fn new(client: Client, signer: Option<Signer>, sealer: Option<Sealer>) -> Self {
        let places = Semaphore::new(client.config.concurrency.max(1));
        Self {
            client,
            signer: signer.map(Arc::new),
            sealer: sealer.map(Arc::new),
            places,
        }
    }

    /// Makes one attempt.
    ///
    /// # Errors
    /// Calls that make no sense.
    pub(crate) async fn relay(
        &self,
        call: Relay,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Relayed, Fault> {
        if call.recipients.is_empty() || call.recipients.len() > Relay::MAX_RECIPIENTS {
            let text = format!("a call has 1 to {} recipients", Relay::MAX_RECIPIENTS);
            return Err(Fault::new(FaultKind::Invalid, text));
        }
        let closing = |_| Fault::new(FaultKind::Temporary, "shutting down");
        let _place = self.places.acquire().await.map_err(closing)?;
        let body = body_source(&call.body, descriptors)?;
        let domain = call.domain.to_ascii_lowercase();
        let route = call.route.clone();
        let (id, trace) = (call.id, call.trace);
        let carried = call.policy.clone();
        if let Some(policy) = &carried {
            self.client.sts.recall(&domain, policy).await;
        }
        let mut relayed = match self.prepare(call, body).await {
            Ok(job) => {
                let relayed = self.client.deliver(&job, &domain, route.as_deref()).await;
                log(id, trace, &job, &relayed);
                relayed
            }
            Err(unprepared) => {
                tracing::error!(%id, %trace, %domain, reason = unprepared.why, "cannot send");
                let outcome = Outcome::Temporary(status(451, Enhanced(4, 3, 0), unprepared.told));
                Relayed {
                    outcomes: unprepared
                        .indexes
                        .into_iter()
                        .map(|index| (index, outcome.clone()))
                        .collect(),
                    dsn_passed: false,
                    host: None,
                    destination_down: false,
                    by_passed: false,
                    policy: None,
                }
            }
        };
        let policy = self.client.sts.remembered(&domain).await;
        relayed.policy = policy.filter(|policy| carried.as_ref() != Some(policy));
        Ok(relayed)
    }

    /// Posts a report.
    ///
    /// # Errors
    /// Calls that make no sense, a body that cannot be read.
    pub(crate) async fn post(
        &self,
        call: PostReport,
        descriptors: Vec<OwnedFd>,
    ) -> Result<PostedReport, Fault> {
        if call.body.len() > PostReport::MAX {
            let text = format!("a report has {} octets at most", PostReport::MAX);
            return Err(Fault::new(FaultKind::Invalid, text));
        }
        let body = body_source(&call.body, descriptors)?;
        let unread = |error: std::io::Error| Fault::new(FaultKind::Temporary, error.to_string());
        let report = body.whole().await.map_err(unread)?;
        let PostReport { id, trace, url, .. } = call;
        let octets = report.len();
        let posted = self.client.post(&url, report).await;
        let (what, answer) = match &posted {
            PostedReport::Accepted(answer) => ("report posted", answer),
            PostedReport::Again(why) => ("report not taken now", why),
            PostedReport::Refused(why) => ("report refused", why),
        };
        tracing::info!(report = id, %trace, url, octets, answer, "{what}");
        Ok(posted)
    }

    async fn prepare(&self, call: Relay, body: Source) -> Result<Job, Unprepared> {
        let unprepared = |why: String, told: &str| Unprepared {
            indexes: call
                .recipients
                .iter()
                .map(|recipient| recipient.index)
                .collect(),
            why,
            told: told.to_owned(),
        };
        let traits = Traits::of(&call.prefix, &body)
            .await
            .map_err(|error| unprepared(error.to_string(), "the message cannot be read now"))?;
        // Signed is what lines make; a binary message has none.
        let signed = match &self.signer {
            Some(signer) if call.body_type != BodyType::Binary => {
                let (signer, sealer) = (signer.clone(), self.sealer.clone());
                let sender = call
                    .sender
                    .as_ref()
                    .map(|sender: &Address| sender.domain().to_owned());
                let (prefix, body, ours) = (call.prefix.clone(), body.clone(), call.sign);
                let work = move || match (ours, sealer) {
                    (true, _) => signer.sign(sender.as_deref(), &prefix, &body, true),
                    // What strangers posted to a list of ours: the list signs, and seals what was found of the author.
                    (false, sealer) if is_post(&prefix) => {
                        let mut head = signer.sign(sender.as_deref(), &prefix, &body, false)?;
                        let signed = head.clone();
                        head.extend_from_slice(&prefix);
                        let seal = match sealer {
                            Some(sealer) => {
                                sealer.seal(&signer, sender.as_deref(), &head, &body, now())?
                            }
                            None => Vec::new(),
                        };
                        Ok([seal, signed].concat())
                    }
                    // What is not ours and goes elsewhere is forwarded.
                    (false, Some(sealer)) => {
                        sealer.seal(&signer, sender.as_deref(), &prefix, &body, now())
                    }
                    (false, None) => Ok(Vec::new()),
                };
                tokio::task::spawn_blocking(work)
                    .await
                    .map_err(|error| {
                        unprepared(error.to_string(), "the message cannot be signed now")
                    })?
                    .map_err(|error| unprepared(error, "the message cannot be signed now"))?
            }
            _ => Vec::new(),
        };
        let mut head = signed;
        head.extend_from_slice(&call.prefix);
        Ok(Job {
            trace: call.trace,
            sender: call.sender,
            ret: call.ret,
            envid: call.envid,
            body_type: call.body_type,
            smtputf8: call.smtputf8,
            require_tls: call.require_tls,
            terms: call.terms,
            manner: call.manner,
            recipients: call.recipients,
            content: Content { head, body },
            traits,
        })
    }
}

/// Whether a list of ours sends it: only deliverd writes such a field into the prefix.
fn is_post(prefix: &[u8]) -> bool {
    message::Fields::new(prefix).any(|field| field.name.eq_ignore_ascii_case(b"list-id"))
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |time| time.as_secs())
}

/// A message that could not even be brought to a host.
struct Unprepared {
    indexes: Vec<u16>,
    /// For the log.
    why: String,
    /// For the sender.
    told: String,
}

fn body_source(body: &Body, mut descriptors: Vec<OwnedFd>) -> Result<Source, Fault> {
    let invalid = |text: &str| Fault::new(FaultKind::Invalid, text);
    match (body, descriptors.pop(), descriptors.is_empty()) {
        (Body::Inline(octets), None, true) => Ok(Source::from(octets.0.clone())),
        (Body::Attached { len }, Some(descriptor), true) => {
            let file = File::from(descriptor);
            let real = file
                .metadata()
                .map_err(|error| Fault::new(FaultKind::Temporary, error.to_string()))?
                .len();
            if real < *len {
                return Err(invalid("the body's file is shorter than the body"));
            }
            Ok(Source::File {
                file: Arc::new(file),
                start: 0,
                len: *len,
            })
        }
        _ => Err(invalid("a body is inline, or attached with one descriptor")),
    }
}

/// One line a recipient, with the host's own words.
fn log(id: types::QueueId, trace: TraceId, job: &Job, relayed: &Relayed) {
    let via = relayed.host.as_deref().unwrap_or("no host");
    for (index, outcome) in &relayed.outcomes {
        let Some(recipient) = job
            .recipients
            .iter()
            .find(|recipient| recipient.index == *index)
        else {
            continue;
        };
        let (what, reply) = match outcome {
            Outcome::Done(reply) => ("sent", reply),
            Outcome::Temporary(reply) => ("deferred", reply),
            Outcome::Permanent(reply) => ("refused", reply),
        };
        let host = reply.host.as_deref().unwrap_or("this host");
        tracing::info!(%id, %trace, to = %recipient.address, via, host, %reply, "{what}");
    }
}
