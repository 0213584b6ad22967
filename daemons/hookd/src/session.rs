//! A session of SMTP, and what its filters say at each stage.

use crate::config::Stage;
use crate::figures::Figures;
use crate::filter::{Answer, Filter, Kind, Mail, Trouble, View, Word};
use crate::letter::Letter;
use crate::milter;
use ipc::api::hookd::{HookAddress, HookClient, HookFacts, Verdict};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use types::{Enhanced, TraceId};

/// Times for all filters of a stage together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) stage: Duration,
    pub(crate) message: Duration,
}

/// One filter in this session.
#[derive(Debug)]
struct Run {
    filter: Arc<Filter>,
    talk: Option<milter::Talk>,
    /// It has said that the whole session is fine.
    done: bool,
    /// It has said that this message is fine, or goes on without it.
    skipped: bool,
}

/// A session.
#[derive(Debug)]
pub(crate) struct Session {
    client: HookClient,
    name: Option<String>,
    facts: HookFacts,
    mail: Option<Mail>,
    runs: Vec<Run>,
    /// The filter that wants all of this session thrown away.
    discard: Option<String>,
    limits: Limits,
}

impl Session {
    /// Of these filters; `name` is the client's.
    pub(crate) fn new(
        client: HookClient,
        name: Option<String>,
        filters: Vec<Arc<Filter>>,
        limits: Limits,
    ) -> Self {
        let run = |filter: Arc<Filter>| Run {
            talk: match &filter.kind {
                Kind::Milter(config) => Some(milter::Talk::new(Arc::clone(config))),
                _ => None,
            },
            filter,
            done: false,
            skipped: false,
        };
        Self {
            client,
            name,
            facts: HookFacts::default(),
            mail: None,
            runs: filters.into_iter().map(run).collect(),
            discard: None,
            limits,
        }
    }

    /// Whether a filter asks at a stage.
    pub(crate) fn asks_at(&self, stage: Stage) -> bool {
        self.runs.iter().any(|run| run.filter.asks_at(stage))
    }

    pub(crate) async fn connect(&mut self, trace: TraceId, figures: &Figures) -> Verdict {
        let verdict = match self.ask(Stage::Connect, trace, figures).await {
            // RFC 5321 3.1: whoever is refused at once hears 554
            Verdict::Refuse(mut refusal) => {
                refusal.close = true;
                if refusal.code == 550 {
                    refusal.code = 554;
                }
                if refusal.code < 500 {
                    refusal.code = 421;
                }
                Verdict::Refuse(refusal)
            }
            other => other,
        };
        self.remember(verdict)
    }

    pub(crate) async fn hello(
        &mut self,
        facts: HookFacts,
        trace: TraceId,
        figures: &Figures,
    ) -> Verdict {
        self.facts = facts;
        self.mail = None;
        let verdict = self.ask(Stage::Ehlo, trace, figures).await;
        self.remember(verdict)
    }

    fn remember(&mut self, verdict: Verdict) -> Verdict {
        match verdict {
            Verdict::Discard(filter) => {
                self.discard = Some(filter);
                Verdict::Go
            }
            other => other,
        }
    }

    pub(crate) async fn mail(
        &mut self,
        facts: HookFacts,
        id: String,
        sender: HookAddress,
        trace: TraceId,
        figures: &Figures,
    ) -> Verdict {
        self.facts = facts;
        for run in &mut self.runs {
            run.skipped = false;
        }
        if let Some(filter) = &self.discard {
            return Verdict::Discard(filter.clone());
        }
        self.mail = Some(Mail {
            id,
            sender,
            recipients: Vec::new(),
        });
        let verdict = self.ask(Stage::Mail, trace, figures).await;
        if verdict != Verdict::Go {
            self.mail = None;
        }
        verdict
    }

    /// Recipients; if a filter asks about them, one.
    pub(crate) async fn rcpt(
        &mut self,
        recipients: Vec<HookAddress>,
        trace: TraceId,
        figures: &Figures,
    ) -> Verdict {
        let Some(mail) = &mut self.mail else {
            return Verdict::Go;
        };
        mail.recipients.extend(recipients);
        if !self.asks_at(Stage::Rcpt) {
            return Verdict::Go;
        }
        let verdict = self.ask(Stage::Rcpt, trace, figures).await;
        if let (Verdict::Refuse(_), Some(mail)) = (&verdict, &mut self.mail) {
            mail.recipients.pop();
        }
        verdict
    }

    async fn ask(&mut self, stage: Stage, trace: TraceId, figures: &Figures) -> Verdict {
        let until = Instant::now() + self.limits.stage;
        let view = View {
            client: &self.client,
            name: self.name.as_deref(),
            facts: &self.facts,
            mail: self.mail.as_ref(),
        };
        let login = self.facts.login.is_some();
        for run in &mut self.runs {
            let left_out = run.done || run.skipped || !run.filter.sees(login);
            if left_out || !run.filter.asks_at(stage) {
                continue;
            }
            let began = Instant::now();
            let word = timeout_at(until, run.ask(stage, &view, until)).await;
            let word = word.unwrap_or_else(|_| Err(Trouble::new("no time is left")));
            figures.stage.observe(began.elapsed());
            if let Some(verdict) = run.settle(stage, word, trace, figures) {
                return verdict;
            }
        }
        Verdict::Go
    }

