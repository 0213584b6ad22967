//! Running Sieve scripts (RFC 5228): what they say becomes a list of actions, and nothing is done here.

mod annotations;
mod flying;
mod lists;

pub(crate) use flying::Flight;

use crate::config::SieveConfig;
use ipc::api::deliverd::RedirectOptions;
use ipc::{Fault, FaultKind};
use sieve::engine::compiler::grammar::actions::action_redirect::{
    ByMode, ByTime, Notify, NotifyItem, Ret,
};
use sieve::engine::{Envelope, Event, Input, Mailbox, Recipient, Runtime, Script};
use sieve::{Compiled, compile};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use types::{AccountId, Address, DeliverBy, QueueId};

/// How long a user's script, or that there is none, is remembered without asking the store again.
const FRESH: Duration = Duration::from_secs(2);
/// Accounts remembered at once.
const REMEMBERED: usize = 20_000;
/// Places that one run may file a message into; what goes beyond is left out, and kept in INBOX.
const FILED_MAX: usize = 14;
/// Seconds that a time limit has at most: nine digits (RFC 2852 4).
const BY_MAX: u64 = 999_999_999;

/// One place a message goes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filed {
    /// Empty is what it would be without a script.
    pub(crate) mailbox: String,
    pub(crate) create: bool,
    pub(crate) flags: Vec<String>,
    /// What is filed instead of the message as it came.
    pub(crate) content: Option<Arc<Vec<u8>>>,
}

/// A message to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Redirect {
        to: Address,
        content: Option<Arc<Vec<u8>>>,
        options: RedirectOptions,
    },
    /// An answer or notification, from the null sender.
    Made { to: Address, content: Arc<Vec<u8>> },
}

/// What the scripts of an account made of a message.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) filed: Vec<Filed>,
    pub(crate) sent: Vec<Sent>,
    /// Refused, with this reason.
    pub(crate) rejected: Option<String>,
    /// Keys, and until when they count: seconds since 1970.
    pub(crate) notes: Vec<(u64, i64)>,
    /// They are this message's alone until they are in the store.
    pub(crate) flights: Vec<Flight>,
}

/// A message for an account.
pub(crate) struct Run<'a> {
    pub(crate) id: QueueId,
    pub(crate) account: AccountId,
    /// The account's address.
    pub(crate) name: &'a Address,
    pub(crate) sender: Option<&'a Address>,
    pub(crate) recipient: &'a Address,
    /// Further parts of the envelope.
    pub(crate) dsn: Vec<(Envelope, String)>,
    /// The message with its trace fields, perhaps cut off at the end.
    pub(crate) octets: &'a [u8],
    /// It is cut off: what a script makes of it cannot take its place.
    pub(crate) cut: bool,
    pub(crate) now: i64,
}

struct Known {
    read: Instant,
    script: Option<Prepared>,
}

/// A compiled script, and what it needs.
#[derive(Clone)]
pub(crate) struct Prepared {
    compiled: Compiled,
    /// It may ask for annotations (RFC 5490): only then are they read.
    annotations: bool,
}

impl Prepared {
    fn new(text: &[u8], limits: &sieve::Limits) -> Result<Self, sieve::Problem> {
        Ok(Self {
            compiled: compile(text, limits)?,
            annotations: annotations::wanted(text),
        })
    }
}

/// Everything that scripts need.
pub(crate) struct Scripts {
    reader: store::Reader,
    runtime: Runtime,
    config: SieveConfig,
    before: Vec<Prepared>,
    after: Vec<Prepared>,
    lists: lists::Lists,
    flying: Arc<flying::Flying>,
    known: Mutex<HashMap<AccountId, Known>>,
}

fn away(error: &store::Error) -> Fault {
    Fault::new(FaultKind::Temporary, error.to_string())
}

/// One script's run, as far as it has come.
#[derive(Default)]
struct State {
    outcome: Outcome,
    /// Keep was done, explicitly or implicitly, with this.
    kept: Option<Filed>,
    made: HashMap<usize, Arc<Vec<u8>>>,
    failed: bool,
}

