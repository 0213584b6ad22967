//! The administrator's lists, which scripts can ask whether somebody is on them, and send to (RFC 6134).

use sieve::engine::MatchAs;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Entries of one list.
const ENTRIES_MAX: usize = 1_000_000;

/// Lists by name.
#[derive(Debug, Default)]
pub(super) struct Lists(BTreeMap<String, List>);

/// What is on one list: as it stands there, and in lower case.
#[derive(Debug, Default)]
struct List {
    entries: Vec<String>,
    /// Sorted.
    folded: Vec<String>,
}

/// A tag with an address in it (RFC 6134 2.7, RFC 4151 2): the engine's `redirect :list` takes nothing without one.
fn is_name(name: &str) -> bool {
    let address = name
        .strip_prefix("tag:")
        .and_then(|rest| rest.split_once(','))
        .and_then(|(authority, _)| authority.split_once('@'));
    let odd = |c: char| c.is_whitespace() || matches!(c, '"' | '<' | '>');
    address.is_some_and(|(local, domain)| !local.is_empty() && domain.contains('.'))
        && name.matches('@').count() == 1
        && !name.contains(odd)
}

impl Lists {
    /// Reads all lists: one entry a line, `#` begins a remark.
    ///
    /// # Errors
    /// A name cannot be one of a list, or a file cannot be read; it says which.
    pub(super) fn read(files: &BTreeMap<String, PathBuf>) -> Result<Self, String> {
        let mut lists = BTreeMap::new();
        for (name, file) in files {
            if !is_name(name) {
                return Err(format!(
                    "deliverd.sieve.lists: \"{name}\" is no name of a list: take one like \"tag:postmaster@example.org,2026:partners\""
                ));
            }
            lists.insert(name.clone(), List::read(file)?);
        }
        Ok(Self(lists))
    }

    /// The names that scripts may use.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    /// Whether one of the values is on one of the lists.
    pub(super) fn have(&self, names: &[String], values: &[String], how: &MatchAs) -> bool {
        let mut lists = names.iter().filter_map(|name| self.0.get(name));
        lists.any(|list| values.iter().any(|value| list.has(value, how)))
    }

    /// The addresses on a list; of what is no address, nothing.
    pub(super) fn addresses(&self, name: &str) -> Vec<String> {
        let entries = self.0.get(name).map(|list| list.entries.as_slice());
        let whole = |entry: &&String| !entry.starts_with('@');
        entries
            .unwrap_or_default()
            .iter()
            .filter(whole)
            .cloned()
            .collect()
    }
}

impl List {
    fn read(file: &Path) -> Result<Self, String> {
        let failed = |why: &dyn std::fmt::Display| {
            format!("deliverd.sieve.lists: {}: {why}", file.display())
        };
        let text = std::fs::read_to_string(file).map_err(|error| failed(&error))?;
        let entry = |line: &str| {
            let line = line.split('#').next().unwrap_or_default().trim();
            (!line.is_empty()).then(|| line.to_owned())
        };
        let entries: Vec<String> = text.lines().filter_map(entry).collect();
        if entries.len() > ENTRIES_MAX {
            return Err(failed(&"a list has 1,000,000 entries at most"));
        }
        Ok(Self::of(entries))
    }

    fn of(entries: Vec<String>) -> Self {
        let mut folded: Vec<String> = entries.iter().map(|one| one.to_lowercase()).collect();
        folded.sort_unstable();
        Self { entries, folded }
    }

    fn on(&self, folded: &str) -> bool {
        let found = self.folded.binary_search_by(|one| one.as_str().cmp(folded));
        found.is_ok()
    }

    /// An entry that begins with `@` is all addresses of that domain.
    fn has(&self, value: &str, how: &MatchAs) -> bool {
        let folded = value.to_lowercase();
        let domain = || {
            let at = folded.rfind('@')?;
            folded.get(at..)
        };
        match how {
            MatchAs::Lowercase => self.on(&folded) || domain().is_some_and(|at| self.on(at)),
            MatchAs::Octet => self.entries.iter().any(|one| one == value),
            // RFC 4790 9.1: what does not begin with a digit is above all numbers, and equal to its like
            MatchAs::Number => {
                let number = |text: &str| -> Option<u64> {
                    let end = text.find(|c: char| !c.is_ascii_digit());
                    text.get(..end.unwrap_or(text.len()))?.parse().ok()
                };
                self.entries.iter().any(|one| number(one) == number(value))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn who_is_on_a_list() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("partners");
        std::fs::write(
            &file,
            "# ours\nJoe@Example.net  # the first\n\n@example.com\n10\n",
        )
        .unwrap();
        let name = "tag:joe@example.org,2026:partners".to_owned();
        let files = BTreeMap::from([(name.clone(), file.clone())]);
        let lists = Lists::read(&files).unwrap();
        let has = |value: &str, how: &MatchAs| {
            lists.have(std::slice::from_ref(&name), &[value.to_owned()], how)
        };
        for value in ["joe@example.net", "JOE@EXAMPLE.NET", "any@Example.com"] {
            assert!(has(value, &MatchAs::Lowercase), "{value}");
        }
        for value in [
            "jo@example.net",
            "joe@sub.example.com",
            "example.com",
            "ours",
        ] {
            assert!(!has(value, &MatchAs::Lowercase), "{value}");
        }
        assert!(
            has("Joe@Example.net", &MatchAs::Octet) && !has("joe@example.net", &MatchAs::Octet)
        );
        assert!(has("10x", &MatchAs::Number) && !has("11", &MatchAs::Number));
        assert!(!lists.have(
            &["tag:other".to_owned()],
            &["10".to_owned()],
            &MatchAs::Octet
        ));
        assert_eq!(lists.addresses(&name), ["Joe@Example.net", "10"]);

        for name in [
            "partners",
            "tag:example.org,2026:x",
            "urn:a@b.c,1",
            "tag:a@b.c,1:d@e",
            "tag:a@b.c,1: ",
        ] {
            let wrong = BTreeMap::from([(name.to_owned(), file.clone())]);
            assert!(Lists::read(&wrong).unwrap_err().contains(name), "{name}");
        }
        let missing = BTreeMap::from([(name, folder.path().join("nowhere"))]);
        assert!(Lists::read(&missing).unwrap_err().contains("nowhere"));
    }
}
