//! DATA and BDAT: the message comes, and is handed to queued.

use super::arrival::Arrival;
use super::hooked::Passed;
use super::pace::Pace;
use super::spool::Spool;
use super::transaction::Transaction;
use super::{End, Session, input};
use crate::backend::Backend;
use crate::checks::{Decision, Letter};
use crate::config::{LineEndingPolicy, ListenerRole, Timeouts};
use crate::header::{Header, Removal, from_addresses};
use crate::trace_header::{Received, With, now, push_date};
use ipc::api::queued::{Commit, Origin, Right};
use ipc::{Fault, FaultKind};
use smtp::{DataDecoder, Newlines};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite};
use types::{BodyType, Enhanced, Octets, QueueId, TraceId};

/// A reply: code, enhanced code, text.
pub(super) type Reply = (u16, Enhanced, String);

impl<S: AsyncRead + AsyncWrite + Unpin + Send, B: Backend> Session<S, B> {
    pub(super) async fn data(&mut self) -> Result<(), End> {
        let refusal = match self.transaction.as_deref() {
            None => Some((503, Enhanced(5, 5, 1), "Say MAIL first")),
            // RFC 3030 3
            Some(transaction) if transaction.body == BodyType::Binary => {
                Some((503, Enhanced(5, 5, 1), "BINARYMIME needs BDAT"))
            }
            Some(transaction) if transaction.arrival.is_some() || transaction.spoiled => Some((
                503,
                Enhanced(5, 5, 1),
                "Not between chunks; RSET begins anew",
            )),
            // RFC 5321 3.3
            Some(transaction) if transaction.recipients.is_empty() => {
                Some((554, Enhanced(5, 5, 1), "No valid recipients"))
            }
            Some(_) => None,
        };
        if let Some((code, enhanced, text)) = refusal {
            self.reply(code, Some(enhanced), text);
            return Ok(());
        }
        self.reply(354, None, "End the message with a line that has only a dot");
        self.flush().await?;
        let mut arrival = self.new_arrival();
        let newlines = match self.service.policy.line_endings {
            LineEndingPolicy::Refuse => Newlines::Refuse,
            LineEndingPolicy::Repair => Newlines::Repair,
        };
        let mut decoder = DataDecoder::new(newlines);
        let mut spare = self.pace();
        let mut trouble = None;
        loop {
            let progress = decoder.decode(self.input.unread(), &mut |octets| arrival.push(octets));
            self.input.consume(progress.consumed);
            if arrival.has_piece() && trouble.is_none() {
                trouble = self.spill(&mut arrival, false).await.err();
                if trouble.is_some() {
                    arrival.give_up();
                }
            }
            if progress.done {
                break;
            }
            if let Err(end) = self.fill_message(Some(&mut arrival), &mut spare).await {
                let trace = self.trace;
                self.discard(arrival, trace).await;
                return Err(end);
            }
        }
        let verdict = match trouble {
            Some(reply) => Err(reply),
            None => self.judge(&arrival, decoder.stray(), decoder.longest_line()),
        };
        self.conclude(arrival, verdict).await
    }