impl Scripts {
    /// Compiles the administrator's scripts.
    ///
    /// # Errors
    /// One of them cannot be read or compiled; it says which.
    pub(crate) fn new(
        reader: store::Reader,
        config: SieveConfig,
        hostname: &str,
    ) -> Result<Self, String> {
        let load = |files: &[std::path::PathBuf]| {
            files
                .iter()
                .map(|file| load(file, &config))
                .collect::<Result<Vec<_>, _>>()
        };
        let lists = lists::Lists::read(&config.lists)?;
        let mut runtime = sieve::runtime(&config.limits, hostname);
        for name in lists.names() {
            runtime.set_valid_ext_list(name.clone());
        }
        Ok(Self {
            before: load(&config.before)?,
            after: load(&config.after)?,
            runtime,
            lists,
            flying: Arc::default(),
            reader,
            config,
            known: Mutex::default(),
        })
    }

    /// Octets of a message that scripts look at.
    pub(crate) fn message_bytes(&self) -> usize {
        self.config.message_bytes
    }

    /// The scripts for an account's mail, in the order in which they run; none for most.
    pub(crate) async fn of(&self, account: AccountId) -> Result<Vec<Prepared>, Fault> {
        let personal = self.personal(account).await?;
        let all = self.before.iter().chain(&personal).chain(&self.after);
        Ok(all.cloned().collect())
    }

    async fn personal(&self, account: AccountId) -> Result<Option<Prepared>, Fault> {
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known().get(&account)
            && known.read.elapsed() < FRESH
        {
            return Ok(known.script.clone());
        }
        let read = Instant::now();
        let found = match self.reader.active_script(account).await {
            // It would be damaged at each try: without it there is mail at least.
            Err(error) if error.is_damage() => {
                tracing::warn!(%account, %error, "a script cannot be read: mail is kept");
                None
            }
            found => found.map_err(|error| away(&error))?,
        };
        let script = found.and_then(|(script, text)| {
            match Prepared::new(&text, &self.config.limits) {
                Ok(prepared) => Some(prepared),
                Err(problem) => {
                    tracing::warn!(%account, script = script.name, %problem, "a script no longer compiles: mail is kept");
                    None
                }
            }
        });
        let mut known = known();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        let entry = Known {
            read,
            script: script.clone(),
        };
        known.insert(account, entry);
        Ok(script)
    }

    /// Runs scripts one after the other: each runs if the one before it kept the message, and decides then. A script that fails
    /// keeps it.
    ///
    /// # Errors
    /// The store cannot be read now.
    pub(crate) async fn run(&self, scripts: &[Prepared], run: &Run<'_>) -> Result<Outcome, Fault> {
        let mut outcome = Outcome::default();
        let mut kept = Filed::default();
        let mut content: Option<Arc<Vec<u8>>> = None;
        for script in scripts {
            let octets = content
                .as_ref()
                .map_or(run.octets, |content| content.as_slice());
            let state = self.run_one(script, octets, run).await?;
            let State {
                outcome: mut done,
                kept: this,
                failed,
                ..
            } = state;
            outcome.filed.append(&mut done.filed);
            outcome.sent.append(&mut done.sent);
            outcome.notes.append(&mut done.notes);
            outcome.flights.append(&mut done.flights);
            outcome.rejected = done.rejected;
            match this {
                Some(filed) => {
                    if filed.content.is_some() {
                        content.clone_from(&filed.content);
                    }
                    if !filed.flags.is_empty() {
                        kept.flags = filed.flags;
                    }
                    kept.content.clone_from(&content);
                }
                None if failed => {}
                None => return Ok(bounded(outcome, None)),
            }
        }
        Ok(bounded(outcome, Some(kept)))
    }

    async fn run_one(
        &self,
        script: &Prepared,
        octets: &[u8],
        run: &Run<'_>,
    ) -> Result<State, Fault> {
        let sender = run.sender.map(ToString::to_string).unwrap_or_default();
        let mut context = self
            .runtime
            .filter(octets)
            .with_user_address(run.name.to_string())
            .with_envelope(Envelope::From, sender)
            .with_envelope(Envelope::To, run.recipient.to_string());
        for (part, value) in &run.dsn {
            context.set_envelope(*part, value.as_str());
        }
        let mut state = State::default();
        let main = Script::Personal(String::new());
        let mut input = Input::script(main, Arc::clone(&script.compiled));
        if script.annotations {
            for (place, value) in self.annotations(run.account).await? {
                context.set_medatata(place, value);
            }
        }
        loop {
            input = match context.run(input) {
                None => return Ok(state),
                Some(Ok(event)) => self.event(event, run, &mut state).await?,
                Some(Err(error)) => {
                    tracing::warn!(id = %run.id, account = %run.account, ?error, "a script failed: the message is kept");
                    state.failed = true;
                    return Ok(state);
                }
            };
        }
    }

