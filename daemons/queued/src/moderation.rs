//! Posts to mailing lists that wait for the owners.
//!
//! Such a post is a message of its own, with the list as its one recipient: the message that it came as is done with it, whoever
//! else that is for. It is held in the queue table at a destination where nothing is tried. One transaction takes it away and puts
//! what follows in its place: the message with the mark that an owner has let it in, or the report to its sender. So a post is
//! decided on once, however often it is asked for, on whatever node; and nothing but the queue can make that mark.

use crate::core::{Core, now};
use crate::distribute::{self, Post};
use crate::message::{Fresh, Home, Job, Message};
use crate::record::{Head, Moderated};
use crate::report::{Event, Subject};
use crate::table::{POSTS, Table, Waiting};
use crate::table_change::{Made, Settled};
use crate::table_control::Listed;
use ipc::api::queued::{Decision, QueueFilter};
use ipc::{Fault, FaultKind};
use sql::{Error, Value, args};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use types::{Address, Enhanced, Envelope, Notify, QueueId, Recipient, Route, Status, Terms};

/// Posts of a list that wait at most; more are refused.
pub(crate) const WAITING: u64 = 100;

/// Posts that are given up in one round.
const ROUND: u32 = 100;

/// A post as deliverd wants it to be held.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) index: u16,
    pub(crate) list: Address,
    pub(crate) why: String,
    /// Seconds.
    pub(crate) seconds: u64,
    /// Nobody hears of its end.
    pub(crate) quiet: bool,
}

/// Reports about our own messages to owners: none (RFC 3834 5).
const SILENT: Notify = Notify {
    success: false,
    failure: false,
    delay: false,
    explicit: true,
};

fn temporary(fault: Fault) -> Status {
    Status {
        code: 451,
        enhanced: Enhanced(4, 3, 0),
        text: fault.text,
        host: None,
    }
}

/// RFC 3463 X.7.2: what a list does not take.
fn refused(text: String) -> Status {
    Status {
        code: 550,
        enhanced: Enhanced(5, 7, 2),
        text,
        host: None,
    }
}

fn away(error: Error) -> Fault {
    Fault::new(FaultKind::Temporary, format!("the queue table: {error}"))
}

impl Table {
    /// The posts of a list that wait.
    async fn posts(&self, list: &Address) -> Result<Vec<Listed>, Error> {
        let text = "SELECT id FROM queue_recipient WHERE address = ? AND destination = ?";
        let rows = self
            .db()
            .await?
            .fetch_all(text, args![list.key(), POSTS])
            .await?;
        self.listed(rows.iter().map(|row| row.u64(0).map(QueueId)))
            .await
    }

    /// Posts that have waited long enough.
    async fn posts_over(&self, now: u64) -> Result<Vec<Listed>, Error> {
        let text = "SELECT id FROM queue_recipient WHERE destination = ? AND held = 1 AND due <= ? AND lease = 0
            ORDER BY due LIMIT ?";
        let rows = self
            .db()
            .await?
            .fetch_all(text, args![POSTS, now, ROUND])
            .await?;
        self.listed(rows.iter().map(|row| row.u64(0).map(QueueId)))
            .await
    }

    async fn listed(
        &self,
        ids: impl Iterator<Item = Result<QueueId, Error>>,
    ) -> Result<Vec<Listed>, Error> {
        let filter = QueueFilter {
            ids: ids.collect::<Result<_, _>>()?,
            ..QueueFilter::default()
        };
        match u32::try_from(filter.ids.len()) {
            Ok(0) | Err(_) => Ok(Vec::new()),
            Ok(count) => self.list(&filter, QueueId(0), count).await,
        }
    }

    async fn count_posts(&self, list: &Address) -> Result<u64, Error> {
        let text = "SELECT COUNT(*) FROM queue_recipient WHERE address = ? AND destination = ?";
        let row = self
            .db()
            .await?
            .fetch_optional(text, args![Value::from(list.key()), POSTS])
            .await?;
        row.map_or(Ok(0), |row| row.u64(0))
    }
}

