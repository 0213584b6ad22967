//! The configuration: one TOML file, `conf.d/*.toml` beside it, and the environment, in this order.
//!
//! Later files and then `POSTHOUSE_SECTION__KEY` variables override earlier ones, key by key. Unknown keys are refused,
//! with the place and the nearest known key.

use crate::Failure;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::path::{Path, PathBuf};
use toml::{Table, Value};
use types::Role;

/// The section `[suite]`: what all daemons share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Suite {
    /// The name of this host as others know it: in greetings, Received and reports. A full domain name.
    pub hostname: String,
    /// Below it, each daemon that writes has a directory of its own.
    pub state_dir: PathBuf,
    /// Where the daemons' sockets are.
    pub run_dir: PathBuf,
    /// `separate`: a system account for each daemon (topology.toml); `single`: all as the user who starts them;
    /// `auto`: separate if started as root or as the daemon's own account.
    pub users: UsersMode,
    /// `auto` (human on a terminal, JSON otherwise), `human` or `json`.
    pub log_format: LogFormat,
    /// What is logged: `error`, `warn`, `info`, `debug`, `trace`, or by crate as in `info,imapd=debug`. The variable
    /// POSTHOUSE_LOG overrides it.
    pub log_level: String,
    /// How long sessions may go on after TERM, in seconds: 0 to 60.
    pub drain_seconds: u64,
    /// Threads of each daemon, 1 to 64.
    pub threads: usize,
}

impl Default for Suite {
    fn default() -> Self {
        Self {
            hostname: "localhost".to_owned(),
            state_dir: "/var/lib/posthouse".into(),
            run_dir: "/run/posthouse".into(),
            users: UsersMode::Auto,
            log_format: LogFormat::Auto,
            log_level: "info".to_owned(),
            drain_seconds: 10,
            threads: 2,
        }
    }
}

/// Which accounts the daemons run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UsersMode {
    /// By who starts them.
    Auto,
    /// Each its own.
    Separate,
    /// All the same.
    Single,
}

/// The form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Human on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Human,
    /// One object a line.
    Json,
}

/// The configuration as it was read, all sections.
#[derive(Clone, Debug, Default)]
pub struct Document {
    path: PathBuf,
    table: Table,
    /// The texts of the files, to point at lines.
    sources: Vec<(PathBuf, String)>,
}