    async fn event(&self, event: Event, run: &Run<'_>, state: &mut State) -> Result<Input, Fault> {
        let truth = |yes| if yes { Input::True } else { Input::False };
        Ok(match event {
            Event::IncludeScript { name, optional } => self.include(name, optional, run).await?,
            Event::MailboxExists {
                mailboxes,
                special_use,
            } => truth(
                self.mailboxes_exist(run.account, &mailboxes, &special_use)
                    .await?,
            ),
            Event::DuplicateId { id, expiry, last } => {
                truth(self.duplicate(&id, expiry, last, run, state).await?)
            }
            Event::ListContains {
                lists,
                values,
                match_as,
            } => truth(self.lists.have(&lists, &values, &match_as)),
            Event::CreatedMessage {
                message_id,
                message,
            } => {
                state.made.insert(message_id, Arc::new(message));
                Input::True
            }
            Event::Keep { flags, message_id } => {
                state.kept = Some(Filed {
                    flags,
                    content: state.content(message_id, run),
                    ..Filed::default()
                });
                Input::True
            }
            Event::FileInto {
                folder,
                flags,
                mailbox_id,
                special_use,
                create,
                message_id,
            } => {
                let mailbox = self
                    .place(
                        run.account,
                        folder,
                        mailbox_id.as_deref(),
                        special_use.as_deref(),
                    )
                    .await?;
                state.outcome.filed.push(Filed {
                    mailbox,
                    create,
                    flags,
                    content: state.content(message_id, run),
                });
                Input::True
            }
            Event::Reject { reason, .. } => {
                state.outcome.rejected = Some(reason);
                Input::True
            }
            Event::SendMessage {
                recipient,
                notify,
                return_of_content,
                message_id,
                by_time,
            } => {
                let addresses = self.addresses(recipient, state.made.contains_key(&message_id));
                let now = u64::try_from(run.now).unwrap_or_default();
                let options = options(&notify, &return_of_content, &by_time, now);
                state.send(addresses, &notify, &options, message_id, run);
                Input::True
            }
            Event::Notify {
                message, method, ..
            } => {
                state
                    .outcome
                    .sent
                    .extend(notification(&method, &message, run));
                Input::True
            }
            Event::Discard | Event::SetEnvelope { .. } | Event::Function { .. } => Input::True,
        })
    }

    /// To whom something is sent. A list has its own limit; what a script has changed goes along with each address, so only
    /// to as many as it may name.
    fn addresses(&self, recipient: Recipient, changed: bool) -> Vec<String> {
        match recipient {
            Recipient::Address(address) => vec![address],
            Recipient::Group(addresses) => addresses,
            Recipient::List(name) => {
                let mut addresses = self.lists.addresses(&name);
                let most = match changed {
                    true => self.config.limits.redirects,
                    false => self.config.list_recipients,
                };
                if addresses.len() > most {
                    tracing::warn!(
                        list = name,
                        most,
                        "a script sends to more addresses than a list may have"
                    );
                    addresses.truncate(most);
                }
                addresses
            }
        }
    }

    async fn include(&self, name: Script, optional: bool, run: &Run<'_>) -> Result<Input, Fault> {
        let found = match &name {
            Script::Personal(wanted) => {
                let read = self.reader.script(run.account, wanted).await;
                read.map_err(|error| away(&error))?
            }
            Script::Global(wanted) => self.global(wanted),
        };
        let compiled = found.map(|text| compile(&text, &self.config.limits));
        Ok(match compiled {
            Some(Ok(script)) => Input::script(name, script),
            Some(Err(problem)) => {
                tracing::warn!(account = %run.account, ?name, %problem, "an included script does not compile");
                Input::False
            }
            None => {
                if !optional {
                    tracing::warn!(account = %run.account, ?name, "an included script is not there");
                }
                Input::False
            }
        })
    }

