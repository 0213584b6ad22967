//! Mail to mailing lists: posts, bounces, commands.
//!
//! A post is judged by who its author is, as far as smtpd found out; changed once; and handed to queued with all recipients, which
//! journals it before the recipient is free. Members are read in pages, so that a list's length is bounded by memory alone.

mod bounce;
mod command;
mod footer;
mod moderation;
mod personal;
mod post;
#[cfg(test)]
mod tests;
mod trust;

pub(crate) use command::Answered;
pub(crate) use moderation::Notices;

use crate::delivery::{Delivery, Directory, Message, Plan, Store, status};
use footer::Letter;
use ipc::api::authd::{
    ListBounced, ListPart, ListPoster, ListRecipients, ListStanding, MailingList, Posting,
};
use ipc::api::deliverd::{Deliver, FollowUp};
use ipc::{Fault, FaultKind};
use std::fs::File;
use std::io::Write as _;
use trust::Findings;
use types::{Address, Enhanced, Octets, Outcome};

/// Octets of a message that bounces and commands are looked for in.
const LOOKED_AT: usize = 256 * 1024;

/// Members of one post at most; authd's limit is the same.
const MEMBERS: usize = 100_000;

/// Pages of members that are asked for at most.
const PAGES: usize = 10_000;

/// A list that a recipient leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListMail {
    pub(crate) index: u16,
    pub(crate) address: Address,
    pub(crate) part: ListPart,
}

