//! Rights on mailboxes (RFC 4314).

use std::fmt;
use types::Grant;

/// A set of the rights' letters (RFC 4314 2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AclRights(u16);

/// The letters in the order in which they are shown.
const LETTERS: &str = "lrswipkxtea";

impl AclRights {
    /// None.
    pub const NONE: Self = Self(0);
    /// All of them: what an owner has.
    pub const ALL: Self = Self(0x7ff);

    /// Reads letters. `c` and `d` of RFC 2086 stand for `kx` and `te` (RFC 4314 2.1.1). `None`: there is no such right.
    pub fn parse(letters: &str) -> Option<Self> {
        let mut rights = Self::NONE;
        for letter in letters.chars() {
            let meant = match letter {
                'c' => "kx",
                'd' => "te",
                _ => {
                    rights = rights.with(Self::of(letter)?);
                    continue;
                }
            };
            for letter in meant.chars() {
                rights = rights.with(Self::of(letter)?);
            }
        }
        Some(rights)
    }

    fn of(letter: char) -> Option<Self> {
        let at = LETTERS.find(letter)?;
        Some(Self(1 << at))
    }

    /// As the database keeps it.
    #[cfg(feature = "writer")]
    pub(crate) fn number(self) -> u32 {
        u32::from(self.0)
    }

    pub(crate) fn from_number(number: u32) -> Self {
        Self(u16::try_from(number).unwrap_or_default() & Self::ALL.0)
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of these letters are in it; letters that are no rights never are.
    pub fn has(self, letters: &str) -> bool {
        Self::parse(letters).is_some_and(|wanted| self.0 & wanted.0 == wanted.0)
    }

    /// Whether one of these letters is in it.
    pub fn has_any(self, letters: &str) -> bool {
        letters
            .chars()
            .filter_map(Self::of)
            .any(|wanted| self.0 & wanted.0 != 0)
    }

    /// Both sets.
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without the other.
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// What a list gives to somebody: the rights of `anyone`, of the name and of the groups together, less those of the
    /// entries with `-` before them (RFC 4314 2).
    pub fn effective(entries: &[AclEntry], name: &str, groups: &[String]) -> Self {
        let name = name.to_lowercase();
        let groups: Vec<String> = groups
            .iter()
            .map(|group| format!("group={}", group.to_lowercase()))
            .collect();
        let meant = |identifier: &str| {
            identifier == "anyone"
                || identifier == name
                || groups.iter().any(|group| group == identifier)
        };
        let mut given = Self::NONE;
        let mut taken = Self::NONE;
        for entry in entries {
            match entry.identifier.strip_prefix('-') {
                Some(identifier) if meant(identifier) => taken = taken.with(entry.rights),
                None if meant(&entry.identifier) => given = given.with(entry.rights),
                _ => {}
            }
        }
        given.without(taken)
    }

    /// What a list gives to the holder of a grant.
    pub fn of_grant(entries: &[AclEntry], grant: &Grant) -> Self {
        let groups: Vec<String> = grant
            .groups
            .iter()
            .map(|group| group.name.clone())
            .collect();
        Self::effective(entries, &grant.name, &groups)
    }
}

impl fmt::Display for AclRights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in LETTERS.chars() {
            if Self::of(letter).is_some_and(|one| self.0 & one.0 != 0) {
                write!(f, "{letter}")?;
            }
        }
        Ok(())
    }
}

/// An entry of a mailbox's access control list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclEntry {
    /// `anyone`, an account's name, or `group=` and a group's address, in lower case, each perhaps with `-` before it.
    pub identifier: String,
    /// What it gives, or with `-` takes.
    pub rights: AclRights,
}

/// Whether an account's mail is the holder's own: its account, or one of a shared group's.
pub fn owns(grant: &Grant, account: types::AccountId) -> bool {
    grant.account == account
        || account.0 != 0 && grant.groups.iter().any(|group| group.account == account)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn entry(identifier: &str, rights: &str) -> AclEntry {
        AclEntry {
            identifier: identifier.to_owned(),
            rights: AclRights::parse(rights).unwrap(),
        }
    }

    #[test]
    fn letters_are_read_and_shown() {
        assert_eq!(AclRights::ALL.to_string(), LETTERS);
        assert_eq!(AclRights::parse("tlrs").unwrap().to_string(), "lrst");
        assert_eq!(AclRights::parse("cd").unwrap().to_string(), "kxte");
        assert!(AclRights::parse("lrq").is_none() && AclRights::parse("L").is_none());
        assert!(AclRights::parse("").unwrap().is_empty());
        let some = AclRights::parse("lr").unwrap();
        assert!(some.has("r") && some.has("lr") && !some.has("lrs") && some.has_any("sr"));
        assert_eq!(AclRights::from_number(3), some);
    }

    #[test]
    fn entries_add_up_and_negative_ones_take_away() {
        let list = [
            entry("anyone", "l"),
            entry("fred@example.org", "rs"),
            entry("group=staff@example.org", "wi"),
            entry("-fred@example.org", "w"),
            entry("-group=other@example.org", "l"),
        ];
        let staff = ["Staff@example.org".to_owned()];
        let fred = AclRights::effective(&list, "Fred@Example.org", &staff);
        assert_eq!(fred.to_string(), "lrsi");
        assert_eq!(
            AclRights::effective(&list, "x@example.org", &[]).to_string(),
            "l"
        );
        let other = ["other@example.org".to_owned()];
        assert!(AclRights::effective(&list, "x@example.org", &other).is_empty());
    }
}
