//! `[[queued.rule]]`: certain mail goes another way, by another schedule, or at another speed.
//!
//! The first rule whose conditions all hold decides, for each recipient of a message. It is looked for whenever something is
//! to be decided, not once at the beginning: a rule that is changed holds for what is in the queue, too.

use crate::pace::Rate;
use crate::record::Head;
use ipc::api::relayd::{Manner, TlsDemand};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::sync::Arc;
use types::{Address, QueueId};

/// `[[queued.rule]]`. The first rule whose conditions all hold decides; what it leaves out is as `[queued]` and `[relayd]` say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuleConfig {
    /// Its name, which must be its own: lower-case letters, digits, `-` and `_`.
    pub name: String,

    /// Condition: one of these senders. `jane@example.org`, `example.org`, `.example.org` (all below it), `*`, or `<>` (reports).
    pub sender: Vec<String>,
    /// Condition: the recipient's domain. `example.net`, `.example.net` (all below it), `*`.
    pub domain: Vec<String>,
    /// Condition: one of these listeners of smtpd took it.
    pub listener: Vec<String>,
    /// Condition: it has more octets.
    pub larger: Option<u64>,
    /// Condition: it has fewer octets.
    pub smaller: Option<u64>,
    /// Condition: its priority is this or higher, -9 to 9.
    pub priority_from: Option<i8>,
    /// Condition: its priority is this or lower, -9 to 9.
    pub priority_to: Option<i8>,

    /// The pauses between attempts in seconds; the last one is for all further ones.
    pub schedule: Vec<u64>,
    /// As `queued.expire`.
    pub expire: Option<u64>,
    /// As `queued.delay_warning`.
    pub delay_warning: Option<u64>,
    /// A route of relayd's configuration by name, or `host:port`.
    pub route: Option<String>,
    /// Source addresses. With several, a message has one of them and keeps it for all its attempts.
    pub source: Vec<IpAddr>,
    /// The name in EHLO; or one for each source address.
    pub hello: Vec<String>,
    /// TLS: `none`, `opportunistic`, `required`, or `verified` (required, and the certificate must be valid).
    pub tls: Option<TlsDemand>,
    /// As `queued.destination_max`.
    pub concurrency: Option<usize>,
    /// Messages to one destination in a period: `100/1h`. Kept in memory: it begins anew when queued does.
    pub rate: Option<Rate>,
}

/// What a rule looks at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Looked<'a> {
    pub(crate) sender: Option<&'a Address>,
    /// Of the recipient.
    pub(crate) domain: &'a str,
    pub(crate) listener: &'a str,
    pub(crate) size: u64,
    pub(crate) priority: i8,
}

impl<'a> Looked<'a> {
    pub(crate) fn of(head: &'a Head, domain: &'a str) -> Self {
        Self {
            sender: head.envelope.sender.as_ref(),
            domain,
            listener: &head.listener,
            size: head.size(),
            priority: head.envelope.terms.effective_priority(),
        }
    }
}

/// Whether a pattern (`example.org`, `.example.org`, `*`) means a domain.
fn means(pattern: &str, domain: &str) -> bool {
    pattern == "*" || pattern == domain || (pattern.starts_with('.') && domain.ends_with(pattern))
}

/// Whether a pattern of `sender` means a sender.
fn means_sender(pattern: &str, sender: Option<&Address>) -> bool {
    match (pattern, sender) {
        ("<>", sender) => sender.is_none(),
        ("*", _) => true,
        (_, None) => false,
        (pattern, Some(sender)) if pattern.contains('@') => sender.key() == pattern,
        (pattern, Some(sender)) => means(pattern, sender.domain()),
    }
}