    /// RFC 3030 2
    pub(super) async fn bdat(&mut self, size: u64, last: bool) -> Result<(), End> {
        // Many small chunks must not take longer than one.
        if let Some(arrival) = self.transaction.as_mut().and_then(|t| t.arrival.as_mut())
            && arrival.is_slow(Instant::now())
        {
            return self.too_slow();
        }
        let fits = self
            .transaction
            .as_deref()
            .is_some_and(|t| !t.recipients.is_empty() && !t.spoiled);
        let mut arrival = self
            .transaction
            .as_mut()
            .and_then(|t| t.arrival.take())
            .map(|arrival| *arrival);
        if fits && arrival.is_none() {
            arrival = Some(self.new_arrival());
        }
        let binary = self
            .transaction
            .as_deref()
            .is_some_and(|t| t.body == BodyType::Binary);
        let repaired = !binary && self.service.policy.line_endings == LineEndingPolicy::Repair;
        let mut trouble = None;
        let mut spare = self.pace();
        let mut left = size;
        // The octets come whatever we think of them.
        while left > 0 {
            let there = self.input.unread();
            let count = there.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            if let Some(arrival) = &mut arrival {
                let octets = there.get(..count).unwrap_or_default();
                if !binary {
                    arrival.endings.feed(octets);
                }
                if repaired {
                    arrival.push_repaired(octets);
                } else {
                    arrival.push(octets);
                }
            }
            self.input.consume(count);
            left -= count as u64;
            if let Some(arrival) = &mut arrival
                && arrival.has_piece()
                && trouble.is_none()
            {
                trouble = self.spill(arrival, false).await.err();
                if trouble.is_some() {
                    arrival.give_up();
                }
            }
            if left > 0
                && let Err(end) = self.fill_message(arrival.as_mut(), &mut spare).await
            {
                if let Some(arrival) = arrival {
                    let trace = self.trace;
                    self.discard(arrival, trace).await;
                }
                return Err(end);
            }
        }
        let Some(mut arrival) = arrival else {
            let text = match self.transaction.as_deref() {
                None => "Say MAIL first",
                Some(transaction) if transaction.spoiled => {
                    "An earlier chunk was refused; RSET begins anew"
                }
                Some(_) => "No valid recipients",
            };
            if let Some(transaction) = &mut self.transaction {
                transaction.spoiled = true;
            }
            self.reply(503, Some(Enhanced(5, 5, 1)), text);
            return Ok(());
        };
        if last && repaired {
            arrival.end_repair();
        }
        let verdict = match trouble {
            Some(reply) => Err(reply),
            None if !last => Ok(()),
            None => self.judge(
                &arrival,
                arrival.endings.stray(),
                arrival.endings.longest_line(),
            ),
        };
        if last {
            return self.conclude(arrival, verdict).await;
        }
        if arrival.too_large() || verdict.is_err() {
            let trace = self.trace;
            let (code, enhanced, text) = verdict.err().unwrap_or_else(too_large);
            self.discard(arrival, trace).await;
            if let Some(transaction) = &mut self.transaction {
                transaction.spoiled = true;
            }
            self.reply(code, Some(enhanced), &text);
            return Ok(());
        }
        let text = format!("{size} octets received");
        if let Some(transaction) = &mut self.transaction {
            transaction.arrival = Some(Box::new(arrival));
        }
        self.reply(250, Some(Enhanced(2, 0, 0)), &text);
        Ok(())
    }

    fn new_arrival(&self) -> Arrival {
        let policy = &self.service.policy;
        let stranger = match self.door.role {
            ListenerRole::Mx => !self.peer.trusted && !self.peer.may_relay,
            ListenerRole::Submission => true,
            ListenerRole::Lmtp => false,
        };
        let removal = Removal {
            bcc: self.door.role == ListenerRole::Submission,
            claims: stranger.then(|| policy.authserv_id.clone()),
        };
        let judged = stranger && policy.checks.is_some() && self.door.role == ListenerRole::Mx;
        let masquerade = self.masquerade();
        let limit = policy.limits.message_bytes;
        Arrival::new(removal, limit, judged, masquerade, self.pace())
    }

    fn pace(&self) -> Pace {
        Pace::new(&self.service.policy.timeouts, Instant::now())
    }

    /// Reads on in a message, or in what nobody keeps, which has `spare`: small messages are not worth a large buffer.
    async fn fill_message(
        &mut self,
        arrival: Option<&mut Arrival>,
        spare: &mut Pace,
    ) -> Result<usize, End> {
        let now = Instant::now();
        let (received, left, slow) = match arrival {
            Some(arrival) => (
                arrival.received(),
                arrival.pace.left(now),
                arrival.is_slow(now),
            ),
            None => (0, spare.left(now), spare.is_over(now)),
        };
        if slow {
            return self.too_slow();
        }
        let limit = Timeouts::of(self.service.policy.timeouts.data_s).min(left);
        let size = if received == 0 {
            input::COMMANDS
        } else {
            input::MESSAGE
        };
        self.fill(limit, size, false).await
    }

    fn too_slow<T>(&mut self) -> Result<T, End> {
        self.service.figures.slow.add_one();
        self.reply(
            421,
            Some(Enhanced(4, 4, 2)),
            "Too slow, closing the connection",
        );
        Err(End::Said("too slow"))
    }

    /// Moves what has come into queued's file, which is opened when it is first needed.
    /// `whole`: nothing more comes.
    async fn spill(&mut self, arrival: &mut Arrival, whole: bool) -> Result<(), Reply> {
        let trace = self
            .transaction
            .as_deref()
            .map_or(self.trace, |transaction| transaction.trace);
        match arrival.header_so_far() {
            (len, false) if len > self.service.policy.limits.header_bytes => {
                return Err(header_too_large());
            }
            // It is looked at as a whole.
            (_, false) if !whole => return Ok(()),
            _ => {}
        }
        if arrival.needs_spool() {
            let expected = self
                .transaction
                .as_deref()
                .and_then(|t| t.declared)
                .unwrap_or(0);
            match self.service.backend.open_spool(trace, expected).await {
                Ok((slot, file)) => arrival.set_spool(Spool::new(slot, file)),
                Err(fault) => return Err(refusal(trace, &fault)),
            }
        }
        arrival.spill().await.map_err(|error| {
            tracing::error!(%trace, %error, "the spool file cannot be written");
            no_room()
        })
    }

