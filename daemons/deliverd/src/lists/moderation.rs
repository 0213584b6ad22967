//! Posts that wait for the owners of a list: what the owners are told, and what they answer.
//!
//! queued keeps such a post, as a message of its own that is not tried. Here is decided which posts these are, and whether it is an
//! owner who answers; that an answer is about a post of ours is told by the seal in its address.

use super::footer::Letter;
use super::post::{list_id, part};
use super::trust::Findings;
use super::{ListMail, attached, authors, bounce, done, dropped, own_message, take_over};
use crate::delivery::{Delivery, Directory, Message, Plan, Store};
use ipc::api::authd::{
    ListDecide, ListHold, ListPart, ListPoster, ListStanding, MailingList, Moderation,
};
use ipc::api::deliverd::{Deliver, FollowUp};
use ipc::{Fault, FaultKind};
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt::Write as _;
use std::hash::BuildHasher as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use types::{Address, Outcome, QueueId};

/// Octets of a post that owners get along; of a larger one they get the header.
const ATTACHED: usize = 1 << 20;
/// Octets of such a header.
const HEADER: usize = 16 * 1024;

/// Posts of a list whose owners are told at once, in an hour.
const NOTICES: u32 = 30;
const HOUR: Duration = Duration::from_secs(3600);
/// Lists of which this is known.
const KEPT: usize = 10_000;

const DAY: u64 = 86_400;

/// What the owners of a list were told in this hour.
#[derive(Debug)]
struct Told {
    since: Instant,
    told: u32,
    /// Posts that they were not told of, since it was said last how many.
    untold: u64,
}

/// Of which lists' posts the owners were told lately. It is forgotten with the process.
#[derive(Debug, Default)]
pub(crate) struct Notices(Mutex<HashMap<Address, Told>>);

impl Notices {
    /// Whether the owners are told of a post that is held now: with how many others they were not told of. They then are.
    fn next(&self, list: &Address, now: Instant) -> Option<u64> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT {
            known.retain(|_, told| now < told.since + HOUR);
        }
        if known.len() >= KEPT && !known.contains_key(list) {
            return Some(0);
        }
        let told = known.entry(list.clone()).or_insert(Told {
            since: now,
            told: 0,
            untold: 0,
        });
        if now >= told.since + HOUR {
            (told.since, told.told) = (now, 0);
        }
        if told.told >= NOTICES {
            told.untold += 1;
            return None;
        }
        told.told += 1;
        Some(std::mem::take(&mut told.untold))
    }
}

/// Who posts, as far as moderation is about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Poster {
    /// From is who it says.
    pub(super) author: bool,
    /// The sender is known to be forged.
    pub(super) forged: bool,
    /// The list takes posts of theirs.
    pub(super) allowed: bool,
}

/// Whether a post waits for the owners, and why.
pub(super) fn waits(standing: &ListStanding, poster: Poster) -> Option<&'static str> {
    let stranger = !poster.allowed && poster.author && !poster.forged;
    match standing.list.moderation {
        Moderation::Others | Moderation::All if stranger => Some("its author may not post"),
        // What is refused without moderation is not held for its being forged.
        Moderation::All if poster.allowed && !(poster.author && standing.owner) => {
            Some("all posts wait for the owners")
        }
        _ => None,
    }
}

