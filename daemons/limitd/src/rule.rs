//! A rule: whom it means, and under which keys it counts.

use crate::config::{Action, Config, Counted, KeyPart, RuleConfig};
use crate::pattern::Patterns;
use ipc::api::limitd::{Facts, Stage};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use types::Address;

/// A longer key is cut, and ends with the hash of all of it.
pub(crate) const KEY_MAX: usize = 200;

/// Which bits of addresses make a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Nets {
    pub(crate) v4: u8,
    pub(crate) v6: u8,
}

impl Nets {
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            v4: config.ipv4_network.min(32),
            v6: config.ipv6_network.min(128),
        }
    }

    /// `192.0.2.0/24`, `2001:db8:1:2::/64`.
    pub(crate) fn network(self, address: IpAddr) -> String {
        match address.to_canonical() {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.v4)).unwrap_or(0);
                format!("{}/{}", Ipv4Addr::from_bits(v4.to_bits() & mask), self.v4)
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.v6)).unwrap_or(0);
                format!("{}/{}", Ipv6Addr::from_bits(v6.to_bits() & mask), self.v6)
            }
        }
    }

    /// What counts as one client: an IPv4 address, or an IPv6 network, for one customer has as many addresses as he likes.
    pub(crate) fn address(self, address: IpAddr) -> String {
        match address.to_canonical() {
            IpAddr::V4(v4) => v4.to_string(),
            v6 => self.network(v6),
        }
    }
}

/// So much is to be counted under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Charge {
    pub(crate) key: String,
    pub(crate) amount: u64,
}

/// A rule as it is looked at.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) config: RuleConfig,
    sender: Patterns,
    recipient: Patterns,
    account: Patterns,
    nets: Nets,
}

impl Rule {
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn new(config: &RuleConfig, nets: Nets) -> Result<Self, String> {
        let fault = |text: String| format!("limitd.rule {:?}: {text}", config.name);
        let letter =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
        if config.name.is_empty() || config.name.len() > 64 || !config.name.bytes().all(letter) {
            let text = "a name has lower-case letters, digits, - and _, at most 64";
            return Err(fault(text.to_owned()));
        }
        if config.name == crate::grey::NAME {
            return Err(fault("that is greylisting's own name".to_owned()));
        }
        if config.limit.0.is_empty() {
            return Err(fault("it has no limit, like limit = \"100/1h\"".to_owned()));
        }
        if config.text.len() > 400 || config.text.chars().any(char::is_control) {
            return Err(fault("text is one line of at most 400 octets".to_owned()));
        }
        let known = [KeyPart::Address, KeyPart::Network, KeyPart::Listener];
        if config.count == Counted::Connections {
            if !config.key.iter().all(|part| known.contains(part)) {
                let text = "of a connection only address, network and listener are known";
                return Err(fault(text.to_owned()));
            }
            if !(config.sender.is_empty()
                && config.recipient.is_empty()
                && config.account.is_empty())
                || config.login.is_some()
            {
                let text =
                    "whose a connection is, and for what, is not known yet when it is counted";
                return Err(fault(text.to_owned()));
            }
        }
        Ok(Self {
            sender: Patterns::new(&config.sender).map_err(fault)?,
            recipient: Patterns::new(&config.recipient).map_err(fault)?,
            account: Patterns::new(&config.account).map_err(fault)?,
            config: config.clone(),
            nets,
        })
    }

    fn has(&self, part: KeyPart) -> bool {
        self.config.key.contains(&part)
    }

    /// Whether it cannot be weighed before RCPT.
    fn needs_recipient(&self) -> bool {
        !self.recipient.is_empty()
            || self.has(KeyPart::Recipient)
            || self.has(KeyPart::RecipientDomain)
    }

    /// Whether it cannot be weighed before MAIL.
    fn needs_mail(&self) -> bool {
        let late = [
            KeyPart::Helo,
            KeyPart::Sender,
            KeyPart::SenderDomain,
            KeyPart::Account,
        ];
        !self.sender.is_empty()
            || !self.account.is_empty()
            || self.config.login.is_some()
            || late.iter().any(|part| self.has(*part))
    }