    /// A script of the administrator's folder (RFC 6609 3.2): read when it is asked for, so that it can be changed.
    fn global(&self, name: &str) -> Option<Vec<u8>> {
        let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | ' ');
        let folder = self.config.global_dir.as_ref()?;
        if name.is_empty() || !name.chars().all(plain) {
            return None;
        }
        std::fs::read(folder.join(format!("{name}.sieve"))).ok()
    }

    async fn mailboxes_exist(
        &self,
        account: AccountId,
        mailboxes: &[Mailbox],
        special_use: &[String],
    ) -> Result<bool, Fault> {
        let found = self.reader.mailboxes(account).await;
        let found = found.map_err(|error| away(&error))?;
        let there = mailboxes.iter().all(|wanted| match wanted {
            Mailbox::Name(name) => {
                let name = store::canonical(name);
                found.iter().any(|mailbox| mailbox.name == name)
            }
            Mailbox::Id(id) => found.iter().any(|mailbox| is_id(id, mailbox.id)),
        });
        let used = special_use.iter().all(|wanted| {
            let same = |one: &String| one.eq_ignore_ascii_case(wanted);
            found
                .iter()
                .any(|mailbox| mailbox.special_use.as_ref().is_some_and(same))
        });
        Ok(there && used)
    }

    /// The mailbox that `fileinto` means: by its id (RFC 9042), by its use (RFC 8579), else by its name.
    pub(crate) async fn place(
        &self,
        account: AccountId,
        folder: String,
        id: Option<&str>,
        special_use: Option<&str>,
    ) -> Result<String, Fault> {
        if id.is_none() && special_use.is_none() {
            return Ok(folder);
        }
        let found = self.reader.mailboxes(account).await;
        let found = found.map_err(|error| away(&error))?;
        let by_id = found
            .iter()
            .find(|mailbox| id.is_some_and(|id| is_id(id, mailbox.id)));
        let by_use = || {
            found.iter().find(|mailbox| {
                let own = mailbox.special_use.as_deref();
                own.is_some_and(|own| {
                    special_use.is_some_and(|wanted| own.eq_ignore_ascii_case(wanted))
                })
            })
        };
        let found = by_id.or_else(by_use);
        Ok(found.map_or(folder, |mailbox| mailbox.name.clone()))
    }

    /// Whether that was seen before (RFC 7352, RFC 5230 4.2), and from now on it is.
    async fn duplicate(
        &self,
        id: &str,
        expiry: u64,
        last: bool,
        run: &Run<'_>,
        state: &mut State,
    ) -> Result<bool, Fault> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&run.account.0.to_le_bytes());
        hasher.update(id.as_bytes());
        let [a, b, c, d, e, f, g, h, ..] = *hasher.finalize().as_bytes();
        let key = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        // What another message finds new at this moment is seen.
        let Ok(flight) = self.flying.take(key, run.id) else {
            return Ok(true);
        };
        let here = state.outcome.notes.iter().any(|(known, _)| *known == key);
        let known = self
            .reader
            .remembered(run.account, &[key], run.now, run.id)
            .await
            .map_err(|error| away(&error))?;
        let seen = here || !known.is_empty();
        if !seen || last {
            let most = 90 * 86_400;
            let until = i64::try_from(expiry.min(most)).unwrap_or(most as i64);
            state
                .outcome
                .notes
                .push((key, run.now.saturating_add(until)));
            state.outcome.flights.extend(flight);
        }
        Ok(seen)
    }
}

impl State {
    /// What a message of that number is, if it is not the one that came.
    fn content(&self, number: usize, run: &Run<'_>) -> Option<Arc<Vec<u8>>> {
        if run.cut {
            return None;
        }
        self.made.get(&number).cloned()
    }

    fn send(
        &mut self,
        addresses: Vec<String>,
        notify: &Notify,
        options: &RedirectOptions,
        number: usize,
        run: &Run<'_>,
    ) {
        let made = self.made.get(&number).cloned();
        // What a script makes itself says so; what it changes and sends on does not.
        let answer = made.as_ref().filter(|content| {
            message::Fields::new(content.as_slice())
                .any(|field| field.name.eq_ignore_ascii_case(b"auto-submitted"))
                && *notify == Notify::Never
        });
        for address in addresses {
            let Ok(to) = address.parse::<Address>() else {
                tracing::info!(id = %run.id, account = %run.account, "a script sends to what is no address");
                continue;
            };
            let sent = match answer {
                Some(content) => Sent::Made {
                    to,
                    content: Arc::clone(content),
                },
                None => Sent::Redirect {
                    to,
                    content: made.clone().filter(|_| !run.cut),
                    options: options.clone(),
                },
            };
            if !self.outcome.sent.contains(&sent) {
                self.outcome.sent.push(sent);
            }
        }
    }
}

/// RFC 6009 4, 6
fn options(notify: &Notify, ret: &Ret, by: &ByTime<i64>, now: u64) -> RedirectOptions {
    RedirectOptions {
        notify: match notify {
            Notify::Default => None,
            Notify::Never => Some(asked(&[])),
            Notify::Items(items) => Some(asked(items)),
        },
        ret: match ret {
            Ret::Default => None,
            Ret::Full => Some(types::Ret::Full),
            Ret::Hdrs => Some(types::Ret::Headers),
        },
        anywhere: true,
        sender: None,
        by: time_limit(by, now),
    }
}