/// What becomes of a post.
enum Verdict {
    Post,
    /// To the owners, who decide, for this reason.
    Hold(&'static str),
    /// Back to the sender, with this.
    Refuse(Outcome),
    /// Nowhere, for this reason.
    Drop(&'static str),
}

impl<D: Directory, S: Store> Delivery<D, S> {
    /// Does what is to be done for the lists of a call.
    pub(crate) async fn serve_lists(&self, call: &Deliver, message: &Message, plan: &mut Plan) {
        let mut done: Vec<(ListMail, Outcome)> = Vec::new();
        for mail in std::mem::take(&mut plan.lists) {
            let same = |one: &&(ListMail, Outcome)| {
                one.0.address == mail.address && one.0.part == mail.part
            };
            // By however many addresses: once.
            let outcome = match done.iter().find(same) {
                Some((_, outcome)) => outcome.clone(),
                None => match self.serve_list(call, &mail, message, plan).await {
                    Ok(outcome) => outcome,
                    Err(fault) => {
                        tracing::warn!(id = %call.id, trace = %call.trace, list = %mail.address, %fault, "not given to the list");
                        let text = "the list cannot be served now".to_owned();
                        Outcome::Temporary(status(451, Enhanced(4, 3, 0), text))
                    }
                },
            };
            plan.add(mail.index, outcome.clone());
            done.push((mail, outcome));
        }
    }

    async fn serve_list(
        &self,
        call: &Deliver,
        mail: &ListMail,
        message: &Message,
        plan: &mut Plan,
    ) -> Result<Outcome, Fault> {
        match &mail.part {
            ListPart::Post => self.post(call, mail, message, plan).await,
            ListPart::Bounces => self.bounces(call, mail, None, message, plan).await,
            ListPart::Bounce(token) => self.bounces(call, mail, Some(token), message, plan).await,
            ListPart::Copies(token) => self.copies(call, mail, token, plan).await,
            _ => self.command(call, mail, message, plan).await,
        }
    }

    async fn post(
        &self,
        call: &Deliver,
        mail: &ListMail,
        message: &Message,
        plan: &mut Plan,
    ) -> Result<Outcome, Fault> {
        let list = &mail.address;
        if message.has_been_at(list) {
            return Ok(dropped(call, list, "it has been here before"));
        }
        // A large one is in memory, changed and unchanged, until queued has it.
        let _permit = match message.file {
            Some(_) => {
                let closed = |_| Fault::new(FaultKind::Temporary, "shutting down");
                Some(self.large.acquire().await.map_err(closed)?)
            }
            None => None,
        };
        let whole = crate::filing::read(call, message, usize::MAX)?;
        let mut letter = Letter::of(&whole);
        let size = whole.len() as u64;
        drop(whole);
        let prefix = take_over(&call.prefix, &mut letter);
        let request = ListPoster {
            list: list.clone(),
            authors: authors(&letter),
        };
        let Some(standing) = self.directory.list_poster(call.trace, request).await? else {
            let text = format!("<{list}>: there is no such list any more");
            return Ok(Outcome::Permanent(status(550, Enhanced(5, 1, 1), text)));
        };
        let findings = Findings::of(&call.prefix);
        match judge(call, &letter, &standing, &findings, list, size) {
            Verdict::Post => {}
            Verdict::Hold(why) => {
                let quiet = !call.ours && findings.forged_sender();
                let held = (&standing.list, why, quiet);
                return self.hold(call, mail, message, held, plan).await;
            }
            Verdict::Drop(why) => return Ok(dropped(call, list, why)),
            Verdict::Refuse(outcome) if call.ours || !findings.forged_sender() => {
                return Ok(outcome);
            }
            // Whoever wrote it, it was not the one who would hear of it.
            Verdict::Refuse(_) => {
                return Ok(dropped(
                    call,
                    list,
                    "it may not be posted, and its sender is forged",
                ));
            }
        }
        let personal = standing.list.personal;
        let recipients = match personal {
            true => self.beginning(call, &standing.list, list).await?,
            false => self.recipients(call, &standing.list, list).await?,
        };
        if recipients.is_empty() {
            return Ok(dropped(call, list, "the list has no members"));
        }
        let ours = call.ours && standing.ours;
        post::change(
            &mut letter,
            &standing.list,
            list,
            &findings,
            ours,
            &call.id.to_string(),
        );
        let mut first = post::fields(&standing.list, list).into_bytes();
        first.extend(prefix);
        let count = match personal {
            true => usize::try_from(standing.list.members).unwrap_or(usize::MAX),
            false => recipients.len(),
        };
        let content = letter.into_octets();
        let (file, octets) = attached(&recipients, &content)
            .map_err(|error| Fault::new(FaultKind::Temporary, error.to_string()))?;
        if plan.distributions.len() >= usize::from(ipc::MAX_DESCRIPTORS) {
            return Err(Fault::new(FaultKind::Temporary, "too many lists at once"));
        }
        tracing::info!(id = %call.id, trace = %call.trace, %list, members = count, size = content.len(), "posted");
        let follow_up = FollowUp::Distribute {
            index: mail.index,
            sender: post::part(list, "bounces"),
            prefix: first.into(),
            recipients: octets,
            content: content.len() as u64,
        };
        plan.distributions.push((follow_up, file));
        let text = format!("posted to {count} members");
        Ok(Outcome::Done(status(250, Enhanced(2, 1, 5), text)))
    }

    /// All who get a post, each once.
    async fn recipients(
        &self,
        call: &Deliver,
        settings: &MailingList,
        list: &Address,
    ) -> Result<Vec<Address>, Fault> {
        let mut all: Vec<Address> = Vec::new();
        for _ in 0..PAGES {
            let request = ListRecipients {
                list: list.clone(),
                after: all.last().cloned(),
            };
            let page = self.directory.list_recipients(call.trace, request).await?;
            if page.is_empty() || all.len() >= MEMBERS {
                break;
            }
            all.extend(page);
        }
        if let Some(archive) = archive(settings)
            && !all.contains(&archive)
        {
            all.push(archive);
        }
        Ok(all)
    }

    /// Reports about members who did not get a post. Nobody is answered.
    async fn bounces(
        &self,
        call: &Deliver,
        mail: &ListMail,
        token: Option<&String>,
        message: &Message,
        plan: &mut Plan,
    ) -> Result<Outcome, Fault> {
        let list = &mail.address;
        // RFC 3464 2: reports come from nobody.
        if call.sender.is_some() {
            return Ok(dropped(call, list, "it is no report"));
        }
        let octets = crate::filing::read(call, message, LOOKED_AT)?;
        let members = match token {
            Some(_) if personal::is_failure(&octets) => Vec::new(),
            Some(_) => return Ok(dropped(call, list, "it tells of no failure")),
            None => bounce::failed(&octets),
        };
        if members.is_empty() && token.is_none() {
            return Ok(dropped(call, list, "the report tells of no member"));
        }
        let request = ListBounced {
            list: list.clone(),
            members,
            token: token.cloned(),
        };
        let suspended = self.directory.list_bounced(call.trace, request).await?;
        if !suspended.members.is_empty() && !suspended.owners.is_empty() {
            let content =
                bounce::notice(list, &suspended.members, &call.id.to_string(), call.arrived);
            plan.follow_ups.push(FollowUp::Message {
                index: mail.index,
                sender: None,
                to: suspended.owners,
                content: content.into_bytes().into(),
            });
        }
        Ok(done("noted".to_owned()))
    }
}

/// What gets each post besides the members.
fn archive(settings: &MailingList) -> Option<Address> {
    settings.archive.as_ref().and_then(|text| text.parse().ok())
}

fn done(text: String) -> Outcome {
    Outcome::Done(status(250, Enhanced(2, 1, 5), text))
}

/// Taken, and not sent on: nobody would be helped by an answer.
fn dropped(call: &Deliver, list: &Address, why: &str) -> Outcome {
    tracing::info!(id = %call.id, trace = %call.trace, %list, why, "not posted");
    done(format!("not sent on: {why}"))
}

/// Whether a message is a post that members get.
fn judge(
    call: &Deliver,
    letter: &Letter,
    standing: &ListStanding,
    findings: &Findings,
    list: &Address,
    size: u64,
) -> Verdict {
    if call.sender.is_none() {
        return Verdict::Drop("it is a report, and no post");
    }
    if is_reply_of_a_machine(letter) {
        return Verdict::Drop("it is the answer of a machine");
    }
    let id = post::list_id(list);
    if letter
        .field("List-Id")
        .is_some_and(|value| memmem(value, id.as_bytes()))
    {
        return Verdict::Drop("it is a post of this list already");
    }
    let refuse =
        |enhanced, text: String| Verdict::Refuse(Outcome::Permanent(status(550, enhanced, text)));
    let settings = &standing.list;
    if settings.max_bytes > 0 && size > settings.max_bytes {
        let text = format!("<{list}>: posts have {} octets at most", settings.max_bytes);
        return refuse(Enhanced(5, 3, 4), text);
    }
    if call.let_in {
        return Verdict::Post;
    }
    let known = call.ours || !findings.checked;
    if standing.ours && !known && !findings.is_proven() {
        let text = format!("<{list}>: the author is not who From says");
        return refuse(Enhanced(5, 7, 1), text);
    }
    let author = known || findings.is_author();
    let allowed = match settings.posting {
        Posting::Anyone => true,
        Posting::Members => author && (standing.member || standing.owner),
        Posting::Owners => author && standing.owner,
    };
    let poster = moderation::Poster {
        author,
        forged: !call.ours && findings.forged_sender(),
        allowed,
    };
    if let Some(why) = moderation::waits(standing, poster) {
        return Verdict::Hold(why);
    }
    if allowed {
        return Verdict::Post;
    }
    let who = match settings.posting {
        Posting::Owners => "its owners",
        _ => "its members",
    };
    // RFC 3463 X.7.2
    refuse(
        Enhanced(5, 7, 2),
        format!("<{list}>: only {who} may post here"),
    )
}

/// RFC 3834 2: whatever a program answered to mail.
fn is_reply_of_a_machine(letter: &Letter) -> bool {
    let Some(value) = letter.field("Auto-Submitted") else {
        return false;
    };
    let word = String::from_utf8_lossy(value).to_ascii_lowercase();
    word.trim_start().starts_with("auto-replied")
}

fn memmem(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len().max(1))
        .any(|window| window.eq_ignore_ascii_case(part))
}

/// The author's addresses.
fn authors(letter: &Letter) -> Vec<Address> {
    let text = String::from_utf8_lossy(letter.field("From").unwrap_or_default()).into_owned();
    let places = message::address_places(&text).into_iter();
    places
        .filter_map(|place| text.get(place)?.parse().ok())
        .take(20)
        .collect()
}

/// What smtpd put before a submission that lacked it belongs to the message; the rest of the prefix are traces.
fn take_over(prefix: &[u8], letter: &mut Letter) -> Vec<u8> {
    let mut traces = Vec::with_capacity(prefix.len());
    for field in message::Fields::new(prefix) {
        let name = ["From", "Date", "Message-ID"]
            .into_iter()
            .find(|name| field.name.eq_ignore_ascii_case(name.as_bytes()));
        match name {
            Some(name) if letter.field(name).is_none() => letter.replace(name, field.value),
            // What an earlier list of ours said.
            _ if post::is_replaced(field.name) => {}
            Some(_) => {}
            None => traces.extend_from_slice(field.raw),
        }
    }
    traces
}

/// The file for queued: recipients or copies, and the message behind them; with the octets of the former.
fn attached<T: serde::Serialize>(recipients: &[T], content: &[u8]) -> std::io::Result<(File, u64)> {
    let list = postcard::to_stdvec(recipients).map_err(std::io::Error::other)?;
    let flags = rustix::fs::MemfdFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::memfd_create("post", flags)?);
    file.write_all(&list)?;
    file.write_all(content)?;
    Ok((file, list.len() as u64))
}

