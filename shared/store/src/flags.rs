//! Flags and keywords of a message (RFC 9051 2.3.2).

use std::fmt;

/// The system flags, as a set.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SystemFlags(pub u8);

impl SystemFlags {
    /// `\Seen`
    pub const SEEN: Self = Self(1);
    /// `\Answered`
    pub const ANSWERED: Self = Self(2);
    /// `\Flagged`
    pub const FLAGGED: Self = Self(4);
    /// `\Deleted`
    pub const DELETED: Self = Self(8);
    /// `\Draft`
    pub const DRAFT: Self = Self(16);

    /// All, with their names in the order in which they are shown.
    pub const NAMES: [(Self, &'static str); 5] = [
        (Self::ANSWERED, "\\Answered"),
        (Self::FLAGGED, "\\Flagged"),
        (Self::DELETED, "\\Deleted"),
        (Self::SEEN, "\\Seen"),
        (Self::DRAFT, "\\Draft"),
    ];

    /// Whether all of `other` are set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets.
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without the other.
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl fmt::Debug for SystemFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (flag, name) in Self::NAMES {
            if self.contains(flag) {
                f.write_str(name)?;
            }
        }
        Ok(())
    }
}

/// Why a name is no flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// Begins with a backslash, but is none of the five. `\Recent` cannot be set (RFC 9051 2.3.2).
    #[error("no such system flag")]
    System,
    /// A character that is not allowed in an atom, or nothing.
    #[error("a keyword must be an atom")]
    Keyword,
    /// More than [`Flags::KEYWORDS_MAX`], or one longer than [`Flags::KEYWORD_LENGTH_MAX`].
    #[error("too many or too long keywords")]
    Limit,
}

/// The flags of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags {
    /// Those with a backslash.
    pub system: SystemFlags,
    /// The keywords, sorted without case, each once, with a space between; their first spelling in the message is kept.
    pub keywords: String,
}

impl Flags {
    /// Keywords of one message at most.
    pub const KEYWORDS_MAX: usize = 100;
    /// Octets of a keyword at most.
    pub const KEYWORD_LENGTH_MAX: usize = 100;

    /// Reads names as IMAP writes them, in any case.
    ///
    /// # Errors
    /// [`FlagError`]
    pub fn parse<S: AsRef<str>>(names: &[S]) -> Result<Self, FlagError> {
        let mut system = SystemFlags::default();
        let mut keywords: Vec<&str> = Vec::new();
        for name in names.iter().map(AsRef::as_ref) {
            if name.starts_with('\\') {
                let found = SystemFlags::NAMES
                    .iter()
                    .find(|(_, known)| known.eq_ignore_ascii_case(name));
                system = system.with(found.ok_or(FlagError::System)?.0);
                continue;
            }
            // RFC 9051 9: flag-keyword is an atom
            let atom = |b: u8| b.is_ascii_graphic() && !b"(){%*\"\\]".contains(&b);
            if name.is_empty() || !name.bytes().all(atom) {
                return Err(FlagError::Keyword);
            }
            if name.len() > Self::KEYWORD_LENGTH_MAX {
                return Err(FlagError::Limit);
            }
            keywords.push(name);
        }
        Ok(Self {
            system,
            keywords: joined(keywords)?,
        })
    }

    /// The keywords.
    pub fn keywords(&self) -> impl Iterator<Item = &str> {
        self.keywords.split(' ').filter(|word| !word.is_empty())
    }

    /// All names, as IMAP shows them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        SystemFlags::NAMES
            .into_iter()
            .filter(|(flag, _)| self.system.contains(*flag))
            .map(|(_, name)| name)
            .chain(self.keywords())
    }

    /// With those of `other` too.
    ///
    /// # Errors
    /// [`FlagError::Limit`]
    pub fn with(&self, other: &Self) -> Result<Self, FlagError> {
        let all = self.keywords().chain(other.keywords()).collect();
        Ok(Self {
            system: self.system.with(other.system),
            keywords: joined(all)?,
        })
    }

    /// Without those of `other`.
    pub fn without(&self, other: &Self) -> Self {
        let kept: Vec<&str> = self
            .keywords()
            .filter(|word| !other.keywords().any(|gone| gone.eq_ignore_ascii_case(word)))
            .collect();
        Self {
            system: self.system.without(other.system),
            keywords: kept.join(" "),
        }
    }
}

fn joined(mut words: Vec<&str>) -> Result<String, FlagError> {
    // Stable: of two spellings the first one stays.
    words.sort_by_key(|word| word.to_ascii_lowercase());
    words.dedup_by(|next, first| next.eq_ignore_ascii_case(first));
    if words.len() > Flags::KEYWORDS_MAX {
        return Err(FlagError::Limit);
    }
    Ok(words.join(" "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn flags_are_sets_without_case() {
        let flags = Flags::parse(&["\\seen", "$Junk", "b", "$junk", "\\DRAFT"]).unwrap();
        assert_eq!(
            flags.names().collect::<Vec<_>>(),
            ["\\Seen", "\\Draft", "$Junk", "b"]
        );
        let more = flags.with(&Flags::parse(&["B", "a"]).unwrap()).unwrap();
        assert_eq!(more.keywords, "$Junk a b");
        let less = more.without(&Flags::parse(&["$JUNK", "\\Seen"]).unwrap());
        assert_eq!(less.names().collect::<Vec<_>>(), ["\\Draft", "a", "b"]);
        for bad in ["\\Recent", "\\x", "", "a b", "ä", "a(b", "a*"] {
            assert!(Flags::parse(&[bad]).is_err(), "{bad}");
        }
    }
}
