//! What filters say at each stage: hookd asks them. A session on a listener without filters has nothing of this.

use super::transaction::Transaction;
use super::{End, Session};
use crate::backend::Backend;
use ipc::api::hookd::{
    Away, HookAbort, HookAddress, HookClient, HookClose, HookFacts, HookHello, HookMail, HookOpen,
    HookRcpt, Refusal, Verdict,
};
use ipc::{Fault, FaultKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use types::{Address, Enhanced, QueueId, Route, TraceId};

/// For telling hookd that a session is over which it may not have.
const FORGOTTEN: Duration = Duration::from_secs(10);

/// A session's filters.
#[derive(Debug)]
pub(crate) struct Hooking {
    /// What is done when hookd is away.
    pub(super) away: Away,
    client: HookClient,
    /// hookd's number of it; `None`: it is to be opened (again).
    pub(super) session: Option<u64>,
    wants_hello: bool,
    wants_rcpt: bool,
    /// The mechanism of the login.
    mechanism: String,
    /// The parameters of the command that is being answered, as they came.
    parameters: Vec<String>,
    pub(super) mail: HookedMail,
}

/// The transaction, as filters have heard of it.
#[derive(Debug, Default)]
pub(super) struct HookedMail {
    /// Filters are in it.
    pub(super) live: bool,
    /// The filter that wants the message thrown away.
    pub(super) discard: Option<String>,
    /// Recipients that they have not heard of.
    pub(super) untold: Vec<HookAddress>,
    /// Reserved for the message.
    id: Option<QueueId>,
}

/// What is answered when hookd is away.
pub(super) fn away(away: Away) -> Option<Refusal> {
    let (code, enhanced, text) = match away {
        Away::Accept => return None,
        Away::Later => (451, Enhanced(4, 7, 1), "Not now, try again later"),
        Away::Refuse => (
            554,
            Enhanced(5, 3, 0),
            "This mail cannot be checked here at present",
        ),
    };
    Some(Refusal {
        filter: "hookd".to_owned(),
        code,
        enhanced,
        text: text.to_owned(),
        close: false,
    })
}

/// What stands behind the path of MAIL and RCPT.
fn parameters(line: &[u8]) -> Vec<String> {
    let (mut quoted, mut escaped) = (false, false);
    let end = line.iter().position(|octet| {
        let ends = *octet == b'>' && !quoted && !escaped;
        if *octet == b'"' && !escaped {
            quoted = !quoted;
        }
        escaped = *octet == b'\\' && !escaped;
        ends
    });
    let rest = end.and_then(|end| line.get(end + 1..)).unwrap_or_default();
    String::from_utf8_lossy(rest)
        .split_ascii_whitespace()
        .map(str::to_owned)
        .collect()
}

/// What sessions call. Whatever waits is in a place of its own: a session without filters, or one that waits for commands, has no room
/// for it.
impl<S: AsyncRead + AsyncWrite + Unpin + Send, B: Backend> Session<S, B> {
    /// The stage `connect`.
    pub(super) async fn hooks_connect(&mut self) -> Result<(), End> {
        if self.hooks.is_none() {
            return Ok(());
        }
        Box::pin(self.ask_at_connect()).await
    }

    /// The stage `ehlo`: whether the client may go on.
    pub(super) async fn hooks_hello(&mut self, name: &str, extended: bool) -> Result<bool, End> {
        if self.hooks.is_none() {
            return Ok(true);
        }
        Box::pin(self.ask_at_hello(name, extended)).await
    }

    /// The stage `mail`: whether the transaction may begin.
    pub(super) async fn hooks_mail(&mut self, transaction: &Transaction) -> Result<bool, End> {
        if self.hooks.is_none() {
            return Ok(true);
        }
        Box::pin(self.ask_at_mail(transaction)).await
    }

    /// The stage `rcpt`: whether the recipient is accepted.
    pub(super) async fn hooks_rcpt(
        &mut self,
        address: &Address,
        route: Route,
    ) -> Result<bool, End> {
        if self.hooks.is_none() {
            return Ok(true);
        }
        Box::pin(self.ask_at_rcpt(address, route)).await
    }

    /// The transaction is over without a message.
    pub(super) async fn hooks_abort(&mut self) {
        if self.hooks.is_some() {
            Box::pin(self.tell_abort()).await;
        }
    }

    /// The session is over, and with it a transaction that was under way. Nobody waits until hookd has heard of it: neither the
    /// client nor its place.
    pub(super) fn hooks_close(&mut self) {
        self.hooks_forget(self.trace);
        self.hooks = None;
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send, B: Backend> Session<S, B> {
    /// Filters, if there are any for this listener. `port` is the client's, `server` where it came to.
    pub fn with_hooks(mut self, port: u16, server: Option<SocketAddr>) -> Self {
        let hooks = self.service.hooks.as_ref();
        let Some(away) = hooks.and_then(|hooks| hooks.of(&self.door.name)) else {
            return self;
        };
        self.hooks = Some(Box::new(Hooking {
            away,
            client: HookClient {
                listener: self.door.name.clone(),
                role: format!("{:?}", self.door.role).to_lowercase(),
                hostname: self.service.policy.hostname.clone(),
                address: self.peer.address,
                port,
                server,
            },
            session: None,
            wants_hello: true,
            wants_rcpt: true,
            mechanism: String::new(),
            parameters: Vec::new(),
            mail: HookedMail::default(),
        }));
        self
    }

    /// Remembers what a command says behind its path.
    pub(super) fn hooks_line(&mut self, line: &[u8]) {
        if let Some(hooking) = &mut self.hooks {
            hooking.parameters = parameters(line);
        }
    }

    /// Remembers how a login is made.
    pub(super) fn hooks_mechanism(&mut self, mechanism: &str) {
        if let Some(hooking) = &mut self.hooks {
            hooking.mechanism = mechanism.to_ascii_uppercase();
        }
    }

    /// The id that was reserved for the message at MAIL.
    pub(super) fn reserved_id(&mut self) -> Option<QueueId> {
        self.hooks.as_mut()?.mail.id.take()
    }

    fn hook_facts(&self) -> HookFacts {
        let hello = self.hello.as_ref();
        HookFacts {
            hello: hello.map(|hello| hello.name.clone()).unwrap_or_default(),
            extended: hello.is_some_and(|hello| hello.extended),
            tls: self
                .secured
                .as_ref()
                .map(|tls| (tls.version.to_owned(), tls.cipher.clone())),
            login: self.login.as_ref().map(|login| {
                let mechanism = self.hooks.as_ref().map(|hooking| hooking.mechanism.clone());
                (login.name.clone(), mechanism.unwrap_or_default())
            }),
        }
    }

    pub(super) async fn hook_call<O: ipc::Operation>(
        &self,
        trace: TraceId,
        request: &O,
    ) -> Result<O::Reply, Fault> {
        let limit = self.service.hooks.as_ref().map(|hooks| hooks.stage);
        let limit = limit.unwrap_or_default();
        let call = self.service.backend.hook(trace, request, Vec::new(), limit);
        call.await.map(|(reply, _)| reply)
    }

    /// hookd is away, or has forgotten the session.
    pub(super) fn hooks_lost(&mut self, trace: TraceId, fault: &Fault) -> Verdict {
        tracing::warn!(%trace, client = %self.client(), %fault, "filters were not asked");
        let Some(hooking) = &mut self.hooks else {
            return Verdict::Go;
        };
        hooking.mail.live = false;
        let away = away(hooking.away).map_or(Verdict::Go, Verdict::Refuse);
        self.hooks_forget(trace);
        away
    }

    /// hookd's session is of no use any more. If hookd has it still, it need not keep it. Each of these tasks is about a session that
    /// hookd has given out: there are no more of them than `hookd.sessions`, and none lasts longer than [`FORGOTTEN`].
    fn hooks_forget(&mut self, trace: TraceId) {
        let session = self
            .hooks
            .as_mut()
            .and_then(|hooking| hooking.session.take());
        if let Some(session) = session {
            let service = Arc::clone(&self.service);
            tokio::spawn(async move {
                let request = HookClose { session };
                let call = service.backend.hook(trace, &request, Vec::new(), FORGOTTEN);
                let _ = call.await;
            });
        }
    }

    /// Answers a refusal.
    fn hooks_refuse(&mut self, trace: TraceId, stage: &str, refusal: &Refusal) -> Result<(), End> {
        tracing::info!(
            %trace, client = %self.client(), stage, filter = refusal.filter, code = refusal.code, text = refusal.text,
            "refused by a filter"
        );
        self.reply(refusal.code, Some(refusal.enhanced), &refusal.text);
        if refusal.close {
            return Err(End::Said("closed by a filter"));
        }
        Ok(())
    }

    /// Opens the session at hookd: what filters say of the connection.
    async fn hooks_open(&mut self, trace: TraceId) -> Result<Verdict, Fault> {
        let Some(hooking) = &self.hooks else {
            return Ok(Verdict::Go);
        };
        let request = HookOpen {
            client: hooking.client.clone(),
        };
        let opened = self.hook_call(trace, &request).await?;
        if let Some(hooking) = &mut self.hooks {
            hooking.session = Some(opened.session);
            hooking.wants_hello = opened.wants_hello;
            hooking.wants_rcpt = opened.wants_rcpt;
        }
        Ok(opened.verdict)
    }

    async fn ask_at_connect(&mut self) -> Result<(), End> {
        let trace = self.trace;
        let verdict = match self.hooks_open(trace).await {
            Ok(verdict) => verdict,
            Err(fault) => match self.hooks_lost(trace, &fault) {
                Verdict::Refuse(refusal) => Verdict::Refuse(Refusal {
                    code: if refusal.code < 500 {
                        421
                    } else {
                        refusal.code
                    },
                    close: true,
                    ..refusal
                }),
                other => other,
            },
        };
        match verdict {
            Verdict::Refuse(refusal) => self.hooks_refuse(trace, "connect", &refusal),
            Verdict::Go | Verdict::Discard(_) => Ok(()),
        }
    }

    async fn ask_at_hello(&mut self, name: &str, extended: bool) -> Result<bool, End> {
        let session = match &mut self.hooks {
            Some(hooking) => {
                hooking.mail = HookedMail::default();
                hooking.session.filter(|_| hooking.wants_hello)
            }
            None => None,
        };
        let Some(session) = session else {
            return Ok(true);
        };
        let trace = self.trace;
        let mut facts = self.hook_facts();
        name.clone_into(&mut facts.hello);
        facts.extended = extended;
        let verdict = match self.hook_call(trace, &HookHello { session, facts }).await {
            Ok(verdict) => verdict,
            Err(fault) => self.hooks_lost(trace, &fault),
        };
        match verdict {
            Verdict::Refuse(refusal) => {
                self.hooks_refuse(trace, "ehlo", &refusal)?;
                Ok(false)
            }
            Verdict::Go | Verdict::Discard(_) => Ok(true),
        }
    }

    async fn ask_at_mail(&mut self, transaction: &Transaction) -> Result<bool, End> {
        let Some(hooking) = &mut self.hooks else {
            return Ok(true);
        };
        hooking.mail = HookedMail::default();
        let trace = transaction.trace;
        let id = match self.service.backend.queue_id(trace).await {
            Ok(id) => id,
            Err(fault) => {
                tracing::warn!(%trace, %fault, "no id for a message");
                self.later();
                return Ok(false);
            }
        };
        let verdict = match self.hooks_mail_twice(transaction, id).await {
            Ok(verdict) => verdict,
            Err(fault) => self.hooks_lost(trace, &fault),
        };
        let Some(hooking) = &mut self.hooks else {
            return Ok(true);
        };
        hooking.mail.id = Some(id);
        match verdict {
            Verdict::Go => hooking.mail.live = hooking.session.is_some(),
            Verdict::Discard(filter) => hooking.mail.discard = Some(filter),
            Verdict::Refuse(refusal) => {
                self.hooks_refuse(trace, "mail", &refusal)?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// If hookd was started again since, nothing is lost yet: the session is opened once more.
    async fn hooks_mail_twice(
        &mut self,
        transaction: &Transaction,
        id: QueueId,
    ) -> Result<Verdict, Fault> {
        let trace = transaction.trace;
        let mut fault = None;
        for _ in 0..2 {
            let session = self.hooks.as_ref().and_then(|hooking| hooking.session);
            let session = match session {
                Some(session) => session,
                None => match self.hooks_open(trace).await {
                    Ok(Verdict::Go) => continue_with(&self.hooks)?,
                    Ok(said) => return Ok(said),
                    Err(lost) => {
                        fault = Some(lost);
                        continue;
                    }
                },
            };
            let sender = transaction.sender.as_ref();
            let request = HookMail {
                session,
                facts: self.hook_facts(),
                id: id.to_string(),
                sender: HookAddress {
                    address: sender.map(ToString::to_string).unwrap_or_default(),
                    parameters: self.hooks_parameters(),
                    remote: false,
                },
            };
            match self.hook_call(trace, &request).await {
                Ok(verdict) => return Ok(verdict),
                Err(lost) => {
                    self.hooks_forget(trace);
                    fault = Some(lost);
                }
            }
        }
        Err(fault.unwrap_or_else(|| Fault::new(FaultKind::Temporary, "no session of filters")))
    }

    fn hooks_parameters(&self) -> Vec<String> {
        (self.hooks.as_ref())
            .map(|hooking| hooking.parameters.clone())
            .unwrap_or_default()
    }

    async fn ask_at_rcpt(&mut self, address: &Address, route: Route) -> Result<bool, End> {
        let trace = self
            .transaction
            .as_deref()
            .map(|transaction| transaction.trace);
        let parameters = self.hooks_parameters();
        let Some((hooking, trace)) = self.hooks.as_mut().zip(trace) else {
            return Ok(true);
        };
        let Some(session) = hooking.session.filter(|_| hooking.mail.live) else {
            return Ok(true);
        };
        let recipient = HookAddress {
            address: address.to_string(),
            parameters,
            remote: route == Route::Remote,
        };
        if !hooking.wants_rcpt {
            hooking.mail.untold.push(recipient);
            return Ok(true);
        }
        let recipients = vec![recipient];
        let verdict = match self
            .hook_call(
                trace,
                &HookRcpt {
                    session,
                    recipients,
                },
            )
            .await
        {
            Ok(verdict) => verdict,
            Err(fault) => {
                let verdict = self.hooks_lost(trace, &fault);
                // The transaction cannot go on with filters; without them it may.
                if let (Verdict::Refuse(_), Some(hooking)) = (&verdict, &mut self.hooks) {
                    hooking.mail.live = true;
                }
                verdict
            }
        };
        match verdict {
            Verdict::Go => Ok(true),
            Verdict::Discard(filter) => {
                if let Some(hooking) = &mut self.hooks {
                    hooking.mail.discard = Some(filter);
                    hooking.mail.live = false;
                }
                Ok(true)
            }
            Verdict::Refuse(refusal) => {
                self.hooks_refuse(trace, "rcpt", &refusal)?;
                Ok(false)
            }
        }
    }

    async fn tell_abort(&mut self) {
        let Some(hooking) = &mut self.hooks else {
            return;
        };
        let live = std::mem::take(&mut hooking.mail).live;
        if let Some(session) = hooking.session.filter(|_| live) {
            let _ = self.hook_call(self.trace, &HookAbort { session }).await;
        }
    }
}

fn continue_with(hooks: &Option<Box<Hooking>>) -> Result<u64, Fault> {
    (hooks.as_ref())
        .and_then(|hooking| hooking.session)
        .ok_or_else(|| Fault::new(FaultKind::Temporary, "no session of filters"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_behind_a_path() {
        let of = |line: &str| parameters(line.as_bytes());
        assert!(of("MAIL FROM:<>").is_empty());
        assert_eq!(
            of("MAIL FROM:<a@b> SIZE=5 SMTPUTF8"),
            ["SIZE=5", "SMTPUTF8"]
        );
        assert_eq!(of("RCPT TO:<\"a> b\"@c> NOTIFY=NEVER"), ["NOTIFY=NEVER"]);
        assert_eq!(
            of("RCPT TO:<\"a\\\"> b\"@c> ORCPT=rfc822;<x>"),
            ["ORCPT=rfc822;<x>"]
        );
        assert!(of("EHLO x").is_empty());
    }
}
