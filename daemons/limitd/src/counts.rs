//! All rules with their tables: weighs, counts, and says what is to be written. Pure but for logs: the time is a parameter, in
//! milliseconds since 1970.

use crate::config::{Action, Config, Counted};
use crate::rate::Rate;
use crate::rule::{Charge, Nets, Rule};
use crate::table::{Changes, Table};
use crate::window::Window;
use ipc::api::limitd::{Stage, Used, Weigh};
use runtime::metrics::{Counter, counter};
use types::{Enhanced, Status, TraceId};

/// Periods from here on survive restarts.
const QUOTA: u64 = 3600;

#[derive(Debug)]
struct Line {
    rule: Rule,
    /// One for each of its limits.
    tables: Vec<Table>,
    stopped: Counter,
}

/// The rules, in their order.
#[derive(Debug)]
pub(crate) struct Counts {
    lines: Vec<Line>,
}

/// A limit that is reached.
struct Over {
    rate: Rate,
    /// Milliseconds until it is not, or never.
    wait: Option<u64>,
    key: String,
}

impl Line {
    fn new(rule: Rule, entries: usize, old: &mut [Self]) -> Self {
        let name = &rule.config.name;
        let mut known = old
            .iter_mut()
            .find(|line| line.rule.config.name == *name && same_counts(&line.rule, &rule));
        let table = |rate: &Rate| {
            let tables = known.as_mut().map(|line| &mut line.tables);
            let kept = tables.and_then(|tables| {
                let at = tables
                    .iter()
                    .position(|table| table.rate.period == rate.period)?;
                let mut table = tables.swap_remove(at);
                table.rate = *rate;
                Some(table)
            });
            kept.unwrap_or_else(|| Table::new(*rate, entries, rate.period >= QUOTA))
        };
        Self {
            tables: rule.config.limit.0.iter().map(table).collect(),
            stopped: counter(
                &format!("limitd_limited_total{{rule=\"{name}\"}}"),
                "What a rule stopped, or logged",
            ),
            rule,
        }
    }

    /// The first of its limits that has no room.
    fn over(&self, charges: &[Charge], now: u64) -> Option<Over> {
        charges.iter().find_map(|charge| {
            self.tables.iter().find_map(|table| {
                let wait = table.wait(&charge.key, now, charge.amount);
                (wait != Some(0)).then(|| Over {
                    rate: table.rate,
                    wait,
                    key: charge.key.clone(),
                })
            })
        })
    }

    /// What the client is told.
    fn status(&self, over: &Over, stage: &Stage) -> Status {
        let config = &self.rule.config;
        let count = config.count;
        let alone = over.wait.is_none() && count == Counted::Octets;
        let wait = over.wait.unwrap_or(over.rate.period * 1000).div_ceil(1000);
        let connected = matches!(stage, Stage::Connect | Stage::Unknown { .. });
        let (code, enhanced) = match (config.action, count) {
            // RFC 1870 6.1: there will never be room for it
            _ if alone => (552, Enhanced(5, 3, 4)),
            (Action::Refuse, _) if connected => (554, Enhanced(5, 7, 1)),
            (Action::Refuse, _) => (550, Enhanced(5, 7, 1)),
            _ if connected => (421, Enhanced(4, 7, 0)),
            (_, Counted::Recipients | Counted::Octets) => (452, Enhanced(4, 7, 1)),
            _ => (451, Enhanced(4, 7, 1)),
        };
        let text = if !config.text.is_empty() {
            config.text.replace("{wait}", &wait.to_string())
        } else if alone {
            format!(
                "The message is larger than the limit {} allows in all",
                config.name
            )
        } else {
            let what = match count {
                Counted::Unknown => "unknown recipients",
                other => other.name(),
            };
            format!(
                "Too many {what} (limit {}); try again in {wait} seconds",
                config.name
            )
        };
        Status {
            code,
            enhanced,
            text,
            host: None,
        }
    }
}

/// Whether what was counted under the old rule is what the new one counts.
fn same_counts(old: &Rule, new: &Rule) -> bool {
    old.config.count == new.config.count && old.config.key == new.config.key
}

