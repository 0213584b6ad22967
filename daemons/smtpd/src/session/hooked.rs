//! The stage `data`: filters see the message, and what they change is put into effect before it is committed.

use super::arrival::Arrival;
use super::hooks::away;
use super::spool::Spool;
use super::transaction::Transaction;
use super::{Session, data::Reply};
use crate::backend::Backend;
use ipc::api::authd::Resolution;
use ipc::api::hookd::{AddedRecipient, HookMessage, HookOutcome, HookRcpt, NewHeader, Verdict};
use ipc::{Fault, FaultKind};
use runtime::Source;
use smtp::Command;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use types::{Address, Body, Enhanced, Octets, Recipient, Route, Suspicion, TraceId, Treatment};

/// What comes of a message.
pub(super) enum Passed {
    /// It is committed so: the prefix and the body.
    On(Octets, Body),
    /// It is taken and thrown away, as this filter wants it.
    Away(String),
}

/// The fields of a prefix: ours alone, and those that filters see.
struct Prefix {
    received: Vec<u8>,
    suspicions: Vec<Suspicion>,
    shown: Vec<u8>,
}

impl Prefix {
    fn of(prefix: &[u8]) -> Self {
        let mut parts = Self {
            received: Vec::new(),
            suspicions: Vec::new(),
            shown: Vec::new(),
        };
        for (at, field) in message::Fields::new(prefix).enumerate() {
            if at == 0 {
                parts.received.extend_from_slice(field.raw);
            } else if is_suspicion(field.name) {
                let value = std::str::from_utf8(field.value).ok();
                parts.suspicions.extend(value.and_then(Suspicion::read));
            } else {
                parts.shown.extend_from_slice(field.raw);
            }
        }
        parts
    }

    /// Of the fields that filters saw, those that they have left as they were.
    fn keep(&mut self, left: &[u8]) {
        let left: Vec<&[u8]> = message::Fields::new(left).map(|field| field.raw).collect();
        let kept: Vec<u8> = message::Fields::new(&self.shown)
            .filter(|field| left.contains(&field.raw))
            .flat_map(|field| field.raw.iter().copied())
            .collect();
        self.shown = kept;
    }

    /// The prefix. Filters' fields stand before what we have shown them; but what claims to be from us stands behind what is.
    fn octets(self, before: &[u8], authserv_id: &str) -> Octets {
        let results = |field: &message::Field<'_>| {
            field.name.eq_ignore_ascii_case(b"authentication-results")
                && mailauth::claims(field.value, authserv_id)
        };
        let foreign = || message::Fields::new(before).filter(|field| !is_suspicion(field.name));
        let mut text = String::new();
        for suspicion in &self.suspicions {
            suspicion.write(&mut text);
        }
        let mut octets = self.received;
        octets.extend_from_slice(text.as_bytes());
        for field in foreign().filter(|field| !results(field)) {
            octets.extend_from_slice(field.raw);
        }
        octets.extend_from_slice(&self.shown);
        for field in foreign().filter(results) {
            octets.extend_from_slice(field.raw);
        }
        Octets(octets)
    }

    /// After recipients came and went: `moved` has the new number of each that was there.
    fn renumber(&mut self, moved: &[Option<u16>]) {
        for suspicion in &mut self.suspicions {
            if let Some(recipients) = &mut suspicion.recipients {
                let new = |old: &u16| moved.get(usize::from(*old)).copied().flatten();
                *recipients = recipients.iter().filter_map(new).collect();
            }
        }
        self.suspicions
            .retain(|one| one.recipients.as_ref().is_none_or(|list| !list.is_empty()));
    }
}

fn is_suspicion(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(Suspicion::FIELD.as_bytes())
}

