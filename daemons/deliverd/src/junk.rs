//! Mail that the checks of its arrival found suspicious: to Junk instead of INBOX, unless a script says where.

use crate::delivery::{Delivery, Directory, Plan, Store};
use ipc::api::deliverd::Deliver;
use types::{AccountId, Suspicion, Treatment};

/// The mailbox, where no other has its use.
const JUNK: &str = "Junk";

/// RFC 6154 2
const JUNK_USE: &str = "\\Junk";

impl<D: Directory, S: Store> Delivery<D, S> {
    /// Turns the copies for recipients for whom the message is junk to that mailbox, which is made if it is not there. A copy
    /// that is also for somebody else stays where it would go.
    pub(crate) async fn file_as_junk(&self, call: &Deliver, plan: &mut Plan) {
        let Some(suspicion) = found(&call.prefix) else {
            return;
        };
        for copy in &mut plan.copies {
            if !copy
                .for_recipients
                .iter()
                .all(|index| suspicion.concerns(*index))
            {
                continue;
            }
            copy.target.mailbox = self.junk_of(copy.target.account).await;
            copy.target.create = true;
            // The account gets one, by however many addresses.
            copy.target.recipient = u16::MAX;
        }
    }

    async fn junk_of(&self, account: AccountId) -> String {
        let Some(scripts) = &self.scripts else {
            return JUNK.to_owned();
        };
        let place = scripts.place(account, JUNK.to_owned(), None, Some(JUNK_USE));
        place.await.unwrap_or_else(|fault| {
            tracing::warn!(%account, %fault, "the mailbox for junk is taken by its name");
            JUNK.to_owned()
        })
    }
}

/// What smtpd wrote into the prefix, where nobody else can write. Behind a Delivered-To field it is about the envelope with which
/// the message came first, and holds only if it was about all recipients of that.
fn found(prefix: &[u8]) -> Option<Suspicion> {
    let mut forwarded = false;
    for field in message::Fields::new(prefix) {
        forwarded |= field.name.eq_ignore_ascii_case(b"delivered-to");
        if !field.name.eq_ignore_ascii_case(Suspicion::FIELD.as_bytes()) {
            continue;
        }
        let suspicion = std::str::from_utf8(field.value)
            .ok()
            .and_then(Suspicion::read);
        let Some(suspicion) = suspicion else { continue };
        let foreign = forwarded && suspicion.recipients.is_some();
        if suspicion.treatment == Treatment::Junk && !foreign {
            return Some(suspicion);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_what_is_junk_for_this_envelope() {
        let is = |prefix: &str| found(prefix.as_bytes()).is_some();
        assert!(!is("Received: x\r\n"));
        assert!(is(
            "Received: x\r\nX-Posthouse-Suspect: junk; checks=dmarc\r\n"
        ));
        assert!(!is("X-Posthouse-Suspect: tag; checks=dmarc\r\n"));
        assert!(is(
            "X-Posthouse-Suspect: tag; checks=spf;\r\n\trecipients=1\r\nX-Posthouse-Suspect: junk; checks=dmarc;\r\n\trecipients=0\r\n"
        ));
        assert!(is(
            "Delivered-To: a@x.example\r\nX-Posthouse-Suspect: junk; checks=dmarc\r\n"
        ));
        assert!(!is(
            "Delivered-To: a@x.example\r\nX-Posthouse-Suspect: junk; checks=dmarc; recipients=0\r\n"
        ));
        // In the body it is a stranger's.
        assert!(!is(
            "Received: x\r\n\r\nX-Posthouse-Suspect: junk; checks=dmarc\r\n"
        ));
    }
}