impl Counts {
    /// # Errors
    /// A rule that makes no sense.
    pub(crate) fn new(config: &Config) -> Result<Self, String> {
        let mut counts = Self { lines: Vec::new() };
        counts.reload(config)?;
        Ok(counts)
    }

    /// Takes new rules over; what the old ones counted in the same way stays.
    ///
    /// # Errors
    /// A rule that makes no sense: then all stays as it was.
    pub(crate) fn reload(&mut self, config: &Config) -> Result<(), String> {
        let nets = Nets::of(config);
        let mut rules: Vec<Rule> = Vec::new();
        for one in &config.rule {
            let rule = Rule::new(one, nets)?;
            if rules.iter().any(|other| other.config.name == one.name) {
                return Err(format!("limitd.rule: there are two named {:?}", one.name));
            }
            rules.push(rule);
        }
        let mut old = std::mem::take(&mut self.lines);
        let lines = rules
            .into_iter()
            .map(|rule| Line::new(rule, config.entries, &mut old));
        self.lines = lines.collect();
        Ok(())
    }

    /// Whether a client may go on; if it may, what it does is counted. An unknown recipient is counted in any case.
    pub(crate) fn weigh(
        &mut self,
        trace: TraceId,
        weigh: &Weigh,
        now: u64,
    ) -> Option<(Status, String)> {
        let Weigh { stage, facts } = weigh;
        let mut charged: Vec<(usize, Vec<Charge>)> = Vec::new();
        let mut verdict = None;
        for (at, line) in self.lines.iter().enumerate() {
            let (charges, takes) = line.rule.charges(facts, stage);
            if charges.is_empty() {
                continue;
            }
            if let Some(over) = line.over(&charges, now) {
                let rule = &line.rule.config.name;
                // What is only logged is told once, when it is counted.
                if !line.rule.only_logs() || takes {
                    line.stopped.add_one();
                    tracing::info!(
                        %trace, rule, key = over.key, rate = %over.rate,
                        wait = over.wait.map(|wait| wait.div_ceil(1000)), "limit reached"
                    );
                }
                if !line.rule.only_logs() {
                    verdict = Some((line.status(&over, stage), rule.clone()));
                    if !matches!(stage, Stage::Unknown { .. }) {
                        return verdict;
                    }
                }
            }
            if takes {
                charged.push((at, charges));
            }
        }
        for (at, charges) in charged {
            let tables = self.lines.get_mut(at).map(|line| &mut line.tables);
            for table in tables.into_iter().flatten() {
                for charge in &charges {
                    table.add(&charge.key, now, charge.amount);
                }
            }
        }
        verdict
    }

    /// Takes back what [`Self::weigh`] counted.
    pub(crate) fn give_back(&mut self, weigh: &Weigh, now: u64) {
        for line in &mut self.lines {
            let (charges, takes) = line.rule.charges(&weigh.facts, &weigh.stage);
            for table in line.tables.iter_mut().filter(|_| takes) {
                for charge in &charges {
                    table.give_back(&charge.key, now, charge.amount);
                }
            }
        }
    }

    /// What there is, of the rules that `rule` means and the keys that `key` means; what has used most of its limit first.
    pub(crate) fn used(
        &self,
        rule: Option<&str>,
        key: impl Fn(&str) -> bool,
        most: usize,
        now: u64,
    ) -> Vec<Used> {
        let mut all: Vec<Used> = Vec::new();
        let lines = self.lines.iter();
        for line in lines.filter(|line| rule.is_none_or(|name| name == line.rule.config.name)) {
            for table in &line.tables {
                let found = table.used(now).filter(|(text, _, _)| key(text));
                all.extend(found.map(|(text, used, wait)| Used {
                    rule: line.rule.config.name.clone(),
                    count: line.rule.config.count.name().to_owned(),
                    key: text.to_owned(),
                    used,
                    limit: table.rate.amount,
                    period: table.rate.period,
                    wait: wait.div_ceil(1000),
                }));
            }
        }
        let share = |one: &Used| u128::from(one.used) * 1_000_000 / u128::from(one.limit.max(1));
        all.sort_by(|a, b| share(b).cmp(&share(a)).then_with(|| a.key.cmp(&b.key)));
        all.truncate(most);
        all
    }