impl<D: Directory, S: Store> Delivery<D, S> {
    /// Hands a post back to queued, to be held.
    pub(super) async fn hold(
        &self,
        call: &Deliver,
        mail: &ListMail,
        message: &Message,
        held: (&MailingList, &'static str, bool),
        plan: &mut Plan,
    ) -> Result<Outcome, Fault> {
        let (list, why, quiet) = held;
        let address = &mail.address;
        if plan.distributions.len() >= usize::from(ipc::MAX_DESCRIPTORS) {
            return Err(Fault::new(FaultKind::Temporary, "too many lists at once"));
        }
        let request = ListHold {
            list: address.clone(),
            post: call.id,
        };
        let decide = self.directory.list_hold(call.trace, request).await?;
        let owners: Vec<Address> = list.owners.iter().filter_map(|o| o.parse().ok()).collect();
        let (owners, notice) = match self.notices.next(address, Instant::now()) {
            Some(untold) => {
                let whole = crate::filing::read(call, message, usize::MAX)?;
                let notice = Notice {
                    list,
                    address,
                    why,
                    quiet,
                    untold,
                    decide: decide.as_ref(),
                };
                let content = notice.write(call, &owners, &whole);
                (owners, content)
            }
            None => (Vec::new(), Vec::new()),
        };
        let (file, octets) = attached(&owners, &notice)
            .map_err(|error| Fault::new(FaultKind::Temporary, error.to_string()))?;
        tracing::info!(id = %call.id, trace = %call.trace, list = %address, why, told = owners.len(), "held for the owners");
        let follow_up = FollowUp::Hold {
            index: mail.index,
            list: address.clone(),
            why: why.to_owned(),
            seconds: u64::from(list.held_days) * DAY,
            quiet,
            recipients: octets,
            content: notice.len() as u64,
        };
        plan.distributions.push((follow_up, file));
        Ok(done(format!("held for the owners of the list: {why}")))
    }

    /// What an owner has answered about a post. The seal has been found to be ours.
    pub(super) async fn decided(
        &self,
        call: &Deliver,
        mail: &ListMail,
        letter: &mut Letter,
        sender: Address,
        (post, accept): (QueueId, bool),
        plan: &mut Plan,
    ) -> Result<Outcome, Fault> {
        let list = &mail.address;
        let findings = Findings::of(&call.prefix);
        take_over(&call.prefix, letter);
        let request = ListPoster {
            list: list.clone(),
            authors: authors(letter),
        };
        let alone = request.authors.len() == 1;
        let Some(standing) = self.directory.list_poster(call.trace, request).await? else {
            return Ok(dropped(call, list, "there is no such list any more"));
        };
        let believed = call.ours
            || !findings.checked
            || (!findings.forged_sender()
                && findings.is_author()
                && (findings.is_proven() || !standing.ours));
        if !believed {
            return Ok(dropped(call, list, "a decision whose author is not proven"));
        }
        let id = call.id.to_string();
        let says = |subject: &str, text: &str| {
            let mut answer = format!(
                "From: <{}>\r\nTo: <{sender}>\r\nSubject: {subject} {list}\r\n",
                part(list, "request")
            );
            bounce::head(&mut answer, list, &id, call.arrived);
            answer + text
        };
        if !(standing.owner && alone) {
            if !self
                .answered
                .may(list, &sender, &ListPart::Request, Instant::now())
            {
                return Ok(dropped(call, list, "a decision of somebody else"));
            }
            tracing::info!(id = %call.id, trace = %call.trace, %list, "a decision of somebody who is no owner");
            let text = "Only an owner of the list decides on what is posted. If you are one, answer from the address under\r\n\
                        which the list knows you.\r\n";
            let content = says("Nothing was done about the post to", text);
            plan.follow_ups
                .push(own_message(mail.index, vec![sender.clone()], content));
            return Ok(done("answered".to_owned()));
        }
        let (subject, text) = if accept {
            ("Let in to", "The post goes to the members.\r\n")
        } else {
            (
                "Refused to",
                "The post was refused. Its author gets a report, unless the sender is forged.\r\n",
            )
        };
        let gone =
            "No such post waits for the owners: it was decided on before, or was given up.\r\n";
        tracing::info!(id = %call.id, trace = %call.trace, %list, %post, accept, by = %sender, "an owner decides");
        plan.follow_ups.push(FollowUp::Decide {
            index: mail.index,
            list: list.clone(),
            post,
            accept,
            done: says(subject, text).into_bytes().into(),
            gone: says("Nothing was done about the post to", gone)
                .into_bytes()
                .into(),
            owner: sender.clone(),
        });
        Ok(done("decided".to_owned()))
    }
}

/// What the owners are told of a post.
struct Notice<'a> {
    list: &'a MailingList,
    address: &'a Address,
    why: &'static str,
    quiet: bool,
    /// Other posts of which they were not told.
    untold: u64,
    decide: Option<&'a ListDecide>,
}