/// A pattern in the form in which it is compared; an error says what is wrong.
fn pattern(text: &str, of_sender: bool) -> Result<String, String> {
    if text == "*" || (of_sender && text == "<>") {
        return Ok(text.to_owned());
    }
    if of_sender && text.contains('@') && !text.starts_with('@') {
        return text
            .parse::<Address>()
            .map(|address| address.key())
            .map_err(|error| format!("{text:?}: {error}"));
    }
    let (dot, domain) = match text.strip_prefix('.') {
        Some(domain) => (".", domain),
        None => ("", text.strip_prefix('@').unwrap_or(text)),
    };
    Address::domain_of(domain)
        .map(|domain| format!("{dot}{domain}"))
        .map_err(|error| format!("{text:?}: {error}"))
}

impl RuleConfig {
    /// Why it does not mean this mail; `None` if it does.
    pub(crate) fn objection(&self, mail: &Looked<'_>) -> Option<&'static str> {
        let any = |list: &[String], means: &dyn Fn(&str) -> bool| {
            list.is_empty() || list.iter().any(|pattern| means(pattern))
        };
        if !any(&self.sender, &|one| means_sender(one, mail.sender)) {
            Some("the sender")
        } else if !any(&self.domain, &|one| means(one, mail.domain)) {
            Some("the recipient's domain")
        } else if !any(&self.listener, &|one| one == mail.listener) {
            Some("the listener")
        } else if self.larger.is_some_and(|than| mail.size <= than)
            || self.smaller.is_some_and(|than| mail.size >= than)
        {
            Some("the size")
        } else if self.priority_from.is_some_and(|from| mail.priority < from)
            || self.priority_to.is_some_and(|to| mail.priority > to)
        {
            Some("the priority")
        } else {
            None
        }
    }

    /// Whether its mail stands in a queue of its own: what decides how a destination is spoken to must not be mixed.
    pub(crate) fn is_apart(&self) -> bool {
        self.route.is_some()
            || !self.source.is_empty()
            || !self.hello.is_empty()
            || self.tls.is_some()
            || self.concurrency.is_some()
            || self.rate.is_some()
    }

    /// How a message leaves. It keeps its source address: a host that asked it to come again should know it again.
    pub(crate) fn manner(&self, id: QueueId) -> Manner {
        // Of an id neither the upper nor the lower bits are spread evenly; of its multiple by the golden ratio they are.
        let spread = id.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let place = usize::try_from(spread % (self.source.len().max(1) as u64)).unwrap_or(0);
        Manner {
            source: self.source.get(place).copied(),
            hello: self.hello.get(place).or(self.hello.first()).cloned(),
            tls: self.tls,
        }
    }

    /// The pause after so many attempts, if it has a schedule.
    pub(crate) fn pause(&self, attempts: u32) -> Option<u64> {
        let at = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
        self.schedule.get(at).or(self.schedule.last()).copied()
    }

    /// In the form in which it is compared.
    fn normal(&self) -> Result<Self, String> {
        let list = |texts: &[String], of_sender| {
            texts
                .iter()
                .map(|text| pattern(text, of_sender))
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            sender: list(&self.sender, true)?,
            domain: list(&self.domain, false)?,
            ..self.clone()
        })
    }

    /// What is wrong with it, taken by itself.
    fn fault(&self) -> Option<String> {
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
        if self.name.is_empty() || self.name.len() > 40 || !self.name.bytes().all(letter) {
            return Some("a name has 1 to 40 lower-case letters, digits, - and _".to_owned());
        }
        if let Err(error) = self.normal() {
            return Some(error);
        }
        if let (Some(larger), Some(smaller)) = (self.larger, self.smaller)
            && larger.saturating_add(1) >= smaller
        {
            return Some(format!(
                "nothing is larger than {larger} and smaller than {smaller}"
            ));
        }
        let range = [self.priority_from, self.priority_to];
        if range.iter().flatten().any(|one| !(-9..=9).contains(one)) {
            return Some("priorities are from -9 to 9".to_owned());
        }
        if let (Some(from), Some(to)) = (self.priority_from, self.priority_to)
            && from > to
        {
            return Some(format!("no priority is from {from} to {to}"));
        }
        if self.schedule.contains(&0) {
            return Some("a pause of the schedule has at least 1 second".to_owned());
        }
        if self.expire == Some(0) {
            return Some("expire is at least 1 second".to_owned());
        }
        if self.concurrency == Some(0) {
            return Some("concurrency is at least 1".to_owned());
        }
        let names = self.hello.len();
        if names > 1 && names != self.source.len() {
            return Some(format!(
                "hello has {names} names for {} source addresses",
                self.source.len()
            ));
        }
        self.hello
            .iter()
            .find_map(|name| Address::domain_of(name).err().map(|error| (name, error)))
            .map(|(name, error)| format!("hello {name:?}: {error}"))
    }