    /// Whether it is about this client, whatever the recipient.
    fn means(&self, facts: &Facts) -> bool {
        let config = &self.config;
        let inside = |networks: &[types::Network]| {
            facts
                .client
                .is_some_and(|client| networks.iter().any(|network| network.contains(client)))
        };
        (config.listener.is_empty() || config.listener.contains(&facts.listener))
            && (config.network.is_empty() || inside(&config.network))
            && !inside(&config.except_network)
            && config
                .login
                .is_none_or(|login| login == facts.account.is_some())
            && (self.sender.is_empty() || self.sender.mean(facts.sender.as_ref()))
            && (self.account.is_empty() || self.means_account(facts))
    }

    fn means_account(&self, facts: &Facts) -> bool {
        let account = facts.account.as_ref().and_then(|name| name.parse().ok());
        account.is_some_and(|account: Address| self.account.mean(Some(&account)))
    }

    /// Under which key it counts; `None` if a part is not there.
    fn key(&self, facts: &Facts, recipient: Option<&Address>) -> Option<String> {
        let sender = || facts.sender.as_ref();
        let mut parts: Vec<String> = Vec::with_capacity(self.config.key.len());
        for part in &self.config.key {
            parts.push(match part {
                KeyPart::Address => self.nets.address(facts.client?),
                KeyPart::Network => self.nets.network(facts.client?),
                KeyPart::Helo => facts.helo.to_lowercase(),
                KeyPart::Sender => sender().map_or_else(|| "<>".to_owned(), Address::key),
                KeyPart::SenderDomain => {
                    sender().map_or_else(|| "<>".to_owned(), |sender| sender.domain().to_owned())
                }
                KeyPart::Recipient => recipient?.key(),
                KeyPart::RecipientDomain => recipient?.domain().to_owned(),
                KeyPart::Account => facts.account.as_ref()?.to_lowercase(),
                KeyPart::Listener => facts.listener.clone(),
            });
        }
        if parts.is_empty() {
            return Some("*".to_owned());
        }
        Some(short(&parts.join(" ")))
    }

    fn means_recipient(&self, recipient: &Address) -> bool {
        self.recipient.is_empty() || self.recipient.mean(Some(recipient))
    }

    /// What the stage is to be charged under this rule, and whether that is counted now (or only weighed).
    pub(crate) fn charges(&self, facts: &Facts, stage: &Stage) -> (Vec<Charge>, bool) {
        let nothing = (Vec::new(), false);
        if !self.means(facts) {
            return nothing;
        }
        let one = |amount: u64, recipient: Option<&Address>| {
            let key = self.key(facts, recipient);
            key.map(|key| Charge { key, amount })
                .into_iter()
                .collect::<Vec<_>>()
        };
        match (self.config.count, stage) {
            (Counted::Connections, Stage::Connect) => (one(1, None), true),
            (Counted::Unknown, Stage::Connect) if !self.needs_mail() && !self.needs_recipient() => {
                (one(1, None), false)
            }
            (Counted::Unknown, Stage::Mail { .. })
                if self.needs_mail() && !self.needs_recipient() =>
            {
                (one(1, None), false)
            }
            (Counted::Messages, Stage::Mail { .. }) if !self.needs_recipient() => {
                (one(1, None), false)
            }
            (Counted::Octets, Stage::Mail { declared }) if !self.needs_recipient() => {
                (one((*declared).max(1), None), false)
            }
            (Counted::Unknown, Stage::Unknown { recipient }) if self.means_recipient(recipient) => {
                (one(1, Some(recipient)), true)
            }
            (
                count,
                Stage::Recipient {
                    recipient,
                    taken,
                    taken_there,
                    declared,
                },
            ) if self.means_recipient(recipient) => {
                let amount = match count {
                    Counted::Recipients if self.has(KeyPart::Recipient) => 1,
                    Counted::Recipients if self.has(KeyPart::RecipientDomain) => {
                        u64::from(*taken_there) + 1
                    }
                    Counted::Recipients => u64::from(*taken) + 1,
                    Counted::Octets if self.needs_recipient() => (*declared).max(1),
                    Counted::Messages | Counted::Unknown if self.needs_recipient() => 1,
                    _ => return nothing,
                };
                (one(amount, Some(recipient)), false)
            }
            (
                _,
                Stage::Message {
                    recipients,
                    octets,
                    rest,
                },
            ) => {
                // The rest counts for what is counted by recipient.
                let by_recipient =
                    self.needs_recipient() || self.config.count == Counted::Recipients;
                if *rest && !by_recipient {
                    return nothing;
                }
                (self.message(facts, recipients, *octets), true)
            }
            _ => nothing,
        }
    }

