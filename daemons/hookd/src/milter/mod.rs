//! A conversation with a milter: one connection for the transactions of a session.

mod link;
mod symbols;

pub(crate) use symbols::bits;

use crate::config::{MilterConfig, Stage};
use crate::filter::{Answer, Trouble, View, Word};
use crate::letter::{Author, Change, Field, Letter};
use ::milter::{Actions, CHUNK, Family, Place, Reply, Steps, put};
use ipc::api::hookd::HookFacts;
use link::Link;
use runtime::Source;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use types::Enhanced;

/// A session's talk with one milter.
#[derive(Debug)]
pub(crate) struct Talk {
    config: Arc<MilterConfig>,
    link: Option<Link>,
    /// What it was told at HELO on this connection.
    told: Option<HookFacts>,
    /// It is in a transaction.
    in_message: bool,
}

/// Whether it answers to an offer: with what it wants.
pub(crate) async fn probe(config: &MilterConfig) -> Result<String, Trouble> {
    let until = Instant::now() + seconds(config.connect_timeout_s);
    let mut link = Link::open(config, until).await?;
    let terms = &link.terms;
    let text = format!(
        "version {}, actions {:#x}, steps {:#x}",
        terms.version, terms.actions.0, terms.steps.0
    );
    link.quit().await;
    Ok(text)
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count.max(1))
}

/// Whether a word ends what the milter knows of the message.
fn is_end(word: &Word) -> bool {
    !matches!(word, Word::Go)
}

impl Talk {
    pub(crate) fn new(config: Arc<MilterConfig>) -> Self {
        Self {
            config,
            link: None,
            told: None,
            in_message: false,
        }
    }

    /// Nothing of the conversation is of use any more; the next transaction begins another one.
    pub(crate) fn drop_link(&mut self) {
        self.link = None;
        self.told = None;
        self.in_message = false;
    }

    /// Asks at a stage other than `data`.
    pub(crate) async fn ask(
        &mut self,
        stage: Stage,
        view: &View<'_>,
        until: Instant,
    ) -> Result<Word, Trouble> {
        let word = self.greet(stage, view, until).await?;
        if is_end(&word) {
            return Ok(word);
        }
        match stage {
            Stage::Connect | Stage::Ehlo | Stage::Data => Ok(Word::Go),
            Stage::Mail => self.mail(view, until).await,
            Stage::Rcpt => self.rcpt(view, until).await,
        }
    }

    /// Connects, and tells of the client and its HELO what was not told on this connection.
    async fn greet(
        &mut self,
        stage: Stage,
        view: &View<'_>,
        until: Instant,
    ) -> Result<Word, Trouble> {
        if self.link.is_none() {
            let mut link = Link::open(&self.config, until).await?;
            let wanted = !link.terms.steps.has(Steps::NO_CONNECT);
            if wanted {
                link.symbols(b'C', symbols::connect(&link.terms, view));
                let (name, family) = client(view);
                put::connect(&mut link.out, &name, family);
                if !link.terms.steps.has(Steps::NO_REPLY_CONNECT) {
                    let word = said(link.answer(until).await?)?;
                    if is_end(&word) {
                        // Whoever comes back is told the same by it.
                        link.quit().await;
                        return Ok(word);
                    }
                }
            }
            self.link = Some(link);
        }
        if matches!(stage, Stage::Connect) || self.told.as_ref() == Some(view.facts) {
            return Ok(Word::Go);
        }
        let Some(link) = &mut self.link else {
            return Err(Trouble::new("no connection"));
        };
        let again = self.told.as_ref().is_some_and(|told| {
            stage != Stage::Ehlo && (&told.hello, &told.tls) == (&view.facts.hello, &view.facts.tls)
        });
        self.told = Some(view.facts.clone());
        if again || view.facts.hello.is_empty() || link.terms.steps.has(Steps::NO_HELO) {
            // Only a login came since.
            return Ok(Word::Go);
        }
        link.symbols(b'H', symbols::hello(&link.terms, view));
        put::hello(&mut link.out, &view.facts.hello);
        if link.terms.steps.has(Steps::NO_REPLY_HELO) {
            return Ok(Word::Go);
        }
        let word = said(link.answer(until).await?)?;
        if is_end(&word) {
            self.told = None;
        }
        Ok(word)
    }