    /// Whether it means everything that `other` means, both in the form in which they are compared.
    fn covers(&self, other: &Self) -> bool {
        let list = |mine: &[String], theirs: &[String], within: &dyn Fn(&str, &str) -> bool| {
            mine.is_empty()
                || (!theirs.is_empty()
                    && theirs
                        .iter()
                        .all(|their| mine.iter().any(|my| within(my, their))))
        };
        let domains = |my: &str, their: &str| my == "*" || my == their || means(my, their);
        let senders = |my: &str, their: &str| match their.rsplit_once('@') {
            _ if my == their || my == "*" => true,
            _ if their == "<>" || their == "*" => false,
            Some((_, domain)) => !my.contains('@') && means(my, domain),
            None => !my.contains('@') && my != "<>" && means(my, their),
        };
        list(&self.sender, &other.sender, &senders)
            && list(&self.domain, &other.domain, &domains)
            && list(&self.listener, &other.listener, &|my, their| my == their)
            && self
                .larger
                .is_none_or(|mine| other.larger.is_some_and(|their| their >= mine))
            && self
                .smaller
                .is_none_or(|mine| other.smaller.is_some_and(|their| their <= mine))
            && self
                .priority_from
                .is_none_or(|mine| other.priority_from.is_some_and(|their| their >= mine))
            && self
                .priority_to
                .is_none_or(|mine| other.priority_to.is_some_and(|their| their <= mine))
    }
}

/// The rules in their order.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    rules: Vec<Arc<RuleConfig>>,
}

impl Rules {
    /// Reads them.
    ///
    /// # Errors
    /// A text for the operator: one makes no sense, or can never be reached.
    pub(crate) fn new(rules: &[RuleConfig]) -> Result<Self, String> {
        let mut known: Vec<Arc<RuleConfig>> = Vec::with_capacity(rules.len());
        for (number, rule) in (1..).zip(rules) {
            let place = format!("queued.rule {:?} (number {number})", rule.name);
            if let Some(fault) = rule.fault() {
                return Err(format!("{place}: {fault}"));
            }
            if known.iter().any(|other| other.name == rule.name) {
                return Err(format!("{place}: there are two of that name"));
            }
            let rule = rule.normal().map_err(|error| format!("{place}: {error}"))?;
            if let Some(before) = known.iter().find(|before| before.covers(&rule)) {
                return Err(format!(
                    "{place}: it never decides, because {:?} before it means all of its mail",
                    before.name
                ));
            }
            known.push(Arc::new(rule));
        }
        Ok(Self { rules: known })
    }

    /// Whether what they refer to is there.
    ///
    /// # Errors
    /// A text for the operator.
    pub(crate) fn refer_to(&self, routes: &[String], listeners: &[String]) -> Result<(), String> {
        for rule in &self.rules {
            if let Some(route) = &rule.route {
                let address = route
                    .rsplit_once(':')
                    .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
                if !address && !routes.contains(route) {
                    return Err(format!(
                        "queued.rule {:?}: there is no relayd.route named {route:?}",
                        rule.name
                    ));
                }
            }
            let unknown = rule.listener.iter().find(|one| !listeners.contains(one));
            if let Some(listener) = unknown {
                return Err(format!(
                    "queued.rule {:?}: there is no smtpd.listener named {listener:?}",
                    rule.name
                ));
            }
        }
        Ok(())
    }

