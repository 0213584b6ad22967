//! Addresses of the envelope that are changed on arrival, and recipients that are added in silence: `[[smtpd.rewrite]]` and
//! `[[smtpd.bcc]]`. Without such rules a session does not come here at all.

mod config;
mod fields;
mod pattern;
mod template;
#[cfg(test)]
mod tests;

pub use config::{BccRule, RewriteRule, Which};

use crate::config::Config;
use pattern::Pattern;
use runtime::Failure;
use template::Template;
use types::{Address, Recipient};

/// Rules of each kind at most: all are looked at for each address.
const RULES: usize = 1000;

/// Addresses that one rule adds at most.
const COPIES: usize = 20;

/// The rules, ready for use.
#[derive(Debug)]
pub(crate) struct Rewriting {
    rules: Vec<Rule>,
    copies: Vec<Copies>,
}

/// One `[[smtpd.rewrite]]`.
#[derive(Debug)]
struct Rule {
    which: Which,
    conditions: Conditions,
    header: bool,
    from: Pattern,
    to: Template,
}

/// One `[[smtpd.bcc]]`.
#[derive(Debug)]
struct Copies {
    conditions: Conditions,
    senders: Vec<Pattern>,
    recipients: Vec<Pattern>,
    to: Vec<Address>,
}

/// For which sessions a rule is.
#[derive(Debug)]
struct Conditions {
    listeners: Vec<String>,
    login: Option<bool>,
}

impl Conditions {
    fn hold(&self, session: Circumstances<'_>) -> bool {
        let here = |name: &String| name == session.listener;
        (self.listeners.is_empty() || self.listeners.iter().any(here))
            && self.login.is_none_or(|login| login == session.login)
    }
}

/// What rules look at besides addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Circumstances<'a> {
    /// The listener's name.
    pub(crate) listener: &'a str,
    /// Whether the client has logged in.
    pub(crate) login: bool,
}

/// Whose address one rewrites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// MAIL's.
    Sender,
    /// RCPT's.
    Recipient,
    /// From, Sender or Reply-To of a submission.
    Header,
}

impl Rewriting {
    /// The rules of a configuration; `None` if there are none.
    ///
    /// # Errors
    /// A rule that makes no sense, by its number.
    pub(crate) fn new(config: &Config) -> Result<Option<Self>, Failure> {
        if config.rewrite.is_empty() && config.bcc.is_empty() {
            return Ok(None);
        }
        let known = |name: &String| config.listener.iter().any(|one| one.name == *name);
        let conditions = |listeners: &[String], login| match listeners.iter().find(|n| !known(n)) {
            Some(name) => Err(format!("there is no listener {name:?}")),
            None => Ok(Conditions {
                listeners: listeners.to_vec(),
                login,
            }),
        };
        let rule = |rule: &RewriteRule| {
            let from = Pattern::new(&rule.from)?;
            let to = Template::new(&rule.to, &from)?;
            if rule.header && (rule.which == Which::Recipient || rule.login == Some(false)) {
                return Err("header = true is for senders that have logged in".to_owned());
            }
            Ok(Rule {
                which: rule.which,
                conditions: conditions(&rule.listeners, rule.login)?,
                header: rule.header,
                from,
                to,
            })
        };
        let copies = |rule: &BccRule| {
            let patterns = |texts: &[String]| -> Result<Vec<Pattern>, String> {
                texts.iter().map(|text| Pattern::new(text)).collect()
            };
            let address = |text: &String| {
                let parsed = text.parse::<Address>();
                parsed.map_err(|error| format!("to {text:?}: {error}"))
            };
            if rule.senders.is_empty() && rule.recipients.is_empty() {
                return Err(
                    "senders or recipients must say whose mail is meant (\"*\": all)".to_owned(),
                );
            }
            if rule.to.is_empty() || rule.to.len() > COPIES {
                return Err(format!("to has 1 to {COPIES} addresses"));
            }
            Ok(Copies {
                conditions: conditions(&rule.listeners, None)?,
                senders: patterns(&rule.senders)?,
                recipients: patterns(&rule.recipients)?,
                to: rule.to.iter().map(address).collect::<Result<_, _>>()?,
            })
        };
        Ok(Some(Self {
            rules: each("rewrite", &config.rewrite, rule)?,
            copies: each("bcc", &config.bcc, copies)?,
        }))
    }

    /// What the first rule that fits makes of an address; `None` if it stays. One pass: what comes out is not rewritten again.
    pub(crate) fn rewrite(
        &self,
        address: &Address,
        place: Place,
        session: Circumstances<'_>,
    ) -> Option<Address> {
        let fitting = |rule: &&Rule| match place {
            Place::Sender => rule.which != Which::Recipient,
            Place::Recipient => rule.which != Which::Sender,
            Place::Header => rule.header && rule.which != Which::Recipient && session.login,
        };
        for rule in self.rules.iter().filter(fitting) {
            if !rule.conditions.hold(session) {
                continue;
            }
            let Some(captures) = rule.from.captures(address) else {
                continue;
            };
            let new = rule.to.expand(address, &captures);
            if new.is_none() {
                tracing::warn!(%address, "what a rule of smtpd.rewrite makes of it is no address: it stays");
            }
            return new.filter(|new| new != address);
        }
        None
    }

    /// Whether rules rewrite header fields under these circumstances.
    pub(crate) fn has_header_rules(&self, session: Circumstances<'_>) -> bool {
        let fits = |rule: &Rule| rule.header && rule.conditions.hold(session);
        session.login && self.rules.iter().any(fits)
    }

    /// A header with From, Sender and Reply-To rewritten; `None` if all stays.
    pub(crate) fn header(&self, octets: &[u8], session: Circumstances<'_>) -> Option<Vec<u8>> {
        fields::rewrite(octets, &|address| {
            self.rewrite(address, Place::Header, session)
        })
    }

    /// Who else gets a message, each once, without those that get it anyway.
    pub(crate) fn copies(
        &self,
        sender: Option<&Address>,
        recipients: &[Recipient],
        session: Circumstances<'_>,
    ) -> Vec<Address> {
        let mut added: Vec<Address> = Vec::new();
        for rule in &self.copies {
            let of_sender = || rule.senders.iter().any(|pattern| pattern.fits(sender));
            let of_recipient = || {
                let fits = |one: &Recipient| {
                    let address = Some(&one.address);
                    rule.recipients.iter().any(|pattern| pattern.fits(address))
                };
                recipients.iter().any(fits)
            };
            let meant = rule.conditions.hold(session)
                && (rule.senders.is_empty() || of_sender())
                && (rule.recipients.is_empty() || of_recipient());
            for address in rule.to.iter().filter(|_| meant) {
                let same = |other: &Address| other.key() == address.key();
                let has = recipients.iter().any(|one| same(&one.address));
                if !has && !added.iter().any(same) {
                    added.push(address.clone());
                }
            }
        }
        added
    }
}

/// Makes something of each rule; errors name the rule.
fn each<T, U>(
    section: &str,
    rules: &[T],
    make: impl Fn(&T) -> Result<U, String>,
) -> Result<Vec<U>, Failure> {
    if rules.len() > RULES {
        let text = format!("smtpd.{section}: there are more than {RULES} rules");
        return Err(Failure::new(text));
    }
    let one = |(at, rule): (usize, &T)| {
        make(rule)
            .map_err(|text| Failure::new(format!("smtpd.{section}, number {}: {text}", at + 1)))
    };
    rules.iter().enumerate().map(one).collect()
}