    async fn mail(&mut self, view: &View<'_>, until: Instant) -> Result<Word, Trouble> {
        self.abort();
        let Some((link, mail)) = self.link.as_mut().zip(view.mail) else {
            return Err(Trouble::new("no transaction"));
        };
        self.in_message = true;
        if link.terms.steps.has(Steps::NO_MAIL) {
            return Ok(Word::Go);
        }
        link.symbols(b'M', symbols::mail(&link.terms, view, mail));
        let address = format!("<{}>", mail.sender.address);
        put::mail(&mut link.out, &address, &mail.sender.parameters);
        if link.terms.steps.has(Steps::NO_REPLY_MAIL) {
            return Ok(Word::Go);
        }
        let word = said(link.answer(until).await?)?;
        self.in_message = !is_end(&word);
        Ok(word)
    }

    async fn rcpt(&mut self, view: &View<'_>, until: Instant) -> Result<Word, Trouble> {
        let Some((link, mail)) = self.link.as_mut().zip(view.mail) else {
            return Err(Trouble::new("no transaction"));
        };
        let Some(recipient) = mail.recipients.last() else {
            return Ok(Word::Go);
        };
        if !self.in_message {
            return Err(Trouble::new("the connection was lost since MAIL"));
        }
        if link.terms.steps.has(Steps::NO_RCPT) {
            return Ok(Word::Go);
        }
        link.symbols(b'R', symbols::rcpt(&link.terms, mail, recipient));
        let address = format!("<{}>", recipient.address);
        put::rcpt(&mut link.out, &address, &recipient.parameters);
        if link.terms.steps.has(Steps::NO_REPLY_RCPT) {
            return Ok(Word::Go);
        }
        let word = said(link.answer(until).await?)?;
        // A refusal is about this recipient alone.
        self.in_message = !matches!(word, Word::Accept | Word::Discard);
        Ok(word)
    }

    /// Tells of the end of a transaction without a message. It is sent with what comes next.
    pub(crate) fn abort(&mut self) {
        if std::mem::take(&mut self.in_message)
            && let Some(link) = &mut self.link
        {
            put::abort(&mut link.out);
        }
    }

    /// As [`Self::abort`], at once.
    pub(crate) async fn abort_now(&mut self) {
        self.abort();
        if let Some(link) = &mut self.link
            && link.flush(Instant::now() + seconds(1)).await.is_err()
        {
            self.drop_link();
        }
    }

    /// The session is over.
    pub(crate) async fn quit(&mut self) {
        if let Some(mut link) = self.link.take() {
            link.quit().await;
        }
    }

    /// Shows it the message, and does what it wants.
    pub(crate) async fn message(
        &mut self,
        view: &View<'_>,
        letter: &mut Letter,
        by: Author<'_>,
        until: Instant,
    ) -> Result<Word, Trouble> {
        if !self.in_message {
            return Err(Trouble::new("the connection was lost since MAIL"));
        }
        // Whatever comes of it, the message is over for this filter.
        self.in_message = false;
        let Some((link, mail)) = self.link.as_mut().zip(view.mail) else {
            return Err(Trouble::new("no transaction"));
        };
        link.begin_response();
        let id = symbols::message(&link.terms, Place::Data, mail);
        if link.terms.version > 3 && !link.terms.steps.has(Steps::NO_DATA) {
            link.symbols(b'T', id.clone());
            put::data(&mut link.out);
            if !link.terms.steps.has(Steps::NO_REPLY_DATA) {
                let word = said(link.answer(until).await?)?;
                if is_end(&word) {
                    return Ok(word);
                }
            }
        }
        let word = header(link, letter, until).await?;
        if is_end(&word) {
            return Ok(word);
        }
        if !link.terms.steps.has(Steps::NO_EOH) {
            link.symbols(
                b'N',
                symbols::message(&link.terms, Place::EndOfHeader, mail),
            );
            put::end_of_header(&mut link.out);
            if !link.terms.steps.has(Steps::NO_REPLY_EOH) {
                let word = said(link.answer(until).await?)?;
                if is_end(&word) {
                    return Ok(word);
                }
            }
        }
        if !link.terms.steps.has(Steps::NO_BODY) {
            let word = text(link, letter, until).await?;
            if is_end(&word) {
                return Ok(word);
            }
        }
        link.symbols(b'E', symbols::message(&link.terms, Place::End, mail));
        put::end(&mut link.out);
        link.patience = seconds(self.config.message_timeout_s);
        let ended = end(link, by, until).await;
        link.patience = seconds(self.config.command_timeout_s);
        let (word, changes) = ended?;
        if matches!(word, Word::Go | Word::Accept) {
            for change in changes {
                letter.apply(change, by);
            }
        }
        Ok(word)
    }
}