    /// The rule that decides.
    pub(crate) fn find(&self, mail: &Looked<'_>) -> Option<&Arc<RuleConfig>> {
        self.rules
            .iter()
            .find(|rule| rule.objection(mail).is_none())
    }

    /// Those that were asked before one decided, and why they did not.
    pub(crate) fn passed_over(&self, mail: &Looked<'_>) -> Vec<(String, String)> {
        self.rules
            .iter()
            .map_while(|rule| Some((rule.name.clone(), rule.objection(mail)?.to_owned())))
            .collect()
    }

    /// The rule of a destination with a queue of its own.
    pub(crate) fn of_destination(&self, destination: &str) -> Option<&Arc<RuleConfig>> {
        let (_, name) = destination.split_once('/')?;
        self.rules.iter().find(|rule| rule.name == name)
    }

    /// What a domain's mail stands under: the domain, and behind it the rule if it has a queue of its own.
    pub(crate) fn destination(&self, head: &Head, domain: &str) -> String {
        match self.find(&Looked::of(head, domain)) {
            Some(rule) if rule.is_apart() => format!("{domain}/{}", rule.name),
            _ => domain.to_owned(),
        }
    }
}

/// The domain of a destination.
pub(crate) fn domain_of(destination: &str) -> &str {
    destination
        .split_once('/')
        .map_or(destination, |(domain, _)| domain)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn rule(text: &str) -> RuleConfig {
        toml::from_str(text).unwrap()
    }

    fn found(rules: &Rules, sender: Option<&str>, domain: &str, size: u64, priority: i8) -> String {
        let sender: Option<Address> = sender.map(|text| text.parse().unwrap());
        let mail = Looked {
            sender: sender.as_ref(),
            domain,
            listener: "mx",
            size,
            priority,
        };
        rules
            .find(&mail)
            .map(|rule| rule.name.clone())
            .unwrap_or_default()
    }

    #[test]
    fn the_first_that_means_it_decides() {
        let rules = Rules::new(&[
            rule("name = 'reports'\nsender = ['<>']"),
            rule("name = 'huge'\nlarger = 1000\ndomain = ['.example.net', 'other.example']"),
            rule("name = 'urgent'\npriority_from = 4"),
            rule(
                "name = 'news'\nsender = ['News@Lists.example', '.bulk.example']\npriority_to = -1",
            ),
            rule("name = 'elsewhere'\nlistener = ['submission']"),
            rule(
                "name = 'bücher'\ndomain = ['bücher.example']\nsmaller = 5"
                    .replace("'bücher'", "'books'")
                    .as_str(),
            ),
        ])
        .unwrap();
        assert_eq!(found(&rules, None, "a.example.net", 5000, 9), "reports");
        let jane = Some("jane@example.org");
        assert_eq!(found(&rules, jane, "a.example.net", 1001, 9), "huge");
        assert_eq!(found(&rules, jane, "example.net", 1001, 9), "urgent");
        assert_eq!(found(&rules, jane, "other.example", 1000, 0), "");
        let news = Some("news@lists.example");
        assert_eq!(found(&rules, news, "x.example", 1, -2), "news");
        assert_eq!(found(&rules, news, "x.example", 1, 0), "");
        let bulk = Some("a@x.bulk.example");
        assert_eq!(found(&rules, bulk, "x.example", 1, -9), "news");
        assert_eq!(found(&rules, jane, "xn--bcher-kva.example", 4, 0), "books");
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        for (text, told) in [
            ("sender = ['a@b']", "a name has"),
            ("name = 'Bad name'", "a name has"),
            ("name = 'a'\nsender = ['a b@c']", "a b@c"),
            ("name = 'a'\ndomain = ['a..b']", "a..b"),
            ("name = 'a'\nlarger = 10\nsmaller = 11", "nothing is larger"),
            ("name = 'a'\npriority_from = 10", "from -9 to 9"),
            (
                "name = 'a'\npriority_from = 3\npriority_to = 2",
                "no priority",
            ),
            ("name = 'a'\nschedule = [60, 0]", "at least 1 second"),
            ("name = 'a'\nconcurrency = 0", "at least 1"),
            (
                "name = 'a'\nhello = ['a.example', 'b.example']",
                "2 names for 0",
            ),
            ("name = 'a'\nhello = ['a b']", "hello"),
        ] {
            let error = Rules::new(&[rule(text)]).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
        assert!(toml::from_str::<RuleConfig>("rate = '5/1w'").is_err());
        assert!(toml::from_str::<RuleConfig>("retry = 5").is_err());
    }

    #[test]
    fn a_rule_behind_one_that_means_more_is_told() {
        let never = |first: &str, second: &str| {
            Rules::new(&[
                rule(&format!("name = 'first'\n{first}")),
                rule(&format!("name = 'second'\n{second}")),
            ])
            .is_err()
        };
        assert!(never("", "domain = ['a.example']"));
        assert!(never(
            "domain = ['.example']",
            "domain = ['a.example', '.b.example']"
        ));
        assert!(never(
            "sender = ['a.example']",
            "sender = ['x@a.example']\nlarger = 5"
        ));
        assert!(never("larger = 5", "larger = 5"));
        assert!(!never("larger = 5", "larger = 4"));
        assert!(!never("domain = ['a.example']", ""));
        assert!(
            !never("sender = ['*']", ""),
            "not in this form, but it is harmless"
        );
        assert!(!never("sender = ['a.example']", "sender = ['x@b.example']"));
        assert!(!never("domain = ['a.example']", "domain = ['.a.example']"));
        assert!(!never("listener = ['mx']", "listener = ['mx', 'other']"));
    }

    #[test]
    fn what_they_refer_to_must_be_there() {
        let one = Rules::new(&[rule("name = 'a'\nroute = 'hub'\nlistener = ['mx']")]).unwrap();
        let (hub, mx) = (["hub".to_owned()], ["mx".to_owned()]);
        one.refer_to(&hub, &mx).unwrap();
        assert!(one.refer_to(&[], &mx).unwrap_err().contains("relayd.route"));
        assert!(
            one.refer_to(&hub, &[])
                .unwrap_err()
                .contains("smtpd.listener")
        );
        let direct = Rules::new(&[rule("name = 'a'\nroute = '192.0.2.1:26'")]).unwrap();
        direct.refer_to(&[], &[]).unwrap();
    }

    #[test]
    fn a_message_keeps_its_address_and_schedule() {
        let rule = rule(
            "name = 'pool'\nsource = ['192.0.2.1', '192.0.2.2']\nhello = ['a.example', 'b.example']\n\
             schedule = [60, 300]\ntls = 'verified'",
        );
        // Also where only the upper bits of the ids differ, as with little mail.
        let turns: std::collections::BTreeSet<_> = (0..20)
            .map(|time| rule.manner(QueueId(time << 22)).source)
            .collect();
        assert_eq!(turns.len(), 2);
        let manner = rule.manner(QueueId(1));
        assert_eq!(manner.source, Some("192.0.2.2".parse().unwrap()));
        assert_eq!(manner.hello.as_deref(), Some("b.example"));
        assert_eq!(manner.tls, Some(TlsDemand::Verified));
        assert_eq!(rule.manner(QueueId(1)), manner);
        assert_eq!(
            [0, 1, 2, 3, 99].map(|attempts| rule.pause(attempts)),
            [60, 60, 300, 300, 300].map(Some)
        );
        assert!(rule.is_apart());
        assert_eq!(domain_of("example.net/pool"), "example.net");
        assert_eq!(domain_of("[IPv6:2001:db8::1]"), "[IPv6:2001:db8::1]");
    }
}