    /// Shows the message to the filters.
    pub(crate) async fn message(
        &mut self,
        letter: &mut Letter,
        most: u64,
        trace: TraceId,
        figures: &Figures,
    ) -> Verdict {
        let until = Instant::now() + self.limits.message;
        let Some(mail) = &self.mail else {
            return Verdict::Refuse(Answer::later().of("hookd"));
        };
        letter.sender.clone_from(&mail.sender);
        letter.recipients.clone_from(&mail.recipients);
        let login = self.facts.login.is_some();
        let mut verdict = Verdict::Go;
        for run in &mut self.runs {
            let left_out = run.done || run.skipped || !run.filter.sees(login);
            if left_out || !run.filter.asks_at(Stage::Data) {
                continue;
            }
            let view = View {
                client: &self.client,
                name: self.name.as_deref(),
                facts: &self.facts,
                mail: Some(mail),
            };
            let began = Instant::now();
            let word = timeout_at(until, run.message(&view, letter, until)).await;
            let word = word.unwrap_or_else(|_| Err(Trouble::new("no time is left")));
            figures.message.observe(began.elapsed());
            if let Some(ended) = run.settle(Stage::Data, word, trace, figures) {
                verdict = ended;
                break;
            }
        }
        self.abort();
        if verdict == Verdict::Go && letter.is_changed() && letter.size() > most {
            let text = "The message is too large as filters have it";
            let refusal = Answer::new(552, Enhanced(5, 3, 4), text);
            return Verdict::Refuse(refusal.of("hookd"));
        }
        verdict
    }

    /// The transaction is over: those who are in it hear of that with what comes next.
    fn abort(&mut self) {
        self.mail = None;
        for talk in self.runs.iter_mut().filter_map(|run| run.talk.as_mut()) {
            talk.abort();
        }
    }

    /// The transaction is over without a message.
    pub(crate) async fn abort_now(&mut self) {
        self.mail = None;
        for talk in self.runs.iter_mut().filter_map(|run| run.talk.as_mut()) {
            talk.abort_now().await;
        }
    }

    /// The session is over, and with it a transaction that was under way.
    pub(crate) async fn close(&mut self) {
        self.abort();
        for talk in self.runs.iter_mut().filter_map(|run| run.talk.as_mut()) {
            talk.quit().await;
        }
    }
}

impl Run {
    async fn ask(
        &mut self,
        stage: Stage,
        view: &View<'_>,
        until: Instant,
    ) -> Result<Word, Trouble> {
        match (&self.filter.kind, &mut self.talk) {
            (Kind::Milter(_), Some(talk)) => talk.ask(stage, view, until).await,
            (Kind::Milter(_), None) => Err(Trouble::new("no conversation")),
            (Kind::Http(hook), _) => hook.ask(stage, view).await,
            (Kind::Sieve(script), _) => script.ask(stage, view).await,
        }
    }

    async fn message(
        &mut self,
        view: &View<'_>,
        letter: &mut Letter,
        until: Instant,
    ) -> Result<Word, Trouble> {
        let by = self.filter.author();
        match (&self.filter.kind, &mut self.talk) {
            (Kind::Milter(_), Some(talk)) => talk.message(view, letter, by, until).await,
            (Kind::Milter(_), None) => Err(Trouble::new("no conversation")),
            (Kind::Http(hook), _) => hook.message(view, letter, by).await,
            (Kind::Sieve(script), _) => script.message(view, letter, by).await,
        }
    }

    /// What a filter's word means for all; `None`: the next one is asked.
    fn settle(
        &mut self,
        stage: Stage,
        word: Result<Word, Trouble>,
        trace: TraceId,
        figures: &Figures,
    ) -> Option<Verdict> {
        let filter = &self.filter;
        filter.count(word.is_err());
        match word {
            Ok(Word::Go) => None,
            Ok(Word::Accept) => {
                match stage {
                    Stage::Connect | Stage::Ehlo => self.done = true,
                    Stage::Mail | Stage::Rcpt | Stage::Data => self.skipped = true,
                }
                None
            }
            Ok(Word::Discard) => {
                figures.discarded.add_one();
                Some(Verdict::Discard(filter.name.clone()))
            }
            Ok(Word::Refuse(answer)) => {
                figures.refused.add_one();
                Some(Verdict::Refuse(answer.of(&filter.name)))
            }
            Err(trouble) => {
                figures.away.add_one();
                tracing::warn!(
                    %trace, filter = filter.name, stage = stage.name(), %trouble, away = ?filter.away, "a filter is away"
                );
                if let Some(talk) = &mut self.talk {
                    talk.drop_link();
                }
                match filter.away() {
                    Some(answer) => Some(Verdict::Refuse(answer.of(&filter.name))),
                    None => {
                        // At the next message it is tried again.
                        self.skipped = !matches!(stage, Stage::Connect | Stage::Ehlo);
                        None
                    }
                }
            }
        }
    }
}