    /// Whether the message as a whole is acceptable in form.
    fn judge(&self, arrival: &Arrival, stray: bool, longest: u64) -> Result<(), Reply> {
        let policy = &self.service.policy;
        if arrival.too_large() {
            return Err(too_large());
        }
        if arrival.header_so_far().0 > policy.limits.header_bytes {
            return Err(header_too_large());
        }
        if stray && policy.line_endings == LineEndingPolicy::Refuse {
            let text =
                "The message has a CR or LF that is not part of a CRLF; lines must end in CRLF";
            return Err((550, Enhanced(5, 6, 11), text.to_owned()));
        }
        if policy.limits.body_line > 0 && longest > policy.limits.body_line {
            let text = format!(
                "The message has a line of {longest} octets; {} are allowed",
                policy.limits.body_line
            );
            return Err((550, Enhanced(5, 6, 0), text));
        }
        Ok(())
    }

    /// Hands the message over, or drops it; answers; and the transaction is over.
    async fn conclude(&mut self, arrival: Arrival, verdict: Result<(), Reply>) -> Result<(), End> {
        let Some(transaction) = self.transaction.take() else {
            return Err(End::Gone("no transaction"));
        };
        let answers = if self.door.role == ListenerRole::Lmtp {
            transaction.accepted.max(1)
        } else {
            1
        };
        let trace = transaction.trace;
        let reply = match verdict {
            Ok(()) => self.hand_over(*transaction, arrival).await,
            Err(reply) => {
                self.discard(arrival, trace).await;
                reply
            }
        };
        let (code, enhanced, text) = reply;
        if code == 250 {
            self.counters.messages += 1;
            self.counters.idle = 0;
            self.service.figures.accepted.add_one();
        } else {
            let figures = &self.service.figures;
            if code < 500 {
                figures.postponed.add_one();
            } else {
                figures.refused.add_one();
            }
            tracing::info!(%trace, client = %self.client(), code, text, "message refused");
        }
        // RFC 2033 4.2: one answer for each recipient
        for _ in 0..answers {
            self.reply(code, Some(enhanced), &text);
        }
        Ok(())
    }

    async fn hand_over(&mut self, transaction: Transaction, mut arrival: Arrival) -> Reply {
        let trace = transaction.trace;
        if arrival.needs_spool()
            && let Err(reply) = self.spill(&mut arrival, true).await
        {
            self.discard(arrival, trace).await;
            return reply;
        }
        let (header, from) = arrival.header();
        if header.received > self.service.policy.limits.received {
            self.discard(arrival, trace).await;
            // RFC 5321 6.3
            return (
                554,
                Enhanced(5, 4, 6),
                "Too many hops: the message runs in a circle".to_owned(),
            );
        }
        if let Err(reply) = self
            .check_from(trace, transaction.sender.is_some(), &from)
            .await
        {
            self.discard(arrival, trace).await;
            return reply;
        }
        let mut found = match self.check_sender(&transaction, &mut arrival).await {
            Ok(found) => found,
            Err(reply) => {
                self.discard(arrival, trace).await;
                return reply;
            }
        };
        if let Some(suspicion) = &transaction.suspicion {
            self.service.figures.suspected(suspicion.treatment);
            // The first that says Junk counts, and this one is about all recipients.
            let mut fields = String::new();
            suspicion.write(&mut fields);
            found.insert_str(0, &fields);
        }
        let weighed = match self.weigh_message(&transaction, arrival.received()).await {
            Ok(weighed) => weighed,
            Err(reply) => {
                self.discard(arrival, trace).await;
                return reply;
            }
        };
        let lacks_from = from.is_empty();
        let reply = self
            .commit(transaction, arrival, &header, lacks_from, &found)
            .await;
        if reply.0 != 250 {
            self.give_back(trace, weighed).await;
        }
        reply
    }