    /// Forgets counts; how many.
    pub(crate) fn reset(&mut self, rule: Option<&str>, key: impl Fn(&str) -> bool) -> u64 {
        let lines = self.lines.iter_mut();
        lines
            .filter(|line| rule.is_none_or(|name| name == line.rule.config.name))
            .flat_map(|line| &mut line.tables)
            .map(|table| table.reset(&key))
            .sum()
    }

    /// Keys remembered.
    pub(crate) fn len(&self) -> usize {
        self.lines
            .iter()
            .flat_map(|line| &line.tables)
            .map(Table::len)
            .sum()
    }

    /// Forgets what does not count any more.
    pub(crate) fn sweep(&mut self, now: u64) {
        for table in self.lines.iter_mut().flat_map(|line| &mut line.tables) {
            table.sweep(now);
        }
    }

    fn kept(&mut self) -> impl Iterator<Item = (String, &mut Table)> {
        self.lines.iter_mut().flat_map(|line| {
            let name = &line.rule.config.name;
            let kept = line.tables.iter_mut().filter(|table| table.keeps());
            kept.map(move |table| (scope(name, table.rate), table))
        })
    }

    /// What is to be written, by scope.
    pub(crate) fn changes(&mut self) -> Vec<(String, Changes)> {
        self.kept()
            .map(|(scope, table)| (scope, table.changes()))
            .filter(|(_, changes)| *changes != Changes::default())
            .collect()
    }

    /// It could not be written.
    pub(crate) fn take_back(&mut self, changes: Vec<(String, Changes)>) {
        for (scope, changes) in changes {
            if let Some((_, table)) = self.kept().find(|(own, _)| *own == scope) {
                table.take_back(changes);
            }
        }
    }

    /// The scopes of what is kept.
    pub(crate) fn scopes(&mut self) -> Vec<String> {
        self.kept().map(|(scope, _)| scope).collect()
    }

    /// What the database had.
    pub(crate) fn load(&mut self, scope: &str, key: &str, counts: &str) {
        if let Some(window) = Window::read(counts)
            && let Some((_, table)) = self.kept().find(|(own, _)| own == scope)
        {
            table.load(key, window);
        }
    }
}

