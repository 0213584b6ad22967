//! Commands by mail: joining, leaving, help. Answers go to the reverse-path alone, to each address once in an hour for each list,
//! never to what a machine sent or a forger (RFC 3834 2).

use super::footer::Letter;
use super::post::part;
use super::trust::Findings;
use super::{ListMail, bounce, done, dropped, own_message};
use crate::delivery::{Delivery, Directory, Message, Plan, Store};
use ipc::Fault;
use ipc::api::authd::{ListAnswer, ListCommand, ListPart};
use ipc::api::deliverd::Deliver;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use types::{Address, Outcome};

/// Who was answered lately: so many.
const KEPT: usize = 10_000;
const PAUSE: Duration = Duration::from_secs(3600);

/// Who was answered lately, and about what. It is forgotten with the process.
#[derive(Debug, Default)]
pub(crate) struct Answered(Mutex<HashMap<(Address, Address, ListPart), Instant>>);

impl Answered {
    /// Whether the address may be answered now; it then was. No answers at all while too many are.
    pub(super) fn may(&self, list: &Address, to: &Address, part: &ListPart, now: Instant) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT {
            known.retain(|_, until| now < *until);
        }
        let key = (list.clone(), to.clone(), part.clone());
        if known.len() >= KEPT || known.get(&key).is_some_and(|until| now < *until) {
            return false;
        }
        known.insert(key, now + PAUSE);
        true
    }
}

impl<D: Directory, S: Store> Delivery<D, S> {
    pub(super) async fn command(
        &self,
        call: &Deliver,
        mail: &ListMail,
        message: &Message,
        plan: &mut Plan,
    ) -> Result<Outcome, Fault> {
        let list = &mail.address;
        let octets = crate::filing::read(call, message, super::LOOKED_AT)?;
        let mut letter = Letter::of(&octets);
        let Some(sender) = call.sender.clone().filter(|_| !is_of_a_machine(&letter)) else {
            return Ok(dropped(call, list, "it is a machine's"));
        };
        let Some(command) = wanted(&mail.part, &letter) else {
            return Ok(self.help(call, mail, &sender, plan));
        };
        if !matches!(command, ListPart::Confirm(_)) {
            if !call.ours && Findings::of(&call.prefix).forged_sender() {
                return Ok(dropped(call, list, "its sender is forged"));
            }
            if !self.answered.may(list, &sender, &command, Instant::now()) {
                return Ok(dropped(call, list, "its sender was answered a moment ago"));
            }
        }
        let request = ListCommand {
            list: list.clone(),
            about: about(&sender, &letter),
            sender: sender.clone(),
            command,
        };
        let answer = self.directory.list_command(call.trace, request).await?;
        if let ListAnswer::Decision { post, accept } = answer {
            let decision = (post, accept);
            let decided = self.decided(call, mail, &mut letter, sender, decision, plan);
            return decided.await;
        }
        let told = tell(list, answer, &sender, &call.id.to_string(), call.arrived);
        let Some((to, content)) = told else {
            return Ok(dropped(call, list, "there is nothing to do"));
        };
        plan.follow_ups.push(own_message(mail.index, to, content));
        Ok(done("answered".to_owned()))
    }

    fn help(&self, call: &Deliver, mail: &ListMail, sender: &Address, plan: &mut Plan) -> Outcome {
        let list = &mail.address;
        let forged = !call.ours && Findings::of(&call.prefix).forged_sender();
        if forged
            || !self
                .answered
                .may(list, sender, &ListPart::Request, Instant::now())
        {
            return dropped(
                call,
                list,
                "its sender is forged, or was answered a moment ago",
            );
        }
        let mut text = format!(
            "From: <{}>\r\nTo: <{sender}>\r\nSubject: About {list}\r\n",
            part(list, "request")
        );
        bounce::head(&mut text, list, &call.id.to_string(), call.arrived);
        for (what, suffix) in [
            ("To join the list, write to", "subscribe"),
            ("To leave it, write to", "unsubscribe"),
            ("Its owners are", "owner"),
        ] {
            let _ = write!(text, "{what}\r\n\r\n    {}\r\n\r\n", part(list, suffix));
        }
        plan.follow_ups
            .push(own_message(mail.index, vec![sender.clone()], text));
        done("answered".to_owned())
    }
}

/// Whom an answer may be about: its sender, and whom its subject names, as our question's did.
fn about(sender: &Address, letter: &Letter) -> Vec<Address> {
    let subject = message::header_text(letter.field("Subject").unwrap_or_default());
    let places = message::address_places(&subject).into_iter().take(10);
    let named = places.filter_map(|place| subject.get(place)?.trim_matches('?').parse().ok());
    std::iter::once(sender.clone()).chain(named).collect()
}

/// What a machine sent by itself is not answered (RFC 3834 2).
fn is_of_a_machine(letter: &Letter) -> bool {
    let word = |name: &str| {
        let value = letter.field(name)?;
        Some(String::from_utf8_lossy(value).trim().to_ascii_lowercase())
    };
    let automatic = word("Auto-Submitted").is_some_and(|word| !word.starts_with("no"));
    let bulk =
        word("Precedence").is_some_and(|word| ["bulk", "list", "junk"].contains(&word.as_str()));
    automatic || bulk || letter.field("List-Id").is_some()
}

/// The command; `None` is help.
fn wanted(part: &ListPart, letter: &Letter) -> Option<ListPart> {
    if *part != ListPart::Request {
        return Some(part.clone());
    }
    let subject = message::header_text(letter.field("Subject").unwrap_or_default());
    match subject
        .split_whitespace()
        .next()?
        .to_ascii_lowercase()
        .as_str()
    {
        "subscribe" | "join" => Some(ListPart::Subscribe),
        "unsubscribe" | "leave" => Some(ListPart::Unsubscribe),
        _ => None,
    }
}

/// To whom, and what.
fn tell(
    list: &Address,
    answer: ListAnswer,
    sender: &Address,
    id: &str,
    at: u64,
) -> Option<(Vec<Address>, String)> {
    let request = part(list, "request");
    let begin = |from: &Address, to: &str, subject: &str| {
        let mut text = format!("From: <{from}>\r\nTo: {to}\r\nSubject: {subject}\r\n");
        bounce::head(&mut text, list, id, at);
        text
    };
    match answer {
        ListAnswer::Nothing | ListAnswer::Decision { .. } => None,
        ListAnswer::Closed => {
            let mut text = begin(&request, &format!("<{sender}>"), &format!("About {list}"));
            text.push_str("Nobody joins this list by mail. Ask its owners.\r\n");
            Some((vec![sender.clone()], text))
        }
        ListAnswer::Done { member, joined } => {
            let what = if joined { "joined" } else { "left" };
            let subject = format!("{member} has {what} {list}");
            let mut text = begin(&request, &format!("<{member}>"), &subject);
            let _ = write!(text, "{member} has {what} the list {list}.\r\n");
            Some((vec![member], text))
        }
        ListAnswer::Ask {
            to,
            confirm,
            member,
            joins,
        } => {
            if to.is_empty() {
                return None;
            }
            let what = if joins { "join" } else { "leave" };
            let names: Vec<String> = to.iter().map(|one| format!("<{one}>")).collect();
            let subject = format!("Shall {member} {what} {list}?");
            let mut text = begin(&confirm, &names.join(",\r\n\t"), &subject);
            let _ = write!(
                text,
                "Somebody asks that {member} may {what} the list {list}.\r\n\r\n\
                 Answer this message within a week if that is right; what the answer says does not matter.\r\n\
                 If it is not, do nothing.\r\n"
            );
            Some((to, text))
        }
    }
}