    /// Makes it queued's.
    async fn commit(
        &mut self,
        mut transaction: Transaction,
        mut arrival: Arrival,
        header: &Header,
        lacks_from: bool,
        found: &str,
    ) -> Reply {
        let trace = transaction.trace;
        let id = match self.reserved_id() {
            Some(id) => Ok(id),
            None => self.service.backend.queue_id(trace).await,
        };
        let id = match id {
            Ok(id) => id,
            Err(fault) => {
                self.discard(arrival, trace).await;
                return refusal(trace, &fault);
            }
        };
        let prefix = self.prefix(&transaction, id, header, lacks_from, found);
        let size = arrival.received();
        let body = match arrival.finish().await {
            Ok(body) => body,
            Err(error) => {
                tracing::error!(%trace, %error, "the spool file cannot be written");
                self.discard(arrival, trace).await;
                return no_room();
            }
        };
        let passed = self.hooks_message(&mut transaction, prefix, body, &mut arrival);
        let (prefix, body) = match passed.await {
            Ok(Passed::On(prefix, body)) => (prefix, body),
            Ok(Passed::Away(filter)) => {
                self.discard(arrival, trace).await;
                self.service.figures.discarded.add_one();
                tracing::info!(%trace, %id, client = %self.client(), filter, size, "discarded by a filter");
                return (250, Enhanced(2, 0, 0), format!("Queued as {id}"));
            }
            Err(reply) => {
                self.discard(arrival, trace).await;
                return reply;
            }
        };
        self.add_copies(&mut transaction).await;
        let (remote, recipients) = (transaction.remote, transaction.recipients.len());
        let (terms, priority_changed) = (transaction.terms, transaction.priority_changed);
        let sender = transaction
            .sender
            .as_ref()
            .map_or_else(|| "<>".to_owned(), ToString::to_string);
        let commit = Commit {
            id,
            trace,
            origin: Origin {
                right: self.right(remote),
                listener: self.door.name.clone(),
                client: self.client(),
            },
            held: transaction.held.take(),
            envelope: transaction.take_envelope(),
            prefix,
            body,
        };
        let began = Instant::now();
        let committed = self.service.backend.commit(commit).await;
        self.service.figures.commit.observe(began.elapsed());
        match committed {
            Ok(()) => {
                self.service.figures.octets.add(size);
                tracing::info!(%trace, %id, client = %self.client(), sender, recipients, size, "accepted");
                if priority_changed {
                    // RFC 6710 7: X.3.6, the priority that counts first
                    let priority = terms.effective_priority();
                    let text = format!("{priority} is the priority of the message. Queued as {id}");
                    return (250, Enhanced(2, 3, 6), text);
                }
                (250, Enhanced(2, 0, 0), format!("Queued as {id}"))
            }
            Err(fault) => {
                // A file that was committed all the same is queued's by now, and stays.
                self.discard(arrival, trace).await;
                refusal(trace, &fault)
            }
        }
    }

    /// Finds out who sent a stranger's message: the fields that say so, or a refusal.
    async fn check_sender(
        &self,
        transaction: &Transaction,
        arrival: &mut Arrival,
    ) -> Result<String, Reply> {
        let policy = &self.service.policy;
        let (Some(checks), Some(evidence), Some(address)) =
            (&policy.checks, arrival.evidence(), self.peer.address)
        else {
            return Ok(String::new());
        };
        let trace = transaction.trace;
        let client = mailauth::Client {
            address,
            helo: self.hello.as_ref().map_or("", |hello| hello.name.as_str()),
            sender: transaction.claimed_sender(),
        };
        let header = self.header_for_reports(checks, &evidence);
        let began = Instant::now();
        // In a place of its own: a session that waits for commands has no room for it.
        let report = Box::pin(self.service.backend.judge(&client, evidence)).await;
        let figures = &self.service.figures;
        figures.checked(&report, began.elapsed());
        let letter = Letter {
            listener: &self.door.name,
            sender: transaction.claimed_sender(),
            recipients: &transaction.recipients,
        };
        let decision = Decision::new(&checks.config, &report, &letter);
        tracing::info!(
            %trace, client = %self.client(), iprev = %report.iprev.result,
            spf = %report.spf().map_or(mailauth::Word::None, |spf| spf.result), arc = %report.arc.result,
            dmarc = %report.dmarc.result, from = report.dmarc.domain, policy = report.dmarc.policy.as_str(),
            dkim = report.dkim.iter().map(|one| format!("{}={}", one.domain, one.result)).collect::<Vec<_>>().join(" "),
            vouched = report.vouched_by(&checks.config.trusted_sealers), ?decision, "sender checked"
        );
        self.count_for_reports(checks, transaction, &report, &decision, header);
        match decision {
            Decision::Refuse(code, enhanced, text) => Err((code, enhanced, text)),
            Decision::Take(suspicions) => {
                let mut fields = report.field(&policy.authserv_id);
                for suspicion in &suspicions {
                    figures.suspected(suspicion.treatment);
                    suspicion.write(&mut fields);
                }
                Ok(fields)
            }
        }
    }