/// The name of a limit in the database. The amount may change without losing what was counted; the period is what the counts
/// are made of.
fn scope(rule: &str, rate: Rate) -> String {
    format!("{rule} {}", rate.period)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use ipc::api::limitd::Facts;
    use types::Address;

    const NOW: u64 = 1_800_000_000_000;
    const TRACE: TraceId = TraceId(7);

    fn config(text: &str) -> Config {
        toml::from_str(text).unwrap()
    }

    fn weigh(stage: Stage) -> Weigh {
        Weigh {
            stage,
            facts: Facts {
                client: Some("192.0.2.9".parse().unwrap()),
                listener: "mx".to_owned(),
                account: Some("jane@example.org".to_owned()),
                ..Facts::default()
            },
        }
    }

    fn message(count: usize) -> Weigh {
        let recipients = (0..count).map(|n| format!("u{n}@x.example").parse().unwrap());
        weigh(Stage::Message {
            recipients: recipients.collect(),
            octets: 1000,
            rest: false,
        })
    }

    fn told(counts: &mut Counts, weigh: &Weigh) -> Option<(u16, String)> {
        counts
            .weigh(TRACE, weigh, NOW)
            .map(|(status, rule)| (status.code, rule))
    }

    const RULES: &str = "
        [[rule]]
        name = 'guard'
        key = ['account']
        count = 'recipients'
        limit = '2/1m, 4/1d'
        [[rule]]
        name = 'watch'
        action = 'log'
        limit = '1/1h'
        [[rule]]
        name = 'large'
        count = 'octets'
        action = 'refuse'
        limit = '5000/1h'
    ";

    #[test]
    fn what_is_refused_is_not_counted() {
        let mut counts = Counts::new(&config(RULES)).unwrap();
        assert_eq!(
            told(&mut counts, &message(3)),
            Some((452, "guard".to_owned()))
        );
        let used = |counts: &Counts| {
            let all = counts.used(None, |_| true, 100, NOW);
            all.into_iter()
                .map(|one| (one.rule, one.used))
                .collect::<Vec<_>>()
        };
        assert_eq!(used(&counts), []);
        assert_eq!(told(&mut counts, &message(2)), None);
        let spent = [("guard", 2), ("watch", 1), ("guard", 2), ("large", 1000)];
        let spent = spent.map(|(rule, used)| (rule.to_owned(), used));
        let mut got = used(&counts);
        got.sort();
        let mut want = spent.to_vec();
        want.sort();
        assert_eq!(got, want);
        // The minute is over its limit, the day is not.
        let rcpt = |taken| {
            weigh(Stage::Recipient {
                recipient: "a@x.example".parse::<Address>().unwrap(),
                taken,
                taken_there: taken,
                declared: 0,
            })
        };
        let (status, _) = counts.weigh(TRACE, &rcpt(0), NOW).unwrap();
        assert_eq!((status.code, status.enhanced), (452, Enhanced(4, 7, 1)));
        assert!(
            status.text.contains("guard") && status.text.contains("seconds"),
            "{status}"
        );
        counts.give_back(&message(2), NOW);
        assert_eq!(told(&mut counts, &rcpt(1)), None);
        assert_eq!(told(&mut counts, &rcpt(2)), Some((452, "guard".to_owned())));
        assert_eq!(
            told(&mut counts, &weigh(Stage::Mail { declared: 4999 })),
            None
        );
        assert_eq!(
            told(&mut counts, &weigh(Stage::Mail { declared: 5001 })),
            Some((552, "large".to_owned()))
        );
    }

    #[test]
    fn unknown_recipients_close_the_door() {
        let mut counts = Counts::new(&config(
            "rule = [{name = 'guess', count = 'unknown', key = ['address'], limit = '2/1h'}]",
        ))
        .unwrap();
        let guess = weigh(Stage::Unknown {
            recipient: "who@example.org".parse().unwrap(),
        });
        assert_eq!(told(&mut counts, &guess), None);
        assert_eq!(told(&mut counts, &weigh(Stage::Connect)), None);
        assert_eq!(told(&mut counts, &guess), None);
        let closed = Some((421, "guess".to_owned()));
        assert_eq!(told(&mut counts, &guess), closed);
        assert_eq!(told(&mut counts, &weigh(Stage::Connect)), closed);
        assert_eq!(counts.reset(Some("guess"), |key| key == "192.0.2.9"), 1);
        assert_eq!(told(&mut counts, &weigh(Stage::Connect)), None);
    }

    #[test]
    fn new_rules_keep_what_was_counted() {
        let mut counts = Counts::new(&config(RULES)).unwrap();
        assert_eq!(told(&mut counts, &message(2)), None);
        let kept = counts.changes();
        let scopes: Vec<&str> = kept.iter().map(|(scope, _)| scope.as_str()).collect();
        assert_eq!(scopes, ["guard 86400", "watch 3600", "large 3600"]);
        assert_eq!(counts.changes(), []);
        counts.take_back(kept);
        let kept = counts.changes();
        let mut again = Counts::new(&config(RULES)).unwrap();
        for (scope, changes) in &kept {
            for (key, window, _) in &changes.written {
                again.load(scope, key, window);
            }
        }
        assert_eq!(again.used(Some("guard"), |_| true, 9, NOW).len(), 1);
        let text = RULES.replace("4/1d", "5/1d").replace("'watch'", "'other'");
        again.reload(&config(&text)).unwrap();
        assert_eq!(again.used(Some("guard"), |_| true, 9, NOW).len(), 1);
        assert_eq!(again.used(Some("other"), |_| true, 9, NOW).len(), 0);
        assert_eq!(again.used(Some("large"), |_| true, 9, NOW).len(), 1);
        assert!(again.reload(&config("rule = [{name = 'x'}]")).is_err());
        assert_eq!(again.used(Some("large"), |_| true, 9, NOW).len(), 1);
        let twice = "rule = [{name = 'x', limit = '1/1h'}, {name = 'x', limit = '1/1h'}]";
        assert!(Counts::new(&config(twice)).is_err());
    }
}
