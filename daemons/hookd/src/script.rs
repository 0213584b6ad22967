//! A Sieve script of the administrator.

use crate::config::{Quarantine, SieveConfig, Stage};
use crate::filter::{Answer, Trouble, View, Word};
use crate::letter::{Author, Change, Letter};
use sieve::engine::{Envelope, Event, Input, Recipient, Runtime, Script as Name};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use types::Enhanced;

/// RFC 6154 2
const JUNK: [&str; 2] = ["Junk", "\\Junk"];
/// No mailbox, but the queue.
const HOLD: &str = "Hold";

/// A script that compiled.
pub(crate) struct Script {
    pub(crate) file: PathBuf,
    pub(crate) stages: Vec<Stage>,
    engine: Arc<Engine>,
    most: u64,
}

/// What runs it.
struct Engine {
    compiled: sieve::Compiled,
    runtime: Runtime,
}

/// Octets of a message whose script keeps nobody waiting.
const QUICK: usize = 64 * 1024;

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "script {}", self.file.display())
    }
}

/// What a run of it came to.
#[derive(Default)]
struct Run {
    kept: bool,
    discarded: bool,
    refused: Option<String>,
    made: HashMap<usize, Vec<u8>>,
    /// The message that is kept, if it is a changed one.
    changed: Option<usize>,
    changes: Vec<Change>,
    redirected: bool,
}

impl Script {
    /// Reads and compiles it.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub(crate) fn new(
        config: &SieveConfig,
        limits: &sieve::Limits,
        hostname: &str,
    ) -> Result<Self, String> {
        let told = |error: &dyn std::fmt::Display| format!("{}: {error}", config.file.display());
        let source = std::fs::read(&config.file).map_err(|error| told(&error))?;
        let compiled = sieve::compile(&source, limits).map_err(|problem| told(&problem))?;
        let mut runtime = sieve::runtime(limits, hostname);
        // RFC 5183 4.1
        runtime.set_env_variable("location", "MTA");
        runtime.set_env_variable("phase", "pre");
        runtime.set_env_variable("host", hostname.to_owned());
        let domain = hostname
            .split_once('.')
            .map_or(hostname, |(_, domain)| domain);
        runtime.set_env_variable("domain", domain.to_owned());
        Ok(Self {
            file: config.file.clone(),
            stages: config.stages.clone(),
            engine: Arc::new(Engine { compiled, runtime }),
            most: config.max_message_bytes,
        })
    }

    /// Runs it at a stage before the message is there.
    pub(crate) async fn ask(&self, stage: Stage, view: &View<'_>) -> Result<Word, Trouble> {
        let run = self.engine.run(Question::new(stage, view), b"\r\n")?;
        Ok(match run.refused {
            Some(reason) => refused(&reason),
            None if run.kept => Word::Go,
            None => Word::Discard,
        })
    }

    /// Runs it on a message.
    pub(crate) async fn message(
        &self,
        view: &View<'_>,
        letter: &mut Letter,
        by: Author<'_>,
    ) -> Result<Word, Trouble> {
        let mut octets = letter.header();
        octets.extend_from_slice(b"\r\n");
        let start = octets.len();
        let whole = letter.size() <= self.most;
        if whole {
            octets.extend_from_slice(&letter.text.whole().await?);
        }
        let question = Question::new(Stage::Data, view);
        let (run, octets) = if octets.len() <= QUICK {
            (self.engine.run(question, &octets)?, octets)
        } else {
            let engine = Arc::clone(&self.engine);
            let task = tokio::task::spawn_blocking(move || {
                engine.run(question, &octets).map(|run| (run, octets))
            });
            task.await
                .map_err(|error| Trouble::new(error.to_string()))??
        };
        if let Some(reason) = run.refused {
            return Ok(refused(&reason));
        }
        if let Some(made) = run.changed.and_then(|id| run.made.get(&id)) {
            let other = Letter::inline(b"", made.clone());
            letter.apply(Change::Header(other.header()), by);
            let text = other.text.whole().await?;
            if whole && octets.get(start..) != Some(text.as_slice()) {
                letter.apply(Change::Text(text), by);
            }
        }
        // RFC 5228 4.2: a redirect instead of keep
        if !run.kept && run.redirected {
            for recipient in std::mem::take(&mut letter.recipients) {
                letter.apply(Change::DeleteRecipient(recipient.address), by);
            }
        }
        let dropped = !run.kept && !run.redirected;
        for change in run.changes {
            letter.apply(change, by);
        }
        Ok(if dropped { Word::Discard } else { Word::Go })
    }
}

