//! What an address becomes.

use super::pattern::Pattern;
use types::Address;

#[derive(Debug)]
pub(super) enum Template {
    /// The same local part in another domain.
    Domain(Text),
    /// Another local part, and another domain.
    Parts(Text, Text),
    /// All comes from captures.
    Whole(Text),
}

/// A text with captures in it.
#[derive(Debug)]
pub(super) struct Text(Vec<Part>);

#[derive(Debug)]
enum Part {
    Literal(String),
    /// `$1` is 0.
    Capture(usize),
}

impl Text {
    fn new(text: &str, groups: usize) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            if c != '$' {
                literal.push(c);
                continue;
            }
            match chars.next() {
                Some('$') => literal.push('$'),
                Some(digit @ '1'..='9') => {
                    let group = digit.to_digit(10).map_or(0, |digit| digit as usize);
                    if group > groups {
                        return Err(format!("${group}: `from` has {groups} captures"));
                    }
                    if !literal.is_empty() {
                        parts.push(Part::Literal(std::mem::take(&mut literal)));
                    }
                    parts.push(Part::Capture(group - 1));
                }
                _ => {
                    return Err(
                        "a $ is followed by a digit from 1 to 9, or by another $".to_owned()
                    );
                }
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self(parts))
    }

    fn expand(&self, captures: &[String]) -> String {
        let text = |part: &Part| match part {
            Part::Literal(text) => text.clone(),
            Part::Capture(group) => captures.get(*group).cloned().unwrap_or_default(),
        };
        self.0.iter().map(text).collect()
    }
}

impl Template {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn new(text: &str, from: &Pattern) -> Result<Self, String> {
        let groups = from.groups();
        let part =
            |part: &str| Text::new(part, groups).map_err(|error| format!("to {text:?}: {error}"));
        if !text.contains('$') {
            let whole = match text.strip_prefix('@') {
                Some(domain) => Address::new("x", domain),
                None => text.parse::<Address>(),
            };
            let whole = whole.map_err(|error| format!("to {text:?}: {error}"))?;
            if whole.needs_utf8() {
                return Err(format!(
                    "to {text:?}: not every client's mail may go to it (SMTPUTF8)"
                ));
            }
        }
        match text.rsplit_once('@') {
            Some(("", domain)) => Ok(Self::Domain(part(domain)?)),
            Some((local, domain)) => Ok(Self::Parts(part(local)?, part(domain)?)),
            None => Ok(Self::Whole(part(text)?)),
        }
    }

    /// The new address; `None` if it is none.
    pub(super) fn expand(&self, address: &Address, captures: &[String]) -> Option<Address> {
        match self {
            Self::Domain(domain) => Address::new(address.local(), &domain.expand(captures)),
            Self::Parts(local, domain) => {
                Address::new(&local.expand(captures), &domain.expand(captures))
            }
            Self::Whole(text) => {
                let text = text.expand(captures);
                let (local, domain) = text.rsplit_once('@')?;
                Address::new(local, domain)
            }
        }
        .ok()
    }
}
