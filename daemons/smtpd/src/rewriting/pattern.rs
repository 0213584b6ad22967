//! Which addresses a rule means.

use regex::{Regex, RegexBuilder};
use types::Address;

/// Characters of an expression.
const EXPRESSION: usize = 512;

/// Octets that a compiled expression and its cache may take: linear time is the crate's own promise.
const COMPILED: usize = 256 * 1024;

#[derive(Debug)]
pub(super) enum Pattern {
    /// Everybody, nobody (`<>`) too.
    Any,
    /// The null sender.
    Null,
    /// One address, as filed.
    Exact(String),
    /// All of a domain.
    Domain(String),
    /// All of the domains below one, which is written with its dot.
    Below(String),
    /// What fits as a whole.
    Expression(Regex),
}

impl Pattern {
    /// Reads it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let fault = |error: &dyn std::fmt::Display| format!("{text:?}: {error}");
        let domain = |name: &str| Address::domain_of(name).map_err(|error| fault(&error));
        if text == "*" {
            return Ok(Self::Any);
        }
        if text == "<>" {
            return Ok(Self::Null);
        }
        if let Some(expression) = text.strip_prefix('/') {
            let expression = expression.strip_suffix('/');
            let expression = expression.ok_or_else(|| fault(&"an expression ends with a slash"))?;
            if expression.chars().count() > EXPRESSION {
                return Err(fault(&format!("more than {EXPRESSION} characters")));
            }
            // Alone first: what is whole only inside of the brackets is none.
            let alone = Regex::new(expression).map(drop);
            alone.map_err(|error| fault(&error))?;
            return RegexBuilder::new(&format!("^(?:{expression})$"))
                .case_insensitive(true)
                .size_limit(COMPILED)
                .dfa_size_limit(COMPILED)
                .build()
                .map(Self::Expression)
                .map_err(|error| fault(&error));
        }
        if let Some(name) = text.strip_prefix('@') {
            return domain(name).map(Self::Domain);
        }
        if let Some(name) = text.strip_prefix('.') {
            return domain(name).map(|name| Self::Below(format!(".{name}")));
        }
        let address = text.parse::<Address>().map_err(|error| fault(&error))?;
        Ok(Self::Exact(address.key()))
    }

    /// How many captures it has.
    pub(super) fn groups(&self) -> usize {
        match self {
            Self::Any | Self::Null | Self::Exact(_) => 0,
            Self::Domain(_) => 1,
            Self::Below(_) => 2,
            Self::Expression(expression) => expression.captures_len().saturating_sub(1),
        }
    }

    /// Whether it means this address; `None` is the null sender.
    pub(super) fn fits(&self, address: Option<&Address>) -> bool {
        match (self, address) {
            (Self::Any, _) | (Self::Null, None) => true,
            (_, None) => false,
            (Self::Expression(expression), Some(address)) => expression.is_match(&whole(address)),
            (_, Some(address)) => self.captures(address).is_some(),
        }
    }

    /// What it captures of an address; `None` if it does not mean it.
    pub(super) fn captures(&self, address: &Address) -> Option<Vec<String>> {
        match self {
            Self::Any => Some(Vec::new()),
            Self::Null => None,
            Self::Exact(key) => {
                // Most addresses are others: only what has the same length costs something.
                let long = address.local().len() + 1 + address.domain().len();
                let same = address.local().is_ascii() && long != key.len();
                (!same && address.key() == *key).then(Vec::new)
            }
            Self::Domain(name) => {
                (address.domain() == name).then(|| vec![address.local().to_owned()])
            }
            Self::Below(name) => {
                let before = address.domain().strip_suffix(name.as_str())?;
                Some(vec![address.local().to_owned(), before.to_owned()])
            }
            Self::Expression(expression) => {
                let whole = whole(address);
                let found = expression.captures(&whole)?;
                let text = |group: Option<regex::Match<'_>>| {
                    group.map_or_else(String::new, |group| group.as_str().to_owned())
                };
                Some(found.iter().skip(1).map(text).collect())
            }
        }
    }
}

/// The address without quotes.
fn whole(address: &Address) -> String {
    format!("{}@{}", address.local(), address.domain())
}