impl Notice<'_> {
    /// A message to the owners, with the post as it came.
    fn write(&self, call: &Deliver, owners: &[Address], body: &[u8]) -> Vec<u8> {
        let list = self.address;
        let names: Vec<String> = owners.iter().map(|one| format!("<{one}>")).collect();
        let from = match self.decide {
            Some(decide) => decide.accept.clone(),
            None => part(list, "request"),
        };
        let post = [call.prefix.0.as_slice(), body].concat();
        let boundary = boundary(call.id);
        let (kind, shown) = shown(&post);
        let encoding = if shown.is_ascii() { "7bit" } else { "8bit" };
        let mut out = format!(
            "From: <{from}>\r\nTo: {}\r\nSubject: A post to {list} waits for you\r\nDate: {}\r\nMessage-ID: <{}.held@{}>\r\n\
             Auto-Submitted: auto-generated\r\nPrecedence: list\r\nList-Id: {}\r\nMIME-Version: 1.0\r\n\
             Content-Type: multipart/mixed; boundary=\"{boundary}\"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
             --{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n",
            names.join(",\r\n\t"),
            bounce::date(call.arrived),
            call.id,
            list.domain(),
            list_id(list),
        );
        self.text(&mut out, call, &post);
        let _ = write!(
            out,
            "\r\n--{boundary}\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
        );
        let mut out = out.into_bytes();
        out.extend_from_slice(shown);
        out.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        out
    }

    fn text(&self, out: &mut String, call: &Deliver, post: &[u8]) {
        let list = self.address;
        let letter = Letter::of(post);
        let _ = write!(
            out,
            "A post to {list} waits for its owners: {}.\r\n\r\n    From: {}\r\n    Subject: {}\r\n    {} octets\r\n\r\n",
            self.why,
            line(&letter, "From"),
            line(&letter, "Subject"),
            post.len()
        );
        if self.quiet {
            out.push_str(
                "Its sender may be forged. Whoever it was hears nothing of a refusal.\r\n\r\n",
            );
        }
        match self.decide {
            Some(ListDecide { reject, .. }) => {
                let _ = write!(
                    out,
                    "Answer this message, and it goes to the members; what the answer says does not matter. To refuse it, write to\r\n\r\n    \
                     {reject}\r\n\r\nDo so from the address under which the list knows you as an owner.\r\n"
                );
            }
            None => {
                let _ = write!(
                    out,
                    "Your postmaster can let it in (posthouse list held accept {list} {id}),\r\n\
                     or refuse it (posthouse list held reject {list} {id}).\r\n",
                    id = call.id
                );
            }
        }
        let _ = write!(
            out,
            "If nobody decides, it is refused after {} days.\r\n",
            self.list.held_days
        );
        if self.untold > 0 {
            let _ = write!(
                out,
                "\r\nSo many have come at once that you were not told of {} others. All that wait:\r\n\
                 posthouse list held {list}\r\n",
                self.untold
            );
        }
    }
}

/// A field of a post for people: one line.
fn line(letter: &Letter, name: &str) -> String {
    let text = message::header_text(letter.field(name).unwrap_or_default());
    let words: Vec<&str> = text
        .split(|c: char| c.is_control() || c.is_whitespace())
        .filter(|word| !word.is_empty())
        .collect();
    words.join(" ").chars().take(200).collect()
}

/// The post, or of a large one its header, with its type (RFC 2046 5.2.1, RFC 6532 3.7, RFC 3462 2).
fn shown(post: &[u8]) -> (&'static str, &[u8]) {
    let end = post.windows(4).position(|four| four == b"\r\n\r\n");
    let header = post.get(..end.map_or(post.len(), |end| end + 2));
    let header = header.unwrap_or(post);
    match (post.len() <= ATTACHED, header.is_ascii()) {
        (true, true) => ("message/rfc822", post),
        (true, false) => ("message/global", post),
        (false, _) => {
            let most = header.len().min(HEADER);
            ("text/rfc822-headers", header.get(..most).unwrap_or(header))
        }
    }
}

/// One that its author cannot have put there: the id alone could be guessed.
fn boundary(id: QueueId) -> String {
    let random = RandomState::new().hash_one(id);
    format!("=_held-{id}-{random:016x}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn owners_are_told_so_often_and_then_of_how_many_they_were_not() {
        let (notices, now) = (Notices::default(), Instant::now());
        let list: Address = "all@x.example".parse().unwrap();
        for _ in 0..NOTICES {
            assert_eq!(notices.next(&list, now), Some(0));
        }
        assert_eq!(notices.next(&list, now), None);
        assert_eq!(notices.next(&list, now + HOUR / 2), None);
        assert_eq!(notices.next(&"b@x.example".parse().unwrap(), now), Some(0));
        assert_eq!(notices.next(&list, now + HOUR), Some(2));
        assert_eq!(notices.next(&list, now + HOUR), Some(0));
    }

    #[test]
    fn of_a_large_post_the_header_is_shown() {
        let post = [b"A: b\r\n\r\n".as_slice(), &vec![b'x'; ATTACHED]].concat();
        assert_eq!(
            shown(&post),
            ("text/rfc822-headers", b"A: b\r\n".as_slice())
        );
        let endless = vec![b'x'; ATTACHED + 1];
        assert_eq!(shown(&endless).1.len(), HEADER);
    }
}
