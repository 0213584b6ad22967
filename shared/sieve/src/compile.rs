//! Compiling scripts, within limits, and saying where they are wrong.

use crate::declare::declare;
use crate::token::{requirement, unfinished};
use serde::{Deserialize, Serialize};
use sieve_rs::compiler::grammar::{Capability, Comparator};
use sieve_rs::runtime::RuntimeError;
use sieve_rs::{Compiler, Input, Runtime, Script, Sieve};
use std::sync::Arc;

/// What a script may cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Octets of a script. 102,400.
    pub script_bytes: usize,
    /// Octets of a string in a script. 16,384.
    pub string_bytes: usize,
    /// Blocks within blocks. 15.
    pub nested_blocks: usize,
    /// Tests within tests. 15.
    pub nested_tests: usize,
    /// Scripts that are included, and how deep. 5.
    pub includes: usize,
    /// Steps of one run. 10,000.
    pub steps: usize,
    /// Octets of a variable. 16,384.
    pub variable_bytes: usize,
    /// Octets of a header field that a script makes. 4,096.
    pub header_bytes: usize,
    /// Addresses that one message is redirected to. 4.
    pub redirects: usize,
    /// Messages that one message may cause: redirects, answers, notifications. 6.
    pub messages: usize,
    /// Received fields from which on nothing is redirected or answered: a loop. 50.
    pub received: usize,
    /// Seconds after which the same sender is answered again, if a script does not say. 604,800.
    pub vacation_s: u64,
    /// Seconds for which a message counts as seen (RFC 7352), if a script does not say. 604,800.
    pub duplicate_s: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            script_bytes: 102_400,
            string_bytes: 16_384,
            nested_blocks: 15,
            nested_tests: 15,
            includes: 5,
            steps: 10_000,
            variable_bytes: 16_384,
            header_bytes: 4096,
            redirects: 4,
            messages: 6,
            received: 50,
            vacation_s: 604_800,
            duplicate_s: 604_800,
        }
    }
}

/// A script that can run.
pub type Compiled = Arc<Sieve>;

/// Why a script cannot run, and where that is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {text}")]
pub struct Problem {
    /// From 1.
    pub line: usize,
    /// From 1, in octets.
    pub column: usize,
    /// For people.
    pub text: String,
}

/// The extensions, as ManageSieve announces them (RFC 5804 1.7): those that work here.
pub fn capabilities() -> Vec<String> {
    let mut names: Vec<String> = Capability::all()
        .iter()
        .filter(|capability| offered(capability))
        .map(ToString::to_string)
        .collect();
    names.sort_unstable();
    names
}

/// Not offered: what needs a trigger in IMAP or a converter; and what belongs to another product.
fn offered(capability: &Capability) -> bool {
    !matches!(
        capability,
        // The standard's example of one that is not there (RFC 5228 2.7.3).
        Capability::Comparator(Comparator::Elbonia)
            | Capability::ImapSieve
            | Capability::Convert
            | Capability::Expressions
            | Capability::While
            | Capability::Other(_)
    )
}

/// Runs scripts within the limits. `hostname` stands in the ids of the messages they make.
pub fn runtime(limits: &Limits, hostname: &str) -> Runtime {
    let mut runtime = Runtime::new()
        .with_cpu_limit(limits.steps)
        .with_max_nested_includes(limits.includes)
        .with_max_variable_size(limits.variable_bytes)
        .with_max_header_size(limits.header_bytes)
        .with_max_redirects(limits.redirects)
        .with_max_out_messages(limits.messages)
        .with_max_received_headers(limits.received)
        .with_default_vacation_expiry(limits.vacation_s)
        .with_default_duplicate_expiry(limits.duplicate_s)
        .with_valid_notification_uri("mailto")
        .with_env_variable("name", "Posthouse")
        .with_env_variable("version", env!("CARGO_PKG_VERSION"))
        .with_env_variable("location", "MDA")
        .with_env_variable("phase", "during");
    // RFC 5293 6: what tells where a message came from stays.
    for header in ["Received", "Auto-Submitted", "Delivered-To", "Return-Path"] {
        runtime.set_protected_header(header);
    }
    for capability in Capability::all() {
        if !offered(capability) {
            runtime.unset_capability(capability.clone());
        }
    }
    runtime.set_local_hostname(hostname.to_owned());
    runtime
}

/// Compiles a script, and sees whether it requires only what there is.
///
/// # Errors
/// The first [`Problem`].
pub fn compile(script: &[u8], limits: &Limits) -> Result<Compiled, Problem> {
    if let Err(error) = std::str::from_utf8(script) {
        let (line, column) = place(script, error.valid_up_to());
        return Err(Problem {
            line,
            column,
            text: "the script is not UTF-8".to_owned(),
        });
    }
    let declared = declare(script);
    let compiler = Compiler::new()
        .with_max_script_size(limits.script_bytes.saturating_add(declared.len))
        .with_max_string_size(limits.string_bytes)
        .with_max_nested_blocks(limits.nested_blocks)
        .with_max_nested_tests(limits.nested_tests)
        .with_max_includes(limits.includes.max(1));
    let compiled = compiler.compile(&declared.script).map_err(|error| {
        let (line, column) = (error.line_num().max(1), error.line_pos().max(1));
        // The script's own columns, without the declarations.
        let (there, from) = place(script, declared.at);
        let shifted = line == there && column > from;
        let column = if shifted {
            column.saturating_sub(declared.len).max(1)
        } else {
            column
        };
        Problem {
            line,
            column,
            text: told(&error.to_string()),
        }
    })?;
    // The engine takes it so where the script ends with the command.
    if let Some(at) = unfinished(script) {
        let (line, column) = place(script, at);
        return Err(Problem {
            line,
            column,
            text: "a command ends with a semicolon, which is missing here".to_owned(),
        });
    }
    let compiled = Arc::new(compiled);
    required(script, &compiled, limits)?;
    Ok(compiled)
}