/// What a post is, in the queue: the message that waits, and what its owners are told.
///
/// # Errors
/// The outcome instead: too many wait, or it cannot be held now.
pub(crate) async fn hold(
    core: &Arc<Core>,
    job: &Job,
    hold: Hold,
    notice: Option<Post>,
) -> Result<Vec<Fresh>, Status> {
    let missing = || Fault::new(FaultKind::Temporary, "the file of a held post is missing");
    let notice = notice.ok_or_else(|| temporary(missing()))?;
    let waiting = core.table.count_posts(&hold.list).await;
    let waiting = waiting.map_err(|error| temporary(away(error)))?;
    // Those that are on their way into the table count too.
    let fresh = core
        .fresh()
        .values()
        .filter(|message| waits_for(&message.head, &hold.list))
        .count() as u64;
    if waiting + fresh >= WAITING {
        tracing::info!(id = %job.message.id, list = %hold.list, waiting, "too many posts are held");
        let text = format!("<{}>: too many posts wait for the list's owners", hold.list);
        return Err(refused(text));
    }
    let moderated = Moderated::Waits {
        post: job.message.id,
        why: hold.why,
        until: now().saturating_add(hold.seconds),
    };
    let original = job
        .message
        .head
        .envelope
        .recipients
        .get(usize::from(hold.index));
    let recipient = Recipient {
        orcpt: original
            .and_then(|one| one.orcpt.clone())
            .or_else(|| original.map(|one| format!("rfc822;{}", one.address))),
        notify: match original {
            Some(one) if !hold.quiet => one.notify,
            _ => SILENT,
        },
        address: hold.list,
        route: Route::Local,
    };
    let origin = format!("held from {}", job.message.id);
    let mut all = vec![
        again(core, &job.message, recipient, moderated, origin)
            .await
            .map_err(temporary)?,
    ];
    if notice.content == 0 {
        return Ok(all);
    }
    let wide = notice.sender.needs_utf8();
    for mut told in distribute::messages(core, job, notice).await? {
        // It is the list's own message, and not the author's.
        told.head.sign = true;
        told.head.origin = format!("about the post {}", job.message.id);
        told.head.envelope.sender = None;
        told.head.envelope.require_tls = false;
        let mut owners = told.head.envelope.recipients.iter();
        told.head.envelope.smtputf8 = wide || owners.any(|one| one.address.needs_utf8());
        for recipient in &mut told.head.envelope.recipients {
            recipient.notify = SILENT;
        }
        all.push(told);
    }
    Ok(all)
}

/// The same message once more, for a list alone.
async fn again(
    core: &Core,
    message: &Message,
    recipient: Recipient,
    moderated: Moderated,
    origin: String,
) -> Result<Fresh, Fault> {
    let content = core.content(message).await?;
    let id = core.reserve(1)?;
    if message.head.spooled {
        // It may be on another node until now.
        drop(core.open_body(message).await?);
        let linked = core.spool.link(message.id, id);
        linked.map_err(|error| Fault::new(FaultKind::Temporary, error.to_string()))?;
    }
    let head = Head {
        arrived: now(),
        origin,
        envelope: Envelope {
            recipients: vec![recipient],
            // Times that its sender set are not for a post that waits.
            terms: Terms::default(),
            ..message.head.envelope.clone()
        },
        moderated: Some(moderated),
        ..message.head.clone()
    };
    Ok(Fresh {
        id,
        head,
        prefix: content.prefix.clone(),
        body: content.body.clone().unwrap_or_default(),
    })
}

/// Whether this is a post that waits for the owners of a list.
fn waits_for(head: &Head, list: &Address) -> bool {
    let mut recipients = head.envelope.recipients.iter();
    head.waits() && recipients.any(|one| one.address.key() == list.key())
}

/// Whether it is the post, by its own id or by that under which it came.
fn is_post(id: QueueId, head: &Head, wanted: QueueId) -> bool {
    matches!(head.moderated, Some(Moderated::Waits { post, .. }) if id == wanted || post == wanted)
}

/// How a post's waiting ends.
#[derive(Clone, Debug)]
enum End {
    LetIn,
    Refused(Status),
    Dropped,
}

