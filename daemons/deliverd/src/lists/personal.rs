//! Personal posts: each member gets a copy of their own, with a reverse-path and a way to leave that name them.
//!
//! A post becomes one message to `list-copies+PLACE@`, with the content that all copies have. Delivering that makes copies for the
//! next page of members, and one message more for those behind them. queued journals all of it together with the mark that
//! frees the message it came from: so each page is there once, and a post needs the memory of one page, however long the list is.

use super::footer::Letter;
use super::post::{mailto, part};
use super::{ListMail, bounce, done, dropped};
use crate::delivery::{Delivery, Directory, Plan, Store};
use ipc::api::authd::{ListCopies, MailingList, PersonalCopy};
use ipc::api::deliverd::{Copy, Deliver, FollowUp};
use ipc::{Fault, FaultKind};
use types::{Address, Octets, Outcome};

impl<D: Directory, S: Store> Delivery<D, S> {
    /// Who gets a post first: the one that the copies are made of, and the archive.
    pub(super) async fn beginning(
        &self,
        call: &Deliver,
        settings: &MailingList,
        list: &Address,
    ) -> Result<Vec<Address>, Fault> {
        if settings.members == 0 {
            return Ok(super::archive(settings).into_iter().collect());
        }
        let request = ListCopies {
            list: list.clone(),
            token: None,
        };
        let page = self.directory.list_copies(call.trace, request).await?;
        let place = page.and_then(|page| page.next).into_iter();
        Ok(place.chain(super::archive(settings)).collect())
    }

    /// The copies of the next members.
    pub(super) async fn copies(
        &self,
        call: &Deliver,
        mail: &ListMail,
        token: &str,
        plan: &mut Plan,
    ) -> Result<Outcome, Fault> {
        let list = &mail.address;
        if !is_of_a_post(&call.prefix, list) {
            return Ok(dropped(call, list, "it is not what became of a post"));
        }
        let request = ListCopies {
            list: list.clone(),
            token: Some(token.to_owned()),
        };
        let Some(page) = self.directory.list_copies(call.trace, request).await? else {
            return Ok(dropped(
                call,
                list,
                "there is no such list or place any more",
            ));
        };
        let count = page.copies.len();
        let copies = page.copies.into_iter().map(|one| self.copy(list, one));
        let rest = page.next.map(|place| Copy {
            to: place,
            sender: part(list, "bounces"),
            first: Octets::default(),
            remote: false,
        });
        let copies: Vec<Copy> = copies.chain(rest).collect();
        if copies.is_empty() {
            return Ok(done("all copies are made".to_owned()));
        }
        if plan.distributions.len() >= usize::from(ipc::MAX_DESCRIPTORS) {
            return Err(Fault::new(FaultKind::Temporary, "too many lists at once"));
        }
        let (file, octets) = super::attached(copies.as_slice(), &[])
            .map_err(|error| Fault::new(FaultKind::Temporary, error.to_string()))?;
        tracing::info!(id = %call.id, trace = %call.trace, %list, members = count, "copied");
        let prefix = match self.web {
            Some(_) => without_leaving(&call.prefix),
            None => call.prefix.to_vec(),
        };
        let follow_up = FollowUp::Copies {
            index: mail.index,
            prefix: prefix.into(),
            octets,
        };
        plan.distributions.push((follow_up, file));
        Ok(done(format!("copied for {count} members")))
    }

    fn copy(&self, list: &Address, one: PersonalCopy) -> Copy {
        // RFC 8058 3.1: one link, and that one click is enough; RFC 2369 3.2 has the other ways behind it.
        let first = self.web.as_ref().map_or_else(String::new, |host| {
            format!(
                "List-Unsubscribe: <https://{host}/unsubscribe/{}>,\r\n\t<{}>\r\n\
                 List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n",
                one.unsubscribe,
                mailto(&part(list, "unsubscribe"))
            )
        });
        Copy {
            to: one.member,
            sender: one.sender,
            first: first.into_bytes().into(),
            remote: one.remote,
        }
    }
}

