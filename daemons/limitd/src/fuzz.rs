//! Entry points for fuzzers: each takes any octets, and panics only if a promise is broken.

use crate::config::{Counted, KeyPart, RuleConfig};
use crate::rate::{Rate, Rates};
use crate::rule::{KEY_MAX, Nets, Rule, short};
use crate::window::Window;
use ipc::api::limitd::{Facts, Stage};

/// What strangers say of themselves, one thing a line: EHLO name, account, address, sender, and then recipients. A key of it is
/// short, has nothing in it that a database does not take, and is the same each time.
pub fn keys(octets: &[u8]) {
    let text = String::from_utf8_lossy(octets);
    let mut lines = text.split('\n');
    let mut next = || lines.next().unwrap_or_default();
    let facts = Facts {
        helo: next().to_owned(),
        account: Some(next().to_owned()),
        client: next().parse().ok(),
        sender: next().parse().ok(),
        listener: "mx".to_owned(),
        vouched: false,
        identity: None,
    };
    let recipients: Vec<_> = lines.filter_map(|line| line.parse().ok()).collect();
    let nets = Nets { v4: 24, v6: 64 };
    let all = vec![
        KeyPart::Address,
        KeyPart::Network,
        KeyPart::Helo,
        KeyPart::Sender,
        KeyPart::SenderDomain,
        KeyPart::Recipient,
        KeyPart::RecipientDomain,
        KeyPart::Account,
        KeyPart::Listener,
    ];
    for key in [vec![KeyPart::Helo], vec![KeyPart::Account], all] {
        let config = RuleConfig {
            name: "fuzz".to_owned(),
            limit: Rates(vec![Rate {
                amount: 1,
                period: 60,
            }]),
            count: Counted::Recipients,
            key,
            ..RuleConfig::default()
        };
        let Ok(rule) = Rule::new(&config, nets) else {
            unreachable!("a sound rule");
        };
        let stage = Stage::Message {
            recipients: recipients.clone(),
            octets: 1,
            rest: false,
        };
        let (charges, _) = rule.charges(&facts, &stage);
        let amount: u64 = charges.iter().map(|charge| charge.amount).sum();
        assert!(charges.is_empty() || amount == recipients.len() as u64);
        for charge in &charges {
            let key = &charge.key;
            assert!(
                key.len() <= KEY_MAX && !key.chars().any(char::is_control),
                "{key:?}"
            );
            assert_eq!(&short(key), key);
        }
        assert_eq!(rule.charges(&facts, &stage).0, charges);
    }
}

/// Rates as people write them, and counts as the database has them: what is taken is written in a form that is read again.
pub fn rates(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else {
        return;
    };
    let window = Window::read(text);
    if let Some(window) = &window {
        assert_eq!(Window::read(&window.write()).as_ref(), Some(window));
    }
    let Ok(rates) = Rates::try_from(text.to_owned()) else {
        return;
    };
    assert_eq!(
        Rates::try_from(String::from(rates.clone())),
        Ok(rates.clone())
    );
    for rate in rates.0 {
        let mut window = Window::default();
        let now = 1_800_000_000_000;
        window.add(rate, now, rate.amount);
        assert_eq!(window.used(rate, now), rate.amount);
        let wait = window.wait(rate, now, 1);
        // A slot more than the period at most.
        assert!(
            wait.is_some_and(|wait| (1..=rate.period * 1084 + 13).contains(&wait)),
            "{rate} {wait:?}"
        );
    }
}
