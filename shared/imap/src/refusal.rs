//! How a command is refused that the parser cannot take.

/// What kind of answer is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// Tagged BAD: the syntax is wrong, or the command unknown.
    Bad,
    /// Tagged NO with CANNOT: a mailbox name that cannot be.
    Name,
    /// Tagged NO with BADCHARSET (RFC 9051 6.4.4): US-ASCII and UTF-8 are what there is.
    Charset {
        /// The search was to save what it finds: `$` is empty now (RFC 5182 2.1).
        saves: bool,
    },
}

/// Why, in words for the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// The kind of answer.
    pub kind: RefusalKind,
    /// What to say.
    pub text: &'static str,
}

impl Refusal {
    pub(crate) const fn bad(text: &'static str) -> Self {
        Self {
            kind: RefusalKind::Bad,
            text,
        }
    }

    pub(crate) const fn name(text: &'static str) -> Self {
        Self {
            kind: RefusalKind::Name,
            text,
        }
    }
}

/// A [`Refusal`] with the tag to answer to; without one the answer is untagged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{refusal}")]
pub struct Refused {
    /// The command's tag, if it has a valid one.
    pub tag: Option<String>,
    /// The rest of the answer.
    pub refusal: Refusal,
}
