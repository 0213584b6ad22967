//! MAIL and RCPT: who may send what to whom.

use super::transaction::Transaction;
use super::{End, Session};
use crate::backend::Backend;
use crate::config::ListenerRole;
use crate::trace_header::now;
use ipc::api::authd::Resolution;
use smtp::{Mail, Rcpt};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use types::{Address, Enhanced, Route, TraceId};

/// A refusal: code, enhanced code, text.
type Refusal = (u16, Enhanced, &'static str);

impl<S: AsyncRead + AsyncWrite + Unpin + Send, B: Backend> Session<S, B> {
    pub(super) async fn mail(&mut self, mail: Mail) -> Result<(), End> {
        let limits = &self.service.policy.limits;
        if self.counters.messages >= limits.messages_per_session.max(1) {
            let text = "Enough messages for one session; reconnect";
            return self.abuse(Enhanced(4, 5, 0), text);
        }
        if let Some((code, enhanced, text)) = self.refuse_mail(&mail) {
            self.reply(code, Some(enhanced), text);
            return Ok(());
        }
        let terms = match self.terms(&mail.parameters, now()) {
            Ok(terms) => terms,
            Err((code, enhanced, text)) => {
                self.reply(code, Some(enhanced), text);
                return Ok(());
            }
        };
        let asked = mail.parameters.priority;
        let mut transaction = Transaction::new(mail, terms);
        self.rewrite_sender(&mut transaction);
        if let Some(login) = &self.login
            && let Some(sender) = &transaction.sender
        {
            let account = login.grant.account;
            let allowed = self
                .service
                .backend
                .may_send(transaction.trace, account, sender);
            match allowed.await {
                Ok(true) => {}
                Ok(false) => {
                    let text =
                        format!("You may not send as {sender}: it is not an address of yours");
                    self.reply(553, Some(Enhanced(5, 7, 1)), &text);
                    return Ok(());
                }
                Err(fault) => {
                    tracing::warn!(trace = %transaction.trace, %fault, "sender not checked");
                    self.later();
                    return Ok(());
                }
            }
        }
        if self.look_up_mail(&transaction).await
            || self.weigh_mail(&transaction).await
            || !self.hooks_mail(&transaction).await?
        {
            return Ok(());
        }
        match (asked, terms.priority) {
            (Some(asked), Some(granted)) if asked != granted => {
                // RFC 6710 7: X.3.6, the priority that counts first
                let text = format!("{granted} is the priority that the message gets");
                self.reply(250, Some(Enhanced(2, 3, 6)), &text);
            }
            (_, Some(granted)) => {
                let text = format!("Sender OK, priority {granted}");
                self.reply(250, Some(Enhanced(2, 1, 0)), &text);
            }
            _ => self.reply(250, Some(Enhanced(2, 1, 0)), "Sender OK"),
        }
        self.begin(transaction);
        Ok(())
    }

    fn refuse_mail(&self, mail: &Mail) -> Option<Refusal> {
        let parameters = &mail.parameters;
        let Some(hello) = &self.hello else {
            let text = match self.door.role {
                ListenerRole::Lmtp => "Say LHLO first",
                _ => "Say EHLO first",
            };
            return Some((503, Enhanced(5, 5, 1), text));
        };
        if self.transaction.is_some() {
            return Some((
                503,
                Enhanced(5, 5, 1),
                "There is a sender already; RSET begins anew",
            ));
        }
        if self.door.role == ListenerRole::Submission {
            match &self.login {
                None if self.mechanisms().is_empty() => {
                    // RFC 4954 6, RFC 3207 4
                    return Some((530, Enhanced(5, 7, 0), "Say STARTTLS first, then log in"));
                }
                // RFC 6409 4.3
                None => return Some((530, Enhanced(5, 7, 0), "Log in first")),
                Some(login) if login.grant.expires <= now() => {
                    return Some((530, Enhanced(5, 7, 0), "The login has expired; reconnect"));
                }
                Some(_) => {}
            }
        }
        if parameters.any && !hello.extended {
            return Some((555, Enhanced(5, 5, 4), "Parameters need EHLO"));
        }
        if mail.utf8 && !parameters.smtputf8 {
            // RFC 6531 3.5
            return Some((553, Enhanced(5, 6, 7), "This address needs SMTPUTF8"));
        }
        if parameters.require_tls && self.secured.is_none() {
            return Some((
                530,
                Enhanced(5, 7, 10),
                "REQUIRETLS needs TLS: say STARTTLS first",
            ));
        }
        let max = self.service.policy.limits.message_bytes;
        if parameters.size.is_some_and(|size| size > max) {
            // RFC 1870 6.1
            return Some((
                552,
                Enhanced(5, 3, 4),
                "The message is too large; EHLO tells the limit",
            ));
        }
        None
    }

    pub(super) async fn rcpt(&mut self, rcpt: Rcpt) -> Result<(), End> {
        let Some(transaction) = self.transaction.as_deref() else {
            self.reply(503, Some(Enhanced(5, 5, 1)), "Say MAIL first");
            return Ok(());
        };
        let policy = &self.service.policy;
        let extended = self.hello.as_ref().is_some_and(|hello| hello.extended);
        let refusal: Option<Refusal> = if transaction.arrival.is_some() || transaction.spoiled {
            Some((
                503,
                Enhanced(5, 5, 1),
                "Not between chunks; RSET begins anew",
            ))
        } else if rcpt.parameters.any && !extended {
            Some((555, Enhanced(5, 5, 4), "Parameters need EHLO"))
        } else if rcpt.utf8 && !transaction.smtputf8 {
            Some((
                553,
                Enhanced(5, 6, 7),
                "This address needs SMTPUTF8 at MAIL",
            ))
        } else if transaction.accepted >= policy.limits.recipients.clamp(1, 65_535) {
            // RFC 5321 4.5.3.1.10
            Some((
                452,
                Enhanced(4, 5, 3),
                "Too many recipients; send to the rest in another message",
            ))
        } else {
            None
        };
        if let Some((code, enhanced, text)) = refusal {
            self.reply(code, Some(enhanced), text);
            return Ok(());
        }
        let trace = transaction.trace;
        let address = match &rcpt.address {
            Some(address) => address.clone(),
            None => policy.postmaster.clone(),
        };
        let address = self.rewrite_recipient(trace, address);
        let now = Instant::now();
        if self.service.confirmed.contains(&address, now) {
            return self.admit(address, rcpt, Route::Local).await;
        }
        match self.service.backend.resolve(trace, &address).await {
            Ok(Resolution::Local(_)) => {
                self.service.confirmed.insert(address.clone(), now);
                self.admit(address, rcpt, Route::Local).await?;
            }
            Ok(Resolution::Remote) if self.login.is_some() || self.may_relay() => {
                self.admit(address, rcpt, Route::Remote).await?;
            }
            Ok(Resolution::Remote) => self.relaying_denied(trace, &address),
            Ok(Resolution::Unknown) => self.unknown(trace, &address).await?,
            Ok(Resolution::Disabled) => {
                let text = format!("{address} takes no mail at present");
                self.reply(550, Some(Enhanced(5, 2, 1)), &text);
            }
            Ok(Resolution::Refused(status)) => {
                tracing::info!(%trace, client = %self.client(), %address, %status, "recipient refused");
                self.reply(status.code, Some(status.enhanced), &status.text);
            }
            Err(fault) => {
                tracing::warn!(%trace, %address, %fault, "recipient not checked");
                self.later();
            }
        }
        Ok(())
    }

    pub(super) fn may_relay(&self) -> bool {
        self.peer.may_relay && self.door.role == ListenerRole::Mx
    }

    pub(super) async fn accept(
        &mut self,
        address: Address,
        rcpt: Rcpt,
        route: Route,
    ) -> Result<(), End> {
        if !self.hooks_rcpt(&address, route).await? {
            return Ok(());
        }
        if let Some(transaction) = &mut self.transaction {
            transaction.add(address, rcpt, route);
        }
        self.counters.idle = self.counters.idle.saturating_sub(1);
        self.reply(250, Some(Enhanced(2, 1, 5)), "Recipient OK");
        Ok(())
    }

    fn relaying_denied(&mut self, trace: TraceId, address: &Address) {
        self.service.figures.relaying.add_one();
        tracing::info!(%trace, client = %self.client(), %address, "relaying denied");
        let text = format!(
            "Relaying denied: {} is not a domain of ours. Our users log in on the submission port",
            address.domain()
        );
        self.reply(550, Some(Enhanced(5, 7, 1)), &text);
    }

    /// Answers an unknown recipient, and slows those down who guess.
    async fn unknown(&mut self, trace: TraceId, address: &Address) -> Result<(), End> {
        let limits = self.service.policy.limits.clone();
        self.counters.unknown += 1;
        self.service.figures.unknown.add_one();
        let of_address = self
            .seat
            .as_ref()
            .map_or(0, |seat| seat.guessed(Instant::now()));
        tracing::info!(%trace, client = %self.client(), %address, "no such recipient");
        if self.counters.unknown > limits.unknown_before_delay {
            let delay = Duration::from_millis(limits.unknown_delay_ms.min(60_000));
            tokio::time::sleep(delay).await;
        }
        let text = format!("{address}: no such address here");
        self.reply(550, Some(Enhanced(5, 1, 1)), &text);
        self.weigh_unknown(address).await?;
        let crowded = limits.unknown_per_address > 0 && of_address >= limits.unknown_per_address;
        if self.counters.unknown >= limits.unknown_per_session.max(1) || crowded {
            return self.abuse(Enhanced(4, 7, 0), "Too many unknown recipients");
        }
        Ok(())
    }

    /// Something behind us is away: the client's queue keeps the mail.
    pub(super) fn later(&mut self) {
        let text = "Not possible at the moment, try again later";
        self.reply(451, Some(Enhanced(4, 3, 0)), text);
    }
}