    /// What a message is charged.
    fn message(&self, facts: &Facts, recipients: &[Address], octets: u64) -> Vec<Charge> {
        let each = match self.config.count {
            Counted::Messages => 1,
            Counted::Octets => octets.max(1),
            Counted::Recipients => 0,
            Counted::Connections | Counted::Unknown => return Vec::new(),
        };
        let by_recipient = self.needs_recipient();
        if !by_recipient && self.config.count != Counted::Recipients {
            let key = self.key(facts, None);
            return key
                .map(|key| Charge { key, amount: each })
                .into_iter()
                .collect();
        }
        let mut keys: BTreeMap<String, u64> = BTreeMap::new();
        for recipient in recipients.iter().filter(|one| self.means_recipient(one)) {
            if let Some(key) = self.key(facts, Some(recipient)) {
                *keys.entry(key).or_default() += 1;
            }
        }
        keys.into_iter()
            .map(|(key, count)| Charge {
                key,
                amount: if each > 0 { each } else { count },
            })
            .collect()
    }

    /// Whether it never stops anybody.
    pub(crate) fn only_logs(&self) -> bool {
        self.config.action == Action::Log
    }
}

/// A key for the table and the database: bounded, and without what databases do not take.
pub(crate) fn short(text: &str) -> String {
    let mut key: String = text
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    if key.len() > KEY_MAX {
        let hash = blake3::hash(key.as_bytes()).to_hex();
        let mut end = KEY_MAX - 33;
        while !key.is_char_boundary(end) {
            end -= 1;
        }
        key.truncate(end);
        key.push('~');
        key.push_str(hash.get(..32).unwrap_or_default());
    }
    key
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NETS: Nets = Nets { v4: 24, v6: 64 };

    fn rule(text: &str) -> Result<Rule, String> {
        let config: RuleConfig =
            toml::from_str(&format!("name = 'r'\nlimit = '5/1h'\n{text}")).unwrap();
        Rule::new(&config, NETS)
    }

    fn facts() -> Facts {
        Facts {
            client: Some("192.0.2.9".parse().unwrap()),
            listener: "mx".to_owned(),
            helo: "Mail.Example.COM".to_owned(),
            account: None,
            sender: Some("Jane@example.com".parse().unwrap()),
            vouched: false,
            identity: None,
        }
    }

    fn message(recipients: &[&str]) -> Stage {
        Stage::Message {
            recipients: recipients.iter().map(|one| one.parse().unwrap()).collect(),
            octets: 700,
            rest: false,
        }
    }

    fn keys(rule: &Rule, facts: &Facts, stage: &Stage) -> Vec<(String, u64)> {
        let (charges, _) = rule.charges(facts, stage);
        charges
            .into_iter()
            .map(|charge| (charge.key, charge.amount))
            .collect()
    }

    #[test]
    fn keys_are_made_of_their_parts() {
        let stage = message(&["a@x.example", "B@x.example", "c@y.example"]);
        let told = |text: &str| keys(&rule(text).unwrap(), &facts(), &stage);
        assert_eq!(told(""), [("*".to_owned(), 1)]);
        assert_eq!(
            told("key = ['network', 'helo', 'sender']"),
            [(
                "192.0.2.0/24 mail.example.com jane@example.com".to_owned(),
                1
            )]
        );
        assert_eq!(told("count = 'octets'"), [("*".to_owned(), 700)]);
        assert_eq!(told("count = 'recipients'"), [("*".to_owned(), 3)]);
        assert_eq!(
            told("count = 'recipients'\nkey = ['recipient_domain', 'listener']"),
            [
                ("x.example mx".to_owned(), 2),
                ("y.example mx".to_owned(), 1)
            ]
        );
        assert_eq!(
            told("key = ['recipient']\nrecipient = ['x.example']").len(),
            2
        );
        // Nobody is logged in.
        assert!(told("key = ['account']").is_empty() && told("login = true").is_empty());
        assert!(
            told("sender = ['<>']").is_empty()
                && told("except_network = ['192.0.2.0/25']").is_empty()
        );
        assert_eq!(
            told("login = false\nnetwork = ['192.0.0.0/8']\nsender = ['example.com']").len(),
            1
        );
    }

    #[test]
    fn what_is_weighed_when() {
        let facts = facts();
        let recipient: Address = "a@x.example".parse().unwrap();
        let rcpt = Stage::Recipient {
            recipient: recipient.clone(),
            taken: 7,
            taken_there: 2,
            declared: 9,
        };
        let mail = Stage::Mail { declared: 9 };
        let counted = |text: &str, stage: &Stage| {
            let (charges, takes) = rule(text).unwrap().charges(&facts, stage);
            charges.first().map(|charge| (charge.amount, takes))
        };
        assert_eq!(
            counted("count = 'connections'", &Stage::Connect),
            Some((1, true))
        );
        assert_eq!(counted("", &mail), Some((1, false)));
        assert_eq!(counted("", &rcpt), None);
        assert_eq!(counted("key = ['recipient']", &mail), None);
        assert_eq!(counted("key = ['recipient']", &rcpt), Some((1, false)));
        assert_eq!(counted("count = 'octets'", &mail), Some((9, false)));
        assert_eq!(counted("count = 'recipients'", &rcpt), Some((8, false)));
        assert_eq!(
            counted("count = 'recipients'\nkey = ['recipient_domain']", &rcpt),
            Some((3, false))
        );
        assert_eq!(counted("count = 'recipients'", &mail), None);
        let unknown = Stage::Unknown { recipient };
        assert_eq!(counted("count = 'unknown'", &unknown), Some((1, true)));
        assert_eq!(
            counted("count = 'unknown'", &Stage::Connect),
            Some((1, false))
        );
        assert_eq!(
            counted("count = 'unknown'\nkey = ['sender']", &Stage::Connect),
            None
        );
        assert_eq!(
            counted("count = 'unknown'\nkey = ['sender']", &mail),
            Some((1, false))
        );
        assert_eq!(
            counted("count = 'unknown'", &message(&["a@x.example"])),
            None
        );
    }

    #[test]
    fn networks_and_long_keys() {
        let six: IpAddr = "2001:db8:1:2:3::4".parse().unwrap();
        assert_eq!(NETS.address(six), "2001:db8:1:2::/64");
        assert_eq!(
            NETS.network("::ffff:192.0.2.9".parse().unwrap()),
            "192.0.2.0/24"
        );
        let all = Nets { v4: 0, v6: 0 };
        assert_eq!(all.network(six), "::/0");
        let long = "ä".repeat(300);
        assert!(short(&long).len() <= KEY_MAX && short(&long) != short(&"ä".repeat(301)));
        assert_eq!(short("a\0b"), "a?b");
    }

    #[test]
    fn rules_that_make_no_sense() {
        for text in [
            "count = 'connections'\nkey = ['sender']",
            "count = 'connections'\nlogin = true",
            "sender = ['a b']",
            "text = 'a\\nb'",
        ] {
            let text = text.replace("'a\\nb'", "\"a\\nb\"");
            assert!(rule(&text).is_err(), "{text}");
        }
        for name in ["", "Upper", "greylist"] {
            let config = RuleConfig {
                name: name.to_owned(),
                limit: crate::rate::Rates(vec!["1/1h".parse().unwrap()]),
                ..RuleConfig::default()
            };
            assert!(Rule::new(&config, NETS).is_err(), "{name}");
        }
    }
}
