//! The policy file (RFC 8461 3.2).

use std::fmt::{self, Display};

/// Octets of a policy at most.
pub(crate) const SIZE_MAX: usize = 64 * 1024;
/// Seconds that a policy may count at most: a year (RFC 8461 3.2).
pub(crate) const AGE_MAX: u64 = 31_557_600;
/// Exchangers in a policy at most.
const HOSTS_MAX: usize = 1000;

/// What is done about a host that does not live up to the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Mode {
    /// It gets nothing.
    Enforce,
    /// It is reported.
    Testing,
    /// The domain no longer has a policy.
    None,
}

impl Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Enforce => "enforce",
            Self::Testing => "testing",
            Self::None => "none",
        })
    }
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) mode: Mode,
    /// Seconds.
    pub(crate) max_age: u64,
    /// Names, or `*.` and a name; in lower case.
    pub(crate) mx: Vec<String>,
}

/// As its file has it.
impl Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "version: STSv1\r\nmode: {}\r\n", self.mode)?;
        for host in &self.mx {
            write!(f, "mx: {host}\r\n")?;
        }
        write!(f, "max_age: {}\r\n", self.max_age)
    }
}

impl Policy {
    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(octets: &[u8]) -> Result<Self, String> {
        if octets.len() > SIZE_MAX {
            return Err(format!("it has more than {SIZE_MAX} octets"));
        }
        let text = std::str::from_utf8(octets).map_err(|_| "it is not UTF-8".to_owned())?;
        let (mut version, mut mode, mut max_age) = (None, None, None);
        let mut mx = Vec::new();
        for line in text.split('\n') {
            let line = line.strip_suffix('\r').unwrap_or(line);
            if line.trim().is_empty() {
                continue;
            }
            let (key, value) = line
                .split_once(':')
                .ok_or_else(|| "there is a line without a colon".to_owned())?;
            let (key, value) = (
                key.trim_matches([' ', '\t']),
                value.trim_matches([' ', '\t']),
            );
            match key {
                // RFC 8461 3.2: of fields that are there twice the first one counts.
                "version" => version = version.or(Some(value)),
                "mode" => mode = mode.or(Some(value)),
                "max_age" => max_age = max_age.or(Some(value)),
                "mx" => mx.push(pattern(value)?),
                // RFC 8461 3.2: what is not known is ignored.
                _ => {}
            }
        }
        if version != Some("STSv1") {
            return Err("its version is not STSv1".to_owned());
        }
        let mode = match mode {
            Some("enforce") => Mode::Enforce,
            Some("testing") => Mode::Testing,
            Some("none") => Mode::None,
            _ => return Err("its mode is none of enforce, testing and none".to_owned()),
        };
        let max_age = max_age
            .filter(|age| (1..=10).contains(&age.len()) && age.bytes().all(|c| c.is_ascii_digit()))
            .and_then(|age| age.parse::<u64>().ok())
            .ok_or_else(|| "it has no max_age".to_owned())?;
        if mx.is_empty() && mode != Mode::None {
            return Err("it names no mx".to_owned());
        }
        if mx.len() > HOSTS_MAX {
            return Err(format!("it names more than {HOSTS_MAX} hosts"));
        }
        Ok(Self {
            mode,
            max_age: max_age.min(AGE_MAX),
            mx,
        })
    }

    /// Whether it names this exchanger (RFC 8461 4.1).
    pub(crate) fn names(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        self.mx
            .iter()
            .any(|pattern| match pattern.strip_prefix("*.") {
                // RFC 6125 6.4.3: one label, the leftmost.
                Some(parent) => host
                    .split_once('.')
                    .is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
                None => *pattern == host,
            })
    }
}

/// `mail.example.com`, `*.example.net`
fn pattern(value: &str) -> Result<String, String> {
    let value = value.trim_end_matches('.').to_ascii_lowercase();
    let name = value.strip_prefix("*.").unwrap_or(&value);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'))
    };
    if name.len() > 253 || !name.split('.').all(label) {
        return Err("there is an mx that is no name of a host".to_owned());
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(text: &str) -> Result<Policy, String> {
        Policy::parse(text.as_bytes())
    }

    #[test]
    fn the_example_of_the_rfc() {
        // RFC 8461 3.2
        let policy = parse(
            "version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\n\
             mx: backupmx.example.com\r\nmax_age: 604800\r\n",
        )
        .unwrap();
        assert_eq!((policy.mode, policy.max_age), (Mode::Enforce, 604_800));
        assert_eq!(parse(&policy.to_string()), Ok(policy.clone()));
        assert_eq!(
            policy.mx,
            ["mail.example.com", "*.example.net", "backupmx.example.com"]
        );
        for (host, named) in [
            ("mail.example.com", true),
            ("MAIL.example.com.", true),
            ("mx.example.net", true),
            ("a.mx.example.net", false),
            ("example.net", false),
            (".example.net", false),
            ("mail.example.org", false),
            ("xmail.example.com", false),
        ] {
            assert_eq!(policy.names(host), named, "{host}");
        }
    }

    #[test]
    fn what_is_taken_and_what_is_not() {
        let with = |more: &str| parse(&format!("version: STSv1\nmax_age: 1\n{more}"));
        assert_eq!(with("mode: none").unwrap().mode, Mode::None);
        assert_eq!(with("mode: none\nmx: a.example").unwrap().mx, ["a.example"]);
        // Order, white space, extensions, empty lines, no last line end; the first of two counts.
        let odd = "max_age:10 \nmx:\tA.example.\nx-new: anything: ä\n\nmode: testing\nmode: enforce\nversion: STSv1";
        let odd = parse(odd).unwrap();
        assert_eq!(
            (odd.mode, odd.max_age, odd.mx),
            (Mode::Testing, 10, vec!["a.example".to_owned()])
        );
        let capped = parse("version: STSv1\nmode: none\nmax_age: 9999999999");
        assert_eq!(capped.unwrap().max_age, AGE_MAX);
        for bad in [
            "",
            "version: STSv2\nmode: none\nmax_age: 1",
            "mode: none\nmax_age: 1",
            "version: STSv1\nmode: none",
            "version: STSv1\nmode: off\nmax_age: 1",
            "version: STSv1\nmode: none\nmax_age: -1",
            "version: STSv1\nmode: none\nmax_age: 99999999999",
            "version: STSv1\nmode: enforce\nmax_age: 1",
            "version: STSv1\nmode: enforce\nmax_age: 1\nmx: *",
            "version: STSv1\nmode: enforce\nmax_age: 1\nmx: a.*.example",
            "version: STSv1\nmode: enforce\nmax_age: 1\nmx: ",
            "version: STSv1\nmode: enforce\nmax_age: 1\nmx: a b",
            "<html>",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(Policy::parse(&vec![b'\n'; SIZE_MAX + 1]).is_err());
        assert!(Policy::parse(b"version: STSv1\nmode: none\nmax_age: 1\nx: \xff").is_err());
    }
}