/// What a script is told besides the message.
struct Question {
    environment: Vec<(&'static str, String)>,
    envelope: Vec<(Envelope, String)>,
}

impl Question {
    fn new(stage: Stage, view: &View<'_>) -> Self {
        let mut envelope = Vec::new();
        if let Some(mail) = view.mail {
            envelope.push((Envelope::From, mail.sender.address.clone()));
            let to = shown(stage, &mail.recipients).iter();
            envelope.extend(to.map(|one| (Envelope::To, one.address.clone())));
        }
        Self {
            environment: environment(stage, view),
            envelope,
        }
    }
}

impl Engine {
    fn run(&self, question: Question, octets: &[u8]) -> Result<Run, Trouble> {
        let mut context = self.runtime.filter(octets);
        for (name, value) in question.environment {
            context.set_env_variable(name, value);
        }
        for (part, value) in question.envelope {
            context.set_envelope(part, value);
        }
        let mut run = Run::default();
        let main = Name::Global(String::new());
        let mut input = Input::script(main, Arc::clone(&self.compiled));
        loop {
            input = match context.run(input) {
                None => return Ok(run),
                Some(Ok(event)) => run.event(event),
                Some(Err(error)) => {
                    return Err(Trouble::new(format!("the script failed: {error:?}")));
                }
            };
        }
    }
}

/// Whom `envelope "to"` sees: at RCPT the one that is asked about.
fn shown(
    stage: Stage,
    recipients: &[ipc::api::hookd::HookAddress],
) -> &[ipc::api::hookd::HookAddress] {
    match (stage, recipients) {
        (Stage::Rcpt, [.., last]) => std::slice::from_ref(last),
        (_, all) => all,
    }
}

fn refused(reason: &str) -> Word {
    let text = reason.trim().replace("\r\n", "\n");
    // RFC 5429 2.1.1
    Word::Refuse(Answer::new(550, Enhanced(5, 7, 1), &text))
}

/// What `environment` tells (RFC 5183 4.1), and what is ours.
fn environment(stage: Stage, view: &View<'_>) -> Vec<(&'static str, String)> {
    let address = view.client.address.map(|address| address.to_canonical());
    let shown = address
        .map(|address| address.to_string())
        .unwrap_or_default();
    let (tls, cipher) = view.facts.tls.clone().unwrap_or_default();
    let (login, mechanism) = view.facts.login.clone().unwrap_or_default();
    vec![
        ("remote-host", view.name.unwrap_or_default().to_owned()),
        ("remote-ip", shown),
        ("vnd.posthouse.stage", stage.name().to_owned()),
        ("vnd.posthouse.listener", view.client.listener.clone()),
        ("vnd.posthouse.helo", view.facts.hello.clone()),
        ("vnd.posthouse.tls", tls),
        ("vnd.posthouse.cipher", cipher),
        ("vnd.posthouse.login", login),
        ("vnd.posthouse.mechanism", mechanism),
        (
            "vnd.posthouse.id",
            view.mail.map(|mail| mail.id.clone()).unwrap_or_default(),
        ),
    ]
}

/// Why it is held, if that is what it is filed for: `Hold`, or `Hold/the reason`.
fn held(folder: &str) -> Option<String> {
    let rest = folder.get(HOLD.len()..)?;
    let named = folder.get(..HOLD.len())?.eq_ignore_ascii_case(HOLD);
    match rest.strip_prefix('/') {
        Some(reason) if named => Some(reason.to_owned()),
        None if named && rest.is_empty() => Some(format!("fileinto {folder:?}")),
        _ => None,
    }
}

impl Run {
    fn event(&mut self, event: Event) -> Input {
        match event {
            Event::Keep { message_id, .. } => {
                self.kept = true;
                self.changed = Some(message_id);
            }
            Event::Discard => self.discarded = true,
            Event::Reject { reason, .. } => self.refused = Some(reason),
            Event::FileInto {
                folder,
                message_id,
                special_use,
                ..
            } => {
                self.kept = true;
                self.changed = Some(message_id);
                let junk = |name: &str| JUNK.iter().any(|one| one.eq_ignore_ascii_case(name));
                if junk(&folder) || special_use.as_deref().is_some_and(junk) {
                    self.changes
                        .push(Change::Quarantine(format!("fileinto {folder:?}"), None));
                } else if let Some(reason) = held(&folder) {
                    self.changes
                        .push(Change::Quarantine(reason, Some(Quarantine::Hold)));
                }
            }
            Event::SendMessage { recipient, .. } => {
                self.redirected = true;
                let addresses = match recipient {
                    Recipient::Address(address) => vec![address],
                    Recipient::Group(all) => all,
                    Recipient::List(_) => Vec::new(),
                };
                for address in addresses {
                    self.changes
                        .push(Change::AddRecipient(address, String::new()));
                }
            }
            Event::CreatedMessage {
                message_id,
                message,
            } => drop(self.made.insert(message_id, message)),
            // No mailboxes, no lists, no memory, no other scripts, no notices here.
            Event::MailboxExists { .. }
            | Event::ListContains { .. }
            | Event::DuplicateId { .. }
            | Event::IncludeScript { .. } => return Input::False,
            Event::SetEnvelope { .. } | Event::Function { .. } | Event::Notify { .. } => {}
        }
        Input::True
    }
}

#[cfg(test)]
mod tests {
    use super::held;

    #[test]
    fn hold_is_no_mailbox() {
        assert_eq!(held("Hold").as_deref(), Some("fileinto \"Hold\""));
        assert_eq!(held("hold/a/b").as_deref(), Some("a/b"));
        for other in ["Holder", "Old", "", "H\u{f6}ld", "Junk"] {
            assert_eq!(held(other), None, "{other}");
        }
    }
}
