//! A mail transaction: from MAIL to the answer after the message.

use super::arrival::Arrival;
use ipc::api::limitd::Identity;
use smtp::{Mail, Rcpt};
use std::sync::OnceLock;
use types::{Address, BodyType, Envelope, Held, Recipient, Ret, Route, Suspicion, Terms, TraceId};

/// What MAIL and RCPT said, and the message as far as it came.
pub(crate) struct Transaction {
    pub(crate) trace: TraceId,
    pub(crate) sender: Option<Address>,
    /// What MAIL said, if a rule made another sender of it.
    pub(crate) claimed: Option<Box<Address>>,
    pub(crate) ret: Option<Ret>,
    pub(crate) envid: Option<String>,
    pub(crate) body: BodyType,
    pub(crate) smtputf8: bool,
    pub(crate) require_tls: bool,
    pub(crate) declared: Option<u64>,
    pub(crate) terms: Terms,
    /// The priority that the client asked for is not the one that it got.
    pub(crate) priority_changed: bool,
    pub(crate) recipients: Vec<Recipient>,
    /// RCPTs that were accepted, repeated ones included: LMTP answers each (RFC 2033 4.2).
    pub(crate) accepted: usize,
    /// What RCPT said first, if a rule made another recipient of it.
    pub(crate) asked: Option<Box<Address>>,
    /// A recipient is elsewhere.
    pub(crate) remote: bool,
    /// What BDAT brought so far (RFC 3030).
    pub(crate) arrival: Option<Box<Arrival>>,
    /// A chunk was refused: the rest of the message is too.
    pub(crate) spoiled: bool,
    /// What lists in DNS make of it.
    pub(crate) suspicion: Option<Suspicion>,
    /// The filter that wants it held in the queue, and why.
    pub(crate) held: Option<Held>,
    /// Who the client is in DNS, if somebody wanted to know.
    pub(crate) identity: OnceLock<Identity>,
}

impl Transaction {
    pub(crate) fn new(mail: Mail, terms: Terms) -> Self {
        let parameters = mail.parameters;
        Self {
            trace: TraceId(rand::random()),
            sender: mail.sender,
            claimed: None,
            ret: parameters.ret,
            envid: parameters.envid,
            body: parameters.body,
            smtputf8: parameters.smtputf8,
            require_tls: parameters.require_tls,
            declared: parameters.size,
            terms,
            priority_changed: parameters.priority != terms.priority,
            recipients: Vec::new(),
            accepted: 0,
            asked: None,
            remote: false,
            arrival: None,
            spoiled: false,
            suspicion: None,
            held: None,
            identity: OnceLock::new(),
        }
    }

    /// Adds a recipient; one that is there already is not added again.
    pub(crate) fn add(&mut self, address: Address, rcpt: Rcpt, route: Route) {
        self.accepted += 1;
        self.remote |= route == Route::Remote;
        // Few have many recipients, and those are compared once each.
        if self.recipients.iter().any(|known| known.address == address) {
            return;
        }
        let asked = rcpt.address.filter(|asked| *asked != address);
        let orcpt = rcpt.parameters.orcpt.or_else(|| {
            // RFC 3461 4.2, RFC 6533 3: whom the client meant, where we changed that
            asked.as_ref().map(|asked| {
                let kind = if asked.needs_utf8() {
                    "utf-8"
                } else {
                    "rfc822"
                };
                format!("{kind};{asked}")
            })
        });
        if self.recipients.is_empty() {
            self.asked = asked.map(Box::new);
        }
        self.recipients.push(Recipient {
            address,
            orcpt,
            notify: rcpt.parameters.notify,
            route,
        });
    }

    /// The sender as the client gave it: what the checks of it are about.
    pub(crate) fn claimed_sender(&self) -> Option<&Address> {
        self.claimed.as_deref().or(self.sender.as_ref())
    }

    /// The envelope; the transaction is done with it.
    pub(crate) fn take_envelope(&mut self) -> Envelope {
        Envelope {
            sender: self.sender.take(),
            ret: self.ret.take(),
            envid: self.envid.take(),
            body: self.body,
            smtputf8: self.smtputf8,
            require_tls: self.require_tls,
            recipients: std::mem::take(&mut self.recipients),
            terms: self.terms,
        }
    }
}