/// The engine's words without the place, which it adds behind them.
fn told(text: &str) -> String {
    let end = text.find(" at line ").unwrap_or(text.len());
    text.get(..end).unwrap_or(text).to_owned()
}

/// `require` is looked at when a script runs, before anything else: so it is run on an empty message up to its first event.
fn required(script: &[u8], compiled: &Compiled, limits: &Limits) -> Result<(), Problem> {
    let runtime = runtime(limits, "localhost");
    let mut context = runtime.filter(b"\r\n");
    let input = Input::script(Script::Personal(String::new()), Arc::clone(compiled));
    let missing = match context.run(input) {
        Some(Err(RuntimeError::CapabilityNotAllowed(capability))) => capability.to_string(),
        Some(Err(RuntimeError::CapabilityNotSupported(name))) => name,
        _ => return Ok(()),
    };
    let (line, column) = place(script, requirement(script, &missing).unwrap_or(0));
    Err(Problem {
        line,
        column,
        text: format!("there is no extension {missing:?} here"),
    })
}

/// Line and column of an octet, from 1.
fn place(script: &[u8], at: usize) -> (usize, usize) {
    let before = script.get(..at).unwrap_or(script);
    let line = before.iter().filter(|octet| **octet == b'\n').count() + 1;
    let start = before
        .iter()
        .rposition(|octet| *octet == b'\n')
        .map_or(0, |newline| newline + 1);
    (line, at - start + 1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_script_with_all_that_is_offered_compiles() {
        let names = capabilities();
        for name in [
            "fileinto",
            "vacation",
            "imap4flags",
            "editheader",
            "duplicate",
            "regex",
            "ihave",
            "mime",
        ] {
            assert!(
                names.iter().any(|known| known == name),
                "{name} in {names:?}"
            );
        }
        let list: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
        let script = format!("require [{}];\r\nkeep;\r\n", list.join(", "));
        compile(script.as_bytes(), &Limits::default()).unwrap();
    }

    #[test]
    fn mistakes_have_a_place() {
        let limits = Limits::default();
        let problem = |script: &str| compile(script.as_bytes(), &limits).unwrap_err();
        let found = problem("require \"fileinto\";\nif true {\n  fileinto;\n}\n");
        assert_eq!(found.line, 3, "{found}");
        let found = problem("require [\"fileinto\",\n  \"imapsieve\"];\nkeep;\n");
        assert_eq!((found.line, found.column), (2, 3), "{found}");
        let found = problem("require \"vnd.example.unknown\";\nkeep;\n");
        assert_eq!((found.line, found.column), (1, 9), "{found}");
        let found = problem("# \"imapsieve\"\nrequire \"imapsieve\";\nkeep;\n");
        assert_eq!((found.line, found.column), (2, 9), "{found}");
        assert!(problem("fileinto \"x\";").text.contains("fileinto"));
        let found = compile(b"keep;\n# \xff\n", &limits).unwrap_err();
        assert_eq!((found.line, found.column), (2, 3));
    }

    #[test]
    fn commands_end_with_semicolons() {
        let limits = Limits::default();
        for (script, line, column) in [
            ("keep", 1, 5),
            ("keep;\r\nstop", 2, 5),
            ("if true {\n  keep }\n", 2, 8),
            ("keep;\nstop\n# ;\n", 4, 1),
        ] {
            let found = compile(script.as_bytes(), &limits).unwrap_err();
            assert_eq!(
                (found.line, found.column),
                (line, column),
                "{script}: {found}"
            );
        }
        for script in [
            "",
            "# nothing\n",
            "keep; # the end",
            "if anyof(true, header :is \"a\" [\"b};\", \"c\"]) { keep; } else {}",
            "require \"reject\";\nreject text:\nno; }\n..\n.\n;\n",
        ] {
            compile(script.as_bytes(), &limits).unwrap();
        }
    }

    #[test]
    fn places_do_not_count_declarations() {
        let limits = Limits::default();
        let bare = "require [\"variables\", \"fileinto\"]; if true { fileinto; }";
        let with = "require [\"variables\", \"fileinto\"]; if true { fileinto; set \"a\" \"b\"; }";
        let problem = |script: &str| compile(script.as_bytes(), &limits).unwrap_err();
        assert_eq!(problem(bare), problem(with));
    }

    #[test]
    fn limits_hold() {
        let limits = Limits {
            script_bytes: 10,
            ..Limits::default()
        };
        compile(b"keep;", &limits).unwrap();
        compile(b"keep; # and more", &limits).unwrap_err();
        let deep = format!("{}keep;{}", "if true {".repeat(40), "}".repeat(40));
        compile(deep.as_bytes(), &Limits::default()).unwrap_err();
    }
}
