//! From what the checks found to what is done: for each recipient, and then for the message.

use super::config::{Action, ChecksConfig, DmarcAction, Rule, Temporary};
use mailauth::{DmarcPolicy, Report, Word};
use types::{Address, Enhanced, Recipient, Suspicion, Treatment};

/// What is done for one recipient, the weightier the later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    #[default]
    Accept,
    Tag,
    Junk,
    Refuse,
}

/// The message that is decided on.
#[derive(Debug)]
pub(crate) struct Letter<'a> {
    /// The listener's name.
    pub(crate) listener: &'a str,
    pub(crate) sender: Option<&'a Address>,
    pub(crate) recipients: &'a [Recipient],
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It is taken, with these fields.
    Take(Vec<Suspicion>),
    /// It is not: code, enhanced code, text.
    Refuse(u16, Enhanced, String),
}

/// What failed and for what it counts.
#[derive(Clone, Copy)]
struct Failed {
    spf: bool,
    dmarc: bool,
}

impl Decision {
    pub(crate) fn new(config: &ChecksConfig, report: &Report, letter: &Letter<'_>) -> Self {
        // RFC 7489 6.6.3: a domain that DMARC vouches for is not refused for SPF, which forwarding breaks.
        let spf = report.spf().is_some_and(|spf| spf.result == Word::Fail)
            && report.dmarc.result != Word::Pass;
        let hidden =
            report.dmarc.result == Word::PermError && report.dmarc.policy != DmarcPolicy::None;
        let failed = report.dmarc.result == Word::Fail || hidden;
        let failed = Failed {
            spf,
            dmarc: failed && report.vouched_by(&config.trusted_sealers).is_none(),
        };
        let mut unanswered = false;
        let verdicts: Vec<(Verdict, &'static str)> = letter
            .recipients
            .iter()
            .map(|recipient| {
                let (spf, dmarc) = actions(config, report, letter, recipient);
                unanswered |= matters(report, spf, dmarc);
                weigh(report, failed, spf, dmarc)
            })
            .collect();
        if config.temporary == Temporary::Defer && unanswered {
            let text = "The sender cannot be checked at the moment, try again later";
            return Self::Refuse(451, Enhanced(4, 7, 1), text.to_owned());
        }
        let refused = |(verdict, _): &(Verdict, &str)| *verdict == Verdict::Refuse;
        if !verdicts.is_empty() && verdicts.iter().all(refused) {
            let for_dmarc = verdicts.iter().any(|(_, checks)| checks.contains("dmarc"));
            return refusal(report, for_dmarc);
        }
        // There is one answer for all of them: whoever would refuse it alone gets it as Junk, which loses nothing.
        let fields = [
            (Treatment::Tag, [Verdict::Tag, Verdict::Tag]),
            (Treatment::Junk, [Verdict::Junk, Verdict::Refuse]),
        ];
        let fields = fields
            .into_iter()
            .filter_map(|(treatment, which)| suspicion(treatment, which, &verdicts));
        Self::Take(fields.collect())
    }
}

/// The field for the recipients with these verdicts, if there are any.
fn suspicion(
    treatment: Treatment,
    which: [Verdict; 2],
    verdicts: &[(Verdict, &'static str)],
) -> Option<Suspicion> {
    let mut checks = "";
    let mut recipients = Vec::new();
    for (at, (verdict, failed)) in verdicts.iter().enumerate() {
        if which.contains(verdict) {
            recipients.push(u16::try_from(at).unwrap_or(u16::MAX));
            if failed.len() > checks.len() {
                checks = failed;
            }
        }
    }
    let all = recipients.len() == verdicts.len();
    (!recipients.is_empty()).then(|| Suspicion {
        treatment,
        checks: checks.to_owned(),
        recipients: (!all).then_some(recipients),
    })
}

/// What the configuration says for one recipient.
fn actions(
    config: &ChecksConfig,
    report: &Report,
    letter: &Letter<'_>,
    recipient: &Recipient,
) -> (Action, DmarcAction) {
    let (mut spf, mut dmarc) = config.policy.actions();
    spf = config.spf.unwrap_or(spf);
    dmarc = config.dmarc.unwrap_or(dmarc);
    let fitting = config
        .rule
        .iter()
        .find(|rule| fits(rule, report, letter, recipient));
    if let Some(rule) = fitting {
        if let Some(preset) = rule.policy {
            (spf, dmarc) = preset.actions();
        }
        spf = rule.spf.unwrap_or(spf);
        dmarc = rule.dmarc.unwrap_or(dmarc);
    }
    (spf, dmarc)
}

fn fits(rule: &Rule, report: &Report, letter: &Letter<'_>, recipient: &Recipient) -> bool {
    let listed = |list: &[String], domain: &str| {
        list.iter().any(|entry| match entry.strip_prefix('.') {
            Some(above) => domain
                .strip_suffix(above)
                .is_some_and(|rest| rest.ends_with('.')),
            None => entry == domain,
        })
    };
    (rule.listeners.is_empty() || rule.listeners.iter().any(|name| name == letter.listener))
        && (rule.recipients.is_empty() || listed(&rule.recipients, recipient.address.domain()))
        && (rule.senders.is_empty()
            || listed(&rule.senders, &report.dmarc.domain)
            || letter
                .sender
                .is_some_and(|sender| listed(&rule.senders, sender.domain())))
}

fn weigh(
    report: &Report,
    failed: Failed,
    spf: Action,
    dmarc: DmarcAction,
) -> (Verdict, &'static str) {
    let by_spf = match spf {
        _ if !failed.spf => Verdict::Accept,
        Action::Record => Verdict::Accept,
        Action::Tag => Verdict::Tag,
        Action::Quarantine => Verdict::Junk,
        Action::Reject => Verdict::Refuse,
    };
    let by_dmarc = match (dmarc, report.dmarc.policy) {
        _ if !failed.dmarc => Verdict::Accept,
        (DmarcAction::Record, _) => Verdict::Accept,
        (DmarcAction::Tag, _) => Verdict::Tag,
        (DmarcAction::Quarantine, _) => Verdict::Junk,
        (DmarcAction::Reject, _) => Verdict::Refuse,
        (_, DmarcPolicy::None) => Verdict::Accept,
        (DmarcAction::AsPublished, DmarcPolicy::Quarantine) => Verdict::Junk,
        (_, _) => Verdict::Refuse,
    };
    let checks = match (by_spf > Verdict::Accept, by_dmarc > Verdict::Accept) {
        (true, true) => "dmarc,spf",
        (true, false) => "spf",
        (false, true) => "dmarc",
        (false, false) => "",
    };
    (by_spf.max(by_dmarc), checks)
}

/// Whether an answer that did not come could have changed anything.
fn matters(report: &Report, spf: Action, dmarc: DmarcAction) -> bool {
    let spf_unknown = report
        .spf()
        .is_some_and(|spf| spf.result == Word::TempError)
        && report.dmarc.result != Word::Pass;
    (report.dmarc.result == Word::TempError && dmarc != DmarcAction::Record)
        || (spf_unknown && spf != Action::Record)
}

fn refusal(report: &Report, for_dmarc: bool) -> Decision {
    if for_dmarc {
        let domain = &report.dmarc.domain;
        let text = format!(
            "Refused: neither SPF nor DKIM shows that this mail is from {domain}, which its From field names (DMARC, p={})",
            report.dmarc.policy.as_str()
        );
        // RFC 7489 10.3
        return Decision::Refuse(550, Enhanced(5, 7, 1), text);
    }
    let domain = report.spf().map_or("", |spf| spf.domain.as_str());
    let text = format!("Refused: {domain} does not allow this host to send its mail (SPF)");
    // RFC 7372 3.2
    Decision::Refuse(550, Enhanced(5, 7, 23), text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::config::Preset;
    use super::*;
    use mailauth::{ArcReport, DmarcReport, SpfReport};
    use types::{Notify, Route};

    fn report(spf: Word, dmarc: Word, policy: DmarcPolicy) -> Report {
        Report {
            spf_mail_from: Some(SpfReport {
                result: spf,
                domain: "a.example".to_owned(),
                ..SpfReport::default()
            }),
            dmarc: DmarcReport {
                result: dmarc,
                domain: "from.example".to_owned(),
                policy,
                ..DmarcReport::default()
            },
            ..Report::default()
        }
    }

    fn decide(config: &ChecksConfig, report: &Report, recipients: &[&str]) -> Decision {
        let sender: Address = "x@a.example".parse().unwrap();
        let recipients: Vec<Recipient> = recipients
            .iter()
            .map(|address| Recipient {
                address: address.parse().unwrap(),
                orcpt: None,
                notify: Notify::default(),
                route: Route::Local,
            })
            .collect();
        let letter = Letter {
            listener: "mx",
            sender: Some(&sender),
            recipients: &recipients,
        };
        Decision::new(config, report, &letter)
    }

    fn one(config: &ChecksConfig, report: &Report) -> String {
        match decide(config, report, &["jane@ours.example"]) {
            Decision::Take(fields) => match fields.as_slice() {
                [] => "take".to_owned(),
                [field] => format!("{:?} {}", field.treatment, field.checks),
                more => format!("{more:?}"),
            },
            Decision::Refuse(code, enhanced, _) => format!("{code} {enhanced}"),
        }
    }

    fn preset(policy: Preset) -> ChecksConfig {
        ChecksConfig {
            policy,
            ..ChecksConfig::default()
        }
    }

    #[test]
    fn what_each_policy_does() {
        use DmarcPolicy::{None as P0, Quarantine as Q, Reject as R};
        let published = ChecksConfig::default();
        for (config, spf, dmarc, policy, expected) in [
            (&published, Word::Fail, Word::Fail, P0, "take"),
            (&published, Word::Fail, Word::Fail, Q, "Junk dmarc"),
            (&published, Word::Fail, Word::Fail, R, "550 5.7.1"),
            (&published, Word::Fail, Word::None, P0, "take"),
            (&published, Word::TempError, Word::TempError, R, "take"),
            (&published, Word::Pass, Word::PermError, P0, "take"),
            // Too many domains in From.
            (&published, Word::Pass, Word::PermError, Q, "Junk dmarc"),
            (&preset(Preset::Relaxed), Word::Fail, Word::Fail, R, "take"),
            (
                &preset(Preset::Tag),
                Word::Fail,
                Word::Fail,
                R,
                "Tag dmarc,spf",
            ),
            (&preset(Preset::Tag), Word::Fail, Word::Pass, R, "take"),
            (
                &preset(Preset::Quarantine),
                Word::Fail,
                Word::None,
                P0,
                "Junk spf",
            ),
            (
                &preset(Preset::Quarantine),
                Word::SoftFail,
                Word::Fail,
                R,
                "Junk dmarc",
            ),
            (
                &preset(Preset::Reject),
                Word::Fail,
                Word::None,
                P0,
                "550 5.7.23",
            ),
            (
                &preset(Preset::Reject),
                Word::Neutral,
                Word::Fail,
                P0,
                "550 5.7.1",
            ),
            (&preset(Preset::Strict), Word::Pass, Word::Fail, P0, "take"),
            (
                &preset(Preset::Strict),
                Word::Pass,
                Word::Fail,
                Q,
                "550 5.7.1",
            ),
            (
                &preset(Preset::Strict),
                Word::TempError,
                Word::TempError,
                R,
                "take",
            ),
        ] {
            assert_eq!(
                one(config, &report(spf, dmarc, policy)),
                expected,
                "{spf} {dmarc} {policy:?} {:?}",
                config.policy
            );
        }
    }

    #[test]
    fn no_answer_can_mean_later_and_never_no() {
        let defers = ChecksConfig {
            temporary: Temporary::Defer,
            ..ChecksConfig::default()
        };
        let unknown = report(Word::TempError, Word::TempError, DmarcPolicy::None);
        assert_eq!(one(&defers, &unknown), "451 4.7.1");
        // Where nothing would be done anyway, nothing is waited for.
        let relaxed = ChecksConfig {
            policy: Preset::Relaxed,
            ..defers
        };
        assert_eq!(one(&relaxed, &unknown), "take");
    }

    #[test]
    fn recipients_whose_domains_differ() {
        let config = ChecksConfig {
            rule: vec![
                Rule {
                    recipients: vec!["open.example".to_owned()],
                    policy: Some(Preset::Relaxed),
                    ..Rule::default()
                },
                Rule {
                    recipients: vec![".tagged.example".to_owned()],
                    dmarc: Some(DmarcAction::Tag),
                    ..Rule::default()
                },
            ],
            ..ChecksConfig::default()
        };
        let report = report(Word::Fail, Word::Fail, DmarcPolicy::Reject);
        let to = [
            "a@ours.example",
            "b@open.example",
            "c@x.tagged.example",
            "d@ours.example",
        ];
        let junk = Suspicion {
            treatment: Treatment::Junk,
            checks: "dmarc".to_owned(),
            recipients: Some(vec![0, 3]),
        };
        let tag = Suspicion {
            treatment: Treatment::Tag,
            recipients: Some(vec![2]),
            ..junk.clone()
        };
        assert_eq!(
            decide(&config, &report, &to),
            Decision::Take(vec![tag, junk])
        );
        assert!(matches!(
            decide(&config, &report, &["a@ours.example", "d@ours.example"]),
            Decision::Refuse(550, ..)
        ));
        assert_eq!(
            decide(&config, &report, &["b@open.example"]),
            Decision::Take(Vec::new())
        );
    }

    #[test]
    fn rules_know_listeners_and_senders() {
        let rule = |change: fn(&mut Rule)| {
            let mut rule = Rule {
                policy: Some(Preset::Relaxed),
                ..Rule::default()
            };
            change(&mut rule);
            ChecksConfig {
                rule: vec![rule],
                ..ChecksConfig::default()
            }
        };
        let report = report(Word::Fail, Word::Fail, DmarcPolicy::Reject);
        for (config, expected) in [
            (rule(|rule| rule.listeners = vec!["mx".to_owned()]), "take"),
            (
                rule(|rule| rule.listeners = vec!["other".to_owned()]),
                "550 5.7.1",
            ),
            (
                rule(|rule| rule.senders = vec!["from.example".to_owned()]),
                "take",
            ),
            (
                rule(|rule| rule.senders = vec!["a.example".to_owned()]),
                "take",
            ),
            (
                rule(|rule| rule.senders = vec!["b.example".to_owned()]),
                "550 5.7.1",
            ),
            (
                rule(|rule| rule.senders = vec![".example".to_owned()]),
                "take",
            ),
        ] {
            assert_eq!(one(&config, &report), expected, "{:?}", config.rule);
        }
    }

    #[test]
    fn a_trusted_sealer_can_vouch() {
        let mut sealed = report(Word::Fail, Word::Fail, DmarcPolicy::Reject);
        sealed.arc = ArcReport {
            result: Word::Pass,
            sealers: vec!["first.example".to_owned(), "list.example".to_owned()],
            results: vec![
                "i=1; mx.first.example; dmarc=pass header.from=from.example".to_owned(),
                "i=2; mx.list.example; arc=pass; dmarc=fail header.from=from.example".to_owned(),
            ],
            reason: String::new(),
        };
        let trusting = |sealers: &[&str]| ChecksConfig {
            trusted_sealers: sealers.iter().map(|name| (*name).to_owned()).collect(),
            ..ChecksConfig::default()
        };
        assert_eq!(one(&trusting(&[]), &sealed), "550 5.7.1");
        // What was before somebody who is not trusted counts for nothing.
        assert_eq!(one(&trusting(&["first.example"]), &sealed), "550 5.7.1");
        assert_eq!(one(&trusting(&["list.example"]), &sealed), "550 5.7.1");
        let both = trusting(&["list.example", "first.example"]);
        assert_eq!(one(&both, &sealed), "take");
        sealed.arc.result = Word::Fail;
        assert_eq!(one(&both, &sealed), "550 5.7.1");
    }
}