/// The client's name and address as CONNECT tells them.
fn client(view: &View<'_>) -> (String, Family) {
    match view.client.address {
        Some(address) => {
            let name = view
                .name
                .map_or_else(|| format!("[{}]", address.to_canonical()), str::to_owned);
            let family = Family::Ip(SocketAddr::new(address.to_canonical(), view.client.port));
            (name, family)
        }
        None => ("localhost".to_owned(), Family::Unknown),
    }
}

async fn header(link: &mut Link, letter: &Letter, until: Instant) -> Result<Word, Trouble> {
    let steps = link.terms.steps;
    if steps.has(Steps::NO_HEADERS) {
        return Ok(Word::Go);
    }
    for field in letter
        .fields
        .iter()
        .filter(|field| !field.name().is_empty())
    {
        let value = shown(field, steps.has(Steps::LEADING_SPACE));
        put::header(&mut link.out, field.name(), &value);
        if !steps.has(Steps::NO_REPLY_HEADER) {
            let word = said(link.answer(until).await?)?;
            if is_end(&word) {
                return Ok(word);
            }
        } else {
            link.flush_if_full(until).await?;
        }
    }
    Ok(Word::Go)
}

/// A field's value with LF for each line end; one blank before it is the colon's, all blanks where the filter wants none.
fn shown(field: &Field, leading: bool) -> Vec<u8> {
    let value = field.value();
    let value = if leading {
        value
    } else {
        value.trim_ascii_start()
    };
    let mut lines = Vec::with_capacity(value.len());
    for octet in value {
        if *octet != b'\r' {
            lines.push(*octet);
        }
    }
    lines
}

async fn text(link: &mut Link, letter: &Letter, until: Instant) -> Result<Word, Trouble> {
    let replies = !link.terms.steps.has(Steps::NO_REPLY_BODY);
    let mut at = 0;
    loop {
        let piece = letter.text.piece(at, Source::PIECE).await?;
        if piece.is_empty() {
            return Ok(Word::Go);
        }
        at += piece.len() as u64;
        for chunk in piece.chunks(CHUNK) {
            put::body(&mut link.out, chunk);
            if replies {
                match link.answer(until).await? {
                    Reply::Skip => return Ok(Word::Go),
                    reply => {
                        let word = said(reply)?;
                        if is_end(&word) {
                            return Ok(word);
                        }
                    }
                }
            } else {
                link.flush_if_full(until).await?;
            }
        }
    }
}

/// What it does to the message, and its last word.
async fn end(
    link: &mut Link,
    by: Author<'_>,
    until: Instant,
) -> Result<(Word, Vec<Change>), Trouble> {
    let mut changes = Vec::new();
    let mut new_text: Option<Vec<u8>> = None;
    loop {
        let reply = link.answer(until).await?;
        if !may(link.terms.actions, &reply) {
            tracing::warn!(
                filter = by.filter,
                ?reply,
                "a filter does what it did not ask for: left undone"
            );
            continue;
        }
        let leading = link.terms.steps.has(Steps::LEADING_SPACE);
        let change = match reply {
            Reply::AddHeader { name, value } => Change::Add(name, written(value, leading)),
            Reply::InsertHeader { index, name, value } => {
                Change::Insert(number(index), name, written(value, leading))
            }
            Reply::ChangeHeader { index, name, value } => {
                Change::Replace(number(index), name, written(value, leading))
            }
            Reply::ChangeSender {
                address,
                parameters,
            } => Change::Sender(path(&address)?, words(&parameters)),
            Reply::AddRecipient {
                address,
                parameters,
            } => Change::AddRecipient(path(&address)?, words(&parameters).join(" ")),
            Reply::DeleteRecipient(address) => Change::DeleteRecipient(path(&address)?),
            Reply::ReplaceBody(piece) => {
                new_text.get_or_insert_default().extend_from_slice(&piece);
                continue;
            }
            Reply::Quarantine(reason) => {
                Change::Quarantine(String::from_utf8_lossy(&reason).into_owned(), None)
            }
            last => {
                changes.extend(new_text.map(Change::Text));
                return Ok((said(last)?, changes));
            }
        };
        changes.push(change);
    }
}