/// A message of the list's own.
fn own_message(index: u16, to: Vec<Address>, content: String) -> FollowUp {
    FollowUp::Message {
        index,
        sender: None,
        to,
        content: Octets(content.into_bytes()),
    }
}

/// Any message, as strangers post it: a footer and a list's changes keep its header and what is sealed, and a second post changes no
/// subject.
pub fn fuzz(octets: &[u8]) {
    let letter = Letter::of(octets);
    assert_eq!(Letter::of(&letter.clone().into_octets()), letter);
    let list = MailingList {
        address: "all@x.example".to_owned(),
        description: "All".to_owned(),
        owners: Vec::new(),
        posting: Posting::Anyone,
        subscription: ipc::api::authd::Subscription::Closed,
        tag: "all".to_owned(),
        footer: "the füßer".to_owned(),
        from: ipc::api::authd::FromHandling::Always,
        reply_to: ipc::api::authd::ReplyTo::List,
        archive: None,
        archive_url: None,
        max_bytes: 0,
        max_bounces: 0,
        members: 0,
        personal: false,
        moderation: ipc::api::authd::Moderation::None,
        held_days: 7,
    };
    let Ok(address) = list.address.parse::<Address>() else {
        return;
    };
    let mut posted = letter;
    post::change(
        &mut posted,
        &list,
        &address,
        &Findings::of(octets),
        false,
        "mark",
    );
    let from = String::from_utf8_lossy(posted.field("From").unwrap_or_default()).into_owned();
    assert!(from.ends_with("<all@x.example>"), "{from:?}");
    assert_eq!(authors(&posted), std::slice::from_ref(&address));
    let subject = posted.field("Subject").map(<[u8]>::to_vec);
    let mut again = posted.clone();
    post::change(
        &mut again,
        &list,
        &address,
        &Findings::default(),
        false,
        "more",
    );
    assert_eq!(again.field("Subject").map(<[u8]>::to_vec), subject);
    let whole = posted.into_octets();
    assert!(Letter::of(&whole).field("List-Id").is_none());
    let _ = personal::is_failure(octets);
    for member in bounce::failed(octets) {
        assert!(!member.to_string().contains(['\r', '\n']));
    }
}