fn later(trace: TraceId, what: &dyn std::fmt::Display) -> Reply {
    tracing::warn!(%trace, error = %what, "message not taken");
    let text = "Not possible at the moment, try again later";
    (451, Enhanced(4, 3, 0), text.to_owned())
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send, B: Backend> Session<S, B> {
    /// Shows the message to filters; `Err` is what the client is answered.
    pub(super) async fn hooks_message(
        &mut self,
        transaction: &mut Transaction,
        prefix: Octets,
        body: Body,
        arrival: &mut Arrival,
    ) -> Result<Passed, Reply> {
        if self.hooks.is_none() {
            return Ok(Passed::On(prefix, body));
        }
        Box::pin(self.ask_at_data(transaction, prefix, body, arrival)).await
    }

    async fn ask_at_data(
        &mut self,
        transaction: &mut Transaction,
        prefix: Octets,
        body: Body,
        arrival: &mut Arrival,
    ) -> Result<Passed, Reply> {
        let trace = transaction.trace;
        let Some(hooking) = &mut self.hooks else {
            return Ok(Passed::On(prefix, body));
        };
        if let Some(filter) = hooking.mail.discard.take() {
            return Ok(Passed::Away(filter));
        }
        let live = std::mem::take(&mut hooking.mail.live);
        let Some(session) = hooking.session.filter(|_| live) else {
            return match away(hooking.away) {
                None => Ok(Passed::On(prefix, body)),
                Some(refusal) => Err((refusal.code, refusal.enhanced, refusal.text)),
            };
        };
        let parts = Prefix::of(&prefix);
        let asked = self.hooks_show(session, trace, &parts.shown, body).await;
        let (outcome, descriptors, body, file) = match asked {
            Ok(asked) => asked,
            Err((fault, body)) => {
                return match self.hooks_lost(trace, &fault) {
                    Verdict::Refuse(refusal) => Err((refusal.code, refusal.enhanced, refusal.text)),
                    _ => Ok(Passed::On(prefix, body)),
                };
            }
        };
        match &outcome.verdict {
            Verdict::Go => {}
            Verdict::Discard(filter) => return Ok(Passed::Away(filter.clone())),
            Verdict::Refuse(refusal) => {
                tracing::info!(%trace, filter = refusal.filter, "refused by a filter");
                return Err((refusal.code, refusal.enhanced, refusal.text.clone()));
            }
        }
        self.hooks_apply(
            transaction,
            parts,
            body,
            file,
            outcome,
            descriptors,
            arrival,
        )
        .await
    }

    /// One question, with those recipients that filters do not know yet.
    #[allow(clippy::type_complexity, reason = "the body comes back with either")]
    async fn hooks_show(
        &mut self,
        session: u64,
        trace: TraceId,
        own: &[u8],
        body: Body,
    ) -> Result<(HookOutcome, Vec<OwnedFd>, Body, Option<Arc<File>>), (Fault, Body)> {
        let untold = match &mut self.hooks {
            Some(hooking) => std::mem::take(&mut hooking.mail.untold),
            None => Vec::new(),
        };
        for some in untold.chunks(HookRcpt::MAX) {
            let request = HookRcpt {
                session,
                recipients: some.to_vec(),
            };
            if let Err(fault) = self.hook_call(trace, &request).await {
                return Err((fault, body));
            }
        }
        let (mut descriptors, mut file) = (Vec::new(), None);
        let shown = match &body {
            Body::Slot { slot, len } => {
                let opened = match self.service.backend.read_spool(trace, *slot).await {
                    Ok(opened) => opened,
                    Err(fault) => return Err((fault, body)),
                };
                match opened.try_clone() {
                    Ok(other) => descriptors.push(OwnedFd::from(other)),
                    Err(error) => {
                        return Err((Fault::new(FaultKind::Temporary, error.to_string()), body));
                    }
                }
                file = Some(Arc::new(opened));
                Body::Attached { len: *len }
            }
            other => other.clone(),
        };
        let request = HookMessage {
            session,
            own: Octets(own.to_vec()),
            body: shown,
            most: self.service.policy.limits.message_bytes,
        };
        let limit = self.service.hooks.as_ref().map(|hooks| hooks.message);
        let call =
            self.service
                .backend
                .hook(trace, &request, descriptors, limit.unwrap_or_default());
        match call.await {
            Ok((outcome, descriptors)) => Ok((outcome, descriptors, body, file)),
            Err(fault) => Err((fault, body)),
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the message in its parts")]
    async fn hooks_apply(
        &mut self,
        transaction: &mut Transaction,
        mut parts: Prefix,
        body: Body,
        file: Option<Arc<File>>,
        outcome: HookOutcome,
        descriptors: Vec<OwnedFd>,
        arrival: &mut Arrival,
    ) -> Result<Passed, Reply> {
        let trace = transaction.trace;
        if let Some(sender) = &outcome.sender {
            match sender.as_str() {
                "" => transaction.sender = None,
                text => match text.parse() {
                    Ok(address) => transaction.sender = Some(address),
                    Err(error) => {
                        tracing::warn!(%trace, %error, "a filter wants a sender that is none");
                    }
                },
            }
        }
        if !outcome.removed.is_empty() || !outcome.added.is_empty() {
            let moved = self
                .hooks_recipients(transaction, &outcome.removed, outcome.added)
                .await?;
            parts.renumber(&moved);
            if transaction.recipients.is_empty() {
                return Ok(Passed::Away("hookd (no recipient is left)".to_owned()));
            }
        }
        if let Some((filter, reason)) = &outcome.quarantine {
            tracing::info!(%trace, filter, reason, "a filter wants it in Junk");
            // There is no Junk elsewhere; the operator may know better than that.
            if transaction.remote && outcome.held.is_none() {
                let text = "The message was refused by a filter".to_owned();
                return Err((550, Enhanced(5, 7, 1), text));
            }
            if !transaction.remote {
                self.service.figures.suspected(Treatment::Junk);
                parts.suspicions.push(Suspicion {
                    treatment: Treatment::Junk,
                    checks: format!("hook-{filter}"),
                    recipients: None,
                });
            }
        }
        if let Some(held) = outcome.held {
            tracing::info!(%trace, filter = held.by, reason = held.reason, "a filter wants it held");
            self.service.figures.held.add_one();
            transaction.held = Some(held);
        }
        let (before, whole) = match outcome.header {
            NewHeader::Same => (Vec::new(), None),
            NewHeader::Before(octets) => (octets.0, None),
            NewHeader::Whole { before, own, rest } => {
                parts.keep(&own);
                (before.0, Some(rest))
            }
        };
        let body = if whole.is_some() || outcome.body.is_some() {
            let old = Old {
                body,
                file,
                body_at: outcome.body_at,
            };
            let sources = old
                .sources(whole, outcome.body, descriptors)
                .map_err(|error| later(trace, &error))?;
            self.hooks_rewrite(trace, sources, arrival).await?
        } else {
            body
        };
        let prefix = parts.octets(&before, &self.service.policy.authserv_id);
        Ok(Passed::On(prefix, body))
    }

    /// Takes recipients out and puts others in, which are resolved as those of RCPT are. Returns where each that was there is now.
    async fn hooks_recipients(
        &mut self,
        transaction: &mut Transaction,
        removed: &[String],
        added: Vec<AddedRecipient>,
    ) -> Result<Vec<Option<u16>>, Reply> {
        let gone: Vec<Address> = removed
            .iter()
            .filter_map(|text| text.parse().ok())
            .collect();
        let mut moved = Vec::with_capacity(transaction.recipients.len());
        let mut next = 0_u16;
        transaction.recipients.retain(|recipient| {
            let stays = !gone.contains(&recipient.address);
            moved.push(stays.then_some(next));
            next = next.saturating_add(u16::from(stays));
            stays
        });
        for one in added {
            self.hooks_add(transaction, one).await?;
        }
        transaction.remote =
            (transaction.recipients.iter()).any(|recipient| recipient.route == Route::Remote);
        Ok(moved)
    }

    async fn hooks_add(
        &mut self,
        transaction: &mut Transaction,
        one: AddedRecipient,
    ) -> Result<(), Reply> {
        let trace = transaction.trace;
        let line = format!("RCPT TO:<{}> {}", one.address, one.parameters);
        let AddedRecipient {
            filter, address, ..
        } = &one;
        let rcpt = match Command::parse(line.trim_end().as_bytes()) {
            Ok(Command::Rcpt(rcpt)) => *rcpt,
            _ => {
                tracing::warn!(%trace, filter, address, "a filter adds a recipient that is none");
                return Ok(());
            }
        };
        let Some(to) = rcpt.address else {
            return Ok(());
        };
        let route = match self.service.backend.resolve(trace, &to).await {
            Ok(Resolution::Local(_)) => Route::Local,
            Ok(Resolution::Remote)
                if one.may_relay && (self.login.is_some() || self.may_relay()) =>
            {
                Route::Remote
            }
            Ok(resolution) => {
                tracing::warn!(%trace, filter, address, ?resolution, "a filter's recipient is left out");
                return Ok(());
            }
            Err(fault) => return Err(later(trace, &fault)),
        };
        let recipients = &mut transaction.recipients;
        if recipients.iter().any(|known| known.address == to)
            || recipients.len() >= usize::from(u16::MAX)
        {
            return Ok(());
        }
        transaction.smtputf8 |= to.needs_utf8();
        recipients.push(Recipient {
            address: to,
            orcpt: rcpt.parameters.orcpt,
            notify: rcpt.parameters.notify,
            route,
        });
        Ok(())
    }

    /// A message of these parts: in memory if it is small, else in a new file, which takes the old one's place.
    async fn hooks_rewrite(
        &mut self,
        trace: TraceId,
        sources: Vec<Source>,
        arrival: &mut Arrival,
    ) -> Result<Body, Reply> {
        let total: u64 = sources.iter().map(Source::len).sum();
        if total > self.service.policy.limits.message_bytes {
            let text = "The message is too large as filters have it".to_owned();
            return Err((552, Enhanced(5, 3, 4), text));
        }
        if usize::try_from(total).is_ok_and(|total| total <= Body::INLINE_MAX) {
            let mut whole = Vec::new();
            for source in &sources {
                let part = source.whole().await.map_err(|error| later(trace, &error))?;
                whole.extend_from_slice(&part);
            }
            self.give_spool_back(arrival, trace).await;
            return Ok(Body::Inline(Octets(whole)));
        }
        let opened = self.service.backend.open_spool(trace, total).await;
        let (slot, file) = opened.map_err(|fault| later(trace, &fault))?;
        let mut spool = Spool::new(slot, file);
        let copied = copy(&sources, &mut spool).await;
        self.give_spool_back(arrival, trace).await;
        let slot = spool.slot.slot;
        // From here on it is the one that is given back if the message is not committed.
        arrival.set_spool(spool);
        match copied {
            Ok(()) => Ok(Body::Slot { slot, len: total }),
            Err(error) => Err(later(trace, &error)),
        }
    }

    async fn give_spool_back(&self, arrival: &mut Arrival, trace: TraceId) {
        if let Some(mut spool) = arrival.take_spool() {
            let _ = spool.finish().await;
            self.service.backend.close_spool(trace, spool.slot).await;
        }
    }
}

/// The message as it came.
struct Old {
    body: Body,
    file: Option<Arc<File>>,
    body_at: u64,
}

impl Old {
    fn part(&self, from: u64, to: u64) -> io::Result<Source> {
        match (&self.body, &self.file) {
            (Body::Inline(octets), _) => {
                let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
                let part = octets.get(place(from)..place(to).min(octets.len()));
                Ok(part.unwrap_or_default().to_vec().into())
            }
            (_, Some(file)) => Ok(Source::File {
                file: Arc::clone(file),
                start: from,
                len: to.saturating_sub(from),
            }),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// The parts of the new one.
    fn sources(
        self,
        header: Option<Body>,
        text: Option<Body>,
        descriptors: Vec<OwnedFd>,
    ) -> io::Result<Vec<Source>> {
        let mut descriptors = descriptors.into_iter();
        let mut given = |body: Body| match body {
            Body::Inline(octets) => Ok(Source::from(octets.0)),
            Body::Attached { len } => {
                let descriptor = descriptors.next().ok_or(io::ErrorKind::NotFound)?;
                Ok(Source::File {
                    file: Arc::new(File::from(descriptor)),
                    start: 0,
                    len,
                })
            }
            Body::Slot { .. } => Err(io::Error::from(io::ErrorKind::InvalidData)),
        };
        let len = self.body.len();
        let mut sources = Vec::new();
        match header {
            Some(header) => {
                sources.push(given(header)?);
                sources.push(b"\r\n".to_vec().into());
            }
            None => {
                sources.push(self.part(0, self.body_at.min(len))?);
                if self.body_at >= len {
                    sources.push(b"\r\n".to_vec().into());
                }
            }
        }
        sources.push(match text {
            Some(text) => given(text)?,
            None => self.part(self.body_at.min(len), len)?,
        });
        Ok(sources)
    }
}

async fn copy(sources: &[Source], spool: &mut Spool) -> io::Result<()> {
    for source in sources {
        let mut at = 0;
        while at < source.len() {
            let piece = source.piece(at, Source::PIECE).await?;
            at += piece.len() as u64;
            spool.write(piece).await?;
        }
    }
    spool.finish().await.map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn suspicions_follow_their_recipients() {
        let prefix = b"Received: x\r\nAuthentication-Results: us; none\r\nX-Posthouse-Suspect: junk; checks=spf; recipients=1-2\r\nDate: y\r\n";
        let mut parts = Prefix::of(prefix);
        assert_eq!(
            parts.shown,
            b"Authentication-Results: us; none\r\nDate: y\r\n"
        );
        parts.renumber(&[None, Some(0), None]);
        let before = b"Authentication-Results: us; spf=pass\r\nX-A: 1\r\nX-Posthouse-Suspect: junk; checks=dmarc\r\n";
        assert_eq!(
            parts.octets(before, "us").0,
            b"Received: x\r\nX-Posthouse-Suspect: junk; checks=spf;\r\n\trecipients=0\r\nX-A: 1\r\nAuthentication-Results: us; none\r\nDate: y\r\nAuthentication-Results: us; spf=pass\r\n".to_vec()
        );
        let mut left = Prefix::of(prefix);
        left.keep(b"Date: y\r\nAuthentication-Results: us; spf=pass\r\n");
        assert_eq!(left.shown, b"Date: y\r\n");
        let mut gone = Prefix::of(prefix);
        gone.renumber(&[Some(0), None, None]);
        assert!(gone.suspicions.is_empty());
    }
}