impl Core {
    /// How a post that waits stands in the table.
    pub(crate) fn waiting_post(&self, head: &Head) -> Option<Waiting> {
        let Some(Moderated::Waits { why, until, .. }) = &head.moderated else {
            return None;
        };
        Some(Waiting {
            index: 0,
            destination: POSTS.to_owned(),
            route: None,
            held: true,
            due: *until,
            attention: *until,
            expires: *until,
            attempts: 0,
            last: Some(Status {
                code: 450,
                enhanced: Enhanced(4, 7, 2),
                text: format!("held for the owners of the list: {why}"),
                host: None,
            }),
            priority: 0,
            not_before: 0,
        })
    }

    /// See [`ipc::api::queued::QueueDecide`].
    ///
    /// # Errors
    /// Temporary: the table is away, or the post is on its way there.
    pub(crate) async fn decide(
        self: &Arc<Self>,
        list: &Address,
        post: QueueId,
        decision: Decision,
    ) -> Result<bool, Fault> {
        let on_its_way = || Fault::new(FaultKind::Temporary, "the post is not in the table yet");
        let fresh = self
            .fresh()
            .values()
            .any(|one| waits_for(&one.head, list) && is_post(one.id, &one.head, post));
        if fresh {
            return Err(on_its_way());
        }
        let posts = self.table.posts(list).await.map_err(away)?;
        let found = posts
            .into_iter()
            .find(|one| is_post(one.id, &one.head, post));
        let Some(found) = found else { return Ok(false) };
        // A journal has it as well until this is 0, and would bring it back.
        if found.lease != 0 {
            return Err(on_its_way());
        }
        let end = match decision {
            Decision::Accept => End::LetIn,
            Decision::Reject => End::Refused(refused(format!(
                "<{list}>: an owner of the list has refused the post"
            ))),
            Decision::Discard => End::Dropped,
        };
        let id = found.id;
        let ended = self.end_post(found, end).await?;
        tracing::info!(%id, %post, %list, ?decision, ended, "a held post is decided on");
        Ok(ended)
    }

    /// Gives up what has waited too long; whether there may be more. Its sender hears of it as without moderation, where it would
    /// have been refused at once.
    pub(crate) async fn give_up_posts(self: &Arc<Self>, time: u64) -> Result<bool, Error> {
        let over = self.table.posts_over(time).await?;
        let more = over.len() == ROUND as usize;
        for post in over {
            let (id, list) = (post.id, post.head.envelope.recipients.first());
            let list = list.map(|one| one.address.to_string()).unwrap_or_default();
            let text = format!("<{list}>: the owners of the list have not let the post in in time");
            match self.end_post(post, End::Refused(refused(text))).await {
                Ok(ended) => tracing::info!(%id, list, ended, "a held post is given up"),
                Err(fault) => tracing::warn!(%id, list, %fault, "a held post is not given up yet"),
            }
        }
        Ok(more)
    }

    /// Takes a post out of the table, and puts there what follows. `false`: somebody else has taken it before.
    async fn end_post(self: &Arc<Self>, post: Listed, end: End) -> Result<bool, Fault> {
        let recipient = post.head.envelope.recipients.first().cloned();
        let message = Arc::new(Message::new(post.id, post.head, Home::Table(0), None));
        let fresh = match (end, recipient) {
            (End::LetIn, Some(recipient)) => {
                let origin = format!("let in, held as {}", post.id);
                vec![again(self, &message, recipient, Moderated::LetIn, origin).await?]
            }
            (End::Refused(status), _) => {
                let subject = Subject {
                    index: 0,
                    event: Event::Failed,
                    status,
                    until: None,
                };
                self.reports(&message, &[subject]).await
            }
            _ => Vec::new(),
        };
        let spooled: Vec<QueueId> = fresh
            .iter()
            .filter(|one| one.head.spooled)
            .map(|one| one.id)
            .collect();
        let settled = Settled {
            id: post.id,
            done: vec![0],
            pieces: message.head.spooled && self.shares_bodies(),
            ..Settled::default()
        };
        let made = self.settle_surely(settled, fresh).await;
        let ended = made == Some(Made::Gone);
        if ended {
            let count = &self.table.count;
            let _ = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                Some(n.saturating_sub(1))
            });
        } else if made.is_some() {
            for id in spooled {
                self.spool.remove(id);
            }
        }
        self.drop_body(&message, ended);
        match made {
            None => Err(Fault::new(FaultKind::Temporary, "shutting down")),
            Some(_) => Ok(ended),
        }
    }
}