/// Whether the prefix begins as that of a post of the list does. What comes from outside begins with smtpd's Received.
fn is_of_a_post(prefix: &[u8], list: &Address) -> bool {
    let mut fields = message::Fields::new(prefix);
    let mut next = |name: &str| {
        let field = fields.next()?;
        let named = field.name.eq_ignore_ascii_case(name.as_bytes());
        named.then(|| String::from_utf8_lossy(field.value).trim().to_owned())
    };
    let to = next("Delivered-To").and_then(|value| value.parse::<Address>().ok());
    to.is_some_and(|to| to.key() == list.key()) && next("List-Id").is_some()
}

/// A prefix without the way to leave that is the same for all.
fn without_leaving(prefix: &[u8]) -> Vec<u8> {
    let mut rest = Vec::with_capacity(prefix.len());
    let fields = message::Fields::new(prefix);
    for field in fields.filter(|field| !field.name.eq_ignore_ascii_case(b"list-unsubscribe")) {
        rest.extend_from_slice(field.raw);
    }
    rest
}

/// Whether a message from nobody says that the one it comes back for will not get it. Many hosts say so in words of their own, and
/// without the names of RFC 3464: that it came to this address is enough. Delays, receipts and absences are not failures.
pub(super) fn is_failure(octets: &[u8]) -> bool {
    if let Some(failed) = bounce::any_failed(octets) {
        return failed;
    }
    let letter = Letter::of(octets);
    let word = |name: &str| {
        let value = letter.field(name).unwrap_or_default();
        String::from_utf8_lossy(value).trim().to_ascii_lowercase()
    };
    let kind = word("Content-Type");
    if kind.starts_with("multipart/report") {
        return kind.contains("delivery-status");
    }
    let answer = word("Auto-Submitted").starts_with("auto-replied")
        || word("Precedence") == "auto_reply"
        || letter.field("X-Autoreply").is_some();
    letter.field("X-Failed-Recipients").is_some() || !answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_from_other_mail_of_nobody() {
        let status = |action: &str, code: &str| {
            format!(
                "Content-Type: multipart/report; report-type=delivery-status; boundary=x\r\nAuto-Submitted: auto-replied\r\n\r\n--x\r\n\
                 Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; a\r\n\r\nAction: {action}\r\nStatus: {code}\r\n\r\n--x--\r\n"
            )
        };
        for (text, wanted) in [
            (status("failed", "5.1.1"), true),
            (status("delayed", "4.4.1"), false),
            (status("delivered", "2.0.0"), false),
            (
                "Subject: failure notice\r\n\r\nHi. This is the program.\r\n".to_owned(),
                true,
            ),
            ("Auto-Submitted: auto-replied\r\nX-Failed-Recipients: a@b.example\r\n\r\nx".to_owned(), true),
            ("Content-Type: multipart/report; report-type=\"delivery-status\"; boundary=x\r\n\r\nx".to_owned(), true),
            ("Content-Type: multipart/report; report-type=disposition-notification\r\n\r\nx".to_owned(), false),
            ("Subject: I am away\r\nAuto-Submitted: auto-replied (vacation)\r\n\r\nx".to_owned(), false),
            ("Precedence: auto_reply\r\n\r\nx".to_owned(), false),
        ] {
            assert_eq!(is_failure(text.as_bytes()), wanted, "{text}");
        }
    }

    #[test]
    fn only_a_post_goes_on() -> Result<(), Box<dyn std::error::Error>> {
        let list: Address = "all@x.example".parse()?;
        let of = |prefix: &str| is_of_a_post(prefix.as_bytes(), &list);
        assert!(of(
            "Delivered-To: ALL@x.example\r\nList-Id: <all.x.example>\r\nReceived: x\r\n"
        ));
        assert!(!of(
            "Received: x\r\nDelivered-To: all@x.example\r\nList-Id: <all.x.example>\r\n"
        ));
        assert!(!of(
            "Delivered-To: b@x.example\r\nDelivered-To: all@x.example\r\nList-Id: <all.x.example>\r\n"
        ));
        assert!(!of("Delivered-To: all@x.example\r\n"));
        let rest = without_leaving(b"A: b\r\nList-unsubscribe: <x>,\r\n\t<y>\r\nReceived: z\r\n");
        assert_eq!(rest, b"A: b\r\nReceived: z\r\n");
        Ok(())
    }
}
