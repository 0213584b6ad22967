//! Why a command did not do its work, and the exit status that tells it.

use std::fmt;
use std::process::ExitCode;

/// A failed command. The text says what to do where that is known.
#[derive(Debug)]
pub(crate) struct Failure {
    /// 1 not done, 3 a check found errors, 4 a daemon could not be reached.
    pub(crate) status: u8,
    /// For standard error.
    pub(crate) text: String,
}

impl Failure {
    /// It could not be done.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self {
            status: 1,
            text: text.into(),
        }
    }

    /// A check found errors; they are printed already.
    pub(crate) fn check(text: impl Into<String>) -> Self {
        Self {
            status: 3,
            text: text.into(),
        }
    }

    /// A daemon could not be reached.
    pub(crate) fn unreachable(text: impl Into<String>) -> Self {
        Self {
            status: 4,
            text: text.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<Failure> for ExitCode {
    fn from(failure: Failure) -> Self {
        ExitCode::from(failure.status)
    }
}