fn number(index: u32) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}

/// A value as it stands behind the colon: where blanks before it are the filter's business, none is put there.
fn written(value: Vec<u8>, leading: bool) -> Vec<u8> {
    if leading || value.is_empty() {
        return value;
    }
    let mut spaced = vec![b' '];
    spaced.extend_from_slice(value.trim_ascii_start());
    spaced
}

/// Whether it said at first that it would do so.
fn may(actions: Actions, reply: &Reply) -> bool {
    let needs = match reply {
        Reply::AddHeader { .. } | Reply::InsertHeader { .. } => Actions::ADD_HEADERS,
        Reply::ChangeHeader { .. } => Actions::CHANGE_HEADERS,
        Reply::ChangeSender { .. } => Actions::CHANGE_SENDER,
        Reply::AddRecipient { parameters, .. } if parameters.is_empty() => {
            return actions.has(Actions::ADD_RECIPIENTS)
                || actions.has(Actions::ADD_RECIPIENTS_WITH);
        }
        Reply::AddRecipient { .. } => Actions::ADD_RECIPIENTS_WITH,
        Reply::DeleteRecipient(_) => Actions::DELETE_RECIPIENTS,
        Reply::ReplaceBody(_) => Actions::CHANGE_BODY,
        Reply::Quarantine(_) => Actions::QUARANTINE,
        _ => return true,
    };
    actions.has(needs)
}

/// An address without its brackets.
fn path(octets: &[u8]) -> Result<String, Trouble> {
    let text = std::str::from_utf8(octets)
        .map_err(|_| Trouble::new("it names an address that is not UTF-8"))?
        .trim();
    let inner = text
        .strip_prefix('<')
        .and_then(|text| text.strip_suffix('>'));
    Ok(inner.unwrap_or(text).to_owned())
}

fn words(parameters: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(parameters)
        .split_ascii_whitespace()
        .map(str::to_owned)
        .collect()
}

/// A reply as a word.
fn said(reply: Reply) -> Result<Word, Trouble> {
    Ok(match reply {
        Reply::Continue => Word::Go,
        Reply::Accept => Word::Accept,
        Reply::Discard => Word::Discard,
        Reply::Reject => Word::Refuse(Answer::rejected()),
        Reply::TempFail => Word::Refuse(Answer::later()),
        Reply::ReplyCode(data) => match ::milter::answer(&data) {
            Some(answer) => {
                let class = u8::try_from(answer.code / 100).unwrap_or(5);
                let (first, second, third) = answer.enhanced.unwrap_or((class, 7, 1));
                Word::Refuse(Answer {
                    code: answer.code,
                    enhanced: Enhanced(first, second, third),
                    text: answer.lines.join("\n"),
                    close: answer.code == 421,
                })
            }
            None => Word::Refuse(Answer::rejected()),
        },
        Reply::Shutdown => Word::Refuse(Answer {
            code: 421,
            enhanced: Enhanced(4, 7, 0),
            text: "Closing the connection".to_owned(),
            close: true,
        }),
        Reply::ConnectionFailed => return Err(Trouble::new("it says that it has failed")),
        other => {
            return Err(Trouble::new(format!(
                "it answers what is no answer here: {}",
                kind(&other)
            )));
        }
    })
}

/// A reply without what is in it.
fn kind(reply: &Reply) -> &'static str {
    match reply {
        Reply::Negotiate(_) => "an offer",
        Reply::Skip => "skip",
        Reply::Progress => "progress",
        _ => "a change of the message",
    }
}