impl Document {
    /// Reads the file, what is in `conf.d` beside it, and the environment.
    ///
    /// # Errors
    /// A file that cannot be read or is no TOML, with its place.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        Self::load_with(path, std::env::vars())
    }

    fn load_with(
        path: &Path,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, Failure> {
        let mut document = Self {
            path: path.to_owned(),
            ..Self::default()
        };
        document.add(path)?;
        let mut more: Vec<PathBuf> = match std::fs::read_dir(path.with_file_name("conf.d")) {
            Ok(entries) => entries
                .filter_map(|entry| entry.ok().map(|entry| entry.path()))
                .collect(),
            Err(_) => Vec::new(),
        };
        more.retain(|path| {
            path.extension()
                .is_some_and(|extension| extension == "toml")
        });
        more.sort();
        for path in more {
            document.add(&path)?;
        }
        for (name, text) in variables {
            document.set(&name, &text)?;
        }
        Ok(document)
    }

    /// Whether a daemon runs: those that the topology calls optional do if their section says `enabled = true`, all others always.
    /// certd does also where it may write a zone: it publishes records and changes DKIM keys without ordering certificates.
    pub fn enabled(&self, role: Role) -> bool {
        if !ipc::topology::daemon(role).is_some_and(|daemon| daemon.optional) {
            return true;
        }
        let Some(section) = self.table.get(role.name()) else {
            return false;
        };
        let publishes = || {
            let provider = section.get("dns").and_then(|dns| dns.get("provider"));
            let named = provider.and_then(toml::Value::as_str);
            role == Role::Certd && named.is_some_and(|provider| !provider.is_empty())
        };
        let enabled = section.get("enabled").and_then(toml::Value::as_bool);
        enabled.unwrap_or(false) || publishes()
    }

    fn add(&mut self, path: &Path) -> Result<(), Failure> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Failure::new(format!(
                "the configuration {} cannot be read: {error}",
                path.display()
            ))
        })?;
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            Failure::new(format!("{}: {error}", path.display()))
        })?;
        merge(&mut self.table, table);
        self.sources.push((path.to_owned(), text));
        Ok(())
    }

    /// `POSTHOUSE_SMTPD__LIMITS__RECIPIENTS=50`: the value is TOML where it is valid TOML, and a string otherwise.
    fn set(&mut self, name: &str, text: &str) -> Result<(), Failure> {
        let Some(keys) = name
            .strip_prefix("POSTHOUSE_")
            .filter(|keys| keys.contains("__"))
        else {
            return Ok(());
        };
        let value = format!("v = {text}")
            .parse::<Table>()
            .ok()
            .and_then(|mut table| table.remove("v"));
        let value = value.unwrap_or_else(|| Value::String(text.to_owned()));
        let keys = keys.to_ascii_lowercase();
        let mut at = &mut self.table;
        let mut keys = keys.split("__").peekable();
        while let Some(key) = keys.next() {
            if keys.peek().is_none() {
                at.insert(key.to_owned(), value);
                return Ok(());
            }
            let below = at.entry(key).or_insert_with(|| Value::Table(Table::new()));
            at = below
                .as_table_mut()
                .ok_or_else(|| Failure::new(format!("{name}: {key} is not a section")))?;
        }
        Ok(())
    }

    /// The file it came from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All sections as they are in force.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// A section; its defaults if it is not there.
    ///
    /// # Errors
    /// An unknown key (with the place and the nearest known one) or a value of the wrong type.
    pub fn section<T: DeserializeOwned + Default>(&self, name: &str) -> Result<T, Failure> {
        match self.table.get(name) {
            None => Ok(T::default()),
            Some(value) => value
                .clone()
                .try_into()
                .map_err(|error: toml::de::Error| Failure::new(self.explain(name, &error))),
        }
    }

    /// `[suite]`, with its bounds checked.
    ///
    /// # Errors
    /// As [`Self::section`].
    pub fn suite(&self) -> Result<Suite, Failure> {
        let suite: Suite = self.section("suite")?;
        if suite.drain_seconds > 60 {
            return Err(Failure::new("suite.drain_seconds is at most 60"));
        }
        if !(1..=64).contains(&suite.threads) {
            return Err(Failure::new("suite.threads is 1 to 64"));
        }
        if suite.hostname.is_empty() {
            return Err(Failure::new(
                "suite.hostname is empty: set it to the full name of this host",
            ));
        }
        Ok(suite)
    }

    /// Sections that nobody knows.
    ///
    /// # Errors
    /// The first one, with the nearest known name.
    pub fn only(&self, known: &[&str]) -> Result<(), Failure> {
        match self.table.keys().find(|key| !known.contains(&key.as_str())) {
            None => Ok(()),
            Some(key) => {
                let place = self.place(key, &format!("[{key}"));
                Err(Failure::new(format!(
                    "{place}: unknown section [{key}]{}",
                    nearest(key, known.iter().copied())
                )))
            }
        }
    }

    fn explain(&self, section: &str, error: &toml::de::Error) -> String {
        let message = error.message().to_owned();
        let mut quoted = message.split('`').skip(1).step_by(2);
        let path = error.to_string();
        let inside = path
            .lines()
            .find_map(|line| line.trim().strip_prefix("in `"))
            .map(|rest| rest.trim_end_matches('`'));
        let full = |key: &str| match inside {
            Some(inside) if inside != key => format!("{section}.{inside}.{key}"),
            _ => format!("{section}.{key}"),
        };
        if message.starts_with("unknown field")
            && let Some(key) = quoted.next()
        {
            let place = self.place(section, key);
            return format!("{place}: unknown key {}{}", full(key), nearest(key, quoted));
        }
        let key = inside.unwrap_or_default();
        let last = key.rsplit('.').next().unwrap_or_default();
        let name = if key.is_empty() {
            section.to_owned()
        } else {
            format!("{section}.{key}")
        };
        format!("{}: {name}: {}", self.place(section, last), message.trim())
    }

    /// `file:line` of a key in a section; the file alone, or the environment, if it is not found.
    fn place(&self, section: &str, key: &str) -> String {
        for (path, text) in self.sources.iter().rev() {
            let mut inside = false;
            for (number, line) in text.lines().enumerate() {
                let line = line.trim_start();
                if let Some(header) = line.strip_prefix('[') {
                    let header = header.trim_start_matches('[');
                    inside = header.starts_with(section)
                        && header[section.len()..].starts_with([']', '.', ' ']);
                    if inside
                        && (key.starts_with('[')
                            || header.trim_end_matches(']').ends_with(&format!(".{key}")))
                    {
                        return format!("{}:{}", path.display(), number + 1);
                    }
                }
                let rest = line.strip_prefix(key).map(str::trim_start);
                if inside
                    && !key.is_empty()
                    && rest.is_some_and(|rest| rest.starts_with(['=', '.']))
                {
                    return format!("{}:{}", path.display(), number + 1);
                }
            }
        }
        let variable = format!("POSTHOUSE_{}__", section.to_ascii_uppercase());
        if std::env::vars().any(|(name, _)| name.starts_with(&variable)) {
            return format!("{} or {variable}*", self.path.display());
        }
        self.path.display().to_string()
    }
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(more)) => merge(below, more),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// `; did you mean X?` if something is near.
fn nearest<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> String {
    known
        .map(|candidate| (strsim::damerau_levenshtein(key, candidate), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 3)
        .map_or_else(String::new, |(_, candidate)| {
            format!("; did you mean {candidate}?")
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn document(name: &str, text: &str, variables: &[(&str, &str)]) -> Result<Document, Failure> {
        let folder =
            std::env::temp_dir().join(format!("runtime-config-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("posthouse.toml");
        std::fs::write(&path, text).unwrap();
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Document::load_with(&path, variables)
    }

    #[test]
    fn the_nearest_key_and_the_line_are_named() {
        let text = "[suite]\nhostname = 'mx.test'\nstate_dri = '/x'\n";
        let error = document("nearest", text, &[])
            .unwrap()
            .suite()
            .unwrap_err()
            .to_string();
        assert!(
            error.ends_with(
                "posthouse.toml:3: unknown key suite.state_dri; did you mean state_dir?"
            ),
            "{error}"
        );
    }

    #[test]
    fn a_wrong_type_names_the_line() {
        let text = "[suite]\nhostname = 'mx.test'\ndrain_seconds = 'ten'\n";
        let error = document("type", text, &[])
            .unwrap()
            .suite()
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("posthouse.toml:3: suite.drain_seconds: invalid type: string"),
            "{error}"
        );
    }

    #[test]
    fn the_environment_overrides_and_keeps_types() {
        let variables = [
            ("POSTHOUSE_SUITE__HOSTNAME", "other.test"),
            ("POSTHOUSE_SUITE__THREADS", "4"),
            ("POSTHOUSE_LOG", "x"),
        ];
        let suite = document("environment", "[suite]\nhostname = 'mx.test'\n", &variables)
            .unwrap()
            .suite()
            .unwrap();
        assert_eq!((suite.hostname.as_str(), suite.threads), ("other.test", 4));
    }

    #[test]
    fn unknown_sections_are_refused() {
        let error = document("section", "[smtp]\n", &[])
            .unwrap()
            .only(&["smtpd", "imapd"])
            .unwrap_err()
            .to_string();
        assert!(
            error.ends_with(":1: unknown section [smtp]; did you mean smtpd?"),
            "{error}"
        );
    }

    #[test]
    fn limits_are_bounded() {
        assert!(
            document("bounds", "[suite]\ndrain_seconds = 61\n", &[])
                .unwrap()
                .suite()
                .is_err()
        );
        assert!(document("broken", "[suite\n", &[]).is_err());
    }
}
