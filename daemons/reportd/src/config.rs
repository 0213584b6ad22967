//! The section `[reportd]`.

use serde::{Deserialize, Serialize};
use types::{Address, AddressPattern, REPORT_ADDRESSES};

/// The section `[reportd]`. Times are in seconds, sizes in octets, where nothing else is said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether it runs at all. false.
    pub enabled: bool,
    /// Its database: `sqlite`, which is a file in the state directory, or a `postgres://` or `mysql://` URL. `sqlite`.
    pub database: String,
    /// The addresses in our domains that reports of others come to; no account is needed for them. `*` stands for any text.
    /// `dmarc-reports@*`, `tls-reports@*`, `abuse-reports@*`.
    pub addresses: Vec<String>,
    /// Our name in reports; empty is the domain of `from`.
    pub organization: String,
    /// The address that reports are from; its domain is also who reports, and should have a DKIM key. Empty is `dmarc-reports@` and
    /// `suite.hostname`.
    pub from: String,
    /// More on how we can be reached, for DMARC reports: an address or a URL. Empty is nothing.
    pub contact: String,
    /// What is sent.
    pub send: Send,
    /// What is taken.
    pub intake: Intake,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: false,
            database: "sqlite".to_owned(),
            addresses: REPORT_ADDRESSES.map(str::to_owned).to_vec(),
            organization: String::new(),
            from: String::new(),
            contact: String::new(),
            send: Send::default(),
            intake: Intake::default(),
        }
    }
}

/// `[reportd.send]`: reports to others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Send {
    /// Aggregate reports of DMARC (RFC 7489 7.2). true.
    pub dmarc: bool,
    /// Reports of TLS (RFC 8460). true.
    pub tls: bool,
    /// Reports of single messages that failed DMARC (RFC 6591): they show others what our users get. false.
    pub failure: bool,
    /// For how long results are gathered, from midnight UTC on: 3600 to 86,400, and a part of a day. 86,400.
    pub interval: u64,
    /// Reports are sent within so long after the interval, each domain at its own moment. 7200.
    pub spread: u64,
    /// Octets of a report's message at most, as it is sent; what is larger is dropped. 4 MiB.
    pub max_bytes: u64,
    /// Rows of a report at most; what does not fit is left out, and the report says so. 10,000.
    pub max_rows: u64,
    /// Reports that are gathered at once at most. 20,000.
    pub max_reports: u64,
    /// Destinations of a report at most; the first ones count. 4.
    pub max_destinations: usize,
    /// Domains that get no reports; `.example.org` is all below it. None.
    pub exclude: Vec<String>,
    /// Days for which a destination that refused a report gets none. 14.
    pub refused_days: u64,
    /// Failure reports to a domain in an hour at most. 10.
    pub failures_per_hour: u64,
    /// Leave out the local parts of addresses and the subject in failure reports (RFC 6590). true.
    pub redact: bool,
    /// Days for which it is known what was sent. 7.
    pub keep_days: u64,
    /// Seconds after which a report that could not be posted is posted again, doubled each time. 300.
    pub post_retry: u64,
    /// Seconds after the first attempt at which it is given up, at most a day (RFC 8460 5.5). 86,400.
    pub post_give_up: u64,
}

impl Default for Send {
    fn default() -> Self {
        Self {
            dmarc: true,
            tls: true,
            failure: false,
            interval: 86_400,
            spread: 7200,
            max_bytes: 4 * 1024 * 1024,
            max_rows: 10_000,
            max_reports: 20_000,
            max_destinations: 4,
            exclude: Vec::new(),
            refused_days: 14,
            failures_per_hour: 10,
            redact: true,
            keep_days: 7,
            post_retry: 300,
            post_give_up: 86_400,
        }
    }
}

/// `[reportd.intake]`: reports of others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Intake {
    /// Octets of a message that are looked at; a larger one is kept as unreadable. 16 MiB.
    pub max_message: u64,
    /// Octets of an attachment, still compressed. 8 MiB.
    pub max_compressed: u64,
    /// Octets that may come out of it. 32 MiB.
    pub max_decompressed: u64,
    /// How many times larger it may become, once it has become 64 KiB. 500.
    pub max_ratio: u64,
    /// Files in an archive that are looked at; one with more is refused. 4.
    pub max_entries: usize,
    /// Rows of a report. 20,000.
    pub max_rows: usize,
    /// Reports in one message. 4.
    pub max_attachments: usize,
    /// Days for which reports are kept. 400.
    pub keep_days: u64,
    /// Reports that are kept; the oldest go first. 50,000.
    pub max_reports: u64,
    /// Messages that could not be read, of which so many are kept. 1000.
    pub max_unreadable: u64,
    /// Who gets what cannot be read, too. Empty: nobody does.
    pub forward_unreadable: String,
}