    fn right(&self, remote: bool) -> Right {
        match (&self.login, self.peer.address) {
            (Some(login), _) => Right::Submission(login.grant.clone()),
            (None, Some(address)) if remote => Right::Network(address),
            _ => Right::Incoming,
        }
    }

    /// RFC 6409 6.1: the author's address must be one that the login may use, too. Without any, MAIL's is put in.
    async fn check_from(
        &self,
        trace: TraceId,
        sender: bool,
        from: &[Vec<u8>],
    ) -> Result<(), Reply> {
        let Some(login) = self
            .login
            .as_ref()
            .filter(|_| self.service.policy.check_from)
        else {
            return Ok(());
        };
        let refused = |text: String| (550, Enhanced(5, 7, 1), text);
        if from.is_empty() && !sender {
            return Err(refused("The message has no From field".to_owned()));
        }
        for field in from {
            let Some(addresses) = from_addresses(field) else {
                return Err(refused("The From field cannot be understood".to_owned()));
            };
            for address in addresses {
                match self
                    .service
                    .backend
                    .may_send(trace, login.grant.account, &address)
                    .await
                {
                    Ok(true) => {}
                    Ok(false) => {
                        return Err(refused(format!(
                            "You may not send as {address}: it is not an address of yours"
                        )));
                    }
                    Err(fault) => return Err(refusal(trace, &fault)),
                }
            }
        }
        Ok(())
    }

    /// Received, and what a submission lacks (RFC 6409 8.1, 8.2).
    fn prefix(
        &self,
        transaction: &Transaction,
        id: QueueId,
        header: &Header,
        lacks_from: bool,
        found: &str,
    ) -> Octets {
        let host = &self.service.policy.hostname;
        let hello = self.hello.as_ref();
        let mut prefix = String::with_capacity(384);
        let lmtp = self.door.role == ListenerRole::Lmtp;
        let recipient = match transaction.recipients.as_slice() {
            [one] => Some(&one.address),
            // Others must not see who else got it.
            _ => None,
        };
        Received {
            helo: hello.map_or("unknown", |hello| hello.name.as_str()),
            client: self.peer.address,
            tls: self
                .secured
                .as_ref()
                .map(|tls| (tls.version, tls.cipher.as_str())),
            host,
            with: With {
                lmtp,
                extended: hello.is_some_and(|hello| hello.extended),
                utf8: transaction.smtputf8,
                tls: self.secured.is_some(),
                auth: self.login.is_some(),
            },
            id,
            recipient,
            asked: transaction.asked.as_deref(),
            priority: transaction.terms.priority,
            at: now(),
        }
        .write(&mut prefix);
        prefix.push_str(found);
        if self.door.role == ListenerRole::Submission {
            if let Some(sender) = transaction.sender.as_ref().filter(|_| lacks_from) {
                prefix.push_str(&format!("From: <{sender}>\r\n"));
            }
            if !header.date {
                prefix.push_str("Date: ");
                push_date(&mut prefix, now());
                prefix.push_str("\r\n");
            }
            if !header.message_id {
                prefix.push_str(&format!("Message-ID: <{id}@{host}>\r\n"));
            }
        }
        Octets(prefix.into_bytes())
    }

    /// Gives a file back that was not needed.
    pub(super) async fn discard(&self, mut arrival: Arrival, trace: TraceId) {
        if let Some(mut spool) = arrival.take_spool() {
            let _ = spool.finish().await;
            self.service.backend.close_spool(trace, spool.slot).await;
        }
    }
}

fn too_large() -> Reply {
    (
        552,
        Enhanced(5, 3, 4),
        "The message is too large; EHLO tells the limit".to_owned(),
    )
}

fn header_too_large() -> Reply {
    (
        552,
        Enhanced(5, 3, 4),
        "The header of the message is too large".to_owned(),
    )
}

fn no_room() -> Reply {
    (
        452,
        Enhanced(4, 3, 1),
        "No room for the message at the moment, try again later".to_owned(),
    )
}

/// What the client is told of a fault behind us: the log has the reason.
fn refusal(trace: TraceId, fault: &Fault) -> Reply {
    tracing::warn!(%trace, %fault, "message not taken");
    match fault.kind {
        FaultKind::Busy => no_room(),
        FaultKind::Denied => (550, Enhanced(5, 7, 1), "Relaying denied".to_owned()),
        _ => (
            451,
            Enhanced(4, 3, 0),
            "Not possible at the moment, try again later".to_owned(),
        ),
    }
}
