//! Which rule decides what of a message, for operators.

use crate::core::Core;
use crate::record::Head;
use crate::rule::{Looked, RuleConfig};
use crate::table::LOCAL;
use crate::waiting::Times;
use ipc::Fault;
use ipc::api::queued::Explained;
use std::collections::BTreeMap;
use types::{QueueId, Route};

/// Domains that are explained of one message.
const DOMAINS: usize = 50;

impl Core {
    /// See [`ipc::api::queued::QueueExplain`].
    ///
    /// # Errors
    /// NotFound, and Temporary: the queue table is away.
    pub async fn explain(&self, id: QueueId) -> Result<Vec<Explained>, Fault> {
        let (message, entry) = self.find(id).await?;
        let head = &message.head;
        let mut domains: BTreeMap<(String, bool), u32> = BTreeMap::new();
        for waiting in &entry.recipients {
            let local = waiting.recipient.route == Route::Local;
            let domain = waiting.recipient.address.domain().to_owned();
            *domains.entry((domain, local)).or_default() += 1;
        }
        Ok(domains
            .into_iter()
            .take(DOMAINS)
            .map(|((domain, local), recipients)| {
                let mail = Looked::of(head, &domain);
                let rule = self.rules.find(&mail);
                Explained {
                    recipients,
                    destination: if local {
                        LOCAL.to_owned()
                    } else {
                        self.rules.destination(head, &domain)
                    },
                    rule: rule.map(|rule| rule.name.clone()),
                    passed_over: self.rules.passed_over(&mail),
                    settings: self.settings(id, head, rule.map(|rule| &**rule), local),
                    domain,
                }
            })
            .collect())
    }

    /// What holds for it, as names of settings with their values.
    fn settings(
        &self,
        id: QueueId,
        head: &Head,
        rule: Option<&RuleConfig>,
        local: bool,
    ) -> Vec<(String, String)> {
        let config = &self.config;
        let times = Times::of(config, head, rule);
        let first = if local {
            config.local_retry_min
        } else {
            config.retry_min
        };
        let schedule = match rule {
            Some(rule) if !rule.schedule.is_empty() => rule
                .schedule
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", "),
            _ => format!("{first}, doubled up to {}", config.retry_max),
        };
        let begin = head.arrived.max(times.not_before);
        let warning = rule
            .and_then(|rule| rule.delay_warning)
            .unwrap_or(config.delay_warning);
        let mut settings = vec![
            ("schedule".to_owned(), schedule),
            (
                "expire".to_owned(),
                times.expires.saturating_sub(begin).to_string(),
            ),
            ("delay_warning".to_owned(), warning.to_string()),
        ];
        if local {
            return settings;
        }
        let mut add = |name: &str, value: Option<String>| {
            settings.extend(value.map(|value| (name.to_owned(), value)));
        };
        let concurrency = rule.and_then(|rule| rule.concurrency);
        add(
            "concurrency",
            Some(concurrency.unwrap_or(config.destination_max).to_string()),
        );
        if let Some(rule) = rule {
            let manner = rule.manner(id);
            add("rate", rule.rate.map(|rate| rate.to_string()));
            add("route", rule.route.clone());
            add("source", manner.source.map(|source| source.to_string()));
            add("hello", manner.hello);
            add("tls", manner.tls.map(|tls| tls.to_string()));
        }
        settings
    }
}