impl Default for Intake {
    fn default() -> Self {
        Self {
            max_message: 16 * 1024 * 1024,
            max_compressed: 8 * 1024 * 1024,
            max_decompressed: 32 * 1024 * 1024,
            max_ratio: 500,
            max_entries: 4,
            max_rows: 20_000,
            max_attachments: 4,
            keep_days: 400,
            max_reports: 50_000,
            max_unreadable: 1000,
            forward_unreadable: String::new(),
        }
    }
}

impl Config {
    /// What makes no sense.
    ///
    /// # Errors
    /// A text that names the setting.
    pub fn validate(&self) -> Result<(), String> {
        for pattern in &self.addresses {
            AddressPattern::parse(pattern)
                .map_err(|error| format!("reportd.addresses: {error}"))?;
        }
        for (name, text) in [
            ("reportd.from", &self.from),
            (
                "reportd.intake.forward_unreadable",
                &self.intake.forward_unreadable,
            ),
        ] {
            if !text.is_empty() {
                text.parse::<Address>()
                    .map_err(|error| format!("{name}: {text:?}: {error}"))?;
            }
        }
        for (name, text) in [
            ("reportd.organization", &self.organization),
            ("reportd.contact", &self.contact),
        ] {
            if text.chars().any(char::is_control) {
                return Err(format!("{name}: there is a control character in it"));
            }
        }
        let interval = self.send.interval;
        if !(3600..=86_400).contains(&interval) || 86_400 % interval != 0 {
            return Err(format!(
                "reportd.send.interval: {interval} is no part of a day from 3600 to 86400"
            ));
        }
        if self.send.spread > interval {
            return Err("reportd.send.spread: more than reportd.send.interval".to_owned());
        }
        for (name, value) in [
            ("send.max_rows", self.send.max_rows),
            ("send.max_reports", self.send.max_reports),
            ("send.max_bytes", self.send.max_bytes),
            ("send.post_retry", self.send.post_retry),
            ("intake.max_message", self.intake.max_message),
            ("intake.max_decompressed", self.intake.max_decompressed),
            ("intake.max_ratio", self.intake.max_ratio),
            ("intake.max_reports", self.intake.max_reports),
        ] {
            if value == 0 {
                return Err(format!("reportd.{name}: 0 would leave nothing"));
            }
        }
        if self.send.post_give_up > 86_400 {
            return Err("reportd.send.post_give_up: more than a day, 86400".to_owned());
        }
        if self.intake.max_message > 256 * 1024 * 1024
            || self.intake.max_decompressed > 256 * 1024 * 1024
        {
            return Err("reportd.intake: sizes are 256 MiB at most: they are memory".to_owned());
        }
        Ok(())
    }

    /// The address that reports are from.
    pub(crate) fn sender(&self, hostname: &str) -> Result<Address, String> {
        let text = match self.from.as_str() {
            "" => format!("dmarc-reports@{hostname}"),
            own => own.to_owned(),
        };
        text.parse()
            .map_err(|error| format!("reportd.from: {text:?}: {error}"))
    }

    /// The domain that reports are from.
    pub fn from_domain(&self, hostname: &str) -> String {
        let sender = self.sender(hostname);
        sender.map_or_else(|_| hostname.to_owned(), |sender| sender.domain().to_owned())
    }

    /// Whether a domain gets no reports.
    pub(crate) fn is_excluded(&self, domain: &str) -> bool {
        self.send.exclude.iter().any(|entry| {
            let entry = entry.to_ascii_lowercase();
            match entry.strip_prefix('.') {
                Some(parent) => domain
                    .strip_suffix(parent)
                    .is_some_and(|rest| rest.ends_with('.')),
                None => domain == entry,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn nonsense_is_named() {
        Config::default().validate().unwrap();
        for (text, word) in [
            ("addresses = ['*@*']", "addresses"),
            ("from = 'x'", "reportd.from"),
            ("contact = \"a\\nb\"", "contact"),
            ("[send]\ninterval = 5000", "interval"),
            ("[send]\ninterval = 3600\nspread = 7200", "spread"),
            ("[send]\nmax_rows = 0", "max_rows"),
            ("[send]\npost_retry = 0", "post_retry"),
            ("[send]\npost_give_up = 86401", "post_give_up"),
            ("[intake]\nforward_unreadable = 'x'", "forward_unreadable"),
            ("[intake]\nmax_message = 1000000000", "256"),
        ] {
            let config: Config = toml::from_str(text).unwrap();
            assert!(config.validate().unwrap_err().contains(word), "{text}");
        }
    }

    #[test]
    fn domains_are_excluded_alone_or_with_all_below() {
        let config: Config =
            toml::from_str("[send]\nexclude = ['A.example', '.b.example']").unwrap();
        assert!(config.is_excluded("a.example") && config.is_excluded("x.b.example"));
        assert!(!config.is_excluded("x.a.example") && !config.is_excluded("b.example"));
        assert!(!config.is_excluded("xb.example"));
    }
}