/// RFC 6009 6. What is no time is no limit; a mode that is not given tells the sender and loses nothing.
fn time_limit(by: &ByTime<i64>, now: u64) -> Option<DeliverBy> {
    let (deadline, mode, trace) = match by {
        ByTime::None => return None,
        ByTime::Relative {
            rlimit,
            mode,
            trace,
        } => (now.saturating_add((*rlimit).min(BY_MAX)), mode, trace),
        ByTime::Absolute {
            alimit,
            mode,
            trace,
        } => {
            let deadline = u64::try_from(*alimit).ok().filter(|at| *at > 0)?;
            (deadline.min(now.saturating_add(BY_MAX)), mode, trace)
        }
    };
    Some(DeliverBy {
        deadline,
        mode: match mode {
            ByMode::Return => types::ByMode::Return,
            ByMode::Notify | ByMode::Default => types::ByMode::Notify,
        },
        trace: *trace,
    })
}

fn asked(items: &[NotifyItem]) -> types::Notify {
    types::Notify {
        success: items.contains(&NotifyItem::Success),
        failure: items.contains(&NotifyItem::Failure),
        delay: items.contains(&NotifyItem::Delay),
        explicit: true,
    }
}

/// MAILBOXID as IMAP shows it.
fn is_id(text: &str, id: types::MailboxId) -> bool {
    text.strip_prefix('F') == Some(id.to_string().as_str())
}

/// Each place once; keep, if it is there, is the first. What is filed nowhere else when places run out is kept.
fn bounded(mut outcome: Outcome, kept: Option<Filed>) -> Outcome {
    let mut seen = HashSet::new();
    outcome.filed.retain(|filed| {
        seen.insert((
            filed.mailbox.clone(),
            filed.content.as_ref().map(|content| content.len()),
        ))
    });
    if outcome.filed.len() > FILED_MAX {
        tracing::warn!("a script files a message into too many places");
        outcome.filed.truncate(FILED_MAX);
    }
    if let Some(kept) = kept {
        let inbox = |filed: &Filed| {
            filed.mailbox.eq_ignore_ascii_case("INBOX") && filed.content == kept.content
        };
        if !outcome.filed.iter().any(inbox) {
            outcome.filed.insert(0, kept);
        }
    }
    outcome
}

/// A notification by mail (RFC 5436).
fn notification(method: &str, text: &str, run: &Run<'_>) -> Option<Sent> {
    let rest = method
        .strip_prefix("mailto:")
        .or_else(|| method.strip_prefix("MAILTO:"))?;
    let to = rest
        .split('?')
        .next()
        .unwrap_or_default()
        .replace("%40", "@");
    let to: Address = to.parse().ok()?;
    // RFC 5436 2.7.1: no notification of what a machine wrote, lest two of them talk for ever.
    let automatic = message::Fields::new(run.octets).any(|field| {
        field.name.eq_ignore_ascii_case(b"auto-submitted")
            && !field.value.trim_ascii().eq_ignore_ascii_case(b"no")
    });
    if automatic {
        return None;
    }
    let subject = message::Fields::new(run.octets)
        .find(|field| field.name.eq_ignore_ascii_case(b"subject"))
        .map(|field| String::from_utf8_lossy(field.value).trim().to_owned())
        .unwrap_or_default();
    let clean = |text: &str| {
        text.chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect::<String>()
    };
    let summary = if text.is_empty() {
        format!("New mail: {subject}")
    } else {
        text.to_owned()
    };
    let built = mail_builder::MessageBuilder::new()
        .from(run.name.to_string())
        .to(to.to_string())
        .subject(clean(summary.lines().next().unwrap_or_default()))
        .header(
            "Auto-Submitted",
            mail_builder::headers::raw::Raw::new(format!(
                "auto-notified; owner-email=\"{}\"",
                run.name
            )),
        )
        .text_body(summary)
        .write_to_vec()
        .ok()?;
    Some(Sent::Made {
        to,
        content: Arc::new(built),
    })
}

fn load(file: &std::path::Path, config: &SieveConfig) -> Result<Prepared, String> {
    let text = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Prepared::new(&text, &config.limits).map_err(|problem| format!("{}: {problem}", file.display()))
}
